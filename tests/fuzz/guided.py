"""A fuzzer that is guided by coverage, for hours that somebody can spare: not a test, and run by hand.

    pip install atheris
    python tests/fuzz/guided.py FOLDER -max_total_time=3600

FOLDER is where inputs are kept that reached something new; it begins with honest samples of every format, and `-h` of libFuzzer tells the
rest. Any other end than a value or an error of the family is a crash, and so is one input that takes ten seconds or a gigabyte.
What was kept so far stands in tests/fuzz/corpus.zip, which test_corpus replays.
"""

import io
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import atheris

with atheris.instrument_imports(include=["tensorkeep"]):
    import tensorkeep as tk
    import tensorkeep.opening
    from tensorkeep.formats import table

    for row in table.ROWS:
        table.reader(*row[:2])

from fuzz.samples import single_files
from tensorkeep.tree import tensors

_MOST_BYTES = 1 << 20  # of one tensor: what is read of a larger one is read alike


def one(data: bytes) -> None:
    """Open, read, show and scan."""
    try:
        with tk.open(io.BytesIO(data)) as contents:
            for _, tensor in tensors(contents.tree):
                tensor.source.read(0, min(tensor.nbytes, _MOST_BYTES))
        tk.show(io.BytesIO(data))
    except tk.TensorkeepError as error:
        assert str(error).strip()
    if hasattr(tk, "scan"):
        tk.scan(io.BytesIO(data))


def main() -> None:
    warnings.simplefilter("ignore")
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    for folder in folders[:1]:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in single_files().items():
            (folder / name.replace(" ", "-")).write_bytes(data)
    atheris.Setup([sys.argv[0], "-timeout=10", "-rss_limit_mb=1500", "-max_len=20000", *sys.argv[1:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

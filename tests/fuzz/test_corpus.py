"""What a fuzzer guided by coverage has kept: inputs that each reached something new, in readers of all formats."""

import io
import zipfile
from pathlib import Path

import tensorkeep as tk
from tensorkeep.tree import tensors

CORPUS = Path(__file__).parent / "corpus.zip"


def test_every_kept_input_ends_well() -> None:
    """Opened, read whole, shown and scanned: a value or an error of the family. `guided.py` finds more of them."""
    count = 0
    with zipfile.ZipFile(CORPUS) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            try:
                with tk.open(io.BytesIO(data)) as contents:
                    for _, tensor in tensors(contents.tree):
                        tensor.source.read(0, min(tensor.nbytes, 1 << 20))
                tk.show(io.BytesIO(data))
            except tk.TensorkeepError as error:
                assert str(error).strip(), name
            tk.scan(io.BytesIO(data))
            count += 1
    assert count > 500

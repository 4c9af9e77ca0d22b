"""One trial of some bytes: every way into a file is tried, and every way out but a value or an error of the family fails.

Lives here: the ways in, and what is measured. Lives elsewhere: the bytes (test_parsers, hostile).
"""

import contextlib
import functools
import io
import shutil
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import tensorkeep as tk
from craft import model_file
from fuzz import hostile
from fuzz.hostile import torch
from tensorkeep.cli import run

SOON_S = 5.0  # a bound against quadratic time on a loaded machine, not a speed
AMPLIFIED = 120  # bytes of memory a byte of the file: an empty list of JSON is two, one of Python's sixty
FLOOR_BYTES = 4 << 20
_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "exec", "compile", "import")

_watched: list[str] | None = None


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _watched is not None and event in _FORBIDDEN:
        _watched.append(f"{event} {arguments!r:.200}")


sys.addaudithook(_hear)


def _open(data: bytes) -> None:
    with tk.open(io.BytesIO(data)) as contents:
        repr(contents)
        for tensor in contents.tensors.values():
            repr(tensor)
            with contextlib.suppress(tk.UnsupportedError):  # packed F6 has bytes and no values
                tensor.numpy()
            with contextlib.suppress(tk.UnsupportedError, IndexError):  # a scalar has no rows, half a byte is none
                tensor[:2]
            tensor.tobytes()


def _target() -> dict[str, object]:
    return {
        "w": np.full(4, 7, np.float32),
        **({"t": torch.full((2, 2), 7.0), "net": torch.nn.Linear(2, 2)} if torch else {}),
        "rng": np.random.Generator(np.random.PCG64(7)),
        "steps": [np.full(2, 7, np.int64)],
        "n": 3,
    }


def _bits(target: dict[str, object]) -> list[object]:
    rng, steps = target["rng"], target["steps"]
    arrays = [target["w"], steps[0]]
    if torch:
        arrays += [target["t"].numpy(), *(value.numpy() for value in target["net"].state_dict().values())]
    return [*(array.tobytes() for array in arrays), rng.bit_generator.state, target["n"], len(steps)]


def _into(data: bytes, *, strict: bool) -> None:
    target = _target()
    before = _bits(target)
    try:
        tk.loads(data, into=target, strict=strict)
    except tk.TensorkeepError:
        assert _bits(target) == before, "a load that failed changed its target"
        raise


def _said(arguments: list[str]) -> Callable[[], None]:
    def act() -> None:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            run(arguments)
        strange = {char for char in out.getvalue() if not char.isprintable() and char != "\n"}
        assert not strange, f"what no terminal should see: {strange}"

    return act


def ways(data: bytes, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every way into a file."""
    path = folder / "trial.safetensors"
    path.write_bytes(data)
    yield "loads", lambda: tk.loads(data)
    yield "load", lambda: tk.load(path, mmap=True, only="*a*", rename={"*.*": "*.*"})
    if torch:
        yield "load as torch", lambda: tk.load(path, framework="torch", verify=False)
    yield "open", lambda: _open(data)
    yield "verify", lambda: tk.verify(path)
    yield "show", lambda: tk.show(path)
    yield "into", lambda: _into(data, strict=True)
    yield "into, not strict", lambda: _into(data, strict=False)
    yield "command show", _said(["show", str(path)])
    yield "command show --json", _said(["show", str(path), "--json"])
    yield "command show --tensor", _said(["show", str(path), "--tensor", "w"])
    yield "command verify", _said(["verify", str(path)])


@functools.cache
def _warm() -> None:
    """Import what is imported late, before anybody listens for code that runs."""
    folder = Path(tempfile.mkdtemp(prefix="tensorkeep-fuzz-"))
    "\x1b".encode("unicode_escape")
    for seed in (*hostile.seeds(), b"", model_file(hostile.with_all_tensors({"path": "a"}), hostile.ENTRIES)):
        for _, act in ways(seed, folder):
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                act()
    shutil.rmtree(folder)


def ends_well(data: bytes, folder: Path, *, measured: bool = False) -> dict[str, tk.TensorkeepError]:
    """Try all ways: each gives a value or an error of the family, soon, in bounded memory, and runs nothing.

    Args:
        data: the file.
        folder: where to put it.
        measured: also take its memory, which makes it some five times slower.

    Returns:
        By way, the error it ended with, if it did.
    """
    global _watched
    _warm()
    errors: dict[str, tk.TensorkeepError] = {}
    for name, act in ways(data, folder):
        begin = time.process_time()
        if measured:
            tracemalloc.start()
        _watched = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                act()
        except tk.TensorkeepError as error:
            errors[name] = error
            strange = {char for char in str(error) if not char.isprintable() and char != "\n"}
            assert not strange, f"{name}: its message has what no terminal should see: {strange}"
            assert len(str(error)) < 20_000, f"{name}: a message of {len(str(error)):,} characters"
        finally:
            heard, _watched = _watched, None
            peak = tracemalloc.get_traced_memory()[1] if measured else 0
            tracemalloc.stop()
        assert not heard, f"{name}: {heard}"
        assert time.process_time() - begin < SOON_S * (5 if measured else 1), name
        assert peak < FLOOR_BYTES + AMPLIFIED * len(data), f"{name}: {peak:,} bytes for a file of {len(data):,}"
    return errors

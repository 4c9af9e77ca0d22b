"""The walk: a thing and all that stands inside of it, each looked at by every trap of the table that knows it."""

from typing import Final

from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.scanning import commands, pickles
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.scanning.table import ROWS

_SURE: Final = frozenset({"zip", "tar", "closed archive", "NumPy", "safetensors", "GGUF", "HDF5", "TensorFlow Lite", "text"})
"""Formats with a mark of their own: what has it is read as that, and not searched for pickles at any place."""

_MARKED: Final = frozenset(
    {
        *(".h5", ".hdf5", ".hdf", ".keras", ".npy", ".npz", ".gguf", ".safetensors", ".tar", ".zip", ".mar", ".skops", ".tflite", ".ptl"),
        *(".pt2", ".jit", ".nemo", ".gz", ".tgz", ".xz", ".bz2", ".zst", ".lz4", ".lzma", ".7z", ".rar"),
    }
)
"""What files of formats with a mark are called: one without it could not be read."""

_TABLE_END: Final = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # of the tables that TensorFlow 1 kept checkpoints in
_LOST: Final = b"version https://git-lfs"
READ: Final = frozenset({".msgpack", ".mat", ".caffemodel"})
"""What files are called whose format has no mark, or none that a trap looks for: a reader alone can tell what they are."""

MODELS: Final = pickles.NAMES | _MARKED | READ | {".onnx"}
"""What files of models are called: in place of one, neither nothing nor the answer of a server is an ordinary text."""


def look_at(thing: Thing, look: Look) -> None:
    """Look at a thing with every trap that knows it; and for pickles anywhere, where none is sure what it is."""
    if thing.head.startswith(_LOST):
        look.stopped(thing.place, "a pointer of Git LFS in place of the file")
        return
    sure = known = False
    for trap in ROWS:
        try:
            if not trap.recognizes(thing):
                continue
            answer = trap.scan(thing, look)
            sure = sure or answer is True or trap.name in _SURE
            known = known or trap.name != "pickle"
        except (FormatError, CorruptError) as error:
            look.stopped(thing.place, str(getattr(error, "problem", error)).partition("\n")[0])
        except RecursionError:
            look.stopped(thing.place, "nested too deeply")
    if sure or thing.tensor:
        return
    try:
        found = pickles.search(thing, look)
    except (FormatError, CorruptError) as error:
        look.stopped(thing.place, str(getattr(error, "problem", error)).partition("\n")[0])
        return
    if found:
        return
    commands.search(thing, look)
    if (thing.suffix in pickles.NAMES or thing.suffix in _MARKED or thing.suffix == ".json") and not known and not _is_table(thing):
        look.stopped(thing.place, f"called {thing.suffix}, and neither that nor another format that is known")


def _is_table(thing: Thing) -> bool:
    return thing.extent.nbytes > 48 and bytes(thing.extent.read(thing.extent.nbytes - 8, thing.extent.nbytes)) == _TABLE_END

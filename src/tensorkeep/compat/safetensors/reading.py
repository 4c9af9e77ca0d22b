"""A safetensors file as its header tells it: names, dtypes and texts as they stand there, also where it is a model file of ours."""

from collections.abc import Mapping
from os import PathLike

from tensorkeep import dtypes
from tensorkeep.backends import local
from tensorkeep.backends.files import File, MemoryFile
from tensorkeep.contents import Contents
from tensorkeep.limits import DEFAULT_LIMITS
from tensorkeep.modelfile.read import read_contents
from tensorkeep.modelfile.storage import FileBytes, FileStorage
from tensorkeep.tensors import LazyTensor


class Stored:
    """What an open file holds. Its tensors are compared with their digests when they are read, if it has some.

    Attributes:
        tensors: in file order.
        metadata: the texts of the header; None where it has no place for any.
        storage: their bytes.
    """

    def __init__(self, contents: Contents) -> None:
        storage = contents.storage
        assert isinstance(storage, FileStorage), "every safetensors file has one"
        self.storage = storage
        self.tensors: dict[str, LazyTensor] = {
            name: LazyTensor(span.spec, FileBytes(storage, span.start, span.stop, span.spec.dtype is dtypes.BOOL), "numpy", name)
            for name, span in storage.header.spans.items()
        }
        self.metadata: Mapping[str, str] | None = storage.header.metadata or None

    def close(self) -> None:
        self.storage.close()


def open_file(name: "str | PathLike[str]", *, mmap: bool | None) -> Stored:
    """Open a file.

    Raises:
        FormatError, CorruptError: it is no safetensors file, or its header is not the one that was written.
        FileNotFoundError: nothing is there.
    """
    return _read(local.ReadFile(name), mmap=mmap)


def open_bytes(data: "bytes | bytearray | memoryview") -> Stored:
    """The same for bytes in memory."""
    view = memoryview(data)
    view = view if view.format == "B" and view.ndim == 1 else view.cast("B")
    return _read(MemoryFile(view, "<bytes>"), mmap=False)


def _read(file: File, *, mmap: bool | None) -> Stored:
    try:
        return Stored(read_contents(file, verify=True, mmap=mmap, limits=DEFAULT_LIMITS))
    except BaseException:
        file.close()
        raise

"""fingerprint and same: which model a file holds, whatever its format, order and shards."""

from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from typing import BinaryIO, Final

from tensorkeep.chunks import digest
from tensorkeep.contents import Contents
from tensorkeep.limits import Limits
from tensorkeep.opening import open_contents
from tensorkeep.progress import Progress
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import named_tensors
from tensorkeep.verbs.hashing import tensor_digests

SHORT: Final = 16  # hex digits: 64 bits, enough to tell all models apart that anyone will ever meet by chance
_NAMED: Final = b"tensorkeep fingerprint 1: names\n"
_UNNAMED: Final = b"tensorkeep fingerprint 1: content\n"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Which model a file holds.

    Attributes:
        file: the file as it was named.
        names: 64 hex digits, of names, dtypes, shapes and bytes of all tensors.
        content: 64 hex digits, of dtypes, shapes and bytes: the same where tensors have other names.
        tensors: how many names there are; a tied tensor has several.
        nbytes: of the tensors under all these names.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"a": np.arange(3), "b": np.ones(2)}, "one.safetensors")
        >>> tk.save({"b": np.ones(2), "a": np.arange(3)}, "two.safetensors")
        >>> tk.fingerprint("one.safetensors").short == tk.fingerprint("two.safetensors").short
        True
    """

    file: str
    names: str
    content: str
    tensors: int
    nbytes: int

    @property
    def short(self) -> str:
        """The first 16 digits of `names`: what people write down."""
        return self.names[:SHORT]


def fingerprint(path: "str | PathLike[str] | BinaryIO", *, limits: Limits | None = None, progress: Progress | None = None) -> Fingerprint:
    """Tell which model a file holds: equal for `.pt`, `.safetensors`, `.h5`, `.npz`, in shards or not, in any order.

    It is of the tensors alone: plain values, metadata and the structure around them do not count. Digests in a model file are believed, so
    nothing of its larger tensors is read: `verify` tells whether they fit.

    Args:
        path: any file, or folder, that `load` reads.
        limits: bounds on what the file may ask for.
        progress: called with the bytes done and in all, of those that have to be read.

    Returns:
        Fingerprint: one of names and bytes, and one of bytes alone.

    Raises:
        FormatError: no file that tensorkeep reads.
        CorruptError: bytes are not those that were written.
        FileNotFoundError: nothing is there.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"w": np.arange(3, dtype=np.float32)}, "w.safetensors")
        >>> tk.fingerprint("w.safetensors").short
        '...'

    Source: docs/format.md, section "Fingerprints".
    """
    with open_contents(path, mmap=False, limits=limits) as contents:
        return _of(contents, progress)


def same(
    a: "str | PathLike[str] | BinaryIO",
    b: "str | PathLike[str] | BinaryIO",
    *,
    names: bool = True,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> bool:
    """Whether two files hold the same tensors, bit for bit, whatever their formats.

    Args:
        a, b: any files, or folders, that `load` reads.
        names: whether the names must be the same too.
        limits: bounds on what a file may ask for.
        progress: called with the bytes done and in all, of one file and then of the other.

    Returns:
        Whether they are the same.

    Raises:
        FormatError: no file that tensorkeep reads.
        CorruptError: bytes are not those that were written.
        FileNotFoundError: nothing is there.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"w": np.ones(3)}, "a.safetensors")
        >>> tk.save({"v": np.ones(3)}, "b.safetensors")
        >>> tk.same("a.safetensors", "b.safetensors"), tk.same("a.safetensors", "b.safetensors", names=False)
        (False, True)
    """
    first, second = (fingerprint(path, limits=limits, progress=progress) for path in (a, b))
    return first.names == second.names if names else first.content == second.content


def _of(contents: Contents, progress: Progress | None) -> Fingerprint:
    tensors = named_tensors(contents.tree)
    digests = tensor_digests(tensors.values(), progress, [contents.storage.in_passing(tensors.values())])
    named, unnamed = [], []
    for name, tensor in tensors.items():
        content = _spec_digest(tensor) + digests[id(tensor)]
        named.append(digest(digest(name.encode("utf-8", "surrogatepass")), content))
        unnamed.append(digest(content))
    return Fingerprint(
        contents.file,
        _sum(_NAMED, named),
        _sum(_UNNAMED, unnamed),
        len(tensors),
        sum(tensor.nbytes for tensor in tensors.values()),
    )


def _spec_digest(tensor: LazyTensor) -> bytes:
    return digest(str(tensor.spec).encode("utf-8", "surrogatepass"))


def _sum(kind: bytes, records: Iterable[bytes]) -> str:
    """One digest of many, in whatever order they come."""
    return digest(kind, *sorted(records)).hex()

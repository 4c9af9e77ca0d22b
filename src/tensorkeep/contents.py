"""Contents: what stands in an opened file, folder or checkpoint.

Lives here: `Contents` and `Finding`, and `Storage`, the protocol of whatever holds the bytes of many tensors at once.
Lives elsewhere: who fills them (modelfile, formats).
"""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self

from tensorkeep.errors import escaped
from tensorkeep.progress import Progress
from tensorkeep.tensors import Array, LazyTensor
from tensorkeep.tree import Tree, walk

_SHOWN: Final = 3  # paths of a file in a message
_COMPARED: Final = 2000  # paths that are looked through for one that is close

Placed = tuple["memoryview | bytearray | Array", int]
"""Where the bytes of a tensor are in memory: a buffer, which begins on a multiple of 16, and the offset of the first one.

A buffer that is an array is `fresh`: these bytes of it are this tensor's alone. Any other may be a file that somebody changes."""

Placement = Callable[[LazyTensor], Placed]
"""Tells of each tensor that was placed where it is."""


class Tensors(dict[str, LazyTensor]):
    """Tensors by path, in file order. A tied one is found by each of its paths; a wrong path is answered with the one that was meant."""

    def __init__(self) -> None:
        super().__init__()
        self.file = ""  # for messages, from the contents they are in
        self.tree: Tree = None  # set once it is known. It holds the same tensors and never this dict: so there is no cycle
        self._tied: dict[str, LazyTensor] | None = None

    def __missing__(self, path: str) -> LazyTensor:
        if self._tied is None:  # all at once: a file may have thousands of ties
            self._tied = {other: leaf for other, leaf in walk(self.tree) if isinstance(leaf, LazyTensor) and other not in self}
        if path in self._tied:
            return self._tied[path]
        raise KeyError(f"{escaped(self.file)} has no tensor {path!r:.200}; {self.instead_of(path)}")

    def instead_of(self, path: object) -> str:
        """What there is where no tensor is: the end of a sentence."""
        kinds = [type(leaf).__name__ for other, leaf in walk(self.tree) if other == path]
        if kinds:
            return f"what has this path is a {kinds[0]}"
        paths = [*self, *(self._tied or ())]
        if not paths:
            return "it has none"
        inside = [other for other in paths if other.startswith(f"{path}.")]
        if inside:
            return f"inside of that are {len(inside):,}, such as {inside[0]!r:.200}"
        close = difflib.get_close_matches(path, paths[:_COMPARED], n=1) if isinstance(path, str) else []
        if close:
            return f"did you mean {close[0]!r:.200}?"
        return f"it has {len(paths):,}, such as {', '.join(f'{other!r:.80}' for other in paths[:_SHOWN])}"


@dataclass(frozen=True, slots=True)
class Passing:
    """Checksums of others that are compared while their bytes are read for something else.

    Attributes:
        rest_nbytes: what they cover beside that: headers, the tensors that nobody asked for. `finish` reads it, so about so much.
        finish: reads the rest, once all else was read, and compares. Raises CorruptError where they differ.
    """

    rest_nbytes: int = 0
    finish: Callable[[Progress | None], None] = lambda progress: None


class Storage(Protocol):
    """Holds the bytes of many tensors, and handles them together: in file order, in parallel, in few calls."""

    def check(self, tensors: Collection[LazyTensor], progress: Progress | None) -> None:
        """Compare the bytes of these tensors with their digests, where there are any, and see that those of BOOL are 0 or 1.

        Raises:
            CorruptError: they differ.
            FormatError: a BOOL byte is neither 0 nor 1.
        """

    def in_passing(self, tensors: Collection[LazyTensor]) -> Passing:
        """From now on, add up what is read of these tensors, for checksums of more than a piece. Digests of our own need none of that:
        they are compared wherever bytes are read.
        """

    def place(self, tensors: Sequence[LazyTensor], progress: Progress | None) -> Placement:
        """The checked bytes of these tensors in memory that the caller may write to: mapped, or of their own."""

    def fill(self, pairs: Sequence[tuple[LazyTensor, memoryview]], progress: Progress | None) -> None:
        """Read tensors straight into memory of the caller, unchecked: `check` has been there before."""

    def survey(self, progress: Progress | None) -> list[tuple[str, int, int]]:
        """All damage, as path, first byte of the file, and the byte after the last."""

    def identity(self) -> object:
        """What would be another if the file changed in between."""

    def close(self) -> None:
        """Let go of the file. Arrays that were handed out live on."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a file that would be dangerous when loaded the usual way.

    Attributes:
        severity: dangerous, unknown or harmless.
        place: where in the file.
        what: what it would have done.
        rule: the kind of trap, such as `pickle-called` or `template`; "" where a reader met it by the way.
        file: the file it is in, as it was named or found in a folder; "" where that is plain.
    """

    severity: Literal["dangerous", "unknown", "harmless"]
    place: str
    what: str
    rule: str = ""
    file: str = ""


@dataclass(slots=True)
class Contents:
    """What stands in an opened file: a context manager whose `tensors` are read when touched.

    Attributes:
        file: the file as it was named.
        format: which format it is, such as `tensorkeep model file` or `safetensors`.
        tree: the whole, with a `LazyTensor` where a tensor is.
        tensors: by path, in file order; a tied one is listed once, and found by its other paths too.
        metadata: what the file says about itself, and the user's own.
        of_file: the keys of it that tell how the file is written, and nothing of the model: `diff` and `convert` pass over them.
        nbytes: size of the file in bytes.
        digests: whether every byte can be checked.
        findings: what would be dangerous when loaded the usual way.
        left_out: what was not read, and why.
        version: of the format, or "".
        writer: who wrote it, if the file says so.
        root: the digest of the whole, in hex, or "".
        checksum: the kind of checksum that a foreign file has over its bytes, such as `CRC-32`, or "".
        versions: of the frameworks whose objects are in it, by package, where a model file or a checkpoint says so.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"embed": np.eye(4, dtype=np.float32)}, "embed.safetensors")
        >>> with tk.open("embed.safetensors") as f:
        ...     print(f.tensors["embed"][1:2])
        [[0. 1. 0. 0.]]
    """

    file: str
    format: str
    tree: Tree = field(repr=False)
    tensors: Mapping[str, LazyTensor] = field(repr=False)
    storage: Storage = field(repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    nbytes: int = 0
    digests: bool = False
    findings: tuple[Finding, ...] = ()
    left_out: tuple[str, ...] = ()
    version: str = ""
    writer: str = ""
    root: str = ""
    checksum: str = ""
    versions: Mapping[str, str] = field(default_factory=dict, repr=False)
    of_file: Collection[str] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.tensors, Tensors):
            self.tensors.file = self.file

    def told_of_model(self) -> dict[str, Any]:
        """The metadata without what tells how the file is written."""
        return {key: value for key, value in self.metadata.items() if key not in self.of_file}

    def __repr__(self) -> str:
        return f"<{self.format} {self.file!r}: {len(self.tensors):,} tensors, {self.nbytes:,} bytes>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Arrays that were taken from it stay valid; lazy tensors do not."""
        self.storage.close()

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} is an open file and cannot be pickled: pass its name, and open it there")

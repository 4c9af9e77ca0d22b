"""Peek: what is looked at once, for all readers, to find out which format a file or folder is; and what a reader then reads from."""

import os
from functools import cached_property
from typing import Final

from tensorkeep.backends.files import File, Surroundings
from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent, Opened
from tensorkeep.wire.zip import ZipArchive

HEAD_BYTES: Final = 4096


class NotThere(FormatError):
    """A file names another one, and that is not there: nothing is wrong with the file itself."""


class Peek:
    """A file or folder, and its first look.

    Args:
        name: as the caller named it.
        data: the file's bytes; None for a folder.
        folder: the folder itself, or the one that the file lies in; None for what lies in none, such as bytes in memory.
        limits: bounds on what it may ask for.
        verify: whether checksums are compared when tensors are read.
        mmap: whether reads give views of a mapping; None for what suits the file.

    Attributes:
        nbytes: of the file; of a folder 0.
        budget: of all that is made from it.
        opened: every file that was opened for it; `Contents.close` closes them.
        beside: the sizes of the other files that it is made of, by name.
    """

    def __init__(
        self, name: str, data: Extent | None, folder: Surroundings | None, *, limits: Limits, verify: bool = True, mmap: bool | None = None
    ) -> None:
        self.name, self._data, self.folder, self.limits, self.verify, self.mmap = name, data, folder, limits, verify, mmap
        self.nbytes = 0 if data is None else data.nbytes
        self.budget = Budget(name, self.nbytes, limits)
        self.opened: list[Opened] = [] if data is None else [data.opened]
        self.beside: dict[str, int] = {}

    @property
    def is_folder(self) -> bool:
        return self._data is None

    @property
    def data(self) -> Extent:
        """All bytes of the file."""
        assert self._data is not None, "a folder has no bytes of its own: ask is_folder first"
        return self._data

    @property
    def base(self) -> str:
        """The last part of its name: a hint where content leaves two formats possible, and for messages."""
        return os.path.basename(self.name.rstrip("/"))

    @cached_property
    def head(self) -> bytes:
        """Its first bytes; b"" for a folder."""
        return b"" if self._data is None else bytes(self._data.read(0, min(HEAD_BYTES, self.nbytes)))

    @cached_property
    def files(self) -> list[str]:
        """The names of all files of a folder, with `/` between folders; of a file none."""
        return self.folder.files() if self.is_folder and self.folder is not None else []

    @cached_property
    def zip(self) -> ZipArchive | None:
        """Its members, if it begins as a zip archive does.

        Raises:
            FormatError: it begins so, and cannot be read as one.
        """
        return ZipArchive(self.data, budget=self.budget, limits=self.limits) if self.head.startswith(b"PK\3\4") else None

    def cursor(self, *, after: int = 0, order: str = "<") -> Cursor:
        """A cursor over the file."""
        return Cursor(self.data, after, order=order)

    def error(self, problem: str, *, hint: str = "") -> FormatError:
        return FormatError(self.name, problem, hint=hint)

    def sibling(self, name: str, *, late: bool = False) -> Extent:
        """A file that this one names: in the folder itself, or beside the file.

        Args:
            late: open it for each read alone, where there may be thousands.

        Raises:
            FormatError: the name leads out of the folder, or through a link; or there is no folder, or no such file.
        """
        if self.folder is None:
            raise NotThere(self.name, f"it names another file, {name!r:.200}, and was not opened from a folder")
        try:
            return self._beside(self.folder.late(name) if late else self.folder.open(name))
        except FileNotFoundError:
            said = f"it names {name!r:.200}, which is not there"
            raise NotThere(self.name, said, hint="Fetch the whole folder, not one file of it.") from None

    def sibling_if_there(self, name: str) -> Extent | None:
        """A file that this one names, where the rest can be read without it; None where it is not there, or there is no folder.

        Raises:
            FormatError: the name leads out of the folder, or through a link.
        """
        try:
            return None if self.folder is None else self._beside(self.folder.open(name))
        except FileNotFoundError:
            return None

    def _beside(self, file: File) -> Extent:
        opened = Opened(file, mmap=self.mmap)
        self.opened.append(opened)
        self.beside[file.name] = file.nbytes
        self.budget.limit += self.limits.expansion * file.nbytes
        self.budget.nbytes += file.nbytes
        return opened.whole()

    def within(self, data: Extent) -> "Peek":
        """A look at something inside of it, with the same budget: a member, or what a compressed file inflates to."""
        inner = Peek(data.name, data, self.folder, limits=self.limits, verify=self.verify, mmap=self.mmap)
        inner.budget, inner.opened, inner.beside = self.budget, self.opened, self.beside
        if data.opened not in self.opened:
            self.opened.append(data.opened)
        return inner

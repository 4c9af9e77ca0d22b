"""Inside: the one function that turns a name in a file into a path.

A shard, an external tensor, a sibling array is named by a file that may be a stranger's. Its name must be plain and relative; it is
opened from its folder component by component, following no link, and must be a regular file with one name. The one exception is the
cache of Hugging Face, whose files are links into its own `blobs` folder.
"""

import errno
import os
import re
import stat
from typing import Final

from tensorkeep.backends.atomic import Path
from tensorkeep.backends.files import Unmapped
from tensorkeep.backends.local import ReadFile
from tensorkeep.errors import FormatError

_MOST_ENTRIES: Final = 100_000
_DEEPEST: Final = 32  # folders inside each other
_LONGEST_NAME_BYTES: Final = 255  # of a file, on every file system in use
_BLOB: Final = re.compile(r"(?:\.\./){2,6}blobs/[0-9a-f]{40,64}")
_DEVICES: Final = re.compile(r"(?i)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")


class OutsideError(FormatError):
    """A file names another that it must not: outside of its folder, or behind a link."""


class Folder:
    """A folder whose files may be named by a file.

    Args:
        path: of the folder, as the caller named it: links on the way there are followed.

    Raises:
        NotADirectoryError, FileNotFoundError: as for `os.listdir`.
    """

    def __init__(self, path: Path) -> None:
        self.name = os.fsdecode(path) or os.curdir
        if not os.path.isdir(self.name):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.name)

    def files(self) -> list[str]:
        """The names of all files below it, with `/` between folders, sorted. Links are listed and not followed into."""
        found: list[str] = []
        waiting = [("", 0)]
        while waiting:
            below, depth = waiting.pop()
            with os.scandir(os.path.join(self.name, below)) as entries:
                for entry in entries:
                    name = f"{below}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        if depth < _DEEPEST:
                            waiting.append((f"{name}/", depth + 1))
                    else:
                        found.append(name)
                    if len(found) + len(waiting) > _MOST_ENTRIES:
                        raise FormatError(self.name, f"a folder with more than {_MOST_ENTRIES:,} files")
        return sorted(found)

    def nbytes_of(self, name: str) -> int:
        """The size of a file; 0 for what is no regular one, or gone."""
        try:
            status = os.lstat(os.path.join(self.name, *name.split("/")))
        except OSError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def has(self, name: str) -> bool:
        """Whether a regular file of that name can be opened."""
        try:
            self.open(name).close()
        except (OSError, FormatError):
            return False
        return True

    def link(self, name: str) -> str:
        """Where a link leads, as it is written; "" for what is no link."""
        try:
            return os.readlink(os.path.join(self.name, *self._parts(name)))
        except OSError:
            return ""

    def open(self, name: str) -> ReadFile:
        """Open a file that a file has named.

        Raises:
            OutsideError: the name is absolute, leads out of the folder, through a link, or to what is no regular file with one name.
            FileNotFoundError: nothing is there.
        """
        parts = self._parts(name)
        path = self.name
        for part in parts[:-1]:
            path = os.path.join(path, part)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise OutsideError(self.name, f"{name!r:.200} leads through {part!r:.100}, which is a link or no folder")
        path = os.path.join(path, parts[-1])
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            if len(parts) > 3 or not self._is_blob(path, depth=len(parts)):
                raise OutsideError(self.name, f"{name!r:.200} is a link; a file may name no links")
            return ReadFile(path)
        if not stat.S_ISREG(status.st_mode):
            raise OutsideError(self.name, f"{name!r:.200} is no regular file")
        if status.st_nlink > 1:
            raise OutsideError(
                self.name, f"{name!r:.200} has {status.st_nlink} names: it may be a file from elsewhere", hint="Copy it: cp -r, not cp -al."
            )
        file = ReadFile(path)
        opened = os.fstat(file.fd)
        if (opened.st_dev, opened.st_ino) != (status.st_dev, status.st_ino):
            file.close()
            raise OutsideError(self.name, f"{name!r:.200} was replaced while it was opened")
        return file

    def late(self, name: str) -> "LateFile":
        """A file that is opened for each read: for folders of thousands of small ones, more than a process may hold open.

        Raises:
            FormatError, FileNotFoundError: as for `open`.
        """
        return LateFile(self, name)

    def _parts(self, name: str) -> list[str]:
        parts = name.split("/")
        try:
            longest = max(len(os.fsencode(part)) for part in parts)
        except UnicodeEncodeError:  # a surrogate that stands for no byte
            longest = _LONGEST_NAME_BYTES + 1
        plain = longest <= _LONGEST_NAME_BYTES and all(
            part not in ("", ".", "..") and "\0" not in part and "\\" not in part and ":" not in part for part in parts
        )
        if not plain or len(parts) > _DEEPEST or any(_DEVICES.fullmatch(part) for part in parts):
            raise OutsideError(self.name, f"it names {name!r:.200}, which is no plain name inside its folder")
        return parts

    def _is_blob(self, path: str, *, depth: int) -> bool:
        """Whether a link is one of Hugging Face's cache: `snapshots/<commit>/... -> ../../blobs/<digest>`."""
        target = os.readlink(path)
        if _BLOB.fullmatch(target) is None:
            return False
        snapshots = os.path.dirname(os.path.abspath(self.name))
        blobs = os.path.join(os.path.dirname(snapshots), "blobs")
        wanted = os.path.join(blobs, os.path.basename(target))
        landed = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(path)), target))
        return (
            os.path.basename(snapshots) == "snapshots"
            and landed == wanted
            and target.count("../") == depth + 1
            and stat.S_ISREG(os.lstat(wanted).st_mode)
        )


class LateFile(Unmapped):
    """A file of a folder that takes no place in the process between two reads."""

    remote = False

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        file = folder.open(name)
        self.name, self.nbytes, self._identity = file.name, file.nbytes, file.identity()
        file.close()

    def identity(self) -> object:
        return self._identity

    def read_into(self, offset: int, into: memoryview) -> None:
        file = self._folder.open(self._name)
        try:
            if file.identity() != self._identity:
                raise FormatError(self.name, "it changed after it was opened")
            file.read_into(offset, into)
        finally:
            file.close()

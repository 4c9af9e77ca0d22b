"""Inner folders: the way from a backend's root to one of its folders, which no link and no rename can lead astray.

Where the system can, each step is opened from the folder before it, so whatever happens to the path meanwhile, the file that is made
or removed lies in the folder that was looked at. Elsewhere each step is looked at by its path.
"""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from tensorkeep.backends import capabilities
from tensorkeep.backends.durable import sync_folder
from tensorkeep.backends.hidden import CLOEXEC, give_lock, take_lock

_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | CLOEXEC
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_FILE: Final = os.O_RDONLY | _NO_LINK | CLOEXEC | getattr(os, "O_NONBLOCK", 0)  # a pipe would wait for ever
_LINK: Final = "a link, where a file of the store is wanted"
_NO_FILE: Final = "a folder, device, pipe or socket, where a file of the store is wanted"


@dataclass(frozen=True, slots=True)
class InnerFolder:
    """A folder that is open.

    Attributes:
        parts: the way to it from the root.
        path: for messages, and where the system has no open folders.
        fd: its descriptor; None where the system has none.
    """

    parts: tuple[str, ...]
    path: str
    fd: int | None

    def at(self, name: str) -> str:
        """A file of it, for calls that take `dir_fd=folder.fd`."""
        return name if self.fd is not None else os.path.join(self.path, name)

    def names(self) -> list[str]:
        return os.listdir(self.path if self.fd is None else self.fd)

    def status(self, name: str) -> os.stat_result:
        """Links are not followed."""
        return os.stat(self.at(name), dir_fd=self.fd, follow_symlinks=False)

    def open(self, name: str) -> int:
        """A regular file of it, for reading.

        Raises:
            OSError: `ELOOP`, it is a link; `ENXIO`, it is no file.
        """
        if not _NO_LINK or self.fd is None:
            _check(self.status(name), name)
        try:
            fd = os.open(self.at(name), _FILE, dir_fd=self.fd)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, _LINK) from error
            if error.errno == errno.ENXIO:  # a socket
                raise OSError(errno.ENXIO, _NO_FILE) from error
            raise
        try:
            _check(os.fstat(fd), name)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def unlink(self, name: str) -> None:
        os.unlink(self.at(name), dir_fd=self.fd)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who changes what is there, for a moment. Without locks, as on Windows and on NFS, several may be.

        Raises:
            OSError: `EAGAIN`, somebody has held the lock for seconds: a process that was stopped just then.
        """
        held = self.fd is not None and take_lock(self.fd)
        try:
            yield
        finally:
            if held and self.fd is not None:
                give_lock(self.fd)

    def sync(self) -> None:
        """Have its names on the disk itself."""
        if self.fd is not None:
            sync_folder(self.fd)
        elif capabilities.in_use.folder_sync:
            fd = os.open(self.path, _FOLDER)
            try:
                sync_folder(fd)
            finally:
                os.close(fd)

    def inner(self, part: str, *, make: bool) -> "tuple[InnerFolder, bool]":
        """A folder in it, and whether it was made just now."""
        made = False
        while True:
            try:
                return self._inner(part), made
            except FileNotFoundError:
                if not make or made:
                    raise
            with suppress(FileExistsError):  # somebody else's
                os.mkdir(self.at(part), dir_fd=self.fd)
            made = True

    def _inner(self, part: str) -> "InnerFolder":
        parts, path = (*self.parts, part), os.path.join(self.path, part)
        if self.fd is None:
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode) or (sys.platform == "win32" and status.st_reparse_tag):
                raise _no_folder(part)
            return InnerFolder(parts, path, None)
        try:
            return InnerFolder(parts, path, os.open(part, _FOLDER | _NO_LINK, dir_fd=self.fd))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise _no_folder(part) from error
            raise

    def close(self) -> None:
        if self.fd is not None:
            with suppress(OSError):  # nothing was written to it
                os.close(self.fd)


class Root:
    """The folder of a backend.

    Args:
        path: of it.
        name: as the caller named it.
        create: whether it may be made.
    """

    def __init__(self, path: str, name: str, *, create: bool) -> None:
        self.path: Final = os.path.realpath(path)  # as the system follows it: `link/..` is not where the link is
        self.name: Final = name
        self._create = create
        self._settled: set[tuple[str, ...]] = set()
        try:
            self._opened().close()
        except FileNotFoundError:
            if not create:
                raise
        except NotADirectoryError as error:
            raise NotADirectoryError(errno.ENOTDIR, "it, or what it lies in, is a file: a folder is wanted", name) from error

    @contextmanager
    def inner(self, parts: tuple[str, ...], *, make: bool = False) -> Iterator[InnerFolder]:
        """One of its folders, open."""
        folder = self.reach(parts, make=make)
        try:
            yield folder
        finally:
            folder.close()

    def reach(self, parts: tuple[str, ...], *, make: bool) -> InnerFolder:
        """The same, for the caller to close. What is made is durable, and so is what another may have made just before."""
        try:
            folder = self._opened()
        except FileNotFoundError:
            if not make or not self._create:
                raise
            _make(self.path)
            folder = self._opened()
        if make and () not in self._settled:
            with suppress(PermissionError):  # its parent is none of ours
                _sync(os.path.dirname(self.path))
            self._settled.add(())
        try:
            for part in parts:
                inner, made = folder.inner(part, make=make)
                try:
                    if make and (made or inner.parts not in self._settled):
                        folder.sync()
                        self._settled.add(inner.parts)
                except BaseException:
                    inner.close()
                    raise
                folder.close()
                folder = inner
        except BaseException:
            folder.close()
            raise
        return folder

    def _opened(self) -> InnerFolder:
        if capabilities.in_use.relative:
            return InnerFolder((), self.path, os.open(self.path, _FOLDER))
        if not os.path.isdir(self.path):
            os.listdir(self.path)  # says what is wrong
        return InnerFolder((), self.path, None)


def _make(path: str) -> None:
    """A folder, and those that it lies in, durable."""
    parent = os.path.dirname(path)
    if parent != path and not os.path.isdir(parent):
        _make(parent)
    with suppress(FileExistsError):
        os.mkdir(path)
    _sync(parent)


def _sync(path: str) -> None:
    if capabilities.in_use.folder_sync:
        fd = os.open(path, _FOLDER)
        try:
            sync_folder(fd)
        finally:
            os.close(fd)


def _check(status: os.stat_result, name: str) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, _LINK)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ENXIO, _NO_FILE)


def _no_folder(part: str) -> OSError:
    return OSError(errno.ENOTDIR, f"{part} is a link or no folder, where one of the store's own is wanted")

"""A folder as a backend: one file an object, made whole and durable by fsync, link and rename.

Lives here: keys to files, and the order in which things become durable. Lives elsewhere: what every backend promises (keys), one new
file (new_file), the way to an inner folder (inner_folder).

What a loss of power leaves: an object's bytes are synced before it gets its name, and its folder before the call returns. So three packs
made together, an index and a manifest cost five syncs of files and three of folders; a claim with `durable=False` and its removal none.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Literal

from tensorkeep.backends import capabilities
from tensorkeep.backends.atomic import Path
from tensorkeep.backends.hidden import is_hidden, remove_leftover
from tensorkeep.backends.inner_folder import InnerFolder, Root
from tensorkeep.backends.keys import Entry, UnsureError, checked, folder_of, is_key, unsure
from tensorkeep.backends.local import on_network
from tensorkeep.backends.mapped import mapped
from tensorkeep.backends.new_file import NewFile, read_whole
from tensorkeep.backends.pending import told

_GET_BYTES: Final = 1 << 20
_LEFT_S: Final = 24 * 3600  # where nobody can lock, a temporary file of yesterday has been left


class FolderBackend:
    """A folder that holds objects.

    Args:
        path: of the folder; links on the way there are followed, below it none.
        create: whether the first object may make it.
        name: for messages.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none, and `create` is False; or it is none.
    """

    kind: Final[Literal["folder", "object store"]] = "folder"

    def __init__(self, path: Path, *, create: bool, name: str = "") -> None:
        self.name: Final = name or os.fsdecode(path)
        self._root = Root(os.fsdecode(path), self.name, create=create)

    @property
    def slow_listing(self) -> bool:
        """Whether it lies on a network file system, whose clients keep listings for up to a minute."""
        if not capabilities.in_use.relative:
            return False
        with suppress(FileNotFoundError), self._root.inner(()) as folder:
            return folder.fd is not None and on_network(folder.fd, agreeing=False)
        return False

    def list(self, prefix: str, *, strays: bool = False) -> Iterator[Entry]:
        entries = []
        with self._telling(prefix), suppress(FileNotFoundError), self._root.inner(folder_of(prefix)) as folder:
            for name in sorted(folder.names()):
                if is_key(name):
                    with suppress(FileNotFoundError):  # gone since
                        status = folder.status(name)
                        if strays or stat.S_ISREG(status.st_mode):
                            entries.append(_entry(f"{prefix}{name}", status))
        return iter(entries)

    def stat(self, key: str) -> Entry:
        with self._telling(key), self._reading(key) as (_, status):  # opened, as a network asks anew at every open
            return _entry(key, status)

    def get(self, key: str, *, limit: int) -> bytes:
        with self._telling(key), self._reading(key) as (fd, status):
            if status.st_size > limit:
                raise OSError(errno.EFBIG, f"{status.st_size:,} bytes, where at most {limit:,} are taken")
            data = bytearray(status.st_size)
            read_whole(fd, 0, memoryview(data))
            return bytes(data)

    def read(self, key: str, start: int, stop: int, into: memoryview, *, alone: bool = False) -> None:
        into = into.cast("B") if into.nbytes else into
        if not 0 <= start <= stop or into.nbytes != stop - start:
            raise ValueError(f"{into.nbytes:,} bytes of memory for bytes {start:,} to {stop:,}")
        with self._telling(key), self._reading(key) as (fd, _):
            if alone and capabilities.in_use.advice:
                with suppress(OSError):
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
            read_whole(fd, start, into)

    def view(self, key: str, start: int, stop: int) -> memoryview | None:
        with suppress(OSError), self._reading(key) as (fd, status):
            return None if stop > status.st_size or on_network(fd) else mapped(fd, start, stop)
        return None

    def create(self, key: str, data: Iterable[memoryview], *, durable: bool = True) -> None:
        with self._creating(durable=durable) as new:
            new.write(key, list(data))

    @contextmanager
    def creating(self, nbytes: int = 0) -> "Iterator[Creating]":
        with self._creating(durable=True) as new:
            yield new

    @contextmanager
    def _creating(self, *, durable: bool) -> "Iterator[Creating]":
        new = Creating(self._root)
        try:
            yield new
            new.finish(durable=durable)
        finally:
            new.discard()

    def replace(self, key: str, data: Iterable[memoryview], *, old: bytes) -> None:
        with self._telling(key):
            new = NewFile(self._root, checked(key), hidden=True)
            try:
                new.write(list(data))
                new.settle(durable=True)
                with new.folder.locked():
                    if not _is(new.folder, new.name, old):
                        raise FileExistsError(errno.EEXIST, "it is not the one that was to be replaced: somebody else changed it")
                    new.take_place()
                _settle_folder(new.folder)
            finally:
                new.discard()

    def delete(self, *keys: str, durable: bool = True) -> None:
        folders: dict[tuple[str, ...], list[str]] = {}
        for key in keys:
            parts = checked(key)
            folders.setdefault(parts[:-1], []).append(parts[-1])
        failed: list[OSError] = []
        for inner, names in folders.items():
            with suppress(FileNotFoundError), self._telling("/".join(inner)), self._root.inner(inner) as folder:
                with (
                    _gathered(failed),
                    self._telling("/".join(inner)),
                    folder.locked(),
                ):  # against whoever replaces one of them, who would bring it back
                    for name in names:
                        with _gathered(failed), self._telling("/".join((*inner, name))), suppress(FileNotFoundError):
                            folder.unlink(name)
                if durable:
                    with _gathered(failed):
                        _settle_folder(folder)
        if failed:
            raise failed[0]

    def now(self) -> float:
        with self._telling(""):
            new = NewFile(self._root, ("clock",), hidden=False)
            try:
                return os.fstat(new.fd).st_mtime
            finally:
                new.discard()

    def free_bytes(self) -> int | None:
        path = self._root.path
        while not os.path.isdir(path) and os.path.dirname(path) != path:
            path = os.path.dirname(path)
        try:
            if hasattr(os, "statvfs"):
                status = os.statvfs(path)
                return status.f_bavail * status.f_frsize
            import shutil

            return shutil.disk_usage(path).free
        except OSError:
            return None

    def settle(self, *prefixes: str) -> None:
        for prefix in prefixes:
            with self._telling(prefix), suppress(FileNotFoundError), self._root.inner(folder_of(prefix)) as folder:
                folder.sync()

    def leftovers(self, *prefixes: str, remove: bool = False) -> Sequence[Entry]:
        found = []
        for prefix in prefixes:
            with self._telling(prefix), suppress(FileNotFoundError), self._root.inner(folder_of(prefix)) as folder:
                for name in sorted(filter(is_hidden, folder.names())):
                    with suppress(OSError):  # gone since, or of somebody else
                        status = folder.status(name)
                        if stat.S_ISREG(status.st_mode) and self._left(folder, name, status, remove=remove):
                            found.append(_entry(f"{prefix}{name}", status))
        return found

    def _left(self, folder: InnerFolder, name: str, status: os.stat_result, *, remove: bool) -> bool:
        if capabilities.in_use.locks:
            with suppress(OSError):  # a file system without locks
                return remove_leftover(folder.at(name), dir_fd=folder.fd, only_look=not remove)
        if self.now() - status.st_mtime < _LEFT_S:
            return False
        if remove:
            folder.unlink(name)
        return True

    @contextmanager
    def _reading(self, key: str) -> Iterator[tuple[int, os.stat_result]]:
        """An object, open: its descriptor and what it is."""
        parts = checked(key)
        with self._root.inner(parts[:-1]) as folder:
            fd = folder.open(parts[-1])
        try:
            yield fd, os.fstat(fd)
        finally:
            os.close(fd)

    @contextmanager
    def _telling(self, key: str) -> Iterator[None]:
        """Errors of the system, with the name of the object."""
        with telling(self.name, key):
            yield


class Creating:
    """New files of a folder backend: see `Backend.creating`."""

    def __init__(self, root: Root) -> None:
        self._root, self._lock = root, threading.Lock()
        self._files: dict[str, NewFile] = {}

    def write(self, key: str, parts: Sequence[memoryview]) -> int:
        with telling(self._root.name, key):
            with self._lock:
                file = self._files.get(key)
                if file is None:
                    file = self._files[key] = NewFile(self._root, checked(key), hidden=False)
            return file.write(parts)

    def finish(self, *, durable: bool) -> None:
        """Give the files their names, after all bytes of all of them are on the disk."""
        linked: list[NewFile] = []
        for key, file in self._files.items():
            with telling(self._root.name, key):
                file.settle(durable=durable)
        try:
            for key, file in self._files.items():
                with telling(self._root.name, key):
                    file.link()
                    linked.append(file)
        except BaseException:
            for file in linked:
                with suppress(OSError):
                    file.folder.unlink(file.name)
            raise
        if durable:
            for folder in {file.parts[:-1]: file.folder for file in self._files.values()}.values():
                with telling(self._root.name, "/".join(folder.parts)):
                    _settle_folder(folder)

    def discard(self) -> None:
        for file in self._files.values():
            file.discard()


def _is(folder: InnerFolder, name: str, old: bytes) -> bool:
    """Whether a file has just these bytes."""
    fd = folder.open(name)
    try:
        if os.fstat(fd).st_size != len(old):
            return False
        found = bytearray(len(old))
        read_whole(fd, 0, memoryview(found))
        return found == old
    finally:
        os.close(fd)


def _settle_folder(folder: InnerFolder) -> None:
    try:
        folder.sync()
    except OSError as error:
        if error.errno is None:  # of a signal's handler
            raise
        sentence = f"{error.strerror}: what was changed may not survive a loss of power, for its folder could not be synced"
        raise unsure(error.errno, sentence, folder.path) from error


@contextmanager
def _gathered(failed: list[OSError]) -> Iterator[None]:
    """Errors for later: what else is to be done is done first."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of a signal's handler
            raise
        failed.append(error)


def _entry(key: str, status: os.stat_result) -> Entry:
    version = f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"
    return Entry(key, status.st_size, status.st_mtime, version)


@contextmanager
def telling(name: str, key: str) -> Iterator[None]:
    """Errors of the system, with the name of the object that they are about."""
    try:
        yield
    except OSError as error:
        if error.errno is None or getattr(error, "explained", False):  # of a signal's handler; said already
            raise
        if isinstance(error, UnsureError):
            raise unsure(error.errno, error.strerror or str(error), os.path.join(name, *key.split("/"))) from error
        raise told(error, error.strerror or str(error), os.path.join(name, *key.split("/"))) from error

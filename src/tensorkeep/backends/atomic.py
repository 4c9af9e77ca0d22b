"""Replacing a file: whole and durable, or not at all.

The new file has no name while it is written (`O_TMPFILE`), gets a hidden one by `link`, and takes the place of the old one by `rename`.
A kill before the link leaves nothing; one between link and rename leaves a hidden file, whose lock is then free: the next save of that
path removes it. Where files without a name cannot be had, the hidden name is there from the start.

What makes it durable: fsync of the file before it is renamed, fsync of the folder after.
"""

import errno
import os
import re
import secrets
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from tensorkeep.backends import capabilities

if sys.platform != "win32":
    import fcntl

MAX_CALL_BYTES: Final = 0x7FFFF000  # what Linux moves in one call
MAX_VECTORS: Final = 1024  # IOV_MAX of Linux and macOS
MAX_NAME_BYTES: Final = 255
_HIDDEN_BYTES: Final = len("..") + 16 + len(".tmp")
_NO_UNNAMED: Final = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_BINARY", 0)


class PendingFile:
    """A file that is being written, by any number of threads at once."""

    def __init__(self, fd: int, target: str, hidden: str | None, nbytes: int, *, old: bool) -> None:
        self.fd, self.target, self.hidden, self.nbytes, self.old = fd, target, hidden, nbytes, old
        self.placed = False  # whether the new file bears its name
        self._lock = threading.Lock()

    def write(self, offset: int, parts: Sequence[memoryview]) -> None:
        """Write all parts, one behind the other, from an offset in bytes.

        Raises:
            OSError: the disk is full or fails; says what was needed, and that the old file is as it was.
        """
        left = [part for part in parts if part.nbytes]
        try:
            while left:
                offset, left = self._write(offset, left)
        except OSError as error:
            raise explained(error, self) from error

    def _write(self, offset: int, parts: list[memoryview]) -> tuple[int, list[memoryview]]:
        """One call. A short write is no error: returns where it got to, and what is left."""
        if capabilities.in_use.positional:
            group = parts[:MAX_VECTORS]
            if sum(part.nbytes for part in group) > MAX_CALL_BYTES:
                group = [parts[0][:MAX_CALL_BYTES]]
            count = os.pwritev(self.fd, group, offset)
        else:
            with self._lock:  # one file position for all threads
                os.lseek(self.fd, offset, os.SEEK_SET)
                count = os.write(self.fd, parts[0][:MAX_CALL_BYTES])
        offset += count
        index = 0
        while index < len(parts) and count >= parts[index].nbytes:
            count -= parts[index].nbytes
            index += 1
        rest = parts[index:]
        if count:
            rest[0] = rest[0][count:]
        return offset, rest


@contextmanager
def replacing(
    path: "str | bytes | os.PathLike[str]", *, nbytes: int, durable: bool = True, overwrite: bool = True
) -> Iterator[PendingFile]:
    """Write a file that appears whole at the end of the block, in place of the old one, or not at all.

    Links of the path are followed: the file that they lead to is replaced. Its other hard links keep the old content. The mode is that
    of the old file, else what the umask leaves. As for any atomic replacement, a read-only old file is no obstacle; its folder decides.

    Args:
        path: the file.
        nbytes: size of the new file, for messages.
        durable: return only when it would survive a loss of power.
        overwrite: replace an old file; `False` raises, also if one appears in the meantime.

    Yields:
        What to write to.

    Raises:
        FileExistsError: there is one and `overwrite` is False.
        OSError: anything fails. The old file is as it was, unless the message says otherwise.
    """
    target = os.path.realpath(os.fsdecode(path))
    folder = os.path.dirname(target)
    old = _status(target)
    if old is not None and not stat.S_ISREG(old.st_mode):
        if stat.S_ISDIR(old.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder is there, where the file should go", os.fsdecode(path))
        raise OSError(errno.EINVAL, "neither a regular file nor a stream; it is not replaced", os.fsdecode(path))
    if old is not None and not overwrite:
        raise _exists(path)
    _remove_leftovers(target)
    pending = _create(target, nbytes, old=old is not None)
    try:
        if old is not None:
            _take_over(pending.fd, old)
        yield pending
        if durable:
            _sync(pending.fd)
        _put_in_place(pending, overwrite=overwrite)
    except BaseException as error:
        _discard(pending)
        if isinstance(error, FileExistsError) and not overwrite:
            raise _exists(path) from error
        if isinstance(error, OSError) and error.errno is not None and not getattr(error, "explained", False):
            raise explained(error, pending) from error
        if not isinstance(error, OSError):
            error.add_note(f"tensorkeep: {pending.target}: {_unharmed(pending)}")
        raise
    if durable:
        _sync_folder(folder, target)


def _status(target: str) -> os.stat_result | None:
    try:
        return os.stat(target)
    except FileNotFoundError:
        return None


def _create(target: str, nbytes: int, *, old: bool) -> PendingFile:
    """The new file: without a name where that can be had, else with a hidden one."""
    folder = os.path.dirname(target)
    try:
        if capabilities.in_use.unnamed:
            try:
                # Mode 0666: the kernel takes the umask off, without the race that asking for it would be.
                fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | _CLOEXEC, 0o666)
                return PendingFile(_locked(fd), target, None, nbytes, old=old)
            except OSError as error:
                if error.errno not in _NO_UNNAMED or not os.path.isdir(folder):
                    raise
        hidden = _hidden_name(target)
        fd = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR | _CLOEXEC, 0o666)
        return PendingFile(_locked(fd), target, hidden, nbytes, old=old)
    except PermissionError as error:
        raise _told(error, f"the folder {folder} does not let this user create files; nothing was written", target) from error
    except FileNotFoundError as error:
        raise _told(error, f"the folder {folder} is not there; nothing was written", target) from error


def _locked(fd: int) -> int:
    if capabilities.in_use.locks:
        with suppress(OSError):  # a file system without locks: leftovers there stay
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def _hidden_name(target: str) -> str:
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{_stem(name)}.{secrets.token_hex(8)}.tmp")


def _stem(name: str) -> str:
    """The name, short enough for the hidden one to be a name too."""
    return os.fsdecode(os.fsencode(name)[: MAX_NAME_BYTES - _HIDDEN_BYTES])


def _take_over(fd: int, old: os.stat_result) -> None:
    """Mode, and where permitted owner and group, of the file that is replaced."""
    if sys.platform == "win32":
        return
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with suppress(OSError):
            os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))


def _put_in_place(pending: PendingFile, *, overwrite: bool) -> None:
    """Give the file its name. The lock is held until then; errors of close count, so a file with a hidden name is closed first."""
    target = pending.target
    if pending.hidden is None:
        name = target
        if overwrite:
            name = pending.hidden = _hidden_name(target)
        folder = os.open(os.path.dirname(target), os.O_RDONLY | _CLOEXEC)
        try:
            # A folder's descriptor makes this linkat with AT_SYMLINK_FOLLOW, which /proc needs.
            os.link(f"/proc/self/fd/{pending.fd}", os.path.basename(name), dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)
        if overwrite:
            os.replace(name, target)
        pending.hidden, pending.placed = None, True
        _close(pending)
        return
    if sys.platform == "win32":
        _close(pending)  # an open file cannot be renamed there
    if overwrite:
        os.replace(pending.hidden, target)
    else:
        os.link(pending.hidden, target)
        pending.placed = True
        os.unlink(pending.hidden)
    pending.hidden, pending.placed = None, True
    _close(pending)


def _close(pending: PendingFile) -> None:
    fd, pending.fd = pending.fd, -1
    if fd >= 0:
        os.close(fd)


def _discard(pending: PendingFile) -> None:
    with suppress(OSError):
        _close(pending)
    if pending.hidden is not None:
        with suppress(OSError):
            os.unlink(pending.hidden)


def _remove_leftovers(target: str) -> None:
    """Remove hidden files that a killed save of this path left: regular files of the exact pattern whose lock is free."""
    if not capabilities.in_use.locks:
        return
    folder, name = os.path.split(target)
    pattern = re.compile(re.escape(f".{_stem(name)}.") + r"[0-9a-f]{16}\.tmp")
    try:
        leftovers = [entry for entry in os.listdir(folder or ".") if pattern.fullmatch(entry)]
    except OSError:  # the folder may be written to, but not listed
        return
    for entry in leftovers:
        path = os.path.join(folder, entry)
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | _CLOEXEC)
            try:
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while a save still holds it
                    os.unlink(path)
            finally:
                os.close(fd)


def _sync(fd: int) -> None:
    """Have the file's bytes on the disk itself."""
    if sys.platform == "darwin":
        with suppress(OSError):  # file systems that do not know it
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def _sync_folder(folder: str, target: str) -> None:
    """Have the new name on the disk itself."""
    if sys.platform == "win32":
        return
    try:
        fd = os.open(folder, os.O_RDONLY | _CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (
            errno.EINVAL,
            errno.EBADF,
            errno.ENOTSUP,
            errno.EACCES,
        ):  # it may not be read, or its file system has no such call
            return
        raise _told(
            error,
            "the new file is in place and whole, but may not survive a loss of power: its folder could not be synced",
            target,
        ) from error


def _exists(path: "str | bytes | os.PathLike[str]") -> FileExistsError:
    return FileExistsError(errno.EEXIST, "the file is there already, and was left as it is; overwrite=True replaces it", os.fsdecode(path))


def explained(error: OSError, pending: PendingFile) -> OSError:
    """The same error, saying what was needed, what is free, and that nothing was harmed."""
    if getattr(error, "explained", False):
        return error
    details = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        details = f": {pending.nbytes:,} bytes needed"
        with suppress(OSError, AttributeError):
            status = os.statvfs(os.path.dirname(pending.target))
            details += f", {status.f_bavail * status.f_frsize:,} free"
    return _told(error, f"{error.strerror}{details}; {_unharmed(pending)}", pending.target)


def _unharmed(pending: PendingFile) -> str:
    if pending.placed:
        return "the new file is in place"
    return "the old file is untouched" if pending.old else "no file was written"


def _told(error: OSError, sentence: str, target: str) -> OSError:
    told = OSError(error.errno, sentence, target)
    told.explained = True  # type: ignore[attr-defined]  # so that no room explains it twice
    return told

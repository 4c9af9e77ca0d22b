"""Replacing a file: whole and durable, or not at all.

The new file has no name while it is written (`O_TMPFILE`), gets a hidden one by `link`, and takes the place of the old one by `rename`.
A kill before the link leaves nothing; one between link and rename leaves a hidden file, whose lock is then free: the next save of that
path removes it. Where files without a name cannot be had, the hidden name is there from the start.

What makes it durable: fsync of the file before it is renamed, fsync of the folder after.
"""

import errno
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from tensorkeep.backends import calls, capabilities
from tensorkeep.backends.hidden import CLOEXEC, create_hidden, hidden_name, lock, remove_leftovers

if sys.platform != "win32":
    import fcntl

Path = str | bytes | os.PathLike[str]

MAX_CALL_BYTES: Final = 0x7FFFF000  # what Linux moves in one call
MAX_VECTORS: Final = 1024  # IOV_MAX of Linux and macOS
_COPY_BYTES: Final = 4 << 20
_TRIES: Final = 10
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
_NO_SYNC: Final = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSUP})  # a file system that cannot sync folders


class PendingFile:
    """A file that is being written, by any number of threads at once.

    Attributes:
        name: the file as the caller named it, for messages.
        target: the file that is replaced, links followed.
        nbytes: the size that was announced.
        hidden: the name that the new file bears meanwhile, if any.
    """

    def __init__(self, name: str, target: str, nbytes: int, old: os.stat_result | None) -> None:
        self.name, self.target, self.nbytes, self.old = name, target, nbytes, old
        self.process = os.getpid()
        self._lock = threading.Lock()
        self.fd, self.hidden = _create(target, old)

    def write(self, offset: int, parts: Sequence[memoryview]) -> None:
        """Write all parts, one behind the other, from an offset in bytes.

        Raises:
            OSError: the disk is full or fails; says what was needed, and that the old file is as it was.
        """
        left = [part if part.format == "B" and part.ndim == 1 else part.cast("B") for part in parts if part.nbytes]
        try:
            while left:
                offset, left = self._write(offset, left)
        except OSError as error:
            raise _explained(error, self) from error

    def _write(self, offset: int, parts: list[memoryview]) -> tuple[int, list[memoryview]]:
        """One call. A short write is no error: returns where it got to, and what is left."""
        group = parts[:MAX_VECTORS] if capabilities.in_use.positional else parts[:1]
        if sum(part.nbytes for part in group) > MAX_CALL_BYTES:
            group = [parts[0][:MAX_CALL_BYTES]]
        if capabilities.in_use.positional:
            count = os.pwritev(self.fd, group, offset)
        else:
            with self._lock:  # one file position for all threads
                os.lseek(self.fd, offset, os.SEEK_SET)
                count = os.write(self.fd, group[0])
        if not 0 < count <= sum(part.nbytes for part in group):
            raise OSError(errno.EIO, f"the system says that it wrote {count:,} bytes")
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
def replacing(path: Path, *, nbytes: int, durable: bool = True, overwrite: bool = True) -> Iterator[PendingFile]:
    """Write a file that appears whole at the end of the block, in place of the old one, or not at all.

    Links of the path are followed: the file that they lead to is replaced. Its other hard links keep the old content. The mode is that
    of the old file, else what the umask leaves. As for any atomic replacement, a read-only old file is no obstacle; its folder decides.

    Args:
        path: the file.
        nbytes: exact size of the new file. Room for it is asked for first: a full disk shows before the data are written.
        durable: return only when it would survive a loss of power.
        overwrite: replace an old file; `False` raises, also if one appears in the meantime.

    Yields:
        What to write to.

    Raises:
        FileExistsError: there is one and `overwrite` is False.
        OSError: anything fails. The old file is as it was, unless the message says otherwise.
    """
    name = os.fsdecode(path)
    target = _resolved(name)
    old = _replaceable(target, name)
    if old is not None and not overwrite:
        raise _exists(name)
    remove_leftovers(target)
    try:
        pending = PendingFile(name, target, nbytes, old)
    except OSError as error:
        raise _uncreated(error, target, name) from error
    try:
        _prepare(pending)
        yield pending
        _finish(pending, durable=durable, overwrite=overwrite)
    except BaseException as error:
        if not getattr(error, "explained", False):  # Ctrl-C, or an error of the caller's: it stays what it is
            error.add_note(f"tensorkeep: {name}: {_outcome(pending)}")
        _discard(pending)
        raise
    _close(pending)


def _resolved(name: str) -> str:
    if not name:
        raise FileNotFoundError(errno.ENOENT, "the path is empty", name)
    if name.endswith((os.sep, os.altsep or os.sep)):
        raise IsADirectoryError(errno.EISDIR, "the path ends as that of a folder; a file is wanted", name)
    return os.path.realpath(name)


def _replaceable(target: str, name: str) -> os.stat_result | None:
    try:
        old = os.stat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder is there, where the file should go", name)
    if not stat.S_ISREG(old.st_mode):
        raise OSError(errno.EINVAL, "neither a regular file nor a stream; it is not replaced", name)
    return old


def _create(target: str, old: os.stat_result | None) -> tuple[int, str | None]:
    """The new file, locked: without a name where that can be had, else with a hidden one."""
    # The kernel takes the umask off, without the race that asking for it would be. Never more open than the old file.
    mode = 0o666 if old is None else stat.S_IMODE(old.st_mode) & 0o777
    if capabilities.in_use.unnamed:
        with suppress(OSError):  # each file system without such files says so in its own way; a true fault comes again
            fd = os.open(os.path.dirname(target), os.O_TMPFILE | os.O_RDWR | CLOEXEC, mode)
            lock(fd)
            return fd, None
    return create_hidden(target, mode)


def _prepare(pending: PendingFile) -> None:
    """Mode and owner of the old file, and room for the new one."""
    try:
        if pending.old is not None and sys.platform != "win32":
            _take_over(pending.fd, pending.old)
        if capabilities.in_use.preallocate and pending.nbytes:
            try:
                # Measured on ext4, 512 MiB by two threads: 0.07 s instead of 0.10, durable 0.20 instead of 0.25.
                calls.reserve(pending.fd, pending.nbytes)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise
    except OSError as error:
        raise _explained(error, pending) from error


def _take_over(fd: int, old: os.stat_result) -> None:
    """Mode, and where permitted owner and group, of the file that is replaced."""
    new = os.fstat(fd)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(fd, old.st_uid, old.st_gid)
        except OSError:
            with suppress(OSError):
                os.fchown(fd, -1, old.st_gid)
    wanted = stat.S_IMODE(old.st_mode) & 0o777
    if stat.S_IMODE(os.fstat(fd).st_mode) != wanted:
        try:
            os.fchmod(fd, wanted)
        except OSError:
            if stat.S_IMODE(os.fstat(fd).st_mode) & ~wanted:  # it would be open to more people than the old one
                raise


def _finish(pending: PendingFile, *, durable: bool, overwrite: bool) -> None:
    if os.getpid() != pending.process:
        raise RuntimeError("a forked child cannot finish the save of its parent")
    try:
        found = os.fstat(pending.fd).st_size
        if found != pending.nbytes:
            raise OSError(errno.EIO, f"the new file has {found:,} bytes, not {pending.nbytes:,}")
        _settle(pending.fd, durable=durable)
        try:
            _put_in_place(pending, durable=durable, overwrite=overwrite)
        except OSError:
            if not _placed(pending):  # a network may lose the answer of what it has done
                raise
    except FileExistsError as error:
        raise _exists(pending.name) from error
    except OSError as error:
        raise _explained(error, pending) from error
    if durable:
        _sync_folder(os.path.dirname(pending.target), pending.name)


def _settle(fd: int, *, durable: bool) -> None:
    """All that may still go wrong with the bytes goes wrong here: fsync, and a close, whose errors count, of a second descriptor."""
    if durable:
        _sync(fd)
    os.close(os.dup(fd))


def _put_in_place(pending: PendingFile, *, durable: bool, overwrite: bool) -> None:
    """Give the file its name. It stays locked until then."""
    if pending.hidden is None:
        if not overwrite:
            try:
                _link_unnamed(pending.fd, pending.target)
                return
            except FileExistsError:
                raise
            except OSError:
                _copy_to_hidden(pending, durable=durable)
        else:
            pending.hidden = hidden_name(pending.target)
            try:
                _link_unnamed(pending.fd, pending.hidden)
            except OSError:
                _copy_to_hidden(pending, durable=durable)
    assert pending.hidden is not None
    if sys.platform == "win32":
        _close(pending)  # an open file cannot be renamed there
    if overwrite:
        _retried(lambda hidden: os.replace(hidden, pending.target), pending.hidden)
    elif sys.platform == "win32":
        os.rename(pending.hidden, pending.target)  # refuses a name that is taken
    else:
        try:
            _retried(lambda hidden: os.link(hidden, pending.target), pending.hidden)
        except FileExistsError:
            raise
        except OSError as error:  # a file system without hard links
            try:
                calls.rename_exclusively(pending.hidden, pending.target)
            except FileExistsError:
                raise
            except OSError:
                raise error from None
        with suppress(OSError):
            os.unlink(pending.hidden)
    pending.hidden = None


def _link_unnamed(fd: int, name: str) -> None:
    folder = os.open(os.path.dirname(name), os.O_PATH | os.O_DIRECTORY | CLOEXEC)  # a folder that may be written to, but not listed, will do
    try:
        # A folder's descriptor makes this linkat with AT_SYMLINK_FOLLOW, which /proc needs.
        os.link(f"/proc/self/fd/{fd}", os.path.basename(name), dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _copy_to_hidden(pending: PendingFile, *, durable: bool) -> None:
    """For file systems that create files without a name and then refuse to give them one."""
    mode = stat.S_IMODE(os.fstat(pending.fd).st_mode)
    unnamed = pending.fd
    try:
        pending.fd, pending.hidden = create_hidden(pending.target, mode)
        if pending.old is not None:
            _take_over(pending.fd, pending.old)
        offset = 0
        while data := os.pread(unnamed, _COPY_BYTES, offset):
            pending.write(offset, [memoryview(data)])
            offset += len(data)
        if offset != pending.nbytes:
            raise OSError(errno.EIO, f"the copy has {offset:,} bytes, not {pending.nbytes:,}")
        _settle(pending.fd, durable=durable)
    finally:
        if pending.fd != unnamed:
            os.close(unnamed)


def _retried(call: Callable[[str], None], name: str) -> None:
    """Some network file systems let a signal interrupt what never is elsewhere."""
    for _ in range(_TRIES):
        with suppress(InterruptedError):
            call(name)
            return
    call(name)


def _placed(pending: PendingFile) -> bool:
    """Whether the new file bears its name already, whatever the system said."""
    try:
        new, there = os.fstat(pending.fd), os.stat(pending.target)
    except OSError:
        return False
    return (new.st_dev, new.st_ino) == (there.st_dev, there.st_ino)


def _discard(pending: PendingFile) -> None:
    if pending.hidden is not None and os.getpid() == pending.process:  # a forked child leaves its parent's file alone
        if sys.platform == "win32":
            _close(pending)
        with suppress(OSError):
            os.unlink(pending.hidden)
    _close(pending)


def _close(pending: PendingFile) -> None:
    """Let go of the lock. What close could say about the bytes, it has said before."""
    fd, pending.fd = pending.fd, -1
    if fd >= 0:
        with suppress(OSError):
            os.close(fd)


def _sync(fd: int) -> None:
    """Have the file's bytes on the disk itself. Never tried twice: after an error, Linux forgets what it could not write."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):  # file systems that do not know it
                raise
    os.fsync(fd)


def _sync_folder(folder: str, name: str) -> None:
    """Have the new name on the disk itself."""
    if not capabilities.in_use.folder_sync:
        return
    try:
        try:
            fd = os.open(folder, os.O_RDONLY | CLOEXEC)
        except PermissionError:  # it may be written to, but not read: then everything is synced
            os.sync()
            return
        try:
            _sync(fd)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
        finally:
            os.close(fd)
    except OSError as error:
        sentence = "the new file is in place and whole, but may not survive a loss of power: its folder could not be synced"
        raise _told(error, f"{error.strerror}: {sentence}", name) from error


def _exists(name: str) -> FileExistsError:
    error = FileExistsError(errno.EEXIST, "the file is there already, and was left as it is; overwrite=True replaces it", name)
    error.explained = True  # type: ignore[attr-defined]
    return error


def _uncreated(error: OSError, target: str, name: str) -> OSError:
    folder = os.path.dirname(target)
    if isinstance(error, PermissionError):
        return _told(error, f"the folder {folder} does not let this user create files: change its mode, or save elsewhere; nothing was written", name)
    if isinstance(error, FileNotFoundError):
        return _told(error, f"the folder {folder} is not there: create it first; nothing was written", name)
    return _told(error, f"{error.strerror or error}; nothing was written", name)


def _explained(error: OSError, pending: PendingFile) -> OSError:
    """The same error, saying what was needed, what is free, and that nothing was harmed."""
    if getattr(error, "explained", False):
        return error
    details = ""
    if error.errno in _NO_ROOM and sys.platform != "win32":
        details = f": {pending.nbytes:,} bytes needed"
        with suppress(OSError):
            status, own = os.fstatvfs(pending.fd), os.fstat(pending.fd).st_blocks * 512
            details += f", {status.f_bavail * status.f_frsize + own:,} free"
    elif isinstance(error, PermissionError):
        details = f": the folder {os.path.dirname(pending.target)} does not let this user replace the file, or another program has it open"
    return _told(error, f"{error.strerror or error}{details}; {_outcome(pending)}", pending.name)


def _outcome(pending: PendingFile) -> str:
    if _placed(pending):
        return "the new file is in place"
    return "the old file is untouched" if pending.old is not None else "no file was written"


def _told(error: OSError, sentence: str, name: str) -> OSError:
    told = OSError(error.errno, sentence, name)  # of the same class: Python goes by the number
    told.explained = True  # type: ignore[attr-defined]  # so that no room explains it twice
    return told

"""A pending file: written at any offset by any number of threads, and in no one's way until it is put in place.

Lives here: creating it, writing to it, the sentences of its errors. Lives elsewhere: giving it its name (atomic).
"""

import errno
import os
import stat
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tensorkeep.backends import calls, capabilities
from tensorkeep.backends.hidden import CLOEXEC, create_hidden, lock

MAX_CALL_BYTES: Final = 0x7FFFF000  # what Linux moves in one call
MAX_VECTORS: Final = 1024  # IOV_MAX of Linux and macOS
_ACL: Final = "system.posix_acl_access"
_NO_ACL: Final = frozenset({errno.ENOTSUP, errno.ENOSYS, getattr(errno, "ENODATA", errno.ENOTSUP)})
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


class PendingFile:
    """A file that is being written, by any number of threads at once.

    Attributes:
        name: the file as the caller named it, for messages.
        target: the file that is replaced, links followed.
        nbytes: the size that was announced.
        hidden: the name that the new file bears meanwhile, if any.
        acl: the access control list of the old file, if it has one; empty if that cannot be said.
    """

    def __init__(self, name: str, target: str, nbytes: int, old: os.stat_result | None) -> None:
        self.name, self.target, self.nbytes, self.old = name, target, nbytes, old
        self.process = os.getpid()
        self._lock = threading.Lock()
        self.acl = None if old is None else _acl_of(target)
        self.fd, self.hidden = _create(target, old, self.acl)

    def write(self, offset: int, parts: Sequence[memoryview]) -> None:
        """Write all parts, one behind the other, from an offset in bytes.

        Raises:
            OSError: the disk is full or fails; says what was needed, and that the old file is as it was.
        """
        left = [part if part.format == "B" and part.ndim == 1 else part.cast("B") for part in parts if part.nbytes]
        try:
            write_whole(self.fd, offset, left, self._lock)
        except OSError as error:
            if error.errno is None:  # of a signal's handler
                raise
            raise explained(error, self) from error


def write_whole(fd: int, offset: int, parts: list[memoryview], lock: threading.Lock) -> None:
    """Write all parts, one behind the other, in as many calls as it takes: a short write is no error.

    Args:
        lock: of the file, for systems that have one position in it for all threads.
    """
    while parts:
        group = parts[:MAX_VECTORS] if capabilities.in_use.positional else parts[:1]
        if sum(part.nbytes for part in group) > MAX_CALL_BYTES:
            group = [parts[0][:MAX_CALL_BYTES]]
        if capabilities.in_use.positional:
            count = os.pwritev(fd, group, offset)
        else:
            with lock:  # one file position for all threads
                os.lseek(fd, offset, os.SEEK_SET)
                count = os.write(fd, group[0])
        if not 0 < count <= sum(part.nbytes for part in group):
            raise OSError(errno.EIO, f"the system says that it wrote {count:,} bytes")
        offset += count
        index = 0
        while index < len(parts) and count >= parts[index].nbytes:
            count -= parts[index].nbytes
            index += 1
        parts = parts[index:]
        if count:
            parts[0] = parts[0][count:]


def _create(target: str, old: os.stat_result | None, acl: bytes | None) -> tuple[int, str | None]:
    """The new file, locked: without a name where that can be had, else with a hidden one."""
    # The kernel takes the umask off, without the race that asking for it would be. Never more open than the old file.
    mode = 0o666 if old is None else stat.S_IMODE(old.st_mode) & (0o777 if acl is None else 0o707)
    if capabilities.in_use.unnamed:
        with suppress(OSError):  # each file system without such files says so in its own way; a true fault comes again
            fd = os.open(os.path.dirname(target), os.O_TMPFILE | os.O_RDWR | CLOEXEC, mode)
            lock(fd)
            return fd, None
    return create_hidden(target, mode)


def prepare(pending: PendingFile) -> None:
    """Mode and owner of the old file, and room for the new one."""
    try:
        if pending.old is not None and sys.platform != "win32":
            take_over(pending, pending.old)
        if capabilities.in_use.preallocate and pending.nbytes:
            try:
                # Measured on ext4, 512 MiB by two threads: 0.07 s instead of 0.10, durable 0.20 instead of 0.25.
                calls.reserve(pending.fd, pending.nbytes)
            except OSError as error:
                if error.errno is None or error.errno in _NO_ROOM:
                    raise
    except OSError as error:
        if error.errno is None:  # of a signal's handler
            raise
        raise explained(error, pending) from error


def take_over(pending: PendingFile, old: os.stat_result) -> None:
    """Mode and access control list, and where permitted owner and group, of the file that is replaced."""
    fd = pending.fd
    new = os.fstat(fd)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.fchown(fd, old.st_uid, old.st_gid)
        except OSError:
            with suppress(OSError):
                os.fchown(fd, -1, old.st_gid)
    wanted = stat.S_IMODE(old.st_mode) & 0o777
    if pending.acl is not None and sys.platform == "linux":
        try:
            os.setxattr(fd, _ACL, pending.acl)
        except OSError:
            wanted &= ~0o070  # beside a list, these bits are its mask, and not what the group may do
    if stat.S_IMODE(os.fstat(fd).st_mode) != wanted:
        try:
            os.fchmod(fd, wanted)
        except OSError:
            if stat.S_IMODE(os.fstat(fd).st_mode) & ~wanted:  # it would be open to more people than the old one
                raise


def _acl_of(target: str) -> bytes | None:
    if not capabilities.in_use.lists or sys.platform != "linux":
        return None
    try:
        return os.getxattr(target, _ACL)
    except OSError as error:
        return None if error.errno in _NO_ACL else b""


def placed(pending: PendingFile) -> bool:
    """Whether the new file bears its name already, whatever the system said."""
    try:
        new, there = os.fstat(pending.fd), os.stat(pending.target)
    except OSError:
        return False
    return (new.st_dev, new.st_ino) == (there.st_dev, there.st_ino)


def exists(name: str) -> FileExistsError:
    error = FileExistsError(errno.EEXIST, "the file is there already, and was left as it is; overwrite=True replaces it", name)
    error.explained = True  # type: ignore[attr-defined]
    return error


def uncreated(error: OSError, target: str, name: str) -> OSError:
    folder = os.path.dirname(target)
    if isinstance(error, PermissionError):
        return told(
            error, f"the folder {folder} does not let this user create files: change its mode, or save elsewhere; nothing was written", name
        )
    if isinstance(error, FileNotFoundError):
        return told(error, f"the folder {folder} is not there: create it first; nothing was written", name)
    return told(error, f"{error.strerror or error}; nothing was written", name)


def explained(error: OSError, pending: PendingFile) -> OSError:
    """The same error, saying what was needed, what is free, and that nothing was harmed."""
    if getattr(error, "explained", False):
        return error
    details = ""
    if error.errno == errno.EFBIG:
        details = f": {pending.nbytes:,} bytes needed, more than the limit on the size of a file (ulimit -f), or than the file system takes"
    elif error.errno in _NO_ROOM and sys.platform != "win32":
        details = f": {pending.nbytes:,} bytes needed"
        with suppress(OSError):
            status, own = os.fstatvfs(pending.fd), os.fstat(pending.fd).st_blocks * 512
            details += f", {status.f_bavail * status.f_frsize + own:,} free"
    elif isinstance(error, PermissionError):
        details = f": the folder {os.path.dirname(pending.target)} does not let this user replace the file, or another program has it open"
    return told(error, f"{error.strerror or error}{details}; {outcome(pending)}", pending.name)


def outcome(pending: PendingFile) -> str:
    if placed(pending):
        return "the new file is in place"
    return "the old file is untouched" if pending.old is not None else "no file was written"


def told(error: OSError, sentence: str, name: str) -> OSError:
    told = OSError(error.errno, sentence, name)  # of the same class: Python goes by the number
    told.explained = True  # type: ignore[attr-defined]  # so that no room explains it twice
    return told

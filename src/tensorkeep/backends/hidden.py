"""Hidden files: the names that new files bear until they are whole, and the removal of those that a kill left.

Who writes a hidden file holds its lock. A lock ends with its process, so a file whose lock is free is a leftover.
"""

import logging
import os
import re
import secrets
import stat
import sys
import time
from contextlib import suppress
from typing import Final

from tensorkeep.backends import capabilities

if sys.platform != "win32":
    import fcntl

_log: Final = logging.getLogger("tensorkeep")

CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_BINARY", 0)
MAX_NAME_BYTES: Final = 255
_ADDED_BYTES: Final = len("..") + 16 + len(".tmp")
_HIDDEN: Final = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)
_TRIES: Final = 100
_WAIT_S: Final = 10.0  # for a lock that is held for a millisecond
_LOOK_S: Final = 0.001
_LEFT_S: Final = 3600  # on Windows, where no lock outlives the close before a rename: what is older has been left


def hidden_name(target: str) -> str:
    """A new name beside a file, `.NAME.<16 hex digits>.tmp`."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{_stem(name)}.{secrets.token_hex(8)}.tmp")


def create_hidden(target: str, mode: int, *, dir_fd: int | None = None) -> tuple[int, str]:
    """A new hidden file beside a file, locked: its descriptor and its name. A relative name counts from the folder `dir_fd`."""
    for _ in range(_TRIES):
        name = hidden_name(target)
        fd = -1
        try:
            fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | CLOEXEC, mode, dir_fd=dir_fd)
            if lock(fd) and (sys.platform == "win32" or os.fstat(fd).st_nlink):
                return fd, name
        except FileExistsError:  # one chance in 2^64; it is somebody else's
            continue
        except BaseException:
            _drop(fd, name, dir_fd)
            raise
        _drop(fd, name, dir_fd)  # between open and lock, another save took it for a leftover
    raise FileExistsError(f"no hidden name for {target} could be had")


def lock(fd: int) -> bool:
    """Take the lock of a new file; False if another process has it. A file system without locks keeps leftovers."""
    if capabilities.in_use.locks and sys.platform != "win32":
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


def take_lock(fd: int) -> bool:
    """Wait for the lock of an open folder; whether it was had: False where the file system has none.

    Raises:
        OSError: `EAGAIN`, somebody else has held it for seconds.
    """
    if not capabilities.in_use.locks or sys.platform == "win32":
        return False
    end = time.monotonic() + _WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError as error:
            if time.monotonic() > end:
                said = f"another process, perhaps a stopped one, has held the lock of this folder for {_WAIT_S:g} s; nothing was changed"
                raise BlockingIOError(error.errno, said) from error
            time.sleep(_LOOK_S)
        except OSError:
            return False


def give_lock(fd: int) -> None:
    """Give it back; a child that was forked meanwhile has the same one, and a close would leave it that."""
    if sys.platform != "win32":
        fcntl.flock(fd, fcntl.LOCK_UN)


def remove_leftovers(target: str) -> None:
    """Remove the hidden files that killed saves of this path left: regular files of the exact pattern whose lock is free."""
    if not capabilities.in_use.locks and sys.platform != "win32":
        return
    folder, name = os.path.split(target)
    pattern = hidden_pattern(name)
    try:
        leftovers = [entry for entry in os.listdir(folder) if pattern.fullmatch(entry)]
    except OSError:  # the folder may be written to, but not listed
        return
    for entry in leftovers:
        with suppress(OSError):
            remove_leftover(os.path.join(folder, entry))


def hidden_pattern(name: str) -> re.Pattern[str]:
    """How the hidden names beside a file or folder of this name are spelled."""
    return re.compile(re.escape(f".{_stem(name)}.") + r"[0-9a-f]{16}\.tmp")


def is_hidden(name: str) -> bool:
    """Whether a name, without its folder, is spelled as a hidden one."""
    return _HIDDEN.fullmatch(name) is not None


def remove_leftover(path: str, *, dir_fd: int | None = None, only_look: bool = False) -> bool:
    """Remove a hidden file if nobody writes it any more; False if somebody may.

    Args:
        path: of the file; a relative one counts from the folder `dir_fd`.
        only_look: leave it where it is.

    Raises:
        OSError: it is gone, or of somebody else.
    """
    if sys.platform == "win32":
        left = time.time() - os.lstat(path).st_mtime > _LEFT_S and stat.S_ISREG(os.lstat(path).st_mode)
        if left and not only_look:
            os.unlink(path)  # refused while it is open
        return left
    if not capabilities.in_use.locks:
        return False
    # Without O_NONBLOCK, a pipe of that name would wait for ever.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | CLOEXEC, dir_fd=dir_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        try:
            # Refused while a save holds it. Shared: NFS gives an exclusive one only to who may write, and both conflict with the save's.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not only_look:
            os.unlink(path, dir_fd=dir_fd)
            _log.info("removed %s, which a killed save left", path)
        return True
    finally:
        os.close(fd)


def _stem(name: str) -> str:
    """The name, short enough for the hidden one to be a name too, cut between characters."""
    encoded = os.fsencode(name)
    end = min(len(encoded), MAX_NAME_BYTES - _ADDED_BYTES)
    for _ in range(3):
        if end < len(encoded) and encoded[end] & 0xC0 == 0x80:
            end -= 1
    return os.fsdecode(encoded[:end])


def _drop(fd: int, name: str, dir_fd: int | None) -> None:
    if fd >= 0:
        with suppress(OSError):
            os.close(fd)
    with suppress(OSError):
        os.unlink(name, dir_fd=dir_fd)

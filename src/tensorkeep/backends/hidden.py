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
_TRIES: Final = 100
_LEFT_S: Final = 3600  # on Windows, where no lock outlives the close before a rename: what is older has been left


def hidden_name(target: str) -> str:
    """A new name beside a file, `.NAME.<16 hex digits>.tmp`."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{_stem(name)}.{secrets.token_hex(8)}.tmp")


def create_hidden(target: str, mode: int) -> tuple[int, str]:
    """A new hidden file beside a file, locked: its descriptor and its name."""
    for _ in range(_TRIES):
        name = hidden_name(target)
        fd = -1
        try:
            fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | CLOEXEC, mode)
            if lock(fd) and (sys.platform == "win32" or os.fstat(fd).st_nlink):
                return fd, name
        except FileExistsError:  # one chance in 2^64; it is somebody else's
            continue
        except BaseException:
            _drop(fd, name)
            raise
        _drop(fd, name)  # between open and lock, another save took it for a leftover
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


def remove_leftovers(target: str) -> None:
    """Remove the hidden files that killed saves of this path left: regular files of the exact pattern whose lock is free."""
    if not capabilities.in_use.locks and sys.platform != "win32":
        return
    folder, name = os.path.split(target)
    pattern = re.compile(re.escape(f".{_stem(name)}.") + r"[0-9a-f]{16}\.tmp")
    try:
        leftovers = [entry for entry in os.listdir(folder) if pattern.fullmatch(entry)]
    except OSError:  # the folder may be written to, but not listed
        return
    for entry in leftovers:
        with suppress(OSError):
            _remove_leftover(os.path.join(folder, entry))


def _remove_leftover(path: str) -> None:
    if sys.platform == "win32":
        if time.time() - os.lstat(path).st_mtime > _LEFT_S and stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)  # refused while it is open
        return
    # Without O_NONBLOCK, a pipe of that name would wait for ever.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            # Raises while a save holds it. Shared: NFS gives an exclusive one only to who may write, and both conflict with the save's.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.unlink(path)
            _log.info("removed %s, which a killed save left", path)
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


def _drop(fd: int, name: str) -> None:
    if fd >= 0:
        with suppress(OSError):
            os.close(fd)
    with suppress(OSError):
        os.unlink(name)

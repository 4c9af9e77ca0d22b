"""Durable: bytes and names on the disk itself, so that a loss of power leaves them."""

import errno
import os
import sys
from typing import Final

from tensorkeep.backends import calls, capabilities

if sys.platform != "win32":
    import fcntl

_NO_SYNC: Final = frozenset({errno.EINVAL, errno.EBADF, errno.ENOTSUP})  # a file system that cannot sync folders


def sync(fd: int) -> None:
    """Have the file's bytes on the disk itself. Never tried twice: after an error, Linux forgets what it could not write."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):  # file systems that do not know it
                raise
    os.fsync(fd)


def sync_folder(fd: int) -> None:
    """Have the names in a folder on the disk itself, where that can be had."""
    if not capabilities.in_use.folder_sync:
        return
    try:
        sync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def begin_writing(fd: int, start: int, stop: int) -> None:
    """Have the system begin to write these bytes to the disk. A wish: what it cannot do, it leaves."""
    if capabilities.in_use.early_writing:
        try:
            calls.begin_writing(fd, start, stop - start)
        except OSError as error:
            if error.errno is None:  # of a signal's handler
                raise

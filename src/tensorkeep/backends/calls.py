"""Calls: what the C library has and Python's `os` has not.

Each raises the OSError of the call, `ENOSYS` where the library lacks it. All release the interpreter's lock.
"""

import ctypes
import errno
import os
import sys
from typing import Any, Final

_KEEP_SIZE: Final = 1  # FALLOC_FL_KEEP_SIZE
_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE
_POPULATE_READ: Final = 22  # MADV_POPULATE_READ, Linux 5.14
_NO_REPLACE: Final = 1  # RENAME_NOREPLACE
_EXCLUSIVE: Final = 4  # RENAME_EXCL of macOS
_EXCHANGE: Final = 2  # RENAME_EXCHANGE, and RENAME_SWAP of macOS
_HERE: Final = -100  # AT_FDCWD

_LIBRARY: Final[Any] = None if sys.platform == "win32" else ctypes.CDLL(None, use_errno=True)


def reserve(fd: int, nbytes: int) -> None:
    """Have room for a file on the disk; its size stays. Never `posix_fallocate`, which writes zeros where the disk cannot reserve."""
    _call("fallocate", ctypes.c_int(fd), ctypes.c_int(_KEEP_SIZE), ctypes.c_long(0), ctypes.c_long(nbytes))


def begin_writing(fd: int, start: int, nbytes: int) -> None:
    """Have the system begin to write these bytes of a file to the disk; waits for none of them, and makes none durable."""
    _call("sync_file_range", ctypes.c_int(fd), ctypes.c_long(start), ctypes.c_long(nbytes), ctypes.c_uint(_WRITE))


def populate(address: int, nbytes: int) -> None:
    """Have the pages of a mapping in memory, as if each was read: those of a private one are not copied."""
    _call("madvise", ctypes.c_void_p(address), ctypes.c_size_t(nbytes), ctypes.c_int(_POPULATE_READ))


def file_system(fd: int) -> int:
    """The number by which Linux knows the type of file system that an open file lies on."""
    status = (ctypes.c_long * 64)()  # struct statfs is 120 bytes; its first word is the type
    _call("fstatfs", ctypes.c_int(fd), ctypes.byref(status))
    return status[0] & 0xFFFFFFFF


def rename_exclusively(old: str, new: str) -> None:
    """Rename, unless the new name is taken."""
    before, after = ctypes.c_char_p(os.fsencode(old)), ctypes.c_char_p(os.fsencode(new))
    if sys.platform == "darwin":
        _call("renamex_np", before, after, ctypes.c_uint(_EXCLUSIVE))
    else:
        _call("renameat2", ctypes.c_int(_HERE), before, ctypes.c_int(_HERE), after, ctypes.c_uint(_NO_REPLACE))


def exchange(one: str, other: str) -> None:
    """Let two names change places, at one moment."""
    first, second = ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other))
    if sys.platform == "darwin":
        _call("renamex_np", first, second, ctypes.c_uint(_EXCHANGE))
    else:
        _call("renameat2", ctypes.c_int(_HERE), first, ctypes.c_int(_HERE), second, ctypes.c_uint(_EXCHANGE))


def _call(name: str, *arguments: Any) -> None:
    function = getattr(_LIBRARY, name, None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

"""Capabilities: which optional calls this system has. Everything works without any of them, slower or less tidy."""

import ctypes
import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What may be used. Tests switch all of it off and run again.

    Attributes:
        unnamed: files without a name until they are whole (`O_TMPFILE`).
        positional: reads and writes at an offset, of several buffers at once.
        preallocate: room on the disk asked for before the first byte (`fallocate`).
        early_writing: bytes on their way to the disk before anybody waits for them (`sync_file_range`).
        mapping: files mapped into memory.
        populate: pages of a mapping asked for by range (`MADV_POPULATE_READ`).
        advice: bytes of a file asked for by range (`posix_fadvise`).
        locks: advisory locks that a kill releases.
        file_system: the type of the file system under a file (`fstatfs`).
        lists: access control lists (`getxattr`).
        relative: names that count from an open folder (`openat`), which nobody can exchange for another meanwhile.
        folder_sync: folders can be synced; where they cannot, nothing can make a name durable.
        exchange: two folders change places at one moment (`renameat2`).
    """

    unnamed: bool
    positional: bool
    preallocate: bool
    early_writing: bool
    mapping: bool
    populate: bool
    advice: bool
    locks: bool
    file_system: bool
    lists: bool
    relative: bool
    folder_sync: bool
    exchange: bool


_LINUX = sys.platform == "linux"
_WINDOWS = sys.platform == "win32"

ALL = Capabilities(
    unnamed=hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"),
    positional=hasattr(os, "preadv") and hasattr(os, "pwritev"),
    preallocate=_LINUX and ctypes.sizeof(ctypes.c_long) == 8,  # off_t as the call takes it
    early_writing=_LINUX and ctypes.sizeof(ctypes.c_long) == 8,
    mapping=not _WINDOWS,  # Windows refuses to replace a file that is mapped
    populate=_LINUX,
    advice=hasattr(os, "posix_fadvise"),
    locks=not _WINDOWS,  # nor does it let go of a file that is open: there, a leftover is one that can be removed
    file_system=_LINUX and ctypes.sizeof(ctypes.c_long) == 8,
    lists=hasattr(os, "getxattr"),
    relative={os.open, os.link, os.unlink, os.mkdir, os.stat, os.rename} <= os.supports_dir_fd and os.listdir in os.supports_fd,
    folder_sync=not _WINDOWS,
    exchange=not _WINDOWS,
)

NONE = Capabilities(
    unnamed=False,
    positional=False,
    preallocate=False,
    early_writing=False,
    mapping=False,
    populate=False,
    advice=False,
    locks=False,
    file_system=False,
    lists=False,
    relative=False,
    folder_sync=False,
    exchange=False,
)

in_use: Capabilities = ALL
"""What this process uses."""

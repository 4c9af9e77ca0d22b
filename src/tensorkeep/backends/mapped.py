"""Mapped: bytes of an open file where the system keeps them, without a copy."""

import mmap
import sys

import numpy as np

from tensorkeep.backends import calls, capabilities


def mapped(fd: int, start: int, stop: int) -> memoryview | None:
    """Some bytes of a file, to be read at once; None where they cannot be had so, for any reason.

    All of them are in memory when this returns: what the disk cannot give is told here, and not by a signal to whoever looks. One that cuts
    the file short meanwhile can still have the process killed, so this is for files that nobody changes.
    """
    if not (capabilities.in_use.mapping and capabilities.in_use.populate) or sys.platform != "linux" or start >= stop:
        return None
    first = start - start % mmap.PAGESIZE
    try:
        view = mmap.mmap(fd, stop - first, mmap.MAP_SHARED, mmap.PROT_READ, offset=first)
        calls.populate(np.frombuffer(view, np.uint8).ctypes.data, stop - first)
    except (OSError, ValueError):  # no address space left, a file system that cannot, a file that ends before, an older kernel
        return None
    return memoryview(view)[start - first :]

"""Local files: reading at offsets, mapping, streams.

Lives here: what is read from a folder, and what kind of thing a path is. Lives elsewhere: replacing a file (atomic).
"""

import ctypes
import errno
import mmap
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from tensorkeep.backends import capabilities
from tensorkeep.backends.atomic import PendingFile, replacing
from tensorkeep.errors import FormatError

Path = str | bytes | os.PathLike[str]

MAX_CALL_BYTES: Final = 0x7FFFF000  # what Linux moves in one call
MAX_VECTORS: Final = 1024  # IOV_MAX of Linux and macOS
_POPULATE_READ: Final = 22  # MADV_POPULATE_READ, Linux 5.14
_REMOTE: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs", "beegfs", "gpfs", "virtiofs"}
)


class Identity(NamedTuple):
    """What differs if a file was changed or replaced."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def kind_of(path: Path) -> Literal["missing", "file", "folder", "stream", "other"]:
    """What stands at a path, links followed. A pipe or character device is a stream."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "missing"
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "stream" if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) else "other"


def is_stream(path: Path) -> bool:
    """Whether a path can only be read from its beginning to its end."""
    return kind_of(path) == "stream"


def read_stream(path: Path, *, limit: int) -> bytes:
    """All bytes of a pipe or character device.

    Raises:
        FormatError: there are more than `limit`.
    """
    with open(path, "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise FormatError(os.fsdecode(path), f"the stream has more than {limit:,} bytes")
    return data


@contextmanager
def streaming(path: Path) -> Iterator[Callable[[memoryview], object]]:
    """Write to a pipe or character device, in order."""
    with open(path, "wb", buffering=0) as stream:

        def write(part: memoryview) -> None:
            while part.nbytes:
                part = part[stream.write(part) or 0 :]

        yield write


class ReadFile:
    """A regular file that is open for reading, by any number of threads at once.

    Args:
        path: links are followed.

    Raises:
        FileNotFoundError, IsADirectoryError, PermissionError: as for `open`.
        OSError: it is a device or socket.
    """

    def __init__(self, path: Path) -> None:
        self.name = os.fsdecode(path)
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        self.fd = os.open(path, flags)
        try:
            status = os.fstat(self.fd)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, "a folder, where a file is wanted", self.name)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file; it cannot be opened", self.name)
        except BaseException:
            self.close()
            raise
        self.nbytes = status.st_size
        self._lock = threading.Lock()
        self._address: tuple[int, mmap.mmap] | None = None  # a read-only mapping, to ask for pages through

    @property
    def remote(self) -> bool:
        """Whether it lies on a network file system, where a mapping may fail in the middle of a read."""
        return _file_system(self.name) in _REMOTE or _file_system(self.name).startswith("fuse")

    def identity(self) -> Identity:
        """Of the file as it is now."""
        status = os.fstat(self.fd)
        return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def read_into(self, offset: int, into: memoryview) -> None:
        """Read whole, from an offset in bytes.

        Raises:
            OSError: the file ends before that, or the disk fails.
        """
        while into.nbytes:
            count = self._read(offset, [into[:MAX_CALL_BYTES]])
            if count == 0:
                raise OSError(errno.EIO, f"the file was cut short while it was read: nothing at byte {offset:,}", self.name)
            offset, into = offset + count, into[count:]

    def read_vector(self, offset: int, into: Sequence[memoryview]) -> None:
        """Read neighbouring bytes into several places, whole.

        Raises:
            OSError: as for `read_into`.
        """
        for first in range(0, len(into), MAX_VECTORS):
            group = into[first : first + MAX_VECTORS]
            nbytes = sum(part.nbytes for part in group)
            count = self._read(offset, group) if capabilities.in_use.positional and nbytes <= MAX_CALL_BYTES else 0
            for part in group:  # whatever one call did not bring
                if count < part.nbytes:
                    self.read_into(offset + count, part[count:])
                    count = part.nbytes
                offset, count = offset + part.nbytes, count - part.nbytes

    def _read(self, offset: int, into: Sequence[memoryview]) -> int:
        if capabilities.in_use.positional:
            return os.preadv(self.fd, list(into), offset)
        with self._lock:  # one file position for all threads
            os.lseek(self.fd, offset, os.SEEK_SET)
            data = os.read(self.fd, into[0].nbytes)
        into[0][: len(data)] = data
        return len(data)

    def mapping(self) -> memoryview | None:
        """The whole file, copied page by page when written to; None where that cannot be had. Views of it keep it."""
        if not capabilities.in_use.mapping or self.nbytes == 0:
            return None
        try:
            return memoryview(mmap.mmap(self.fd, self.nbytes, access=mmap.ACCESS_COPY))
        except (OSError, ValueError):  # no address space left, or a file system that cannot
            return None

    def read_ahead(self, start: int, stop: int) -> None:
        """Have these bytes in memory soon, if the system can be asked. Waits for them, without the interpreter's lock."""
        if not capabilities.in_use.populate or stop <= start:
            return
        address = self._populating()
        if address is None:
            return
        first = start - start % mmap.PAGESIZE
        _LIBC.madvise(ctypes.c_void_p(address + first), ctypes.c_size_t(stop - first), _POPULATE_READ)  # best effort: the read follows

    def _populating(self) -> int | None:
        """Address of a read-only mapping: on a writable private one, populating would copy every page."""
        with self._lock:
            if self._address is None:
                try:
                    mapped = mmap.mmap(self.fd, self.nbytes, access=mmap.ACCESS_READ)
                except (OSError, ValueError):
                    return None
                self._address = (int(np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]), mapped)
            return self._address[0]

    def close(self) -> None:
        """Close the file. Views of its mapping stay valid."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            self.close()


def _libc() -> Any:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library


_LIBC: Final = _libc()


def _file_system(path: str) -> str:
    """The type of the file system that a path lies on; "" where nobody says."""
    if sys.platform != "linux":
        return ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            rows = [line.split(" ") for line in mounts]
    except OSError:
        return ""
    real = os.path.realpath(path)
    best, kind = "", ""
    for row in rows:
        point = row[1].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, row[2]
    return kind


__all__ = [
    "Identity",
    "Path",
    "PendingFile",
    "ReadFile",
    "is_stream",
    "kind_of",
    "read_stream",
    "replacing",
    "streaming",
]

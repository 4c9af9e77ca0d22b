"""Local files: reading at offsets, mapping, streams.

Lives here: what is read from a folder, and what kind of thing a path is. Lives elsewhere: replacing a file (atomic).
"""

import ctypes
import errno
import mmap
import os
import re
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, Self

from tensorkeep.backends import calls, capabilities
from tensorkeep.backends.atomic import Path, replacing
from tensorkeep.backends.hidden import CLOEXEC
from tensorkeep.backends.pending import MAX_CALL_BYTES, MAX_VECTORS, PendingFile, told
from tensorkeep.errors import FormatError

_PIECE_BYTES: Final = 1 << 20
_MOST_ASKED_BYTES: Final = 128 << 20
_MOST_LINKS: Final = 40  # as many as Linux follows
_DESCRIPTORS: Final = re.compile(r"/dev/fd|/proc/(\d+)(?:/task/\d+)?/fd")  # folders of open descriptors: macOS, Linux
_NO_RESERVE: Final = 0x4000 if sys.platform == "linux" else 0  # MAP_NORESERVE: a file larger than the memory can be mapped too
_NO_DESCRIPTOR: Final[dict[str, Any]] = {"trackfd": False} if sys.version_info >= (3, 13) else {}  # else each mapping keeps one open
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # a scheme of one letter would be a drive of Windows
_REMOTE: Final = frozenset(
    {
        0x00006969,  # nfs
        0xFF534D42,  # cifs
        0xFE534D42,  # smb2 and 3
        0x0000517B,  # smb
        0x65735546,  # fuse, virtiofs too: what is behind it nobody says
        0x01021997,  # 9p
        0x00C36400,  # ceph
        0x0BD00BD0,  # lustre
        0x47504653,  # gpfs
        0x19830326,  # beegfs
        0x5346414F,  # afs
        0x6B414653,  # afs of the kernel
        0x73757245,  # coda
        0xAAD7AAEA,  # panfs
    }
)
_AGREEING: Final = frozenset({0x00C36400, 0x0BD00BD0, 0x47504653, 0x19830326, 0xAAD7AAEA})  # all clients see one folder: locks behind it


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """What differs if the content of a file was changed. A name more or less, as when the path is given to a new file, is no change."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int  # moves with `links` too, and cannot be set back as `mtime_ns` can
    links: int

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identity):
            return NotImplemented
        return self._content == other._content and (self.ctime_ns == other.ctime_ns or self.links != other.links)

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def _content(self) -> tuple[int, ...]:
        return self.device, self.inode, self.size, self.mtime_ns


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


def refuse_url(path: Path) -> None:
    """Say of a URL that it is one, where the system would only miss a file. `C://a` and `s3:` are no URLs.

    Raises:
        OSError: it is a URL.
    """
    name = os.fsdecode(path)
    if _URL.match(name):
        said = "a URL, which is not supported yet: copy it with a tool that knows it, and pass the path of a local file"
        raise OSError(errno.EINVAL, said, name)


def is_stream(path: Path) -> bool:
    """Whether a path can only be read from its beginning to its end."""
    return kind_of(path) == "stream"


def is_descriptor(path: Path) -> bool:
    """Whether a path, links followed, names a descriptor that a process has open, as `/dev/stdout` and `/proc/self/fd/3` do."""
    return _descriptor(os.fsdecode(path)) is not None


def _descriptor(name: str) -> tuple[bool, int] | None:
    """Whether it is this process's own, and its number."""
    for _ in range(_MOST_LINKS):
        folder, last = os.path.split(name)
        folder = os.path.realpath(folder)
        found = _DESCRIPTORS.fullmatch(folder)
        if found is not None and last.isascii() and last.isdigit():
            return found[1] in (None, str(os.getpid())), int(last)
        try:
            name = os.path.join(folder, os.readlink(os.path.join(folder, last)))
        except (OSError, ValueError):  # no link
            return None
    return None


def read_stream(path: Path, *, limit: int, head: int = 0, check: Callable[[bytes], object] | None = None) -> bytes:
    """All bytes of a pipe or character device.

    Args:
        path: of the stream.
        limit: most bytes to take.
        head: how many bytes `check` wants.
        check: raises if these cannot be the beginning of what is wanted: `/dev/zero` never ends.

    Raises:
        FormatError: there are more than `limit`.
    """
    pieces, left = [], limit
    fd = _open_stream(path, os.O_RDONLY)
    try:
        if check is not None:
            first = b""
            while len(first) < head and (piece := os.read(fd, head - len(first))):
                first += piece
            left -= len(first)
            pieces.append(first)
            check(first)
        while piece := os.read(fd, _PIECE_BYTES):
            left -= len(piece)
            if left < 0:
                raise FormatError(os.fsdecode(path), f"the stream has more than {limit:,} bytes")
            pieces.append(piece)
    finally:
        os.close(fd)
    return b"".join(pieces)


@contextmanager
def streaming(path: Path) -> Iterator[Callable[[memoryview], object]]:
    """Write to a pipe, a character device or an open descriptor, in order. Errors of its close count."""
    fd = _open_for_writing(path)

    def write(part: memoryview) -> None:
        part = part.cast("B") if part.nbytes else part
        while part.nbytes:
            try:
                count = os.write(fd, part[:MAX_CALL_BYTES])
                if not 0 < count <= part.nbytes:
                    raise OSError(errno.EIO, f"the system says that it wrote {count:,} bytes")
                part = part[count:]
            except OSError as error:
                if error.errno is None:  # of a signal's handler
                    raise
                raise told(error, f"{error.strerror}; the stream ends in the middle", os.fsdecode(path)) from error

    try:
        yield write
    except BaseException:
        with suppress(OSError):
            os.close(fd)
        raise
    os.close(fd)


def _open_for_writing(path: Path) -> int:
    """What a shell has redirected goes on where it stands: a descriptor of our own is never opened anew."""
    descriptor = _descriptor(os.fsdecode(path))
    if descriptor is None:
        return _open_stream(path, os.O_WRONLY)
    own, number = descriptor
    if own:
        try:
            return os.dup(number)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error
    if kind_of(path) == "file":
        raise OSError(errno.EINVAL, "a file that another process has open; name the file itself", os.fsdecode(path))
    return _open_stream(path, os.O_WRONLY)


def _open_stream(path: Path, flags: int) -> int:
    """Waits, at a pipe, for the other side. Never creates a file, should the stream be gone."""
    fd = os.open(path, flags | CLOEXEC | getattr(os, "O_NOCTTY", 0))
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        os.close(fd)
        raise OSError(errno.EINVAL, "no longer a stream", os.fsdecode(path))
    return fd


def on_network(fd: int, *, agreeing: bool = True) -> bool:
    """Whether an open file or folder lies on a network file system. Not, where nobody says.

    Args:
        agreeing: whether those count too whose clients never see an old listing: Ceph, Lustre, GPFS, BeeGFS, PanFS.
    """
    if not capabilities.in_use.file_system:
        return False
    with suppress(OSError):
        return calls.file_system(fd) in (_REMOTE if agreeing else _REMOTE - _AGREEING)
    return False


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
        self.fd = -1
        self._lock = threading.Lock()
        self._mapped: mmap.mmap | None = None
        _check_regular(os.stat(path), self.name)  # first: to open a device can do things to it
        # Without O_NONBLOCK, a pipe that has taken the file's place would wait for ever.
        self.fd = os.open(path, os.O_RDONLY | CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        try:
            status = os.fstat(self.fd)
            _check_regular(status, self.name)
        except BaseException:
            self.close()
            raise
        self.nbytes = status.st_size

    @cached_property
    def remote(self) -> bool:
        """Whether it lies on a network file system, where a mapping may fail in the middle of a read. Not, where nobody says."""
        return on_network(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def identity(self) -> Identity:
        """Of the file as it is now."""
        status = os.fstat(self.fd)
        return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink)

    def read_into(self, offset: int, into: memoryview) -> None:
        """Read whole, from an offset in bytes.

        Raises:
            OSError: the file ends before that, or the disk fails.
        """
        if into.nbytes:
            into = into.cast("B")
        while into.nbytes:
            count = self._read(offset, [into[:MAX_CALL_BYTES]])
            if count == 0:
                raise OSError(errno.EIO, f"the file was cut short while it was read: it has no byte {offset:,}", self.name)
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
                    self.read_into(offset + count, part.cast("B")[count:])
                    count = part.nbytes
                offset, count = offset + part.nbytes, count - part.nbytes

    def _read(self, offset: int, into: Sequence[memoryview]) -> int:
        """One call. A short read is no error."""
        if self.fd < 0:
            raise OSError(errno.EBADF, "the file was closed; open it again", self.name)
        try:
            if capabilities.in_use.positional:
                return os.preadv(self.fd, into, offset)
            with self._lock:  # one file position for all threads
                os.lseek(self.fd, offset, os.SEEK_SET)
                data = os.read(self.fd, into[0].nbytes)
        except OSError as error:
            if error.errno is None:  # of a signal's handler
                raise
            raise OSError(error.errno, f"{error.strerror}, reading at byte {offset:,}", self.name) from error
        into[0][: len(data)] = data
        return len(data)

    def mapping(self) -> memoryview | None:
        """The whole file, copied page by page when written to; None where that cannot be had. Views of it keep it.

        Cutting the file short makes the process die of SIGBUS where a view reads beyond the new end; `remote` files are best read.
        """
        if not capabilities.in_use.mapping or sys.platform == "win32" or self.nbytes == 0:
            return None
        try:
            flags, access = mmap.MAP_PRIVATE | _NO_RESERVE, mmap.PROT_READ | mmap.PROT_WRITE
            mapped = mmap.mmap(self.fd, self.nbytes, flags, access, **_NO_DESCRIPTOR)
        except (OSError, ValueError):  # no address space left, a file system that cannot, or a file that was cut short
            return None
        self._mapped = mapped
        return memoryview(mapped)

    def read_ahead(self, start: int, stop: int) -> None:
        """Have these bytes of the mapping in memory, if there is one. Waits for them, without the interpreter's lock; never raises.

        Measured, hashing 256 MiB cold by one thread: 0.120 s, 0.128 without; with `posix_fadvise` instead 0.245, so that is left out.
        No page is copied, though the mapping is private and writable; a second one, read-only, gained nothing.
        """
        mapped = self._mapped
        if mapped is None or not capabilities.in_use.populate or not 0 <= start < stop <= self.nbytes:
            return
        first = start - start % mmap.PAGESIZE
        with suppress(OSError):  # an older kernel, or a file that was cut short
            calls.populate(ctypes.addressof(ctypes.c_char.from_buffer(mapped)) + first, stop - first)

    def will_need(self, start: int, stop: int) -> None:
        """Ask for these bytes and no others; returns at once, and never raises.

        A byte of a mapping that is not in memory makes the system read ahead of it, on some machines 8 MiB: far more than a few rows.
        For so many bytes that this is little beside them, nothing is asked.
        """
        if not capabilities.in_use.advice or stop - start > _MOST_ASKED_BYTES:
            return
        for piece in range(start, stop, _PIECE_BYTES):  # more at once is cut down to what the system reads ahead
            with suppress(OSError):
                os.posix_fadvise(self.fd, piece, min(_PIECE_BYTES, stop - piece), os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close the file. Views of its mapping stay valid."""
        self._mapped = None
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def __del__(self) -> None:
        try:  # noqa: SIM105  # `suppress` may be gone
            self.close()
        except (AttributeError, TypeError, OSError):  # never opened; or the interpreter ends, and has put None for all that it knew
            pass


def _check_regular(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder, where a file is wanted", name)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "a device, pipe or socket, where a regular file is wanted", name)


__all__ = [
    "Identity",
    "Path",
    "PendingFile",
    "ReadFile",
    "is_descriptor",
    "is_stream",
    "kind_of",
    "on_network",
    "read_stream",
    "refuse_url",
    "replacing",
    "streaming",
]

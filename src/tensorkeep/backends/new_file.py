"""A new file of a folder backend: written piece by piece, and without a name of its own until it is whole.

Lives here: one file, from nothing to its name. Lives elsewhere: which files become durable together (folder), and the files that
`save` writes, of a size that is known (atomic).
"""

import errno
import os
import random
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tensorkeep.backends import capabilities
from tensorkeep.backends.durable import begin_writing, sync
from tensorkeep.backends.hidden import CLOEXEC, create_hidden, lock
from tensorkeep.backends.inner_folder import Root
from tensorkeep.backends.keys import UnsureError
from tensorkeep.backends.pending import MAX_CALL_BYTES, write_whole

# Measured on ext4, 512 MiB in pieces of 4 MiB with 7 ms of work before each: durable in 1.6 to 1.8 s, without it 2.6 to 2.9.
_EARLY_BYTES: Final = 16 << 20
_COPY_BYTES: Final = 4 << 20
_SECOND: Final = 1_000_000_000
_MODE: Final = 0o666  # less what the umask takes
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_NO_ROOM: Final = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


class NewFile:
    """A file under way, in one of a backend's folders, which stays open as long.

    Args:
        root: of the backend.
        parts: of its key.
        hidden: whether it needs a name from the start, as a rename wants one.
    """

    def __init__(self, root: Root, parts: tuple[str, ...], *, hidden: bool) -> None:
        self.parts, self.name = parts, parts[-1]
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._end = self._begun = 0
        self.fd, self._hidden = -1, ""
        self.folder = root.reach(parts[:-1], make=True)
        try:
            self._create(hidden=hidden)
        except BaseException:
            self.folder.close()
            raise

    def _create(self, *, hidden: bool) -> None:
        if capabilities.in_use.unnamed and not hidden and self.folder.fd is not None:
            with suppress(OSError):  # each file system without such files says so in its own way; a true fault comes again
                self.fd = os.open(".", os.O_TMPFILE | os.O_RDWR | CLOEXEC, _MODE, dir_fd=self.folder.fd)
                lock(self.fd)
                return
        self.fd, self._hidden = create_hidden(self.folder.at(self.name), _MODE, dir_fd=self.folder.fd)

    def write(self, parts: Sequence[memoryview]) -> int:
        """Append all parts, from any thread; the offset at which the first of them begins.

        Raises:
            OSError: the disk is full or fails.
        """
        left = [part if part.format == "B" and part.ndim == 1 else part.cast("B") for part in parts if part.nbytes]
        nbytes = sum(part.nbytes for part in left)
        with self._lock:
            start, self._end = self._end, self._end + nbytes
        try:
            write_whole(self.fd, start, left, self._lock)
        except OSError as error:
            if error.errno in _NO_ROOM and sys.platform != "win32":
                status = os.fstatvfs(self.fd)
                free = status.f_bavail * status.f_frsize
                said = f"{error.strerror}: {nbytes:,} bytes more needed after {start:,}, {free:,} free; nothing was made"
                raise OSError(error.errno, said) from error
            raise
        with self._lock:
            begun, stop = self._begun, self._end
            if stop - begun < _EARLY_BYTES:
                return start
            self._begun = stop
        begin_writing(self.fd, begun, stop)
        return start

    def settle(self, *, durable: bool) -> None:
        """All that may still go wrong with the bytes goes wrong here: fsync, and a close, whose errors count, of a second descriptor."""
        if os.getpid() != self._process:
            raise RuntimeError("a forked child cannot finish what its parent writes")
        self._mark()
        found = os.fstat(self.fd).st_size
        if found != self._end:
            raise OSError(errno.EIO, f"the new file has {found:,} bytes, not {self._end:,}")
        if durable:
            sync(self.fd)
        os.close(os.dup(self.fd))

    def _mark(self) -> None:
        """A time that no other version of this object has: the system's own stands still for some milliseconds at a time."""
        if os.utime in os.supports_fd:
            with suppress(OSError):
                ns = os.fstat(self.fd).st_mtime_ns
                ns -= random.SystemRandom().randrange(_SECOND)
                os.utime(self.fd, ns=(ns, ns))

    def link(self) -> None:
        """Give it its name, unless that is taken.

        Raises:
            FileExistsError: it is.
            UnsureError: nobody can say.
        """
        if not self._hidden:
            try:
                self._link_unnamed()
                return
            except OSError as error:
                if isinstance(error, FileExistsError) or error.errno is None:
                    raise
            self._copy_to_hidden()
        if sys.platform == "win32":
            self._close()  # an open file could not be removed below
        try:
            os.link(self._hidden, self.folder.at(self.name), src_dir_fd=self.folder.fd, dst_dir_fd=self.folder.fd)
        except OSError as error:
            if error.errno is None or not self._placed(error):
                if error.errno in _NO_LINKS:
                    said = "this file system has no hard links (FAT has none), without which two writers could overwrite each other"
                    raise OSError(errno.ENOTSUP, f"{said}: keep the store on another, or in a bucket") from error
                raise

    def _link_unnamed(self) -> None:
        try:
            # A folder's descriptor makes this linkat with AT_SYMLINK_FOLLOW, which /proc needs.
            os.link(f"/proc/self/fd/{self.fd}", self.name, dst_dir_fd=self.folder.fd, follow_symlinks=True)
        except OSError as error:
            if error.errno is None or not self._placed(error):
                raise

    def take_place(self) -> None:
        """Give it its name, which whatever has it loses.

        Raises:
            UnsureError: nobody can say.
        """
        if sys.platform == "win32":
            self._close()  # an open file cannot be renamed there
        try:
            os.replace(self._hidden, self.folder.at(self.name), src_dir_fd=self.folder.fd, dst_dir_fd=self.folder.fd)
        except OSError as error:
            if error.errno is None or not self._placed(error):
                raise
        self._hidden = ""

    def _placed(self, failed: OSError) -> bool:
        """Whether it has its name already, whatever the system said: a network may lose the answer of what it has done."""
        if self.fd < 0:
            return False
        try:
            there, new = self.folder.status(self.name), os.fstat(self.fd)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UnsureError(failed.errno, f"{failed.strerror}, and whether it was done cannot be seen") from error
        return (there.st_dev, there.st_ino) == (new.st_dev, new.st_ino)

    def _copy_to_hidden(self) -> None:
        """For file systems that create files without a name and then refuse to give them one."""
        unnamed = self.fd
        try:
            self.fd, self._hidden = create_hidden(self.folder.at(self.name), _MODE, dir_fd=self.folder.fd)
            offset = 0
            while data := os.pread(unnamed, _COPY_BYTES, offset):
                write_whole(self.fd, offset, [memoryview(data)], self._lock)
                offset += len(data)
            self.settle(durable=True)
        finally:
            if self.fd != unnamed:
                os.close(unnamed)

    def discard(self) -> None:
        """Let go of it; without a name, nothing of it is left."""
        if self._hidden and os.getpid() == self._process:  # a forked child leaves its parent's file alone
            if sys.platform == "win32":
                self._close()
            with suppress(OSError):
                os.unlink(self._hidden, dir_fd=self.folder.fd)
        self._close()
        self.folder.close()

    def _close(self) -> None:
        """Let go of the lock. What close could say about the bytes, it has said before."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)


def read_whole(fd: int, offset: int, into: memoryview) -> None:
    """Read some bytes of a file that no other thread reads.

    Raises:
        OSError: `EIO`, it ends before that.
    """
    while into.nbytes:
        if capabilities.in_use.positional:
            count = os.preadv(fd, [into[:MAX_CALL_BYTES]], offset)
        else:
            os.lseek(fd, offset, os.SEEK_SET)
            data = os.read(fd, min(into.nbytes, MAX_CALL_BYTES))
            count = len(data)
            into[:count] = data
        if count == 0:
            raise OSError(errno.EIO, f"it ends at byte {offset:,}, where {into.nbytes:,} more are wanted")
        offset, into = offset + count, into[count:]

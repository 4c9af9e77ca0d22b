"""Extents: a run of bytes, in a file or in a part of one, that can be read at any offset.

Readers never see a file, only extents: the whole file, a member of an archive, what a compressed member inflates to. A read outside of
one is refused with its name, so a length or offset that a file lies about ends there.
"""

import io
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tensorkeep.backends.files import File
from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.wire.tally import Tally

_CRC32: Final = 0xEDB88320
_PIECE_BYTES: Final = 4 << 20
_MAPPED_BYTES: Final = 64 << 10  # smaller files are read: a mapping costs more than the copy


class Opened:
    """An open file, and its mapping once one was asked for.

    Args:
        file: closed by `close`.
        mmap: whether reads give views of a mapping; None for what suits the file.
    """

    def __init__(self, file: File, *, mmap: bool | None = None) -> None:
        self.file = file
        self._mmap = mmap
        self._mapping: memoryview | None = None
        self._mapped = False
        self._lock = threading.Lock()

    def mapping(self) -> memoryview | None:
        """The whole file, copied page by page when written to, where that is wanted and can be had."""
        with self._lock:
            if not self._mapped:
                wanted = self._mmap if self._mmap is not None else not self.file.remote and self.file.nbytes >= _MAPPED_BYTES
                self._mapping = self.file.mapping() if wanted else None
                self._mapped = True
            return self._mapping

    def whole(self) -> "Extent":
        return Extent(self, 0, self.file.nbytes, self.file.name)

    def close(self) -> None:
        self._mapping, self._mapped = None, True
        self.file.close()


@dataclass(slots=True)
class Checksum:
    """What the bytes of an extent should add up to.

    Attributes:
        kind: its name, such as `CRC-32`.
        wanted: the value that the file states.
        update: from the value so far and more bytes, the next value; it begins with 0. Lets go of the interpreter's lock.
        polynomial: of the CRC, its bits in reverse.
        good: set once the bytes were found right.
        tally: what was added up so far, while somebody reads the extent piece by piece and wants it compared in passing.
    """

    kind: str
    wanted: int
    update: Callable[[memoryview, int], int]
    polynomial: int
    good: bool = False
    tally: Tally | None = None

    def begin(self) -> None:
        """From now on, whatever is read of the extent is added up; `Extent.settle` ends it."""
        self.tally = Tally(self.update, self.polynomial)


def crc32(wanted: int) -> Checksum:
    """The CRC-32 of zip and gzip."""
    return Checksum("CRC-32", wanted, zlib.crc32, _CRC32)


class Extent:
    """Bytes `start` to `stop` of an open file.

    Attributes:
        opened: the file, which may be one that is made on the way, such as an inflated member.
        start, stop: first byte, and the byte after the last.
        name: the file as it was named, and what part of it this is: `model.pt: archive/data/0`.
        checksum: of exactly these bytes, where the file states one.
    """

    __slots__ = ("checksum", "name", "opened", "start", "stop")

    def __init__(self, opened: Opened, start: int, stop: int, name: str, checksum: Checksum | None = None) -> None:
        self.opened, self.start, self.stop, self.name, self.checksum = opened, start, stop, name, checksum

    @property
    def nbytes(self) -> int:
        return self.stop - self.start

    def __repr__(self) -> str:
        return f"<{self.name}: {self.nbytes:,} bytes>"

    def part(self, start: int, stop: int, name: str = "") -> "Extent":
        """A part of it, its offsets counted from this extent's first byte.

        Raises:
            FormatError: it does not lie inside.
        """
        self._inside(start, stop)
        return Extent(self.opened, self.start + start, self.start + stop, name or self.name)

    def read(self, start: int = 0, stop: int | None = None) -> memoryview:
        """Bytes from `start` to `stop`, by default all: a read-only view of the mapping, or memory of their own.

        Raises:
            FormatError: they do not lie inside.
        """
        stop = self.nbytes if stop is None else stop
        self._inside(start, stop)
        if (mapping := self.opened.mapping()) is not None:
            data = mapping[self.start + start : self.start + stop].toreadonly()
        else:
            data = memoryview(np.empty(stop - start, np.uint8))
            self.opened.file.read_into(self.start + start, data)
        if self.checksum is not None and (tally := self.checksum.tally) is not None:
            tally.add(start, data)
        return data

    def read_into(self, start: int, into: memoryview, *, checked: bool = False) -> None:
        """Read whole, straight into memory.

        Args:
            start: offset of the first byte.
            into: where to.
            checked: compare the checksum of the extent on the way, where it was not yet: that reads what stands before and behind, too.

        Raises:
            FormatError: so many bytes do not lie inside.
            CorruptError: the checksum is another.
        """
        stop = start + into.nbytes
        self._inside(start, stop)
        checksum = self.checksum if checked and self.checksum is not None and not self.checksum.good else None
        found = 0 if checksum is None else self._added(0, 0, start)
        self.opened.file.read_into(self.start + start, into)
        if self.checksum is not None and (tally := self.checksum.tally) is not None:
            tally.add(start, into)
        if checksum is not None:
            self._compare(self._added(checksum.update(into, found), stop, self.nbytes))

    def _inside(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.nbytes:
            raise FormatError(self.name, f"bytes {start:,} to {stop:,} are wanted, {self.nbytes:,} are there")

    def check(self) -> None:
        """Compare its bytes with their checksum, where there is one and it was not done yet.

        Raises:
            CorruptError: they differ.
        """
        checksum = self.checksum
        if checksum is None or checksum.good:
            return
        self._compare(self._added(0, 0, self.nbytes))

    def settle(self) -> None:
        """Compare what was read since its checksum began to be added up, and what was not, which is read now.

        Raises:
            CorruptError: they differ.
        """
        checksum = self.checksum
        if checksum is None or (tally := checksum.tally) is None:
            return
        for start, stop in tally.missing(self.nbytes):
            for begin in range(start, stop, _PIECE_BYTES):
                self.read(begin, min(begin + _PIECE_BYTES, stop))
        checksum.tally = None
        if not checksum.good:
            self._compare(tally.total())

    def _added(self, found: int, start: int, stop: int) -> int:
        """The checksum so far, and with more bytes."""
        assert self.checksum is not None
        for begin in range(start, stop, _PIECE_BYTES):
            end = min(begin + _PIECE_BYTES, stop)
            self.opened.file.read_ahead(self.start + begin, self.start + end)
            found = self.checksum.update(self.read(begin, end), found)
        return found

    def _compare(self, found: int) -> None:
        checksum = self.checksum
        assert checksum is not None
        if found != checksum.wanted:
            file, _, part = self.name.rpartition(": ")
            raise CorruptError(
                file=file or part,
                path=part,
                span=(self.start, self.stop),
                found=f"{found:08x}",
                wanted=f"{checksum.wanted:08x}",
                kind=checksum.kind,
            )
        checksum.good = True

    def checked(self) -> memoryview:
        """All its bytes, compared with their checksum, where there is one: for the small members that a reader parses.

        Raises:
            CorruptError: they differ.
        """
        self.check()
        return self.read()

    def stream(self) -> "ExtentStream":
        """It as a binary file object, for libraries that want one."""
        return ExtentStream(self)


class ExtentStream(io.RawIOBase):
    """An extent as a seekable binary file object."""

    def __init__(self, extent: Extent) -> None:
        super().__init__()
        self._extent, self._at = extent, 0

    @property
    def name(self) -> str:
        return self._extent.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + (0 if whence == io.SEEK_SET else self._at if whence == io.SEEK_CUR else self._extent.nbytes)
        if at < 0:
            raise ValueError(f"{self._extent.name}: a place before its beginning was asked for")
        self._at = at
        return at

    def readinto(self, into: Any) -> int:
        view = memoryview(into).cast("B")
        count = max(0, min(view.nbytes, self._extent.nbytes - self._at))
        if count:
            self._extent.read_into(self._at, view[:count])
        self._at += count
        return count

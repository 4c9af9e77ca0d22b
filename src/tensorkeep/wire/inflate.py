"""Inflating: what a compressed run of bytes holds, as a file that is made on the way.

Reading on costs what was not made yet; reading back begins anew, so a walk in order costs one pass and a window of memory. A stream of
zlib or gzip that is read back and forth remembers places on the way, from which it goes on. What is made
counts against the budget of the file, before memory is taken. An inflated file never has more bytes than it was said to have.
"""

import bz2
import importlib
import lzma
import re
import sys
import threading
import zlib
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final, Protocol

from tensorkeep.backends.files import MemoryFile, Unmapped
from tensorkeep.errors import FormatError
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.extent import Extent, Opened
from tensorkeep.wire.lz4 import Lz4Frame

_FED_BYTES: Final = 64 << 10
_FIRST_FED_BYTES: Final = 1 << 10
_MADE_BYTES: Final = 1 << 20  # at once, and kept: readers of headers go back and forth a little
_SMALL_BYTES: Final = 4 << 20  # that are soon made anew
_WHOLE_BYTES: Final = 64 << 20  # of a stream of unknown length: so much is kept once it was made to find out
_MARKED_BYTES: Final = 2 << 20  # between two places in a stream from which it can be read on ...
_MOST_MARKS: Final = 512  # ... of which each takes some 40 KB
_LZMA_BYTES: Final = 256 << 20  # memory that a stream of xz may ask for

# Here, once: later it would be imported for a stranger's file.
_ZSTD: Final[Any] = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


class Inflater(Protocol):
    """One decompressor for one stream, fed with input and asked for at most so many bytes."""

    def feed(self, data: memoryview, most: int) -> bytes:
        """At most `most` more bytes; input that was not used is kept."""

    @property
    def hungry(self) -> bool:
        """Whether it cannot go on without more input."""

    @property
    def ended(self) -> bool:
        """Whether the stream has said that it ends here."""

    @property
    def unused(self) -> int:
        """How many bytes it was fed with that stand behind the end of the stream."""


class _Zlib:
    """Deflate, with the frame that `wbits` says: none, zlib's or gzip's."""

    def __init__(self, wbits: int) -> None:
        self._inner = zlib.decompressobj(wbits)

    def copy(self) -> "_Zlib":
        """Another that goes on from here."""
        other = _Zlib.__new__(_Zlib)
        other._inner = self._inner.copy()
        return other

    def feed(self, data: memoryview, most: int) -> bytes:
        tail = self._inner.unconsumed_tail
        return self._inner.decompress(tail + data if tail else data, most)

    @property
    def hungry(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def ended(self) -> bool:
        return self._inner.eof

    @property
    def unused(self) -> int:
        return len(self._inner.unused_data)


class _Standard:
    """Those of the standard library that have `decompress(data, max_length)`, `needs_input` and `eof`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def feed(self, data: memoryview, most: int) -> bytes:
        made: bytes = self._inner.decompress(data, most)
        return made

    @property
    def hungry(self) -> bool:
        return bool(self._inner.needs_input)

    @property
    def ended(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused(self) -> int:
        return len(self._inner.unused_data)


def _zstd() -> Any:
    return _ZSTD.ZstdDecompressor(options={_ZSTD.DecompressionParameter.window_log_max: 27})  # 128 MiB: what `zstd -d` accepts


INFLATERS: Final[dict[str, Callable[[], Inflater]]] = {
    "deflate": lambda: _Zlib(-15),
    "zlib": lambda: _Zlib(15),
    "gzip": lambda: _Zlib(31),
    "bzip2": lambda: _Standard(bz2.BZ2Decompressor()),
    "xz": lambda: _Standard(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_BYTES)),
    "lzma": lambda: _Standard(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_BYTES)),
    "zstd": lambda: _Standard(_zstd()),
    "lz4": Lz4Frame,
}
"""By name, as errors say it. A frame's own checksum is compared by its decompressor."""

_LZ4: Final = rb"\x04\x22\x4d\x18"
BEGINS: Final = {
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    "lz4": re.compile(_LZ4 + rb"[\x40-\x7f][\x40-\x70]"),
    # The last two have next to no mark: a byte or two, and then what their writers put there.
    "zlib": re.compile(rb"\x78[\x01\x5e\x9c\xda]"),
    "lzma": re.compile(rb"\x5d\0\0[\0-\xff][\0-\x08](?:\xff{8}|[\0-\xff]{5}\0\0\0)", re.DOTALL),
}
"""What a stream begins with."""

_SKIPPED: Final = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a frame of the user's own, in streams of Zstandard and LZ4
_NEXT: Final = {codec: (BEGINS[codec],) for codec in ("gzip", "bzip2", "xz")} | {
    "zstd": (BEGINS["zstd"], _SKIPPED),
    "lz4": (re.compile(_LZ4), _SKIPPED),
}
"""What another stream behind one begins with, of those of which several may stand behind each other."""


class InflatedFile(Unmapped):
    """A compressed extent as a file.

    Args:
        packed: the compressed bytes.
        codec: a key of `INFLATERS`.
        nbytes: how many it inflates to; None where nobody says, which takes a pass to find out.
        budget: charged with `nbytes` once.
        name: for messages.

    Attributes:
        packed: the compressed bytes.
        behind: once the end was met, how many bytes stand behind it that are no padding.

    Raises:
        FormatError: the budget does not allow so many, or, of an unknown number, the stream is damaged.
    """

    remote = False

    def __init__(self, packed: Extent, codec: str, nbytes: int | None, *, budget: Budget, name: str) -> None:
        self.name, self.packed, self._codec = name, packed, codec
        self._lock = threading.Lock()
        self._whole: bytearray | None = None
        self._marks: list[tuple[int, int, int, _Zlib]] | None = None  # bytes made, fed, fed at once; from the first step back on
        self.behind = 0
        self._start_over()
        if nbytes is None:
            nbytes = self._measure(budget)
        else:
            budget.spend(nbytes, name)
        self.nbytes = nbytes

    def _start_over(self) -> None:
        self._inner: Inflater | None = None
        self._fed = self._made = self._feeds = 0
        self._kept = b""  # the bytes made last, which end at `_made`

    def let_go(self) -> None:
        """Keep no memory until it is read again: an archive may have thousands of members whose first bytes were looked at."""
        with self._lock:
            self._marks = None
            self._start_over()

    def _seek(self, offset: int) -> None:
        """Come nearer to a byte: back from one behind it, or on to the last mark before it."""
        back = offset < self._made - len(self._kept)
        if back and self._marks is None:
            self._marks = []
        mark = bisect_right(self._marks or (), offset, key=lambda mark: mark[0]) - 1
        if back:
            self._start_over()
        if self._marks and mark >= 0 and self._marks[mark][0] > self._made:
            self._made, self._fed, self._feeds, inner = self._marks[mark]
            self._inner, self._kept = inner.copy(), b""

    def _mark(self) -> None:
        """Remember this place, in a stream that is read back and forth and whose state can be copied."""
        assert self._marks is not None
        last = self._marks[-1][0] if self._marks else 0
        if type(self._inner) is _Zlib and self._made - last >= max(_MARKED_BYTES, self.nbytes // _MOST_MARKS):
            self._marks.append((self._made, self._fed, self._feeds, self._inner.copy()))

    def _measure(self, budget: Budget) -> int:
        whole: bytearray | None = bytearray()
        while piece := self._next():
            budget.spend(len(piece), self.name)
            if whole is not None:
                whole += piece
                whole = whole if len(whole) <= _WHOLE_BYTES else None
        nbytes, self._whole = self._made, whole
        self._start_over()
        return nbytes

    def _next(self) -> bytes:
        """Some more bytes; b"" at the end."""
        try:
            while (inner := self._stream()) is not None:
                data = memoryview(b"")
                if inner.hungry:
                    stop = min(self._fed + self._feeds, self.packed.nbytes)
                    if stop == self._fed:
                        raise FormatError(self.name, f"cut short: its {self._codec} stream has no end")
                    data, self._fed = self.packed.read(self._fed, stop), stop
                    self._feeds = min(2 * self._feeds, _FED_BYTES)
                if piece := inner.feed(data, _MADE_BYTES):
                    self._made += len(piece)
                    self._kept = piece
                    if self._marks is not None:
                        self._mark()
                    return piece
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            if isinstance(error, FormatError) or getattr(error, "errno", None) is not None:  # of the file; bz2 has none for damage
                raise
            raise FormatError(self.name, f"damaged: its {self._codec} stream cannot be inflated: {error}") from None
        except Exception as error:
            if type(error).__name__ == "ZstdError":
                raise FormatError(self.name, f"damaged: its {self._codec} stream cannot be inflated: {error}") from None
            raise
        return b""

    def _stream(self) -> Inflater | None:
        """The stream to read from: the next one where one has ended and another stands behind it, perhaps after zeros; None at the end."""
        if self._inner is None:
            self._begin(0)
        assert self._inner is not None
        if not self._inner.ended:
            return self._inner
        at, end = self._fed - self._inner.unused, self.packed.nbytes
        begins = _NEXT.get(self._codec, ())
        while at < end and not self.packed.read(at, at + 1)[0]:
            piece = bytes(self.packed.read(at, min(at + _FED_BYTES, end)))
            at += len(piece) - len(piece.lstrip(b"\0"))
        head = bytes(self.packed.read(at, min(at + 16, end)))
        if any(mark.match(head) for mark in begins):
            self._begin(at)
            return self._inner
        self.behind = end - at
        return None

    def _begin(self, at: int) -> None:
        """A new stream. It is fed little at first: there may be very many short ones, and each gives back what is not its own."""
        self._inner, self._fed, self._feeds = INFLATERS[self._codec](), at, _FIRST_FED_BYTES

    def read_into(self, offset: int, into: memoryview) -> None:
        if self._whole is not None:
            into[:] = memoryview(self._whole)[offset : offset + into.nbytes]
            return
        with self._lock:
            if offset < self._made - len(self._kept) or self._marks:
                self._seek(offset)
            most_of_it = self.nbytes // 2 < into.nbytes <= _SMALL_BYTES
            while into.nbytes:
                begin = self._made - len(self._kept)
                if offset < self._made:
                    piece = memoryview(self._kept)[offset - begin : offset - begin + into.nbytes]
                    into[: piece.nbytes] = piece
                    offset, into = offset + piece.nbytes, into[piece.nbytes :]
                elif not self._next():
                    raise FormatError(self.name, f"it inflates to {self._made:,} bytes, {self.nbytes:,} were said")
            if most_of_it and offset == self.nbytes:  # nobody comes back soon, and an archive may have thousands of such members
                self._start_over()

    def identity(self) -> object:
        return self.packed.opened.file.identity()

    def close(self) -> None:
        self.packed.opened.close()


def at_hand(extent: Extent) -> Extent:
    """An extent for a format that is read back and forth: what would be inflated anew for each step back is inflated once, into memory."""
    if not isinstance(extent.opened.file, InflatedFile):
        return extent
    data = memoryview(bytearray(extent.nbytes))
    extent.read_into(0, data)
    return Extent(Opened(MemoryFile(data, extent.name), mmap=False), 0, extent.nbytes, extent.name, extent.checksum)

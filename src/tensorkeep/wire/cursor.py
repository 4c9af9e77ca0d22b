"""The cursor: bounded, named reads, so that a reader reads like its format's description.

Every number is read with a name; a refusal tells the name, what was found, where, and what was wanted. No count from a file is believed
before so many of its things can fit into what is left.
"""

import struct
from collections.abc import Collection
from typing import Final

from tensorkeep.errors import CUT_SHORT, FormatError
from tensorkeep.wire.extent import Extent

_WINDOW_BYTES: Final = 256 << 10  # at once, at most; it begins with less, for many headers are short
_FIRST_WINDOW_BYTES: Final = 4 << 10
_STRUCTS: Final = {order + code: struct.Struct(order + code) for order in "<>" for code in "bBhHiIqQefd"}


class Cursor:
    """A place in an extent, from where the next thing is read.

    Args:
        extent: what is read.
        at: where to begin, in bytes from its start.
        order: `<` for little-endian numbers, `>` for big-endian ones.
    """

    __slots__ = ("_begin", "_window", "at", "extent", "order")

    def __init__(self, extent: Extent, at: int = 0, *, order: str = "<") -> None:
        self.extent, self.at, self.order = extent, at, order
        self._window: memoryview = memoryview(b"")
        self._begin = 0

    @property
    def left(self) -> int:
        """Bytes from here to the end."""
        return self.extent.nbytes - self.at

    def error(self, problem: str, *, hint: str = "") -> FormatError:
        """The refusal of what stands just before here."""
        return FormatError(self.extent.name, f"{problem} (at byte {self.at:,})", hint=hint)

    def too_short(self, what: str, nbytes: int) -> FormatError:
        """The refusal of something that would reach beyond the end."""
        return self.error(f"{what} would take {nbytes:,} bytes, {self.left:,} are left", hint=CUT_SHORT)

    def raw(self, what: str, nbytes: int) -> memoryview:
        """So many bytes as they are."""
        if not 0 <= nbytes <= self.left:
            raise self.too_short(what, nbytes)
        start = self.at - self._begin
        if not (start >= 0 and start + nbytes <= self._window.nbytes):
            if nbytes >= _WINDOW_BYTES:
                data = self.extent.read(self.at, self.at + nbytes)
                self.at += nbytes
                return data
            self._begin = self.at
            window = min(max(4 * self._window.nbytes, _FIRST_WINDOW_BYTES, nbytes), _WINDOW_BYTES)
            self._window = self.extent.read(self.at, min(self.at + window, self.extent.nbytes))
            start = 0
        self.at += nbytes
        return self._window[start : start + nbytes]

    def number(self, what: str, code: str) -> int:
        """A whole number, as `struct` names its kind."""
        kind = _STRUCTS[self.order + code]
        value: int = kind.unpack(self.raw(what, kind.size))[0]
        return value

    def u8(self, what: str) -> int:
        at = self.at - self._begin
        if 0 <= at < len(self._window):  # the common case, of grammars that go byte by byte
            self.at += 1
            return self._window[at]
        return self.raw(what, 1)[0]

    def u16(self, what: str) -> int:
        return self.number(what, "H")

    def u32(self, what: str) -> int:
        return self.number(what, "I")

    def u64(self, what: str) -> int:
        return self.number(what, "Q")

    def i8(self, what: str) -> int:
        return self.number(what, "b")

    def i16(self, what: str) -> int:
        return self.number(what, "h")

    def i32(self, what: str) -> int:
        return self.number(what, "i")

    def i64(self, what: str) -> int:
        return self.number(what, "q")

    def f32(self, what: str) -> float:
        kind = _STRUCTS[self.order + "f"]
        value: float = kind.unpack(self.raw(what, 4))[0]
        return value

    def f64(self, what: str) -> float:
        kind = _STRUCTS[self.order + "d"]
        value: float = kind.unpack(self.raw(what, 8))[0]
        return value

    def varint(self, what: str) -> int:
        """A number from 0 of variable length, at most 64 bits: seven to a byte, the lowest first (LEB128)."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.u8(what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 64:
                    break
                return value
        raise self.error(f"{what}: a number of more than 64 bits")

    def one_of(self, what: str, found: int, wanted: Collection[int]) -> int:
        """The number that was found, if it is among those wanted."""
        if found not in wanted:
            raise self.error(f"{what} is {found:,}, wanted is {' or '.join(map(str, sorted(wanted)))}")
        return found

    def fits(self, what: str, count: int, *, bytes_each: int) -> int:
        """The count that was found, if so many things of at least so many bytes can still come."""
        if count < 0 or count * bytes_each > self.left:
            raise self.error(f"{what} is {count:,}, and {self.left:,} bytes are left for them")
        return count

    def text(self, what: str, nbytes: int) -> str:
        """So many bytes of UTF-8."""
        data = self.raw(what, nbytes)
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is no UTF-8: {error.reason}") from None

    def skip(self, what: str, nbytes: int) -> None:
        """Pass over so many bytes, unread."""
        if not 0 <= nbytes <= self.left:
            raise self.too_short(what, nbytes)
        self.at += nbytes

"""Values of GGUF's metadata: numbers, texts, and arrays of them or of arrays.

A vocabulary has hundreds of thousands of texts, so arrays are read in runs: measured, 250,000 texts in 0.1 s.
"""

import struct
from typing import Any, Final

import numpy as np

from tensorkeep.limits import Limits
from tensorkeep.wire.cursor import Cursor

_BOOL, _TEXT, _ARRAY = 7, 8, 9
_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
_WINDOW_BYTES: Final = 1 << 20
_MOST_VALUES: Final = 4 << 20  # texts and arrays of one file: each takes 64 bytes and more


class Values:
    """Reads values from where a cursor stands.

    Args:
        cursor: in the metadata.
        limits: bounds on depth and number.
        narrow: whether lengths have 32 bits, as in version 1.

    Attributes:
        too_long: keys whose value is no value, for it has more than `most_numbers` numbers.
    """

    most_numbers: Final = 1 << 20

    def __init__(self, cursor: Cursor, limits: Limits, *, narrow: bool) -> None:
        self.cursor, self._limits, self._narrow = cursor, limits, narrow
        self.too_long: list[str] = []
        self._count = 0  # of texts and arrays so far
        self._numbers = 0  # in the value that is read

    def length(self, what: str) -> int:
        return self.cursor.u32(what) if self._narrow else self.cursor.u64(what)

    def text(self, what: str) -> str:
        """A name or key, which must be UTF-8."""
        return self.cursor.text(what, self.length(f"length of the {what}"))

    def entry(self) -> tuple[str, Any]:
        key = self.text("key of metadata")
        self._numbers = 0
        value = self._value(self.cursor.u32(f"{key!r:.200}: type"), key, 0)
        if self._numbers > self.most_numbers:
            self.too_long.append(key)
        return key, value

    def _value(self, kind: int, key: str, depth: int) -> Any:
        cursor, what = self.cursor, f"{key!r:.200}"
        if kind in _NUMBERS:
            return struct.unpack(cursor.order + _NUMBERS[kind], cursor.raw(what, struct.calcsize(_NUMBERS[kind])))[0]
        if kind == _BOOL:
            return bool(cursor.one_of(what, cursor.u8(what), {0, 1}))
        if kind == _TEXT:
            return self._texts(1, what)[0]
        if kind == _ARRAY:
            return self._array(key, depth)
        raise cursor.error(f"{what} is of the type {kind:,}, which GGUF does not have")

    def _array(self, key: str, depth: int) -> list[Any]:
        cursor, what = self.cursor, f"{key!r:.200}"
        if depth > self._limits.depth:
            raise cursor.error(f"{what}: nested deeper than {self._limits.depth}")
        kind = cursor.u32(f"{what}: type of its items")
        count = self.length(f"{what}: number of items")
        if kind in _NUMBERS or kind == _BOOL:
            return self._many_numbers(kind, cursor.fits(f"{what}: number of items", count, bytes_each=self._size(kind)), what)
        if kind == _TEXT:
            return self._texts(cursor.fits(f"{what}: number of texts", count, bytes_each=4 if self._narrow else 8), what)
        if kind == _ARRAY:
            cursor.fits(f"{what}: number of arrays", count, bytes_each=8 if self._narrow else 12)
            self._counted(count, what)
            return [self._array(key, depth + 1) for _ in range(count)]
        raise cursor.error(f"{what}: items of the type {kind:,}, which GGUF does not have")

    @staticmethod
    def _size(kind: int) -> int:
        return 1 if kind == _BOOL else struct.calcsize(_NUMBERS[kind])

    def _many_numbers(self, kind: int, count: int, what: str) -> list[Any]:
        self._numbers += count
        if self._numbers > self.most_numbers:
            self.cursor.skip(what, count * self._size(kind))
            return []
        data = self.cursor.raw(what, count * self._size(kind))
        numbers: np.ndarray[Any, Any]
        if kind == _BOOL:
            numbers = np.frombuffer(data, np.uint8)
            if numbers.size and numbers.max() > 1:
                raise self.cursor.error(f"{what}: a truth value that is neither 0 nor 1")
            numbers = numbers.astype(bool)
        else:
            numbers = np.frombuffer(data, np.dtype(self.cursor.order + _NUMBERS[kind]))
        values: list[Any] = numbers.tolist()
        return values

    def _counted(self, count: int, what: str) -> None:
        self._count += count
        if self._count > _MOST_VALUES:
            raise self.cursor.error(f"{what}: more than {_MOST_VALUES:,} texts and arrays in the metadata")

    def _texts(self, count: int, what: str) -> list[Any]:
        """So many texts; bytes in place of one that is no UTF-8, as tokens of some vocabularies are."""
        self._counted(count, what)
        cursor = self.cursor
        texts: list[bytes] = []
        length = struct.Struct(cursor.order + ("I" if self._narrow else "Q"))
        unpack, ahead = length.unpack_from, length.size
        while len(texts) < count:
            window = bytes(cursor.extent.read(cursor.at, min(cursor.at + _WINDOW_BYTES, cursor.extent.nbytes)))
            at, last, before = 0, len(window) - ahead, len(texts)
            while at <= last and len(texts) < count:
                stop = at + ahead + unpack(window, at)[0]
                if stop > len(window):
                    break
                texts.append(window[at + ahead : stop])
                at = stop
            cursor.at += at
            if len(texts) == before:  # longer than the window, or than what is left
                texts.append(bytes(cursor.raw(what, self.length(f"{what}: length of a text"))))
        try:
            return list(map(bytes.decode, texts))
        except UnicodeDecodeError:
            return [_decoded(text) for text in texts]


def _decoded(text: bytes) -> "str | bytes":
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text

"""MessagePack: values of its wire format, read without recursion, long byte strings left where they lie.

Lives here: the grammar, with a bound on depth, values and text; a key that occurs twice is refused, for parsers differ in which one counts.
Lives elsewhere: what byte strings and extension types mean (formats).

Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from collections.abc import Callable
from typing import Any, Final

from tensorkeep.limits import Limits
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent

_VALUE_SHARE: Final = 10  # a value takes up to 100 bytes and a microsecond here: less of them than where a C parser reads
_TEXT_SHARE: Final = 4  # a text takes up to four times its UTF-8
_EXTENSION_VALUES: Final = 20  # as how many an extension counts, in which there are others
_CONTAINER_VALUES: Final = 2  # as how many more an array or a map counts
_LONGEST_KEY: Final = 64 << 10  # bytes of a key that is a byte string

# The first byte of a value, for those that have one of their own: the width of the length or number that follows.
_LENGTHS: Final = {1: "B", 2: "H", 4: "I"}
_BINS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_EXTENSIONS: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSIONS: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_NUMBERS: Final = {0xCC: "B", 0xCD: "H", 0xCE: "I", 0xCF: "Q", 0xD0: "b", 0xD1: "h", 0xD2: "i", 0xD3: "q"}
_TEXTS: Final = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAYS: Final = {0xDC: 2, 0xDD: 4}
_MAPS: Final = {0xDE: 2, 0xDF: 4}
_CONSTANTS: Final[dict[int, object]] = {0xC0: None, 0xC2: False, 0xC3: True}

_NO_KEY: Final = object()


class _Level:
    """An array or map that is being read: how many values are still to come, a key and its value counted apart."""

    __slots__ = ("array", "key", "left", "map")

    def __init__(self, count: int, *, is_map: bool) -> None:
        self.left = 2 * count if is_map else count
        self.key: object = _NO_KEY
        self.map: dict[Any, object] | None = {} if is_map else None
        self.array: list[object] = []

    @property
    def value(self) -> object:
        return self.array if self.map is None else self.map


class Unpacker:
    """Reads values from where a cursor stands.

    Args:
        cursor: moved behind each value that is read. Its order must be `>`.
        limits: depth, and a share of the number of values and of the bytes that may be made.
        binary: what a byte string becomes, from where it lies. As a key it is `bytes`.
        extension: what an extension becomes, from its type and where its data lie.
    """

    def __init__(
        self, cursor: Cursor, *, limits: Limits, binary: Callable[[Extent], object], extension: Callable[[int, Extent], object]
    ) -> None:
        assert cursor.order == ">", "msgpack is big-endian"
        self._cursor, self._limits, self._binary, self._extension = cursor, limits, binary, extension
        self._values = limits.values // _VALUE_SHARE
        self._text_bytes = limits.expanded_bytes // _TEXT_SHARE

    def value(self) -> Any:
        """The next value, whole.

        Raises:
            FormatError: it is no msgpack, is cut short, passes a limit, or has a key twice.
        """
        levels: list[_Level] = []
        while True:
            value = self._next(as_key=bool(levels) and levels[-1].map is not None and levels[-1].key is _NO_KEY)
            if isinstance(value, _Level):
                levels.append(value)
                if len(levels) > self._limits.depth:
                    raise self._cursor.error(f"nested deeper than {self._limits.depth}")
                continue
            while levels:
                self._add(levels[-1], value)
                if levels[-1].left:
                    break
                value = levels.pop().value
            else:
                return value

    def _add(self, level: _Level, value: object) -> None:
        level.left -= 1
        if level.map is None:
            level.array.append(value)
        elif level.key is _NO_KEY:
            if isinstance(value, (list, dict)):
                raise self._cursor.error("a key that is an array or a map")
            try:
                if value in level.map:
                    raise self._cursor.error(f"the key {value!r:.200} occurs twice in one map")
            except TypeError:
                raise self._cursor.error("a key that is no plain value") from None
            level.key = value
        else:
            level.map[level.key] = value
            level.key = _NO_KEY

    def _next(self, *, as_key: bool) -> object:
        """A value that is whole, or one whose own values are still to come."""
        cursor = self._cursor
        self._values -= 1
        if self._values < 0:
            raise cursor.error(f"more than {self._limits.values // _VALUE_SHARE:,} values")
        head = cursor.u8("a value")
        if head < 0x80:
            return head
        if head >= 0xE0:
            return head - 0x100
        if head < 0x90:
            return self._level(head & 0xF, is_map=True)
        if head < 0xA0:
            return self._level(head & 0xF, is_map=False)
        if head < 0xC0:
            return self._text(head & 0x1F)
        if head in _CONSTANTS:
            return _CONSTANTS[head]
        if head in _NUMBERS:
            return cursor.number("a number", _NUMBERS[head])
        if head == 0xCB:
            return cursor.f64("a float")
        if head == 0xCA:
            return cursor.f32("a float")
        return self._long(head, as_key=as_key)

    def _long(self, head: int, *, as_key: bool) -> object:
        """A value that begins with its length."""
        cursor = self._cursor
        if head in _TEXTS:
            return self._text(self._length("length of a text", _TEXTS[head]))
        if head in _BINS:
            data = self._data("a byte string", self._length("length of a byte string", _BINS[head]))
            if not as_key:
                return self._binary(data)
            if data.nbytes > _LONGEST_KEY:
                raise cursor.error(f"a key of {data.nbytes:,} bytes")
            return bytes(data.read())
        if head in _ARRAYS:
            return self._level(self._length("count of an array", _ARRAYS[head]), is_map=False)
        if head in _MAPS:
            return self._level(self._length("count of a map", _MAPS[head]), is_map=True)
        if head in _EXTENSIONS or head in _FIXED_EXTENSIONS:
            nbytes = _FIXED_EXTENSIONS.get(head) or self._length("length of an extension", _EXTENSIONS[head])
            kind = cursor.i8("type of an extension")
            self._values -= _EXTENSION_VALUES
            return self._extension(kind, self._data("an extension", nbytes))
        raise cursor.error(f"a value that begins with byte {head:#x}, which none does")

    def _length(self, what: str, width: int) -> int:
        return self._cursor.number(what, _LENGTHS[width])

    def _level(self, count: int, *, is_map: bool) -> object:
        self._values -= _CONTAINER_VALUES
        if not count:
            return {} if is_map else []
        what = "count of a map" if is_map else "count of an array"
        return _Level(self._cursor.fits(what, count, bytes_each=1 + is_map), is_map=is_map)

    def _text(self, nbytes: int) -> str:
        self._text_bytes -= nbytes
        if self._text_bytes < 0:
            raise self._cursor.error(f"texts of more than {self._limits.expanded_bytes // _TEXT_SHARE:,} bytes together")
        return self._cursor.text("a text", nbytes)

    def _data(self, what: str, nbytes: int) -> Extent:
        start = self._cursor.at
        self._cursor.skip(what, nbytes)
        return self._cursor.extent.part(start, self._cursor.at)

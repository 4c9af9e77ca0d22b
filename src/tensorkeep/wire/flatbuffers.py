"""FlatBuffers: tables, vectors and texts that refer to each other by offsets. Nothing is unpacked; each thing is read where it lies.

References to tables, vectors and texts lead forward only, so none leads in a circle; but many may lead to one place, and each of those has
others. So all that is met is counted, and too much of it refused.

Source: https://flatbuffers.dev/internals/
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from tensorkeep.errors import CUT_SHORT, FormatError
from tensorkeep.tensors import Array
from tensorkeep.wire.extent import Extent

_PAGE_BYTES: Final = 64 << 10
_MOST_PAGES: Final = 64
_MOST_TABLES: Final = 300_000  # met in one file, each time counted: some seconds' work
_SCALARS: Final = {code: struct.Struct(f"<{code}") for code in "?bBhHiIqQfd"}


class Buffer:
    """A FlatBuffer.

    Args:
        extent: its bytes, and whatever stands behind them.
    """

    def __init__(self, extent: Extent) -> None:
        self.extent = extent
        self._pages: dict[int, memoryview] = {}
        self._left = 4 * extent.nbytes + 1000  # items of vectors, and letters, that may be met
        self._tables = 0

    def root(self, what: str, at: int = 0) -> "Table":
        """The table that the offset at `at` leads to."""
        return Table(self, self.follow(at, what), what)

    def error(self, what: str, problem: str, *, hint: str = "") -> FormatError:
        return FormatError(self.extent.name, f"{what}: {problem}", hint=hint)

    def raw(self, at: int, nbytes: int, what: str) -> "memoryview | bytes":
        """A few bytes."""
        if at < 0 or at + nbytes > self.extent.nbytes:
            raise self.error(what, f"bytes {at:,} to {at + nbytes:,} are wanted, {self.extent.nbytes:,} are there", hint=CUT_SHORT)
        first, last = at // _PAGE_BYTES, (at + nbytes - 1) // _PAGE_BYTES
        if first != last:
            return self.extent.read(at, at + nbytes)
        page = self._pages.get(first)
        if page is None:
            if len(self._pages) == _MOST_PAGES:
                self._pages.clear()
            page = self.extent.read(first * _PAGE_BYTES, min((first + 1) * _PAGE_BYTES, self.extent.nbytes))
            self._pages[first] = page
        start = at - first * _PAGE_BYTES
        return page[start : start + nbytes]

    def scalar(self, at: int, code: str, what: str) -> Any:
        """A number, as `struct` names its kind."""
        kind = _SCALARS[code]
        return kind.unpack(self.raw(at, kind.size, what))[0]

    def follow(self, at: int, what: str) -> int:
        """Where the reference at `at` leads: always forward."""
        offset: int = self.scalar(at, "I", what)
        if not 4 <= offset <= self.extent.nbytes - at:
            raise self.error(
                what, f"a reference that leads {offset:,} bytes further, where {self.extent.nbytes - at:,} are left", hint=CUT_SHORT
            )
        return at + offset

    def count(self, items: int, what: str, *, tables: int = 0) -> None:
        """Count what is met."""
        self._left -= items
        self._tables += tables
        if self._tables > _MOST_TABLES:
            raise self.error(what, f"more than {_MOST_TABLES:,} tables, those that are met again counted again")
        if self._left < 0:
            raise self.error(what, "met so often that the file cannot hold it: parts of it are referred to again and again")


class Table:
    """A table: its fields by their place in the schema."""

    __slots__ = ("_fields_at", "_fields_nbytes", "_nbytes", "at", "buffer", "what")

    def __init__(self, buffer: Buffer, at: int, what: str) -> None:
        self.buffer, self.at, self.what = buffer, at, what
        buffer.count(0, what, tables=1)
        self._fields_at = at - buffer.scalar(at, "i", what)
        self._fields_nbytes, self._nbytes = (buffer.scalar(self._fields_at + place, "H", what) for place in (0, 2))
        if self._fields_nbytes < 4 or self._fields_nbytes % 2 or self._nbytes < 4 or at + self._nbytes > buffer.extent.nbytes:
            raise self.error(f"a table of {self._nbytes:,} bytes whose list of fields has {self._fields_nbytes:,}")

    def error(self, problem: str) -> FormatError:
        return self.buffer.error(self.what, problem)

    def _place(self, field: int, nbytes: int) -> int | None:
        """Where a field is; None if the table lacks it."""
        entry = 4 + 2 * field
        if entry + 2 > self._fields_nbytes:
            return None
        place: int = self.buffer.scalar(self._fields_at + entry, "H", self.what)
        if place == 0:
            return None
        if place < 4 or place + nbytes > self._nbytes:
            raise self.error(f"field {field} at byte {place:,} of a table of {self._nbytes:,}")
        return self.at + place

    def __contains__(self, field: int) -> bool:
        return self._place(field, 1) is not None

    def number(self, field: int, code: str, default: int = 0) -> int:
        """A whole number or truth value, as `struct` names its kind."""
        place = self._place(field, _SCALARS[code].size)
        return default if place is None else int(self.buffer.scalar(place, code, self.what))

    def _target(self, field: int, what: str) -> int | None:
        place = self._place(field, 4)
        return None if place is None else self.buffer.follow(place, what)

    def table(self, field: int, what: str) -> "Table | None":
        target = self._target(field, what)
        return None if target is None else Table(self.buffer, target, what)

    def vector(self, field: int, item_nbytes: int, what: str) -> tuple[int, int]:
        """Where the first item is, and how many there are; (0, 0) where the table lacks the field."""
        target = self._target(field, what)
        if target is None:
            return 0, 0
        count: int = self.buffer.scalar(target, "I", what)
        if count * item_nbytes > self.buffer.extent.nbytes - target - 4:
            raise self.buffer.error(what, f"{count:,} items of {item_nbytes} bytes, {self.buffer.extent.nbytes - target - 4:,} are left")
        return target + 4, count

    def tables(self, field: int, what: str) -> "Iterator[Table]":
        first, count = self.vector(field, 4, what)
        for place in range(first, first + 4 * count, 4):
            yield Table(self.buffer, self.buffer.follow(place, what), what)

    def numbers(self, field: int, dtype: str, what: str) -> Array:
        """A vector of numbers, copied."""
        kind = np.dtype(dtype)
        first, count = self.vector(field, kind.itemsize, what)
        self.buffer.count(count, what)
        return np.frombuffer(self.buffer.extent.read(first, first + count * kind.itemsize), kind).copy()

    def run(self, field: int, what: str) -> Extent | None:
        """A vector of bytes, unread."""
        first, count = self.vector(field, 1, what)
        return self.buffer.extent.part(first, first + count) if first else None

    def text(self, field: int, what: str) -> str:
        first, count = self.vector(field, 1, what)
        self.buffer.count(count, what)
        try:
            return str(self.buffer.extent.read(first, first + count), "utf-8")
        except UnicodeDecodeError as error:
            raise self.buffer.error(what, f"no UTF-8: {error.reason}") from None

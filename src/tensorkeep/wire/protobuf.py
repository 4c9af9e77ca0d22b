"""Protobuf: messages of its wire format, read lazily, without a schema or its package.

The bytes of a field are not touched before they are asked for: a tensor of gigabytes is passed over. A scalar that occurs twice is
refused: parsers differ in which one counts.

Source: https://protobuf.dev/programming-guides/encoding/
"""

import struct
from array import array
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import numpy as np

from tensorkeep.errors import FormatError
from tensorkeep.tensors import Array
from tensorkeep.wire.extent import Extent

_VARINT, _FIXED64, _BYTES, _START, _END, _FIXED32 = range(6)
_MAX_DEPTH: Final = 100
_NONE: Final = array("Q")
_FEW: Final = 60  # entries of a flat array, or bytes: up to these a loop is faster than NumPy
_MAX_NUMBERS: Final = 10_000  # different fields of one message; real ones have some dozens
_MAX_RUNS: Final = 100_000  # of one packed field; writers make one
_RUN_BYTES: Final = 1 << 20
_INT64: Final = np.dtype(np.int64)
_LARGE_BYTES: Final = 64 << 10
_SMALL_BYTES: Final = 4 << 10
_QUICK_BYTES: Final = 200  # of a message that may be told at a glance
_LONGEST_BYTES: Final = 20  # a tag, and a number or a length


Known = TypeVar("Known")
"""What was made of a message at a glance."""

Unpack = Callable[[int, int, str], Iterator[Array]]
"""From where a run of bytes begins and ends, and its name: its numbers, in one array or several."""


class Meter:
    """How many messages of one file may be looked into, and fields in them: each takes its time, and next to no bytes deflated.

    Args:
        most: the limit of messages.
        fields: that of fields, counted in each message that they stand in; None for as many as there are.
    """

    __slots__ = ("fields", "left", "most")

    def __init__(self, most: int, fields: int | None = None) -> None:
        self.most = self.left = most
        self.fields = fields


class Message:
    """One message: its fields by number.

    Args:
        extent: exactly the message's bytes.
        what: its name, for errors.
        depth: how many messages it stands in.
        meter: counts this message, and those inside that are looked into.

    Raises:
        FormatError: it is no protobuf message.
    """

    __slots__ = ("_begin", "_extent", "_fields", "_meter", "_start", "_stop", "_window", "depth", "what")

    def __init__(self, extent: Extent, what: str, *, depth: int = 0, meter: Meter | None = None) -> None:
        self._open(extent, 0, extent.nbytes, what, depth, meter, b"", 0)

    def _open(self, extent: Extent, start: int, stop: int, what: str, depth: int, meter: Meter | None, window: bytes, begin: int) -> None:
        """Places are counted in the extent of the outermost message; `window` is what was read of it, from `begin` on."""
        self._extent, self._start, self._stop, self._window, self._begin = extent, start, stop, window, begin
        self.what, self.depth, self._meter = what, depth, meter
        if depth > _MAX_DEPTH:
            raise self.error(f"messages nested deeper than {_MAX_DEPTH}")
        if meter is not None:
            meter.left -= 1
            if meter.left < 0:
                raise self.error(f"more than {meter.most:,} messages, which is more than a file of this size needs")
        self._reach(start, stop)
        self._fields = _scan(extent, start, stop, self._window, self._begin, what, None if meter is None else meter.fields)
        if meter is not None and meter.fields is not None:
            meter.fields -= sum(map(len, self._fields.values())) // 3

    def _reach(self, start: int, stop: int) -> None:
        """Have some bytes in the window, if they are few."""
        if stop - start <= _LARGE_BYTES and not (self._begin <= start and stop <= self._begin + len(self._window)):
            self._window, self._begin = bytes(self._extent.read(start, min(start + _LARGE_BYTES, self._stop))), start

    def _read(self, start: int, stop: int) -> "memoryview | bytes":
        self._reach(start, stop)
        if self._begin <= start and stop <= self._begin + len(self._window):
            return self._window[start - self._begin : stop - self._begin]
        return self._extent.read(start, stop)

    @property
    def extent(self) -> Extent:
        """Its bytes."""
        return self._extent.part(self._start, self._stop)

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def numbers(self) -> list[int]:
        """The numbers of the fields that it has."""
        return list(self._fields)

    def error(self, problem: str) -> FormatError:
        return FormatError(self._extent.name, f"{self.what}: {problem}")

    def _one(self, number: int, kind: int, what: str) -> tuple[int, int] | None:
        """Its value and 0, or where it begins and ends; None if it is not there."""
        flat = self._fields.get(number)
        if flat is None:
            return None
        if len(flat) > 3:
            raise self.error(f"{what} occurs {len(flat) // 3} times, and parsers differ in which one counts")
        if flat[0] != kind:
            raise self.error(f"{what} is of wire type {flat[0]}, wanted is {kind}")
        return flat[1], flat[2]

    def _spans(self, number: int, what: str) -> Iterator[tuple[int, int]]:
        """Where each of a repeated field of bytes begins and ends."""
        flat = self._fields.get(number, _NONE)
        for place in range(0, len(flat), 3):
            if flat[place] != _BYTES:
                raise self.error(f"{what} is of wire type {flat[place]}, wanted is {_BYTES}")
            yield flat[place + 1], flat[place + 2]

    def unsigned(self, number: int, what: str, default: int = 0) -> int:
        """An unsigned integer, an enum or a boolean."""
        found = self._one(number, _VARINT, what)
        return default if found is None else found[0]

    def signed(self, number: int, what: str, default: int = 0) -> int:
        """An int32 or int64: negative ones are written as their complement in 64 bits."""
        value = self.unsigned(number, what, default)
        return value - (1 << 64) if value >= 1 << 63 else value

    def float32(self, number: int, what: str, default: float = 0.0) -> float:
        found = self._one(number, _FIXED32, what)
        value: float = default if found is None else struct.unpack("<f", found[0].to_bytes(4, "little"))[0]
        return value

    def float64(self, number: int, what: str, default: float = 0.0) -> float:
        found = self._one(number, _FIXED64, what)
        value: float = default if found is None else struct.unpack("<d", found[0].to_bytes(8, "little"))[0]
        return value

    def fixed(self, number: int, what: str, default: int = 0) -> int:
        """A fixed32 or fixed64."""
        flat = self._fields.get(number)
        found = self._one(number, _FIXED64 if flat is not None and flat[0] == _FIXED64 else _FIXED32, what)
        return default if found is None else found[0]

    def content(self, number: int, what: str) -> Extent | None:
        """Where the bytes of a field are; None if it is not there."""
        span = self._one(number, _BYTES, what)
        return None if span is None else self._extent.part(*span)

    def text(self, number: int, what: str, default: str = "") -> str:
        span = self._one(number, _BYTES, what)
        return default if span is None else self._text(*span, what)

    def texts(self, number: int, what: str) -> list[str]:
        """A repeated string."""
        return [self._text(start, stop, what) for start, stop in self._spans(number, what)]

    def _text(self, start: int, stop: int, what: str) -> str:
        try:
            return str(self._read(start, stop), "utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is no UTF-8: {error.reason}") from None

    def message(self, number: int, what: str) -> "Message | None":
        span = self._one(number, _BYTES, what)
        return None if span is None else self._inner(*span, what)

    def messages(self, number: int, what: str) -> "Iterator[Message]":
        """A repeated message."""
        for start, stop in self._spans(number, what):
            yield self._inner(start, stop, what)

    def quickly(self, number: int, what: str, quick: Callable[[bytes], Known | None]) -> "Iterator[Message | Known]":
        """A repeated message, of which very many are small and alike.

        Args:
            number, what: as for `messages`.
            quick: what a message of few bytes is, where it can tell at a glance; None where it is to be looked into.
        """
        for start, stop in self._spans(number, what):
            known = quick(bytes(self._read(start, stop))) if stop - start <= _QUICK_BYTES else None
            yield self._inner(start, stop, what) if known is None else known

    def _inner(self, start: int, stop: int, what: str) -> "Message":
        self._reach(start, stop)
        inner = Message.__new__(Message)
        inner._open(self._extent, start, stop, what, self.depth + 1, self._meter, self._window, self._begin)
        return inner

    def parts(self, number: int, what: str) -> list[Extent]:
        """A repeated bytes field, unread."""
        return [self._extent.part(start, stop) for start, stop in self._spans(number, what)]

    def packed(self, number: int) -> list[Extent]:
        """The runs of a packed field, unread; empty if some of its values stand each by itself."""
        flat = self._fields.get(number, _NONE)
        return self.parts(number, "numbers") if all(kind == _BYTES for kind in flat[0::3]) else []

    def integers(self, number: int, what: str) -> list[int]:
        """A repeated int32 or int64, packed or not."""
        flat = self._fields.get(number, _NONE)
        few: list[int] | None = self._few_integers(flat, what) if len(flat) <= _FEW else None
        if few is None:
            many: list[int] = self.integer_array(number, what).tolist()
            return many
        return [value - (1 << 64) if value >= 1 << 63 else value for value in few]

    def _few_integers(self, flat: "array[int]", what: str) -> list[int] | None:
        """As they are written, by a loop, which is faster than NumPy for few; None if there are many, or what is no integer."""
        values: list[int] = []
        for place in range(0, len(flat), 3):
            kind, start, stop = flat[place : place + 3]
            if kind == _VARINT:
                values.append(start)
            elif kind == _BYTES and stop - start <= _FEW:
                data, at = bytes(self._read(start, stop)), 0
                try:
                    while at < len(data):
                        value, at = _varint(data, at)
                        values.append(value)
                except (IndexError, OverflowError):
                    return None
            else:
                return None
        return values

    def integer_array(self, number: int, what: str, dtype: "np.dtype[np.generic]" = _INT64) -> Array:
        """The same as an array of a type of integers.

        Raises:
            FormatError: one of them is none of that type.
        """

        def narrow(values: Array) -> Array:
            signed = values.view(np.int64)
            if dtype.itemsize == 8:
                return values.view(dtype)
            narrowed = signed.astype(dtype)
            if bool((narrowed.astype(np.int64) != signed).any()):
                raise self.error(f"{what}: a number that is no {dtype}")
            return narrowed

        def unpack(start: int, stop: int, what: str) -> Iterator[Array]:
            return map(narrow, self._varints(start, stop, what))

        return self._repeated(number, _VARINT, dtype, unpack, narrow, what)

    def _repeated(
        self, number: int, kind: int, dtype: "np.dtype[np.generic]", unpack: "Unpack", single: "Callable[[Array], Array]", what: str
    ) -> Array:
        """The numbers of a field: those that stand alone, and those that `unpack` makes of a run of bytes."""
        rows = np.frombuffer(self._fields.get(number, _NONE), np.uint64).reshape(-1, 3)
        runs = np.flatnonzero(rows[:, 0] == _BYTES).tolist()
        if bool((other := (rows[:, 0] != _BYTES) & (rows[:, 0] != kind)).any()) or len(runs) > _MAX_RUNS:
            found = f"of wire type {rows[other][0, 0]}" if other.any() else f"in {len(runs):,} pieces"
            raise self.error(f"{what} is {found}, wanted is {kind}, or many of them packed")
        pieces: list[Array] = []
        at = 0
        for run in runs:
            pieces += [single(rows[at:run, 1]), *unpack(int(rows[run, 1]), int(rows[run, 2]), what)]
            at = run + 1
        pieces.append(single(rows[at:, 1]))
        pieces = [piece for piece in pieces if piece.size]
        return np.concatenate(pieces) if len(pieces) > 1 else pieces[0] if pieces else np.empty(0, dtype)

    def _varints(self, start: int, stop: int, what: str) -> Iterator[Array]:
        """A packed run of numbers of variable length, as uint64, some at a time."""
        while start < stop:
            data = np.frombuffer(self._extent.read(start, min(start + _RUN_BYTES, stop)), np.uint8)
            ends = np.flatnonzero(data < 0x80)
            if not ends.size or (start + data.size == stop and ends[-1] + 1 < data.size):
                raise self.error(f"{what}: its last number is cut short")
            starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
            lengths = ends - starts + 1
            longest = int(lengths.max())
            if longest > 10 or (longest == 10 and bool((data[ends[lengths == 10]] > 1).any())):
                raise self.error(f"{what}: a number of more than 64 bits")
            values = (data[starts] & 0x7F).astype(np.uint64)
            for place in range(1, longest):
                longer = np.flatnonzero(lengths > place)
                values[longer] |= (data[starts[longer] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
            yield values
            start += int(ends[-1]) + 1

    def numbers_of(self, number: int, dtype: "np.dtype[np.generic]", what: str) -> Array:
        """A repeated float, double or fixed, packed or not, as an array."""

        def unpack(start: int, stop: int, what: str) -> Iterator[Array]:
            if (stop - start) % dtype.itemsize:
                raise self.error(f"{what}: {stop - start:,} bytes of numbers of {dtype.itemsize} bytes")
            yield np.frombuffer(self._extent.read(start, stop), dtype)

        def single(values: Array) -> Array:
            bits: Array = values.astype(f"<u{dtype.itemsize}").view(dtype)
            return bits

        return self._repeated(number, _FIXED32 if dtype.itemsize == 4 else _FIXED64, dtype, unpack, single, what)


def _scan(extent: Extent, start: int, stop: int, window: bytes, begin: int, what: str, most: int | None) -> dict[int, "array[int]"]:
    """The fields of a message by number: for each its wire type and two numbers, where its bytes begin and end, or its value and 0.

    Flat arrays, and a window of bytes: a file of 10 MB may have five million fields.
    """
    fields: dict[int, array[int]] = {}
    at, ahead = start, _SMALL_BYTES
    while at < stop:
        if not begin <= at < begin + len(window) or at + _LONGEST_BYTES > begin + len(window) < stop:
            window, begin = bytes(extent.read(at, min(at + ahead, stop))), at
            ahead = _LARGE_BYTES
            if most is not None and sum(map(len, fields.values())) > 3 * most:
                raise FormatError(extent.name, f"{what}: more fields than a file of this size needs")
        index = at - begin
        try:
            tag = window[index]
            index += 1
            if tag >= 0x80:
                tag, index = _varint(window, index - 1)
            kind = tag & 7
            if kind == _VARINT:
                first, second = window[index], 0
                index += 1
                if first >= 0x80:
                    first, index = _varint(window, index - 1)
            elif kind == _BYTES:
                nbytes = window[index]
                index += 1
                if nbytes >= 0x80:
                    nbytes, index = _varint(window, index - 1)
                first = begin + index
                second = first + nbytes
                if second > stop:
                    raise FormatError(
                        extent.name,
                        f"{what}: field {tag >> 3} would take {nbytes:,} bytes, {stop - first:,} are left",
                        hint="It may have been cut short on its way.",
                    )
                index += nbytes
                if nbytes > _LARGE_BYTES:
                    ahead = _SMALL_BYTES
            elif kind in (_FIXED32, _FIXED64):
                width = 4 if kind == _FIXED32 else 8
                first, second = int.from_bytes(window[index : index + width], "little"), 0
                index += width
            else:
                raise FormatError(extent.name, f"{what}: field {tag >> 3} is of wire type {kind}, which is not used (at byte {at:,})")
            if begin + index > stop:
                raise IndexError
        except IndexError:
            raise FormatError(extent.name, f"{what}: cut short in a field that begins at byte {at:,}") from None
        except OverflowError:
            raise FormatError(extent.name, f"{what}: a number of more than 64 bits (at byte {at:,})") from None
        number = tag >> 3
        flat = fields.get(number)
        if flat is None:
            if not 0 < number < 1 << 29:
                raise FormatError(extent.name, f"{what}: a field of number {number} (at byte {at:,})")
            if len(fields) == _MAX_NUMBERS:
                raise FormatError(extent.name, f"{what}: fields of more than {_MAX_NUMBERS:,} numbers")
            flat = fields[number] = array("Q")
        flat.extend((kind, first, second))
        at = begin + index
    return fields


def _varint(data: bytes, index: int) -> tuple[int, int]:
    """A number of variable length, and where the next thing begins.

    Raises:
        IndexError: it is cut short.
        OverflowError: it has more than 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        byte = data[index]
        index += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, index
    raise OverflowError

"""ONNX's tensors: where the bytes of a `TensorProto` are, and what they mean.

The bytes of one lie in its message (`raw_data`), in a field of numbers of one kind, or in another file.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, messages `TensorProto` and `SparseTensorProto`; docs/ExternalData.md.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from tensorkeep import dtypes
from tensorkeep.backends.inside import OutsideError
from tensorkeep.contents import Finding
from tensorkeep.dtypes import DType
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import Array, LazyTensor, as_bytes, spec_of
from tensorkeep.tree import Tree
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.protobuf import Message
from tensorkeep.wire.sources import Kept, Made, run_of, unpacked

_FLOATS, _INT32S, _TEXTS, _INT64S, _RAW, _DOUBLES, _UINT64S = 4, 5, 6, 7, 9, 10, 11
_SEGMENT, _EXTERNAL, _LOCATION = 3, 13, 14
_STRING: Final = 8
_SMALL_BYTES: Final = 64 << 10  # fields of this size are unpacked at once, larger ones when they are asked for


@dataclass(frozen=True, slots=True)
class _Kind:
    """One type of elements.

    Attributes:
        dtype: as it is kept here.
        number_field: the field that may have its elements as numbers.
        layout: those numbers' type in NumPy.
        bits: of one element in `raw_data`.
    """

    dtype: DType
    number_field: int
    layout: str
    bits: int


def _kinds() -> dict[int, _Kind]:
    rows = (
        (1, "F32", _FLOATS, "<f4"),
        (2, "U8", _INT32S, "u1"),
        (3, "I8", _INT32S, "i1"),
        (4, "U16", _INT32S, "<u2"),
        (5, "I16", _INT32S, "<i2"),
        (6, "I32", _INT32S, "<i4"),
        (7, "I64", _INT64S, "<i8"),
        (9, "BOOL", _INT32S, "u1"),
        (10, "F16", _INT32S, "<u2"),
        (11, "F64", _DOUBLES, "<f8"),
        (12, "U32", _UINT64S, "<u4"),
        (13, "U64", _UINT64S, "<u8"),
        (14, "C64", _FLOATS, "<f4"),
        (16, "BF16", _INT32S, "<u2"),
        (17, "F8_E4M3", _INT32S, "u1"),
        (18, "F8_E4M3FNUZ", _INT32S, "u1"),
        (19, "F8_E5M2", _INT32S, "u1"),
        (20, "F8_E5M2FNUZ", _INT32S, "u1"),
        (23, "F4", _INT32S, "u1"),
        (24, "F8_E8M0", _INT32S, "u1"),
    )
    kinds = {number: _Kind(dtypes.STANDARD[name], fields, layout, dtypes.STANDARD[name].bits) for number, name, fields, layout in rows}
    kinds[15] = _Kind(dtypes.C128, _DOUBLES, "<f8", 128)
    for number, name in ((21, "U4"), (22, "I4"), (25, "U2"), (26, "I2")):
        dtype = dtypes.parse(name)
        assert dtype is not None, "one of the table's own names"
        kinds[number] = _Kind(dtype, _INT32S, "u1", int(name[1]))
    return kinds


KINDS: Final = _kinds()


def name_of_type(number: int) -> str:
    """How a type of elements prints."""
    kind = KINDS.get(number)
    return str(kind.dtype) if kind is not None else "string" if number == _STRING else f"type {number}"


_QUICK: Final = re.compile(rb"((?:\x08[\0-\x7f]){0,8})\x10([\1-\x7f])\x42([\0-\x7f])", re.DOTALL)


def at_a_glance(data: bytes, file: str) -> tuple[str, LazyTensor] | None:
    """Name and tensor of a message with nothing but dims, type, name and bytes, in this order; None for any other.

    A model may have a million scalars, each in a message of its own.
    """
    head = _QUICK.match(data)
    if head is None:
        return None
    begin = head.end()
    at = begin + data[begin - 1]
    if data[at : at + 1] != b"J" or data[at + 1 : at + 2] >= b"\x80" or at + 2 > len(data) or at + 2 + data[at + 1] != len(data):
        return None
    kind = KINDS.get(data[begin - 2 - 1])
    if kind is None or kind.bits < 8:
        return None
    spec = spec_of(kind.dtype, tuple(head[1][1::2]))
    if spec.nbytes != len(data) - at - 2:
        return None
    try:
        return data[begin:at].decode(), LazyTensor(spec, Kept(data[at + 2 :], file, kind.dtype is dtypes.BOOL))
    except UnicodeDecodeError:
        return None


@dataclass(slots=True)
class Tensors:
    """Makes tensors of messages.

    Attributes:
        peek: the file that they stand in.
        findings, left_out: of tensors that name files outside of their folder.
    """

    peek: Peek
    findings: list[Finding] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    _files: dict[str, Extent] = field(default_factory=dict)

    def tensor(self, message: Message, name: str) -> Tree:
        """A `LazyTensor`; of texts, lists of them; None if its bytes are said to lie outside of the folder.

        Raises:
            FormatError: its fields disagree, or a file that it names is not there.
        """
        shape = tuple(message.integers(1, "dims"))
        if len(shape) > self.peek.limits.rank:
            raise message.error(f"{name!r:.200} has {len(shape):,} dimensions, the limit is {self.peek.limits.rank}")
        if any(length < 0 for length in shape) or math.prod(length or 1 for length in shape) >= 1 << 63:
            raise message.error(f"{name!r:.200} has the shape {list(shape)!r:.200}, which no array can have")
        number = message.unsigned(2, "data_type")
        if _SEGMENT in message:
            raise message.error(f"{name!r:.200} is one segment of a tensor, which is not read")
        holders = [one for one in (_FLOATS, _INT32S, _TEXTS, _INT64S, _RAW, _DOUBLES, _UINT64S) if one in message]
        if len(holders) > 1:
            raise message.error(f"{name!r:.200} has its elements in {len(holders)} fields, and tools differ in which one they read")
        if number == _STRING:
            return self._texts(message, shape, name)
        kind = KINDS.get(number)
        if kind is None:
            raise message.error(f"{name!r:.200} is of the type {number}, which this release does not know")
        count: int = math.prod(shape)
        nbytes = (count * kind.bits + 7) // 8
        if message.unsigned(_LOCATION, "data_location") == 1:
            if holders:
                raise message.error(f"{name!r:.200} has its elements here and in another file")
            extent = self._elsewhere(message, nbytes, name)
            return None if extent is None else _of_raw(extent, shape, kind, name)
        if (extent := message.content(_RAW, "raw_data")) is not None or not holders:
            return _of_raw(Extent(message.extent.opened, 0, 0, message.extent.name) if extent is None else extent, shape, kind, name)
        if holders[0] != kind.number_field:
            raise message.error(f"{name!r:.200} is of {kind.dtype}, and has its elements in field {holders[0]} and not {kind.number_field}")
        return _of_numbers(message, shape, kind, name)

    def sparse(self, message: Message) -> tuple[str, Tree]:
        """The name of a sparse tensor, and a dict of its `values`, their `indices` and its `dims`."""
        values, indices = message.message(1, "values"), message.message(2, "indices")
        if values is None or indices is None:
            raise message.error("a sparse tensor without values or indices")
        name = values.text(8, "name")
        dims = message.integers(3, "dims")
        return name, {"values": self.tensor(values, name), "indices": self.tensor(indices, f"{name}.indices"), "dims": dims}

    def _texts(self, message: Message, shape: tuple[int, ...], name: str) -> Any:
        count: int = math.prod(shape)
        if count and _TEXTS not in message:
            raise message.error(f"{name!r:.200} is of texts, and has none")
        texts: Any = [decoded(bytes(part.read())) for part in message.parts(_TEXTS, "string_data")]
        if len(texts) != count or len(shape) > 8:
            raise message.error(f"{name!r:.200}: {len(texts):,} texts for the shape {list(shape)!r:.200}")
        if 0 in shape:
            return []
        for length in reversed(shape[1:]):
            texts = [texts[begin : begin + length] for begin in range(0, len(texts), length)]
        return texts if shape else texts[0]

    def _elsewhere(self, message: Message, nbytes: int, name: str) -> Extent | None:
        """The bytes of a tensor in a file beside this one."""
        told: dict[str, str] = {}
        for pair in message.messages(_EXTERNAL, "external_data"):
            key = pair.text(1, "key")
            if key in told:
                raise message.error(f"{name!r:.200}: {key!r:.100} occurs twice in its external_data")
            told[key] = pair.text(2, "value")
        location = told.get("location", "")
        offset, length = (self._number(told.get(key, ""), message, f"{name!r:.200}: {key}") for key in ("offset", "length"))
        try:
            if location not in self._files:
                self._files[location] = self.peek.sibling(location.removeprefix("./"))
        except OutsideError:
            what = f"reads the file {location!r:.200}, which lies outside of the model's folder or is no plain file"
            self.findings.append(Finding("dangerous", name, what))
            self.left_out.append(f"{name}: it {what}")
            return None
        file, start = self._files[location], offset or 0
        stop = file.nbytes if length is None else start + length
        if stop - start != nbytes or stop > file.nbytes:
            wanted = f"bytes {start:,} to {start + nbytes:,} of {location!r:.200}"
            raise message.error(f"{name!r:.200} takes {wanted}, which has {file.nbytes:,}" + (f"; said are {length:,}" if length else ""))
        return file.part(start, stop)

    @staticmethod
    def _number(text: str, message: Message, what: str) -> int | None:
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise message.error(f"{what} is {text!r:.60}, which is no number")
        return int(text)


def decoded(raw: bytes) -> "str | bytes":
    """A text, or its bytes where they are no UTF-8: ONNX says of neither which it is."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _of_raw(extent: Extent, shape: tuple[int, ...], kind: _Kind, name: str) -> LazyTensor:
    count = math.prod(shape)
    dtype, nbytes = kind.dtype, (count * kind.bits + 7) // 8
    if extent.nbytes != nbytes:
        run_of(extent, 0, spec_of(dtypes.U8, (nbytes,)), what=f"{name!r:.200}")  # which says so, if there are too few
        raise Message(extent.part(0, 0), "tensor").error(f"{name!r:.200}: {extent.nbytes:,} bytes, where its shape takes {nbytes:,}")
    if kind.bits >= 8 or (dtype is dtypes.F4 and count % 2 == 0):
        return run_of(extent, 0, spec_of(dtype, shape), what=f"{name!r:.200}")
    return _unpacked(extent.read, shape, kind)


def _unpacked(read: Callable[[int, int], memoryview], shape: tuple[int, ...], kind: _Kind) -> LazyTensor:
    return unpacked(read, spec_of(dtypes.F4_BYTE_EACH if kind.dtype is dtypes.F4 else kind.dtype, shape), kind.bits)


def _of_numbers(message: Message, shape: tuple[int, ...], kind: _Kind, name: str) -> LazyTensor:
    """A tensor whose elements stand in a field of numbers; some kinds as their bits, small ones two or four to a number."""
    layout, fields = np.dtype(kind.layout), kind.number_field
    wanted = (math.prod(shape) * kind.bits + 7) // 8 // layout.itemsize
    runs = message.packed(fields)
    if fields in (_FLOATS, _DOUBLES) and len(runs) == 1:
        return _of_raw(runs[0], shape, kind, name)  # packed floats lie there as in memory
    known: list[Array] = []

    def numbers() -> Array:
        if not known:
            if fields in (_FLOATS, _DOUBLES):
                found = message.numbers_of(fields, layout, f"{name!r:.200}")
            else:
                found = message.integer_array(fields, f"{name!r:.200}", layout)
            if found.size != wanted:
                raise message.error(f"{name!r:.200}: {found.size:,} numbers, where its shape takes {wanted:,}")
            if kind.dtype is dtypes.BOOL and not dtypes.are_bools(as_bytes(found)):
                raise message.error(f"{name!r:.200}: a truth value that is neither 0 nor 1")
            known.append(found)
        return known[0]

    def read(start: int, stop: int) -> memoryview:
        return as_bytes(numbers())[start:stop]

    if sum(run.nbytes for run in runs) <= _SMALL_BYTES:
        numbers()
    if kind.bits < 8 and not (kind.dtype is dtypes.F4 and math.prod(shape) % 2 == 0):
        return _unpacked(read, shape, kind)
    spec = spec_of(kind.dtype, shape)
    return LazyTensor(spec, Made(spec.nbytes, read))

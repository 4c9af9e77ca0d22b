"""TensorFlow's tensors as messages: dtypes, shapes, slices, and the values of a `TensorProto`.

Source: https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/framework, `types.proto`, `tensor_shape.proto`,
`tensor_slice.proto` and `tensor.proto`.
"""

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from tensorkeep import dtypes
from tensorkeep.dtypes import DType
from tensorkeep.tensors import Array, LazyTensor, TensorSpec, as_bytes, spec_of
from tensorkeep.wire.protobuf import Message
from tensorkeep.wire.sources import Made, extents_of, run_of

STRING: Final = 7
_REFERENCE: Final = 100  # added to the number of a type where TensorFlow 1 means a variable of it

_NAMES: Final = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64", 9: "int64", 10: "bool",
    11: "int8", 12: "uint8", 13: "int32", 15: "int16", 16: "uint16",  # quantized ones, whose scale stands elsewhere
    14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64",
    24: "float8_e5m2", 25: "float8_e4m3fn", 26: "float8_e4m3fnuz", 27: "float8_e4m3b11fnuz", 28: "float8_e5m2fnuz",
    29: "int4", 30: "uint4", 31: "int2", 32: "uint2",
}  # fmt: skip
_OTHERS: Final = {STRING: "string", 20: "resource", 21: "variant"}
_DTYPES: Final = {number: dtypes.named(name) for number, name in _NAMES.items()}


def dtype_of(number: int) -> DType | None:
    """The dtype of a number in `DataType`; None for texts, and what is no tensor in memory."""
    return _DTYPES.get(plain(number))


def plain(number: int) -> int:
    return number - _REFERENCE if number > _REFERENCE else number


def kind_name(number: int) -> str:
    return _NAMES.get(plain(number)) or _OTHERS.get(plain(number), f"of type {number}")


def shape_of(message: Message | None) -> tuple[int, ...]:
    """The shape in a `TensorShapeProto`; none at all means no dimensions."""
    if message is None:
        return ()
    lengths = tuple(dim.signed(1, "length of a dimension") for dim in message.messages(2, "dimension"))
    if message.unsigned(3, "unknown rank") or any(length < 0 for length in lengths):
        raise message.error(f"the shape {list(lengths)!r:.100}, whose lengths are not all known")
    return lengths


class Slice(NamedTuple):
    """A block of a larger tensor, along each axis a start and a length; None for the whole axis."""

    axes: tuple[tuple[int, int | None], ...]

    def inside(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...] | None:
        """Start and stop along each axis of a tensor; None if it does not lie in it."""
        if len(self.axes) != len(shape):
            return None
        spans = []
        for (start, length), whole in zip(self.axes, shape, strict=True):
            stop = whole if length is None else start + length
            if not 0 <= start <= stop <= whole:
                return None
            spans.append((start, stop))
        return tuple(spans)


def slice_of(message: Message) -> Slice:
    """A `TensorSliceProto`."""
    axes = []
    for axis in message.messages(1, "axis of a slice"):
        length = axis.signed(2, "length along an axis") if 2 in axis else None
        axes.append((axis.signed(1, "start along an axis"), length))
    return Slice(tuple(axes))


_VALUES: Final = {  # of each dtype: the field that holds its values, and how it does
    "float32": (5, "<f4"), "float64": (6, "<f8"), "complex64": (9, "<c8"), "complex128": (12, "<c16"),
    "int32": (7, ""), "int16": (7, ""), "int8": (7, ""), "uint8": (7, ""), "uint16": (7, ""), "int4": (7, ""), "uint4": (7, ""),
    "int2": (7, ""), "uint2": (7, ""), "int64": (10, ""), "bool": (11, ""), "uint32": (16, ""), "uint64": (17, ""),
    "float16": (13, "<u2"), "bfloat16": (13, "<u2"),
}  # fmt: skip
_AS_IN_MEMORY: Final = ("<f4", "<f8", "<c8", "<c16")
_BYTES_EACH: Final = 24  # the field of one-byte floats
_CONTENT: Final = 4


def tensor_of(
    message: Message, what: str, *, number: int | None = None, shape: tuple[int, ...] | None = None
) -> LazyTensor | list[bytes] | None:
    """The value of a `TensorProto`: a tensor, or texts in C order; None for what is neither.

    Args:
        number, shape: dtype and shape, where they are known from elsewhere and do not stand in the message.

    Raises:
        FormatError: it has not as many values as its shape asks for.
    """
    number = plain(message.unsigned(1, f"{what}: dtype") if number is None else number)
    if number == STRING:
        return [bytes(part.read()) for part in message.parts(8, f"{what}: texts")]
    dtype = dtype_of(number)
    if dtype is None:
        return None
    spec = spec_of(dtype, shape_of(message.message(2, f"{what}: shape")) if shape is None else shape)
    content = message.content(_CONTENT, f"{what}: content")
    if content is not None and content.nbytes:
        if content.nbytes != spec.nbytes:
            raise message.error(f"{what}: {spec} takes {spec.nbytes:,} bytes, {content.nbytes:,} are there")
        return run_of(content, 0, spec, what=what)
    return _of_values(message, spec, _NAMES[number], what)


def _of_values(message: Message, spec: TensorSpec, name: str, what: str) -> LazyTensor:
    field, layout = _VALUES.get(name, (_BYTES_EACH, ""))
    lying = message.packed(field)
    if len(lying) == 1 and layout in _AS_IN_MEMORY and lying[0].nbytes == spec.nbytes:
        return run_of(lying[0], 0, spec, what=what)
    values = _values(message, field, layout, spec, what)
    count = values.nbytes * 8 // spec.dtype.bits
    if count > spec.count or (count == 0 and spec.count):
        raise message.error(f"{what}: {spec} has {spec.count:,} elements, {count:,} values are there")
    if count == spec.count:
        return LazyTensor(spec, Made(spec.nbytes, lambda start, stop: as_bytes(values)[start:stop]))
    return LazyTensor(spec, Made(spec.nbytes, _repeated(as_bytes(values), spec.dtype.bits // 8)))


def _values(message: Message, field: int, layout: str, spec: TensorSpec, what: str) -> Array:
    """The values that are written out, as they lie in memory."""
    if field == _BYTES_EACH:
        data = message.content(field, f"{what}: values")
        return np.frombuffer(b"" if data is None else bytes(data.read()), np.uint8)
    if layout in _AS_IN_MEMORY:
        part = np.dtype("<f4" if layout in ("<f4", "<c8") else "<f8")
        return message.numbers_of(field, part, f"{what}: values")
    numbers = message.integer_array(field, f"{what}: values")
    kind: np.dtype[Any] = np.dtype("<u2") if layout == "<u2" else np.dtype(f"<u{spec.dtype.bits // 8}")
    return numbers.astype(kind)


def _repeated(values: memoryview, item: int) -> Callable[[int, int], memoryview]:
    """The bytes of a tensor whose last value that is written out stands for all that follow."""
    last = bytes(values[-item:])

    def make(start: int, stop: int) -> memoryview:
        first, count = start // item, -(-stop // item) - start // item
        into = np.frombuffer(last * count, np.uint8).copy()
        written = values[first * item : (first + count) * item]
        into[: written.nbytes] = np.frombuffer(written, np.uint8)
        return memoryview(into)[start - first * item : stop - first * item]

    return make


def assembled(spec: TensorSpec, blocks: list[tuple[tuple[tuple[int, int], ...], LazyTensor]]) -> LazyTensor:
    """A tensor that was cut into blocks, put together where it is read. The blocks tile it exactly: see `tiles`."""
    item = spec.dtype.bits // 8
    row = math.prod(spec.shape[1:]) * item
    whole = [(0, length) for length in spec.shape]
    if len(blocks) == 1 and list(blocks[0][0]) == whole:
        return blocks[0][1]

    def make(start: int, stop: int) -> memoryview:
        first, last = start // row, -(-stop // row)
        into = np.zeros((last - first, *spec.shape[1:]), np.dtype(f"V{item}"))
        for spans, part in blocks:
            begin, end = max(spans[0][0], first), min(spans[0][1], last)
            if begin < end:
                shape = (end - begin, *(high - low for low, high in spans[1:]))
                each = math.prod(shape[1:]) * item
                data = part.source.read((begin - spans[0][0]) * each, (end - spans[0][0]) * each)
                place = (slice(begin - first, end - first), *(slice(low, high) for low, high in spans[1:]))
                into[place] = np.frombuffer(data, into.dtype).reshape(shape)
        return as_bytes(into)[start - first * row : stop - first * row]

    checked = tuple(extent for _, part in blocks for extent in extents_of(part))
    return LazyTensor(spec, Made(spec.nbytes, make, checked))


def tiles(shape: tuple[int, ...], blocks: list[tuple[tuple[int, int], ...]]) -> bool:
    """Whether blocks fill a tensor, and none lies over another. Writers cut along one axis; a grid of cuts is seen too."""
    filled = sum(math.prod(stop - start for start, stop in spans) for spans in blocks)
    if filled != math.prod(shape):
        return False
    real = sorted(spans for spans in blocks if all(stop > start for start, stop in spans))
    for axis in range(len(shape)):
        edges = sorted({span[axis] for span in real})
        if any(edges[place][1] > edges[place + 1][0] for place in range(len(edges) - 1)):
            return False
    return len(set(real)) == len(real)

"""Sources: where the bytes of one tensor of a foreign file are.

Lives here: a run of an extent, a strided view of one, and bytes that are made when they are asked for.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, ClassVar, Final

import msgspec
import numpy as np

from tensorkeep import dtypes
from tensorkeep.errors import FormatError, sized
from tensorkeep.tensors import Array, LazyTensor, TensorSpec, as_bytes, spec_of
from tensorkeep.wire.extent import Extent

_PIECE_BYTES: Final = 4 << 20


class Run(msgspec.Struct, gc=False, eq=False):
    """Bytes that lie in an extent as they are wanted: little-endian, in C order."""

    piecewise: ClassVar = True

    extent: Extent
    start: int
    stop: int
    bools: bool = False

    def view(self) -> Array | None:
        return None

    def read(self, start: int, stop: int) -> memoryview:
        data = self.extent.read(self.start + start, self.start + stop)
        if self.bools and not dtypes.are_bools(data):
            raise FormatError(self.extent.name, "a BOOL byte that is neither 0 nor 1")
        return data


class Kept(msgspec.Struct, gc=False, eq=False):
    """Few bytes, which were read with what names them."""

    piecewise: ClassVar = True

    data: bytes
    file: str
    bools: bool = False

    def view(self) -> Array | bytes | None:
        return None

    def read(self, start: int, stop: int) -> memoryview:
        data = memoryview(self.data)[start:stop]
        if self.bools and not dtypes.are_bools(data):
            raise FormatError(self.file, "a BOOL byte that is neither 0 nor 1")
        return data


class Strided(msgspec.Struct, gc=False, eq=False):
    """A view of an extent whose elements do not follow each other in C order: transposed, expanded, every second row.

    Attributes:
        extent: the memory that is viewed.
        start: where its first element is, in bytes.
        spec: dtype and shape.
        strides: for each axis, how many elements further the next one is; from 0.
    """

    extent: Extent
    start: int
    spec: TensorSpec
    strides: tuple[int, ...]

    def view(self) -> Array | None:
        return None

    def read(self, start: int, stop: int) -> memoryview:
        """Copies whole rows of the first axis, no more than those that were asked for."""
        if start == stop:
            return memoryview(b"")
        item = self.spec.dtype.bits // 8
        row = math.prod(self.spec.shape[1:]) * item if self.spec.shape else item
        first, last = start // row, -(-stop // row)
        shape, strides = self.spec.shape, self.strides
        at = self.start
        if shape:
            shape, at = (last - first, *shape[1:]), at + first * strides[0] * item
        data = as_bytes(np.ascontiguousarray(self._gathered(at, shape, strides, item)))[start - first * row : stop - first * row]
        if self.spec.dtype is dtypes.BOOL and not dtypes.are_bools(data):
            raise FormatError(self.extent.name, "a BOOL byte that is neither 0 nor 1")
        return data

    def _gathered(self, at: int, shape: tuple[int, ...], strides: tuple[int, ...], item: int) -> Array:
        """A part of the view. What is not mapped is read a piece at a time: a few rows of a transposed one reach over all of it."""
        reach = sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True)) * item + item
        if reach > _PIECE_BYTES and self.extent.opened.mapping() is None:
            axis = max(range(len(shape)), key=lambda axis: (shape[axis] > 1) * strides[axis])
            each = max(1, _PIECE_BYTES // (strides[axis] * item))
            if each < shape[axis]:
                into: Array = np.empty(shape, np.dtype(f"V{item}"))
                for begin in range(0, shape[axis], each):
                    part = slice(begin, min(begin + each, shape[axis]))
                    lengths = (*shape[:axis], part.stop - begin, *shape[axis + 1 :])
                    place = (slice(None),) * axis + (part,)
                    into[place] = self._gathered(at + begin * strides[axis] * item, lengths, strides, item)
                return into
        window = np.frombuffer(self.extent.read(at, at + reach), np.dtype(f"V{item}"))
        return np.lib.stride_tricks.as_strided(window, shape, tuple(stride * item for stride in strides), writeable=False)


class Made(msgspec.Struct, gc=False, eq=False):
    """Bytes that are made when they are asked for: unpacked, put together from chunks, dequantized.

    Attributes:
        nbytes: how many.
        make: the bytes from `start` to `stop`.
        extents: what they are made from: their checksums are compared before.
        granule: how many bytes are made together; who reads piece by piece asks for no fewer.
        put: all bytes, straight into memory of the caller: for what is made in pieces that lie across each other.
    """

    nbytes: int
    make: Callable[[int, int], "memoryview | bytes"]
    extents: tuple[Extent, ...] = ()
    granule: int = 0
    put: Callable[[memoryview], None] | None = None

    def view(self) -> Array | None:
        return None

    def read(self, start: int, stop: int) -> memoryview:
        data = memoryview(self.make(start, stop)).cast("B") if stop > start else memoryview(b"")
        assert data.nbytes == stop - start, "as many bytes as were asked for"
        return data


def extents_of(tensor: LazyTensor) -> tuple[Extent, ...]:
    """What the bytes of a tensor lie in, or are made from."""
    source = tensor.source
    if isinstance(source, (Run, Strided)):
        return (source.extent,)
    if isinstance(source, Made):
        return source.extents
    inner = getattr(source, "tensor", None)  # of what is cast or transposed on the way
    return extents_of(inner) if isinstance(inner, LazyTensor) else ()


def run_of(extent: Extent, start: int, spec: TensorSpec, *, what: str) -> LazyTensor:
    """A tensor whose bytes lie in an extent from `start` on.

    Raises:
        FormatError: so many bytes do not lie there.
    """
    if not 0 <= start <= start + spec.nbytes <= extent.nbytes:
        raise FormatError(
            extent.name,
            f"{what}: {spec} takes {spec.nbytes:,} bytes from byte {start:,} on, {max(0, extent.nbytes - start):,} are there",
            hint=f"It may have been cut short on its way: {sized(extent.nbytes, max(extent.nbytes, start + spec.nbytes))}. Fetch it again.",
        )
    return LazyTensor(spec, Run(extent, start, start + spec.nbytes, spec.dtype is dtypes.BOOL))


def held(array: Array) -> LazyTensor:
    """An array that was made while reading, as a tensor."""
    dtype = dtypes.of_numpy(array.dtype)
    assert dtype is not None, "numbers or texts"
    data = as_bytes(np.ascontiguousarray(array)).toreadonly()
    return LazyTensor(spec_of(dtype, array.shape), Made(data.nbytes, lambda start, stop: data[start:stop]))


def swapped(tensor: LazyTensor, element: "np.dtype[Any]") -> LazyTensor:
    """A tensor whose elements lie in the other order of bytes, turned round where they are read.

    Args:
        tensor: its bytes as they lie.
        element: NumPy's type of an element, in either order, by which it is known what is turned round together: the parts of a complex
            number, the characters of a text.
    """
    source, item = tensor.source, element.itemsize

    def make(start: int, stop: int) -> memoryview:
        first = start - start % item
        return as_bytes(np.frombuffer(source.read(first, stop + -stop % item), element).byteswap())[start - first : stop - first]

    return LazyTensor(tensor.spec, Made(tensor.nbytes, make, extents_of(tensor)))


def unpacked(read: Callable[[int, int], memoryview], spec: TensorSpec, bits: int) -> LazyTensor:
    """A tensor of elements of 2 or 4 bits, the first in the lowest bits of a byte, as one to a byte.

    Args:
        read: the packed bytes from `start` to `stop`.
        spec: dtype and shape; the dtype is one of a byte each.
        bits: of a packed element.
    """
    each = 8 // bits
    mask, shifts = np.uint8((1 << bits) - 1), np.arange(0, 8, bits, dtype=np.uint8)

    def make(start: int, stop: int) -> memoryview:
        packed = np.frombuffer(read(start // each, -(-stop // each)), np.uint8)
        elements = (packed[:, None] >> shifts & mask).reshape(-1)
        return as_bytes(np.ascontiguousarray(elements[start % each : start % each + stop - start]))

    return LazyTensor(spec, Made(spec.nbytes, make))


def strided(extent: Extent, start: int, spec: TensorSpec, strides: tuple[int, ...], *, what: str) -> LazyTensor:
    """A tensor that views an extent, its strides counted in elements.

    Raises:
        FormatError: it reaches beyond the extent, or a stride is negative.
    """
    item = spec.dtype.bits // 8
    if len(strides) != len(spec.shape) or any(stride < 0 for stride in strides):
        raise FormatError(extent.name, f"{what}: strides {strides!r:.200} for the shape {spec.shape!r:.200}")
    contiguous, expected = True, 1
    for length, stride in zip(reversed(spec.shape), reversed(strides), strict=True):
        contiguous, expected = contiguous and (length == 1 or stride == expected), expected * length
    if contiguous or spec.count == 0:
        return run_of(extent, start, spec, what=what)
    reach = start + sum((length - 1) * stride for length, stride in zip(spec.shape, strides, strict=True)) * item + item
    if start < 0 or reach > extent.nbytes:
        raise FormatError(extent.name, f"{what}: its last byte would be {reach:,}, {extent.nbytes:,} are there")
    return LazyTensor(spec, Strided(extent, start, spec, strides))


def joined(parts: Sequence[LazyTensor], shape: tuple[int, ...], *, file: str, what: str) -> LazyTensor:
    """A tensor that was cut into runs of elements, put together where it is read.

    Raises:
        FormatError: the parts differ in dtype, or do not add up to the shape.
    """
    dtype = parts[0].dtype
    spec = spec_of(dtype, shape)
    found = sum(part.spec.count for part in parts)
    if any(part.dtype != dtype for part in parts) or found != spec.count:
        dtypes_of_parts = sorted({str(part.dtype) for part in parts})
        raise FormatError(file, f"{what:.200}: {spec} in {len(parts):,} parts of {', '.join(dtypes_of_parts):.100}, {found:,} elements")
    if len(parts) == 1:
        return LazyTensor(spec, parts[0].source)
    starts = [0, *accumulate(part.nbytes for part in parts)]

    def make(start: int, stop: int) -> memoryview:
        into = memoryview(np.empty(stop - start, np.uint8))
        place = bisect_right(starts, start) - 1
        at = start
        while at < stop:
            end = min(stop, starts[place + 1])
            into[at - start : end - start] = parts[place].source.read(at - starts[place], end - starts[place])
            at, place = end, place + 1
        return into

    return LazyTensor(spec, Made(spec.nbytes, make, tuple(extent for part in parts for extent in extents_of(part))))

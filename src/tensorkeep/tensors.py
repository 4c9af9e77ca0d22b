"""Tensors: what one is, and where its bytes are.

Lives here: `TensorSpec` (dtype and shape), `LazyTensor` (a spec and its source), the `ByteSource` protocol, `Live` for tensors in use, and
`Floats`, a tensor dequantized.
Lives elsewhere: the other sources (live memory in frameworks, files in modelfile and formats), what quantized bytes mean (quantized).
"""

import math
from collections.abc import Hashable, Iterator
from functools import lru_cache
from typing import Any, ClassVar, Final, Protocol

import msgspec
import numpy as np

from tensorkeep.dtypes import F32, DType, is_float, unpack_f4
from tensorkeep.errors import UnsupportedError
from tensorkeep.quantized.scaling import Affine, Scaling

Array = np.ndarray[Any, Any]


def as_bytes(array: Array) -> memoryview:
    """A contiguous array as its bytes, without a copy."""
    return memoryview(array.reshape(-1).view(np.uint8))


# Structs of msgspec, and out of the garbage collector's sight: a file may hold 200,000 of them, and a collection that walks them
# all, as one in a process with PyTorch does, costs more than reading the file. They refer to nothing that refers back.
class TensorSpec(msgspec.Struct, frozen=True, gc=False):
    """A dtype and a shape, and what follows from the two.

    Attributes:
        nbytes: how many bytes it takes, in C order and little-endian.
        viewed: the NumPy type of an array over these bytes; None where an array of its values needs bytes of its own.
    """

    dtype: DType
    shape: tuple[int, ...]
    nbytes: int = -1
    viewed: "np.dtype[Any] | None" = None

    def __post_init__(self) -> None:
        dtype = self.dtype
        msgspec.structs.force_setattr(self, "nbytes", dtype.nbytes(math.prod(self.shape)))
        msgspec.structs.force_setattr(self, "viewed", dtype.numpy if dtype.bits != 4 and dtype.memory is None else None)

    @property
    def count(self) -> int:
        """Elements in all; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape that the header of a safetensors file names."""
        return self.dtype.stored_shape(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@lru_cache(maxsize=4096)
def spec_of(dtype: DType, shape: tuple[int, ...]) -> TensorSpec:
    """A TensorSpec, the same object for the same dtype and shape: models repeat few of them many times."""
    return TensorSpec(dtype, tuple(shape))


class ByteSource(Protocol):
    """Where the bytes of one tensor are, counted from its first one.

    A class whose `read` costs no more than the bytes that it is asked for says `piecewise = True`, and one that reads all for a part
    `whole = True`: see `read_at_once`. One that can give a part along several axes without reading what lies between has
    `box(offset, lengths)`, which count the last axis in bytes.
    """

    def view(self) -> Array | bytes | None:
        """All bytes as they lie in memory: an array of any shape and type over them, or a copy if they are few; None where they do not."""

    def read(self, start: int, stop: int) -> memoryview:
        """Bytes from `start` to `stop`, checked where there are digests. May copy.

        Raises:
            CorruptError: they are not the bytes that were written.
        """


class Live(ByteSource, Protocol):
    """The bytes of a live tensor, and the way back into it.

    Attributes:
        immutable: whether it never changes: what is put there makes a successor, which `owner` gives from then on.
    """

    immutable: ClassVar[bool]

    def owner(self) -> object:
        """The user's tensor."""

    @property
    def plain(self) -> bool:
        """Whether its bytes lie in host memory as they do in a file."""

    @property
    def address(self) -> int:
        """Of its first element; 0 for an empty tensor, and where there is no memory."""

    def key(self) -> Hashable:
        """Equal for two tensors of one address that are tied: same shape, strides and dtype."""

    def extent(self) -> tuple[int, int]:
        """First address of its memory, and the one after the last; (0, 0) where it is not the host's."""

    def unsaveable(self) -> str:
        """Why it has no bytes to keep, or ""."""

    def obstacle(self) -> str:
        """Why nothing can be written into it, or ""."""

    def destination(self) -> memoryview | None:
        """Its memory, if bytes of the file can be read straight into it."""

    def written(self) -> None:
        """Bytes were put straight into `destination`."""

    def put(self, array: Array) -> None:
        """Write values into it, the slow way: other devices, other strides."""


class LazyTensor(msgspec.Struct, gc=False, eq=False):
    """One tensor: dtype, shape and size at once, bytes when asked.

    Indexing, `numpy()` and `np.asarray` give NumPy arrays; whole rows (`tensor[100:200]`) are read alone.

    Attributes:
        spec: dtype and shape.
        source: where the bytes are.
        framework: what the tensor was saved as, such as `numpy` or `torch`.
        name: its path, once it has one.
        scaling: what its integers stand for, where its file says that they are quantized.
    """

    spec: TensorSpec
    source: ByteSource
    framework: str = "numpy"
    name: str = ""
    scaling: Scaling | Affine | None = None

    @property
    def dtype(self) -> DType:
        return self.spec.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def nbytes(self) -> int:
        return self.spec.nbytes

    def __repr__(self) -> str:
        return f"LazyTensor({self.name!r}, {self.spec})" if self.name else f"LazyTensor({self.spec})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without dimensions")
        return self.shape[0]

    def __iter__(self) -> Any:
        return iter(self.numpy())

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} is a handle into an open file and cannot be pickled: pass tensor.numpy(), or the file's name")

    def tobytes(self) -> bytes:
        """The bytes in C order, little-endian, checked: for C128 and the like 16 bytes an element, for F4 two elements a byte."""
        return bytes(self.source.read(0, self.nbytes))

    def numpy(self) -> Array:
        """The whole tensor as a NumPy array; a read-only view of the file's mapping where there is one, else memory of its own.

        `np.array(tensor)` is always one to write to. A tensor that is quantized in blocks gives these as they are: an array of bytes,
        whose last axis has the bytes of a row; `dequantize` gives its numbers.

        Raises:
            CorruptError: its bytes are not those that were written.
            UnsupportedError: NumPy has no such type, as for packed 6-bit floats; `tobytes()` works.
        """
        return self._rows(0, self.spec.count, self.shape)

    def __getitem__(self, index: Any) -> Any:
        """Index or slice it as a NumPy array. Only the rows that the first index names are read.

        Raises:
            IndexError: out of range, or the rows of a packed or quantized tensor do not start and end on whole bytes and blocks.
        """
        if isinstance(index, tuple) and len(index) > 1 and hasattr(self.source, "box") and (box := self._box(index)) is not None:
            return box
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) and index else (index, ())
        if isinstance(first, (int, np.integer)) and not isinstance(first, (bool, np.bool_)) and self.shape:
            row = int(first) + (self.shape[0] if first < 0 else 0)
            if not 0 <= row < self.shape[0]:
                raise IndexError(f"row {int(first)} of {self!r}, which has {self.shape[0]}")
            return self._block(row, row + 1)[(0, *rest)]
        if isinstance(first, slice) and self.shape:
            start, stop, step = first.indices(self.shape[0])
            if step < 0:
                return self.numpy()[index]
            rows = self._block(start, max(start, stop))[::step]
            return rows[(slice(None), *rest)] if rest else rows
        return self.numpy()[index]

    def _box(self, index: tuple[Any, ...]) -> "Array | None":
        """What integers and slices along several axes ask for, if no more than that need be read; None where NumPy does it best."""
        spec = self.spec
        if len(index) > len(spec.shape) or spec.stored_shape != spec.shape or spec.dtype.bits % 8 or spec.dtype.block > 1:
            return None
        offset: list[int] = []
        lengths: list[int] = []
        inner: list[slice | int] = []
        for axis, length in enumerate(spec.shape):
            one = index[axis] if axis < len(index) else slice(None)
            if isinstance(one, slice) and one.indices(length)[2] > 0:
                start, stop, step = one.indices(length)
                inner.append(slice(None, None, step))
            elif isinstance(one, (int, np.integer)) and not isinstance(one, (bool, np.bool_)) and -length <= one < length:
                start = int(one) % length
                stop = start + 1
                inner.append(0)
            else:
                return None
            offset.append(start)
            lengths.append(max(0, stop - start))
        itemsize = spec.dtype.nbytes(1)
        data = self.source.box((*offset[:-1], offset[-1] * itemsize), (*lengths[:-1], lengths[-1] * itemsize))  # type: ignore[attr-defined]  # it has one
        return as_array(data, 0, TensorSpec(spec.dtype, tuple(lengths)))[tuple(inner)]

    def _block(self, start: int, stop: int) -> Array:
        """Rows `start` to `stop` of the first axis."""
        each = math.prod(self.shape[1:])
        if not (self.dtype.fits(start * each) and self.dtype.fits(stop * each)):
            raise IndexError(
                f"rows {start}:{stop} of {self!r} do not start and end on whole bytes and blocks; take the whole: tensor.numpy()"
            )
        return self._rows(start * each, stop * each, (stop - start, *self.shape[1:]))

    def _rows(self, start: int, stop: int, shape: tuple[int, ...]) -> Array:
        dtype = self.dtype
        return as_array(self.source.read(dtype.nbytes(start), dtype.nbytes(stop)), 0, TensorSpec(dtype, shape))

    def dequantize(self) -> Array:
        """Its numbers as float32: of blocks and scaled integers what they stand for, of other floats the nearest.

        For a part of them, index `dequantized()`.

        Raises:
            UnsupportedError: they are no real numbers, or blocks whose numbers are not known here.
        """
        return self.dequantized().numpy()

    def dequantized(self) -> "LazyTensor":
        """The same tensor as float32, whose bytes are made when they are asked for.

        Raises:
            UnsupportedError: as for `dequantize`.
        """
        from tensorkeep.quantized import decode  # its tables take 5 ms

        dtype = self.dtype
        if dtype is F32:
            return self
        if self.scaling is None and not (decode.known(dtype.name) if dtype.block > 1 else is_float(dtype)):
            reason = "its blocks are not read" if dtype.block > 1 else "the file says nothing of a scale"
            raise UnsupportedError(self.name, f"{self.spec} cannot be dequantized: {reason}", hint="tensor.numpy() gives what is stored.")
        return LazyTensor(spec_of(F32, self.shape), Floats(self), self.framework, self.name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"{self!r} as {np.dtype(dtype)} needs a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **options: Any) -> Any:
        array = self.numpy()
        if array.dtype.kind not in "biufc" or array.dtype.isbuiltin == 2:  # ml_dtypes says of some that they are floats
            raise BufferError(
                f"NumPy cannot pass on {self!r} by DLPack; take tensor.numpy(), tensor.tobytes(), or tk.load(..., framework='torch')"
            )
        if not array.dtype.isnative or not array.flags.writeable:  # neither can be told by DLPack
            array = array.astype(array.dtype.newbyteorder("="))
        return array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU, from dlpack.h


class Floats(msgspec.Struct, gc=False, eq=False):
    """The bytes of a tensor dequantized to float32."""

    piecewise: ClassVar = True

    tensor: LazyTensor

    def view(self) -> None:
        return None

    def read(self, start: int, stop: int) -> memoryview:
        tensor = self.tensor
        dtype, count = tensor.dtype, tensor.spec.count
        unit = max(dtype.block, 8 // math.gcd(dtype.bits, 8))  # elements that end on a whole byte
        first, last = start // 4 // unit * unit, min(-(-stop // (4 * unit)) * unit, count)
        data = tensor.source.read(dtype.nbytes(first), dtype.nbytes(last))
        if dtype.block > 1:
            from tensorkeep.quantized import decode

            numbers = decode.floats(dtype.name, data)
        else:
            numbers = as_array(data, 0, TensorSpec(dtype, (last - first,)))
            scaling = tensor.scaling
            numbers = numbers.astype(np.float32) if scaling is None else scaling.floats(numbers, tensor.shape, first)
        return as_bytes(numbers)[start - 4 * first : stop - 4 * first]


PIECE_BYTES: Final = 4 << 20
_ALIGNMENT: Final = 64  # bytes: what JAX asks for, and a cache line
_MADE_BYTES: Final = 64 << 20  # of sources that may make much for a little


def read_at_once(tensor: LazyTensor) -> int:
    """How many bytes of a tensor, at most, are best read in one call by whoever streams it: whole MiBs, or the whole tensor.

    A live tensor is copied whole by each call; what is unpacked or strided may take its time for each.
    """
    source = tensor.source
    if getattr(source, "piecewise", False):
        return PIECE_BYTES
    return tensor.nbytes if hasattr(source, "owner") or getattr(source, "whole", False) else _MADE_BYTES


def pieces(tensor: LazyTensor) -> Iterator[memoryview]:
    """All bytes of a tensor, in order, a piece at a time."""
    most = max(1, read_at_once(tensor))
    for start in range(0, tensor.nbytes, most):
        yield tensor.source.read(start, min(start + most, tensor.nbytes))


def fresh(nbytes: int) -> Array:
    """New memory for bytes that are about to be read, which begins where JAX takes it over as it is: on a multiple of 64."""
    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -int(memory.__array_interface__["data"][0]) % _ALIGNMENT
    return memory[start : start + nbytes]


def as_array(buffer: "memoryview | bytearray | Array", offset: int, spec: TensorSpec) -> Array:
    """Bytes of a file as an array: a view where that can be, a copy for packed, byte-swapped or misaligned ones; blocks as bytes.

    Args:
        buffer: where the bytes are.
        offset: of the first one, in bytes.
        spec: dtype and shape.

    Raises:
        UnsupportedError: NumPy has no such type.
    """
    if spec.viewed is not None:
        array: Array = np.ndarray(spec.shape, spec.viewed, buffer, offset)
        return array if array.flags.aligned else array.copy()
    dtype = spec.dtype
    if dtype.block > 1:
        return np.ndarray(spec.stored_shape, np.uint8, buffer, offset)
    if dtype.numpy is None:
        raise UnsupportedError("", f"NumPy cannot show {dtype}", hint="tobytes() gives the bytes as they are.")
    if dtype.bits == 4:
        return unpack_f4(np.ndarray((spec.nbytes,), np.uint8, buffer, offset)).reshape(spec.shape)
    if dtype.numpy.itemsize == 0:  # a text of no characters, which `astype` would give one
        return np.ndarray(spec.shape, dtype.memory, buffer, offset)
    return np.ndarray(spec.shape, dtype.numpy, buffer, offset).astype(dtype.memory)

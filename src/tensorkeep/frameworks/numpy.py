"""NumPy arrays."""

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Final

import msgspec
import numpy as np

from tensorkeep import dtypes
from tensorkeep.errors import UnsupportedError
from tensorkeep.frameworks.protocols import Build
from tensorkeep.matching import Matcher, Result
from tensorkeep.tensors import Array, LazyTensor, TensorSpec, as_array, as_bytes, spec_of
from tensorkeep.tree import Captured, Tree

_KINDS: Final = (np.ndarray, np.memmap)  # other kinds of array hold more than their numbers, such as a mask
_PACKED_AT_ONCE: Final = 4 << 20  # 4-bit floats; an even number


class LiveArray(msgspec.Struct, gc=False):
    """The bytes of an array in use."""

    immutable: ClassVar = False

    array: Array
    dtype: dtypes.DType

    @property
    def plain(self) -> bool:
        return self.array.flags.c_contiguous and self.dtype.memory is None and self.dtype.bits != 4

    def owner(self) -> object:
        return self.array

    @property
    def address(self) -> int:
        return int(self.array.__array_interface__["data"][0]) if self.array.size else 0

    def key(self) -> Hashable:
        array = self.array
        return array.shape, array.strides, array.dtype

    def extent(self) -> tuple[int, int]:
        if self.array.size == 0:
            return 0, 0
        low = high = self.address
        for length, stride in zip(self.array.shape, self.array.strides, strict=True):
            low, high = low + min(0, (length - 1) * stride), high + max(0, (length - 1) * stride)
        return low, high + self.array.itemsize

    def view(self) -> Array | None:
        return self.array if self.plain else None

    def read(self, start: int, stop: int) -> memoryview:
        return as_bytes(self.array if self.plain else self._copy())[start:stop]

    def unsaveable(self) -> str:
        return ""

    def obstacle(self) -> str:
        return "" if self.array.flags.writeable else "a read-only array"

    def destination(self) -> memoryview | None:
        return as_bytes(self.array) if self.plain and self.array.flags.writeable else None

    def written(self) -> None: ...

    def put(self, array: Array) -> None:
        self.array[...] = array

    def _copy(self) -> Array:
        if self.dtype.bits == 4:
            flat, packed = self.array.reshape(-1), np.empty(self.array.size // 2, np.uint8)
            for begin in range(0, flat.size, _PACKED_AT_ONCE):  # what packing takes beside the result stays small
                end = min(begin + _PACKED_AT_ONCE, flat.size)
                packed[begin // 2 : end // 2] = dtypes.pack_f4(flat[begin:end])
            return packed
        return np.ascontiguousarray(self.array, self.dtype.numpy)


class NumpyAdapter:
    """NumPy arrays; its scalars and dtypes are plain values."""

    name = "numpy"
    kinds: frozenset[str] = frozenset()

    def owns(self, obj: object) -> bool:
        return isinstance(obj, np.ndarray)

    def capture(self, obj: Array) -> Tree:
        dtype = dtypes.of_numpy(obj.dtype)
        if dtype is None or type(obj) not in _KINDS:
            raise UnsupportedError("", _why(obj, dtype), hint=_hint(obj, dtype))
        if dtype.bits == 4 and obj.size % 2:
            dtype = dtypes.F4_BYTE_EACH
        return LazyTensor(spec_of(dtype, obj.shape), LiveArray(obj, dtype))

    def rebuild(self, node: Captured, state: Any, types: Mapping[str, type]) -> object:
        return state

    def plan(self, target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
        raise AssertionError("NumPy has no objects of its own")


def _why(array: Array, dtype: dtypes.DType | None) -> str:
    if dtype is not None:
        return f"a {type(array).__module__}.{type(array).__qualname__}, which holds more than an array does"
    if array.dtype.hasobject or array.dtype.kind == "T":
        return f"an array of Python objects (dtype {array.dtype})" if array.dtype.kind != "T" else "an array of strings of variable width"
    if array.dtype.names is not None:
        return f"an array of {array.dtype}, whose fields have titles, or types that cannot be kept"
    return f"an array of {array.dtype}, whose bytes differ from machine to machine"


def _hint(array: Array, dtype: dtypes.DType | None) -> str:
    if dtype is not None:
        return "Pass np.asarray(value), and what else it holds beside it."
    if array.dtype.kind == "T":
        return "Pass array.astype('U'), which has a fixed width."
    if array.dtype.hasobject:
        return "Pass array.tolist(), or an array of a numeric type."
    if array.dtype.names is not None:
        return "Pass {name: array[name] for name in array.dtype.names}."
    return "Pass array.astype(np.complex128)." if array.dtype.kind == "c" else "Pass array.astype(np.float64)."


def _build(buffer: "memoryview | bytearray | Array", offset: int, spec: TensorSpec) -> object:
    if spec.viewed is not None and offset & 15 == 0:  # where it lies, every type is aligned: in files of ours, most tensors
        return np.ndarray(spec.shape, spec.viewed, buffer, offset)
    return as_array(buffer, offset, spec)


class NumpyArrays:
    """Arrays over bytes of a file."""

    def builder(self, device: str | None, *, kept: bool = False) -> Build:
        return _build


ADAPTER: Final = NumpyAdapter()
ARRAYS: Final = NumpyArrays()

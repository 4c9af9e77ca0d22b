"""Casting on the way: a tensor of a file as another dtype, piece by piece, with a count of what that changed."""

import threading

import numpy as np

from tensorkeep import dtypes
from tensorkeep.dtypes import DType
from tensorkeep.tensors import Array, LazyTensor, TensorSpec, as_array, as_bytes


class CastBytes:
    """The bytes of a tensor after a cast: rounded to nearest, ties to even.

    Attributes:
        tensor: what is cast.
        target: into what.
    """

    def __init__(self, tensor: LazyTensor, target: DType) -> None:
        self.tensor, self.target = tensor, target
        self.piecewise = bool(getattr(tensor.source, "piecewise", False))
        self._counts: dict[int, tuple[int, int]] = {}  # by first element: whoever reads a piece twice counts it once
        self._lock = threading.Lock()

    @property
    def changed(self) -> int:
        """Values that are others now, as far as it was read."""
        return sum(changed for changed, _ in self._counts.values())

    @property
    def overflowed(self) -> int:
        """Finite values that are infinite, or no number, now."""
        return sum(overflowed for _, overflowed in self._counts.values())

    def view(self) -> Array | None:
        return None

    def read(self, start: int, stop: int) -> memoryview:
        if start == stop:
            return memoryview(b"")
        item, dtype = self.target.bits // 8, self.tensor.dtype
        first, last = start // item, -(-stop // item)
        if dtype.bits < 8:  # elements that share a byte
            first, last = first - first % 2, min(last + last % 2, self.tensor.spec.count)
        data = self.tensor.source.read(dtype.nbytes(first), dtype.nbytes(last))
        little = DType(dtype.name, dtype.bits, dtype.numpy, dtype.stored, dtype.tail)
        array = as_array(data, 0, TensorSpec(little, (last - first,)))
        narrow, changed = dtypes.cast(array, self.target)
        with self._lock:
            self._counts[first] = changed, _overflowed(array, narrow) if changed else 0
        return as_bytes(narrow)[start - first * item : stop - first * item]


def _overflowed(array: Array, narrow: Array) -> int:
    with np.errstate(all="ignore"):
        return int(np.count_nonzero(np.isfinite(array.astype(np.float64)) & ~np.isfinite(narrow.astype(np.float32))))


def cast_of(tensor: LazyTensor, target: DType) -> LazyTensor:
    """A tensor as another dtype, cast when it is read."""
    return LazyTensor(TensorSpec(target, tensor.shape), CastBytes(tensor, target), tensor.framework)


def is_real_float(dtype: DType) -> bool:
    """Whether `--dtype` means it: a number with a fraction, and no complex one."""
    return dtypes.castable(dtype, dtypes.F64) and not dtypes.castable(dtype, dtypes.I64)

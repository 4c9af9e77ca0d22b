"""Measuring: how far the numbers of two tensors of one shape are apart, piece by piece, in float64."""

import math
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from tensorkeep import dtypes
from tensorkeep.dtypes import C32, C128, DType
from tensorkeep.progress import Progress
from tensorkeep.quantized import decode
from tensorkeep.tensors import Array, LazyTensor, TensorSpec, as_array
from tensorkeep.workers import Job, run

_ELEMENTS: Final = 1 << 20  # of one job; whole blocks of every quantized type
_MADE_ELEMENTS: Final = 16 << 20  # of one read of a source that may make much for a little
_CACHED_ELEMENTS: Final = 1 << 17  # of one step, whose float64 stay in the cache


def numbers(tensor: LazyTensor) -> LazyTensor | None:
    """The tensor as numbers that can be subtracted: itself, or what its blocks stand for; None for texts, records and unknown blocks."""
    dtype = tensor.dtype
    if dtype.block > 1:
        return tensor.dequantized() if decode.known(dtype.name) else None
    return tensor if dtype != C32 and dtypes.castable(dtype, C128) else None


class Distance:
    """How far two tensors are apart.

    Attributes:
        differing: elements of another value; NaN and NaN are alike.
        not_finite: elements that are infinite or no number on one side, and another on the other. They count nowhere else.
        largest: change of one element.
        largest_at: its index, in C order; -1 if none changed.
    """

    def __init__(self) -> None:
        self.differing = self.not_finite = 0
        self.largest, self.largest_at = 0.0, -1
        self._squares = self._squares_before = 0.0
        self._lock = threading.Lock()

    @property
    def relative(self) -> float:
        """The norm of the change, by the norm of what was there before; infinite if that is 0."""
        if self._squares == 0:
            return 0.0
        ratio = self._squares / self._squares_before if self._squares_before else math.inf
        return math.sqrt(ratio) if ratio >= 0 else math.inf

    def add(self, before: Array, after: Array, first: int) -> None:
        """Take elements from `first` on into account."""
        for begin in range(0, len(before), _CACHED_ELEMENTS):
            self._add(before[begin : begin + _CACHED_ELEMENTS], after[begin : begin + _CACHED_ELEMENTS], first + begin)

    def _add(self, before: Array, after: Array, first: int) -> None:
        wide: Any = np.complex128 if "c" in (before.dtype.kind, after.dtype.kind) else np.float64
        with np.errstate(all="ignore"):
            a, b = before.astype(wide), after.astype(wide)
            change = np.abs(b - a)
            size = a if wide is np.float64 else np.abs(a)
            squares, squares_before = _squares(change), _squares(size)
            differing, not_finite = int(np.count_nonzero(change)), 0
            if not math.isfinite(squares + squares_before):  # NaNs or infinities, or squares beyond a float64
                alike = (a == b) | ((a != a) & (b != b))
                finite = np.isfinite(a) & np.isfinite(b)
                change = np.where(finite, change, 0.0)
                size = np.where(np.isfinite(a), np.abs(a), 0.0)
                squares, squares_before = _squares(change), _squares(size)
                differing, not_finite = int(np.count_nonzero(~alike)), int(np.count_nonzero(~alike & ~finite))
            at = int(np.argmax(change)) if differing else -1
        with self._lock:
            self.differing += differing
            self.not_finite += not_finite
            self._squares += squares
            self._squares_before += squares_before
            largest = float(change[at]) if differing else 0.0
            if largest > self.largest or (largest == self.largest > 0 and first + at < self.largest_at):
                self.largest, self.largest_at = largest, first + at


def _squares(numbers: Array) -> float:
    """The sum of their squares. Not by `np.dot`: BLAS has threads of its own, which would wait for each other behind ours."""
    return float(np.square(numbers).sum())


def distances(pairs: Sequence[tuple[LazyTensor, LazyTensor]], progress: Progress | None) -> list[Distance]:
    """How far the tensors of each pair are apart. Both have as many elements, and are what `numbers` gave."""
    found = [Distance() for _ in pairs]
    nbytes = sum(a.nbytes + b.nbytes for a, b in pairs)
    run(_jobs(pairs, found), nbytes=nbytes, progress=progress)
    return found


def _jobs(pairs: Sequence[tuple[LazyTensor, LazyTensor]], found: Sequence[Distance]) -> Iterator[Job]:
    one_at_a_time = threading.Lock()
    for (a, b), distance in zip(pairs, found, strict=True):
        count = a.spec.count
        if getattr(a.source, "piecewise", False) and getattr(b.source, "piecewise", False):
            for first in range(0, count, _ELEMENTS):
                last = min(first + _ELEMENTS, count)
                nbytes = a.dtype.nbytes(last) - a.dtype.nbytes(first) + b.dtype.nbytes(last) - b.dtype.nbytes(first)
                yield nbytes, partial(_measure, a, b, first, last, distance)
        else:
            yield a.nbytes + b.nbytes, partial(_measure_all, a, b, distance, one_at_a_time)


def _measure_all(a: LazyTensor, b: LazyTensor, distance: Distance, one_at_a_time: threading.Lock) -> None:
    count = a.spec.count
    with one_at_a_time:
        for first in range(0, count, _MADE_ELEMENTS):
            _measure(a, b, first, min(first + _MADE_ELEMENTS, count), distance)


def _measure(a: LazyTensor, b: LazyTensor, first: int, last: int, distance: Distance) -> None:
    distance.add(_elements(a, first, last), _elements(b, first, last), first)


def _elements(tensor: LazyTensor, first: int, last: int) -> Array:
    dtype = tensor.dtype
    little = DType(dtype.name, dtype.bits, dtype.numpy, dtype.stored, dtype.tail)  # its bytes are, whatever the array was
    return as_array(tensor.source.read(dtype.nbytes(first), dtype.nbytes(last)), 0, TensorSpec(little, (last - first,)))

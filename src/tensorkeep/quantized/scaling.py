"""Scaling: integers that stand for real numbers, by a scale and a zero for all of them or for each slice along one axis."""

import math
from typing import Any

import msgspec
import numpy as np

Array = np.ndarray[Any, Any]


class Scaling(msgspec.Struct, gc=False, eq=False):
    """What the integers of a tensor stand for: `scale * (integer - zero)`.

    Attributes:
        scales: float32, one, or one for each slice.
        zeros: int64, as many.
        axis: along which the slices lie, where there are several.
    """

    scales: Array
    zeros: Array
    axis: int = 0

    def floats(self, integers: Array, shape: tuple[int, ...], first: int) -> Array:
        """Float32 of some elements.

        Args:
            integers: flat.
            shape: of the whole tensor.
            first: which element of the whole, in C order, the first one is.
        """
        scales, zeros = self.scales, self.zeros
        if scales.size > 1:
            inner = math.prod(shape[self.axis + 1 :])
            which = np.arange(first, first + integers.size) // inner % scales.size
            scales, zeros = scales[which], zeros[which]
        numbers: Array = (integers.astype(np.int64) - zeros).astype(np.float32)
        numbers *= scales
        return numbers


class Affine(msgspec.Struct, gc=False, eq=False):
    """What the integers of a tensor stand for: `scale * integer + minimum`, in double precision, as TensorFlow.js undoes it.

    Attributes:
        whole: whether what comes out is rounded to whole numbers, halves upwards.
    """

    scale: float
    minimum: float
    whole: bool = False

    def floats(self, integers: Array, shape: tuple[int, ...], first: int) -> Array:
        """Float32 of some elements; for `shape` and `first` see `Scaling`."""
        numbers = integers.astype(np.float64) * self.scale + self.minimum
        rounded: Array = (np.floor(numbers + 0.5) if self.whole else numbers).astype(np.float32)
        return rounded

"""Means: of arrays of floating-point numbers, as if nothing was rounded on the way, and rounded once.

A sum is kept in two float64 of which the second has what the first has lost. Where two do not hold it, or do not tell the last bit of the
mean for sure, which is rare, exact fractions do.
Source: O. Møller, "Quasi double-precision in floating point addition" (1965); T. J. Dekker, "A floating-point technique for extending the
available precision" (1971); rounding to odd: S. Boldo and G. Melquiond, "Emulation of FMA and correctly rounded sums" (2008).
"""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, Final

import numpy as np

from tensorkeep.tensors import Array

_BLOCK: Final = 1 << 14  # numbers at once, which stay in the processor's cache
_SETTLED: Final = 1 << 16  # likewise, by fractions
_SPLIT: Final = float(2**27 + 1)
_NEARLY: Final = 1 + 2.0**-30
_LARGE: Final = 2.0**990  # from here on, a part of a product may overflow
_SMALL: Final = 2.0**-900  # and below this, vanish


class Sum:
    """The sum of arrays of one shape.

    Args:
        count: how many numbers each has.
    """

    def __init__(self, count: int) -> None:
        self._added = 0
        self._total, self._lost = np.zeros(count), np.zeros(count)
        self._finite, self._unsure = np.ones(count, bool), np.zeros(count, bool)

    def add(self, numbers: Array) -> None:
        """Add one array, of any type that float64 holds."""
        with np.errstate(all="ignore"):
            for block in self._blocks():
                wide = numbers[block].astype(np.float64)
                self._finite[block] &= np.isfinite(wide)
                if not self._added:
                    self._total[block] = wide
                    continue
                self._total[block], lost = _sum(self._total[block], wide)
                self._lost[block], more = _sum(self._lost[block], lost)
                self._unsure[block] |= more != 0
        self._added += 1

    def mean(self, again: Callable[[], Iterable[Array]], *, odd: bool) -> Array:
        """The mean of all, and the end of this sum.

        Args:
            again: gives the same arrays once more, for numbers of which more must be known.
            odd: where the mean lies between two float64, give the odd one instead of the nearest: what rounds it once more, to a narrower
                type, gets what it would of the exact mean.
        """
        with np.errstate(all="ignore"):
            for block in self._blocks():
                total, lost = _sum(self._total[block], self._lost[block])
                mean, unsure = _divided(total, lost, float(self._added), odd=odd)
                as_it_is = ~self._finite[block] | (total == 0)  # an infinity has lost nothing; and zeros keep their sign
                self._total[block] = np.where(as_it_is, self._total[block], mean)
                self._unsure[block] |= unsure
        (places,) = np.nonzero(self._unsure & self._finite)
        for start in range(0, len(places), _SETTLED):
            some = places[start : start + _SETTLED]
            columns = zip(*(numbers[some].astype(np.float64).tolist() for numbers in again()), strict=True)
            for place, column in zip(some.tolist(), columns, strict=True):
                exact = sum(map(Fraction, column), Fraction(0)) / self._added
                self._total[place] = _odd(exact) if odd else float(exact)
        return self._total

    def _blocks(self) -> Iterator[slice]:
        return (slice(start, start + _BLOCK) for start in range(0, len(self._total), _BLOCK))


def _sum(one: Array, other: Array) -> tuple[Array, Array]:
    """The rounded sum, and what rounding lost, exactly."""
    summed = one + other
    back = summed - one
    return summed, (one - (summed - back)) + (other - back)


def _product(one: Array, other: float) -> tuple[Array, Array]:
    """The rounded product, and what rounding lost, exactly."""
    product = one * other
    far = one * _SPLIT
    high = far - (far - one)
    return product, (high * other - product) + (one - high) * other


def _divided(total: Array, lost: Array, count: float, *, odd: bool) -> tuple[Array, Any]:
    """A sum of two, divided; and where that is not for sure. `count` has no more than 26 bits."""
    first = total / count
    product, beside = _product(first, count)
    left, less = _sum((total - product) - beside, lost)
    second = left / count
    mean, rest = _sum(first, second)
    product, beside = _product(second, count)
    rounded = (product != left) | (beside != 0) | (less != 0)
    size = np.abs(total)
    unsure = rounded & ((rest == 0) | (mean + rest * _NEARLY != mean))  # a tie, or close to one
    unsure |= ~(size < _LARGE) | ((size < _SMALL) & (size != 0))
    if odd:
        bits = mean.view(np.int64)
        bits += np.where((rest != 0) & (bits & 1 == 0), np.where((rest > 0) == (mean > 0), 1, -1), 0)
    return mean, unsure


def _odd(exact: Fraction) -> float:
    """The float64 itself, or the odd one of the two beside it."""
    near = float(exact)
    if Fraction(near) == exact or np.float64(near).view(np.int64) & 1:
        return near
    return float(np.nextafter(near, np.inf if Fraction(near) < exact else -np.inf))

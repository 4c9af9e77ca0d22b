"""Boxes: parts of arrays, as runs of bytes and as ranges along each axis; and whether boxes tile a larger one.

An array is looked at in bytes: its last axis has the bytes of a row, so that a box is always a box of bytes.
Pure: nothing is read here.
"""

import math
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tensorkeep.dtypes import DType

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""Where it begins and how long it is, along each axis."""

_PRIME: Final = (1 << 127) - 1


def in_bytes(dtype: DType, lengths: Sequence[int]) -> tuple[int, ...] | None:
    """Lengths, or an offset, along the axes of an array, the last one in bytes; None where that ends inside of a byte."""
    if not lengths:
        return (dtype.nbytes(1),)
    bits = lengths[-1] * dtype.bits
    return None if bits % 8 else (*lengths[:-1], bits // 8)


def tile(shape: Sequence[int], boxes: Iterable[Box]) -> bool:
    """Whether boxes, each inside of the shape and not empty, cover it exactly: no hole, and nothing twice.

    Each coordinate of each axis gets a secret random number, and a box the product of its differences. Of a tiling they add up to the
    product of the whole; of anything else they do with a probability under 2^-120, whoever chose the boxes: the sum of the products is a
    polynomial in those numbers, of a degree of at most the rank, that is zero only for a tiling (the lemma of Schwartz and Zippel). So it
    takes a step for each box, where comparing each with each would take a square of them.
    """
    numbers: list[dict[int, int]] = [{} for _ in shape]

    def extent(axis: int, start: int, stop: int) -> int:
        known = numbers[axis]
        for at in (start, stop):
            if at not in known:
                known[at] = secrets.randbelow(_PRIME)
        return known[stop] - known[start]

    def weight(offset: Sequence[int], lengths: Sequence[int]) -> int:
        product = 1
        for axis, (start, length) in enumerate(zip(offset, lengths, strict=True)):
            product = product * extent(axis, start, start + length) % _PRIME
        return product

    whole = weight((0,) * len(shape), shape)
    return (sum(weight(offset, lengths) for offset, lengths in boxes) - whole) % _PRIME == 0


def position(shape: Sequence[int], offset: Sequence[int], lengths: Sequence[int]) -> int:
    """Where a box begins in an array of that shape, if its bytes lie in one run there; -1 where they do not."""
    rank = len(shape)
    first = next((axis for axis in range(rank) if lengths[axis] != 1), rank)
    if any(lengths[axis] != shape[axis] for axis in range(first + 1, rank)):
        return -1
    at = 0
    for length, start in zip(shape, offset, strict=True):
        at = at * length + start
    return at


def boxes_of(shape: Sequence[int], start: int, stop: int) -> Iterator[tuple[Box, int]]:
    """A run of bytes of an array as boxes, each of which lies in one run, in order; with the position of each in the run.

    There are at most two for each axis, and one.
    """
    if start >= stop:
        return
    rank = len(shape)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(rank)]
    at = start
    while at < stop:
        # The longest box that begins here: along the outermost axis at whose boundary we stand and of which a whole step fits.
        axis = next(axis for axis in range(rank) if at % strides[axis] == 0 and at + strides[axis] <= stop)
        inner = at // strides[axis] % shape[axis]
        count = min(shape[axis] - inner, (stop - at) // strides[axis])
        offset = tuple(at // strides[other] % shape[other] if other <= axis else 0 for other in range(rank))
        lengths = tuple(1 if other < axis else count if other == axis else shape[other] for other in range(rank))
        yield (offset, lengths), at - start
        at += count * strides[axis]


def crossing(one: Box, other: Box) -> Box | None:
    """What two boxes have in common; None if that is nothing."""
    starts = tuple(map(max, one[0], other[0]))
    stops = tuple(min(a + n, b + m) for a, n, b, m in zip(*one, *other, strict=True))
    lengths = tuple(stop - start for start, stop in zip(starts, stops, strict=True))
    return (starts, lengths) if min(lengths, default=1) > 0 else None


def moved(box: Box, by: Sequence[int], sign: int = 1) -> Box:
    """A box elsewhere."""
    return tuple(start + sign * step for start, step in zip(box[0], by, strict=True)), box[1]


def slices(box: Box) -> tuple[slice, ...]:
    """The box as an index of an array."""
    return tuple(slice(start, start + length) for start, length in zip(*box, strict=True))


def corners(shape: tuple[int, ...], box: Box) -> tuple[int, int]:
    """The positions of the first and the last byte of a box in an array."""
    first = last = 0
    for length, start, count in zip(shape, *box, strict=True):
        first, last = first * length + start, last * length + start + count - 1
    return first, last

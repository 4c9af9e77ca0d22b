"""Delta: what changed since the same chunk of a keyframe, in planes.

Items become integers in the order of the numbers that they stand for: of a sign and a magnitude, all bits but the sign are flipped where
the sign is set. The difference of two such integers, modulo 2^bits, is small where the numbers are close; zigzag makes it a small
unsigned one: 0, -1, 1, -2 become 0, 1, 2, 3.

A network's weights all move by about the same amount, whatever their own size, so differences are large where the base is small. They are
sorted into classes by the size of the base, which the reader has too, and each class is a section with planes and a rotation of its own.

The payload is: 1 byte: log2 of an item's bytes in bits 0 and 1, bit 2 set for signed magnitudes, bit 3 zero, in bits 4 to 7 the number of
bounds; each bound, 2 bytes little-endian, falling; a section (`planes.py`) for each class (`classes.py`); the bytes behind the last whole
item of the chunk; a seal (`seal.py`).

Source: docs/store-format.md, section "Codecs"
"""

import struct
from itertools import pairwise
from typing import Final

import numpy as np

from tensorkeep.store.codecs import planes
from tensorkeep.store.codecs.classes import Classes, sizes_of
from tensorkeep.store.codecs.kinds import Kind
from tensorkeep.store.codecs.runs import Cursor
from tensorkeep.store.codecs.scratch import Array, scratch
from tensorkeep.store.codecs.seal import Sealed

SIGNED_MAGNITUDE: Final = 1 << 2
_UNKNOWN: Final = 1 << 3
_MOST_BOUNDS: Final = 15
_SAMPLE_ITEMS: Final = 4096
_APART: Final = 0.7  # bits: classes whose differences are closer in size are one
_LEAST_SHARE: Final = 0.08  # of a sample: so few items are no class; a small one costs as much time as a large one
_LEAST_SHARE_THOROUGH: Final = 0.02


def encode(chunk: memoryview, base: memoryview, kind: Kind, *, thorough: bool = False) -> bytes | None:
    """The payload of what changed, or None where the two chunks are not of one size."""
    if len(chunk) != len(base):
        return None
    theirs, _ = planes.items_of(base, kind.width)
    ours, tail = planes.items_of(chunk, kind.width)
    changed = scratch("changed", ours.dtype, ours.size)
    if kind.signed_magnitude:
        _order(ours, into=changed)
        np.subtract(changed, _ordered(theirs), out=changed)
    else:
        np.subtract(ours, theirs, out=changed)
    _zigzag(changed)
    bounds, rotations = _classes(theirs, changed, kind, _LEAST_SHARE_THOROUGH if thorough else _LEAST_SHARE)
    head = kind.width.bit_length() - 1 | (SIGNED_MAGNITUDE if kind.signed_magnitude else 0) | len(bounds) << 4
    sealed = Sealed(bytes([head]) + struct.pack(f"<{len(bounds)}H", *bounds))
    classes = Classes(theirs, bounds)
    made = classes.sort(changed)
    for (start, stop), rotation in zip(pairwise(classes.starts), rotations, strict=True):
        sealed.add(planes.section(made[start:stop], rotation, thorough=thorough))
        sealed.settle()
    return sealed.finish(tail)


def decode(payload: memoryview, base: memoryview, into: memoryview) -> None:
    """Add what changed to the base.

    Raises:
        ValueError: the payload is malformed, or the base is not of the chunk's size; `into` may have been written to.
    """
    if len(base) != len(into):
        raise ValueError(f"a delta of {len(into):,} bytes has a base of {len(base):,}")
    cursor = Cursor(payload)
    head = cursor.take(1)[0]
    width = 1 << (head & 3)
    bounds = struct.unpack(f"<{head >> 4}H", cursor.take(head >> 4 << 1))
    if head & _UNKNOWN or (bounds and width == 1) or any(first <= second for first, second in pairwise(bounds)):
        raise ValueError("the classes of a delta are not those of version 1")
    items, tail = planes.items_of(into, width)
    theirs, _ = planes.items_of(base, width)
    classes = Classes(theirs, bounds)
    made = scratch("sorted", items.dtype, items.size) if bounds else items
    for start, stop in pairwise(classes.starts):
        planes.merge(cursor, made[start:stop])
    planes.finish(cursor, tail)
    if bounds:
        classes.unsort(made, items)
    _unzigzag(items)
    if head & SIGNED_MAGNITUDE:
        np.add(items, _ordered(theirs), out=items)
        _order(items, into=items)
    else:
        np.add(items, theirs, out=items)


def _classes(base: Array, changed: Array, kind: Kind, least: float) -> tuple[tuple[int, ...], list[int]]:
    """The bounds of the classes, and the rotation of each: from a sample. A bound stands where an exponent begins."""
    step = max(1, changed.size // _SAMPLE_ITEMS)
    bits = np.log2(changed[::step].astype(np.float64) + 1)
    if kind.width == 1 or not len(bits):
        return (), [0]
    if not kind.exponent_bits or changed.size < _SAMPLE_ITEMS:
        return (), [_rotation(float(bits.mean()), kind.width)]
    sampled = np.ascontiguousarray(base[::step])
    exponents = sizes_of(sampled, np.empty(len(bits), np.uint16)) >> (16 - kind.exponent_bits)
    counts, sums = np.bincount(exponents), np.bincount(exponents, weights=bits)
    bounds: list[int] = []
    rotations: list[int] = []
    count = total = 0.0
    last = 0
    for exponent in reversed(np.flatnonzero(counts).tolist()):
        apart = count and abs(total / count - sums[exponent] / counts[exponent]) > _APART
        if apart and min(count, counts[: exponent + 1].sum()) > least * len(bits) and len(bounds) < _MOST_BOUNDS:
            bounds.append(last << (16 - kind.exponent_bits))
            rotations.append(_rotation(total / count, kind.width))
            count = total = 0.0
        count, total, last = count + counts[exponent], total + sums[exponent], exponent
    return tuple(bounds), [*rotations, _rotation(total / count, kind.width)]


def _rotation(bits: float, width: int) -> int:
    """By how many bits to rotate differences of so many bits in the mean, so that no plane is almost zeros with a rest that Huffman's
    whole bits do not fit: the next plane then has the bits that are noise, and what was rotated out of the first."""
    entropy = bits + 2.1  # of numbers that are normal or exponential, in zigzag
    if not 6.3 < entropy < 8 * width - 2:
        return 0
    above = (entropy - 6.3) % 8
    return 5 if above < 0.9 else 4 if above < 1.9 else 3 if above < 3.1 else 0


def _ordered(base: Array) -> Array:
    ordered = scratch("ordered", base.dtype, base.size)
    _order(base, into=ordered)
    return ordered


def _order(items: Array, *, into: Array) -> None:
    """Signed magnitudes into integers of the same order, and back: it undoes itself."""
    signs = _signs(items)
    np.bitwise_and(signs, (1 << 8 * items.itemsize - 1) - 1, out=signs)
    np.bitwise_xor(items, signs, out=into)


def _zigzag(items: Array) -> None:
    signs = _signs(items)
    np.add(items, items, out=items)
    np.bitwise_xor(items, signs, out=items)


def _unzigzag(items: Array) -> None:
    low = scratch("signs", items.dtype, items.size)
    np.bitwise_and(items, 1, out=low)
    np.negative(_signed(low), out=_signed(low))
    np.right_shift(items, 1, out=items)
    np.bitwise_xor(items, low, out=items)


def _signs(items: Array) -> Array:
    """All bits of an item set where its first bit is."""
    signs = scratch("signs", items.dtype, items.size)
    np.right_shift(_signed(items), 8 * items.itemsize - 1, out=_signed(signs))
    return signs


def _signed(items: Array) -> Array:
    return items.view(np.dtype(f"<i{items.itemsize}"))

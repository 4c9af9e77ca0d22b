"""Planes: items cut into their bytes, the bytes of one place together, so that the few that tell something are coded alone.

A section stands for a known number of items: by how many bits each was rotated left, 1 byte; then a run (`runs.py`) for each of their
bytes, the most significant first. The payload is: log2 of an item's bytes, 1 byte; a section of all whole items of the chunk; the bytes
behind the last whole item as they are; and a seal (`seal.py`).

Of a float rotated by one bit the first byte is the exponent alone, with nothing of the sign, which is noise.

Source: docs/store-format.md, section "Codecs"
"""

from typing import Any, Final

import numpy as np

from tensorkeep.store.codecs import runs
from tensorkeep.store.codecs.runs import Cursor, Parts
from tensorkeep.store.codecs.scratch import Array, scratch
from tensorkeep.store.codecs.seal import SEAL_BYTES, Sealed

UNSIGNED: Final = {width: np.dtype(f"<u{width}") for width in (1, 2, 4, 8)}


def encode(chunk: memoryview, width: int, rotation: int, *, thorough: bool = False) -> bytes:
    """The payload of a chunk.

    Args:
        width: bytes of an item.
        rotation: bits.
    """
    items, tail = items_of(chunk, width)
    sealed = Sealed(bytes([width.bit_length() - 1]))
    sealed.add(section(items, rotation, thorough=thorough))
    return sealed.finish(tail)


def decode(payload: memoryview, into: memoryview) -> None:
    """Merge the planes of a payload into a chunk.

    Raises:
        ValueError: the payload is malformed; `into` may have been written to.
    """
    cursor = Cursor(payload)
    log2 = cursor.take(1)[0]
    if log2 > 3:
        raise ValueError(f"planes of items of 2^{log2} bytes; 8 are the most")
    items, tail = items_of(into, 1 << log2)
    merge(cursor, items)
    finish(cursor, tail)


def finish(cursor: Cursor, tail: memoryview) -> None:
    """Copy what is behind the last section, which must be just the tail and a seal. Raises ValueError where it is not."""
    if len(cursor.payload) - cursor.position != len(tail) + SEAL_BYTES:
        raise ValueError(f"the payload does not end with the {len(tail)} bytes behind the last item, and a seal")
    tail[:] = cursor.take(len(tail))


def items_of(data: memoryview, width: int) -> tuple[Array, memoryview]:
    """The whole items of some bytes, as unsigned integers over the same memory, and what is left behind them."""
    whole = len(data) - len(data) % width
    return np.frombuffer(data[:whole], UNSIGNED[width]), data[whole:]


def section(items: Array, rotation: int, *, thorough: bool = False) -> Parts:
    """The section of some items. Its parts are scratch, or the items themselves: join them before the next section is made."""
    if rotation:
        items = _rotate(items, rotation, out=scratch("items", items.dtype, items.size))
    parts: Parts = [bytes([rotation])]
    for place in reversed(range(items.itemsize)):
        parts += runs.encode(_plane(items, place), thorough=thorough)
    return parts


def merge(cursor: Cursor, into: Array) -> None:
    """Read a section into all items of `into`. Raises ValueError where it is malformed."""
    bits = 8 * into.itemsize
    rotation = cursor.take(1)[0]
    if rotation >= bits:
        raise ValueError(f"items of {bits} bits rotated by {rotation}")
    for number in range(into.itemsize):
        plane = runs.decode(cursor, into.size)
        if number == 0:
            into[...] = plane
        else:
            np.multiply(into, 256, out=into)
            np.add(into, plane, out=into)
    if rotation:
        _rotate(into, bits - rotation, out=into)


def _rotate(items: Array, bits: int, *, out: Array) -> Array:
    """Rotate each item left. NumPy multiplies two to ten times as fast as it shifts left."""
    low: Any = np.right_shift(items, 8 * items.itemsize - bits, out=scratch("rotated", items.dtype, items.size))
    np.multiply(items, items.dtype.type(1 << bits), out=out)
    np.bitwise_or(out, low, out=out)
    return out


def _plane(items: Array, place: int) -> Array:
    """The bytes of all items at one place; 0 is the least significant."""
    if items.itemsize == 1:
        return items
    if place:
        items = np.right_shift(items, 8 * place, out=scratch("shifted", items.dtype, items.size))
    plane = scratch(f"plane{place}", np.uint8, items.size)
    np.copyto(plane, items, casting="unsafe")
    return plane

"""Runs: how one plane of bytes is kept, by what a sample of it gains.

A run is how it is kept, 1 byte; the length of its body, 4 bytes little-endian; its body:

- 0 raw: the bytes themselves.
- 1 constant: the one byte that all of them are.
- 2 frame: one Zstandard frame.
- 3 sparse: the byte that most of them are; a run of one bit for each, set where it is another (the first in the lowest bit of the first
  byte, the last byte filled up with zeros); a run of those others. Neither of the two is sparse itself.

How many bytes a run stands for is known before it is read.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from tensorkeep.store.codecs.entropy import compressed, decompressed
from tensorkeep.store.codecs.scratch import Array, scratch

RAW: Final = 0
CONSTANT: Final = 1
FRAME: Final = 2
SPARSE: Final = 3

_HEAD: Final = struct.Struct("<BI")
_SAMPLE_BYTES: Final = 8 << 10  # of a plane, in pieces
_PIECES: Final = 4
_WHOLE_BYTES: Final = 64 << 10  # of a plane that is coded at once instead
_LEAST_GAIN: Final = 0.05  # of a plane: what gains less is not worth the time of reading it back
_LEAST_BYTES: Final = 48  # a frame of fewer gains nothing
_FEW_BELOW: Final = 1 / 3  # of the plane: where a Huffman code leaves less, something else may leave less still
_SPARSE_FROM: Final = 0.6  # of a sample that are one byte: a Huffman code takes a whole bit for each, which is too much for these

Parts = list["bytes | Array"]
"""What a payload is put together from. Arrays are the bodies of raw runs, of which each bit is a bit of the chunk."""


class Cursor:
    """A payload that is read from its start; it never gives more than it has."""

    def __init__(self, payload: memoryview) -> None:
        self.payload, self.position = payload, 0

    def take(self, nbytes: int) -> memoryview:
        """The next bytes. Raises ValueError where fewer are left."""
        start, self.position = self.position, self.position + nbytes
        if self.position > len(self.payload):
            raise ValueError(f"the payload is cut off: {nbytes:,} bytes wanted, {len(self.payload) - start:,} left")
        return self.payload[start : self.position]


def encode(plane: Array, *, thorough: bool = False) -> Parts:
    """The run of some bytes. Its parts may be `plane` itself: join them before that changes."""
    how, body = _coded(plane, thorough, may_be_sparse=True)
    return [_HEAD.pack(how, _nbytes(body)), *body]


def decode(cursor: Cursor, count: int, *, may_be_sparse: bool = True) -> Any:
    """What a run stands for: an array of `count` bytes, or the one number that all of them are.

    Raises:
        ValueError: the run is malformed.
    """
    how, nbytes = _HEAD.unpack(cursor.take(_HEAD.size))
    body = cursor.take(nbytes)
    if how == RAW and nbytes == count:
        return np.frombuffer(body, np.uint8)
    if how == CONSTANT and nbytes == 1:
        return body[0]
    if how == FRAME:
        return np.frombuffer(decompressed(body, count), np.uint8)
    if how == SPARSE and may_be_sparse:
        return _filled(Cursor(body), count)
    raise ValueError(f"a run is kept in an unknown way, {how}" if how > SPARSE else f"a run of {count:,} bytes is not as it should be")


def told(cursor: Cursor) -> Iterator[memoryview]:
    """A run but for the body of a raw one. Raises ValueError where it is cut off."""
    head = cursor.take(_HEAD.size)
    how, nbytes = _HEAD.unpack(head)
    body = cursor.take(nbytes)
    yield head
    if how != RAW:
        yield body


def _filled(cursor: Cursor, count: int) -> Array:
    filler = cursor.take(1)[0]
    packed = decode(cursor, (count + 7) // 8, may_be_sparse=False)
    bits = np.full((count + 7) // 8, packed, np.uint8) if isinstance(packed, int) else packed
    where = np.flatnonzero(np.unpackbits(bits, count=count, bitorder="little").view(np.bool_))
    others = decode(cursor, len(where), may_be_sparse=False)
    if cursor.position != len(cursor.payload):
        raise ValueError("a sparse run is longer than what is in it")
    plane = np.full(count, filler, np.uint8)
    plane[where] = others
    return plane


def _coded(plane: Array, thorough: bool, *, may_be_sparse: bool) -> tuple[int, Parts]:
    if plane.size and plane[0] == plane[-1] and bool((plane == plane[0]).all()):
        return CONSTANT, [bytes(plane[:1])]
    if plane.size < _LEAST_BYTES:
        return RAW, [plane]
    sample = plane if plane.size <= _WHOLE_BYTES else _sample(plane)
    frame = compressed(sample, "huffman")
    gained = len(frame) / sample.size
    how = "huffman"
    if thorough or gained < _FEW_BELOW:
        few = sample if sample.size <= _SAMPLE_BYTES else _sample(plane)
        if may_be_sparse and (most := _most(few)) is not None and _nbytes(_sparse(few, most, False)) < gained * few.size:
            return SPARSE, _sparse(plane, most, thorough)
        if len(compressed(few, "matches")) < 0.97 * gained * few.size:
            how = "thorough" if thorough else "matches"
    if not thorough and gained > 1 - _LEAST_GAIN:
        return RAW, [plane]
    if sample is not plane or how != "huffman":
        frame = compressed(plane, how)
    return (FRAME, [frame]) if len(frame) < plane.size else (RAW, [plane])


def _most(sample: Array) -> int | None:
    """The byte that most of a sample are, or that all are but one other; None where there is none."""
    counts = np.bincount(sample, minlength=256)
    most = int(counts.argmax())
    return most if counts[most] >= _SPARSE_FROM * sample.size or np.count_nonzero(counts) <= 2 else None


def _sparse(plane: Array, most: int, thorough: bool) -> Parts:
    others = plane != most
    parts: Parts = [bytes([most])]
    for inner in (np.packbits(others, bitorder="little"), plane[np.flatnonzero(others)]):
        how, body = _coded(inner, thorough, may_be_sparse=False)
        parts += [_HEAD.pack(how, _nbytes(body)), *(bytes(part) for part in body)]
    return parts


def _nbytes(parts: Parts) -> int:
    return sum(map(len, parts))


def _sample(plane: Array) -> Array:
    piece, step = _SAMPLE_BYTES // _PIECES, plane.size // _PIECES
    sample = scratch("sample", np.uint8, _SAMPLE_BYTES)
    for number in range(_PIECES):
        sample[number * piece : (number + 1) * piece] = plane[number * step : number * step + piece]
    return sample

"""Zarr's chunks: an array that lies in blocks, each packed by itself, is put together where it is read.

A read unpacks the blocks that cross its rows, and goes on in them where the next read begins: a walk through the array costs one pass,
and a window of each block in memory. What no chunk holds is the fill value.

Lives here: chunks, shards, codecs of bytes. Lives elsewhere: the metadata (zarr_metadata).
"""

import math
import threading
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from tensorkeep import dtypes
from tensorkeep.errors import FormatError
from tensorkeep.formats.zarr_metadata import ArrayMetadata, Shards
from tensorkeep.limits import Limits
from tensorkeep.tensors import Array, LazyTensor, as_bytes
from tensorkeep.wire import blosc
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.crc32c import checksum, crc32c
from tensorkeep.wire.extent import Extent, Opened
from tensorkeep.wire.inflate import InflatedFile
from tensorkeep.wire.sources import Made, run_of

_WIDE: Final = 16  # times that a row of a chunk may be longer than one of the array ...
_WIDE_BYTES: Final = 16 << 20  # ... or so many bytes
_WHOLE_BYTES: Final = 256 << 20  # of a chunk that is unpacked whole: its axes are turned, or Blosc packed it
_STREAMS: Final = 64  # blocks beside each other that are unpacked as reads go on; each takes up to 3 MiB
_BAND_BYTES: Final = 256 << 20  # of more than these, which are unpacked together
_GRANULE_BYTES: Final = 32 << 20
_ABSENT: Final = (1 << 64) - 1

Coordinates = tuple[int, ...]


class _Block(NamedTuple):
    """One packed block, and the place of its first element."""

    at: Coordinates
    data: Extent


def array_of(metadata: ArrayMetadata, chunks: Mapping[str, Extent], name: str, *, limits: Limits, verify: bool) -> LazyTensor:
    """The array whose chunks these are, by the keys that they have below it. Other keys are passed over.

    Raises:
        FormatError: a chunk is no chunk of its grid, or a row of it is out of all proportion.
    """
    spec = metadata.spec
    found = [_Block(at, data) for key, data in chunks.items() if (at := _coordinates(metadata, key)) is not None]
    inner = metadata.chunk if metadata.shards is None else metadata.shards.chunk
    item = spec.dtype.bits // 8
    wide, row = math.prod(inner[1:]) * item, math.prod(spec.shape[1:]) * item
    if wide > max(_WIDE_BYTES, _WIDE * row):
        file = found[0].data.name if found else name
        raise FormatError(file, f"{name}: chunks of {list(inner)!r:.100} for the shape {list(spec.shape)!r:.100}")
    plain = not metadata.packing.steps and metadata.shards is None and metadata.order is None and not metadata.swapped
    if plain and inner == spec.shape and len(found) == 1 and found[0].data.nbytes == spec.nbytes:
        return run_of(found[0].data, 0, spec, what=name)
    band = row * (inner[0] if inner else 1)  # who reads whole bands unpacks each block in one go
    make = _Chunked(metadata, found, name, limits=limits, verify=verify).make
    return LazyTensor(spec, Made(spec.nbytes, make, granule=band if band <= _GRANULE_BYTES else 0))


def missing(metadata: ArrayMetadata, chunks: Mapping[str, Extent]) -> int:
    """How many chunks of the grid have no key."""
    wanted = math.prod(-(-length // each) for length, each in zip(metadata.spec.shape, metadata.chunk, strict=True))
    return wanted - sum(_coordinates(metadata, key) is not None for key in chunks)


def _coordinates(metadata: ArrayMetadata, key: str) -> Coordinates | None:
    """The place of the first element of the chunk with a key; None for what is no key of a chunk in the array."""
    rank = len(metadata.spec.shape)
    parts = key.split(metadata.separator) if len(key) < 64 * 21 else []
    if metadata.prefix:
        if parts[:1] != [metadata.prefix]:
            return None
        parts = parts[1:]
    elif rank == 0:
        parts = [] if parts == ["0"] else ["-"]
    if len(parts) != rank or not all(part.isascii() and part.isdigit() and part == str(int(part)) for part in parts if len(part) < 20):
        return None
    if any(len(part) >= 20 for part in parts):
        return None
    at = tuple(int(part) * each for part, each in zip(parts, metadata.chunk, strict=True))
    inside = all(start < length for start, length in zip(at, metadata.spec.shape, strict=True))
    return at if inside else None


class _Chunked:
    """The bytes of an array, made from its blocks. What was unpacked stays open while reads cross it."""

    def __init__(self, metadata: ArrayMetadata, chunks: list[_Block], name: str, *, limits: Limits, verify: bool) -> None:
        self._metadata, self._name, self._verify = metadata, name, verify
        self._by_row: dict[int, list[_Block]] = {}
        for block in chunks:
            self._by_row.setdefault(block.at[0] if block.at else 0, []).append(block)
        self._starts = np.array(sorted(self._by_row), np.int64)
        self._item = metadata.spec.dtype.bits // 8
        self._inner = metadata.chunk if metadata.shards is None else metadata.shards.chunk
        self._bands: dict[int, dict[int, list[_Block]]] = {}  # of the chunks that the last read crossed
        self._open: dict[Coordinates, Extent] = {}
        self._wide: tuple[int, Array] | None = None  # the last band of many blocks
        self._widest = max(_BAND_BYTES, limits.expanded_bytes)
        self._lock = threading.Lock()

    def make(self, start: int, stop: int) -> memoryview:
        spec = self._metadata.spec
        shape = spec.shape or (1,)
        row = math.prod(shape[1:]) * self._item
        first, last = start // row, -(-stop // row)
        into = self._filled((last - first, *shape[1:]))
        with self._lock:
            bands = self._crossing(first, last)
            kept = {block.at for _, blocks in bands for block in blocks}
            self._open = {key: value for key, value in self._open.items() if key in kept}
            for begin, blocks in bands:
                if len(blocks) <= _STREAMS:
                    for block in blocks:
                        self._copy(block, into, first, last)
                else:
                    whole = self._whole_band(begin, blocks)
                    low, high = max(begin, first), min(begin + len(whole), last)
                    into[low - first : high - first] = whole[low - begin : high - begin]
        data = as_bytes(into)[start - first * row : stop - first * row]
        if spec.dtype is dtypes.BOOL and not dtypes.are_bools(data):
            raise FormatError(self._name, "a BOOL byte that is neither 0 nor 1")
        return data

    def _filled(self, shape: tuple[int, ...]) -> Array:
        into = np.empty(shape, np.dtype(f"V{self._item}"))
        into[...] = np.frombuffer(self._metadata.fill, into.dtype)[0]
        return into

    def _crossing(self, first: int, last: int) -> list[tuple[int, list[_Block]]]:
        """The bands that have rows from `first` to `last`: the first row of each, and its blocks."""
        deep, depth = (self._metadata.chunk or (1,))[0], (self._inner or (1,))[0]
        low = int(np.searchsorted(self._starts, first - deep, side="right"))
        high = int(np.searchsorted(self._starts, last, side="left"))
        starts: list[int] = self._starts[low:high].tolist()
        self._bands = {start: self._bands.get(start) or self._bands_of(start) for start in starts}
        return [
            (begin, blocks) for start in starts for begin, blocks in self._bands[start].items() if begin < last and begin + depth > first
        ]

    def _bands_of(self, start: int) -> dict[int, list[_Block]]:
        """The blocks of the chunks that begin in a row, by the row in which they begin themselves."""
        shards = self._metadata.shards
        if shards is None:
            return {start: self._by_row[start]}
        bands: dict[int, list[_Block]] = {}
        for chunk in self._by_row[start]:
            for block in self._of_shard(chunk, shards):
                bands.setdefault(block.at[0] if block.at else 0, []).append(block)
        return bands

    def _whole_band(self, begin: int, blocks: list[_Block]) -> Array:
        """All rows of a band of more blocks than can be kept open."""
        if self._wide is None or self._wide[0] != begin:
            shape = self._metadata.spec.shape
            rows = min(self._inner[0], shape[0] - begin)
            nbytes = rows * math.prod(shape[1:]) * self._item
            if nbytes > self._widest:
                raise FormatError(
                    blocks[0].data.name,
                    f"{self._name}: {len(blocks):,} chunks lie beside each other, {nbytes:,} bytes together; the limit is {self._widest:,}",
                    hint="If you trust it, pass limits=tk.Limits(expanded_bytes=...).",
                )
            self._wide = None
            whole = self._filled((rows, *shape[1:]))
            for block in blocks:
                self._copy(block, whole, begin, begin + rows)
                self._open.clear()
            self._wide = (begin, whole)
        return self._wide[1]

    def _of_shard(self, chunk: _Block, shards: Shards) -> list[_Block]:
        """The blocks in a shard, by its index."""
        grid = tuple(outer // inner for outer, inner in zip(self._metadata.chunk, shards.chunk, strict=True))
        nbytes = 16 * math.prod(grid)
        summed = nbytes + (4 if shards.index_summed else 0)
        data = chunk.data
        if summed > data.nbytes:
            raise FormatError(data.name, f"{self._name}: a shard of {data.nbytes:,} bytes, whose index would take {summed:,}")
        begin = 0 if shards.index_at == "start" else data.nbytes - summed
        index = data.read(begin, begin + nbytes)
        if shards.index_summed and crc32c(index) != int.from_bytes(data.read(begin + nbytes, begin + summed), "little"):
            raise FormatError(data.name, f"{self._name}: damaged: the index of a shard does not have its CRC-32C")
        entries = np.frombuffer(index, "<u8").reshape(-1, 2).tolist()
        blocks = []
        for place, (start, length) in enumerate(entries):
            if start == length == _ABSENT:
                continue
            offsets = np.unravel_index(place, grid) if grid else ()
            at = tuple(base + int(step) * each for base, step, each in zip(chunk.at, offsets, shards.chunk, strict=True))
            if all(first < length_ for first, length_ in zip(at, self._metadata.spec.shape, strict=True)):
                blocks.append(_Block(at, data.part(start, start + length)))
        return blocks

    def _copy(self, block: _Block, into: Array, first: int, last: int) -> None:
        """What rows from `first` to `last` have of a block."""
        shape, inner, at = self._metadata.spec.shape or (1,), self._inner or (1,), block.at or (0,)
        begin, end = max(at[0], first), min(at[0] + inner[0], shape[0], last)
        if begin >= end:
            return
        rows = self._rows(block, begin - at[0], end - at[0])
        lengths = [min(start + each, whole) - start for start, each, whole in zip(at[1:], inner[1:], shape[1:], strict=True)]
        there = tuple(slice(start, start + length) for start, length in zip(at[1:], lengths, strict=True))
        into[(slice(begin - first, end - first), *there)] = rows[(slice(None), *(slice(length) for length in lengths))]

    def _rows(self, block: _Block, begin: int, end: int) -> Array:
        """Rows of a block in C order, little-endian, as opaque elements."""
        inner, item = self._inner or (1,), self._item
        row = math.prod(inner[1:]) * item
        kind: np.dtype[Any] = np.dtype(f"V{item}")
        data = self._unpacked(block)
        order = self._metadata.order
        if order is None:
            rows: Array = np.frombuffer(data.read(begin * row, end * row), kind).reshape(end - begin, *inner[1:])
        else:
            lying = np.frombuffer(data.read(), kind).reshape([inner[axis] for axis in order])
            rows = lying.transpose([order.index(axis) for axis in range(len(order))])[begin:end]
        if self._metadata.swapped:
            numpy = self._metadata.spec.dtype.numpy
            unit = item // 2 if numpy is not None and numpy.kind == "c" else item
            rows = np.ascontiguousarray(rows).view(f">u{unit}").astype(f"<u{unit}").view(kind).reshape(rows.shape)
        return rows

    def _unpacked(self, block: _Block) -> Extent:
        """The bytes of a block, which are made as they are read."""
        if (known := self._open.get(block.at)) is not None:
            return known
        data, steps = block.data, self._metadata.packing.steps
        nbytes = math.prod(self._inner) * self._item
        if (self._metadata.order is not None or "blosc" in steps) and nbytes > _WHOLE_BYTES:
            raise FormatError(
                data.name, f"{self._name}: a chunk of {nbytes:,} bytes that must be unpacked whole; the limit is {_WHOLE_BYTES:,}"
            )
        for place, step in enumerate(steps):
            if step == "crc32c":
                data = _summed(data, self._name, verify=self._verify)
            else:
                made = nbytes + 4 * steps[place + 1 :].count("crc32c")
                budget = Budget(data.name, 0, Limits(expanded_bytes=made))  # the array itself has been counted, and this is a window of it
                if step == "blosc":
                    data = blosc.inflate(data, made, budget)
                else:
                    data = Opened(InflatedFile(data, step, made, budget=budget, name=data.name)).whole()
        if data.nbytes != nbytes:
            raise FormatError(data.name, f"{self._name}: a chunk of {data.nbytes:,} bytes, wanted are {nbytes:,}")
        self._open[block.at] = data
        return data


def _summed(data: Extent, name: str, *, verify: bool) -> Extent:
    """Bytes without the CRC-32C behind them, compared with it."""
    if data.nbytes < 4:
        raise FormatError(data.name, f"{name}: a chunk of {data.nbytes} bytes, whose checksum alone takes 4")
    inside = data.part(0, data.nbytes - 4)
    if verify:
        inside.checksum = checksum(int.from_bytes(data.read(data.nbytes - 4), "little"))
        inside.check()
    return inside

"""Data sets: shape, type and where the bytes are; as a lazy tensor, or why it is none.

Lives here: dataspaces (section IV.A.2.b), fill values (IV.A.2.e and f), layouts (IV.A.2.i), and reading across chunks.
"""

import math
import threading
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tensorkeep import dtypes
from tensorkeep.errors import FormatError
from tensorkeep.tensors import LazyTensor, TensorSpec, as_bytes, spec_of
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.hdf5.chunks import BTREE1, BTREE2, EXTENSIBLE_ARRAY, FIXED_ARRAY, IMPLICIT, SINGLE, Chunk, ChunkIndex, chunks
from tensorkeep.wire.hdf5.datatypes import Datatype, datatype
from tensorkeep.wire.hdf5.file import DATASPACE, DATATYPE, EXTERNAL_FILES, FILL, FILTERS, LAYOUT, OLD_FILL, Block, Hdf5File, Object
from tensorkeep.wire.hdf5.filters import Filter, pipeline, undo, unread
from tensorkeep.wire.sources import Made, run_of

COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = range(4)
_NOTHING: Final = memoryview(b"")
_MOST_CHUNK_BYTES: Final = 64 << 20  # or as many as the file has
_WASTE: Final = 2  # times the data set that its chunks may hold before it counts as made from the file
_MOST_TEXTS: Final = 100_000  # of one data set: they are read when the file is opened


@dataclass(frozen=True, slots=True)
class Shape:
    """A dataspace: lengths now, and at most (None where there is no bound); `lengths` is None for one without elements."""

    lengths: tuple[int, ...] | None
    most: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the bytes are: `kind` is one of compact, contiguous, chunked and virtual."""

    kind: int
    data: memoryview = _NOTHING
    address: int | None = None
    nbytes: int | None = None
    index: int = BTREE1
    lengths: tuple[int, ...] = ()
    settings: tuple[int, ...] = ()
    plain_edges: bool = False  # whether filters spare the chunks that reach over an edge


class LeftOut(Exception):  # no error: the answer to what a data set is
    """A data set that is not read, and why. `danger` says what opening it elsewhere would do beyond reading this file, or ""."""

    def __init__(self, reason: str, danger: str = "") -> None:
        super().__init__(reason)
        self.reason, self.danger = reason, danger


def dataspace(block: Block) -> Shape:
    version, rank = block.version("the dataspace", (1, 2)), block.u8("rank")
    flags, kind = block.u8("flags"), block.u8("kind of dataspace")
    block.skip("reserved", 4 * (version == 1))
    lengths = tuple(block.length("length of an axis") for _ in range(rank))
    limit = (1 << 8 * block.file.length_bytes) - 1
    most = [block.length("largest length") for _ in range(rank)] if flags & 1 else list(lengths)
    bounds = tuple(None if bound == limit else bound for bound in most)
    return Shape(None if version == 2 and kind == 2 else lengths, bounds)


def layout(file: Hdf5File, thing: Object) -> Layout:
    message = thing.first(LAYOUT)
    assert message is not None, "only objects with a layout are data sets"
    block = file.open(message)
    version = block.version("the layout", (1, 2, 3, 4, 5))
    if version < 3:
        return _old_layout(block)
    kind = block.u8("kind of layout")
    if kind == COMPACT:
        return Layout(kind, data=block.raw("data", block.u16("size of the data")))
    if kind == CONTIGUOUS:
        return Layout(kind, address=block.address("data"), nbytes=block.length("size of the data"))
    if kind == VIRTUAL:
        return Layout(kind)
    block.one_of("kind of layout", kind, (CHUNKED,))
    if version == 3:
        rank = block.u8("rank of a chunk")
        address = block.address("tree of chunks")
        return Layout(kind, address=address, lengths=tuple(block.u32("length of a chunk") for _ in range(rank)))
    flags, rank, width = block.u8("flags"), block.u8("rank of a chunk"), block.u8("size of a length")
    block.one_of("size of a length", width, range(1, 9))
    lengths = tuple(block.wide("length of a chunk", width) for _ in range(rank))
    number = block.one_of("kind of index", block.u8("kind of index"), (1, 2, 3, 4, 5))
    index = (SINGLE, IMPLICIT, FIXED_ARRAY, EXTENSIBLE_ARRAY, BTREE2)[number - 1]
    settings: tuple[int, ...] = ()
    if index == SINGLE and flags & 2:
        settings = block.length("size of the chunk"), block.u32("filter mask")
    block.skip("settings of the index", {FIXED_ARRAY: 1, EXTENSIBLE_ARRAY: 5, BTREE2: 6}.get(index, 0))
    address = block.address("index of chunks")
    return Layout(kind, address=address, index=index, lengths=lengths, settings=settings, plain_edges=bool(flags & 1))


def _old_layout(block: Block) -> Layout:
    rank, kind = block.u8("rank"), block.u8("kind of layout")
    block.one_of("kind of layout", kind, (COMPACT, CONTIGUOUS, CHUNKED))
    block.skip("reserved", 5)
    address = None if kind == COMPACT else block.address("data")
    lengths = tuple(block.u32("length") for _ in range(rank))
    if kind == COMPACT:
        return Layout(kind, data=block.raw("data", block.u32("size of the data")))
    return Layout(kind, address=address, lengths=lengths if kind == CHUNKED else ())


def fill_value(file: Hdf5File, thing: Object, nbytes: int) -> bytes:
    """One element of what was never written."""
    value = memoryview(b"")
    if (message := thing.first(FILL)) is not None:
        block = file.open(message)
        version = block.version("the fill value", (1, 2, 3))
        if version == 3:
            defined = bool(block.u8("flags") & 0x20)
        else:
            block.skip("times", 2)
            defined = bool(block.u8("defined")) or version == 1
        if defined and block.left >= 4:
            value = block.raw("fill value", block.u32("size of the fill value"))
    elif (message := thing.first(OLD_FILL)) is not None:
        block = file.open(message)
        value = block.raw("fill value", block.u32("size of the fill value"))
    return bytes(value) if value.nbytes == nbytes else bytes(nbytes)


@dataclass(frozen=True, slots=True)
class Dataset:
    """What the header of a data set says."""

    shape: Shape
    kind: Datatype
    layout: Layout
    filters: tuple[Filter, ...]
    thing: Object


def dataset(file: Hdf5File, thing: Object) -> Dataset:
    """The header of a data set.

    Raises:
        LeftOut: its bytes are elsewhere, or are not read.
        FormatError: it is damaged.
    """
    space, kind = thing.first(DATASPACE), thing.first(DATATYPE)
    if space is None or kind is None:
        raise file.error(f"the data set at byte {thing.address:,} has no {'shape' if space is None else 'type'}")
    shape, element = dataspace(file.open(space)), datatype(file, kind)
    if thing.first(EXTERNAL_FILES) is not None:
        raise LeftOut(
            "its bytes stand in another file (external raw data), which is not opened", "reads other files (HDF5 external raw data)"
        )
    where = layout(file, thing)
    if where.kind == VIRTUAL:
        raise LeftOut(
            "it is put together from other data sets (virtual data set), which are not opened", "reads other files (HDF5 virtual data set)"
        )
    filters = pipeline(file, message) if (message := thing.first(FILTERS)) is not None and where.kind == CHUNKED else ()
    if reason := unread(filters):
        raise LeftOut(reason)
    if filters and where.plain_edges:
        raise LeftOut("compressed but for the chunks at its edges, which is not read")
    if element.unread:
        raise LeftOut(f"{element.unread} are not read")
    return Dataset(shape, element, where, filters, thing)


def tensor(file: Hdf5File, found: Dataset, what: str, *, numpy: "np.dtype[Any] | None" = None) -> LazyTensor:
    """A data set as a lazy tensor.

    Args:
        what: its path, for messages.
        numpy: the type of an element, where the file's says less than its writer does.
    """
    element = numpy or found.kind.numpy
    assert element is not None and found.shape.lengths is not None, "texts of variable length and empty dataspaces are no tensors"
    base, tail = element.subdtype if element.subdtype is not None else (element, ())
    swapped = base.names is None and base.kind in "iufc" and base.byteorder == ">"
    dtype = dtypes.of_numpy(base.newbyteorder("<") if swapped else base)
    if dtype is None:
        raise LeftOut(f"elements of the type {base!s:.100} are not read")
    spec = spec_of(dtype, (*found.shape.lengths, *tail))
    _check_shape(file, spec, what)
    stored = _stored(file, found, spec, what)
    if not swapped or base.itemsize == 1:
        return stored
    swap = _Swapped(stored, base.itemsize // 2 if base.kind == "c" else base.itemsize, base.itemsize)
    return LazyTensor(spec, Made(spec.nbytes, swap.make, extents=(file.extent,), put=swap.put))


def _check_shape(file: Hdf5File, spec: TensorSpec, what: str) -> None:
    if len(spec.shape) > file.limits.rank or spec.nbytes >= 1 << 63:
        raise file.error(f"{what} has the shape {list(spec.shape)!r:.200}, which no array can have")


class _Swapped:
    """Big-endian bytes, turned round."""

    def __init__(self, stored: LazyTensor, part: int, item: int) -> None:
        self._stored, self._part, self._item = stored, part, item

    def make(self, start: int, stop: int) -> memoryview:
        first, last = start // self._item * self._item, -(-stop // self._item) * self._item
        data = np.frombuffer(self._stored.source.read(first, last), np.uint8)
        turned = as_bytes(np.ascontiguousarray(data.reshape(-1, self._part)[:, ::-1]))
        return turned[start - first : stop - first]

    def put(self, into: memoryview) -> None:
        """All bytes: first as they stand, then turned round where they are."""
        source = self._stored.source
        if isinstance(source, Made) and source.put is not None:
            source.put(into)
        else:
            into[:] = source.read(0, into.nbytes)
        np.frombuffer(into, f"u{self._part}").byteswap(inplace=True)


def _stored(file: Hdf5File, found: Dataset, spec: TensorSpec, what: str) -> LazyTensor:
    where = found.layout
    if spec.nbytes == 0:
        return LazyTensor(spec, Made(0, lambda start, stop: b""))
    if where.kind == COMPACT:
        if where.data.nbytes != spec.nbytes:
            raise file.error(f"{what}: {spec} takes {spec.nbytes:,} bytes, {where.data.nbytes:,} are there")
        return LazyTensor(spec, Made(spec.nbytes, lambda start, stop: where.data[start:stop]))
    if where.kind == CONTIGUOUS and where.address is not None:
        if where.nbytes is not None and where.nbytes < spec.nbytes:
            raise file.error(f"{what}: {spec} takes {spec.nbytes:,} bytes, {where.nbytes:,} are there")
        return run_of(file.extent, file.base + where.address, spec, what=what)
    if where.kind == CONTIGUOUS or where.address is None:
        return LazyTensor(spec, Made(spec.nbytes, _Filled(fill_value(file, found.thing, found.kind.nbytes)).make))
    index = _chunk_index(file, found, what)
    source = _Chunked(file, index, found.filters, fill_value(file, found.thing, found.kind.nbytes), what)
    return LazyTensor(spec, Made(spec.nbytes, source.make, extents=(file.extent,), put=source.put))


class _Filled:
    """One element again and again: what was never written."""

    def __init__(self, fill: bytes) -> None:
        self._fill = fill

    def make(self, start: int, stop: int) -> bytes:
        item = len(self._fill)
        first = start // item
        return (self._fill * (-(-stop // item) - first))[start - first * item : stop - first * item]


def _chunk_index(file: Hdf5File, found: Dataset, what: str) -> ChunkIndex:
    shape, item = found.shape.lengths, found.kind.nbytes
    assert shape is not None, "a data set without elements is no tensor"
    lengths = found.layout.lengths
    if len(lengths) != len(shape) + 1 or not shape or 0 in lengths or lengths[-1] != item:
        raise file.error(f"{what}: chunks of {list(lengths)!r:.200} in a data set of {list(shape)!r:.200} with {item:,} bytes an element")
    nbytes = math.prod(lengths)
    if nbytes > max(_MOST_CHUNK_BYTES, file.extent.nbytes):
        raise file.error(f"{what}: a chunk of {nbytes:,} bytes, at most {max(_MOST_CHUNK_BYTES, file.extent.nbytes):,} are read")
    where = found.layout
    return ChunkIndex(where.index, where.address, lengths[:-1], shape, found.shape.most, nbytes, bool(found.filters), where.settings)


class _Chunked:
    """The bytes of a data set in chunks, put together row by row."""

    def __init__(self, file: Hdf5File, index: ChunkIndex, filters: tuple[Filter, ...], fill: bytes, what: str) -> None:
        self._file, self._index, self._filters, self._fill, self._what = file, index, filters, fill, what
        self._chunks: list[Chunk] | None = None
        self._lock = threading.Lock()

    def _found(self) -> list[Chunk]:
        with self._lock:
            if self._chunks is None:
                found = chunks(self._file, self._index)
                held = len(found) * self._index.chunk_nbytes
                if held > _WASTE * math.prod(self._index.shape) * len(self._fill):
                    self._file.budget.spend(held, f"the chunks of {self._what}")
                self._chunks = found
            return self._chunks

    def make(self, start: int, stop: int) -> memoryview:
        """Bytes from `start` to `stop`: whole rows are made, and cut."""
        row = math.prod(self._index.shape[1:]) * len(self._fill)
        first, last = start // row, -(-stop // row)
        made = np.empty((last - first) * row, np.uint8)
        self._rows(made, first, last)
        return memoryview(made)[start - first * row : stop - first * row]

    def put(self, into: memoryview) -> None:
        """All bytes, each chunk read once."""
        self._rows(np.frombuffer(into, np.uint8), 0, self._index.shape[0])

    def _rows(self, memory: Any, first: int, last: int) -> None:
        """Put some rows into memory."""
        made = memory.view(f"V{len(self._fill)}").reshape(last - first, *self._index.shape[1:])
        made[...] = np.frombuffer(self._fill, made.dtype)[0]
        found, each = self._found(), self._index.lengths[0]
        begin = bisect_left(found, first // each, key=lambda chunk: chunk.at[0])
        for chunk in found[begin:]:
            if chunk.at[0] * each >= last:
                break
            self._put(chunk, made, first, last)

    def _put(self, chunk: Chunk, made: Any, first: int, last: int) -> None:
        """Copy what a chunk has of the rows from `first` to `last`."""
        index = self._index
        piece = self._read(chunk).reshape(index.lengths)
        into, outof = [], []
        for axis, (place, each) in enumerate(zip(chunk.at, index.lengths, strict=True)):
            low, high = (first, last) if axis == 0 else (0, index.shape[axis])
            begin, end = max(place * each, low), min((place + 1) * each, high)
            into.append(slice(begin - low, end - low))
            outof.append(slice(begin - place * each, end - place * each))
        made[tuple(into)] = piece[tuple(outof)]

    def _read(self, chunk: Chunk) -> Any:
        file, index = self._file, self._index
        start = file.base + chunk.address
        extent: Extent = file.extent
        if start + chunk.nbytes > extent.nbytes:
            raise FormatError(
                file.name, f"{self._what}: a chunk at bytes {start:,} to {start + chunk.nbytes:,}, {extent.nbytes:,} are there"
            )
        data = undo(extent.read(start, start + chunk.nbytes), self._filters, chunk.mask, index.chunk_nbytes, len(self._fill), file.name)
        return np.frombuffer(data, np.dtype(f"V{len(self._fill)}"))


def text_block(file: Hdf5File, found: Dataset, what: str) -> Block:
    """The references to the texts of a data set, as a block to read them from.

    Raises:
        LeftOut: they are too many.
    """
    assert found.shape.lengths is not None, "an empty dataspace has no texts"
    count = math.prod(found.shape.lengths)
    if count > _MOST_TEXTS:
        raise LeftOut(f"{count:,} texts of variable length; at most {_MOST_TEXTS:,} are read")
    spec = spec_of(dtypes.STANDARD["U8"], (*found.shape.lengths, found.kind.nbytes))
    _check_shape(file, spec, what)
    file.budget.spend(spec.nbytes, what)
    return Block(file, _stored(file, found, spec, what).source.read(0, spec.nbytes), 0)

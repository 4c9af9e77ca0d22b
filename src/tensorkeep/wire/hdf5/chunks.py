"""Chunks: where each piece of a data set lies, in the six kinds of index that HDF5 has had.

Sections III.A (B-trees), III.I.1 (fixed array) and III.I.2 (extensible array) of the specification; the order of chunks in the two
arrays is libhdf5's.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from tensorkeep.wire.hdf5.file import Block, Hdf5File
from tensorkeep.wire.hdf5.heaps import records

BTREE1, SINGLE, IMPLICIT, FIXED_ARRAY, EXTENSIBLE_ARRAY, BTREE2 = range(6)
_MOST_CHUNKS: Final = 500_000  # of one data set: each takes some 300 bytes of memory
_MOST_DEPTH: Final = 32
_PLAIN_RECORDS, _FILTERED_RECORDS = 10, 11  # kinds of B-tree


class Chunk(NamedTuple):
    """One piece.

    Attributes:
        at: its place in the grid of chunks.
        address, nbytes: where it lies, and how many bytes it takes there.
        mask: a bit for each filter that was not applied to it.
    """

    at: tuple[int, ...]
    address: int
    nbytes: int
    mask: int


@dataclass(frozen=True, slots=True)
class ChunkIndex:
    """How the chunks of a data set are found.

    Attributes:
        kind: which index.
        address: of the index; None where nothing was written.
        lengths: of a chunk, along each axis.
        shape, most: of the data set now, and at most (None for an axis without bound).
        chunk_nbytes: before filters.
        filtered: whether there are filters.
        settings: of the array kinds, as the layout message has them; of a single filtered chunk its size and mask.
    """

    kind: int
    address: int | None
    lengths: tuple[int, ...]
    shape: tuple[int, ...]
    most: tuple[int | None, ...]
    chunk_nbytes: int
    filtered: bool
    settings: tuple[int, ...] = ()

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(-(-length // each) for length, each in zip(self.shape, self.lengths, strict=True))


def chunks(file: Hdf5File, index: ChunkIndex) -> list[Chunk]:
    """All chunks that were written, in the order of the grid.

    Raises:
        FormatError: one lies outside of the grid, or two at one place, or they are too many.
    """
    if index.address is None or 0 in index.shape:
        return []
    read = (_btree1, _single, _implicit, _fixed_array, _extensible_array, _btree2)[index.kind]
    grid = index.grid
    found: list[Chunk] = []
    for chunk in read(file, index, index.address):
        if all(place < count for place, count in zip(chunk.at, grid, strict=True)):  # what lies outside was cut off by resizing
            found.append(chunk)
        if len(found) > _MOST_CHUNKS:
            raise file.error(f"a data set of more than {_MOST_CHUNKS:,} chunks")
    found.sort()
    if any(left.at == right.at for left, right in pairwise(found)):
        raise file.error(f"two chunks of a data set stand at the same place, in the index at {index.address:,}")
    return found


def _btree1(file: Hdf5File, index: ChunkIndex, address: int) -> Iterator[Chunk]:
    rank = len(index.shape)
    entry = struct.Struct(f"<II{rank + 1}Q{file.address_bytes}s")  # size, mask, offsets, the element's own, address
    nowhere = (1 << 8 * file.address_bytes) - 1
    met: set[int] = set()
    waiting = [(address, -1)]
    while waiting:
        place, level = waiting.pop()
        if place in met:
            raise file.error("a tree of chunks leads back to itself")
        met.add(place)
        head_bytes = 8 + 2 * file.address_bytes
        head = file.block(place, head_bytes, "tree of chunks")
        head.signature(b"TREE")
        head.one_of("kind of tree", head.u8("kind of tree"), (1,))
        found_level, count = head.u8("level"), head.u16("entries")
        if (level >= 0 and found_level != level) or found_level > _MOST_DEPTH:
            raise head.error(f"a node of level {found_level} in a tree of chunks")
        file.step(count)
        node = file.block(place + head_bytes, count * entry.size, "tree of chunks")
        for nbytes, mask, *offsets, _, packed in entry.iter_unpack(node.whole):
            child = int.from_bytes(packed, "little")
            if child == nowhere:
                continue
            if found_level:
                waiting.append((child, found_level - 1))
                continue
            if any(offset % each for offset, each in zip(offsets, index.lengths, strict=True)):
                raise node.error(f"a chunk at {offsets!r:.100}, which is no place in its grid")
            yield Chunk(tuple(offset // each for offset, each in zip(offsets, index.lengths, strict=True)), child, nbytes, mask)


def _single(file: Hdf5File, index: ChunkIndex, address: int) -> Iterator[Chunk]:
    nbytes, mask = index.settings if index.filtered and index.settings else (index.chunk_nbytes, 0)
    yield Chunk((0,) * len(index.shape), address, nbytes, mask)


def _implicit(file: Hdf5File, index: ChunkIndex, address: int) -> Iterator[Chunk]:
    """One behind the other, without an index."""
    if address + math.prod(index.grid) * index.chunk_nbytes > file.extent.nbytes:
        raise file.error(f"{math.prod(index.grid):,} chunks of {index.chunk_nbytes:,} bytes do not lie in the file")
    for number, place in _places(index, math.inf):
        yield Chunk(place, address + number * index.chunk_nbytes, index.chunk_nbytes, 0)


def _places(index: ChunkIndex, count: float, *, first_axis: int = 0) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Number and place of the chunks of an array, which counts room for all that the data set may grow to.

    Args:
        count: numbers beyond this one are left out.
        first_axis: the axis that varies slowest; the others follow in their order.
    """
    order = [first_axis, *(axis for axis in range(len(index.shape)) if axis != first_axis)]
    most = [length if (bound := index.most[axis]) is None else bound for axis, length in enumerate(index.shape)]
    strides, stride = {}, 1
    for axis in reversed(order):
        strides[axis] = stride
        stride *= max(1, -(-most[axis] // index.lengths[axis]))
    grid = index.grid
    place = [0] * len(grid)
    for _ in range(min(math.prod(grid), _MOST_CHUNKS + 1)):
        number = sum(place[axis] * strides[axis] for axis in range(len(grid)))
        if number >= count:
            return  # they only grow
        yield number, tuple(place)
        for axis in reversed(order):
            place[axis] += 1
            if place[axis] < grid[axis]:
                break
            place[axis] = 0


class _Page:
    """Entries of an array of chunks that lie one behind the other; those that were read last are kept, for numbers only grow."""

    def __init__(self, file: Hdf5File, index: ChunkIndex, entry_bytes: int) -> None:
        self._file, self._index, self._entry_bytes = file, index, entry_bytes
        self._at, self._data = -1, memoryview(b"")

    def chunk(self, at: int, count: int, number: int, place: tuple[int, ...]) -> Chunk | None:
        """The chunk of one entry; None where it was never written.

        Args:
            at, count: where the page begins, and how many entries it has.
            number: which of them.
            place: of the chunk in the grid.
        """
        if at != self._at:
            self._file.step(count)
            nbytes = count * self._entry_bytes
            self._at, self._data = at, self._file.block(at, nbytes, "array of chunks").whole
        width = self._file.address_bytes
        entry = self._data[number * self._entry_bytes : (number + 1) * self._entry_bytes]
        address = int.from_bytes(entry[:width], "little")
        if address == (1 << 8 * width) - 1:
            return None
        if not self._index.filtered:
            return Chunk(place, address, self._index.chunk_nbytes, 0)
        return Chunk(place, address, int.from_bytes(entry[width:-4], "little"), int.from_bytes(entry[-4:], "little"))


def _fixed_array(file: Hdf5File, index: ChunkIndex, address: int) -> Iterator[Chunk]:
    head = file.block(address, 8 + file.length_bytes + file.address_bytes, "fixed array")
    head.signature(b"FAHD")
    head.skip("version and client", 2)
    entry_bytes, page_bits = head.u8("size of an entry"), head.u8("bits of a page")
    count, data_at = head.length("number of entries"), head.address("data block")
    _check_entry(head, index, entry_bytes)
    if data_at is None:
        return
    prefix = 6 + file.address_bytes
    block = file.block(data_at, prefix, "fixed array")
    block.signature(b"FADB")
    page = 1 << min(page_bits, 32)
    pages = -(-count // page) if count > page else 0
    bitmap_bytes = -(-pages // 8)
    bitmap = bytes(file.block(data_at + prefix, bitmap_bytes, "fixed array").raw("pages", bitmap_bytes)) if pages else b""
    entries_at = data_at + prefix + (bitmap_bytes + 4 if pages else 0)
    read = _Page(file, index, entry_bytes)
    page = min(page, count)
    for number, place in _places(index, count):
        which, within = divmod(number, page)
        if pages and not bitmap[which // 8] >> (7 - which % 8) & 1:
            continue  # a page that was never written
        at = entries_at + which * (page * entry_bytes + 4)  # a checksum stands behind each page
        if (found := read.chunk(at, min(page, count - which * page), within, place)) is not None:
            yield found


def _check_entry(block: Block, index: ChunkIndex, entry_bytes: int) -> None:
    least = block.file.address_bytes + (5 if index.filtered else 0)
    if not least <= entry_bytes <= least + 7:
        raise block.error(f"entries of {entry_bytes} bytes in an array of chunks")


def _extensible_array(file: Hdf5File, index: ChunkIndex, address: int) -> Iterator[Chunk]:
    head = file.block(address, 12 + 6 * file.length_bytes + file.address_bytes, "extensible array")
    head.signature(b"EAHD")
    head.skip("version and client", 2)
    entry_bytes, bits, inside = head.u8("size of an entry"), head.u8("bits of a number"), head.u8("entries of the index block")
    least_entries, least_pointers, page_bits = head.u8("entries of a block"), head.u8("pointers of a block"), head.u8("bits of a page")
    head.skip("statistics", 4 * file.length_bytes)
    count = head.length("entries that are set")
    head.length("entries that there is room for")
    top = head.address("index block")
    _check_entry(head, index, entry_bytes)
    powers = all(number and not number & (number - 1) for number in (least_entries, least_pointers))
    if not powers or bits > 64 or page_bits > 32 or bits < least_entries.bit_length() - 1:
        raise head.error("an extensible array whose settings are no powers of two")
    if top is None:
        return
    table = _ArrayTable(file, top, entry_bytes, bits, inside, least_entries, least_pointers, page_bits)
    axis = next((axis for axis, bound in enumerate(index.most) if bound is None), 0)
    read = _Page(file, index, entry_bytes)
    for number, place in _places(index, count, first_axis=axis):
        file.step()
        page = table.find(number)
        if page is not None and (found := read.chunk(*page, place)) is not None:
            yield found


class _ArrayTable:
    """Where the entries of an extensible array stand: first in its index block, then in ever larger blocks."""

    def __init__(
        self, file: Hdf5File, top: int, entry_bytes: int, bits: int, inside: int, least_entries: int, least_pointers: int, page_bits: int
    ) -> None:
        self._file, self._entry_bytes, self._inside, self._least = file, entry_bytes, inside, least_entries
        self._offset_bytes, self._page = (bits + 7) // 8, 1 << page_bits
        supers = bits - (least_entries.bit_length() - 1) + 1
        self._direct_supers = min(supers, 2 * (least_pointers.bit_length() - 1))  # those whose blocks the index block names itself
        self._direct = 2 * (least_pointers - 1)
        prefix = 6 + file.address_bytes
        block = file.block(
            top, prefix + inside * entry_bytes + (self._direct + supers - self._direct_supers) * file.address_bytes, "index block"
        )
        block.signature(b"EAIB")
        self._entries_at = top + prefix
        block.at = prefix + inside * entry_bytes
        self._blocks = [block.address("block") for _ in range(self._direct)]
        self._supers = [block.address("secondary block") for _ in range(supers - self._direct_supers)]
        self._second: dict[int, tuple[list[int | None], bytes]] = {}
        # For each super block: how many entries stand before it, how many blocks it has, how many entries each of them.
        self._sizes: list[tuple[int, int, int]] = []
        before = 0
        for number in range(supers):
            count, each = 1 << number // 2, least_entries << (number + 1) // 2
            self._sizes.append((before, count, each))
            before += count * each

    def find(self, number: int) -> tuple[int, int, int] | None:
        """The page of an entry: where it begins, how many entries it has, and which of them it is; None where it was never written."""
        if number < self._inside:
            return self._entries_at, self._inside, number
        number -= self._inside
        which = (number // self._least + 1).bit_length() - 1  # super block n has 2^n times the least number of entries
        if which >= len(self._sizes):
            raise self._file.error("a chunk lies outside of its extensible array")
        before, count, each = self._sizes[which]
        block, within = divmod(number - before, each)
        bitmap = b""
        if which < self._direct_supers:
            address = self._blocks[sum(size[1] for size in self._sizes[:which]) + block]
        else:
            blocks, bitmap = self._secondary(which - self._direct_supers, count, each)
            address = blocks[block] if blocks else None
        if address is None:
            return None
        at = address + 6 + self._file.address_bytes + self._offset_bytes
        if each <= self._page:
            return at, each, within
        page, within = divmod(within, self._page)
        bit = block * (each // self._page) + page
        if bitmap and not bitmap[bit // 8] >> (7 - bit % 8) & 1:
            return None
        return at + 4 + page * (self._page * self._entry_bytes + 4), self._page, within  # a checksum before, and one behind each page

    def _secondary(self, which: int, count: int, each: int) -> tuple[list[int | None], bytes]:
        if which not in self._second:
            address = self._supers[which]
            if address is None:
                return [], b""
            file, prefix = self._file, 6 + self._file.address_bytes + self._offset_bytes
            bitmap_bytes = count * -(-(each // self._page) // 8) if each > self._page else 0
            block = file.block(address, prefix + bitmap_bytes + count * file.address_bytes, "secondary block")
            block.signature(b"EASB")
            block.at = prefix
            bitmap = bytes(block.raw("pages", bitmap_bytes))
            self._second[which] = [block.address("block") for _ in range(count)], bitmap
        return self._second[which]


def _btree2(file: Hdf5File, index: ChunkIndex, address: int) -> Iterator[Chunk]:
    rank = len(index.shape)
    least = file.address_bytes + 8 * rank + (5 if index.filtered else 0)
    kind = _FILTERED_RECORDS if index.filtered else _PLAIN_RECORDS
    for record in records(file, address, (kind,), record_bytes=least):
        size_bytes = record.left - file.address_bytes - 8 * rank - 4
        at, nbytes, mask = record.address("chunk"), index.chunk_nbytes, 0
        if index.filtered:
            nbytes, mask = record.wide("size of a chunk", size_bytes), record.u32("filter mask")
        place = tuple(record.u64("place of a chunk") for _ in range(rank))
        if at is not None:
            yield Chunk(place, at, nbytes, mask)

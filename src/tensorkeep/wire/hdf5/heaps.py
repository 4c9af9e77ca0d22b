"""Heaps and trees: where names, links, attributes and texts of variable length are kept.

Lives here: local heaps (section III.D), global heaps (III.E), fractal heaps (III.G) and B-trees of version 2 (III.A.2).
"""

from collections.abc import Iterator
from typing import Final

from tensorkeep.wire.hdf5.file import LONGEST_NAME, Block, Hdf5File

_MOST_DEPTH: Final = 32  # of a B-tree
_HUGE_RECORDS: Final = 1  # kind of B-tree: where huge objects of a fractal heap are


class LocalHeap:
    """The names of a group of the old kind."""

    def __init__(self, file: Hdf5File, address: int | None) -> None:
        head = file.rest(address, 8 + 2 * file.length_bytes + file.address_bytes, "local heap")
        head.signature(b"HEAP")
        head.skip("version", 4)
        nbytes = head.length("size of the heap")
        head.length("free list")
        self._block = file.block(head.address("data of the heap"), nbytes, "local heap")
        self._data = bytes(self._block.raw("local heap", nbytes))

    def text(self, at: int) -> str:
        end = self._data.find(b"\0", at, at + LONGEST_NAME)
        if end < 0:
            raise self._block.error(f"a name has no end within {LONGEST_NAME:,} bytes, or stands outside of its heap")
        self._block.file.count(end - at)
        return self._data[at:end].decode("utf-8", "backslashreplace")


class GlobalHeaps:
    """Texts and sequences of variable length, in collections that are read once."""

    def __init__(self, file: Hdf5File) -> None:
        self._file = file
        self._collections: dict[int, dict[int, memoryview]] = {}

    def get(self, address: int, index: int) -> memoryview:
        """One object of a collection."""
        if (known := self._collections.get(address)) is None:
            known = self._collections[address] = self._read(address)
        if index not in known:
            raise self._file.error(f"object {index:,} of the global heap at {address:,} is not there")
        return known[index]

    def _read(self, address: int) -> dict[int, memoryview]:
        file = self._file
        head = file.block(address, 8 + file.length_bytes, "global heap")
        head.signature(b"GCOL")
        head.version("the global heap", (1,))
        head.skip("reserved", 3)
        nbytes = head.length("size of the global heap")
        if nbytes < head.at:
            raise head.error(f"a global heap of {nbytes:,} bytes")
        block = file.block(address + head.at, nbytes - head.at, "global heap")
        found: dict[int, memoryview] = {}
        while block.left >= 8 + file.length_bytes:
            file.step()
            index = block.u16("index")
            block.skip("reference count", 6)
            size = block.length("size of an object")
            if index == 0:
                break
            found[index] = block.raw("object of the global heap", size)
            block.skip("padding", min(-size % 8, block.left))
        return found


def records(file: Hdf5File, address: int | None, kinds: tuple[int, ...], record_bytes: int | None = None) -> Iterator[Block]:
    """The records of a B-tree of version 2, in order.

    Args:
        kinds: which kinds of tree are wanted.
        record_bytes: how large a record must be at least.
    """
    head = file.rest(address, 64, "B-tree")
    head.signature(b"BTHD")
    head.version("the B-tree", (0,))
    head.one_of("kind of B-tree", head.u8("kind of B-tree"), kinds)
    node_bytes, each, depth = head.u32("size of a node"), head.u16("size of a record"), head.u16("depth")
    head.skip("percents", 2)
    root, count = head.address("root"), head.u16("records of the root")
    if each == 0 or depth > _MOST_DEPTH or node_bytes < 10 + each or (record_bytes is not None and each < record_bytes):
        raise head.error(f"a B-tree with records of {each:,} bytes in nodes of {node_bytes:,}, {depth:,} deep")
    # How wide the counts in a node are follows from the most records below it: libhdf5, H5B2__hdr_init.
    most = (node_bytes - 10) // each
    count_bytes, total, total_bytes = _enough(most), most, [0]
    for _ in range(depth):
        pointer = file.address_bytes + count_bytes + total_bytes[-1]
        inside = max(0, (node_bytes - 10 - pointer) // (each + pointer))
        total = (inside + 1) * total + inside
        total_bytes.append(_enough(total))
    met: set[int] = set()

    def walk(address: int | None, count: int, level: int) -> Iterator[Block]:
        if address is None:
            return
        if address in met:
            raise file.error("a B-tree leads back to itself")
        met.add(address)
        pointer = (file.address_bytes + count_bytes + total_bytes[level - 1]) if level else 0
        node = file.block(address, 6 + count * each + (count + 1) * pointer, "node of a B-tree")
        node.signature(b"BTIN" if level else b"BTLF")
        node.skip("version and kind", 2)
        file.step(count)
        own = [Block(file, node.raw("record", each), address + 6 + number * each) for number in range(count)]
        if not level:
            yield from own
            return
        for number in range(count + 1):
            child, below = node.address("child"), node.wide("records of the child", count_bytes)
            node.skip("records below the child", total_bytes[level - 1])
            yield from walk(child, below, level - 1)
            if number < count:
                yield own[number]

    if count:
        yield from walk(root, count, depth)


def _enough(largest: int) -> int:
    """Bytes that hold every number up to this one."""
    return max(1, (largest.bit_length() + 7) // 8)


class FractalHeap:
    """Links or attributes of a large group: a table of blocks that double in size."""

    def __init__(self, file: Hdf5File, address: int | None) -> None:
        self._file = file
        head = file.rest(address, 256, "fractal heap")
        head.signature(b"FRHP")
        head.version("the fractal heap", (0,))
        self.id_bytes, filter_bytes, self._flags = head.u16("size of an ID"), head.u16("size of its filters"), head.u8("flags")
        most_managed = head.u32("largest managed object")
        head.length("next huge ID")
        self._huge_tree = head.address("tree of huge objects")
        head.length("free space")
        head.address("free space")
        for _ in range(8):
            head.length("statistics")
        self._width = head.u16("width of the table")
        self._start, largest = head.length("first block size"), head.length("largest direct block")
        self._bits = head.u16("size of the heap in bits")
        head.u16("first rows")
        self._root, self._rows = head.address("root block"), head.u16("rows of the root")
        if filter_bytes:
            raise head.error("a fractal heap that is compressed, which is not read")
        for number in (self._width, self._start, largest):
            if number == 0 or number & (number - 1) or number > 1 << 32:
                raise head.error(f"a fractal heap with blocks of {number:,}: a power of two is wanted")
        if self._bits > 64 or largest < self._start:
            raise head.error(f"a fractal heap of 2^{self._bits} bytes")
        self._direct_rows = largest.bit_length() - self._start.bit_length() + 2
        self._offset_bytes = (self._bits + 7) // 8
        self._length_bytes = max(1, min((largest.bit_length() + 6) // 8, _enough(most_managed)))
        self._tables: dict[int, list[int | None]] = {}
        self._huge: dict[int, tuple[int | None, int]] | None = None

    def get(self, identifier: memoryview) -> Block:
        """The object of an ID. Section III.G.4."""
        file = self._file
        block = Block(file, identifier, 0)
        kind = block.u8("ID") >> 4 & 3
        if kind == 0:
            return self._managed(block.wide("offset", self._offset_bytes), block.wide("length", self._length_bytes))
        if kind == 1:
            if self._huge is None:
                self._huge = dict(self._read_huge())
            key = block.wide("huge ID", min(block.left, file.length_bytes))
            if key not in self._huge:
                raise file.error(f"huge object {key:,} of a fractal heap is not there")
            address, nbytes = self._huge[key]
            return file.block(address, nbytes, "huge object")
        if kind == 2:
            block.at = 0
            nbytes = (block.u8("ID") & 0xF) + 1
            if self.id_bytes > 18:
                nbytes = ((nbytes - 1) << 8 | block.u8("ID")) + 1
            return Block(file, block.raw("tiny object", nbytes), 0)
        raise file.error("an object of a fractal heap of an unknown kind")

    def _read_huge(self) -> Iterator[tuple[int, tuple[int | None, int]]]:
        if self.id_bytes >= 1 + self._file.address_bytes + self._file.length_bytes:
            raise self._file.error("a fractal heap with the addresses of huge objects in their IDs, which is not read")
        for record in records(self._file, self._huge_tree, (_HUGE_RECORDS,)):
            place = record.address("huge object"), record.length("size of the huge object")
            yield record.length("huge ID"), place

    def _managed(self, offset: int, nbytes: int) -> Block:
        """Bytes of the heap's own space, which lie in one direct block."""
        file, block_at, within = self._file, self._root, offset
        size, rows = self._start, self._rows
        while rows:
            first_row = self._start * self._width
            row = 0 if within < first_row else within.bit_length() - first_row.bit_length() + 1
            size = self._start << max(0, row - 1)
            row_at = 0 if row == 0 else first_row << (row - 1)
            column = (within - row_at) // size
            table = self._table(block_at, rows)
            if row >= rows:
                raise file.error("an object of a fractal heap lies outside of it")
            block_at = table[row * self._width + column]
            within -= row_at + column * size
            rows = 0 if row < self._direct_rows else size.bit_length() - first_row.bit_length() + 1
            if row >= self._direct_rows and rows < 1:
                raise file.error("a block of a fractal heap is smaller than its first row")
        if within + nbytes > size or block_at is None:
            raise file.error("an object of a fractal heap lies outside of its block")
        return file.block(block_at + within, nbytes, "object of a fractal heap")

    def _table(self, address: int | None, rows: int) -> list[int | None]:
        """The addresses that an indirect block holds."""
        if address is None:
            raise self._file.error("a block of a fractal heap is not there")
        if (known := self._tables.get(address)) is None:
            file = self._file
            head_bytes = 5 + file.address_bytes + self._offset_bytes
            block = file.block(address, head_bytes + rows * self._width * file.address_bytes, "block of a fractal heap")
            block.signature(b"FHIB")
            block.at = head_bytes
            file.step(rows)
            known = self._tables[address] = [block.address("block") for _ in range(rows * self._width)]
        if len(known) < rows * self._width:
            raise self._file.error("a block of a fractal heap has two sizes")
        return known


def dense(file: Hdf5File, heap: int | None, tree: int | None, kind: int, *, skip: int) -> Iterator[Block]:
    """The objects of a fractal heap that a tree of names lists.

    Args:
        kind: of the tree: 5 for links, 8 for attributes.
        skip: bytes of a record before the ID.
    """
    if heap is None or tree is None:
        return
    found = FractalHeap(file, heap)
    for record in records(file, tree, (kind,)):
        record.skip("hash", skip)
        yield found.get(record.raw("ID", min(found.id_bytes, record.left)))

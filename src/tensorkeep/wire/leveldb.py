"""LevelDB's tables: sorted keys and values in blocks, each with its CRC-32C. TensorFlow's checkpoints have their index in one.

Source: https://github.com/google/leveldb/blob/main/doc/table_format.md
"""

from collections.abc import Iterator
from typing import Final

from tensorkeep.backends.files import MemoryFile
from tensorkeep.errors import CorruptError
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.crc32c import crc32c, unmasked
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent, Opened
from tensorkeep.wire.snappy import inflate

MAGIC: Final = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_BYTES: Final = 48
_BEFORE_KEY: Final = 12  # what Snappy may have in front of the first entry, and that it shares nothing and has an empty key
_TRAILER_BYTES: Final = 5  # kind and checksum of a block
_PLAIN, _SNAPPY = 0, 1
_LONGEST_KEY: Final = 64 << 10
_KEY_BYTES: Final = 16 << 20  # of all keys together, beyond four for each byte of the table: a key may share all but one with the last


def is_table(data: Extent, head: bytes) -> bool:
    """Whether it begins with an empty key, as TensorFlow's tables do, and ends as a table does.

    Args:
        head: its first bytes: the end of what is compressed is not asked for in vain.
    """
    return b"\0\0" in head[:_BEFORE_KEY] and data.nbytes >= _FOOTER_BYTES and bytes(data.read(data.nbytes - len(MAGIC))) == MAGIC


def entries(table: Extent, *, budget: Budget) -> Iterator[tuple[bytes, Extent]]:
    """Keys in their order, and where their values are.

    Raises:
        FormatError: it breaks its format, or keys are not in order: so no block can stand there twice.
        CorruptError: a block is not the one that was written.
    """
    footer = Cursor(table.part(table.nbytes - _FOOTER_BYTES, table.nbytes))
    for what in ("offset of the metaindex", "size of the metaindex"):
        footer.varint(what)
    index = _block(table, footer, budget)
    last: bytes | None = None
    left = _KEY_BYTES + 4 * table.nbytes
    for _, handle in _of_block(index):
        for key, value in _of_block(_block(table, Cursor(handle), budget)):
            if last is not None and key <= last:
                raise Cursor(value).error(f"the key {key!r:.200} comes after {last!r:.200}: keys of a table stand in order")
            last = key
            left -= len(key)
            if left < 0:
                raise Cursor(value).error(f"keys of more than {_KEY_BYTES + 4 * table.nbytes:,} bytes together")
            yield key, value


def _block(table: Extent, handle: Cursor, budget: Budget) -> Extent:
    """The block that a handle leads to: checked, and inflated."""
    start, nbytes = handle.varint("offset of a block"), handle.varint("size of a block")
    if start + nbytes + _TRAILER_BYTES > table.nbytes - _FOOTER_BYTES:
        raise handle.error(f"a block of {nbytes:,} bytes at byte {start:,}, of a table that has {table.nbytes:,}")
    stop = start + nbytes
    kind, *stored = table.read(stop, stop + _TRAILER_BYTES)
    found, wanted = crc32c(table.read(start, stop + 1)), unmasked(int.from_bytes(bytes(stored), "little"))
    if found != wanted:
        raise CorruptError(
            file=table.name, path="(index)", span=(start, stop), found=f"{found:08x}", wanted=f"{wanted:08x}", kind="CRC-32C"
        )
    block = table.part(start, stop)
    if kind == _PLAIN:
        return block
    if kind == _SNAPPY:
        return Opened(MemoryFile(memoryview(inflate(block, budget=budget)), table.name)).whole()
    raise handle.error(f"a block that is compressed in a way {kind}, which tensorkeep does not know")


def _of_block(block: Extent) -> Iterator[tuple[bytes, Extent]]:
    """Keys, of which each is written as what is new after the one before, and their values."""
    if block.nbytes < 4:
        raise Cursor(block).error(f"a block of {block.nbytes} bytes")
    restarts = int.from_bytes(block.read(block.nbytes - 4), "little")
    if 4 * restarts + 4 > block.nbytes:
        raise Cursor(block).error(f"a block with {restarts:,} restarts, which do not fit")
    cursor = Cursor(block.part(0, block.nbytes - 4 - 4 * restarts))
    key = b""
    while cursor.left:
        shared, new, nbytes = (cursor.varint(what) for what in ("shared bytes of a key", "new bytes of a key", "size of a value"))
        if shared > len(key) or shared + new > _LONGEST_KEY:
            raise cursor.error(f"a key of {new:,} bytes that shares {shared:,} with one of {len(key):,}")
        key = key[:shared] + bytes(cursor.raw("a key", new))
        start = cursor.at
        cursor.skip("a value", nbytes)
        yield key, block.part(start, cursor.at)

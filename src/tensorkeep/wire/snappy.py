"""Snappy: raw blocks, as LevelDB's tables have them. They are few and small: an index of tensors, not the tensors.

Source: https://github.com/google/snappy/blob/main/format_description.txt
"""

from typing import Final

from tensorkeep.wire.budget import Budget
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent

_MOST_BYTES: Final = 64 << 20  # of one block: writers cut at 64 KiB, and LevelDB's blocks are smaller still


def inflate(packed: Extent, *, budget: Budget) -> bytes:
    """What a block holds.

    Raises:
        FormatError: it is damaged, or would hold more than it said.
    """
    cursor = Cursor(packed)
    nbytes = cursor.varint("length of a snappy block")
    if nbytes > min(_MOST_BYTES, 64 * packed.nbytes):  # a copy of three bytes makes at most 64
        raise cursor.error(f"a snappy block of {packed.nbytes:,} bytes that says to hold {nbytes:,}")
    budget.spend(nbytes, "a snappy block")
    made = bytearray()
    while cursor.left:
        tag = cursor.u8("tag of a snappy block")
        length = (tag >> 2) + 1
        if tag & 3 == 0:
            if length > 60:
                length = int.from_bytes(cursor.raw("length of a literal", length - 60), "little") + 1
            made += cursor.raw("a literal", length)
        else:
            if tag & 3 == 1:
                length, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | cursor.u8("offset of a copy")
            else:
                offset = cursor.u16("offset of a copy") if tag & 3 == 2 else cursor.u32("offset of a copy")
            if not 0 < offset <= len(made):
                raise cursor.error(f"a copy from {offset:,} bytes back, {len(made):,} were made")
            begin = len(made) - offset
            run = made[begin : begin + length]  # shorter than the copy where that reaches into itself
            made += (run * (length // len(run) + 1))[:length]
        if len(made) > nbytes:
            break
    if len(made) != nbytes:
        raise cursor.error(f"a snappy block that said to hold {nbytes:,} bytes and holds {len(made):,}")
    return bytes(made)

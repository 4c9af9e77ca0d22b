"""The chunk table: where each chunk of a checkpoint is, in columns of fixed width, little-endian.

Lives here: the columns, and what must hold in each row. Lives elsewhere: the document before them (index).
"""

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from tensorkeep.chunks import DIGEST_BYTES
from tensorkeep.errors import FormatError
from tensorkeep.tensors import Array

NO_BASE: Final = 0xFFFFFFFF
STORED, CONSTANT, PLANES, DELTA = range(4)
"""The codecs that this release knows."""

ALIGNMENT: Final = 8  # bytes: each column begins on a multiple of it


@dataclass(frozen=True, slots=True)
class Table:
    """One row a chunk. The chunks of the groups come first, in order; behind them chunks that are only bases of others.

    Attributes:
        digest: (rows, 32) BLAKE3 of the chunk's own bytes.
        pack: number of its pack in the index's list.
        offset: its first byte in the pack.
        length: how many bytes it takes there.
        codec: how they are encoded.
        base: the row of the chunk that a delta refers to, else `NO_BASE`.
    """

    digest: Array
    pack: Array
    offset: Array
    length: Array
    codec: Array
    base: Array

    def __len__(self) -> int:
        return len(self.pack)


_TYPES: Final[dict[str, tuple[Any, int]]] = {
    "digest": (np.dtype(np.uint8), DIGEST_BYTES),
    "pack": (np.dtype("<u4"), 4),
    "offset": (np.dtype("<u8"), 8),
    "length": (np.dtype("<u4"), 4),
    "codec": (np.dtype(np.uint8), 1),
    "base": (np.dtype("<u4"), 4),
}
COLUMNS: Final = [(name, width) for name, (_, width) in _TYPES.items()]
assert [field.name for field in fields(Table)] == list(_TYPES)


def empty(rows: int) -> Table:
    """A table to be filled in."""
    columns = {name: np.zeros((rows, width) if name == "digest" else rows, dtype) for name, (dtype, width) in _TYPES.items()}
    columns["base"][:] = NO_BASE
    return Table(**columns)


def encode(table: Table) -> list[bytes]:
    """The columns, each padded to a multiple of eight bytes."""
    parts = []
    for name in _TYPES:
        data = getattr(table, name).tobytes()
        parts.append(data + bytes(-len(data) % ALIGNMENT))
    return parts


def nbytes_of(rows: int, columns: list[tuple[str, int]]) -> int:
    """Bytes of all columns, padding included."""
    return sum(rows * width + (-rows * width) % ALIGNMENT for _, width in columns)


def decode(data: memoryview, rows: int, columns: list[tuple[str, int]], file: str) -> Table:
    """The columns that this release knows; others are passed over.

    Args:
        data: all columns, of just the right length.
        columns: their names and widths in bytes, as they lie.

    Raises:
        FormatError: a column is missing, there twice, or of another width.
    """
    found: dict[str, Array] = {}
    at = 0
    for name, width in columns:
        nbytes = rows * width
        if name in found:
            raise FormatError(file, f"damaged: its column {name!r:.40} is there twice")
        if name in _TYPES:
            dtype, wanted = _TYPES[name]
            if width != wanted:
                raise FormatError(file, f"damaged: its column {name!r} is {width} bytes wide, {wanted} are known")
            column = np.frombuffer(data[at : at + nbytes], dtype)
            found[name] = column.reshape(rows, width) if name == "digest" else column
        at += nbytes + (-nbytes) % ALIGNMENT
    if missing := [name for name in _TYPES if name not in found]:
        raise FormatError(file, f"damaged: its column {missing[0]!r} is missing")
    return Table(**{name: found[name] for name in _TYPES})


def check(table: Table, sizes: Array, packs: list[int], file: str) -> None:
    """See that every row can be true.

    Args:
        sizes: bytes of each chunk of the groups; the bases behind them have those of the chunks that refer to them.
        packs: size of each pack in bytes.

    Raises:
        FormatError: a row points out of its pack, is longer than its chunk, has a base that is none, or a codec that is not known.
    """

    def refuse(bad: Array, problem: str) -> None:
        if bad.any():
            raise FormatError(file, f"damaged: row {int(np.argmax(bad)):,} of its chunk table {problem}")

    rows = np.arange(len(table))
    whole = np.zeros(len(table), np.uint64)
    whole[: len(sizes)] = sizes
    refuse(table.codec > DELTA, "has a codec that this release does not know: pip install -U tensorkeep")
    refuse(table.pack >= len(packs), "names a pack that the index does not list")
    delta = table.codec == DELTA
    refuse(delta != (table.base != NO_BASE), "has a base and is no delta, or the other way about")
    refuse(delta & (table.base >= len(table)), "has a base that is no row")
    targets = table.base[delta].astype(np.int64)
    if len(targets):
        bad = np.zeros(len(table), bool)
        bad[rows[delta]] = delta[targets]
        refuse(bad, "is a delta of a delta")
        only = targets >= len(sizes)
        whole[targets[only]] = whole[rows[delta][only]]
        bad[rows[delta]] = whole[targets] != whole[delta]
        refuse(bad, "has a base of another size")
    refuse(whole == 0, "is nobody's chunk and nobody's base")
    refuse(table.length > whole, "takes more bytes than its chunk has")
    refuse((table.codec == STORED) & (table.length != whole), "is stored in fewer bytes than its chunk has")
    limits = np.array(packs or [0], np.uint64)[np.minimum(table.pack, max(0, len(packs) - 1))]
    refuse((table.offset > limits) | (table.length > limits - np.minimum(table.offset, limits)), "lies beyond the end of its pack")

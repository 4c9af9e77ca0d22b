"""Chunks: the grid by which tensor bytes are digested, and the digests.

The grid follows from the sizes alone: a tensor of 64 KiB or more is cut every 1 MiB from its own first byte; smaller neighbours share
a chunk, which ends before a tensor that would take it over 1 MiB or has 64 KiB or more itself; an empty tensor is in none.

Source: docs/format.md, section "Digests". BLAKE3: https://github.com/BLAKE3-team/BLAKE3-specs
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

import msgspec
from blake3 import blake3

CHUNK_BYTES: Final = 1 << 20
SMALL_BYTES: Final = 64 << 10  # a smaller tensor shares its chunk with its neighbours
DIGEST_BYTES: Final = 32


class Grid(msgspec.Struct, frozen=True):
    """Where the chunks of a run of tensors begin and end, in bytes from the first tensor's first.

    Attributes:
        starts: first byte of each chunk, and at the end the byte after the last chunk.
    """

    starts: list[int]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def span(self, number: int) -> tuple[int, int]:
        return self.starts[number], self.starts[number + 1]

    def crossing(self, start: int, stop: int) -> range:
        """The numbers of the chunks that hold bytes from `start` to `stop`."""
        if stop <= start:
            return range(0)
        return range(bisect_right(self.starts, start) - 1, bisect_right(self.starts, stop - 1))


def grid_of(sizes: Iterable[int]) -> Grid:
    """The grid of tensors that lie one behind the other.

    Args:
        sizes: bytes of each tensor, in file order.
    """
    starts = [0]
    position = begun = 0  # `begun`: first byte of the chunk of small tensors that is still open
    for nbytes in sizes:
        if nbytes >= SMALL_BYTES:
            if position != begun:
                starts.append(position)
            end = position + nbytes
            starts.extend(range(position + CHUNK_BYTES, end, CHUNK_BYTES))
            starts.append(end)
            begun = end
        elif position + nbytes - begun > CHUNK_BYTES:
            starts.append(position)
            begun = position
        position += nbytes
    if position != begun:
        starts.append(position)
    return Grid(starts)


def digest(*parts: "memoryview | bytes | bytearray") -> bytes:
    """BLAKE3 of the parts, one behind the other. One thread: ours run side by side instead, which is faster."""
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.digest()

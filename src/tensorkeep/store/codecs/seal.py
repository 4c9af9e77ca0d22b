"""The seal: how it is known that no bit of a payload was flipped, one that changes nothing in the chunk included.

A frame of Zstandard has bits that no decoder looks at. So a payload of planes or of a delta ends with the first 8 bytes of the BLAKE3 of
all that stands before them but for the bodies of raw runs and the tail: each bit of those is a bit of the chunk, and that has a digest.
Decoding passes over the seal.
"""

from collections.abc import Iterator
from typing import Final

from tensorkeep.chunks import digest
from tensorkeep.store.codecs import runs
from tensorkeep.store.codecs.runs import Cursor, Parts

SEAL_BYTES: Final = 8


class Sealed:
    """A payload in the making."""

    def __init__(self, head: bytes) -> None:
        self._done: list[bytes] = []
        self._parts: Parts = [head]
        self._told = [head]

    def add(self, section: Parts) -> None:
        """The next section."""
        self._parts += section
        self._told += [part for part in section if isinstance(part, bytes)]

    def settle(self) -> None:
        """What was added may change from now on."""
        self._done.append(b"".join(self._parts))
        self._parts = []

    def finish(self, tail: memoryview) -> bytes:
        """The whole payload."""
        return b"".join((*self._done, *self._parts, tail, digest(*self._told)[:SEAL_BYTES]))


def holds(payload: memoryview) -> bool:
    """Whether all that a seal covers is as it was written."""
    cursor = Cursor(payload[: max(0, len(payload) - SEAL_BYTES)])
    try:
        return digest(*_told(cursor))[:SEAL_BYTES] == payload[-SEAL_BYTES:]
    except ValueError:
        return False


def _told(cursor: Cursor) -> Iterator[memoryview]:
    head = cursor.take(1)
    bounds = head[0] >> 4
    yield head
    yield cursor.take(2 * bounds)
    for _ in range(bounds + 1):
        yield cursor.take(1)
        for _ in range(1 << (head[0] & 3)):
            yield from runs.told(cursor)

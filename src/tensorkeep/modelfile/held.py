"""Held: bytes of a file at a URL that were fetched to be checked, for who then wants them in place: so nothing is fetched twice.

Only up to a limit: what is beyond is fetched again, and a model that fills the memory is not there twice.
"""

import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

MOST_BYTES: Final = 1 << 30


class Held:
    """Pieces of the data of one file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: dict[int, memoryview] = {}
        self._starts: list[int] = []
        self._nbytes = 0

    def add(self, start: int, data: memoryview) -> None:
        """Hold a piece, if there is room; it overlaps no other."""
        with self._lock:
            if self._nbytes + data.nbytes <= MOST_BYTES and start not in self._pieces:
                self._pieces[start], self._starts = data, []
                self._nbytes += data.nbytes

    def give(self, start: int, into: Sequence[memoryview], read: Callable[[int, memoryview], None]) -> None:
        """Bring neighbouring bytes into several places, and read what is not held.

        Args:
            start: of the first of them.
            into: the places.
            read: reads from an offset.
        """
        for part in into:
            flat = part.cast("B") if part.nbytes else part
            while flat.nbytes:
                data, count = self._at(start, flat.nbytes)
                if data is None:
                    read(start, flat[:count])
                else:
                    flat[:count] = data
                flat, start = flat[count:], start + count

    def _at(self, start: int, most: int) -> tuple[memoryview | None, int]:
        """What is held from here on, at most so many bytes; or for how many bytes there is nothing."""
        with self._lock:
            if not self._starts:
                self._starts = sorted(self._pieces)
            index = bisect_right(self._starts, start)
            if index:
                data = self._pieces[self._starts[index - 1]][start - self._starts[index - 1] :]
                if data.nbytes:
                    return data[:most], min(most, data.nbytes)
            return None, min(most, self._starts[index] - start) if index < len(self._starts) else most

"""Tallies: the CRC of a run of bytes that is read piece by piece, in any order, by several threads, some of it more than once.

The CRC of two pieces behind each other follows from the CRCs of both: passing over bytes is a linear map of the first one. So every piece
is added up right behind the reading of it, while it is in the processor's cache, and no byte is read twice to be compared.

Source: "crc32_combine" of https://github.com/madler/zlib/blob/master/crc32.c, for the arithmetic.
"""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

_ONE = 1 << 31  # the polynomial 1: bits stand in reverse


class Tally:
    """What was added up of one run of bytes.

    Args:
        update: from the value so far and more bytes, the next value; it begins with 0.
        polynomial: of the CRC, its bits in reverse.
    """

    __slots__ = ("_begins", "_lock", "_polynomial", "_runs", "_update")

    def __init__(self, update: Callable[[memoryview, int], int], polynomial: int) -> None:
        self._update, self._polynomial = update, polynomial
        self._lock = threading.Lock()
        self._begins: list[int] = []  # of the runs, rising; they do not overlap
        self._runs: list[tuple[int, int | None]] = []  # the byte behind each, and its value; None while a thread is at it

    def add(self, start: int, data: memoryview) -> None:
        """Add bytes that begin at `start`; what was there before is passed over."""
        for begin, end in self._claim(start, start + data.nbytes):
            value = self._update(data[begin - start : end - start], 0)
            with self._lock:
                self._insert(begin, end, value)

    def missing(self, nbytes: int) -> list[tuple[int, int]]:
        """What was not added up yet, of so many bytes in all."""
        with self._lock:
            return self._gaps(0, nbytes)

    def total(self) -> int:
        """The value of all, once nothing is missing."""
        assert len(self._runs) <= 1, "nothing is missing, and no thread is at it"
        return self._runs[0][1] or 0 if self._runs else 0

    def _claim(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What of these bytes nobody has added up; from now on it is the caller's."""
        with self._lock:
            gaps = self._gaps(start, stop)
            for begin, end in gaps:
                place = bisect_left(self._begins, begin)
                self._begins.insert(place, begin)
                self._runs.insert(place, (end, None))
            return gaps

    def _gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        first = max(0, bisect_right(self._begins, start) - 1)
        last = bisect_left(self._begins, stop)
        met = [(begin, end) for begin, (end, _) in zip(self._begins[first:last], self._runs[first:last], strict=True) if end > start]
        edges = [(start, start), *met, (stop, stop)]
        return [(end, begin) for (_, end), (begin, _) in pairwise(edges) if end < begin]

    def _insert(self, begin: int, end: int, value: int) -> None:
        """Its value is known now: join it with its neighbours, where theirs are too."""
        place = bisect_left(self._begins, begin)
        self._runs[place] = (end, value)
        for left in (place, place - 1):
            if not 0 <= left < len(self._begins) - 1:
                continue
            (middle, first), (last, second) = self._runs[left], self._runs[left + 1]
            if middle == self._begins[left + 1] and first is not None and second is not None:
                self._runs[left : left + 2] = [(last, joined(first, second, last - middle, self._polynomial))]
                del self._begins[left + 1]


def joined(first: int, second: int, nbytes: int, polynomial: int) -> int:
    """The CRC of two runs of bytes behind each other, from the CRC of each and the length of the second in bytes."""
    return _times(_power(8 * nbytes, polynomial), first, polynomial) ^ second


def _times(a: int, b: int, polynomial: int) -> int:
    """The product of two polynomials, modulo a third."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = a << 1 & 0xFFFFFFFF
        b = b >> 1 ^ (polynomial if b & 1 else 0)
    return product


@lru_cache(256)
def _power(bits: int, polynomial: int) -> int:
    """x to so many, modulo a polynomial."""
    result, square = _ONE, _ONE >> 1
    while bits:
        if bits & 1:
            result = _times(square, result, polynomial)
        square, bits = _times(square, square, polynomial), bits >> 1
    return result

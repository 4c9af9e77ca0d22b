"""The tape: the bytes of a pickle, taken one after the other from an extent of any size, a window at a time."""

from typing import Final

from tensorkeep.unpickle.spelled import Kind, Run, numbers
from tensorkeep.wire.extent import Extent

_WINDOW_BYTES: Final = 256 << 10
_LONGEST_LINE: Final = 64 << 20  # of a text opcode


class TapeEnd(Exception):
    """The bytes end before the opcode does."""


class Tape:
    """A place in an extent.

    Args:
        extent: what is read.
        at: where to begin, in bytes from its start.
    """

    __slots__ = ("_at", "_begin", "_window", "extent")

    def __init__(self, extent: Extent, at: int) -> None:
        self.extent, self._begin, self._at, self._window = extent, at, 0, b""

    @property
    def at(self) -> int:
        return self._begin + self._at

    @property
    def left(self) -> int:
        return self.extent.nbytes - self.at

    def byte(self) -> int:
        """The next one."""
        try:
            value = self._window[self._at]
        except IndexError:
            self._refill(1)
            value = self._window[self._at]
        self._at += 1
        return value

    def take(self, nbytes: int) -> bytes:
        """So many."""
        if self._at + nbytes > len(self._window):
            self._refill(nbytes)
        taken = self._window[self._at : self._at + nbytes]
        self._at += nbytes
        return taken

    def number(self, nbytes: int) -> int:
        """An unsigned one of so many bytes."""
        return int.from_bytes(self.take(nbytes), "little")

    def line(self, most: int = _LONGEST_LINE) -> bytes:
        """Up to the next end of a line, without it; no longer than so many bytes or a window."""
        ahead = 256
        while True:
            end = self._window.find(b"\n", self._at)
            if end >= 0:
                line = self._window[self._at : end]
                self._at = end + 1
                return line
            if ahead > most or len(self._window) - self._at >= self.left:
                raise TapeEnd("a line without an end")
            ahead = max(2 * ahead, 2 * (len(self._window) - self._at))
            self._refill(min(ahead, self.left))

    def numbers(self, kind: Kind) -> Run | None:
        """The run of numbers that begins here, as far as it is in the window; None for none."""
        run = numbers(kind, self._window, self._at)
        if run is not None:
            self._at = run.end
        return run

    def skip(self, nbytes: int) -> int:
        """Pass over so many, unread. Where they begin."""
        begin = self.at
        if not 0 <= nbytes <= self.left:
            raise TapeEnd(f"{nbytes:,} bytes are wanted, {self.left:,} are left")
        self._at += nbytes
        if self._at > len(self._window):
            self._begin, self._at, self._window = self.at, 0, b""
        return begin

    def _refill(self, nbytes: int) -> None:
        begin = self.at
        if nbytes > self.extent.nbytes - begin:
            raise TapeEnd(f"{nbytes:,} bytes are wanted, {self.extent.nbytes - begin:,} are left")
        self._window = bytes(self.extent.read(begin, min(begin + max(nbytes, _WINDOW_BYTES), self.extent.nbytes)))
        self._begin, self._at = begin, 0

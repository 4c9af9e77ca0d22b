"""The machine's state: stack, marks, memo, and the bytes of the pickle, of which a window at a time is in memory.

Lives here: what all opcodes share, and what counts what a pickle makes. Lives elsewhere: the opcodes (opcodes), the loop (machine).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import repeat
from operator import length_hint
from typing import Any, Final, Literal

from tensorkeep.errors import CUT_SHORT, FormatError, TensorkeepError, shown
from tensorkeep.limits import Limits
from tensorkeep.unpickle.inert import LUMP_BYTES, Constructor, Global, Inert, Keyed, Lump, instance_of
from tensorkeep.unpickle.keys import SHORT_TEXT, Keys
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.extent import Extent

Table = Mapping[tuple[str, str], "Constructor | Keyed"]

MARGIN: Final = 300  # bytes: more than any opcode takes whose length is one byte
HOLE: Final = object()
"""Stands in the memo where nothing was put."""

_WINDOW_BYTES: Final = 256 << 10
_PADDING: Final = bytes(MARGIN + 1)  # zero is no opcode, so whatever runs into it ends there
_MARKS_EACH: Final = 10  # for each level of nesting that a tree may have: an object takes two or three
_PIECE_BYTES: Final = 256 << 10  # of a text that ends with its line
_MOST_HOLES: Final = 64

# What a pickle makes, by the byte: an empty list takes one byte there and 64 in memory. Genuine pickles have some 8 bytes or more for
# each of their containers and calls, so those with far more of them were made to take memory and time.
_CONTAINER_BYTES: Final = 64
_OTHER_BYTES: Final = 8  # for each byte of the pickle: its ints, short texts and the stack
_FREE: Final = {"containers": 500_000, "calls": 200_000}
_BYTES_EACH: Final = {"containers": 8, "calls": 16}
_LONG: Final = 512  # an argument that is copied and has so many items or bytes is counted at once, not when the window ends

_PYTHON_2: Final = {
    ("__builtin__", "unicode"): ("builtins", "str"),
    ("__builtin__", "long"): ("builtins", "int"),
    ("__builtin__", "xrange"): ("builtins", "range"),
}
_MODULES_OF_2: Final = {"__builtin__": "builtins", "copy_reg": "copyreg"}

WRONG: Final = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What constructors raise on arguments that are none of theirs."""


class State:
    """All that a running pickle has.

    Attributes:
        stack: what was pushed since the last mark; `marks` holds those below.
        memo: by number, as long as numbers come without large gaps; `sparse` has the others.
        gaps: whether there are numbers between others that were never used. Only then is `remembered` right: how many there are.
        data: the window: bytes of the pickle, and a margin of zeros behind its end.
        base: where in the extent the window begins.
        size: bytes of the pickle in the window.
        soft: from this place in the window on the next one is wanted.
        containers: how many were made.
        steps: gives as many times None as there may be opcodes.
    """

    def __init__(
        self,
        extent: Extent,
        constructors: Table,
        *,
        at: int,
        limits: Limits,
        budget: Budget,
        persistent: "Callable[[Any], object] | None",
        buffers: Iterable[object],
    ) -> None:
        self.extent, self.constructors, self.limits, self.budget = extent, constructors, limits, budget
        self.persistent = persistent
        self.buffers: Iterator[object] = iter(buffers)
        self.keys = Keys(extent.name, extent.nbytes)
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.most_marks = _MARKS_EACH * limits.depth + 100
        self.memo: list[Any] = []
        self.sparse: dict[int, Any] = {}
        self.gaps = False
        self.remembered = 0
        self.containers = self.calls = 0
        self.steps = repeat(None, limits.opcodes)
        self._charged, self._left = 0, limits.opcodes
        self.globals: dict[tuple[str, str], Global] = {}
        self.data, self.base, self.size, self.soft = b"", at, 0, 0

    # The bytes

    def refill(self, at: int) -> int:
        """The next window, from a place in this one on; the answer is that place in it."""
        start = self.base + at
        self.charge(at)
        if start >= self.extent.nbytes:
            raise FormatError(self.extent.name, f"the pickle has no end: it stops at byte {start:,}", hint=CUT_SHORT)
        stop = min(start + _WINDOW_BYTES, self.extent.nbytes)
        data = bytes(self.extent.read(start, stop))
        self.base, self.size = start, len(data)
        self.data, self.soft = (data + _PADDING, len(data)) if stop == self.extent.nbytes else (data, len(data) - MARGIN)
        return 0

    def move(self, start: int) -> int:
        """Go on at a place of the extent; the answer is the place in the window, which is empty if it was left: the loop fills it."""
        if self.base <= start < self.base + self.soft:
            return start - self.base
        self.charge(self.size)
        self.base, self.data, self.size, self.soft = start, b"", 0, 0
        return 0

    def charge(self, walked: int) -> None:
        """Count what was made since the last time."""
        made = self.containers - self._charged
        self._charged = self.containers
        self.budget.spend(made * _CONTAINER_BYTES + walked * _OTHER_BYTES, "a pickle")
        left = length_hint(self.steps)
        self.budget.walk(self._left - left)
        self._left = left
        for what, count in (("containers", self.containers), ("calls", self.calls)):
            if count > _FREE[what] + self.extent.nbytes // _BYTES_EACH[what]:
                raise FormatError(self.extent.name, f"{count:,} {what} in a pickle of {self.extent.nbytes:,} bytes")

    def take(self, at: int, nbytes: int, what: str) -> tuple[bytes, int]:
        """So many bytes, and the place behind them."""
        stop = at + nbytes
        if stop <= self.size:
            return self.data[at:stop], stop
        start = self._fits(at, nbytes, what)
        data = bytes(self.extent.read(start, start + nbytes))
        return data, self.move(start + nbytes)

    def lump(self, at: int, nbytes: int, kind: Literal["bytes", "bytearray", "str"]) -> tuple[object, int]:
        """A byte string, left in the file where it is long, and the place behind it."""
        if nbytes < LUMP_BYTES:
            data, at = self.take(at, nbytes, f"a {kind}")
            return (data if kind == "bytes" else bytearray(data) if kind == "bytearray" else str(data, "latin-1")), at
        start = self._fits(at, nbytes, f"a {kind}")
        part = self.extent.part(start, start + nbytes)
        return Lump(part, kind, self.budget), self.move(start + nbytes)

    def _fits(self, at: int, nbytes: int, what: str) -> int:
        start = self.base + at
        if not 0 <= nbytes <= self.extent.nbytes - start:
            left = max(0, self.extent.nbytes - start)
            raise self.error(at, f"{what} would take {nbytes:,} bytes, {left:,} are left", hint=CUT_SHORT)
        return start

    def line(self, at: int, what: str) -> tuple[bytes, int]:
        """The bytes up to the end of the line, and the place behind it."""
        stop = self.data.find(b"\n", at, self.size)
        if stop >= 0:
            return self.data[at:stop], stop + 1
        start, pieces = self.base + at, bytearray()
        while (length := pieces.find(b"\n", max(0, len(pieces) - _PIECE_BYTES))) < 0:
            begin = start + len(pieces)
            if begin >= self.extent.nbytes:
                raise self.error(at, f"{what} has no end of its line")
            pieces += self.extent.read(begin, min(begin + _PIECE_BYTES, self.extent.nbytes))
        self.budget.spend(length, what)
        return bytes(pieces[:length]), self.move(start + length + 1)

    def text(self, data: bytes, at: int) -> str:
        """UTF-8, lone surrogates among it as Python writes them."""
        if len(data) >= SHORT_TEXT:
            self.keys.wary = True
            self.budget.spend(len(data), "a text")
        try:
            return str(data, "utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise self.error(at, f"a text that is no UTF-8: {error.reason}") from None

    def error(self, at: int, problem: str, *, hint: str = "") -> FormatError:
        """The refusal of what stands just before a place in the window."""
        return FormatError(self.extent.name, f"{problem} (at byte {self.base + at:,} of the pickle)", hint=hint)

    # The memo

    def put(self, index: int, at: int) -> None:
        """Remember the top of the stack under a number."""
        if not self.stack:
            raise self.error(at, "nothing is on the stack to be remembered")
        top, memo = self.stack[-1], self.memo
        if 0 <= index < len(memo):
            self.remembered += memo[index] is HOLE
            memo[index] = top
            return
        if index < 0:
            raise self.error(at, f"the memo has no number {index:,}")
        if len(memo) < index < len(memo) + _MOST_HOLES and not self.gaps:  # Python 2 counts from 1
            self.gaps, self.remembered = True, len(memo)
            memo += [HOLE] * (index - len(memo))
        if index == len(memo) and not self.sparse:
            memo.append(top)
            self.remembered += 1
            return
        self.remembered = len(memo) if not self.gaps else self.remembered
        self.gaps = True
        if index not in self.sparse:
            self.remembered += 1
            self.containers += 2  # an entry of a dict, and its number
        self.sparse[index] = top

    def get(self, index: int, at: int) -> object:
        """What was remembered under a number."""
        if 0 <= index < len(self.memo) and self.memo[index] is not HOLE:
            return self.memo[index]
        if index in self.sparse:
            return self.sparse[index]
        raise self.error(at, f"nothing was remembered under the number {index:,}")

    # Globals and calls

    def named(self, module: str, name: str) -> Global:
        """A global, the same object each time it is named."""
        found = self.globals.get((module, name))
        if found is None:
            current = _PYTHON_2.get((module, name), (_MODULES_OF_2.get(module, module), name))
            constructor = self.constructors.get((module, name)) or self.constructors.get(current)
            found = self.globals[module, name] = Global(module, name, None if "." in name else constructor)
            self.containers += 4
        return found

    def call(self, called: object, args: object, at: int, opcode: str) -> object:
        """What stands for the result of a call."""
        if type(args) is not tuple:
            raise self.error(at, f"{opcode} with a {type(args).__name__} as arguments; a tuple is wanted")
        self.calls += 1
        self.containers += 2
        if type(called) is Global:
            constructor = called.constructor
            if constructor is None:
                return Inert(called.module, called.name, args)
            return self._construct(called, constructor, args, at)
        if type(called) is Inert:
            return instance_of(called, args)
        raise self.error(at, f"{opcode} calls a {type(called).__name__}")

    def _construct(self, called: Global, constructor: "Constructor | Keyed", args: tuple[Any, ...], at: int) -> object:
        try:
            if type(constructor) is not Keyed:
                return constructor(args)  # type: ignore[operator]  # the other of the two
            for arg in args:
                if type(arg) in _SIZED and len(arg) >= 8:  # it is copied
                    self.containers += len(arg) >> 3
                    if len(arg) >= _LONG:
                        self.charge(0)
            return constructor.make(args, self.keys)
        except TensorkeepError:
            raise
        except WRONG as error:
            raise self.wrong(f"{shown(called.module)}.{shown(called.name)}", error, at) from None

    def guarded(self, make: Callable[[], object], what: str, at: int) -> object:
        """What a constructor makes; what it raises on wrong arguments becomes the refusal of the file."""
        try:
            return make()
        except TensorkeepError:
            raise
        except WRONG as error:
            raise self.wrong(what, error, at) from None

    def wrong(self, what: str, error: Exception, at: int) -> FormatError:
        """The refusal of a call or a state that a constructor did not take."""
        return self.error(at, f"{what} with arguments that are none of its own: {str(error) or type(error).__name__:.200}")


_SIZED: Final = frozenset({list, tuple, dict, set, frozenset, str, bytes, bytearray})

"""The trace: what a pickle would import and call if it were loaded the usual way, without making anything of it.

The machine (machine.py) makes data, so it refuses whatever pickle itself would never write. A scanner must see through just that: a
stream that breaks right after the call, an item set on what is no dict. So the trace follows every opcode with values that stand for
something, never raises for what a stream does with them, and notes each name with its place.

Source: CPython's `Lib/pickle.py` and `pickletools.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tensorkeep.unpickle.tape import Tape, TapeEnd
from tensorkeep.wire.extent import Extent

_MOST_STACK: Final = 1_000_000
_MOST_MEMO: Final = 3_500_000
_MOST_HELD: Final = 1_200_000  # lists, objects and the like that are remembered: each takes a hundred bytes and more
_MOST_USES: Final = 20_000
_MOST_ALIKE: Final = 100  # uses of one name in one way: what it does is told by the first
FINDERS: Final = frozenset({"getattr", "_ufunc_reconstruct", "_load_from_bytes"})  # whose arguments count, each time
KEPT_ITEMS: Final = 64  # of a list or dict
_KEPT_TEXT: Final = 4096  # characters of a string that stand in the trace
_LONGEST_NAME: Final = 1000
_STEPS: Final = 1_000_000
_NO_FRAME: Final = 1 << 64


@dataclass(slots=True, eq=False)
class Named:
    """A global: what stands in `module` under `name`, which may be dotted."""

    module: str
    name: str
    at: int


@dataclass(slots=True, eq=False)
class Made:
    """What a call would have given.

    Attributes:
        called, args: what is called, with what.
        state: that was set on it.
        root: what is called in the end where `called` is itself what a call would have given: the chain may be long.
    """

    called: Any
    args: Any
    state: Any = None
    root: Any = field(init=False)

    def __post_init__(self) -> None:
        self.root = self.called.root if isinstance(self.called, Made) else self.called


@dataclass(slots=True, eq=False)
class Blob:
    """Bytes that stand in the stream from `start` to `stop`."""

    start: int
    stop: int


class _Unknown:
    """A value that nobody can tell before the file is loaded."""

    def __repr__(self) -> str:
        return "?"


UNKNOWN: Final = _Unknown()


@dataclass(slots=True, eq=False)
class Use:
    """What the stream does with a name, or with what a call gave.

    Attributes:
        target: a `Named`, `Made` or other value.
        at: the opcode's place, in bytes from the start of the extent.
        how: `named`, `called`, or `changed` (a state or items are set on a global itself).
        args: of the call, as far as they are known.
    """

    target: Any
    at: int
    how: str
    args: Any = ()


@dataclass(slots=True)
class Trace:
    """What was seen.

    Attributes:
        uses: in the order of the stream.
        oddities: what no honest writer does, as place and sentence.
        end: the offset behind STOP; None if the stream did not come that far.
        broken: why it did not, or "".
        broken_at: where that was.
        persistent: what stands elsewhere, as place and what it is called there.
        steps: opcodes.
        result: what it would give.
        underflow: where an opcode asked for more than there was: every unpickler ends there, and nothing behind it is run.
    """

    uses: list[Use] = field(default_factory=list)
    oddities: list[tuple[int, str]] = field(default_factory=list)
    persistent: list[tuple[int, Any]] = field(default_factory=list)
    end: int | None = None
    broken: str = ""
    broken_at: int = 0
    steps: int = 0
    result: Any = UNKNOWN
    underflow: int | None = None


class Stopped(Exception):
    """The stream said STOP."""


class Broken(Exception):
    """No unpickler would follow it further."""


Act = Callable[["Tracer"], None]
"""What one opcode does."""


Inline = Callable[[Made, int], int | None]
"""Asked after a state was set: how many bytes that are no opcodes follow at this offset. None for none."""


class Tracer:
    """Follows one pickle.

    Args:
        extent: where it stands.
        at: where it begins.
        acts: what each opcode does, by its number: `acts.ACTS`.
        on_text: called with each longer text and its place.
        on_blob: called with each longer run of bytes.
        inline: asked for bytes that are no opcodes, as joblib puts them behind an array's wrapper.
        shortest: the length from where texts and bytes are told.
        most_steps: how many opcodes are followed, at most as many as a pickle of this size may have.
    """

    def __init__(
        self,
        extent: Extent,
        at: int,
        acts: "Sequence[Act | None]",
        *,
        on_text: Callable[[str, int], None] | None = None,
        on_blob: Callable[[Blob], None] | None = None,
        inline: Inline | None = None,
        shortest: int = 16,
        most_steps: int,
    ) -> None:
        self.tape = Tape(extent, at)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self._memo: list[Any] = []
        self._sparse: dict[int, Any] = {}
        self._held = 0
        self._met: dict[tuple[str, str, str], int] = {}
        self._on_text, self._on_blob, self._inline, self._shortest = on_text, on_blob, inline, shortest
        self.trace = Trace()
        self.here = at
        self._frame_end = _NO_FRAME
        self._acts = acts
        self._most_steps = min(_STEPS + (extent.nbytes - at) // 2, most_steps)

    def run(self) -> Trace:
        """Follow it to STOP, or as far as it goes."""
        trace, tape = self.trace, self.tape
        try:
            while True:
                self.here = here = tape.at
                if here >= self._frame_end:
                    self._leave_frame(here)
                act = self._acts[tape.byte()]
                if act is None:
                    raise Broken("a byte that is no opcode")
                act(self)
                trace.steps += 1
                if not trace.steps & 0xFFF and (trace.steps > self._most_steps or len(self.stack) > _MOST_STACK):
                    raise Broken("more steps than any pickle of its size takes")
        except Stopped:
            trace.end = tape.at
            self._leave_frame(tape.at)
        except TapeEnd as error:
            trace.broken, trace.broken_at = f"cut short: {error}", self.here
        except Broken as error:
            trace.broken, trace.broken_at = str(error), self.here
        return trace

    # --- frames

    def frame(self) -> None:
        nbytes = self.tape.number(8)
        if self._frame_end != _NO_FRAME:
            self._odd_frame()
        self._frame_end = self.tape.at + nbytes

    def _leave_frame(self, at: int) -> None:
        if self._frame_end not in (at, _NO_FRAME):
            self._odd_frame()
        self._frame_end = _NO_FRAME

    def _odd_frame(self) -> None:
        """Python's own `pickle.load` reads on behind the frame then, and runs other bytes than whoever ignores frames sees."""
        self.odd("a frame that does not end where an opcode does: Python would go on at another place, out of sight")

    # --- the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_all(self, values: list[Any]) -> None:
        self.stack += values
        if len(self.stack) > _MOST_STACK:
            raise Broken("more steps than any pickle of its size takes")

    def pop(self) -> Any:
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) > floor:
            return self.stack.pop()
        self._underflow()
        return UNKNOWN

    def top(self) -> Any:
        if self.stack:
            return self.stack[-1]
        self._underflow()
        return UNKNOWN

    def _underflow(self) -> None:
        if self.trace.underflow is None:
            self.trace.underflow = self.here

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def to_mark(self) -> list[Any]:
        if not self.marks:
            self._underflow()
            taken, self.stack = self.stack, []
            return taken
        at = self.marks.pop()
        taken = self.stack[at:]
        del self.stack[at:]
        return taken

    # --- names and calls

    def odd(self, sentence: str) -> None:
        if len(self.trace.oddities) < 100:
            self.trace.oddities.append((self.here, sentence))

    def use(self, target: Any, how: str, args: Any = ()) -> None:
        if isinstance(target, Named) and target.name not in FINDERS:
            key = (target.module, target.name, how)
            self._met[key] = count = self._met.get(key, 0) + 1
            if count > _MOST_ALIKE:
                return
        if len(self.trace.uses) >= _MOST_USES:
            self._compact()
        self.trace.uses.append(Use(target, self.here, how, args))

    def _compact(self) -> None:
        """Forget uses of one name in one way beyond its first few: honest pickles name the same few things a million times."""
        kept: dict[tuple[str, str, str], int] = {}
        uses = []
        for use in self.trace.uses:
            target = use.target.root if isinstance(use.target, Made) else use.target
            if isinstance(target, Named):
                key = (target.module, target.name, use.how + (":" if use.target is not target else ""))
                kept[key] = kept.get(key, 0) + 1
                if kept[key] > 5 and target.name not in FINDERS:
                    continue
            uses.append(use)
        if len(uses) > _MOST_USES // 2:
            raise Broken(f"more than {_MOST_USES // 2:,} different names and calls")
        self.trace.uses = uses

    def named(self, module: Any, name: Any) -> None:
        if isinstance(module, str) and isinstance(name, str) and len(module) <= _LONGEST_NAME and len(name) <= _LONGEST_NAME:
            found = Named(module, name, self.here)
            self.use(found, "named")
            self.push(found)
            return
        if isinstance(module, Blob) or isinstance(name, Blob):
            raise Broken("a global whose name is no text")
        self.odd("a name that is only known when the file is loaded: it is put together on the way")
        self.push(UNKNOWN)

    def call(self, called: Any, args: Any) -> None:
        self.use(called, "called", args)
        self.push(Made(called, args))

    # --- constants

    def text(self, raw: bytes, encoding: str = "utf-8") -> None:
        value = decoded(raw, encoding)
        if self._on_text is not None and len(raw) >= self._shortest:
            self._on_text(value, self.here)
        self.push(value if len(value) <= _KEPT_TEXT else value[:_KEPT_TEXT])

    def long_text(self, nbytes: int) -> None:
        if nbytes > self.tape.left:
            raise TapeEnd(f"a text of {nbytes:,} bytes, {self.tape.left:,} are left")
        if nbytes > 64 << 20:
            self.blob(nbytes)  # too long to be a name; looked through as bytes are
            return
        self.text(self.tape.take(nbytes))

    def blob(self, nbytes: int) -> None:
        start = self.tape.skip(nbytes)
        found = Blob(start, start + nbytes)
        if self._on_blob is not None and nbytes >= self._shortest:
            self._on_blob(found)
        self.push(found)

    # --- memo

    def memoize(self, index: int) -> None:
        value = self.top()
        if not isinstance(value, str):
            self._held += 1
            if self._held > _MOST_HELD:
                raise Broken(f"more than {_MOST_HELD:,} objects are remembered")
        if index == len(self._memo) < _MOST_MEMO:
            self._memo.append(value)
        elif 0 <= index < len(self._memo):
            self._memo[index] = value
        elif len(self._sparse) < _MOST_MEMO // 5:
            self._sparse[index] = value
        else:
            raise Broken(f"more than {_MOST_MEMO:,} values are remembered")

    def next_memo(self) -> None:
        self.memoize(len(self._memo) + len(self._sparse))

    def recall(self, index: int) -> None:
        if 0 <= index < len(self._memo):
            self.push(self._memo[index])
        elif index in self._sparse:
            self.push(self._sparse[index])
        else:
            raise Broken(f"a value is recalled under number {index}, where none was remembered")

    # --- containers and states

    def into(self, items: list[Any], target: Any) -> None:
        if isinstance(target, list):
            if len(target) < KEPT_ITEMS:
                target.extend(items[:KEPT_ITEMS])
        elif isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=False):
                if isinstance(key, str) and len(target) < KEPT_ITEMS:
                    target[key] = value
        elif isinstance(target, Named):
            self.use(target, "changed", tuple(items[:4]))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Made):
            if target.state is None:
                target.state = state
            if self._inline is not None and (nbytes := self._inline(target, self.tape.at)):
                self._leave_frame(self.tape.at)
                self.tape.skip(nbytes)
        elif isinstance(target, Named):
            self.use(target, "changed", (state,))

    def construct(self, *, keywords: bool) -> None:
        kwargs = self.pop() if keywords else None
        args, cls = self.pop(), self.pop()
        args = args if isinstance(args, tuple) else (args,)
        self.call(cls, (*args, kwargs) if keywords else args)


def decoded(raw: bytes, encoding: str = "utf-8") -> str:
    """Bytes as text, and where they are none, each as a character."""
    try:
        return raw.decode(encoding, "surrogatepass")
    except UnicodeDecodeError:
        return raw.decode("latin-1")

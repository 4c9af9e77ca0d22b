"""Pickles: raw ones of every protocol, several behind each other, with anything before, between and behind them.

Covers plain pickles, PyTorch's legacy stream, joblib and whatever else is a pickle by content, under any name.
"""

import re
from collections.abc import Iterator
from typing import Final

from tensorkeep.backends.files import MemoryFile
from tensorkeep.scanning import commands
from tensorkeep.scanning.embedded import LOOKS, embedded, inflated
from tensorkeep.scanning.inline import array_bytes
from tensorkeep.scanning.judging import dangerous_call, judge, known_to_be_dangerous
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.unpickle.acts import ACTS
from tensorkeep.unpickle.trace import Blob, Made, Named, Trace, Tracer
from tensorkeep.wire.extent import Extent, Opened

NAMES: Final = frozenset(
    {
        *(".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill", ".pkl2", ".pk", ".p", ".sav", ".jbl", ".distcp"),
        *(".pdparams", ".pdopt"),
    }
)
"""What files are called that people unpickle: one that is no pickle could not be read."""

_FIRST: Final = frozenset(b"(].}N)KIJMLFSVTUXGBCcilQP\x80\x8c\x95\x96\x8d\x8e\x8f\x88\x89\x8a\x82\x83\x84")
_MOST_PICKLES: Final = 10_000
_MOST_TRIES: Final = 20_000
_WINDOW_BYTES: Final = 4 << 20
_OVERLAP_BYTES: Final = 64
_SURE_STEPS: Final = 64
_SPARE_STEPS: Final = 300_000
_MOST_INSIDE: Final = 10_000
_TEXT_BYTES: Final = 8 << 20
_SPELLED: Final = re.compile(rb"[A-Za-z0-9+/_=\\ -]{16,}\n?\Z|[A-Za-z0-9+/_=\\ -]{64}")
_LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C
_OF_TORCH: Final = ("data.pkl", "constants.pkl", ".pt", ".pth", "pickle")  # the last in the archives of tar before 0.4
_STARTS: Final = re.compile(rb"\x80[\x02-\x05][\x95c\(\]\}\x8cX\)KMUCN\x8f\x80]")
_TEXTS: Final = re.compile(
    rb"[ci](?:os|posix|nt|sys|subprocess|builtins|__builtin__|socket|runpy|importlib|pty|shutil|pickle|_pickle|commands|ctypes|webbrowser|"
    rb"operator|functools|types|marshal|platform|code|pdb|timeit|torch|numpy|requests|urllib)[\w.]{0,120}\n[A-Za-z_][\w.]{0,120}\n"
)  # bounded, else each `cos` of a long word would be followed to its end


def recognizes(thing: Thing) -> bool:
    """Whether it may be a pickle, or its name says so."""
    head = thing.head
    return not _other(head) and (head[0] in _FIRST or (not thing.tensor and thing.suffix in NAMES))


def _other(head: bytes) -> bool:
    """Whether it begins as a text does, or as another format whose mark happens to be an opcode."""
    return head.startswith(
        (b"import ", b"from ", b"class ", b"#", b"{", b"[", b"<", b"PK\3\4", b"PK\5\6", b"BZh", b"GGUF", b"\x28\xb5\x2f\xfd")
    )


def scan(thing: Thing, look: Look) -> bool:
    """Look at all pickles from the first byte on. Whether it was a pickle."""
    at, count, legacy = 0, 0, False
    nbytes = thing.extent.nbytes
    while at < nbytes and count < _MOST_PICKLES:
        scout = _Scout(thing, look)
        trace = scout.run(at)
        if not _is_pickle(trace, thing, at):
            break
        count += 1
        legacy = legacy or trace.result == _LEGACY_MAGIC
        judge(trace, thing, look, torch=legacy or thing.name.endswith(_OF_TORCH))
        scout.look_inside()
        if trace.end is None:
            look.stopped(thing.at(f"byte {trace.broken_at:,}"), f"its pickle breaks off: {trace.broken}")
            at = max(at + 1, trace.broken_at)
            break
        at = trace.end
    if at < nbytes and count:
        search(thing, look, after=at)
        commands.search_programs(thing, look, after=at)
    return count > 0


def search(thing: Thing, look: Look, *, after: int = 0, spelled: bool = False) -> bool:
    """Look for pickles at any place behind one, as some loaders skip what stands before. Whether there was one.

    Args:
        thing: where.
        look: is told.
        after: where to begin.
        spelled: whether only those of protocol 0 count that name a module of which no model needs a name.
    """
    tries, done, found = 0, after, False
    # Opcodes that may be followed in vain, all starts together.
    spare = min(_SPARE_STEPS + (thing.extent.nbytes - after) // 40, look.steps)
    for at in _starts(thing.extent, after, (_TEXTS,) if spelled else (_STARTS, _TEXTS)):
        if at < done:
            continue
        tries += 1
        if tries > _MOST_TRIES or spare < 0:
            look.stopped(thing.place, f"more than {_MOST_TRIES:,} places where a pickle may begin")
            return found
        scout = _Scout(thing, look, silent=True)
        trace = scout.run(at, most_steps=spare)
        spare -= trace.steps
        whole = trace.end is not None and trace.underflow is None and bool(trace.uses) and _sane(trace)
        if whole or dangerous_call(trace):
            judge(trace, thing, look, torch=False)
            found = True
            done = trace.end or trace.broken_at
            if trace.end is None:
                look.stopped(thing.at(f"byte {trace.broken_at:,}"), f"its pickle breaks off: {trace.broken}")
    return found


def _starts(extent: Extent, after: int, patterns: "tuple[re.Pattern[bytes], ...]") -> Iterator[int]:
    begin, before, places = after, bytes(_WINDOW_BYTES + _OVERLAP_BYTES), list[int]()  # zeros, in which none begins
    while begin < extent.nbytes:
        stop = min(begin + _WINDOW_BYTES, extent.nbytes)
        window = bytes(extent.read(begin, min(stop + _OVERLAP_BYTES, extent.nbytes)))
        if not before.startswith(window):  # bombs repeat themselves
            places = [found.start() for pattern in patterns for found in pattern.finditer(window)]
            before = window
        yield from (begin + place for place in sorted(places) if place < stop - begin)
        begin = stop


def _sane(trace: Trace) -> bool:
    return all(
        use.how != "named" or all(part.isidentifier() for part in f"{use.target.module}.{use.target.name}".split(".")) for use in trace.uses
    )


def _is_pickle(trace: Trace, thing: Thing, at: int) -> bool:
    """Whether a stream is a pickle and no chance: it ends as one, or comes far, or calls what chance does not spell."""
    if trace.end is not None and trace.underflow is None and _sane(trace):
        return trace.steps > 2 or at == 0 or bool(trace.uses)
    if dangerous_call(trace):
        return True
    if thing.tensor:
        return False
    starts = thing.head[0] == 0x80 if at == 0 else bytes(thing.extent.read(at, at + 1)) == b"\x80"
    if starts and (trace.steps >= _SURE_STEPS or (at == 0 and trace.steps > 3)):
        return True
    # A list of labels may begin with a name as well (`cat` and `dog` are `at.dog`), but it soon asks for what is not there.
    before = [use for use in trace.uses if trace.underflow is None or use.at < trace.underflow]
    named = any(use.how == "named" and (thing.suffix in NAMES or known_to_be_dangerous(use.target)) for use in before)
    return at == 0 and _sane(trace) and (named or any(use.how == "called" and isinstance(use.target, Named) for use in before))


class _Scout:
    """One pickle's trace, and what stands inside of it."""

    def __init__(self, thing: Thing, look: Look, *, silent: bool = False) -> None:
        self._thing, self._look, self._silent = thing, look, silent
        self._found: list[Thing] = []
        self._nested: list[Trace] = []

    def run(self, at: int, depth: int = 0, most_steps: int | None = None) -> Trace:
        def inline(made: Made, here: int) -> int | None:
            return self._inline(made, here, depth)

        texts = None if self._silent else self._text
        blobs = None if self._silent else self._blob
        most = self._look.steps if most_steps is None else most_steps
        trace = Tracer(self._thing.extent, at, ACTS, on_text=texts, on_blob=blobs, inline=inline, most_steps=most).run()
        self._look.steps -= trace.steps
        if depth:
            self._nested.append(trace)
        return trace

    def look_inside(self) -> None:
        for trace in self._nested:
            judge(trace, self._thing, self._look, torch=False)
        for thing in self._found:
            self._look.inside(thing)

    def _inline(self, made: Made, here: int, depth: int) -> int | None:
        extent = self._thing.extent
        found = array_bytes(made)
        if found is None:
            return None
        nbytes, padded, is_object = found
        if padded and here < extent.nbytes:
            padding = extent.read(here, here + 1)[0] + 1
        else:
            padding = 0
        if is_object:
            nested = self.run(here + padding, depth + 1) if depth < 4 and here + padding < extent.nbytes else None
            return nested.end - here if nested is not None and nested.end is not None else None
        return padding + nbytes

    def _text(self, text: str, at: int) -> None:
        head = text[:64].encode("latin-1", "replace")
        if LOOKS.match(head) and len(self._found) < _MOST_INSIDE:  # bytes, as protocols 0 to 2 write them
            self._found.append(of_bytes(self._thing, text.encode("latin-1", "replace"), f"text at byte {at:,}"))
        for kind, data in embedded(text):
            if len(self._found) < _MOST_INSIDE:
                self._found.append(of_bytes(self._thing, data, f"{kind} at byte {at:,}"))

    def _blob(self, blob: Blob) -> None:
        extent, thing = self._thing.extent, self._thing
        head = bytes(extent.read(blob.start, min(blob.start + 64, blob.stop)))
        if LOOKS.match(head):
            if len(self._found) >= _MOST_INSIDE:
                self._look.stopped(thing.place, f"more than {_MOST_INSIDE:,} runs of bytes that look like pickles or archives")
                return
            part = extent.part(blob.start, blob.stop)
            self._found.append(Thing(part, thing.at(f"bytes at {blob.start:,}"), "", depth=thing.depth + 1, tensor=True))
        elif head[:1] == b"x" and blob.stop - blob.start <= _TEXT_BYTES:
            data = bytes(extent.read(blob.start, blob.stop))
            if (made := inflated(data)) is not data and len(self._found) < _MOST_INSIDE:
                self._found.append(of_bytes(thing, made, f"zlib at byte {blob.start:,}"))
        elif blob.stop - blob.start <= _TEXT_BYTES and _SPELLED.match(head):  # `base64.b64encode` gives bytes, and no text
            self._text(str(extent.read(blob.start, blob.stop), "latin-1"), blob.start)


def of_bytes(thing: Thing, data: bytes, place: str) -> Thing:
    """What bytes hold that were made on the way."""
    extent = Opened(MemoryFile(memoryview(data), thing.extent.name), mmap=False).whole()
    return Thing(extent, thing.at(place), "", depth=thing.depth + 1, tensor=True)

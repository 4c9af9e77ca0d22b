"""Acts: what each opcode does in a trace, in a table.

Source: CPython's `Lib/pickletools.py`.
"""

import codecs
from collections.abc import Callable
from typing import Any, Final

from tensorkeep.unpickle.spelled import FLOATS, INTS, LONGS, Kind
from tensorkeep.unpickle.trace import KEPT_ITEMS, UNKNOWN, Act, Broken, Made, Stopped, Tracer, decoded

_LONGEST_NAME: Final = 4096  # bytes of a line that names something


def _quoted(raw: bytes) -> bytes:
    """What a STRING opcode says: its quotes and escapes taken away."""
    raw = raw.strip()
    if len(raw) >= 2 and raw[:1] == raw[-1:] and raw[:1] in (b"'", b'"'):
        raw = raw[1:-1]
    if b"\\" not in raw:
        return raw
    try:
        return codecs.unicode_escape_decode(raw)[0].encode("latin-1", "replace")
    except UnicodeDecodeError:
        return raw


def _raw_unicode(raw: bytes) -> str:
    try:
        return codecs.raw_unicode_escape_decode(raw)[0]
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _stop(t: Tracer) -> None:
    t.trace.result = t.pop()
    raise Stopped


def _text_int(line: bytes) -> Any:
    if len(line) > 200:
        return UNKNOWN
    line = line.strip()
    if line in (b"00", b"01"):
        return line == b"01"
    try:
        return int(line.rstrip(b"L"), 0)
    except ValueError:
        raise Broken("a number that is none") from None


def _index(line: bytes) -> int:
    if len(line) > 20:
        raise Broken("a number in the memo that is none")
    try:
        return int(line)
    except ValueError:
        raise Broken("a number in the memo that is none") from None


def _numbers(t: Tracer, kind: Kind, otherwise: Callable[[Tracer], None]) -> None:
    """A run of numbers that are spelled out; one that is spelled in another way as it may be."""
    run = t.tape.numbers(kind)
    if run is None:
        otherwise(t)
    elif run.appended:
        t.into(run.values, t.top())
    else:
        t.push_all(run.values)


def _int_text(t: Tracer) -> None:
    t.push(_text_int(t.tape.line()))


def _float_text(t: Tracer) -> None:
    line = t.tape.line()
    try:
        t.push(float(line))
    except ValueError:
        raise Broken("a number that is none") from None


def _long(t: Tracer, width: int) -> None:
    nbytes = t.tape.number(width)
    if nbytes > 64:
        t.tape.skip(nbytes)
        t.push(UNKNOWN)
    else:
        t.push(int.from_bytes(t.tape.take(nbytes), "little", signed=True))


def _global(t: Tracer) -> None:
    module, name = t.tape.line(_LONGEST_NAME), t.tape.line(_LONGEST_NAME)
    t.named(decoded(module, "utf-8"), decoded(name, "utf-8"))


def _stack_global(t: Tracer) -> None:
    name, module = t.pop(), t.pop()
    t.named(module, name)


def _inst(t: Tracer) -> None:
    module, name = t.tape.line(_LONGEST_NAME), t.tape.line(_LONGEST_NAME)
    args = tuple(t.to_mark())
    t.named(decoded(module, "utf-8"), decoded(name, "utf-8"))
    t.call(t.pop(), args)


def _obj(t: Tracer) -> None:
    taken = t.to_mark()
    t.call(taken[0] if taken else UNKNOWN, tuple(taken[1:]))


def _reduce(t: Tracer) -> None:
    args, called = t.pop(), t.pop()
    t.call(called, args if isinstance(args, tuple) else (UNKNOWN,))


def _extension(t: Tracer, width: int) -> None:
    code = t.tape.number(width)
    t.odd(f"a name by its number in Python's extension registry: {code}")
    t.push(UNKNOWN)


def _persid(t: Tracer, value: Any) -> None:
    if len(t.trace.persistent) < 1000:
        t.trace.persistent.append((t.here, value))
    t.push(Made("persistent", (value,)))


def _pop(t: Tracer) -> None:
    if t.marks and t.marks[-1] == len(t.stack):
        t.marks.pop()
    else:
        t.pop()


def _pop_mark(t: Tracer) -> None:
    t.to_mark()


def _append(t: Tracer) -> None:
    value = t.pop()
    t.into([value], t.top())


def _setitem(t: Tracer) -> None:
    value, key = t.pop(), t.pop()
    t.into([key, value], t.top())


def _many(t: Tracer) -> None:
    items = t.to_mark()
    t.into(items, t.top())


def _tuple_of(t: Tracer, count: int) -> None:
    taken = [t.pop() for _ in range(count)]
    t.push(tuple(reversed(taken)))


def _dict(t: Tracer) -> None:
    items = t.to_mark()
    made: dict[str, Any] = {}
    t.into(items, made)
    t.push(made)


def _bytes_text(t: Tracer, nbytes: int) -> None:
    """BINSTRING: bytes of Python 2, which Python 3 reads as text."""
    if nbytes > 1 << 20:
        t.blob(nbytes)
    else:
        t.text(t.tape.take(nbytes), "latin-1")


def _proto(t: Tracer) -> None:
    version = t.tape.byte()
    if version > 5:
        raise Broken(f"protocol {version}, which no Python knows")


def _nothing(t: Tracer) -> None:
    """READONLY_BUFFER."""


def _signed(t: Tracer, width: int) -> int:
    value = t.tape.number(width)
    if value >= 1 << (8 * width - 1):
        raise Broken("a negative length")
    return value


ACTS: Final[list[Act | None]] = [None] * 256
_TABLE: Final[dict[bytes, Act]] = {
    b"(": Tracer.mark,
    b".": _stop,
    b"0": _pop,
    b"1": _pop_mark,
    b"2": lambda t: t.push(t.top()),
    b"F": lambda t: _numbers(t, FLOATS, _float_text),
    b"I": lambda t: _numbers(t, INTS, _int_text),
    b"J": lambda t: t.push(int.from_bytes(t.tape.take(4), "little", signed=True)),
    b"K": lambda t: t.push(t.tape.byte()),
    b"L": lambda t: _numbers(t, LONGS, _int_text),
    b"M": lambda t: t.push(t.tape.number(2)),
    b"N": lambda t: t.push(None),
    b"P": lambda t: _persid(t, decoded(t.tape.line(), "utf-8")),
    b"Q": lambda t: _persid(t, t.pop()),
    b"R": _reduce,
    b"S": lambda t: t.text(_quoted(t.tape.line()), "latin-1"),
    b"T": lambda t: _bytes_text(t, _signed(t, 4)),
    b"U": lambda t: _bytes_text(t, t.tape.byte()),
    b"V": lambda t: t.text(_raw_unicode(t.tape.line()).encode("utf-8", "surrogatepass")),
    b"X": lambda t: t.long_text(t.tape.number(4)),
    b"a": _append,
    b"b": Tracer.build,
    b"c": _global,
    b"d": _dict,
    b"}": lambda t: t.push({}),
    b"e": _many,
    b"g": lambda t: t.recall(_index(t.tape.line())),
    b"h": lambda t: t.recall(t.tape.byte()),
    b"i": _inst,
    b"j": lambda t: t.recall(t.tape.number(4)),
    b"l": lambda t: t.push(t.to_mark()[:KEPT_ITEMS]),
    b"]": lambda t: t.push([]),
    b"o": _obj,
    b"p": lambda t: t.memoize(_index(t.tape.line())),
    b"q": lambda t: t.memoize(t.tape.byte()),
    b"r": lambda t: t.memoize(t.tape.number(4)),
    b"s": _setitem,
    b"t": lambda t: t.push(tuple(t.to_mark())),
    b")": lambda t: t.push(()),
    b"u": _many,
    b"G": lambda t: t.push(t.tape.take(8) and 0.0),
    b"\x80": _proto,
    b"\x81": lambda t: t.construct(keywords=False),
    b"\x82": lambda t: _extension(t, 1),
    b"\x83": lambda t: _extension(t, 2),
    b"\x84": lambda t: _extension(t, 4),
    b"\x85": lambda t: _tuple_of(t, 1),
    b"\x86": lambda t: _tuple_of(t, 2),
    b"\x87": lambda t: _tuple_of(t, 3),
    b"\x88": lambda t: t.push(True),
    b"\x89": lambda t: t.push(False),
    b"\x8a": lambda t: _long(t, 1),
    b"\x8b": lambda t: _long(t, 4),
    b"B": lambda t: t.blob(t.tape.number(4)),
    b"C": lambda t: t.blob(t.tape.byte()),
    b"\x8c": lambda t: t.text(t.tape.take(t.tape.byte())),
    b"\x8d": lambda t: t.long_text(t.tape.number(8)),
    b"\x8e": lambda t: t.blob(t.tape.number(8)),
    b"\x8f": lambda t: t.push([]),
    b"\x90": _many,
    b"\x91": lambda t: t.push(t.to_mark()[:KEPT_ITEMS]),
    b"\x92": lambda t: t.construct(keywords=True),
    b"\x93": _stack_global,
    b"\x94": Tracer.next_memo,
    b"\x95": Tracer.frame,
    b"\x96": lambda t: t.blob(t.tape.number(8)),
    b"\x97": lambda t: t.push(UNKNOWN),
    b"\x98": _nothing,
}
for _opcode, _act in _TABLE.items():
    ACTS[_opcode[0]] = _act

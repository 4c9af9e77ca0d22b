"""The opcodes that the loop does not do itself: a function each, which takes the state and the place behind the opcode, and gives
the place from where to go on.

Each accepts what pickle itself writes and refuses all else.
Source: https://github.com/python/cpython/blob/main/Lib/pickletools.py, which describes every opcode.
"""

from collections import deque
from typing import Any, Final

from tensorkeep.errors import CUT_SHORT
from tensorkeep.unpickle import objects
from tensorkeep.unpickle.inert import Inert
from tensorkeep.unpickle.literals import decimal, float_of, int_of, quoted, raw_unicode
from tensorkeep.unpickle.objects import Handler, items_of, number
from tensorkeep.unpickle.spelled import FLOATS, INTS, LONGS, Run, numbers
from tensorkeep.unpickle.state import State

_NEWEST: Final = 5  # protocol
_SHORT_LINE: Final = 10  # bytes of a number of the memo, with the end of its line
_SET_BYTES: Final = 4  # containers that an empty set counts for


# Numbers and texts


def _proto(state: State, at: int) -> int:
    if state.data[at] > _NEWEST:
        raise state.error(at, f"protocol {state.data[at]}; the newest known is {_NEWEST}", hint="A newer release may read it.")
    return at + 1


def _frame(state: State, at: int) -> int:
    length = number(state, at, 8)
    left = state.extent.nbytes - state.base - at - 8
    if length > left:
        raise state.error(at, f"a frame would take {length:,} bytes, {left:,} are left", hint=CUT_SHORT)
    return at + 8


def _numbers(state: State, run: Run) -> int:
    if run.appended:
        extend(state, run.end, state.stack[-1], run.values)
    else:
        state.stack += run.values
    return run.end


def _int(state: State, at: int) -> int:
    if (run := numbers(INTS, state.data, at)) is not None:
        return _numbers(state, run)
    data, end = state.line(at, "an int")
    state.stack.append(int_of(data, state, at))
    return end


def _long(state: State, at: int) -> int:
    if (run := numbers(LONGS, state.data, at)) is not None:
        return _numbers(state, run)
    data, end = state.line(at, "an int")
    state.stack.append(int_of(data.removesuffix(b"L"), state, at, plain=True))
    return end


def _long1(state: State, at: int) -> int:
    nbytes = state.data[at]
    state.stack.append(number(state, at + 1, nbytes, signed=True))
    return at + 1 + nbytes


def _long4(state: State, at: int) -> int:
    data, end = state.take(at + 4, number(state, at, 4, signed=True), "an int")
    state.stack.append(int.from_bytes(data, "little", signed=True))
    return end


def _float(state: State, at: int) -> int:
    if (run := numbers(FLOATS, state.data, at)) is not None:
        return _numbers(state, run)
    data, end = state.line(at, "a float")
    state.stack.append(float_of(data, state, at))
    return end


def _string(state: State, at: int) -> int:
    data, end = state.line(at, "a text")
    state.stack.append(quoted(data, state, at))
    return end


def _bytes_of(width: int, kind: Any, *, signed: bool = False) -> Handler:
    """BINBYTES and its like: a length of so many bytes, and as many bytes."""

    def opcode(state: State, at: int) -> int:
        made, end = state.lump(at + width, number(state, at, width, signed=signed), kind)
        state.stack.append(made)
        return end

    return opcode


def _text_of(width: int) -> Handler:
    def opcode(state: State, at: int) -> int:
        data, end = state.take(at + width, number(state, at, width), "a text")
        state.stack.append(state.text(data, at))
        return end

    return opcode


def _unicode(state: State, at: int) -> int:
    data, end = state.line(at, "a text")
    state.stack.append(raw_unicode(data, state, at))
    return end


# The stack


def _pop(state: State, at: int) -> int:
    if state.stack:
        state.stack.pop()
    else:
        items_of(state, at)
    return at


def _pop_mark(state: State, at: int) -> int:
    items_of(state, at)
    return at


def _dup(state: State, at: int) -> int:
    state.stack.append(state.stack[-1])
    return at


def _put(state: State, at: int) -> int:
    data, end = state.line(at, "a number of the memo")
    state.put(decimal(data, state, at), at)
    return end


def _get(state: State, at: int) -> int:
    stop = state.data.find(b"\n", at, at + _SHORT_LINE)
    if stop > at and not state.gaps and (text := state.data[at:stop]).isdigit() and (index := int(text)) < len(state.memo):
        state.stack.append(state.memo[index])
        return stop + 1
    data, end = state.line(at, "a number of the memo")
    state.stack.append(state.get(decimal(data, state, at), at))
    return end


# Containers


def _list(state: State, at: int) -> int:
    items = items_of(state, at)
    state.stack.append(items)
    return at


def _dict(state: State, at: int) -> int:
    items = items_of(state, at)
    made: dict[Any, Any] = {}
    state.keys.update(made, items)
    state.containers += 1
    state.stack.append(made)
    return at


def _empty_set(state: State, at: int) -> int:
    state.containers += _SET_BYTES
    state.stack.append(set())
    return at


def _frozenset(state: State, at: int) -> int:
    items = items_of(state, at)
    made: set[Any] = set()
    state.keys.add(made, items)
    state.containers += _SET_BYTES + len(items) // 2
    state.stack.append(frozenset(made))
    return at


def _additems(state: State, at: int) -> int:
    items = items_of(state, at)
    target = state.stack[-1]
    if type(target) is set:
        state.keys.add(target, items)
    elif type(target) is Inert:
        _extend(state, target, items)
    else:
        raise state.error(at, f"items are added to a {type(target).__name__}")
    return at


def _append(state: State, at: int) -> int:
    item = state.stack.pop()
    extend(state, at, state.stack[-1], [item])
    return at


def extend(state: State, at: int, target: Any, items: list[Any]) -> None:
    """Append items to what takes them."""
    if type(target) is list or type(target) is deque:
        target.extend(items)
    elif type(target) is Inert:
        _extend(state, target, items)
    else:
        raise state.error(at, f"items are appended to a {type(target).__name__}")


def _extend(state: State, target: Inert, items: list[Any]) -> None:
    if target.items is None:
        target.items = []
        state.containers += 1
    target.items.extend(items)


def _setitem(state: State, at: int) -> int:
    value = state.stack.pop()
    key = state.stack.pop()
    set_items(state, at, state.stack[-1], [key, value])
    return at


def set_items(state: State, at: int, target: Any, flat: list[Any]) -> None:
    """Set keys and values in what takes them."""
    if type(target) is Inert:
        if target.entries is None:
            target.entries = {}
            state.containers += 1
        target = target.entries
    elif not isinstance(target, dict):
        raise state.error(at, f"items are set in a {type(target).__name__}")
    state.containers += 1 + len(flat) // 4  # the places of a dict
    state.keys.update(target, flat)


HANDLERS: Final[dict[int, Handler]] = {
    0x80: _proto,
    0x95: _frame,
    ord("I"): _int,
    ord("L"): _long,
    0x8A: _long1,
    0x8B: _long4,
    ord("F"): _float,
    ord("S"): _string,
    ord("T"): _bytes_of(4, "str", signed=True),
    ord("U"): _bytes_of(1, "str"),
    ord("B"): _bytes_of(4, "bytes"),
    ord("C"): _bytes_of(1, "bytes"),
    0x8E: _bytes_of(8, "bytes"),
    0x96: _bytes_of(8, "bytearray"),
    ord("V"): _unicode,
    ord("X"): _text_of(4),
    0x8C: _text_of(1),
    0x8D: _text_of(8),
    ord("0"): _pop,
    ord("1"): _pop_mark,
    ord("2"): _dup,
    ord("p"): _put,
    ord("g"): _get,
    ord("l"): _list,
    ord("d"): _dict,
    0x8F: _empty_set,
    0x91: _frozenset,
    0x90: _additems,
    ord("a"): _append,
    ord("s"): _setitem,
    ord("c"): objects.global_,
    0x93: objects.stack_global,
    0x82: objects.extension_of(1),
    0x83: objects.extension_of(2),
    0x84: objects.extension_of(4),
    ord("R"): objects.reduce,
    0x81: objects.newobj,
    0x92: objects.newobj_ex,
    ord("i"): objects.inst,
    ord("o"): objects.obj,
    ord("b"): objects.build,
    ord("P"): objects.persid,
    ord("Q"): objects.binpersid,
    0x97: objects.next_buffer,
    0x98: objects.readonly_buffer,
}
"""By opcode; the others are in the loop."""

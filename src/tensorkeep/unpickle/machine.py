"""The pickle machine: runs every opcode of protocols 0 to 5, imports nothing and calls nothing that the file names.

A global becomes a `Global`, and what calling it would have given an `Inert`, unless the closed table that the caller passes has a
constructor of ours for exactly that module and name.

Lives here: the loop, and the opcodes that genuine files have most of. Lives elsewhere: the others (opcodes), what they share (state),
the tables (plain, arrays), and how the answer becomes a tree (finish).
Source: https://github.com/python/cpython/blob/main/Lib/pickletools.py, which describes every opcode.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.unpickle.inert import LUMP_BYTES, Constructor, Global, Inert, Keyed, Lump, Pending
from tensorkeep.unpickle.keys import SHORT_TEXT
from tensorkeep.unpickle.objects import Handler, reduce
from tensorkeep.unpickle.opcodes import HANDLERS, extend, set_items
from tensorkeep.unpickle.state import State, Table
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.extent import Extent

__all__ = ["Constructor", "Global", "Inert", "Keyed", "Lump", "Pending", "Result", "run"]

_u16: Final = struct.Struct("<H").unpack_from
_i32: Final = struct.Struct("<i").unpack_from
_u32: Final = struct.Struct("<I").unpack_from
_f64: Final = struct.Struct(">d").unpack_from

_DEEPER: Final = "If you trust it, pass limits=tk.Limits(depth=...)."
_HANDLERS: Final[list[Handler | None]] = [HANDLERS.get(code) for code in range(256)]


class Result(NamedTuple):
    """What a pickle holds.

    Attributes:
        value: raw: pure data, `LazyTensor`, and what `finish` turns into nodes of a tree.
        end: the place behind its STOP, in bytes from the start of the extent.
    """

    value: Any
    end: int


def run(
    extent: Extent,
    constructors: Table,
    *,
    at: int = 0,
    limits: Limits = DEFAULT_LIMITS,
    budget: Budget,
    persistent: Callable[[Any], object] | None = None,
    buffers: Iterable[object] = (),
) -> Result:
    """Run one pickle.

    Args:
        extent: where it is.
        constructors: the closed table, by module and name.
        at: where it begins.
        limits: `opcodes`, `values` and `depth`.
        budget: of what is made from the file.
        persistent: what stands for a persistent id; without it an `Inert` does.
        buffers: the bytes of arrays that come beside a pickle of protocol 5, as extents or bytes.

    Raises:
        FormatError: it breaks the format, or a limit.
    """
    state = State(
        extent, constructors, at=at, limits=limits, budget=budget, persistent=persistent, buffers=buffers
    )  # fmt: skip
    return _loop(state)


def _loop(state: State) -> Result:
    """All opcodes up to STOP.

    One long function, for a call costs as much as an opcode. Its opcodes stand in three groups by their number, those that genuine
    files have most of first in each.
    """
    stack, marks, memo, data, soft = state.stack, state.marks, state.memo, state.data, state.soft
    at = op = made = 0  # made: containers, which the state counts when a window ends
    try:
        for _ in state.steps:
            if at >= soft:
                state.containers, made = state.containers + made, 0
                at = state.refill(at)
                data, soft = state.data, state.soft
            op = data[at]
            at += 1
            if op >= 0x80:
                if op == 0x94:  # MEMOIZE
                    if state.gaps:
                        state.put(state.remembered, at)
                    else:
                        memo.append(stack[-1])
                    continue
                if op == 0x8C:  # SHORT_BINUNICODE
                    stop = at + 1 + data[at]
                    try:
                        stack.append(data[at + 1 : stop].decode())
                    except UnicodeDecodeError:
                        stack.append(state.text(data[at + 1 : stop], at))
                    at = stop
                    continue
                if op == 0x86:  # TUPLE2
                    made += 1
                    second = stack.pop()
                    stack[-1] = (stack[-1], second)
                    continue
                if op == 0x85:  # TUPLE1
                    made += 1
                    stack[-1] = (stack[-1],)
                    continue
                if op == 0x89:  # NEWFALSE
                    stack.append(False)
                    continue
                if op == 0x88:  # NEWTRUE
                    stack.append(True)
                    continue
                if op == 0x87:  # TUPLE3
                    made += 1
                    third = stack.pop()
                    second = stack.pop()
                    stack[-1] = (stack[-1], second, third)
                    continue
            elif op >= 0x60:
                if op == 0x68:  # BINGET
                    index = data[at]
                    at += 1
                    stack.append(memo[index] if index < len(memo) and not state.gaps else state.get(index, at))
                    continue
                if op == 0x72:  # LONG_BINPUT
                    (index,) = _u32(data, at)
                    at += 4
                    if index == len(memo) and not state.gaps:
                        memo.append(stack[-1])
                    else:
                        state.put(index, at)
                    continue
                if op == 0x71:  # BINPUT
                    index = data[at]
                    at += 1
                    if index == len(memo) and not state.gaps:
                        memo.append(stack[-1])
                    else:
                        state.put(index, at)
                    continue
                if op == 0x6A:  # LONG_BINGET
                    (index,) = _u32(data, at)
                    at += 4
                    stack.append(memo[index] if index < len(memo) and not state.gaps else state.get(index, at))
                    continue
                if op == 0x74:  # TUPLE
                    items = tuple(stack)
                    stack = state.stack = marks.pop()
                    stack.append(items)
                    continue
                if op == 0x75:  # SETITEMS
                    items_list, stack = stack, marks.pop()
                    state.stack = stack
                    set_items(state, at, stack[-1], items_list)
                    continue
                if op == 0x7D:  # EMPTY_DICT
                    made += 1
                    stack.append({})
                    continue
                if op == 0x65:  # APPENDS
                    items_list, stack = stack, marks.pop()
                    state.stack = stack
                    extend(state, at, stack[-1], items_list)
                    continue
            else:
                if op == 0x4B:  # BININT1
                    stack.append(data[at])
                    at += 1
                    continue
                if op == 0x58:  # BINUNICODE
                    (length,) = _u32(data, at)
                    stop = at + 4 + length
                    if length < SHORT_TEXT and stop <= state.size:
                        try:
                            stack.append(data[at + 4 : stop].decode())
                        except UnicodeDecodeError:
                            stack.append(state.text(data[at + 4 : stop], at))
                        at = stop
                        continue
                elif op == 0x42:  # BINBYTES
                    (length,) = _u32(data, at)
                    stop = at + 4 + length
                    if length < LUMP_BYTES and stop <= state.size:
                        stack.append(data[at + 4 : stop])
                        at = stop
                        continue
                elif op == 0x28:  # MARK
                    made += 1
                    if len(marks) >= state.most_marks:
                        raise state.error(at, f"{len(marks):,} marks inside each other", hint=_DEEPER)
                    marks.append(stack)
                    stack = state.stack = []
                    continue
                elif op == 0x4A:  # BININT
                    stack += _i32(data, at)
                    at += 4
                    continue
                elif op == 0x4D:  # BININT2
                    stack += _u16(data, at)
                    at += 2
                    continue
                elif op == 0x47:  # BINFLOAT
                    stack += _f64(data, at)
                    at += 8
                    continue
                elif op == 0x52:  # REDUCE
                    at = reduce(state, at)
                    continue
                elif op == 0x29:  # EMPTY_TUPLE
                    stack.append(())
                    continue
                elif op == 0x4E:  # NONE
                    stack.append(None)
                    continue
                elif op == 0x5D:  # EMPTY_LIST
                    made += 1
                    stack.append([])
                    continue
                elif op == 0x2E:  # STOP
                    value = stack.pop()
                    state.containers += made
                    state.charge(at)
                    return Result(value, state.base + at)
            handler = _HANDLERS[op]
            if handler is None:
                raise state.error(at, f"the byte {op:#04x}, which is no opcode")
            at = handler(state, at)
            stack, data, soft = state.stack, state.data, state.soft
    except IndexError:
        raise state.error(at, f"opcode {op:#04x} takes more from the stack than is on it") from None
    raise state.error(at, f"more than {state.limits.opcodes:,} opcodes", hint="If you trust it, pass limits=tk.Limits(opcodes=...).")

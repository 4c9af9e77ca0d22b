"""Opcodes of globals and objects: what names a class, what would call it, and what comes from outside of the pickle.

Lives elsewhere: numbers, texts, containers and the table of all (opcodes).
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from tensorkeep.errors import TensorkeepError
from tensorkeep.unpickle.inert import Followed, Global, Inert, Lump, Pending
from tensorkeep.unpickle.state import WRONG, State
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent

_MOST_STATES: Final = 16  # pickle itself writes one

Handler = Callable[[State, int], int]


def number(state: State, at: int, nbytes: int, *, signed: bool = False) -> int:
    """A little-endian number of the pickle."""
    return int.from_bytes(state.data[at : at + nbytes], "little", signed=signed)


def items_of(state: State, at: int) -> list[Any]:
    """What was pushed since the last mark, which goes too."""
    if not state.marks:
        raise state.error(at, "no mark is on the stack")
    items, state.stack = state.stack, state.marks.pop()
    return items


def _name(state: State, data: bytes, at: int) -> str:
    if len(data) > 4096:
        raise state.error(at, f"a name of {len(data):,} bytes")
    return state.text(data, at)


def global_(state: State, at: int) -> int:
    module, end = state.line(at, "the module of a global")
    name, end = state.line(end, "the name of a global")
    state.stack.append(state.named(_name(state, module, end), _name(state, name, end)))
    return end


def stack_global(state: State, at: int) -> int:
    name = state.stack.pop()
    module = state.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise state.error(at, f"a global named by a {type(module).__name__} and a {type(name).__name__}")
    state.stack.append(state.named(module, name))
    return at


def extension_of(width: int) -> Handler:
    """EXT1, EXT2, EXT4: a number that `copyreg` would know. What it stands for is not in the file."""

    def opcode(state: State, at: int) -> int:
        code = number(state, at, width, signed=width == 4)
        if code <= 0:
            raise state.error(at, f"the extension {code}; they count from 1")
        state.stack.append(state.named("copyreg", f"extension {code}"))
        return at + width

    return opcode


def reduce(state: State, at: int) -> int:
    args = state.stack.pop()
    state.stack[-1] = state.call(state.stack[-1], args, at, "REDUCE")
    return at


def newobj(state: State, at: int) -> int:
    args = state.stack.pop()
    state.stack[-1] = state.call(state.stack[-1], args, at, "NEWOBJ")
    return at


def newobj_ex(state: State, at: int) -> int:
    kwargs = state.stack.pop()
    args = state.stack.pop()
    if type(kwargs) is not dict:
        raise state.error(at, f"NEWOBJ_EX with a {type(kwargs).__name__} as keyword arguments; a dict is wanted")
    cls = state.stack[-1]
    if kwargs and type(cls) is Global:  # no constructor takes any
        cls = Global(cls.module, cls.name)
    made = state.call(cls, args, at, "NEWOBJ_EX")
    if kwargs and type(made) is Inert:
        made.kwargs = kwargs
    state.stack[-1] = made
    return at


def inst(state: State, at: int) -> int:
    module, end = state.line(at, "the module of a class")
    name, end = state.line(end, "the name of a class")
    cls = state.named(_name(state, module, end), _name(state, name, end))
    args = tuple(items_of(state, end))
    state.stack.append(state.call(cls, args, end, "INST"))
    return end


def obj(state: State, at: int) -> int:
    items = items_of(state, at)
    if not items:
        raise state.error(at, "OBJ without a class")
    state.stack.append(state.call(items[0], tuple(items[1:]), at, "OBJ"))
    return at


def build(state: State, at: int) -> int:
    given = state.stack.pop()
    top = state.stack[-1]
    if isinstance(top, Followed):
        cursor = Cursor(state.extent, state.base + at)
        made = state.guarded(lambda: top.build_before(given, cursor), type(top).__name__, at)
        if made is not None:
            state.stack[-1] = made
        return at if cursor.at == state.base + at else state.move(cursor.at)
    if isinstance(top, Pending):
        try:  # not `guarded`: a file may have very many arrays, and a function made for each takes its time
            made = top.build(given)
        except TensorkeepError:
            raise
        except WRONG as error:
            raise state.wrong(type(top).__name__, error, at) from None
        if made is not None:
            state.stack[-1] = made
        return at
    if type(top) is Inert:
        if top.states is None:
            top.states = []
            state.containers += 1
        if len(top.states) >= _MOST_STATES:
            raise state.error(at, f"a {_MOST_STATES + 1}th state for one object")
        top.states.append(given)
    elif type(top) is OrderedDict:
        _attributes(state, at, top, given)
    else:
        raise state.error(at, f"a state is given to a {type(top).__name__}")
    return at


def _attributes(state: State, at: int, target: Any, given: object) -> None:
    """PyTorch gives the dict of a module's state an attribute: the versions of its parts. No other is kept, for it might hide a method."""
    if type(given) is not dict:
        raise state.error(at, f"an OrderedDict is given a {type(given).__name__} as its attributes")
    metadata = given.get("_metadata")
    if isinstance(metadata, dict):
        target._metadata = metadata


# From outside


def persid(state: State, at: int) -> int:
    data, end = state.line(at, "a persistent id")
    state.stack.append(_persistent(state, state.text(data, end), end))
    return end


def binpersid(state: State, at: int) -> int:
    state.stack[-1] = _persistent(state, state.stack[-1], at)
    return at


def _persistent(state: State, pid: object, at: int) -> object:
    if state.persistent is None:
        state.containers += 2
        return Inert("pickle", "persistent_load", (pid,))
    persistent = state.persistent
    return state.guarded(lambda: persistent(pid), "a persistent id", at)


def next_buffer(state: State, at: int) -> int:
    found = next(state.buffers, None)
    if found is None:
        raise state.error(at, "an array whose bytes were to come beside the pickle, and are not there")
    state.stack.append(Lump(found, "bytes", state.budget) if isinstance(found, Extent) else found)
    return at


def readonly_buffer(state: State, at: int) -> int:
    if type(state.stack[-1]) not in (Lump, bytes, bytearray):
        raise state.error(at, f"a {type(state.stack[-1]).__name__} as a buffer")
    return at

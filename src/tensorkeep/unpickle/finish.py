"""Finishing: raw objects of the machine become a tree.

Inert objects become stubs, pending ones their value. What is shared in the pickle stays shared, and is counted each time it is met; an
object that holds itself is cut there, and a plain container that does is refused.
"""

from collections import OrderedDict, defaultdict, deque
from typing import Any, Final

from tensorkeep.errors import FormatError, TensorkeepError, shown
from tensorkeep.limits import Limits
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Stub, Tree, like, name_of
from tensorkeep.unpickle.inert import Global, Inert, Lump, Pending
from tensorkeep.unpickle.keys import fill
from tensorkeep.unpickle.state import WRONG

_FREE: Final = 500_000  # values, shared ones counted each time, in a small pickle ...
_EACH: Final = 16  # ... and for each value that it holds. Genuine files share little beside leaves
_MOST_NOTES: Final = 20

_LEAVES: Final = frozenset({str, int, float, bool, type(None), bytes, complex})
_OBJECTS: Final = (Inert, Pending)


def finish(value: Any, *, file: str, limits: Limits) -> tuple[Tree, list[str]]:
    """The tree of what a pickle holds, and what was cut, a sentence each.

    Raises:
        FormatError: a plain container holds itself, or a limit is passed.
    """
    finishing = _Finishing(file, limits)
    try:
        return finishing.node(value, None, 0), finishing.notes
    except RecursionError:
        raise FormatError(file, f"nested deeper than Python can follow, within a limit of {limits.depth:,}") from None


Way = tuple[Any, Any] | None
"""The way to a node: the way to its parent, and its key. It becomes a path where a sentence needs one."""


def _path(way: Way) -> str:
    keys: list[str] = []
    while way is not None:
        way, key = way
        keys.append(name_of(key))
    return shown(".".join(reversed(keys))) or "the whole"


class _Finishing:
    """One walk over the raw objects. Lists and dicts are finished in place."""

    def __init__(self, file: str, limits: Limits) -> None:
        self.file, self.limits = file, limits
        self.notes: list[str] = []
        self.met = 0  # values, shared ones counted each time
        self.distinct = 0
        self._done: dict[int, tuple[Tree, int, Any]] = {}  # by id: the node, the values in it, and the raw object, which keeps its id
        self._keys: dict[int, Stub] = {}  # by id: what stands for an object that is a key
        self._open: dict[int, int] = {}  # by id: how many objects were open when this was opened
        self._objects = 0

    def node(self, raw: Any, way: Way, depth: int) -> Tree:
        kind = type(raw)
        if kind in _LEAVES or kind is LazyTensor:
            self._count(1)
            return raw
        if (done := self._done.get(id(raw))) is not None:
            self._count(done[1], again=True)
            return done[0]
        if id(raw) in self._open:
            return self._cut(raw, way)
        if depth > self.limits.depth:
            raise FormatError(
                self.file,
                f"{_path(way)}: nested deeper than {self.limits.depth}",
                hint="If you trust it, pass limits=tk.Limits(depth=...).",
            )
        before = self.met
        self._count(1)
        is_object = isinstance(raw, _OBJECTS)
        self._open[id(raw)] = self._objects
        self._objects += is_object
        made = self._made(raw, way, depth)
        self._objects -= is_object
        del self._open[id(raw)]
        self._done[id(raw)] = (made, self.met - before, raw)
        return made

    def _count(self, values: int, *, again: bool = False) -> None:
        self.met += values
        self.distinct += 0 if again else values
        if self.met > min(self.limits.values, _FREE + _EACH * self.distinct):
            raise FormatError(self.file, f"{self.met:,} values, what is shared counted each time, and {self.distinct:,} without")

    def _cut(self, raw: Any, way: Way) -> Tree:
        """What stands where something leads back to itself."""
        if self._objects == self._open[id(raw)]:
            raise FormatError(self.file, f"{_path(way)} leads back to itself")
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(f"{_path(way)}: leads back to what holds it, and was cut there")
        if isinstance(raw, Inert):
            return Stub(raw.module, raw.name)
        return Stub("builtins", type(raw).__name__)

    def _made(self, raw: Any, way: Way, depth: int) -> Tree:
        if isinstance(raw, dict):
            return self._dict(raw, way, depth)
        if isinstance(raw, (list, deque)):
            if not _LEAVES.issuperset(map(type, raw)):
                for number, item in enumerate(raw):
                    raw[number] = self.node(item, (way, number), depth + 1)
            else:
                self._count(len(raw))
            return raw
        if type(raw) is tuple:
            items = [self.node(item, (way, number), depth + 1) for number, item in enumerate(raw)]
            return raw if all(new is old for new, old in zip(items, raw, strict=True)) else tuple(items)
        if isinstance(raw, (set, frozenset)):
            members = {member: self._key(member, depth) for member in raw}
            return raw if all(new is old for old, new in members.items()) else type(raw)(members.values())
        if isinstance(raw, Inert):
            return self._stub(raw, way, depth)
        if isinstance(raw, Global):
            return Stub(raw.module, raw.name, made=False)
        if isinstance(raw, Lump):
            return raw.value()
        if isinstance(raw, Pending):
            value = self._value(raw, way)
            return value if type(value) is LazyTensor else self.node(value, way, depth)
        if isinstance(raw, Captured):
            raw.state = self.node(raw.state, way, depth + 1)
        return raw

    def _value(self, pending: Pending, way: Way) -> object:
        try:
            return pending.value()
        except TensorkeepError:
            raise
        except WRONG as error:
            raise FormatError(self.file, f"{_path(way)}: {str(error) or type(error).__name__:.200}") from None

    def _dict(self, raw: dict[Any, Any], way: Way, depth: int) -> Tree:
        made = raw
        if not {str}.issuperset(map(type, raw)):
            keys = [self._key(key, depth) for key in raw]
            if not all(new is old for new, old in zip(keys, raw, strict=True)):
                made = like(raw)
                fill(made, keys, list(raw.values()))
        self._count(len(raw))
        if not _LEAVES.issuperset(map(type, raw.values())):
            for key, value in raw.items():
                if type(value) not in _LEAVES:
                    made_key = key if made is raw else self._key(key, depth)
                    made[made_key] = self.node(value, (way, made_key), depth + 1)
        if isinstance(raw, OrderedDict) and (metadata := getattr(raw, "_metadata", None)) is not None:
            made._metadata = self.node(metadata, (way, "_metadata"), depth + 1)  # type: ignore[attr-defined]  # an OrderedDict takes attributes
        return made

    def _key(self, key: Any, depth: int) -> Any:
        """A key, or a member of a set. What was hashed once has few parts and no cycle; stubs are hashed by identity."""
        if type(key) in _LEAVES:
            return key
        if isinstance(key, (tuple, frozenset)):
            parts = {id(part): self._key(part, depth + 1) for part in key}
            if all(parts[id(part)] is part for part in key):
                return key
            return type(key)([parts[id(part)] for part in key])
        if isinstance(key, Inert):  # what it holds might lead back here
            if id(key) not in self._keys:
                self._keys[id(key)] = Stub(key.module, key.name, self._plain_args(key))
            return self._keys[id(key)]
        if isinstance(key, Global):
            return self.node(key, None, depth)
        return key

    def _plain_args(self, key: Inert) -> dict[Any, Any]:
        """Of an object that is a key, such as a member of an enum, only the plain values that it would be made with."""
        plain = bool(key.args) and len(key.args) < 16 and _LEAVES.issuperset(map(type, key.args))
        return {"__args__": key.args} if plain else {}

    def _stub(self, raw: Inert, way: Way, depth: int) -> Stub:
        made = Stub(raw.module, raw.name)
        fields = made.fields
        others: list[tuple[str, Any]] = []
        for state in raw.states or ():
            for part in _attributes(state):
                if part is None:
                    others.append(("__state__", state))
                else:
                    for name, value in part.items():
                        key = self._key(name, depth)
                        fields[key] = self.node(value, (way, key), depth + 1)
        others += [("__args__", raw.args)] if raw.args else []
        others += [("__kwargs__", raw.kwargs)] if raw.kwargs else []
        others += [("__callee__", raw.callee)] if raw.callee is not None else []
        others += [("__items__", raw.items)] if raw.items is not None else []
        others += [("__items__", raw.entries)] if raw.entries is not None else []
        for name, value in others:
            while name in fields:  # as where both items and entries were given
                name = f"{name}~2"
            fields[name] = self.node(value, (way, name), depth + 1)
        return made


def _attributes(state: Any) -> "tuple[dict[Any, Any] | None, ...]":
    """The dicts of attributes in a state; (None,) for one that is none."""
    if type(state) in (dict, OrderedDict, defaultdict):
        return (state,)
    if type(state) is tuple and len(state) == 2 and type(state[1]) is dict and (state[0] is None or type(state[0]) is dict):
        return tuple(part for part in state if part is not None)
    return (None,)

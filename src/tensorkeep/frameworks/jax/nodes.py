"""JAX's own and registered containers: dataclasses, Equinox's modules, Flax's frozen dicts and training states, and any other class.

JAX takes one apart into its children, and makes another from new ones: how, is the target's affair and never stands in a file. What is
static stays the target's, and so do functions and classes among the children, which many modules hold beside their arrays.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import jax

from tensorkeep.errors import UnsupportedError
from tensorkeep.frameworks.records import ADAPTER as RECORDS
from tensorkeep.matching import Matcher, Result, Step, lookup
from tensorkeep.selection import LEFT_OUT
from tensorkeep.tree import Captured, Tree, join

_CONTAINERS: Final = (dict, list, tuple)


class _Parts(NamedTuple):
    """A node taken apart: the name of each child, the children, and how JAX puts them together."""

    names: list[Any]
    children: list[Any]
    structure: Any


def is_node(obj: object) -> bool:
    """Whether JAX takes it apart. Named tuples are left to `records`, which JAX treats alike."""
    return obj is not None and not _is_named_tuple(obj) and not jax.tree_util.all_leaves([obj])


def capture(obj: Any) -> Captured:
    """A node as its children by name, or as a list of them where they are numbered.

    Raises:
        UnsupportedError: its own code raised.
    """
    parts = _apart(obj)
    state: dict[Any, Any] = {
        name: _without_code(child) for name, child in zip(parts.names, parts.children, strict=True) if not _is_code(child)
    }
    numbered = list(state) == list(range(len(parts.names))) and state
    return Captured("jax.node", type(obj).__qualname__, list(state.values()) if numbered else state, origin=obj, extra=parts)


def _apart(obj: Any) -> _Parts:
    try:
        pairs, structure = jax.tree_util.tree_flatten_with_path(obj, is_leaf=lambda value: value is not obj)
    except Exception as error:  # the class's own code may raise anything
        reason = f"a {type(obj).__qualname__} that JAX cannot take apart: {type(error).__name__}: {error}"
        raise UnsupportedError("", reason) from error
    names = [_name(path[0]) for path, _ in pairs]
    if max(Counter(names).values(), default=1) > 1:
        names = list(range(len(pairs)))
    return _Parts(names, [child for _, child in pairs], structure)


def _name(key: Any) -> Any:
    """What JAX calls a child: an attribute's name, a dict's key, or a number."""
    for attribute in ("name", "key", "idx"):
        if (name := getattr(key, attribute, None)) is not None:
            return name
    return str(key).strip(".[]'")


def _is_named_tuple(obj: object) -> bool:
    return isinstance(obj, tuple) and isinstance(getattr(type(obj), "_fields", None), tuple)


def _is_code(child: object) -> bool:
    """A function, a class, a method, or what only marks a place: part of the program, and never of a file."""
    marks = type(child) is object or type(child).__module__.partition(".")[0] == "equinox"
    return (marks or callable(child)) and bool(jax.tree_util.all_leaves([child]))


def _without_code(child: Any) -> Any:
    """A container with code somewhere in it as a node, which leaves that out."""
    plain = type(child) in _CONTAINERS or _is_named_tuple(child)
    return capture(child) if plain and _holds_code(child) else child


def _holds_code(child: Any) -> bool:
    if type(child) in _CONTAINERS or _is_named_tuple(child):
        return any(map(_holds_code, child.values() if isinstance(child, dict) else child))
    return _is_code(child)


def rebuild(node: Captured, state: Any, types: Mapping[str, type]) -> object:
    """A dataclass whose class was given; else the plain state.

    Raises:
        ValueError: the class given has other fields.
    """
    if dataclasses.is_dataclass(types.get(node.cls)):
        return RECORDS.rebuild(Captured("records.dataclass", node.cls, None), state, types)
    return state


def plan(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Match the children, and let JAX make a node of them that succeeds the target's."""
    obj, parts = target.origin, target.extra
    assert isinstance(parts, _Parts)
    own = dict(enumerate(target.state)) if isinstance(target.state, list) else target.state
    if isinstance(state, (list, tuple)):
        state = dict(zip(parts.names, state, strict=False))
    if not isinstance(state, dict):
        matcher.other_kind(state, path, f"a {target.cls}")
        return lambda: obj
    taken = _fields(obj) - set(parts.names)
    results: dict[Any, Result] = {}
    for name, child in own.items():
        found, used = lookup(state, name)
        taken |= used
        results[name] = matcher.fit(child, found, join(path, name))
    for name, found in state.items():
        if name not in taken and found is not LEFT_OUT:
            matcher.unexpected(found, join(path, name))
    successor = _Successor(obj, parts, results)
    # Before any bytes are copied, for the class's own code may refuse: arrays of JAX are there by then.
    matcher.steps.append(Step(path, successor.make, successor.undo))
    return lambda: successor.node


def _fields(obj: Any) -> set[Any]:
    """Fields of a dataclass: a file that was written before its class was registered has those that are no children, too."""
    return {field.name for field in dataclasses.fields(obj)} if dataclasses.is_dataclass(obj) else set()


class _Successor:
    """The node that takes the place of one that does not change."""

    def __init__(self, obj: Any, parts: _Parts, results: Mapping[Any, Result]) -> None:
        self.node, self.parts, self.results = obj, parts, results

    def make(self) -> None:
        pairs = zip(self.parts.names, self.parts.children, strict=True)
        self.node = self.parts.structure.unflatten([self.results[name]() if name in self.results else child for name, child in pairs])

    def undo(self) -> None:
        """The old one is as it was."""

"""Flax NNX: modules, optimizers, random streams and variables, which change in place.

A module is its state as `nnx.state` tells it, a dict of dicts down to the bare values; what kind of variable holds one stays the
target's affair. A shared variable stands at the first of its paths.
"""

import sys
from collections.abc import Mapping
from typing import Any

from tensorkeep.matching import MISSING, Matcher, Result, Step, named
from tensorkeep.tree import Captured, Tree, join

Path = tuple[Any, ...]


def is_module(obj: object) -> bool:
    """Whether it is a module or anything else with a graph of its own: optimizers, streams, metrics."""
    return isinstance(obj, _classes("Pytree", "Object", "Module"))


def is_variable(obj: object) -> bool:
    """Whether it is a variable, or what older releases of Flax have for one in a state."""
    return isinstance(obj, _classes("Variable", "VariableState"))


def _classes(*names: str) -> tuple[type, ...]:
    """Those of Flax NNX that this release has, if it is imported."""
    known = vars(sys.modules["flax.nnx"]) if "flax.nnx" in sys.modules else {}
    return tuple(known[name] for name in names if isinstance(known.get(name), type))


def capture_module(module: Any) -> Captured:
    """A module as the values of its variables, by the paths of `nnx.state`."""
    return Captured("jax.nnx", type(module).__qualname__, _mapped(_state(module), lambda path, leaf: _value(leaf)), origin=module)


def capture_variable(variable: Any) -> Captured:
    """A variable by itself, as its value."""
    return Captured("jax.variable", type(variable).__qualname__, _value(variable), origin=variable)


def plan_module(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Match a module by names, and give it the values before any bytes are copied elsewhere: what can fail in that can be undone."""
    module: Any = target.origin
    if not isinstance(state, dict):
        matcher.other_kind(state, path, f"a {target.cls}")
        return lambda: module
    own = _leaves(target.state, _state(module))
    names = {where: ".".join(map(str, where)) for where in own}
    found, others = named(state, names.values())
    results = {where: matcher.fit(node, _bare(found.get(names[where], MISSING)), join(path, names[where])) for where, node in own.items()}
    for name, node in others.items():
        matcher.unexpected(node, join(path, name))
    former: list[Any] = []

    def apply() -> None:
        state = _state(module)
        former.append(_mapped(state, lambda path, leaf: _with_value(leaf, _value(leaf))))
        _update(module, _mapped(state, lambda path, leaf: _with_value(leaf, results[path]())))

    def undo() -> None:
        for state in former:
            _update(module, state)

    matcher.steps.append(Step(path, apply, undo))
    return lambda: module


def plan_variable(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Match the value of a variable, and set it."""
    variable: Any = target.origin
    value = matcher.fit(target.state, state, path)
    former: list[Any] = []

    def apply() -> None:
        former.append(_value(variable))
        _set(variable, value())

    def undo() -> None:
        for before in former:
            _set(variable, before)

    matcher.steps.append(Step(path, apply, undo))
    return lambda: variable


def _state(module: Any) -> Any:
    return sys.modules["flax.nnx"].state(module)


def _update(module: Any, state: dict[Any, Any]) -> None:
    nnx = sys.modules["flax.nnx"]
    nnx.update(module, nnx.State(state))


def _mapped(node: Any, leaf: Any, path: Path = ()) -> Any:
    """A state as dicts, with another leaf for each of its own."""
    if isinstance(node, Mapping):
        return {key: _mapped(child, leaf, (*path, key)) for key, child in node.items()}
    return leaf(path, node)


def _leaves(captured: Tree, state: Any, path: Path = ()) -> dict[Path, Tree]:
    """What was captured of each variable, by path: it may be a container itself."""
    if isinstance(state, Mapping):
        return {where: leaf for key, child in state.items() for where, leaf in _leaves(captured[key], child, (*path, key)).items()}
    return {path: captured}


def _bare(found: Tree) -> Tree:
    """What is in a variable that was saved as one, in a state of `nnx.state`."""
    return found.state if isinstance(found, Captured) and found.kind == "jax.variable" else found


def _value(leaf: Any) -> Any:
    if not is_variable(leaf):
        return leaf
    return leaf.get_value() if hasattr(leaf, "get_value") else leaf.value


def _with_value(leaf: Any, value: Any) -> Any:
    """A variable like this one with another value, or the value itself."""
    return leaf.replace(value) if is_variable(leaf) else value


def _set(variable: Any, value: Any) -> None:
    if hasattr(variable, "set_value"):
        variable.set_value(value)
    else:
        variable.value = value

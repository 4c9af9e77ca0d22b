"""Anything with `state_dict` and `load_state_dict`: schedulers, scalers, moving averages, your own classes."""

import copy
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Protocol

from tensorkeep.errors import UnsupportedError
from tensorkeep.matching import Matcher, Result, Step, live
from tensorkeep.selection import LEFT_OUT
from tensorkeep.tree import Captured, Tree, like, walk

_DICTS: Final = (dict, OrderedDict, defaultdict, Counter)


class Stateful(Protocol):
    """What PyTorch's ecosystem agrees on."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any) -> object: ...


class StatefulAdapter:
    """Objects that alone know how to take their state."""

    name = "stateful"
    kinds = frozenset({"stateful"})

    def owns(self, obj: object) -> bool:
        cls = type(obj)
        return cls is not type and callable(getattr(cls, "state_dict", None)) and callable(getattr(cls, "load_state_dict", None))

    def capture(self, obj: Stateful) -> Tree:
        return Captured("stateful", type(obj).__qualname__, state_of(obj), origin=obj)

    def rebuild(self, node: Captured, state: Any, types: Mapping[str, type]) -> object:
        return state

    def plan(self, target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
        return plan_by_itself(target, state, path, matcher)


def state_of(obj: Stateful) -> Any:
    """What its `state_dict()` gives.

    Raises:
        UnsupportedError: that raised.
    """
    try:
        return obj.state_dict()
    except Exception as error:  # the object's own code may raise anything, and would not name the path
        raise UnsupportedError("", f"a {type(obj).__qualname__} whose state_dict() raised {type(error).__name__}: {error}") from error


def plan_by_itself(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Hand the object its state, and the former one back if anything fails."""
    obj: Any = target.origin
    if isinstance(state, dict) and isinstance(target.state, dict) and of_another_class(target, path, matcher, (state, target.state)):
        return lambda: obj
    if isinstance(state, dict) and (hidden := _hidden(obj, set(state) - set(target.state if isinstance(target.state, dict) else ()))):
        matcher.problem("object", path, "", "", f"a state that would hide its {hidden}, for many a load_state_dict sets attributes")
        return lambda: obj
    loaded = merged(state, target.state, matcher)
    former: list[object] = []
    attributes: dict[str, Any] = {}

    def apply() -> None:
        former.append(_copied(obj.state_dict(), {}))
        attributes.update(getattr(obj, "__dict__", {}))
        obj.load_state_dict(loaded())

    def undo() -> None:
        if former:
            obj.load_state_dict(former[0])
            if hasattr(obj, "__dict__"):  # what the former state does not know to take back
                vars(obj).clear()
                vars(obj).update(attributes)

    matcher.steps.append(Step(path, apply, undo))
    return lambda: obj


def _hidden(obj: object, names: set[Any]) -> str:
    """The first of these names, of a file, that is one of the object's class: such as a method's."""
    return min((name for name in names if isinstance(name, str) and hasattr(type(obj), name)), default="")


def of_another_class(target: Captured, path: str, matcher: Matcher, *names: tuple[Any, Any]) -> bool:
    """Report a state of another class with other names in it: the object might take it, and be neither the one nor the other.

    Args:
        names: pairs of names, of the file and of the target, of which not both should have some that the other has not.
    """
    found_cls = matcher.found_cls
    # One may have more names than the other: a subclass, another version of a package.
    if found_cls in ("", target.cls) or all(set(found) <= set(own) or set(found) >= set(own) for found, own in names):
        return False
    matcher.problem("object", path, f"a {found_cls}", f"a {target.cls}")
    return True


def merged(found: Tree, own: Tree, matcher: Matcher) -> Result:
    """A part of the file as it is, but for what `only` left out of it: that stays what the target has."""
    if found is LEFT_OUT:
        return partial(live, own)
    if all(leaf is not LEFT_OUT for _, leaf in walk(found)):
        return matcher.value(found)
    if isinstance(found, dict) and isinstance(own, dict):
        parts = {key: merged(part, own.get(key), matcher) for key, part in found.items() if part is not LEFT_OUT or key in own}

        def result() -> Any:
            fresh = like(found)
            for key, part in parts.items():
                fresh[key] = part()
            return fresh

        return result
    if isinstance(found, (list, tuple)) and isinstance(own, (list, tuple)) and len(found) == len(own):
        items = [merged(part, own_part, matcher) for part, own_part in zip(found, own, strict=True)]
        return lambda: type(found)(item() for item in items)
    return matcher.value(found)


def _copied(node: Any, memo: dict[int, Any]) -> Any:
    """A state that later changes of the object do not reach, as far as its values can be copied.

    Args:
        memo: of `copy.deepcopy`, so that what is one object stays one.
    """
    if type(node) in _DICTS:
        fresh = like(node)
        for key, child in node.items():
            fresh[key] = _copied(child, memo)
        return fresh
    if type(node) in (list, tuple):
        return type(node)(_copied(child, memo) for child in node)
    try:
        return copy.deepcopy(node, memo)
    except Exception:  # noqa: BLE001  # a value's own code may raise anything
        # A tensor in the middle of a computation refuses to be copied along with it. What cannot be copied at all is kept as it is.
        return node.detach().clone() if hasattr(node, "detach") and hasattr(node, "clone") else node


ADAPTER: Final = StatefulAdapter()

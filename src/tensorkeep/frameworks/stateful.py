"""Anything with `state_dict` and `load_state_dict`: schedulers, scalers, moving averages, your own classes."""

import copy
from collections.abc import Mapping
from typing import Any, Final, Protocol

from tensorkeep.matching import Matcher, Result, Step
from tensorkeep.tree import Captured, Tree


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
        return Captured("stateful", type(obj).__qualname__, obj.state_dict(), origin=obj)

    def rebuild(self, node: Captured, state: Any, types: Mapping[str, type]) -> object:
        return state

    def plan(self, target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
        return plan_by_itself(target, state, path, matcher)


def plan_by_itself(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Hand the object its state, and the former one back if anything fails."""
    obj: Any = target.origin
    loaded = matcher.value(state)
    former: list[object] = []

    def apply() -> None:
        former.append(copy.deepcopy(obj.state_dict()))
        obj.load_state_dict(loaded())

    def undo() -> None:
        if former:
            obj.load_state_dict(former[0])

    matcher.steps.append(Step(path, apply, undo))
    return lambda: obj


ADAPTER: Final = StatefulAdapter()

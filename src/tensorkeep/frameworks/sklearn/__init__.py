"""scikit-learn: estimators, pipelines and whatever they hold, as trees of their parameters and fitted arrays.

Lives here: the adapter. `taking` makes the tree of an estimator, `making` an estimator of a tree, by the tables in `names`; `parts` are
what it holds that is no object of attributes, `checks` what C code must not meet.
Nothing here imports scikit-learn before an object of it is there, or one is asked for.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from tensorkeep import extras
from tensorkeep.errors import TensorkeepWarning, warn
from tensorkeep.frameworks.sklearn import boosters, names, parts, taking
from tensorkeep.matching import Matcher, Result, Step
from tensorkeep.selection import LEFT_OUT
from tensorkeep.tree import Captured, Tree, brief, walk


class SklearnAdapter:
    """Estimators, and the objects that they are made of."""

    name = "sklearn"
    kinds = frozenset(
        f"sklearn.{kind}"
        for kind in ("estimator", "own", "object", "part", "partial", "value", "booster", "type", "function", "code", "same")
    )

    def owns(self, obj: object) -> bool:
        cls = type(obj)
        return names.is_estimator(obj) or bool(parts.find(obj)) or bool(boosters.find(obj)) or names.is_known(cls, names.INSIDE)

    def capture(self, obj: Any) -> Tree:
        return taking.take(obj)

    def capture_target(self, obj: Any) -> Tree:
        """An object to be filled: its class is all that must fit."""
        return taking.empty(obj)

    def rebuild(self, node: Captured, state: Any, types: Mapping[str, Any]) -> object:
        return state

    def build(
        self,
        node: Captured,
        inside: Callable[[Tree], Any],
        types: Mapping[str, Any],
        once: Callable[[Warning], None],
        fill: Callable[[Any, Captured], None],
    ) -> object:
        """The object itself.

        Raises:
            ValueError: the file has none that could be built.
            MissingExtraError: scikit-learn is not installed.
        """
        extras.require("sklearn", extra="sklearn")
        from tensorkeep.frameworks.sklearn.making import Maker

        if node.extra is None:
            return Maker(inside, types, once).make(node)
        filling: Any = node.extra
        return filling.prepare(Maker(inside, {**types, **_classes(filling.obj)}, once), node)

    def plan(self, target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
        obj: Any = target.origin
        if not isinstance(state, dict) or matcher.found_cls != target.cls:
            found = f"a {matcher.found_cls}" if matcher.found_cls else "no estimator"
            matcher.problem("object", path, found, f"a {target.cls}")
            return lambda: obj
        if any(leaf is LEFT_OUT for _, leaf in walk(state)):
            matcher.problem("object", path, "a part of it", f"a whole {target.cls}", "without only=")
            return lambda: obj
        if why := parts.obstacle(obj, state):
            matcher.problem("object", path, f"a {matcher.found_cls}", f"{why}, which stays as it is", "without into=, with build='sklearn'")
            return lambda: obj
        filling = _Filling(obj, path)
        made = matcher.value(Captured(target.kind, target.cls, state, extra=filling))
        matcher.steps.append(Step(path, filling.apply, filling.undo))
        matcher.finish.append(filling.tell)
        return made


class _Filling:
    """An estimator of the caller's that becomes what the file has: its parameters and what was fitted are the file's."""

    def __init__(self, obj: Any, path: str) -> None:
        self.obj, self.path = obj, path
        self.maker: Any = None
        self.former: list[tuple[Any, dict[str, Any]]] = []
        self.exchanged: list[tuple[Callable[[Any, Any], None], Any, Any]] = []
        self.parameters: dict[str, Any] = {}

    def prepare(self, maker: Any, node: Captured) -> object:
        self.maker = maker
        return maker.make(node, self.obj)

    def apply(self) -> None:
        self.parameters = _parameters(self.obj)
        for made, state in self.maker.pending.values():
            self.former.append((made, dict(vars(made))))
            vars(made).clear()
            vars(made).update(state)
        for exchange, host, made in self.maker.exchanges:
            exchange(host, made)
            self.exchanged.append((exchange, host, made))
        self.maker.check()

    def undo(self) -> None:
        for exchange, host, made in self.exchanged:
            exchange(host, made)
        for made, state in self.former:
            vars(made).clear()
            vars(made).update(state)

    def tell(self) -> None:
        """Say which parameters were others."""
        now = _parameters(self.obj)
        changed = [
            f"{name}: {brief(self.parameters[name])} is now {brief(value)}"
            for name, value in now.items()
            if name in self.parameters and not _same(self.parameters[name], value)
        ]
        if changed:
            where = f"{self.path}: " if self.path else ""
            text = f"{where}parameters of the {type(self.obj).__qualname__} became those of the file: {'; '.join(changed)}"
            warn(TensorkeepWarning(text))


def _parameters(obj: Any) -> dict[str, Any]:
    get: Any = getattr(obj, "get_params", None)
    try:
        return dict(get(deep=True)) if get is not None else {}
    except Exception:  # noqa: BLE001  # an estimator's own code may raise anything where it was never set up
        return {}


def _same(one: Any, other: Any) -> bool:
    """Whether two parameters are alike, as far as that can be told."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    plain = one is None or isinstance(one, (bool, int, float, complex, str, bytes))
    return not plain or one == other or one != one  # of objects, their own parameters are told


def _classes(obj: object) -> dict[str, Any]:
    """Classes and functions that the caller's object is made of: those that a file may name for it."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    around: list[Any] = [obj]
    while around:
        here = around.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if names.is_function(here):
            found[names.name_of_function(here)] = here
        elif type(here) is functools.partial:
            found["partial"] = functools.partial
            around += [here.func, *here.args, *here.keywords.values()]
        elif isinstance(here, dict):
            around += here.values()
        elif isinstance(here, (list, tuple)):
            around += here
        elif boosters.find(here):
            found[type(here).__qualname__] = type(here)
        elif names.is_estimator(here):
            found[type(here).__qualname__] = type(here)
            around += vars(here).values()
    return found


ADAPTER: Final = SklearnAdapter()

"""Records: dataclasses, named tuples, and bags such as `argparse.Namespace`.

A dataclass or named tuple comes back as itself only where the caller passes its class in `types=`: a file never names what gets
imported. A bag is nothing but its attributes and always comes back as itself.
"""

import argparse
import dataclasses
import functools
import inspect
import types as python_types
from collections.abc import Mapping
from typing import Any, Final

from tensorkeep.errors import UnsupportedError
from tensorkeep.matching import MISSING, Matcher, Result, Step
from tensorkeep.tree import Captured, Tree, join

_BAGS: Final[dict[str, type]] = {"SimpleNamespace": python_types.SimpleNamespace, "Namespace": argparse.Namespace}


class RecordsAdapter:
    """Objects that are their named fields."""

    name = "records"
    kinds = frozenset({"records.dataclass", "records.namedtuple", "records.bag"})

    def owns(self, obj: object) -> bool:
        cls = type(obj)
        return (
            (dataclasses.is_dataclass(obj) and not isinstance(obj, type))
            or (isinstance(obj, tuple) and isinstance(getattr(cls, "_fields", None), tuple))
            or cls in _BAGS.values()
        )

    def capture(self, obj: Any) -> Tree:
        cls = type(obj)
        if cls in _BAGS.values():
            return Captured("records.bag", cls.__name__, dict(vars(obj)), origin=obj)
        if isinstance(obj, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
            _check_attributes(obj, cls._fields)
            return Captured("records.namedtuple", cls.__qualname__, dict(zip(cls._fields, obj, strict=True)), origin=obj)
        names = _fields(cls)
        _check_attributes(obj, names)
        if (base := _holding_base(cls)) is not None:
            raise UnsupportedError("", f"{cls.__qualname__} is a dataclass and a kind of {base.__name__} in one")
        absent = [name for name in names if not hasattr(obj, name)]
        if absent:
            raise UnsupportedError(absent[0], f"a field of {cls.__qualname__} that has no value")
        return Captured("records.dataclass", cls.__qualname__, {name: getattr(obj, name) for name in names}, origin=obj)

    def rebuild(self, node: Captured, state: Any, types: Mapping[str, type]) -> object:
        """The record itself where its class was given, else a dict, or a tuple for a named tuple.

        Raises:
            ValueError: the class given has other fields.
        """
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise ValueError(f"a {node.cls} without named fields")
        if node.kind == "records.bag":
            bag = _BAGS.get(node.cls)
            if bag is None:
                return state
            made = bag()
            vars(made).update(state)  # by no call: a name such as `self` or `__class__` is an attribute like any other
            return made
        cls = types.get(node.cls)
        if node.kind == "records.namedtuple":
            if cls is None:
                return tuple(state.values())
            if not (isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_make")):
                raise ValueError(f"{node.cls} in types= is no named tuple, but the file has one of that name")
            return cls._make(_ordered(cls, tuple(getattr(cls, "_fields", ())), state))
        if cls is None:
            return state
        if not dataclasses.is_dataclass(cls):
            raise ValueError(f"{node.cls} in types= is no dataclass, but the file has one of that name")
        values = _ordered(cls, _fields(cls), state)
        try:
            made = object.__new__(cls)
            for name, value in zip(_fields(cls), values, strict=True):
                object.__setattr__(made, name, value)  # without __init__, frozen or not
        except (TypeError, AttributeError) as error:  # an exception, which has a way of its own to be made; a property for a field
            raise ValueError(f"{cls.__qualname__} cannot be made from its fields: {error}") from error
        return made

    def plan(self, target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
        obj: Any = target.origin
        if isinstance(state, (list, tuple)):  # a named tuple that was saved as a tuple
            state = dict(zip(target.state, state, strict=False))
        if state is None and not target.state:  # as Orbax writes one without fields
            state = {}
        if not isinstance(state, dict):
            matcher.problem("kind", path, f"a {type(state).__name__}", f"a {target.cls}")
            return lambda: obj
        results = {name: matcher.fit(child, state.get(name, MISSING), join(path, name)) for name, child in target.state.items()}
        for name in state:
            if name not in results:
                matcher.unexpected(state[name], join(path, name))
        remade = target.kind == "records.namedtuple" or (target.kind == "records.dataclass" and type(obj).__dataclass_params__.frozen)
        # A setter or a constructor may refuse its value, so it gets it before any bytes: what goes there is the same object then.
        step = _Remake(obj, results) if remade else _Assign(obj, results)
        matcher.steps.append(Step(path, step.apply, step.undo))
        return lambda: step.result


class _Assign:
    """Gives an object its fields, and those that it had."""

    def __init__(self, obj: Any, results: Mapping[str, Result]) -> None:
        self.result, self.results = obj, results
        self.former: dict[str, Any] = {}

    def apply(self) -> None:
        for name, result in self.results.items():
            self.former[name] = getattr(self.result, name)
            object.__setattr__(self.result, name, result())

    def undo(self) -> None:
        for name, value in self.former.items():
            object.__setattr__(self.result, name, value)


class _Remake:
    """Makes a new object of the same class, where the old one cannot change."""

    def __init__(self, obj: Any, results: Mapping[str, Result]) -> None:
        self.result, self.results = obj, results

    def apply(self) -> None:
        state = {name: result() for name, result in self.results.items()}
        cls = type(self.result)
        if isinstance(self.result, tuple):
            self.result = cls._make(state.values())
        else:
            self.result = ADAPTER.rebuild(Captured("records.dataclass", cls.__qualname__, None), state, {cls.__qualname__: cls})

    def undo(self) -> None:
        """The old one is as it was."""


def _check_attributes(obj: Any, names: tuple[str, ...]) -> None:
    """Refuse what an object has beside its fields: it would be lost."""
    cls = type(obj)
    slots = {name for base in cls.__mro__ for name in _slots(base) if hasattr(obj, name)}
    found = (set(getattr(obj, "__dict__", ())) | slots) - {*names, "__dict__", "__weakref__", "__orig_class__"}
    extra = sorted(name for name in found if not isinstance(inspect.getattr_static(cls, name, None), functools.cached_property))
    if extra:
        reason = f"an attribute of a {cls.__qualname__} that is no field of it"
        raise UnsupportedError(extra[0], reason, hint="Make it a field, or delete it.")


def _slots(cls: type) -> tuple[str, ...]:
    """The names of its slots as attributes: Python puts the class before those that begin with two underscores."""
    slots = vars(cls).get("__slots__", ())
    private = f"_{cls.__name__.lstrip('_')}"
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(private + name if name.startswith("__") and not name.endswith("__") else name for name in names)


def _holding_base(cls: type) -> type | None:
    """The base that holds content of its own beside any field, such as `str`, `deque` or an exception's arguments."""
    made_in_c = (base for base in cls.__mro__[:-1] if isinstance(base.__new__, python_types.BuiltinFunctionType))
    return next((base for base in made_in_c if base.__new__.__self__ is base), None)  # type: ignore[attr-defined]  # of such a function


def _fields(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def _ordered(cls: type, names: tuple[str, ...], state: dict[str, Any]) -> list[Any]:
    """The values in the order of the class's fields; a field that the file lacks takes its default."""
    extra = sorted(set(state) - set(names))
    if extra:
        raise ValueError(f"{cls.__qualname__} has no field {extra[0]!r}, the file has one")
    missing = [name for name in names if name not in state]
    defaults = _defaults(cls)
    lacking = [name for name in missing if name not in defaults]
    if lacking:
        raise ValueError(f"{cls.__qualname__} has a field {lacking[0]!r}, the file has none and there is no default")
    return [state[name] if name in state else defaults[name]() for name in names]


def _defaults(cls: type) -> dict[str, Any]:
    if not dataclasses.is_dataclass(cls):
        return {name: (lambda value=value: value) for name, value in getattr(cls, "_field_defaults", {}).items()}
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            found[field.name] = lambda value=field.default: value
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory
    return found


ADAPTER: Final = RecordsAdapter()

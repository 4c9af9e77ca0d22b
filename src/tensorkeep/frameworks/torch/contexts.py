"""What a tensor subclass says of itself beside its tensors: dtypes, block sizes, members of enums, classes, settings.

In a file these are plain data: a member of an enum is its name, a class or function its name too, and nothing of it is ever imported.
Whoever gets such a tensor back supplies them: the target, or the caller in `types=`.
"""

import dataclasses
import enum
import math
import types as python_types
from collections.abc import Mapping
from typing import Any, Final

import torch

from tensorkeep.frameworks import records
from tensorkeep.matching import Matcher
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Packed, Tree, join

CONSTANT: Final = "torch.constant"
REFERENCE: Final = "torch.reference"
_CONSTANTS: Final = {str(value): value for value in vars(torch).values() if isinstance(value, (torch.layout, torch.memory_format))}
_CALLED: Final = (type, python_types.FunctionType, python_types.BuiltinFunctionType, python_types.MethodType)


def described(value: Any) -> Tree:
    """A context, or a part of one, as data; what is no such thing stays, for others to keep or to refuse."""
    if isinstance(value, enum.Enum):
        return Captured(CONSTANT, type(value).__qualname__, value.name, origin=value)
    if isinstance(value, (torch.layout, torch.memory_format)):
        return Captured(CONSTANT, type(value).__qualname__, str(value), origin=value)
    if isinstance(value, _CALLED):
        name = value.__qualname__
        return Captured(REFERENCE, name, f"{value.__module__}.{name}", origin=value)
    if type(value) is dict:
        return {key: described(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(described, value))
    if (dataclasses.is_dataclass(value) or hasattr(value, "_fields")) and records.ADAPTER.owns(value):
        record = records.ADAPTER.capture(value)
        record.state = {name: described(inner) for name, inner in record.state.items()}
        return record
    return value


def rebuild(node: Captured, state: Any, types: Mapping[str, Any]) -> object:
    """A member of an enum, a class or a function, where the caller passed it in `types=`; else its name.

    Raises:
        ValueError: the enum that was passed has no such member.
    """
    given = types.get(node.cls)
    if node.kind == REFERENCE:
        return state if given is None else given
    if given is None:
        return _CONSTANTS.get(state, state) if node.cls in ("layout", "memory_format") else state
    if not (isinstance(given, type) and issubclass(given, enum.Enum)) or state not in given.__members__:
        raise ValueError(f"{node.cls} in types= has no member {state!r:.80}")
    return given[state]


def fits(wanted: Tree, found: Tree, path: str, matcher: Matcher) -> str:
    """Where a context of the file differs from the target's: the path of the first difference, or "". Tensors in it are matched."""
    if isinstance(wanted, LazyTensor):
        if not isinstance(found, LazyTensor):
            return path
        matcher.fit(wanted, found, path)
        return ""
    if isinstance(wanted, Captured):
        if not isinstance(found, Captured) or (found.kind, found.cls) != (wanted.kind, wanted.cls):
            return path
        return "" if wanted.kind == REFERENCE else fits(wanted.state, found.state, path, matcher)
    if isinstance(found, Packed):
        found = found.value()
    if type(wanted) is not type(found):
        return path
    if isinstance(wanted, dict):
        if wanted.keys() != found.keys():
            return path
        return _first(fits(inner, found[key], join(path, key), matcher) for key, inner in wanted.items())
    if isinstance(wanted, (list, tuple)):
        if len(wanted) != len(found):
            return path
        return _first(fits(inner, found[number], join(path, number), matcher) for number, inner in enumerate(wanted))
    same = wanted == found or (isinstance(wanted, float) and math.isnan(wanted) and math.isnan(found))
    return "" if same else path


def _first(paths: Any) -> str:
    return next((path for path in paths if path), "")

"""Own code: layers whose class, by others than Keras, says itself what it keeps (`save_own_variables`) and how it takes it back."""

from typing import Any, Final

import keras
import numpy as np

from tensorkeep.errors import UnsupportedError
from tensorkeep.frameworks.stateful import merged
from tensorkeep.matching import Matcher, Result, Step
from tensorkeep.tree import Captured, Tree

KIND: Final = "keras.own"


def has_some(layer: Any) -> bool:
    """Whether a layer keeps its variables by code of its own. Keras's layers do too, but that only numbers them."""
    return bool(layer.built) and not type(layer).save_own_variables.__module__.startswith("keras.")


def renew(layer: Any) -> None:
    """Let a layer that only takes its variables by code of its own do so: with them it may renew what it derives from them."""
    if layer.built and not type(layer).load_own_variables.__module__.startswith("keras.") and not has_some(layer):
        layer.load_own_variables({name: keras.ops.convert_to_numpy(variable) for name, variable in _state(layer).items()})


def capture(layer: Any) -> Captured:
    """What a layer keeps, by the names that it gives.

    Raises:
        UnsupportedError: its code raised.
    """
    return Captured(KIND, type(layer).__qualname__, _state(layer), origin=layer)


def plan(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Hand the layer what the file has, and its former state back if anything fails."""
    layer: Any = target.origin
    if not isinstance(state, dict):
        matcher.other_kind(state, path, f"what a {target.cls} keeps")
        return lambda: layer
    loaded = merged(state, target.state, matcher)
    former: list[dict[str, Any]] = []

    def apply() -> None:
        former.append({name: np.array(value) for name, value in _state(layer).items()})
        layer.load_own_variables(loaded())

    matcher.steps.append(Step(path, apply, lambda: [layer.load_own_variables(before) for before in former]))
    return lambda: layer


def _state(layer: Any) -> dict[str, Any]:
    store: dict[str, Any] = {}
    try:
        layer.save_own_variables(store)
    except Exception as error:  # the class's own code may raise anything, and would not name the path
        raise UnsupportedError(
            "", f"a {type(layer).__qualname__} whose save_own_variables raised {type(error).__name__}: {error}"
        ) from error
    return store

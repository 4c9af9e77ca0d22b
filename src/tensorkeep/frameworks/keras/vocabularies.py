"""Vocabularies: what layers have learnt that is no variable: tokens and their weights, and the bounds of `Discretization`."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from tensorkeep.matching import Matcher, Result, Step
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Tree

KIND: Final = "keras.vocabulary"
FILE: Final = "vocabulary.txt"  # as Keras calls it among the assets
_TOKENS: Final = "tokens"
_WEIGHTS: Final = "idf_weights"
_BOUNDS: Final = "bin_boundaries"


def has_one(layer: Any) -> bool:
    """Whether a layer has a vocabulary that its configuration does not tell; one of Keras's own layers, whose code is known."""
    if not type(layer).__module__.startswith("keras."):
        return False
    if hasattr(layer, "lookup_table"):
        return not getattr(layer, "_has_input_vocabulary", False)
    return _has_bounds(layer) and layer.num_bins is not None


def is_about_tokens(layer: Any) -> bool:
    """Whether it is a layer for tokens, or one around such a layer: Keras's files have what it learnt beside the variables."""
    return hasattr(layer, "lookup_table") or hasattr(layer, "_lookup_layer")


def name_of(layer: Any) -> str:
    """What it is called beside the variables."""
    return _BOUNDS if _has_bounds(layer) else "vocabulary"


def _has_bounds(layer: Any) -> bool:
    return hasattr(layer, _BOUNDS) and hasattr(layer, "num_bins")


def capture(layer: Any) -> Captured:
    """The tokens of a layer, the special ones among them, and the weights of each where it has some."""
    if _has_bounds(layer):
        bounds = getattr(layer, _BOUNDS)
        return Captured(KIND, type(layer).__qualname__, {_BOUNDS: None if bounds is None else list(map(float, bounds))}, origin=layer)
    tokens = [str(token) if isinstance(token, str) else int(token) for token in layer.get_vocabulary(include_special_tokens=True)]
    state: dict[str, Any] = {_TOKENS: tokens if int(layer.lookup_table.size()) else []}
    if state[_TOKENS] and layer.output_mode == "tf_idf":
        state[_WEIGHTS] = np.array(layer.idf_weights_const)
    return Captured(KIND, type(layer).__qualname__, state, origin=layer)


def plan(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Hand a layer the vocabulary of the file, and its former one back if anything fails."""
    layer: Any = target.origin
    if not isinstance(state, dict):
        matcher.other_kind(state, path, f"the vocabulary of a {target.cls}")
        return lambda: layer
    tokens, weights, bounds = (matcher.value(state.get(name)) for name in (_TOKENS, _WEIGHTS, _BOUNDS))
    former: list[dict[str, Any]] = []

    def apply() -> None:
        former.append(dict(vars(layer)))
        if _has_bounds(layer):
            _give_bounds(layer, bounds())
        else:
            _give(layer, tokens(), weights())

    def undo() -> None:
        for attributes in former:
            vars(layer).clear()
            vars(layer).update(attributes)

    matcher.steps.append(Step(path, apply, undo))
    return lambda: layer


def _give(layer: Any, tokens: Any, weights: Any) -> None:
    """Raises ValueError: it is no vocabulary; a text would be the name of a file."""
    wanted = str if layer.vocabulary_dtype == "string" else int
    if not isinstance(tokens, list) or not all(type(token) is wanted for token in tokens):
        raise ValueError(f"a vocabulary that is no list of {wanted.__name__}")
    if not tokens:
        if int(layer.lookup_table.size()):
            raise ValueError("the file has it without a vocabulary, for it never learnt one")
        return
    if weights is None:
        layer.set_vocabulary(tokens)
    else:
        layer.set_vocabulary(tokens, idf_weights=np.array(weights))


def _give_bounds(layer: Any, bounds: Any) -> None:
    if bounds is not None and not (isinstance(bounds, list) and all(type(bound) is float for bound in bounds)):
        raise ValueError("bounds that are no list of numbers")
    setattr(layer, _BOUNDS, bounds)


def of_asset(layer: Any, asset: LazyTensor, weights: Tree, read: Callable[[LazyTensor], Any]) -> dict[str, Tree]:
    """The same out of what Keras writes: a line for each token, and the weights among the variables."""
    lines = np.asarray(read(asset)).tobytes().decode("utf-8").splitlines()
    while lines and not lines[-1]:
        lines.pop()
    tokens = lines if layer.vocabulary_dtype == "string" else [int(line) for line in lines]
    return {_TOKENS: tokens} | ({} if weights is None else {_WEIGHTS: weights})

"""Building: models and optimizers that have no variables yet get them, and can be taken back to where they were."""

import contextlib
import inspect
import math
import warnings
from typing import Any, Final

from tensorkeep.frameworks.keras import names

_MOST_ELEMENTS: Final = 1 << 22  # of an input, where the file's tensors have fewer
_LONGEST: Final = 16  # of a shape
_MOST_INPUTS: Final = 10_000  # of a list or dict of shapes
_DEEPEST: Final = 3  # containers in containers, of what Keras keeps


class Snapshot:
    """What objects of Keras hold, lists and dicts with what is in them; no values of variables."""

    def __init__(self, *objects: Any) -> None:
        everything = [part for obj in objects for part in (obj, getattr(obj, "_tracker", None)) if part is not None]
        self._attributes = [(obj, dict(vars(obj))) for obj in everything]
        self._containers: dict[int, tuple[Any, Any]] = {}
        for _, attributes in self._attributes:
            for value in attributes.values():
                self._keep(value, 0)

    def _keep(self, value: Any, depth: int) -> None:
        value = _unwrapped(value)
        kind: Any = next((kind for kind in (list, dict, set, tuple) if isinstance(value, kind)), None)
        if kind is None or id(value) in self._containers or depth > _DEEPEST:
            return
        self._containers[id(value)] = (value, kind(value))
        for child in tuple(value.values() if kind is dict else value):
            self._keep(child, depth + 1)

    def restore(self) -> None:
        """Put everything back: the same objects, with the same things in them."""
        for container, former in self._containers.values():  # past the methods by which Keras tracks what comes and goes
            if isinstance(container, list):
                list.__setitem__(container, slice(None), former)
            elif not isinstance(container, tuple):
                base: Any = dict if isinstance(container, dict) else set
                base.clear(container)
                base.update(container, former)
        for obj, attributes in self._attributes:
            vars(obj).clear()
            vars(obj).update(attributes)


def _unwrapped(value: Any) -> Any:
    """The container in one of those that TensorFlow puts around the lists and dicts of its objects."""
    if not type(value).__module__.startswith("tensorflow."):
        return value
    return getattr(value, "__wrapped__", getattr(value, "_storage", value))


def is_whole(model: Any) -> bool:
    """Whether a model and every layer in it has its variables."""
    return all(layer.built for _, layer in names.layers(model))


def model(obj: Any, config: Any, most: int) -> str:
    """Build a model with the shapes that the file says it was built with.

    Args:
        config: as Keras's `get_build_config` gave it, out of a stranger's file.
        most: elements of all tensors of the file: no input needs many more.

    Returns:
        Why it cannot be built, or "".
    """
    if not isinstance(config, dict) or not config:
        return "the file does not say with which shapes"
    if not all(is_shape(shape, max(most, _MOST_ELEMENTS)) for shape in config.values()):
        return "the file says other than shapes that fit its tensors"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the report tells what is missing
            obj.build_from_config(_as_tuples(config))
        obj.built = obj.built or bool(obj.variables)  # as Keras does when it loads
    except Exception as error:  # noqa: BLE001  # the model's own code may raise anything
        return f"{type(error).__name__}: {error}"
    return ""


def optimizer(obj: Any, variables: list[Any]) -> str:
    """Build an optimizer for these variables. Returns why it cannot be built, or ""."""
    try:
        obj.build(variables)
    except Exception as error:  # noqa: BLE001  # as above
        return f"{type(error).__name__}: {error}"
    return ""


def metric(obj: Any, classes: int) -> None:
    """Make the variables of a metric that waits for its first batch to see how many classes there are, or none if it cannot."""
    build = getattr(obj, "_build", None)
    if callable(build) and not getattr(obj, "_built", True):
        with contextlib.suppress(Exception):  # its own code may raise anything; the report then tells what it has no variables for
            build(*[(1, classes)] * len(inspect.signature(build).parameters))


def is_shape(node: Any, most: int) -> bool:
    """Whether this is a shape, or lists and dicts of some, none of more elements than that."""
    if isinstance(node, dict):
        return len(node) <= _MOST_INPUTS and all(isinstance(key, str) and is_shape(child, most) for key, child in node.items())
    if not isinstance(node, (list, tuple)):
        return node is None
    if any(isinstance(length, (list, dict, tuple)) for length in node):
        return len(node) <= _MOST_INPUTS and all(is_shape(child, most) for child in node)
    lengths = [length for length in node if length is not None]
    fine = len(node) <= _LONGEST and all(type(length) is int and 0 <= length <= most for length in lengths)
    return fine and math.prod(lengths) <= most


def _as_tuples(node: Any) -> Any:
    """Shapes as Keras hands them to `build`."""
    if isinstance(node, dict):
        return {key: _as_tuples(child) for key, child in node.items()}
    if isinstance(node, (list, tuple)):
        inside = any(isinstance(child, (list, dict, tuple)) for child in node)
        return [_as_tuples(child) for child in node] if inside else tuple(node)
    return node

"""Architecture: the configuration of Keras's objects as plain data, as Keras itself would write it into a `config.json`.

It is information: nothing is ever built from it unless asked. What is code (a lambda, a pickled module) is not kept, and the place says so.
"""

import inspect
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import keras

from tensorkeep.frameworks.keras import names

LEFT_OUT: Final = "not_kept"
"""The key under which stands why a part of a configuration is not kept."""

_CODE: Final = {"__lambda__": "a function without a name, which is code"}

_SHARED: Final = "shared_object_id"


def of(obj: Any) -> dict[str, Any]:
    """What Keras says an object is made of, as JSON has it; where it cannot say, its class and the reason."""
    about: dict[str, Any] = {"keras_version": keras.__version__}
    reason = _refused(obj)
    if not reason:
        try:
            about.update(_plain(keras.saving.serialize_keras_object(obj)))
            if isinstance(obj, keras.Layer):
                _share(about, obj)
                _complete(about.get("compile_config"), getattr(getattr(obj, "_compile_config", None), "config", None))
            return about
        except Exception as error:  # noqa: BLE001  # the object's own get_config may raise anything
            text = " ".join(str(error).split())
            reason = f"{type(error).__name__}: {text}"[:200]
    cls = type(obj)
    about |= {"module": cls.__module__, "class_name": cls.__name__, "config": {LEFT_OUT: reason}}
    if isinstance(obj, keras.Layer):
        try:
            about["build_config"] = _plain(obj.get_build_config())
        except Exception as error:  # noqa: BLE001  # as above
            about["build_config"] = {LEFT_OUT: type(error).__name__}
    return about


def _refused(obj: Any) -> str:
    """Why the configuration would hold code."""
    wrapper = getattr(keras.layers, "TorchModuleWrapper", ())
    if wrapper and isinstance(obj, keras.Layer) and any(isinstance(layer, wrapper) for _, layer in names.layers(obj)):
        return "a module of PyTorch in it, which Keras writes as a pickle"
    return ""


def _plain(config: Any) -> Any:
    """As after a way through a file, and without code."""
    return _without_code(json.loads(json.dumps(config)))


def _without_code(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_code(child) for child in node]
    if not isinstance(node, dict):
        return node
    if _is_dumped(node):
        return {LEFT_OUT: _CODE["__lambda__"]}
    reason = _CODE.get(node.get("class_name", ""))
    return {key: {LEFT_OUT: reason} if reason and key == "config" else _without_code(child) for key, child in node.items()}


def _is_dumped(node: dict[str, Any]) -> bool:
    """Whether it is bytecode, its defaults and what it closes over, as Keras dumps a lambda that is an activation."""
    value = node.get("value")
    return set(node) == {"value"} and isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)


def _share(config: Any, obj: Any) -> None:
    """Number the layers that stand in several places, so that they can be one layer again.

    Keras does so by addresses, for whatever has one, also of objects that are long gone; so this looks for the layers themselves.
    """
    places = Counter(id(layer) for _, layer in names.layers(obj))
    shared = {id(layer): layer for _, layer in names.layers(obj) if places[id(layer)] > 1}
    nodes = list(_nodes(config)) if shared else []
    for number, (address, layer) in enumerate(shared.items(), start=1):
        found = [node for node in nodes if node["class_name"] == type(layer).__name__ and _name(node) == layer.name]
        if len(found) == places[address]:
            for node in found:
                node[_SHARED] = number


def _complete(node: Any, given: Any) -> None:
    """Add the arguments of losses and metrics that Keras itself leaves out of their configurations, such as the `delta` of `Huber`.

    Args:
        given: the objects of which the configuration is.
    """
    if isinstance(given, (keras.losses.Loss, keras.metrics.Metric)):
        config = node.get("config") if isinstance(node, dict) else None
        if isinstance(config, dict) and "fn" not in config and type(given).__module__.startswith("keras."):
            taken = inspect.signature(type(given)).parameters
            for name, value in getattr(given, "_fn_kwargs", {}).items():
                if name in taken and isinstance(value, (bool, int, float, str)):
                    config.setdefault(name, value)
    elif isinstance(node, dict) and isinstance(given, dict):
        for key in node.keys() & given.keys():
            _complete(node[key], given[key])
    elif isinstance(node, list) and isinstance(given, (list, tuple)):
        for child, other in zip(node, given, strict=False):
            _complete(child, other)


def _name(node: dict[str, Any]) -> Any:
    config = node.get("config")
    return config.get("name") if isinstance(config, dict) else None


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "class_name" in node:
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _nodes(child)

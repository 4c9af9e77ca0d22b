"""Older: configurations of Keras 1 and 2 and tf.keras, and of Keras 3's own `.h5` models, as Keras 3 writes them today.

Most give classes without modules: where one stands says what it is. Settings that Keras 3 no longer has are left out. Nothing is built
here, and all of it is vetted afterwards like any other.
"""

from collections.abc import Mapping
from typing import Any, Final

from tensorkeep.frameworks.keras import known

_FAMILIES: Final = {
    "initializer": "keras.initializers",
    "regularizer": "keras.regularizers",
    "constraint": "keras.constraints",
}
"""The modules of classes under keys that end so."""

_GONE: Final = frozenset({"batch_input_shape", "implementation", "time_major", "input_dtype", "renorm", "virtual_batch_size", "fused"})
_GONE_OF: Final = {
    "DepthwiseConv1D": {"groups"},
    "DepthwiseConv2D": {"groups"},
    "SeparableConv1D": {"groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"},
    "SeparableConv2D": {"groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"},
}
_GONE_OF_OPTIMIZERS: Final = frozenset({"decay", "jit_compile", "is_legacy_optimizer", "momentum_cache", "schedule_decay"})
_WRAPPERS: Final = ("MeanMetricWrapper", "LossFunctionWrapper")
_MODELS: Final = ("Functional", "Model")
_IN_LISTS: Final = frozenset({"layers", "cells"})
_LAYERS: Final = frozenset({"layer", "cell", "forward_layer", "backward_layer", "backward_layer_config"})


def configuration(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration of a model that a file of these has; None where it has none."""
    model = metadata.get("model_config")
    if isinstance(model, dict) and "class_name" in model:
        training = metadata.get("training_config")
        made = _layer(model, before_3=not str(metadata.get("keras_version", "")).startswith("3"))
        return {**made, "compile_config": _training(training)} if isinstance(training, dict) else made
    config = metadata.get("config")
    if isinstance(config, dict) and str(metadata.get("keras_version", "")).partition(".")[0] in ("1", "2"):
        training = config.get("compile_config")
        return {**_layer(config, before_3=True), "compile_config": _training(training) if isinstance(training, dict) else None}
    return None


def _layer(node: Any, *, before_3: bool) -> Any:
    """A layer or model."""
    if not isinstance(node, dict) or not isinstance(name := node.get("class_name"), str):
        return node
    config = node.get("config")
    if isinstance(config, list):  # of a Sequential model by Keras 1 and early 2
        config = {"layers": config}
    in_place = "keras" if name == "Sequential" else "keras.src.models.functional" if name in _MODELS else "keras.layers"
    made = {**node, "module": _module(node, in_place), "class_name": "Functional" if name in _MODELS else name}
    if isinstance(config, dict):
        gone = _GONE | _GONE_OF.get(name, set())
        made["config"] = {key: _setting(key, child, before_3=before_3) for key, child in config.items() if key not in gone}
        _mend(made["config"], config, name, before_3=before_3)
    return made


def _mend(made: dict[str, Any], config: dict[str, Any], cls: str, *, before_3: bool) -> None:
    """What Keras 3 has under other names, or in other forms."""
    if cls == "InputLayer" and "batch_input_shape" in config:
        made["batch_shape"] = config["batch_input_shape"]
    if isinstance(axis := made.get("axis"), list) and len(axis) == 1:
        made["axis"] = axis[0]
    layers = config.get("layers")
    if cls == "Sequential" and isinstance(layers, list):
        made.setdefault("name", "sequential")
        shape = _shape_of_input(layers[0] if layers else None)
        if shape is not None:  # the first layer tells it, where Keras 3 has an entry of its own
            settings = {"batch_shape": shape}
            made["layers"] = [{"class_name": "InputLayer", "module": "keras.layers", "config": settings}, *made["layers"]]
    elif cls in _MODELS and before_3 and isinstance(layers, list):
        sequential = {child.get("name") for child in layers if isinstance(child, dict) and child.get("class_name") == "Sequential"}
        for key in ("input_layers", "output_layers"):
            made[key] = _counted(made.get(key), sequential)
        for child in made["layers"]:
            if isinstance(child, dict):
                child["inbound_nodes"] = _counted(child.get("inbound_nodes", []), sequential)


def _shape_of_input(layer: Any) -> Any:
    config = layer.get("config") if isinstance(layer, dict) and layer.get("class_name") != "InputLayer" else None
    return config.get("batch_input_shape") if isinstance(config, dict) else None


def _counted(node: Any, sequential: set[Any]) -> Any:
    """Places in a graph, where calls of Sequential models were counted from 1."""
    if isinstance(node, dict):
        return {key: _counted(child, sequential) for key, child in node.items()}
    if not isinstance(node, list):
        return node
    if len(node) >= 3 and isinstance(node[0], str) and node[0] in sequential and isinstance(node[1], int) and node[1] > 0:
        return [node[0], node[1] - 1, *node[2:]]
    return [_counted(child, sequential) for child in node]


def _setting(key: str, node: Any, *, before_3: bool) -> Any:
    if key in _LAYERS:
        return _layer(node, before_3=before_3)
    if key in _IN_LISTS and isinstance(node, list):
        return [_layer(child, before_3=before_3) for child in node]
    if not isinstance(node, dict) or not isinstance(node.get("class_name"), str):
        return node
    if key == "dtype" and node["class_name"] != "Policy":
        return node
    if key == "dtype":  # that of Keras 2 is told by its name
        config = node.get("config")
        return config.get("name") if isinstance(config, dict) else None
    module = next((module for end, module in _FAMILIES.items() if key.endswith(end)), "keras.layers")
    return _object(node, module, {"dtype"}) if module != "keras.layers" else _layer(node, before_3=before_3)


def _object(node: dict[str, Any], in_place: str, gone: set[str] | frozenset[str]) -> dict[str, Any]:
    """An object of a family, whose names some releases write as those of functions, or as registered."""
    name = node["class_name"].rpartition(">")[2] if node["class_name"].startswith("Custom>") else node["class_name"]
    module = _module(node, in_place)
    if name not in known.CLASSES.get(module, ()):
        name = next((one for one in known.CLASSES.get(module, ()) if one.lower() == name.replace("_", "").lower()), name)
    config = node.get("config")
    settings = {key: value for key, value in config.items() if key not in gone} if isinstance(config, dict) else {}
    return {"module": module, "class_name": name, "config": settings, "registered_name": None}


def _module(node: dict[str, Any], in_place: str) -> str:
    module = node.get("module")
    return module.removeprefix("tf_") if isinstance(module, str) and module != "builtins" else in_place


def _training(training: dict[str, Any]) -> dict[str, Any]:
    """How a model was compiled."""
    keys = ("loss", "metrics", "loss_weights", "weighted_metrics")
    made = {key: _goals(training[key], key) for key in keys if training.get(key) is not None}
    optimizer = training.get("optimizer_config", training.get("optimizer"))
    if isinstance(optimizer, dict) and isinstance(optimizer.get("class_name"), str):
        made["optimizer"] = _object(optimizer, "keras.optimizers", _GONE_OF_OPTIMIZERS)
        made["optimizer"]["module"] = known.MODULES.get(made["optimizer"]["module"], made["optimizer"]["module"])
        settings = made["optimizer"]["config"]
        if "lr" in settings:
            settings["learning_rate"] = settings.pop("lr")
        if isinstance(rate := settings.get("learning_rate"), dict) and isinstance(rate.get("class_name"), str):
            settings["learning_rate"] = _object(rate, "keras.optimizers.schedules", set())
    elif optimizer is not None:
        made["optimizer"] = optimizer
    return made


def _goals(node: Any, key: str) -> Any:
    """Losses and metrics, each a name or an object."""
    if isinstance(node, list):
        return [_goals(child, key) for child in node]
    if not isinstance(node, dict):
        return node
    if isinstance(name := node.get("class_name"), str):
        config = node.get("config")
        if name in _WRAPPERS and isinstance(config, dict) and isinstance(config.get("fn"), (str, dict)):
            return config["fn"]  # a function is told by its name
        return node if name == "function" else _object(node, "keras.losses" if key == "loss" else "keras.metrics", {"fn"})
    return {inner: _goals(child, key) for inner, child in node.items()}

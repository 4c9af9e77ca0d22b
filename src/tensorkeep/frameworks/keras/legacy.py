"""Legacy: weights and optimizers of files by Keras 1 and 2, tf.keras, and Keras 3 where it writes `.h5` models.

They name the layers in order, and the weights of each in order, in attributes; names count for nothing, as Keras itself has it.

Source: https://github.com/keras-team/keras, `src/legacy/saving/legacy_h5_format.py`, version 3.15; of Keras 2's optimizers
https://github.com/keras-team/tf-keras, `optimizers/legacy`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tensorkeep.frameworks.keras import names
from tensorkeep.tree import Tree

_ATTRIBUTES: Final = "attributes"
_WEIGHTS: Final = "model_weights"
_OPTIMIZER: Final = "optimizer_weights"
_OF_THE_MODEL: Final = "top_level_model_weights"

_SLOTS: Final[dict[str, dict[str, str]]] = {
    "Adam": {"m": "momentum", "v": "velocity", "vhat": "velocity_hat"},
    "AdamW": {"m": "momentum", "v": "velocity", "vhat": "velocity_hat"},
    "Adamax": {"m": "momentum", "v": "norm", "u": "norm"},
    "Nadam": {"m": "momentum", "v": "velocity", "momentum_cache": "variable"},
    "SGD": {"momentum": "momentum", "m": "momentum"},
    "RMSprop": {"rms": "velocity", "velocity": "velocity", "momentum": "momentum", "mg": "average_gradient"},
    "Adagrad": {"accumulator": "accumulator"},
    "Adadelta": {
        "accum_grad": "accumulated_grad",
        "accum_var": "accumulated_delta_var",
        "accumulated_grad": "accumulated_grad",
        "accumulated_delta_var": "accumulated_delta_var",
    },
    "Ftrl": {"accumulator": "accumulator", "linear": "linear"},
    "Lion": {"m": "momentum"},
}
"""What Keras 2 calls the slots of an optimizer, and Keras 3."""


class Disagreement(ValueError):
    """The file and the model have other numbers of layers or weights.

    Attributes:
        found, wanted: in words.
    """

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(f"{found}, {wanted}")
        self.found, self.wanted = found, wanted


def is_one(metadata: Mapping[str, Any]) -> bool:
    """Whether a file lists the names of its layers, as all of these do."""
    return bool(_listed(metadata, "", "layer_names") or _listed(metadata, _WEIGHTS, "layer_names"))


def is_as_written(state: Mapping[Any, Tree], metadata: Mapping[str, Any]) -> bool:
    """Whether all that a file lists stands where it says: a caller who renamed it wants his own names."""
    root = _WEIGHTS if _listed(metadata, _WEIGHTS, "layer_names") else ""
    weights = state.get(_WEIGHTS, {}) if root else state
    return all(
        _at(_at(weights, layer), name) is not None
        for layer in _listed(metadata, root, "layer_names")
        for name in _listed(metadata, f"{root}/{layer}".strip("/"), "weight_names")
    )


def translated(model: Any, state: Mapping[Any, Tree], metadata: Mapping[str, Any]) -> dict[str, Tree]:
    """A state of such a file by the names of the model's variables.

    Raises:
        Disagreement: another number of layers with weights, or of weights in one of them.
    """
    by_id = names.by_id(model)
    root = _WEIGHTS if _listed(metadata, _WEIGHTS, "layer_names") else ""
    weights = state.get(_WEIGHTS, {}) if root else state
    saved = [
        (name, given)
        for name in _listed(metadata, root, "layer_names")
        if (given := _listed(metadata, f"{root}/{name}".strip("/"), "weight_names"))
    ]
    layers = [layer for layer in getattr(model, "layers", [model]) if layer.weights]  # a layer alone is its own
    if len(saved) != len(layers):
        raise Disagreement(f"{len(saved)} layers with weights", f"{len(layers)} of them")
    found: dict[str, Tree] = {}
    for (name, given), layer in zip(saved, layers, strict=True):
        variables = [*layer.trainable_weights, *layer.non_trainable_weights]
        if len(given) != len(variables):
            raise Disagreement(f"{len(given)} weights in its {name:.100}", f"{len(variables)} in {layer.name}")
        found.update(_named(weights, name, given, variables, by_id))
    own = [variable for variable in (*model._trainable_variables, *model._non_trainable_variables) if id(variable) in by_id]
    given = _listed(metadata, f"{root}/{_OF_THE_MODEL}".strip("/"), "weight_names")
    if given and len(given) == len(own):
        found.update(_named(weights, _OF_THE_MODEL, given, own, by_id))
    return found


def count_of_optimizer(metadata: Mapping[str, Any]) -> int:
    """How many variables a file has of an optimizer."""
    return len(_listed(metadata, _OPTIMIZER, "weight_names"))


def of_optimizer(optimizer: Any, model: Any, state: Mapping[Any, Tree], metadata: Mapping[str, Any]) -> dict[str, Tree]:
    """The state of an optimizer by the names that its variables have here; empty where the file has none."""
    given = _listed(metadata, _OPTIMIZER, "weight_names")
    group = state.get(_OPTIMIZER)
    if not given or not isinstance(group, dict):
        return {}
    tensors = [_at(group, name) for name in given]
    known = list(names.of_optimizer(optimizer, names.by_id(model)))
    if len(given) == len(known):  # Keras 3 wrote it
        return dict(zip(known, tensors, strict=True))
    return dict(_of_keras_2(optimizer, known, given, tensors))


def _of_keras_2(optimizer: Any, known: list[str], given: list[str], tensors: list[Tree]) -> Iterator[tuple[str, Tree]]:
    """The same of Keras 2: a counter, then each slot for all variables in turn."""
    slots = _SLOTS.get(type(optimizer).__name__, {})
    met: dict[str, int] = {}
    for name, tensor in zip(given, tensors, strict=True):
        parts = name.partition(":")[0].split("/")
        if parts[-1] in ("iter", "iteration", "iterations"):
            yield "iteration", tensor
            continue
        slot = next((slots[part] for part in (parts[-1], *parts) if part in slots), None)
        of_slot = [one for one in known if slot is not None and (one == slot or one.endswith(f"/{slot}"))]
        at = met.get(slot or "", 0)
        met[slot or ""] = at + 1
        if parts[-1] in ("learning_rate", "current_learning_rate") and "learning_rate" in known:
            yield "learning_rate", tensor
        elif parts[-1] not in ("decay", "rho", "learning_rate"):
            yield (of_slot[at] if at < len(of_slot) else f"{_OPTIMIZER}.{name}"), tensor


def learning_rate(metadata: Mapping[str, Any]) -> float | None:
    """The rate that Keras 2 kept in the settings of a training, not among the weights."""
    for keys in (("training_config", "optimizer_config", "config"), ("config", "compile_config", "optimizer", "config")):
        node: Any = metadata
        for key in keys:
            node = node.get(key) if isinstance(node, Mapping) else None
        if node is not None:
            break
    found = node.get("learning_rate", node.get("lr")) if isinstance(node, Mapping) else None
    return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def _named(weights: Any, layer: str, given: list[str], variables: list[Any], by_id: Mapping[int, str]) -> Iterator[tuple[str, Tree]]:
    group = _at(weights, layer)
    for name, variable in zip(given, variables, strict=True):
        yield by_id.get(id(variable), f"{layer}.{name}"), _at(group, name)


def _at(node: Tree, path: str) -> Tree:
    """What stands at a path of HDF5."""
    for part in path.split("/"):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _listed(metadata: Mapping[str, Any], group: str, name: str) -> list[str]:
    """A list of names in the attributes of a group; long ones are kept in pieces."""
    attributes = metadata.get(_ATTRIBUTES, {}) if group else {}
    found: Any = (attributes.get(group, {}) if isinstance(attributes, Mapping) else {}) if group else metadata
    if not isinstance(found, Mapping):
        return []
    whole = found.get(name)
    if whole is None:
        pieces = [found[f"{name}{number}"] for number in range(len(found)) if f"{name}{number}" in found]
        whole = [one for piece in pieces if isinstance(piece, list) for one in piece]
    return [one for one in whole if isinstance(one, str)] if isinstance(whole, list) else []

"""Layouts: how Keras's own files lay out a model, told in the names that it has here.

Keras 3 walks a model's attributes and numbers the variables of each object (`layers/dense/vars/0`); files of Keras 1 and 2, and Keras 3's
legacy ones, list the weights of each layer in order. Which variable a number means, only the model itself can say: so this asks it.

Source: https://github.com/keras-team/keras, `src/saving/saving_lib.py` and `src/legacy/saving/legacy_h5_format.py`, version 3.15.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import keras

from tensorkeep.frameworks.keras import names, vocabularies
from tensorkeep.frameworks.keras.names import OPTIMIZER
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Tree, walk

_OLD: Final = "_layer_checkpoint_dependencies"  # what Keras 2.12 to 2.15 have for `layers`
_VARS: Final = "vars"
ASSETS: Final = "assets"
_ASIDE: Final = ("metrics", "_loss_tracker", "_compile_metrics", ASSETS)  # of no use to a model, or taken care of elsewhere
_SEEDS: Final = "seed_generator"  # which some releases kept


def is_numbered(state: Mapping[Any, Tree]) -> bool:
    """Whether a state is laid out by attributes and numbers, as Keras 3 does."""
    return any(
        isinstance(node, dict) and ((key == _VARS and all(map(str.isdigit, map(str, node)))) or is_numbered(node))
        for key, node in state.items()
    )


def is_beside(path: str) -> bool:
    """Whether a path of a file is of a vocabulary, for which no layer needs a shape."""
    return path.partition(".")[0] == ASSETS or path.endswith(f"{_VARS}.idf_weights")


def translated(model: Any, state: Mapping[Any, Tree], read: Callable[[LazyTensor], Any]) -> dict[str, Tree]:
    """A state of Keras 3's layout by the names of the model's variables; what belongs to none stays under its path in the file.

    Args:
        model: a layer or model that has its variables.
        read: makes a tensor of the file now.
    """
    by_id = names.by_id(model)
    found: dict[str, Tree] = {}
    taken: set[str] = set()
    optimizer = getattr(model, OPTIMIZER, None) if isinstance(model, keras.Model) else None
    for path, saveable in _saveables(model):
        group, where = _group(state, path)
        taken.add(where)
        if isinstance(saveable, (keras.optimizers.Optimizer, keras.metrics.Metric)):
            if saveable is optimizer and group:
                found[OPTIMIZER] = _of_optimizer(saveable, group, by_id)
            continue
        asset = _asset(state, path) if id(saveable) in by_id and vocabularies.has_one(saveable) else None
        if asset is not None:
            found[by_id[id(saveable)]] = vocabularies.of_asset(saveable, asset, group.get("idf_weights"), read)
            continue
        if not isinstance(saveable, keras.Layer) or not group or vocabularies.is_about_tokens(saveable):
            continue
        if id(saveable) in by_id:  # it takes its state as a whole
            found[by_id[id(saveable)]] = group
            continue
        for number, variable in _numbered(saveable).items():
            if id(variable) in by_id and number in group:
                found[by_id[id(variable)]] = group.pop(number)
        found |= {f"{where}.{number}": node for number, node in group.items()}
    found.update(_rest(state, taken))
    return found


def seeds(model: Any) -> set[str]:
    """The names of what seed generators hold, which Keras's files have not."""
    by_id = names.by_id(model)
    generators = [generator for _, layer in names.layers(model) for generator in layer._seed_generators]
    return {by_id[id(generator.state)] for generator in generators if id(generator.state) in by_id}


def of_lora(model: Any) -> Iterator[tuple[str, Any]]:
    """The variables of LoRA, which Keras's files have not: they keep the weights together with them."""
    by_id = names.by_id(model)
    for _, layer in names.layers(model):
        if getattr(layer, "lora_enabled", False):
            for name, variable in vars(layer).items():
                if name.startswith("lora_") and id(variable) in by_id:
                    yield by_id[id(variable)], variable


def _rest(state: Mapping[Any, Tree], taken: set[str]) -> Iterator[tuple[str, Tree]]:
    """What the file has beside the objects of the model."""
    for path, leaf in walk(dict(state)):
        parts = path.split(".")
        aside = parts[0] in (*_ASIDE, OPTIMIZER, names.CONFIG) or _SEEDS in parts
        if not aside and path.rpartition(".")[0] not in taken:
            yield path, leaf


def _group(state: Mapping[Any, Tree], path: tuple[str, ...]) -> tuple[dict[str, Tree], str]:
    """The numbered variables that a file has for an object, and their path there."""
    for parts in (path, tuple(_OLD if part == "layers" else part for part in path)):
        node: Tree = state
        for part in (*parts, _VARS):
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict):
            return dict(node), ".".join((*parts, _VARS))
    return {}, ".".join((*path, _VARS))


def _asset(state: Mapping[Any, Tree], path: tuple[str, ...]) -> LazyTensor | None:
    """The vocabulary that a file has for a layer beside the variables."""
    assets = state.get(ASSETS)
    found = assets.get("/".join((*path, vocabularies.FILE))) if isinstance(assets, dict) else None
    return found if isinstance(found, LazyTensor) else None


def count_of_optimizer(state: Mapping[Any, Tree]) -> int:
    """How many variables a file has of an optimizer."""
    return len(_group(state, (OPTIMIZER,))[0])


def _of_optimizer(optimizer: Any, group: dict[str, Tree], by_id: Mapping[int, str]) -> dict[str, Tree]:
    """An optimizer's variables by the names that they have here: in the same order."""
    known = list(names.of_optimizer(optimizer, by_id))
    if len(group) + 1 == len(known) and "learning_rate" in known:
        known.remove("learning_rate")  # of Keras 2 it is no variable
    return {known[int(number)] if int(number) < len(known) else f"{_VARS}.{number}": node for number, node in group.items()}


def _numbered(layer: Any) -> dict[str, Any]:
    """Which variable each number of a layer means."""
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    if all(isinstance(value, keras.Variable) for value in store.values()):
        return store
    # With LoRA the layer writes what its weights amount to with it: those weights are meant.
    spec = getattr(layer, "variable_serialization_spec", {}).get(getattr(layer, "quantization_mode", None), ("kernel", "bias"))
    meant = [getattr(layer, f"_{name}" if hasattr(layer, f"_{name}") else name, None) for name in spec]
    present = [variable for variable in meant if variable is not None]
    return {str(number): variable for number, variable in enumerate(present)}


def _saveables(root: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every object of a model that Keras saves, at the path that it gives it: once, where it meets it first."""
    lib = keras.src.saving.saving_lib
    saveable = keras.src.saving.keras_saveable.KerasSaveable
    met: set[int] = set()

    def visit(obj: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
        if id(obj) in met:
            return
        met.add(id(obj))
        yield path, obj
        for attribute, child in lib._walk_saveable(obj):
            if isinstance(child, saveable):
                yield from visit(child, (*path, attribute))
            elif isinstance(child, (list, dict, tuple)):
                yield from container(child, (*path, attribute), set())

    def container(items: Any, path: tuple[str, ...], around: set[int]) -> Iterator[tuple[tuple[str, ...], Any]]:
        if id(items) in around:
            return
        around.add(id(items))
        used: dict[str, int] = {}
        for child in list(items.values()) if isinstance(items, dict) else items:
            if isinstance(child, saveable):
                yield from visit(child, (*path, _unique(names.snake_case(type(child).__name__), used)))
            elif isinstance(child, (list, dict, tuple)):
                yield from container(child, (*path, _unique("container", used)), around)

    yield from visit(root, ())


def _unique(name: str, used: dict[str, int]) -> str:
    used[name] = used.get(name, -1) + 1
    return f"{name}_{used[name]}" if used[name] else name

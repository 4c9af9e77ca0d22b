"""Names: what Keras's variables are called in a file, the same for every instance of a model.

Keras numbers layers by how many of a class the process has made so far: `dense_7`. Here each number counts from the model: the first
such layer in it is `dense`, the next one `dense_1`, as in a process that made nothing else. Other names stay as they are.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import keras

from tensorkeep.frameworks.keras import own_code, vocabularies
from tensorkeep.tree import Names

CONFIG: Final = "config"
METRICS: Final = "metrics"
OPTIMIZER: Final = "optimizer"

_NUMBERED: Final = re.compile(r"(.+?)(?:_\d+)?")
_SEED: Final = "seed_generator"


class Numbering:
    """The names of what stands side by side in one layer or list."""

    def __init__(self) -> None:
        self._names, self._counts = Names(), Counter[str]()

    def name(self, name: str, automatic: str) -> str:
        """A name, numbered anew if it is one that Keras made.

        Args:
            automatic: what Keras makes such names of.
        """
        match = re.fullmatch(rf"((?:forward_|backward_)?{re.escape(automatic)})(?:_\d+)?", name)  # Bidirectional has two of its layer
        return self._names.free(self.numbered(match[1]) if match else name)

    def numbered(self, base: str) -> str:
        """The next name of this base."""
        self._counts[base] += 1
        return base if self._counts[base] == 1 else f"{base}_{self._counts[base] - 1}"


def snake_case(name: str) -> str:
    """A class's name as Keras makes names of it. Source: `to_snake_case` in keras/src/utils/naming.py."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def layers(root: Any) -> Iterator[tuple[str, Any]]:
    """A layer or model and every one in it, each with the prefix of what is in it; at each of its places, if it is shared."""
    yield from _layers(root, "", set())


def _layers(layer: Any, prefix: str, around: set[int]) -> Iterator[tuple[str, Any]]:
    yield prefix, layer
    numbering = Numbering()
    for child in layer._layers:
        if isinstance(child, keras.Layer) and id(child) not in around:
            automatic = snake_case(type(child).__name__)
            given = automatic if child.name == layer.name and _hands_its_name_on(layer) else child.name
            name = numbering.name(given, automatic)
            yield from _layers(child, f"{prefix}{name}/", {*around, id(layer)})


def _hands_its_name_on(layer: Any) -> bool:
    """Whether it is one of Keras's layers that call those in them as themselves, once they are made of a configuration."""
    return type(layer).__module__.startswith("keras.") and not isinstance(layer, keras.Model)


def of_layer(root: Any) -> dict[str, Any]:
    """Every variable of a layer or model, by name: what it owns, what its seed generators do, and what the layers in it have.

    What takes its state as a whole stands as one entry: a layer with code of its own, and a module of PyTorch that is wrapped, which
    has buffers beside the parameters that Keras knows.
    """
    wrapper = getattr(keras.layers, "TorchModuleWrapper", ())
    found: dict[str, Any] = {}
    names, known = _beside_parts(), set[int]()
    for prefix, layer in layers(root):
        numbering = Numbering()
        own = (*layer._trainable_variables, *layer._non_trainable_variables)
        known.update(map(id, own))
        if wrapper and isinstance(layer, wrapper):
            found[names.free(f"{prefix}module")] = layer.module
        elif own_code.has_some(layer):
            found[names.free(f"{prefix}vars")] = own_code.capture(layer)
        else:
            for variable in own:
                found[names.free(prefix + numbering.name(variable.name, _automatic(variable)))] = variable
        if vocabularies.has_one(layer):
            found[names.free(f"{prefix}{vocabularies.name_of(layer)}")] = vocabularies.capture(layer)
        for generator in layer._seed_generators:
            known.add(id(generator.state))
            found[names.free(f"{prefix}{numbering.name(generator.name, _SEED)}/{generator.state.name}")] = generator.state
    for variable in root.variables:  # of layers that Keras finds in another way
        if id(variable) not in known:
            found[names.free(variable.path)] = variable
    return found


def by_id(root: Any) -> dict[int, str]:
    """The first name of every variable of a layer or model, and of layers in it that take their state as a whole."""
    found: dict[int, str] = {}
    for name, value in of_layer(root).items():
        found.setdefault(id(getattr(value, "origin", value)), name)
    for _, layer in layers(root):
        if id(module := getattr(layer, "module", None)) in found:
            found.setdefault(id(layer), found[id(module)])
    return found


def of_optimizer(optimizer: Any, of_model: Mapping[int, str] | None = None) -> dict[str, Any]:
    """Every variable of an optimizer, by name: `iteration`, and `dense/kernel/momentum` for what belongs to a variable of the model.

    Args:
        of_model: names of the model's variables, by id; without them, what stands in their paths is numbered anew.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    references = list(inner._trainable_variables)
    paths = _renumbered([reference.path for reference in references])
    places: dict[str, list[str]] = {}
    for reference, path in zip(references, paths, strict=True):
        places.setdefault(reference.path.replace("/", "_"), []).append((of_model or {}).get(id(reference), path))
    names, numbering, met = _beside_parts(), Numbering(), Counter[tuple[str, str]]()
    found: dict[str, Any] = {}
    for variable in optimizer.variables:
        reference_path, slot = _slot(variable.name, places)
        if slot:
            some = places[reference_path]
            name = f"{some[met[reference_path, slot] % len(some)]}/{slot}"
            met[reference_path, slot] += 1
        else:
            name = numbering.name(variable.name, _automatic(variable))
        found[names.free(name)] = variable
    return found


def _slot(name: str, places: Mapping[str, object]) -> tuple[str, str]:
    """The variable that an optimizer's variable belongs to, and what it is to it; two empty texts for one that belongs to none."""
    at = len(name)
    while (at := name.rfind("_", 0, at)) > 0:
        if name[:at] in places and at + 1 < len(name):
            return name[:at], name[at + 1 :]
    return "", ""


def of_metrics(metrics: Any) -> dict[str, Any]:
    """Every variable of these metrics, by name: `accuracy/total`."""
    found: dict[str, Any] = {}
    names, numbering = Names(), Numbering()
    for metric in metrics:
        prefix = numbering.name(metric.name, snake_case(type(metric).__name__))
        for name, variable in of_metric(metric).items():
            found[names.free(f"{prefix}/{name}")] = variable
    return found


def of_metric(metric: Any) -> dict[str, Any]:
    """Every variable of one metric, by name."""
    names, numbering = Names(), Numbering()
    return {names.free(numbering.name(variable.name, _automatic(variable))): variable for variable in metric.variables}


def _beside_parts() -> Names:
    """Names for variables, of which none is that of another part of a state."""
    names = Names()
    for part in (CONFIG, METRICS, OPTIMIZER):
        names.free(part)
    return names


def _automatic(variable: Any) -> str:
    return snake_case(type(variable).__name__)


def _renumbered(paths: list[str]) -> list[str]:
    """Paths whose every part is numbered anew among those beside it, in order of appearance."""
    names, known = Names(), dict[tuple[str, ...], str]()
    beside: dict[tuple[str, ...], Numbering] = {}
    renumbered: list[str] = []
    for path in paths:
        *parents, last = path.split("/")
        above: tuple[str, ...] = ()
        parts: list[str] = []
        for part in parents:
            here = (*above, part)
            if here not in known:
                match = _NUMBERED.fullmatch(part)
                known[here] = beside.setdefault(above, Numbering()).numbered(match[1] if match else part)
            parts.append(known[here])
            above = here
        renumbered.append(names.free("/".join([*parts, last])))
    return renumbered

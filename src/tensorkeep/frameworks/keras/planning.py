"""Planning: Keras's objects against what a file has for them, by name.

What has no variables yet is built here, so that there is something to match, and is taken back if the load fails.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import keras
import numpy as np

from tensorkeep.frameworks.keras import building, layouts, legacy, names, own_code, variables, vocabularies
from tensorkeep.frameworks.keras.names import CONFIG, METRICS, OPTIMIZER
from tensorkeep.matching import MISSING, TIED, Matcher, Result, named
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Tree, join, tensors, walk

KIND_OF_OPTIMIZERS: Final = "keras.optimizer"


def plan_layer(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Match a layer or model: its variables, then its optimizers and metrics.

    An optimizer or metrics that only the file has are set aside: they are of no use to a model that is not compiled.
    """
    obj: Any = target.origin
    if not isinstance(state, dict):
        matcher.other_kind(state, path, f"a {target.cls}")
        return lambda: obj
    own = dict(target.state)
    by_keras = layouts.is_numbered(state) or (
        path == "" and legacy.is_one(matcher.metadata) and legacy.is_as_written(state, matcher.metadata)
    )
    if by_keras:
        state = {**state, CONFIG: matcher.metadata.get(CONFIG, state.get(CONFIG))}
    if not building.is_whole(obj) and (reason := _build_model(obj, own, state, matcher)):
        hint = f"{reason}; call model.build(input_shape) first, or the model once with data"
        matcher.problem("object", path, "its variables", f"a {target.cls} that is not built", hint)
        return lambda: obj
    if by_keras:
        try:
            state = _translated(obj, own, state, matcher)
        except legacy.Disagreement as error:
            matcher.problem("object", path, error.found, error.wanted, "Keras's older files go by order, so that all have to be there")
            return lambda: obj
    found, beside = _split(state, own)
    found, others = named(found, [key for key, node in own.items() if _is_variable(node)])
    for key, node in own.items():
        if _is_variable(node):
            variables.fit(node, found.get(key, MISSING), join(path, key), matcher)
        elif key == METRICS:
            _fit_metrics(node, beside.get(key, {}), join(path, key), matcher)
        elif node.kind == KIND_OF_OPTIMIZERS:
            _fit_optimizer(obj, key, node, beside.get(key, MISSING), join(path, key), matcher)
        else:
            matcher.fit(node, beside.get(key, MISSING), join(path, key))
    for key, node in others.items():
        matcher.unexpected(node, join(path, key))
    matcher.finish.append(lambda: _finish(obj))
    return lambda: obj


def _translated(model: Any, own: dict[str, Any], state: dict[Any, Tree], matcher: Matcher) -> dict[Any, Tree]:
    """The state of a file by Keras itself by the names that the model's variables have here."""
    node: Any = own.get(OPTIMIZER)
    optimizer: Any = node.origin if isinstance(node, Captured) else None
    is_numbered = layouts.is_numbered(state)
    in_file = max(layouts.count_of_optimizer(state), legacy.count_of_optimizer(matcher.metadata))
    if optimizer is not None and not optimizer.built and in_file > len(optimizer.variables) and model.built:
        matcher.take_back.append(building.Snapshot(optimizer, getattr(optimizer, "inner_optimizer", optimizer)).restore)
        _build_optimizer(model, model, node)
    if is_numbered:
        found = layouts.translated(model, state, matcher.read)
    else:
        found = legacy.translated(model, state, matcher.metadata)
        if optimizer is not None and (slots := legacy.of_optimizer(optimizer, model, state, matcher.metadata)):
            found[OPTIMIZER] = slots
    if optimizer is not None and "learning_rate" in node.state and "learning_rate" not in found.get(OPTIMIZER, {"learning_rate": 0}):
        variable = node.state.pop("learning_rate").source.variable  # before Keras 3 it stood in the settings, if anywhere
        if (rate := legacy.learning_rate(matcher.metadata)) is not None:
            variables.assign(variable, np.array(rate, str(variable.dtype)), f"{OPTIMIZER}.learning_rate", matcher)
    absent = {name for name, node in own.items() if isinstance(node, Captured) and node.kind == vocabularies.KIND}
    for name in (layouts.seeds(model) | absent) - set(found):
        own.pop(name, None)  # Keras keeps no seeds, and vocabularies only in archives
    for name, variable in layouts.of_lora(model):
        if name not in found and own.pop(name, None) is not None:  # Keras writes what the weights amount to with it
            variables.assign(variable, np.zeros(tuple(variable.shape), "float32"), name, matcher)
    return found


def _is_variable(node: Tree) -> bool:
    return isinstance(node, LazyTensor) or (isinstance(node, Captured) and node.kind == TIED)


def _split(state: dict[Any, Tree], own: Mapping[str, Tree]) -> tuple[dict[Any, Tree], dict[str, Any]]:
    """What a state has of variables, and what it has beside them by the names of parts: a flat file has `optimizer.iteration`."""
    known = {METRICS, CONFIG, OPTIMIZER, *(key for key, node in own.items() if not _is_variable(node))}
    found: dict[Any, Tree] = {}
    beside: dict[str, Any] = {}
    for key, node in state.items():
        name, dot, rest = key.partition(".") if isinstance(key, str) else ("", "", "")
        if dot and name in known and key not in own:
            beside.setdefault(name, {})[rest] = node
        elif not isinstance(node, LazyTensor) and (key in known or (isinstance(node, Captured) and node.kind == KIND_OF_OPTIMIZERS)):
            beside[key] = node
        else:
            found[key] = node
    return found, beside


def _build_model(obj: Any, own: dict[str, Any], state: dict[Any, Tree], matcher: Matcher) -> str:
    """Build a model with the shapes of the file, if that has more than the model. Returns why that is impossible, or "".

    Args:
        own: of the model; gets what is made.
    """
    found, beside = _split(state, own)
    if all(layouts.is_beside(name) for name in named(found, own)[1]):
        return ""
    config = beside.get(CONFIG)
    matcher.take_back.append(building.Snapshot(*(layer for _, layer in names.layers(obj))).restore)
    most = sum(tensor.spec.count for _, tensor in tensors(found))
    reason = building.model(obj, config.get("build_config") if isinstance(config, dict) else None, most)
    made = {name: value for name, value in names.of_layer(obj).items() if name not in own}
    own.update((name, value if isinstance(value, Captured) else variables.capture(value)) for name, value in made.items())
    if any(map(_is_variable, own.values())):
        return ""  # what does not fit is told by name: a layer that is never used stays without variables
    return reason or "its own code made no variables by the shapes of the file"


def _fit_metrics(own: dict[str, Tree], found: Tree, path: str, matcher: Matcher) -> None:
    """Metrics that only one side has are left alone: Keras makes them at the first batch, and empties them at each epoch."""
    if isinstance(found, dict):
        taken, _ = named(found, own)
        for key, node in own.items():
            if key in taken:
                variables.fit(node, taken[key], join(path, key), matcher)


def _fit_optimizer(model: Any, key: str, node: Captured, found: Tree, path: str, matcher: Matcher) -> None:
    """An optimizer of a model, or of one in it, which knows the variables that it can be built for."""
    optimizer: Any = node.origin
    compiled: Any = next((layer for prefix, layer in names.layers(model) if prefix + OPTIMIZER == key), None)
    if found is MISSING:
        if optimizer.built and any(matcher.selected(leaf) for leaf, _ in walk(node, path)):
            hint = "strict=False keeps it as it is; so does to load before compile()"
            matcher.problem("missing", path, "", f"a {node.cls}", hint)
        return
    matcher.found_cls = found.cls if isinstance(found, Captured) else ""

    build = None if compiled is None else partial(_build_optimizer, model, compiled, node)
    plan_optimizer(node, found.state if isinstance(found, Captured) else found, path, matcher, build)


def _build_optimizer(model: Any, compiled: Any, node: Captured) -> str:
    """Make the variables of an optimizer for those of the model that it is in. Returns why that is impossible, or ""."""
    optimizer: Any = node.origin
    of_model = {id(variable): name for name, variable in names.of_layer(model).items()}
    reason = building.optimizer(optimizer, compiled.trainable_variables) if compiled.built else "its model is not built"
    node.state = {name: variables.capture(made) for name, made in names.of_optimizer(optimizer, of_model).items()}
    return reason


def plan_optimizer(target: Captured, state: Tree, path: str, matcher: Matcher, build: Callable[[], str] | None = None) -> Result:
    """Match an optimizer.

    Args:
        build: makes the variables of one that has none yet, and says why it could not.
    """
    optimizer: Any = target.origin
    if not isinstance(state, dict):
        matcher.other_kind(state, path, f"a {target.cls}")
        return lambda: optimizer
    if matcher.found_cls != target.cls and all(hasattr(keras.optimizers, name) for name in (matcher.found_cls, target.cls)):
        matcher.problem("object", path, f"a {matcher.found_cls}", f"a {target.cls}")  # slots of one name mean other things
        return lambda: optimizer
    state = {key: node for key, node in state.items() if key != CONFIG and not str(key).startswith(f"{CONFIG}.")}
    found, others = named(state, target.state)
    if others and not optimizer.built:
        reason = "an optimizer alone does not know what it is for"
        if build is not None:
            matcher.take_back.append(building.Snapshot(optimizer, getattr(optimizer, "inner_optimizer", optimizer)).restore)
            reason = build()
        if reason:
            hint = f"{reason}; call optimizer.build(model.trainable_variables) first"
            matcher.problem("object", path, f"{len(others)} more variables", f"a {target.cls} that is not built", hint)
            return lambda: optimizer
        found, others = named(state, target.state)
    _fit_all(target.state, found, others, path, matcher)
    return lambda: optimizer


def plan_variables(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Match a metric or a seed generator: its variables by their names."""
    if not isinstance(state, dict):
        matcher.other_kind(state, path, f"a {target.cls}")
    else:
        _build_metric(target, named(state, target.state)[1], matcher)
        _fit_all(target.state, *named(state, target.state), path, matcher)
    return lambda: target.origin


def _build_metric(target: Captured, others: dict[str, Tree], matcher: Matcher) -> None:
    """Make the variables that a metric lacks, if those of the file, all of one size, tell how many classes it is for."""
    shapes = {node.shape if isinstance(node, LazyTensor) and node.dtype.name == "F32" else None for node in others.values()}
    if isinstance(target.origin, keras.metrics.Metric) and len(shapes) == 1 and (shape := shapes.pop()) is not None:
        matcher.take_back.append(building.Snapshot(target.origin).restore)
        building.metric(target.origin, shape[-1] if shape else 1)
        made = names.of_metric(target.origin)
        target.state.update((name, variables.capture(variable)) for name, variable in made.items() if name not in target.state)


def _fit_all(own: dict[str, Tree], found: dict[str, Tree], others: dict[str, Tree], path: str, matcher: Matcher) -> None:
    for key, node in own.items():
        variables.fit(node, found.get(key, MISSING), join(path, key), matcher)
    for key, node in others.items():
        matcher.unexpected(node, join(path, key))


def _finish(model: Any) -> None:
    """What layers derive from their variables, and Keras's own `load_own_variables` renews."""
    for _, layer in names.layers(model):
        if hasattr(layer, "finalize_state") and hasattr(layer, "adapt_mean"):  # Normalization
            layer.finalize_state()
        own_code.renew(layer)
        for mode in ("gptq", "awq"):
            if hasattr(layer, f"is_{mode}_calibrated"):
                setattr(layer, f"is_{mode}_calibrated", layer.quantization_mode == mode)

"""Keras 3, on all its backends: variables, layers and models, optimizers, metrics, seed generators.

With the PyTorch backend a layer of Keras is a module of PyTorch too; it is Keras's here, for its classes come first. So names are
those of Keras, and the file is the same as with another backend.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import keras

from tensorkeep.errors import UnsupportedError
from tensorkeep.frameworks.keras import architecture, making, names, older, own_code, planning, variables, vocabularies
from tensorkeep.frameworks.keras.names import CONFIG, METRICS
from tensorkeep.frameworks.keras.planning import KIND_OF_OPTIMIZERS
from tensorkeep.matching import Matcher, Result
from tensorkeep.tree import Captured, Names, Tree

_IS_KERAS_3: Final = int(keras.__version__.partition(".")[0]) >= 3
_OBJECTS: Final = (keras.Layer, keras.optimizers.Optimizer, keras.metrics.Metric, keras.random.SeedGenerator) if _IS_KERAS_3 else ()


class KerasAdapter:
    """Everything of Keras that has variables. Losses, schedules and initializers have none."""

    name = "keras"
    kinds = frozenset({"keras.layer", KIND_OF_OPTIMIZERS, "keras.metric", "keras.seed_generator", own_code.KIND, vocabularies.KIND})

    def owns(self, obj: object) -> bool:
        return isinstance(obj, _OBJECTS) or (_IS_KERAS_3 and _is_variable(obj))

    def capture(self, obj: Any) -> Tree:
        made = self.capture_target(obj)
        if isinstance(obj, keras.Layer):
            _refuse_assets(obj)
        if isinstance(obj, (keras.Layer, keras.optimizers.Optimizer)):
            made.state[CONFIG] = architecture.of(obj)
        return made

    def capture_target(self, obj: Any) -> Tree:
        """As `capture`, without what no target is matched with."""
        if _is_variable(obj):
            return variables.capture(obj)
        cls = type(obj).__qualname__
        if isinstance(obj, keras.Layer):
            return Captured("keras.layer", cls, _of_layer(obj), origin=obj)
        if isinstance(obj, keras.optimizers.Optimizer):
            return Captured(KIND_OF_OPTIMIZERS, cls, names.of_optimizer(obj), origin=obj)
        if isinstance(obj, keras.metrics.Metric):
            return Captured("keras.metric", cls, names.of_metric(obj), origin=obj)
        return Captured("keras.seed_generator", cls, {obj.state.name: obj.state}, origin=obj)

    def rebuild(self, node: Captured, state: Any, types: Mapping[str, type]) -> object:
        """The state: arrays by name. A model is built by whoever has its code."""
        return state

    def found_in(self, tree: Tree, metadata: Mapping[str, Any]) -> Tree:
        """The model of a file by Keras itself, which says how it is made; the tree for any other."""
        config = older.configuration(metadata) or metadata.get(CONFIG)
        if not isinstance(tree, dict) or not isinstance(config, dict) or "class_name" not in config:
            return tree
        return Captured("keras.layer", f"{config['class_name']:.100}", {**tree, CONFIG: config})

    def build(
        self,
        node: Captured,
        inside: Callable[[Tree], Any],
        types: Mapping[str, Any],
        once: Callable[[Warning], None],
        fill: Callable[[Any, Captured], None],
    ) -> object:
        """The model itself, built from its configuration; of an optimizer, a metric or a seed generator the state, as without asking.

        Raises:
            ValueError: the configuration names what is not built.
        """
        return making.make(node, inside, types, fill) if node.kind == "keras.layer" else inside(node.state)

    def plan(self, target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
        if target.kind == "keras.layer":
            return planning.plan_layer(target, state, path, matcher)
        if target.kind == KIND_OF_OPTIMIZERS:
            return planning.plan_optimizer(target, state, path, matcher)
        if target.kind == vocabularies.KIND:
            return vocabularies.plan(target, state, path, matcher)
        if target.kind == own_code.KIND:
            return own_code.plan(target, state, path, matcher)
        return planning.plan_variables(target, state, path, matcher)


def _is_variable(obj: object) -> bool:
    # Preprocessing layers may hold variables of another backend, which have no public base in common with this one's.
    return isinstance(obj, keras.Variable) or any(cls.__name__ == "Variable" and _is_kerass(cls) for cls in type(obj).__mro__)


def _is_kerass(cls: type) -> bool:
    return cls.__module__.startswith("keras.src.backend.")


def _of_layer(obj: Any) -> dict[str, Any]:
    """A layer's variables by name; under its attributes' names the optimizers that it and layers in it have; its metrics."""
    if callable(sync := getattr(obj, "jax_state_sync", None)):
        sync()  # while it trains, the JAX backend keeps the values elsewhere
    found = names.of_layer(obj)
    beside = Names()
    for name in (*found, METRICS, CONFIG):
        beside.free(name)
    of_model = {id(variable): name for name, variable in found.items()}
    met: set[int] = set()
    for prefix, layer in names.layers(obj):
        for attribute, value in vars(layer).items():
            if isinstance(value, keras.optimizers.Optimizer) and id(value) not in met:
                met.add(id(value))
                state = names.of_optimizer(value, of_model)
                found[beside.free(prefix + attribute)] = Captured(KIND_OF_OPTIMIZERS, type(value).__qualname__, state, origin=value)
    metrics = names.of_metrics(_metrics(obj))
    if metrics:
        found[METRICS] = metrics
    return found


def _metrics(obj: Any) -> list[Any]:
    """All metrics, those that were given to `compile` one by one and under the names that Keras shows."""
    found: list[Any] = []
    for metric in obj.metrics:
        inside = metric.metrics if type(metric).__name__ == "CompileMetrics" else None
        found += [metric] if inside is None else inside
    return found


def _refuse_assets(obj: Any) -> None:
    """Refuse layers by others than Keras whose state their code writes into files beside the variables.

    Raises:
        UnsupportedError: one of them.
    """
    for prefix, layer in names.layers(obj):
        if hasattr(type(layer), "save_assets") and not type(layer).save_assets.__module__.startswith("keras."):
            raise UnsupportedError(
                prefix.rstrip("/"),
                f"a {type(layer).__name__}, which writes files beside its variables (save_assets)",
                hint="Give it save_own_variables and load_own_variables, with what it writes as arrays.",
            )


ADAPTER: Final = KerasAdapter()

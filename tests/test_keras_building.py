"""Keras: models built from the configurations that files keep, by closed tables; what else they name is refused unseen by Keras."""

import base64
import contextlib
import importlib.util
import json
import marshal
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import tensorkeep as tk

keras = pytest.importorskip("keras", minversion="3.9")

import keras_zoo  # noqa: E402  # it needs Keras
from tensorkeep.frameworks.keras import known  # noqa: E402
from test_keras_models import BACKEND, MODELS, SERIES, X, bits, compiled, everything, fit, scrambled, sequential  # noqa: E402

layers = keras.layers
ZOO: Final = keras_zoo.models()
# All of them take JAX two minutes: that many are for whoever changes something here.
MET: Final = list(ZOO) if BACKEND == "torch" or "TENSORKEEP_EVERY_LAYER" in os.environ else list(ZOO)[::25]


def outputs(model: Any, x: Any) -> list[Any]:
    keras.utils.set_random_seed(0)  # a few layers draw from no generator of their own
    return [keras.ops.convert_to_numpy(one) for one in keras.tree.flatten(model(x))]


def same_outputs(one: Any, other: Any, x: Any) -> bool:
    return all(np.array_equal(*pair, equal_nan=True) for pair in zip(outputs(one, x), outputs(other, x), strict=True))


def test_the_zoo_has_every_layer_of_the_table() -> None:
    """A layer that Keras has and the zoo has not is named with the reason."""
    assert known.CLASSES["keras.layers"] == {*ZOO, *keras_zoo.TEXTS, *keras_zoo.WITHOUT}


@pytest.mark.parametrize("name", MET)
def test_every_layer_comes_back_as_itself(name: str) -> None:
    """Built from the file, and filled in place: the same variables, bit for bit, and the same outputs."""
    make, x = ZOO[name]
    model = make()
    if name != "SpectralNormalization":  # its vectors have to have the length 1
        scrambled(model)
    data = tk.dumps(model)
    built, filled = tk.loads(data, build="keras"), tk.loads(data, into=make())
    assert bits(*built.variables) == bits(*model.variables) == bits(*filled.variables)
    assert BACKEND == "jax" or same_outputs(built, model, x)  # each of which JAX compiles for seconds


@pytest.mark.parametrize("name", [name for name in MODELS if name != "subclassed"])
def test_models_are_built_with_their_values(name: str) -> None:
    """Sequential, functional, shared, quantized, of mixed precision; with those of layers they have, never Keras's numbers."""
    make, x = MODELS[name]
    model = make()
    if x is not None:
        model(x)
    if "quantized" not in name:
        scrambled(model)
    built = tk.loads(tk.dumps({"m": model, "epoch": 3}), build="keras")
    assert built["epoch"] == 3 and type(built["m"]) is type(model)
    assert bits(*built["m"].variables) == bits(*model.variables)
    assert same_outputs(built["m"], model, X if x is None else x)


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantized_models_come_back_as_they_are(mode: str) -> None:
    """Packed kernels with their scales, zeros and histories: in place, and built, also when quantized inside of other layers."""

    def make() -> Any:
        x = keras.Input((6,), dtype="int32")
        y = layers.EinsumDense("abc,cd->abd", output_shape=(None, 6), bias_axes="d")(layers.Embedding(9, 8)(x))
        model = keras.Model(x, layers.Dense(4)(y))
        model.quantize(mode)
        return model

    def attending() -> Any:
        x = keras.Input((6, 8))
        model = keras.Model(x, layers.MultiHeadAttention(2, 4)(x, x))
        model.quantize(mode)
        return model

    model, target = make(), make()
    data = tk.dumps(model)
    tk.loads(data, into=target)
    built = tk.loads(data, build="keras")
    assert sorted(bits(*built.variables)) == sorted(bits(*model.variables)) and bits(*target.variables) == bits(*model.variables)
    assert same_outputs(built, model, keras_zoo.TOKENS) and same_outputs(target, model, keras_zoo.TOKENS)
    model, target = attending(), attending()
    tk.loads(tk.dumps(model), into=target)
    assert bits(*target.variables) == bits(*model.variables)
    with pytest.raises(tk.FormatError, match="not in the target"):  # its configuration, as Keras writes it, says nothing of that
        tk.loads(tk.dumps(model), build="keras")


def test_a_layer_that_stands_in_two_models_is_one_again() -> None:
    """So that training goes on with one."""
    inner = layers.Dense(8)
    model = sequential(keras.Sequential([inner]), keras.Sequential([inner]))
    built = tk.loads(tk.dumps(scrambled(model)), build="keras")
    assert built.layers[0].layers[0] is built.layers[1].layers[0]
    assert tk.dumps(built) == tk.dumps(built) and bits(*built.variables) == bits(*model.variables)


def test_a_compiled_model_goes_on_training_bit_for_bit(tmp_path: Path) -> None:
    """Its optimizer with slots and counter, its loss, metrics and dropout's seeds."""
    run = compiled(jit=BACKEND == "jax")
    fit(run)
    tk.save(run, tmp_path / "run.safetensors")
    wanted = fit(run, 2)
    built = tk.load(tmp_path / "run.safetensors", build="keras")
    assert fit(built, 2) == wanted
    assert bits(*everything(built)) == bits(*everything(run))


NEEDED: Final[dict[str, dict[str, Any]]] = {
    "MeanMetricWrapper": {"fn": keras.metrics.mean_squared_error},
    "IoU": {"num_classes": 3, "target_class_ids": [0]},
    "OneHotIoU": {"num_classes": 3, "target_class_ids": [0]},
    "MeanIoU": {"num_classes": 3},
    "OneHotMeanIoU": {"num_classes": 3},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.5},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
}


def test_every_loss_and_metric_of_the_table_is_compiled_again(recwarn: pytest.WarningsRecorder) -> None:
    """And an optimizer that was never used is as new."""
    models: dict[str, Any] = {}
    for family in ("losses", "metrics"):
        for name in sorted(known.CLASSES[f"keras.{family}"]):
            if hasattr(getattr(keras, family), name):
                goal = getattr(getattr(keras, family), name)(**NEEDED.get(name, {}))
                models[f"{family} {name}"] = sequential(layers.Dense(2))
                settings = {"loss": goal} if family == "losses" else {"loss": "mse", "metrics": [goal]}
                models[f"{family} {name}"].compile("adam", **settings)
    built = tk.loads(tk.dumps(models), build="keras")
    for name, model in built.items():
        family = name.partition(" ")[0]
        ours, theirs = (one._compile_config.config["loss" if family == "losses" else "metrics"] for one in (model, models[name]))
        assert type(ours[0] if family == "metrics" else ours) is type(theirs[0] if family == "metrics" else theirs), name
        assert not model.optimizer.built
    assert not [one for one in recwarn if issubclass(one.category, tk.TensorkeepWarning)]


def test_arguments_that_keras_leaves_out_of_its_configurations_are_kept() -> None:
    """Of losses and metrics, in dicts and lists: with the defaults of Keras in their place, a model would go on training otherwise."""
    model = keras.Model(inputs := keras.Input((3,)), {"a": layers.Dense(2, name="a")(inputs), "b": layers.Dense(2, name="b")(inputs)})
    model.compile(
        "sgd",
        {"a": keras.losses.Huber(delta=0.1), "b": keras.losses.CosineSimilarity(axis=0)},
        metrics={"a": ["mse", keras.metrics.CosineSimilarity(axis=0)], "b": []},
    )
    built = tk.loads(tk.dumps(model), build="keras")
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    y = {"a": 2 * x[:, :2], "b": x[:, 1:]}
    assert built.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    assert built.fit(x, y, shuffle=False, verbose=0).history == model.fit(x, y, shuffle=False, verbose=0).history


@pytest.mark.parametrize("name", sorted(known.CLASSES["keras.optimizers"] - {"MultiOptimizer", "OptimizerMap"}))
def test_every_optimizer_of_the_table_comes_back_with_its_slots(name: str) -> None:
    """Those of one alone: the others hold several."""
    if not hasattr(keras.optimizers, name):
        pytest.skip(f"this Keras has no {name}")
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    settings = {"inner_optimizer": keras.optimizers.Adam()} if name == "LossScaleOptimizer" else {"learning_rate": schedule}
    model = sequential(layers.Dense(3), layers.Dense(2))
    model.compile(getattr(keras.optimizers, name)(**settings), "mse")
    model.optimizer.build(model.trainable_variables)
    scrambled(model.optimizer)
    built = tk.loads(tk.dumps(model), build="keras")
    assert type(built.optimizer) is type(model.optimizer)
    assert bits(*built.optimizer.variables) == bits(*model.optimizer.variables)


def test_graphs_with_operations_constants_and_names() -> None:
    """Functional models of operators, slices, constants, and dicts of inputs and outputs."""
    a, b = keras.Input((8,), name="a"), keras.Input((4,), name="b")
    z = keras.ops.concatenate([a * 2.0, b], axis=-1) + np.arange(12, dtype="float32")
    z = layers.Dense(3)(keras.ops.reshape(z, (-1, 3, 4))[:, 1:, ...])
    model = keras.Model({"a": a, "b": b}, {"o": z, "p": keras.ops.mean(z, axis=(1, 2))})
    built = tk.loads(tk.dumps(scrambled(model)), build="keras")
    assert same_outputs(built, model, {"a": X, "b": X[:, :4].copy()})


class Twice(layers.Layer):  # type: ignore[misc]  # a class of a package without types
    """A layer of the caller's, with another inside."""

    def __init__(self, inner: Any = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.inner = inner or layers.Dense(8)

    def call(self, x: Any) -> Any:
        return self.inner(self.inner(x))

    def get_config(self) -> Any:
        return super().get_config() | {"inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(keras.saving.deserialize_keras_object(config.pop("inner")), **config)


class Network(keras.Model):
    """A model of the caller's."""

    def __init__(self, width: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.width = width
        self.first, self.second = layers.Dense(width), Twice()

    def call(self, x: Any) -> Any:
        return self.second(self.first(x))

    def get_config(self) -> Any:
        return super().get_config() | {"width": self.width}


def steep(x: Any) -> Any:
    return x * 7


def test_classes_of_the_caller_come_back_where_types_has_them() -> None:
    """Layers, models, functions; without them the place is named; registering with Keras lets nothing in."""
    own = sequential(Twice(), layers.Dense(4, activation=steep))
    network = Network(8)
    network(X)
    for model, needed in ((own, (Twice, steep)), (network, (Network, Twice))):
        data = tk.dumps(scrambled(model))
        built = tk.loads(data, build="keras", types=needed)
        assert bits(*built.variables) == bits(*model.variables) and same_outputs(built, model, X)
    data = tk.dumps(own)
    with pytest.raises(tk.FormatError, match=r"config\.config\.layers\[1\] is a Twice .*types= lets your own in"):
        tk.loads(data, build="keras")
    with pytest.raises(tk.FormatError, match=r"layers\[2\] \(Dense dense.*\)\.config\.activation is the function steep"):
        tk.loads(data, build="keras", types=(Twice,))
    registered = keras.saving.get_custom_objects()
    registered |= {"Twice": Twice, "steep": steep, "test>steep": steep}
    try:
        with pytest.raises(tk.FormatError, match="types= lets your own in"):
            tk.loads(data, build="keras")
        tree = tk.loads(tk.dumps(sequential(layers.Dense(4))))
        tree["config"]["config"]["layers"][1]["config"]["activation"] = "test>steep"
        with pytest.raises(tk.FormatError, match=r"activation is 'test>steep', which something in this process has registered"):
            tk.loads(crafted(tree), build="keras")
    finally:
        for name in ("Twice", "steep", "test>steep"):
            del registered[name]


def test_without_a_configuration_that_is_kept_the_reason_is_told() -> None:
    """A class without `get_config`, a lambda."""
    with pytest.raises(tk.FormatError, match=r"activation is not kept: a function without a name, which is code"):
        tk.loads(tk.dumps(sequential(layers.Activation(lambda x: 2 * x))), build="keras")
    with pytest.raises(tk.FormatError, match="it holds no object of keras that could be built"):
        tk.loads(tk.dumps({"a": np.ones(3)}), build="keras")


def test_a_loss_that_is_not_built_leaves_the_model_not_compiled() -> None:
    """For there is use in a model without its training; a warning tells it."""

    def own_loss(y: Any, z: Any) -> Any:
        return keras.ops.mean(y - z)

    model = sequential(layers.Dense(2))
    model.compile("adam", own_loss)
    model.optimizer.build(model.trainable_variables)
    data = tk.dumps(scrambled(model))
    with pytest.warns(tk.TensorkeepWarning, match=r"not compiled.*config\.compile_config\.loss is the function own_loss"):
        built = tk.loads(data, build="keras")
    assert bits(*built.variables) == bits(*model.variables) and not built.compiled
    built = tk.loads(data, build="keras", types=(own_loss,))
    assert built.compiled and bits(*built.optimizer.variables) == bits(*model.optimizer.variables)


def crafted(tree: dict[str, Any], cls: str = "Sequential") -> bytes:
    """A file that says that a tree is a model of Keras."""
    from tensorkeep.tree import Captured

    return tk.dumps(Captured("keras.layer", cls, tree))


def _bytecode() -> str:
    return base64.b64encode(marshal.dumps(compile("open('ran', 'w')", "x", "eval"))).decode()


def function(module: str, name: str, registered: str | None = None) -> dict[str, Any]:
    return {"class_name": "function", "module": module, "config": name, "registered_name": registered or name}


def layer(cls: str, module: str | None = "keras.layers", registered: str | None = None, **config: Any) -> dict[str, Any]:
    return {"class_name": cls, "module": module, "config": config, "registered_name": registered}


CODE: Final = {"class_name": "__lambda__", "config": {"value": _bytecode()}}
REFUSED: Final[dict[str, Any]] = {
    "Lambda with bytecode": layer("Lambda", function=CODE),
    "Lambda of an older file": layer("Lambda", function=[_bytecode(), None, None]),
    "Lambda of a public function": layer("Lambda", function=function("keras.utils", "get_file"), arguments={"origin": "http://x"}),
    "Lambda by its own module": layer("Lambda", "keras.src.layers.core.lambda_layer"),
    "Lambda as registered": layer("Dense", "keras.layers", "keras.layers>Lambda") | {"class_name": "Lambda"},
    "bytecode as an activation": layer("Dense", units=2, activation=CODE),
    "bytecode as an initializer": layer("Dense", units=2, kernel_initializer=CODE),
    "bytecode deep inside": layer("Dense", units=2, kernel_initializer={"a": [{"b": CODE}]}),
    "TFSMLayer": layer("TFSMLayer", filepath="/tmp/x"),
    "TFSMLayer of another module": layer("TFSMLayer", "keras.src.export.tfsm_layer", filepath="/tmp/x"),
    "TorchModuleWrapper": layer("TorchModuleWrapper", module="gASV"),
    "JaxLayer": layer("JaxLayer", call_fn=CODE),
    "a module of the system": layer("system", "os", None),
    "a module of Python": layer("Popen", "subprocess"),
    "a module inside of Keras": layer("DistributedEmbedding", "keras.src.layers.whatever"),
    "a dotted class": layer("layers.Lambda", "keras"),
    "a class of keras_hub": layer("Backbone", "keras_hub.models", "keras_hub>Backbone"),
    "no module": layer("Dense2", None),
    "get_file": layer("Dense", units=2, activation=function("keras.utils", "get_file")),
    "enable_unsafe": layer("Dense", units=2, activation=function("keras.config", "enable_unsafe_deserialization")),
    "load_model": layer("Dense", units=2, activation=function("keras.saving", "load_model")),
    "eval": layer("Dense", units=2, activation=function("builtins", "eval")),
    "a function of NumPy": layer("Dense", units=2, activation=function("numpy", "load")),
    "a function that is a class": layer("Dense", units=2, activation=function("keras.layers", "Lambda")),
    "a class that is a function": {"class_name": "get_file", "module": "keras.utils", "config": {}},
    "a type": {"class_name": "__typespec__", "spec_name": "Popen", "module": "subprocess", "config": [], "registered_name": None},
    "a type of TensorFlow": {"class_name": "TypeSpec", "type_spec": "x", "serialized": []},
    "a vocabulary in a file": layer("StringLookup", vocabulary="/etc/passwd"),
    "a vocabulary at an address": layer("TextVectorization", vocabulary="http://example.org/x"),
    "a vocabulary that is an object": layer("IntegerLookup", vocabulary={"class_name": "__bytes__", "config": {"value": "/etc/passwd"}}),
    "a constant of objects": layer("Dense", units=2, activation={"class_name": "__numpy__", "config": {"value": ["x"], "dtype": "O"}}),
    "an operation that takes a function": layer("Map", "keras.src.ops.core"),
    "a class name that is a list": layer("x") | {"class_name": ["Lambda"]},
    "a class name that is None": layer("x") | {"class_name": None},
    "a configuration that is a list": {"class_name": "Dense", "module": "keras.layers", "config": [1]},
    "a module that is a list": layer("Dense") | {"module": ["keras.layers"]},
    "shapes that are none": layer("Dense", units=2) | {"build_config": {"input_shape": "os"}},
    "shapes with code": layer("Dense", units=2) | {"build_config": {"input_shape": CODE}},
    "more memory than the file has": layer("Dense", units=1 << 40),
    "an input without end": layer("InputLayer", batch_shape=[None, 1 << 60]),
    "a matrix of frequencies": layer("MelSpectrogram", fft_length=1 << 30),
    "models that call each other": None,
}


def _laughs() -> Any:
    """A model that calls a model twice that calls a model twice, and so on."""

    def place(name: str, number: int) -> Any:
        return {"class_name": "__keras_tensor__", "config": {"shape": [None, 2], "dtype": "float32", "keras_history": [name, number, 0]}}

    inner: Any = {"class_name": "ReLU", "module": "keras.layers", "config": {"name": "m"}, "registered_name": None}
    for _ in range(24):
        node = inner | {"name": "m", "inbound_nodes": [{"args": [place("i", 0)], "kwargs": {}}, {"args": [place("m", 0)], "kwargs": {}}]}
        first = {"class_name": "InputLayer", "module": "keras.layers", "config": {"batch_shape": [None, 2], "name": "i"}, "name": "i"}
        config = {"name": "m", "layers": [first | {"inbound_nodes": []}, node], "input_layers": ["i", 0, 0], "output_layers": ["m", 1, 0]}
        inner = {"class_name": "Functional", "module": "keras.src.models.functional", "config": config}
    return inner


@pytest.mark.parametrize("name", REFUSED)
def test_whatever_is_not_in_the_tables_is_refused_with_the_place(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a layer, and as the whole model; nothing was run, read or made."""
    monkeypatch.chdir(tmp_path)
    trap = REFUSED[name] or _laughs()
    tree = tk.loads(tk.dumps(sequential(layers.Dense(4))))
    alone = crafted({**tree, "config": trap}, str(trap["class_name"]))
    tree["config"]["config"]["layers"].append(trap)
    for data in (alone, crafted(tree)):
        with pytest.raises(tk.FormatError, match=r"(?s)cannot be brought back: .*config"):
            tk.loads(data, build="keras")
    assert not list(tmp_path.iterdir())
    model = sequential(layers.Dense(4))  # and nothing is left of what was begun
    assert len(model.variables) == 2 and model(X) is not None


def test_values_that_are_not_those_of_the_configuration_are_refused() -> None:
    """A tensor too few, too many, of another shape or dtype."""
    tree = tk.loads(tk.dumps(sequential(layers.Dense(4))))
    for change, what in (
        ({"dense/kernel": np.ones((4, 8), "f4")}, "other shape"),
        ({"dense/bias": np.ones(4, "f8")}, "other dtype"),
        ({"dense/more": np.ones(4, "f4")}, "not in the target"),
    ):
        with pytest.raises(tk.FormatError, match=what):
            tk.loads(crafted({**tree, **change}), build="keras")
    with pytest.raises(tk.FormatError, match="missing from the file"):
        tk.loads(crafted({key: value for key, value in tree.items() if key != "dense/bias"}), build="keras")


def test_keras_is_imported_only_because_it_was_asked_for(tmp_path: Path) -> None:
    """In a process that has not imported it; without build= there is a tree."""
    tk.save({"m": sequential(layers.Dense(4))}, tmp_path / "m.safetensors")
    code = (
        "import sys, tensorkeep as tk; tk.load(sys.argv[1]); print('keras' in sys.modules); "
        "print(type(tk.load(sys.argv[1], build='keras')['m']).__name__)"
    )
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.safetensors")], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["False", "Sequential"]


def test_configurations_with_anything_anywhere_end_in_an_error_of_ours() -> None:
    """Each place of a configuration, taken by something else: built, or refused, but never another exception."""
    model = sequential(layers.Dense(4, activation="relu"), layers.BatchNormalization())
    model.compile("adam", "mse", metrics=["mae"])
    tree = tk.loads(tk.dumps(model))
    text = json.dumps(tree["config"])

    def places(node: Any) -> list[tuple[Any, Any]]:
        inside = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
        return [(node, key) for key, _ in inside] + [place for _, child in inside for place in places(child)]

    count = len(places(json.loads(text)))
    random = np.random.default_rng(0)
    for _ in range(80):
        config = json.loads(text)
        node, key = places(config)[random.integers(count)]
        node[key] = [None, -1, 1 << 70, 1e400, "relu", "\0", [], {}, [[]], {"class_name": "Dense"}, CODE, True][random.integers(12)]
        with contextlib.suppress(tk.TensorkeepError):
            tk.loads(crafted({**tree, "config": config}), build="keras")


@pytest.mark.parametrize("backend", [name for name in ("jax", "torch", "tensorflow") if name != BACKEND])
def test_all_of_this_with_another_backend(backend: str) -> None:
    """Keras knows one backend a process: so this file runs again in another one."""
    if "TENSORKEEP_OTHER_BACKEND" in os.environ or importlib.util.find_spec(backend) is None:
        pytest.skip(f"run by another backend, or no {backend} here")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TENSORKEEP_OTHER_BACKEND": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert SERIES.shape

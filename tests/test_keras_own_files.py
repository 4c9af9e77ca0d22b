"""Keras: its own files, of every generation, straight into models, and as models; never through its own loader."""

import importlib.util
import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import tensorkeep as tk

keras = pytest.importorskip("keras", minversion="3.9")
h5py = pytest.importorskip("h5py")

from test_keras_models import BACKEND, MODELS, bits, everything, fit, scrambled, sequential  # noqa: E402  # they need Keras

layers = keras.layers
KINDS: Final = ("model.keras", "model.weights.h5", "model.h5")


def written(model: Any, path: Path) -> Path:
    """A model as Keras writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (model.save_weights if ".weights." in path.name else model.save)(path)
    return path


def kept(model: Any) -> list[Any]:
    """What Keras's files keep: no seeds."""
    seeds = {id(generator.state) for layer in model._flatten_layers() for generator in layer._seed_generators}
    return [variable for variable in model.variables if id(variable) not in seeds]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in MODELS if name != "a layer"])
def test_models_are_what_keras_itself_would_load(name: str, kind: str, tmp_path: Path) -> None:
    """Into another instance, and built; bit for bit what `load_weights` and `load_model` give."""
    make, x = MODELS[name]
    model, theirs, ours = make(), make(), make()
    for one in (model, theirs, ours) if x is not None else ():
        one(x)
    if kind == "model.h5" and name == "subclassed":
        pytest.skip("Keras writes only weights of these there")
    path = written(model if "quantized" in name else scrambled(model), tmp_path / kind)
    if kind == "model.h5":
        theirs = model  # what is of bfloat16 or has LoRA, Keras itself does not load from there
    else:
        theirs.load_weights(path)
    tk.load(path, into=ours)
    assert bits(*kept(ours)) == bits(*kept(theirs))
    if kind != "model.weights.h5" and name != "subclassed":
        built = tk.load(path, build="keras")
        assert type(built) is type(model) and bits(*kept(built)) == bits(*kept(theirs))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_goes_on_with_the_optimizer_of_the_file(optimizer: str, kind: str, tmp_path: Path) -> None:
    """Slots, counter and rate, into an optimizer that has none yet; a model that is built is compiled as it was."""
    inside = [layers.Dense(8), layers.BatchNormalization(), layers.Dense(3)]

    def make() -> Any:
        model = keras.models.clone_model(sequential(*inside))
        kind = keras.optimizers.SGD(0.05, momentum=0.9) if optimizer == "sgd" else keras.optimizers.Adam(0.01)
        model.compile(kind, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"], jit_compile=False)
        return model

    run = make()
    fit(run)
    path = written(run, tmp_path / kind)
    wanted = fit(run, 2)
    resumed = make()
    tk.load(path, into=resumed)
    assert fit(resumed, 2) == wanted and bits(*everything(resumed)) == bits(*everything(run))
    if ".weights." not in kind:
        built = tk.load(path, build="keras")
        built.jit_compile = False
        assert fit(built, 2) == wanted


def test_what_is_not_built_is_built_by_the_shapes_of_an_archive(tmp_path: Path) -> None:
    """Weights alone do not tell them: then the report says what to do."""
    saved = scrambled(sequential(layers.Dense(4), layers.Dense(2)))
    target = sequential(layers.Dense(4), layers.Dense(2), width=None)
    with pytest.raises(tk.MismatchError, match=r"call model\.build\(input_shape\) first"):
        tk.load(written(saved, tmp_path / "m.weights.h5"), into=target)
    tk.load(written(saved, tmp_path / "m.keras"), into=target)
    assert bits(*target.variables) == bits(*saved.variables)


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_is_told_by_name_and_changes_nothing(kind: str, tmp_path: Path) -> None:
    """Another width; another number of layers; a part alone."""
    path = written(scrambled(sequential(layers.Dense(4), layers.Dense(2))), tmp_path / kind)
    wider = sequential(layers.Dense(5), layers.Dense(2))
    before = bits(*wider.variables)
    with pytest.raises(tk.MismatchError) as caught:
        tk.load(path, into=wider)
    assert caught.value.report.of("shape") == ["dense/kernel", "dense/bias", "dense_1/kernel"]
    for other in (sequential(layers.Dense(4)), sequential(layers.Dense(4), layers.Dense(2), layers.Dense(2))):
        with pytest.raises(tk.MismatchError, match=r"layers with weights|not in the target|missing from the file"):
            tk.load(path, into=other)
    assert bits(*wider.variables) == before
    with pytest.warns(tk.TensorkeepWarning, match="fits only in part"):
        tk.load(path, into=wider, strict=False)
    assert bits(*wider.variables)[3] != before[3] and bits(*wider.variables)[:3] == before[:3]


class Own(layers.Layer):  # type: ignore[misc]  # a class of a package without types
    """A layer with loading code of its own, which may refuse."""

    refuses = False

    def build(self, shape: Any) -> None:
        self.w = self.add_weight(shape=(shape[-1], 3), name="w")

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x, self.w)

    def save_own_variables(self, store: Any) -> None:
        store["matrix"] = self.w

    def load_own_variables(self, store: Any) -> None:
        if self.refuses:
            raise ValueError("not this one")
        self.w.assign(store["matrix"])


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_load_that_fails_changes_nothing_at_all(kind: str, place: int, tmp_path: Path) -> None:
    """Wherever in the model a layer refuses: variables, slots and the counter are as they were, what was not built is not."""

    def make(*, built: bool) -> Any:
        inside = [layers.Dense(8), layers.BatchNormalization()]
        inside.insert(place, Own())
        model = sequential(*inside)
        model.compile("adam", "mse")
        if built:
            model.optimizer.build(model.trainable_variables)
        return model

    saved = make(built=True)
    scrambled(saved.optimizer)
    path = written(scrambled(saved), tmp_path / kind)
    for built in (False, True):
        target = make(built=built)
        target.layers[place].refuses = True
        before = bits(*everything(target)), target.optimizer.built
        with pytest.raises(tk.MismatchError, match="not this one"):
            tk.load(path, into=target)
        assert (bits(*everything(target)), target.optimizer.built) == before
        target.layers[place].refuses = False
        tk.load(path, into=target)
        assert bits(*everything(target)) == bits(*everything(saved))


class Nested(keras.Model):  # type: ignore[misc]  # a class of a package without types
    """Layers in lists and dicts in lists."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.parts = [[layers.Dense(8), (layers.Dense(8),)], {"a": layers.Dense(8), "b": [layers.Dense(8)]}]

    def call(self, x: Any) -> Any:
        listed, named = self.parts
        return named["b"][0](named["a"](listed[1][0](listed[0](x))))


class Extended(keras.Model):  # type: ignore[misc]  # as above
    """A Functional model with a layer of its graph as an attribute, too."""

    def __init__(self, **settings: Any) -> None:
        entry, own = keras.Input((8,)), layers.Dense(8)
        super().__init__(entry, layers.Dense(4)(own(entry)), **settings)
        self.own = own


@pytest.mark.parametrize("cls", [Nested, Extended])
def test_layers_in_containers_and_attributes_are_found(cls: type, tmp_path: Path) -> None:
    """As Keras numbers them."""
    x = np.ones((2, 8), "f4")
    saved, theirs, ours, unbuilt = cls(), cls(), cls(), cls()
    for model in (saved, theirs, ours):
        model(x)
    tk.load(written(scrambled(saved), tmp_path / "m.weights.h5"), into=ours)
    for target in (theirs, unbuilt):
        tk.loads(tk.dumps(saved), into=target)
    assert bits(*saved.variables) == bits(*ours.variables) == bits(*theirs.variables) == bits(*unbuilt.variables)


def test_an_optimizer_that_was_never_used_is_as_new(tmp_path: Path) -> None:
    """The file has its rate and counter alone."""
    model = sequential(layers.Dense(4))
    model.compile(keras.optimizers.Adam(0.25), "mse")
    for kind in KINDS:
        path = written(model, tmp_path / kind)
        target = sequential(layers.Dense(4))
        target.compile("adam", "mse")
        tk.load(path, into=target)
        models = [target] if ".weights." in kind else [target, tk.load(path, build="keras")]
        for one in models:
            assert not one.optimizer.built and float(one.optimizer.learning_rate) == 0.25


def test_shards_are_one_file(tmp_path: Path) -> None:
    """Weights in several files, by their index."""
    model = scrambled(sequential(layers.Dense(400), layers.Dense(400), layers.Dense(400)))
    model.save_weights(tmp_path / "m.weights.json", max_shard_size=0.0007)
    assert len(list(tmp_path.glob("*.h5"))) > 1
    target = sequential(layers.Dense(400), layers.Dense(400), layers.Dense(400))
    tk.load(tmp_path / "m.weights.json", into=target)
    assert bits(*target.variables) == bits(*model.variables)


KERAS_2: Final = Path(__file__).parent / "keras_2"
EXPECTED: Final = json.loads((KERAS_2 / "expect.json").read_text())


def of_keras_3(name: str) -> Any:
    """The same models in Keras 3."""
    if name.startswith("perceptron"):
        last = layers.Dense(2, kernel_initializer="he_normal", kernel_regularizer="l2")
        return sequential(layers.Dense(6, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.2), last)
    if name.startswith("functional"):
        x = keras.Input((8,))
        y = layers.Concatenate()([layers.Add()([x, layers.Dense(8)(x)]), x])
        inner = keras.Sequential([keras.Input((16,)), layers.Dense(4, activation="tanh"), layers.BatchNormalization()])
        return keras.Model(x, layers.Dense(2)(inner(y)))
    if name.startswith("recurrent"):
        wrapped = layers.Bidirectional(layers.LSTM(3, return_sequences=True))
        return keras.Sequential([keras.Input((5, 8)), wrapped, layers.GRU(4), layers.Dense(2)])
    inside = [layers.Conv2D(4, 3, padding="same"), layers.LeakyReLU(), layers.DepthwiseConv2D(3), layers.SeparableConv2D(3, 2)]
    return keras.Sequential([keras.Input((8, 8, 3)), *inside, layers.MaxPooling2D(), layers.Flatten(), layers.Dense(2)])


@pytest.mark.parametrize("name", EXPECTED)
def test_files_of_keras_2_load_into_keras_3_and_are_built_there(name: str) -> None:
    """Weights, and the optimizer: its slots, its counter, and its rate where the file tells it. `make.py` beside them made them."""
    wanted = EXPECTED[name]
    x, rates = np.array(wanted["x"], "f4"), {"perceptron.h5": 0.002, "functional.keras": 0.003, "recurrent.h5": 0.004}
    optimizers = keras.optimizers
    kinds = [optimizers.RMSprop(0.1, momentum=0.5), optimizers.SGD(0.005, momentum=0.9), optimizers.Adam(0.1)]
    target = of_keras_3(name)
    target.compile(kinds[0] if "functional" in name else kinds[1] if "conv" in name else kinds[2], "mse")
    tk.load(KERAS_2 / name, into=target)
    models = [target] if ".weights." in name else [target, tk.load(KERAS_2 / name, build="keras")]
    for model in models:
        assert np.allclose(model.predict(x, verbose=0), wanted["y"], atol=1e-5)
        assert int(model.optimizer.iterations) == 3
        assert float(model.optimizer.learning_rate) == pytest.approx(rates.get(name, 0.005))
        slots = [keras.ops.convert_to_numpy(one) for one in model.optimizer.variables if len(one.shape)]
        assert sorted(float(np.abs(slot).sum()) for slot in slots) == pytest.approx(wanted["slots"], rel=1e-5)


def test_a_configuration_that_names_what_is_not_built_is_refused(tmp_path: Path) -> None:
    """In archives and in the older format alike; `into=` does not look at it, and loads the values."""
    for kind in ("m.keras", "m.h5"):
        model = sequential(layers.Dense(4), layers.Lambda(lambda x: 2 * x))
        path = written(model, tmp_path / kind)
        with pytest.raises(tk.FormatError, match=r"layers\[2\].* (Lambda|is code|none of Keras's)"):
            tk.load(path, build="keras")
        target = sequential(layers.Dense(4))
        tk.load(path, into=target)
        assert bits(*target.variables) == bits(*model.variables)


def test_a_file_that_is_no_model_is_not_built(tmp_path: Path) -> None:
    """Weights alone; an archive whose configuration two programs would read in two ways."""
    path = written(sequential(layers.Dense(4)), tmp_path / "m.weights.h5")
    with pytest.raises(tk.FormatError, match="it holds no object of keras that could be built"):
        tk.load(path, build="keras")
    path = written(sequential(layers.Dense(4)), tmp_path / "m.keras")
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["config.json"] = members["config.json"].replace(b'{"module"', b'{"module": "os", "module"', 1)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    with pytest.raises(tk.FormatError, match="it holds no object of keras"):
        tk.load(path, build="keras")


@pytest.mark.parametrize("backend", [name for name in ("jax", "torch", "tensorflow") if name != BACKEND])
def test_all_of_this_with_another_backend(backend: str) -> None:
    """Keras knows one backend a process: so this file runs again in another one."""
    if "TENSORKEEP_OTHER_BACKEND" in os.environ or importlib.util.find_spec(backend) is None:
        pytest.skip(f"run by another backend, or no {backend} here")
    chosen = (
        [] if "TENSORKEEP_EVERY_LAYER" in os.environ else ["-k", "training or keras_2 or (itself and sequential)"]
    )  # the rest takes minutes
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *chosen, __file__]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TENSORKEEP_OTHER_BACKEND": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]

"""Keras: models, optimizers, metrics and seed generators, saved and filled in place. The same with each backend."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from refusing import Refuses
from warned import warned

keras = pytest.importorskip("keras", minversion="3.9")
layers = keras.layers
BACKEND = keras.backend.backend()

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(24, 8)).astype("float32"), RANDOM.integers(0, 3, 24)
SERIES = RANDOM.normal(size=(2, 5, 8)).astype("float32")


def sequential(*inside: Any, width: int | None = 8) -> Any:
    return keras.Sequential([*([] if width is None else [keras.Input((width,))]), *inside])


class Blocks(keras.Model):
    """A model with code of its own."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.blocks = [layers.Dense(8) for _ in range(2)]
        self.head = layers.Dense(width, name="head")

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def shared() -> Any:
    """A layer used twice, and two models inside."""
    x, twice = keras.Input((8,)), layers.Dense(8)
    y = layers.Add()([twice(twice(x)), layers.Dense(8)(x)])
    return keras.Model(x, sequential(layers.Dense(8), layers.Dense(2))(keras.Model(x, y)(x)))


def quantized() -> Any:
    model = sequential(layers.Dense(16), layers.Dense(4))
    model.quantize("int8")
    model.layers[0].enable_lora(2)
    return model


MODELS: dict[str, tuple[Callable[[], Any], Any]] = {
    "sequential": (lambda: sequential(layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(2)), None),
    "sequential without input": (lambda: sequential(layers.Dense(4), layers.Dense(2), width=None), X),
    "functional": (shared, None),
    "subclassed": (Blocks, X),
    "recurrent": (lambda: keras.Sequential([layers.Bidirectional(layers.SimpleRNN(3))]), SERIES),
    "mixed precision": (lambda: sequential(layers.Dense(4, dtype="mixed_bfloat16"), layers.Dense(4, dtype="bfloat16")), None),
    "quantized, with LoRA": (quantized, None),
    "a layer": (lambda: layers.Dense(4), X),
}


def scrambled(model: Any) -> Any:
    """The same model with other values everywhere."""
    for variable in model.variables:
        bits = RANDOM.integers(0, 100, variable.shape)
        variable.assign(bits.astype("float32") / 7 if "float" in variable.dtype else bits)
    return model


def bits(*variables: Any) -> list[tuple[str, bytes]]:
    """Dtype and bytes of each variable, whatever the backend."""
    return [(str(variable.dtype), np.asarray(keras.ops.convert_to_numpy(variable.value)).tobytes()) for variable in variables]


def compiled(optimizer: str = "adam", *, built: bool = True, seed: int = 1, jit: bool = False) -> Any:
    inside = [layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.3, seed=seed), layers.Dense(3)]
    model = sequential(*inside, width=8 if built else None)
    kind = keras.optimizers.SGD(0.05, momentum=0.9) if optimizer == "sgd" else keras.optimizers.Adam(0.01)
    # To compile takes JAX seconds for each model: only what compares training with training waits for it.
    model.compile(kind, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"], jit_compile=jit)
    return model


def fit(model: Any, epochs: int = 1) -> dict[str, list[float]]:
    history: dict[str, list[float]] = model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0).history
    return history


def everything(model: Any) -> list[Any]:
    optimizer = getattr(model, "optimizer", None)
    return [*model.variables, *(optimizer.variables if optimizer else ()), *model.metrics_variables]


@pytest.mark.parametrize("name", MODELS)
def test_models_come_back_bit_for_bit(name: str) -> None:
    """Into another instance of the same code, whose layers Keras numbers differently; the variables stay the same objects."""
    make, x = MODELS[name]
    saved, target = make(), make()
    for model in (saved, target) if x is not None else ():
        model(x)
    scrambled(saved)
    before = list(map(id, target.variables))
    assert tk.loads(tk.dumps({"m": saved}), into={"m": target})["m"] is target
    assert bits(*target.variables) == bits(*saved.variables)
    assert list(map(id, target.variables)) == before


@pytest.mark.parametrize("name", [name for name, (_, x) in MODELS.items() if x is not None])
def test_what_is_not_built_is_built_by_the_shapes_of_the_file(name: str) -> None:
    """As Keras builds it when it loads."""
    make, x = MODELS[name]
    saved, target = make(), make()
    saved(x)
    tk.loads(tk.dumps(scrambled(saved)), into=target)
    assert bits(*target.variables) == bits(*saved.variables)
    assert np.array_equal(*(keras.ops.convert_to_numpy(model(x)) for model in (saved, target)))


def test_names_are_those_of_keras_counted_from_the_model() -> None:
    """So they are the same in every process and for every instance; names that were chosen stay; none clashes."""

    def make() -> Any:
        inside = [layers.Dense(4), layers.Dense(4, name="mine_7"), layers.Dense(4), layers.Dropout(0.5), layers.ReLU(name="dense")]
        return sequential(*inside, layers.BatchNormalization(name="dense_1"))

    wanted = [f"{layer}/{name}" for layer in ("dense", "mine_7", "dense_1") for name in ("kernel", "bias")]
    wanted += ["dropout/seed_generator/seed_generator_state"]
    wanted += [f"dense_1~2/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]
    assert list(tk.loads(tk.dumps(make()))) == list(tk.loads(tk.dumps(make()))) == [*wanted, "config"]
    model = compiled()
    model.train_on_batch(X, Y)
    tree = tk.loads(tk.dumps(model))
    assert list(tree["optimizer"])[:4] == ["iteration", "learning_rate", "dense/kernel/momentum", "dense/kernel/velocity"]
    assert list(tree["metrics"]) == ["loss/total", "loss/count", "accuracy/total", "accuracy/count"]


def test_variables_with_the_names_of_other_parts_are_kept_beside_them() -> None:
    """A model's own variable may be called `optimizer` or `config`, and a layer `metrics`."""

    class Named(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = self.add_weight(shape=(3,), name="optimizer"), self.add_weight(shape=(2,), name="config")
            self.inside, self.raw = layers.Dense(1, name="metrics"), [keras.Variable([1.0]), keras.Variable([2.0])]

        def call(self, x: Any) -> Any:
            return self.inside(x) + keras.ops.sum(self.one)

    saved, target = Named(), Named()
    for model in (saved, target):
        model(X)
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
    scrambled(saved)
    data = tk.dumps(saved)
    assert len(tk.loads(data)) == len(saved.variables) + 3
    tk.loads(data, into=target)
    assert bits(*everything(target)) == bits(*everything(saved))


def test_a_shared_layer_is_stored_once(tmp_path: Path) -> None:
    """It has a path at each of its places, and one tensor."""

    class Tied(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            inner = layers.Dense(8)
            self.one, self.two = sequential(inner), sequential(inner)

        def call(self, x: Any) -> Any:
            return self.two(self.one(x))

    saved, target = Tied(), Tied()
    tk.save(scrambled(saved), tmp_path / "m.safetensors")
    with tk.open(tmp_path / "m.safetensors") as contents:
        assert list(contents.tensors) == ["sequential/dense/kernel", "sequential/dense/bias"]
        assert contents.tree.state["sequential_1/dense/bias"] is contents.tensors["sequential/dense/bias"]
    tk.load(tmp_path / "m.safetensors", into=target)
    assert bits(*target.variables) == bits(*saved.variables)


@pytest.mark.parametrize(("optimizer", "target"), [("sgd", "fresh"), ("adam", "not built"), ("adam", "trained")])
def test_training_goes_on_bit_for_bit(optimizer: str, target: str) -> None:
    """Weights, slots, iterations, dropout's seeds and running means: a resumed run is the uninterrupted one."""
    jit = BACKEND == "jax" and target == "not built"
    run = compiled(optimizer, jit=jit)
    fit(run)
    data = tk.dumps(run)
    wanted = fit(run, 2)
    resumed = compiled(optimizer, built=target != "not built", seed=2, jit=jit)
    if target == "trained":
        fit(resumed)
    tk.loads(data, into=resumed)
    assert fit(resumed, 2) == wanted
    assert bits(*everything(resumed)) == bits(*everything(run))


def test_a_model_saves_itself_while_it_trains(tmp_path: Path) -> None:
    """A callback sees each step's values, though the JAX backend keeps them elsewhere meanwhile."""

    class Saving(keras.callbacks.Callback):  # type: ignore[misc]  # a class of a package without types
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            tk.save(self.model, tmp_path / f"{batch}.safetensors")

    model = compiled()
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[Saving()])
    states = [tk.load(tmp_path / f"{batch}.safetensors") for batch in range(3)]
    assert [int(state["optimizer"]["iteration"]) for state in states] == [1, 2, 3]
    assert np.asarray(states[2]["dense/kernel"]).tobytes() == bits(model.layers[0].kernel)[0][1]


def training(seed: int, *, built: bool) -> dict[str, Any]:
    """A state of every kind of part, whose values differ with the seed."""
    model = compiled(built=built)
    if built:
        model.optimizer.build(model.trainable_variables)
    alone = sequential(layers.Dense(2))
    optimizer = keras.optimizers.SGD(0.1, momentum=0.5)
    optimizer.build(alone.trainable_variables)
    metric, generator = keras.metrics.Mean(), keras.random.SeedGenerator(seed)
    for variable in (*everything(model), *alone.variables, *optimizer.variables, *metric.variables):
        variable.assign(np.full(variable.shape, seed, variable.dtype))
    return {"model": model, "alone": alone, "optimizer": optimizer, "metric": metric, "generator": generator}


def told(state: dict[str, Any]) -> Any:
    """All that can be seen of such a state, identities too."""
    model = state["model"]
    parts = [
        *everything(model),
        *state["alone"].variables,
        *state["optimizer"].variables,
        *state["metric"].variables,
        state["generator"].state,
    ]
    objects = [model, *model.layers, model.optimizer, state["optimizer"]]
    seen = [(id(one), sorted(vars(one)), [list(value) for value in vars(one).values() if isinstance(value, list)]) for one in objects]
    return [*zip(map(id, parts), bits(*parts), strict=True)], seen, model.built, model.optimizer.built


@pytest.mark.parametrize("built", [True, False])
@pytest.mark.parametrize("place", range(6))
def test_a_load_that_fails_changes_nothing_at_all(place: int, built: bool) -> None:
    """Wherever in the state the refusal is; what was built for the load has no variables again."""

    def with_refusal(state: dict[str, Any], refuses: bool) -> dict[str, Any]:
        items = list(state.items())
        items.insert(place, ("last", Refuses(refuses=refuses)))
        return dict(items)

    data = tk.dumps(with_refusal(training(1, built=True), refuses=False))
    target = with_refusal(training(0, built=built), refuses=True)
    before = told(target)
    with pytest.raises(tk.MismatchError, match="not this one"):
        tk.loads(data, into=target)
    assert told(target) == before
    target["last"].refuses = False
    tk.loads(data, into=target)
    assert bits(*everything(target["model"])) == bits(*everything(training(1, built=True)["model"]))


@pytest.mark.parametrize("built", [True, False])
def test_damage_anywhere_changes_nothing(tmp_path: Path, built: bool) -> None:
    """A flipped bit in any tensor."""
    path = tmp_path / "run.safetensors"
    tk.save(training(1, built=True), path)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    target = training(0, built=built)
    before = told(target)
    for at in range(start, len(whole), max(1, (len(whole) - start) // 12)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(tk.CorruptError):
            tk.load(path, into=target)
    assert told(target) == before


@pytest.mark.parametrize("built", [True, False])
def test_what_does_not_fit_is_told_by_name_and_changes_nothing(built: bool) -> None:
    """Shapes of weights and slots; a layer too many; one too few."""
    saved = Blocks()
    saved(X)
    saved.compile("adam", "mse")
    saved.optimizer.build(saved.trainable_variables)
    data = tk.dumps({"m": saved})
    target = Blocks(width=7)
    target.compile("adam", "mse")
    if built:
        target(X)
    before = bits(*everything(target))
    with pytest.raises(tk.MismatchError) as caught:
        tk.loads(data, into={"m": target})
    heads = [f"m.head/{name}" for name in ("kernel", "bias")]
    slots = [f"m.optimizer.head/{name}/{slot}" for name in ("kernel", "bias") for slot in ("momentum", "velocity")]
    assert sorted(caught.value.report.of("shape")) == sorted(heads + slots)
    assert bits(*everything(target)) == before and target.built == built and not target.optimizer.built
    fewer = sequential(layers.Dense(8), layers.Dense(3, name="head"))
    with pytest.raises(tk.MismatchError) as caught:
        tk.loads(data, into={"m": fewer})
    assert caught.value.report.unexpected == ["m.dense_1/kernel", "m.dense_1/bias"]
    more = sequential(layers.Dense(8), layers.Dense(8), layers.Dense(8), layers.Dense(3, name="head"))
    with pytest.raises(tk.MismatchError) as caught:
        tk.loads(data, into={"m": more})
    assert caught.value.report.missing == ["m.dense_2/kernel", "m.dense_2/bias"]


def test_only_rename_strict_and_cast_are_as_for_others() -> None:
    """A part, under other names, what fits, and into other dtypes only when asked."""
    saved, target = scrambled(sequential(layers.Dense(4), layers.Dense(4))), sequential(layers.Dense(4), layers.Dense(4))
    data, before = tk.dumps(saved), bits(*target.variables)
    tk.loads(data, into=target, only="dense_1/*")
    assert bits(*target.variables) == before[:2] + bits(*saved.variables)[2:]
    named = sequential(layers.Dense(4, name="first"), layers.Dense(4, name="second"))
    tk.loads(data, into=named, rename={"dense/*": "first/*", "dense_1/*": "second/*"})
    assert bits(*named.variables) == bits(*saved.variables)
    wider = sequential(layers.Dense(4), layers.Dense(9))
    with pytest.warns(tk.TensorkeepWarning, match="fits only in part"):
        tk.loads(data, into=wider, strict=False)
    assert bits(*wider.variables[:2]) == bits(*saved.variables[:2])
    half = sequential(layers.Dense(4, dtype="bfloat16"), layers.Dense(4, dtype="bfloat16"))
    with pytest.raises(tk.MismatchError, match="cast=True converts it"):
        tk.loads(data, into=half)
    with pytest.warns(tk.TensorkeepWarning) as told:
        tk.loads(data, into=half, cast=True)
    assert len(warned(told)[0].message.report.casts) == 4


def test_a_model_that_is_not_compiled_takes_its_weights_alone() -> None:
    """And a compiled one whose optimizer was never used needs nothing for it; a used one does."""
    run = compiled()
    fit(run)
    plain = sequential(layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(3))
    tk.loads(tk.dumps(run), into=plain)
    assert bits(*plain.variables) == bits(*run.variables)
    data = tk.dumps(scrambled(plain))
    tk.loads(data, into=(fresh := compiled()))
    assert bits(*fresh.variables) == bits(*plain.variables)
    with pytest.raises(tk.MismatchError, match=r"optimizer .*strict=False keeps it as it is"):
        tk.loads(data, into=run)
    tk.loads(data, into=run, only=lambda path: not path.startswith("optimizer"))
    assert bits(*run.variables) == bits(*plain.variables)


def test_an_optimizer_alone_is_filled_once_it_is_built() -> None:
    """Its variables bear the names of those that they are for; before that, or of another class, it says what to do."""
    model = sequential(layers.Dense(3), layers.Dense(3))
    saved, target = keras.optimizers.Adam(0.1), keras.optimizers.Adam(0.5)
    saved.build(model.trainable_variables)
    for variable in saved.variables[1:]:
        variable.assign(variable + 2)
    data = tk.dumps({"o": saved})
    with pytest.raises(tk.MismatchError, match=r"call optimizer\.build\(model\.trainable_variables\) first"):
        tk.loads(data, into={"o": target})
    target.build(sequential(layers.Dense(3), layers.Dense(3)).trainable_variables)
    tk.loads(data, into={"o": target})
    assert bits(*target.variables) == bits(*saved.variables)
    other = keras.optimizers.SGD(0.1, momentum=0.9)
    other.build(model.trainable_variables)
    with pytest.raises(tk.MismatchError, match=r"a Adam .*a SGD"):
        tk.loads(data, into={"o": other})


def test_optimizers_that_a_class_of_ones_own_holds_are_kept() -> None:
    """As models have them that train two networks against each other."""

    class Pair(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = sequential(layers.Dense(2)), sequential(layers.Dense(2))
            self.first, self.second = keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.Adam(0.1)
            self.first.build(self.one.trainable_variables)
            self.second.build(self.two.trainable_variables)
            self.mean = keras.metrics.Mean(name="mine")

    saved, target = Pair(), Pair()
    saved.mean.update_state([3.0])
    for optimizer in (saved.first, saved.second):
        scrambled(optimizer)
    tree = tk.loads(tk.dumps(saved))
    assert {"first", "second", "metrics"} < set(tree) and "one/dense/kernel/momentum" not in tree["second"]
    tk.loads(tk.dumps(saved), into=target)
    for one, other in ((saved.first, target.first), (saved.second, target.second), (saved.mean, target.mean)):
        assert bits(*one.variables) == bits(*other.variables)


def test_optimizers_of_compiled_models_inside_are_kept() -> None:
    """And built for the variables of their own model."""

    def make() -> Any:
        inside = sequential(layers.Dense(8))
        inside.compile("adam", "mse")
        outside = sequential(inside, layers.Dense(1))
        outside.compile("sgd", "mse")
        return outside

    saved, target = make(), make()
    saved.layers[0].optimizer.build(saved.layers[0].trainable_variables)
    scrambled(saved.layers[0].optimizer)
    tk.loads(tk.dumps(saved), into=target)
    assert bits(*target.layers[0].optimizer.variables) == bits(*saved.layers[0].optimizer.variables)
    plain = sequential(sequential(layers.Dense(8)), layers.Dense(1))
    tk.loads(tk.dumps(saved), into=plain)


def test_variables_metrics_and_seed_generators_stand_alone() -> None:
    """In place, the same objects."""
    saved = {"v": keras.Variable([1.0, 2.0]), "m": keras.metrics.Mean(), "s": keras.random.SeedGenerator(3)}
    saved["m"].update_state([1, 2, 6])
    target = {"v": keras.Variable([0.0, 0.0]), "m": keras.metrics.Mean(), "s": keras.random.SeedGenerator(4)}
    back = tk.loads(tk.dumps(saved), into=target)
    assert all(back[key] is target[key] for key in target)
    assert (target["v"].numpy().tolist(), float(target["m"].result())) == ([1.0, 2.0], 3.0)
    assert bits(target["s"].state) == bits(saved["s"].state)


@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_a_variable_is_kept_as_its_backend_holds_it(dtype: str) -> None:
    """JAX holds 32 bits where Keras was asked for 64: such a file was found too short, and not written."""
    saved, target = (keras.Variable(value, dtype=dtype, trainable=False) for value in ([3, 4], [0, 0]))
    back = tk.loads(tk.dumps({"v": saved}), into={"v": target})
    assert back["v"] is target
    assert target.numpy().tolist() == [3, 4]


def test_the_states_of_a_stateful_layer_are_kept_beside_its_model() -> None:
    """Keras does not count them among a model's variables, as the how-to says."""
    saved, target = (sequential(keras.Input(batch_shape=(2, 5, 8)), layers.GRU(3, stateful=True), width=None) for _ in range(2))
    saved(SERIES)
    tk.loads(
        tk.dumps({"model": saved, "states": saved.layers[0].states}),
        into={"model": target, "states": target.layers[0].states},
    )
    assert np.array_equal(keras.ops.convert_to_numpy(target(SERIES)), keras.ops.convert_to_numpy(saved(SERIES)))


LAZY_METRICS = {
    "F1Score": lambda: keras.metrics.F1Score(),
    "micro": lambda: keras.metrics.FBetaScore(average="micro"),
    "R2Score": lambda: keras.metrics.R2Score(),
    "AUC": lambda: keras.metrics.AUC(multi_label=True, num_thresholds=5),
}


@pytest.mark.parametrize("name", LAZY_METRICS)
def test_metrics_that_wait_for_their_first_batch_are_built_by_the_file(name: str) -> None:
    """Those lack variables before; a load that fails leaves them so."""
    wanted, fresh = LAZY_METRICS[name](), LAZY_METRICS[name]()
    wanted.update_state(np.eye(3, dtype="float32"), np.float32([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]))
    data = tk.dumps({"metric": wanted})
    before, count = dict(vars(fresh)), len(fresh.variables)
    with pytest.raises(tk.MismatchError):
        tk.loads(data, into={"metric": fresh, "more": np.zeros(2)})
    assert vars(fresh) == before and len(fresh.variables) == count < len(wanted.variables)
    tk.loads(data, into={"metric": fresh})
    assert np.array_equal(keras.ops.convert_to_numpy(fresh.result()), keras.ops.convert_to_numpy(wanted.result()))
    fresh.reset_state()
    assert not any(keras.ops.convert_to_numpy(variable).any() for variable in fresh.variables)


def test_the_architecture_is_kept_as_data() -> None:
    """What Keras itself would write, without code in it; where Keras cannot say, the reason stands in its place."""
    model = compiled()
    config = tk.loads(tk.dumps(model))["config"]
    assert (config["keras_version"], config["class_name"]) == (keras.__version__, "Sequential")
    assert [layer["class_name"] for layer in config["config"]["layers"]][1:] == ["Dense", "BatchNormalization", "Dropout", "Dense"]
    assert config["compile_config"]["optimizer"]["class_name"] == "Adam"
    double = sequential(layers.Lambda(lambda x: 2 * x))
    function = tk.loads(tk.dumps(double))["config"]["config"]["layers"][1]["config"]["function"]
    assert function == {"class_name": "__lambda__", "config": {"not_kept": "a function without a name, which is code"}}

    class Refusing(Blocks):
        def get_config(self) -> Any:
            raise NotImplementedError("no config")

    config = tk.loads(tk.dumps(Refusing()))["config"]
    assert config["config"] == {"not_kept": "NotImplementedError: no config"}


STRANGE: list[Any] = [None, {}, {"input_shape": "os"}, {"shapes_dict": {"x": [[[1 << 60]]]}}]
STRANGE += [{"input_shape": shape} for shape in ([None, 1 << 40], [None, -1], [None, 8.0], [1 << 20] * 9, [None] * 99)]


@pytest.mark.parametrize("config", STRANGE)
def test_a_strangers_shapes_are_not_believed(config: Any) -> None:
    """No file makes a model allocate more than fits its tensors, and what cannot be built stays as it was."""
    saved, target = sequential(layers.Dense(4)), sequential(layers.Dense(4), width=None)
    tree = tk.loads(tk.dumps(saved))
    tree["config"]["build_config"] = config
    with pytest.raises(tk.MismatchError, match=r"a Sequential that is not built .*call model\.build\(input_shape\) first"):
        tk.loads(tk.dumps(tree), into=target)
    assert not target.built and not target.variables


def test_layers_with_code_of_their_own_take_what_they_gave() -> None:
    """`save_own_variables` and `load_own_variables`, as Keras calls them; and they get their former state back."""

    class Own(layers.Layer):  # type: ignore[misc]  # a class of a package without types
        def build(self, shape: Any) -> None:
            self.w, self.extra = self.add_weight(shape=(shape[-1], 2), name="w"), np.zeros(3)

        def call(self, x: Any) -> Any:
            return keras.ops.matmul(x, self.w)

        def save_own_variables(self, store: Any) -> None:
            store["matrix"], store["extra"] = self.w, self.extra

        def load_own_variables(self, store: Any) -> None:
            self.w.assign(store["matrix"])
            self.extra = np.array(store["extra"])

    saved, target = sequential(layers.Dense(4), Own()), sequential(layers.Dense(4), Own())
    scrambled(saved).layers[1].extra = np.arange(3.0)
    data, before = tk.dumps([saved, Refuses()]), bits(*target.variables)
    with pytest.raises(tk.MismatchError):
        tk.loads(data, into=[target, Refuses(refuses=True)])
    assert bits(*target.variables) == before and target.layers[1].extra.tolist() == [0, 0, 0]
    tk.loads(data, into=[target, Refuses()])
    assert bits(*target.variables) == bits(*saved.variables) and target.layers[1].extra.tolist() == [0, 1, 2]


def test_what_is_derived_from_variables_is_renewed() -> None:
    """Normalization works on copies of its mean and variance."""
    saved, target = sequential(layers.Normalization()), sequential(layers.Normalization())
    saved.layers[0].adapt(X)
    tk.loads(tk.dumps(saved), into=target)
    assert np.array_equal(*(keras.ops.convert_to_numpy(model(X)) for model in (saved, target)))


class Derived(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A layer that works on what it makes of its variable whenever that is loaded, as Keras asks layers to."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.doubled = 2.0

    def call(self, inputs: Any) -> Any:
        return inputs * self.doubled

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)
        self.doubled = 2 * float(keras.ops.convert_to_numpy(self.scale))


@pytest.mark.parametrize("way", ["into", "build"])
def test_layers_renew_what_they_derive_by_code_of_their_own(way: str) -> None:
    """By a `load_own_variables` that stands alone: what is kept is Keras's own way."""
    saved = sequential(Derived())
    saved.layers[0].load_own_variables({"0": np.float32(3)})
    into = {"into": sequential(Derived())} if way == "into" else {"build": "keras", "types": [Derived]}
    found = tk.loads(tk.dumps(saved), **into)
    assert np.array_equal(*(keras.ops.convert_to_numpy(model(X)) for model in (saved, found)))


@pytest.mark.skipif(BACKEND != "torch", reason="only the PyTorch backend wraps its modules")
def test_wrapped_modules_of_pytorch_keep_their_buffers() -> None:
    """And their pickle, which Keras would write, is not kept."""
    torch = pytest.importorskip("torch")

    def make() -> Any:
        model = sequential(layers.TorchModuleWrapper(torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4))), width=None)
        model(X, training=True)
        return model

    saved, target = make(), make()
    saved(2 * X, training=True)
    tree = tk.loads(tk.dumps(saved))
    assert "pickle" in tree["config"]["config"]["not_kept"]
    tk.loads(tk.dumps(saved), into=target)
    one, other = (model.layers[0].module.state_dict() for model in (saved, target))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.skipif(BACKEND != "torch", reason="only there a layer of Keras is a module of PyTorch")
def test_a_layer_of_keras_is_not_taken_for_a_module_of_pytorch() -> None:
    """So its file is the same as with another backend; in place its parameters stay the same ones."""
    saved, target = scrambled(sequential(layers.Dense(4))), sequential(layers.Dense(4))
    parameters = [id(parameter) for parameter in target.parameters()]
    tk.loads(tk.dumps(saved), into=target)
    assert [id(parameter) for parameter in target.parameters()] == parameters
    assert isinstance(tk.loads(tk.dumps(saved))["dense/kernel"], np.ndarray)


def test_a_flat_file_by_others_fits_too(tmp_path: Path) -> None:
    """What safetensors itself makes of the file: names and tensors alone."""
    safetensors = pytest.importorskip("safetensors.numpy")
    run, target = compiled(), compiled()
    fit(run)
    target.optimizer.build(target.trainable_variables)
    tk.save(run, tmp_path / "run.safetensors")
    flat = safetensors.load_file(tmp_path / "run.safetensors")
    safetensors.save_file(flat, tmp_path / "flat.safetensors")
    tk.load(tmp_path / "flat.safetensors", into=target)
    assert bits(*target.variables, *target.optimizer.variables) == bits(*run.variables, *run.optimizer.variables)


def test_a_file_is_read_without_keras(tmp_path: Path) -> None:
    """A model comes back as a dict of arrays, and nothing is imported for it."""
    tk.save(sequential(layers.Dense(4)), tmp_path / "m.safetensors")
    code = "import sys, tensorkeep as tk; tree = tk.load(sys.argv[1]); print(*tree, tree['dense/kernel'].shape, 'keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m.safetensors")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["dense/kernel", "dense/bias", "config", "(8,", "4)", "False"]


@pytest.mark.parametrize("backend", [name for name in ("jax", "torch", "tensorflow") if name != BACKEND])
def test_all_of_this_with_another_backend(backend: str) -> None:
    """Keras knows one backend a process: so this file runs again in another one."""
    if "TENSORKEEP_OTHER_BACKEND" in os.environ or importlib.util.find_spec(backend) is None:
        pytest.skip(f"run by another backend, or no {backend} here")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TENSORKEEP_OTHER_BACKEND": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]

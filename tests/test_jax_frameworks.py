"""Flax (Linen and NNX), Equinox, Optax and Haiku: their models and optimizers come back, and a training goes on bit for bit."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402  # after it is known to be there

from same_jax import assert_same  # noqa: E402

DATA = np.random.default_rng(0).normal(size=(8, 4, 3)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "state.safetensors")


def paths(file: str) -> set[str]:
    with tk.open(file) as contents:
        return set(contents.tensors)


def resumed(file: str, make: Callable[[int], Any], step: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """A run of eight steps, and one that was saved after four and went on from the file, in a state made with other numbers."""
    state = make(1)
    for batch in DATA[:4]:
        state = step(state, batch)
    tk.save(state, file)
    for batch in DATA[4:]:
        state = step(state, batch)
    other = tk.load(file, into=make(2))
    for batch in DATA[4:]:
        other = step(other, batch)
    return other, state


@functools.cache
def linen() -> Any:
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any, train: bool = False) -> Any:
            x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
            return nn.Dense(1)(nn.Dropout(0.5, deterministic=not train)(x))

    return Net()


@functools.cache
def optimizer() -> Any:
    optax = pytest.importorskip("optax")
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 3, 20)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


class TestLinen:
    def make(self, number: int) -> Any:
        train_state = pytest.importorskip("flax.training.train_state")
        variables = linen().init(jax.random.key(number), DATA[0])
        state = train_state.TrainState.create(apply_fn=linen().apply, params=variables["params"], tx=optimizer())
        return {"state": state, "batch_stats": variables["batch_stats"], "dropout": jax.random.key(number)}

    @staticmethod
    @jax.jit
    def step(run: Any, batch: Any) -> Any:
        key, dropout = jax.random.split(run["dropout"])

        def loss(params: Any) -> Any:
            variables = {"params": params, "batch_stats": run["batch_stats"]}
            made, updates = run["state"].apply_fn(variables, batch, train=True, rngs={"dropout": dropout}, mutable=["batch_stats"])
            return (made**2).mean(), updates

        grads, updates = jax.grad(loss, has_aux=True)(run["state"].params)
        return {"state": run["state"].apply_gradients(grads=grads), "batch_stats": updates["batch_stats"], "dropout": key}

    def test_a_training_goes_on_bit_for_bit(self, file: str) -> None:
        """Parameters, statistics, Adam under a schedule, and dropout, as in a run that was never interrupted."""
        found, wanted = resumed(file, self.make, self.step)
        # The count of steps was Python's number in the target: it went on as an array that is not weakly typed.
        steps = [run["state"].step for run in (found, wanted)]
        assert [int(step) for step in steps] == [8, 8] and steps[0].dtype == steps[1].dtype
        assert_same({**found, "state": found["state"].replace(step=8)}, {**wanted, "state": wanted["state"].replace(step=8)})
        assert found["state"].tx is optimizer() and found["state"].apply_fn.__self__ is linen()

    def test_names_are_those_of_flax(self, file: str) -> None:
        """Collections, layers and fields joined by dots, in a training state with Optax's names inside."""
        run = self.make(1)
        tk.save(run, file)
        names = {"state.params.Dense_0.kernel", "state.opt_state.1.0.mu.Dense_0.kernel", "state.opt_state.1.0.count", "dropout"}
        assert names | {"batch_stats.BatchNorm_0.mean"} <= paths(file)
        tk.save(run["state"].params, file)
        assert paths(file) == {f"{layer}.{name}" for layer in ("Dense_0", "Dense_1") for name in ("kernel", "bias")} | {
            "BatchNorm_0.scale",
            "BatchNorm_0.bias",
        }

    def test_frozen_and_plain_dicts_go_into_each_other(self, file: str) -> None:
        """The answer is of the target's kind."""
        core = pytest.importorskip("flax.core")
        variables = linen().init(jax.random.key(1), DATA[0])
        other = jax.tree.map(jnp.zeros_like, variables)
        tk.save(variables, file)
        assert_same(tk.load(file, into=core.freeze(other)), core.freeze(variables))
        tk.save(core.freeze(variables), file)
        assert_same(tk.load(file, into=other), variables)
        assert_same(tk.load(file), variables)
        shapes = jax.eval_shape(lambda: linen().init(jax.random.key(1), DATA[0]))
        assert_same(tk.load(file, into=shapes), variables)

    def test_flaxs_own_files_load_into_its_states(self, tmp_path: Path) -> None:
        """What `flax.serialization.to_bytes` wrote, into variables and into a training state."""
        serialization = pytest.importorskip("flax.serialization")
        run = self.step(self.make(1), DATA[0])
        file = tmp_path / "flax_model.msgpack"
        file.write_bytes(serialization.to_bytes(run["state"].params))
        assert_same(tk.load(file, into=self.make(2)["state"].params), run["state"].params)
        file.write_bytes(serialization.to_bytes(run["state"]))
        loaded = tk.load(file, into=self.make(2)["state"])
        assert_same((loaded.params, loaded.opt_state), (run["state"].params, run["state"].opt_state))
        assert int(loaded.step) == 1

    def test_a_module_alone_is_refused_with_what_to_pass(self, file: str) -> None:
        """It holds no values."""
        with pytest.raises(tk.UnsupportedError, match=r"variables that its init\(\) gave"):
            tk.save({"model": linen()}, file)


class TestNnx:
    @functools.cache  # noqa: B019  # a class for all tests
    def kinds(self) -> Any:
        nnx = pytest.importorskip("flax.nnx")
        if not hasattr(nnx, "to_pure_dict"):
            pytest.skip("this Flax is older than what these tests call")

        class Net(nnx.Module):
            def __init__(self, rngs: Any) -> None:
                self.first, self.last = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)
                self.norm, self.drop = nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
                self.shared = self.first

            def __call__(self, x: Any) -> Any:
                return self.last(self.drop(self.norm(self.first(x))))

        return nnx, Net

    def make(self, number: int) -> Any:
        nnx, net = self.kinds()
        model = net(nnx.Rngs(number, dropout=number + 1))
        return {"model": model, "optimizer": nnx.Optimizer(model, optimizer(), wrt=nnx.Param)}

    def step(self, run: Any, batch: Any) -> Any:
        nnx, _ = self.kinds()
        grads = nnx.grad(lambda model: (model(batch) ** 2).mean())(run["model"])
        run["optimizer"].update(run["model"], grads)
        return run

    def test_a_training_goes_on_bit_for_bit(self, file: str) -> None:
        """Parameters, statistics, the optimizer, and the streams of random numbers with their counts."""
        nnx, _ = self.kinds()
        found, wanted = resumed(file, self.make, self.step)
        for name in ("model", "optimizer"):
            assert_same(nnx.state(found[name]), nnx.state(wanted[name]))

    def test_modules_are_filled_in_place(self, file: str) -> None:
        """The same module with the same variables, of which each keeps its kind; a shared one stands in the file once."""
        nnx, _ = self.kinds()
        run, other = self.make(1), self.make(2)
        tk.save(run, file)
        assert {"model.first.kernel", "model.norm.mean", "model.drop.rngs.count", "optimizer.opt_state.1.0.mu.first.kernel"} <= paths(file)
        assert not any("shared" in path for path in paths(file))
        kernel = other["model"].first.kernel
        loaded = tk.load(file, into=other)
        assert loaded["model"] is other["model"] and loaded["optimizer"] is other["optimizer"]
        assert other["model"].first.kernel is kernel is other["model"].shared.kernel and type(kernel) is nnx.Param
        assert_same(nnx.state(other["model"]), nnx.state(run["model"]))
        tree = tk.load(file)["model"]
        assert_same(tree["norm"]["mean"], run["model"].norm.mean.get_value())

    def test_metrics_streams_and_arrays_without_a_variable_come_back(self, file: str) -> None:
        """Whatever `nnx.state` tells of, also where an optimizer holds its model."""
        nnx, net = self.kinds()

        class Other(nnx.Module):
            def __init__(self, number: int) -> None:
                rngs = nnx.Rngs(number)
                self.raw = nnx.data(jnp.full(3, np.float32(number)))
                self.named = nnx.Dict(a=nnx.LoRA(2, 1, 2, rngs=rngs))
                self.loss = nnx.metrics.Average("loss")

        def make(number: int) -> Any:
            other = Other(number)
            other.loss.update(loss=jnp.float32(number))
            return {"rngs": nnx.Rngs(number), "other": other, "whole": nnx.ModelAndOptimizer(net(nnx.Rngs(number)), optimizer())}

        run, target = make(1), make(2)
        tk.save(run, file)
        assert tk.load(file, into=target)["other"] is target["other"]
        for name in run:
            assert_same(nnx.state(target[name]), nnx.state(run[name]))

    def test_states_and_modules_go_into_each_other(self, file: str) -> None:
        """`nnx.state(model)` is a state like any other; `nnx.eval_shape` makes a module without values."""
        nnx, net = self.kinds()
        model = self.make(1)["model"]
        tk.save(nnx.state(model), file)
        assert_same(nnx.state(tk.load(file, into=self.make(2)["model"])), nnx.state(model))
        tk.save(model, file)
        assert_same(tk.load(file, into=nnx.state(self.make(2)["model"])), nnx.state(model))
        assert_same(nnx.state(tk.load(file, into=nnx.eval_shape(lambda: net(nnx.Rngs(0, dropout=0))))), nnx.state(model))
        tk.save({"kernel": model.first.kernel}, file)
        other = self.make(2)["model"].first.kernel
        assert tk.load(file, into={"kernel": other})["kernel"] is other
        assert_same(other.get_value(), model.first.kernel.get_value())

    def test_a_load_that_fails_changes_no_variable(self, file: str) -> None:
        """Names, shapes, an object that refuses after the module was filled: every variable is as it was."""
        nnx, net = self.kinds()

        class Refusing:
            def state_dict(self) -> dict[str, int]:
                return {"a": 1}

            def load_state_dict(self, state: dict[str, int]) -> None:
                raise RuntimeError("never")

        class Larger(net):  # type: ignore[misc, valid-type]  # made by the test
            def __init__(self, rngs: Any) -> None:
                super().__init__(rngs)
                self.more = nnx.Linear(1, 1, rngs=rngs)

        run = self.make(1)
        other = self.make(2)
        before = jax.tree.map(lambda leaf: leaf, nnx.to_pure_dict(nnx.state(other["model"])))
        array = np.zeros(3)
        state = {"array": np.ones(3), **run}
        for position in range(len(state) + 1):
            saved, target = list(state.items()), list({"array": array, **other}.items())
            for some in (saved, target):
                some.insert(position, ("refusing", Refusing()))
            tk.save(dict(saved), file)
            with pytest.raises(tk.MismatchError, match="never"):
                tk.load(file, into=dict(target))
            assert_same(nnx.to_pure_dict(nnx.state(other["model"])), before)
            assert array.tolist() == [0, 0, 0]
        with pytest.raises(tk.MismatchError, match=r"model\.more\.kernel"):
            tk.load(file, into={"model": Larger(nnx.Rngs(0))})
        tk.save({"model": Larger(nnx.Rngs(0))}, file)
        with pytest.raises(tk.MismatchError, match=r"model\.more\.bias"):
            tk.load(file, into=other)
        assert_same(nnx.to_pure_dict(nnx.state(other["model"])), before)


class TestEquinox:
    @functools.cache  # noqa: B019  # a class for all tests
    def kinds(self) -> Any:
        eqx = pytest.importorskip("equinox")

        class Net(eqx.Module):
            layers: list[Any]
            scale: float
            extra: dict[str, Any]
            name: str = eqx.field(static=True)

            def __init__(self, number: int) -> None:
                first, last = jax.random.split(jax.random.key(number))
                self.layers = [eqx.nn.Linear(3, 4, key=first), jax.nn.relu, eqx.nn.Dropout(0.5), eqx.nn.MLP(4, 1, 4, 1, key=last)]
                self.scale, self.extra, self.name = (
                    0.5 * number,
                    {"bias": jnp.full(1, number / 2), "code": len, "flag": True},
                    f"net {number}",
                )

            def __call__(self, x: Any, key: Any) -> Any:
                first, relu, drop, last = self.layers
                return last(drop(relu(first(x)), key=key)) * self.scale + self.extra["bias"]

        return eqx, Net

    def make(self, number: int) -> Any:
        eqx, net = self.kinds()
        model = net(number)
        return {"model": model, "optimizer": optimizer().init(eqx.filter(model, eqx.is_inexact_array)), "key": jax.random.key(number)}

    def step(self, run: Any, batch: Any) -> Any:
        eqx, _ = self.kinds()
        key, dropout = jax.random.split(run["key"])

        def loss(model: Any) -> Any:
            return (jax.vmap(model)(batch, jax.random.split(dropout, len(batch))) ** 2).mean()

        grads = eqx.filter_grad(loss)(run["model"])
        updates, state = optimizer().update(grads, run["optimizer"], eqx.filter(run["model"], eqx.is_inexact_array))
        return {"model": eqx.apply_updates(run["model"], updates), "optimizer": state, "key": key}

    def test_a_training_goes_on_bit_for_bit(self, file: str) -> None:
        """The module, Optax's state of it, and the key that dropout comes from."""
        found, wanted = resumed(file, self.make, self.step)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):  # whose static fields differ
            assert_same(one, other)

    def test_static_fields_and_functions_stay_the_targets(self, file: str) -> None:
        """The answer is another module; the target, and what is no value in it, are as they were."""
        _, net = self.kinds()
        target, model = net(2), net(1)
        tk.save(model, file)
        assert paths(file) == {f"layers.{place}.{name}" for place in ("0", "3.layers.0", "3.layers.1") for name in ("weight", "bias")} | {
            "extra.bias"
        }
        loaded = tk.load(file, into=target)
        assert type(loaded) is net and loaded is not target and loaded.name == "net 2" and loaded.scale == 0.5
        assert loaded.layers[1] is jax.nn.relu and loaded.extra["code"] is len and loaded.extra["flag"] is True
        assert_same(loaded.layers[0].weight, model.layers[0].weight)
        assert_same(target.layers[0].weight, net(2).layers[0].weight)

    @pytest.mark.filterwarnings("ignore:When `eqx.nn.BatchNorm")  # has two modes
    def test_layers_with_state_come_back(self, file: str) -> None:
        """Batch normalisation keeps its averages beside the module, in a state of Equinox's own."""
        eqx, _ = self.kinds()
        make = functools.partial(eqx.nn.make_with_state(eqx.nn.BatchNorm), 3, axis_name="batch")
        model, state = make()
        run = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        _, state = run(jnp.asarray(DATA[0]), state)
        tk.save((model, state), file)
        loaded_model, loaded_state = tk.load(file, into=make())
        other = jax.vmap(loaded_model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        assert_same(other(jnp.asarray(DATA[1]), loaded_state)[0], run(jnp.asarray(DATA[1]), state)[0])

    def test_what_equinox_serialises_comes_back(self, file: str) -> None:
        """The leaves of its own test: arrays of both kinds, numbers of Python and NumPy, in a module with a function beside them."""
        eqx, _ = self.kinds()

        class Holder(eqx.Module):
            leaves: tuple[Any, ...]

        def leaves(n: int) -> tuple[Any, ...]:
            arrays = (jnp.array(n), jnp.array([1.0 * n, 2.0]), np.array(n), np.array([1.0 * n, 2.0]), jnp.array(n, jnp.bfloat16))
            return (*arrays, (n == 1, n, 1.0 * n, n + 1j), jnp.bfloat16.dtype.type(n), np.float32(n))

        tk.save(Holder((*leaves(1), object(), lambda: 1)), file)
        loaded = tk.load(file, into=Holder((*leaves(5), marker := object(), print)))
        assert loaded.leaves[-2:] == (marker, print)
        assert_same(loaded.leaves[:-2], leaves(1))

    def test_layers_of_every_kind_come_back(self, file: str) -> None:
        """Convolutions, attention, cells, wrappers, modules with a leading axis of copies, and those that share a weight."""
        eqx, _ = self.kinds()
        nn = eqx.nn

        def make(number: int) -> Any:
            key = jax.random.key(number)
            pair = (nn.Linear(2, 2, key=key), nn.Linear(2, 2, key=jax.random.key(number + 10)))
            return {
                "conv": nn.Conv2d(1, 2, 3, key=key),
                "attention": nn.MultiheadAttention(2, 4, key=key),
                "cell": nn.GRUCell(2, 3, key=key),
                "sequential": nn.Sequential([nn.Linear(2, 2, key=key), nn.Lambda(jax.nn.gelu), nn.MaxPool2d(2)]),
                "copies": eqx.filter_vmap(lambda key: nn.Linear(2, 2, key=key))(jax.random.split(key, 3)),
                "jitted": eqx.filter_jit(nn.Linear(2, 2, key=key)),
                "shared": nn.Shared(pair, lambda pair: pair[0].weight, lambda pair: pair[1].weight),
            }

        tk.save(make(1), file)
        for target in (make(2), eqx.filter_eval_shape(make, 2)):
            assert eqx.tree_equal(*(eqx.filter(state, eqx.is_array) for state in (tk.load(file, into=target), make(1))))

    def test_equinoxs_own_files_load_by_name(self, file: str) -> None:
        """A module in a file of bare tensors, as any other writer of safetensors makes it."""
        safetensors = pytest.importorskip("safetensors.numpy")
        _, net = self.kinds()
        tk.save(net(1), file)
        with tk.open(file) as contents:
            arrays = {path: np.array(tensor) for path, tensor in contents.tensors.items()}
        safetensors.save_file(arrays, file)
        with pytest.raises(tk.MismatchError, match=r"extra\.flag"):
            tk.load(file, into=net(2))
        with pytest.warns(tk.TensorkeepWarning, match="scale"):
            loaded = tk.load(file, into=net(2), strict=False)
        assert_same(loaded.layers[0].weight, net(1).layers[0].weight)
        assert isinstance(loaded.layers[0].weight, jax.Array) and loaded.scale == 1.0


def test_states_of_optax_come_back_as_its_classes(file: str) -> None:
    """Named tuples in named tuples, some of them empty; without a target they are plain tuples."""
    optax = pytest.importorskip("optax")
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    for transform in (
        optax.adam(1e-3),
        optax.lion(1e-3),
        optax.sgd(1e-2, momentum=0.9),
        optax.inject_hyperparams(optax.adamw)(1e-3),
        optax.MultiSteps(optax.adam(1e-3), 2),
        optax.masked(optax.adam(1e-3), {"w": True, "b": False}),
        optax.multi_transform({"a": optax.adam(1e-3), "b": optax.set_to_zero()}, {"w": "a", "b": "b"}),
        optax.apply_if_finite(optax.adafactor(1e-3), 3),
        optax.novograd(1e-3),
    ):
        _, state = transform.update(jax.tree.map(jnp.ones_like, params), transform.init(params), params)
        tk.save(state, file)
        assert_same(tk.load(file, into=transform.init(params)), state)
        assert_same(tk.load(file, into=jax.eval_shape(transform.init, params)), state)
    tk.save(optax.adam(1e-3).init(params), file)
    assert paths(file) == {"0.count", "0.mu.w", "0.mu.b", "0.nu.w", "0.nu.b"}
    assert type(tk.load(file)[0]) is tuple


def test_checkpoints_of_orbax_load_into_states(tmp_path: Path) -> None:
    """By name, into Optax's classes too, of which Orbax keeps those without fields as nothing."""
    orbax = pytest.importorskip("orbax.checkpoint")
    params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.arange(2.0)}}
    state = {"params": params, "optimizer": optimizer().init(params), "step": 3}
    with orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "checkpoint", state)
    assert_same(tk.load(tmp_path / "checkpoint", into={**jax.tree.map(jnp.zeros_like, state), "step": 0}), state)


def test_parameters_of_haiku_come_back(file: str) -> None:
    """Dicts of dicts, under Haiku's names."""
    haiku = pytest.importorskip("haiku")
    net = haiku.transform_with_state(lambda x: haiku.BatchNorm(True, True, 0.9)(haiku.Linear(2)(x), True))
    params, state = net.init(jax.random.PRNGKey(0), DATA[0])
    tk.save({"params": params, "state": state}, file)
    assert "params.linear.w" in paths(file)
    assert_same(tk.load(file, into=jax.tree.map(jnp.zeros_like, {"params": params, "state": state})), {"params": params, "state": state})


def test_dataclasses_of_chex_come_back(file: str) -> None:
    """Those that are mappings too."""
    chex = pytest.importorskip("chex")

    class Mapping:
        weights: Any
        step: int

    class Plain:
        weights: Any
        step: int

    kinds = [chex.dataclass(Mapping, mappable_dataclass=True), chex.dataclass(Plain, mappable_dataclass=False)]
    for kind in kinds:
        tk.save({"it": kind(weights=jnp.ones(3), step=4)}, file)
        assert paths(file) == {"it.weights"}
        loaded = tk.load(file, into={"it": kind(weights=jnp.zeros(3), step=0)})["it"]
        assert type(loaded) is kind and loaded.step == 4 and loaded.weights.tolist() == [1, 1, 1]

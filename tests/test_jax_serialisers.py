"""The kinds of states that the serialisers of Equinox and Flax are tested with: each comes back here, too."""

import io
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from same_jax import assert_same

jax: Any = pytest.importorskip("jax", reason="JAX is not installed")
jnp = jax.numpy
equinox: Any = pytest.importorskip("equinox", reason="Equinox is not installed")
flax: Any = pytest.importorskip("flax", reason="Flax is not installed")
optax: Any = pytest.importorskip("optax", reason="Optax is not installed")


def again(state: Any, target: Any) -> Any:
    return tk.loads(tk.dumps(state), into=target)


class Leaves(equinox.Module):  # type: ignore[misc]  # its stubs are not there
    """Leaves of every kind: arrays of JAX and NumPy, numbers, code, and what is nothing but itself."""

    one: Any
    many: Any
    own: Any
    numbers: Any
    function: Any
    thing: Any


def leaves(seed: int, function: Any, thing: Any) -> Leaves:
    numbers = (bool(seed), seed, float(seed), seed + 1j)
    return Leaves(jnp.array(seed), jnp.array([1.0, seed]), np.array([2.0, seed]), numbers, function, thing)


class TestAsEquinox:
    @pytest.mark.parametrize("way", ["path", "file"])
    def test_leaves_come_back_and_code_stays_the_targets(self, way: str, tmp_path: Path) -> None:
        """By a path and through an open file; functions and bare objects are the target's own."""
        state, target = leaves(1, lambda x: x, object()), leaves(5, lambda x: -x, object())
        if way == "path":
            tk.save(state, tmp_path / "leaves.safetensors")
            found = tk.load(tmp_path / "leaves.safetensors", into=target)
        else:
            with (tmp_path / "leaves.safetensors").open("wb") as file:
                tk.save(state, file)
            with (tmp_path / "leaves.safetensors").open("rb") as file:
                found = tk.load(file, into=target)
        assert_same([found.one, found.many], [state.one, state.many])
        assert np.array_equal(found.own, state.own) and found.numbers == state.numbers
        assert found.function is target.function and found.thing is target.thing

    def test_errors_name_the_leaf(self) -> None:
        """One that is missing, and one of another dtype."""
        data = tk.dumps((jnp.array(1), {}))
        with pytest.raises(tk.MismatchError, match=r"1\.a"):
            tk.loads(data, into=(jnp.array(2), {"a": jnp.array(2), "b": jnp.array(2)}))
        data = tk.dumps((jnp.array(1), {"a": jnp.array(1), "b": jnp.array(1)}))
        with pytest.raises(tk.MismatchError, match=r"1\.a .*I32 .*F32"):
            tk.loads(data, into=(jnp.array(2), {"a": jnp.array(2, jnp.float32), "b": jnp.array(2)}))

    def test_scalars_of_every_library_keep_their_type(self) -> None:
        """JAX's, NumPy's, those of ml_dtypes and Python's, inside a state and alone."""
        state = (jnp.array(1e-8), jnp.bfloat16(1e-8).item(), np.float32(1e-8), np.float64(1e-8), jax.dtypes.bfloat16(1e-8))
        target = (jnp.array(2.0), 2.0, np.float32(2), np.float64(2), jax.dtypes.bfloat16(2))
        for found, wanted in zip(again(state, target), state, strict=True):
            assert type(found) is type(wanted) and np.asarray(found).tobytes() == np.asarray(wanted).tobytes()
        assert again(1e-8, 0.0) == 1e-8 and again(jnp.bfloat16(1), jnp.bfloat16(2)).dtype == jnp.bfloat16

    def test_scalars_that_went_through_a_compiled_function_come_back_as_the_targets(self) -> None:
        """A jitted step makes arrays of scalars: a target that has NumPy's gets those, one that has arrays takes scalars."""
        scalars = (np.float32(1e-8), jax.dtypes.bfloat16(1e-8), np.int32(7))
        arrays = jax.jit(lambda state: state)(scalars)
        for found, wanted in zip(again(arrays, (np.float32(2), jax.dtypes.bfloat16(2), np.int32(2))), scalars, strict=True):
            assert type(found) is type(wanted) and found.tobytes() == wanted.tobytes()
        assert again(scalars, jax.tree.map(jnp.zeros_like, arrays)) == scalars
        with pytest.raises(tk.MismatchError, match=r"float64 .* a tensor F32"):
            again((np.float64(1),), (jnp.zeros(()),))

    def test_states_of_layers_come_back_though_their_markers_differ(self) -> None:
        """Two batch norms and their state; every instance has markers of its own."""

        def make(value: float) -> Any:
            norms = (equinox.nn.BatchNorm(3, "hi", mode="ema"), equinox.nn.BatchNorm(4, "bye", mode="ema"))
            return jax.tree.map(lambda leaf: leaf + value if equinox.is_inexact_array(leaf) else leaf, (norms, equinox.nn.State(norms)))

        state, target = make(1.0), make(2.0)
        found = again(state, target)
        arrays = [[leaf for leaf in jax.tree.leaves(each) if equinox.is_array(leaf)] for each in (found, state)]
        assert_same(arrays[0], arrays[1])
        assert jax.tree.structure(found) == jax.tree.structure(target)

    def test_a_target_without_memory_gets_the_arrays(self) -> None:
        """As `filter_eval_shape` makes it."""
        model = equinox.nn.MLP(2, 2, 2, 2, key=jax.random.key(0))
        shape = equinox.filter_eval_shape(equinox.nn.MLP, 2, 2, 2, 2, key=jax.random.key(1))
        assert equinox.tree_equal(again(model, shape), model, typematch=True)


class TestAsFlax:
    def test_sequential_modules_of_nnx_in_place_and_as_pure_dicts(self) -> None:
        """Layers in a list; the dict that `to_pure_dict` makes of their state."""
        nnx = pytest.importorskip("flax.nnx")

        def make(seed: int) -> Any:
            rngs = nnx.Rngs(seed)
            return nnx.Sequential(nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs))

        model, target = make(0), make(1)
        assert again(model, target) is target
        x = jnp.ones((4, 2))
        assert (target(x) == model(x)).all()
        pure, other = (nnx.to_pure_dict(nnx.state(each)) for each in (model, make(2)))
        assert_same(again(pure, other), pure)

    def test_dataclasses_keep_what_is_static_and_refuse_other_fields(self) -> None:
        """Fields that are no children stay the target's; one more or one fewer is told."""

        @flax.struct.dataclass
        class Point:
            x: float
            y: float
            meta: Any = flax.struct.field(pytree_node=False)

        point = Point(x=jnp.array(3.0), y=jnp.array(4.0), meta={"of": "the file"})
        found = again(point, Point(x=jnp.array(1.0), y=jnp.array(2.0), meta={"of": "the target"}))
        assert (found.x, found.y, found.meta) == (3, 4, {"of": "the target"})
        for wrong in ({"x": jnp.array(3.0)}, {"x": jnp.array(3.0), "y": jnp.array(4.0), "z": jnp.array(5.0)}):
            with pytest.raises(tk.MismatchError, match=r"[yz]"):
                tk.loads(tk.dumps(wrong), into=point)

    def test_functions_with_arguments_keep_the_arguments(self) -> None:
        """`jax.tree_util.Partial`: its function is code."""
        partial = jax.tree_util.Partial(jnp.add, jnp.array(1))
        found = again(partial, jax.tree_util.Partial(jnp.add, jnp.array(7)))
        assert found.func is jnp.add and found(2) == 3

    def test_variables_with_records_in_them(self) -> None:
        """A collection that holds a dataclass of Flax."""

        @flax.struct.dataclass
        class Count:
            x: Any

        state = {"state": {"dummy": Count(jnp.array(2.0))}, "params": {}}
        assert_same(again(state, {"state": {"dummy": Count(jnp.array(0.0))}, "params": {}}), state)

    @pytest.mark.parametrize("code", [*"?bBhHiIlLqQefdFD", "m8[s]", "M8[ns]", "U3", "S5", "bfloat16"])
    @pytest.mark.parametrize("shape", [(), (5,), (10, 10), (1, 20, 30, 1)], ids=str)
    def test_arrays_and_scalars_of_every_dtype(self, code: str, shape: tuple[int, ...]) -> None:
        """All of NumPy's that are alike on every machine."""
        dtype = np.dtype(jnp.bfloat16) if code == "bfloat16" else np.dtype(code)
        array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
        for value in (array, array[()]):
            found = tk.loads(tk.dumps(value), framework="numpy")
            assert found.dtype == value.dtype and np.asarray(found).tobytes() == np.asarray(value).tobytes()

    @pytest.mark.parametrize("code", "gG")
    def test_what_every_machine_has_otherwise_is_refused_with_a_way_out(self, code: str) -> None:
        """`longdouble` has 80, 64 or 128 bits."""
        with pytest.raises(tk.UnsupportedError, match="differ from machine to machine"):
            tk.dumps(np.ones(2, code))

    def test_named_tuples_come_back_as_themselves_into_a_target(self) -> None:
        """Of their own class; one of other fields is told."""
        foo, other = namedtuple("foo", "a b c"), namedtuple("other", "a b d")
        found = again(foo(1, 2, jnp.array(3)), foo(0, 0, jnp.array(0)))
        assert type(found) is foo and tuple(found) == (1, 2, 3)
        with pytest.raises(tk.MismatchError, match="d"):
            tk.loads(tk.dumps(foo(1, 2, 3)), into=other(0, 0, 0))

    @pytest.mark.parametrize(
        ("state", "wrong", "path"),
        [
            ([[[1, 2, 3], [4]]], [[[1, 2, 3], [4, 5]]], "0.1.1"),
            ((((1, 2, 3), (4,)),), (((1, 2, 3), (4, 5)),), "0.1.1"),
            ({"a": {"b": {"c": [1], "d": [4]}}}, {"a": {"b": {"c": [1], "d": [4, 5]}}}, "a.b.d.1"),
            ({"a": {"b": {"c": [1], "d": [4]}}}, {"a": {"b": {"c": [1], "e": [4]}}}, "a.b.e.0"),
        ],
    )
    def test_errors_name_the_place(self, state: Any, wrong: Any, path: str) -> None:
        """What the target has and the file lacks."""
        with pytest.raises(tk.MismatchError) as caught:
            tk.loads(tk.dumps(state), into=wrong)
        assert isinstance(caught.value.report, tk.Report) and caught.value.report.missing == [path]

    def test_a_training_state_of_another_model_is_refused_whole(self) -> None:
        """Parameters and optimizer of one more layer."""
        linen = pytest.importorskip("flax.linen")
        from flax.training.train_state import TrainState

        def make(layers: int) -> Any:
            net = linen.Sequential([linen.Dense(3) for _ in range(layers)])
            params = net.init(jax.random.key(0), jnp.ones((1, 2)))
            return TrainState.create(apply_fn=net.apply, params=params, tx=optax.sgd(0.1, momentum=0.9))

        state = make(1).apply_gradients(grads=jax.tree.map(jnp.ones_like, make(1).params))
        assert_same(again(state, make(1)).opt_state, state.opt_state)
        with pytest.raises(tk.MismatchError, match="layers_1"):
            tk.loads(tk.dumps(state), into=make(2))

    def test_a_file_of_flax_with_arrays_in_pieces_loads_into_a_target(self, tmp_path: Path) -> None:
        """What Flax itself wrote, cut because it was large."""
        from flax import serialization

        former, serialization.MAX_CHUNK_SIZE = serialization.MAX_CHUNK_SIZE, 91 * 8
        try:
            (tmp_path / "a.msgpack").write_bytes(serialization.to_bytes({"a": np.arange(777.0).reshape(21, 37)}))
        finally:
            serialization.MAX_CHUNK_SIZE = former
        target = {"a": np.zeros((21, 37))}
        assert tk.load(io.BytesIO((tmp_path / "a.msgpack").read_bytes()), into=target)["a"] is target["a"]
        assert np.array_equal(target["a"], np.arange(777.0).reshape(21, 37))

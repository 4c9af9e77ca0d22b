"""States of JAX: arrays of every type, random keys, registered containers; back bit for bit, or into a target as its successor."""

import dataclasses
import functools
import os
import subprocess
import sys
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402  # after it is known to be there

from same_jax import assert_same  # noqa: E402

DTYPES = ("bool", "int8", "int32", "uint8", "uint16", "uint32", "float16", "bfloat16", "float32", "complex64")
SMALL = tuple(
    name
    for name in ("int4", "uint4", "int2", "uint2", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e8m0fnu", "float4_e2m1fn")
    if hasattr(jnp, name)
)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["weights", "step"], meta_fields=["name"])
@dataclasses.dataclass(frozen=True)
class Trained:
    """A registered dataclass with a static field, as JAX's own documentation shows them."""

    weights: Any
    step: Any
    name: str = "net"


@jax.tree_util.register_pytree_with_keys_class
class Pair:
    """A class that tells JAX how it is taken apart, by name."""

    def __init__(self, left: Any, right: Any, label: str = "") -> None:
        self.left, self.right, self.label = left, right, label

    def tree_flatten_with_keys(self) -> Any:
        key = jax.tree_util.GetAttrKey
        return ((key("left"), self.left), (key("right"), self.right)), self.label

    @classmethod
    def tree_unflatten(cls, label: str, children: Any) -> Any:
        return cls(*children, label)


@jax.tree_util.register_pytree_node_class
class Unnamed:
    """A class that tells JAX its children without names, and refuses some."""

    def __init__(self, *children: Any) -> None:
        self.children = children

    def tree_flatten(self) -> Any:
        return self.children, None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> Any:
        if any(isinstance(child, str) for child in children):
            raise RuntimeError("no texts")
        return cls(*children)


Point = namedtuple("Point", "x y")


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "state.safetensors")


@pytest.mark.parametrize("shape", [(), (0, 3), (3,), (4, 6)], ids=str)
@pytest.mark.parametrize("dtype", [*DTYPES, *SMALL])
def test_arrays_come_back_bit_for_bit(file: str, dtype: str, shape: tuple[int, ...]) -> None:
    """Alone, as NumPy's, and into a target: dtype, shape and bits."""
    array = (jnp.arange(int(np.prod(shape))).reshape(shape) % 3).astype(dtype)
    tk.save({"x": array}, file)
    assert_same(tk.load(file)["x"], array)
    assert_same(tk.load(file, into={"x": jnp.zeros(shape, dtype)})["x"], array)
    plain = tk.load(file, framework="numpy")["x"]
    assert type(plain) is np.ndarray and plain.tobytes() == np.asarray(array).tobytes() and plain.dtype == array.dtype


def test_nans_and_signed_zeros_keep_their_bits(file: str) -> None:
    """No value passes through arithmetic on its way."""
    bits = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 1, 0x7F800001], np.uint32)
    tk.save({"x": jnp.asarray(bits).view(jnp.float32)}, file)
    for loaded in (tk.load(file), tk.load(file, into={"x": jnp.zeros(5)})):
        assert np.asarray(loaded["x"]).view(np.uint32).tolist() == bits.tolist()


def test_arrays_of_64_bits_are_never_narrowed(file: str) -> None:
    """Where JAX has 64 bits switched off, it would round them without a word: NumPy's array comes back instead."""
    with enable_x64():
        array = jnp.asarray([1.0 + 2**-40, 3.0])
        assert array.dtype == np.float64
        tk.save({"x": array, "n": jnp.asarray(2**40)}, file)
        assert_same(tk.load(file)["x"], array)
    loaded = tk.load(file)
    assert type(loaded["x"]) is np.ndarray and loaded["x"].tobytes() == np.asarray(array).tobytes() and int(loaded["n"]) == 2**40
    assert_same(tk.load(file, into={"x": array, "n": 0})["x"], array)


def enable_x64() -> Any:
    from jax import experimental

    return getattr(experimental, "enable_x64", None)(True) if hasattr(experimental, "enable_x64") else jax.enable_x64(True)


def test_random_keys_keep_their_generator(file: str) -> None:
    """Typed keys of every generator, one or many, give the same numbers afterwards; bare words too."""
    state = {
        "one": jax.random.key(3),
        "many": jax.random.split(jax.random.key(4), (2, 3)),
        "rbg": jax.random.key(5, impl="rbg"),
        "words": jax.random.PRNGKey(6),
    }
    tk.save(state, file)
    fresh = {
        "one": jax.random.key(0),
        "many": jax.random.split(jax.random.key(0), (2, 3)),
        "rbg": jax.random.key(0, impl="rbg"),
        "words": jax.random.PRNGKey(0),
    }
    for loaded in (tk.load(file), tk.load(file, into=fresh), tk.load(file, into=jax.eval_shape(lambda: state))):
        assert_same(loaded, state)
        assert jax.random.normal(loaded["one"], (3,)).tolist() == jax.random.normal(state["one"], (3,)).tolist()
    assert tk.load(file, framework="numpy")["one"].tolist() == jax.random.key_data(state["one"]).tolist()
    with pytest.raises(tk.MismatchError, match="keys of rbg"):
        tk.load(file, into={**fresh, "rbg": jax.random.key(0)})


def test_any_container_that_jax_knows_comes_back_as_the_targets(file: str) -> None:
    """Registered dataclasses, classes with and without names, named tuples, empty containers and None; what is static stays."""

    def make(number: int) -> dict[str, Any]:
        return {
            "trained": Trained({"w": jnp.full(3, float(number))}, number, f"name {number}"),
            "pair": Pair(jnp.full(2, number), [jnp.full((), number), None], f"label {number}"),
            "unnamed": Unnamed(jnp.full(2, number), Pair(number, Point(jnp.full(1, number), ()))),
            "ordered": OrderedDict(b=jnp.full(1, number), a=[]),
            "partial": jax.tree_util.Partial(max, jnp.full(1, number)),
            "none": None,
            "empty": ({}, [], ()),
        }

    tk.save(make(1), file)
    assert {"trained.weights.w", "pair.left", "pair.right.0", "unnamed.0", "unnamed.1.right.x"} <= set(tk.open(file).tensors)
    loaded = tk.load(file, into=make(2))
    assert type(loaded["trained"]) is Trained and loaded["trained"].name == "name 2" and loaded["trained"].step == 1
    assert type(loaded["pair"]) is Pair and loaded["pair"].label == "label 2" and loaded["pair"].right[1] is None
    assert type(loaded["unnamed"].children[1].right) is Point
    for found, wanted in zip(jax.tree.leaves(loaded), jax.tree.leaves(make(1)), strict=True):
        assert_same(found, wanted)
    plain = tk.load(file)
    assert plain["trained"] == {"weights": {"w": plain["trained"]["weights"]["w"]}, "step": 1}
    assert type(tk.load(file, types=(Trained,))["trained"]) is Trained


def test_a_target_is_never_changed(file: str) -> None:
    """Arrays of JAX never change, nor does what holds them: the answer is new."""
    target = {"pair": Pair(jnp.zeros(2), jnp.ones(2)), "x": jnp.zeros(3)}
    tk.save({"pair": Pair(jnp.full(2, 7.0), jnp.full(2, 8.0)), "x": jnp.full(3, 9.0)}, file)
    loaded = tk.load(file, into=target)
    assert loaded["pair"] is not target["pair"] and loaded["pair"].left.tolist() == [7, 7] and loaded["x"].tolist() == [9, 9, 9]
    assert target["pair"].left.tolist() == [0, 0] and target["x"].tolist() == [0, 0, 0]


def test_a_target_may_be_abstract_donated_or_one_array_in_many_places(file: str) -> None:
    """Only its shapes, dtypes and devices count."""
    state = {"a": jnp.arange(3.0), "b": jnp.ones(3)}
    tk.save(state, file)
    once = jnp.zeros(3)
    gone = jnp.zeros(3)
    gone.delete()
    for target in ({"a": once, "b": once}, {"a": gone, "b": gone}, jax.eval_shape(lambda: state)):
        assert_same(tk.load(file, into=target), state)
    key = jax.random.key(0)
    jax.random.key_data(key)
    key.delete()
    tk.save({"key": jax.random.key(5)}, file)
    assert_same(tk.load(file, into={"key": key})["key"], jax.random.key(5))


def test_the_same_array_in_two_places_stands_in_the_file_once(file: str) -> None:
    """As for every framework's ties."""
    array = jnp.arange(1000.0)
    tk.save({"a": array, "b": Pair(array, 0)}, file)
    assert len(tk.open(file).tensors) == 1 and Path(file).stat().st_size < 8000
    loaded = tk.load(file)
    assert loaded["a"] is loaded["b"]["left"]


def test_what_is_weakly_typed_stays_so(file: str) -> None:
    """Counters made of Python's numbers are weakly typed: with another type, a compiled step would be compiled anew."""
    state = {"count": jnp.asarray(3), "rate": jax.jit(lambda: 0.5)(), "many": jnp.broadcast_to(jnp.asarray(1.0), 4), "strong": jnp.int32(3)}
    assert [array.weak_type for array in state.values()] == [True, True, True, False]
    tk.save(state, file)
    assert_same(tk.load(file, into=jax.tree.map(jnp.zeros_like, state)), state)
    shapes = jax.eval_shape(lambda: state)
    if hasattr(shapes["count"], "weak_type"):  # older releases do not tell
        assert_same(tk.load(file, into=shapes), state)


def test_a_number_and_an_array_of_one_number_go_into_each_other(file: str) -> None:
    """A training's step is Python's 0 at first, and an array after the first compiled step."""
    tk.save({"step": 0, "later": jnp.asarray(5)}, file)
    loaded = tk.load(file, into={"step": jnp.asarray(7), "later": 0})
    assert loaded["step"] == 0 and type(loaded["step"]) is int and loaded["later"] == 5


def test_dtypes_are_cast_only_when_asked(file: str) -> None:
    """As for every framework, and what changed is counted."""
    tk.save({"x": jnp.asarray([1.0, 1 + 2**-20])}, file)
    target = {"x": jnp.zeros(2, jnp.bfloat16)}
    with pytest.raises(tk.MismatchError, match="cast=True"):
        tk.load(file, into=target)
    with pytest.warns(tk.TensorkeepWarning, match="1 of 2"):
        assert_same(tk.load(file, into=target, cast=True)["x"], jnp.ones(2, jnp.bfloat16))
    with pytest.raises(tk.MismatchError, match=r"\[2\].*\[3\]"):
        tk.load(file, into={"x": jnp.zeros(3)})


def test_only_and_strict_keep_what_the_target_has(file: str) -> None:
    """What was not loaded is the target's."""
    tk.save({"pair": Pair(jnp.ones(2), jnp.ones(2))}, file)
    assert [array.tolist() for array in jax.tree.leaves(tk.load(file, into={"pair": Pair(jnp.zeros(2), jnp.zeros(2))}, only="*.left"))] == [
        [1, 1],
        [0, 0],
    ]
    with pytest.raises(tk.MismatchError, match=r"pair\.right +file: F32\[2\] +target: a list"):
        tk.load(file, into={"pair": Pair(jnp.zeros(2), [jnp.zeros(2), jnp.ones(1)])})
    tk.save({"pair": {"left": jnp.ones(2), "right": jnp.ones(2), "more": jnp.ones(1)}}, file)
    with pytest.raises(tk.MismatchError, match=r"pair\.more"):
        tk.load(file, into={"pair": Pair(jnp.zeros(2), jnp.zeros(2))})
    with pytest.warns(tk.TensorkeepWarning, match=r"pair\.more"):
        assert tk.load(file, into={"pair": Pair(jnp.zeros(2), 0)}, strict=False)["pair"].left.tolist() == [1, 1]


def test_a_container_that_refuses_leaves_everything_as_it_was(file: str) -> None:
    """Its own code runs before anything is changed elsewhere."""
    tk.save({"array": np.ones(3), "unnamed": Unnamed(jnp.ones(2), 1)}, file)
    with tk.open(file) as contents:
        tk.save({"array": contents.tensors["array"], "unnamed": [jnp.ones(2), "a text"]}, file.replace("state", "other"))
    array = np.zeros(3)
    with pytest.raises(tk.MismatchError, match="no texts"):
        tk.load(file.replace("state", "other"), into={"array": array, "unnamed": Unnamed(jnp.zeros(2), 0)})
    assert array.tolist() == [0, 0, 0]


def test_what_has_no_values_is_refused_by_name(file: str) -> None:
    """Traced values, donated arrays, shapes alone, and functions."""
    gone = jnp.zeros(3)
    gone.delete()
    for value, reason in ((gone, "deleted"), (jax.ShapeDtypeStruct((2,), jnp.float32), "no values"), (jax.nn.relu, "")):
        with pytest.raises(tk.UnsupportedError, match=rf"a\.b.*{reason}"):
            tk.save({"a": {"b": value}}, file)
    with pytest.raises(tk.UnsupportedError, match=r"outside of jit"):
        jax.jit(lambda x: tk.save({"x": x}, file))(1.0)


def test_loaded_arrays_do_not_share_memory_with_the_file(file: str) -> None:
    """JAX takes aligned memory of NumPy over as it is: what is loaded stays what it was even if the file is written to."""
    array = jnp.arange(100_000.0)
    tk.save({"x": array}, file)
    loaded, filled = tk.load(file)["x"], tk.load(file, into={"x": array})["x"]
    with open(file, "r+b") as stream:
        stream.seek(1000)
        stream.write(b"\xff" * 300_000)
    assert_same(loaded, array)
    assert_same(filled, array)


def test_loaded_arrays_share_no_memory_with_what_can_be_changed(tmp_path: Path) -> None:
    """Arrays of NumPy beside them, in the same chunk or of the same tensor, are written to, and another load goes on."""
    small, large, tied = np.arange(16, dtype=np.float32), np.arange(100_000, dtype=np.float32), np.full(70_000, 2, np.float32)
    with tk.Store(tmp_path / "run", compress="none") as store:
        state = {"jax": jnp.asarray(small), "numpy": small, "large": jnp.asarray(large), "one": tied, "other": tied}
        store.save(state, step=1, wait=True)
        target = {"jax": jnp.zeros(16), "numpy": np.zeros(16, np.float32), "large": jnp.zeros(100_000), "one": jnp.zeros(70_000)}
        loaded = store.load(into={**target, "other": np.zeros_like(tied)})
        store.load(into={**target, "other": np.zeros_like(tied)})
    loaded["numpy"][:], loaded["other"][:] = 7, 7
    for name, array in (("jax", small), ("large", large), ("one", tied)):
        assert_same(loaded[name], jnp.asarray(array))


def test_framework_and_device_are_obeyed(file: str) -> None:
    """`framework="jax"` makes arrays of JAX of anybody's tensors, and `device=` says where."""
    tk.save({"x": np.arange(3, dtype=np.float32), "text": np.array(["a", "b"]), "big": np.arange(3, dtype=">f4")}, file)
    loaded = tk.load(file, framework="jax", device="cpu:0")
    assert isinstance(loaded["x"], jax.Array) and loaded["x"].devices() == {jax.devices("cpu")[0]}
    assert isinstance(loaded["text"], np.ndarray) and loaded["big"].tolist() == [0, 1, 2]
    assert type(tk.load(file)["x"]) is np.ndarray
    assert tk.load(file, framework="jax", device=jax.devices("cpu")[0])["x"].tolist() == [0, 1, 2]
    for wrong in ("cpu:99", "nowhere"):
        with pytest.raises(ValueError, match=f"device='{wrong}'"):
            tk.load(file, framework="jax", device=wrong)


def test_mixes_with_numpy_and_plain_values(file: str) -> None:
    """One state for all: arrays of NumPy are filled in place, those of JAX are new."""
    mine = np.zeros(2)
    tk.save({"jax": jnp.ones(2), "numpy": np.full(2, 5.0), "lr": 0.1}, file)
    loaded = tk.load(file, into={"jax": jnp.zeros(2), "numpy": mine, "lr": 0})
    assert loaded["numpy"] is mine and mine.tolist() == [5, 5] and loaded["lr"] == 0.1 and loaded["jax"].tolist() == [1, 1]


def test_jax_is_imported_for_nobody(tmp_path: Path) -> None:
    """A file of JAX's arrays gives NumPy's where JAX is not imported, and saving never imports it."""
    file = tmp_path / "state.safetensors"
    tk.save({"x": jnp.ones(3), "key": jax.random.key(0), "pair": Pair(jnp.ones(1), 2)}, file)
    code = f"""
import sys, tensorkeep as tk
tree = tk.load({str(file)!r})
assert type(tree["x"]).__module__ == "numpy" and tree["key"].shape == (2,) and tree["pair"]["right"] == 2, tree
tk.save(tree, {str(file)!r})
assert "jax" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


SHARDED = """
import sys, numpy as np, jax, jax.numpy as jnp, tensorkeep as tk
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from tensorkeep.frameworks.jax import arrays
file = sys.argv[1]
devices = np.array(jax.devices())
assert len(devices) == 8
mesh, flat = Mesh(devices.reshape(4, 2), ("a", "b")), Mesh(devices, ("x",))
values = np.arange(64 * 6, dtype=np.float32).reshape(64, 6)
fetched = []
on_host = arrays._on_host
arrays._on_host = lambda data: fetched.append(data.shape) or on_host(data)
specs = {"rows": P("a"), "columns": P(None, "b"), "both": P("b", None), "everywhere": P()}
state = {name: jax.device_put(values, NamedSharding(mesh, spec)) for name, spec in specs.items()}
state["keys"] = jax.device_put(jax.random.split(jax.random.key(1), 8), NamedSharding(flat, P("x")))
state["four"] = jax.device_put(jnp.asarray(values).astype(jnp.bfloat16), NamedSharding(mesh, P(("a", "b"))))
tk.save(state, file)
assert sorted(fetched) == sorted([(16, 6)] * 4 + [(64, 3)] * 2 + [(32, 6)] * 2 + [(8, 6)] * 8 + [(1, 2)] * 8), fetched
with tk.open(file) as contents:
    assert sum(tensor.nbytes for tensor in contents.tensors.values()) == 4 * values.nbytes + values.nbytes // 2 + 64
others = {name: NamedSharding(flat, P("x")) for name in state}
others |= {"columns": NamedSharding(mesh, P("b")), "everywhere": NamedSharding(mesh, P("a", "b"))}
one = jax.sharding.SingleDeviceSharding(devices[3])
others["rows"] = one
bounded = {name: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=others[name]) for name, array in state.items()}
pieces = []
owned = arrays._owned
arrays._owned = lambda array, platform: pieces.append(array.shape) or owned(array, platform)
for loaded in (tk.load(file, into=state), tk.load(file, into=bounded)):
    for name, array in loaded.items():
        words = jax.random.key_data if name == "keys" else np.asarray
        assert np.asarray(words(array)).tobytes() == np.asarray(words(state[name])).tobytes(), name
    sharding = {name: array.sharding for name, array in loaded.items()}
assert sharding["rows"] == one and sharding["columns"] == others["columns"] and sharding["everywhere"].spec == P("a", "b"), sharding
assert sharding["keys"].is_equivalent_to(others["keys"], 1) and loaded["everywhere"].addressable_shards[0].data.shape == (16, 3)
assert pieces.count((64, 6)) == 1, pieces  # the replicated one; one that is to lie whole on one device is taken over as it was read
assert pieces.count((16, 3)) == 8 and pieces.count((8, 6)) == 8 + 16, pieces
counted = {"w": state["both"], "count": jnp.zeros((), jnp.int32)}  # which nobody placed
tk.save(counted, file)
abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), counted)
again = jax.jit(lambda state: state["w"] + state["count"])(tk.load(file, into=abstract))
assert again.sharding.is_equivalent_to(state["both"].sharding, 2)
tk.save(state, file)
assert tk.load(file, device="cpu:5")["both"].devices() == {devices[5]}
assert np.asarray(tk.load(file)["rows"]).tobytes() == values.tobytes()
"""


def test_shards_are_saved_once_and_come_back_under_another_sharding(tmp_path: Path) -> None:
    """Over 8 devices: every part is fetched from one of the devices that have it, and each device gets no more than its own."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, str(tmp_path / "s.safetensors")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]

"""Round trips: whatever is saved comes back bit for bit."""

import argparse
import collections
import dataclasses
import functools
import io
import random
import types
import warnings
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Generic, TypeVar

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings

import tensorkeep as tk
from same import assert_same_bits
from strategies import states
from warned import warned


@settings(max_examples=150)
@given(states())
@example({"keys are not only strings": {0: (), None: np.float32(-0.0)}})
@example({"": np.zeros(2), "__metadata__": np.zeros(3), "\ud800": np.ones(1), "a.b": np.ones(2), "a": {"b": np.ones(3)}})
@example([1.5] * 1001)
@example(tuple(range(1001)))
@example([True] * 1001)
@example([2**70] * 1001)
@example([1, 2.0] * 501)
@example("é" * 40_000)
@example(b"x" * 70_000)
def test_any_state_comes_back_bit_for_bit(state: object) -> None:
    """Any generated state is the same after dumps and loads, in every bit, type, dtype and tie."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tk.TensorkeepWarning)
        data = tk.dumps(state)
    assert_same_bits(tk.loads(data), state)


@given(states())
@settings(max_examples=60)
def test_equal_states_give_equal_files(state: object) -> None:
    """Saving twice gives the same bytes: no time, host or order of a set is in the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tk.TensorkeepWarning)
        assert tk.dumps(state) == tk.dumps(state)


@pytest.mark.parametrize("mmap", [None, True, False])
@pytest.mark.parametrize("durable", [True, False])
def test_a_file_holds_what_dumps_gives(tmp_path: Path, mmap: bool | None, durable: bool) -> None:
    """File and bytes are the same, and each way of reading gives the same."""
    state = {"small": np.arange(5.0), "large": np.random.default_rng(0).standard_normal((700, 1000)), "odd": np.arange(7, dtype=np.int8)}
    path = tmp_path / "state.safetensors"
    tk.save(state, path, durable=durable)
    assert path.read_bytes() == tk.dumps(state)
    loaded = tk.load(path, mmap=mmap)
    assert_same_bits(loaded, state)
    loaded["large"] += 1  # copied when written to
    assert_same_bits(tk.load(path), state)


def test_tied_tensors_stay_tied_and_are_stored_once(tmp_path: Path) -> None:
    """One array at three places is one tensor in the file and one object after loading; so is a view of all of it."""
    array = np.random.default_rng(0).standard_normal((300, 400))
    state = {"a": array, "b": [array], "view": array[:]}
    tk.save(state, tmp_path / "tied.safetensors")
    loaded = tk.load(tmp_path / "tied.safetensors")
    assert loaded["a"] is loaded["b"][0] is loaded["view"]
    assert (tmp_path / "tied.safetensors").stat().st_size < array.nbytes + 2000


def test_other_views_are_stored_apart_and_save_says_so_once() -> None:
    """Overlapping views come back apart, after one warning."""
    array = np.arange(10.0)
    with pytest.warns(tk.TensorkeepWarning, match="overlapping") as caught:
        loaded = tk.loads(tk.dumps({"a": array[:6], "b": array[4:], "c": array[2:8]}))
    assert len(warned(caught)) == 1
    assert_same_bits(loaded["b"], array[4:].copy())
    loaded["a"][:] = 0
    assert loaded["b"][0] == 4


def test_neighbouring_views_are_no_reason_to_warn() -> None:
    """Parts of one memory that do not overlap are saved in silence."""
    array = np.arange(10.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tk.dumps({"a": array[:5], "b": array[5:]})


@dataclasses.dataclass
class Point:
    x: float
    y: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    w: Any
    extra: int = dataclasses.field(default=7)


Pair = namedtuple("Pair", "left right")


def test_records_come_back_by_types_only() -> None:
    """A dataclass or named tuple is a dict or tuple without `types=`, and itself with it, frozen or not."""
    state = {"p": Point(1.0, np.arange(3)), "f": Frozen(np.ones(2)), "t": Pair(1, (2, 3))}
    data = tk.dumps(state)
    without = tk.loads(data)
    assert_same_bits(without, {"p": {"x": 1.0, "y": np.arange(3)}, "f": {"w": np.ones(2), "extra": 7}, "t": (1, (2, 3))})
    assert_same_bits(tk.loads(data, types=(Point, Frozen, Pair)), state)


def test_a_record_that_is_no_longer_the_same_is_refused() -> None:
    """Fields that the class lacks, or lacks a default for, are an error that names them."""
    changed = dataclasses.make_dataclass("Point", [("x", float), ("z", int)])
    with pytest.raises(tk.FormatError, match="'y'"):
        tk.loads(tk.dumps(Point(1.0)), types=(changed,))


def test_bags_and_special_dicts_come_back_as_themselves() -> None:
    """Namespaces, ordered dicts and default dicts keep their class."""
    state = [argparse.Namespace(lr=0.1), types.SimpleNamespace(a=np.ones(1)), OrderedDict(z=1, a=2), defaultdict(int, a=1)]
    assert_same_bits(tk.loads(tk.dumps(state)), state)


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64, np.random.PCG64DXSM])
def test_generators_go_on_where_they_stood(bits: type) -> None:
    """NumPy's generators, and Python's, give the same numbers after a round trip, new or in place."""
    generator, python = np.random.Generator(bits(3)), random.Random(5)
    generator.standard_normal(7), python.random()
    data = tk.dumps({"numpy": generator, "python": python, "old": np.random.RandomState(1)})
    fresh = tk.loads(data)
    target = {"numpy": np.random.Generator(bits(9)), "python": random.Random(9)}
    restored = tk.loads(data, into=target)
    assert restored["numpy"] is target["numpy"]
    wanted = generator.standard_normal(5).tolist(), python.random()
    for state in (fresh, restored):
        assert (state["numpy"].standard_normal(5).tolist(), state["python"].random()) == wanted


GENERATORS: dict[str, Callable[[], Any]] = {
    "Random": lambda: random.Random(1),
    "PCG64": lambda: np.random.default_rng(1),
    "MT19937": lambda: np.random.Generator(np.random.MT19937(1)),
    "SFC64": lambda: np.random.SFC64(1),
    "RandomState": lambda: np.random.RandomState(1),
    "number": lambda: 3,
    "list": lambda: [1, 2, 3],
}


@pytest.mark.parametrize("wanted", [name for name in GENERATORS if name not in ("number", "list")])
def test_a_generator_of_another_kind_is_a_mismatch_and_no_damage(wanted: str) -> None:
    """It is named by its path, nothing is changed, and a store does not take the checkpoint for damaged."""
    target, before = GENERATORS[wanted](), GENERATORS[wanted]()
    for saved in GENERATORS:
        if {saved, wanted} not in ({wanted}, {"MT19937", "RandomState"}):
            with pytest.raises(tk.MismatchError) as caught:
                tk.loads(tk.dumps({"rng": {"a": GENERATORS[saved]()}}), into={"rng": {"a": target}})
            assert caught.value.report.problems[0].path == "rng.a"
    assert tk.dumps(target) == tk.dumps(before)


def test_an_old_generator_that_numpy_cannot_set_is_refused() -> None:
    """Its file could not be loaded: NumPy takes states of the Mersenne Twister alone for it."""
    with pytest.raises(tk.UnsupportedError, match=r"rng: a RandomState over PCG64"):
        tk.dumps({"rng": np.random.RandomState(np.random.PCG64(1))})


@pytest.mark.parametrize("entropy", [7, 2**100, [1, 2, 2**40]])
def test_generators_spawn_the_same_children(entropy: Any) -> None:
    """What seeded a generator, and how many it has spawned, comes back too."""
    generator = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(3,)))
    generator.spawn(2)
    data = tk.dumps({"rng": generator})
    fresh, filled = tk.loads(data)["rng"], tk.loads(data, into={"rng": np.random.default_rng()})["rng"]
    wanted = [child.random() for child in generator.spawn(3)]
    assert [child.random() for child in fresh.spawn(3)] == wanted
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":  # one that is there got no other seed before
        assert [child.random() for child in filled.spawn(3)] == wanted


@pytest.mark.parametrize(
    "harm", [{"pool_size": 2**40}, {"n_children_spawned": -1}, {"entropy": "x"}, {"spawn_key": [1.5]}, {"entropy": -1}]
)
def test_a_seed_that_is_none_is_refused(harm: dict[str, Any]) -> None:
    """Before NumPy makes room for it."""
    with tk.open(io.BytesIO(tk.dumps(np.random.default_rng(1)))) as contents:
        contents.tree.state["seed_seq"].update(harm)
        data = tk.dumps(contents.tree)
    with pytest.raises(tk.FormatError, match="PCG64"):
        tk.loads(data)


@pytest.mark.parametrize("name", ["float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn", "float8_e4m3fn", "float8_e8m0fnu", "bfloat16", "int4"])
@pytest.mark.parametrize("count", [0, 1, 5, 8, 70_001])
def test_narrow_types_of_every_size(name: str, count: int) -> None:
    """Types below 16 bits come back whatever their count, packed or not."""
    dtype = np.dtype(getattr(ml_dtypes, name))
    array = (np.arange(count) % 2).astype(np.int8).astype(dtype)
    assert_same_bits(tk.loads(tk.dumps(array)), array)


def test_f4_is_packed_two_to_a_byte_the_even_index_low() -> None:
    """The layout of 4-bit floats is the one that the format names."""
    array = np.array([0.5, 1.0, 1.5, 6.0], ml_dtypes.float4_e2m1fn)
    raw = array.view(np.uint8)
    assert tk.dumps(array)[-2:] == bytes([raw[0] | raw[1] << 4, raw[2] | raw[3] << 4])


def test_two_hundred_thousand_tensors(tmp_path: Path) -> None:
    """So many tensors are no problem for a file."""
    state = {f"block.{number}.weight": np.full(3, number, np.float32) for number in range(200_000)}
    tk.save(state, tmp_path / "many.safetensors", durable=False)
    loaded = tk.load(tmp_path / "many.safetensors")
    assert list(loaded) == list(state)
    assert loaded["block.199999.weight"].tolist() == [199_999.0] * 3
    assert tk.verify(tmp_path / "many.safetensors").intact


UNKEEPABLE = {
    "code": (lambda: 1, "code"),
    "a class": (dict, "code"),
    "a module": (np, "no adapter knows"),
    "an object array": (np.array([object()]), "Python objects"),
    "long double": (np.ones(2, np.longdouble), "machine to machine"),
    "a masked array": (np.ma.array([1, 2], mask=[0, 1]), "more than an array"),
    "a subclass of dict": (type("Mine", (dict,), {})(a=1), "kind of dict"),
    "a defaultdict of code": (defaultdict(lambda: 1), "code"),
    "a generator": ((i for i in range(3)), "no adapter knows"),
}
if hasattr(np.dtypes, "StringDType"):  # not in NumPy 1.26
    UNKEEPABLE["strings of variable width"] = (np.array(["a"], dtype=np.dtypes.StringDType()), "variable width")


@pytest.mark.parametrize("what", UNKEEPABLE)
def test_what_cannot_be_kept_is_an_error_that_names_its_path(tmp_path: Path, what: str) -> None:
    """Nothing is dropped in silence, and nothing is written."""
    value, reason = UNKEEPABLE[what]
    with pytest.raises(tk.UnsupportedError, match=reason) as caught:
        tk.save({"net": [1, {"bad": value}]}, tmp_path / "x.safetensors")
    assert caught.value.path == "net.1.bad"
    assert isinstance(caught.value, TypeError)
    assert list(tmp_path.iterdir()) == []


def test_an_open_file_cannot_be_kept(tmp_path: Path) -> None:
    """Neither can an open file."""
    with (tmp_path / "f").open("w") as handle, pytest.raises(tk.UnsupportedError, match="f"):
        tk.dumps({"f": handle})


def test_a_state_that_holds_itself_is_refused() -> None:
    """A cycle is an error that names the path."""
    state: dict[str, Any] = {"a": []}
    state["a"].append(state)
    with pytest.raises(tk.UnsupportedError, match=r"a\.0.*holds itself"):
        tk.dumps(state)


def test_too_deep_a_state_is_refused_before_it_is_written() -> None:
    """What no reader would take is not written."""
    state: Any = 1
    for _ in range(250):
        state = [state]
    with pytest.raises(tk.UnsupportedError, match="deep"):
        tk.dumps(state)


def test_metadata_stand_where_other_tools_look() -> None:
    """Texts stand in __metadata__ itself, all else in the document, however long; both come back; two keys are taken."""
    long = {"scores": [0.5] * 5000, "text": ["x" * 70_000], "bytes": b"y" * 70_000}
    with tk.open(BytesIO(tk.dumps(1, metadata=long))) as contents:
        assert contents.metadata == long and not contents.tensors
    data = tk.dumps({"w": np.ones(1)}, metadata={"note": "hi", "epoch": 3, "nested": {"a": (1, None)}, "format": "np"})
    with tk.open(BytesIO(data)) as contents:
        assert contents.metadata == {"note": "hi", "epoch": 3, "nested": {"a": (1, None)}}
    assert b'"note":"hi"' in data
    assert b'"format":"np"' in data
    with pytest.raises(tk.UnsupportedError, match="tensorkeep"):
        tk.dumps(1, metadata={"tensorkeep": "x"})
    with pytest.raises(tk.UnsupportedError, match="ndarray"):
        tk.dumps(1, metadata={"w": np.ones(3)})


def test_arrays_that_live_for_a_moment_are_not_taken_for_others() -> None:
    """Objects that make a new view at each call are saved with their own values, though memory and ids come again."""

    class Holder:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def state_dict(self) -> dict[str, np.ndarray]:
            return {"w": self.array[:]}

        def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
            self.array[:] = state["w"]

    arrays = [np.full(4, number) for number in range(50)]
    holders = [Holder(arrays[number]) for number in range(50) for _ in range(2)]
    assert [part["w"].tolist() for part in tk.loads(tk.dumps(holders))] == [holder.array.tolist() for holder in holders]


def _nested(key: object, depth: int) -> object:
    for _ in range(depth):
        key = (key,)
    return key


BEYOND: dict[str, Any] = {
    **({"more dimensions than stored": lambda: np.zeros((1,) * 64, complex)} if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else {}),
    "a key too deep": lambda: {_nested(1, 201): 1},
    "a set's item too deep": lambda: {_nested(1, 201)},
    "keys of one hash": lambda: {number * (2**61 - 1): number for number in range(1, 70)},
    "items of one hash": lambda: {number * (2**61 - 1) for number in range(1, 70)},
    "more values than a file may hold": lambda: [[0, True]] * 600,
    "longer paths": lambda: {"k" * 200_000: [None, True] * 2000},
}


@pytest.mark.parametrize("what", BEYOND)
def test_what_a_reader_would_refuse_is_refused_at_save(what: str) -> None:
    """No state is saved that could not be loaded with the same limits."""
    limits = tk.Limits(values=1000) if what.startswith("more values") else None
    with pytest.raises(tk.UnsupportedError):
        tk.dumps({"x": BEYOND[what]()}, limits=limits)


def test_scalar_texts_keep_their_last_zeros() -> None:
    """Which NumPy takes off the elements of arrays alone."""
    state = [np.str_("a\0"), np.bytes_(b"a\0"), {np.str_("k\0"): 1, np.str_("k"): 2}]
    assert_same_bits(tk.loads(tk.dumps(state)), state)


@dataclasses.dataclass
class Queue(collections.deque):  # type: ignore[type-arg]
    w: float = 1.0


@dataclasses.dataclass
class Text(str):
    w: float = 1.0


class Named(collections.namedtuple("Named", "x y")):
    pass


class Slotted:
    __slots__ = ("hidden",)


@dataclasses.dataclass
class Below(Slotted):
    w: float = 1.0


class Hiding:
    __slots__ = ("__hidden",)


@dataclasses.dataclass
class Private(Hiding):
    w: float = 1.0


T = TypeVar("T")


@dataclasses.dataclass
class Box(Generic[T]):
    x: T


@dataclasses.dataclass
class Squared:
    x: int

    @functools.cached_property
    def square(self) -> int:
        return self.x * self.x


def test_records_lose_nothing_silently() -> None:
    """What an object holds beside its fields is an error that names it, not lost."""
    named, below, ordered = Named(1, 2), Below(), collections.OrderedDict(a=1)
    named.extra, below.hidden, ordered.note = 5, 6, "x"  # type: ignore[attr-defined]
    for value, said in ((Queue(), "deque"), (Text(), "str"), (named, "x.extra"), (below, "x.hidden"), (ordered, "x.note")):
        with pytest.raises(tk.UnsupportedError, match=said):
            tk.dumps({"x": value})
    assert tk.loads(tk.dumps(Below())) == {"w": 1.0}
    private = Private()
    private._Hiding__hidden = 1  # type: ignore[attr-defined]
    with pytest.raises(tk.UnsupportedError, match="__hidden"):
        tk.dumps(private)


def test_records_may_have_what_python_gives_them() -> None:
    """The mark of a generic class, and values that are made from the fields, are nobody's content."""
    box, squared = Box[int](1), Squared(3)
    assert squared.square == 9
    assert tk.loads(tk.dumps([box, squared]), types=(Box, Squared)) == [box, squared]


def test_states_of_every_allowed_depth_come_back_from_deep_inside() -> None:
    """Whatever the containers are: a reader called from hundreds of functions down follows as far as a writer."""

    def inside(calls: int, state: object) -> object:
        return inside(calls - 1, state) if calls else tk.loads(tk.dumps(state))

    wraps: list[Any] = [lambda s: {"k": s}, lambda s: [s], lambda s: (s,), lambda s: OrderedDict(k=s), lambda s: {1: [s]}]
    for wrap in wraps:
        state: Any = 0.5
        for _ in range(tk.Limits().depth // (2 if wrap is wraps[-1] else 1)):
            state = wrap(state)
        assert inside(350, state) == state


def test_parts_of_an_opened_file_are_saved_as_they_are(tmp_path: Path) -> None:
    """From file to file, at several places, with its long values and its ties; the opened file stays as it was."""
    w = np.ones(3)
    state = {"p": [0.5] * 2000, "t": "x" * 70_000, "w": w, "n": argparse.Namespace(w=w)}
    tk.save(state, tmp_path / "s.safetensors")
    with tk.open(tmp_path / "s.safetensors") as opened:
        names = list(opened.tensors)
        assert tk.dumps(opened.tree) == (tmp_path / "s.safetensors").read_bytes()
        twice = tk.loads(tk.dumps({"a": opened.tree, "b": [opened.tree]}))
        assert [tensor.name for tensor in opened.tensors.values()] == names
    assert twice["a"]["w"] is twice["a"]["n"].w
    assert twice["a"]["p"] == twice["b"][0]["p"] == state["p"] and twice["b"][0]["t"] == state["t"]

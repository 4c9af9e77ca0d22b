"""PyTorch's rarer tensors and generators: what cannot be kept or filled is said in our words, before anything is changed."""

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from craft import model_file
from refusing import Refuses

torch = pytest.importorskip("torch")
nn = torch.nn
pytestmark = pytest.mark.filterwarnings("ignore:.*(beta state|prototype).*:UserWarning")

LAYOUTS = {
    "coo": lambda dense: dense.to_sparse_coo(),
    "csr": lambda dense: dense.to_sparse_csr(),
    "csc": lambda dense: dense.to_sparse_csc(),
    "bsr": lambda dense: dense.to_sparse_bsr((2, 2)),
    "bsc": lambda dense: dense.to_sparse_bsc((2, 2)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sparse_tensors_are_filled_however_many_values_they_have(layout: str) -> None:
    """The file's tensor has fewer or more values than the target's."""
    few, many = torch.eye(4), torch.arange(16.0).reshape(4, 4)
    for saved, own in ((few, many), (many, few)):
        target = LAYOUTS[layout](own)
        assert tk.loads(tk.dumps({"x": LAYOUTS[layout](saved)}), into={"x": target})["x"] is target
        assert torch.equal(target.to_dense(), saved)


@dataclasses.dataclass
class Two:
    """Two arrays."""

    one: Any
    two: Any


class Refusing:
    """Takes no state, so everything before it is put back."""

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        raise RuntimeError("not this one")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sparse_tensors_get_their_former_values_back(layout: str) -> None:
    """When a later object refuses its state."""
    target = LAYOUTS[layout](torch.eye(4))
    data = tk.dumps({"x": LAYOUTS[layout](torch.ones(4, 4)), "y": Refusing()})
    with pytest.raises(tk.MismatchError, match="not this one"):
        tk.loads(data, into={"x": target, "y": Refusing()})
    assert torch.equal(target.to_dense(), torch.eye(4))


MISFITS = {
    "dense": (lambda x: x, LAYOUTS["csr"], r"file: F32\[4,4\] +target: a sparse_csr tensor F32\[4,4\]"),
    "layout": (LAYOUTS["coo"], LAYOUTS["csr"], r"file: a sparse_coo tensor +target: a sparse_csr tensor F32\[4,4\]"),
    "compression": (LAYOUTS["csr"], LAYOUTS["csc"], r"file: a sparse_csr tensor +target: a sparse_csc tensor"),
    "shape": (LAYOUTS["csr"], lambda x: x[:2].to_sparse_csr(), r"file: \[4, 4\] +target: \[2, 4\]"),
    "blocks": (LAYOUTS["bsr"], lambda x: x.to_sparse_bsr((1, 1)), r"file: \[2, 2\] for each value +target: \[1, 1\]"),
    "object": (lambda x: nn.Linear(1, 1), LAYOUTS["coo"], r"file: a OrderedDict of 2 +target: a sparse_coo tensor"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_a_sparse_tensor_is_reported(case: str) -> None:
    """Layout, shape and blocks, in the words used for dense tensors; an intact file is never accused."""
    saved, own, sentence = MISFITS[case]
    target = own(torch.eye(4))
    before = target.to_dense()
    with pytest.raises(tk.MismatchError, match=sentence):
        tk.loads(tk.dumps({"x": saved(torch.eye(4))}), into={"x": target})
    assert torch.equal(target.to_dense(), before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sparse_tensors_are_converted_only_with_cast(layout: str) -> None:
    """As dense ones are."""
    data = tk.dumps({"x": LAYOUTS[layout](torch.eye(4, dtype=torch.float64) / 3)})
    target = LAYOUTS[layout](torch.eye(4))
    with pytest.raises(tk.MismatchError, match=r"file: F64 +target: F32 +\(cast=True"):
        tk.loads(data, into={"x": target})
    with pytest.warns(tk.TensorkeepWarning, match="x: F64 became F32, "):
        tk.loads(data, into={"x": target}, cast=True)
    assert torch.equal(target.to_dense(), torch.eye(4) / 3)


def test_a_part_of_a_sparse_tensor_is_not_taken() -> None:
    """Its indices and values belong together."""
    target = LAYOUTS["coo"](torch.eye(4))
    with pytest.raises(tk.MismatchError, match="a sparse_coo tensor"):
        tk.loads(tk.dumps({"x": LAYOUTS["coo"](torch.ones(4, 4))}), into={"x": target}, only="x.values")
    assert torch.equal(target.to_dense(), torch.eye(4))


class Odd(torch.Tensor):
    """A subclass of which a part is asked for that it does not have."""

    @staticmethod
    def __new__(cls) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, (2,))

    def __tensor_flatten__(self) -> Any:
        raise KeyError("inner")

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError(function)


def _pair() -> Any:
    return torch.zeros(1, dtype=torch.uint8).view(torch.float4_e2m1fn_x2).reshape(())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), r"x\.y: a nested tensor\n.*unbind"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), r"x\.y: a nested tensor\n.*unbind"),
        (Odd, r"x\.y: a Odd that cannot be taken apart: KeyError"),
        (lambda: torch.empty(3, dtype=torch.bits8), r"x\.y: a tensor of torch\.bits8\n.*Pass tensor\.view\(torch\.uint8\)"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), r"x\.y: a tensor of torch\.qint8\n.*int_repr"),
        (_pair, r"x\.y: .*without dimensions\n.*reshape\(1\)"),
    ],
    ids=["nested", "jagged", "subclass", "bits", "quantized", "no dimensions"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_cannot_be_kept_say_where_and_what_to_do(make: Any, sentence: str) -> None:
    """The path, the reason and a way out, instead of an error from inside PyTorch."""
    if make is _pair and not hasattr(torch, "float4_e2m1fn_x2"):
        pytest.skip("this PyTorch has no float4_e2m1fn_x2")
    with pytest.raises(tk.UnsupportedError, match=sentence):
        tk.dumps({"x": {"y": make()}})


@pytest.mark.parametrize("left", [0, 40], ids=["nothing left", "too little left"])
@pytest.mark.parametrize("view", [lambda t: t, lambda t: t[5:], lambda t: t[::3]], ids=["whole", "rest", "strided"])
def test_memory_that_was_released_is_neither_read_nor_written(left: int, view: Any) -> None:
    """FSDP and offloaders free the storage of tensors that stay: what lies there now belongs to others."""
    data = tk.dumps({"x": torch.ones(view(torch.empty(20_000)).shape)})
    whole = torch.ones(20_000)
    tensor = view(whole)
    whole.untyped_storage().resize_(left)  # in bytes
    with pytest.raises(tk.UnsupportedError, match="x: a tensor whose memory was released"):
        tk.dumps({"x": tensor})
    with pytest.raises(tk.MismatchError, match="a tensor whose memory was released"):
        tk.loads(data, into={"x": tensor})


def test_a_generator_of_a_device_that_is_not_here_comes_as_its_state() -> None:
    """The rest of the file loads all the same."""
    state = torch.arange(16, dtype=torch.uint8)

    class Elsewhere(torch.Generator):
        device = torch.device("privateuseone", 3)  # no such backend is registered

        def get_state(self) -> Any:
            return state

    found = tk.loads(tk.dumps({"g": Elsewhere(), "x": torch.ones(2)}))
    assert torch.equal(found["g"], state)
    assert torch.equal(found["x"], torch.ones(2))


def test_generators_are_filled_whatever_the_default_device_is() -> None:
    """Inside `with torch.device("meta")` nothing of a generator's state may become a meta tensor."""
    saved, target = torch.Generator().manual_seed(5), torch.Generator()
    with torch.device("meta"):
        tk.loads(tk.dumps({"g": saved}), into={"g": target})
        found = tk.loads(tk.dumps({"g": saved}))["g"]
    wanted = torch.rand(3, generator=saved)
    assert torch.equal(torch.rand(3, generator=target), wanted)
    assert torch.equal(torch.rand(3, generator=found), wanted)


def test_a_pytorch_without_buffers_as_a_class_is_enough() -> None:
    """torch.nn.Buffer came with PyTorch 2.5; 2.4 is the oldest that is supported."""
    program = """
import torch
vars(torch.nn).pop("Buffer", None)
import tensorkeep as tk
class Named(torch.nn.Parameter): ...
assert tk.loads(tk.dumps({"p": Named(torch.ones(2))}))["p"].tolist() == [1, 1]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_each_place_of_a_target_keeps_its_own_object_of_a_tie() -> None:
    """A parameter beside its model is given back as that parameter, and still there is one memory for one tensor of the file."""
    model = nn.Linear(2, 2)
    data = tk.dumps({"m": model, "w": model.weight, "v": model.weight.detach(), "again": model.weight})
    for order in ("mwv", "vwm", "wvm"):
        target = nn.Linear(2, 2)
        state = {"m": target, "w": target.weight, "v": target.weight.detach(), "again": target.weight}
        state = {name: state[name] for name in order} | state
        found = tk.loads(data, into=state)
        assert all(found[name] is value for name, value in state.items())
        assert torch.equal(target.weight, model.weight)
    one = torch.zeros(2)
    target = {"a": one, "b": one.detach()}
    differing = tk.dumps({"a": torch.ones(2), "b": torch.full((2,), 2.0)})
    with pytest.raises(tk.MismatchError, match="tied"):
        tk.loads(differing, into=target)
    assert tk.loads(tk.dumps({"a": torch.ones(2), "b": torch.ones(2)}), into=target)["b"] is target["b"]
    half = tk.loads(tk.dumps({"b": torch.full((2,), 3.0)}), into=target)  # one name of a tie is enough
    assert half["a"] is one
    assert half["b"] is target["b"]
    assert one.tolist() == [3.0, 3.0]


def test_arrays_and_fields_of_records_keep_their_own_objects_too() -> None:
    """The same for views of one NumPy array, and in a dataclass."""
    array = np.zeros(3)
    target = Two(array, array[:])
    view = target.two
    found = tk.loads(tk.dumps({"r": Two(np.ones(3), np.ones(3))}), into={"r": target})
    assert found["r"].one is array
    assert found["r"].two is view
    assert array.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("left", "place"), [(624, 624), (0, 0), (-1, 5), (2, 624), (1, 2**63)])
def test_a_generator_never_reads_beyond_its_numbers(left: int, place: int) -> None:
    """A state that says to go on beyond the block is refused: PyTorch would hand out whatever lies in memory there."""
    state = torch.Generator().get_state().numpy().copy()
    state[8:12].view(np.int32)[0], state[16:24].view(np.uint64)[0] = left, place
    node = {"object": "torch.generator", "class": "cpu", "state": {"tensor": "g"}}
    data = model_file(node, {"g": ("U8", [state.size], state.tobytes())}, framework="torch")
    with pytest.raises(tk.FormatError, match="stands at number"):
        tk.loads(data)
    target = torch.Generator()
    before = target.get_state()
    with pytest.raises(tk.MismatchError, match="no state of such a generator"):
        tk.loads(data, into=target)
    assert torch.equal(target.get_state(), before)


def test_generators_go_on_from_every_place() -> None:
    """Wherever in its block a generator stands, its state is taken and it goes on there."""
    made = torch.Generator().manual_seed(3)
    for count in (0, 1, 622, 623, 624, 625, 1248):
        made.manual_seed(3)
        if count:
            torch.empty(count, dtype=torch.int32).random_(generator=made)
        found = tk.loads(tk.dumps(made))
        assert torch.equal(torch.rand(700, generator=found), torch.rand(700, generator=made))


def test_packed_floats_are_filled_by_cast() -> None:
    """Two elements to a byte, the even one low, as in an array of such floats."""
    float4 = getattr(torch, "float4_e2m1fn_x2", None)
    if float4 is None:
        pytest.skip("this PyTorch has no float4_e2m1fn_x2")
    target = torch.zeros(2, 2, dtype=torch.uint8).view(float4)
    source = np.array([[0, 1, 2, 3], [0, 0.5, 1.5, 6]], np.float32)
    with pytest.warns(tk.TensorkeepWarning):
        tk.loads(tk.dumps({"t": source}), into={"t": target}, cast=True)
    assert target.view(torch.uint8).tolist() == [[0x20, 0x54], [0x10, 0x73]]


def test_objects_over_one_tensor_are_bounded() -> None:
    """A small file that makes many sparse tensors of the same parts is refused before it has taken seconds."""
    count = 100_000
    parts = {"indices": {"tensor": "i"}, "values": {"tensor": "v"}, "coalesced": True, "size": [count]}
    node = {"object": "torch.sparse", "class": "sparse_coo", "state": {"dict": [[key, value] for key, value in parts.items()]}}
    tensors = {"i": ("I64", [1, count], np.arange(count).tobytes()), "v": ("U8", [count], bytes(count))}
    assert len(tk.loads(model_file([node] * 5, tensors, framework="torch"))) == 5
    with pytest.raises(tk.FormatError, match="again and again"):
        tk.loads(model_file([node] * 2000, tensors, framework="torch"))


def test_a_state_hides_no_method_of_the_object_that_takes_it() -> None:
    """PyTorch's schedulers set whatever attributes a state names; a file must not replace their methods so."""

    def scheduler() -> Any:
        return torch.optim.lr_scheduler.StepLR(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), 3)

    state = scheduler().state_dict()
    target = scheduler()
    with pytest.raises(tk.MismatchError, match="hide its step"):
        tk.loads(tk.dumps({**state, "step": "gone"}), into=target)
    assert callable(target.step)

    data = tk.dumps({"s": {**state, "more": 1}, "z": Refuses()})
    with pytest.raises(tk.MismatchError, match="not this one"):
        tk.loads(data, into={"s": target, "z": Refuses(True)})
    assert not hasattr(target, "more")


@pytest.mark.parametrize("device", ["nowhere", "cuda:99"])
def test_a_device_that_is_not_here_is_named(device: str) -> None:
    """Before anything is made, whatever PyTorch raises for it."""
    with pytest.raises(ValueError, match=f"device='{device}'"):
        tk.loads(tk.dumps({"x": torch.ones(2)}), device=device)
    assert torch.equal(tk.loads(tk.dumps({"x": torch.ones(2)}), device="cpu")["x"], torch.ones(2))


@pytest.mark.parametrize("wanted", [torch.float16, torch.device("cpu"), torch.Size([2])], ids=str)
@pytest.mark.parametrize("saved", [3, "no such one", [1.5], {"a": 1}, None], ids=str)
def test_a_small_value_of_another_kind_is_a_mismatch(wanted: object, saved: object) -> None:
    """And not a file that is broken, which a store would take for damage."""
    with pytest.raises(tk.MismatchError, match=r"  x\.a  "):
        tk.loads(tk.dumps({"x": {"a": saved}}), into={"x": {"a": wanted}})
    assert tk.loads(tk.dumps({"x": {"a": wanted}}), into={"x": {"a": wanted}}) == {"x": {"a": wanted}}

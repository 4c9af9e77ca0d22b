"""PyTorch: models, optimizers, every kind of tensor, restored in place and all or nothing."""

import copy
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from warned import warned

torch = pytest.importorskip("torch")
nn = torch.nn


class Model(nn.Module):
    """Tied weights, a buffer, batch norm, and extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(10)
        self.seen = 0

    def forward(self, x: Any) -> Any:
        self.seen += 1
        return self.norm(self.head(self.dropout(self.embed(x))))

    def get_extra_state(self) -> dict[str, int]:
        return {"seen": self.seen}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]


def bits(tensor: Any) -> bytes:
    """The bytes of any tensor, in C order."""
    dense = tensor.detach().resolve_conj().resolve_neg()
    dense = dense.to_dense() if dense.layout is not torch.strided else dense
    return dense.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if dense.numel() else b""


def assert_same(found: Any, wanted: Any) -> None:
    """Fail if two states differ in any bit."""
    assert type(found) is type(wanted)
    if isinstance(wanted, torch.Tensor):
        assert (found.dtype, found.shape, found.layout) == (wanted.dtype, wanted.shape, wanted.layout)
        assert bits(found) == bits(wanted)
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert found == wanted


def run_of(kind: str) -> dict[str, Any]:
    """A model in training, with optimizer and scheduler."""
    model = Model()
    makers = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "adamw": lambda: torch.optim.AdamW(model.parameters(), lr=0.01),
        "groups": lambda: torch.optim.Adam([{"params": [model.embed.weight], "lr": 0.1}, {"params": model.norm.parameters()}], lr=0.01),
        "amsgrad": lambda: torch.optim.AdamW(model.parameters(), lr=0.01, amsgrad=True),
    }
    optimizer = makers[kind]()
    return {"model": model, "optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)}


def train(run: dict[str, Any], steps: int) -> None:
    """Steps on random data, with dropout."""
    for _ in range(steps):
        run["optimizer"].zero_grad()
        run["model"](torch.randint(0, 10, (16,))).square().mean().backward()
        run["optimizer"].step()
        run["scheduler"].step()


def test_a_model_is_saved_under_the_names_of_its_state_dict(tmp_path: Path) -> None:
    """Paths equal the state_dict's, tied weights are stored once, and the model is filled in place."""
    model, other = Model(), Model()
    tk.save(model, tmp_path / "m.safetensors")
    with tk.open(tmp_path / "m.safetensors") as contents:
        assert set(contents.tensors) == set(model.state_dict()) - {"_extra_state", "head.weight"}
    weight, version = other.embed.weight, other.embed.weight._version
    assert tk.load(tmp_path / "m.safetensors", into=other) is other
    assert other.embed.weight is weight
    assert other.head.weight is weight
    assert weight.requires_grad
    assert weight._version > version  # autograd sees the change
    assert_same(other.state_dict(), model.state_dict())


@pytest.mark.parametrize("kind", ["sgd", "adamw", "groups", "amsgrad"])
@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "warm"])
def test_training_goes_on_bit_for_bit(tmp_path: Path, kind: str, warm: bool) -> None:
    """Saved, loaded into a new run, and trained on: the same bits as without a break, into a fresh optimizer or one with state."""
    torch.manual_seed(1)
    run = run_of(kind)
    train(run, 3)
    tk.save({**run, "epoch": 3, "rng": torch.get_rng_state()}, tmp_path / "run.safetensors")
    train(run, 3)
    torch.manual_seed(2)
    other = run_of(kind)
    if warm:
        train(other, 2)
    before = {id(value) for slots in other["optimizer"].state.values() for value in slots.values()}
    state = tk.load(tmp_path / "run.safetensors", into=other)
    assert (state["epoch"], state["model"], state["optimizer"]) == (3, other["model"], other["optimizer"])
    if warm:
        assert {id(value) for slots in other["optimizer"].state.values() for value in slots.values()} == before  # filled in place
    torch.set_rng_state(state["rng"])
    train(other, 3)
    assert_same(other["model"].state_dict(), run["model"].state_dict())
    assert_same(other["optimizer"].state_dict(), run["optimizer"].state_dict())
    assert_same(other["scheduler"].state_dict(), run["scheduler"].state_dict())


def test_the_plain_tree_is_what_load_state_dict_takes(tmp_path: Path) -> None:
    """Without a target everything comes as plain data with int keys and module versions, fit for PyTorch's own loaders."""
    run = run_of("adamw")
    train(run, 2)
    tk.save(run, tmp_path / "run.safetensors")
    tree = tk.load(tmp_path / "run.safetensors")
    assert tree["model"]._metadata["norm"] == {"version": 2}
    other = run_of("adamw")
    other["model"].load_state_dict(tree["model"])
    other["optimizer"].load_state_dict(tree["optimizer"])
    other["scheduler"].load_state_dict(tree["scheduler"])
    assert_same(other["optimizer"].state_dict(), run["optimizer"].state_dict())
    assert tree["model"]["embed.weight"] is tree["model"]["head.weight"]


_PAIRS = getattr(torch, "float4_e2m1fn_x2", None)  # not before PyTorch 2.8


def _tensors() -> dict[str, Any]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = {str(dtype): torch.randint(0, 2, (3, 4)).to(dtype) for dtype in (
            torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64, torch.int64,
            torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex32, torch.complex64, torch.complex128,
            torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
        )}  # fmt: skip
        if hasattr(torch, "float8_e8m0fnu"):  # not before PyTorch 2.7
            made["e8m0"] = torch.arange(4, dtype=torch.uint8).view(torch.float8_e8m0fnu)
        if _PAIRS is not None:
            made["x2"] = torch.arange(8, dtype=torch.uint8).reshape(2, 4).view(_PAIRS)
        made["transposed"] = torch.randn(5, 3).t()
        made["strided"] = torch.randn(10)[::3]
        made["expanded"] = torch.randn(1, 3).expand(4, 3)
        made["conj"] = torch.randn(3, dtype=torch.complex64).conj()
        made["neg"] = torch.randn(3, dtype=torch.complex64).conj().imag
        made["scalar"] = torch.tensor(3.5)
        made["empty"] = torch.empty(0, 3)
        made["nan"] = torch.tensor([0x7FC00001, -1], dtype=torch.int32).view(torch.float32)
        made["coo"] = torch.sparse_coo_tensor([[0, 1, 0], [1, 2, 1]], [1.0, 2.0, 3.0], (2, 3))
        made["coalesced"] = made["coo"].coalesce()
        made["csr"] = torch.eye(3).to_sparse_csr()
        made["csc"] = torch.eye(4).to_sparse_csc()
        made["bsr"] = torch.eye(4).to_sparse_bsr((2, 2))
    return made


@pytest.mark.parametrize("name", _tensors())
def test_every_kind_of_tensor_comes_back(name: str) -> None:
    """Every dtype, layout and view that PyTorch has, alone and in a state."""
    tensor = _tensors()[name]
    found = tk.loads(tk.dumps({"t": tensor, "again": tensor}))
    assert type(found["t"]) is torch.Tensor
    assert (found["t"].dtype, found["t"].shape, found["t"].layout) == (tensor.dtype, tensor.shape, tensor.layout)
    if tensor.dtype in (_PAIRS, torch.complex32):
        integers = torch.uint8 if tensor.dtype is _PAIRS else torch.int32
        assert torch.equal(found["t"].view(integers), tensor.view(integers))
    else:
        assert bits(found["t"]) == bits(tensor)
    if tensor.layout is torch.strided and tensor.numel():
        assert found["t"] is found["again"]
    if name in ("coo", "coalesced"):
        assert found["t"].is_coalesced() == tensor.is_coalesced()


def test_each_loaded_tensor_has_a_storage_of_its_own(tmp_path: Path) -> None:
    """As after torch.load: saving one of them with torch.save does not drag the others along."""
    tk.save({f"{number}": torch.randn(1000) for number in range(100)}, tmp_path / "t.safetensors")
    tensor = tk.load(tmp_path / "t.safetensors")["7"]
    assert tensor.untyped_storage().nbytes() == 4000
    tensor += 1  # its own memory, copied when written to


def test_values_of_pytorch_come_back() -> None:
    """dtype, device, size and generator; and a random state that was handed over as such."""
    generator = torch.Generator().manual_seed(5)
    state = {"dtype": torch.bfloat16, "device": torch.device("cuda:1"), "size": torch.Size([2, 3]), "generator": generator}
    found = tk.loads(tk.dumps(state))
    assert {key: found[key] for key in ("dtype", "device", "size")} == {key: state[key] for key in ("dtype", "device", "size")}
    assert torch.equal(torch.rand(3, generator=found["generator"]), torch.rand(3, generator=generator))


def test_frameworks_can_be_chosen(tmp_path: Path) -> None:
    """framework= makes all tensors of one kind; without it each is what it was saved as."""
    tk.save({"t": torch.ones(2), "n": np.ones(2)}, tmp_path / "both.safetensors")
    found = tk.load(tmp_path / "both.safetensors")
    assert (type(found["t"]), type(found["n"])) == (torch.Tensor, np.ndarray)
    assert all(type(value) is np.ndarray for value in tk.load(tmp_path / "both.safetensors", framework="numpy").values())
    assert all(type(value) is torch.Tensor for value in tk.load(tmp_path / "both.safetensors", framework="torch", device="cpu").values())
    with pytest.raises(ValueError, match="known are numpy, torch"):
        tk.load(tmp_path / "both.safetensors", framework="tensorflow")


def test_all_problems_are_reported_at_once_and_nothing_is_changed(tmp_path: Path) -> None:
    """Missing, unexpected, shape and dtype problems stand in one error with paths, shapes and ways out."""
    saved = nn.ModuleDict({"fc1": nn.Linear(3, 4), "fc2": nn.Linear(4, 5), "fc3": nn.Linear(2, 2).half(), "old": nn.Linear(6, 6)})
    target = nn.ModuleDict({"fc1": nn.Linear(3, 4), "fc2": nn.Linear(5, 4), "fc3": nn.Linear(2, 2), "old_": nn.Linear(6, 6)})
    tk.save(saved, tmp_path / "m.safetensors")
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(tk.MismatchError) as caught:
        tk.load(tmp_path / "m.safetensors", into=target)
    report = caught.value.report
    assert report.missing == ["old_.weight", "old_.bias"]
    assert report.unexpected == ["old.weight", "old.bias"]
    assert set(report.of("shape")) == {"fc2.weight", "fc2.bias"}
    assert set(report.of("dtype")) == {"fc3.weight", "fc3.bias"}
    for sentence in ("did you mean old.weight?", "looks transposed", "cast=True", "[5, 4]", "[4, 5]"):
        assert sentence in str(caught.value)
    assert_same(target.state_dict(), before)
    with pytest.warns(tk.TensorkeepWarning, match="fits only in part") as told:
        tk.load(tmp_path / "m.safetensors", into=target, strict=False)
    assert warned(told)[0].message.report.missing == report.missing
    assert torch.equal(target["fc1"].weight, saved["fc1"].weight)
    assert torch.equal(target["fc2"].weight, before["fc2.weight"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "net.backbone."])
def test_a_prefix_too_many_is_named_with_the_rename_that_mends_it(tmp_path: Path, prefix: str) -> None:
    """Models wrapped for several devices or for compilation have a prefix; the error says how to take it off or put it on."""
    model, other = Model(), Model()
    tk.save({prefix + name: value for name, value in model.state_dict().items()}, tmp_path / "wrapped.safetensors")
    with pytest.raises(tk.MismatchError, match="rename=") as caught:
        tk.load(tmp_path / "wrapped.safetensors", into=other)
    assert f"{{'{prefix}*': '*'}}" in str(caught.value)
    tk.load(tmp_path / "wrapped.safetensors", into=other, rename={f"{prefix}*": "*"})
    assert_same(other.state_dict(), model.state_dict())


def test_compiled_and_parametrized_modules(tmp_path: Path) -> None:
    """torch.compile and parametrizations are modules like any other."""
    compiled = torch.compile(nn.Linear(3, 2))
    tk.save(compiled, tmp_path / "c.safetensors")
    plain = nn.Linear(3, 2)
    tk.load(tmp_path / "c.safetensors", into=plain, rename={"_orig_mod.*": "*"})
    assert torch.equal(plain.weight, compiled.weight)
    module, other = (torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)) for _ in range(2))
    tk.save(module, tmp_path / "p.safetensors")
    tk.load(tmp_path / "p.safetensors", into=other)
    assert torch.equal(other.weight, module.weight)


def test_old_states_are_migrated_as_pytorch_does(tmp_path: Path) -> None:
    """Batch norm without its counter, and the old weight norm, load into their new forms through the modules' own code."""
    state = nn.BatchNorm1d(4).state_dict()
    state["running_mean"] += 3
    del state["num_batches_tracked"]
    state._metadata[""]["version"] = 1
    tk.save(state, tmp_path / "bn.safetensors")
    norm = nn.BatchNorm1d(4)
    tk.load(tmp_path / "bn.safetensors", into=norm)
    assert norm.running_mean.tolist() == [3.0] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = torch.nn.utils.weight_norm(nn.Linear(3, 4))
    tk.save(old, tmp_path / "wn.safetensors")
    new = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    tk.load(tmp_path / "wn.safetensors", into=new)
    assert torch.equal(new.parametrizations.weight.original0, old.weight_g)


class Splitting(nn.Module):
    """Loads a fused weight of old files by computing with it."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        fused = state_dict.pop(f"{prefix}qk.weight", None)
        if fused is not None:
            state_dict[f"{prefix}q.weight"], state_dict[f"{prefix}k.weight"] = fused.chunk(2)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def test_a_modules_own_loading_code_may_compute_with_values(tmp_path: Path) -> None:
    """A fused weight is split by the module's own code, and nothing is changed when another module does not fit."""
    fused = torch.randn(8, 4)
    tk.save({"a.qk.weight": fused}, tmp_path / "fused.safetensors")
    model = nn.ModuleDict({"a": Splitting()})
    tk.load(tmp_path / "fused.safetensors", into=model)
    assert torch.equal(torch.cat([model["a"].q.weight, model["a"].k.weight]), fused)
    worse = nn.ModuleDict({"a": Splitting(), "b": nn.Linear(1, 1)})
    before = copy.deepcopy(worse.state_dict())
    with pytest.raises(tk.MismatchError, match=r"b\.weight"):
        tk.load(tmp_path / "fused.safetensors", into=worse)
    assert_same(worse.state_dict(), before)


def test_modules_without_memory_are_materialized(tmp_path: Path) -> None:
    """The meta device and lazy modules get their tensors from the file, tied ones once."""
    model = Model()
    train(
        {"model": model, "optimizer": torch.optim.SGD(model.parameters(), 0.1), "scheduler": nn.Identity()} | {"scheduler": _NoSchedule()},
        1,
    )
    tk.save(model, tmp_path / "m.safetensors")
    with torch.device("meta"):
        meta = Model()
    meta.embed.weight.requires_grad_(False)
    tk.load(tmp_path / "m.safetensors", into=meta)
    assert meta.head.weight is meta.embed.weight
    assert not meta.embed.weight.requires_grad
    assert_same(meta.state_dict(), model.state_dict())
    tk.save(nn.Linear(8, 10), tmp_path / "l.safetensors")
    lazy = nn.LazyLinear(10)
    tk.load(tmp_path / "l.safetensors", into=lazy)
    assert lazy(torch.ones(1, 8)).shape == (1, 10)
    with pytest.raises(tk.UnsupportedError, match="meta device"):
        tk.dumps(Model().to("meta"))
    with pytest.raises(tk.UnsupportedError, match="not initialized"):
        tk.dumps(nn.LazyLinear(3))


class _NoSchedule:
    def step(self) -> None: ...


def test_cast_converts_and_counts(tmp_path: Path) -> None:
    """float32 into bfloat16 only when asked for, as PyTorch rounds, and the report counts what changed."""
    linear, narrow = nn.Linear(30, 20), nn.Linear(30, 20).bfloat16()
    tk.save(linear, tmp_path / "l.safetensors")
    with pytest.raises(tk.MismatchError, match="cast=True"):
        tk.load(tmp_path / "l.safetensors", into=narrow)
    with pytest.warns(tk.TensorkeepWarning, match="converted") as told:
        tk.load(tmp_path / "l.safetensors", into=narrow, cast=True)
    assert torch.equal(narrow.weight, linear.weight.bfloat16())
    casts = {cast.path: cast for cast in warned(told)[0].message.report.casts}
    assert casts["weight"].changed == (linear.weight != linear.weight.bfloat16().float()).sum()


def test_parameters_that_do_not_lie_contiguous_are_filled(tmp_path: Path) -> None:
    """A transposed or strided parameter gets its values in place, too."""
    tensor = torch.randn(6, 4)
    tk.save({"w": tensor}, tmp_path / "w.safetensors")
    target = torch.zeros(4, 6).t()
    assert tk.load(tmp_path / "w.safetensors", into={"w": target})["w"] is target
    assert torch.equal(target, tensor)
    with pytest.raises(tk.MismatchError, match="expanded"):
        tk.load(tmp_path / "w.safetensors", into={"w": torch.zeros(1, 4).expand(6, 4)})


def test_ties_of_the_target_and_of_the_file(tmp_path: Path) -> None:
    """A file that keeps one name of a tie is enough; one with two different tensors for one memory is refused."""
    model = Model()
    state = {name: value for name, value in model.state_dict().items() if name not in ("head.weight", "_extra_state")}
    other = nn.ModuleDict({"embed": nn.Embedding(10, 8), "head": nn.Linear(8, 10, bias=False)})
    other["head"].weight = other["embed"].weight
    tk.save({"embed.weight": state["embed.weight"]}, tmp_path / "one.safetensors")
    tk.load(tmp_path / "one.safetensors", into=other)
    assert torch.equal(other["head"].weight, model.embed.weight)
    tk.save({"embed.weight": state["embed.weight"], "head.weight": state["embed.weight"].clone()}, tmp_path / "two.safetensors")
    tk.load(tmp_path / "two.safetensors", into=other)
    tk.save({"embed.weight": state["embed.weight"], "head.weight": state["embed.weight"] + 1}, tmp_path / "differ.safetensors")
    with pytest.raises(tk.MismatchError, match="tied"):
        tk.load(tmp_path / "differ.safetensors", into=other)


class Failing:
    """An object that refuses its state."""

    def __init__(self) -> None:
        self.value = 1

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        if state["value"] == 7:
            raise RuntimeError("not this one")
        self.value = state["value"]


@pytest.mark.parametrize("position", ["first", "last"])
def test_an_object_that_refuses_leaves_everything_as_it_was(tmp_path: Path, position: str) -> None:
    """Model, optimizer and scheduler keep every bit, whichever object raises."""
    run = run_of("adamw")
    train(run, 2)
    picky = Failing()
    picky.value = 7
    order = (lambda run, picky: {"picky": picky, **run}) if position == "first" else (lambda run, picky: {**run, "picky": picky})
    tk.save(order(run, picky), tmp_path / "run.safetensors")
    other = run_of("adamw")
    train(other, 1)
    before = copy.deepcopy({name: part.state_dict() for name, part in other.items()})
    with pytest.raises(tk.MismatchError, match=r"picky.*RuntimeError: not this one"):
        tk.load(tmp_path / "run.safetensors", into=order(other, Failing()))
    for name, part in other.items():
        assert_same(part.state_dict(), before[name])


def test_an_optimizer_of_other_groups_is_refused(tmp_path: Path) -> None:
    """Groups and parameters are compared before anything is handed over."""
    run = run_of("groups")
    train(run, 1)
    tk.save(run["optimizer"], tmp_path / "o.safetensors")
    with pytest.raises(tk.MismatchError, match="2 groups"):
        tk.load(tmp_path / "o.safetensors", into=torch.optim.Adam(run["model"].parameters()))
    with pytest.raises(tk.MismatchError, match="no optimizer's state"):
        tk.loads(tk.dumps([1]), into=torch.optim.Adam(run["model"].parameters()))


def test_scalers_and_averages_are_kept() -> None:
    """GradScaler and AveragedModel, alone and inside a state."""
    model = nn.Linear(2, 2)
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    data = tk.dumps({"average": average, "scaler": scaler})
    fresh = {"average": torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2)), "scaler": torch.amp.GradScaler("cpu")}
    tk.loads(data, into=fresh)
    assert_same(fresh["average"].state_dict(), average.state_dict())
    assert fresh["scaler"].get_scale() == 128.0


class Scaled(torch.Tensor):
    """A subclass made of two tensors and a note."""

    @staticmethod
    def __new__(cls, inner: Any, scale: Any, note: str) -> Any:
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=torch.float32)
        made.inner, made.scale, made.note = inner, scale, note
        return made

    def __tensor_flatten__(self) -> Any:
        return ["inner", "scale"], {"note": self.note}

    @staticmethod
    def __tensor_unflatten__(tensors: Any, context: Any, size: Any, stride: Any) -> Any:
        return Scaled(tensors["inner"], tensors["scale"], context["note"])

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.detach.default:
            return args[0]
        raise NotImplementedError(function)


def test_tensor_subclasses_are_the_tensors_they_are_made_of() -> None:
    """By __tensor_flatten__: readable without the class, itself with it, filled in place."""
    made = Scaled(torch.arange(4, dtype=torch.int8), torch.tensor(0.5), "hi")
    data = tk.dumps({"w": made})
    plain = tk.loads(data)["w"]
    assert plain["tensors"]["inner"].tolist() == [0, 1, 2, 3]
    back = tk.loads(data, types=(Scaled,))["w"]
    assert (type(back), back.note, back.scale.item()) == (Scaled, "hi", 0.5)
    target = Scaled(torch.zeros(4, dtype=torch.int8), torch.tensor(0.0), "hi")
    inner = target.inner
    tk.loads(data, into={"w": target})
    assert target.inner is inner
    assert inner.tolist() == [0, 1, 2, 3]
    with pytest.raises(tk.MismatchError, match="context"):
        tk.loads(data, into={"w": Scaled(torch.zeros(4, dtype=torch.int8), torch.tensor(0.0), "other")})


class Bare(torch.Tensor):
    """A subclass that says nothing about itself."""


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_kept_names_its_path() -> None:
    """Quantized tensors and subclasses without __tensor_flatten__ are errors at save time."""
    with pytest.raises(tk.UnsupportedError, match=r"a\.0.*qint8"):
        tk.dumps({"a": [torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8)]})
    with pytest.raises(tk.UnsupportedError, match="Bare"):
        tk.dumps({"b": torch.zeros(2).as_subclass(Bare)})


def test_only_and_rename_into_a_model(tmp_path: Path) -> None:
    """A part of a file into a part of a model: what was left out is not missing."""
    model, other = Model(), Model()
    tk.save({"net": model, "epoch": 1}, tmp_path / "m.safetensors")
    before = copy.deepcopy(other.norm.state_dict())
    tk.load(tmp_path / "m.safetensors", into={"net": other}, only="net.embed.*")
    assert torch.equal(other.embed.weight, model.embed.weight)
    assert_same(other.norm.state_dict(), before)
    third = Model()
    tk.load(tmp_path / "m.safetensors", into=third, only="net.*", rename={"net.*": "*"})
    assert_same(third.state_dict(), model.state_dict())
    flat = tk.load(tmp_path / "m.safetensors", only=lambda path: path.endswith("weight"))
    assert set(flat["net"]) == {"embed.weight", "head.weight", "norm.weight"}


def test_only_into_an_optimizer_keeps_the_rest(tmp_path: Path) -> None:
    """One slot, one parameter, or the groups alone: what was left out stays as it is."""
    run, other = run_of("adamw"), run_of("adamw")
    train(run, 2)
    train(other, 1)
    tk.save({"optimizer": run["optimizer"]}, tmp_path / "o.safetensors")
    saved = run["optimizer"].state_dict()["state"]
    before = copy.deepcopy(other["optimizer"].state_dict()["state"])
    tk.load(tmp_path / "o.safetensors", into=other, only="optimizer.state.0.exp_avg")
    now = other["optimizer"].state_dict()["state"]
    assert torch.equal(now[0]["exp_avg"], saved[0]["exp_avg"])
    assert torch.equal(now[0]["exp_avg_sq"], before[0]["exp_avg_sq"])
    assert_same(now[1], before[1])
    tk.load(tmp_path / "o.safetensors", into=other, only="optimizer.param_groups*")
    assert torch.equal(other["optimizer"].state_dict()["state"][0]["exp_avg_sq"], before[0]["exp_avg_sq"])
    assert other["optimizer"].param_groups[0]["lr"] == run["optimizer"].param_groups[0]["lr"]
    tk.load(tmp_path / "o.safetensors", into=other, only="optimizer.state.*")
    assert_same(other["optimizer"].state_dict()["state"], saved)


def test_file_objects_and_flat_files(tmp_path: Path) -> None:
    """A model from a stream; a file by safetensors into a model, and into a model inside a state."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    buffer = io.BytesIO()
    tk.save(model, buffer)
    buffer.seek(0)
    tk.load(buffer, into=other)
    assert_same(other.state_dict(), model.state_dict())
    save_file({f"model.{name}": value for name, value in model.state_dict().items()}, tmp_path / "flat.safetensors")
    third = nn.Linear(3, 2)
    tk.load(tmp_path / "flat.safetensors", into={"model": third})
    assert_same(third.state_dict(), model.state_dict())

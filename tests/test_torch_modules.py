"""PyTorch's modules with loading code of their own, without memory, in states: what `load_state_dict` would do, all or nothing."""

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from refusing import Refuses
from warned import warned

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402  # only where there is PyTorch


class Own(nn.Module):
    """Two values, and whatever a test wants to happen when they are loaded."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((3,), value))
        self.register_buffer("b", torch.full((2,), value))
        self.cache: Any = None
        self.loads: list[str] = []


class Assigns(Own):
    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        self.w = nn.Parameter(state_dict[f"{prefix}w"])
        self.b = state_dict[f"{prefix}b"]


class WritesToData(Own):
    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        self.w.data.copy_(state_dict[f"{prefix}w"])
        self.b[:] = state_dict[f"{prefix}b"]


class Derives(Own):
    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.cache = self.w.detach() * 2
        self.loads.append("once")


class DerivesInAll(Own):
    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        keys = super().load_state_dict(state_dict, strict, assign)
        self.cache = self.w.detach() * 2
        self.loads.append("once")
        return keys


class SaysNothing(Own):
    def load_state_dict(self, state_dict: Any, strict: bool = True) -> None:
        super().load_state_dict(state_dict, strict=strict)


class TakesNothingElse(Own):
    def load_state_dict(self, state_dict: Any) -> Any:
        return super().load_state_dict(state_dict)


class OwnLayout(Own):
    def state_dict(self, *args: Any, **options: Any) -> Any:
        return {"weights": {"w": self.w.detach(), "b": self.b}, "kind": "own"}

    def load_state_dict(self, state_dict: Any, strict: bool = True) -> Any:
        assert state_dict["kind"] == "own"
        return super().load_state_dict(state_dict["weights"], strict=strict)


OWN = [Own, Assigns, WritesToData, Derives, DerivesInAll, SaysNothing, TakesNothingElse, OwnLayout]


@pytest.mark.parametrize(
    ("cls", "place"),
    # PyTorch calls load_state_dict of the outermost module alone.
    [(cls, "bare") for cls in OWN] + [(cls, "inside") for cls in OWN if "load_state_dict" not in vars(cls)],
)
def test_a_modules_own_code_loads_as_in_pytorch(tmp_path: Path, cls: type[Own], place: str) -> None:
    """Whatever the code does, the values and all that it derives from them are those that `load_state_dict` leaves."""
    made, wanted, target = cls(5.0), cls(), cls()
    wrapped = {"bare": lambda module: module, "inside": lambda module: nn.ModuleDict({"m": module})}[place]
    tk.save(wrapped(made), tmp_path / "m.safetensors")
    wrapped(wanted).load_state_dict(copy.deepcopy(wrapped(made).state_dict()))
    loaded = wrapped(target)
    assert tk.load(tmp_path / "m.safetensors", into=loaded) is loaded
    assert (target.w.device.type, target.b.device.type) == ("cpu", "cpu")
    assert torch.equal(target.w, wanted.w) and torch.equal(target.b, wanted.b)
    assert target.loads == wanted.loads
    assert (target.cache is None) == (wanted.cache is None)
    if wanted.cache is not None:
        assert torch.equal(target.cache, wanted.cache)


@pytest.mark.parametrize("cls", OWN)
@pytest.mark.parametrize("fault", ["mismatch", "damage", "object"])
def test_a_modules_own_code_changes_nothing_when_another_part_fails(tmp_path: Path, cls: type[Own], fault: str) -> None:
    """Tensors, attributes and lists of the module are as they were when something else of the load is refused."""
    path = tmp_path / "m.safetensors"
    tk.save({"m": cls(5.0), "other": {"x": np.ones(40_000)}, "z": Refuses()}, path)
    target = cls()
    before, w, b = dict(vars(target)), target.w, target.b
    into = {"m": target, "other": {"x": np.zeros(40_000 if fault != "mismatch" else 7)}, "z": Refuses(fault == "object")}
    if fault == "damage":
        data = bytearray(path.read_bytes())
        data[len(data) - 40_000] ^= 1
        path.write_bytes(data)
    with pytest.raises(tk.CorruptError if fault == "damage" else tk.MismatchError):
        tk.load(path, into=into)
    assert target.w is w and target.b is b
    assert w.tolist() == [0.0] * 3 and b.tolist() == [0.0] * 2
    assert target.loads == [] and target.cache is None
    assert vars(target).keys() == before.keys()


@pytest.mark.parametrize("cls", [Own, Derives, DerivesInAll, SaysNothing])
def test_what_a_module_misses_is_reported_whoever_loads_it(tmp_path: Path, cls: type[Own]) -> None:
    """Missing, unexpected and misshapen tensors are named by path, and nothing is changed."""
    tk.save({"w": torch.ones(4), "c": torch.ones(1)}, tmp_path / "m.safetensors")
    target = cls()
    with pytest.raises(tk.MismatchError) as caught:
        tk.load(tmp_path / "m.safetensors", into=target)
    said = str(caught.value)
    assert "w" in said and "[4]" in said and "[3]" in said
    assert target.w.tolist() == [0.0] * 3 and target.cache is None
    tk.save({"w": torch.ones(3)}, tmp_path / "n.safetensors")
    with pytest.raises(tk.MismatchError) as caught:
        tk.load(tmp_path / "n.safetensors", into=target)
    assert caught.value.report.missing == ["b"]
    assert target.w.tolist() == [0.0] * 3 and target.cache is None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        tk.load(tmp_path / "n.safetensors", into=target, strict=False)
    assert [warning.message.report.missing for warning in warned(told)] == [["b"]]  # type: ignore[union-attr]
    assert target.w.tolist() == [1.0] * 3 and target.b.tolist() == [0.0] * 2


def test_observers_of_pytorch_load(tmp_path: Path) -> None:
    """PyTorch's own modules that take shapes and values from what they load."""
    from torch.ao.quantization import HistogramObserver, PerChannelMinMaxObserver

    for kind in (HistogramObserver, PerChannelMinMaxObserver):
        made, target, wanted = kind(), kind(), kind()
        made(torch.randn(4, 3))
        tk.save(made, tmp_path / "o.safetensors")
        tk.load(tmp_path / "o.safetensors", into=target)
        wanted.load_state_dict(made.state_dict())
        assert {name: value.tolist() for name, value in target.state_dict().items()} == {
            name: value.tolist() for name, value in wanted.state_dict().items()
        }


def test_a_loader_that_fits_what_it_loads_to_its_own_size(tmp_path: Path) -> None:
    """A hook that changes the shape of a tensor of the file decides what is copied."""

    class Resizes(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.pos, self.size = nn.Parameter(torch.arange(float(size))[None]), size
            self._register_load_state_dict_pre_hook(self.hook)

        def hook(self, state: Any, prefix: str, *rest: Any) -> None:
            state[f"{prefix}pos"] = nn.functional.interpolate(state[f"{prefix}pos"][None], size=self.size)[0]

    target, wanted = Resizes(8), Resizes(8)
    tk.save(Resizes(4), tmp_path / "m.safetensors")
    tk.load(tmp_path / "m.safetensors", into=target)
    wanted.load_state_dict(Resizes(4).state_dict())
    assert torch.equal(target.pos, wanted.pos)


def test_lazy_modules_stay_the_same_objects(tmp_path: Path) -> None:
    """Their parameters get shape and values in place, so an optimizer made before trains them; a refused load leaves them lazy."""
    made = nn.LazyLinear(3)
    made(torch.ones(1, 2))
    tk.save({"m": made, "z": Refuses()}, tmp_path / "m.safetensors")
    target = nn.LazyLinear(3)
    optimizer, weight = torch.optim.SGD(target.parameters(), lr=1.0), target.weight
    with pytest.raises(tk.MismatchError):
        tk.load(tmp_path / "m.safetensors", into={"m": target, "z": Refuses(True)})
    assert target.weight is weight and target.has_uninitialized_params()
    tk.load(tmp_path / "m.safetensors", into={"m": target})
    assert target.weight is weight and torch.equal(weight, made.weight)
    target(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(target.weight, made.weight)
    norm = nn.LazyBatchNorm1d()
    norm(torch.randn(5, 2))
    tk.save(norm, tmp_path / "n.safetensors")
    fresh = nn.LazyBatchNorm1d()
    tk.load(tmp_path / "n.safetensors", into=fresh)
    assert torch.equal(fresh.running_mean, norm.running_mean)


class Versioned(nn.Module):
    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        if metadata.get("version", 1) < 2:
            state[f"{prefix}w"] = state[f"{prefix}w"] * 10
        super()._load_from_state_dict(state, prefix, metadata, *rest)


@pytest.mark.parametrize(
    ("saved", "target", "options"),
    [
        (lambda m: m, lambda m: m, {}),
        (nn.DataParallel, lambda m: m, {"rename": {"module.*": "*"}}),
        (lambda m: m, nn.DataParallel, {"rename": {"*": "module.*"}}),
        (lambda m: {"enc": m}, lambda m: nn.ModuleDict({"enc": m}), {}),
        (lambda m: nn.ModuleDict({"enc": m}), lambda m: {"enc": m}, {}),
        (lambda m: {"model": nn.DataParallel(m)}, lambda m: {"model": m}, {"rename": {"model.module.*": "model.*"}}),
        (lambda m: {"model": m.state_dict()}, lambda m: {"model": m}, {}),
    ],
)
def test_module_versions_follow_their_modules(tmp_path: Path, saved: Any, target: Any, options: Any) -> None:
    """A state that is already new is not migrated once more, wherever rename= or nesting moved it."""
    tk.save(saved(nn.Sequential(Versioned())), tmp_path / "m.safetensors")
    module = nn.Sequential(Versioned())
    tk.load(tmp_path / "m.safetensors", into=target(module), **options)
    assert module[0].w.item() == 1.0
    tk.save({"0.w": torch.ones(1)}, tmp_path / "old.safetensors")
    tk.load(tmp_path / "old.safetensors", into=module)
    assert module[0].w.item() == 10.0


def test_a_version_that_is_none_is_taken_for_none(tmp_path: Path) -> None:
    """A file may say anything of a module's version."""
    for wrong in (5, {"version": "x"}):
        state = nn.BatchNorm1d(2).state_dict()
        state._metadata = {"": wrong}
        tk.save(state, tmp_path / "m.safetensors")
        target = nn.BatchNorm1d(2)
        tk.load(tmp_path / "m.safetensors", into=target)


def test_sparse_parameters_are_filled(tmp_path: Path) -> None:
    """Not only the detached ones that a state_dict gives."""

    def sparse(value: float) -> Any:
        module = nn.Module()
        module.w = nn.Parameter((value * torch.eye(2)).to_sparse_coo())
        return module

    tk.save(sparse(1.0), tmp_path / "m.safetensors")
    target = sparse(5.0)
    tk.load(tmp_path / "m.safetensors", into=target)
    assert torch.equal(target.w.to_dense(), torch.eye(2))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.h = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.h.weight = self.e.weight


def test_modules_without_memory_keep_ties_and_their_optimizer(tmp_path: Path) -> None:
    """One name of a tied pair is enough, two that differ are refused, and an optimizer made before has the same parameters."""
    weight = torch.arange(15.0).reshape(5, 3)
    path = tmp_path / "m.safetensors"
    tk.save({"e.weight": weight}, path)
    with torch.device("meta"):
        meta = Tied()
    optimizer = torch.optim.Adam(meta.parameters())
    tk.load(path, into=meta)
    assert meta.h.weight is meta.e.weight and torch.equal(meta.h.weight, weight)
    assert optimizer.param_groups[0]["params"][0] is meta.e.weight
    tk.save({"e.weight": weight, "h.weight": weight + 1}, path)
    with torch.device("meta"):
        meta = Tied()
    with pytest.raises(tk.MismatchError, match="tied in the target"):
        tk.load(path, into=meta)
    tk.save({"x": weight}, path)
    with pytest.raises(tk.MismatchError, match=r"missing from the file \(2\)"):
        tk.load(path, into=meta)
    assert meta.e.weight.is_meta


def test_modules_without_memory_are_cast_and_say_so(tmp_path: Path) -> None:
    """cast=True converts for them too, and the report counts what changed; norms of old files get their counter."""
    tk.save({"weight": torch.full((2, 2), 0.1, dtype=torch.float64), "bias": torch.ones(2)}, tmp_path / "m.safetensors")
    with torch.device("meta"):
        meta, norm = nn.Linear(2, 2), nn.BatchNorm1d(3)
    with pytest.raises(tk.MismatchError, match="another dtype"):
        tk.load(tmp_path / "m.safetensors", into=meta)
    with pytest.warns(tk.TensorkeepWarning) as told:
        tk.load(tmp_path / "m.safetensors", into=meta, cast=True)
    assert [(cast.path, cast.changed) for cast in warned(told)[0].message.report.casts] == [("weight", 4)]
    assert meta.weight.dtype == torch.float32 and meta.weight.device.type == "cpu"
    state = nn.BatchNorm1d(3).state_dict()
    del state["num_batches_tracked"]
    state._metadata[""]["version"] = 1
    tk.save(state, tmp_path / "n.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tk.load(tmp_path / "n.safetensors", into=norm)
    assert norm.num_batches_tracked.device.type == "cpu"


def test_hooks_that_run_after_a_load_get_its_keys(tmp_path: Path) -> None:
    """They know what was missing, see the new values, and an error of theirs says that all was loaded."""
    tk.save({"weight": torch.ones(1, 1), "more": 1}, tmp_path / "m.safetensors")
    module, seen = nn.Linear(1, 1), []
    module.register_load_state_dict_post_hook(lambda m, keys: seen.append((m.weight.item(), *map(list, keys))))
    with pytest.warns(tk.TensorkeepWarning):
        tk.load(tmp_path / "m.safetensors", into=module, strict=False)
    assert seen == [(1.0, ["bias"], ["more"])]
    module.register_load_state_dict_post_hook(lambda m, keys: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tk.load(tmp_path / "m.safetensors", into=module, strict=False)
    assert "all of it was loaded" in caught.value.__notes__[0]


def test_extra_state_is_put_back_as_it_was(tmp_path: Path) -> None:
    """Though the module changes the very object that it hands out."""

    class Extra(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.settings = {"a": 1}

        def get_extra_state(self) -> Any:
            return self.settings

        def set_extra_state(self, state: Any) -> None:
            self.settings.update(state)

    made, target = Extra(), Extra()
    made.settings = {"a": 2}
    tk.save({"m": made, "z": Refuses()}, tmp_path / "m.safetensors")
    with pytest.raises(tk.MismatchError):
        tk.load(tmp_path / "m.safetensors", into={"m": target, "z": Refuses(True)})
    assert target.settings == {"a": 1}


def test_files_by_others_load_through_own_code(tmp_path: Path) -> None:
    """A plain safetensors file does not say that its tensors were PyTorch's; a module's code gets such tensors all the same."""
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file({"w": np.full(3, 4, np.float32), "b": np.full(2, 4, np.float32)}, tmp_path / "m.safetensors")
    for cls in (Assigns, WritesToData, Derives, DerivesInAll):
        target = cls()
        tk.load(tmp_path / "m.safetensors", into=target)
        assert target.w.tolist() == [4.0] * 3 and target.b.tolist() == [4.0] * 2

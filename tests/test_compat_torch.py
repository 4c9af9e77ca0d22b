"""`tensorkeep.compat.torch`: `save` and `load` with the arguments that people know from PyTorch."""

import inspect
import io
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from warned import warned

torch = pytest.importorskip("torch")
from tensorkeep.compat import torch as ours  # noqa: E402  # it imports PyTorch


def _training() -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and one == other


def test_a_checkpoint_comes_back_as_it_would_from_torch(tmp_path: Path) -> None:
    """State dicts, numbers, texts and random states, by path and by file object, without a warning for the name of the file."""
    model, optimizer = _training()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "loss": 0.5, "rng": torch.get_rng_state()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.save(state, tmp_path / "checkpoint.pt")
    buffer = io.BytesIO()
    ours.save(state, buffer, pickle_protocol=4)
    buffer.seek(0)
    for found in (ours.load(tmp_path / "checkpoint.pt", map_location="cpu", weights_only=True), ours.load(buffer)):
        assert _equal(found, state)
    again, other = _training()
    again.load_state_dict(found["model"])
    other.load_state_dict(found["optimizer"])
    assert tk.verify(tmp_path / "checkpoint.pt").intact


@pytest.mark.parametrize("name", ["save", "load"])
def test_every_argument_of_torch_is_taken_in_its_place(name: str) -> None:
    """Those of the installed PyTorch, in its order."""
    theirs, found = (list(inspect.signature(getattr(module, name)).parameters) for module in (torch, ours))
    assert found[: len(theirs)] == theirs


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_files_of_torch_load(tmp_path: Path, old: bool) -> None:
    """A `.pt` file that PyTorch wrote, of either age, mapped or not, by path and by file object."""
    model, optimizer = _training()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "tuple": (1, None),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }
    torch.save(state, tmp_path / "theirs.pt", _use_new_zipfile_serialization=not old)
    for mmap in (None, True, False):
        assert _equal(ours.load(tmp_path / "theirs.pt", mmap=mmap, encoding="latin1"), state)
    with open(tmp_path / "theirs.pt", "rb") as file:
        assert _equal(ours.load(file), state)


def test_plain_safetensors_give_tensors_of_torch(tmp_path: Path) -> None:
    """A file that names no framework gives what a user of PyTorch wants; arrays that were saved as arrays stay such."""
    tk.convert(_saved(tmp_path, {"w": torch.ones(2)}), tmp_path / "plain.safetensors", to="safetensors")
    assert _equal(ours.load(tmp_path / "plain.safetensors"), {"w": torch.ones(2)})
    ours.save({"w": torch.ones(2), "a": np.ones(2)}, tmp_path / "mixed.pt")
    assert isinstance(ours.load(tmp_path / "mixed.pt")["a"], np.ndarray)


def _saved(folder: Path, state: Any) -> Path:
    ours.save(state, folder / "saved.pt")
    return folder / "saved.pt"


def test_map_location_in_all_its_forms(tmp_path: Path) -> None:
    """A name, a device, a dict and a callable, which is asked once for each tensor."""
    path = _saved(tmp_path, {"w": torch.ones(2), "list": [torch.ones(3), (torch.ones(1),)]})

    def asked_for(storage: Any, location: str) -> Any:
        return torch.UntypedStorage(storage.nbytes(), device="meta")

    for where in ("meta", torch.device("meta"), {"cpu": "meta"}, asked_for):
        found = ours.load(path, map_location=where)
        assert {tensor.device.type for tensor in (found["w"], found["list"][0], found["list"][1][0])} == {"meta"}
    asked: list[str] = []
    found = ours.load(path, map_location=lambda storage, location: asked.append(location))
    assert asked == ["cpu"] * 3 and found["w"].device.type == "cpu"
    assert ours.load(path, {"cuda:1": "cuda:0"})["w"].device.type == "cpu"


class Own:
    """A class that no file can name."""

    def __init__(self) -> None:
        self.weight = torch.ones(2)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("echo run > run.txt",)


def test_objects_are_refused_or_stubs_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `weights_only` refuses is refused with the class that PyTorch raises; `weights_only=False` shows it, and runs nothing."""
    monkeypatch.chdir(tmp_path)
    torch.save({"a": [Own()], "b": Evil()}, "objects.pt")
    for weights_only in (None, True):
        with pytest.raises(pickle.UnpicklingError, match=r"Own.*system|system.*Own") as refused:
            ours.load("objects.pt", weights_only=weights_only)
        assert isinstance(refused.value, tk.FormatError)
    found = ours.load("objects.pt", weights_only=False)
    assert isinstance(found["a"][0], tk.Stub) and torch.equal(found["a"][0].fields["weight"], torch.ones(2))
    assert not (tmp_path / "run.txt").exists()
    with pytest.raises(tk.UnsupportedError, match="pickle_module"):
        ours.load("objects.pt", pickle_module=warnings)


def test_a_module_is_told_to_come_back_as_its_state(tmp_path: Path) -> None:
    """Where PyTorch would pickle the class, a warning says what comes back instead."""
    model, _ = _training()
    with pytest.warns(tk.TensorkeepWarning, match="load_state_dict") as told:
        ours.save({"model": model}, tmp_path / "whole.pt")
    assert warned(told)[0].filename == __file__
    assert _equal(ours.load(tmp_path / "whole.pt")["model"], model.state_dict())


def test_damage_is_found(tmp_path: Path) -> None:
    """A bit that turned in a file of either kind is an error, not another weight."""
    state = {"w": torch.ones(50_000)}
    ours.save(state, tmp_path / "ours.pt")
    torch.save(state, tmp_path / "theirs.pt")
    for name in ("ours.pt", "theirs.pt"):
        data = bytearray((tmp_path / name).read_bytes())
        data[len(data) // 2] ^= 4
        (tmp_path / name).write_bytes(data)
        with pytest.raises(tk.CorruptError):
            ours.load(tmp_path / name)

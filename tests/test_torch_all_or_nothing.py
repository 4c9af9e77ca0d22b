"""All or nothing: a whole training state of PyTorch is loaded, or every part of it is as it was, down to the objects' identities."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from refusing import Refuses

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402  # only where there is PyTorch


class Hooked(nn.Linear):
    """A layer whose loading code does more than to load."""

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.seen = True


def training(seed: int) -> dict[str, Any]:
    """A run that has made `seed + 1` steps, of every kind of part."""
    torch.manual_seed(seed)
    norm = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), Hooked(8, 4), nn.LazyLinear(2), norm)
    model(torch.randn(3, 4))
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1 * (seed + 1))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=20)
    for _ in range(seed + 1):
        optimizer.zero_grad()
        model(torch.randn(3, 4)).sum().backward()
        optimizer.step()
        scheduler.step()
    return {
        "model": model,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "generator": torch.Generator().manual_seed(seed),
        "numpy": np.random.default_rng(seed),
        "python": random.Random(seed),
        "weight": torch.full((3,), float(seed)),
        "last": Refuses(),
    }


def told(state: dict[str, Any], *, identities: bool) -> dict[str, Any]:
    """All that can be seen of a training state."""

    def tensor(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return (*((id(value),) if identities else ()), value.detach().numpy().tobytes(), value.requires_grad)

    model, optimizer = state["model"], state["optimizer"]
    seen: dict[str, Any] = {
        "tensors": {name: tensor(value) for name, value in (*model.named_parameters(), *model.named_buffers())},
        "slots": [{name: tensor(value) for name, value in slots.items()} for slots in optimizer.state.values()],
        "groups": [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups],
        "scheduler": repr(state["scheduler"].state_dict()),
        "generators": (state["generator"].get_state().tolist(), state["numpy"].bit_generator.state, state["python"].getstate()),
        "weight": tensor(state["weight"]),
    }
    if identities:
        seen["gradients"] = {name: tensor(value.grad) for name, value in model.named_parameters()}
        seen["attributes"] = [(id(module), sorted(vars(module))) for module in model.modules()]
    return seen


FAULTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "an object that refuses": lambda state: state.update(last=Refuses(refuses=True)),
    "another shape": lambda state: state.update(weight=torch.zeros(5)),
    "something missing": lambda state: state.update(more=torch.zeros(1)),
    "damage": lambda state: None,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("order", ["forwards", "backwards"])
def test_a_load_that_fails_changes_nothing_at_all(tmp_path: Path, fault: str, order: str) -> None:
    """Values, identities, gradients, attributes, options and generators, wherever in the state the fault is."""
    path = tmp_path / "run.safetensors"
    tk.save(training(1), path)
    if fault == "damage":
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    target = training(0)
    FAULTS[fault](target)
    if order == "backwards":
        target = dict(reversed(target.items()))
    before = told(target, identities=True)
    with pytest.raises(tk.CorruptError if fault == "damage" else tk.MismatchError):
        tk.load(path, into=target)
    assert told(target, identities=True) == before


def test_a_load_that_succeeds_changes_everything(tmp_path: Path) -> None:
    """So the test above could have seen a change: each part is now what was saved."""
    tk.save(training(1), tmp_path / "run.safetensors")
    target = training(0)
    tk.load(tmp_path / "run.safetensors", into=target)
    assert told(target, identities=False) == told(training(1), identities=False) != told(training(0), identities=False)

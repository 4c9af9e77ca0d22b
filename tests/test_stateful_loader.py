"""A training with torchdata's StatefulDataLoader goes on to the last bit: its position, order, optimizer, scheduler and dropout."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tensorkeep as tk

torch = pytest.importorskip("torch")
stateful = pytest.importorskip("torchdata.stateful_dataloader")

BATCHES = 6  # of an epoch


class Stream(torch.utils.data.IterableDataset):
    """Numbers that never end, with a position of its own."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.position += 1
            yield torch.randn(4, generator=torch.Generator().manual_seed(self.position))

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def make(kind: str, data: str, workers: int) -> tuple[dict[str, Any], Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
    if kind == "SGD":
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    order = torch.Generator().manual_seed(5)
    options: dict[str, Any] = {"batch_size": 4, "num_workers": workers}
    if data == "map":
        options |= {"shuffle": True, "generator": order}
    dataset = torch.randn(4 * BATCHES, 4, generator=torch.Generator().manual_seed(3)) if data == "map" else Stream()
    return {
        "model": model,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "loader": stateful.StatefulDataLoader(dataset, **options),
    }, order


def train(run: dict[str, Any], batches: Any, steps: int) -> tuple[list[float], Any]:
    """Losses, and the iterator to go on with."""
    losses: list[float] = []
    while len(losses) < steps:
        x = next(batches, None)
        if x is None:
            batches = iter(run["loader"])
            continue
        loss = run["model"](x).square().mean()
        run["optimizer"].zero_grad()
        loss.backward()
        run["optimizer"].step()
        run["scheduler"].step()
        losses.append(loss.item())
    return losses, batches


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "data", "workers", "stop"),
    [
        ("SGD", "map", 0, 2),
        ("SGD", "map", 0, BATCHES + 3),
        ("AdamW", "map", 0, BATCHES),
        ("AdamW", "map", 1, BATCHES + 1),
        ("AdamW", "stream", 0, 4),
    ],
)
def test_it_goes_on_bit_for_bit(tmp_path: Path, kind: str, data: str, workers: int, stop: int) -> None:
    """Saved after any batch, into objects made anew: the losses and the weights are those of a run that was never interrupted."""
    run, order = make(kind, data, workers)
    batches = iter(run["loader"])
    _, batches = train(run, batches, stop)
    tk.save({**run, "order": order.get_state(), "rng": torch.get_rng_state(), "step": stop}, tmp_path / "run.safetensors")
    wanted, _ = train(run, batches, 2 * BATCHES)
    again, order = make(kind, data, workers)
    state = tk.load(tmp_path / "run.safetensors", into=again)
    assert state["loader"] is again["loader"] and state["step"] == stop
    batches = iter(again["loader"])  # draws random numbers: so their states come last
    order.set_state(state["order"])
    torch.set_rng_state(state["rng"])
    assert train(again, batches, 2 * BATCHES)[0] == wanted
    for one, other in zip(again["model"].state_dict().values(), run["model"].state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_load_that_fails_leaves_the_position() -> None:
    """A file whose model does not fit: the loader goes on from where it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run, _ = make("SGD", "map", 0)
        train(run, iter(run["loader"]), 3)
        data = tk.dumps({**run, "model": torch.nn.Linear(3, 3)})
        other, _ = make("SGD", "map", 0)
        train(other, iter(other["loader"]), 2)
        before = tk.dumps(other["loader"])
        with pytest.raises(tk.MismatchError):
            tk.loads(data, into=other)
        assert tk.dumps(other["loader"]) == before

"""PyTorch: a loader of data that knows where it stands goes on there."""

from typing import Any

import pytest

import tensorkeep as tk

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
stateful_dataloader: Any = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")


def make(seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return stateful_dataloader.StatefulDataLoader(list(range(20)), batch_size=2, shuffle=True, generator=generator)


@pytest.mark.parametrize("batches", [0, 1, 4, 9])
def test_the_position_of_a_loader_comes_back(batches: int) -> None:
    """The batches that are left, in the same order, whatever the new one would have drawn."""
    loader = make(0)
    going = iter(loader)
    for _ in range(batches):
        next(going)
    data = tk.dumps({"loader": loader, "epoch": 3})
    target = {"loader": make(1), "epoch": 0}
    state = tk.loads(data, into=target)
    assert state["loader"] is target["loader"] and state["epoch"] == 3
    assert [batch.tolist() for batch in state["loader"]] == [batch.tolist() for batch in going]

"""What is saved: three states, each built once and shared by the cases that use it."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import nn

MIB: Final = 1 << 20


@dataclass(frozen=True)
class Scale:
    """How much of everything: the real sizes, or small ones that only show that all of it runs."""

    large: int = 256  # tensors of 4 MiB
    small: int = 20_000  # tensors of 1 KiB
    layers: int = 12  # of the transformer: 22 million parameters
    pairs: int = 9


FULL: Final = Scale()
QUICK: Final = Scale(large=4, small=200, layers=1, pairs=1)


def large(count: int) -> dict[str, torch.Tensor]:
    """Tensors of 4 MiB, float32."""
    return {f"blocks.{number}.weight": torch.randn(1024, 1024) for number in range(count)}


def small(count: int) -> dict[str, torch.Tensor]:
    """Tensors of 1 KiB, float32, each with memory of its own."""
    return {f"layers.{number}.weight": torch.randn(256) for number in range(count)}


def model_of(tensors: dict[str, torch.Tensor]) -> nn.Module:
    """A module with parameters of these names and shapes."""
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Linear(1024, 1024, bias=False) for _ in tensors])
    assert list(model.state_dict()) == list(tensors)
    return model


def transformer(layers: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A transformer of 384 channels and AdamW after one step: three numbers a parameter."""
    torch.manual_seed(0)
    model = nn.Module()
    model.embedding = nn.Embedding(2000, 384)
    block = nn.TransformerEncoderLayer(384, 6, 1536, batch_first=True)
    model.encoder = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The same values for peers that know NumPy only."""
    return {name: np.array(tensor.numpy()) for name, tensor in tensors.items()}


def flat(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """A whole training state as one flat dict, for peers that know no nesting."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for number, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{slot}": value for slot, value in slots.items()}
    return tensors

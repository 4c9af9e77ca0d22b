"""How this vector was made, once, by tensorkeep 0.1.0 with PyTorch 2.13. No test runs it: a vector is only ever read.

PYTHONPATH=tests python tests/vectors/modelfile-v1-by-0.1.0-torch/make.py
"""

import pathlib
import runpy
from typing import Any

import numpy as np
import torch
from torch import nn

import tensorkeep as tk

HERE = pathlib.Path(__file__).parent
expect = runpy.run_path(str(HERE.parent / "modelfile-v1-by-0.1.0" / "make.py"))["expect"]


class Tied(nn.Module):
    """Two names for one weight, a buffer, a module with a version, and an extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight

    def get_extra_state(self) -> Any:
        return {"calls": 3}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"calls": 3}


def counting(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    itemsize = torch.empty((), dtype=dtype).element_size()
    count = int(np.prod(shape)) * itemsize
    if dtype is torch.bool:
        return (torch.arange(count) % 2).to(dtype).reshape(shape)
    return torch.arange(count, dtype=torch.uint8).view(dtype).reshape(shape)


def state() -> Any:
    torch.manual_seed(0)
    model = Tied()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.95))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    model.head(model.norm(model.embed(torch.tensor([0, 3, 1])))).sum().backward()
    optimizer.step()
    scheduler.step()
    kinds = [
        *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32", "float64"),
        *("complex32", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    ]
    parameter = nn.Parameter(torch.arange(4.0))
    return {
        "model": model,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "dtypes": {name: counting(getattr(torch, name), 2, 3) for name in kinds},
        "numpy_beside": np.arange(3, dtype=np.int16),
        "parameter": parameter,
        "frozen": nn.Parameter(torch.ones(2, dtype=torch.float16), requires_grad=False),
        "views": [parameter.data[1:3], torch.arange(6).reshape(2, 3).t(), torch.zeros(2, 0), torch.tensor(7)],
        "sparse": [
            torch.sparse_coo_tensor(torch.tensor([[0, 1], [2, 0]]), torch.tensor([3.0, 4.0]), (2, 3)).coalesce(),
            torch.tensor([[0.0, 1.0], [2.0, 0.0]]).to_sparse_csr(),
        ],
        "values": [torch.float32, torch.bfloat16, torch.device("cpu"), torch.device("cuda", 1), torch.Size([2, 3])],
        "generator": torch.Generator().manual_seed(5),
        "rng": torch.get_rng_state(),
        "epoch": 3,
    }


def main() -> None:
    path = HERE / "model.safetensors"
    tk.save(state(), path)
    expect(path, tk.load(path))


if __name__ == "__main__":
    main()

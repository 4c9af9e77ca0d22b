"""How the vector was made, by 0.1.0. No test runs it; what it made is never made anew."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import torch
from blake3 import blake3

import tensorkeep as tk

HERE = Path(__file__).parent
rng = np.random.default_rng(2026)
weights = (rng.normal(size=40_000) * 0.02).astype(ml_dtypes.bfloat16)
layer = torch.nn.Linear(8, 4)
optimizer = torch.optim.AdamW(layer.parameters())
for parameter in layer.parameters():
    parameter.grad = torch.full_like(parameter, 0.5)

with tk.Store(HERE / "store") as store:
    for step in (100, 200, 300):
        optimizer.step()
        weights = (weights.astype(np.float32) * (1 + 0.001 * rng.normal(size=weights.size))).astype(ml_dtypes.bfloat16)
        state = {
            "weights": weights,
            "frozen": np.arange(20_000, dtype=np.int32),
            "zeros": np.zeros(30_000),
            "layer": layer,
            "optimizer": optimizer,
            "note": ("step", step, float("nan")),
        }
        store.save(state, step=step, metrics={"loss": 1 / step, "odd": float("inf")}, wait=True)
    store.tag("good", "step-200")
    store.prune(tk.Keep(last=3, best="loss", weights_only_after=2))
    store.gc()

expect = {}
for ref in ("step-100", "step-200", "step-300", "good"):
    with tk.open(f"{HERE / 'store'}@{ref}") as checkpoint:
        expect[ref] = {
            "tensors": {
                path: {"dtype": str(tensor.dtype), "shape": list(tensor.shape), "blake3": blake3(tensor.tobytes()).hexdigest()}
                for path, tensor in checkpoint.tensors.items()
            },
            "step": checkpoint.metadata["step"],
            "weights_only": checkpoint.metadata["weights_only"],
        }
(HERE / "expect.json").write_text(json.dumps(expect, indent=1) + "\n")

"""A real run: what a small GPT and its AdamW were at twenty steps, a hundred apart. Made once, kept in the temporary folder."""

import math
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

CHANNELS: Final = 128
LAYERS: Final = 3
CONTEXT: Final = 64
BATCH: Final = 8
COUNT: Final = 20
APART: Final = 100  # steps
STEPS: Final = 4000  # of the whole run, of which the last ones are kept, as a store keeps them
RATE: Final = 1e-3  # the highest; falls by a cosine to a tenth, after a hundred steps of warming up

Checkpoint = dict[str, "np.ndarray[Any, Any]"]


class Gpt(nn.Module):
    """Bytes in, the next byte out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, CHANNELS), nn.Embedding(CONTEXT, CHANNELS)
        layer = nn.TransformerEncoderLayer(CHANNELS, 4, 4 * CHANNELS, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, 256, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        hidden = self.blocks(self.bytes(text) + self.places(torch.arange(text.shape[1])), mask, is_causal=True)
        return self.head(self.norm(hidden))


def checkpoints(*, quick: bool = False) -> list[Checkpoint]:
    """Weights, both moments and the step counters of each, by `w.`, `m.`, `v.` or `s.` and the parameter's name.

    Args:
        quick: three of a run of three steps.
    """
    if quick:
        return _train(3, 3, 1)
    kept = Path(tempfile.gettempdir()) / f"tensorkeep-benchmarks-gpt-{CHANNELS}-{LAYERS}-{STEPS}-{torch.__version__}.npz"
    if not kept.exists():
        made = {f"{number}/{name}": array for number, one in enumerate(_train(STEPS, COUNT, APART)) for name, array in one.items()}
        np.savez(kept.with_suffix(".part.npz"), **made)  # type: ignore[arg-type]  # arrays by name
        kept.with_suffix(".part.npz").replace(kept)
    with np.load(kept, allow_pickle=False) as file:
        found: list[Checkpoint] = [{} for _ in range(COUNT)]
        for name in file.files:
            number, _, rest = name.partition("/")
            found[int(number)][rest] = file[name]
    return found


def _train(steps: int, count: int, apart: int) -> list[Checkpoint]:
    torch.manual_seed(0)
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8).long()
    model = Gpt()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    kept = []
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, step / 100) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))
        starts = torch.randint(len(text) - CONTEXT - 1, (BATCH, 1))
        batch = text[starts + torch.arange(CONTEXT + 1)]
        loss = nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step > steps - count * apart and (steps - step) % apart == 0:
            kept.append(_taken(model, optimizer))
    return kept


def _taken(model: nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint:
    taken = {}
    for name, parameter in model.named_parameters():
        slots = optimizer.state[parameter]
        values = {"w": parameter.detach(), "m": slots["exp_avg"], "v": slots["exp_avg_sq"], "s": slots["step"]}
        taken |= {f"{part}.{name}": value.numpy().copy() for part, value in values.items()}
    return taken

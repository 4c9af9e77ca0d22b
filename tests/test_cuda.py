"""PyTorch on a GPU: the promises of the host, where memory is another's. Skipped where there is none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from same import assert_same_bits

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no GPU is here", allow_module_level=True)


class Net(torch.nn.Module):
    """A tied pair, a buffer, dropout, and a convolution that lies in memory channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3)
        self.norm = torch.nn.BatchNorm2d(8)
        self.dropout = torch.nn.Dropout(0.5)
        self.embed = torch.nn.Linear(8, 8, bias=False)
        self.head = torch.nn.Linear(8, 8, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, images: Any) -> Any:
        return self.head(self.dropout(self.embed(self.norm(self.convolution(images)).mean((2, 3)))))


def made(seed: int, device: str = "cuda") -> dict[str, Any]:
    torch.manual_seed(seed)
    model = Net().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    generator = torch.Generator(device=device).manual_seed(seed)
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler, "generator": generator}


def trained(state: dict[str, Any], steps: int) -> list[float]:
    losses = []
    device = next(state["model"].parameters()).device
    for _ in range(steps):
        images = torch.randn(4, 3, 8, 8, device=device, generator=state["generator"])
        loss = state["model"](images).square().mean()
        state["optimizer"].zero_grad()
        loss.backward()
        state["optimizer"].step()
        state["scheduler"].step()
        losses.append(loss.item())
    return losses


def on_host(value: Any) -> Any:
    """A state with arrays for its tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy(), tuple(value.shape), str(value.dtype)
    if isinstance(value, dict):
        return {key: on_host(inner) for key, inner in value.items()}
    return type(value)(map(on_host, value)) if isinstance(value, (list, tuple)) else value


def parts(state: dict[str, Any]) -> Any:
    return on_host({"model": dict(state["model"].state_dict()), "optimizer": state["optimizer"].state_dict()})


@pytest.fixture(autouse=True)
def _deterministic() -> Any:
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = False


def test_a_training_on_the_gpu_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Weights, moments, schedule, the generators of data and of dropout: the losses that follow are the same."""
    path = tmp_path / "run.safetensors"
    state = made(1)
    trained(state, 3)
    tk.save({**state, "rng": torch.cuda.get_rng_state()}, path)
    wanted = trained(state, 3)
    again = made(2)
    loaded = tk.load(path, into=again)
    torch.cuda.set_rng_state(torch.as_tensor(loaded["rng"]))
    assert trained(again, 3) == wanted
    assert_same_bits(parts(again), parts(state))
    assert again["model"].head.weight is again["model"].embed.weight


def test_parameters_are_filled_in_place_on_their_device(tmp_path: Path) -> None:
    """The same objects, addresses and strides; a file from the host goes into a model on the GPU, and the other way."""
    for source, target in (("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")):
        path = tmp_path / f"{source}-{target}.safetensors"
        state, again = made(1, source), made(2, target)
        tk.save(state["model"], path)
        before = [(id(weight), weight.data_ptr(), weight.stride()) for weight in again["model"].parameters()]
        assert tk.load(path, into=again["model"]) is again["model"]
        assert [(id(weight), weight.data_ptr(), weight.stride()) for weight in again["model"].parameters()] == before
        assert_same_bits(on_host(dict(again["model"].state_dict())), on_host(dict(state["model"].state_dict())))
        assert all(weight.device.type == target for weight in again["model"].parameters())


@pytest.mark.parametrize("device", ["cuda", "cuda:0", torch.device("cuda", 0)], ids=str)
def test_device_puts_tensors_there_as_they_load(tmp_path: Path, device: Any) -> None:
    """`device=` moves every tensor; bits, dtypes and shapes stay."""
    dtypes = [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool, torch.complex64]
    wanted = {str(dtype): torch.randint(0, 2, (3, 5)).to(dtype) for dtype in dtypes}
    tk.save(wanted, tmp_path / "t.safetensors")
    found = tk.load(tmp_path / "t.safetensors", framework="torch", device=device)
    assert all(tensor.is_cuda for tensor in found.values())
    assert_same_bits(on_host(found), on_host(wanted))


def test_views_and_ties_on_the_gpu_are_kept(tmp_path: Path) -> None:
    """A tied tensor is stored once; transposed and sliced ones keep their values."""
    base = torch.arange(24.0, device="cuda").reshape(4, 6)
    state = {"base": base, "tied": base, "turned": base.t(), "every second": base[::2]}
    tk.save(state, tmp_path / "t.safetensors")
    found = tk.load(tmp_path / "t.safetensors", framework="torch", device="cuda")
    assert found["base"] is found["tied"]
    assert_same_bits(on_host(found), on_host(state))


def test_a_failed_load_leaves_the_gpu_as_it_was(tmp_path: Path) -> None:
    """One wrong shape, and no weight, moment or counter has changed."""
    state = made(1)
    trained(state, 2)
    other = made(3)
    other["model"].norm = torch.nn.BatchNorm2d(4).to("cuda")
    tk.save({"model": other["model"], "optimizer": other["optimizer"]}, tmp_path / "other.safetensors")
    before = parts(state)
    with pytest.raises(tk.MismatchError):
        tk.load(tmp_path / "other.safetensors", into={"model": state["model"], "optimizer": state["optimizer"]})
    assert_same_bits(parts(state), before)


def test_a_cast_into_the_gpu_is_counted(tmp_path: Path) -> None:
    """float32 into bfloat16 only with `cast=True`, rounded as PyTorch rounds."""
    weight = torch.randn(100, 10)
    tk.save({"w": weight}, tmp_path / "w.safetensors")
    target = torch.zeros(100, 10, dtype=torch.bfloat16, device="cuda")
    with pytest.raises(tk.MismatchError):
        tk.load(tmp_path / "w.safetensors", into={"w": target})
    with pytest.warns(tk.TensorkeepWarning):
        tk.load(tmp_path / "w.safetensors", into={"w": target}, cast=True)
    assert torch.equal(target.cpu(), weight.bfloat16())


def test_large_tensors_go_both_ways(tmp_path: Path) -> None:
    """Beyond one job's bytes, not a multiple of them, from a stream of work that is still running."""
    left = torch.randn(3000, 3001, device="cuda")
    for _ in range(20):
        left = left + 1  # queued: the save must wait for it
    tk.save({"w": left}, tmp_path / "w.safetensors")
    right = torch.zeros_like(left)
    tk.load(tmp_path / "w.safetensors", into={"w": right})
    assert torch.equal(left, right)
    assert np.array_equal(tk.load(tmp_path / "w.safetensors", framework="numpy")["w"], left.cpu().numpy())


def test_a_cuda_generator_without_its_device_is_its_state(tmp_path: Path) -> None:
    """It comes back as a generator of the GPU here, at its place."""
    generator = torch.Generator(device="cuda").manual_seed(5)
    torch.rand(3, device="cuda", generator=generator)
    tk.save({"generator": generator}, tmp_path / "g.safetensors")
    wanted = torch.rand(4, device="cuda", generator=generator)
    found = tk.load(tmp_path / "g.safetensors", framework="torch")["generator"]
    assert found.device.type == "cuda"
    assert torch.equal(torch.rand(4, device="cuda", generator=found), wanted)

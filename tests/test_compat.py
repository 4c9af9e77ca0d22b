"""Other tools read what we write, and we read what they write: with the tools themselves."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tensorkeep as tk
from same import assert_same_bits


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched from anywhere."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def _named(count: int) -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(count)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))


def _assert_equal_models(found: Any, wanted: Any) -> None:
    import torch

    ours, theirs = found.state_dict(), wanted.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor), name


class TestSafetensors:
    NUMPY = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")

    def test_numpy_reads_ours(self, tmp_path: Path) -> None:
        """Every NumPy type, empty and scalar arrays, under the same names and with the same bits."""
        safetensors = pytest.importorskip("safetensors.numpy")
        arrays = {name: np.arange(6).astype(name).reshape(2, 3) for name in self.NUMPY}
        arrays |= {"empty": np.zeros((0, 4), np.float32), "scalar": np.array(0.5, np.float32)}
        tk.save(arrays, tmp_path / "ours.safetensors")
        found = safetensors.load_file(tmp_path / "ours.safetensors")
        assert_same_bits({name: found[name] for name in arrays}, arrays)

    def test_numpy_is_read_by_us(self, tmp_path: Path) -> None:
        """A file by safetensors is a flat dict of arrays, with its metadata, and nothing to check against."""
        safetensors = pytest.importorskip("safetensors.numpy")
        arrays = {name: np.arange(6).astype(name).reshape(2, 3) for name in self.NUMPY}
        safetensors.save_file(arrays, tmp_path / "theirs.safetensors", metadata={"format": "np", "by": "them"})
        found = tk.load(tmp_path / "theirs.safetensors")
        assert_same_bits({name: found[name] for name in arrays}, arrays)
        with tk.open(tmp_path / "theirs.safetensors") as f:
            assert f.metadata["by"] == "them" and not f.digests
        verdict = tk.verify(tmp_path / "theirs.safetensors")
        assert verdict.unverified and not verdict.intact and not verdict.damaged

    def test_every_torch_type_both_ways(self, tmp_path: Path) -> None:
        """All types that safetensors writes for PyTorch: their file here, ours there, same bits."""
        torch = pytest.importorskip("torch")
        safetensors = pytest.importorskip("safetensors.torch")
        names = [
            *("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32"),
            *("float64", "complex64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz"),
        ]
        tensors = {}
        for name in names:
            dtype = getattr(torch, name)
            raw = torch.arange(8 * torch.empty((), dtype=dtype).element_size(), dtype=torch.uint8)
            tensors[name] = (raw % 2 == 1).view(dtype) if name == "bool" else raw.view(dtype).reshape(2, 4)
        tk.save(tensors, tmp_path / "ours.safetensors")
        safetensors.save_file(tensors, tmp_path / "theirs.safetensors")
        there = safetensors.load_file(tmp_path / "ours.safetensors")
        here = tk.load(tmp_path / "theirs.safetensors", framework="torch")
        for found in (there, here):
            assert set(found) == set(tensors)
            for name, tensor in tensors.items():
                assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
                assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name

    def test_a_whole_training_state_is_open_to_them(self, tmp_path: Path) -> None:
        """Nesting, values and ties do not hide the tensors: each is there under its path, readable by slices too."""
        torch = pytest.importorskip("torch")
        safetensors = pytest.importorskip("safetensors")
        model = _named(1)
        optimizer = torch.optim.AdamW(model.parameters())
        sum(parameter.sum() for parameter in model.parameters()).backward()
        optimizer.step()
        tk.save({"model": model, "optimizer": optimizer, "epoch": 3}, tmp_path / "run.safetensors", metadata={"note": "mine", "step": 7})
        with safetensors.safe_open(tmp_path / "run.safetensors", "pt") as f:
            assert set(f.keys()) >= {f"model.{name}" for name in model.state_dict()} | {"optimizer.state.0.exp_avg"}
            assert torch.equal(f.get_slice("model.0.weight")[1:3], model[0].weight[1:3])
            assert f.metadata()["format"] == "pt" and f.metadata()["note"] == "mine"

    def test_types_of_ml_dtypes(self, tmp_path: Path) -> None:
        """Types that NumPy lacks keep their names in the header, where the format has one."""
        arrays = {
            "BF16": np.arange(4).astype(ml_dtypes.bfloat16),
            "F8_E4M3": np.arange(4).astype(ml_dtypes.float8_e4m3fn),
            "F8_E5M2": np.arange(4).astype(ml_dtypes.float8_e5m2),
            "F4": np.arange(4).astype(ml_dtypes.float4_e2m1fn),
        }
        data = tk.dumps(arrays)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        assert {name: header[name]["dtype"] for name in arrays} == {name: name for name in arrays}
        safetensors = pytest.importorskip("safetensors")
        with safetensors.safe_open(_written(tmp_path, data), "np") as f:
            assert set(f.keys()) == set(arrays)


def _written(folder: Path, data: bytes) -> Path:
    path = folder / "written.safetensors"
    path.write_bytes(data)
    return path


class TestHub:
    def test_huggingface_hub_loads_ours(self, tmp_path: Path) -> None:
        """`load_torch_model` and `load_state_dict_from_file` take our file."""
        hub = pytest.importorskip("huggingface_hub")
        pytest.importorskip("torch")
        saved, fresh = _named(1), _named(2)
        tk.save(saved, tmp_path / "model.safetensors")
        assert hub.load_torch_model(fresh, tmp_path / "model.safetensors").missing_keys == []
        _assert_equal_models(fresh, saved)
        assert set(hub.load_state_dict_from_file(tmp_path / "model.safetensors")) == set(saved.state_dict())

    def test_we_load_its_files(self, tmp_path: Path) -> None:
        """What `save_torch_model` writes goes into a model."""
        hub = pytest.importorskip("huggingface_hub")
        pytest.importorskip("torch")
        saved, fresh = _named(1), _named(2)
        hub.save_torch_model(saved, tmp_path)
        tk.load(tmp_path / "model.safetensors", into=fresh)
        _assert_equal_models(fresh, saved)

    def test_accelerate_loads_ours(self, tmp_path: Path) -> None:
        """Into a model in memory, and into one on the meta device."""
        accelerate = pytest.importorskip("accelerate")
        saved, fresh = _named(1), _named(2)
        tk.save(saved, tmp_path / "model.safetensors")
        accelerate.load_checkpoint_in_model(fresh, str(tmp_path / "model.safetensors"))
        _assert_equal_models(fresh, saved)
        with accelerate.init_empty_weights():
            empty = _named(3)
        filled = accelerate.load_checkpoint_and_dispatch(empty, str(tmp_path), device_map={"": "cpu"})
        for name, parameter in saved.named_parameters():
            assert bool((filled.get_parameter(name) == parameter).all()), name

    @pytest.mark.parametrize("kind", ["Bert", "GPT2"])
    def test_transformers_from_pretrained(self, tmp_path: Path, kind: str) -> None:
        """A tiny model, also one with tied weights, saved by us beside its config; and back what `save_pretrained` writes."""
        pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        if kind == "Bert":
            sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 100}
            config, cls = transformers.BertConfig(**sizes), transformers.BertModel
        else:
            config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=100, n_positions=32)
            cls = transformers.GPT2LMHeadModel
        saved = cls(config).eval()
        config.save_pretrained(tmp_path / "ours")
        tk.save(saved, tmp_path / "ours" / "model.safetensors")
        theirs = cls.from_pretrained(tmp_path / "ours")
        _assert_equal_models(theirs, saved)
        theirs.save_pretrained(tmp_path / "theirs")
        fresh = cls(config)
        tk.load(tmp_path / "theirs" / "model.safetensors", into=fresh)
        _assert_equal_models(fresh, saved)

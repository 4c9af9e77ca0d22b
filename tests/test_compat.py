"""Other tools: what they write loads here, and what is written here loads there, without anybody doing anything for it."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tensorkeep as tk
from same import assert_same_bits

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is asked of the network; the packages read it when they are imported

NUMPY = [
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64", "complex64"),
    *("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz", "float4_e2m1fn"),
]
TORCH = [*NUMPY[:-1], "float4_e2m1fn_x2"]
_STANDARD = "BOOL U8 I8 U16 I16 U32 I32 U64 I64 F16 F32 F64 C64 BF16 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ F4"
HEADER_NAMES = {**dict(zip(NUMPY, _STANDARD.split(), strict=True)), "float4_e2m1fn_x2": "F4"}
SAFETENSORS_NUMPY = NUMPY[: NUMPY.index("bfloat16")]  # what its NumPy side has always known


def _array(name: str, shape: tuple[int, ...] = (3, 4)) -> np.ndarray:
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    count = int(np.prod(shape))
    values = np.arange(count) % 2 if dtype.itemsize == 1 else np.arange(count)
    return values.astype(np.float32).astype(dtype).reshape(shape)


def _tensor(torch: Any, name: str) -> Any:
    """A tensor of a dtype with every bit pattern that it may have, or a skip where this PyTorch lacks it."""
    dtype = getattr(torch, name, None)
    if dtype is None:
        pytest.skip(f"this PyTorch has no {name}")
    if name == "bool":
        return torch.arange(32).reshape(4, 8) % 3 == 0
    raw = np.random.default_rng(0).integers(0, 256, 32 * dtype.itemsize, np.uint8)
    return torch.from_numpy(raw).view(dtype).reshape(4, 8)


def _bits(tensor: Any) -> bytes:
    import torch

    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


class TestSafetensors:
    def test_every_state_of_ours_opens_there_and_equals(self, tmp_path: Path) -> None:
        """Names, order of bytes, dtypes and values of a mixed state are those that safetensors' own reader finds."""
        safetensors = pytest.importorskip("safetensors")
        arrays = {name: _array(name) for name in SAFETENSORS_NUMPY}
        arrays |= {"0-d": np.array(2.5), "empty": np.zeros((0, 3)), "large": np.arange(300_000.0), "F": np.asfortranarray(np.eye(3, 4))}
        state = {"net": arrays, "epoch": 3, "é": [np.ones(2), "text", None], "long": "x" * 70_000, 7: {(1, 2): np.ones(1)}}
        tk.save(state, tmp_path / "s.safetensors", metadata={"note": "hi", "n": 1})
        with safetensors.safe_open(tmp_path / "s.safetensors", framework="np") as file, tk.open(tmp_path / "s.safetensors") as contents:
            assert sorted(file.keys()) == sorted(contents.tensors)
            for name, array in arrays.items():
                assert_same_bits(file.get_tensor(f"net.{name}"), np.ascontiguousarray(array).reshape(array.shape))
                assert tuple(file.get_slice(f"net.{name}").get_shape()) == array.shape
            assert file.get_tensor("é.0").tolist() == [1, 1]
            assert file.get_slice("net.large")[10:20].tolist() == list(range(10, 20))
            metadata = file.metadata()
        assert (metadata["format"], metadata["note"]) == ("pt", "hi")
        assert all(type(key) is type(value) is str for key, value in metadata.items())
        assert json.loads(metadata["tensorkeep"])["version"]

    @pytest.mark.parametrize("name", NUMPY)
    def test_the_header_names_every_dtype_as_the_standard_does(self, tmp_path: Path, name: str) -> None:
        """safetensors finds each dtype under its own name, and the logical shape."""
        safetensors = pytest.importorskip("safetensors")
        array = _array(name)
        tk.save({"x": array}, tmp_path / "s.safetensors")
        with safetensors.safe_open(tmp_path / "s.safetensors", framework="np") as file:
            found = file.get_slice("x")
            assert (found.get_dtype(), tuple(found.get_shape())) == (HEADER_NAMES[name], array.shape)
        if name in SAFETENSORS_NUMPY:
            from safetensors.numpy import load, load_file

            assert_same_bits(load_file(tmp_path / "s.safetensors"), {"x": array})
            assert_same_bits(load(tk.dumps({"x": array}))["x"], array)

    @pytest.mark.parametrize("name", SAFETENSORS_NUMPY)
    def test_its_numpy_files_load_here(self, tmp_path: Path, name: str) -> None:
        """A file by safetensors.numpy is a flat dict of arrays, from a file and from bytes; there is nothing to check against."""
        numpy = pytest.importorskip("safetensors.numpy")
        arrays = {"x": _array(name), "empty": _array(name, (0, 2)), "0-d": _array(name, ())}
        numpy.save_file(arrays, tmp_path / "s.safetensors", metadata={"who": "safetensors"})
        for found in (tk.load(tmp_path / "s.safetensors"), tk.loads(numpy.save(arrays))):
            assert_same_bits(dict(sorted(found.items())), dict(sorted(arrays.items())))
        with tk.open(tmp_path / "s.safetensors") as contents:
            assert contents.metadata == {"who": "safetensors"}
            assert (contents.digests, contents.format) == (False, "safetensors")
        verdict = tk.verify(tmp_path / "s.safetensors")
        assert (verdict.intact, verdict.unverified, verdict.damaged, verdict.root) == (False, True, (), "")

    @pytest.mark.parametrize("name", TORCH)
    def test_torch_tensors_both_ways(self, tmp_path: Path, name: str) -> None:
        """Every dtype of PyTorch that safetensors knows, every bit: its file here, ours there, and into tensors that are there."""
        torch, there = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
        if not hasattr(torch, name):
            pytest.skip(f"this PyTorch has no {name}")
        tensor = _tensor(torch, name)
        path = tmp_path / "s.safetensors"
        try:
            there.save_file({"x": tensor}, path)
        except (KeyError, ValueError) as error:
            pytest.skip(f"this safetensors does not save {name}: {error!r}")
        found = tk.load(path, framework="torch")["x"]
        assert (found.dtype, found.shape, _bits(found)) == (tensor.dtype, tensor.shape, _bits(tensor))
        into = torch.zeros(tensor.shape, dtype=torch.uint8).view(torch.uint8) if tensor.dtype.itemsize == 1 else torch.zeros_like(tensor)
        into = into.view(tensor.dtype)
        tk.load(path, into={"x": into})
        assert _bits(into) == _bits(tensor)
        tk.save({"x": tensor}, path)
        with pytest.importorskip("safetensors").safe_open(path, framework="pt") as file:
            back = file.get_tensor("x")
            assert file.get_slice("x").get_dtype() == HEADER_NAMES[name]
        assert (back.dtype, back.shape, _bits(back)) == (tensor.dtype, tensor.shape, _bits(tensor))
        assert _bits(there.load_file(path)["x"]) == _bits(tensor)

    def test_a_whole_training_state_is_open_to_them(self, tmp_path: Path) -> None:
        """Nesting, values and ties do not hide the tensors: each is there under its path, readable by slices too."""
        torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors")
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(3)).sum().backward()
        optimizer.step()
        tk.save({"model": model, "optimizer": optimizer, "epoch": 3}, tmp_path / "run.safetensors", metadata={"note": "mine", "step": 7})
        with safetensors.safe_open(tmp_path / "run.safetensors", "pt") as file:
            assert set(file.keys()) >= {f"model.{name}" for name in model.state_dict()} | {"optimizer.state.0.exp_avg"}
            assert torch.equal(file.get_slice("model.0.weight")[1:3], model[0].weight[1:3])
            assert torch.equal(file.get_tensor("optimizer.state.0.exp_avg"), optimizer.state[model[0].weight]["exp_avg"])
            assert file.metadata()["format"] == "pt" and file.metadata()["note"] == "mine"

    def test_models_both_ways(self, tmp_path: Path) -> None:
        """`save_model` there and `load` here, `save` here and `load_model` there, tied weights and all."""
        torch, there = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
        model = _model(torch)
        there.save_model(model, str(tmp_path / "theirs.safetensors"))
        tk.save(model, tmp_path / "ours.safetensors")
        other, another = _model(torch), _model(torch)
        tk.load(tmp_path / "theirs.safetensors", into=other)
        missing, unexpected = there.load_model(another, tmp_path / "ours.safetensors")
        assert (set(missing), set(unexpected)) == (set(), set())
        for filled in (other, another):
            _assert_same_model(torch, filled, model)
            assert filled.head.weight is filled.embed.weight

    def test_what_it_refuses_is_refused_here(self, tmp_path: Path) -> None:
        """Metadata that are not text to text, as safetensors' reader demands them: neither opens such a file."""
        safetensors = pytest.importorskip("safetensors")
        from craft import safetensors as crafted

        tensor = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
        headers: list[Any] = [
            {"__metadata__": {"n": 1}, "x": tensor},
            {"__metadata__": {"n": None}, "x": tensor},
            {"__metadata__": ["n"], "x": tensor},
            {"x": tensor | {"dtype": "X9"}},
            {"x": tensor | {"shape": [2]}},
            {"x": tensor | {"data_offsets": [0, 2]}},
        ]
        for header in headers:
            (tmp_path / "bad.safetensors").write_bytes(crafted(header, b"x"))
            with pytest.raises(safetensors.SafetensorError):
                safetensors.safe_open(tmp_path / "bad.safetensors", framework="np")
            with pytest.raises(tk.FormatError):
                tk.open(tmp_path / "bad.safetensors")

    def test_metadata_are_text_to_text_whatever_they_were(self, tmp_path: Path) -> None:
        """Notes of any type, and keys of any alphabet, leave a file that safetensors opens."""
        safetensors = pytest.importorskip("safetensors")
        notes = {"format": "np", "n": 1, "list": [1.5, None], "text": '"\\\u2028\x00é', "": "", "bytes": b"\xff"}
        tk.save({"x": np.ones(1)}, tmp_path / "s.safetensors", metadata=notes)
        with safetensors.safe_open(tmp_path / "s.safetensors", framework="np") as file:
            found = file.metadata()
        assert {key: found[key] for key in ("format", "text", "")} == {key: notes[key] for key in ("format", "text", "")}
        assert set(found) == {"format", "text", "", "tensorkeep"}
        assert all(type(value) is str for value in found.values())

    def test_a_file_of_others_keeps_its_notes_when_it_is_saved_here(self, tmp_path: Path) -> None:
        """What `open` hands back as metadata can be passed on to `save`; other tools find the same."""
        numpy, safetensors = pytest.importorskip("safetensors.numpy"), pytest.importorskip("safetensors")
        numpy.save_file({"x": np.ones(3)}, tmp_path / "a.safetensors", metadata={"format": "np", "license": "mit"})
        with tk.open(tmp_path / "a.safetensors") as contents:
            tk.save(dict(contents.tensors), tmp_path / "b.safetensors", metadata=contents.metadata)
        with safetensors.safe_open(tmp_path / "b.safetensors", framework="np") as file:
            assert {key: value for key, value in file.metadata().items() if key != "tensorkeep"} == {"format": "np", "license": "mit"}
        assert_same_bits(tk.load(tmp_path / "b.safetensors"), {"x": np.ones(3)})
        assert tk.verify(tmp_path / "b.safetensors").intact


def _model(torch: Any) -> Any:
    """A model with a tied weight, buffers and an int one."""

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(11, 6)
            self.norm = torch.nn.BatchNorm1d(6)
            self.layers = torch.nn.ModuleList([torch.nn.Linear(6, 6) for _ in range(2)])
            self.head = torch.nn.Linear(6, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Any) -> Any:
            hidden = self.norm(self.embed(ids))
            for layer in self.layers:
                hidden = torch.relu(layer(hidden))
            return self.head(hidden)

    model = Model()
    model(torch.arange(11))  # moves the running mean
    return model.eval()


def _assert_same_model(torch: Any, found: Any, wanted: Any) -> None:
    states = found.state_dict(), wanted.state_dict()
    assert list(states[0]) == list(states[1])
    for name, tensor in states[1].items():
        assert states[0][name].dtype == tensor.dtype
        assert torch.equal(states[0][name], tensor), name


class TestHuggingFaceHub:
    @pytest.mark.parametrize("arrays", ["model", "NumPy"])
    def test_its_loaders_take_our_file(self, tmp_path: Path, arrays: str) -> None:
        """`load_state_dict_from_file` and `load_torch_model`, of a file and a folder: the mark that it asks for is there."""
        torch, hub = pytest.importorskip("torch"), pytest.importorskip("huggingface_hub", minversion="0.26")
        model = _model(torch)
        state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        tk.save(model if arrays == "model" else state, tmp_path / "model.safetensors")
        found = hub.load_state_dict_from_file(tmp_path / "model.safetensors")
        for name, tensor in found.items():
            assert torch.equal(tensor, model.state_dict()[name])
        for place in (tmp_path / "model.safetensors", tmp_path):
            other = _model(torch)
            result = hub.load_torch_model(other, place, strict=False)
            assert set(result.missing_keys) <= {"head.weight"} and not result.unexpected_keys  # tied: one name of it will do
            _assert_same_model(torch, other, model)

    def test_strictly_where_nothing_is_tied(self, tmp_path: Path) -> None:
        """`strict=True`, its default, finds no name missing."""
        torch, hub = pytest.importorskip("torch"), pytest.importorskip("huggingface_hub", minversion="0.26")
        model, other = (torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)) for _ in range(2))
        tk.save(model, tmp_path / "model.safetensors")
        assert hub.load_torch_model(other, tmp_path / "model.safetensors").missing_keys == []
        _assert_same_model(torch, other, model)

    def test_its_file_loads_here(self, tmp_path: Path) -> None:
        """`save_torch_model`, which leaves out a tied name, fills a model in whole."""
        torch, hub = pytest.importorskip("torch"), pytest.importorskip("huggingface_hub", minversion="0.26")
        model, other = _model(torch), _model(torch)
        hub.save_torch_model(model, str(tmp_path))
        tk.load(tmp_path / "model.safetensors", into=other)
        _assert_same_model(torch, other, model)

    def test_the_mark_may_be_another_if_somebody_wants_that(self, tmp_path: Path) -> None:
        """`metadata={"format": ...}` replaces the mark; the loader refuses what is not meant for it, so the mark is why it loads else."""
        hub = pytest.importorskip("huggingface_hub", minversion="0.26")
        pytest.importorskip("torch")
        tk.save({"x": np.ones(2, np.float32)}, tmp_path / "m.safetensors", metadata={"format": "np"})
        with pytest.raises(OSError, match="metadata"):
            hub.load_state_dict_from_file(tmp_path / "m.safetensors")
        tk.save({"x": np.ones(2, np.float32)}, tmp_path / "m.safetensors")
        assert hub.load_state_dict_from_file(tmp_path / "m.safetensors")["x"].tolist() == [1, 1]


class TestAccelerate:
    def test_load_checkpoint_in_model(self, tmp_path: Path) -> None:
        """Of a file and of a folder, strict or not."""
        torch, accelerate = pytest.importorskip("torch"), pytest.importorskip("accelerate")
        model = _model(torch)
        tk.save(model, tmp_path / "model.safetensors")
        for place in (tmp_path / "model.safetensors", tmp_path):
            for strict in (False, True):
                other = _model(torch)
                accelerate.load_checkpoint_in_model(other, str(place), strict=strict)
                _assert_same_model(torch, other, model)

    def test_by_a_device_map_into_empty_weights(self, tmp_path: Path) -> None:
        """A model without memory gets it from our file, the way that large models are loaded; part by part, too."""
        torch, accelerate = pytest.importorskip("torch"), pytest.importorskip("accelerate")
        model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
        tk.save(model, tmp_path / "model.safetensors")
        for device_map in ({"": "cpu"}, {"0": "cpu", "1": "cpu", "2": "cpu"}):
            with accelerate.init_empty_weights():
                other = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
            other = accelerate.load_checkpoint_and_dispatch(other, str(tmp_path / "model.safetensors"), device_map=device_map)
            _assert_same_model(torch, other, model)

    def test_its_file_loads_here(self, tmp_path: Path) -> None:
        """`Accelerator.save_model` fills a model here."""
        torch, accelerate = pytest.importorskip("torch"), pytest.importorskip("accelerate")
        model, other = _model(torch), _model(torch)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            accelerate.Accelerator(cpu=True).save_model(model, str(tmp_path))
        tk.load(tmp_path / "model.safetensors", into=other)
        _assert_same_model(torch, other, model)


class TestTransformers:
    def _tiny(self, kind: str) -> tuple[Any, Any]:
        """A class and a random model of it, some thousand parameters."""
        transformers = pytest.importorskip("transformers")
        pytest.importorskip("torch")
        if kind == "bert":
            config = transformers.BertConfig(
                vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, max_position_embeddings=20
            )
            cls = transformers.BertForMaskedLM
        elif kind == "gpt2":
            config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, n_positions=20)
            cls = transformers.GPT2LMHeadModel
        else:
            config = transformers.LlamaConfig(
                vocab_size=50,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                intermediate_size=24,
                tie_word_embeddings=kind == "llama, tied",
            )
            cls = transformers.LlamaForCausalLM
        return cls, cls(config).eval()

    @pytest.mark.parametrize("saved", ["model", "state_dict", "NumPy"])
    @pytest.mark.parametrize("kind", ["llama", "llama, tied", "bert", "gpt2"])
    def test_from_pretrained_takes_our_file(self, tmp_path: Path, kind: str, saved: str) -> None:
        """`config.json` and our file in a folder are a pretrained model: no key missing, none unexpected, every bit the same."""
        cls, model = self._tiny(kind)
        import torch

        model.config.save_pretrained(tmp_path)
        state = model.state_dict()
        whole = {"model": model, "state_dict": state, "NumPy": {name: tensor.numpy() for name, tensor in state.items()}}[saved]
        tk.save(whole, tmp_path / "model.safetensors")
        found, told = cls.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        _assert_same_model(torch, found, model)
        ids = torch.arange(10).reshape(1, 10)
        assert torch.equal(found(input_ids=ids).logits, model(input_ids=ids).logits)

    @pytest.mark.parametrize("kind", ["llama", "llama, tied", "bert", "gpt2"])
    def test_its_file_loads_here(self, tmp_path: Path, kind: str) -> None:
        """`save_pretrained` fills a model here, strictly, tied weights and all."""
        cls, model = self._tiny(kind)
        import torch

        model.save_pretrained(tmp_path)
        other = cls(model.config)
        tk.load(tmp_path / "model.safetensors", into=other)
        _assert_same_model(torch, other, model)

    def test_half_precision(self, tmp_path: Path) -> None:
        """A model in bfloat16 comes as such."""
        cls, model = self._tiny("llama")
        import torch

        model = model.to(torch.bfloat16)
        model.config.save_pretrained(tmp_path)
        tk.save(model, tmp_path / "model.safetensors")
        found = cls.from_pretrained(tmp_path, dtype=torch.bfloat16)
        _assert_same_model(torch, found, model)

"""Models of Transformers and PEFT in folders, as `from_pretrained` reads them: with checked files, and atomically."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is asked of the network; the packages read it when they are imported
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

IDS = torch.arange(8).reshape(1, 8)
_COMMON: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
_DECODER = {**_COMMON, "num_key_value_heads": 1, "bos_token_id": 1, "eos_token_id": 2}
KINDS = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", _DECODER),
    "tied": ("LlamaForCausalLM", "LlamaConfig", {**_DECODER, "tie_word_embeddings": True}),
    "bert": ("BertForMaskedLM", "BertConfig", _COMMON),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {**_DECODER, "num_local_experts": 3}),
    "marian": (
        "MarianMTModel",
        "MarianConfig",
        {
            "vocab_size": 50,
            "d_model": 16,
            "max_position_embeddings": 20,
            "pad_token_id": 0,
            "decoder_start_token_id": 0,
            **{f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")},
            **{f"{side}_ffn_dim": 24 for side in ("encoder", "decoder")},
        },
    ),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0},
    ),
}


def make(kind: str, **changes: Any) -> Any:
    cls, config, settings = KINDS[kind]
    return getattr(transformers, cls)(getattr(transformers, config)(**{**settings, **changes})).eval()


def logits(model: Any) -> Any:
    more = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=IDS, **more).logits


def state(model: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(model: Any, other: Any) -> None:
    found, wanted = model.state_dict(), other.state_dict()
    assert found.keys() == wanted.keys()
    assert all(found[name].dtype == wanted[name].dtype and torch.equal(found[name], wanted[name]) for name in found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_shard_size", [None, 4000])
def test_from_pretrained_and_load_read_the_folder(tmp_path: Path, kind: str, max_shard_size: int | None) -> None:
    """Config and weights, in one file or many, tied ones once: `from_pretrained` gives the same outputs, `load` fills a model."""
    model = make(kind)
    tk.save(model, tmp_path / "model", max_shard_size=max_shard_size)
    found, told = type(model).from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(told[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same(found, model)
    assert torch.equal(logits(found), logits(model))
    other = make(kind)
    assert tk.load(tmp_path / "model", into=other) is other
    assert_same(other, model)
    tree = tk.load(tmp_path / "model")
    assert all(isinstance(tensor, torch.Tensor) for tensor in tree.values())
    names = sorted(os.listdir(tmp_path / "model"))
    weights = [name for name in names if name.endswith(".safetensors")]
    assert all(tk.verify(tmp_path / "model" / name).intact for name in weights)
    assert (len(weights) > 1) == ("model.safetensors.index.json" in names) == (max_shard_size is not None)
    assert not [name for name in names if name.startswith(".")] and os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(("kind", "max_shard_size"), [("tied", 4000), ("mixtral", None)])
def test_the_folder_is_the_one_that_its_library_writes(tmp_path: Path, kind: str, max_shard_size: int | None) -> None:
    """The same files, the same config, the same tensors under the same names, in the same shards."""
    model = make(kind)
    model.save_pretrained(tmp_path / "theirs", max_shard_size=max_shard_size or "5GB")
    tk.save(model, tmp_path / "ours", max_shard_size=max_shard_size)
    assert sorted(os.listdir(tmp_path / "ours")) == sorted(os.listdir(tmp_path / "theirs"))
    for name in sorted(os.listdir(tmp_path / "ours")):
        if name.endswith(".json"):
            assert json.loads((tmp_path / "ours" / name).read_text()) == json.loads((tmp_path / "theirs" / name).read_text()), name
        else:
            with tk.open(tmp_path / "ours" / name) as ours, tk.open(tmp_path / "theirs" / name) as theirs:
                assert {path: tensor.tobytes() for path, tensor in ours.tensors.items()} == {
                    path: tensor.tobytes() for path, tensor in theirs.tensors.items()
                }


def test_which_paths_are_folders(tmp_path: Path) -> None:
    """A name without the suffix of a file, one with a dot in it, a slash, a folder that is there; `.safetensors` is one file."""
    model = make("bert")
    (tmp_path / "there.safetensors").mkdir()
    for name in ("plain", "bert-1.5-0.5B", "with.safetensors/", "there.safetensors"):
        tk.save(model, f"{tmp_path}/{name}", durable=False)
        assert (tmp_path / name / "config.json").is_file() and (tmp_path / name / "model.safetensors").is_file()
    tk.save(model, tmp_path / "one.safetensors")
    other = make("bert")
    assert_same(tk.load(tmp_path / "one.safetensors", into=other), model)
    with pytest.raises(OSError, match="folder"):
        tk.save({"model": model}, tmp_path / "plain")
    with pytest.raises(ValueError, match="max_shard_size"):
        tk.save(model, tmp_path / "two.safetensors", max_shard_size="5GB")
    with pytest.raises(ValueError, match="5GB"):
        tk.save(model, tmp_path / "shards", max_shard_size="many")
    with pytest.raises(FileExistsError):
        tk.save(model, tmp_path / "plain", overwrite=False)
    assert not (tmp_path / "shards").exists() and not (tmp_path / "two.safetensors").exists()


def test_a_later_save_takes_the_place_of_the_former(tmp_path: Path) -> None:
    """Shards and their index go, a tokenizer stays; a save that fails leaves the model that was there."""
    path = tmp_path / "model"
    tk.save(make("llama"), path, max_shard_size=4000)
    (path / "tokenizer.json").write_text("{}")
    second = make("llama", hidden_size=32)
    tk.save(second, path, metadata={"note": "second"})
    assert sorted(os.listdir(path)) == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    with tk.open(path) as contents:
        assert contents.metadata["note"] == "second"
    broken = make("llama")
    broken.lm_head.weight = torch.nn.Parameter(broken.lm_head.weight.to(torch.complex128))
    with pytest.raises(tk.UnsupportedError, match=r"lm_head.weight"):
        tk.save(broken, path)
    broken.save_pretrained = None  # fails when the config is to be written
    broken.lm_head.weight = torch.nn.Parameter(torch.ones(50, 16))
    with pytest.raises(TypeError):
        tk.save(broken, path)
    assert_same(type(second).from_pretrained(path), second)
    assert os.listdir(tmp_path) == ["model"]


def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    """A folder of a smaller model, and one whose file is damaged, by the library's names too: an error, and the model as it was."""
    tk.save(make("mixtral"), tmp_path / "model")
    for changes in (
        {"intermediate_size": 20},
        {"num_local_experts": 4},
        {},
    ):
        other = make("mixtral", **changes)
        before = state(other)
        if not changes:
            data = bytearray((tmp_path / "model" / "model.safetensors").read_bytes())
            data[-100] ^= 1
            (tmp_path / "model" / "model.safetensors").write_bytes(data)
        with pytest.raises(tk.MismatchError if changes else tk.CorruptError):
            tk.load(tmp_path / "model", into=other)
        assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())


def test_ties_that_the_config_does_not_know_are_written_twice(tmp_path: Path) -> None:
    """A head tied by hand: `from_pretrained` looks for both names, and finds both."""
    model = make("llama")
    model.lm_head.weight = model.model.embed_tokens.weight
    tk.save(model, tmp_path / "model")
    found, told = type(model).from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not told["missing_keys"] and torch.equal(logits(found), logits(model))


def test_half_precision_and_an_offline_config(tmp_path: Path) -> None:
    """A model in bfloat16 comes back as such, by the dtype in its config."""
    model = make("llama").to(torch.bfloat16)
    tk.save(model, tmp_path / "model")
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert found.dtype == torch.bfloat16
    assert_same(found, model)


def test_nothing_of_theirs_is_imported_for_others(tmp_path: Path) -> None:
    """A plain module is saved without Transformers or PEFT being imported."""
    code = (
        f"import sys, torch, tensorkeep as tk; tk.save(torch.nn.Linear(2, 2), {str(tmp_path / 'm.safetensors')!r});"
        "assert not {'transformers', 'peft', 'safetensors', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_quantized_model_is_written_by_its_library(tmp_path: Path) -> None:
    """Quantized by torchao through Transformers: its files get digests, and `from_pretrained` reads them."""
    quantization = pytest.importorskip("torchao.quantization")
    tk.save(make("llama"), tmp_path / "plain")
    config = transformers.TorchAoConfig(quantization.Int8WeightOnlyConfig())
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=config)
    assert type(model.model.layers[0].self_attn.q_proj.weight.data).__module__.startswith("torchao")
    tk.save(model, tmp_path / "quantized")
    assert tk.verify(tmp_path / "quantized").intact
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "quantized")
    assert torch.equal(logits(found), logits(model))


class TestAdapters:
    @pytest.fixture
    def peft(self) -> Any:
        return pytest.importorskip("peft")

    def adapted(self, peft: Any, base: Any, name: str = "default", **changes: Any) -> Any:
        config = peft.LoraConfig(**{"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False, **changes})
        return peft.get_peft_model(copy.deepcopy(base), config, adapter_name=name).eval()

    @pytest.mark.parametrize("changes", [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"trainable_token_indices": [1, 2]}])
    def test_adapters_alone(self, tmp_path: Path, peft: Any, changes: dict[str, Any]) -> None:
        """Config and weights of the adapters, a checked file: `PeftModel.from_pretrained` reads them, `load` fills them, under any name."""
        base = make("llama")
        model = self.adapted(peft, base, **changes)
        tk.save(model, tmp_path / "lora")
        assert {"adapter_config.json", "adapter_model.safetensors"} <= set(os.listdir(tmp_path / "lora"))
        assert tk.verify(tmp_path / "lora").intact
        found = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "lora").eval()
        assert torch.equal(logits(found), logits(model)) and not torch.equal(logits(model), logits(base))
        for name in ("default", "mine"):
            other = self.adapted(peft, base, name, **changes)
            assert tk.load(tmp_path / "lora", into=other) is other
            assert torch.equal(logits(other), logits(model))
        assert all(isinstance(tensor, torch.Tensor) for tensor in tk.load(tmp_path / "lora").values())

    def test_several_adapters_have_folders_of_their_own(self, tmp_path: Path, peft: Any) -> None:
        """As PEFT does it: the first at the top, each other under its name; each can be loaded."""
        base = make("llama")
        model = self.adapted(peft, base)
        model.add_adapter("other", peft.LoraConfig(r=3, target_modules=["v_proj"], init_lora_weights=False))
        tk.save(model, tmp_path / "lora")
        assert tk.verify(tmp_path / "lora" / "other").intact
        other = self.adapted(peft, base, r=3, target_modules=["v_proj"])
        tk.load(tmp_path / "lora" / "other", into=other)
        model.set_adapter("other")
        assert torch.equal(logits(other), logits(model))

    def test_prompts_go_in_by_their_own_code(self, tmp_path: Path, peft: Any) -> None:
        """What PEFT derives from its parameters, and puts back by code of its own."""
        base = make("llama")

        def prompted() -> Any:
            return peft.get_peft_model(copy.deepcopy(base), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()

        model, other = prompted(), prompted()
        tk.save(model, tmp_path / "prompt")
        tk.load(tmp_path / "prompt", into=other)
        assert torch.equal(logits(other), logits(model))

    def test_what_computes_prompts_is_no_part_of_a_folder(self, tmp_path: Path, peft: Any) -> None:
        """Nobody is left to believe that training could go on: its names are told; where the prompts cannot go in at all, it is refused."""
        base = make("llama")

        def prompted(**changes: Any) -> Any:
            shared = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3, "encoder_hidden_size": 8}
            return peft.get_peft_model(copy.deepcopy(base), peft.PromptEncoderConfig(**shared, **changes)).eval()

        model, other, used = prompted(), prompted(), prompted(inference_mode=True)
        tk.save(model, tmp_path / "prompt")
        with pytest.warns(tk.TensorkeepWarning, match=r"prompt_encoder\.default\.mlp_head\.0\.weight.* stay as they were"):
            tk.load(tmp_path / "prompt", into=other)
        tk.load(tmp_path / "prompt", into=used)
        assert torch.equal(logits(used), logits(model))
        shared = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3, "encoder_hidden_size": 8, "prefix_projection": True}
        prefixed = peft.get_peft_model(copy.deepcopy(base), peft.PrefixTuningConfig(**shared))
        tk.save(prefixed, tmp_path / "prefix")
        with pytest.raises(tk.MismatchError, match=r"Nothing was changed[\s\S]*inference_mode=True"):
            tk.load(tmp_path / "prefix", into=prefixed)

    def test_an_adapter_that_does_not_fit_changes_nothing(self, tmp_path: Path, peft: Any) -> None:
        """Another rank: an error with the names, and the adapter as it was."""
        base = make("llama")
        tk.save(self.adapted(peft, base), tmp_path / "lora")
        other = self.adapted(peft, base, r=4)
        before = state(other)
        with pytest.raises(tk.MismatchError, match="lora_A"):
            tk.load(tmp_path / "lora", into=other)
        assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())

    def test_adapters_that_transformers_attached(self, tmp_path: Path, peft: Any) -> None:
        """`model.add_adapter`: the folder has the adapters alone, and `load` fills them."""
        model, other = make("llama"), make("llama")
        for one in (model, other):
            try:
                one.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
            except ValueError as error:
                pytest.skip(f"this Transformers: {error}")
        tk.save(model, tmp_path / "lora")
        assert {"adapter_config.json", "adapter_model.safetensors"} <= set(os.listdir(tmp_path / "lora"))
        tk.load(tmp_path / "lora", into=other)
        found, wanted = other.get_adapter_state_dict(), model.get_adapter_state_dict()
        assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in found)

    def test_the_whole_goes_into_one_file(self, tmp_path: Path, peft: Any) -> None:
        """With the suffix of a model file: base and adapters, under their own names."""
        model, other = (self.adapted(peft, make("llama")) for _ in range(2))
        tk.save(model, tmp_path / "all.safetensors")
        tk.load(tmp_path / "all.safetensors", into=other)
        assert_same(other, model)
        with tk.open(tmp_path / "all.safetensors") as contents:
            assert np.prod(contents.tensors["base_model.model.lm_head.weight"].shape) == 50 * 16

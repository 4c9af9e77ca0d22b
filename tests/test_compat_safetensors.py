"""`tensorkeep.compat.safetensors`: the names of that package over ours, beside the package itself.

Its own Python tests, with their import lines changed, are run apart from these (docs/how-to/change-one-import.md tells how they end).
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorkeep as tk
from same import assert_same_bits
from tensorkeep.compat import safetensors as ours
from tensorkeep.compat.safetensors import numpy as ours_np

NUMPY = [
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64", "complex64"),
]
LATER = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz"]


def _theirs(module: str = "numpy") -> Any:
    return pytest.importorskip(f"safetensors.{module}" if module else "safetensors")


def _array(name: str, shape: tuple[int, ...]) -> np.ndarray:
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    return (np.arange(int(np.prod(shape))) % 2).astype(np.float32).astype(dtype).reshape(shape)


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
flat = st.dictionaries(names, st.builds(_array, st.sampled_from(NUMPY), shapes), max_size=6)
notes = st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), min_size=1, max_size=1)  # of an empty one they make no JSON


class TestBytes:
    @settings(max_examples=60, deadline=None)
    @given(flat, notes)
    def test_what_is_written_is_what_they_write(self, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None) -> None:
        """Byte for byte: the order, the header and its spaces, whatever names, dtypes and shapes; and each reads the other's."""
        theirs = _theirs()
        data = ours_np.save(arrays, metadata)
        assert data == theirs.save(arrays, metadata)
        assert_same_bits(dict(sorted(ours_np.load(data).items())), dict(sorted(arrays.items())))

    @pytest.mark.parametrize("name", [*NUMPY, *LATER])
    def test_every_dtype_goes_both_ways(self, tmp_path: Path, name: str) -> None:
        """A file of ours is found there with each dtype's name and bytes, and a file of theirs here."""
        _theirs()
        import safetensors

        arrays = {"x": _array(name, (3, 4)), "empty": _array(name, (0, 2)), "0-d": _array(name, ())}
        ours_np.save_file(arrays, tmp_path / "s.safetensors")
        with (
            safetensors.safe_open(tmp_path / "s.safetensors", framework="np") as there,
            ours.safe_open(tmp_path / "s.safetensors", "np") as here,
        ):
            assert (there.keys(), there.offset_keys()) == (here.keys(), here.offset_keys())
            assert there.get_slice("x").get_dtype() == here.get_slice("x").get_dtype()
        assert_same_bits(ours_np.load_file(tmp_path / "s.safetensors")["x"], arrays["x"])
        assert_same_bits(ours_np.load_file(tmp_path / "s.safetensors", backend="pread")["empty"], arrays["empty"])

    def test_arrays_that_do_not_lie_so_are_copied(self) -> None:
        """Big-endian, transposed and sliced arrays come back with their values; the package itself writes wrong ones for the last two."""
        arrays = {"big": np.arange(6, dtype=">i4"), "T": np.arange(6.0).reshape(2, 3).T, "slice": np.arange(8)[::2]}
        found = ours_np.load(ours_np.save(arrays))
        assert all(np.array_equal(found[name], array) for name, array in arrays.items())

    def test_addresses_and_back(self, tmp_path: Path) -> None:
        """`serialize`, `serialize_file` and `deserialize` take and give what the package's own do."""
        _theirs()
        import safetensors

        array = np.arange(6, dtype=np.float32)
        told = {"dtype": "float32", "shape": [2, 3], "data_ptr": array.ctypes.data, "data_len": array.nbytes}
        here, there = {"w": ours.TensorSpec(**told)}, {"w": safetensors.TensorSpec(**told)}
        assert repr(here["w"]) == repr(there["w"])
        assert ours.serialize(here, {"a": "b"}) == safetensors.serialize(there, {"a": "b"})
        ours.serialize_file(here, tmp_path / "s.safetensors")
        data = (tmp_path / "s.safetensors").read_bytes()
        assert (
            ours.deserialize(data) == safetensors.deserialize(data) == [("w", {"shape": [2, 3], "dtype": "F32", "data": array.tobytes()})]
        )
        with pytest.raises(ours.SafetensorError, match="24"):
            ours.serialize({"w": ours.TensorSpec(**{**told, "data_len": 20})})
        with pytest.raises(ours.SafetensorError, match="nonsense"):
            ours.TensorSpec(**{**told, "dtype": "nonsense"})

    def test_what_the_format_lacks_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        """Objects, complex128, an odd number of 4-bit floats, notes that are no texts, no array at all: the old file stays."""
        ours_np.save_file({"x": np.ones(2)}, tmp_path / "s.safetensors")
        before = (tmp_path / "s.safetensors").read_bytes()
        bad: list[Any] = [np.array([None]), np.ones(2, complex), np.ones(3, ml_dtypes.float4_e2m1fn), np.array(["text"]), [1.0]]
        for array in bad:
            with pytest.raises((ours.SafetensorError, TypeError)):
                ours_np.save_file({"x": array}, tmp_path / "s.safetensors")
        for metadata in ({"a": 1}, {1: "a"}):
            with pytest.raises(TypeError):
                ours_np.save_file({"x": np.ones(1)}, tmp_path / "s.safetensors", metadata)  # type: ignore[arg-type]  # refused
        with pytest.raises(ours.SafetensorError):
            ours_np.save({"__metadata__": np.ones(1)})
        assert (tmp_path / "s.safetensors").read_bytes() == before and os.listdir(tmp_path) == ["s.safetensors"]


class TestOpen:
    def test_slices_are_theirs(self, tmp_path: Path) -> None:
        """Every slice gives the same array, or is refused in both; the sentences of the refusals are equal too."""
        _theirs()
        import safetensors

        ours_np.save_file({"a": np.arange(50.0).reshape(10, 5), "0": np.array(1.0), "e": np.ones((0, 3))}, tmp_path / "s.safetensors")
        indices: list[Any] = [
            *(slice(None), (), slice(2), (slice(None), slice(2)), (0, slice(2)), (slice(2, None), -1), (slice(2, None), -5), [], 3, -1),
            *(
                (slice(2, None), -6),
                [0, 1],
                (slice(2, None), 20),
                slice(20),
                (slice(None), slice(20)),
                slice(3, 3),
                slice(10, None),
                (1, 2),
            ),
        ]
        with safetensors.safe_open(tmp_path / "s.safetensors", "np") as there, ours.safe_open(tmp_path / "s.safetensors", "np") as here:
            for index in indices:
                try:
                    wanted = there.get_slice("a")[index]
                except safetensors.SafetensorError as error:
                    with pytest.raises(ours.SafetensorError) as refused:
                        here.get_slice("a")[index]
                    assert str(refused.value) == str(error)
                else:
                    assert_same_bits(here.get_slice("a")[index], np.asarray(wanted))
            assert here.get_slice("a").get_shape() == there.get_slice("a").get_shape() == [10, 5]

    def test_arguments_and_states_that_are_refused(self, tmp_path: Path) -> None:
        """An unknown framework, device, backend or name, a closed file and a missing one: the error people catch."""
        path = tmp_path / "s.safetensors"
        ours_np.save_file({"a": np.ones(2)}, path)
        for arguments in (
            {"framework": "nonsense"},
            {"framework": "mlx"},
            {"framework": "np", "device": "cuda"},
            {"framework": "np", "backend": "x"},
        ):
            with pytest.raises(ours.SafetensorError):
                ours.safe_open(path, **arguments)
        with ours.safe_open(path, framework="numpy", device=None) as file:
            for get in (file.get_tensor, file.get_slice):
                with pytest.raises(ours.SafetensorError, match="nothing"):
                    get("nothing")
        with pytest.raises(ours.SafetensorError, match="closed"):
            file.keys()
        with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*gone"):
            ours.safe_open(tmp_path / "gone", framework="np")

    def test_a_model_file_opens_and_its_damage_is_found(self, tmp_path: Path) -> None:
        """What `save` wrote is read by these names too, as its header tells it, and each tensor is compared with its digest."""
        path = tmp_path / "run.safetensors"
        tk.save({"net": {"w": np.arange(50_000.0), "b": np.ones(3)}, "epoch": 3}, path, metadata={"note": "hi"})
        with ours.safe_open(path, framework="np") as file:
            assert file.keys() == ["net.b", "net.w"]
            metadata = file.metadata()
            assert metadata is not None and metadata["note"] == "hi" and "tensorkeep" in metadata
        data = bytearray(path.read_bytes())
        data[-1000] ^= 1
        path.write_bytes(data)
        for backend in ("mmap", "pread"):
            with ours.safe_open(path, framework="np", backend=backend) as file:
                with pytest.raises(ours.SafetensorError, match="damaged") as refused:
                    file.get_tensors()
                assert isinstance(refused.value.__cause__, tk.CorruptError)

    @settings(max_examples=40, deadline=None)
    @given(st.data())
    def test_broken_bytes_are_refused_in_one_way(self, data: Any) -> None:
        """Cut short anywhere, or with any bit of the header turned: `SafetensorError`, or a file that both read alike."""
        _theirs()
        import safetensors

        whole = ours_np.save({"a": np.arange(4, dtype=np.int16), "b": np.ones((2, 2), np.float32)}, {"k": "v"})
        if data.draw(st.booleans()):
            broken = whole[: data.draw(st.integers(0, len(whole) - 1))]
        else:
            at = data.draw(st.integers(0, len(whole) - 25))
            broken = whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
        try:
            found = ours.deserialize(broken)
        except ours.SafetensorError:
            return
        assert sorted(found, key=lambda item: item[0]) == sorted(safetensors.deserialize(broken), key=lambda item: item[0])


class TestTorch:
    def test_files_and_bytes_equal_theirs(self, tmp_path: Path) -> None:
        """Every dtype of PyTorch's that the package knows, written alike and read back bit for bit, by both backends."""
        torch, theirs = pytest.importorskip("torch"), _theirs("torch")
        from tensorkeep.compat.safetensors import torch as here

        tensors = {
            name: torch.arange(8).to(getattr(torch, name)).reshape(2, 4) for name in (*NUMPY, "bfloat16", "float8_e4m3fn", "float8_e5m2")
        }
        tensors["0-d"], tensors["empty"] = torch.tensor(1.5), torch.zeros((2, 0))
        if hasattr(torch, "float4_e2m1fn_x2"):
            tensors["f4"] = torch.arange(8, dtype=torch.uint8).reshape(2, 4).view(torch.float4_e2m1fn_x2)
        data = here.save(tensors, {"format": "pt"})
        assert data == theirs.save(tensors, {"format": "pt"})
        here.save_file(tensors, tmp_path / "s.safetensors", metadata={"format": "pt"})
        assert (tmp_path / "s.safetensors").read_bytes() == data
        for found in (
            here.load(data),
            here.load_file(tmp_path / "s.safetensors"),
            here.load_file(tmp_path / "s.safetensors", "cpu", backend="pread"),
        ):
            assert found.keys() == tensors.keys()
            for name, tensor in tensors.items():
                assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
                assert (
                    bytes(found[name].view(torch.uint8).numpy().reshape(-1)) == bytes(tensor.view(torch.uint8).numpy().reshape(-1))
                    if tensor.dim()
                    else True
                )

    def test_what_they_refuse_is_refused_with_the_same_class(self, tmp_path: Path) -> None:
        """Shared, strided, sparse and meta tensors, and what is no dict of tensors: ValueError or RuntimeError, in both."""
        torch, theirs = pytest.importorskip("torch"), _theirs("torch")
        from tensorkeep.compat.safetensors import torch as here

        base = torch.arange(6.0).reshape(2, 3)
        for bad in (
            {"a": base, "b": base[:1]},
            {"a": base.T},
            {"a": base.to_sparse()},
            {"a": torch.empty(2, device="meta")},
            {"a": {"b": base}},
            "no dict",
        ):
            with pytest.raises((ValueError, RuntimeError)) as wanted:
                theirs.save(bad)
            with pytest.raises((ValueError, RuntimeError)) as found:
                here.save(bad)
            assert isinstance(found.value, RuntimeError) == isinstance(wanted.value, RuntimeError)
        with pytest.raises(ours.SafetensorError):
            here.save({"a": torch.ones(2, dtype=torch.complex128)})
        with pytest.raises(ours.SafetensorError, match="invalid"):
            here.save_file({"a": base}, tmp_path / "s.safetensors")
            here.load_file(tmp_path / "s.safetensors", device="nonsense")

    def test_models_go_both_ways(self, tmp_path: Path) -> None:
        """Tied weights once, in the metadata too; a model that does not fit raises and is as it was, where theirs is half filled."""
        torch, theirs = pytest.importorskip("torch"), _theirs("torch")
        from tensorkeep.compat.safetensors import torch as here

        def model(width: int = 4) -> Any:
            layers = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(width, 4))
            if width == 4:
                layers[1].weight = layers[0].weight
            return layers

        source = model()
        here.save_model(source, tmp_path / "a.safetensors", {"k": "v"})
        theirs.save_model(source, str(tmp_path / "b.safetensors"), {"k": "v"})
        with ours.safe_open(tmp_path / "a.safetensors", "pt") as one, ours.safe_open(tmp_path / "b.safetensors", "pt") as other:
            assert (one.metadata(), one.keys()) == (other.metadata(), other.keys())
        for name, load in (("b", here.load_model), ("a", theirs.load_model), ("a", here.load_model)):
            filled = model()
            assert [list(part) for part in load(filled, tmp_path / f"{name}.safetensors")] == [[], []]
            assert all(torch.equal(filled.state_dict()[key], value) for key, value in source.state_dict().items())
        other = model(5)
        before = {key: value.clone() for key, value in other.state_dict().items()}
        with pytest.raises(RuntimeError, match=r'Missing key.*"1.weight"'):
            here.load_model(other, tmp_path / "a.safetensors")
        assert all(torch.equal(other.state_dict()[key], value) for key, value in before.items())
        missing, unexpected = here.load_model(other, tmp_path / "a.safetensors", strict=False)
        assert (set(missing), unexpected) == ({"1.weight"}, [])


class TestFlax:
    def test_arrays_of_jax(self, tmp_path: Path) -> None:
        """bf16 and the rest come back as JAX's own, from a file, from bytes and by name."""
        jax, _ = pytest.importorskip("jax"), _theirs("flax")
        import safetensors.flax

        from tensorkeep.compat.safetensors import flax

        arrays = {"w": jax.numpy.arange(6, dtype=jax.numpy.bfloat16).reshape(2, 3), "b": jax.numpy.zeros((2, 0))}
        assert flax.save(arrays, {"format": "flax"}) == safetensors.flax.save(dict(arrays), {"format": "flax"})
        flax.save_file(arrays, tmp_path / "s.safetensors")
        with ours.safe_open(tmp_path / "s.safetensors", framework="flax") as file:
            found = {"w": file.get_tensor("w"), "b": file.get_slice("b")[:1]}
        for one in (found, flax.load_file(tmp_path / "s.safetensors"), flax.load(flax.save(arrays))):
            assert isinstance(one["w"], jax.Array) and one["w"].dtype == jax.numpy.bfloat16
            assert np.array_equal(np.asarray(one["w"]), np.asarray(arrays["w"]))


class TestTensorFlow:
    def test_tensors_of_tensorflow(self, tmp_path: Path) -> None:
        """bf16 and truth values come back as TensorFlow's own, from a file, from bytes and by name."""
        tensorflow, _ = pytest.importorskip("tensorflow"), _theirs("tensorflow")
        import safetensors.tensorflow

        from tensorkeep.compat.safetensors import tensorflow as here

        tensors = {"w": tensorflow.ones((2, 3), tensorflow.bfloat16), "b": tensorflow.constant([True, False])}
        assert here.save(tensors) == safetensors.tensorflow.save(dict(tensors))
        here.save_file(tensors, tmp_path / "s.safetensors")
        with ours.safe_open(tmp_path / "s.safetensors", framework="tf") as file:
            found = {"w": file.get_tensor("w"), "b": file.get_slice("b")[:2]}
        for one in (found, here.load_file(tmp_path / "s.safetensors"), here.load(here.save(tensors))):
            assert all(tensorflow.is_tensor(one[name]) and one[name].dtype == tensors[name].dtype for name in tensors)
            assert all(np.array_equal(one[name].numpy(), tensors[name].numpy()) for name in tensors)


def test_nothing_is_imported_that_was_not_named() -> None:
    """The names for NumPy work where no framework was imported, and import none."""
    code = (
        "import sys, numpy as np; from tensorkeep.compat.safetensors.numpy import load, save; load(save({'a': np.ones(2)}));"
        "assert not {'torch', 'jax', 'flax', 'safetensors', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


IN_PLACE = """
import sys
import tensorkeep.compat.safetensors as ours
from tensorkeep.compat.safetensors import numpy, torch

for name, module in (("", ours), (".numpy", numpy), (".torch", torch)):
    sys.modules[f"safetensors{name}"] = module

import torch, transformers, huggingface_hub

config = transformers.LlamaConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, bos_token_id=1, eos_token_id=2
)
model = transformers.LlamaForCausalLM(config).eval()
for size in ("5GB", 4000):
    model.save_pretrained(f"model-{size}", max_shard_size=size)
    found = transformers.AutoModelForCausalLM.from_pretrained(f"model-{size}")
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in model.state_dict().items())
other = torch.nn.Linear(3, 3)
huggingface_hub.save_torch_model(other, "model-5GB")
assert not huggingface_hub.load_torch_model(other, "model-5GB").missing_keys
assert not any(name.startswith("safetensors._safetensors_rust") for name in sys.modules)
print("done")
"""


def test_transformers_runs_over_these_names(tmp_path: Path) -> None:
    """In the place of the package, under Transformers and the hub's client: they save and load models as they do with it."""
    for package in ("torch", "transformers", "huggingface_hub"):
        pytest.importorskip(package)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "ignore", "-c", IN_PLACE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("done"), done.stderr[-2000:]

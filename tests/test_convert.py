"""convert: other formats, bit for bit, read back by their own tools."""

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings

import tensorkeep as tk
from craft import safetensors
from same import assert_same_bits
from strategies import states
from tensorkeep.cli import cli

TARGETS = ("model", "safetensors", "npz", "pt")
SUFFIX = {"model": ".safetensors", "safetensors": ".safetensors", "npz": ".npz", "pt": ".pt"}


def arrays() -> dict[str, np.ndarray]:
    """Arrays of dtypes that every target has, odd shapes and sizes over a piece among them."""
    random = np.random.default_rng(0)
    return {
        "large": random.random((1300, 1001), np.float32),
        "middle": random.integers(0, 255, 70_001, np.uint8),
        "layer.0.w": random.random((3, 5)),
        "layer.1.w": random.random((2, 2, 2)).astype(np.float16),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 4), np.int32),
        "flags": np.array([True, False]),
        "complex": np.array([1 + 2j], np.complex64),
        "é.~": np.array([-1], np.int8),
    }


def read(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file, as our own readers read it."""
    with tk.open(path) as contents:
        return {name: tensor.numpy() for name, tensor in contents.tensors.items()}


def save(tmp_path: Path, state: Any, **options: Any) -> Path:
    tk.save(state, tmp_path / "source.safetensors", **options)
    return tmp_path / "source.safetensors"


def test_a_model_file_of_a_model_file_is_the_same_file(tmp_path: Path) -> None:
    """Nothing is lost: structure, ties, values, metadata, digests; equal states make equal files."""
    w = np.ones((300, 300))
    source = save(tmp_path, {"a": w, "b": [w, {"c": (1, None)}], 7: {"x"}, "long": "y" * 70_000}, metadata={"note": "n", "k": [1, 2.5]})
    done = tk.convert(source, tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == source.read_bytes()
    assert (done.left_out, done.notes, done.casts, done.renamed) == ((), (), (), ())
    assert (done.tensors, done.nbytes, done.files) == (2, source.stat().st_size, ("copy.safetensors",))


@given(states())
@settings(max_examples=60, deadline=None)
def test_any_state_comes_through_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, state: object) -> None:
    """Whatever `save` keeps, `convert` keeps."""
    folder = tmp_path_factory.mktemp("any")
    source = save(folder, state)
    tk.convert(source, folder / "copy.safetensors")
    assert_same_bits(tk.load(folder / "copy.safetensors"), tk.load(source))


def test_plain_safetensors_is_read_by_safetensors(tmp_path: Path) -> None:
    """Tensors and texts alone, without our document."""
    numpy = pytest.importorskip("safetensors.numpy")
    safe_open = pytest.importorskip("safetensors").safe_open
    source = save(tmp_path, arrays(), metadata={"note": "first", "n": 3})
    done = tk.convert(source, tmp_path / "plain.safetensors", to="safetensors")
    found = numpy.load_file(tmp_path / "plain.safetensors")
    assert_same_bits(found, _sorted_like(found, arrays()))
    with safe_open(tmp_path / "plain.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt", "note": "first"}
    assert [(value.path, value.text) for value in done.left_out] == [("metadata n", "safetensors keeps texts alone")]


def _sorted_like(order: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in order}


def test_npz_is_read_by_numpy(tmp_path: Path) -> None:
    """Every dtype that NumPy has, without pickle."""
    state = {**arrays(), "text": np.array(["ab", "ü"]), "when": np.array(["2026-01-02"], "M8[D]"), "c": np.ones(2, np.complex128)}
    state["fields"] = np.zeros(3, [("a", "<i4"), ("b", "<f8", (2,))])
    state["big"] = np.arange(5, dtype=">i4")
    tk.convert(save(tmp_path, state), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert set(found) == set(state)
        for name, array in state.items():
            assert found[name].dtype == array.dtype.newbyteorder("=") and found[name].shape == array.shape, name
            assert np.array_equal(found[name], array), name


@pytest.mark.parametrize("mmap", [False, True])
def test_a_torch_file_is_read_by_torch(tmp_path: Path, mmap: bool) -> None:
    """Accepted by `weights_only=True`, mapped or not; ties share a storage; every dtype of PyTorch's comes back."""
    torch = pytest.importorskip("torch")
    values = torch.linspace(-3, 3, 40)
    kinds = ["bfloat16", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "complex64", "complex128", "bool"]
    kinds += ["int8", "uint8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]
    kinds += [kind for kind in ("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu") if hasattr(torch, kind)]
    state = {kind: values.abs().to(getattr(torch, kind)).reshape(4, 10) for kind in kinds}
    large = torch.rand(1100, 1001)
    state |= {"large": large, "tied": large, "scalar": torch.tensor(2.5), "none": torch.zeros(0, 3)}
    tk.convert(save(tmp_path, state), tmp_path / "out.pt")
    found = torch.load(tmp_path / "out.pt", weights_only=True, mmap=mmap)
    assert type(found) is dict and list(found) == list(state)
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape and found[name].stride() == tensor.stride(), name
        assert torch.equal(found[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), name
    assert found["large"].data_ptr() == found["tied"].data_ptr()


@pytest.mark.parametrize("target", TARGETS)
def test_there_and_back_changes_no_bit(tmp_path: Path, target: str) -> None:
    """Model file to any target, and that back to a model file."""
    state = {"net": arrays()}
    source = save(tmp_path, state)
    there = tmp_path / f"there{SUFFIX[target]}"
    tk.convert(source, there, to=target)
    tk.convert(there, tmp_path / "back.safetensors")
    found, wanted = read(tmp_path / "back.safetensors"), read(source)
    assert_same_bits(_sorted_like(wanted, found), wanted)


def test_casts_round_as_torch_does_and_are_counted(tmp_path: Path) -> None:
    """bf16 and fp16 of float32 are PyTorch's to the bit; changed and overflowed values are told; integers stay."""
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(1)
    bits = random.integers(0, 2**32, 400_000, np.uint32)
    w = bits.view(np.float32)
    w = np.where(np.isnan(w), np.float32(1), w)
    source = save(tmp_path, {"w": w, "tied": w, "n": np.arange(3), "h": np.array([1.5], np.float16)})
    for name, kind, dtype in (("bf16", torch.bfloat16, "BF16"), ("fp16", torch.float16, "F16")):
        done = tk.convert(source, tmp_path / "cast.pt", dtype=name)
        found = torch.load(tmp_path / "cast.pt", weights_only=True)
        wanted = torch.from_numpy(w).to(kind)
        assert torch.equal(found["w"].view(torch.int16), wanted.view(torch.int16))
        assert found["n"].dtype == torch.int64
        (cast,) = [cast for cast in done.casts if cast.path == "w"]
        assert (cast.source, cast.target, cast.count) == ("F32", dtype, w.size)
        assert cast.changed == int((wanted.float() != torch.from_numpy(w)).sum())
        assert cast.overflowed == int((torch.isinf(wanted) & ~torch.isinf(torch.from_numpy(w))).sum())
    assert tk.convert(source, tmp_path / "cast.pt", dtype="fp32").casts[0].changed == 0


def test_a_dry_run_writes_nothing_and_reports_the_same(tmp_path: Path) -> None:
    """Casts are counted too."""
    source = save(tmp_path, {"w": np.linspace(0, 1, 100_000, dtype=np.float32), "epoch": 3})
    dry = tk.convert(source, tmp_path / "out.npz", dtype="fp16", dry_run=True)
    assert not (tmp_path / "out.npz").exists() and dry.dry_run
    wet = tk.convert(source, tmp_path / "out.npz", dtype="fp16")
    assert [getattr(dry, name) for name in ("tensors", "nbytes", "casts", "left_out", "files")] == [
        getattr(wet, name) for name in ("tensors", "nbytes", "casts", "left_out", "files")
    ]
    assert wet.nbytes == (tmp_path / "out.npz").stat().st_size


def test_only_and_rename_take_a_part_under_other_names(tmp_path: Path) -> None:
    """As in `load`; a clash is refused before anything is written."""
    source = save(tmp_path, {"model": {"a": np.ones(2), "b": np.zeros(3)}, "optimizer": {"a": np.ones(4)}})
    done = tk.convert(source, tmp_path / "part.npz", only="model.*", rename=[("model.*", "net.*")])
    assert sorted(np.load(tmp_path / "part.npz")) == ["net.a", "net.b"]
    assert done.renamed == (("model.a", "net.a"), ("model.b", "net.b"))
    with pytest.raises(tk.UnsupportedError, match="both be"):
        tk.convert(source, tmp_path / "clash.npz", rename={"model.a": "x", "model.b": "x"})
    assert not (tmp_path / "clash.npz").exists()


def test_only_that_takes_nothing_is_an_error(tmp_path: Path) -> None:
    """A slip of the pen writes no empty model."""
    with pytest.raises(ValueError, match=r"only='modle\.\*' takes nothing of .*source"):
        tk.convert(save(tmp_path, {"model": {"w": np.ones(2)}}), tmp_path / "out.npz", only="modle.*")
    assert not (tmp_path / "out.npz").exists()


def test_paths_in_lists_stay_where_they_are(tmp_path: Path) -> None:
    """What `only` leaves out of a list leaves a gap, and no other path moves."""
    source = save(tmp_path, {"layers": [{"w": np.ones(1)}, {"w": np.ones(2)}]})
    tk.convert(source, tmp_path / "part.safetensors", only="layers.1.*")
    assert list(read(tmp_path / "part.safetensors")) == ["layers.1.w"]


def test_shards_are_those_of_hugging_face(tmp_path: Path) -> None:
    """Names, index and sizes; each file is read by safetensors; what fits into one file is one file without an index."""
    numpy = pytest.importorskip("safetensors.numpy")
    state = {f"layer.{number}.w": np.full((100, 100), number, np.float32) for number in range(5)}
    source = save(tmp_path, {**state, "tied": state["layer.0.w"]})
    done = tk.convert(source, tmp_path / "model", max_shard_size="100KB")
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 6 * 40_000
    assert done.files == (*(f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)), "model.safetensors.index.json")
    assert sorted(os.listdir(tmp_path / "model")) == sorted(done.files)
    found: dict[str, Any] = {}
    for name in sorted(set(index["weight_map"].values())):
        part = numpy.load_file(tmp_path / "model" / name)
        assert {index["weight_map"][key] for key in part} == {name}
        found |= part
    assert set(found) == {*state, "tied"} and all(np.array_equal(found[name], state[name]) for name in state)
    tk.convert(source, tmp_path / "one", max_shard_size="1GiB")
    assert os.listdir(tmp_path / "one") == ["model.safetensors"]


def test_a_folder_that_holds_something_is_not_touched(tmp_path: Path) -> None:
    """Shards go into a new folder or an empty one; a failure leaves no folder behind."""
    source = save(tmp_path, {"w": np.ones(3)})
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something is there"):
        tk.convert(source, tmp_path / "taken", max_shard_size=100)
    assert os.listdir(tmp_path / "taken") == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    tk.convert(source, tmp_path / "empty", max_shard_size=100)
    assert os.listdir(tmp_path / "empty") == ["model.safetensors"]

    def stop(done: int, whole: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tk.convert(source, tmp_path / "stopped", max_shard_size=10, progress=stop)
    assert sorted(os.listdir(tmp_path)) == ["empty", "source.safetensors", "taken"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_failing_convert_leaves_the_old_file(tmp_path: Path, target: str) -> None:
    """Damage in the source is found on the way; what was there before is whole, and nothing is left behind."""
    source = save(tmp_path, {"a": np.ones(100_000), "b": np.ones(300_000)})
    data = bytearray(source.read_bytes())
    data[-5] ^= 1
    source.write_bytes(data)
    old = tmp_path / f"old{SUFFIX[target]}"
    old.write_bytes(b"what was there before")
    with pytest.raises(tk.CorruptError):
        tk.convert(source, old, to=target)
    assert old.read_bytes() == b"what was there before"
    assert len(os.listdir(tmp_path)) == 2


def test_dtypes_that_the_target_lacks_are_refused_by_name(tmp_path: Path) -> None:
    """The error names dtype, tensors and what to do; nothing is written."""
    state = {"a": np.ones(2, ml_dtypes.bfloat16), "b": np.ones(2, ml_dtypes.bfloat16), "c": np.ones(2)}
    with pytest.raises(tk.UnsupportedError, match=r"a: a tensor of BF16, which .npz does not have \(so are 1 more: b\)\n  Pass --dtype"):
        tk.convert(save(tmp_path, state), tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()
    with pytest.raises(tk.UnsupportedError, match=r"x: a tensor of U16, which GGUF does not have\n  Leave it out with --only"):
        tk.convert(save(tmp_path, {"x": np.ones(2, np.uint16)}), tmp_path / "out.gguf")  # no cast that there is would help
    for target, array in (
        ("safetensors", np.ones(2, np.complex128)),
        ("pt", np.array(["text"])),
        ("safetensors", np.ones(3, ml_dtypes.int4)),
    ):
        with pytest.raises(tk.UnsupportedError, match="does not have"):
            tk.convert(save(tmp_path, {"x": array}), tmp_path / "out.x", to=target)


def test_a_format_that_there_is_not_is_told(tmp_path: Path) -> None:
    """Which there are."""
    source = save(tmp_path, {"a": 1})
    for target, options in (("x.foo", {}), ("x.npz", {"to": "bar"}), ("x", {"max_shard_size": "much"}), ("x.npz", {"dtype": "int3"})):
        with pytest.raises(ValueError, match=r"there are|a number of bytes"):
            tk.convert(source, tmp_path / target, **options)
    with pytest.raises(ValueError, match="shards"):
        tk.convert(source, tmp_path / "x.npz", to="npz", max_shard_size=5)


def test_a_file_can_be_converted_into_itself(tmp_path: Path) -> None:
    """The old one is read until the new one takes its place."""
    source = save(tmp_path, {"w": np.ones(100_000, np.float32)})
    tk.convert(source, source, dtype="bf16")
    with tk.open(source) as contents:
        assert str(contents.tensors["w"].dtype) == "BF16"


def test_bad_truth_values_of_a_stranger_are_refused(tmp_path: Path) -> None:
    """As in `load`."""
    (tmp_path / "bad.safetensors").write_bytes(safetensors({"b": {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}}, b"\x01\x02"))
    for target in TARGETS:
        with pytest.raises(tk.FormatError, match="BOOL"):
            tk.convert(tmp_path / "bad.safetensors", tmp_path / f"out{SUFFIX[target]}", to=target)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of its memory")
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """A model of 2 GiB, one tensor of it 1.5 GiB, goes through every writer in well under 512 MiB."""
    sizes = {"large": 3 << 29, **{f"part.{number}": 32 << 20 for number in range(16)}}
    header, at = {}, 0
    for name, size in sizes.items():
        header[name] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [at, at + size]}
        at += size
    with open(tmp_path / "huge.safetensors", "wb") as file:
        file.write(safetensors(header))
        file.truncate(file.tell() + at)  # a hole: it takes no room on the disk
    code = (
        "import tensorkeep as tk\n"
        "for to in ('model', 'pt'):\n"
        "    assert tk.convert('huge.safetensors', 'out', to=to, dry_run=True).nbytes > 2 << 30\n"
        "tk.convert('huge.safetensors', 'out', max_shard_size='1GB', dry_run=True)\n"
        "tk.convert('huge.safetensors', 'out', to='pt', dtype='bf16', only='part.1*', dry_run=True)\n"
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    environment = {**os.environ, "TENSORKEEP_THREADS": "4"}  # each has some memory in use, and machines have any number of cores
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200 << 10, "KiB"


def test_the_command_tells_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors, casts, what is left out; the same as JSON; wrong usage has exit code 2."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path, {"a": {"w": np.array([0.1], np.float32)}, "epoch": 3})
    done = CliRunner().invoke(cli, ["convert", "source.safetensors", "out.npz", "--dtype", "fp16", "--rename", "a.*=b.*"])
    assert done.exit_code == 0
    assert "out.npz: .npz, from source.safetensors (tensorkeep model file)" in done.output
    assert "1 tensor cast to F16: 1 of 1 value changed" in done.output
    assert "epoch  a plain value: .npz holds tensors alone" in done.output
    assert list(np.load("out.npz")) == ["b.w"]
    told = json.loads(CliRunner().invoke(cli, ["convert", "source.safetensors", "out.pt", "--json", "--dry-run"]).output)
    assert (told["command"], told["tensors"], told["dry_run"]) == ("convert", 1, True)
    for wrong in (["x.foo"], ["x.npz", "--rename", "nothing"], ["x.npz", "--rename", "*=x"]):
        assert CliRunner().invoke(cli, ["convert", "source.safetensors", *wrong]).exit_code == 2


def test_gguf_is_read_by_gguf(tmp_path: Path) -> None:
    """Names, shapes the other way round, bits, and metadata of every kind that GGUF has; what it lacks is told."""
    gguf = pytest.importorskip("gguf")
    random = np.random.default_rng(0)
    state = {"f32": random.random((33, 7), np.float32), "f16": np.ones(3, np.float16), "bf16": np.ones((2, 2), ml_dtypes.bfloat16)}
    state |= {"i": np.arange(5, dtype=np.int32), "f64": random.random((1, 2, 3, 4)), "large": random.random((1200, 1001), np.float32)}
    metadata = {"general.architecture": "llama", "count": 3, "below": -7, "far": 2**40, "half": 0.5, "tenth": 0.1, "yes": True}
    metadata |= {"words": ["a", "é"], "types": [1, 2, 3], "scores": [0.5, -1.0], "flags": [True, False], "none": []}
    source = save(tmp_path, state, metadata={**metadata, "nested": {"a": 1}, "mixed": [1, "a"]})
    done = tk.convert(source, tmp_path / "out.gguf")
    assert [value.path for value in done.left_out] == ["metadata nested", "metadata mixed"]
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    assert {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")} == metadata
    assert {tensor.name for tensor in reader.tensors} == set(state)
    for tensor in reader.tensors:
        assert tuple(tensor.shape)[::-1] == state[tensor.name].shape
        assert np.asarray(tensor.data).tobytes() == state[tensor.name].tobytes()
    tk.convert(tmp_path / "out.gguf", tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "out.gguf").read_bytes()
    for bad in ({"x" * 64: np.ones(1)}, {"x": np.ones((1, 1, 1, 1, 1))}, {"x": np.ones(1, np.uint8)}):
        with pytest.raises(tk.UnsupportedError):
            tk.convert(save(tmp_path, bad), tmp_path / "bad.gguf")


def test_quantized_blocks_go_through_and_are_undone_when_asked(tmp_path: Path) -> None:
    """GGUF to model file and back keeps the blocks; `dequantize` gives the numbers that gguf gives."""
    gguf = pytest.importorskip("gguf")
    random = np.random.default_rng(0)
    values = random.normal(size=(64, 256)).astype(np.float32)
    blocks = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    writer.add_tensor("w", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tk.convert(tmp_path / "q.gguf", tmp_path / "q.safetensors")
    tk.convert(tmp_path / "q.safetensors", tmp_path / "back.gguf")
    assert np.array_equal(gguf.GGUFReader(tmp_path / "back.gguf").tensors[0].data, blocks)
    with pytest.raises(tk.UnsupportedError, match="Q8_0"):
        tk.convert(tmp_path / "q.gguf", tmp_path / "q.npz")
    tk.convert(tmp_path / "q.gguf", tmp_path / "q.npz", dequantize=True)
    wanted = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0)
    assert np.array_equal(np.load(tmp_path / "q.npz")["w"], wanted)
    tk.convert(tmp_path / "q.gguf", tmp_path / "half.npz", dequantize=True, dtype="fp16")
    assert np.array_equal(np.load(tmp_path / "half.npz")["w"], wanted.astype(np.float16))


def test_hdf5_is_read_by_h5py(tmp_path: Path) -> None:
    """Groups for containers, a data set for each tensor, ties as one; hundreds of members in a group."""
    h5py = pytest.importorskip("h5py")
    w = np.random.default_rng(0).random((1100, 1001), np.float32)
    layers = {f"dense_{number}": {"vars": {"0": np.full((2, 3), number, np.float32)}} for number in range(300)}
    state = {"layers": layers, "list": [w, w], "é/ü": np.arange(3), **{key: value for key, value in arrays().items() if "." not in key}}
    state["double"] = np.ones(2, np.complex128)
    done = tk.convert(save(tmp_path, state), tmp_path / "out.weights.h5")
    assert done.target_format == "HDF5" and len(done.notes) == 1 and "1 name has a slash" in done.notes[0]
    with h5py.File(tmp_path / "out.weights.h5", "r") as file:
        assert len(file["layers"]) == 300
        for number in range(300):
            assert np.array_equal(file[f"layers/dense_{number}/vars/0"], layers[f"dense_{number}"]["vars"]["0"])
        assert np.array_equal(file["list/0"], w) and file["list/0"] == file["list/1"]
        for name, array in state.items():
            if isinstance(array, np.ndarray):
                assert file[name].dtype == array.dtype and file[name].shape == array.shape, name
                assert np.asarray(file[name][()]).tobytes() == array.tobytes(), name


def test_names_that_hdf5_lacks_are_refused(tmp_path: Path) -> None:
    """Empty parts, clashes of a group with a data set, nesting without end."""
    for bad in ({"a//b": w()}, {"a/b": w(), "a": w()}, {"a": w(), "a/b": w()}, {".": w()}, {1: w(), "1": w()}, {"/".join("x" * 200): w()}):
        with pytest.raises(tk.UnsupportedError, match=r"HDF5|group"):
            tk.convert(save(tmp_path, bad), tmp_path / "out.h5")
    with pytest.raises(tk.UnsupportedError, match="fp32"):
        tk.convert(save(tmp_path, {"a": np.ones(1, ml_dtypes.bfloat16)}), tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def w() -> np.ndarray:
    return np.ones(2)


class Estimator:
    """What a stranger may have pickled."""

    def __init__(self) -> None:
        self.coef_, self.alpha, self.kernel = np.arange(6.0).reshape(2, 3), 0.5, Kernel()
        self.bounds = Bounds()


class Kernel:
    """An object without anything in it."""


class Bounds:
    """An object without a tensor."""

    def __init__(self) -> None:
        self.low = 1


def test_objects_of_a_pickle_leave_their_tensors(tmp_path: Path) -> None:
    """What is no data stays behind, with its path; tensors and values inside of it keep theirs."""
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": Estimator(), "n": 3}))
    done = tk.convert(tmp_path / "model.pkl", tmp_path / "model.safetensors")
    tree = tk.load(tmp_path / "model.safetensors")
    assert tree["n"] == 3 and tree["model"]["alpha"] == 0.5
    assert np.array_equal(tree["model"]["coef_"], Estimator().coef_)
    assert tree["model"]["bounds"] == {"low": 1}
    assert [(value.path, value.text) for value in done.left_out] == [("model.kernel", f"an object of {__name__}.Kernel")]
    assert [(value.path, value.text) for value in done.objects] == [
        ("model", f"{__name__}.Estimator"),
        ("model.bounds", f"{__name__}.Bounds"),
    ]
    said = CliRunner().invoke(cli, ["convert", str(tmp_path / "model.pkl"), str(tmp_path / "model.npz")]).output
    assert "objects, kept as dicts of what they hold" in said and "left out" in said


def test_a_vocabulary_comes_through(tmp_path: Path) -> None:
    """GGUF's long lists of texts and numbers stay whole in a model file, and on the way back."""
    metadata = {"general.architecture": "x", "tokens": [f"t{n}" for n in range(5000)], "scores": [-0.5 * n for n in range(5000)]}
    metadata["template"] = "{{ x }}" * 20_000
    tk.convert(save(tmp_path, {"w": w()}, metadata=metadata), tmp_path / "a.gguf")
    done = tk.convert(tmp_path / "a.gguf", tmp_path / "b.safetensors")
    tk.convert(tmp_path / "b.safetensors", tmp_path / "c.gguf")
    assert not done.left_out and (tmp_path / "c.gguf").read_bytes() == (tmp_path / "a.gguf").read_bytes()


def test_archives_over_4_gib_have_wide_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same fields for small numbers, as if 4 GiB were 1,000 bytes: the standard library and our own reader understand them."""
    monkeypatch.setattr("tensorkeep.wire.zip_write._WIDE_FROM", 1000)
    state = {f"t{number}": np.full(100, number) for number in range(5)} | {"small": np.ones(3)}
    tk.convert(save(tmp_path, state), tmp_path / "out.npz")
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        assert archive.testzip() is None
    with np.load(tmp_path / "out.npz") as found:
        assert all(np.array_equal(found[name], array) for name, array in state.items())
    assert tk.same(tmp_path / "source.safetensors", tmp_path / "out.npz")


@pytest.mark.parametrize("target", TARGETS)
def test_equal_contents_make_equal_files(tmp_path: Path, target: str) -> None:
    """No time, no host, no name of the source stands in them."""
    source = save(tmp_path, arrays())
    for name in ("one", "two"):
        tk.convert(source, tmp_path / name, to=target)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_storages_of_a_torch_file_begin_on_multiples_of_64(tmp_path: Path) -> None:
    """So that a mapping of it can be used as it is."""
    tk.convert(save(tmp_path, arrays()), tmp_path / "out.pt")
    data = (tmp_path / "out.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "out.pt") as archive:
        for member in archive.infolist():
            at = member.header_offset
            name, extra = struct.unpack_from("<HH", data, at + 26)
            assert (at + 30 + name + extra) % 64 == 0, member.filename

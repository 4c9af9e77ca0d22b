"""PyTorch's own files: read without PyTorch, and the same bits as `torch.load` gives."""

import contextlib
import io
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorkeep as tk
from craft import safetensors

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:torch", "ignore:.*beta state", "ignore:.*ComplexHalf", "ignore:Sparse invariant"
)
REFUSALS = (tk.FormatError, tk.CorruptError, tk.UnsupportedError)


def bits(tensor: Any) -> bytes:
    """The bytes of a tensor, whatever its dtype, as they would lie in a file."""
    plain = tensor.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""


def assert_same(found: Any, wanted: Any) -> None:
    """Two states: the same structure, and in it the same dtypes, shapes and bits."""
    if isinstance(wanted, torch.Tensor):
        assert isinstance(found, torch.Tensor)
        assert (found.dtype, found.shape, found.layout) == (wanted.dtype, wanted.shape, wanted.layout)
        if wanted.layout is torch.sparse_coo:
            assert_same(found._indices(), wanted._indices())
            assert_same(found._values(), wanted._values())
            assert found.is_coalesced() == wanted.is_coalesced()
        elif wanted.layout is torch.strided:
            assert bits(found) == bits(wanted)
        else:
            assert torch.equal(found.to_dense(), wanted.to_dense())
    elif isinstance(wanted, dict):
        assert type(found) is type(wanted)
        assert list(found) == list(wanted)
        for key, value in wanted.items():
            assert_same(found[key], value)
    elif isinstance(wanted, (list, tuple)):
        assert type(found) is type(wanted)
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert type(found) is type(wanted)
        assert found == wanted


def small_model() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))


def checkpoint() -> dict[str, Any]:
    """What people save: a model, its optimizer, and where they were."""
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "shape": torch.Size([1, 2]),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "names": ["a", ("b", None, 1.5, True)],
        2: {"int": "key"},
    }


def views() -> dict[str, Any]:
    """Tensors that are views, in every way."""
    base = torch.arange(24.0).reshape(4, 6)
    return {
        "whole": base,
        "again": base,
        "transposed": base.t(),
        "sliced": base[1:3, ::2],
        "row": base[2],
        "expanded": torch.ones(1, 3).expand(5, 3),
        "permuted": torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
        "scalar": base[3, 5],
        "empty": torch.empty(0, 3),
        "empty inside": torch.empty(2, 0, 3),
    }


def numbers() -> dict[str, Any]:
    """A tensor of each dtype."""
    base = torch.arange(12.0).reshape(3, 4)
    names = [
        "float64",
        "float16",
        "bfloat16",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "bool",
        "complex64",
        "complex128",
        "uint16",
        "uint32",
        "uint64",
    ]
    names += ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "complex32"]
    return {name: base.to(getattr(torch, name)) for name in names if hasattr(torch, name)}


KINDS: dict[str, Callable[[], Any]] = {
    "checkpoint": checkpoint,
    "views": views,
    "numbers": numbers,
    "bare tensor": lambda: torch.arange(5),
    "nothing": dict,
    "numpy": lambda: {"array": np.arange(6.0).reshape(2, 3), "big": np.arange(20_000), "n": np.float32(1.5)},
    "parameter": lambda: {"p": torch.nn.Parameter(torch.ones(3)), "plain": torch.zeros(2)},
    "sparse": lambda: {
        "coo": torch.eye(3).to_sparse(),
        "uncoalesced": torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 2.0], (2, 2)),
        "csr": torch.eye(3).to_sparse_csr(),
        "csc": torch.eye(3).to_sparse_csc(),
        "bsr": torch.eye(4).to_sparse_bsr((2, 2)),
        "bsc": torch.eye(4).to_sparse_bsc((2, 2)),
    },
    "conjugate": lambda: {
        "conj": torch.tensor([1 + 2j, 3 - 4j]).conj(),
        "neg": torch._neg_view(torch.arange(4.0)),
        "imag": torch.tensor([1 + 2j]).conj().imag,
        "ints": torch._neg_view(torch.arange(4)),
    },
}
OLD_ONES = {name: make for name, make in KINDS.items() if name != "numpy"}


def written(obj: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(obj, buffer, **options)
    return buffer.getvalue()


def loaded(data: bytes, **options: Any) -> Any:
    return tk.load(io.BytesIO(data), framework="torch", **options)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_reads_as_torch_reads_it(kind: str, protocol: int) -> None:
    """Every kind of tensor and value, in a zip archive, by each protocol."""
    data = written(KINDS[kind](), pickle_protocol=protocol)
    wanted = torch.load(io.BytesIO(data), weights_only=False)
    if kind == "numpy":
        found = tk.load(io.BytesIO(data))
        assert found["array"].tobytes() == wanted["array"].tobytes()
        assert found["big"].tobytes() == wanted["big"].tobytes()
        assert found["n"] == 1.5
    else:
        assert_same(loaded(data), wanted)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", OLD_ONES)
def test_a_stream_of_old_reads_as_torch_reads_it(kind: str, protocol: int) -> None:
    """The same in the stream that `torch.save` wrote before 1.6."""
    state = OLD_ONES[kind]()
    data = written(state, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    # PyTorch 2.13 writes its newer dtypes into a stream and cannot read them from there.
    assert_same(loaded(data), state if kind == "numbers" else torch.load(io.BytesIO(data), weights_only=False))


def test_without_a_framework_everything_is_numpy(tmp_path: Path) -> None:
    """A file by others gives NumPy's arrays, read from its mapping, unless a framework is asked for."""
    path = tmp_path / "x.pt"
    torch.save({"w": torch.arange(6.0).reshape(2, 3), "e": 3}, path)
    tree = tk.load(path)
    assert type(tree["w"]) is np.ndarray and tree["w"].tolist() == [[0, 1, 2], [3, 4, 5]] and tree["e"] == 3
    with tk.open(path) as f:
        assert f.tensors["w"][1:].tolist() == [[3, 4, 5]]
        assert f.checksum == "CRC-32"


def test_a_device_is_for_tensors_that_have_one(tmp_path: Path) -> None:
    """NumPy's arrays have none: asking for one without `framework=` is told, not passed over."""
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="framework='torch'"):
        tk.load(tmp_path / "w.pt", device="cuda")
    assert isinstance(tk.load(tmp_path / "w.pt", device="cpu")["w"], np.ndarray)
    assert tk.load(tmp_path / "w.pt", device="meta", framework="torch")["w"].is_meta


def test_equal_views_are_tied_and_others_are_not() -> None:
    """Two names of one tensor are one tensor; another view of the same storage is another."""
    base = torch.arange(6.0)
    data = written({"a": base, "b": base, "half": base[:3], "list": [base]})
    with tk.open(io.BytesIO(data)) as f:
        assert f.tree["a"] is f.tree["b"] is f.tree["list"][0]
        assert f.tree["half"] is not f.tree["a"]
        assert list(f.tensors) == ["a", "half"]


@st.composite
def strided_views(draw: st.DrawFn) -> Any:
    """Any view of a storage of 40 elements that lies inside of it."""
    dtype = draw(st.sampled_from([torch.float32, torch.int8, torch.bfloat16, torch.complex64, torch.bool, torch.int64]))
    base = torch.arange(40).to(dtype)
    size = draw(st.lists(st.integers(0, 4), max_size=3))
    stride = [draw(st.integers(0, 5)) for _ in size]
    reach = sum(max(0, length - 1) * step for length, step in zip(size, stride, strict=True))
    offset = draw(st.integers(0, max(0, 39 - reach)))
    return base.as_strided(size, stride, offset) if reach < 40 else base


@settings(max_examples=60, deadline=None)
@given(st.lists(strided_views(), max_size=4), st.booleans())
def test_any_view_comes_back_bit_for_bit(state: list[Any], old: bool) -> None:
    """Shapes, strides and offsets of every kind, in an archive and in a stream."""
    data = written(state, _use_new_zipfile_serialization=not old)
    assert_same(loaded(data), state)
    with tk.open(io.BytesIO(data)) as f:
        for number, tensor in enumerate(state):
            if tensor.ndim and tensor.shape[0] > 1:
                rows = f.tree[number][1 : tensor.shape[0]]
                assert rows.tobytes() == bits(tensor[1:])


def test_a_state_dict_loads_into_its_model(tmp_path: Path) -> None:
    """A file of `torch.save(model.state_dict())` goes straight into the model; so does Lightning's, by the name of its part."""
    model, other = small_model(), small_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    assert tk.load(tmp_path / "model.pt", into=other) is other
    assert_same(other.state_dict(), model.state_dict())
    torch.save({"state_dict": model.state_dict(), "epoch": 1, "pytorch-lightning_version": "2.4.0"}, tmp_path / "last.ckpt")
    third = small_model()
    state = tk.load(tmp_path / "last.ckpt", into={"state_dict": third})
    assert state["epoch"] == 1
    assert_same(third.state_dict(), model.state_dict())
    with tk.open(tmp_path / "last.ckpt") as f:
        assert f.format == "Lightning checkpoint"


class Average:
    """A moving average of a model's weights, as people write them: it takes tensors of PyTorch alone."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.shadow = {key: value.clone() for key, value in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.shadow)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            self.shadow[key].copy_(value)


@pytest.mark.parametrize("converted", [False, True])
def test_a_training_state_is_filled_in_place(tmp_path: Path, converted: bool) -> None:
    """Model, fresh optimizer and objects of one's own go on from what `torch.save` wrote, or from what `convert` made of it."""

    def parts() -> dict[str, Any]:
        model = small_model()
        return {"model": model, "optimizer": torch.optim.AdamW(model.parameters()), "average": Average(model)}

    before = parts()
    sum(parameter.sum() for parameter in before["model"].parameters()).backward()
    before["optimizer"].step()
    before["average"] = Average(before["model"])
    path = tmp_path / "run.pt"
    torch.save({**{key: part.state_dict() for key, part in before.items()}, "epoch": 3}, path)
    if converted:
        tk.convert(path, tmp_path / "run.safetensors")
        path = tmp_path / "run.safetensors"
    after = parts()
    assert tk.load(path, into=after)["epoch"] == 3
    for key, part in before.items():
        assert_same(after[key].state_dict(), part.state_dict())
    assert isinstance(after["optimizer"].state_dict()["state"][0]["step"], torch.Tensor)


class Masked(torch.nn.Module):
    """A module with everything that a state leaves out or keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(2, 2)
        self.tied = self.inner
        self.norm = torch.nn.BatchNorm1d(2)
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.register_parameter("none", None)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("passing", torch.arange(4), persistent=False)
        self.attribute = torch.zeros(7)
        self.size = (3, 4)


@pytest.mark.parametrize("old", [False, True])
def test_a_whole_module_gives_its_state(old: bool) -> None:
    """Parameters and buffers at their names, what `state_dict` leaves out is told, and the classes are described."""
    model = torch.nn.DataParallel(torch.nn.Sequential(Masked(), torch.nn.ReLU()))
    data = written({"net": model, "epoch": 1}, _use_new_zipfile_serialization=not old)
    with tk.open(io.BytesIO(data)) as f:
        wanted = model.state_dict()
        found = f.tree["net"].state
        assert list(found) == list(wanted)
        assert f.tree["net"].state["module.0.inner.weight"] is found["module.0.tied.weight"]
        assert any("passing" in note for note in f.left_out)
        assert any("attribute" in note for note in f.left_out)
        described = f.metadata["modules"]["net.module.0"]
        assert described["class"].endswith("Masked") and described["size"] == "(3, 4)"
        assert "net.module.0.inner.weight" in f.tensors
    assert_same(dict(loaded(data)["net"]), dict(wanted))
    fresh = torch.nn.DataParallel(torch.nn.Sequential(Masked(), torch.nn.ReLU()))
    tk.load(io.BytesIO(data), into={"net": fresh})
    assert_same(dict(fresh.state_dict()), dict(wanted))


def test_a_whole_optimizer_gives_its_state() -> None:
    """Parameters become numbers, as in the optimizer's own `state_dict`."""
    model = small_model()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    state = loaded(written(optimizer))
    wanted = optimizer.state_dict()
    assert_same(state["state"], wanted["state"])
    assert state["param_groups"][0]["params"] == wanted["param_groups"][0]["params"]


def test_four_bit_floats_are_two_to_a_byte() -> None:
    """PyTorch counts pairs, we count numbers; the bytes are the same, of views too."""
    if not hasattr(torch, "float4_e2m1fn_x2"):
        pytest.skip("this PyTorch has no 4-bit floats")
    pairs = torch.arange(24, dtype=torch.uint8).reshape(4, 6)
    packed = pairs.view(torch.float4_e2m1fn_x2)
    with tk.open(io.BytesIO(written({"whole": packed, "part": packed[1:3, ::2]}))) as f:
        assert str(f.tensors["whole"].spec) == "F4[4,12]" and f.tensors["whole"].tobytes() == bytes(range(24))
        assert str(f.tensors["part"].spec) == "F4[2,6]" and f.tensors["part"].tobytes() == bytes([6, 8, 10, 12, 14, 16])


def test_versions_of_modules_are_kept() -> None:
    """The `_metadata` of a state dict stays with it."""
    with tk.open(io.BytesIO(written(small_model().state_dict()))) as f:
        assert f.tree._metadata["1"] == {"version": 2}


def test_quantized_tensors_are_their_integers_with_scale_and_zero_point() -> None:
    """Per tensor and per channel; nothing is rounded."""
    base = torch.arange(12.0).reshape(3, 4)
    whole = torch.quantize_per_tensor(base, 0.1, 3, torch.qint8)
    rows = torch.quantize_per_channel(base, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 1, 2]), 0, torch.quint8)
    tree = tk.load(io.BytesIO(written({"whole": whole, "rows": rows})))
    assert tree["whole"]["int_repr"].tolist() == whole.int_repr().tolist()
    assert (tree["whole"]["scale"], tree["whole"]["zero_point"]) == (0.1, 3)
    assert tree["rows"]["int_repr"].tolist() == rows.int_repr().tolist()
    assert tree["rows"]["scales"].tolist() == rows.q_per_channel_scales().tolist()
    assert tree["rows"]["zero_points"].tolist() == [0, 1, 2] and tree["rows"]["axis"] == 0


def test_nested_tensors_are_their_parts() -> None:
    """The buffer, the sizes, the strides and the offsets."""
    nested = torch.nested.nested_tensor([torch.arange(2.0), torch.arange(3.0)])
    tree = tk.load(io.BytesIO(written({"n": nested})))
    assert tree["n"]["buffer"].tolist() == [0, 1, 0, 1, 2]
    assert tree["n"]["sizes"].tolist() == [[2], [3]]


def test_jagged_tensors_are_their_parts() -> None:
    """The values and the offsets; it scans clean."""
    data = written({"n": torch.nested.nested_tensor([torch.arange(2.0), torch.arange(3.0)], layout=torch.jagged)})
    tree = tk.load(io.BytesIO(data))
    assert tree["n"]["values"].tolist() == [0, 1, 0, 1, 2]
    assert tree["n"]["offsets"].tolist() == [0, 2, 5]
    assert tk.scan(io.BytesIO(data)).clean


def _build(data: Any, scale: int) -> Any:
    return data


class Foreign(torch.Tensor):
    """A class that is put together by a function of its own."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return torch._tensor._rebuild_from_type_v2, (_build, Foreign, (torch.arange(3.0), 2), {"note": "x"})


def test_a_tensor_that_a_function_of_its_own_makes_is_a_stub() -> None:
    """What the function would be given is there, under the name of the function; the rest of the file loads."""
    with tk.open(io.BytesIO(written({"f": torch.ones(1).as_subclass(Foreign), "w": torch.ones(2)}))) as f:
        assert f.tensors["f.__args__.0"].numpy().tolist() == [0, 1, 2]
        assert f.tensors["w"].numpy().tolist() == [1, 1]
        assert "_build" in repr(f.tree["f"])


def test_records_without_a_checksum_are_read_and_called_unverified() -> None:
    """PyTorch leaves CRC-32 out where it is told to, and for records that are filled in later; it reads such files."""
    torch.serialization.set_crc32_options(False)
    try:
        data = written({"w": torch.arange(3.0)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert tk.load(io.BytesIO(data))["w"].tolist() == [0, 1, 2]
    assert tk.verify(io.BytesIO(data)).unverified
    assert tk.scan(io.BytesIO(data)).clean
    with torch.serialization.skip_data():
        data = written({"w": torch.arange(3.0)})
    header_at = zipfile.ZipFile(io.BytesIO(data)).getinfo("archive/data/0").header_offset
    at = header_at + 30 + sum(struct.unpack_from("<2H", data, header_at + 26))
    filled = data[:at] + struct.pack("<3f", 4, 5, 6) + data[at + 12 :]
    assert tk.load(io.BytesIO(filled))["w"].tolist() == [4, 5, 6]


class Tagged(torch.Tensor):
    """A subclass with an attribute."""


def test_a_tensor_of_a_subclass_is_its_tensor() -> None:
    """Its values at its place; its class and attributes are told as left out."""
    tagged = torch.arange(3.0).as_subclass(Tagged)
    tagged.note = "x"
    with tk.open(io.BytesIO(written({"t": tagged}))) as f:
        assert f.tensors["t"].numpy().tolist() == [0, 1, 2]
        assert any("Tagged" in note and "note" in note for note in f.left_out)


def test_a_generator_and_a_storage_are_kept() -> None:
    """A generator comes back with its state; a storage is a tensor of one dimension."""
    generator = torch.Generator()
    generator.manual_seed(7)
    if not hasattr(generator, "__reduce__"):
        pytest.skip("this PyTorch does not pickle generators")
    state = {"rng": generator, "storage": torch.arange(4.0).untyped_storage()}
    try:
        data = written(state)
    except (TypeError, pickle.PicklingError):
        pytest.skip("this PyTorch does not pickle generators")
    tree = loaded(data)
    assert torch.equal(tree["rng"].get_state(), generator.get_state())
    assert bits(tree["storage"]) == bits(torch.arange(4.0))


@pytest.mark.parametrize("device", [b"cuda:0", b"mps"])
def test_tensors_of_devices_that_are_not_here_are_read(device: bytes) -> None:
    """A storage tagged with a device is bytes like any other; the device is told."""
    data = written({"w": torch.arange(3.0)})
    moved = rewritten(data, lambda pickled: pickled.replace(b"X\3\0\0\0cpu", b"X" + struct.pack("<I", len(device)) + device))
    with tk.open(io.BytesIO(moved)) as f:
        assert f.tensors["w"].numpy().tolist() == [0, 1, 2]
        assert f.metadata["devices"] == {device.decode(): 1}


def records(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def rewritten(data: bytes, change: Callable[[bytes], bytes], *, record: str = "data.pkl", method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive with one record changed, its CRC right."""
    return zipped({name: change(content) if name.endswith(record) else content for name, content in records(data).items()}, method=method)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("generation", [1, 2, 3])
def test_archives_of_all_generations_are_read(generation: int, method: int) -> None:
    """With few and with all of the small records, stored and deflated, under any name."""
    data = written(views())
    dropped = {1: ("byteorder", ".format_version", ".storage_alignment", "serialization_id"), 2: (".format_version", ".storage_alignment")}
    kept = {
        name.replace("archive/", "epoch=3 (final).pth/"): content
        for name, content in records(data).items()
        if not name.endswith(dropped.get(generation, ("?",)))
    }
    assert_same(loaded(zipped(kept, method=method)), torch.load(io.BytesIO(data), weights_only=False))


def test_numbers_of_a_big_endian_machine_are_turned_round() -> None:
    """A file whose `byteorder` is big gives the same values, strided views and complex numbers too."""
    base = torch.arange(12.0).reshape(3, 4)
    state = {"f32": base, "t": base.t(), "i16": base.short().clone(), "c64": base.to(torch.complex64), "u8": base.byte()}
    members = records(written(state))
    sizes = {"0": 4, "1": 2, "2": 4, "3": 1}
    for name, content in members.items():
        key = name.rpartition("/")[2]
        if "/data/" in name:
            members[name] = np.frombuffer(content, f"u{sizes[key]}").byteswap().tobytes()
        elif key == "byteorder":
            members[name] = b"big"
    data = zipped(members)
    assert_same(loaded(data), torch.load(io.BytesIO(data), weights_only=False))
    with tk.open(io.BytesIO(data)) as f:
        assert f.tensors["t"][1:3].tolist() == base.t()[1:3].tolist()
        assert bytes(f.tensors["f32"].source.read(5, 11)) == base.numpy().tobytes()[5:11]
    at = data.index(next(content for name, content in members.items() if name.endswith("/data/1")))
    damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    with pytest.raises(tk.CorruptError, match="CRC-32"):
        tk.load(io.BytesIO(damaged), only="i16")


def test_a_large_transposed_tensor_is_the_same_however_it_is_read(tmp_path: Path) -> None:
    """Mapped, in pieces, or some rows alone."""
    base = torch.arange(3_000_000, dtype=torch.int32).reshape(1500, 20, 100)
    torch.save({"w": base.permute(2, 0, 1)}, tmp_path / "w.pt")
    wanted = base.permute(2, 0, 1).numpy()
    for mmap in (None, False):
        np.testing.assert_array_equal(tk.load(tmp_path / "w.pt", mmap=mmap, framework="numpy")["w"], wanted)
    with tk.open(io.BytesIO((tmp_path / "w.pt").read_bytes())) as f:
        np.testing.assert_array_equal(f.tensors["w"][40:45], wanted[40:45])


def old_tar(tensors: dict[str, np.ndarray]) -> bytes:
    """A file as PyTorch 0.1 wrote it: of a tensor each, and a storage each, the last one a view of the first."""
    storages = pickle.dumps(len(tensors), 2)
    described = pickle.dumps(len(tensors), 2)
    for number, array in enumerate(tensors.values()):
        storages += (
            pickle.dumps((number, "cpu", "FloatStorage"), 2).replace(b"X\x0c\0\0\0FloatStorage", b"ctorch\nFloatStorage\n")
            + struct.pack("<q", array.size)
            + array.tobytes()
        )
        described += pickle.dumps((100 + number, number, None), 2)
        strides = [step // array.itemsize for step in array.strides]
        described += struct.pack(f"<ii{2 * array.ndim}qq", array.ndim, 0, *array.shape, *strides, 0)
    storages += pickle.dumps([], 2)

    class Saved:
        def __init__(self, number: int) -> None:
            self.number = number

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> str | None:
            return str(obj.number) if isinstance(obj, Saved) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(OrderedDict((name, Saved(100 + number)) for number, name in enumerate(tensors)))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        for name, content in (("sys_info", b""), ("pickle", buffer.getvalue()), ("tensors", described), ("storages", storages)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_the_oldest_tar_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    """Files from before 0.1.10 still open, there and here."""
    data = old_tar({"w": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.ones(3, "<f4")})
    path = tmp_path / "old.tar"
    path.write_bytes(data)
    assert_same(loaded(data), torch.load(path, weights_only=False))


@pytest.fixture(scope="module")
def scripted() -> bytes:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
            self.register_buffer("mean", torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x) - self.mean + torch.tensor([1.0, 2.0])

    buffer = io.BytesIO()
    module = torch.jit.trace(Net().eval(), torch.randn(4, 3))
    torch.jit.save(module, buffer)
    return buffer.getvalue()


def test_torchscript_gives_its_state(scripted: bytes) -> None:
    """Parameters and buffers by name; constants and the program are told as left out."""
    wanted = torch.jit.load(io.BytesIO(scripted)).state_dict()
    assert_same(dict(loaded(scripted)), dict(wanted))
    with tk.open(io.BytesIO(scripted)) as f:
        assert f.format == "TorchScript"
        assert list(f.tensors) == list(wanted)
        assert any("program" in note for note in f.left_out)
        assert any("constants" in note for note in f.left_out)


def test_tensors_in_plain_pickles_are_read() -> None:
    """`pickle.dump` of tensors and modules: the same as from a checkpoint, and long storages stay where they are."""
    model = small_model()
    base = torch.arange(100_000)
    data = pickle.dumps({"model": model, "base": base, "half": base[:3], "f8": torch.ones(2).to(torch.float8_e5m2)})
    with tk.open(io.BytesIO(data)) as f:
        assert list(f.tree["model"].state) == list(model.state_dict())
        assert f.metadata["modules"]["model"]["class"].endswith("Sequential")
    found = loaded(data)
    assert_same(dict(found["model"]), dict(model.state_dict()))
    assert_same(found["base"], base)
    assert found["half"].tolist() == [0, 1, 2]
    assert bits(found["f8"]) == bits(torch.ones(2).to(torch.float8_e5m2))


def test_exported_programs_give_their_state(tmp_path: Path) -> None:
    """`torch.export` archives: the state by name, constants and the program told as left out."""
    if not hasattr(torch.export, "save"):
        pytest.skip("this PyTorch has no torch.export")
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).eval()
    torch.export.save(torch.export.export(model, (torch.randn(4, 3),)), tmp_path / "model.pt2")
    assert_same(dict(tk.load(tmp_path / "model.pt2", framework="torch")), dict(model.state_dict()))
    with tk.open(tmp_path / "model.pt2") as f:
        assert "the program" in f.left_out
    target = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    tk.load(tmp_path / "model.pt2", into=target)
    assert_same(target.state_dict(), model.state_dict())


def test_a_package_gives_its_pickles() -> None:
    """`torch.package`: each pickle by its name, the code told as left out and as what it is."""
    package = pytest.importorskip("torch.package")
    buffer = io.BytesIO()
    with package.PackageExporter(buffer) as exporter:
        exporter.extern(["torch.**", "collections.**", "numpy.**"])
        exporter.save_source_string("extra.code", "x = 1")
        exporter.save_pickle("models", "net.pkl", small_model())
        exporter.save_text("texts", "words.txt", "a b")
    data = buffer.getvalue()
    assert_same(dict(loaded(data)["models/net"]), dict(small_model().state_dict()))
    with tk.open(io.BytesIO(data)) as f:
        assert any("code" in note for note in f.left_out)
        assert any(finding.severity == "dangerous" for finding in f.findings)


def test_a_checkpoint_in_several_files_is_one(tmp_path: Path) -> None:
    """A folder with an index, or the index: all its files as one state; what is missing is told."""
    torch.save({"a.w": torch.arange(3), "spare": torch.ones(1)}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"b.w": torch.ones(2)}, tmp_path / "pytorch_model-00002-of-00002.bin", _use_new_zipfile_serialization=False)
    index = tmp_path / "pytorch_model.bin.index.json"
    files = {"a.w": "pytorch_model-00001-of-00002.bin", "b.w": "pytorch_model-00002-of-00002.bin"}
    index.write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": files}))
    for source in (tmp_path, index):
        tree = tk.load(source)
        assert (tree["a.w"].tolist(), tree["b.w"].tolist()) == ([0, 1, 2], [1, 1])
        with tk.open(source) as f:
            assert f.metadata["total_size"] == 32 and any("spare" in note for note in f.left_out)
    index.write_text(json.dumps({"weight_map": files | {"c": "pytorch_model-00001-of-00002.bin"}}))
    with pytest.raises(tk.FormatError, match="not there"):
        tk.load(tmp_path)
    index.write_text(json.dumps({"weight_map": files | {"c": "../outside.bin"}}))
    with pytest.raises(tk.FormatError, match="plain name"):
        tk.load(tmp_path)


@pytest.mark.parametrize("ours", [False, True])
def test_safetensors_in_several_files_are_one_model(tmp_path: Path, ours: bool) -> None:
    """A Hugging Face folder opens as one model, with digests where its files have them, and fills a target."""
    states = {
        "model-00001-of-00002.safetensors": {"a": np.arange(3.0)},
        "model-00002-of-00002.safetensors": {"b": np.ones(70_000, np.float32)},
    }
    for file, state in states.items():
        if ours:
            tk.save(state, tmp_path / file)
        else:
            ((path, array),) = state.items()
            names = {"float64": "F64", "float32": "F32"}
            header = {path: {"dtype": names[array.dtype.name], "shape": list(array.shape), "data_offsets": [0, array.nbytes]}}
            (tmp_path / file).write_bytes(safetensors(header, array.tobytes()))
    weight_map = {path: file for file, state in states.items() for path in state}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    for source in (tmp_path, index):
        tree = tk.load(source)
        assert tree["a"].tolist() == [0, 1, 2] and tree["b"].sum() == 70_000
        assert tk.verify(source).intact == ours and tk.verify(source).unverified != ours
    target = {"a": np.zeros(3), "b": np.zeros(70_000, np.float32)}
    tk.load(tmp_path, into=target)
    assert target["b"].sum() == 70_000
    damaged = bytearray((tmp_path / "model-00002-of-00002.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(damaged)
    if ours:
        assert [damage.path for damage in tk.verify(tmp_path).damaged] == ["model-00002-of-00002.safetensors: b"]
        with pytest.raises(tk.CorruptError):
            tk.load(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(tk.FormatError, match="not there"):
        tk.load(tmp_path)


def test_a_folder_with_one_safetensors_file_is_that_model(tmp_path: Path) -> None:
    """`model.safetensors` in a folder, as most models come."""
    tk.save({"w": np.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert tk.load(tmp_path)["w"].tolist() == [1, 1, 1]
    assert tk.verify(tmp_path).intact


def test_a_folder_with_one_file_is_that_file(tmp_path: Path) -> None:
    """`pytorch_model.bin`, or one safetensors file of any name."""
    for name, write in (("pytorch_model.bin", torch.save), ("adapter.safetensors", tk.save)):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        write({"w": torch.ones(3)}, folder / name)
        (folder / "config.json").write_text("{}")
        assert tk.load(folder, framework="numpy")["w"].tolist() == [1, 1, 1]


def test_a_distributed_checkpoint_is_put_together(tmp_path: Path) -> None:
    """A folder of `torch.distributed.checkpoint`: nested as it was saved, values too, and rows read alone."""
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    state = {"model": small_model().state_dict(), "layers": [torch.arange(4), torch.ones(2)], "step": 3, "lr": 0.5}
    dcp.save(state, checkpoint_id=tmp_path / "run", no_dist=True)
    tree = tk.load(tmp_path / "run", framework="torch")
    assert_same(tree["model"], dict(state["model"]))
    assert_same(tree["layers"], state["layers"])
    assert (tree["step"], tree["lr"]) == (3, 0.5)
    with tk.open(tmp_path / "run") as f:
        assert f.tensors["model.0.weight"][1:].tolist() == state["model"]["0.weight"][1:].tolist()
    next((tmp_path / "run").glob("*.distcp")).unlink()
    with pytest.raises(tk.FormatError, match="not there"):
        tk.load(tmp_path / "run")


def test_verify_compares_the_checksums_of_an_archive(tmp_path: Path) -> None:
    """A flipped byte of a record is found and named, wherever bytes are read; a file without checksums is unverified."""
    data = written({"w": torch.arange(1000.0)})
    path = tmp_path / "x.pt"
    path.write_bytes(data)
    verdict = tk.verify(path)
    assert verdict.intact and verdict.checksum == "CRC-32" and not verdict.unverified
    damaged = bytearray(data)
    damaged[data.index(np.arange(1000, dtype="<f4").tobytes()) + 77] ^= 4
    path.write_bytes(damaged)
    verdict = tk.verify(path)
    assert not verdict.intact and [damage.path for damage in verdict.damaged] == ["archive/data/0"]
    for options in ({"mmap": False}, {"into": {"w": torch.zeros(1000)}}):
        with pytest.raises(tk.CorruptError, match="CRC-32") as caught:
            tk.load(path, **options)
        assert (caught.value.file, caught.value.path) == (str(path), "w")
    assert tk.load(path, mmap=False, verify=False)["w"].shape == (1000,)
    path.write_bytes(written({"w": torch.arange(3)}, _use_new_zipfile_serialization=False))
    assert tk.verify(path).unverified


@pytest.fixture(scope="module")
def small_files(scripted: bytes) -> dict[str, bytes]:
    state = {"w": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(2, dtype=torch.bool), "n": [1, "x"]}
    return {
        "zip": zipped(records(written(state))),
        "own zip": written({"w": torch.arange(3)}),
        "stream": written(state, _use_new_zipfile_serialization=False),
        "tar": old_tar({"w": np.arange(3, dtype="<f4")}),
    }


def read_all(data: bytes) -> Any:
    """Everything that a file gives, or a refusal of ours."""
    with tk.open(io.BytesIO(data)) as f:
        return {path: tensor.tobytes() for path, tensor in f.tensors.items()}


@pytest.mark.parametrize("kind", ["zip", "own zip", "stream", "tar"])
def test_every_truncation_is_refused(small_files: dict[str, bytes], kind: str) -> None:
    """A file that is cut short anywhere is never read as if it were whole."""
    data = small_files[kind]
    whole = read_all(data)
    step = max(1, len(data) // 700)
    for length in range(1, len(data), step):
        try:
            found = read_all(data[:length])
        except REFUSALS:
            continue
        assert kind == "tar" and found == whole, length  # the padding behind its last member


@pytest.mark.parametrize("kind", ["zip", "own zip", "stream", "tar"])
def test_every_flipped_bit_is_refused_or_read(small_files: dict[str, bytes], kind: str) -> None:
    """Any change of one byte ends in an error of ours, or in a valid reading."""
    data = small_files[kind]
    step = max(1, len(data) // 1500)
    for place in range(0, len(data), step):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with contextlib.suppress(REFUSALS):
            read_all(bytes(changed))


def test_no_part_of_torch_is_imported(tmp_path: Path) -> None:
    """A process without PyTorch reads everything that is said here to be read without it."""
    torch.save({"checkpoint": checkpoint(), "views": views(), "sparse": KINDS["sparse"](), "model": small_model()}, tmp_path / "all.pt")
    code = (
        "import sys\n"
        "class Refusing:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refusing())\n"
        "import tensorkeep as tk\n"
        f"tree = tk.load({str(tmp_path / 'all.pt')!r})\n"
        "assert tree['checkpoint']['dtype'] == 'bfloat16' and tree['checkpoint']['shape'] == [1, 2], tree['checkpoint']\n"
        "assert tree['model']['0.weight'].shape == (3, 4) and tree['sparse']['coo']['values'].tolist() == [1, 1, 1]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

"""Keras: models and weights of every generation as their files lay them out, written by h5py; nothing is built."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import pytest

import tensorkeep as tk

h5py = pytest.importorskip("h5py")

OURS: Final = (tk.FormatError, tk.CorruptError, tk.UnsupportedError)
CONFIG: Final = {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": [{"class_name": "Lambda"}]}}


def legacy(group: str = "model_weights") -> bytes:
    """A whole model of Keras 1, 2, tf.keras, or Keras 3's legacy format."""
    into = io.BytesIO()
    with h5py.File(into, "w") as file:
        weights = file.create_group(group) if group else file
        weights.attrs["layer_names"] = np.array([b"dense"])
        weights.attrs["keras_version"], weights.attrs["backend"] = b"2.10.0", b"tensorflow"
        weights["dense/dense/kernel:0"], weights["dense/dense/bias:0"] = np.arange(6, dtype="f4").reshape(2, 3), np.zeros(3, "f4")
        weights["dense"].attrs["weight_names"] = np.array([b"dense/kernel:0", b"dense/bias:0"])
        if group:
            file.attrs["model_config"] = json.dumps(CONFIG)
            file.attrs["keras_version"] = b"2.10.0"
            file["optimizer_weights/Adam/iter:0"] = np.int64(7)
    return into.getvalue()


def weights() -> bytes:
    """The weights of Keras 3."""
    into = io.BytesIO()
    with h5py.File(into, "w") as file:
        for number in range(12):
            file[f"optimizer/vars/{number}"] = np.float32(number)
        file["layers/dense/vars/0"] = np.arange(6, dtype="f4").reshape(2, 3)
        half = file["layers/dense/vars"].create_dataset("1", data=np.ones(3, ml_dtypes.bfloat16).view("V2"))
        half.attrs["dtype"] = "bfloat16"
        file["layers/dense/vars"].attrs["name"] = "dense"
        file.create_group("vars")
    return into.getvalue()


def archive(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """A `.keras` file."""
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", compression) as file:
        for name, data in {
            "metadata.json": json.dumps({"keras_version": "3.15.1", "date_saved": "2026-11-23"}).encode(),
            "config.json": json.dumps(CONFIG).encode(),
            "model.weights.h5": weights(),
            "assets/vocabulary.txt": b"a\nb\n",
            "assets/picture.bin": b"",
        }.items():
            file.writestr(name, members.get(name.partition(".")[0], data))
    return into.getvalue()


def opened(data: bytes) -> tk.Contents:
    return tk.open(io.BytesIO(data))


def test_a_model_of_keras_2_tells_weights_and_optimizer_apart() -> None:
    """Paths are those in the file; the configuration is data in the metadata."""
    with opened(legacy()) as contents:
        assert contents.format == "Keras HDF5 model" and contents.writer == "Keras 2.10.0"
        paths = ["model_weights.dense.dense.bias:0", "model_weights.dense.dense.kernel:0", "optimizer_weights.Adam.iter:0"]
        assert list(contents.tensors) == paths
        assert contents.metadata["model_config"] == CONFIG
        assert contents.metadata["attributes"]["model_weights/dense"]["weight_names"] == ["dense/kernel:0", "dense/bias:0"]


def test_weights_of_keras_2_stand_at_the_root() -> None:
    """`save_weights` writes the layers without a group around them."""
    with opened(legacy("")) as contents:
        assert contents.format == "Keras HDF5 weights" and contents.writer == "Keras 2.10.0 (tensorflow)"
        assert contents.tensors["dense.dense.kernel:0"].numpy()[1, 2] == 5


def test_weights_of_keras_3_are_in_their_order_and_have_their_dtypes() -> None:
    """Variables are numbered, so 10 stands behind 9; bfloat16 has no type in HDF5, and is told in an attribute."""
    with opened(weights()) as contents:
        assert contents.format == "Keras 3 weights"
        assert [path for path in contents.tensors if path.startswith("opt")] == [f"optimizer.vars.{number}" for number in range(12)]
        assert contents.tensors["layers.dense.vars.1"].numpy().tolist() == [1, 1, 1]
        assert str(contents.tensors["layers.dense.vars.1"].dtype) == "BF16"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_shows_its_configuration_and_reads_its_weights(tmp_path: Path, compression: int) -> None:
    """Stored and deflated alike; vocabularies are bytes, other assets left out; every byte has its CRC-32."""
    (tmp_path / "m.keras").write_bytes(archive(compression))
    with tk.open(tmp_path / "m.keras") as contents:
        assert contents.format == "Keras archive" and contents.writer == "Keras 3.15.1" and contents.checksum == "CRC-32"
        assert contents.metadata["config"] == CONFIG
        assert contents.left_out == ("assets/picture.bin: an asset",)
        assert contents.tree["assets"]["vocabulary.txt"].tobytes() == b"a\nb\n"
        assert contents.tensors["layers.dense.vars.0"].numpy()[1, 2] == 5
    assert tk.load(tmp_path / "m.keras")["optimizer"]["vars"]["11"] == 11
    assert not tk.verify(tmp_path / "m.keras").damaged


def test_damage_in_an_archive_is_found() -> None:
    """A changed byte of a weight is no other weight, one of the configuration no other model."""
    data = archive(zipfile.ZIP_STORED)
    at = data.index(np.arange(6, dtype="f4").tobytes())
    with pytest.raises(tk.CorruptError, match="CRC-32"):
        tk.load(io.BytesIO(data[:at] + b"\1" + data[at + 1 :]))
    at = data.index(b"Sequential")
    with pytest.raises(tk.CorruptError, match="CRC-32"):
        tk.open(io.BytesIO(data[:at] + b"\1" + data[at + 1 :]))


TRAPS: Final = {
    "bytecode": {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}},
    "Lambda layer": {"class_name": "Lambda", "config": {"function": ["4wEAAAA=", None, None]}},
    "a Lambda that names a function": {"class_name": "Custom>Lambda", "config": {"function": "their_function"}},
    "imports os": {"class_name": "function", "config": "system", "module": "os", "registered_name": "system"},
    "imports a stranger's module": {
        "class_name": "Layer",
        "config": {},
        "module": "their_package.layers",
        "registered_name": "their>Layer",
    },
    "keras.utils": {"class_name": "function", "config": "get_file", "module": "keras.utils"},
    "enable_unsafe": {"class_name": "function", "config": "enable_unsafe_deserialization", "module": "keras.config"},
    "eval": {"class_name": "function", "config": "eval", "module": "builtins"},
    "TFSMLayer": {"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": "/tmp/x"}},
    "TorchModuleWrapper": {"class_name": "TorchModuleWrapper", "module": "keras.layers", "config": {"module": "gASV"}},
    "vocabulary": {"class_name": "StringLookup", "module": "keras.layers", "config": {"vocabulary": "/etc/passwd"}},
    "TFOpLambda": {"class_name": "TFOpLambda", "config": {"function": "io.read_file"}},
    "TensorFlowOpLayer": {"class_name": "TensorFlowOpLayer", "config": {"node_def": {"op": "ReadFile"}}},
}


@pytest.mark.parametrize("trap", TRAPS)
def test_what_a_configuration_would_run_is_a_finding(trap: str, tmp_path: Path) -> None:
    """Code, imports, loaders and files, wherever they stand, in archives and in HDF5 models; `open` does nothing of it."""
    config = {"class_name": "Sequential", "module": "keras", "config": {"layers": [{"class_name": "Dense", "config": [TRAPS[trap]]}]}}
    text = json.dumps(config).encode()
    into = io.BytesIO()
    with h5py.File(into, "w") as file:
        file.attrs["model_config"] = text
    for name, data in (("m.keras", archive(config=text)), ("m.h5", into.getvalue())):
        (tmp_path / name).write_bytes(data)
        assert tk.scan(tmp_path / name).findings
        with tk.open(tmp_path / name) as contents:
            assert contents.metadata


def test_ordinary_configurations_have_no_findings(tmp_path: Path) -> None:
    """Layers, activations, initializers, nested objects, vocabularies that are lists."""
    layers = [
        {"class_name": "Dense", "module": "keras.layers", "config": {"activation": "relu", "use_bias": True}, "registered_name": None},
        {"class_name": "function", "module": "builtins", "config": "relu", "registered_name": "function"},
        {"class_name": "function", "module": "keras.src.activations.activations", "config": "gelu"},
        {"class_name": "GlorotUniform", "module": "keras.initializers", "config": {"seed": None}},
        {"class_name": "StringLookup", "module": "keras.layers", "config": {"vocabulary": ["a", "b"]}},
        {"class_name": "TFOpLambda", "config": {"function": "math.add"}},
    ]
    config = {"class_name": "Sequential", "module": "keras", "config": {"layers": layers}, "compile_config": {"optimizer": "adam"}}
    (tmp_path / "m.keras").write_bytes(archive(config=json.dumps(config).encode()))
    assert tk.scan(tmp_path / "m.keras").findings == ()


def test_a_configuration_that_programs_read_in_two_ways_is_left_out() -> None:
    """Keys that occur twice, text that is no JSON, nesting without end: the weights read all the same."""
    for text in (b'{"class_name": "Dense", "class_name": "Lambda"}', b"{", b"\xff", b'{"a":' + b"[" * 50_000, b"[1]"):
        with opened(archive(config=text)) as contents:
            assert "config" not in contents.metadata and len(contents.tensors) == 15
            assert any(line.startswith("config.json") for line in contents.left_out)


def test_an_unpacked_archive_reads_as_a_folder(tmp_path: Path) -> None:
    """As hubs keep them."""
    with zipfile.ZipFile(io.BytesIO(archive())) as file:
        file.extractall(tmp_path / "m")
    with tk.open(tmp_path / "m") as contents:
        assert contents.metadata["config"] == CONFIG and len(contents.tensors) == 15


def test_weights_in_shards_are_one_tree(tmp_path: Path) -> None:
    """The variables of one layer may stand in several files."""
    for number, groups in enumerate((("layers/dense/vars/0", "optimizer/vars/0"), ("optimizer/vars/10", "optimizer/vars/9"))):
        with h5py.File(tmp_path / f"m_{number:05}.weights.h5", "w") as file:
            for group in groups:
                file[group] = np.arange(4, dtype="f4")
    first, second = "m_00000.weights.h5", "m_00001.weights.h5"
    index: dict[str, Any] = {
        "metadata": {"total_size": 64.0},
        "weight_map": {"/layers/dense/vars": first, "/optimizer/vars": [first, second]},
    }
    path = tmp_path / "m.weights.json"
    path.write_text(json.dumps(index))
    (tmp_path / "hub").mkdir()
    for file in (path, tmp_path / first, tmp_path / second):
        (tmp_path / "hub" / file.name.replace("m.weights.json", "model.weights.json")).write_bytes(file.read_bytes())
    for name in ("config.json", "metadata.json"):
        (tmp_path / "hub" / name).write_text("{}")
    with tk.open(tmp_path / "hub") as contents:
        assert len(contents.tensors) == 4 and contents.left_out == ()
    with tk.open(path) as contents:
        assert list(contents.tensors) == ["layers.dense.vars.0", "optimizer.vars.0", "optimizer.vars.9", "optimizer.vars.10"]
    for lie in ({"/layers/other/vars": first}, {"/x": "../m_00000.weights.h5"}, {"/x": "gone.weights.h5"}, {"/x": 3}, {}):
        path.write_text(json.dumps({"metadata": {"suffix": ".weights.h5"}, "weight_map": lie}))
        with pytest.raises(tk.FormatError):
            tk.open(path)


def test_every_truncation_and_changed_byte_of_an_archive_is_refused_or_read() -> None:
    """Only errors of tensorkeep, whatever is changed."""
    data = archive(zipfile.ZIP_DEFLATED)
    for at in range(0, len(data), 7):
        for changed in (data[:at], data[:at] + bytes([data[at] ^ 0x81]) + data[at + 1 :]):
            try:
                with opened(changed) as contents:
                    for tensor in contents.tensors.values():
                        tensor.tobytes()
            except OURS:
                pass

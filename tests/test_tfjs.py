"""TensorFlow.js: what a manifest names reads from its shards; what it lies about is refused."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import tensorkeep as tk

OURS: Final = (tk.FormatError, tk.CorruptError, tk.UnsupportedError)


def write(folder: Path, groups: list[dict[str, Any]], shards: dict[str, bytes], *, model: bool = True) -> Path:
    """A model in a folder: its manifest and its shards."""
    for name, data in shards.items():
        (folder / name).write_bytes(data)
    document: Any = groups
    if model:
        document = {"format": "layers-model", "generatedBy": "keras v2.4.0", "modelTopology": {"a": 1}, "weightsManifest": groups}
    path = folder / ("model.json" if model else "weights_manifest.json")
    path.write_text(json.dumps(document))
    return path


def weight(name: str, shape: list[int], dtype: str = "float32", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": dtype, **more}


@pytest.mark.parametrize("model", [True, False])
def test_tensors_read_across_shards(tmp_path: Path, model: bool) -> None:
    """A tensor that begins in one shard and ends in another, of every dtype; names are the manifest's own."""
    wanted = {
        "dense/kernel": np.arange(12, dtype="f4").reshape(3, 4),
        "dense/bias": np.array(7, "i4"),
        "flags": np.array([True, False]),
        "complex": np.array([1 + 2j, 3], "c8"),
        "none": np.zeros((0, 3), "f4"),
        "last": np.arange(5, dtype="f4"),
    }
    data = b"".join(array.tobytes() for array in wanted.values())
    names = {"f": "float32", "i": "int32", "b": "bool", "c": "complex64"}
    groups = [{"paths": ["a.bin", "b.bin", "c.bin"], "weights": [weight(n, list(a.shape), names[a.dtype.kind]) for n, a in wanted.items()]}]
    path = write(tmp_path, groups, {"a.bin": data[:7], "b.bin": data[7:50], "c.bin": data[50:]}, model=model)
    found = tk.load(path)
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
    with tk.open(path) as contents:
        assert np.array_equal(contents.tensors["dense/kernel"][1:2], wanted["dense/kernel"][1:2])
        assert contents.writer == ("keras v2.4.0" if model else "")
        assert ("modelTopology" in contents.metadata) == model


def test_quantized_weights_are_kept_and_undone_on_request(tmp_path: Path) -> None:
    """Stored bytes by default; `dequantize` gives scale times integer plus the least value, rounded for whole numbers."""
    integers, wide, halves = np.arange(6, dtype="u1"), np.arange(4, dtype="u2") * 9999, np.arange(3, dtype="f2") / 3
    groups = [
        {
            "paths": ["a.bin"],
            "weights": [
                weight("a", [2, 3], quantization={"dtype": "uint8", "scale": 0.1, "min": -0.25}),
                weight("b", [4], quantization={"dtype": "uint16", "scale": 1e-3, "min": 5}),
                weight("c", [3], quantization={"dtype": "float16", "original_dtype": "float32"}),
                weight("d", [6], "int32", quantization={"dtype": "uint8", "scale": 0.5, "min": -2}),
            ],
        }
    ]
    path = write(tmp_path, groups, {"a.bin": integers.tobytes() + wide.tobytes() + halves.tobytes() + integers.tobytes()})
    with tk.open(path) as contents:
        tensors = contents.tensors
        assert [str(tensor.dtype) for tensor in tensors.values()] == ["U8", "U16", "F16", "U8"]
        assert tensors["a"].tobytes() == integers.tobytes()
        assert np.array_equal(tensors["a"].dequantize(), (integers.astype("f8") * 0.1 - 0.25).astype("f4").reshape(2, 3))
        assert np.array_equal(tensors["b"].dequantize(), (wide.astype("f8") * 1e-3 + 5).astype("f4"))
        assert np.array_equal(tensors["c"].dequantize(), halves.astype("f4"))
        assert tensors["d"].dequantize().tolist() == [-2, -1, -1, 0, 0, 1]


def test_texts_are_left_out_and_what_follows_is_found(tmp_path: Path) -> None:
    """Each text has its length before it; tensors behind them stand where they stand."""
    texts = b"".join(len(text).to_bytes(4, "little") + text for text in (b"a", b"", b"long one"))
    groups = [{"paths": ["a.bin", "b.bin"], "weights": [weight("words", [3], "string"), weight("w", [2])]}]
    data = texts + np.array([1, 2], "f4").tobytes()
    path = write(tmp_path, groups, {"a.bin": data[:9], "b.bin": data[9:]})
    with tk.open(path) as contents:
        assert contents.tensors["w"].numpy().tolist() == [1, 2]
        assert contents.left_out == ("words: 3 texts",)


@pytest.mark.parametrize("name", ["../a.bin", "/etc/passwd", "inner/../a.bin", "link.bin", "a.bin\0"])
def test_shards_outside_of_the_folder_are_not_opened(tmp_path: Path, name: str) -> None:
    """A name that leads out of the folder, or through a link, is refused."""
    (tmp_path / "a.bin").write_bytes(bytes(8))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "a.bin")
    with pytest.raises(tk.FormatError, match=r"plain name|link"):
        tk.open(write(folder, [{"paths": [name], "weights": [weight("w", [2])]}], {}))


@pytest.mark.parametrize(
    "lie",
    [
        weight("w", [3]),
        weight("w", [-1]),
        weight("w", [1 << 40, 1 << 40]),
        weight("w", [1] * 70),
        weight("w", [2], "float128"),
        weight("w", [2], "string"),
        weight("w", [1 << 60], "string"),
        weight("w", [2], quantization={"dtype": "uint8"}),
        weight("w", [2], quantization={"dtype": "uint64", "scale": 1, "min": 0}),
        weight("w", [2], "string", quantization=3),
        {"name": "w"},
        {"name": 3, "shape": [2], "dtype": "float32"},
    ],
    ids=str,
)
def test_a_manifest_that_lies_is_refused(tmp_path: Path, lie: dict[str, Any]) -> None:
    """Sizes, shapes and dtypes that its shards cannot hold, and documents of another form."""
    with pytest.raises(tk.FormatError):
        tk.open(write(tmp_path, [{"paths": ["a.bin"], "weights": [lie]}], {"a.bin": b"\xff" * 8}))


def test_names_that_occur_twice_are_refused(tmp_path: Path) -> None:
    """Two weights of one name, one shard named twice, one key twice in the document."""
    shards = {"a.bin": bytes(16)}
    with pytest.raises(tk.FormatError, match="occurs twice"):
        tk.open(write(tmp_path, [{"paths": ["a.bin"], "weights": [weight("w", [2]), weight("w", [2])]}], shards))
    with pytest.raises(tk.FormatError, match="each of them once"):
        tk.open(write(tmp_path, [{"paths": ["a.bin", "a.bin"], "weights": [weight("w", [2])]}], shards))
    path = write(tmp_path, [{"paths": ["a.bin"], "weights": [weight("w", [2])]}], shards)
    path.write_text(path.read_text().replace('"shape": [2]', '"shape": [2], "shape": [4]'))
    with pytest.raises(tk.FormatError, match="occurs twice"):
        tk.open(path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    """The error says which file is missing, and what to do."""
    with pytest.raises(tk.FormatError, match=r"gone\.bin"):
        tk.open(write(tmp_path, [{"paths": ["gone.bin"], "weights": [weight("w", [2])]}], {}))


def test_every_truncation_and_changed_byte_of_a_manifest_is_refused_or_read(tmp_path: Path) -> None:
    """Only errors of tensorkeep, whatever is changed."""
    path = write(tmp_path, [{"paths": ["a.bin"], "weights": [weight("w", [2]), weight("s", [1], "string")]}], {"a.bin": bytes(12)})
    text = path.read_bytes()
    for at in range(len(text)):
        for data in (text[:at], text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]):
            path.write_bytes(data)
            try:
                with tk.open(path) as contents:
                    for tensor in contents.tensors.values():
                        tensor.tobytes()
            except OURS:
                pass

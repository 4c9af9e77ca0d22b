"""The formats of runtimes and of older frameworks: MXNet, Paddle, Caffe, Darknet, Core ML, OpenVINO, ncnn, thinc. Files made by hand,
byte by byte as their specifications say, for their own tools are not to be had everywhere; whole and true ones are in test_real_files."""

import io
import json
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest

import tensorkeep as tk

W: Final = np.arange(6, dtype=np.float32).reshape(2, 3)
B: Final = np.array([0.5, -1.5], np.float32)

Files = dict[str, bytes]
"""A model by file name; the first one is opened, a name with `/` makes it a folder."""


def varint(value: int) -> bytes:
    made = b""
    while value > 0x7F:
        made, value = made + bytes([value & 0x7F | 0x80]), value >> 7
    return made + bytes([value])


def field(number: int, value: "int | bytes | str") -> bytes:
    """A field of protobuf."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def mxnet() -> Files:
    def dense(array: np.ndarray, code: int) -> bytes:
        shape = struct.pack(f"<i{array.ndim}q", array.ndim, *array.shape)
        return struct.pack("<Ii", 0xF993FAC9, 0) + shape + struct.pack("<iii", 1, 0, code) + array.tobytes()

    old = struct.pack("<I2I", 2, 2, 3) + struct.pack("<iii", 1, 0, 0) + W.tobytes()
    names = b"".join(struct.pack("<Q", len(name)) + name for name in (b"arg:w", b"arg:b", b"aux:old"))
    arrays = dense(W, 0) + dense(B.astype(np.float16), 2) + old
    return {"m.params": struct.pack("<QQQ", 0x112, 0, 3) + arrays + struct.pack("<Q", 3) + names}


def lod(array: np.ndarray, code: int = 5) -> bytes:
    described = field(1, code) + b"".join(field(2, length) for length in array.shape)
    return struct.pack("<IQIi", 0, 0, 0, len(described)) + described + array.tobytes()


def paddle() -> Files:
    def variable(name: str, kind: int = 7) -> bytes:
        return field(3, field(1, name) + field(2, field(1, kind)) + field(3, 1))

    program = field(1, field(1, 0) + field(2, 0) + variable("w") + variable("feed", 9) + variable("b"))
    return {"m.pdiparams": lod(B) + lod(W), "m.pdmodel": program}


def paddle_folder() -> Files:
    return {"m/fc.b_0": lod(B), "m/fc.w_0": lod(W)}


def caffe() -> Files:
    def blob(array: np.ndarray) -> bytes:
        return field(7, field(1, b"".join(map(varint, array.shape)))) + field(5, array.tobytes())

    layer = field(1, "fc") + field(2, "InnerProduct") + field(7, blob(W)) + field(7, blob(B))
    old = field(4, "conv") + field(6, field(1, 1) + field(2, 1) + field(3, 2) + field(4, 3) + field(5, W.tobytes()))
    return {"m.caffemodel": field(1, "net") + field(2, old) + field(100, layer)}


def darknet() -> Files:
    config = "[net]\nheight=4\nwidth=4\nchannels=1 # one\n[convolutional]\nfilters=2\nsize=1\nbatch_normalize=1\n[connected]\noutput=2\n"
    numbers = np.arange(2 + 2 + 2 + 2 + 2 + 2 + 2 * 32, dtype=np.float32)
    return {"m.weights": struct.pack("<iiiQ", 0, 2, 5, 7) + numbers.tobytes(), "m.cfg": config.encode()}


def openvino() -> Files:
    layer = '<layer id="{0}" name="{1}" type="Const"><data element_type="f32" offset="{2}" size="{3}" shape="{4}"/></layer>'
    layers = layer.format(0, "w", 0, 24, "2,3") + layer.format(1, "b", 24, 8, "2")
    text = f'<?xml version="1.0"?>\n<net name="tiny" version="11"><layers>{layers}</layers></net>'
    return {"m.xml": text.encode(), "m.bin": W.tobytes() + B.tobytes()}


def ncnn() -> Files:
    text = "7767517\n3 3\nInput data 0 1 data 0=3\nInnerProduct fc 1 1 data a 0=2 1=1 2=6\nSoftmax out 1 1 a out\n"
    return {"m.param": text.encode(), "m.bin": bytes(4) + W.tobytes() + B.tobytes()}


def coreml() -> Files:
    def described(array: np.ndarray) -> bytes:
        return b"".join(field(3, field(1, field(1, length))) for length in array.shape)

    def constant(name: str, array: np.ndarray, at: int) -> bytes:
        text = field(2, field(1, field(1, 2))) + field(3, field(1, field(4, field(1, name))))
        value = field(2, field(1, field(1, 11) + described(array))) + field(5, field(1, "@model_path/weights/weight.bin") + field(2, at))
        return field(1, "const") + field(5, field(1, "name") + field(2, text)) + field(5, field(1, "val") + field(2, value))

    blob = struct.pack("<II56x", 2, 2)
    places = []
    for array in (W, B):
        places.append(len(blob))
        blob += struct.pack("<IIQQQ32x", 0xDEADBEEF, 2, array.nbytes, len(blob) + 64, 0) + array.tobytes() + bytes(-array.nbytes % 64)
    block = field(3, constant("w", W, places[0])) + field(3, constant("b", B, places[1]))
    program = field(1, 1) + field(2, field(1, "main") + field(2, field(3, field(1, "CoreML7") + field(2, block))))
    model = field(1, 8) + field(2, field(100, field(3, "somebody"))) + field(502, program)
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {"1": {"path": "com.apple.CoreML/model.mlmodel"}},
        "rootModelIdentifier": "1",
    }
    inside = "m.mlpackage/Data/com.apple.CoreML"
    return {
        "m.mlpackage/Manifest.json": json.dumps(manifest).encode(),
        f"{inside}/model.mlmodel": model,
        f"{inside}/weights/weight.bin": blob,
    }


def coreml_network() -> Files:
    layer = field(1, "fc") + field(140, field(20, field(1, W.tobytes())) + field(21, field(1, B.tobytes())))
    return {"m.mlmodel": field(1, 1) + field(2, field(100, field(3, "somebody"))) + field(500, field(1, layer))}


def thinc() -> Files:
    def packed_bytes(data: bytes) -> bytes:
        return bytes([0xC4, len(data)]) + data

    def array(value: np.ndarray) -> bytes:
        shape = bytes([0x90 | value.ndim, *value.shape])
        keys = (
            (b"nd", b"\xc3"),
            (b"type", b"\xa3<f4"),
            (b"kind", packed_bytes(b"")),
            (b"shape", shape),
            (b"data", packed_bytes(value.tobytes())),
        )
        return b"\x85" + b"".join(packed_bytes(key) + content for key, content in keys)

    node = b"\x82\xa5index\x00\xa4name\xa6linear"
    params = b"\x82\xa1W" + array(W) + b"\xa1b" + array(B)
    return {"model": b"\x84\xa5nodes\x91" + node + b"\xa5attrs\x91\x80\xa6params\x91" + params + b"\xa5shims\x91\x90"}


# What each holds, by path.
MODELS: Final[dict[str, tuple[Callable[[], Files], dict[str, np.ndarray]]]] = {
    "mxnet": (mxnet, {"arg:w": W, "arg:b": B.astype(np.float16), "aux:old": W}),
    "paddle": (paddle, {"b": B, "w": W}),
    "paddle folder": (paddle_folder, {"fc.b_0": B, "fc.w_0": W}),
    "caffe": (caffe, {"conv.0": W.reshape(1, 1, 2, 3), "fc.0": W, "fc.1": B}),
    "openvino": (openvino, {"w": W, "b": B}),
    "ncnn": (ncnn, {"fc.weight": W, "fc.bias": B}),
    "coreml": (coreml, {"w": W, "b": B}),
    "coreml network": (coreml_network, {"fc.weights": W.reshape(-1), "fc.bias": B}),
    "thinc": (thinc, {"params.0.W": W, "params.0.b": B}),
}


def put(files: Files, folder: Path) -> Path:
    """Write a model; the path to open."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    first = next(iter(files))
    return folder / first.partition("/")[0]


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    """Names, dtypes, shapes and bits."""
    make, wanted = MODELS[name]
    with tk.open(put(make(), tmp_path)) as found:
        assert {path: (str(t.dtype), t.shape, t.tobytes()) for path, t in found.tensors.items()} == {
            path: ("F16" if array.dtype == np.float16 else "F32", array.shape, array.tobytes()) for path, array in wanted.items()
        }


def test_darknet_weights_are_told_apart_by_the_config_beside_them(tmp_path: Path) -> None:
    """Biases, the parts of a batch normalization, weights; in the order and shapes that the config's layers say."""
    path = put(darknet(), tmp_path)
    tree = tk.load(path)
    assert list(tree["000"]) == ["biases", "scales", "rolling_mean", "rolling_variance", "weights"]
    assert tree["000"]["weights"].shape == (2, 1, 1, 1) and tree["000"]["weights"].ravel().tolist() == [8.0, 9.0]
    assert tree["001"]["weights"].shape == (2, 32) and tree["001"]["biases"].tolist() == [10.0, 11.0]
    (tmp_path / "m.cfg").unlink()
    with tk.open(path) as found:
        assert found.tensors["weights"].shape == (76,) and "m.cfg" in found.left_out[0]


@pytest.mark.parametrize("name", [*MODELS, "darknet"])
def test_files_cut_short_or_changed_are_refused_or_read(name: str, tmp_path: Path) -> None:
    """Each file cut at every byte, and with single bytes changed: a clear refusal or a reading, nothing else."""
    make = darknet if name == "darknet" else MODELS[name][0]
    files = make()
    path = put(files, tmp_path)
    chance = random.Random(7)
    for changed, data in files.items():
        cuts = [data[:at] for at in range(0, len(data), max(1, len(data) // 150))]
        flips = []
        for at in range(0, len(data), max(1, len(data) // 300)):
            flipped = bytearray(data)
            flipped[at] ^= chance.choice((1, 0x80, 0xFF))
            flips.append(bytes(flipped))
        for broken in cuts + flips:
            (tmp_path / changed).write_bytes(broken)
            try:
                tk.load(path)
            except tk.TensorkeepError as error:
                assert str(error)
            except OSError as error:
                assert isinstance(error, IsADirectoryError)  # a folder that is no longer known as anything
        (tmp_path / changed).write_bytes(data)


@pytest.mark.parametrize(("name", "old", "new"), [("openvino", "m.bin", "../m.bin"), ("coreml", "weights/weight.bin", "weights/../../m")])
def test_a_file_names_nothing_outside_its_folder(name: str, old: str, new: str, tmp_path: Path) -> None:
    """A name that leads out is refused, and so is a link."""
    files = MODELS[name][0]()
    path = put(files, tmp_path)
    side = next(tmp_path.rglob(old.rpartition("/")[2]))
    other = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    side.rename(other)
    side.symlink_to(other)
    with pytest.raises(tk.FormatError, match="link"):
        tk.load(path)
    if name == "coreml":
        side.unlink()
        other.rename(side)
        model = next(tmp_path.rglob("model.mlmodel"))
        model.write_bytes(model.read_bytes().replace(old.encode(), new.encode().ljust(len(old), b"x")[: len(old)]))
        with pytest.raises(tk.FormatError):
            tk.load(path)


def test_openvino_with_a_document_type_is_refused(tmp_path: Path) -> None:
    """No entity is declared, so none is expanded or fetched."""
    files = openvino()
    text = files["m.xml"].replace(b"<net ", b'<!DOCTYPE net [<!ENTITY a "aaaa">]><net ', 1)
    path = put({"m.xml": text, "m.bin": files["m.bin"]}, tmp_path)
    with pytest.raises(tk.FormatError, match="document type"):
        tk.load(path)
    files["m.xml"] = files["m.xml"].replace(b"<layers>", b"<!-- x --><layers>&a;")
    with pytest.raises(tk.FormatError, match="no XML"):
        tk.load(put(files, tmp_path))


def test_what_is_in_no_folder_names_no_other_file() -> None:
    """From memory, a file whose tensors lie in another is refused with its reason."""
    with pytest.raises(tk.FormatError, match=r"m\.bin|\.bin"):
        tk.load(io.BytesIO(openvino()["m.xml"]))


def test_many_things_of_one_name_are_told_apart_in_linear_time(tmp_path: Path) -> None:
    """`w`, `w~2`, ... `w~30000`: to look for a free name from the beginning each time would take minutes."""
    layer = '<layer name="w" type="Const"><data element_type="u8" offset="0" size="1" shape="1"/></layer>'
    text = f'<net name="many" version="11"><layers>{layer * 30_000}</layers></net>'
    began = time.process_time()
    with tk.open(put({"m.xml": text.encode(), "m.bin": b"x"}, tmp_path)) as found:
        assert len(found.tensors) == 30_000 and "w~30000" in found.tensors
    assert time.process_time() - began < 30

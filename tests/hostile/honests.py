"""Honest files of every format, large and odd ones among them: each must load whole, and scan without a finding."""

import bz2
import datetime
import gzip
import io
import json
import lzma
import pickle
import zlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np

import attacks
from craft import entry, safetensors
from fuzz.samples import FLAT, STATE, single_files
from hostile.archives import NPZ, npy, zipped
from hostile.cases import Case, builders, honest

TOLD: Final = {"npy with objects", "tflite", *(f"pickle {protocol}" for protocol in range(6)), "tar with a pickle"}
"""Samples with a class or an operator that nobody here can vouch for, which is rightly told."""


def samples() -> Iterator[Case]:
    """Those with which fuzzers begin."""
    for name, data in single_files().items():
        if name in TOLD or name == "openvino":  # whose weights lie beside it
            continue
        yield honest(f"sample: {name}", data, file="m.mat" if "matlab" in name else "m.caffemodel" if name == "caffe" else "m.bin")


def pickles() -> Iterator[Case]:
    """Values that pickle writes by itself, in every protocol, and in every wrapper."""
    values: dict[str, Any] = {
        "a state": STATE,
        "all plain values": [None, True, 1, -1, 2**70, 1.5, float("inf"), 1j, "text", "\ud83d\ude00", b"bytes", bytearray(b"more"), ...],
        "containers": [
            [],
            {},
            (),
            set(),
            frozenset({1}),
            {"a": {"b": [1, (2, {3})]}},
            OrderedDict(a=1),
            defaultdict(list, a=[1]),
            Counter("aab"),
        ],
        "dates and paths": [datetime.datetime(2026, 1, 2, 3, 4, 5), datetime.timedelta(1), PurePosixPath("a/b"), range(3), slice(1, 2)],
        "arrays": [FLAT, np.float32(1), np.arange(3)[::2], np.array(["a", "b"]), np.zeros((0, 3)), np.dtype("f4"), np.array(5)],
        "shared": [FLAT["w"]] * 5,
        "a million numbers": list(range(100_000)),
        "long texts": {"a" * 5000: "b" * 100_000},
    }
    for name, value in values.items():
        for protocol in (0, 2, 4, 5):
            yield honest(f"pickle {protocol} of {name}", pickle.dumps(value, protocol), file="m.pkl")
    data = pickle.dumps(STATE, 4)
    for name, pack in {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zlib": zlib.compress}.items():
        yield honest(f"pickle in {name}", pack(data), file="m.pkl")
    yield honest("three pickles", data * 3, file="m.pkl")


def others() -> Iterator[Case]:
    """NumPy's dtypes, archives with comments, long names, deep trees, templates, empty tensors, and models of runtimes."""
    for dtype in ("?", "u1", "i2", "<i4", ">i8", "f2", "<f4", ">f8", "c8", "c16", "S5", "U3", "V4", "M8[s]", "m8[ms]"):
        yield honest(f"npy of {dtype}", npy(np.zeros((2, 3), dtype)), file="m.npy")
    yield honest("npz deflated", zipped(NPZ, method=8), file="m.npz")
    yield honest("npz of 500", zipped({f"w{number}.npy": npy(np.arange(3)) for number in range(500)}), file="m.npz")
    names = {f"layer.{number}.weight": entry(4 * number, 4 * number + 4, 1, dtype="F32") for number in range(5000)}
    yield honest("safetensors of 5,000", safetensors(names, bytes(20_000)), file="m.safetensors")
    yield honest("safetensors of every dtype", safetensors({d: entry(at * 8, at * 8 + 8, 8 // size, dtype=d) for at, (d, size) in enumerate(
        {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8}.items())}, bytes(120)), file="m.safetensors")  # fmt: skip
    yield honest(
        "safetensors with metadata",
        safetensors({"__metadata__": {"format": "pt", "license": "MIT"}, "w": entry(0, 4)}, b"abcd"),
        file="m.safetensors",
    )
    yield honest(
        "safetensors with spaces",
        safetensors(None, b"", text=b'{"w":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}   '),
        file="m.safetensors",
    )
    part = safetensors({"w": entry(0, 4)}, bytes(4))
    index = json.dumps({"metadata": {"total_size": 4}, "weight_map": {"w": "a.safetensors"}}).encode()
    yield honest("shards", {"m/model.safetensors.index.json": index, "m/a.safetensors": part, "m/config.json": b'{"model_type": "llama"}'})
    chat = json.dumps({"chat_template": attacks.CHAT}).encode()
    yield honest(
        "a folder of a hub",
        {"m/model.safetensors": part, "m/tokenizer_config.json": chat, "m/README.md": b"# Import os\n", "m/vocab.txt": b"os.system\n"},
    )
    if (gguf := builders("test_gguf")) is not None:
        for version in (1, 2, 3):
            for order in "<>":
                yield honest(f"GGUF {version} {order}", gguf.small(version, order), file="m.gguf")
        yield honest(
            "GGUF with a template",
            gguf.Writer().entry("tokenizer.chat_template", 8, attacks.CHAT).tensor("w", 0, (4,), bytes(16)).bytes(),
            file="m.gguf",
        )
    if (onnx := builders("test_onnx")) is not None:
        yield honest("ONNX", onnx.small(), file="m.onnx")
    if (tflite := builders("test_tflite")) is not None:
        yield honest("TFLite", tflite.flatbuffer(tflite.model([tflite.tensor("w", 0, (4,), 1)], [tflite.F])), file="m.tflite")
    if (runtimes := builders("test_runtimes")) is not None:
        for name, (make, _) in runtimes.MODELS.items():
            yield honest(f"runtime: {name}", make())
    if (torch := builders("torch")) is not None:
        for name, value in _of_torch(torch).items():
            for zipped_ in (True, False):
                file = io.BytesIO()
                torch.save(value, file, _use_new_zipfile_serialization=zipped_)
                yield honest(f"torch: {name} {'zip' if zipped_ else 'stream'}", file.getvalue(), file="m.pt")
    if (joblib := builders("joblib")) is not None:
        for compress in (0, 3, "gzip", "bz2", "xz", "lzma"):
            file = io.BytesIO()
            joblib.dump({"w": np.ones((20, 30)), "names": ["a"]}, file, compress=compress)
            yield honest(f"joblib {compress}", file.getvalue(), file="m.joblib")


def _of_torch(torch: Any) -> dict[str, Any]:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(2, 2))
    adam = torch.optim.Adam(net.parameters())

    return {
        "a state_dict": net.state_dict(),
        "an optimizer": {"model": net.state_dict(), "optimizer": adam.state_dict(), "epoch": 3, "args": {"lr": 0.1}},
        "views": {"a": torch.arange(6.0), "b": torch.arange(6.0).reshape(2, 3).t(), "e": torch.zeros(1).expand(100)},
        "dtypes": {
            str(d): torch.zeros(2, dtype=d) for d in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.complex64)
        },
        "a parameter": torch.nn.Parameter(torch.ones(2)),
        "a sparse tensor": torch.eye(3).to_sparse(),
    }

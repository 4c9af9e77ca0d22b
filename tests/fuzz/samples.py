"""Honest files, small ones, one or more of every format that is read: what fuzzers and mutations begin with.

Made by the genuine tools where these are here, else by hand, in the modules that test the format.
"""

import importlib
import io
import pickle
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

import tensorkeep as tk

STATE: Final = {"layers": [{"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(3)}], "epoch": 3, "name": "net"}
FLAT: Final = {"w": STATE["layers"][0]["w"], "b": np.arange(4), "h": np.float16([[1.5, -2]])}


def _here(module: str) -> Any:
    """A module that may be missing, a test module whose genuine tool is missing too; None then."""
    try:
        return importlib.import_module(module)
    except BaseException as error:
        if isinstance(error, ImportError) or type(error).__name__ == "Skipped":
            return None
        raise


def _written(write: Callable[[Any], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _converted(suffix: str, **options: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.safetensors"), Path(folder, f"made{suffix}")
        tk.save(FLAT, source)
        tk.convert(source, target, **options)
        return target.read_bytes()


class _Estimator:
    """Stands for an object of any class."""

    def __init__(self) -> None:
        self.coef_, self.params = np.ones((2, 2)), {"alpha": 0.5, "names": ("a", "b")}


def _all() -> Iterator[tuple[str, Callable[[], bytes]]]:
    yield "model file", lambda: tk.dumps(STATE)
    yield "safetensors", lambda: _converted(".safetensors", to="safetensors")
    yield "npy", lambda: _written(lambda file: np.save(file, FLAT["w"]))
    yield "npy in fortran order", lambda: _written(lambda file: np.save(file, np.asfortranarray(FLAT["w"])))
    yield "npy with fields", lambda: _written(lambda file: np.save(file, np.zeros(2, [("a", "<f4"), ("b", ">i2", (2,))])))
    yield "npy with objects", lambda: _written(lambda file: np.save(file, np.array([{"w": np.ones(2)}, "text"], object)))
    yield "npz", lambda: _written(lambda file: np.savez(file, **FLAT))
    yield "npz deflated", lambda: _written(lambda file: np.savez_compressed(file, **FLAT))
    for protocol in range(6):
        yield f"pickle {protocol}", lambda protocol=protocol: pickle.dumps(STATE | {"net": _Estimator()}, protocol)
    yield "pt by convert", lambda: _converted(".pt")
    if _here("torch"):
        yield from _torch()
    if (joblib := _here("joblib")) is not None:
        for compress in (0, "zlib", "gzip", "bz2", "xz"):
            yield f"joblib {compress}", lambda compress=compress: _written(lambda file: joblib.dump(STATE, file, compress=compress))
    if _here("h5py") and (keras := _here("test_keras_files")) is not None:
        yield "keras h5", keras.legacy
        yield "keras weights", keras.weights
        yield "keras archive", keras.archive
    for name, module, function in (
        ("gguf", "test_gguf", "small"),
        ("onnx", "test_onnx", "small"),
        ("mxnet", "test_runtimes", "mxnet"),
        ("paddle", "test_runtimes", "paddle"),
        ("caffe", "test_runtimes", "caffe"),
        ("coreml network", "test_runtimes", "coreml_network"),
        ("openvino", "test_runtimes", "openvino"),
        ("thinc", "test_runtimes", "thinc"),
        ("tflite", "test_tflite", "small"),
    ):
        if (make := getattr(_here(module), function, None)) is not None:
            yield name, lambda make=make: _first(make())
    if (equinox := _here("test_equinox")) is not None:
        yield "equinox", lambda: equinox.saved(FLAT["w"], 3, True, line=b'{"width": 3}\n')
    if (msgpack := _here("msgspec.msgpack")) is not None and (flax := _here("test_flax")) is not None:
        yield "flax", lambda: msgpack.encode({"params": {name: flax.array(array) for name, array in FLAT.items()}, "step": 3})
    if (scipy := _here("scipy.io")) is not None:
        yield "matlab", lambda: _written(lambda file: scipy.savemat(file, {"w": FLAT["w"], "s": {"name": "net"}}))
        yield "matlab 4", lambda: _written(lambda file: scipy.savemat(file, {"w": FLAT["w"], "t": "text"}, format="4"))


def _torch() -> Iterator[tuple[str, Callable[[], bytes]]]:
    torch = _here("torch")
    base = torch.arange(6.0)
    state = {
        "w": base.reshape(2, 3),
        "tied": base,
        "turned": base.reshape(2, 3).t(),
        "epoch": 3,
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    yield "pt", lambda: _written(lambda file: torch.save(state, file))
    yield "pt as a stream", lambda: _written(lambda file: torch.save(state, file, _use_new_zipfile_serialization=False))
    yield "pt with a module", lambda: _written(lambda file: torch.save(net, file))
    if (files := _here("test_torch_files")) is not None:
        yield "pt as a tar", lambda: files.old_tar({"w": FLAT["w"]})


def _first(made: Any) -> bytes:
    """The one file, or the one that is opened, of a maker's answer."""
    return made if isinstance(made, bytes) else next(iter(made.values()))


def single_files() -> dict[str, bytes]:
    """By name, the bytes of each sample that is one file."""
    samples = {name: make() for name, make in _all()}
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        member = tarfile.TarInfo("model.pkl")
        member.size = len(samples["pickle 2"])
        archive.addfile(member, io.BytesIO(samples["pickle 2"]))
    return samples | {"tar with a pickle": tar.getvalue()}

"""Disguises: calls spelled as text in bytes, in attributes of HDF5, and in the configurations of pipelines; and honest ones of each kind."""

import base64
import binascii
import json
import pickle
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hostile.cases import EITHER, READ, Case, builders, one
from hostile.pickles import WAYS

_SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "base64": base64.b64encode,
    "base64 of lines": base64.encodebytes,
    "base64 for addresses": base64.urlsafe_b64encode,
    "hex": binascii.hexlify,
    "zlib": zlib.compress,
    "base64 of zlib": lambda data: base64.b64encode(zlib.compress(data)),
}


def spelled() -> Iterator[Case]:
    """A call inside of a pickle, spelled in other letters, as bytes and as a text; and what is spelled and calls nothing."""
    call, plain = WAYS["protocol 4"]("posix", "system"), pickle.dumps({"layers": [1, 2, 3], "name": "a model" * 9})
    for name, spell in _SPELLINGS.items():
        for kind, value in {"bytes": spell(call), "text": spell(call).decode("latin-1")}.items():
            if not (name == "zlib" and kind == "text"):
                yield one(f"{name} as {kind}", pickle.dumps({"w": [0.5], "meta": value}), EITHER, scan="told", file="m.pkl")
        yield one(f"{name} of an honest pickle", pickle.dumps({"w": [0.5], "meta": spell(plain)}), READ, scan="clean", file="m.pkl")
    random = np.random.default_rng(0)
    for number in range(8):
        data = b"x\x9c" + random.bytes(5000)
        yield one(f"bytes that begin as zlib does, {number}", pickle.dumps({"w": data}), READ, scan="clean", file="m.pkl")


def attributes() -> Iterator[Case]:
    """PyTables unpickles attributes that end in a dot, in any file of HDF5."""
    h5py = builders("h5py")
    if h5py is None:
        return
    from hostile.hdf5 import _written

    def filled(value: bytes) -> Callable[[Any], object]:
        return lambda file: file.create_dataset("w", data=[1.0]).attrs.__setitem__("META", np.bytes_(value))

    yield Case("a call in an attribute", {"m.h5": _written(h5py, filled(WAYS["protocol 0"]("posix", "system")))}, EITHER, scan="told")
    yield Case("a list in an attribute", {"m.h5": _written(h5py, filled(pickle.dumps(["a", 1], 0)))}, READ, scan="clean")
    yield Case("a text like a pickle", {"m.h5": _written(h5py, filled(b"tan\ncos\nsin\nexp\n."))}, READ, scan="clean")


def pipelines() -> Iterator[Case]:
    """What diffusers and sentence-transformers import by the names in their configurations."""
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "safety_checker": [None, None]}
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for name, file, document, scan in (
        ("a pipeline", "model_index.json", index, "clean"),
        ("a part of os", "model_index.json", {**index, "unet": ["os", "system"]}, "told"),
        ("a pipeline of its own", "model_index.json", {**index, "_class_name": ["pipeline", "Mine"]}, "told"),
        ("modules", "modules.json", modules, "clean"),
        ("a module of its own", "modules.json", [{**modules[0], "type": "mine.Transformer"}], "told"),
        ("a module of os", "modules.json", [{**modules[0], "type": "os.system"}], "told"),
    ):
        yield Case(name, {f"m/{file}": json.dumps(document).encode()}, EITHER, scan=scan)  # type: ignore[arg-type]  # one of the two

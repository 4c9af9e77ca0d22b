"""A state told in JSON, every bit of it: what the vectors expect, readable by eyes and by other languages."""

import datetime as dt
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import PurePath
from typing import Any

import numpy as np
from blake3 import blake3

Json = Any


def told(value: Any) -> Json:
    """A state as JSON: `[type, ...]` for all but null, booleans, texts and ints; arrays by dtype, shape and the BLAKE3 of their bytes.

    Arrays that are one object are told in full each time; `ties` tells which are one.
    """
    name = type(value).__name__
    if value is None or type(value) in (bool, int, str):
        return value if not isinstance(value, str) or value.isprintable() else ["str", value.encode("utf-8", "surrogatepass").hex()]
    if type(value).__module__ == "torch" and hasattr(value, "dtype") and hasattr(value, "untyped_storage"):
        return _tensor(value)
    if hasattr(value, "get_state") and type(value).__module__.startswith("torch"):
        return ["torch.Generator", told(value.get_state())]
    if isinstance(value, np.ndarray):
        return ["ndarray", _dtype(value.dtype), list(value.shape), blake3(value.tobytes()).hexdigest()]
    if isinstance(value, np.generic) or type(value).__module__ == "ml_dtypes":
        array = np.asarray(value)
        return ["scalar", _dtype(array.dtype), array.tobytes().hex()]
    if isinstance(value, np.dtype):
        return ["dtype", _dtype(value)]
    match value:
        case float():
            return ["float", struct.pack(">d", value).hex()]
        case complex():
            return ["complex", struct.pack(">dd", value.real, value.imag).hex()]
        case bytes() | bytearray():
            return [name, value.hex() if len(value) < 100 else ["blake3", len(value), blake3(value).hexdigest()]]
        case defaultdict():
            return [name, getattr(value.default_factory, "__name__", None), _items(value)]
        case OrderedDict() if hasattr(value, "_metadata"):
            return [name, _items(value), told(value._metadata)]
        case OrderedDict() | Counter() | dict():
            return [name, _items(value)]
        case deque():
            return [name, value.maxlen, [told(item) for item in value]]
        case set() | frozenset():
            return [name, sorted((told(item) for item in value), key=str)]
        case list() | tuple():
            items = [told(item) for item in value]
            return [name, items if len(items) < 100 else ["blake3", len(items), blake3(repr(items).encode()).hexdigest()]]
        case dt.datetime() | dt.time():
            return [name, value.isoformat(), value.fold]
        case dt.date() | PurePath():
            return [name, str(value)]
        case np.random.Generator():
            return [name, told(value.bit_generator.state)]
        case _ if hasattr(value, "__dict__") and name in ("SimpleNamespace", "Namespace"):
            return [name, _items(vars(value))]
        case _:
            return [name, repr(value)]


def ties(value: Any) -> list[list[str]]:
    """The groups of places that hold one and the same array."""
    places: dict[int, list[str]] = {}

    def walk(child: Any, path: str) -> None:
        if isinstance(child, dict):
            for key, inner in child.items():
                walk(inner, f"{path}.{key}" if path else str(key))
        elif isinstance(child, (list, tuple, deque)):
            for number, inner in enumerate(child):
                walk(inner, f"{path}.{number}")
        elif hasattr(child, "dtype") and hasattr(child, "shape") and not isinstance(child, np.generic):
            places.setdefault(id(child), []).append(path)

    walk(value, "")
    return sorted(group for group in places.values() if len(group) > 1)


def _items(value: Any) -> Json:
    return [[told(key), told(child)] for key, child in value.items()]


def _dtype(dtype: "np.dtype[Any]") -> Json:
    if dtype.names is not None:
        return [str(dtype.descr), dtype.itemsize]
    return dtype.name if dtype.kind == "V" and dtype.type is not np.void else dtype.str


def _tensor(value: Any) -> Json:
    import torch

    if value.layout is not torch.strided:
        return ["sparse", str(value.layout), str(value.dtype), list(value.shape), [told(part) for part in _parts(value)]]
    raw = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
    return [type(value).__name__, str(value.dtype), list(value.shape), value.requires_grad, blake3(raw).hexdigest()]


def _parts(value: Any) -> list[Any]:
    if str(value.layout) == "torch.sparse_coo":
        return [value._indices(), value._values()]
    return [value.crow_indices(), value.col_indices(), value.values()]

"""How this vector was made, once, by tensorkeep 0.1.0. No test runs it: a vector is only ever read.

PYTHONPATH=tests python tests/vectors/modelfile-v1-by-0.1.0/make.py
"""

import datetime as dt
import json
import pathlib
import types
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import ml_dtypes
import numpy as np
from blake3 import blake3

import tensorkeep as tk
from told import ties, told

HERE = pathlib.Path(__file__).parent


def counting(dtype: Any, *shape: int) -> "np.ndarray[Any, Any]":
    """Bytes 0, 1, 2, ... as elements of a type."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    if dtype.name in ("int4", "uint4", "int2", "uint2", "int1", "uint1", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn", "bool"):
        return (np.arange(count) % 2).astype(dtype).reshape(shape)
    return np.resize(np.arange(251, dtype=np.uint8), count * dtype.itemsize).view(dtype).reshape(shape)


def state() -> Any:
    tied = counting("f4", 3, 4)
    numpy_types = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "c16"]
    structured = np.dtype([("a", "<i2"), ("b", ">f4", (2,))])
    ordered = OrderedDict([("z", tied), ("a", 1)])
    ordered._metadata = OrderedDict([("", {"version": 1})])  # type: ignore[attr-defined]
    plain_keys = dict.fromkeys([None, True, 7, -(2**70), 0.5, b"\x00", (1, "a"), frozenset({2, 1}), "", "a.b", "\ud800"], 0)
    return {
        "dtypes": {name: counting(name, 2, 3) for name in numpy_types},
        "big_endian": {name: counting("<" + name, 5).astype(">" + name)
 for name in ["i2", "u4", "i8", "f2", "f4", "f8", "c16", "U3", "M8[s]"]},
        "ml_dtypes": {
            name: counting(getattr(ml_dtypes, name), 2, 3)
            for name in [
                *("bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2"),
                *("float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn", "int4", "uint4", "int2", "uint2"),
            ]
        },
        "odd_f4": counting(ml_dtypes.float4_e2m1fn, 3, 3),
        "others": {
            "text": np.array(["a", "été", "日本"]),
            "bytes": np.array([b"a", b"bc"]),
            "moments": np.array(["2026-01-02", "NaT"], "M8[D]"),
            "spans": np.array([1, -1], "m8[25us]"),
            "structured": counting(structured, 3),
            "void": counting("V7", 2),
        },
        "shapes": {"scalar": np.array(0.1, np.float32), "empty": np.zeros((0, 3), "f4"), "long": np.zeros((1,) * 8, "i2")},
        "memory": {
            "fortran": np.asfortranarray(counting("i4", 3, 4)),
            "reversed": counting("i4", 7)[::-1],
            "broadcast": np.broadcast_to(np.int8(3), (2, 2)),
        },
        "grid": {
            "large": counting("u1", 65536),
            "below": counting("u1", 65535),
            "two_chunks": counting("u1", (1 << 20) + 1),
            "small": [np.full(3, number, "u1") for number in range(5)],
            "nearly_large": [np.full(60000, number, "u1") for number in range(20)],
        },
        "tied": {"first": tied, "again": [tied, {"deep": tied}]},
        "ordered": ordered,
        "keys": plain_keys,
        "array_keys": {key: counting("u1", size) for size, key in enumerate([3, "3", (3,), "a.b", "__metadata__"])},
        "containers": {
            "list": [1, [2, []]],
            "tuple": (1, (), ("a",)),
            "dict": {},
            "counter": Counter({"a": 2, "b": -1}),
            "defaultdicts": [defaultdict(list, {"a": [1]}), defaultdict(None), defaultdict(int, {"x": 3})],
            "deques": [deque([1, 2], 5), deque([3])],
            "sets": [set(), {1, "a", None}, frozenset({(1, 2), b"x"})],
            "bags": [types.SimpleNamespace(a=1, w=counting("u1", 6)), Namespace(lr=0.1)],
        },
        "floats": [0.0, -0.0, 0.1, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf"), float("nan"), -float("nan"), 1e16, 3.0],
        "complexes": [1 + 2j, complex("nan-infj"), complex(-0.0, 0.0)],
        "ints": [0, -1, 2**53, -(2**53), 2**53 + 1, -(2**53) - 1, 2**64, 3**1000],
        "texts": ["", "é日本🎉", "\x00\x1b[31m\u202e", "\ud800x", '"\\/', "a" * 65536, "ü" * 40000],
        "bytes": [b"", b"\x00\xff", bytearray(b"ab"), bytes(65537)],
        "long": [list(range(1001)), tuple(float(number) for number in range(1001)), [True, False] * 600, [1j] * 1001],
        "short": [1.5] * 1000,
        "moments": [
            dt.datetime(2026, 1, 2, 3, 4, 5, 6),
            dt.datetime(2026, 1, 2, tzinfo=dt.UTC, fold=1),
            dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-5, minutes=-30))),
            dt.date(9999, 12, 31),
            dt.time(1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=1))),
            dt.timedelta(-1, 2, 3),
            dt.UTC,
            dt.timezone(dt.timedelta(seconds=1)),
        ],
        "ranges": [range(0), range(9, 0, -2), slice(None), slice(1, -2, 3)],
        "paths": [pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:\\x")],
        "scalars": [
            *(np.float32("nan"), np.int64(-5), np.bool_(True), np.complex128(1 - 2j), np.str_("ö"), np.bytes_(b"x")),
            *(np.datetime64("2026", "ns"), ml_dtypes.bfloat16(1.5), counting(structured, 1)[0]),
        ],
        "dtype": [np.dtype(">f4"), structured, np.dtype(ml_dtypes.bfloat16)],
        "generators": [np.random.default_rng(7), np.random.Generator(np.random.MT19937(3))],
    }  # fmt: skip


def main() -> None:
    path = HERE / "model.safetensors"
    saved = state()
    tk.save(saved, path, metadata={"author": "tensorkeep", "epoch": 3, "losses": [0.5, float("nan")]})
    expect(path, saved)


def expect(path: pathlib.Path, saved: Any) -> None:
    """Write `expect.json`: what a reader must find in a file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["tensorkeep"])
    with tk.open(path) as f:
        tensors = {
            name: {"dtype": str(tensor.dtype), "shape": list(tensor.shape), "blake3": blake3(tensor.tobytes()).hexdigest()}
            for name, tensor in f.tensors.items()
        }
        metadata = told(f.metadata)
    facts = {
        "bytes": len(data),
        "root": document["root"],
        "tensors": tensors,
        "metadata": metadata,
        "structure": document["structure"],
        "state": told(saved),
        "ties": ties(saved),
    }
    lines = ",\n".join(f" {json.dumps(key)}: {_lines(value)}" for key, value in facts.items())
    path.with_name("expect.json").write_text("{\n" + lines + "\n}\n")


def _lines(value: Any) -> str:
    """JSON with a line for each entry of a dict."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(child)}" for key, child in value.items()) + "\n }"


if __name__ == "__main__":
    main()

"""PyTorch's names for dtypes and storages, as its files have them, and ours.

Lives here: tables. `torch.float32` stands in a pickle as the global `torch float32`, a storage of it as `torch FloatStorage`. Newer dtypes
have no storage class of their own: theirs is `torch.storage UntypedStorage`, of bytes.

Source: `torch/storage.py` and `c10/core/ScalarType.h` of PyTorch 2.13.
"""

from typing import Final

from tensorkeep.dtypes import C32, C128, F4, STANDARD, U8, DType, parse

_NAMED: Final = {
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}
_ALIASES: Final = {
    "half": "float16",
    "float": "float32",
    "double": "float64",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "chalf": "complex32",
    "cfloat": "complex64",
    "cdouble": "complex128",
}

_OWN: Final = {name: STANDARD[ours] for name, ours in _NAMED.items()} | {
    "complex32": C32,
    "complex128": C128,
    "float4_e2m1fn_x2": F4,
    # Bits without a meaning: as many bytes as they take.
    **dict.fromkeys(("bits8", "bits1x8", "bits2x4", "bits4x2"), U8),
    "bits16": STANDARD["U16"],
    # Small integers lie one to a byte.
    **{f"{sign}int{bits}": STANDARD[ours] for sign, ours in (("", "I8"), ("u", "U8")) for bits in range(1, 8)},
}
if (_BC32 := parse("BC32")) is not None:
    _OWN["bcomplex32"] = _BC32

DTYPES: Final[dict[str, DType]] = _OWN | {alias: _OWN[name] for alias, name in _ALIASES.items()}
"""By PyTorch's name. `float4_e2m1fn_x2` holds two of our F4 in each of its elements."""

PROPER: Final = {name: _ALIASES.get(name, name) for name in DTYPES}
"""The name that PyTorch prints, of each that it also takes."""

TWO_EACH: Final = F4

QUANTIZED: Final[dict[str, DType]] = {"qint8": STANDARD["I8"], "quint8": U8, "qint32": STANDARD["I32"], "quint4x2": U8, "quint2x4": U8}
"""By PyTorch's name, the integers of a quantized dtype as they are stored."""

PACKED: Final = {"quint4x2": 4, "quint2x4": 2}
"""Bits of one element of those that are packed several to a byte."""

STORAGES: Final[dict[str, str]] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8",
    "QInt32Storage": "qint32",
    "QUInt8Storage": "quint8",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "uint8",
}
"""By the name of a storage's class, whatever module it is said to be of (`torch`, `torch.cuda`): PyTorch goes by the name too."""

ITEM_BYTES: Final[dict[str, int]] = {name: max(8, dtype.bits) // 8 for name, dtype in {**DTYPES, **QUANTIZED}.items()}

SWAPPED: Final = {"complex64": 4, "complex128": 8, "complex32": 2, "bcomplex32": 2}
"""How many bytes are swapped as one where that is not the whole element."""

BY_NUMBER: Final[dict[int, str]] = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "complex32",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}
"""By the number that `torch.export` writes (`ScalarType` of `torch/_export/serde/schema.py`)."""

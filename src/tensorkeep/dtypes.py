"""The DType table: every kind of number a tensor may hold, its bits, its names, and how to cast.

Lives here: safetensors' names, NumPy's types, how an element is stored, casts. Lives elsewhere: the frameworks' own types (frameworks).
Source of the standard names: https://github.com/huggingface/safetensors, `Dtype` in `tensor.rs`, version 0.8.
"""

import math
import re
import sys
from functools import lru_cache
from typing import Any, Final

import ml_dtypes
import msgspec
import numpy as np

from tensorkeep.quantized.blocks import BLOCKS

if sys.byteorder == "big":
    raise ImportError("tensorkeep keeps tensors in little-endian order as they lie in memory; this machine is big-endian and not supported")

Array = np.ndarray[Any, Any]


class DType(msgspec.Struct, frozen=True):
    """One kind of element.

    Args:
        name: what it prints as: safetensors' name, else `C128` and the like, else the format's own or NumPy's.
        bits: bits of one element as stored; of one block, where elements are quantized together.
        numpy: one element in memory, little-endian; None where NumPy has nothing for it.
        stored: the safetensors dtype that its bytes stand under.
        tail: length of the extra last axis of the stored shape, or None if stored shape and shape are the same.
        memory: the NumPy type of the array that was saved, where its byte order is another than `numpy`'s.
        block: elements that are quantized together, along the last axis; 1 where each stands for itself.
        known: whether `stored` alone says it all, so that the structure need not name the dtype.
    """

    name: str
    bits: int
    numpy: "np.dtype[Any] | None"
    stored: str = ""
    tail: int | None = None
    memory: "np.dtype[Any] | None" = None
    block: int = 1

    @property
    def known(self) -> bool:
        return self.stored == self.name and self.memory is None

    def __str__(self) -> str:
        return self.name

    def nbytes(self, count: int) -> int:
        """Bytes that `count` elements take; 4-bit elements and blocks fill whole bytes or this is no whole number (see `fits`)."""
        return count * self.bits // (8 * self.block)

    def fits(self, count: int) -> bool:
        """Whether `count` elements end on a whole byte, and on a whole block."""
        return count * self.bits % (8 * self.block) == 0

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the stored bytes: blocks make a last axis of their bytes."""
        if self.block > 1:
            return (*shape[:-1], self.nbytes(shape[-1]))
        return shape if self.tail is None else (*shape, self.tail)

    def logical_shape(self, stored: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape whose `stored_shape` this is, or None."""
        if self.block > 1:
            whole = bool(stored) and 8 * stored[-1] % self.bits == 0
            return (*stored[:-1], 8 * stored[-1] // self.bits * self.block) if whole else None
        if self.tail is None:
            return stored
        return stored[:-1] if stored and stored[-1] == self.tail else None


def _numpy(name: str) -> "np.dtype[Any] | None":
    """An element type by NumPy's or ml_dtypes' name; None where the installed ml_dtypes is too old to have it."""
    scalar = getattr(ml_dtypes, name, None)
    return np.dtype(name if scalar is None else scalar) if scalar is not None or hasattr(np, name) else None


# The standard: each is stored as itself. F6 is missing, for no packing of it is common; see PACKED_F6.
_STANDARD: Final = (
    ("BOOL", 8, "bool_"),
    ("U8", 8, "uint8"),
    ("I8", 8, "int8"),
    ("U16", 16, "uint16"),
    ("I16", 16, "int16"),
    ("U32", 32, "uint32"),
    ("I32", 32, "int32"),
    ("U64", 64, "uint64"),
    ("I64", 64, "int64"),
    ("F16", 16, "float16"),
    ("BF16", 16, "bfloat16"),
    ("F32", 32, "float32"),
    ("F64", 64, "float64"),
    ("C64", 64, "complex64"),
    ("F8_E4M3", 8, "float8_e4m3fn"),
    ("F8_E5M2", 8, "float8_e5m2"),
    ("F8_E8M0", 8, "float8_e8m0fnu"),
    ("F8_E4M3FNUZ", 8, "float8_e4m3fnuz"),
    ("F8_E5M2FNUZ", 8, "float8_e5m2fnuz"),
)

# One element to a byte, stored as U8, because nobody agrees on a packing or the standard has no name.
_BYTE_EACH: Final = (
    ("F6_E2M3", "float6_e2m3fn"),
    ("F6_E3M2", "float6_e3m2fn"),
    ("I4", "int4"),
    ("U4", "uint4"),
    ("I2", "int2"),
    ("U2", "uint2"),
    ("I1", "int1"),
    ("U1", "uint1"),
    ("F8_E3M4", "float8_e3m4"),
    ("F8_E4M3IEEE", "float8_e4m3"),
    ("F8_E4M3B11FNUZ", "float8_e4m3b11fnuz"),
)

F4: Final = DType("F4", 4, np.dtype(ml_dtypes.float4_e2m1fn), "F4")
"""Packed two to a byte, the even index in the low half."""

F4_BYTE_EACH: Final = DType("F4", 8, np.dtype(ml_dtypes.float4_e2m1fn), "U8")
"""For an odd count, which no whole number of bytes can hold packed."""

C128: Final = DType("C128", 128, np.dtype("complex128"), "U8", tail=16)
C32: Final = DType("C32", 32, np.dtype([("re", "<f2"), ("im", "<f2")]), "U8", tail=4)
"""torch.complex32, which NumPy lacks: it shows the real and the imaginary half."""

PACKED_F6: Final = {name: DType(name, 6, None, name) for name in ("F6_E2M3", "F6_E3M2")}
"""As other writers' files may have them: their bytes can be had, their values not."""

BLOCKED: Final = {name: DType(name, 8 * nbytes, None, "U8", block=count) for name, (count, nbytes) in BLOCKS.items()}
"""Quantized in blocks: NumPy has nothing for them but their bytes."""

STANDARD: Final = {name: DType(name, bits, _numpy(numpy), name) for name, bits, numpy in _STANDARD} | {"F4": F4}
STORABLE: Final = STANDARD | PACKED_F6
"""By name, every dtype that the header of a safetensors file may hold."""

BOOL, U8, F32, I64, F64 = (STANDARD[name] for name in ("BOOL", "U8", "F32", "I64", "F64"))

_LOGICAL: Final = {name: DType(name, 8, _numpy(numpy), "U8") for name, numpy in _BYTE_EACH} | {
    "F4": F4_BYTE_EACH,
    "C128": C128,
    "C32": C32,
    "BC32": DType("BC32", 32, _numpy("bcomplex32"), "U8", tail=4),
    **BLOCKED,
}

_OF_NUMPY: Final = {
    dtype.numpy: dtype for dtype in (*_LOGICAL.values(), *STANDARD.values()) if dtype.numpy is not None and dtype is not C32
}

_BY_NAME: Final = {str(dtype.numpy): dtype for dtype in (*_OF_NUMPY.values(), F4_BYTE_EACH)}

_TEXT: Final = re.compile(r"([<>|])(?:([US V])(\d{1,9})|([Mm])8(?:\[(\d{1,9})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?|([iufcb])(\d{1,2}))")
_MAX_ITEM: Final = 2**31 - 1  # bytes: NumPy's own bound
_MAX_NESTING: Final = 8
_MAX_FIELDS: Final = 10_000
_MAX_OVERLAP: Final = 8  # times that the fields of one element may cover it: each time somebody walks over its bytes


@lru_cache(maxsize=1024)
def of_numpy(dtype: "np.dtype[Any]") -> DType | None:
    """The DType of a NumPy type, or None for what cannot be kept: objects, `longdouble`, variable-width strings.

    4-bit floats give `F4`, packed; where the count is odd the caller takes `F4_BYTE_EACH`.
    """
    if (found := _OF_NUMPY.get(dtype)) is not None:
        return found
    if dtype.kind not in "biufcmMSUV":  # objects, and NumPy 2's strings of variable width, which refuse the next line
        return None
    little = dtype.newbyteorder("<") if dtype.names is None else dtype
    if (found := _OF_NUMPY.get(little)) is not None:
        return _with_memory(found, dtype)
    if dtype.names is not None:
        if describe_numpy(dtype) is None or _covered(dtype) > _MAX_OVERLAP * dtype.itemsize:
            return None
        return DType(str(dtype), 8 * dtype.itemsize, dtype, "U8", tail=dtype.itemsize)
    if dtype.subdtype is None and dtype.kind in "USMmV" and type(dtype).__module__.startswith("numpy") and dtype.isbuiltin != 2:
        plain = DType(little.str, 8 * dtype.itemsize, little, "U8", tail=dtype.itemsize)
        return plain if little == dtype else _with_memory(plain, dtype)
    return None


def _with_memory(dtype: DType, memory: "np.dtype[Any]") -> DType:
    return DType(dtype.name, dtype.bits, dtype.numpy, dtype.stored, dtype.tail, memory)


def named(name: str) -> DType | None:
    """A number's DType by NumPy's or ml_dtypes' name, such as `bfloat16`, each element in bytes of its own; None for a name of neither."""
    return _BY_NAME.get(name)


def describe(dtype: DType) -> object:
    """The dtype as JSON, for the structure. `parse` reads it back."""
    if dtype.memory is not None:
        return describe_numpy(dtype.memory)
    return describe_numpy(dtype.numpy) if dtype.numpy is not None and dtype.numpy.names is not None and dtype is not C32 else dtype.name


def describe_numpy(dtype: "np.dtype[Any]") -> object | None:
    """A NumPy type as JSON: a DType's name, NumPy's own `>f4` or `<U5`, or fields; None where it cannot be kept."""
    if dtype.names is not None:
        fields = []
        for name in dtype.names:
            inner, offset, *title = dtype.fields[name]  # type: ignore[index]  # there are fields where there are names
            base, shape = inner.subdtype if inner.subdtype is not None else (inner, ())
            described = describe_numpy(base)
            if described is None or title:
                return None
            fields.append([name, described, offset, list(shape)])
        return {"fields": fields, "itemsize": dtype.itemsize}
    known = of_numpy(dtype)
    if known is None:
        return None
    return known.name if known.memory is None else dtype.str


def parse(document: object, *, nesting: int = 0) -> DType | None:
    """The DType that `describe` described, from an untrusted document; None where it is none."""
    if isinstance(document, str):
        if (found := _LOGICAL.get(document) or STANDARD.get(document)) is not None:
            return found
        if (numpy := _parse_text(document)) is not None:
            return of_numpy(numpy)
        return None
    numpy = _parse_fields(document, nesting) if isinstance(document, dict) else None
    return None if numpy is None else of_numpy(numpy)


def _covered(dtype: "np.dtype[Any]") -> int:
    """Bytes of all fields of one element together, down to those without fields of their own."""
    base, shape = dtype.subdtype if dtype.subdtype is not None else (dtype, ())
    if base.names is None:
        return dtype.itemsize
    return math.prod(shape) * sum(map(_covered, (base[name] for name in base.names)))


def _parse_text(text: str) -> "np.dtype[Any] | None":
    match = _TEXT.fullmatch(text)
    if match is None or int(match[3] or 0) > _MAX_ITEM // 4 or int(match[5] or 1) > _MAX_ITEM:
        return None
    try:
        return np.dtype(text)
    except (TypeError, ValueError):
        return None


def _parse_fields(document: dict[str, Any], nesting: int) -> "np.dtype[Any] | None":
    fields, itemsize = document.get("fields"), document.get("itemsize")
    if not isinstance(fields, list) or type(itemsize) is not int or not 0 <= itemsize <= _MAX_ITEM:
        return None
    if nesting > _MAX_NESTING or len(fields) > _MAX_FIELDS:
        return None
    names, formats, offsets = [], [], []
    for entry in fields:
        if not isinstance(entry, list) or len(entry) != 4:
            return None
        name, inner, offset, shape = entry
        dtype = parse(inner, nesting=nesting + 1)
        memory = None if dtype is None else dtype.memory or dtype.numpy
        if memory is None or not isinstance(name, str) or type(offset) is not int or not isinstance(shape, list):
            return None
        if not all(type(length) is int and 0 <= length <= _MAX_ITEM for length in shape) or len(shape) > 16:
            return None
        count = 1
        for length in shape:
            count *= length
        if offset < 0 or offset + count * memory.itemsize > itemsize:
            return None
        names.append(name)
        formats.append((memory, tuple(shape)) if shape else memory)
        offsets.append(offset)
    try:
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize})
    except (TypeError, ValueError, SyntaxError):  # two fields of one name; SyntaxError is what NumPy calls some bad strings
        return None


def castable(source: DType, target: DType) -> bool:
    """Whether `cast=True` may turn one into the other: never a complex number into a real one, nor a float into an integer."""
    order = "biufc"
    kinds = [_kind(source), _kind(target)]
    if not all(kind in order for kind in kinds):
        return False
    rank = [{"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}[kind] for kind in kinds]
    return rank[0] <= rank[1]


def is_float(dtype: DType) -> bool:
    """Whether its elements are real numbers of floating point, each for itself."""
    return _kind(dtype) == "f"


def _kind(dtype: DType) -> str:
    """`b`, `i`, `u`, `f`, `c`, or `?` for what is no number. ml_dtypes' own kind is `V` for them all."""
    if dtype.numpy is None or dtype is C32:
        return "?"
    if dtype.numpy.kind in "biufc":
        return dtype.numpy.kind
    head = dtype.name[:2].rstrip("0123456789_")
    return {"F": "f", "BF": "f", "I": "i", "U": "u", "BC": "c"}.get(head, "?")


def cast(array: Array, target: DType) -> tuple[Array, int]:
    """The array as another dtype, rounded to nearest, ties to even, and how many of its values that changed.

    A value counts as changed if casting it back gives another one; NaN stays NaN and does not count.

    Source: IEEE 754-2019, section 4.3.1.
    """
    assert target.numpy is not None, "castable() was asked"
    source = array.dtype
    grows_complex = _kind(target) == "c" and source.kind in "biufV"
    array = _widened(array)
    with np.errstate(all="ignore"):  # an overflow to infinity is counted, not warned of
        narrow = _round_once(array, target).astype(target.numpy)
        back = _widened(narrow.astype(np.complex128).real if grows_complex else narrow)
        back = _widened(back.astype(source))
        changed = np.count_nonzero((back != array) & ~((back != back) & (array != array)))
    return narrow, int(changed)


def _widened(array: Array) -> Array:
    """Numbers of at most 16 bits as float32, which holds each of them: ml_dtypes cannot cast each of its own to each other."""
    return array.astype(np.float32) if array.dtype.itemsize <= 2 and array.dtype.kind not in "biu" else array


def _round_once(array: Array, target: DType) -> Array:
    """What can be cast on without a second rounding: ml_dtypes turns float64 and wide integers into float32 first.

    Rounding to odd in that first step makes the second one right (S. Boldo and G. Melquiond, "When double rounding is odd", 2005).
    """
    if target.numpy is None or target.numpy.kind in "biufc" or array.dtype.itemsize < 4 or array.dtype == np.float32:
        return array
    if array.dtype.kind not in "iuf":
        return array
    single = array.astype(np.float32)
    back = single.astype(np.float64) if array.dtype.kind == "f" else single.astype(np.longdouble)
    inexact = (back != array) & np.isfinite(single)
    bits = single.view(np.uint32)
    # Towards zero where rounding went outwards, then the lowest bit set: that is rounding to odd.
    outwards = inexact & (np.abs(back) > np.abs(array.astype(back.dtype)))
    bits = bits - outwards.astype(np.uint32)
    odd: Array = np.where(inexact, bits | np.uint32(1), bits).view(np.float32)
    return odd


def are_bools(data: "memoryview | bytes") -> bool:
    """Whether all bytes are 0 or 1: whatever reads another as a truth value is free to see in it what it likes."""
    return len(data) == 0 or int(np.frombuffer(data, np.uint8).max()) <= 1


def texts_are_valid(array: Array) -> bool:
    """Whether an array holds no character beyond Unicode's last, which NumPy fails on. It may have fields."""
    if array.dtype.names is not None:
        return all(texts_are_valid(array[name]) for name in array.dtype.names if _has_texts(array.dtype[name]))
    if array.dtype.kind != "U" or array.nbytes == 0:
        return True
    characters = np.ascontiguousarray(array).view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
    return bool((characters <= sys.maxunicode).all())


def _has_texts(dtype: "np.dtype[Any]") -> bool:
    base = dtype.base
    return base.kind == "U" if base.names is None else any(_has_texts(base[name]) for name in base.names)


def pack_f4(array: Array) -> Array:
    """Two 4-bit floats to a byte, the even index in the low half. The count of elements must be even."""
    nibbles = np.ascontiguousarray(array).reshape(-1).view(np.uint8) & 0xF
    return nibbles[0::2] | (nibbles[1::2] << 4)


def unpack_f4(packed: Array) -> Array:
    """The reverse of `pack_f4`: a flat array of 4-bit floats, one to a byte."""
    nibbles = np.empty(2 * packed.size, np.uint8)
    nibbles[0::2], nibbles[1::2] = packed & 0xF, packed >> 4
    return nibbles.view(ml_dtypes.float4_e2m1fn)

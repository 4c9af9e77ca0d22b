"""Tensors as the bytes of a safetensors file, laid out as the package safetensors lays them out, byte for byte.

Its order: by dtype, the last of its list first, then by name. Its header: compact JSON, the metadata first, spaces up to a multiple of
eight bytes. The order of metadata, which it leaves to chance, is that of the caller's dict here.

Source: `prepare` and `Dtype` in https://github.com/huggingface/safetensors, `safetensors/src/tensor.rs`, version 0.8.
"""

import ctypes
import io
import math
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar, Final

import msgspec
import numpy as np

from tensorkeep import tensors
from tensorkeep.backends import local
from tensorkeep.backends.files import MemorySink, Sink
from tensorkeep.compat.safetensors.errors import SafetensorError, as_safetensors
from tensorkeep.compat.safetensors.reading import open_bytes
from tensorkeep.container import LENGTH_BYTES, MAX_HEADER_BYTES, METADATA, Entry, Offsets
from tensorkeep.dtypes import STORABLE, DType
from tensorkeep.formats.writing import copies
from tensorkeep.tensors import Array, LazyTensor
from tensorkeep.workers import run

_RANKS: Final = (
    *("BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
    *("I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64"),
)
_RANK_OF: Final = {name: rank for rank, name in enumerate(_RANKS)}
_NAMES: Final = {
    "bool": "BOOL",
    "int8": "I8",
    "uint8": "U8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0",
    "float4_e2m1fn_x2": "F4",
    "complex64": "C64",
}
_PADDED_TO: Final = 8  # bytes


class TensorSpec:
    """One tensor for `serialize` and `serialize_file`: where its bytes are in memory, which must stay alive until these return.

    Args:
        dtype: by its usual name, such as `float32`.
        shape: of its elements; where two of them share a byte (`float4_e2m1fn_x2`), of the bytes.
        data_ptr: the address of its first byte.
        data_len: how many bytes it has.

    Attributes:
        dtype: as the header names it, such as `F32`.
        shape: of its elements.
    """

    __slots__ = ("_found", "data_len", "data_ptr")

    def __init__(self, *, dtype: str, shape: Sequence[int], data_ptr: int, data_len: int) -> None:
        known = STORABLE.get(_NAMES.get(dtype, ""))
        if known is None:
            raise SafetensorError(f"Unknown dtype {dtype!r:.80}. Supported dtypes: {', '.join(_NAMES)}")
        lengths = [operator.index(length) for length in shape]
        if known.bits == 4 and lengths:
            lengths[-1] *= 2
        if any(length < 0 for length in lengths):
            raise OverflowError(f"shape {lengths}: a length below 0")
        self._found = known, tuple(lengths)
        self.data_ptr, self.data_len = operator.index(data_ptr), operator.index(data_len)

    @property
    def dtype(self) -> str:
        return self._found[0].name

    @property
    def shape(self) -> list[int]:
        return list(self._found[1])

    def __repr__(self) -> str:
        return f"TensorSpec(dtype='{self.dtype}', shape={self.shape}, data_ptr={self.data_ptr}, data_len={self.data_len})"


TensorSpec.__module__ = __name__.rpartition(".")[0]  # where people find it


class Memory(msgspec.Struct, gc=False):
    """Bytes that lie in memory as they will in the file."""

    piecewise: ClassVar = True

    array: Array

    def view(self) -> Array:
        return self.array

    def read(self, start: int, stop: int) -> memoryview:
        return memoryview(self.array)[start:stop]


def over(array: Array, dtype: DType, shape: tuple[int, ...]) -> LazyTensor:
    """A tensor over bytes in memory."""
    return LazyTensor(tensors.TensorSpec(dtype, shape), Memory(array))


def _at_address(name: str, spec: TensorSpec) -> LazyTensor:
    dtype, shape = spec._found
    wanted = dtype.nbytes(math.prod(shape))
    if wanted != spec.data_len or not dtype.fits(math.prod(shape)):
        raise SafetensorError(
            f"Error while serializing: tensor {name!r:.200} of {dtype}{list(shape)} takes {wanted:,} bytes, data_len says {spec.data_len:,}"
        )
    if spec.data_len == 0:
        return over(np.empty(0, np.uint8), dtype, shape)
    memory = (ctypes.c_ubyte * spec.data_len).from_address(spec.data_ptr)
    return over(np.frombuffer(memory, np.uint8), dtype, shape)


@dataclass(frozen=True, slots=True)
class Laid:
    """A whole file before a byte of it is written: its header, and the tensors with their offsets in the file."""

    header: bytes
    places: list[tuple[int, LazyTensor]]
    nbytes: int

    def write(self, sink: Sink) -> None:
        run(copies(self.places, sink), nbytes=self.nbytes - len(self.header))
        sink.write(0, [memoryview(self.header)])

    def to_file(self, filename: "str | PathLike[str]") -> None:
        """Replace a file: whole and durably, or not at all."""
        with local.replacing(os.fspath(filename), nbytes=self.nbytes) as pending:
            self.write(pending)

    def to_bytes(self) -> bytes:
        buffer = io.BytesIO(bytes(self.nbytes))  # hands out these bytes again without a copy
        with buffer.getbuffer() as memory:
            self.write(MemorySink(memory))
        return buffer.getvalue()


def lay_out(found: Mapping[str, LazyTensor], metadata: Mapping[str, str] | None) -> Laid:
    """Where everything goes.

    Raises:
        SafetensorError: a name or a size that no file can have.
        TypeError: names or metadata that are no texts.
    """
    document: dict[str, Any] = {}
    if metadata is not None:
        if not all(type(key) is str and isinstance(value, str) for key, value in dict(metadata).items()):
            raise TypeError(f"metadata takes a dict of texts, found {metadata!r:.200}")
        document[METADATA] = dict(metadata)
    start, places = 0, []
    for name, tensor in sorted(found.items(), key=lambda item: (-_RANK_OF[item[1].dtype.stored], item[0])):
        if name == METADATA:
            raise SafetensorError(f"Error while serializing: a tensor named {METADATA}, where the metadata stand")
        stop = start + tensor.nbytes
        document[name] = Entry(tensor.dtype.stored, msgspec.Raw(msgspec.json.encode(tensor.spec.stored_shape)), Offsets(start, stop))
        places.append((start, tensor))
        start = stop
    text = msgspec.json.encode(document)
    text += b" " * (-len(text) % _PADDED_TO)
    if len(text) > MAX_HEADER_BYTES:
        raise SafetensorError(f"Error while serializing: the header would take {len(text):,} bytes, the limit is {MAX_HEADER_BYTES:,}")
    header = len(text).to_bytes(LENGTH_BYTES, "little") + text
    return Laid(header, [(len(header) + at, tensor) for at, tensor in places], len(header) + start)


def _laid(tensor_dict: Mapping[str, TensorSpec], metadata: Mapping[str, str] | None) -> Laid:
    for name, spec in tensor_dict.items():
        if not isinstance(spec, TensorSpec) or not isinstance(name, str):
            raise TypeError(f"{name!r:.200}: a TensorSpec is wanted, found {type(spec).__name__}")
    return lay_out({name: _at_address(name, spec) for name, spec in tensor_dict.items()}, metadata)


def serialize(tensor_dict: Mapping[str, TensorSpec], metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors as the bytes of a safetensors file.

    Args:
        tensor_dict: where each lies in memory, by name.
        metadata: texts to keep with them.

    Raises:
        SafetensorError: a tensor that does not fit its description, or a header beyond the limit.
    """
    return _laid(tensor_dict, metadata).to_bytes()


def serialize_file(
    tensor_dict: Mapping[str, TensorSpec], filename: "str | PathLike[str]", metadata: Mapping[str, str] | None = None
) -> None:
    """The same as a file, which appears whole and durably, or not at all.

    Raises:
        SafetensorError: as for `serialize`.
        OSError: the disk is full, or the folder cannot be written to; an old file is as it was.
    """
    _laid(tensor_dict, metadata).to_file(filename)


def deserialize(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The tensors in the bytes of a file: name, and a dict of `shape`, `dtype` and `data`.

    Raises:
        SafetensorError: these are no bytes of a safetensors file, or not those that were written.
    """
    with as_safetensors("Error while deserializing"):
        return [
            (name, {"shape": list(tensor.shape), "dtype": tensor.dtype.name, "data": bytearray(tensor.source.read(0, tensor.nbytes))})
            for name, tensor in open_bytes(data).tensors.items()
        ]

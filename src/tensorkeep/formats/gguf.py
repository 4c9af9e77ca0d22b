"""GGUF: the files of llama.cpp and all that is built on ggml. Versions 1 to 3, either byte order, one file or several.

Metadata keep their keys as they are. Tensors stay lazy, their blocks as they lie in the file; a shape reads as NumPy's, the other way
round than in the file.

Lives here: the file's grammar and its checks. Lives elsewhere: values of the metadata (gguf_values), the table of block types (quantized).
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; type numbers: `ggml.h`, and the package gguf 0.19.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tensorkeep.contents import Contents
from tensorkeep.dtypes import BLOCKED, STANDARD
from tensorkeep.errors import FormatError
from tensorkeep.formats import assemble
from tensorkeep.formats.gguf_values import Values
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import LazyTensor, TensorSpec, spec_of
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.sources import run_of, swapped

MAGIC: Final = b"GGUF"
_OLDER: Final = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"algg": "GGLA, an adapter"}
_MOST_ENTRIES: Final = 200_000  # models have some thousand tensors; as many take two seconds
_DEFAULT_ALIGNMENT: Final = 32
_PART: Final = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)

_NAMES: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K",
    14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
    41: "Q1_0",
}  # fmt: skip
TYPE_NUMBERS: Final = {name: number for number, name in _NAMES.items()}
"""By the name of a dtype, the number that stands for it in the file."""

_TYPES: Final = {number: STANDARD.get(name) or BLOCKED[name] for number, name in _NAMES.items()}
_REMOVED: Final = {4, 5, 31, 32, 33, 36, 37, 38}  # Q4_2, Q4_3, and orders of blocks for single processors


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor as the file describes it."""

    name: str
    spec: TensorSpec
    offset: int

    @property
    def stop(self) -> int:
        return self.offset + self.spec.nbytes


@dataclass(frozen=True, slots=True)
class _Part:
    """One file: the whole, or one of several."""

    version: int
    metadata: dict[str, Any]
    tensors: dict[str, LazyTensor]
    left_out: list[str]


class GgufReader:
    """GGUF 1 to 3; the formats before it are told by their name."""

    name = "GGUF"

    def recognizes(self, peek: Peek) -> bool:
        return peek.head[:4] == MAGIC or (peek.head[:4] in _OLDER and len(peek.head) >= 8)

    def read(self, peek: Peek) -> Contents:
        if (older := _OLDER.get(peek.head[:4])) is not None:
            raise peek.error(
                f"a {older} file, from before GGUF, which is not read",
                hint="Convert it first: convert_llama_ggml_to_gguf.py, in older releases of llama.cpp.",
            )
        first = _read_part(peek, peek.data)
        metadata, tensors, left_out = first.metadata, first.tensors, first.left_out
        for part in _further_parts(peek, first):
            for name, tensor in part.tensors.items():
                if name in tensors:
                    raise peek.error(f"the tensor {name!r:.200} occurs in two of its parts")
                tensors[name] = tensor
            left_out += part.left_out
        return assemble.contents(peek, format="GGUF", tree=dict(tensors), metadata=metadata, left_out=left_out, version=str(first.version))


def _further_parts(peek: Peek, first: _Part) -> "list[_Part]":
    """The other files of a model in several, if this is its first one."""
    count, number = first.metadata.get("split.count", 1), first.metadata.get("split.no", 0)
    if type(count) is not int or type(number) is not int or count <= 1:
        return []
    named = _PART.fullmatch(peek.base)
    if number != 0 or named is None or peek.folder is None or (int(named[2]), int(named[3])) != (1, count):
        why = "open the first one for the whole" if number else "their names are not known: this one's ends not in -00001-of-0000N.gguf"
        first.left_out.append(f"the tensors of the other files: this is one of {count:,}; {why}")
        return []
    parts = []
    for other in range(1, count):
        part = _read_part(peek, peek.sibling(f"{named[1]}-{other + 1:05}-of-{count:05}.gguf"))
        if (part.metadata.get("split.no"), part.metadata.get("split.count")) != (other, count):
            raise peek.error(f"part {other + 1:,} of {count:,} says that it is another part, or of another model")
        parts.append(part)
    total, wanted = len(first.tensors) + sum(len(part.tensors) for part in parts), first.metadata.get("split.tensors.count")
    if type(wanted) is int and wanted != total and not any(part.left_out for part in (first, *parts)):
        raise peek.error(f"its {count:,} files hold {total:,} tensors together, the first one says {wanted:,}")
    return parts


def _read_part(peek: Peek, extent: Extent) -> _Part:
    cursor = Cursor(extent, 4)
    version = cursor.u32("version")
    if version and version & 0xFFFF == 0:  # the bytes of a small number, in the other order
        cursor.order, version = ">", int.from_bytes(version.to_bytes(4, "little"), "big")
    cursor.one_of("version", version, {1, 2, 3})
    values = Values(cursor, peek.limits, narrow=version == 1)
    tensor_count = cursor.fits("number of tensors", values.length("number of tensors"), bytes_each=16 if version == 1 else 24)
    entry_count = cursor.fits("number of metadata", values.length("number of metadata"), bytes_each=9 if version == 1 else 13)
    if tensor_count + entry_count > _MOST_ENTRIES:
        raise cursor.error(f"{tensor_count:,} tensors and {entry_count:,} entries of metadata, at most {_MOST_ENTRIES:,} are read")
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        key, value = values.entry()
        if key in metadata:
            raise cursor.error(f"the metadata key {key!r:.200} occurs twice")
        metadata[key] = value
    entries: dict[str, _Entry] = {}
    for _ in range(tensor_count):
        entry = _entry(cursor, values, peek)
        if entry.name in entries:
            raise cursor.error(f"the tensor {entry.name!r:.200} occurs twice")
        entries[entry.name] = entry
    left_out = [f"the metadata {key}: an array of more than {values.most_numbers:,} numbers" for key in values.too_long]
    for key in values.too_long:
        del metadata[key]
    start = -(-cursor.at // _alignment(cursor, metadata)) * _alignment(cursor, metadata)
    return _Part(version, metadata, _tensors(extent, entries, start, cursor, metadata, left_out), left_out)


def _alignment(cursor: Cursor, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment < 1 << 32 or alignment & (alignment - 1):
        raise cursor.error(f"general.alignment is {alignment!r:.80}, wanted is a power of two")
    return alignment


def _entry(cursor: Cursor, values: Values, peek: Peek) -> _Entry:
    name = values.text("name of a tensor")
    what = f"{name!r:.200}"
    rank = cursor.u32(f"{what}: number of dimensions")
    if rank > peek.limits.rank:
        raise cursor.error(f"{what} has {rank:,} dimensions, the limit is {peek.limits.rank}")
    shape = tuple(values.length(f"{what}: a dimension") for _ in range(rank))[::-1]
    number, offset = cursor.u32(f"{what}: type"), cursor.u64(f"{what}: offset")
    dtype = _TYPES.get(number)
    if dtype is None:
        known = "a type that ggml has no more" if number in _REMOVED else "which this release does not know"
        raise cursor.error(f"{what} is of the type {number:,}, {known}", hint="A newer tensorkeep may know it.")
    if dtype.block > 1 and (not shape or shape[-1] % dtype.block):
        raise cursor.error(f"{what}: rows of {shape[-1] if shape else 1:,} elements, which blocks of {dtype.block} ({dtype}) do not divide")
    if math.prod(length or 1 for length in shape) >= 1 << 63:
        raise cursor.error(f"{what} has the shape {list(shape)!r:.200}, which no array can have")
    return _Entry(name, spec_of(dtype, shape), offset)


def _tensors(
    extent: Extent, entries: dict[str, _Entry], start: int, cursor: Cursor, metadata: dict[str, Any], left_out: list[str]
) -> dict[str, LazyTensor]:
    """All tensors of a file, once it is sure that each has bytes of its own."""
    if not entries:
        return {}
    end = start + max(entry.stop for entry in entries.values())
    if end > extent.nbytes:
        raise FormatError(
            extent.name,
            f"cut short: its tensors end at byte {end:,}, the file has {extent.nbytes:,}",
            hint="Fetch the file again, or the rest of it.",
        )
    alignment, before = _alignment(cursor, metadata), None
    for entry in sorted(entries.values(), key=lambda entry: (entry.offset, entry.stop)):
        if entry.offset % alignment:
            raise cursor.error(f"{entry.name!r:.200} begins at byte {entry.offset:,} of the data, which is no multiple of {alignment}")
        if before is not None and entry.offset < before.stop and entry.spec.nbytes:
            raise cursor.error(f"the tensors {before.name!r:.200} and {entry.name!r:.200} overlap")
        before = entry
    tensors = {}
    for name, entry in entries.items():
        if cursor.order == "<" or entry.spec.dtype.bits == 8:
            tensors[name] = run_of(extent, start + entry.offset, entry.spec, what=repr(name))
        elif entry.spec.dtype.block == 1:
            lying = run_of(extent, start + entry.offset, entry.spec, what=repr(name))
            tensors[name] = swapped(lying, np.dtype(f"u{entry.spec.dtype.bits // 8}"))
        else:
            left_out.append(f"{name}: blocks of {entry.spec.dtype} in big-endian order, in which each field is swapped on its own")
    return tensors

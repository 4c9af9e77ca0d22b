"""Zarr's metadata: shape, dtype, grid and codecs of one array, of version 2 and 3, TensorStore's additions included.

Lives here: the JSON, read as untrusted. Lives elsewhere: chunks (zarr_chunks).

Source: https://zarr-specs.readthedocs.io, versions 2 and 3.0, and the codecs `sharding_indexed`, `bytes`, `transpose`, `crc32c`;
https://google.github.io/tensorstore/driver/zarr/ for the dtypes that NumPy lacks.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from tensorkeep import dtypes
from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits
from tensorkeep.tensors import TensorSpec, spec_of
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.json import read_json

V2: Final = ".zarray"
V3: Final = "zarr.json"
_NUMPY: Final = re.compile(r"[<>|][biufc](?:[1248]|16)")
_COMPRESSORS: Final = {"zstd": "zstd", "gzip": "gzip", "zlib": "zlib", "bz2": "bzip2", "blosc": "blosc"}
_WORDS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MOST_BYTES: Final = 2**62  # of an array, and of a chunk


@dataclass(frozen=True, slots=True)
class Packing:
    """How the bytes of a chunk are packed, from the outermost to the innermost: `crc32c`, or a compressor by the name that `wire` has."""

    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shards:
    """A chunk that holds chunks, and an index of where they are."""

    chunk: tuple[int, ...]
    index_at: Literal["start", "end"]
    index_summed: bool  # whether a CRC-32C follows the index


@dataclass(frozen=True, slots=True)
class ArrayMetadata:
    """One array.

    Attributes:
        spec: dtype and shape.
        chunk: the shape of the chunks that have keys of their own.
        packing: of a chunk; of an inner one where there are shards.
        order: the order in which a chunk's axes lie, the slowest first; None for their own order.
        swapped: whether elements are big-endian.
        fill: the bytes of an element that no chunk holds.
        shards: how chunks are divided further.
        prefix, separator: of the keys of chunks: `c/0/1`, `0.1`.
    """

    spec: TensorSpec
    chunk: tuple[int, ...]
    packing: Packing
    order: tuple[int, ...] | None
    swapped: bool
    fill: bytes
    shards: Shards | None
    prefix: str
    separator: str


def read_metadata(data: Extent, name: str, limits: Limits) -> ArrayMetadata | None:
    """The metadata of the array of that name; None for a group.

    Raises:
        FormatError: they break the format, or ask for what tensorkeep does not read.
    """
    return _Reading(data.name, name, limits).array(read_json(data, object, f"metadata of {name or 'the array'}", limits=limits))


class _Reading:
    """Metadata being read; every refusal names the array."""

    def __init__(self, file: str, name: str, limits: Limits) -> None:
        self._file, self._name, self._limits = file, name, limits

    def _error(self, problem: str) -> FormatError:
        return FormatError(self._file, f"{self._name or 'the array'}: {problem}")

    def _get(self, node: object, *keys: str) -> Any:
        for key in keys:
            if not isinstance(node, dict) or key not in node:
                raise self._error(f"its metadata lack {'.'.join(keys)!r}")
            node = node[key]
        return node

    def array(self, document: object) -> ArrayMetadata | None:
        version = self._get(document, "zarr_format")
        if version == 2:
            return self._version_2(document)
        if version == 3:
            return self._version_3(document) if self._get(document, "node_type") != "group" else None
        raise self._error(f"zarr format {version!r:.40}, this release reads 2 and 3")

    def _version_2(self, document: Any) -> ArrayMetadata:
        dtype, swapped = self._dtype(self._get(document, "dtype"))
        shape = self._lengths(self._get(document, "shape"), "shape")
        if document.get("filters"):
            raise self._error(f"filters {document['filters']!r:.100}, which tensorkeep does not read")
        compressor = self._get(document, "compressor")
        steps = () if compressor is None else (self._compressor(self._get(compressor, "id")),)
        order = tuple(reversed(range(len(shape)))) if self._get(document, "order") == "F" else None
        fill = self._fill(document.get("fill_value"), dtype)
        separator = document.get("dimension_separator", ".")
        return self._checked(shape, self._get(document, "chunks"), dtype, Packing(steps), order, swapped, fill, None, "", separator)

    def _version_3(self, document: Any) -> ArrayMetadata:
        dtype, _ = self._dtype(self._get(document, "data_type"))
        shape = self._lengths(self._get(document, "shape"), "shape")
        if (grid := self._get(document, "chunk_grid", "name")) != "regular":
            raise self._error(f"a chunk grid {grid!r:.40}, which tensorkeep does not read")
        if document.get("storage_transformers"):
            raise self._error("storage transformers, which tensorkeep does not read")
        keys = self._get(document, "chunk_key_encoding", "name")
        encoding = document["chunk_key_encoding"].get("configuration") or {}
        if keys not in ("default", "v2") or not isinstance(encoding, dict):
            raise self._error(f"a chunk key encoding {keys!r:.40}, which tensorkeep does not read")
        separator = encoding.get("separator", "/" if keys == "default" else ".")
        chunk = self._get(document, "chunk_grid", "configuration", "chunk_shape")
        codecs = self._get(document, "codecs")
        shards = None
        if isinstance(codecs, list) and len(codecs) == 1 and self._get(codecs[0], "name") == "sharding_indexed":
            shards, codecs = self._shards(self._get(codecs[0], "configuration"))
        packing, order, swapped = self._codecs(codecs, len(shape))
        fill = self._fill(document.get("fill_value"), dtype)
        return self._checked(shape, chunk, dtype, packing, order, swapped, fill, shards, "c" if keys == "default" else "", separator)

    def _shards(self, configuration: Any) -> tuple[Shards, Any]:
        chunk = self._lengths(self._get(configuration, "chunk_shape"), "chunk_shape")
        index, _, swapped = self._codecs(configuration.get("index_codecs", []), 1)
        location = configuration.get("index_location", "end")
        if index.steps not in ((), ("crc32c",)) or swapped or location not in ("start", "end"):
            raise self._error("an index of shards that is packed in a way that tensorkeep does not read")
        return Shards(chunk, location, bool(index.steps)), self._get(configuration, "codecs")

    def _codecs(self, codecs: object, rank: int) -> tuple[Packing, tuple[int, ...] | None, bool]:
        """What a list of codecs says: of the bytes, of the order of the axes, and whether elements are big-endian."""
        if not isinstance(codecs, list) or len(codecs) > 8:
            raise self._error(f"its codecs are {codecs!r:.100}")
        steps: list[str] = []
        order, swapped, met = None, False, False
        for codec in codecs:
            name, settings = self._get(codec, "name"), codec.get("configuration") or {}
            if name == "transpose" and not met and order is None:
                order = tuple(self._lengths(self._get(settings, "order"), "order"))
                if sorted(order) != list(range(rank)):
                    raise self._error(f"axes in the order {list(order)!r:.100}")
            elif name == "bytes" and not met:
                met, swapped = True, isinstance(settings, dict) and settings.get("endian") == "big"
            elif name == "crc32c" and met:
                steps.append(name)
            elif met:
                steps.append(self._compressor(name))
            else:
                raise self._error(f"a codec {name!r:.40} where tensorkeep reads none")
        if not met:
            raise self._error("its codecs lack `bytes`")
        if sum(step != "crc32c" for step in steps) > 1:
            raise self._error(f"{len(steps)} compressors over each other")
        return Packing(tuple(reversed(steps))), order, swapped

    def _compressor(self, name: object) -> str:
        if not isinstance(name, str) or name not in _COMPRESSORS:
            known = ", ".join(_COMPRESSORS)
            raise self._error(f"chunks compressed with {name!r:.40}; tensorkeep reads {known}")
        return _COMPRESSORS[name]

    def _dtype(self, name: object) -> tuple[dtypes.DType, bool]:
        if isinstance(name, str):
            if (found := dtypes.named(name)) is not None:
                return found, False
            if _NUMPY.fullmatch(name):
                try:
                    numpy = np.dtype(name)
                except TypeError:
                    numpy = None
                found = None if numpy is None else dtypes.of_numpy(numpy.newbyteorder("<"))
                if found is not None:
                    return found, name[0] == ">" and found.bits > 8
        raise self._error(f"the dtype {name!r:.100}, which tensorkeep does not know")

    def _lengths(self, lengths: object, what: str) -> tuple[int, ...]:
        if not isinstance(lengths, list) or not all(type(length) is int and 0 <= length < 2**63 for length in lengths):
            raise self._error(f"its {what} is {lengths!r:.100}")
        if len(lengths) > self._limits.rank:
            raise self._error(f"its {what} has {len(lengths)} lengths, the limit is {self._limits.rank}")
        return tuple(lengths)

    def _fill(self, value: object, dtype: dtypes.DType) -> bytes:
        """The bytes of one element."""
        nbytes = dtype.bits // 8
        if value is None or value in (0, False):
            return bytes(nbytes)
        if isinstance(value, str) and re.fullmatch(rf"0x[0-9a-fA-F]{{{2 * nbytes}}}", value):
            return bytes.fromhex(value[2:])[::-1]
        parts = value if isinstance(value, list) else [value]
        numbers: list[Any] = [_WORDS.get(part, part) if isinstance(part, str) else part for part in parts]
        if all(type(number) in (int, float, bool) for number in numbers) and 0 < len(numbers) <= 2 and dtype.numpy is not None:
            try:
                with np.errstate(all="ignore"):
                    whole = complex(*numbers) if len(numbers) == 2 else numbers[0]
                    return np.array(whole).astype(dtype.numpy).tobytes()
            except (TypeError, ValueError, OverflowError):
                pass
        raise self._error(f"the fill value {value!r:.100} for {dtype}")

    def _checked(
        self,
        shape: tuple[int, ...],
        chunk: object,
        dtype: dtypes.DType,
        packing: Packing,
        order: tuple[int, ...] | None,
        swapped: bool,
        fill: bytes,
        shards: Shards | None,
        prefix: str,
        separator: object,
    ) -> ArrayMetadata:
        lengths = self._lengths(chunk, "chunk shape")
        inner = lengths if shards is None else shards.chunk
        if len(lengths) != len(shape) or len(inner) != len(shape) or not all(lengths) or not all(inner):
            raise self._error(f"chunks of {list(lengths)!r:.100}, of {list(inner)!r:.100} each, for the shape {list(shape)!r:.100}")
        if any(outer % small for outer, small in zip(lengths, inner, strict=True)):
            raise self._error(f"chunks of {list(lengths)!r:.100} that are no multiple of {list(inner)!r:.100}")
        if max(math.prod(lengths), math.prod(length or 1 for length in shape)) * dtype.bits // 8 > _MOST_BYTES:
            raise self._error(f"the shape {list(shape)!r:.100} in chunks of {list(lengths)!r:.100}, which no memory holds")
        if separator not in (".", "/"):
            raise self._error(f"keys of chunks separated by {separator!r:.40}")
        return ArrayMetadata(spec_of(dtype, shape), lengths, packing, order, swapped, fill, shards, prefix, str(separator))

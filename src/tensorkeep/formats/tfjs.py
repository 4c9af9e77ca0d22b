"""TensorFlow.js: a manifest of weights, in a `model.json` or a file of its own, and the shards with their bytes beside it.

Quantized weights are kept as they are stored; `dequantize()` gives the numbers. A tensor may begin in one shard and end in another.

Source: https://github.com/tensorflow/tfjs, `tfjs-core/src/io/types.ts` and `io_utils.ts` (`decodeWeights`), version 4.22.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from tensorkeep import strictjson
from tensorkeep.contents import Contents
from tensorkeep.dtypes import STANDARD, DType
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.quantized.scaling import Affine
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.tree import Tree
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.sources import Made, joined, run_of

_DTYPES: Final = {"float32": "F32", "int32": "I32", "bool": "BOOL", "complex64": "C64", "float16": "F16", "uint8": "U8", "uint16": "U16"}
_QUANTIZED: Final = {"uint8": "U8", "uint16": "U16", "float16": "F16"}
_TEXTS: Final = "string"
_MOST_DOCUMENT_BYTES: Final = 16 << 20  # its values take twenty times as much in memory
_MOST_SHARDS: Final = 10_000
_MOST_RANK: Final = 64
_SAID: Final = ("format", "generatedBy", "convertedBy", "signature", "userDefinedMetadata", "trainingConfig", "modelTopology")


class _Quantization(msgspec.Struct):
    dtype: str
    scale: float | None = None
    min: float | None = None
    original_dtype: str | None = None


class _Weight(msgspec.Struct):
    name: str
    shape: list[int]
    dtype: str
    quantization: _Quantization | None = None


class _Group(msgspec.Struct):
    """Weights whose bytes stand one behind the other in some shards."""

    weights: list[_Weight]
    paths: list[str] = []


class _Model(msgspec.Struct):
    weights_manifest: list[_Group] = msgspec.field(name="weightsManifest")


class TfjsReader:
    """TensorFlow.js: every weight under its own name; a layer model's or graph model's topology as metadata."""

    name = "TensorFlow.js"

    def recognizes(self, peek: Peek) -> bool:
        head = peek.head.lstrip(b" \t\r\n\xef\xbb\xbf")
        if head[:1] == b"[":
            return b'"weights"' in head and (b'"shape"' in head or b'"paths"' in head)
        if head[:1] != b"{" or peek.nbytes > _MOST_DOCUMENT_BYTES:
            return False
        # The topology may stand before the manifest, and be long.
        return any(mark in head for mark in (b'"weightsManifest"', b'"modelTopology"', b'"format"')) and b'"weightsManifest"' in bytes(
            peek.data.read()
        )

    def read(self, peek: Peek) -> Contents:
        if peek.nbytes > _MOST_DOCUMENT_BYTES:
            raise peek.error(f"a manifest of {peek.nbytes:,} bytes, at most {_MOST_DOCUMENT_BYTES:,} are read")
        text = bytes(peek.data.read()).removeprefix(b"\xef\xbb\xbf")
        metadata: dict[str, Any] = {}
        try:
            if text.lstrip()[:1] == b"[":
                groups = strictjson.decode(text, list[_Group], deepest=peek.limits.depth)
            else:
                groups = strictjson.decode(text, _Model, deepest=peek.limits.depth).weights_manifest
                document = msgspec.json.decode(text, type=dict[str, object])
                metadata = {key: document[key] for key in _SAID if document.get(key) is not None}
        except (ValueError, msgspec.MsgspecError) as error:
            raise peek.error(f"its manifest is no JSON that all programs read alike, or of another form: {error!s:.200}") from None
        paths = [path for group in groups for path in group.paths]
        if len(paths) > _MOST_SHARDS or len(set(paths)) != len(paths):
            raise peek.error(f"its manifest names {len(paths):,} files, at most {_MOST_SHARDS:,} are read, each of them once")
        tree: dict[str, Tree] = {}
        left_out: list[str] = []
        for group in groups:
            for name, tensor in _tensors(group, peek, left_out):
                if name in tree:
                    raise peek.error(f"the weight {name!r:.200} occurs twice")
                tree[name] = tensor
        writer = metadata.get("convertedBy") or metadata.get("generatedBy")
        return assemble.contents(
            peek,
            format="TensorFlow.js weights",
            tree=tree,
            metadata=metadata,
            left_out=left_out,
            writer=writer if isinstance(writer, str) else "",
        )


def _tensors(group: _Group, peek: Peek, left_out: list[str]) -> Iterator[tuple[str, LazyTensor]]:
    """The weights of a group, by name."""
    shards = _Shards([peek.sibling(path) for path in group.paths], peek)
    at = 0
    for weight in group.weights:
        if len(weight.shape) > _MOST_RANK or any(length < 0 for length in weight.shape):
            raise peek.error(f"{weight.name:.200} has the shape {weight.shape!r:.200}: at most {_MOST_RANK} lengths, from 0")
        count = math.prod(weight.shape)
        if weight.dtype == _TEXTS:
            at = shards.behind_texts(at, count, weight.name)
            left_out.append(f"{weight.name:.200}: {count:,} texts")
            continue
        tensor = shards.tensor(at, _stored(weight, peek), tuple(weight.shape), weight.name)
        tensor.scaling = _scaling(weight, peek)
        at += tensor.nbytes
        yield weight.name, tensor
    if shards.nbytes > at:
        left_out.append(f"{shards.nbytes - at:,} bytes behind the last weight of {', '.join(group.paths):.200}")


def _stored(weight: _Weight, peek: Peek) -> DType:
    """What stands in the shards for one element."""
    quantization = weight.quantization
    found = _DTYPES.get(weight.dtype) if quantization is None else _QUANTIZED.get(quantization.dtype)
    if found is None:
        raise peek.error(
            f"{weight.name:.200} is of the type {(quantization.dtype if quantization else weight.dtype)!r:.100}, which is not known"
        )
    return STANDARD[found]


def _scaling(weight: _Weight, peek: Peek) -> Affine | None:
    """What the stored integers stand for."""
    quantization = weight.quantization
    if quantization is None or quantization.dtype == "float16":
        return None
    if quantization.scale is None or quantization.min is None or weight.dtype not in ("float32", "int32"):
        raise peek.error(
            f"{weight.name:.200} is quantized, and its scale, its least value or its type {weight.dtype!r:.100} is missing or no number"
        )
    return Affine(quantization.scale, quantization.min, whole=weight.dtype == "int32")


class _Shards:
    """The files of one group, as one run of bytes."""

    def __init__(self, extents: list[Extent], peek: Peek) -> None:
        self._peek = peek
        self._extents: list[tuple[int, Extent]] = []  # with where each begins
        self.nbytes = 0
        for extent in extents:
            self._extents.append((self.nbytes, extent))
            self.nbytes += extent.nbytes

    def tensor(self, start: int, dtype: DType, shape: tuple[int, ...], what: str) -> LazyTensor:
        """A tensor whose bytes begin at a place of the run.

        Raises:
            FormatError: so many bytes are not there.
        """
        spec = spec_of(dtype, shape)
        stop = start + spec.nbytes
        if stop > self.nbytes:
            raise self._peek.error(
                f"{what:.200}: {spec} takes bytes {start:,} to {stop:,}, its shards have {self.nbytes:,}",
                hint="Fetch the whole folder again.",
            )
        parts = self._parts(start, stop)
        if len(parts) == 1:
            extent, begin, _ = parts[0]
            return run_of(extent, begin, spec, what=what)
        if not parts:
            return LazyTensor(spec, Made(0, lambda start, stop: b""))
        flat = [run_of(extent, begin, spec_of(STANDARD["U8"], (end - begin,)), what=what) for extent, begin, end in parts]
        return LazyTensor(spec, joined(flat, (spec.nbytes,), file=self._peek.name, what=what).source)

    def _parts(self, start: int, stop: int) -> list[tuple[Extent, int, int]]:
        """The shards that have some of the bytes, and which of theirs."""
        found = []
        for at, extent in self._extents[bisect_right(self._extents, start, key=lambda pair: pair[0]) - 1 :] if start < stop else ():
            if at >= stop:
                break
            begin, end = max(start, at), min(stop, at + extent.nbytes)
            if begin < end:
                found.append((extent, begin - at, end - at))
        return found

    def behind_texts(self, start: int, count: int, what: str) -> int:
        """Where so many texts end; each has its length before it."""
        flat = self.tensor(start, STANDARD["U8"], (self.nbytes - start,), what)
        if 4 * count > flat.nbytes:
            raise self._peek.error(f"{what:.200}: {count:,} texts, and {flat.nbytes:,} bytes are left for them")
        at = 0
        for _ in range(count):
            if at + 4 > flat.nbytes:
                raise self._peek.error(f"{what:.200}: its texts are cut short")
            at += 4 + int.from_bytes(flat.source.read(at, at + 4), "little")
        if at > flat.nbytes:
            raise self._peek.error(f"{what:.200}: its texts are cut short")
        return start + at

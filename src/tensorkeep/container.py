"""The container: how tensors lie in a safetensors file.

Lives here: the header's grammar, its checks against the file's size, the order and offsets of tensors.
Lives elsewhere: reading and writing bytes (backends), what the metadata mean (modelfile).
Source: https://github.com/huggingface/safetensors#format
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tensorkeep import strictjson
from tensorkeep.dtypes import STORABLE
from tensorkeep.errors import FormatError, sized
from tensorkeep.limits import Limits
from tensorkeep.tensors import TensorSpec

LENGTH_BYTES: Final = 8  # the header's length, little-endian
SHORTEST_HEADER_BYTES: Final = 2  # {}
DATA_ALIGNMENT: Final = 64  # bytes: a cache line, and enough for every vector load
MAX_HEADER_BYTES: Final = 100_000_000  # what safetensors itself accepts
_MAX_ARRAY_BYTES: Final = 2**63 - 1
_MAX_NESTING: Final = 127  # of JSON: what safetensors' own parser follows
METADATA: Final = "__metadata__"


class Offsets(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """First byte of the data, and the byte after the last."""

    start: int
    stop: int


class Entry(msgspec.Struct, gc=False):
    """One tensor as the header writes it. Its shape stays text until it is known to be a new one: models repeat few of them."""

    dtype: str
    shape: msgspec.Raw
    data_offsets: Offsets


class Span(msgspec.Struct, frozen=True, gc=False):
    """Where one tensor's bytes are, counted from the start of the data."""

    spec: TensorSpec
    start: int
    stop: int


class Header(msgspec.Struct):
    """Where each tensor of a container lies. Checked: spans neither overlap, leave holes, nor pass the end."""

    spans: dict[str, Span]  # by path, in file order
    metadata: dict[str, str]
    data_start: int  # bytes from the start of the file
    data_nbytes: int


def header_length(prefix: bytes, file_nbytes: int, *, file: str, limits: Limits) -> int:
    """The header's length, from the first eight bytes of a file.

    Raises:
        FormatError: the file is too short or of another format, or the header longer than the file or the limit.
    """
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if len(prefix) < LENGTH_BYTES:
        raise FormatError(file, f"no safetensors file: it has {file_nbytes:,} bytes, and the header's length alone takes {LENGTH_BYTES}")
    if length < SHORTEST_HEADER_BYTES:
        begins = "zeros" if length == 0 else "the length of a header that would not even hold {}"
        raise FormatError(file, f"no safetensors file: it begins with {begins}")
    if length > limits.header_bytes:
        raise FormatError(
            file,
            f"no safetensors file, or not one to trust: its header would take {length:,} bytes, the limit is {limits.header_bytes:,}",
        )
    if length > file_nbytes - LENGTH_BYTES:
        raise FormatError(
            file,
            f"cut short, or no safetensors file: the header takes {length:,} bytes, {file_nbytes - LENGTH_BYTES:,} are there",
            hint="If it was downloaded or copied, fetch it again.",
        )
    return length


class _Metadata(msgspec.Struct):
    """The metadata of a header as they are written; everything else is passed over."""

    texts: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name=METADATA)


class _Head(msgspec.Struct):
    """The header split in two: its metadata, whose values are texts, and all else."""

    metadata: dict[str, str]
    entries: dict[str, Entry]


def parse_header(text: "bytes | bytearray", file_nbytes: int, *, file: str, limits: Limits) -> Header:
    """Read and check a whole header.

    Args:
        text: the header, without the eight bytes before it.
        file_nbytes: size of the file.
        file: for messages.
        limits: rank of tensors.

    Raises:
        FormatError: it breaks the format in any way; each way has its own sentence.
    """
    head = _split(text, file)
    data_start = LENGTH_BYTES + len(text)
    data_nbytes = file_nbytes - data_start
    spans: dict[str, Span] = {}
    specs: dict[str, dict[bytes, TensorSpec]] = {}  # by how they are written: texts are hashed with a secret, shapes are not
    for path, entry in head.entries.items():
        of_dtype = specs.get(entry.dtype)
        if of_dtype is None:
            of_dtype = specs[entry.dtype] = {}
        shape = bytes(entry.shape)
        spec = of_dtype.get(shape)
        if spec is None:
            spec = of_dtype[shape] = _spec(entry, path, file, limits)
        offsets = entry.data_offsets
        start, stop = offsets.start, offsets.stop
        if stop - start != spec.nbytes or start < 0:
            if not 0 <= start <= stop:
                raise FormatError(file, f"{path!r:.200}: data_offsets {start}, {stop} are not in order")
            raise FormatError(file, f"{path!r:.200}: {spec} takes {spec.nbytes:,} bytes, data_offsets give it {stop - start:,}")
        spans[path] = Span(spec, start, stop)
    return Header(_tiled(spans, data_nbytes, file), head.metadata, data_start, data_nbytes)


def _spec(entry: Entry, path: str, file: str, limits: Limits) -> TensorSpec:
    try:
        shape = msgspec.json.decode(entry.shape, type=tuple[int, ...])
    except msgspec.MsgspecError as error:
        raise FormatError(file, f"its header is not laid out as safetensors': the shape of {path!r:.200}: {error}") from None
    return stored_spec(entry.dtype, shape, path, file, limits)


def stored_spec(name: str, shape: tuple[int, ...], path: str, file: str, limits: Limits) -> TensorSpec:
    """The dtype and shape of one tensor as it is stored, checked.

    Args:
        name: of the dtype, as safetensors calls it.
        path, file: for messages.

    Raises:
        FormatError: there is no such dtype, or no such array.
    """
    dtype = STORABLE.get(name)
    if dtype is None:
        raise FormatError(file, f"{path!r:.200} has the dtype {name!r:.40}, which safetensors does not have")
    if shape and (min(shape) < 0 or len(shape) > limits.rank):
        raise FormatError(file, f"{path!r:.200} has the shape {list(shape)!r:.200}: lengths from 0, at most {limits.rank} of them")
    if 0 in shape and math.prod(length for length in shape if length) * dtype.bits // 8 > _MAX_ARRAY_BYTES:
        # No byte stands behind its other lengths, and NumPy cannot hold what passes 2^63 bytes without the zeros.
        raise FormatError(file, f"{path!r:.200} has the shape {list(shape)!r:.200}, which no array can have")
    spec = TensorSpec(dtype, shape)
    if dtype.bits < 8 and not dtype.fits(spec.count):
        raise FormatError(file, f"{path!r:.200}: {spec.count:,} elements of {dtype} do not end on a whole byte")
    return spec


def _split(text: "bytes | bytearray", file: str) -> _Head:
    if not text.startswith(b"{"):
        raise FormatError(file, f"no safetensors file: the header starts with {bytes(text[:8])!r}, not with {{")
    try:
        found = msgspec.json.decode(text, type=_Metadata).texts
        if isinstance(found, msgspec.UnsetType):
            return _Head({}, strictjson.decode(text, dict[str, Entry], deepest=_MAX_NESTING))
        metadata = bytes(found)
        texts = {} if metadata == b"null" else strictjson.decode(metadata, dict[str, str])  # null is none, to safetensors too
        return _Head(texts, strictjson.decode(_without_metadata(text, metadata), dict[str, Entry], deepest=_MAX_NESTING))
    except RecursionError:
        raise FormatError(file, "its header is no valid JSON: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise FormatError(file, f"its header is no UTF-8: {error}") from None
    except msgspec.ValidationError as error:
        raise FormatError(file, f"its header is not laid out as safetensors': {error}") from None
    except ValueError as error:  # msgspec.DecodeError is one, and so is a repeated key
        raise FormatError(file, f"its header is no valid JSON: {error}") from None


def _without_metadata(text: "bytes | bytearray", metadata: bytes) -> bytes:
    """The header without its metadata, which stand first in every file that we or safetensors write."""
    key = b'"' + METADATA.encode() + b'":'
    head = b"{" + key + metadata
    if text.startswith(head) and text.find(key, len(head)) < 0:
        rest = len(head) + text.startswith(b",", len(head))
        return b"".join((b"{", memoryview(text)[rest:]))
    raw = strictjson.decode(text, dict[str, msgspec.Raw])  # elsewhere, twice, or spelled otherwise
    del raw[METADATA]
    return msgspec.json.encode(raw)


def _tiled(spans: dict[str, Span], data_nbytes: int, file: str) -> dict[str, Span]:
    """The spans in file order, if they tile the data."""
    end = 0
    for span in spans.values():
        if span.start != end:
            break
        end = span.stop
    else:
        if end == data_nbytes:  # so they are, in most files
            return spans
    # By their ends too: an empty tensor may be named behind the full one at its place.
    spans = dict(sorted(spans.items(), key=lambda item: (item[1].start, item[1].stop)))
    _check_tiling(spans, data_nbytes, file)
    return spans


def _check_tiling(spans: dict[str, Span], data_nbytes: int, file: str) -> None:
    end, before = 0, ""
    for path, span in spans.items():
        if span.start != end:
            what = "overlaps" if span.start < end else "leaves a hole behind"
            raise FormatError(
                file,
                f"{path!r:.200} starts at byte {span.start:,} of the data and {what} {before!r:.200}, which ends at {end:,}",
            )
        end, before = span.stop, path
    if end < data_nbytes:
        rest = data_nbytes - end
        raise FormatError(file, f"{rest:,} {'byte follows' if rest == 1 else 'bytes follow'} the last tensor; nothing may")
    if end > data_nbytes:
        raise FormatError(
            file,
            f"cut short: {sized(data_nbytes, end)} of its tensors are there ({data_nbytes:,} of {end:,} bytes)",
            hint="If it was downloaded or copied, fetch it again.",
        )


def file_order(specs: Mapping[str, TensorSpec]) -> list[str]:
    """Paths by the largest power of two that divides the size in bytes, at most 64 (64 if empty), falling, then as UTF-8.

    So every tensor is aligned to its item without a hole between any two.
    """
    by_power: dict[int, list[str]] = {}
    for path, spec in specs.items():
        nbytes = spec.nbytes | DATA_ALIGNMENT
        by_power.setdefault(nbytes & -nbytes, []).append(path)
    # UTF-8 keeps the order of code points, so texts compare as their bytes would.
    return [path for power in sorted(by_power, reverse=True) for path in sorted(by_power[power])]


def lay_out(specs: Mapping[str, TensorSpec]) -> dict[str, Span]:
    """Where each tensor goes: in file order, one behind the other."""
    spans: dict[str, Span] = {}
    start = 0
    for path in file_order(specs):
        stop = start + specs[path].nbytes
        spans[path] = Span(specs[path], start, stop)
        start = stop
    return spans


def render_header(spans: Mapping[str, Span], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of the file, up to the data: length, JSON, and spaces up to a multiple of 64."""
    document: dict[str, Any] = {METADATA: metadata}
    written: dict[int, tuple[str, msgspec.Raw]] = {}  # dtype and shape by the id of their spec: models repeat few of them
    for path, span in spans.items():
        spec = span.spec
        described = written.get(id(spec))
        if described is None:
            described = written[id(spec)] = spec.dtype.stored, msgspec.Raw(msgspec.json.encode(spec.stored_shape))
        document[path] = Entry(*described, Offsets(span.start, span.stop))
    text = msgspec.json.encode(document)
    padding = -(LENGTH_BYTES + len(text)) % DATA_ALIGNMENT
    return (len(text) + padding).to_bytes(LENGTH_BYTES, "little") + text + b" " * padding

"""The container: how tensors lie in a safetensors file.

Lives here: the header's grammar, its checks against the file's size, the order and offsets of tensors.
Lives elsewhere: reading and writing bytes (backends), what the metadata mean (modelfile).
Source: https://github.com/huggingface/safetensors#format
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tensorkeep import strictjson
from tensorkeep.dtypes import STORABLE
from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits
from tensorkeep.tensors import TensorSpec, spec_of

LENGTH_BYTES: Final = 8  # the header's length, little-endian
DATA_ALIGNMENT: Final = 64  # bytes: a cache line, and enough for every vector load
MAX_HEADER_BYTES: Final = 100_000_000  # what safetensors itself accepts
METADATA: Final = "__metadata__"


class Offsets(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """First byte of the data, and the byte after the last."""

    start: int
    stop: int


class Entry(msgspec.Struct, gc=False):
    """One tensor as the header writes it."""

    dtype: str
    shape: tuple[int, ...]
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
        FormatError: the file is too short, or the header longer than the file or the limit.
    """
    if len(prefix) < LENGTH_BYTES:
        raise FormatError(file, f"no safetensors file: it has {file_nbytes:,} bytes, and the header's length alone takes {LENGTH_BYTES}")
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
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


class _Head(msgspec.Struct):
    """The header split in two: its metadata, whose values are texts, and all else."""

    metadata: dict[str, str]
    entries: dict[str, Entry]


def parse_header(text: bytes, file_nbytes: int, *, file: str, limits: Limits) -> Header:
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
    for path, entry in head.entries.items():
        dtype = STORABLE.get(entry.dtype)
        if dtype is None:
            raise FormatError(file, f"{path!r:.200} has the dtype {entry.dtype!r:.40}, which safetensors does not have")
        if entry.shape and (min(entry.shape) < 0 or len(entry.shape) > limits.rank):
            raise FormatError(
                file, f"{path!r:.200} has the shape {list(entry.shape)!r:.200}: lengths from 0, at most {limits.rank} of them"
            )
        spec = spec_of(dtype, entry.shape)
        if dtype.bits < 8 and not dtype.fits(spec.count):
            raise FormatError(file, f"{path!r:.200}: {spec.count:,} elements of {dtype} do not end on a whole byte")
        start, stop = entry.data_offsets.start, entry.data_offsets.stop
        if not 0 <= start <= stop:
            raise FormatError(file, f"{path!r:.200}: data_offsets {start}, {stop} are not in order")
        if stop - start != spec.nbytes:
            raise FormatError(file, f"{path!r:.200}: {spec} takes {spec.nbytes:,} bytes, data_offsets give it {stop - start:,}")
        spans[path] = Span(spec, start, stop)
    spans = _in_file_order(spans)
    _check_tiling(spans, data_nbytes, file)
    return Header(spans, head.metadata, data_start, data_nbytes)


def _split(text: bytes, file: str) -> _Head:
    if not text.startswith(b"{"):
        raise FormatError(file, f"no safetensors file: the header starts with {text[:8]!r}, not with {{")
    try:
        raw = strictjson.decode(text, dict[str, msgspec.Raw])
        metadata = raw.pop(METADATA, None)
        if metadata is None:
            # The usual file of others; and ours, whose metadata come first: one pass over the entries, in C.
            return _Head({}, strictjson.decode(text, dict[str, Entry]))
        texts = strictjson.decode(bytes(metadata), dict[str, str])
        return _Head(texts, strictjson.decode(_without_metadata(text, bytes(metadata)), dict[str, Entry]))
    except UnicodeDecodeError as error:
        raise FormatError(file, f"its header is no UTF-8: {error}") from None
    except msgspec.ValidationError as error:
        raise FormatError(file, f"its header is not laid out as safetensors': {error}") from None
    except ValueError as error:  # msgspec.DecodeError is one, and so is a repeated key
        raise FormatError(file, f"its header is no valid JSON: {error}") from None


def _without_metadata(text: bytes, metadata: bytes) -> bytes:
    """The header without its metadata, which stand first in every file that we or safetensors write."""
    head = b'{"' + METADATA.encode() + b'":' + metadata
    if text.startswith(head + b","):
        return b"{" + text[len(head) + 1 :]
    if text.startswith(head):
        return b"{" + text[len(head) :]
    raw = msgspec.json.decode(text, type=dict[str, msgspec.Raw])  # elsewhere, or spelled otherwise
    del raw[METADATA]
    return msgspec.json.encode(raw)


def _in_file_order(spans: dict[str, Span]) -> dict[str, Span]:
    last = 0
    for span in spans.values():
        if span.start < last:
            return dict(sorted(spans.items(), key=lambda item: (item[1].start, item[1].stop)))
        last = span.start
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
        raise FormatError(file, f"{data_nbytes - end:,} bytes follow the last tensor; nothing may")
    if end > data_nbytes:
        raise FormatError(
            file,
            f"cut short: the tensors take {end:,} bytes, {data_nbytes:,} are there ({100 * data_nbytes // end} %)",
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
    for path, span in spans.items():
        document[path] = Entry(span.spec.dtype.stored, span.spec.stored_shape, Offsets(span.start, span.stop))
    text = msgspec.json.encode(document)
    padding = -(LENGTH_BYTES + len(text)) % DATA_ALIGNMENT
    return (len(text) + padding).to_bytes(LENGTH_BYTES, "little") + text + b" " * padding

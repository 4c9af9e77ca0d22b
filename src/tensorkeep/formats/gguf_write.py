"""Writing GGUF 3, as llama.cpp and all that is built on ggml read it. Blocks of quantized numbers stay the blocks that they are.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from tensorkeep.backends.files import Sink
from tensorkeep.errors import UnsupportedError
from tensorkeep.formats.carried import Carried
from tensorkeep.formats.gguf import TYPE_NUMBERS
from tensorkeep.formats.writing import OutFile, Plan, copies
from tensorkeep.limits import Limits
from tensorkeep.plain import is_utf8
from tensorkeep.progress import Progress
from tensorkeep.tensors import LazyTensor
from tensorkeep.workers import run

_ALIGNMENT: Final = 32
_LONGEST_NAME: Final = 63  # bytes: ggml keeps a name in 64, with a zero behind it
_MOST_DIMENSIONS: Final = 4
_LONGEST_KEY: Final = 65_535
_ABOUT_THE_FILE: Final = (
    "general.alignment",
    "split.no",
    "split.count",
    "split.tensors.count",
)  # of the file that was read, not of this one

# By the number of a type of metadata, how a value of it is written.
_U32, _I32, _F32, _BOOL, _TEXT, _ARRAY, _U64, _I64, _F64 = 4, 5, 6, 7, 8, 9, 10, 11, 12
_PACKED: Final = {_U32: "<I", _I32: "<i", _F32: "<f", _BOOL: "<?", _U64: "<Q", _I64: "<q", _F64: "<d"}
_RANGES: Final = ((_U32, 0, 2**32), (_I32, -(2**31), 2**31), (_U64, 0, 2**64), (_I64, -(2**63), 2**63))
_ARRAY_RANGES: Final = (_RANGES[1], _RANGES[0], _RANGES[3], _RANGES[2])  # ggml's own lists of numbers are signed


class GgufWriter:
    """Tensors of at most four dimensions, and metadata that are texts, numbers, truth values, or lists of one kind of them."""

    def plan(self, carried: Carried, *, limits: Limits) -> Plan:
        carried.require("GGUF", lambda dtype: str(dtype) in TYPE_NUMBERS, cast="fp16 or fp32")
        carried.leave_values_out("GGUF")
        carried.say_copies("GGUF")
        entries: list[bytes] = []
        for key, value in carried.metadata.items():
            if key not in _ABOUT_THE_FILE:
                entry = _entry(key, value)
                if entry is None:
                    carried.left_out.append((f"metadata {key}", "GGUF has no such value"))
                else:
                    entries.append(entry)
        head = [b"GGUF", struct.pack("<IQQ", 3, len(carried.tensors), len(entries)), *entries]
        places: list[tuple[int, LazyTensor]] = []
        at = 0
        for path, tensor in carried.tensors.items():
            head.append(_description(path, tensor, at))
            places.append((at, tensor))
            at += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        header = b"".join(head)
        header += bytes(-len(header) % _ALIGNMENT)

        def write(sink: Sink, progress: Progress | None) -> None:
            moved = ((len(header) + offset, tensor) for offset, tensor in places)
            run(copies(moved, sink), nbytes=sum(tensor.nbytes for _, tensor in places), progress=progress)
            for offset, tensor in places:
                if padding := -tensor.nbytes % _ALIGNMENT:
                    sink.write(len(header) + offset + tensor.nbytes, [memoryview(bytes(padding))])
            sink.write(0, [memoryview(header)])

        return Plan("GGUF", [OutFile(len(header) + at, write)])


def _description(path: str, tensor: LazyTensor, at: int) -> bytes:
    """What the header says of a tensor. Its shape is told the other way round than NumPy's."""
    if not is_utf8(path) or len(path.encode()) > _LONGEST_NAME:
        reason = f"its name takes more than the {_LONGEST_NAME} bytes that ggml keeps, or is no text"
        raise UnsupportedError(path, reason, hint="Give it another with --rename.")
    if len(tensor.shape) > _MOST_DIMENSIONS:
        raise UnsupportedError(
            path, f"{len(tensor.shape)} dimensions; GGUF has at most {_MOST_DIMENSIONS}", hint="Leave it out with --only."
        )
    rank = len(tensor.shape)
    return _text(path) + struct.pack(f"<I{rank}QIQ", rank, *reversed(tensor.shape), TYPE_NUMBERS[str(tensor.dtype)], at)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _entry(key: str, value: Any) -> bytes | None:
    """One of the metadata, or None for a value that GGUF does not have."""
    if not is_utf8(key) or len(key.encode()) > _LONGEST_KEY:
        return None
    if isinstance(value, (list, tuple)):
        kind = _kind_of_all(value)
        if kind is None:
            return None
        return _text(key) + struct.pack("<IIQ", _ARRAY, kind, len(value)) + _written(kind, value)
    kind = _kind_of_all([value], _RANGES)
    return None if kind is None else _text(key) + struct.pack("<I", kind) + _written(kind, [value])


def _kind_of_all(values: Sequence[Any], ranges: Sequence[tuple[int, int, int]] = _ARRAY_RANGES) -> int | None:
    """The narrowest type that holds all these values as they are; None if there is none."""
    kinds = set(map(type, values))
    if not values:
        return _I32
    if kinds == {bool}:
        return _BOOL
    if kinds == {str}:
        return _TEXT if all(map(is_utf8, values)) else None
    if kinds == {int}:
        low, high = min(values), max(values)
        return next((kind for kind, start, stop in ranges if start <= low and high < stop), None)
    if kinds == {float}:
        wide = np.array(values, np.float64)
        with np.errstate(over="ignore"):
            narrow = wide.astype(np.float32).astype(np.float64)
        return _F32 if np.array_equal(narrow, wide, equal_nan=True) else _F64
    return None


def _written(kind: int, values: Sequence[Any]) -> bytes:
    if kind == _TEXT:
        return b"".join(map(_text, values))
    code = _PACKED[kind]
    return struct.pack(f"<{len(values)}{code[1]}", *values)

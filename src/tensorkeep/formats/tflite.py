"""TensorFlow Lite, also called LiteRT: a FlatBuffer with graphs, and the tensors that have bytes of their own.

A tensor is found by the number of its graph, its own number and its name, as `0/17/conv/kernel`: names alone may be empty, or occur again.
Bytes of large models lie behind the FlatBuffer, or in files beside it.

Source: https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs, versions 3 to 3d.
"""

import math
from typing import Any, Final

import numpy as np

from tensorkeep import dtypes
from tensorkeep.backends.inside import OutsideError
from tensorkeep.contents import Contents, Finding
from tensorkeep.dtypes import DType
from tensorkeep.errors import FormatError
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.quantized.scaling import Scaling
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.flatbuffers import Buffer, Table
from tensorkeep.wire.sources import run_of, unpacked

_MARK: Final = b"TFL3"
_NAMES: Final = {
    0: "F32", 1: "F16", 2: "I32", 3: "U8", 4: "I64", 6: "BOOL", 7: "I16", 8: "C64", 9: "I8", 10: "F64", 11: "C128", 12: "U64", 15: "U32",
    16: "U16", 17: "I4", 18: "BF16", 19: "I2", 20: "U4", 21: "F8_E4M3", 22: "F8_E5M2",
}  # fmt: skip
_WITHOUT_NUMBERS: Final = {5: "texts", 13: "resources", 14: "variants"}
_PACKED_BITS: Final = {"I4": 4, "U4": 4, "I2": 2}
_SHORT_BYTES: Final = 4096  # metadata up to this size are shown
_SENTINEL: Final = 1  # an offset that writers set before they know the true one
_CUSTOM: Final = 32  # the operator that has a name instead of a number


def _dtype(name: str) -> DType:
    dtype = dtypes.parse(name)
    assert dtype is not None, "one of the table's own names"
    return dtype


_TYPES: Final = {number: _dtype(name) for number, name in _NAMES.items()}


class TfliteReader:
    """TensorFlow Lite models of version 3, with their size before them or not."""

    name = "TensorFlow Lite"

    def recognizes(self, peek: Peek) -> bool:
        return peek.head[4:8] == _MARK or (peek.head[8:12] == _MARK and _prefix(peek) == peek.nbytes - 4)

    def read(self, peek: Peek) -> Contents:
        data = peek.data if peek.head[4:8] == _MARK else peek.data.part(4, peek.nbytes)
        model = Buffer(data).root("model")
        if (version := model.number(0, "I")) != 3:
            raise model.error(f"version {version:,}, wanted is 3")
        tensors = _Tensors(peek, data, model)
        graphs = []
        for number, graph in enumerate(model.tables(2, "graph")):
            graphs.append(graph.text(4, "name of a graph"))
            tensors.add(graph, number)
        metadata = {**_metadata(model, tensors), "graphs": graphs}
        if tensors.scalings:
            metadata["quantization"] = tensors.scalings
        return assemble.contents(
            peek,
            format="TensorFlow Lite",
            tree=tensors.found,
            metadata=metadata,
            findings=tensors.findings,
            left_out=tensors.left_out,
            version=str(version),
        )


def _prefix(peek: Peek) -> int:
    return int.from_bytes(peek.head[:4], "little")


class _Tensors:
    """Gathers the tensors of all graphs.

    Attributes:
        found: by path.
        scalings: by path, what its integers stand for.
        findings, left_out: what is not read, and why.
        buffers: the tables of the model's buffers.
    """

    def __init__(self, peek: Peek, data: Extent, model: Table) -> None:
        self._peek, self._data = peek, data
        self.found: dict[str, LazyTensor] = {}
        self.scalings: dict[str, Any] = {}
        self.findings: list[Finding] = []
        self.left_out: list[str] = []
        self.buffers = list(model.tables(4, "buffer"))
        groups = [group.text(0, "name of a file") for group in model.tables(8, "group of external buffers")]
        self._external = {table.number(0, "I"): (table, groups) for table in model.tables(9, "external buffer")}
        self._files: dict[str, Extent] = {}
        self._known: dict[tuple[int, DType, tuple[int, ...]], LazyTensor] = {}  # one buffer may be that of several tensors

    def add(self, graph: Table, number: int) -> None:
        for index, table in enumerate(graph.tables(0, "tensor")):
            path = f"{number}/{index}/{table.text(3, 'name of a tensor')}"
            extent, key = self._bytes(table, path)
            if extent is None or not extent.nbytes:
                continue  # made while the model runs
            kind = table.number(1, "b")
            if kind in _WITHOUT_NUMBERS or 6 in table:
                self.left_out.append(f"{path}: {_WITHOUT_NUMBERS.get(kind, 'a sparse tensor')}, {extent.nbytes:,} bytes")
                continue
            if (dtype := _TYPES.get(kind)) is None:
                raise table.error(f"{path!r:.200} is of the type {kind}, which this release does not know")
            if (rank := table.vector(0, 4, "shape")[1]) > self._peek.limits.rank:
                raise table.error(f"{path!r:.200} has {rank:,} dimensions, the limit is {self._peek.limits.rank}")
            shape = tuple(table.numbers(0, "<i4", "shape").tolist())
            if any(length < 0 for length in shape) or math.prod(length or 1 for length in shape) >= 1 << 63:
                raise table.error(f"{path!r:.200} has the shape {list(shape)!r:.200}, which no array can have")
            scaling = self._scaling(table, dtype, shape, path)
            known = self._known.get((key, dtype, shape)) if scaling is None else None
            tensor = _tensor(extent, dtype, shape, path) if known is None else known
            if scaling is None:
                self._known[key, dtype, shape] = tensor
            tensor.scaling = scaling
            self.found[path] = tensor

    def _bytes(self, table: Table, path: str) -> tuple[Extent | None, int]:
        """Where the bytes of a tensor are, and a number that two tensors share if they share these."""
        if external := table.number(10, "I"):
            return self._elsewhere(external, table, path), -external
        index = table.number(2, "I")
        if index >= len(self.buffers):
            if index:
                raise table.error(f"{path!r:.200} is in buffer {index:,} of {len(self.buffers):,}")
            return None, 0
        return self.buffer(index, path), index

    def buffer(self, index: int, path: str) -> Extent | None:
        """The bytes of one of the model's buffers: in it, or behind the FlatBuffer."""
        buffer = self.buffers[index]
        offset, nbytes = buffer.number(1, "Q"), buffer.number(2, "Q")
        if offset <= _SENTINEL:
            return buffer.run(0, "buffer")
        if offset + nbytes > self._data.nbytes:
            sizes = f"bytes {offset:,} to {offset + nbytes:,}, the file has {self._data.nbytes:,}"
            raise self._peek.error(f"{path!r:.200} takes {sizes}", hint="It may have been cut short on its way.")
        return self._data.part(offset, offset + nbytes)

    def _elsewhere(self, number: int, table: Table, path: str) -> Extent | None:
        if number not in self._external:
            raise table.error(f"{path!r:.200} is in the external buffer {number:,}, which is not told")
        external, groups = self._external[number]
        group, offset, nbytes = external.number(1, "I"), external.number(2, "Q"), external.number(3, "Q")
        packing = external.text(4, "packing")
        if group >= len(groups):
            raise external.error(f"{path!r:.200} is in file {group:,} of {len(groups):,}")
        if packing not in ("", "unpacked"):
            self.left_out.append(f"{path}: packed as {packing!r:.100}")
            return None
        name = groups[group]
        try:
            if name not in self._files:
                self._files[name] = self._peek.sibling(name)
        except OutsideError:
            what = f"reads the file {name!r:.200}, which lies outside of the model's folder or is no plain file"
            self.findings.append(Finding("dangerous", path, what))
            self.left_out.append(f"{path}: it {what}")
            return None
        if offset + nbytes > self._files[name].nbytes:
            sizes = f"bytes {offset:,} to {offset + nbytes:,} of {name!r:.200}, which has {self._files[name].nbytes:,}"
            raise external.error(f"{path!r:.200} takes {sizes}")
        return self._files[name].part(offset, offset + nbytes)

    def _scaling(self, table: Table, dtype: DType, shape: tuple[int, ...], path: str) -> Scaling | None:
        """What the integers of a tensor stand for, if that is a scale and a zero, for all or along one axis."""
        quantization = table.table(4, "quantization")
        if quantization is None or dtypes.is_float(dtype):
            return None
        scales, zeros = quantization.numbers(2, "<f4", "scale"), quantization.numbers(3, "<i8", "zero_point")
        axis = quantization.number(6, "i")
        if quantization.number(4, "B"):
            self.left_out.append(f"{path}: how its blocks are scaled; its integers are there")
            return None
        if not scales.size:
            return None
        zeros = zeros if zeros.size else np.zeros(scales.size, np.int64)
        along = scales.size == 1 or (0 <= axis < len(shape) and shape[axis] == scales.size)
        if zeros.size not in (1, scales.size) or not along:
            raise quantization.error(f"{path!r:.200}: {scales.size:,} scales and {zeros.size:,} zeros for the shape {list(shape)!r:.200}")
        self.scalings[path] = {"scale": scales.tolist(), "zero_point": zeros.tolist()} | ({"axis": axis} if scales.size > 1 else {})
        return Scaling(scales, np.broadcast_to(zeros, scales.shape), axis)


def _tensor(extent: Extent, dtype: DType, shape: tuple[int, ...], path: str) -> LazyTensor:
    spec = spec_of(dtype, shape)
    bits = _PACKED_BITS.get(dtype.name, dtype.bits)
    nbytes = (spec.count * bits + 7) // 8
    if extent.nbytes != nbytes:
        run_of(extent, 0, spec_of(dtypes.U8, (nbytes,)), what=f"{path!r:.200}")  # which says so, if there are too few
        raise FormatError(extent.name, f"{path!r:.200}: {extent.nbytes:,} bytes, where {spec} takes {nbytes:,}")
    return run_of(extent, 0, spec, what=f"{path!r:.200}") if bits == dtype.bits else unpacked(extent.read, spec, bits)


def _metadata(model: Table, tensors: _Tensors) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if description := model.text(3, "description"):
        metadata["description"] = description
    builtin, custom = set(), set()
    for code in model.tables(1, "operator"):
        number = max(code.number(0, "b"), code.number(3, "i"))
        if number == _CUSTOM or 1 in code:
            custom.add(code.text(1, "name of an operator"))
        else:
            builtin.add(number)
    metadata["operators"] = sorted(builtin)
    if custom:
        metadata["custom_operators"] = sorted(custom)
    if signatures := [signature.text(2, "name of a signature") for signature in model.tables(7, "signature")]:
        metadata["signatures"] = signatures
    for entry in model.tables(6, "metadata"):
        name, index = entry.text(0, "name of metadata"), entry.number(1, "I")
        extent = tensors.buffer(index, name) if index < len(tensors.buffers) else None
        if extent is not None and 0 < extent.nbytes <= _SHORT_BYTES:
            metadata.setdefault("metadata", {})[name] = _shown(bytes(extent.read()))
        elif extent is not None and extent.nbytes:
            tensors.left_out.append(f"the metadata {name!r:.200}: {extent.nbytes:,} bytes")
    return metadata


def _shown(raw: bytes) -> "str | bytes":
    """A text that is filled up with zeros, as versions are; or the bytes."""
    try:
        text = raw.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return raw
    return text if text.isprintable() else raw

"""Core ML: `.mlmodel` (neural networks and ML programs) and `.mlpackage` folders with their `weight.bin`.

An ML program's tensors are its constants that lie in the blob file; a neural network's are the weights of its layers. Everything else of
a model is code for Apple's runtime, and is not read.

Source: https://github.com/apple/coremltools, mlmodel/format/{Model,MIL,NeuralNetwork}.proto and mlmodel/src/MILBlob/Blob/StorageFormat.hpp.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import numpy as np

from tensorkeep.contents import Contents
from tensorkeep.dtypes import F32, STANDARD, U8, parse
from tensorkeep.errors import FormatError
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.tree import Names, Tree
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.json import read_json
from tensorkeep.wire.protobuf import Message
from tensorkeep.wire.sources import Made, run_of

_MANIFEST: Final = "Manifest.json"
_BLOB_FOLDER: Final = "@model_path/"
_SENTINEL: Final = 0xDEADBEEF
_MAX_VERSION: Final = 100

# The kinds of a model, by their field: those that are read, and the names of the rest.
_PROGRAM, _PIPELINES = 502, (200, 201, 202)
_NETWORKS: Final = {303, 403, 500}
_OTHER_KINDS: Final = {
    300: "GLM regressor", 301: "support vector regressor", 302: "tree ensemble regressor", 304: "Bayesian probit regressor",
    400: "GLM classifier", 401: "support vector classifier", 402: "tree ensemble classifier", 404: "k-nearest-neighbours classifier",
    501: "item similarity recommender", 555: "custom model", 556: "linked model", 560: "class confidence thresholding",
    600: "one-hot encoder", 601: "imputer", 602: "feature vectorizer", 603: "dictionary vectorizer", 604: "scaler",
    606: "categorical mapping", 607: "normalizer", 609: "array feature extractor", 610: "non-maximum suppression", 900: "identity",
    2000: "text classifier", 2001: "word tagger", 2002: "vision feature print", 2003: "sound analysis preprocessing",
    2004: "gazetteer", 2005: "word embedding", 2006: "audio feature print", 3000: "serialized model",
}  # fmt: skip
_KINDS: Final = {_PROGRAM, *_PIPELINES, *_NETWORKS, *_OTHER_KINDS}
_TOP: Final = {1, 2, 10} | _KINDS

_BLOB_DTYPES: Final = dict(
    enumerate(
        ("F16", "F32", "U8", "I8", "BF16", "I16", "U16", "I4", "U1", "U2", "U4", "U3", "U6", "I32", "U32", "F8_E4M3", "F8_E5M2"), start=1
    )
)
_BITS: Final = {"I4": 4, "U1": 1, "U2": 2, "U4": 4, "U3": 3, "U6": 6}  # packed, the first element lowest

# A layer's fields for what it is, and in that message the fields that hold weights.
_LAYERS: Final = {
    100: {90: "weights", 91: "bias"},  # convolution
    140: {20: "weights", 21: "bias"},  # inner product
    150: {20: "weights", 21: "bias"},  # embedding
    151: {20: "weights", 21: "bias"},  # embedding of several axes
    160: {15: "gamma", 16: "beta", 17: "mean", 18: "variance"},  # batch norm
    245: {2: "scale", 4: "bias"},
    250: {2: "bias"},
    290: {2: "data"},  # load constant
    1070: {2: "data"},  # load constant of several axes
    1045: {5: "weights", 6: "bias"},  # batched matrix product
}
_LAYER_NAME: Final = 1


class CoreMLReader:
    """A model, alone or in its package."""

    name = "coreml"

    def recognizes(self, peek: Peek) -> bool:
        if peek.is_folder:
            return _MANIFEST in peek.files and any(name.startswith("Data/") for name in peek.files)
        if not peek.head.startswith(b"\x08") or len(peek.head) < 3 or not 1 <= peek.head[1] < _MAX_VERSION or peek.head[2] != 0x12:
            return False
        try:
            numbers = set(Message(peek.data, "model", meter=peek.budget.meter()).numbers())
        except FormatError:
            return False
        return numbers <= _TOP and len(numbers & _KINDS) == 1

    def read(self, peek: Peek) -> Contents:
        data, inside = (self._in_package(peek), "Data/com.apple.CoreML/") if peek.is_folder else (peek.data, "")
        model = Message(data, "model", meter=peek.budget.meter())
        tree: dict[str, Tree] = {}
        left_out: list[str] = []
        _model(model, peek, inside, tree, left_out, depth=0)
        version = model.signed(1, "version of the specification")
        kind = "Core ML package" if peek.is_folder else "Core ML model"
        return contents(peek, format=kind, tree=tree, metadata=_metadata(model), left_out=left_out, version=str(version))

    def _in_package(self, peek: Peek) -> Extent:
        """The model that the manifest of a package names."""
        manifest = peek.sibling(_MANIFEST)
        found = read_json(manifest, _Manifest, "the manifest", limits=peek.limits)
        entry = found.items.get(found.root)
        if entry is None:
            raise FormatError(manifest.name, f"its root {found.root!r:.100} is none of its items")
        return peek.sibling(f"Data/{entry.path}")


class _Item(msgspec.Struct):
    path: str


class _Manifest(msgspec.Struct):
    items: dict[str, _Item] = msgspec.field(name="itemInfoEntries")
    root: str = msgspec.field(name="rootModelIdentifier")


def _metadata(model: Message) -> dict[str, Any]:
    described = model.message(2, "description")
    notes = described.message(100, "metadata") if described is not None else None
    if notes is None:
        return {}
    named = {"description": notes.text(1, "description"), "version": notes.text(2, "version"), "author": notes.text(3, "author")}
    own = {entry.text(1, "key"): entry.text(2, "value") for entry in notes.messages(100, "metadata of the user")}
    return {key: value for key, value in (named | own).items() if value}


def _model(model: Message, peek: Peek, inside: str, tree: dict[str, Tree], left_out: list[str], *, depth: int) -> None:
    kinds = [number for number in model.numbers() if number in _KINDS]
    if len(kinds) != 1:
        raise model.error(f"{len(kinds)} kinds of model in one")
    kind = kinds[0]
    body = model.message(kind, "model")
    assert body is not None, "it is one of its fields"
    if kind == _PROGRAM:
        _Program(peek, inside, tree, left_out).read(body)
    elif kind in _NETWORKS:
        names = Names()
        for layer in body.messages(1, "layer"):
            _layer(layer, tree, names, left_out)
    elif kind in _PIPELINES:
        if depth > 8:
            raise model.error("pipelines inside each other")
        pipeline = body if kind == 202 else body.message(1, "pipeline")
        for number, part in enumerate(pipeline.messages(1, "model") if pipeline is not None else ()):
            below: dict[str, Tree] = {}
            _model(part, peek, inside, below, left_out, depth=depth + 1)
            tree[str(number)] = below
    else:
        left_out.append(f"a {_OTHER_KINDS[kind]}, whose numbers are not read")


class _Program:
    """The constants of an ML program that lie in a blob file."""

    def __init__(self, peek: Peek, inside: str, tree: dict[str, Tree], left_out: list[str]) -> None:
        self._peek, self._inside, self._tree, self._left_out = peek, inside, tree, left_out
        self._files: dict[str, Extent] = {}
        self._names = Names()
        self._immediate = 0

    def read(self, program: Message) -> None:
        for function in program.messages(2, "function"):
            body = function.message(2, "function")
            for entry in body.messages(3, "block") if body is not None else ():
                if (block := entry.message(2, "block")) is not None:
                    self._block(block)
        if self._immediate:
            self._left_out.append(f"{self._immediate:,} constants that stand in the program itself")

    def _block(self, block: Message) -> None:
        for operation in block.messages(3, "operation"):
            for inner in operation.messages(4, "block"):
                self._block(inner)
            if operation.text(1, "type of an operation") != "const" and 5 not in operation:
                continue
            name = ""
            values: list[tuple[str, Message]] = []
            for entry in operation.messages(5, "attribute"):
                key, value = entry.text(1, "name of an attribute"), entry.message(2, "attribute")
                if value is not None and key == "name":
                    name = _string(value)
                elif value is not None:
                    values.append((key, value))
            for key, value in values:
                if 5 not in value:
                    self._immediate += 1
                    continue
                own = name if key == "val" else f"{name}.{key}"
                self._tree[self._names.free(own)] = self._blob(value, own)

    def _blob(self, value: Message, what: str) -> LazyTensor:
        place = value.message(5, f"{what:.200}: place")
        kind = value.message(2, f"{what:.200}: type")
        tensor_type = kind.message(1, "tensor type") if kind is not None else None
        if place is None or tensor_type is None:
            raise value.error(f"{what:.200} is no tensor")
        shape = []
        for dimension in tensor_type.messages(3, "dimension"):
            constant = dimension.message(1, "length")
            if constant is None:
                raise value.error(f"{what:.200} has an axis of unknown length")
            shape.append(constant.unsigned(1, "length"))
        file = place.text(1, "file")
        if not file.startswith(_BLOB_FOLDER):
            raise value.error(f"{what:.200} lies in {file!r:.200}, which is not below {_BLOB_FOLDER}")
        if file not in self._files:
            self._files[file] = self._peek.sibling(self._inside + file.removeprefix(_BLOB_FOLDER))
        return _of_blob(self._files[file], place.unsigned(2, "offset"), tuple(shape), what)


def _of_blob(data: Extent, at: int, shape: tuple[int, ...], what: str) -> LazyTensor:
    """A tensor of a blob file, by the offset of its description."""
    cursor = Cursor(data, min(at, data.nbytes))
    cursor.one_of(f"{what:.200}: sentinel", cursor.u32("sentinel"), {_SENTINEL})
    code = cursor.u32("dtype")
    nbytes, start = cursor.u64("size"), cursor.u64("offset")
    name = _BLOB_DTYPES[cursor.one_of(f"{what:.200}: dtype", code, _BLOB_DTYPES)]
    bits = _BITS.get(name)
    if bits is None:
        spec = spec_of(STANDARD[name], shape)
        if nbytes != spec.nbytes:
            raise cursor.error(f"{what:.200}: {spec} takes {spec.nbytes:,} bytes, {nbytes:,} are said")
        return run_of(data, start, spec, what=what)
    spec = spec_of(parse(name) or U8, shape)
    packed = run_of(data, start, spec_of(U8, (-(-spec.count * bits // 8),)), what=what)
    return LazyTensor(spec, Made(spec.nbytes, lambda begin, end: _unpacked(packed, bits, begin, end, signed=name.startswith("I"))))


def _unpacked(packed: LazyTensor, bits: int, begin: int, end: int, *, signed: bool) -> bytes:
    """Elements `begin` to `end` of a packed row of bits, one to a byte."""
    first, last = begin * bits // 8, -(-end * bits // 8)
    flat = np.unpackbits(np.frombuffer(packed.source.read(first, last), np.uint8), bitorder="little")
    skipped = begin * bits - first * 8
    values = flat[skipped : skipped + (end - begin) * bits].reshape(-1, bits) << np.arange(bits, dtype=np.uint8)
    made = values.sum(axis=1, dtype=np.uint8)
    if signed:
        made = np.where(made >= 1 << (bits - 1), made - np.uint8(1 << bits & 0xFF), made).astype(np.uint8)
    return bytes(made)


def _string(value: Message) -> str:
    """The text of an immediate value."""
    immediate = value.message(3, "immediate value")
    tensor = immediate.message(1, "tensor") if immediate is not None else None
    texts = tensor.message(4, "texts") if tensor is not None else None
    found = texts.texts(1, "text") if texts is not None else []
    return found[0] if found else ""


def _layer(layer: Message, tree: dict[str, Tree], names: Names, left_out: list[str]) -> None:
    name = layer.text(_LAYER_NAME, "name of a layer")
    for number, fields in _LAYERS.items():
        body = layer.message(number, f"{name:.200}") if number in layer else None
        if body is None:
            continue
        parts: dict[str, Tree] = {}
        for field, part in fields.items():
            weights = body.message(field, f"{name:.200}.{part}") if field in body else None
            if weights is not None:
                for suffix, tensor in _weights(weights, f"{name:.200}.{part}", left_out):
                    parts[part + suffix] = tensor
        if parts:
            tree[names.free(name)] = parts


def _weights(weights: Message, what: str, left_out: list[str]) -> Iterator[tuple[str, LazyTensor]]:
    """The values of one WeightParams, flat: their shape follows from the layer's other fields, which are for the runtime."""
    runs = weights.packed(1)
    if len(runs) == 1 and runs[0].nbytes % 4 == 0:
        yield "", run_of(runs[0], 0, spec_of(F32, (runs[0].nbytes // 4,)), what=what)
    for number, dtype, suffix in ((2, STANDARD["F16"], ""), (31, STANDARD["I8"], ""), (30, U8, ".packed")):
        raw = weights.content(number, what)
        if raw is not None and raw.nbytes:
            item = dtype.bits // 8
            if raw.nbytes % item:
                raise weights.error(f"{raw.nbytes:,} bytes are no whole number of {dtype}")
            yield suffix, run_of(raw, 0, spec_of(dtype, (raw.nbytes // item,)), what=what)
    if 40 in weights and (30 in weights or 31 in weights):
        left_out.append(f"{what}: how it is quantized")

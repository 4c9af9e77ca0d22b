"""ncnn: a `.param` of text that tells the layers, and the `.bin` beside it with their weights, one behind the other.

Which weights a layer has, and how many, follows from its type and its numbered parameters; there is no name or length in the `.bin`.

Source: https://github.com/Tencent/ncnn, docs/developer-guide/param-and-model-file-structure.md and src/layer/*.cpp, src/modelbin.cpp.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from tensorkeep.contents import Contents
from tensorkeep.dtypes import F32, STANDARD
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.tree import Names, Tree
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.sources import run_of

_MAGIC: Final = re.compile(rb"7767517\s")
_MAX_PARAM_BYTES: Final = 16 << 20  # its layers take eight times as much in memory
_HALF, _INT8, _FLOAT_SCALED = 0x01306B47, 0x000D4B38, 0x0002C056  # how weights are stored, as four bytes before them say
_TABLE_BYTES: Final = 256 * 4

Numbers = dict[int, int]
Part = tuple[str, tuple[int, ...], bool]
"""Name, shape, and whether four bytes before it say how it is stored."""


def _convolution(numbers: Numbers) -> Iterator[Part]:
    output, size = numbers.get(0, 0), numbers.get(6, 0)
    width = numbers.get(1, 0)
    height = numbers.get(11, width)
    yield "weight", _shaped(size, output, height, width), True
    if numbers.get(5, 0):
        yield "bias", (output,), False
    yield from _scales(numbers, numbers.get(7, output) if 7 in numbers else output)


def _scales(numbers: Numbers, count: int) -> Iterator[Part]:
    """What an int8 layer has beside its weights."""
    term = numbers.get(8, 0)
    if term:
        yield "weight_scales", (count if term in (1, 101) else 1,), False
        yield "input_scale", (1,), False
    if term > 100:
        yield "output_scale", (1,), False


def _inner_product(numbers: Numbers) -> Iterator[Part]:
    output, size = numbers.get(0, 0), numbers.get(2, 0)
    yield "weight", _shaped(size, output), True
    if numbers.get(1, 0):
        yield "bias", (output,), False
    if numbers.get(8, 0):
        yield from _scales({8: 1}, output)


def _embed(numbers: Numbers) -> Iterator[Part]:
    output, size = numbers.get(0, 0), numbers.get(3, 0)
    yield "weight", (size // output, output) if output > 0 and size % output == 0 else (size,), True
    if numbers.get(2, 0):
        yield "bias", (output,), False


def _affine(count: int, flag: int) -> Callable[[Numbers], Iterator[Part]]:
    def parts(numbers: Numbers) -> Iterator[Part]:
        if numbers.get(flag, 1):
            for name in ("weight", "bias"):
                yield name, (numbers.get(count, 0),), False

    return parts


def _scale(numbers: Numbers) -> Iterator[Part]:
    if numbers.get(0, 0) != -233:  # which says that the scale is another layer's output
        yield "weight", (numbers.get(0, 0),), False
        if numbers.get(1, 0):
            yield "bias", (numbers.get(0, 0),), False


def _memory(numbers: Numbers) -> Iterator[Part]:
    shape = tuple(length for key in (2, 11, 1, 0) if (length := numbers.get(key, 0)))
    yield "data", shape, False


def _one(name: str, key: int) -> Callable[[Numbers], Iterator[Part]]:
    return lambda numbers: iter([(name, (numbers.get(key, 0),), False)])


def _batch_norm(numbers: Numbers) -> Iterator[Part]:
    for name in ("slope", "mean", "variance", "bias"):
        yield name, (numbers.get(0, 0),), False


_LAYERS: Final[dict[str, Callable[[Numbers], Iterator[Part]]]] = {
    "Convolution": _convolution,
    "ConvolutionDepthWise": _convolution,
    "Convolution1D": _convolution,
    "Deconvolution": _convolution,
    "DeconvolutionDepthWise": _convolution,
    "InnerProduct": _inner_product,
    "Embed": _embed,
    "BatchNorm": _batch_norm,
    "Scale": _scale,
    "Bias": _one("bias", 0),
    "PReLU": _one("slope", 0),
    "MemoryData": _memory,
    "LayerNorm": _affine(0, 2),
    "InstanceNorm": _affine(0, 2),
    "GroupNorm": _affine(1, 3),
}
_WITHOUT: Final = {  # layers that have no weights
    "AbsVal", "ArgMax", "BatchToSpace", "BinaryOp", "BNLL", "Cast", "CELU", "Clip", "Concat", "CopyTo", "Crop", "CumulativeSum",
    "DeepCopy", "Dequantize", "DetectionOutput", "Diag", "Dropout", "ELU", "Einsum", "Eltwise", "Erf", "Exp", "Expand", "ExpandDims",
    "Flatten", "Flip", "Fold", "GELU", "GLU", "GridSample", "HardSigmoid", "HardSwish", "Input", "Interp", "Log", "LRN", "MatMul",
    "Mish", "MVN", "Noop", "Packing", "Padding", "Permute", "PixelShuffle", "Pooling", "Pooling1D", "Pooling3D", "Power", "PriorBox",
    "Proposal", "PSROIPooling", "ROIAlign", "ROIPooling", "ReLU", "Reduction", "Reorg", "Requantize", "Reshape", "SELU", "SPP",
    "Shrink", "ShuffleChannel", "Sigmoid", "Slice", "Softmax", "Softplus", "SpaceToDepth", "Split", "Squeeze", "StatisticsPooling",
    "Swish", "TanH", "Threshold", "Tile", "UnaryOp", "Unfold", "YoloDetectionOutput", "Yolov3DetectionOutput",
}  # fmt: skip


class NcnnReader:
    """The weights of a network, by the names of their layers."""

    name = "ncnn"

    def recognizes(self, peek: Peek) -> bool:
        return _MAGIC.match(peek.head) is not None

    def read(self, peek: Peek) -> Contents:
        if peek.nbytes > _MAX_PARAM_BYTES:
            raise peek.error(f"{peek.nbytes:,} bytes of layers, the limit is {_MAX_PARAM_BYTES:,}")
        lines = str(peek.data.read(), "utf-8", "replace").splitlines()
        cursor = Cursor(peek.sibling(f"{peek.base.removesuffix('.param')}.bin"))
        tree: dict[str, Tree] = {}
        names = Names()
        left_out: list[str] = []
        for line in lines[2:]:
            words = line.split()
            if not words:
                continue
            if len(words) < 4:
                raise peek.error(f"a layer in {line!r:.100} has no type, name and counts")
            kind, name = words[0], words[1]
            if kind in _WITHOUT:
                continue
            if kind not in _LAYERS:
                left_out.append(f"{name:.100} and all behind it: how a layer of the type {kind!r:.40} stores its weights is not known")
                return contents(peek, format="ncnn network", tree=tree, left_out=left_out)
            parts: dict[str, LazyTensor] = {}
            for part, shape, flagged in _LAYERS[kind](_numbers(words, peek)):
                tensor = _tensor(cursor, shape, flagged, f"{name:.100}.{part}", left_out)
                if tensor is not None:
                    parts[part] = tensor
            if parts:
                tree[names.free(name)] = parts
        if cursor.left:
            left_out.append(f"{cursor.left:,} bytes behind the weights of its last layer")
        return contents(peek, format="ncnn network", tree=tree, left_out=left_out)


def _shaped(size: int, output: int, height: int = 1, width: int = 1) -> tuple[int, ...]:
    """A flat size as an array of so many outputs, where it divides."""
    each = output * height * width
    if min(output, height, width) < 1 or size % each:
        return (size,)
    return (output, size // each, height, width) if height * width > 1 else (output, size // output)


def _numbers(words: list[str], peek: Peek) -> Numbers:
    """The parameters that are whole numbers, of the line of a layer; arrays and fractions tell nothing about weights."""
    found: Numbers = {}
    for word in words[4:]:
        key, equals, value = word.partition("=")
        if equals and re.fullmatch(r"\d{1,3}", key) and re.fullmatch(r"-?\d{1,12}", value):
            if int(key) in found:
                raise peek.error(f"the layer {words[1]!r:.100} has its parameter {key} twice")
            found[int(key)] = int(value)
    return found


def _tensor(cursor: Cursor, shape: tuple[int, ...], flagged: bool, what: str, left_out: list[str]) -> LazyTensor | None:
    if any(length < 0 for length in shape):
        raise cursor.error(f"{what} would have the shape {list(shape)}")
    flag = cursor.u32(f"{what}: how it is stored") if flagged else 0
    if flag in (0, _FLOAT_SCALED):
        spec = spec_of(F32, shape)
    elif flag == _HALF:
        spec = spec_of(STANDARD["F16"], shape)
    elif flag == _INT8:
        spec = spec_of(STANDARD["I8"], shape)
    else:  # a table of 256 floats, and an index for each element
        count = int(np.prod(shape, dtype=object))
        cursor.skip(f"{what}: table and indices", _TABLE_BYTES + count + -count % 4)
        left_out.append(f"{what}: its values stand in a table of 256, which is not read")
        return None
    tensor = run_of(cursor.extent, cursor.at, spec, what=what)
    cursor.skip(what, min(cursor.left, spec.nbytes + -spec.nbytes % 4))
    return tensor

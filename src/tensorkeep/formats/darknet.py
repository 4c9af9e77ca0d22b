"""Darknet: `.weights`, told apart by the `.cfg` beside it: the file itself is numbers behind each other, without a name or a shape.

Source: Darknet's src/parser.c (load_weights_upto, load_convolutional_weights, load_connected_weights, load_batchnorm_weights).
"""

from collections.abc import Iterator
from typing import Final

from tensorkeep.contents import Contents
from tensorkeep.dtypes import F32
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.wire.sources import run_of

_MAX_CFG_BYTES: Final = 16 << 20
_MAX_VERSION: Final = 1000
_NO_WEIGHTS: Final = {
    "net", "network", "route", "shortcut", "maxpool", "max", "local_avgpool", "avgpool", "avg", "upsample", "reorg", "reorg3d", "yolo",
    "region", "detection", "dropout", "softmax", "soft", "cost", "crop", "activation", "scale_channels", "sam", "gaussian_yolo",
    "logistic", "l2norm", "normalization", "lrn", "iseg", "empty", "silence", "contrastive",
}  # fmt: skip

Section = tuple[str, dict[str, str]]
Shape = tuple[int, int, int]  # channels, height, width


class DarknetReader:
    """The numbers of a network, by the number of their layer."""

    name = "darknet"

    def recognizes(self, peek: Peek) -> bool:
        if not peek.base.lower().endswith(".weights") or peek.nbytes < 16 or peek.nbytes % 4:
            return False
        major, minor, revision = (int.from_bytes(peek.head[at : at + 4], "little") for at in (0, 4, 8))
        return major <= 1 and minor <= 10 and revision <= 10

    def read(self, peek: Peek) -> Contents:
        cursor = peek.cursor()
        version = [cursor.i32(part) for part in ("major version", "minor version", "revision")]
        long = version[0] * 10 + version[1] >= 2 and version[0] < _MAX_VERSION and version[1] < _MAX_VERSION
        seen = cursor.u64("images seen") if long else cursor.u32("images seen")
        metadata = {"version": ".".join(map(str, version)), "seen": seen}
        config = f"{peek.base.rpartition('.')[0]}.cfg"
        if peek.folder is None or not peek.folder.has(config):
            spec = spec_of(F32, (cursor.left // 4,))
            whole = run_of(peek.data, cursor.at, spec, what="weights")
            left_out = [f"names and shapes: they follow from {config}, which does not lie beside it"]
            return contents(peek, format="Darknet weights", tree={"weights": whole}, metadata=metadata, left_out=left_out)
        data = peek.sibling(config)
        if data.nbytes > _MAX_CFG_BYTES:
            raise peek.error(f"{config} has {data.nbytes:,} bytes, the limit is {_MAX_CFG_BYTES:,}")
        tree: dict[str, dict[str, LazyTensor]] = {}
        left_out = []
        for number, (parts, _) in enumerate(_layers(list(_sections(str(data.read(), "utf-8", "replace"))), peek)):
            for name, shape in parts:
                if not cursor.left:  # a network may be cut at a layer on purpose: yolov4.conv.137
                    left_out.append(f"layer {number}: the file ends before it")
                    break
                tensor = run_of(peek.data, cursor.at, spec_of(F32, shape), what=f"layer {number}: {name}")
                cursor.skip(name, tensor.nbytes)
                tree.setdefault(f"{number:03}", {})[name] = tensor
        if cursor.left:
            left_out.append(f"{cursor.left:,} bytes behind the last layer that {config} tells of")
        return contents(peek, format="Darknet weights", tree=tree, metadata=metadata, left_out=left_out)


def _sections(text: str) -> Iterator[Section]:
    current: Section | None = None
    for line in text.splitlines():
        line = line.partition("#")[0].partition(";")[0].strip()
        if line.startswith("["):
            if current is not None:
                yield current
            current = (line.strip("[]").strip().lower(), {})
        elif line and current is not None:
            key, _, value = line.partition("=")
            current[1][key.strip()] = value.strip()
    if current is not None:
        yield current


_Parts = list[tuple[str, tuple[int, ...]]]
_NORMALIZED = ("scales", "rolling_mean", "rolling_variance")


def _layers(sections: list[Section], peek: Peek) -> Iterator[tuple[_Parts, Shape]]:
    """For each layer its parts in file order, by name and shape, and what it gives on."""
    if not sections or sections[0][0] not in ("net", "network"):
        raise peek.error("its .cfg does not begin with [net]")
    net = _Layer(peek, *sections[0])
    shape: Shape = (net.number("channels", 3), net.number("height", 416), net.number("width", 416))
    outputs: list[Shape] = []
    for kind, options in sections[1:]:
        layer = _Layer(peek, kind, options)
        parts, shape = layer.weights(shape) or ([], layer.routed(outputs) if kind == "route" else layer.passes_on(shape))
        outputs.append(shape)
        yield parts, shape


class _Layer:
    """One section of a .cfg."""

    def __init__(self, peek: Peek, kind: str, options: dict[str, str]) -> None:
        self._peek, self._kind, self._options = peek, kind, options

    def number(self, key: str, default: int) -> int:
        return self._whole(key, self._options.get(key, str(default)))

    def _whole(self, key: str, text: str) -> int:
        if not text.lstrip("-").isdecimal() or len(text) > 9:
            raise self._peek.error(f"its .cfg has {key}={text!r:.40}, where a whole number is wanted")
        return int(text)

    def weights(self, shape: Shape) -> tuple[_Parts, Shape] | None:
        """Its parts and what it gives on, of a layer that has weights; None for all others."""
        channels, height, width = shape
        if self._kind in ("convolutional", "conv"):
            return self._convolution(shape)
        if self._kind in ("connected", "conn"):
            output, inputs = self.number("output", 1), channels * height * width
            return [("biases", (output,)), ("weights", (output, inputs)), *self._normalized(output)], (output, 1, 1)
        if self._kind == "batchnorm":
            return [(name, (channels,)) for name in _NORMALIZED], shape
        return None

    def _convolution(self, shape: Shape) -> tuple[_Parts, Shape]:
        channels, height, width = shape
        filters, size = self.number("filters", 1), self.number("size", 1)
        groups, stride = self.number("groups", 1), self.number("stride", 1)
        padding = size // 2 if self.number("pad", 0) else self.number("padding", 0)
        if min(filters, size, groups, stride) < 1 or channels % groups:
            raise self._peek.error(f"its .cfg has a convolution of {filters} filters of {size}, {channels} channels in {groups} groups")
        parts = [("biases", (filters,)), *self._normalized(filters), ("weights", (filters, channels // groups, size, size))]
        return parts, (filters, (height + 2 * padding - size) // stride + 1, (width + 2 * padding - size) // stride + 1)

    def _normalized(self, count: int) -> _Parts:
        return [(name, (count,)) for name in _NORMALIZED] if self.number("batch_normalize", 0) else []

    def routed(self, outputs: list[Shape]) -> Shape:
        """What it puts together of layers before it."""
        routed = []
        for text in self._options.get("layers", "").split(","):
            which = self._whole("layers", text.strip())
            which = which if which >= 0 else len(outputs) + which
            if not 0 <= which < len(outputs):
                raise self._peek.error(f"its .cfg routes from layer {which}, which does not come before")
            routed.append(outputs[which])
        return sum(layer[0] for layer in routed) // max(1, self.number("groups", 1)), *routed[0][1:]

    def passes_on(self, shape: Shape) -> Shape:
        """What a layer without weights gives on."""
        channels, height, width = shape
        if self._kind in ("maxpool", "max"):
            size = self.number("size", self.number("stride", 1))
            stride, padding = max(1, self.number("stride", 1)), self.number("padding", size - 1)
            return channels, (height + padding - size) // stride + 1, (width + padding - size) // stride + 1
        if self._kind in ("avgpool", "avg"):
            return channels, 1, 1
        if self._kind == "upsample":
            stride = max(1, self.number("stride", 2))
            return channels, height * stride, width * stride
        if self._kind in ("reorg", "reorg3d"):
            stride = max(1, self.number("stride", 1))
            return channels * stride * stride, height // stride, width // stride
        if self._kind not in _NO_WEIGHTS:
            raise self._peek.error(
                f"its .cfg has a layer [{self._kind}], whose weights are not read", hint="Convert it with a tool that knows it."
            )
        return shape

"""OpenVINO: an `.xml` that tells of a network, and the `.bin` beside it with the values of its constants.

Source: https://docs.openvino.ai, "OpenVINO IR format", versions 10 and 11; 5 to 7, with blobs in the layers themselves.
"""

import re
from typing import Any, Final

from tensorkeep.contents import Contents
from tensorkeep.dtypes import BOOL, STANDARD, U8, DType
from tensorkeep.errors import FormatError
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.tree import Names
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.sources import run_of
from tensorkeep.wire.xml import read_xml

_BEGINS: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}\?>)?\s*(?:<!--.{0,1000}?-->\s*)*(?:<!DOCTYPE.{0,2000}?>\s*)?<net\s[^>]*\bversion=",
    re.DOTALL,
)
_DTYPES: Final = {
    "f16": "F16", "f32": "F32", "f64": "F64", "bf16": "BF16", "i8": "I8", "i16": "I16", "i32": "I32", "i64": "I64", "u8": "U8",
    "u16": "U16", "u32": "U32", "u64": "U64", "boolean": "BOOL", "bool": "BOOL", "f8e4m3": "F8_E4M3", "f8e5m2": "F8_E5M2",
    "f8e8m0": "F8_E8M0", "f4e2m1": "F4", "fp16": "F16", "fp32": "F32",
}  # fmt: skip
_MAX_AXES: Final = 64


class OpenVinoReader:
    """The constants of a network, by the names of their layers."""

    name = "openvino"

    def recognizes(self, peek: Peek) -> bool:
        return _BEGINS.match(peek.head) is not None

    def read(self, peek: Peek) -> Contents:
        net = _Net()
        read_xml(peek.data, start=net.start, end=net.end)
        name = f"{peek.base.removesuffix('.xml')}.bin"
        data = peek.sibling(name) if net.constants else None
        tree: dict[str, LazyTensor] = {}
        names = Names()
        left_out: list[str] = []
        for layer, attributes in net.constants:
            assert data is not None, "there are constants"
            tensor = _tensor(data, layer, attributes, peek, left_out)
            if tensor is not None:
                tree[names.free(layer)] = tensor
        return contents(peek, format="OpenVINO network", tree=tree, metadata={"name": net.name}, left_out=left_out, version=net.version)


class _Net:
    """What the document says, as it is walked."""

    def __init__(self) -> None:
        self.name = self.version = ""
        self.constants: list[tuple[str, dict[str, str]]] = []
        self._layers: list[tuple[str, str]] = []  # name and kind of those that we are inside of
        self._inside: list[str] = []

    def start(self, element: str, attributes: dict[str, str]) -> None:
        self._inside.append(element)
        if element == "net" and not self.version:
            self.name, self.version = attributes.get("name", ""), attributes.get("version", "")
        elif element == "layer":
            self._layers.append((attributes.get("name", ""), attributes.get("type", "")))
        elif element == "data" and self._layers and self._layers[-1][1] == "Const" and "offset" in attributes:
            self.constants.append((self._layers[-1][0], attributes))
        elif self._layers and len(self._inside) > 1 and self._inside[-2] == "blobs" and "offset" in attributes:
            precision = attributes.get("precision", "FP32").lower()  # of versions 5 to 7: the layer's, where the blob does not say
            self.constants.append((f"{self._layers[-1][0]}.{element}", {"element_type": precision, **attributes}))

    def end(self, element: str) -> None:
        self._inside.pop()
        if element == "layer":
            self._layers.pop()


def _tensor(data: Extent, layer: str, attributes: dict[str, str], peek: Peek, left_out: list[str]) -> LazyTensor | None:
    def number(key: str) -> int:
        text = attributes.get(key, "")
        if not text.isdecimal() or len(text) > 19:
            raise peek.error(f"{layer:.200}: {key} is {text!r:.40}, where a whole number is wanted")
        return int(text)

    start, nbytes = number("offset"), number("size")
    kind = attributes.get("element_type", "")
    known = _DTYPES.get(kind)
    if kind == "string":
        left_out.append(f"{layer:.200}: texts")
        return None
    dtype: DType = STANDARD[known] if known is not None else U8  # packed integers of few bits: their bytes as they are
    if known is None:
        left_out.append(f"{layer:.200}: the values of {kind!r:.20}, whose bytes are given instead")
    shape = _shape(attributes["shape"], layer, peek) if known is not None and "shape" in attributes else None
    item = max(1, dtype.bits // 8)
    if shape is None:
        shape = (nbytes * 8 // dtype.bits,) if dtype.bits < 8 else (nbytes // item,)
    spec = spec_of(dtype, shape)
    if dtype is not BOOL and spec.nbytes != nbytes:
        raise FormatError(peek.name, f"{layer:.200}: {spec} takes {spec.nbytes:,} bytes, {nbytes:,} are said")
    return run_of(data, start, spec, what=f"{layer:.200}")


def _shape(text: str, layer: str, peek: Peek) -> tuple[int, ...]:
    parts: list[Any] = [part.strip() for part in text.split(",")] if text.strip() else []
    if len(parts) > _MAX_AXES or not all(part.isdecimal() and len(part) < 19 for part in parts):
        raise peek.error(f"{layer:.200}: the shape {text!r:.100} is none")
    return tuple(map(int, parts))

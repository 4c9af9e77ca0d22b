"""Caffe: `.caffemodel`, the blobs of a net by layer, of both generations of layers.

Source: https://github.com/BVLC/caffe/blob/master/src/caffe/proto/caffe.proto
"""

from typing import Final

import numpy as np

from tensorkeep.contents import Contents
from tensorkeep.dtypes import F32, F64
from tensorkeep.errors import FormatError
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import Array, LazyTensor, spec_of
from tensorkeep.tree import Names
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.protobuf import Message
from tensorkeep.wire.sources import held, run_of

_NET: Final = {1, 2, 3, 4, 5, 6, 7, 8, 100}  # the fields of NetParameter
_LAYERS: Final = {2: (4, 6), 100: (1, 7)}  # V1LayerParameter, LayerParameter: their fields for the name and the blobs
_HEADS: Final = (b"\x0a", b"\x12", b"\x1a", b"\xa2\x06")


class CaffeReader:
    """Layers by name, each a list of its blobs."""

    name = "caffe"

    def recognizes(self, peek: Peek) -> bool:
        if not peek.head.startswith(_HEADS):
            return False
        try:
            net = Message(peek.data, "net", meter=peek.budget.meter())
            if not set(net.numbers()) <= _NET or not ({2, 100} & set(net.numbers())):
                return False
            return any(_is_layer(layer, *fields) for number, fields in _LAYERS.items() for layer in net.messages(number, "layer"))
        except FormatError:
            return False

    def read(self, peek: Peek) -> Contents:
        net = Message(peek.data, "net", meter=peek.budget.meter())
        tree: dict[str, object] = {}
        names = Names()
        for number, (name_field, blobs_field) in _LAYERS.items():
            for layer in net.messages(number, "layer"):
                name = layer.text(name_field, "name of a layer")
                blobs = [_blob(blob, f"{name:.200}: blob") for blob in layer.messages(blobs_field, "blob")]
                if not blobs:
                    continue
                tree[names.free(name)] = blobs
        return contents(peek, format="Caffe model", tree=tree, metadata={"name": net.text(1, "name of the net")})


def _is_layer(layer: Message, name: int, blobs: int) -> bool:
    """Whether one has a name and blobs that look like blobs."""
    return bool(layer.text(name, "name")) and any({5, 8} & set(blob.numbers()) for blob in layer.messages(blobs, "blob"))


def _blob(blob: Message, what: str) -> LazyTensor:
    double = 8 in blob
    dtype, number = (F64, 8) if double else (F32, 5)
    shape_message = blob.message(7, f"{what}: shape")
    data = _packed(blob, number, what)
    count = data.nbytes // (dtype.bits // 8)
    shape: tuple[int, ...] = (count,)
    if shape_message is not None:
        shape = tuple(shape_message.integers(1, f"{what}: shape"))
    elif {1, 2, 3, 4} & set(blob.numbers()):  # of the first generation, which padded it to four axes
        shape = tuple(blob.signed(axis, f"{what}: axis {axis}") for axis in (1, 2, 3, 4))
    spec = spec_of(dtype, shape)
    if any(length < 0 for length in shape) or spec.count != count:
        raise blob.error(f"{what} has the shape {list(shape)!r:.200} and {count:,} values")
    if isinstance(data, Extent):
        return run_of(data, 0, spec, what=what)
    return held(data.reshape(shape))


def _packed(blob: Message, number: int, what: str) -> Extent | Array:
    """The values: where they lie, if they are packed in one run, as all writers do; else gathered."""
    parts = blob.packed(number)
    if len(parts) == 1:
        return parts[0]
    return blob.numbers_of(number, np.dtype("<f8" if number == 8 else "<f4"), what)

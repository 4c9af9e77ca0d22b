"""Attributes, and texts in data sets: as plain values. Section IV.A.2.m."""

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from tensorkeep.wire.hdf5.datasets import LeftOut, Shape, dataspace
from tensorkeep.wire.hdf5.datatypes import Datatype, parse
from tensorkeep.wire.hdf5.file import ATTRIBUTE, ATTRIBUTE_INFO, DATASPACE, DATATYPE, Block, Hdf5File, Message, Object
from tensorkeep.wire.hdf5.heaps import GlobalHeaps, dense

_ATTRIBUTE_NAMES: Final = 8  # kind of B-tree
_TEXT_COST: Final = 64  # bytes that a text takes in memory beside its own
_VALUE_COST: Final = 32  # and a number, with its place in a list


class Texts:
    """Texts of variable length, each decoded once and counted each time it is met."""

    def __init__(self, file: Hdf5File) -> None:
        self._file, self._heaps = file, GlobalHeaps(file)
        self._known: dict[tuple[int, int, int], str | bytes] = {}

    def next(self, block: Block) -> str | bytes:
        """The text that the next reference names; "" where it names none."""
        nbytes, address, index = block.u32("length of a text"), block.address("text"), block.u32("index of a text")
        if not address or not nbytes:
            return ""
        self._file.budget.spend(nbytes + _TEXT_COST, "its texts")
        if (known := self._known.get((address, index, nbytes))) is None:
            data = self._heaps.get(address, index)
            known = self._known[address, index, nbytes] = text_of(bytes(data[:nbytes]))
        return known


def text_of(data: bytes) -> str | bytes:
    """A text without the zeros at its end; as bytes where it is no UTF-8."""
    data = data.rstrip(b"\0")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def attributes(file: Hdf5File, thing: Object, texts: Texts, left_out: dict[str, int]) -> dict[str, Any]:
    """The attributes of an object, by name. What is not read is counted in `left_out`, by reason."""
    found: dict[str, Any] = {}
    for block in _blocks(file, thing):
        try:
            name, value = _attribute(file, block, texts)
        except LeftOut as reason:
            left_out[reason.reason] = left_out.get(reason.reason, 0) + 1
            continue
        if name in found:
            raise file.error(f"the attribute {name!r:.200} occurs twice")
        found[name] = value
    return dict(sorted(found.items())) if thing.first(ATTRIBUTE_INFO) is not None else found


def _blocks(file: Hdf5File, thing: Object) -> Iterator[Block]:
    for message in thing.all(ATTRIBUTE):
        yield file.open(message)
    for message in thing.all(ATTRIBUTE_INFO)[:1]:
        block = file.open(message)
        block.version("the attribute information", (0,))
        block.skip("largest creation index", 2 * (block.u8("flags") & 1))
        heap, tree = block.address("heap of attributes"), block.address("tree of names")
        yield from dense(file, heap, tree, _ATTRIBUTE_NAMES, skip=0)


def _attribute(file: Hdf5File, block: Block, texts: Texts) -> tuple[str, Any]:
    version, flags = block.version("the attribute", (1, 2, 3)), block.u8("flags")
    sizes = block.u16("size of the name"), block.u16("size of the type"), block.u16("size of the shape")
    block.skip("character set", 1 if version == 3 else 0)
    parts = []
    for what, nbytes in zip(("name", "type", "shape"), sizes, strict=True):
        at = block.at
        parts.append((block.raw(what, nbytes), at))
        if version == 1:
            block.skip("padding", min(-nbytes % 8, block.left))
    name = text_of(bytes(parts[0][0]))
    place = block.place
    kind_block, shape_block = (
        file.shared(Message(kind, data, place + at, 0)) if version > 1 and flags & bit else Block(file, data, place + at)
        for bit, kind, (data, at) in ((1, DATATYPE, parts[1]), (2, DATASPACE, parts[2]))
    )
    kind, shape = parse(kind_block), dataspace(shape_block)
    return name if isinstance(name, str) else name.decode("latin-1"), plain(kind, shape, block, texts)


def plain(kind: Datatype, shape: Shape, block: Block, texts: Texts) -> Any:
    """The elements that stand at a block as plain values: one alone, or in lists as deep as the shape; None for no dataspace.

    Raises:
        LeftOut: elements of a type that is not read.
        FormatError: so many elements do not stand there.
    """
    if shape.lengths is None:
        return None
    if kind.unread:
        raise LeftOut(f"{kind.unread} are not read")
    count = math.prod(shape.lengths)
    block.file.budget.spend(count * (kind.nbytes + _VALUE_COST), "its attributes and texts")
    block.fits("number of elements", count, bytes_each=max(1, kind.nbytes))
    if kind.text == "variable":
        block.step(count)
        values: list[Any] = [texts.next(block) for _ in range(count)]
    else:
        assert kind.numpy is not None, "what is read and no text of variable length has a type"
        array = np.frombuffer(block.raw("elements", count * kind.nbytes), kind.numpy, count)
        if kind.text:
            values = [text_of(item.rstrip(b" ") if kind.padding == 2 else item) for item in array.tolist()]
        else:
            values = array.tolist()
    return nested(values, shape.lengths)


def nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    """A flat list of values in the form of a shape."""
    if not shape:
        return values[0]
    if len(shape) == 1 or not values:
        return values
    each = math.prod(shape[1:])
    return [nested(values[begin : begin + each], shape[1:]) for begin in range(0, len(values), each)]

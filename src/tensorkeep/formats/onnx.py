"""ONNX: graphs of operators, with the tensors that belong to them. Read without its package and without protobuf's.

A tensor is found by the name that the graph knows it by: an initializer by its own, a constant by that of the node's output. Names of
inner graphs may occur again; then `~2`, `~3` is appended.

Lives here: models, graphs, nodes. Lives elsewhere: the bytes of a tensor (onnx_tensor).
Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, IR version 13.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from tensorkeep.contents import Contents
from tensorkeep.errors import FormatError
from tensorkeep.formats import assemble
from tensorkeep.formats.onnx_tensor import Tensors, at_a_glance, decoded, name_of_type
from tensorkeep.formats.peek import Peek
from tensorkeep.tree import Names, Tree
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.protobuf import Message

_VARINT, _BYTES = 0, 2
# Fields of a model and of a graph, and their wire types. Whatever has others is another format.
_MODEL: Final = {1: _VARINT, 5: _VARINT, **dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), _BYTES)}
_GRAPH: Final = dict.fromkeys((1, 2, 5, 10, 11, 12, 13, 14, 15, 16), _BYTES)
_IR_VERSION, _GRAPH_FIELD, _FUNCTIONS, _TRAINING = 1, 7, 25, 20
_MOST_LOOKED_AT: Final = 10_000  # fields of a model before its graph
_MESSAGES, _MESSAGE_BYTES = 200_000, 32  # so many nodes, attributes and the like, and one more for so many bytes; real ones take more
_FLOAT32: Final = np.dtype("<f4")
_PLAIN_CONSTANTS: Final = {"value_float": 2, "value_int": 3, "value_string": 4, "value_floats": 7, "value_ints": 8, "value_strings": 9}


class OnnxReader:
    """ONNX models: initializers, and the constants of all nodes, of inner graphs and functions too."""

    name = "ONNX"

    def recognizes(self, peek: Peek) -> bool:
        if len(peek.head) < 4 or _MODEL.get(peek.head[0] >> 3) != peek.head[0] & 7:
            return False
        try:
            return _is_model(peek.cursor())
        except FormatError:
            return False

    def read(self, peek: Peek) -> Contents:
        model = Message(peek.data, "model", meter=peek.budget.meter(_MESSAGES + peek.nbytes // _MESSAGE_BYTES))
        walk = _Walk(peek)
        graph = model.message(_GRAPH_FIELD, "graph")
        if graph is not None:
            walk.graph(graph, frozenset())
        for function in model.messages(_FUNCTIONS, "function"):
            walk.nodes(function, 7, frozenset())
        for training in model.messages(_TRAINING, "training information"):
            for number, what in ((1, "initialization"), (2, "algorithm")):
                if (inner := training.message(number, what)) is not None:
                    walk.graph(inner, frozenset())
        left_out = walk.tensors.left_out
        if walk.filled:
            left_out = [*left_out, f"{walk.filled:,} tensors of one number each, which ConstantOfShape makes of a shape that is stored"]
        writer = " ".join(filter(None, (model.text(2, "producer_name"), model.text(3, "producer_version"))))
        return assemble.contents(
            peek,
            format="ONNX",
            tree=walk.tree,
            metadata=_metadata(model, graph, walk),
            findings=walk.tensors.findings,
            left_out=left_out,
            version=str(model.unsigned(_IR_VERSION, "ir_version")),
            writer=writer,
        )


def _is_model(cursor: Cursor) -> bool:
    """Whether it has a version and a graph or functions, and nothing that a model has not. Its graph may be cut short."""
    versioned = has_graph = False
    for _ in range(_MOST_LOOKED_AT):
        if not cursor.left:
            break
        tag = cursor.varint("tag")
        number, kind = tag >> 3, tag & 7
        if _MODEL.get(number) != kind:
            return False
        length = cursor.varint("number")
        if number == _IR_VERSION:
            versioned = 0 < length < 1000
        if kind != _BYTES:
            continue
        if number == _GRAPH_FIELD:
            if length and cursor.left:
                first = Cursor(cursor.extent, cursor.at).varint("tag of the graph")
                if _GRAPH.get(first >> 3) != first & 7:
                    return False
            has_graph = True
        has_graph = has_graph or number == _FUNCTIONS
        if length > cursor.left:
            break
        cursor.skip("field", length)
    return versioned and has_graph


class _Walk:
    """Goes through graphs and gathers their tensors.

    Attributes:
        tree: tensors and plain constants by name.
        operators: how many nodes there are of each operator, as `domain::name` where the domain is not ONNX's own.
        filled: how many tensors are made of one number and a stored shape.
    """

    def __init__(self, peek: Peek) -> None:
        self.tree: dict[str, Tree] = {}
        self.tensors = Tensors(peek)
        self.operators: Counter[str] = Counter()
        self.filled = 0
        self._limits = peek.limits
        self._names = Names()

    def _add(self, name: str, value: Tree) -> None:
        if value is None:
            return
        self.tree[self._names.free(name or "unnamed")] = value

    def graph(self, graph: Message, outer: frozenset[str]) -> None:
        stored = set()
        file = self.tensors.peek.name
        for found in graph.quickly(5, "initializer", lambda data: at_a_glance(data, file)):
            if isinstance(found, Message):
                name = found.text(8, "name of an initializer")
                self._add(name, self.tensors.tensor(found, name))
            else:
                name, tensor = found
                self._add(name, tensor)
            stored.add(name)
        for message in graph.messages(15, "sparse initializer"):
            self._add(*self.tensors.sparse(message))
        self.nodes(graph, 1, outer | stored if stored else outer)

    def nodes(self, holder: Message, number: int, stored: frozenset[str]) -> None:
        """The nodes of a graph or function.

        Args:
            holder: the graph or function.
            number: its field of nodes.
            stored: the names of the initializers that they can see.
        """
        for node in holder.messages(number, "node"):
            operator, domain = node.text(4, "op_type"), node.text(7, "domain")
            own = domain in ("", "ai.onnx")
            self.operators[operator if own else f"{domain}::{operator}"] += 1
            if 5 in node:
                self._attributes(node, operator if own else "", stored)

    def _attributes(self, node: Message, operator: str, stored: frozenset[str]) -> None:
        output = next(iter(node.texts(2, "output")), "") or node.text(3, "name")
        for attribute in node.messages(5, "attribute"):
            for graph in _graphs(attribute):
                self.graph(graph, stored)
            name = attribute.text(1, "name of an attribute")
            if operator == "Constant" and name in _PLAIN_CONSTANTS:
                self._add(output, _plain(attribute, _PLAIN_CONSTANTS[name]))
                continue
            place = output if operator == "Constant" else f"{output}.{name}"
            if operator == "ConstantOfShape" and not stored.isdisjoint(node.texts(1, "input")):
                self.filled += 1
                continue
            if (tensor := attribute.message(5, "tensor")) is not None:
                self._add(place, self.tensors.tensor(tensor, place))
            for tensor in attribute.messages(10, "tensor"):
                self._add(place, self.tensors.tensor(tensor, place))
            if (sparse := attribute.message(22, "sparse tensor")) is not None:
                self._add(place, self.tensors.sparse(sparse)[1])
            for sparse in attribute.messages(23, "sparse tensor"):
                self._add(place, self.tensors.sparse(sparse)[1])


def _graphs(attribute: Message) -> Iterator[Message]:
    if (graph := attribute.message(6, "graph")) is not None:
        yield graph
    yield from attribute.messages(11, "graph")


def _plain(attribute: Message, number: int) -> Any:
    """A constant that is written as a number or text, or as several."""
    if number == 2:
        return attribute.float32(2, "value_float")
    if number == 3:
        return attribute.signed(3, "value_int")
    if number == 7:
        return attribute.numbers_of(7, _FLOAT32, "value_floats").tolist()
    if number == 8:
        return attribute.integers(8, "value_ints")
    texts = [decoded(bytes(part.read())) for part in attribute.parts(number, "value_string")]
    return texts if number == 9 else texts[0] if texts else ""


def _metadata(model: Message, graph: Message | None, walk: _Walk) -> dict[str, Any]:
    metadata: dict[str, Any] = {"ir_version": model.unsigned(_IR_VERSION, "ir_version")}
    for number, name in ((2, "producer_name"), (3, "producer_version"), (4, "domain"), (6, "doc_string")):
        if text := model.text(number, name):
            metadata[name] = text
    if version := model.signed(5, "model_version"):
        metadata["model_version"] = version
    metadata["opsets"] = {opset.text(1, "domain") or "ai.onnx": opset.signed(2, "version") for opset in model.messages(8, "opset_import")}
    if properties := _pairs(model, 14):
        metadata["properties"] = properties
    if graph is not None:
        metadata["graph"] = graph.text(2, "name of the graph")
        metadata["inputs"] = {name: told for name, told in _values(graph, 11) if name not in walk.tree}
        metadata["outputs"] = dict(_values(graph, 12))
    metadata["operators"] = dict(sorted(walk.operators.items()))
    return metadata


def _pairs(message: Message, number: int) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in message.messages(number, "property"):
        key = pair.text(1, "key of a property")
        if key in pairs:
            raise message.error(f"the property {key!r:.200} occurs twice")
        pairs[key] = pair.text(2, "value of a property")
    return pairs


def _values(graph: Message, number: int) -> Iterator[tuple[str, Any]]:
    """Inputs or outputs of a graph: dtype and shape of each, its unknown lengths by name or as None."""
    for value in graph.messages(number, "value"):
        kind = value.message(2, "type")
        tensor = None if kind is None else kind.message(1, "type of a tensor")
        told: Any = "no tensor"
        if tensor is not None:
            told = {"dtype": name_of_type(tensor.unsigned(1, "elem_type"))}
            if (shape := tensor.message(2, "shape")) is not None:
                told["shape"] = [_length(length) for length in shape.messages(1, "dimension")]
        yield value.text(1, "name of a value"), told


def _length(dimension: Message) -> "int | str | None":
    if 1 in dimension:
        return dimension.signed(1, "length")
    return dimension.text(2, "name of a length") or None

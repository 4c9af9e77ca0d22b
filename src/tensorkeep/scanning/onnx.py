"""ONNX: tensors whose bytes stand in files outside of the folder, and operators that are none of ONNX.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import re
from collections.abc import Iterator
from typing import Final

from tensorkeep.errors import FormatError
from tensorkeep.formats.onnx_tensor import at_a_glance
from tensorkeep.scanning.code import code_in
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.wire.protobuf import Message, Meter

_BEGINS: Final = re.compile(rb"\x08[\x01-\x1f][\x12\x1a\x22\x2a\x32\x3a\x42]|\x3a|\x42|\x12")
_MODEL_FIELDS: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_DOMAINS: Final = frozenset(
    {
        *("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.contrib"),
        *("com.microsoft", "com.microsoft.nchwc", "com.microsoft.experimental", "com.microsoft.mlfeaturizers", "com.microsoft.dml"),
        *("com.ms.internal.nhwc", "org.pytorch.aten", "org.pytorch.prim", "pkg.onnxscript.torch_lib", "pkg.onnxscript.torch_lib.common"),
        *("pkg.torch", "pkg.transformers", "onnxscript.atenlib", "local_functions", "com.ms.contrib", "trt.plugins"),
    }
)
_PYTHON: Final = frozenset({"PyOp", "PythonOp", "PyCustomOp", "PythonOpGrad", "PyFunc"})
_FEW: Final = 10_000  # fields that a model has, without those in its graph
_MOST_NODES: Final = 1_000_000


def recognizes(thing: Thing) -> bool:
    """Whether it is a message that has a graph where a model has it: it has no mark, so its name counts too."""
    if thing.tensor or not (thing.suffix in (".onnx", ".ort") or (_BEGINS.match(thing.head) and b"\x3a" in thing.head[:2000])):
        return False
    if thing.suffix == ".onnx":
        return True
    try:
        model = Message(thing.extent, "model", meter=Meter(_FEW, _FEW))
        return set(model.numbers()) <= _MODEL_FIELDS and 7 in model and model.content(7, "graph") is not None
    except FormatError:
        return False


def scan(thing: Thing, look: Look) -> bool:
    """Look at every node and tensor, in subgraphs and functions too. Whether it is a model."""
    try:
        _Model(thing, look).look_at()
    except FormatError as error:
        look.stopped(thing.place, error.problem)
        return False
    return True


class _Model:
    def __init__(self, thing: Thing, look: Look) -> None:
        self._thing, self._look = thing, look
        self._own: set[str] = set()
        self._nodes = 0

    def look_at(self) -> None:
        model = Message(self._thing.extent, "model", meter=self._look.budget.meter())
        functions = list(model.messages(25, "function"))
        self._own = {function.text(10, "domain of a function") for function in functions}
        for entry in model.messages(14, "metadata"):
            key, value = entry.text(1, "key"), entry.text(2, "value")
            if found := code_in(value):
                self._look.found("unknown", self._thing.at(f"metadata {key}"), f"{found[0]}: {found[1]!r}", "code-in-text")
        graph = model.message(7, "graph")
        waiting = [graph] if graph is not None else []
        for training in model.messages(20, "training"):
            waiting += [part for number in (1, 2) if (part := training.message(number, "training graph")) is not None]
        for function in functions:
            self._nodes_of(function, 7, waiting)
        while waiting:
            graph = waiting.pop()
            self._nodes_of(graph, 1, waiting)
            for tensor in self._tensors_of(graph):
                self._tensor(tensor)

    def _tensors_of(self, graph: Message) -> Iterator[Message]:
        for found in graph.quickly(5, "initializer", lambda data: at_a_glance(data, self._thing.place)):
            if isinstance(found, Message):  # all others have their bytes with them
                yield found
        for sparse in graph.messages(15, "sparse initializer"):
            yield from self._sparse(sparse)

    def _sparse(self, sparse: Message) -> Iterator[Message]:
        for number in (1, 2):
            if (part := sparse.message(number, "part of a sparse tensor")) is not None:
                yield part

    def _nodes_of(self, graph: Message, number: int, waiting: list[Message]) -> None:
        for node in graph.messages(number, "node"):
            self._nodes += 1
            if self._nodes > _MOST_NODES:
                raise FormatError(self._thing.extent.name, f"more than {_MOST_NODES:,} nodes")
            kind, domain = node.text(4, "operator"), node.text(7, "domain")
            name = f"node {node.text(3, 'name of a node') or kind}"
            if kind in _PYTHON:
                self._look.found("dangerous", self._thing.at(name), f"the operator {domain}.{kind}, which runs Python", "onnx-python")
            elif domain not in _DOMAINS and domain not in self._own:
                what = f"operators of the domain {domain!r}, for which a library of the author's must be loaded"
                self._look.found("unknown", self._thing.at(name), what, "onnx-domain")
            elif kind == "EPContext":
                self._compiled(node, name)
            for attribute in node.messages(5, "attribute"):
                if (tensor := attribute.message(5, "tensor")) is not None:
                    self._tensor(tensor)
                for tensor in attribute.messages(10, "tensors"):
                    self._tensor(tensor)
                for sparse in (attribute.message(22, "sparse tensor"), *attribute.messages(23, "sparse tensors")):
                    for tensor in self._sparse(sparse) if sparse is not None else ():
                        self._tensor(tensor)
                if (inner := attribute.message(6, "graph")) is not None:
                    waiting.append(inner)
                waiting += attribute.messages(11, "graphs")

    def _compiled(self, node: Message, name: str) -> None:
        """A part of the model that was compiled for one device: in the file itself, or in one that it names."""
        attributes = {attribute.text(1, "name of an attribute"): attribute for attribute in node.messages(5, "attribute")}
        mode, cache = attributes.get("embed_mode"), attributes.get("ep_cache_context")
        if cache is not None and mode is not None and mode.signed(3, "embed_mode") == 0:
            file = cache.text(4, "ep_cache_context")
            if why := self._look.leads_out(file):
                what = f"takes what was compiled for a device from the file {file!r}, whose name {why}"
                self._look.found("dangerous", self._thing.at(name), what, "outside-file")

    def _tensor(self, tensor: Message) -> None:
        if 13 not in tensor:
            return
        for entry in tensor.messages(13, "external data"):
            if entry.text(1, "key") == "location":
                file = entry.text(2, "value")
                name = tensor.text(8, "name of a tensor")
                if why := self._look.leads_out(file):
                    what = f"takes its bytes from the file {file!r}, whose name {why}"
                    self._look.found("dangerous", self._thing.at(f"tensor {name}"), what, "outside-file")

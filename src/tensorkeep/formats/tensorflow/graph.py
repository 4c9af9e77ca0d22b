"""TensorFlow's frozen graphs: a `GraphDef` whose weights are constants. The graph is not run: constants are tensors, the rest is counted.

Source: https://github.com/tensorflow/tensorflow/tree/master/tensorflow/core/framework, `graph.proto`, `node_def.proto`, `attr_value.proto`
"""

import re
from collections import Counter
from typing import Any, Final

from tensorkeep.contents import Contents
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.tensorflow.tensor import kind_name, tensor_of
from tensorkeep.tree import Tree
from tensorkeep.wire.protobuf import Message

_NAME: Final = re.compile(rb"\x0a([\x01-\x7f])([A-Za-z0-9.][A-Za-z0-9_.\\/>-]*)\x12([\x01-\x7f])([A-Z][A-Za-z0-9_>]*)")
"""The beginning of a node: its name and its operation, each after its length."""


class TfGraphReader:
    """A `.pb` file with a graph. Constants go by the names of their nodes; those of functions below the function's."""

    name = "TensorFlow graph"

    def recognizes(self, peek: Peek) -> bool:
        head = peek.head[:600]
        if not head.startswith(b"\x0a"):
            return False
        start = next((place for place in range(2, 7) if head[place - 1 : place] < b"\x80"), None)  # behind the length of the first node
        match = None if start is None else _NAME.match(head, start)
        if match is None or len(match[2]) != match[1][0]:
            return False
        return len(match[4]) >= match[3][0]  # of what follows some bytes may look like more of the name

    def read(self, peek: Peek) -> Contents:
        graph = Message(peek.data, "graph", meter=peek.budget.meter())
        constants = Constants()
        constants.add(graph)
        metadata: dict[str, Any] = {"operations": dict(sorted(constants.counted.items()))}
        if (versions := graph.message(4, "versions")) is not None:
            metadata["versions"] = {"producer": versions.signed(1, "producer"), "min_consumer": versions.signed(2, "least consumer")}
        left_out = [*constants.left_out, "the graph: its operations are counted under `operations`"]
        return assemble.contents(peek, format=self.name, tree=constants.tree, metadata=metadata, left_out=left_out)


class Constants:
    """The constants of graphs.

    Attributes:
        tree: by the names of their nodes; texts as byte strings.
        counted: how often each operation was met, constants or not.
        left_out: what is no tensor of numbers.
    """

    def __init__(self) -> None:
        self.tree: dict[str, Tree] = {}
        self.counted: Counter[str] = Counter()
        self.left_out: list[str] = []

    def add(self, graph: Message) -> None:
        """Those of a `GraphDef`, its functions included.

        Raises:
            FormatError: two have one name.
        """
        for node in graph.messages(1, "node"):
            self._add(node, "")
        library = graph.message(2, "library of functions")
        for function in () if library is None else library.messages(1, "function"):
            signature = function.message(1, "signature of a function")
            name = "" if signature is None else signature.text(1, "name of a function")
            for node in function.messages(3, "node of a function"):
                self._add(node, f"{name}/")

    def _add(self, node: Message, prefix: str) -> None:
        operation = node.text(2, "operation of a node")
        self.counted[operation] += 1
        if operation != "Const":
            return
        name = f"{prefix}{node.text(1, 'name of a node')}"
        if name in self.tree:
            raise node.error(f"the node {name!r:.200} stands there twice")
        for attribute in node.messages(5, "attribute of a node"):
            value = attribute.message(2, "attribute of a node")
            if attribute.text(1, "name of an attribute") != "value" or value is None:
                continue
            tensor = value.message(8, f"value of {name:.200}")
            if tensor is None or (made := tensor_of(tensor, name)) is None:
                kind = "" if tensor is None else kind_name(tensor.unsigned(1, "dtype"))
                self.left_out.append(f"{name}: a value {kind}, which is no tensor of numbers")
            else:
                self.tree[name] = made[0] if isinstance(made, list) and len(made) == 1 else made

"""TensorFlow's SavedModel: a folder with the graph as a message and the variables as a checkpoint.

The graph is not run, and not built: what it says of itself becomes metadata. Its variables are the model; where it has none, its constants.

Source: https://www.tensorflow.org/guide/saved_model, `tensorflow/core/protobuf/saved_model.proto` and `meta_graph.proto`
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from tensorkeep.contents import Contents
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.tensorflow.bundle import Bundle, read_bundle
from tensorkeep.formats.tensorflow.checkpoint import INDEX, names
from tensorkeep.formats.tensorflow.graph import Constants
from tensorkeep.formats.tensorflow.tensor import kind_name
from tensorkeep.wire.protobuf import Message

MODEL: Final = "saved_model.pb"
_TEXT_MODEL: Final = "saved_model.pbtxt"
_VARIABLES: Final = "variables/variables"


class SavedModelReader:
    """A folder with `saved_model.pb`, or that file in its folder."""

    name = "TensorFlow SavedModel"

    def recognizes(self, peek: Peek) -> bool:
        if peek.is_folder:
            return MODEL in peek.files or _TEXT_MODEL in peek.files
        return peek.base == MODEL and peek.head.startswith(b"\x08\x01\x12")

    def read(self, peek: Peek) -> Contents:
        if peek.is_folder and MODEL not in peek.files:
            raise peek.error(f"its graph is text, {_TEXT_MODEL}, which tensorkeep does not read", hint="Save it again as saved_model.pb.")
        model = peek.sibling(MODEL) if peek.is_folder else peek.data
        graphs = list(Message(model, "SavedModel", meter=peek.budget.meter()).messages(2, "graph"))
        metadata = {"graphs": [_described(graph) for graph in graphs]}
        left_out = [f"{file}: an asset" for file in peek.files if file.startswith(("assets/", "assets.extra/"))]
        if peek.folder is not None and peek.folder.has(_VARIABLES + INDEX):
            left_out.insert(0, "the graph: its operations are counted under `operations`, its constants are not read")
            bundle = read_bundle(peek, peek.sibling(_VARIABLES + INDEX), _VARIABLES)
        else:
            bundle = _frozen(graphs)
        return assemble.contents(
            peek,
            format=self.name,
            tree=bundle.tree,
            metadata={**metadata, **names(bundle)},
            left_out=[*left_out, *bundle.left_out],
            writer=_writer(metadata),
            checked=bundle.checked,
        )


def _writer(metadata: dict[str, Any]) -> str:
    version = next((graph["tensorflow"] for graph in metadata["graphs"] if graph.get("tensorflow")), "")
    return f"TensorFlow {version}" if version else ""


def _frozen(graphs: list[Message]) -> Bundle:
    """The constants of the first graph, where there are no variables: they are the weights then, or the variables were not fetched."""
    constants = Constants()
    for graph in graphs[:1]:
        if (definition := graph.message(2, "graph definition")) is not None:
            constants.add(definition)
    note = "variables: there is no folder `variables`, and these are the constants of the graph"
    return Bundle(tree=constants.tree, left_out=[note, *constants.left_out])


def _described(graph: Message) -> dict[str, Any]:
    info = graph.message(1, "description of a graph")
    described: dict[str, Any] = {
        "tags": [] if info is None else info.texts(4, "tag"),
        "tensorflow": "" if info is None else info.text(5, "version of TensorFlow"),
        "signatures": {entry.text(1, "name of a signature"): _signature(entry) for entry in graph.messages(5, "signature")},
        "operations": dict(sorted(operations(graph).items())),
    }
    return {key: value for key, value in described.items() if value}


def _signature(entry: Message) -> dict[str, dict[str, str]]:
    found = entry.message(2, "signature")
    if found is None:
        return {}
    return {
        what: {tensor.text(1, "name of an argument"): _tensor_info(tensor) for tensor in found.messages(number, what)}
        for number, what in ((1, "inputs"), (2, "outputs"))
    }


def _tensor_info(entry: Message) -> str:
    """Dtype and shape of an argument; a length that is free is `?`."""
    info = entry.message(2, "argument")
    if info is None:
        return ""
    shape = info.message(3, "shape")
    if shape is None or shape.unsigned(3, "unknown rank"):
        return kind_name(info.unsigned(2, "dtype"))
    lengths = [dim.signed(1, "length") for dim in shape.messages(2, "dimension")]
    return f"{kind_name(info.unsigned(2, 'dtype'))}[{','.join('?' if length < 0 else str(length) for length in lengths)}]"


def operations(graph: Message) -> Counter[str]:
    """How often each operation stands in a `MetaGraphDef`, its functions included."""
    definition = graph.message(2, "graph definition")
    return Counter() if definition is None else Counter(node.text(2, "operation") for node in nodes(definition))


def nodes(definition: Message) -> Iterator[Message]:
    """The nodes of a `GraphDef`, and of the functions in its library."""
    yield from definition.messages(1, "node")
    library = definition.message(2, "library of functions")
    for function in () if library is None else library.messages(1, "function"):
        yield from function.messages(3, "node of a function")

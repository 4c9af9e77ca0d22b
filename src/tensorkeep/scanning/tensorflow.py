"""TensorFlow's graphs: operations that touch files or run Python, in SavedModels, meta graphs and frozen graphs.

Source: tensorflow/core/protobuf/saved_model.proto, meta_graph.proto; tensorflow/core/framework/graph.proto, function.proto
"""

import re
from collections.abc import Iterator
from typing import Final

from tensorkeep.errors import FormatError
from tensorkeep.scanning.jsons import documents
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.scanning.texts import judge_document
from tensorkeep.unpickle.severity import Severity
from tensorkeep.wire.protobuf import Message

DANGEROUS: Final = {
    "ReadFile": "reads any file",
    "WriteFile": "writes any file",
    "MatchingFiles": "lists files",
    "WholeFileReader": "reads any file",
    "WholeFileReaderV2": "reads any file",
    "PyFunc": "runs Python",
    "PyFuncStateless": "runs Python",
    "EagerPyFunc": "runs Python",
    "PyCall": "runs Python",
    "ShellExecute": "runs a command",
    "ExecuteOp": "runs a command",
    "SystemConfig": "reads the system's configuration",
    "LoadAndRemapMatrix": "reads any file",
    "GenerateVocabRemapping": "reads any file",
    "CreateSummaryFileWriter": "writes files",
    "CreateSummaryDbWriter": "writes files",
    "WriteGraphSummary": "writes files",
    "CopyFile": "copies files",
    "DeleteFile": "removes files",
    "DebugIdentityV2": "writes files",
    "DebugIdentityV3": "writes files",
    "MatchingFilesDataset": "lists files",
    "SqlDataset": "reads a database",
    "FixedLengthRecordReader": "reads any file",
    "FixedLengthRecordReaderV2": "reads any file",
    "TextLineReader": "reads any file",
    "TextLineReaderV2": "reads any file",
    "TFRecordReader": "reads any file",
    "TFRecordReaderV2": "reads any file",
    "LMDBReader": "reads any file",
    "SaveDataset": "writes files",
    "LoadDataset": "reads files",
    "FileSystemSetConfiguration": "changes how files are reached",
    "RemoteCall": "calls another machine",
}
UNKNOWN: Final = {
    "TextLineDataset": "reads files",
    "TFRecordDataset": "reads files",
    "TFRecordDatasetV2": "reads files",
    "FixedLengthRecordDataset": "reads files",
    "FixedLengthRecordDatasetV2": "reads files",
    "CSVDataset": "reads files",
    "CSVDatasetV2": "reads files",
    "ExperimentalCSVDataset": "reads files",
    "ExperimentalLMDBDataset": "reads files",
    "ExperimentalSqlDataset": "reads a database",
    "LMDBDataset": "reads files",
    "DataServiceDataset": "calls another machine",
    "DataServiceDatasetV2": "calls another machine",
    "DataServiceDatasetV3": "calls another machine",
    "DataServiceDatasetV4": "calls another machine",
    "CacheDataset": "writes files",
    "CacheDatasetV2": "writes files",
    "SnapshotDataset": "writes files",
    "SnapshotDatasetV2": "writes files",
    "PrintV2": "prints, to a file if told so",
    "Print": "prints",
    "XlaLaunch": "runs compiled code",
    "TensorRTEngineOp": "runs compiled code",
    "TRTEngineOp": "runs compiled code",
    "Abort": "ends the process",
}
_TEXT_NODE: Final = re.compile(r"""\bop\s*:((?:\s*(?:"[^"\n]{0,200}"|'[^'\n]{0,200}'))+)""")
_TEXT_ESCAPE: Final = re.compile(r"\\(?:[xX]([0-9a-fA-F]{1,2})|([0-7]{1,3}))")
_MOST_NODES: Final = 5_000_000
_TEXT_BYTES: Final = 256 << 20


def recognizes(thing: Thing) -> bool:
    """Whether its name is one of TensorFlow's, or it begins as a SavedModel does."""
    if thing.tensor:
        return False
    return thing.suffix in (".pb", ".meta", ".graphdef") or thing.head.startswith(b"\x08\x01\x12") or thing.name.endswith(".pbtxt")


def scan(thing: Thing, look: Look) -> bool:
    """Look at the operation of every node, in functions too, and at the Keras configurations in it. Whether it is a graph."""
    for at, document in documents(thing.extent):
        judge_document(document, thing, look, where=f"byte {at:,} ")
    if thing.name.endswith(".pbtxt"):
        text = (look.text(thing, _TEXT_BYTES) or b"").decode("utf-8", "replace")
        for found in _TEXT_NODE.finditer(text):
            name = _TEXT_ESCAPE.sub(lambda code: chr(int(code[1], 16) if code[1] else int(code[2], 8)), found[1])
            judge("".join(re.findall(r"\w+", name)), "", thing, look)
        return True
    named = thing.suffix in (".pb", ".meta", ".graphdef")
    try:
        message = Message(thing.extent, "graph", meter=look.budget.meter())
        if thing.name.startswith(("keras_metadata", "fingerprint")) or not (named or 2 in message):
            return False
        for count, (name, operation) in enumerate(_nodes(message, thing)):
            if count > _MOST_NODES:
                raise FormatError(thing.extent.name, f"more than {_MOST_NODES:,} nodes")
            judge(operation, name, thing, look)
    except FormatError as error:
        if named:
            look.stopped(thing.place, error.problem)
        _by_name(thing, look)
        return False
    return named


def judge(operation: str, node: str, thing: Thing, look: Look) -> None:
    """Tell what an operation does when the graph is run."""
    level: Severity = "dangerous"
    does = DANGEROUS.get(operation, "")
    if not does:
        level, does = "unknown", UNKNOWN.get(operation, "")
    if not does and operation.startswith("IO>"):
        does = "belongs to tensorflow-io, which reads from anywhere"
    if does:
        look.found(level, thing.at(f"node {node}" if node else ""), f"the operation {operation}, which {does}", "tensorflow-operation")


def _nodes(message: Message, thing: Thing) -> Iterator[tuple[str, str]]:
    """Name and operation of each node of whatever kind of graph this is."""
    kind = "saved" if thing.name.startswith("saved_model") or (1 in message and 2 in message and thing.suffix != ".meta") else ""
    if thing.suffix == ".meta":
        graph = message.message(2, "graph")
        yield from _graph(graph) if graph is not None else ()
    elif kind:
        try:
            metas = list(message.messages(2, "meta graph"))
        except FormatError:
            metas = []
        for meta in metas:
            graph = meta.message(2, "graph")
            yield from _graph(graph) if graph is not None else ()
    else:
        yield from _graph(message)


def _graph(graph: Message) -> Iterator[tuple[str, str]]:
    for node in graph.messages(1, "node"):
        yield node.text(1, "name of a node"), node.text(2, "operation")
    library = graph.message(2, "library")
    for function in library.messages(1, "function") if library is not None else ():
        for node in function.messages(3, "node of a function"):
            yield node.text(1, "name of a node"), node.text(2, "operation")


_NAMED: Final = re.compile(rb"\x12([\x04-\x20])(" + b"|".join(name.encode() for name in sorted(DANGEROUS, key=len, reverse=True)) + rb")")
_WINDOW_BYTES: Final = 4 << 20


def _by_name(thing: Thing, look: Look) -> None:
    """Operations as their bytes stand in a message that cannot be read as a whole."""
    for begin in range(0, thing.extent.nbytes, _WINDOW_BYTES):
        window = bytes(thing.extent.read(begin, min(begin + _WINDOW_BYTES + 64, thing.extent.nbytes)))
        for found in _NAMED.finditer(window):
            if found[1][0] == len(found[2]):
                judge(found[2].decode(), "", thing, look)

"""spaCy and thinc: the folder of a pipeline, whose components keep their weights in msgpack, and such a file alone.

A component's file is what thinc's `Model.to_bytes` gives: nodes, and in the same order the parameters of each. So a parameter's path is
the component, its node's number, and its name: `textcat.params.2.W`. No `config.cfg` is ever resolved, and no factory named in one called.

Source: https://github.com/explosion/thinc/blob/main/thinc/model.py (to_dict, to_bytes), https://github.com/explosion/srsly, msgpack_numpy.
"""

from typing import Any, Final

from tensorkeep.contents import Contents
from tensorkeep.dtypes import of_numpy, parse
from tensorkeep.errors import FormatError
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.tree import Tree
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.json import read_json
from tensorkeep.wire.msgpack import Unpacker
from tensorkeep.wire.sources import run_of

_NODES: Final = b"\xa5nodes"
_ARRAY: Final = {b"nd", b"type", b"kind", b"shape", b"data"}


class SpacyReader:
    """A pipeline's folder, or one component's file."""

    name = "spacy"

    def recognizes(self, peek: Peek) -> bool:
        if peek.is_folder:
            return "meta.json" in peek.files and "config.cfg" in peek.files
        return peek.head[:1] in (b"\x83", b"\x84") and peek.head[1 : 1 + len(_NODES)] == _NODES

    def read(self, peek: Peek) -> Contents:
        left_out: list[str] = []
        if not peek.is_folder:
            tree, names = _component(peek.data, peek, "", left_out)
            return contents(peek, format="thinc model", tree=tree, metadata={"nodes": names}, left_out=left_out)
        parts: dict[str, Tree] = {}
        metadata = {"meta": read_json(peek.sibling("meta.json"), object, "meta.json", limits=peek.limits)}
        for name in peek.files:
            folder, _, last = name.rpartition("/")
            if last in ("model", "model.bin") and folder and "/" not in folder:
                parts[folder], metadata[f"nodes of {folder}"] = _component(peek.sibling(name), peek, f"{folder}: ", left_out)
            elif last == "vectors" and folder == "vocab":
                left_out.append(f"{name}: word vectors, an array of np.save: open it by itself")
            elif name not in ("meta.json", "config.cfg"):
                left_out.append(f"{name}: no weights")
        return contents(peek, format="spaCy pipeline", tree=parts, metadata=metadata, left_out=left_out)


def _component(data: Extent, peek: Peek, where: str, left_out: list[str]) -> tuple[Tree, list[Any]]:
    """The parameters and attributes of one file, and the names of its nodes."""
    cursor = Cursor(data, order=">")
    unpacker = Unpacker(cursor, limits=peek.limits, binary=lambda extent: extent, extension=_extension)
    found = unpacker.value()
    if not isinstance(found, dict) or not {"nodes", "params"} <= found.keys() or cursor.left:
        raise FormatError(data.name, "no model of thinc: a map of nodes, attributes and parameters is wanted")
    nodes = found["nodes"] if isinstance(found["nodes"], list) else []
    if found.get("shims") and any(found["shims"]):
        left_out.append(f"{where}shims: models of other frameworks inside, as bytes of their own formats")
    names = [node.get("name") for node in nodes if isinstance(node, dict)]
    return {"params": _plain(found["params"], data)}, names


def _extension(kind: int, data: Extent) -> object:
    return f"extension {kind}: {data.nbytes:,} bytes"


def _plain(node: Any, data: Extent) -> Tree:
    """Arrays as tensors, byte strings as themselves. The depth is bounded where it was read."""
    if isinstance(node, dict):
        if node.keys() >= _ARRAY:
            return _array(node, data)
        return {key if isinstance(key, str) else str(key): _plain(value, data) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value, data) for value in node]
    return bytes(node.read()) if isinstance(node, Extent) else node


def _array(node: dict[Any, Any], data: Extent) -> LazyTensor:
    kind, shape, content = node[b"type"], node[b"shape"], node[b"data"]
    dtype = parse(kind) if isinstance(kind, str) else None
    dtype = None if dtype is None or dtype.numpy is None else of_numpy(dtype.memory or dtype.numpy)
    if dtype is None or not isinstance(content, Extent) or not isinstance(shape, list):
        raise FormatError(data.name, f"an array of the dtype {kind!r:.80}, which is not known")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise FormatError(data.name, f"an array of the shape {shape!r:.200}")
    return run_of(content, 0, spec_of(dtype, tuple(shape)), what="an array")

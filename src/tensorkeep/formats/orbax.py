"""Orbax: folders with a JSON tree of names, and each array as a Zarr array of its own, in files or in an OCDBT database.

A manager's folder holds steps: the newest is opened. A step may hold several items, each a tree or JSON. Older checkpoints have their
structure, and small arrays, in a MessagePack file beside the large ones. A folder of Zarr arrays by others reads too.

Lives here: which file means what. Lives elsewhere: Zarr (zarr_metadata, zarr_chunks), OCDBT (wire), MessagePack (flax_msgpack).

Source: https://orbax.readthedocs.io/en/latest/guides/checkpoint/checkpoint_format.html, and
https://github.com/google/orbax/tree/main/checkpoint/orbax/checkpoint/_src/metadata
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tensorkeep.contents import Contents
from tensorkeep.formats import assemble
from tensorkeep.formats.flax_msgpack import read_tree
from tensorkeep.formats.orbax_tree import Leaf, leaves_of, tree_of
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.zarr_chunks import array_of, missing
from tensorkeep.formats.zarr_metadata import V2, V3, ArrayMetadata, read_metadata
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Tree
from tensorkeep.wire import ocdbt
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.json import read_json

_TREE: Final = "_METADATA"
_STEP: Final = "_CHECKPOINT_METADATA"
_AGGREGATE: Final = "checkpoint"
_STRINGS: Final = "_strings.json"
_JSON_ITEM: Final = "metadata"  # the one file of an item that is JSON
_OF_ARRAYS: Final = "array_metadatas/"
_GROUP: Final = ".zgroup"
_MARKS: Final = frozenset({_TREE, _STEP, ocdbt.MANIFEST, V2, V3, _GROUP})
_UNFINISHED: Final = ".orbax-checkpoint-tmp"
_PROCESS: Final = "ocdbt.process_"
_STEP_NAME: Final = re.compile(r"(?:.*?[_-])?0*(\d{1,18})")
_VERSION_1: Final = "orbax.checkpoint.experimental.v1"  # whose `save` takes a tree, where others take items by name
_MOST_JSON_BYTES: Final = 32 << 20  # of a tree's description: some hundred for each leaf
_SHORT_JSON: Final = 4096  # bytes: of arrays whose metadata are looked up among those already read
_MOST_PARTS: Final = 100  # folders in a key
_OPEN_FILES: Final = 200  # data files that are held open; of more, each is opened where it is read


class OrbaxReader:
    """A folder that Orbax wrote: a manager's, a step's, or an item's; or one of Zarr arrays."""

    name = "Orbax checkpoint"

    def recognizes(self, peek: Peek) -> bool:
        if not peek.is_folder:
            return False
        return any(map(_marks, peek.files)) or (_AGGREGATE in peek.files and _is_map(peek))

    def read(self, peek: Peek) -> Contents:
        reading = _Reading(peek)
        base = reading.step()
        items = reading.items(base)
        trees = {item: reading.item(base + (f"{item}/" if item else "")) for item in items}
        alone = len(items) == 1 and (items[0] in ("", "default") or reading.one_tree)
        tree = trees[items[0]] if alone else trees
        orbax = any(file.rpartition("/")[2] in (_TREE, _STEP, _AGGREGATE) for file in peek.files)
        name = self.name if orbax else "OCDBT database" if f"{base}{ocdbt.MANIFEST}" in reading.files else "Zarr arrays"
        return assemble.contents(peek, format=name, tree=tree, metadata=reading.metadata, left_out=reading.left_out)


def _marks(file: str) -> bool:
    """Whether a file marks the folder: in it, in an item or array of it, or in an item of a step. Further down it marks another folder."""
    folder, _, name = file.rpartition("/")
    return name in _MARKS and (
        folder.count("/") == 0 or (folder.count("/") == 1 and _STEP_NAME.fullmatch(folder.split("/")[0]) is not None)
    )


@dataclass(slots=True)
class _Array:
    """The files of one array: its metadata, and its other keys below it."""

    metadata: Extent | None = None
    chunks: dict[str, Extent] = field(default_factory=dict)


class _Reading:
    def __init__(self, peek: Peek) -> None:
        self._peek = peek
        self.files = frozenset(peek.files)
        self.metadata: dict[str, Any] = {}
        self.left_out: list[str] = []
        self.one_tree = False  # whether the step was saved as one tree, and the name of its item is Orbax's own
        self._known: dict[bytes, ArrayMetadata | None] = {}
        self._opened: dict[str, Extent] = {}

    def _open(self, name: str) -> Extent:
        if name not in self._opened:
            self._opened[name] = self._peek.sibling(name, late=len(self._opened) >= _OPEN_FILES)
        return self._opened[name]

    def _json(self, name: str) -> Any:
        return read_json(self._open(name), object, name.rpartition("/")[2], limits=self._peek.limits, most_bytes=_MOST_JSON_BYTES)

    def step(self) -> str:
        """The folder of the newest step, "" where the folder that was named is itself a step or an item."""
        if any("/" not in file and file in _MARKS | {_AGGREGATE} for file in self.files):
            return ""
        marked = {file.split("/", 1)[0] for file in self.files if file.rpartition("/")[2] in _MARKS}
        steps = {}
        for folder in sorted(marked):
            match = _STEP_NAME.fullmatch(folder)
            if _UNFINISHED in folder:
                self.left_out.append(f"{folder}: a save that was not finished")
            elif match is not None:
                steps[int(match[1])] = folder
        if not steps:
            return ""
        newest = max(steps)
        self.metadata["step"] = newest
        others = [number for number in sorted(steps) if number != newest]
        if others:
            shown = ", ".join(map(str, others[-5:]))
            self.left_out.append(
                f"{len(others):,} older steps, such as {shown}: this is step {newest}; pass the folder of another to read it"
            )
        return f"{steps[newest]}/"

    def items(self, base: str) -> list[str]:
        """The items of a step, by their folders; [""] where the folder itself is the item."""
        below = [file.removeprefix(base) for file in self.files if file.startswith(base)]
        if any(file in (_TREE, ocdbt.MANIFEST, _AGGREGATE, V2, V3) for file in below):
            return [""]
        if f"{base}{_STEP}" in self.files:
            self._describe(base)
        marks = (_TREE, ocdbt.MANIFEST, _AGGREGATE, _JSON_ITEM)
        items = sorted({file.split("/", 1)[0] for file in below if file.count("/") == 1 and file.rpartition("/")[2] in marks})
        return items if items and f"{base}{_STEP}" in self.files else self._guessed(below, items)

    def _guessed(self, below: list[str], items: list[str]) -> list[str]:
        """The items of a step of an old release, which says nothing of itself; [""] for a folder of arrays."""
        trees = [
            item for item in items if f"{item}/{_TREE}" in below or f"{item}/{ocdbt.MANIFEST}" in below or f"{item}/{_AGGREGATE}" in below
        ]
        return items if trees else [""]

    def _describe(self, base: str) -> None:
        document = self._json(base + _STEP)
        if isinstance(document, dict):
            self.metadata |= {key: document[key] for key in ("metrics", "custom_metadata") if document.get(key)}
            handlers = document.get("item_handlers")
            self.one_tree = isinstance(handlers, dict) and _VERSION_1 in str(list(handlers.values()))

    def item(self, base: str) -> Tree:
        """What one item holds."""
        if f"{base}{_JSON_ITEM}" in self.files and not any(base + mark in self.files for mark in (_TREE, ocdbt.MANIFEST, _AGGREGATE)):
            return self._json(base + _JSON_ITEM)
        arrays = self._arrays(base)
        if f"{base}{_TREE}" in self.files:
            return self._described(base, arrays)
        if f"{base}{_AGGREGATE}" in self.files:
            tree = read_tree(self._peek, self._open(base + _AGGREGATE), self.left_out)
            return self._in_place(tree, arrays, "")
        return self._by_name(arrays)

    def _described(self, base: str, arrays: dict[str, _Array]) -> Tree:
        """The tree that `_METADATA` describes."""
        document = self._json(base + _TREE)
        leaves = leaves_of(document, self._peek.name, deepest=self._peek.limits.depth)
        complete = isinstance(document, dict) and document.get("store_array_data_equal_to_fill_value") is True
        strings = self._json(base + _STRINGS) if f"{base}{_STRINGS}" in self.files else {}
        if isinstance(document, dict) and document.get("custom_metadata"):
            self.metadata["custom_metadata"] = document["custom_metadata"]
        self._random_keys(base)
        values = {leaf.keys: self._value(leaf, arrays, strings, complete=complete) for leaf in leaves}
        others = sorted(arrays.keys() - {leaf.name for leaf in leaves})
        if others:
            self.left_out.append(f"{len(others):,} arrays that the tree does not name, such as {others[0]!r:.100}")
        return tree_of(leaves, values, self._peek.name)

    def _value(self, leaf: Leaf, arrays: dict[str, _Array], strings: Any, *, complete: bool) -> Tree:
        if leaf.empty is not None:
            return leaf.empty()
        if leaf.kind == "string" and isinstance(strings, dict) and isinstance(strings.get(leaf.name), str):
            return strings[leaf.name]
        array = arrays.get(leaf.name)
        if array is None or array.metadata is None:
            raise self._peek.error(f"the tree names {leaf.name!r:.200}, and its data are not there", hint="Fetch the whole folder again.")
        tensor = self._tensor(leaf.name, array, complete=complete)
        if leaf.kind == "scalar" and isinstance(tensor, LazyTensor) and tensor.shape == () and tensor.dtype.name[0] in "IUFB":
            return tensor.numpy()[()].item()
        return tensor

    def _tensor(self, name: str, array: _Array, *, complete: bool = False) -> Tree:
        assert array.metadata is not None, "asked before"
        metadata = self._metadata(array.metadata, name)
        if metadata is None:
            return None
        if complete and (lost := missing(metadata, array.chunks)):
            raise self._peek.error(f"{name}: {lost:,} of its chunks are not there", hint="Fetch the whole folder again.")
        return array_of(metadata, array.chunks, name, limits=self._peek.limits, verify=self._peek.verify)

    def _metadata(self, data: Extent, name: str) -> ArrayMetadata | None:
        """The metadata of an array. Models have few that differ, many times."""
        if data.nbytes > _SHORT_JSON:
            return read_metadata(data, name, self._peek.limits)
        written = bytes(data.read())
        if written not in self._known:
            self._known[written] = read_metadata(data, name, self._peek.limits)
        return self._known[written]

    def _in_place(self, node: Tree, arrays: dict[str, _Array], path: str) -> Tree:
        """A tree of an old release with its arrays in the places that are held for them."""
        if isinstance(node, dict):
            if (named := _named_by(node)) is not None:
                return self._held(named, arrays, path)
            return {key: self._in_place(child, arrays, f"{path}.{key}" if path else str(key)) for key, child in node.items()}
        if isinstance(node, list):
            return [self._in_place(child, arrays, f"{path}.{key}" if path else str(key)) for key, child in enumerate(node)]
        if not isinstance(node, str) or not node.startswith("PLACEHOLDER://"):
            return node
        return self._held(node.removeprefix("PLACEHOLDER://"), arrays, path)

    def _held(self, name: str, arrays: dict[str, _Array], path: str) -> Tree:
        """The array for which a place is held: one of those that were found, for a name in a file opens nothing."""
        array = arrays.get(name)
        if array is None or array.metadata is None:
            self.left_out.append(f"{path}: its place is held for an array, {name!r:.100}, that is not there")
            return None
        return self._tensor(path, array)

    def _by_name(self, arrays: dict[str, _Array]) -> Tree:
        """Arrays of which nobody says more than their keys."""
        tree: dict[str, Tree] = {}
        for name, array in arrays.items():
            if (tensor := None if array.metadata is None else self._tensor(name, array)) is None:
                continue
            if not name:
                return tensor
            tree[name.replace("/", ".")] = tensor
        if not tree:
            raise self._peek.error(
                "a folder of Zarr or Orbax without an array", hint="The data may not have been fetched, or the save not finished."
            )
        return tree

    def _arrays(self, base: str) -> dict[str, _Array]:
        """All arrays below a folder, by their keys."""
        if f"{base}{ocdbt.MANIFEST}" in self.files:
            found = ocdbt.read(self._open(base + ocdbt.MANIFEST), lambda name: self._open(base + name), budget=self._peek.budget)
            entries: Mapping[str, Extent | None] = {key.decode("utf-8", "backslashreplace"): value for key, value in found.items()}
        else:
            if any(file.startswith(f"{base}{_PROCESS}") for file in self.files):
                raise self._peek.error("its databases were never merged: the save was not finished", hint="Read an older step.")
            entries = dict.fromkeys(file.removeprefix(base) for file in sorted(self.files) if file.startswith(base))
        arrays = {key.rpartition("/")[0]: _Array() for key in entries if key.rpartition("/")[2] in (V2, V3)}
        for key, value in entries.items():
            name, _, last = key.rpartition("/")
            if last in (V2, V3):
                if arrays[name].metadata is not None:
                    raise self._peek.error(f"{name!r:.200} has metadata of two versions, and readers differ in which one counts")
                arrays[name].metadata = value or self._open(base + key)
            elif (owner := _owner(key, arrays)) is not None:
                below = key[len(owner) + 1 :] if owner else key
                arrays[owner].chunks[below] = value or self._peek.sibling(base + key, late=True)
        return arrays

    def _random_keys(self, base: str) -> None:
        """Which arrays are keys of random numbers: their bytes are read as they lie there."""
        kinds = {}
        for file in sorted(self.files):
            if file.startswith(base + _OF_ARRAYS):
                document = self._json(file)
                listed = document.get("array_metadatas") if isinstance(document, dict) else None
                for entry in listed if isinstance(listed, list) else ():
                    inside = entry.get("array_metadata") if isinstance(entry, dict) else None
                    more = inside.get("ext_metadata") if isinstance(inside, dict) else None
                    if isinstance(inside, dict) and isinstance(more, dict) and "random_key_impl" in more:
                        kinds[str(inside.get("param_name"))] = more["random_key_impl"]
        if kinds:
            self.metadata["random keys"] = kinds


def _named_by(node: dict[Any, Any]) -> str | None:
    """The folder that T5X means with the settings of an array for TensorStore; None for any other dict. Only its last part counts."""
    store = node.get("kvstore")
    path = store.get("path") if node.get("driver") in ("zarr", "zarr3") and isinstance(store, dict) else None
    return path.rstrip("/").rpartition("/")[2] if isinstance(path, str) else None


def _is_map(peek: Peek) -> bool:
    """Whether the file `checkpoint` is MessagePack, and not the text that TensorFlow has under this name."""
    data = peek.sibling(_AGGREGATE)
    return data.nbytes > 1 and (0x81 <= data.read(0, 1)[0] < 0x90 or data.read(0, 1)[0] in (0xDE, 0xDF))


def _owner(key: str, arrays: Mapping[str, _Array]) -> str | None:
    """The array whose chunk a key may be: the nearest above it."""
    name = key
    for _ in range(_MOST_PARTS):
        if not name:
            return None
        name = name.rpartition("/")[0]
        if name in arrays:
            return name
    return None

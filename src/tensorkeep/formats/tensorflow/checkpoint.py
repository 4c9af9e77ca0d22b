"""TensorFlow's checkpoints: which files belong together, by their prefix, by the `.index` file, or by the folder.

Lives here: the readers. Lives elsewhere: bundles of version 2 (bundle), tables of version 1 (slices).

Source: https://www.tensorflow.org/guide/checkpoint; `tensorflow/python/training/checkpoint_state.proto` for the file `checkpoint`,
`tensorflow/core/protobuf/trackable_object_graph.proto` for the object graph.
"""

import re
from typing import Any, Final

from tensorkeep.backends.files import MemoryFile
from tensorkeep.contents import Contents
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.tensorflow.bundle import Bundle, read_bundle
from tensorkeep.formats.tensorflow.slices import read_slices
from tensorkeep.wire.extent import Extent, Opened
from tensorkeep.wire.leveldb import entries, is_table
from tensorkeep.wire.protobuf import Message

INDEX: Final = ".index"
_STATE: Final = "checkpoint"  # the file that names the latest of a folder
_LATEST: Final = re.compile(rb'^\s*model_checkpoint_path\s*:\s*"([^"\\\n]{1,4000})"', re.MULTILINE)
_NUMBERED: Final = re.compile(r"(.*)-(\d{1,18})")  # a prefix and the step at which it was saved
_LONGEST_STATE: Final = 1 << 20


class TfCheckpointReader:
    """A `.index` file and its data files, or a checkpoint of version 1, which is one table."""

    name = "TensorFlow checkpoint"

    def recognizes(self, peek: Peek) -> bool:
        return not peek.is_folder and is_table(peek.data, peek.head)

    def read(self, peek: Peek) -> Contents:
        _, first = next(entries(peek.data, budget=peek.budget), (b"", None))
        if first is not None and _is_version_1(first):
            return assemble.contents(peek, format=self.name, tree=read_slices(peek, peek.data), version="1")
        return contents_of(peek, peek.data, peek.base.removesuffix(INDEX))


class TfCheckpointFolderReader:
    """A folder of checkpoints: opens the latest, as the file `checkpoint` names it, or the only one."""

    name = "TensorFlow checkpoint"

    def recognizes(self, peek: Peek) -> bool:
        return peek.is_folder and _chosen(peek) is not None

    def read(self, peek: Peek) -> Contents:
        prefix = _chosen(peek)
        assert prefix is not None, "recognizes() found one"
        others = [prefix_ for prefix_ in _prefixes(peek) if prefix_ != prefix]
        note = [f"{len(others):,} other checkpoints, such as {others[0]!r:.100}: this is {prefix!r:.100}"] if others else []
        return contents_of(peek, peek.sibling(prefix + INDEX), prefix, metadata={"checkpoint": prefix}, left_out=note)


def contents_of(
    peek: Peek, table: Extent, prefix: str, *, metadata: dict[str, Any] | None = None, left_out: list[str] | None = None
) -> Contents:
    bundle = read_bundle(peek, table, prefix)
    return assemble.contents(
        peek,
        format=TfCheckpointReader.name,
        tree=bundle.tree,
        metadata={**(metadata or {}), **names(bundle)},
        left_out=[*(left_out or ()), *bundle.left_out],
        version="2",
        checked=bundle.checked,
    )


def names(bundle: Bundle) -> dict[str, Any]:
    """What the object graph says of variables: for each key its name in the program that wrote it, where there is one."""
    if bundle.graph is None:
        return {}
    whole = Opened(MemoryFile(memoryview(bundle.graph), "the object graph")).whole()
    found: dict[str, str] = {}
    for node in Message(whole, "object graph").messages(1, "object"):
        for attribute in node.messages(2, "attribute of an object"):
            key, full = attribute.text(3, "key of a variable"), attribute.text(2, "name of a variable")
            if key in bundle.tree and full:
                found[key] = full
    return {"variable names": found} if found else {}


def _is_version_1(header: Extent) -> bool:
    """Whether a table begins with the list of a version 1: a message of messages, where version 2 has numbers."""
    return Message(header, "header of a checkpoint").packed(1) != []


def _prefixes(peek: Peek) -> list[str]:
    return [file.removesuffix(INDEX) for file in peek.files if file.endswith(INDEX) and "/" not in file]


def _chosen(peek: Peek) -> str | None:
    """The checkpoint of a folder that is meant; None if there is none, or several and nobody says which."""
    prefixes = _prefixes(peek)
    if _STATE in peek.files and prefixes:
        state = peek.sibling(_STATE)
        match = _LATEST.search(bytes(state.read(0, min(state.nbytes, _LONGEST_STATE))))
        if match is not None:  # of a path on the machine that wrote it, only the last part means something here
            latest = match[1].decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
            if latest in prefixes:
                return latest
    numbered = [(parts[1], int(parts[2]), prefix) for prefix in prefixes if (parts := _NUMBERED.fullmatch(prefix))]
    if len(numbered) == len(prefixes) and len({stem for stem, *_ in numbered}) == 1:
        return max(numbered)[2]
    return prefixes[0] if len(prefixes) == 1 else None

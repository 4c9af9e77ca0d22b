"""Keras 3: weights in several HDF5 files, which a `.weights.json` beside them names.

Source: https://github.com/keras-team/keras, `src/saving/saving_lib.py` (`ShardedH5IOStore`), version 3.15.
"""

from typing import Final

import msgspec

from tensorkeep.contents import Contents, Finding
from tensorkeep.formats import assemble
from tensorkeep.formats.hdf5 import Walk
from tensorkeep.formats.peek import Peek
from tensorkeep.tree import Tree
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.hdf5.file import find_signature
from tensorkeep.wire.json import read_json

_SUFFIX: Final = b".weights.h5"
_MOST_SHARDS: Final = 10_000


class _Index(msgspec.Struct):
    """In which files the variables of each layer are."""

    weight_map: dict[str, str | list[str]]
    metadata: dict[str, object] = {}


class KerasShardsReader:
    """Weights of Keras 3 in several HDF5 files, as one tree."""

    name = "Keras shards"

    def recognizes(self, peek: Peek) -> bool:
        return peek.head[:1] == b"{" and b'"weight_map"' in peek.head and _SUFFIX in peek.head

    def read(self, peek: Peek) -> Contents:
        found = Shards(peek.data, peek)
        return assemble.contents(
            peek,
            format="Keras 3 weights in shards",
            tree=found.tree,
            metadata=found.metadata,
            left_out=found.left_out,
            findings=found.findings,
        )


class Shards:
    """All files that an index names, put together.

    Args:
        index: the bytes of the index.
        peek: beside which the files lie.

    Attributes:
        files: their names.

    Raises:
        FormatError: the index or a file breaks its format, or a file lacks what the index says, or is not there.
    """

    def __init__(self, index: Extent, peek: Peek) -> None:
        document = read_json(index, _Index, "an index", limits=peek.limits)
        named: dict[str, list[str]] = {}  # of each file, which layers it has
        for layer, files in document.weight_map.items():
            for file in [files] if isinstance(files, str) else files:
                named.setdefault(file, []).append(layer)
        if not named or len(named) > _MOST_SHARDS:
            raise peek.error(f"its index names {len(named):,} files; from 1 to {_MOST_SHARDS:,} are read")
        self.files = list(named)
        self.metadata = {name: value for name, value in document.metadata.items() if isinstance(value, (str, int, float))}
        self.tree: dict[str, Tree] = {}
        self.left_out: list[str] = []
        self.findings: list[Finding] = []
        for file, layers in named.items():
            self._add(file, layers, peek)

    def _add(self, file: str, layers: list[str], peek: Peek) -> None:
        shard = peek.sibling(file)
        if find_signature(shard) is None:
            raise peek.error(f"it names {file!r:.200}, which is no HDF5 file")
        walk = Walk(peek, shard)
        for layer in layers:
            if _at(walk.tree, layer) is None:
                raise peek.error(f"{layer:.200} should be in {file!r:.200}, and is not", hint="Fetch the whole folder again.")
        _merge(self.tree, walk.tree, "", file, peek)
        self.left_out += walk.left_out()
        self.findings += walk.findings


def _at(tree: Tree, path: str) -> Tree:
    for key in path.strip("/").split("/"):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _merge(into: dict[str, Tree], tree: dict[str, Tree], path: str, file: str, peek: Peek) -> None:
    """Add the groups of one file to those of the files before it.

    Raises:
        FormatError: a data set stands in two files.
    """
    for key, child in tree.items():
        below = f"{path}/{key}" if path else key
        known = into.get(key)
        if isinstance(child, dict) and isinstance(known, dict | None):
            _merge(into.setdefault(key, {}), child, below, file, peek)
        elif key in into:
            raise peek.error(f"{below:.200} stands in {file!r:.200} and in another of its files")
        else:
            into[key] = child
    if all(key.isdigit() for key in into):
        ordered = sorted(into.items(), key=lambda item: int(item[0]))
        into.clear()
        into.update(ordered)

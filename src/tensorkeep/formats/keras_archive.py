"""Keras 3: models in `.keras` archives.

An archive is a zip with `config.json`, which says how the model would be built and is only shown here, `metadata.json`, the weights as
HDF5, and assets. Hubs keep the same files in a folder, where the weights may stand in shards.

Source: https://github.com/keras-team/keras, `src/saving/saving_lib.py`, version 3.15 (and 2.12 for `.npz` weights).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from tensorkeep import dtypes, strictjson
from tensorkeep.contents import Contents, Finding
from tensorkeep.formats import assemble
from tensorkeep.formats.hdf5 import Walk
from tensorkeep.formats.keras_shards import Shards
from tensorkeep.formats.npy import arrays_in
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.tree import Tree
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.inflate import at_hand
from tensorkeep.wire.sources import Run
from tensorkeep.wire.zip import ZipArchive

_CONFIG: Final = "config.json"
_METADATA: Final = "metadata.json"
_WEIGHTS: Final = "model.weights.h5"
_OLD_WEIGHTS: Final = "model.weights.npz"
_SHARDS: Final = "model.weights.json"
_MOST_DOCUMENT_BYTES: Final = 16 << 20  # of a JSON document: its values take twenty times as much in memory
_ASSETS: Final = "assets"
_VOCABULARY: Final = "vocabulary.txt"
_MOST_ASSET_BYTES: Final = 64 << 20
_MOST_NAMED: Final = 20  # assets that are told by name


class KerasArchiveReader:
    """`.keras`: the tree of its weights, layers and optimizer apart; the configuration as metadata."""

    name = "Keras archive"

    def recognizes(self, peek: Peek) -> bool:
        if peek.is_folder:
            return {_CONFIG, _METADATA} <= set(peek.files) and (_WEIGHTS in peek.files or _SHARDS in peek.files)
        return peek.zip is not None and _CONFIG in peek.zip and (_WEIGHTS in peek.zip or _OLD_WEIGHTS in peek.zip or _METADATA in peek.zip)

    def read(self, peek: Peek) -> Contents:
        archive = None if peek.is_folder else peek.zip
        names = peek.files if archive is None else list(archive)
        open_member = peek.sibling if archive is None else archive.open
        known: dict[str, Extent] = {}
        for name in (_METADATA, _CONFIG, _WEIGHTS, _OLD_WEIGHTS, *([_SHARDS] if peek.is_folder else [])):
            if name in names:
                known[name] = open_member(name)
        left_out: list[str] = []
        metadata: dict[str, Any] = {}
        findings = [Finding("unknown", "the zip archive", oddity) for oddity in archive.oddities] if archive is not None else []
        for name in (_METADATA, _CONFIG):
            if name not in known:
                continue
            document = self._document(known[name], peek, left_out)
            if document is None:
                findings.append(Finding("unknown", name, "a document that programs read in different ways, or not at all"))
                continue
            metadata.update(document if name == _METADATA else {"config": document})
        tree: Tree = {}
        shards: list[str] = []
        if _WEIGHTS in known:
            walk = Walk(peek, at_hand(known[_WEIGHTS]))
            tree = walk.tree
            metadata.update((name, value) for name, value in walk.metadata().items() if name not in metadata)
            findings += walk.findings
            left_out += walk.left_out()
        elif _SHARDS in known:
            joined = Shards(known[_SHARDS], peek)
            tree, shards = joined.tree, joined.files
            findings += joined.findings
            left_out += joined.left_out
        elif _OLD_WEIGHTS in known:
            tree = self._npz(known[_OLD_WEIGHTS], peek, left_out)
        assets = _assets(names, open_member, peek)
        known.update(assets)
        if assets:
            tree = {**tree, _ASSETS: {name.removeprefix(f"{_ASSETS}/"): _bytes_of(extent) for name, extent in assets.items()}}
        left_out += _others([name for name in names if name not in known and name not in shards])
        version = metadata.get("keras_version")
        return assemble.contents(
            peek,
            format="Keras archive",
            tree=tree,
            metadata=metadata,
            findings=findings,
            left_out=left_out,
            writer=f"Keras {version}" if isinstance(version, str) else "",
            checked=[extent for extent in known.values() if extent.checksum is not None],
        )

    def _document(self, extent: Extent, peek: Peek, left_out: list[str]) -> dict[str, Any] | None:
        """A member that is JSON; None where it is none, which is told."""
        name = extent.name.rpartition(": ")[2]
        if extent.nbytes > _MOST_DOCUMENT_BYTES:
            left_out.append(f"{name}: {extent.nbytes:,} bytes of JSON, at most {_MOST_DOCUMENT_BYTES:,} are read")
            return None
        text = bytes(extent.checked())
        try:
            return strictjson.decode(text, dict[str, object], deepest=peek.limits.depth)
        except (ValueError, msgspec.MsgspecError) as error:
            left_out.append(f"{name}: no JSON that all programs read alike: {error!s:.200}")
            return None

    def _npz(self, extent: Extent, peek: Peek, left_out: list[str]) -> Tree:
        """The weights of Keras 2.12: an archive in the archive, whose arrays hold dicts of arrays."""
        inner = ZipArchive(at_hand(extent), budget=peek.budget, limits=peek.limits)
        tree: dict[str, Tree] = {}
        for name in inner:
            if name.endswith(".npy"):
                key = name.removesuffix(".npy")
                tree[key] = next(arrays_in(inner.open(name), peek, key, left_out))
        return tree


def _assets(names: Iterable[str], open_member: Callable[[str], Extent], peek: Peek) -> dict[str, Extent]:
    """What stands beside the variables of layers: vocabularies, each a text."""
    wanted = [name for name in names if name.startswith(f"{_ASSETS}/") and name.endswith(f"/{_VOCABULARY}")]
    found = {name: open_member(name) for name in wanted[: peek.limits.values]}
    return {name: extent for name, extent in found.items() if extent.nbytes <= _MOST_ASSET_BYTES}


def _bytes_of(extent: Extent) -> LazyTensor:
    spec = spec_of(dtypes.STANDARD["U8"], (extent.nbytes,))
    inflated = at_hand(extent)
    return LazyTensor(spec, Run(inflated, 0, inflated.nbytes))


def _others(names: list[str]) -> Iterator[str]:
    """What else stands in an archive, told."""
    files = [name for name in names if not name.endswith("/")]
    yield from (
        f"{name:.200}: {'an asset' if name.startswith('assets/') else 'a file that Keras does not write'}" for name in files[:_MOST_NAMED]
    )
    if len(files) > _MOST_NAMED:
        yield f"{len(files) - _MOST_NAMED:,} more files of the archive"

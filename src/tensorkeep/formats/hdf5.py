"""HDF5: models and weights of Keras 1 and 2, tf.keras and Keras 3, and any other file of arrays.

Lives here: the tree of groups and data sets, and what Keras says in attributes. Lives elsewhere: the grammar (wire.hdf5), and the zip
archives and shards of Keras 3 (keras_archive, keras_shards).

Source of the names: https://github.com/keras-team/keras, `src/legacy/saving/legacy_h5_format.py` and `src/saving/saving_lib.py`, version
3.15; https://www.pytables.org/usersguide/file_format.html; MATLAB's and netCDF's files are HDF5 too.
"""

from typing import Any, Final

import ml_dtypes
import numpy as np

from tensorkeep import strictjson
from tensorkeep.contents import Contents, Finding
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.tree import Tree
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.hdf5.attributes import Texts, attributes, plain
from tensorkeep.wire.hdf5.datasets import LeftOut, dataset, tensor, text_block
from tensorkeep.wire.hdf5.file import DATATYPE, LAYOUT, Hdf5File, Object, find_signature
from tensorkeep.wire.hdf5.groups import Link, links
from tensorkeep.wire.inflate import at_hand

_DOCUMENTS: Final = ("model_config", "training_config")  # JSON, in attributes of the root
_ATTRIBUTES: Final = "attributes"  # where those of all but the root stand in the metadata
_MOST_DOCUMENT_BYTES: Final = 16 << 20  # of JSON: its values take twenty times as much in memory
_PATHS_A_BYTE: Final = 16  # bytes of paths for each byte of the file: a long name stands in the path of all that is below it
_KERAS_DTYPES: Final[dict[str, Any]] = {
    name: np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2") if hasattr(ml_dtypes, name)
}


class Hdf5Reader:
    """HDF5 of any version. Data sets that are not compressed stay where they lie, the others are made when they are touched."""

    name = "HDF5"

    def recognizes(self, peek: Peek) -> bool:
        return not peek.is_folder and find_signature(peek.data) is not None

    def read(self, peek: Peek) -> Contents:
        found = Walk(peek, at_hand(peek.data))
        metadata = found.metadata()
        return assemble.contents(
            peek,
            format=kind_of(found.tree, metadata),
            tree=found.tree,
            metadata=metadata,
            findings=found.findings,
            left_out=found.left_out(),
            version=str(found.file.version),
            writer=writer_of(metadata),
        )


def kind_of(tree: Tree, metadata: dict[str, Any]) -> str:
    """What a file is called: by the marks that its writers leave."""
    inner = metadata.get(_ATTRIBUTES, {}).get("model_weights", {})
    if "model_config" in metadata or ("model_weights" in tree and "keras_version" in inner):
        return "Keras HDF5 model"
    if "layer_names" in metadata:
        return "Keras HDF5 weights"
    if _has_vars(tree):
        return "Keras 3 weights"
    if "PYTABLES_FORMAT_VERSION" in metadata:
        return "PyTables HDF5"
    return "netCDF-4 (HDF5)" if "_NCProperties" in metadata else "HDF5"


def _has_vars(tree: Tree) -> bool:
    """Whether it is laid out as Keras 3 does: groups called `vars`, whose data sets are numbered."""
    groups = [tree, tree.get("optimizer")]
    return any(isinstance(group, dict) and isinstance(group.get("vars"), dict) and all(map(str.isdigit, group["vars"])) for group in groups)


def writer_of(metadata: dict[str, Any]) -> str:
    """Who wrote a file, if Keras did."""
    version = metadata.get("keras_version") or metadata.get(_ATTRIBUTES, {}).get("model_weights", {}).get("keras_version")
    backend = metadata.get("backend")
    return f"Keras {version}" + (f" ({backend})" if isinstance(backend, str) else "") if isinstance(version, str) else ""


class Walk:
    """One walk over all groups and data sets of a file.

    Args:
        peek: whose limits and budget hold.
        extent: the bytes of the file, which may lie inside of another.

    Attributes:
        file: what is walked.
        tree: groups as dicts, data sets as tensors and plain values.
        findings: what would open other files.
    """

    def __init__(self, peek: Peek, extent: Extent) -> None:
        self._peek = peek
        self.file = Hdf5File(extent, limits=peek.limits, budget=peek.budget)
        self.findings: list[Finding] = []
        self._texts = Texts(self.file)
        self._left_out: list[str] = []
        self._attributes_left_out: dict[str, int] = {}
        self._attributes: dict[str, dict[str, Any]] = {}
        self._groups: dict[int, str] = {self.file.root: "/"}  # where each was met first
        self._datasets: dict[int, Tree] = {}
        self._path_bytes, self._most_path_bytes = 0, peek.limits.path_bytes + _PATHS_A_BYTE * extent.nbytes
        root = self.file.object(self.file.root)
        self._root_attributes = attributes(self.file, root, self._texts, self._attributes_left_out)
        self.tree = self._group(root, "", 0)

    def metadata(self) -> dict[str, Any]:
        """The root's own attributes, with Keras's documents read, and under `attributes` those of all else, by path."""
        found = dict(self._root_attributes)
        for name in _DOCUMENTS:
            if isinstance(text := found.get(name), str):
                found[name] = self._document(name, text)
        if self._attributes:
            found[_ATTRIBUTES] = self._attributes
        return found

    def left_out(self) -> list[str]:
        return self._left_out + [f"{count:,} attributes: {reason}" for reason, count in self._attributes_left_out.items()]

    def _document(self, name: str, text: str) -> Any:
        """A configuration of Keras as data; nothing is built from it. What is no strict JSON stays text, and is told."""
        try:
            if len(text) > _MOST_DOCUMENT_BYTES:
                raise ValueError("too long")
            return strictjson.decode(text.encode(), dict[str, object], deepest=self._peek.limits.depth)
        except ValueError:
            self.findings.append(Finding("unknown", name, "a document that programs read in different ways, or not at all"))
            return text

    def _group(self, group: Object, path: str, depth: int) -> dict[str, Tree]:
        if depth > self._peek.limits.depth:
            raise self.file.error(f"{path:.200}: groups nested deeper than {self._peek.limits.depth}")
        found: dict[str, Tree] = {}
        for link in links(self.file, group):
            below = f"{path}/{link.name}" if path else link.name
            self._path_bytes += len(below)
            if self._path_bytes > self._most_path_bytes:
                raise self.file.error(f"its paths take more than {self._path_bytes:,} bytes together")
            try:
                self._follow(link, below, depth, found)
            except LeftOut as reason:
                self._left_out.append(f"{below:.200}: {reason.reason}")
                if reason.danger:
                    self.findings.append(Finding("dangerous", f"{below:.200}", reason.danger))
        return found

    def _follow(self, link: Link, path: str, depth: int, into: dict[str, Tree]) -> None:
        """What a name in a group stands for, put into the group's dict."""
        if link.kind == "external":
            raise LeftOut(
                f"a link to another file, {link.target!r:.200}, which is not opened", f"opens {link.target!r:.200} (HDF5 external link)"
            )
        if link.kind != "hard" or link.address is None:
            raise LeftOut(f"a link, {link.kind}, to {link.target!r:.200}")
        thing = self.file.object(link.address)
        if thing.first(LAYOUT) is not None:
            if link.address not in self._datasets:
                self._note(thing, path)
                self._datasets[link.address] = self._dataset(thing, path)
            into[link.name] = self._datasets[link.address]
        elif thing.first(DATATYPE) is not None:
            raise LeftOut("a type with a name, without data")
        elif link.address in self._groups:
            raise LeftOut(f"another name of the group {self._groups[link.address]:.200}")
        else:
            self._groups[link.address] = path
            self._note(thing, path)
            into[link.name] = self._group(thing, path, depth + 1)

    def _note(self, thing: Object, path: str) -> None:
        if found := attributes(self.file, thing, self._texts, self._attributes_left_out):
            self._attributes[path] = found

    def _dataset(self, thing: Object, path: str) -> Tree:
        found = dataset(self.file, thing)
        if found.shape.lengths is None:
            return None
        if found.kind.text and (found.kind.text == "variable" or found.shape.lengths == ()):
            return plain(found.kind, found.shape, text_block(self.file, found, path), self._texts)
        return tensor(self.file, found, path, numpy=self._dtype_of_keras(found.kind.opaque, found.kind.nbytes, path))

    def _dtype_of_keras(self, opaque: bool, nbytes: int, path: str) -> "np.dtype[Any] | None":
        """What Keras 3 names in an attribute, for HDF5 has no such type: its bytes are opaque there."""
        named = self._attributes.get(path, {}).get("dtype")
        if named is None and nbytes == 2 and not {"layer_names", "model_config"}.isdisjoint(self._root_attributes):
            named = "bfloat16"  # Keras's older layout names none, and of two bytes has no other that HDF5 lacks
        found = _KERAS_DTYPES.get(named) if opaque and isinstance(named, str) else None
        return found if found is not None and found.itemsize == nbytes else None

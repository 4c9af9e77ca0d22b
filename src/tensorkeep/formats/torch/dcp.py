"""PyTorch's distributed checkpoints: a folder with `.metadata` and the files of all ranks, each tensor in one or more chunks.

`.metadata` is a pickle: of every tensor its dtype, its shape and its chunks, and of every chunk the file and the bytes, which are a
`torch.save` of their own. A tensor is put together when it is read.

Source: `torch/distributed/checkpoint/{metadata,filesystem,planner_helpers,_nested_dict}.py`, PyTorch 2.13.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tensorkeep.contents import Contents
from tensorkeep.errors import shown
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.torch.chunks import Chunk, put_together
from tensorkeep.formats.torch.pickle import run_pickle
from tensorkeep.formats.torch.rebuild import Rebuilder, dtype_of
from tensorkeep.formats.torch.storage import Views, told
from tensorkeep.formats.torch.zip import read_archive
from tensorkeep.tree import Captured, Tree
from tensorkeep.unpickle.inert import Inert
from tensorkeep.wire.extent import Extent

METADATA: Final = ".metadata"
_HEAD: Final = memoryview(b"\x80")  # of a pickle; other programs have files of this name too
_MOST_METADATA_BYTES: Final = 2 << 30
_TENSOR: Final = "TensorStorageMetadata"
_BYTES: Final = "BytesStorageMetadata"
_MOST_LENGTHS: Final = 64


class TorchDcpReader:
    """A folder with a `.metadata` that is a pickle."""

    name = "torch distributed checkpoint"

    def recognizes(self, peek: Peek) -> bool:
        if not peek.is_folder or METADATA not in peek.files or peek.folder is None:
            return False
        file = peek.folder.open(METADATA)
        head = bytearray(min(_HEAD.nbytes, file.nbytes))
        file.read_into(0, memoryview(head))
        file.close()
        return head == _HEAD

    def read(self, peek: Peek) -> Contents:
        data = peek.sibling(METADATA)
        if data.nbytes > _MOST_METADATA_BYTES:
            raise peek.error(f"{METADATA} has {data.nbytes:,} bytes")
        value, _ = run_pickle(peek, data, Rebuilder(Views(peek.name, peek.limits)))
        checkpoint = _Checkpoint(peek, _attributes(value))
        tree, left_out = checkpoint.tree()
        return assemble.contents(
            peek,
            format="PyTorch distributed checkpoint",
            tree=tree,
            metadata={"files": sorted(checkpoint.files)},
            of_file=("files",),
            left_out=left_out,
            version=checkpoint.version,
        )


class _Place(NamedTuple):
    """Where a chunk is."""

    file: str
    start: int
    nbytes: int


class _Checkpoint:
    """What `.metadata` says."""

    def __init__(self, peek: Peek, said: dict[str, Any]) -> None:
        self.peek = peek
        self.files: dict[str, Extent] = {}
        entries, places = said.get("state_dict_metadata"), said.get("storage_data")
        if not isinstance(entries, dict) or not isinstance(places, dict):
            raise peek.error(f"{METADATA} has no list of tensors, or none of where they are")
        self.entries: dict[Any, Any] = entries
        self.places = dict(self._placed(places))
        planned = said.get("planner_data")
        self.paths: dict[Any, Any] = planned if isinstance(planned, dict) else {}
        version = said.get("version")
        self.version = version if isinstance(version, str) else ""

    def tree(self) -> tuple[Tree, list[str]]:
        """Everything at its place, and what was left out."""
        flat: dict[str, Tree] = {}
        left_out: list[str] = []
        for name, entry in self.entries.items():
            if type(name) is not str or type(entry) is not Inert:
                raise self.peek.error(f"{METADATA} lists {told(name)} as {told(entry)}")
            if entry.name == _TENSOR:
                flat[name] = self._tensor(name, _attributes(entry))
            elif entry.name == _BYTES:
                flat[name] = self._value(name)
            else:
                left_out.append(f"{shown(name)}: a {shown(entry.name)}, which is not known")
        return _unflattened(flat, self.paths), left_out

    def _placed(self, places: dict[Any, Any]) -> Iterator[tuple[str, _Place]]:
        """By name and offset, as a text, which is hashed with a secret."""
        for index, info in places.items():
            key, place = _attributes(index), _attributes(info)
            file, start, nbytes = place.get("relative_path"), place.get("offset"), place.get("length")
            if type(file) is not str or type(start) is not int or type(nbytes) is not int:
                raise self.peek.error(f"{METADATA} tells the place of {told(key.get('fqn'))} as file {told(file)}, byte {told(start)}")
            if place.get("transform_descriptors"):
                raise self.peek.error(
                    f"{file!r:.100} is compressed or changed by {told(place['transform_descriptors'])}, which is not read"
                )
            yield _key(key.get("fqn"), key.get("offset")), _Place(file, start, nbytes)

    def _extent(self, name: str, offset: Any) -> Extent:
        place = self.places.get(_key(name, offset))
        if place is None:
            raise self.peek.error(f"{shown(name)}: {METADATA} does not say where its part at {told(offset)} is")
        if place.file not in self.files:
            self.files[place.file] = self.peek.sibling(place.file)
        return self.files[place.file].part(place.start, place.start + place.nbytes, f"{self.peek.name}/{place.file}: {shown(name)}")

    def _value(self, name: str) -> Tree:
        """What is no tensor: a pickle of its own."""
        settled, _ = read_archive(self.peek.within(self._extent(name, None)))
        return settled.tree

    def _tensor(self, name: str, entry: dict[str, Any]) -> Tree:
        size, chunks = _lengths(entry.get("size")), entry.get("chunks")
        dtype = dtype_of(_first(entry.get("properties")))
        if dtype is None or size is None or type(chunks) is not list:
            raise self.peek.error(f"{shown(name)}: its dtype, size or chunks are none that are known")
        parts = []
        for chunk in chunks:
            said = _attributes(chunk)
            offsets, sizes = _lengths(said.get("offsets")), _lengths(said.get("sizes"))
            if offsets is None or sizes is None:
                raise self.peek.error(f"{shown(name)}: a chunk at {told(said.get('offsets'))} of size {told(said.get('sizes'))}")
            parts.append(Chunk(self.peek, name, self._extent(name, said.get("offsets")), dtype, offsets, sizes))
        return put_together(self.peek, name, dtype, size, parts)


def _attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object that the pickle would have made; {} for anything else."""
    states = value.states if type(value) is Inert else None
    return states[-1] if states and isinstance(states[-1], dict) else {}


def _first(properties: Any) -> Any:
    """The dtype in a tensor's properties, whose state is a tuple that begins with it."""
    states = properties.states if type(properties) is Inert else None
    if not states:
        return None
    return states[-1].get("dtype") if isinstance(states[-1], dict) else states[-1][0] if type(states[-1]) is tuple and states[-1] else None


def _lengths(value: Any) -> tuple[int, ...] | None:
    """A `torch.Size`, or a tuple or list of numbers."""
    numbers = value.state if type(value) is Captured else value
    if not isinstance(numbers, (list, tuple)) or len(numbers) > _MOST_LENGTHS:
        return None
    return tuple(numbers) if all(type(number) is int and 0 <= number < 1 << 63 for number in numbers) else None


def _key(name: Any, offset: Any) -> str:
    lengths = _lengths(offset)
    return f"{lengths if lengths is not None else ''}\0{name if type(name) is str else ''}"


def _unflattened(flat: dict[str, Tree], paths: dict[Any, Any]) -> Tree:
    """The state as it was before the planner flattened it, where `.metadata` says how it was; else flat."""
    made: dict[Any, Any] = {}
    for name, value in flat.items():
        path = paths.get(name)
        if type(path) is not tuple or not path or len(path) > _MOST_LENGTHS or not all(type(key) in (str, int) for key in path):
            path = (name,)
        node = made
        for key in path[:-1]:
            inside = node.setdefault(key, {})
            if type(inside) is not dict:  # a value stands there already
                return dict(flat)
            node = inside
        if path[-1] in node:
            return dict(flat)
        node[path[-1]] = value
    return _listed(made)


def _listed(node: Any) -> Any:
    """Dicts whose keys count from 0 were lists."""
    if type(node) is not dict:
        return node
    items = {key: _listed(value) for key, value in node.items()}
    numbered = bool(items) and all(type(key) is int for key in items) and set(items) == set(range(len(items)))
    return [items[number] for number in range(len(items))] if numbered else items

"""Folders: a model in several safetensors files with an index, as Hugging Face writes it, or in one; opened as one model.

Lives here: which files belong together, and a storage over all of them. Lives elsewhere: each file (read, storage), the index
(formats.shard_index).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, TypeVar, cast

from tensorkeep.contents import Contents, Passing, Placement, Storage, Tensors
from tensorkeep.errors import shown
from tensorkeep.formats import shard_index
from tensorkeep.formats.peek import Peek
from tensorkeep.modelfile.read import read_contents
from tensorkeep.modelfile.storage import FileBytes
from tensorkeep.progress import Progress, part_of
from tensorkeep.tensors import LazyTensor
from tensorkeep.wire.extent import Extent

_INDEX: Final = f"model{shard_index.SAFETENSORS}{shard_index.SUFFIX}"
_WHOLE: Final = f"model{shard_index.SAFETENSORS}"

Item = TypeVar("Item")


def read_folder(peek: Peek) -> Contents | None:
    """The model in a folder; None where it holds none in safetensors files, or several.

    Raises:
        FormatError: files are missing, or disagree with their index.
    """
    top = [name for name in peek.files if "/" not in name]
    indexes = [name for name in top if name.endswith(f"{shard_index.SAFETENSORS}{shard_index.SUFFIX}")]
    if indexes and (len(indexes) == 1 or _INDEX in indexes):
        return read_sharded(peek, peek.sibling(_INDEX if _INDEX in indexes else indexes[0]))
    return _shard(peek, _WHOLE) if _WHOLE in top else None


def read_lone(peek: Peek) -> Contents | None:
    """The one safetensors file of a folder, whatever its name; None where it has none or several."""
    lone = [name for name in peek.files if "/" not in name and name.endswith(shard_index.SAFETENSORS)]
    return _shard(peek, lone[0]) if len(lone) == 1 else None


def read_sharded(peek: Peek, index: Extent) -> Contents:
    """All files that an index names, as one model.

    Raises:
        FormatError: a file is missing, or a tensor is not where the index says, or in two files.
    """
    weight_map, metadata = shard_index.read_index(index, peek.limits)
    index.opened.close()
    shards = {file: _shard(peek, file) for file in dict.fromkeys(weight_map.values())}
    found = Tensors()
    for path, file in weight_map.items():
        if path not in shards[file].tensors:
            raise peek.error(f"{shown(path)} is said to be in {file!r:.100}, and is not there", hint="Fetch the whole folder again.")
        found[path] = shards[file].tensors[path]
    left_out = []
    for file, shard in shards.items():
        spare = [path for path in shard.tensors if weight_map.get(path) != file]
        twice = [path for path in spare if path in weight_map]
        if twice:
            raise peek.error(f"{shown(twice[0])} is in {file!r:.100} and in {weight_map[twice[0]]!r:.100}")
        left_out += [f"{file}: {len(spare):,} tensors that the index does not name, such as {shown(spare[0])}"] if spare else []
    tree = dict(found)
    found.tree = tree
    return Contents(
        peek.name,
        "tensorkeep model files" if all(shard.digests for shard in shards.values()) else "safetensors",
        tree,
        found,
        FolderStorage(shards),
        metadata | {"files": list(shards)},
        sum(shard.nbytes for shard in shards.values()),
        digests=all(shard.digests for shard in shards.values()),
        left_out=tuple(left_out),
        of_file=("files", "total_size"),
    )


def _shard(peek: Peek, file: str) -> Contents:
    return read_contents(peek.sibling(file).opened.file, verify=peek.verify, mmap=peek.mmap, limits=peek.limits)


class FolderStorage:
    """The storages of several files as one.

    Args:
        shards: the contents of each, by the name of the file.
    """

    def __init__(self, shards: Mapping[str, Contents]) -> None:
        self._storages = {file: shard.storage for file, shard in shards.items()}
        self._sizes = {file: sum(tensor.nbytes for tensor in shard.tensors.values()) for file, shard in shards.items()}

    def identity(self) -> object:
        return tuple(storage.identity() for storage in self._storages.values())

    def close(self) -> None:
        for storage in self._storages.values():
            storage.close()

    def check(self, tensors: Collection[LazyTensor], progress: Progress | None) -> None:
        total, done = sum(tensor.nbytes for tensor in tensors), 0
        for storage, mine in _grouped(tensors, lambda tensor: tensor):
            storage.check(mine, part_of(progress, done, total))
            done += sum(tensor.nbytes for tensor in mine)

    def in_passing(self, tensors: Collection[LazyTensor]) -> Passing:
        return Passing()

    def place(self, tensors: Sequence[LazyTensor], progress: Progress | None) -> Placement:
        total, done = sum(tensor.nbytes for tensor in tensors), 0
        placements: dict[int, Placement] = {}
        for storage, mine in _grouped(tensors, lambda tensor: tensor):
            placements[id(storage)] = storage.place(mine, part_of(progress, done, total))
            done += sum(tensor.nbytes for tensor in mine)
        return lambda tensor: placements[id(_storage_of(tensor))](tensor)

    def fill(self, pairs: Sequence[tuple[LazyTensor, memoryview]], progress: Progress | None) -> None:
        total, done = sum(memory.nbytes for _, memory in pairs), 0
        for storage, mine in _grouped(pairs, lambda pair: pair[0]):
            storage.fill(mine, part_of(progress, done, total))
            done += sum(memory.nbytes for _, memory in mine)

    def survey(self, progress: Progress | None) -> list[tuple[str, int, int]]:
        damaged: list[tuple[str, int, int]] = []
        done, total = 0, sum(self._sizes.values())
        for file, storage in self._storages.items():
            damaged += [(f"{file}: {path}", start, stop) for path, start, stop in storage.survey(part_of(progress, done, total))]
            done += self._sizes[file]
        return damaged


def _storage_of(tensor: LazyTensor) -> Storage:
    return cast(FileBytes, tensor.source).storage


def _grouped(items: Iterable[Item], tensor_of: Callable[[Item], LazyTensor]) -> list[tuple[Storage, list[Item]]]:
    """Items by the storage that their tensor is in."""
    groups: dict[int, tuple[Storage, list[Item]]] = {}
    for item in items:
        storage = _storage_of(tensor_of(item))
        groups.setdefault(id(storage), (storage, []))[1].append(item)
    return list(groups.values())

"""Checkpoints in several files of `torch.save`, as Hugging Face writes them: `pytorch_model.bin.index.json` and the files that it names.

Source: `save_torch_state_dict` of https://github.com/huggingface/huggingface_hub.
"""

from collections import OrderedDict
from typing import Any, Final

from tensorkeep.contents import Contents, Finding
from tensorkeep.errors import shown
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.shard_index import SAFETENSORS, SUFFIX, is_index, is_of_safetensors, read_index
from tensorkeep.formats.torch import legacy
from tensorkeep.formats.torch.zip import read_archive
from tensorkeep.tree import Tree, name_of
from tensorkeep.wire.extent import Extent

_WHOLE: Final = "pytorch_model.bin"
_USUAL: Final = "pytorch_model.bin.index.json"


class TorchShardedReader:
    """A folder with such an index or with one `pytorch_model.bin`, or the index itself."""

    name = "torch sharded"

    def recognizes(self, peek: Peek) -> bool:
        if peek.is_folder:
            return _index_of(peek) is not None or _WHOLE in peek.files
        return is_index(peek) and not is_of_safetensors(peek)

    def read(self, peek: Peek) -> Contents:
        name = _index_of(peek) if peek.is_folder else peek.base
        if name is None:
            return _contents(peek, {_WHOLE: (shard := _Shard(peek, _WHOLE))}, shard.state, {})
        weight_map, metadata = read_index(peek.sibling(name) if peek.is_folder else peek.data, peek.limits)
        states = {file: _Shard(peek, file) for file in dict.fromkeys(weight_map.values())}
        tree: OrderedDict[str, Tree] = OrderedDict()
        for path, file in weight_map.items():
            if path not in states[file].state:
                raise peek.error(f"{shown(path)} is said to be in {file!r:.100}, and is not there")
            tree[path] = states[file].state[path]
        return _contents(peek, states, tree, metadata)


def _contents(peek: Peek, shards: "dict[str, _Shard]", tree: dict[Any, Tree], metadata: dict[str, Any]) -> Contents:
    return assemble.contents(
        peek,
        format="PyTorch checkpoint",
        tree=tree,
        metadata=metadata | {"shards": list(shards)},
        of_file=("shards", "total_size"),
        findings=[finding for shard in shards.values() for finding in shard.findings],
        left_out=[note for shard in shards.values() for note in shard.left_out(tree)],
        checked=[extent for shard in shards.values() for extent in shard.checked],
        views_unchecked=True,
    )


class _Shard:
    """One of the files."""

    def __init__(self, peek: Peek, file: str) -> None:
        self.file = file
        inner = peek.within(peek.sibling(file))
        self.findings: list[Finding] = []
        self.checked: list[Extent] = []
        if legacy.begins(inner.head):
            settled, _ = legacy.read_stream(inner, inner.data)
        else:
            settled, archive = read_archive(inner)
            self.findings = archive.findings()
            self.checked = list(archive.checked())
        if not isinstance(settled.tree, dict):
            raise peek.error(f"{file!r:.100} holds no state dict")
        self.state: dict[Any, Tree] = settled.tree
        self._notes = settled.left_out

    def left_out(self, tree: Tree) -> list[str]:
        """What it holds beside what the index names."""
        spare = [name_of(name) for name in self.state if name not in tree]
        notes = [f"{self.file}: {note}" for note in self._notes]
        return notes + ([f"{self.file}: {len(spare):,} entries that the index does not name, such as {shown(spare[0])}"] if spare else [])


def _index_of(peek: Peek) -> str | None:
    """The index in a folder, where there is one and no other."""
    found = [name for name in peek.files if name.endswith(SUFFIX) and SAFETENSORS not in name and ".bin" in name and "/" not in name]
    return _USUAL if _USUAL in found else found[0] if len(found) == 1 else None

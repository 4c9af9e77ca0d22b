"""Writing the folder of a model that its own library keeps in one: its config as the library writes it, its weights as model files.

Lives here: which files the folder gets, and that they appear together. Lives elsewhere: what the library wants in it (frameworks), how
a folder is replaced (backends).
"""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

from tensorkeep.backends.inside import Folder
from tensorkeep.backends.local import ReadFile
from tensorkeep.backends.new_folder import NewFolder
from tensorkeep.backends.replaced_folder import replacing_folder
from tensorkeep.formats.safetensors_write import in_shards, index_file, shard_bytes, text_file
from tensorkeep.formats.writing import OutFile
from tensorkeep.frameworks.pretrained import Pretrained
from tensorkeep.limits import Limits
from tensorkeep.modelfile.layout import lay_out_state
from tensorkeep.modelfile.read import read_contents
from tensorkeep.modelfile.write import write_at_offsets
from tensorkeep.progress import Progress, part_of
from tensorkeep.tensors import LazyTensor

_SUFFIX: Final = ".safetensors"
_REPLACED: Final = re.compile(r"(?:model|adapter_model)(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index\.json)?")
"""What an earlier save left at the top of the folder, and this one would be mixed up with."""


def save_folder(
    kept: Pretrained,
    path: str,
    *,
    metadata: Mapping[str, Any],
    durable: bool,
    overwrite: bool,
    limits: Limits,
    progress: Progress | None,
) -> None:
    """Write a folder that `from_pretrained` reads, and every file of weights with the digests of its bytes.

    Args:
        kept: what goes into it.
        path: of the folder.
        metadata: notes for each file of weights.
        durable, overwrite, limits, progress: as for `tensorkeep.save`.

    Raises:
        UnsupportedError: it would hold what a model file cannot.
        OSError: the disk is full, or the folder cannot be replaced. What was there is as it was.
    """
    files: list[OutFile] = []
    if kept.tensors is not None:  # before there is a folder: whatever cannot be kept is told now
        shards = in_shards(kept.tensors, shard_bytes(kept.shard_size))
        files = [_file(name, shard, metadata, limits) for name, shard in shards.items()]
        files += [index_file(shards, **kept.numbers)] if len(shards) > 1 else []
    with ExitStack() as stack:
        drop = _REPLACED.fullmatch
        folder = stack.enter_context(replacing_folder(path, drop=lambda name: drop(name) is not None, durable=durable, overwrite=overwrite))
        scratch = stack.enter_context(folder.scratch())
        kept.write(scratch)
        for name in Folder(scratch).files():
            files.append(_written(scratch, name, kept.framework, metadata, limits, stack))
        _write(files, folder, progress)


def _file(name: str, tensors: Mapping[str, LazyTensor], metadata: Mapping[str, Any], limits: Limits) -> OutFile:
    layout = lay_out_state(dict(tensors), metadata, limits)
    return OutFile(layout.nbytes, lambda sink, progress: write_at_offsets(layout, sink, progress), name)


def _written(scratch: str, name: str, framework: str, metadata: Mapping[str, Any], limits: Limits, stack: ExitStack) -> OutFile:
    """A file that the library wrote: weights become a model file, all else stays as it is."""
    file = ReadFile(f"{scratch}/{name}")
    stack.callback(file.close)
    if name.endswith(_SUFFIX):
        contents = read_contents(file, verify=False, mmap=False, limits=limits)
        weights = {path: LazyTensor(tensor.spec, tensor.source, framework) for path, tensor in contents.tensors.items()}
        return _file(name, weights, {**contents.metadata, **metadata}, limits)
    text = bytearray(file.nbytes)
    file.read_into(0, memoryview(text))
    return text_file(name, bytes(text))


def _write(files: list[OutFile], folder: NewFolder, progress: Progress | None) -> None:
    total, done = sum(file.nbytes for file in files), 0
    for file in files:
        with folder.file(file.name, nbytes=file.nbytes) as pending:
            file.write(pending, part_of(progress, done, total))
        done += file.nbytes
    if progress is not None:
        progress(total, total)

"""convert: any readable model file into another format, bit for bit unless told otherwise."""

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import BinaryIO, Final

from tensorkeep import dtypes
from tensorkeep.backends import local, object_store
from tensorkeep.backends.files import Sink
from tensorkeep.backends.new_folder import new_folder, refuse_taken
from tensorkeep.backends.url_writing import staged
from tensorkeep.contents import Contents, Passing
from tensorkeep.dtypes import DType
from tensorkeep.formats import writers
from tensorkeep.formats.carried import Carried, carry
from tensorkeep.formats.protocols import Writer
from tensorkeep.formats.safetensors_write import SafetensorsWriter, shard_bytes
from tensorkeep.formats.writing import OutFile, Plan
from tensorkeep.limits import Limits, limits_of
from tensorkeep.modelfile.writer import ModelFileWriter
from tensorkeep.opening import open_contents
from tensorkeep.progress import Progress, part_of
from tensorkeep.selection import Only, Rename
from tensorkeep.transposing import Transpose
from tensorkeep.verbs.alike import together
from tensorkeep.verbs.show import Value

MODEL: Final = "model"  # the name of our own format for `to=`
NAMES: Final = (MODEL, *(row.name for row in writers.ROWS))
CASTS: Final = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}


@dataclass(frozen=True, slots=True)
class CastTensor:
    """One tensor that changed its dtype.

    Attributes:
        path: of the target.
        source, target: the two dtypes.
        changed: values that are others now, of `count`.
        overflowed: of these, finite ones that became infinite, or no number.
        count: elements of the tensor.
    """

    path: str
    source: str
    target: str
    changed: int
    overflowed: int
    count: int


@dataclass(frozen=True, slots=True)
class Conversion:
    """What `convert` did, or would do.

    Attributes:
        source, target: both files as they were named.
        source_format, target_format: what they are.
        files: the names of the files that the target consists of.
        tensors: how many names of tensors the target has; tied ones count each.
        nbytes: of all files of the target together.
        casts: tensors that changed their dtype, with how many values that changed.
        renamed: paths of the source, and what became of them.
        objects: objects that the source names, those alike together, with their classes. A dict of what they hold is carried over.
        left_out: what was not carried over, alike things together: path, how many, and why.
        notes: what is kept in another way than it was, a sentence each.
        dry_run: whether nothing was written.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"w": np.ones(3, np.float32), "epoch": 3}, "run.safetensors")
        >>> done = tk.convert("run.safetensors", "run.npz")
        >>> done.tensors, [(value.path, value.text) for value in done.left_out]
        (1, [('epoch', 'a plain value: .npz holds tensors alone')])
    """

    source: str
    target: str
    source_format: str
    target_format: str
    files: tuple[str, ...]
    tensors: int
    nbytes: int
    casts: tuple[CastTensor, ...]
    renamed: tuple[tuple[str, str], ...]
    objects: tuple[Value, ...]
    left_out: tuple[Value, ...]
    notes: tuple[str, ...]
    dry_run: bool


def convert(
    src: "str | PathLike[str] | BinaryIO",
    dst: "str | PathLike[str]",
    *,
    to: str | None = None,
    only: Only | None = None,
    rename: Rename | None = None,
    transpose: Transpose | None = None,
    dtype: str | None = None,
    dequantize: bool = False,
    max_shard_size: int | str | None = None,
    dry_run: bool = False,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a model file into another format. Nothing in it is run, and no framework is needed.

    The bytes of tensors stay as they are unless `dtype` or `dequantize` ask for others. They are streamed: memory does not grow with
    the model. The target appears whole or not at all; until then an old file of that name stays as it was.

    Args:
        src: any file, or folder, that `load` reads.
        dst: where to. Its suffix says the format: `.safetensors` (a model file, with the whole tree), `.npz`, `.pt`, `.h5`, `.gguf`.
            What goes to `s3://bucket/key`, `gs://` or `az://` is put together in a temporary file of this machine first.
        to: the format, whatever the suffix: `model`, `safetensors` (plain, without our metadata), `npz`, `pt`, `h5`, `gguf`.
        only: a glob over the source's paths (`*` crosses dots), or a callable; nothing else is read.
        rename: from the source's paths to the target's: a mapping, pairs of patterns (`("module.*", "*")`), or a callable.
        transpose: kernels in the order of another framework, as for `load`: such as `torch->keras`, or `{"*kernel": (1, 0)}`.
        dtype: `bf16`, `fp16` or `fp32`: cast all tensors of real floating-point numbers, rounding to nearest even. It is counted.
        dequantize: write tensors in blocks of quantized numbers as F32.
        max_shard_size: bytes, or a text such as `5GB`: write plain safetensors into a new folder, in files of at most so many bytes of
            tensors, with the index that Hugging Face's tools read.
        dry_run: write nothing, and report the same.
        limits: bounds on what the source may ask for.
        progress: called with the bytes done and in all.

    Returns:
        Conversion: what was written, what changed, and what was not carried over.

    Raises:
        UnsupportedError: a tensor that the target cannot hold. Nothing was written.
        FormatError: no file that tensorkeep reads.
        CorruptError: bytes are not those that were written.
        FileExistsError: a folder is wanted for shards, and something is there.
        ValueError: a format, dtype or size that there is not, or `only` or `transpose` takes nothing.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"w": np.ones((2, 3), np.float32)}, "model.safetensors")
        >>> tk.convert("model.safetensors", "model.npz").tensors
        1
        >>> np.load("model.npz")["w"].shape
        (2, 3)
    """
    limits = limits_of(limits)
    target = object_store.local_name(os.fsdecode(dst))
    if not object_store.is_cloud(target):
        local.refuse_url(target)
    writer = _writer(target, to, max_shard_size)
    with open_contents(src, mmap=False, limits=limits) as contents:
        carried = carry(contents, only=only, rename=rename, transpose=transpose, dtype=_dtype(dtype), dequantize=dequantize)
        plan = writer.plan(carried, limits=limits)
        if plan.folder and object_store.is_cloud(target):
            raise OSError(errno.ENOTSUP, "a folder is written on this machine alone: convert into one, and copy it", target)
        if plan.folder:
            refuse_taken(target)
        steps = _Steps(plan.files, contents.storage.in_passing(carried.sources), progress)
        _write(plan, target, steps, dry_run=dry_run)
        return _told(contents, target, carried, plan, dry_run=dry_run)


def _writer(target: str, to: str | None, max_shard_size: int | str | None) -> Writer:
    if max_shard_size is not None:
        if to not in (None, "safetensors"):
            raise ValueError(f"max_shard_size= is for safetensors; {to!r:.40} has no shards")
        return SafetensorsWriter(shard_bytes(max_shard_size))
    suffix_says = MODEL if target.lower().endswith(".safetensors") else writers.name_of(target)
    name = to or suffix_says
    if name == MODEL:
        return ModelFileWriter()
    writer = writers.named(name)
    if writer is None:
        found = f"to={to!r:.40}" if to else f"the name {target!r:.200}"
        raise ValueError(f"{found} says no format that is written; there are {', '.join(NAMES)}, or pass a name that ends on .safetensors")
    return writer


def _dtype(name: str | None) -> DType | None:
    if name is None:
        return None
    if name not in CASTS:
        raise ValueError(f"dtype={name!r:.40}: there are {', '.join(CASTS)}")
    return dtypes.STANDARD[CASTS[name]]


def _write(plan: Plan, target: str, steps: "_Steps", *, dry_run: bool) -> None:
    """The source's checksums are compared before the target appears."""
    if dry_run:
        for file in plan.files:
            steps.write(file, _Nowhere())
        steps.compare()
    elif plan.folder:
        with new_folder(target) as folder:
            for file in plan.files:
                with folder.file(file.name, nbytes=file.nbytes) as pending:
                    steps.write(file, pending)
            steps.compare()
    else:
        (file,) = plan.files
        place = staged if object_store.is_cloud(target) else local.replacing
        with place(target, nbytes=file.nbytes) as sink:
            steps.write(file, sink)
            steps.compare()


class _Nowhere:
    """A sink for a dry run: all is read and cast, and nothing written."""

    def write(self, offset: int, parts: Sequence[memoryview]) -> None: ...


class _Steps:
    """Progress over writing several files, and over what is read beside that to compare checksums of the source, as one."""

    def __init__(self, files: Iterable[OutFile], passing: Passing, progress: Progress | None) -> None:
        self._passing, self._progress, self._before = passing, progress, 0
        self._whole = sum(file.nbytes for file in files) + passing.rest_nbytes

    def write(self, file: OutFile, sink: Sink) -> None:
        file.write(sink, part_of(self._progress, self._before, self._whole))
        self._before += file.nbytes
        if self._progress is not None:  # with what is no tensor: headers, directories
            self._progress(self._before, self._whole)

    def compare(self) -> None:
        self._passing.finish(part_of(self._progress, self._before, self._whole))


def _told(contents: Contents, target: str, carried: Carried, plan: Plan, *, dry_run: bool) -> Conversion:
    casts = [
        CastTensor(path, str(cast.tensor.dtype), str(cast.target), cast.changed, cast.overflowed, cast.tensor.spec.count)
        for path, cast in carried.casts.items()
    ]
    left_out = [*((path, why) for path, why in carried.left_out), *(("", sentence) for sentence in contents.left_out)]
    return Conversion(
        source=contents.file,
        target=target,
        source_format=contents.format,
        target_format=plan.format,
        files=tuple(file.name or os.path.basename(target) for file in plan.files),
        tensors=len(carried.tensors),
        nbytes=sum(file.nbytes for file in plan.files),
        casts=tuple(casts),
        renamed=tuple(carried.renamed),
        objects=tuple(Value(path, count, text) for path, count, text in together(carried.objects)),
        left_out=tuple(Value(path, count, text) for path, count, text in together(left_out)),
        notes=tuple(carried.notes),
        dry_run=dry_run,
    )

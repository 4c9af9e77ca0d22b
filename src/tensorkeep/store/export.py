"""Exporting: a checkpoint, or a part of it, as a model file. Tensors are streamed: memory does not grow with the model."""

import os
from dataclasses import dataclass
from os import PathLike
from typing import Final

from tensorkeep import dtypes
from tensorkeep.backends import local, object_store
from tensorkeep.backends.url_writing import staged
from tensorkeep.contents import Contents
from tensorkeep.errors import TensorkeepWarning, shown, warn
from tensorkeep.formats import writers
from tensorkeep.formats.carried import carry
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.modelfile.writer import ModelFileWriter
from tensorkeep.progress import Progress
from tensorkeep.selection import Only
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.checkpoint import open_checkpoint
from tensorkeep.store.commit import Writer
from tensorkeep.store.holding import held
from tensorkeep.store.known import Known
from tensorkeep.store.names import Ref

CASTS: Final = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported.

    Attributes:
        file: the model file.
        step: of the checkpoint.
        tensors, nbytes: how many, and the size of the file.
        changed: values that a cast changed; 0 without one.
    """

    file: str
    step: int
    tensors: int
    nbytes: int
    changed: int


def export(
    catalog: Catalog,
    ref: "str | int | Ref",
    path: "str | PathLike[str]",
    *,
    only: Only | None = None,
    dtype: str | None = None,
    writer: Writer | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Exported:
    """Write a checkpoint as a model file, with what the store says of it as metadata.

    Args:
        catalog: of the store.
        ref: which checkpoint.
        path: of the file, or its URL. It appears whole or not at all.
        only: a glob over paths, or a callable: what to take.
        dtype: `bf16`, `fp16` or `fp32`: what floating-point numbers are cast to.
        writer: in whose name what is read is claimed meanwhile; None where nothing is.
        limits, progress: as for a load.

    Raises:
        NoCheckpoint: there is no such checkpoint.
        CorruptError: it is damaged. No file was written.
        ValueError: `dtype` is none of these, or `only` takes nothing.
    """
    if dtype is not None and dtype not in CASTS:
        raise ValueError(f"dtype={dtype!r:.40}: one of {', '.join(CASTS)} is wanted")
    target = os.fsdecode(path)
    if other := writers.name_of(target):
        told = f"{shown(target)}: a model file is a safetensors file, and its name says {other}, which `convert` writes: of STORE@REF, too"
        warn(TensorkeepWarning(told))

    def write(known: Known) -> Exported:
        with held(catalog, [known], writer), open_checkpoint(catalog.backend, known, limits=limits) as contents:
            return write_model_file(contents, target, only=only, dtype=dtype, limits=limits, progress=progress)

    return catalog.following(ref, write)


def write_model_file(
    contents: Contents, target: str, *, only: Only | None, dtype: str | None, limits: Limits, progress: Progress | None
) -> Exported:
    """Any contents of a store as a model file."""
    target = object_store.local_name(target)
    away = object_store.is_cloud(target)
    if not away:
        local.refuse_url(target)
    wanted = None if dtype is None else dtypes.STANDARD[CASTS[dtype]]
    carried = carry(contents, only=only, rename=None, transpose=None, dtype=wanted, dequantize=False)
    (file,) = ModelFileWriter().plan(carried, limits=limits).files
    place = staged if away else local.replacing
    with place(target, nbytes=file.nbytes) as pending:
        file.write(pending, progress)
    changed = sum(cast.changed for cast in carried.casts.values())
    return Exported(target, int(contents.metadata["step"]), len(carried.tensors), file.nbytes, changed)

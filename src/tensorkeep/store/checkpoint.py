"""A checkpoint as `Contents`: so that whatever can be done with a file can be done with it.

Lives here: from a manifest to its indexes, and from these to tree and tensors. Lives elsewhere: which checkpoint is meant (catalog), the
bytes (storage).
"""

import errno
from functools import partial
from typing import Any, Final

import msgspec

from tensorkeep import strictjson, structure, workers
from tensorkeep.backends.keys import Backend
from tensorkeep.contents import Contents, Tensors
from tensorkeep.errors import CheckpointGone, CorruptError, FormatError, shown
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.store import groups, names
from tensorkeep.store import index as indexes
from tensorkeep.store.chunkreader import ChunkReader
from tensorkeep.store.index import Index
from tensorkeep.store.joined import Joined
from tensorkeep.store.known import Known, concerns_one_object, why_missing
from tensorkeep.store.manifest import Manifest, Part
from tensorkeep.store.storage import CheckpointStorage, ChunkBytes
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Tree

FORMAT: Final = "tensorkeep checkpoint"
_REQUESTS: Final = 16  # at once, where each waits for an answer


def ref_of(known: Known) -> str:
    """What comes behind the `@` for just this checkpoint."""
    tag = names.tag_of(known.key)
    return tag if tag is not None else f"step-{known.manifest.step}"


def open_checkpoint(backend: Backend, known: Known, *, name: str = "", verify: bool = True, limits: Limits = DEFAULT_LIMITS) -> Contents:
    """Open a checkpoint: its indexes read and checked in full, no tensor touched.

    Args:
        backend: of the store.
        known: its manifest.
        name: what it is called in messages: `runs/a@step-1200`, or what a command line takes for it.
        verify: whether tensors are compared with their digests when they are read. Indexes always are.
        limits: on structure and tensors, and on what is made of few bytes.

    Raises:
        CorruptError: an index is not the one that the manifest names.
        FormatError: it breaks the format in any way.
        CheckpointGone: it was deleted or replaced meanwhile.
    """
    name = name or f"{backend.name}@{ref_of(known)}"
    manifest = known.manifest
    found = read_indexes(backend, known, limits)
    joined = Joined(
        found, {pack.name: pack.nbytes for pack in manifest.packs}, weights_only=manifest.weights_only, limits=limits, file=name
    )
    reader = ChunkReader(backend, joined, verify=verify, missing=partial(gone, backend, known))
    storage = CheckpointStorage(reader, partial(_identity, backend, joined), limits)
    stored = Tensors()
    for path, one in joined.tensors.items():
        stored[path] = LazyTensor(one.spec, ChunkBytes(storage, one), "numpy", path)
    tree = _tree(found[0], stored, limits, name)
    given_up = {path for path, one in joined.tensors.items() if joined.is_given_up(one)}
    tensors = stored
    left_out: tuple[str, ...] = ()
    if given_up:
        tree, tensors, left_out = _without(tree, stored, given_up)
    tensors.tree = tree
    return Contents(
        name,
        FORMAT,
        tree,
        tensors,
        storage,
        _metadata(manifest),
        joined.payload_nbytes(joined.kept_rows()) + sum(part.nbytes for part in manifest.indexes),
        digests=True,
        left_out=left_out,
        version=manifest.version,
        writer=found[0].writer,
        root=known.digest.hex(),
        versions=found[0].versions,
    )


def read_indexes(backend: Backend, known: Known, limits: Limits) -> list[Index]:
    """All indexes of a checkpoint, side by side where each waits for an answer.

    Raises:
        CorruptError, FormatError, CheckpointGone: as for `open_checkpoint`.
    """
    parts = known.manifest.indexes
    total = sum(part.nbytes for part in parts)
    if total > indexes.MOST_BYTES:
        raise FormatError(f"{backend.name}/{known.key}", f"its indexes would take {total:,} bytes, at most {indexes.MOST_BYTES:,} may")
    packs = {pack.name: pack.nbytes for pack in known.manifest.packs}
    found: dict[int, Index] = {}

    def read(number: int, part: Part) -> None:
        found[number] = read_index(backend, known, part, packs, limits)

    waits = backend.kind == "object store"
    jobs = ((part.nbytes, partial(read, number, part)) for number, part in enumerate(parts))
    workers.run(jobs, nbytes=total, threads=min(_REQUESTS, len(parts)) if waits else None)
    return [found[number] for number in range(len(parts))]


def read_index(backend: Backend, known: Known, part: Part, packs: dict[str, int], limits: Limits) -> Index:
    """One of a checkpoint's indexes, checked.

    Args:
        packs: size in bytes of every pack that the manifest names.

    Raises:
        CheckpointGone: the checkpoint was deleted or replaced meanwhile.
        CorruptError, FormatError: the index is damaged, missing, or cannot be read.
    """
    key = names.index_key(part.save)
    file = f"{backend.name}/{key}"
    try:
        data = backend.get(key, limit=part.nbytes)
    except FileNotFoundError:
        raise why_missing(backend, known, key) from None
    except OSError as error:
        if not concerns_one_object(error):
            raise
        if error.errno != errno.EFBIG:
            raise FormatError(file, f"damaged: {error.strerror}") from error
        found = f"more than {part.nbytes:,} bytes"
        raise CorruptError(file=file, path="(index)", span=(0, part.nbytes), found=found, wanted=part.digest) from None
    try:
        return indexes.decode(data, part, packs, limits, file)
    except CorruptError:
        if (fate := gone(backend, known)) is not None:
            raise fate from None
        raise


def gone(backend: Backend, known: Known) -> Exception | None:
    """The error for a checkpoint that is not the one that was opened; None if it is, and so it is damaged."""
    error = why_missing(backend, known, "")
    return error if isinstance(error, CheckpointGone) else None


def _identity(backend: Backend, joined: Joined) -> object:
    """What the storage says of all packs as they are now. An object store is not asked: chunks are compared again there."""
    if backend.kind != "folder":
        return None
    versions = []
    for number, pack in enumerate(joined.packs):
        if number not in joined.given_up:
            try:
                versions.append(backend.stat(names.pack_key(pack)).version)
            except OSError as error:
                if not isinstance(error, FileNotFoundError) and not concerns_one_object(error):
                    raise
                versions.append("")
    return tuple(versions)


def _tree(index: Index, stored: Tensors, limits: Limits, name: str) -> Tree:
    try:
        document = strictjson.decode(index.structure, object)
    except (msgspec.MsgspecError, ValueError) as error:
        raise FormatError(name, f"damaged: the structure in its index: {error}") from None
    return structure.decode(document, stored, framework=index.framework, file=name, nbytes=len(index.structure), limits=limits)


def _without(tree: Tree, stored: Tensors, given_up: set[str]) -> tuple[Tree, Tensors, tuple[str, ...]]:
    """What is left of a checkpoint of which all but the weights was given up."""
    kept = Tensors()
    for path, tensor in stored.items():
        if path not in given_up:
            kept[path] = tensor
    left = groups.without(tree, {id(stored[path]) for path in given_up})
    some = f"{len(given_up):,} tensors, such as {shown(min(given_up))}"
    said = f"{some}: the store has kept only the weights of this checkpoint (`weights_only_after`)"
    return left, kept, (said,)


def _metadata(manifest: Manifest) -> dict[str, Any]:
    return {
        "step": manifest.step,
        "time": manifest.time,
        "metrics": manifest.numbers(),
        "by": manifest.by,
        "save": manifest.save,
        "weights_only": manifest.weights_only,
    }

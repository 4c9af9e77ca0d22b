"""Stats: what a store takes, what of it is needed, and what compression and sharing save. Reads manifests and indexes, and no pack."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from tensorkeep.errors import CheckpointGone, CorruptError, FormatError
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.store import names
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.checkpoint import read_indexes
from tensorkeep.store.known import Known
from tensorkeep.tensors import Array

_CODECS: Final = ("stored", "constant", "planes", "delta")


@dataclass(frozen=True, slots=True)
class Stats:
    """What a store takes.

    Attributes:
        checkpoints, tags: how many there are.
        tensor_bytes: of the tensors of all checkpoints, as if each were kept by itself.
        pack_bytes: of all packs.
        live_bytes: what checkpoints need of them.
        dead_bytes: what nobody needs in packs that are needed for something else: `copy` leaves it behind.
        garbage_bytes: packs and indexes that nobody needs: `gc` removes them, unless somebody is writing them.
        index_bytes: of the indexes that are needed.
        codecs: live bytes by how they are kept: `stored`, `constant`, `planes`, `delta`.
        unreadable: checkpoints whose indexes are damaged, and which count as nothing here.
    """

    checkpoints: int
    tags: int
    tensor_bytes: int
    pack_bytes: int
    live_bytes: int
    dead_bytes: int
    garbage_bytes: int
    index_bytes: int
    codecs: dict[str, int]
    unreadable: tuple[str, ...] = ()


def stats(catalog: Catalog, *, limits: Limits = DEFAULT_LIMITS) -> Stats:
    """Look at all checkpoints and tags.

    Args:
        catalog: of the store.
        limits: on indexes.
    """
    backend = catalog.backend
    sizes = {entry.key: entry.nbytes for prefix in (names.PACKS, names.INDEXES) for entry in backend.list(prefix)}
    listing = catalog.look()
    steps, tags = listing.all(), listing.tags()
    needed: set[str] = set()
    rows: dict[str, list[Array]] = {}  # by pack: offset, length and codec of what is needed of it
    unreadable: list[str] = []
    for known in {one.digest: one for one in [*steps, *tags.values()]}.values():
        needed |= {names.pack_key(pack.name) for pack in known.manifest.packs}
        needed |= {names.index_key(part.save) for part in known.manifest.indexes}
        try:
            _add(catalog, known, rows, limits)
        except CheckpointGone:
            continue
        except (CorruptError, FormatError):
            unreadable.append(known.key)
    live, codecs = 0, dict.fromkeys(_CODECS, 0)
    for parts in rows.values():
        table = np.unique(np.concatenate(parts), axis=0)
        live += int(table[:, 1].sum())
        for number, name in enumerate(_CODECS):
            codecs[name] += int(table[table[:, 2] == number, 1].sum())
    packs = {key: nbytes for key, nbytes in sizes.items() if key.startswith(names.PACKS)}
    used = sum(nbytes for key, nbytes in packs.items() if key in needed)
    return Stats(
        checkpoints=len(steps),
        tags=len(tags),
        tensor_bytes=sum(known.manifest.nbytes for known in steps),
        pack_bytes=sum(packs.values()),
        live_bytes=live,
        dead_bytes=max(0, used - live) if not unreadable else 0,
        garbage_bytes=sum(nbytes for key, nbytes in sizes.items() if key not in needed),
        index_bytes=sum(nbytes for key, nbytes in sizes.items() if key in needed and key not in packs),
        codecs=codecs,
        unreadable=tuple(unreadable),
    )


def _add(catalog: Catalog, known: Known, rows: dict[str, list[Array]], limits: Limits) -> None:
    """Note which bytes of which packs a checkpoint needs."""
    there = {pack.name for pack in known.manifest.packs}
    for index in read_indexes(catalog.backend, known, limits):
        table = index.table
        columns = np.stack([table.offset.astype(np.int64), table.length.astype(np.int64), table.codec.astype(np.int64)], axis=1)
        for number, pack in enumerate(index.packs):
            if pack.name in there:
                rows.setdefault(pack.name, []).append(np.unique(columns[table.pack == number], axis=0))

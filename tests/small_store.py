"""Small true checkpoints, saved by the store's own protocol: for tests that care about objects and not about tensors."""

from collections.abc import Sequence

import numpy as np

from tensorkeep.backends.keys import Backend
from tensorkeep.chunks import digest
from tensorkeep.limits import Limits
from tensorkeep.store import index as indexes
from tensorkeep.store import manifest as manifests
from tensorkeep.store import names
from tensorkeep.store import table as tables
from tensorkeep.store.commit import Commit
from tensorkeep.store.groups import REST, WEIGHTS
from tensorkeep.store.index import Shard
from tensorkeep.store.known import Known
from tensorkeep.store.manifest import Direction, Manifest, Needed


def save(
    backend: Backend,
    writer: str,
    number: int,
    step: int,
    *,
    weights: bytes = b"weights",
    rest: bytes = b"rest",
    base: Sequence[Known] = (),
    overwrite: bool = False,
    metrics: dict[str, float] | None = None,
    best: dict[str, Direction] | None = None,
    time: float = 0.0,
) -> Manifest:
    """A checkpoint of one tensor `w` and one tensor `m` of an optimizer. What a base has with the same bytes is borrowed."""
    old = there(backend, step) if overwrite else None
    with Commit(backend, writer, number, base, "a test") as commit:
        manifest = write(backend, commit, step, weights=weights, rest=rest, metrics=metrics, best=best, time=time)
        commit.put_manifest(manifest, old=old)
    return manifest


def there(backend: Backend, step: int) -> bytes | None:
    """The manifest of a step, whatever it is."""
    try:
        return backend.get(names.checkpoint_key(step), limit=manifests.MOST_BYTES)
    except FileNotFoundError:
        return None


def write(
    backend: Backend,
    commit: Commit,
    step: int,
    *,
    weights: bytes,
    rest: bytes,
    metrics: dict[str, float] | None = None,
    best: dict[str, Direction] | None = None,
    time: float = 0.0,
) -> Manifest:
    """All of a save but its commit."""
    known: dict[bytes, tuple[Needed, int]] = {}
    for base in commit.borrowed:
        for index in read_indexes(backend, base.manifest):
            for row in range(len(index.table)):
                known[bytes(index.table.digest[row])] = index.packs[index.table.pack[row]], int(index.table.offset[row])
    packs: dict[str, Needed] = {}
    rows: list[tuple[bytes, Needed, int]] = []
    with backend.creating() as new:
        for number, data in enumerate((weights, rest)):
            own = digest(data)
            if own not in known:
                name = names.pack_name(commit.save, number)
                known[own] = Needed(name, len(data)), new.write(names.pack_key(name), [memoryview(data)])
            needed, offset = known[own]
            packs[needed.name] = needed
            rows.append((own, needed, offset))
    listed = list(packs.values())
    table = tables.empty(2)
    for row, (own, needed, offset) in enumerate(rows):
        table.digest[row] = np.frombuffer(own, np.uint8)
        table.pack[row], table.offset[row], table.length[row] = listed.index(needed), offset, len((weights, rest)[row])
    groups = {WEIGHTS: [Shard("w", "U8", (len(weights),))], REST: [Shard("m", "U8", (len(rest),))]}
    part = commit.put_index(indexes.encode(save=commit.save, framework="numpy", structure=b"{}", groups=groups, packs=listed, table=table))
    new_bytes = sum(needed.nbytes for needed in listed if names.save_of_pack(needed.name) == commit.save)
    return Manifest(
        step=step,
        save=commit.save,
        by="a test",
        time=time,
        metrics={name: manifests.as_metric(value) for name, value in (metrics or {}).items()},
        best=best or {},
        nbytes=len(weights) + len(rest),
        new_bytes=new_bytes,
        tensors=2,
        packs=listed,
        indexes=[part],
    )


def read_indexes(backend: Backend, manifest: Manifest) -> list[indexes.Index]:
    """Those of a manifest, checked."""
    sizes = {pack.name: pack.nbytes for pack in manifest.packs}
    return [
        indexes.decode(backend.get(names.index_key(part.save), limit=part.nbytes), part, sizes, Limits(), part.save)
        for part in manifest.indexes
    ]


def load(backend: Backend, manifest: Manifest) -> dict[str, bytes]:
    """The bytes of each group that is still there, checked against their digests."""
    found = {}
    there = {pack.name for pack in manifest.packs}
    for index in read_indexes(backend, manifest):
        for group in index.groups:
            row = group.first_row
            pack = index.packs[index.table.pack[row]]
            if pack.name not in there:
                assert manifest.weights_only, f"{pack.name} is not named"
                continue
            data = bytearray(int(index.table.length[row]))
            start = int(index.table.offset[row])
            backend.read(names.pack_key(pack.name), start, start + len(data), memoryview(data))
            assert digest(bytes(data)) == bytes(index.table.digest[row]), pack.name
            found[group.name] = bytes(data)
    return found

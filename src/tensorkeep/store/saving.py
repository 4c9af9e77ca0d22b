"""Saving: what becomes of a snapshot, off the training thread.

Each chunk is hashed; one that a checkpoint at hand has is referred to; any other is encoded and appended to a pack of this save. When the
packs are durable come the index and, as the commit, the manifest.

Lives here: that, and the rows of the new chunk table. Lives elsewhere: the protocol around it (commit), which codec (codecs), when a
checkpoint refers to a keyframe (keyframes).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from tensorkeep.backends.keys import Backend, New
from tensorkeep.backends.priority import give_way
from tensorkeep.chunks import CHUNK_BYTES, DIGEST_BYTES, digest
from tensorkeep.progress import Progress
from tensorkeep.store import index as indexes
from tensorkeep.store import names
from tensorkeep.store import table as tables
from tensorkeep.store.index import Index
from tensorkeep.store.manifest import Manifest, Needed
from tensorkeep.store.snapshot import Snapshot, Taken
from tensorkeep.store.table import NO_BASE, STORED, Table
from tensorkeep.workers import Job, run

JOB_BYTES: Final = 4 * CHUNK_BYTES
"""What one job hashes, encodes and writes together: in a pack, its chunks are neighbours."""


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint whose chunks may be referred to.

    Attributes:
        manifest: as it stands in the store.
        index: its only one: what several ranks wrote is not borrowed from.
    """

    manifest: Manifest
    index: Index


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk is that need not be written again.

    Attributes:
        pack: which, and its size.
        base: the chunk that it refers to.
    """

    digest: bytes
    pack: Needed
    offset: int
    length: int
    codec: int
    base: "Place | None" = None


class KnownChunks:
    """The chunks of checkpoints at hand, by digest."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._found: dict[bytes, tuple[Source, int]] = {}
        for source in reversed(sources):  # the first one's count
            digests = source.index.table.digest.tobytes()
            for row in range(len(source.index.table)):
                self._found[digests[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]] = source, row
        self._packs = [{pack.name for pack in source.manifest.packs} for source in sources]
        self._packs_of = {id(source): packs for source, packs in zip(sources, self._packs, strict=True)}

    def find(self, wanted: bytes) -> Place | None:
        """Where a chunk is, or None. What a checkpoint gave up (`weights_only_after`) is not there any more."""
        found = self._found.get(wanted)
        return None if found is None else place_of(*found, self._packs_of[id(found[0])])


def place_of(source: Source, row: int, packs: set[str]) -> Place | None:
    """Where the chunk of a row is; None where its pack, or that of its base, is no longer needed by the checkpoint."""
    index = source.index
    table = index.table
    pack = index.packs[int(table.pack[row])]
    if pack.name not in packs:
        return None
    base = None
    if int(table.base[row]) != NO_BASE and (base := place_of(source, int(table.base[row]), packs)) is None:
        return None
    return Place(table.digest[row].tobytes(), pack, int(table.offset[row]), int(table.length[row]), int(table.codec[row]), base)


Encode = Callable[[str, int, memoryview], "tuple[int, bytes | memoryview, Place | None]"]
"""Takes the group's name, the number of the chunk in it, and its bytes; gives codec, payload, and base."""


def store_plainly(_group: str, _number: int, chunk: memoryview) -> tuple[int, memoryview, None]:
    """The codec of `compress="none"`."""
    return STORED, chunk, None


class Saving:
    """One save under way.

    Args:
        save: its name.
        snapshot: what is kept.
        known: what need not be written.
        encode: how the rest is.
    """

    def __init__(self, save: str, snapshot: Snapshot, known: KnownChunks, encode: Encode) -> None:
        self.save, self.snapshot, self.known, self.encode = save, snapshot, known, encode
        self.new_bytes = 0
        self._rows = sum(len(taken.grid) for taken in snapshot.groups.values())
        self._table = tables.empty(self._rows)
        self._lock = threading.Lock()
        self._packs: dict[str, int] = {}  # name -> number, in the order of the index
        self._sizes: dict[str, int] = {}
        self._bases: dict[bytes, tuple[Place, list[int]]] = {}  # by digest: where, and the rows that refer to it
        self._first: dict[bytes, int] = {}  # the row that a new chunk of this save stands in
        self._again: list[tuple[int, int]] = []  # rows whose chunk stands in another row too

    def write(self, backend: Backend, progress: Progress | None) -> None:
        """Write the packs; when this returns they are durable."""
        nbytes = self.snapshot.plan.nbytes
        with backend.creating() as new:
            run(self._jobs(new), nbytes=nbytes, progress=progress, begin=give_way)

    def _jobs(self, new: New) -> Iterator[Job]:
        row = 0
        for number, (name, taken) in enumerate(self.snapshot.groups.items()):
            pack = names.pack_name(self.save, number)
            starts = taken.grid.starts
            first = 0
            while first < len(taken.grid):
                last = first + 1
                while last < len(taken.grid) and starts[last + 1] - starts[first] <= JOB_BYTES:
                    last += 1
                yield starts[last] - starts[first], partial(self._work, new, pack, name, taken, range(first, last), row)
                first = last
            row += len(taken.grid)

    def _work(self, new: New, pack: str, name: str, taken: Taken, numbers: range, first_row: int) -> None:
        table = self._table
        rows: list[int] = []
        payloads: list[memoryview] = []
        for number in numbers:
            row, chunk = first_row + number, taken.chunk(number)
            found = digest(chunk)
            table.digest[row] = np.frombuffer(found, np.uint8)
            if (place := self.known.find(found)) is not None:
                self._refer(row, place)
                continue
            with self._lock:
                if (first := self._first.setdefault(found, row)) != row:
                    self._again.append((row, first))
                    continue
            codec, payload, base = self.encode(name, number, chunk)
            table.codec[row], table.length[row] = codec, len(payload)
            if base is not None:
                self._rest_on(row, base)
            rows.append(row)
            payloads.append(memoryview(payload))
        if not rows:
            return
        offset = new.write(names.pack_key(pack), payloads)
        nbytes = sum(map(len, payloads))
        with self._lock:
            table.pack[rows] = self._packs.setdefault(pack, len(self._packs))
            self._sizes[pack] = max(self._sizes.get(pack, 0), offset + nbytes)
            self.new_bytes += nbytes
        for row, payload in zip(rows, payloads, strict=True):
            table.offset[row] = offset
            offset += len(payload)

    def _refer(self, row: int, place: Place) -> None:
        """Let a row say where its chunk is already."""
        table = self._table
        with self._lock:
            table.pack[row] = self._number(place.pack)
        table.offset[row], table.length[row], table.codec[row] = place.offset, place.length, place.codec
        if place.base is not None:
            self._rest_on(row, place.base)

    def _rest_on(self, row: int, base: Place) -> None:
        with self._lock:
            self._bases.setdefault(base.digest, (base, []))[1].append(row)

    def _number(self, pack: Needed) -> int:
        self._sizes[pack.name] = pack.nbytes
        return self._packs.setdefault(pack.name, len(self._packs))

    def index(self) -> tuple[bytes, list[Needed]]:
        """The index, once the packs are written, and every pack that it names."""
        table = self._finished()
        packs = [Needed(name, self._sizes[name]) for name in self._packs]
        plan = self.snapshot.plan
        shards = {name: taken.shards for name, taken in self.snapshot.groups.items()}
        data = indexes.encode(
            save=self.save,
            framework=plan.framework,
            versions=plan.versions,
            structure=plan.document,
            groups=shards,
            packs=packs,
            table=table,
        )
        return data, packs

    def _finished(self) -> Table:
        """The whole table: the rows of the groups, then those that are only bases."""
        own = self._table
        for row, first in self._again:
            for name in ("pack", "offset", "length", "codec"):
                getattr(own, name)[row] = getattr(own, name)[first]
        again = dict(self._again)
        table = tables.empty(self._rows + len(self._bases))
        for name, _ in tables.COLUMNS:
            getattr(table, name)[: self._rows] = getattr(own, name)
        for number, (place, rows) in enumerate(self._bases.values(), self._rows):
            table.digest[number] = np.frombuffer(place.digest, np.uint8)
            table.pack[number] = self._number(place.pack)
            table.offset[number], table.length[number], table.codec[number] = place.offset, place.length, place.codec
            table.base[rows] = number
        for row, first in again.items():
            table.base[row] = table.base[first]
        return table

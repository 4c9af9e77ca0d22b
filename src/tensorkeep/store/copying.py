"""Copying: checkpoints of one store into another, as far as they are not there yet.

Payloads are copied as they are, after their chunks were compared with their digests, into packs that hold nothing else: a copy is compact.
A chunk that the target has already is referred to. A copy that was interrupted is taken up again: what was committed stays.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tensorkeep.backends.keys import Backend, New, UnsureError
from tensorkeep.errors import CheckpointGone, NoCheckpoint, StepExists, TagExists, escaped
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.progress import Progress, part_of
from tensorkeep.store import index as indexes
from tensorkeep.store import manifest as manifests
from tensorkeep.store import names
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.checkpoint import gone, read_indexes
from tensorkeep.store.chunkreader import ChunkReader, Payload, Want
from tensorkeep.store.commit import Commit, Writer
from tensorkeep.store.holding import held
from tensorkeep.store.index import Index
from tensorkeep.store.joined import Joined
from tensorkeep.store.known import Known, read
from tensorkeep.store.manifest import Manifest, Needed
from tensorkeep.store.names import Ref
from tensorkeep.store.opened import is_store
from tensorkeep.store.table import NO_BASE, Table


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did.

    Attributes:
        steps: of the checkpoints that were copied now.
        there: of those that were there already.
        nbytes: bytes that were written into packs.
    """

    steps: tuple[int, ...]
    there: tuple[int, ...]
    nbytes: int


def copy(
    catalog: Catalog,
    target: Backend,
    refs: "Sequence[str | int | Ref] | None" = None,
    *,
    next_writer: Callable[[], Writer] | None = None,
    by: str = "",
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Copied:
    """Copy checkpoints into another store, which is made if it is not there.

    Args:
        catalog: of the store that is read.
        target: the place of the other one.
        refs: which checkpoints; None for all of them, and tags.
        next_writer: in whose name what is read is claimed meanwhile; None where nothing is.
        by: machine and process, for people.
        limits: as for a load.
        progress: called with the bytes of tensors done and in all.

    Raises:
        NoCheckpoint: one of `refs` is not there, or no store is.
        StepExists, TagExists: the target has another checkpoint of that step, or under that tag. Those before it were copied.
        CorruptError, FormatError: a checkpoint is damaged. Those before it were copied.
    """
    if isinstance(refs, (str, int)):
        raise TypeError(f"refs= takes a list of references, such as [{refs!r:.80}], found one alone")
    listing = catalog.look()
    known = listing.all() if refs is None else [listing.find(ref) for ref in refs]
    known = sorted(known, key=lambda one: one.step)
    if not known and not is_store(catalog.backend):
        raise NoCheckpoint(catalog.backend.name, "checkpoint", "no store is there yet")  # as of a name that is misspelt: no backup is made
    _begin(target)
    copier = _Copier(catalog, target, by, limits)
    whole, done = sum(one.manifest.nbytes for one in known), 0
    for one in known:
        claimant = None if next_writer is None else next_writer()
        with suppress(CheckpointGone) if refs is None else ExitStack(), held(catalog, [one], claimant):
            copier.copy(one, names.checkpoint_key(one.step), part_of(progress, done, whole))
        done += one.manifest.nbytes
    for tag, one in listing.tags().items() if refs is None else ():
        with suppress(CheckpointGone):
            copier.copy(one, names.tag_key(tag), None)
    return Copied(tuple(copier.copied), tuple(copier.there), copier.nbytes)


def _begin(target: Backend) -> None:
    try:
        target.create(names.STORE, [memoryview(manifests.encode_settings())])
    except (FileExistsError, UnsureError):
        manifests.check_settings(target.get(names.STORE, limit=1 << 20), f"{target.name}/{names.STORE}")


class _Copier:
    def __init__(self, catalog: Catalog, target: Backend, by: str, limits: Limits) -> None:
        self.source, self.target, self.by, self.limits = catalog.backend, target, by, limits
        self.writer, self.number = names.new_writer(), 0
        self.last: Known | None = None  # in the target: what the next one may borrow from
        self.copied: list[int] = []
        self.there: list[int] = []
        self.saves: dict[str, str] = {}  # of the source, and what they are called in the target
        self.nbytes = 0

    def copy(self, known: Known, key: str, progress: Progress | None) -> None:
        """One checkpoint, if it is not there."""
        found = read_indexes(self.source, known, self.limits)
        if (other := self._there(key)) is not None:
            if not self._is_same(known, found, other):
                raise self._conflict(key, other.manifest)
            if names.step_of(key) is not None:
                self.there.append(known.step)
            self.last = other
            self.saves[known.manifest.save] = other.manifest.save
            return
        with ExitStack() as stack:
            borrow_from = [] if self.last is None else [self.last]
            commits = []
            for _ in found:
                self.number += 1
                commits.append(stack.enter_context(Commit(self.target, self.writer, self.number, borrow_from, self.by)))
            manifest = self._write(known, found, commits, progress)
            first = commits[0]
            try:
                if names.step_of(key) is not None:
                    first.put_manifest(manifest)
                    self.copied.append(known.step)
                elif not (outcome := first.put(key, manifests.encode(manifest))).done and outcome.other is not None:
                    raise self._conflict(key, manifests.decode(outcome.other, f"{self.target.name}/{key}"))
            finally:
                if first.stays:
                    for commit in commits:
                        commit.keep_claim()
        self.last = read(self.target, key)
        self.saves[known.manifest.save] = manifest.save

    def _conflict(self, key: str, other: Manifest) -> Exception:
        """Of what the target has under this key, which is not what is copied."""
        store = self.target.name
        done = "What comes before it was copied." if self.copied else ""
        if (tag := names.tag_of(key)) is not None:
            hint = f"It is on another checkpoint in {self.source.name}: delete the tag there first, or copy by refs=, without tags."
            return TagExists(store, tag, step=other.step, consequence=done, hint=escaped(hint))
        hint = f"It is another checkpoint than that of {self.source.name}: delete it there first, or copy into another store."
        return StepExists(store, other.step, by=other.by, time=other.time, consequence=done, hint=escaped(hint))

    def _there(self, key: str) -> Known | None:
        try:
            return read(self.target, key)
        except FileNotFoundError:
            return None

    def _is_same(self, known: Known, found: list[Index], other: Known) -> bool:
        """Whether a checkpoint of the target holds the same: structure, tensors and their chunks."""
        if len(other.manifest.indexes) != len(found) or other.manifest.weights_only != known.manifest.weights_only:
            return False
        theirs = read_indexes(self.target, other, self.limits)
        return all(_content(ours) == _content(their) for ours, their in zip(found, theirs, strict=True))

    def _write(self, known: Known, found: list[Index], commits: list[Commit], progress: Progress | None) -> Manifest:
        """Packs and indexes; what the manifest is to say."""
        manifest = known.manifest
        packs = {pack.name: pack.nbytes for pack in manifest.packs}
        name = f"{self.source.name}@{known.key}"
        joined = Joined(found, packs, weights_only=manifest.weights_only, limits=self.limits, file=name)
        reader = ChunkReader(self.source, joined, verify=True, missing=partial(gone, self.source, known))
        there = _Places(self.target, commits, self.limits)
        wants: dict[int, Want] = {}
        writing = _Writing(there)
        with self.target.creating() as new:
            for number, (index, commit) in enumerate(zip(found, commits, strict=True)):
                writing.plan(joined, number, index, commit.save, new, wants)
            reader.read(wants, progress)
        parts, needed = [], dict[str, Needed]()
        for number, (index, commit) in enumerate(zip(found, commits, strict=True)):
            table, listed = writing.table(joined, number, index, commit.save)
            shards = {group.name: group.shards for group in index.groups}
            data = indexes.encode(
                save=commit.save,
                framework=index.framework,
                versions=index.versions,
                structure=index.structure,
                groups=shards,
                packs=listed,
                table=table,
            )
            parts.append(commit.put_index(data))
            needed |= {pack.name: pack for pack in listed if pack.name not in writing.lost}
        self.nbytes += sum(there.written.values())
        frame = manifest.keyframe
        return msgspec.structs.replace(
            manifest,
            save=commits[0].save,
            new_bytes=sum(there.written.values()),
            keyframe=(frame[0], self.saves[frame[1]]) if frame is not None and frame[1] in self.saves else None,
            packs=list(needed.values()),
            indexes=parts,
        )


_Chunk = tuple[bytes, int, bytes]
"""A chunk as it is kept: its digest, its codec, and the digest of its base."""


class _Place(NamedTuple):
    pack: str
    offset: int
    length: int


class _Places:
    """Where the target has chunks: those of the checkpoint that is borrowed from, and those that are written now.

    Attributes:
        written: bytes of the packs that are written now.
    """

    def __init__(self, target: Backend, commits: Sequence[Commit], limits: Limits) -> None:
        self.places: dict[_Chunk, _Place] = {}
        self.sizes: dict[str, int] = {}
        self.written: dict[str, int] = {}
        self.lock = Lock()
        if all(commit.borrowed for commit in commits):
            known = commits[0].borrowed[0]
            self.sizes = {pack.name: pack.nbytes for pack in known.manifest.packs}
            for index in read_indexes(target, known, limits):
                for row, chunk in enumerate(_chunks_of(index)):
                    pack = index.packs[int(index.table.pack[row])].name
                    if pack in self.sizes:
                        self.places.setdefault(chunk, _Place(pack, int(index.table.offset[row]), int(index.table.length[row])))

    def write(self, new: New, pack: str, chunk: _Chunk, payload: memoryview) -> None:
        offset = new.write(names.pack_key(pack), [payload])
        with self.lock:
            self.places[chunk] = _Place(pack, offset, payload.nbytes)
            self.written[pack] = max(self.written.get(pack, 0), offset + payload.nbytes)


class _Writing:
    """What is copied of one checkpoint.

    Attributes:
        lost: packs that the index still names and the source has given up.
    """

    def __init__(self, there: _Places) -> None:
        self.there = there
        self.lost: set[str] = set()
        self._chunks: list[list[_Chunk]] = []
        self._planned: set[_Chunk] = set()

    def plan(self, joined: Joined, number: int, index: Index, save: str, new: New, wants: dict[int, Want]) -> None:
        """Have each chunk read that the target lacks. Each group, and its bases, get packs of their own."""
        chunks = list(_chunks_of(index))
        self._chunks.append(chunks)
        kept = set(joined.kept_rows().tolist())
        packs = [names.pack_name(save, at) for at in range(2 * len(index.groups) or 1)]
        for row, chunk in enumerate(chunks):
            own = int(joined.rows_of[number][row])
            if own not in kept or chunk in self.there.places or chunk in self._planned:
                continue
            self._planned.add(chunk)
            wants[own] = Payload(partial(self.there.write, new, packs[_pack_of(index, row)], chunk))

    def table(self, joined: Joined, number: int, index: Index, save: str) -> tuple[Table, list[Needed]]:
        """The chunk table of an index of the target, and the packs that it names."""
        kept = set(joined.kept_rows().tolist())
        old = index.table
        columns = {name: getattr(old, name).copy() for name in Table.__slots__}
        listed: dict[str, Needed] = {}
        order: dict[str, int] = {}
        for row, chunk in enumerate(self._chunks[number]):
            if int(joined.rows_of[number][row]) in kept:
                place = self.there.places[chunk]
                nbytes = self.there.written.get(place.pack) or self.there.sizes[place.pack]
            else:
                pack = index.packs[int(old.pack[row])]
                place, nbytes = _Place(pack.name, int(old.offset[row]), int(old.length[row])), pack.nbytes
                self.lost.add(pack.name)
            if place.pack not in order:
                order[place.pack] = len(order)
                listed[place.pack] = Needed(place.pack, nbytes)
            columns["pack"][row], columns["offset"][row], columns["length"][row] = order[place.pack], place.offset, place.length
        return Table(**columns), list(listed.values())


def _pack_of(index: Index, row: int) -> int:
    """Which of a save's packs a row goes into: weights and the rest are apart, and so are bases of each."""
    if not index.groups:
        return 0
    base = row >= len(index.sizes)
    if base:
        row = int(np.flatnonzero(index.table.base == row)[0])
    group = max((at for at, group in enumerate(index.groups) if group.first_row <= row), default=0)
    return 2 * group + base


def _chunks_of(index: Index) -> Iterator[_Chunk]:
    digests = index.table.digest.tobytes()
    for row, (codec, base) in enumerate(zip(index.table.codec.tolist(), index.table.base.tolist(), strict=True)):
        yield digests[32 * row : 32 * row + 32], codec, b"" if base == NO_BASE else digests[32 * base : 32 * base + 32]


def _content(index: Index) -> Any:
    """What an index says, wherever its chunks are."""
    own = index.table.digest[: len(index.sizes)].tobytes()
    return index.structure, index.framework, [(group.name, group.shards) for group in index.groups], own

"""Garbage collection: removing what no manifest names and no claim protects. Rules 4 and 5 of the protocol.

Lives here: which claims are dropped, and the order of the passes, on which everything rests. Lives elsewhere: what claims and manifests
say, and the removal of manifests (retention).
Source: docs/store-format.md, "Protocol".

What a damaged manifest or claim may need is whatever name stands in its bytes: such objects stay until somebody deletes it, or a claim's
time is over. A loss of power tears claims, which are not durable: what is left of one is never believed to be of a process that ended.
"""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from tensorkeep.backends.keys import Entry, UnsureError
from tensorkeep.backends.processes import known_alive, known_dead
from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.store import claims, names
from tensorkeep.store import manifest as manifests
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.claims import Claim
from tensorkeep.store.index import PREFIX_BYTES, document_bytes
from tensorkeep.store.known import Known

LATE_S: Final = 3600  # in which a request that was sent before its process ended may reach an object store
DOUBTFUL_S: Final = 24 * 3600  # after which a claim is dropped, if its save has no index yet
GIVEN_UP_S: Final = 30 * 24 * 3600  # after which it is dropped whatever there is
SETTLED_S: Final = 65.0  # from pass to pass, where a listing may be a minute old
_TRIES: Final = 8


@dataclass(frozen=True, slots=True)
class Collected:
    """What a garbage collection removed, or would remove.

    Attributes:
        packs, indexes, claims, leftovers: how many of each; leftovers are temporary files of processes that ended.
        nbytes: what it freed.
        held_bytes: what no checkpoint names and saves under way may need.
        damaged: manifests and claims that cannot be read; whatever they seem to name stays, for a claim no longer than 30 days.
        dry_run: whether nothing was removed.
    """

    packs: int
    indexes: int
    claims: int
    leftovers: int
    nbytes: int
    held_bytes: int
    damaged: tuple[str, ...]
    dry_run: bool


def collect(catalog: Catalog, *, dry_run: bool = False, wait: Callable[[float], None] = time.sleep) -> Collected:
    """Drop dead claims, find what nobody needs, remove it. Any number may run at once, beside any number of saves.

    Args:
        catalog: of the store.
        dry_run: only say what would be removed.
        wait: how to wait so many seconds; asked only where listings may be old, as on NFS, and there is something to remove.

    Raises:
        OSError: something could not be listed, read or removed. Nothing was removed that anybody needs.
    """
    passes = collecting(catalog, dry_run=dry_run)
    while True:
        try:
            next(passes)
        except StopIteration as end:
            collected: Collected = end.value
            return collected
        wait(SETTLED_S)


def collecting(catalog: Catalog, *, dry_run: bool = False) -> Generator[None, None, Collected]:
    """The same, for whoever has something else to do than to wait: yields wherever `SETTLED_S` must pass before it goes on."""
    run = _Run(catalog, dry_run)
    if not catalog.backend.slow_listing or dry_run:
        run.drop_claims()
        return run.result(_last(run.find_garbage()))
    if not _last(run.find_garbage()) and not run.doomed_claims():
        return run.result([])
    run.drop_claims()
    yield
    garbage = yield from run.find_garbage()
    return run.result(garbage)


def _last(passes: Generator[None, None, list[Entry]]) -> list[Entry]:
    """What they come to without a pause."""
    while True:
        try:
            next(passes)
        except StopIteration as end:
            garbage: list[Entry] = end.value
            return garbage


class _Run:
    def __init__(self, catalog: Catalog, dry_run: bool) -> None:
        self._catalog, self._backend, self._dry_run = catalog, catalog.backend, dry_run
        self._clock: float | None = None
        self._claims: dict[tuple[str, str], tuple[Claim | None, bytes]] = {}  # by key and version; None for a damaged one, and its bytes
        self._dropped: list[Entry] = []
        self._fences: list[Entry] = []  # empty indexes of saves whose process has ended
        self._damaged: set[str] = set()
        self._held: dict[str, Entry] = {}

    def drop_claims(self) -> None:
        """Rule 5: of those whose saves are over, or have been told so."""
        for entry, save, dead in self.doomed_claims():
            if dead:
                self._drop_fence(save)
            elif not self._is_given_up(entry) and not self._fence(save):
                continue
            self._dropped.append(entry)
            if not self._dry_run:
                self._backend.delete(entry.key, durable=False)

    def doomed_claims(self) -> list[tuple[Entry, str, bool]]:
        """Claims that may be dropped, whose save each is of, and whether its process is known to have ended."""
        found = []
        for entry, save, claim, _ in self._read_claims():
            dead = claim is not None and known_dead(claim.process) and not self._may_send(entry, save)
            if dead or self._age(entry) >= DOUBTFUL_S:
                found.append((entry, save, dead))
        return found

    def _may_send(self, entry: Entry, save: str) -> bool:
        """Whether a request that its process sent before it ended may be under way: the commit follows the index, and that the claim."""
        if self._backend.kind == "folder":
            return False
        if self._age(entry) < LATE_S:
            return True
        try:
            return self._age(self._backend.stat(names.index_key(save))) < LATE_S
        except FileNotFoundError:
            return False

    def _is_given_up(self, entry: Entry) -> bool:
        if self._age(entry) < GIVEN_UP_S:
            return False
        claim, _ = self._claims[entry.key, entry.version]
        return claim is None or not known_alive(claim.process)  # of a clock that was set forward by years

    def _drop_fence(self, save: str) -> None:
        try:
            entry = self._backend.stat(names.index_key(save))
        except FileNotFoundError:
            return
        if entry.nbytes == 0:
            self._fences.append(entry)
            if not self._dry_run:
                self._backend.delete(entry.key, durable=False)

    def _fence(self, save: str) -> bool:
        """Whether this save can commit no more: its index is there and empty, by this call or by another collection's."""
        key = names.index_key(save)
        for _ in range(_TRIES):
            try:
                return self._backend.stat(key).nbytes == 0
            except FileNotFoundError:
                if self._dry_run:
                    return True
            try:
                self._backend.create(key, [])
                return True
            except (FileExistsError, UnsureError):
                pass  # who was first is seen now
        return False

    def find_garbage(self) -> Generator[None, None, list[Entry]]:
        """Rule 4: what is listed first, and named in none of five passes, each over before the next begins. Yields before each.

        The fifth closes what two readings leave open: a save that claimed after the first reading of claims and was over before the
        second, whose checkpoint was removed before the second listing of manifests, and was borrowed from meanwhile. It left its index.
        """
        packs = list(self._backend.list(names.PACKS))
        indexes = list(self._backend.list(names.INDEXES))
        first = {entry.key for entry in indexes}
        found = {entry.key: entry for entry in (*packs, *indexes) if self._may_go(entry)}
        self._held = {}
        for look in (self._claimed, self._named, self._claimed, self._named, partial(self._told_since, first)):
            if not found:
                break
            yield
            look(found)
        return list(found.values())

    def _may_go(self, entry: Entry) -> bool:
        if names.save_of(entry.key, names.INDEXES, ".idx") is None:
            return names.pack_of(entry.key) is not None
        return entry.nbytes > 0 or self._age(entry) >= GIVEN_UP_S  # an empty one tells a sleeper that it was given up

    def _claimed(self, found: dict[str, Entry]) -> None:
        saves: set[str] = set()
        keys: set[str] = set()
        for entry, save, claim, data in self._read_claims():
            if self._dry_run and entry in self._dropped:
                continue
            saves.add(save)
            packs, indexes = claims.mentioned(data) if claim is None else (set(claim.packs), set(claim.indexes))
            keys.update(map(names.pack_key, packs), map(names.index_key, indexes))
        for key in [key for key in found if key in keys or _save_of(key) in saves]:
            self._held[key] = found.pop(key)

    def _named(self, found: dict[str, Entry]) -> None:
        entries = [*self._catalog.entries(names.CHECKPOINTS), *self._catalog.entries(names.TAGS)]
        for key, known in self._catalog.read(entries).items():
            for needed in self._keys_of(key, known):
                found.pop(needed, None)
                self._held.pop(needed, None)

    def _told_since(self, first: set[str], found: dict[str, Entry]) -> None:
        for entry in self._backend.list(names.INDEXES):
            save = names.save_of(entry.key, names.INDEXES, ".idx")
            if save is None or entry.key in first or not entry.nbytes:
                continue
            try:
                packs, saves = claims.mentioned(self._names_in(entry))
            except FileNotFoundError:  # another collection knows that nobody needs it
                continue
            for key in (*map(names.pack_key, packs), *map(names.index_key, {*saves, save})):
                if key in found:
                    self._held[key] = found.pop(key)

    def _names_in(self, entry: Entry) -> bytes:
        """The part of an index in which names stand."""
        prefix = bytearray(min(PREFIX_BYTES, entry.nbytes))
        self._backend.read(entry.key, 0, len(prefix), memoryview(prefix))
        data = bytearray(document_bytes(bytes(prefix), entry.nbytes))
        self._backend.read(entry.key, 0, len(data), memoryview(data))
        return bytes(data)

    def _keys_of(self, key: str, known: "Known | Exception") -> Iterator[str]:
        """What a manifest needs; of a damaged one, all that it seems to name."""
        if isinstance(known, Known):
            yield from needs(known)
            return
        if not isinstance(known, (CorruptError, FormatError)):
            raise known
        try:
            data = self._backend.get(key, limit=manifests.MOST_BYTES)
        except FileNotFoundError:
            return
        self._damaged.add(key)
        packs, indexes = claims.mentioned(data)
        yield from map(names.pack_key, packs)
        yield from map(names.index_key, indexes)

    def _read_claims(self) -> Iterator[tuple[Entry, str, Claim | None, bytes]]:
        """The claims there are now; those that are gone by the time they are read protect nothing."""
        for entry in self._backend.list(names.CLAIMS):
            save = names.save_of(entry.key, names.CLAIMS, ".json")
            if save is None:
                continue
            at = entry.key, entry.version
            if at not in self._claims:
                try:
                    data = self._backend.get(entry.key, limit=claims.MOST_BYTES)
                except FileNotFoundError:
                    continue
                try:
                    self._claims[at] = claims.decode(data, f"{self._backend.name}/{entry.key}", save), b""
                except (CorruptError, FormatError):
                    self._damaged.add(entry.key)
                    self._claims[at] = None, data
            yield entry, save, *self._claims[at]

    def _age(self, entry: Entry) -> float:
        """In seconds, by the storage's clock at the beginning."""
        if self._clock is None:
            self._clock = self._backend.now()
        return self._clock - entry.modified

    def result(self, garbage: list[Entry]) -> Collected:
        """Remove it, and what killed processes left half written."""
        if garbage and not self._dry_run:
            self._backend.settle(names.CHECKPOINTS, names.TAGS)  # what named it must not come back after a loss of power
            self._backend.delete(*(entry.key for entry in garbage), durable=False)
        folders = names.CHECKPOINTS, names.TAGS, names.INDEXES, names.PACKS, names.CLAIMS
        leftovers = self._backend.leftovers("", *folders, remove=not self._dry_run)
        packs = sum(entry.key.startswith(names.PACKS) for entry in garbage)
        gone = [*garbage, *self._fences, *self._dropped, *leftovers]
        return Collected(
            packs=packs,
            indexes=len(garbage) - packs + len(self._fences),
            claims=len(self._dropped),
            leftovers=len(leftovers),
            nbytes=sum(entry.nbytes for entry in gone),
            held_bytes=sum(entry.nbytes for entry in self._held.values()),
            damaged=tuple(sorted(self._damaged)),
            dry_run=self._dry_run,
        )


def needs(known: Known) -> Iterator[str]:
    """The keys of all objects that a checkpoint needs."""
    for pack in known.manifest.packs:
        yield names.pack_key(pack.name)
    for part in known.manifest.indexes:
        yield names.index_key(part.save)


def _save_of(key: str) -> str | None:
    """The save whose name an index or a pack bears."""
    pack = names.pack_of(key)
    return names.save_of_pack(pack) if pack is not None else names.save_of(key, names.INDEXES, ".idx")

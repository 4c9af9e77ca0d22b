"""Verifying a store: every byte that a checkpoint needs, compared with its digest; or, not so deep, that all is there with its size.

What several checkpoints need is read once, but for bases, which their deltas need. All damage is told, and all checkpoints that it hurts.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from tensorkeep.backends.keys import Backend
from tensorkeep.contents import Contents
from tensorkeep.errors import CheckpointGone, CorruptError, FormatError, NoCheckpoint
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.progress import Progress, part_of
from tensorkeep.store import manifest as manifests
from tensorkeep.store import names
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.checkpoint import gone, open_checkpoint, ref_of
from tensorkeep.store.known import Known, concerns_one_object, size_of
from tensorkeep.store.names import Ref
from tensorkeep.store.storage import CheckpointStorage
from tensorkeep.store.table import NO_BASE
from tensorkeep.verdict import Damage, Verdict

CHECKSUM: Final = "BLAKE3"
_SETTINGS_BYTES: Final = 1 << 16

_Chunk = tuple[str, int, int, int, bytes, bytes]
"""A chunk as some checkpoint has it: pack, offset, length, codec, its digest and that of its base."""


def verify(
    catalog: Catalog,
    ref: "str | int | Ref | None" = None,
    *,
    deep: bool = True,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Verdict:
    """Verify one checkpoint, or all that a store has.

    Args:
        catalog: of the store; it is told what was found damaged.
        ref: which checkpoint; None for all of them, tags and the store's own file.
        deep: read and compare every byte; else only look whether all packs and indexes are there with their sizes.
        limits: on indexes and structures.
        progress: called with the bytes of packs done and in all.

    Raises:
        NoCheckpoint: there is no such checkpoint, or no store.
    """
    verifier = _Verifier(catalog, deep, limits)
    listing = catalog.look()
    if ref is not None:
        known = [listing.find(ref)]
    else:
        known = [*listing.all(), *listing.tags().values()]
        if not known and not listing.damaged and size_of(catalog.backend, names.STORE) is None:
            raise NoCheckpoint(catalog.backend.name, "checkpoint", "no store is there yet")  # as of a name that is misspelt
        verifier.look_at_settings()
        for key, error in listing.damaged.items():
            verifier.damaged_manifest(key, error)
    verifier.verify(known, progress)
    return verifier.verdict()


class _Verifier:
    def __init__(self, catalog: Catalog, deep: bool, limits: Limits) -> None:
        self.catalog, self.deep, self.limits = catalog, deep, limits
        self.backend: Backend = catalog.backend
        self.damaged: dict[Damage, None] = {}
        self.hurt: dict[str, None] = {}  # checkpoints
        self.good: set[_Chunk] = set()
        self.bad: set[_Chunk] = set()
        self.objects: dict[str, int] = {}  # bytes of each that is needed

    def look_at_settings(self) -> None:
        try:
            manifests.check_settings(self.backend.get(names.STORE, limit=_SETTINGS_BYTES), f"{self.backend.name}/{names.STORE}")
        except FileNotFoundError:
            self.tell(names.STORE, 0)
        except (CorruptError, FormatError):
            self.tell(names.STORE, size_of(self.backend, names.STORE) or 0)
        except OSError as error:
            if not concerns_one_object(error):
                raise
            self.tell(names.STORE, 0)

    def damaged_manifest(self, key: str, error: Exception) -> None:
        step = names.step_of(key)
        self.hurt[f"step-{step}" if step is not None else names.tag_of(key) or key] = None
        self.tell(key, error.span[1] if isinstance(error, CorruptError) else 0)

    def tell(self, place: str, stop: int, start: int = 0) -> None:
        self.damaged[Damage(place, start, stop)] = None

    def verify(self, known: Iterable[Known], progress: Progress | None) -> None:
        known = list({one.digest: one for one in reversed(list(known))}.values())[::-1]  # a tag may have what a step has
        for one in known:
            self.objects |= {names.pack_key(pack.name): pack.nbytes for pack in one.manifest.packs}
            self.objects |= {names.index_key(part.save): part.nbytes for part in one.manifest.indexes}
        whole = sum(self.objects.values())
        there = {entry.key: entry.nbytes for prefix in (names.PACKS, names.INDEXES) for entry in self.backend.list(prefix)}
        for one in known:
            before, done = len(self.damaged), sum(chunk[2] for chunk in self.good)
            try:
                error, can_be_opened = self.look(one, there)
                if self.deep and can_be_opened:
                    error = self.read(one, part_of(progress, done, whole)) or error
            except CheckpointGone:
                for damage in list(self.damaged)[before:]:  # pruned meanwhile: nothing of it is missed
                    del self.damaged[damage]
                continue
            if error is not None:
                self.hurt[ref_of(one)] = None
                self.catalog.found_damaged(one, error)
        if progress is not None and whole:
            progress(whole, whole)

    def look(self, known: Known, there: dict[str, int]) -> tuple[Exception | None, bool]:
        """Presence and sizes, and whether its indexes are well. Whoever misses something reads the manifest again, for it may be gone."""
        error: Exception | None = None
        can_be_opened = True
        manifest = known.manifest
        for key, nbytes in [
            *((names.pack_key(pack.name), pack.nbytes) for pack in manifest.packs),
            *((names.index_key(part.save), part.nbytes) for part in manifest.indexes),
        ]:
            if there.get(key) != nbytes and (found := size_of(self.backend, key)) != nbytes:
                _still_there(self.backend, known)
                said = "missing, or no file that can be read" if found is None else f"{found:,} bytes"
                error = FormatError(f"{self.backend.name}/{key}", f"damaged: {said}, where {nbytes:,} bytes are needed")
                self.tell(key, nbytes, min(found or 0, nbytes))
                can_be_opened &= not key.startswith(names.INDEXES)
        return error, can_be_opened

    def read(self, known: Known, progress: Progress | None) -> Exception | None:
        try:
            with open_checkpoint(self.backend, known, limits=self.limits) as contents:
                return self._chunks(contents, known, progress)
        except (CorruptError, FormatError) as error:
            place = error.file.removeprefix(f"{self.backend.name}/")
            self.tell(place if "/" in place else known.key, self.objects.get(place, 0))
            return error

    def _chunks(self, contents: Contents, known: Known, progress: Progress | None) -> Exception | None:
        storage = contents.storage
        assert isinstance(storage, CheckpointStorage), "of a checkpoint"
        chunks = dict(_chunks_of(storage))
        new: dict[_Chunk, int] = {chunk: row for row, chunk in chunks.items() if chunk not in self.good and chunk not in self.bad}
        found: dict[int, CorruptError] = {}
        storage.reader.read(dict.fromkeys(new.values()), progress, found=found.__setitem__)
        if found:
            _still_there(self.backend, known)
        for chunk, row in new.items():
            (self.bad if row in found else self.good).add(chunk)
        for _, error in sorted(found.items()):
            missing = error.part in self.objects and size_of(self.backend, error.part) != self.objects[error.part]
            for path in (error.path, *error.also) if not missing else ():  # else the pack itself was told
                self.tell(f"{error.part}: {path}", error.span[1], error.span[0])
        if found:
            return next(iter(found.values()))
        hurt = next((row for row, chunk in chunks.items() if chunk in self.bad), None)
        return None if hurt is None else storage.reader.damage(hurt, "other bytes")

    def verdict(self) -> Verdict:
        return Verdict(
            file=self.backend.name,
            intact=not self.damaged,
            unverified=False,
            damaged=tuple(self.damaged),
            root="",
            nbytes=sum(self.objects.values()),
            checksum=CHECKSUM if self.deep else "",
            checkpoints=tuple(self.hurt),
        )


def _still_there(backend: Backend, known: Known) -> None:
    """See that a checkpoint was not deleted or replaced meanwhile."""
    if (error := gone(backend, known)) is not None:
        raise error


def _chunks_of(storage: CheckpointStorage) -> Iterator[tuple[int, _Chunk]]:
    """Row and chunk of each that can be read."""
    joined = storage.joined
    table, rows = joined.table, joined.kept_rows()
    columns = (table.pack, table.offset, table.length, table.codec, table.base)
    digests = table.digest.tobytes()
    for row, pack, offset, length, codec, base in zip(rows.tolist(), *(column[rows].tolist() for column in columns), strict=True):
        own = digests[32 * row : 32 * row + 32]
        its_base = b"" if base == NO_BASE else digests[32 * base : 32 * base + 32]
        yield row, (joined.packs[pack], offset, length, codec, own, its_base)

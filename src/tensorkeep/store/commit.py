"""Commit: what one save does around the bytes that it writes, so that whatever interrupts it harms nobody.

    claim    what it may borrow, and its own name, before the first byte
    check    that what it borrows from is still there with the same bytes
    (packs   the saving room writes them, durable)
    index    created exclusively: the fence against whoever took this save for dead
    manifest created, or put in the place of just the one that it was to replace: the commit
    unclaim  when the outcome is known, and only then

Lives here: this order. Lives elsewhere: what stands in packs and indexes (saving), the cleaning (gc).
Source: docs/store-format.md, "Protocol".
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from tensorkeep.backends.keys import Backend, UnsureError
from tensorkeep.backends.processes import this_process
from tensorkeep.chunks import digest
from tensorkeep.errors import ClaimLost, CorruptError, FormatError, StepExists
from tensorkeep.store import claims, exclusive, names
from tensorkeep.store import manifest as manifests
from tensorkeep.store.exclusive import Outcome
from tensorkeep.store.known import Known as Known
from tensorkeep.store.manifest import Manifest, Part
from tensorkeep.store.sealed import seal

_NOT_ONES_OWN_BYTES: Final = 1 << 20  # of an index under one's own random name: whatever it is, it is not ours
_MEANWHILE: Final = {
    "consequence": "That was while this save was under way; nothing was changed.",
    "hint": "Save it once more to take the place of that one.",
}


@dataclass(frozen=True, slots=True)
class Writer:
    """Who changes a store, and which of its changes this one is.

    Attributes:
        id: random, 16 hex digits; see `names.new_writer`.
        number: that none of its saves, tags and replacements had before.
        by: machine and process, for people.
    """

    id: str
    number: int
    by: str


class Commit:
    """One save, from its claim to its manifest: a context manager.

    Left with a known outcome, it takes its claim back; else the claim stays, for the manifest may appear yet.

    Args:
        backend: of the store.
        writer: random id of whoever saves; two saves at once are two writers.
        number: of this save, which none of that writer had before.
        borrow_from: the manifests whose packs and indexes it may name in its own.
        by: machine and process, for people.

    Attributes:
        save: its name, `<writer>-<number>`.
        borrowed: inside of the block, those of `borrow_from` that are still there with the same bytes. Nothing else may be borrowed.

    Example:
        >>> with Commit(backend, names.new_writer(), 1, [base], by) as commit:  # doctest: +SKIP
        ...     write_packs(commit.save, commit.borrowed)
        ...     part = commit.put_index(index)
        ...     commit.put_manifest(manifest)
    """

    def __init__(self, backend: Backend, writer: str, number: int, borrow_from: Sequence[Known], by: str) -> None:
        self.save: Final = names.save_name(writer, number)
        if not names.is_save(self.save):
            raise ValueError(f"{self.save!r:.80} is no name of a save")
        self.borrowed: list[Known] = []
        self._backend, self._borrow_from = backend, borrow_from
        self._claim = claims.claim_of(self.save, by, this_process(), [known.manifest for known in borrow_from])
        self._fenced = False
        self._stays = False  # the claim: for something unanswered may commit yet

    def __enter__(self) -> Self:
        try:
            claims.make(self._backend, self._claim)
            self.borrowed = [known for known in self._borrow_from if still_there(self._backend, known)]
        except BaseException:  # nothing was committed
            self._unclaim()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._stays:
            self._unclaim()

    def keep_claim(self) -> None:
        """Leave the claim behind: somebody else commits what this save wrote, and nobody knows whether it was done."""
        self._stays = True

    @property
    def stays(self) -> bool:
        """Whether the claim will be left behind. Then those of all who wrote parts of the same checkpoint must be."""
        return self._stays

    def put_index(self, data: bytes) -> Part:
        """Create this save's index, durable. Its packs must be so already.

        Returns:
            What the manifest is to say of it.

        Raises:
            ClaimLost: the save was taken for dead; what it borrows may be gone.
        """
        if not data:
            raise ValueError("an empty index is a sign of gc's")
        self._fence(data)
        return Part(self.save, len(data), digest(data).hex())

    def put_manifest(self, manifest: Manifest, *, old: bytes | None = None) -> None:
        """Commit.

        Args:
            manifest: of this very save; whatever it names is durable.
            old: the manifest whose place it takes; None where there was none. If it was removed meanwhile, or gave up all but the weights,
                nothing is lost, and the save goes on.

        Raises:
            StepExists: somebody else was first.
            UnsureError: nobody can say whether it was committed; the claim stays.
            OSError: it was not committed.
        """
        if manifest.save != self.save:
            raise ValueError(f"a manifest of save {manifest.save!r:.80}, in save {self.save}")
        key = names.checkpoint_key(manifest.step)
        data, told = manifests.encode(manifest), {} if old is None else _MEANWHILE
        outcome = self.put(key, data, old=old)
        while not outcome.done and (outcome.other is None or _same_save(outcome.other, old)):
            old = outcome.other
            outcome = self.put(key, data, old=old)
        if outcome.done or outcome.other is None:
            return
        try:
            first = manifests.decode(outcome.other, f"{self._backend.name}/{key}", step=manifest.step)
        except (CorruptError, FormatError) as error:
            raise StepExists(self._backend.name, manifest.step, by="", time=None, **told) from error
        if first.save != self.save:
            raise StepExists(self._backend.name, manifest.step, by=first.by, time=first.time, **told)

    def put(self, key: str, data: bytes, *, old: bytes | None = None) -> Outcome:
        """Create what makes others rely on what this save claims, a manifest in `checkpoints/` or `tags/`; or put it in the place of one.

        Args:
            old: that one's bytes.
        """
        if not self._fenced:
            raise RuntimeError("no index was put: it is the fence of this save")
        stayed, self._stays = self._stays, True
        try:
            outcome = exclusive.put(self._backend, key, data, old=old, limit=manifests.MOST_BYTES)
        except UnsureError:
            raise
        except OSError:
            self._stays = stayed
            raise
        self._stays = stayed or outcome.late  # which may bring it back after somebody has removed it
        return outcome

    def put_fence(self) -> None:
        """For what writes no index of its own, such as a tag: its claim in that place, which nobody names afterwards.

        Raises:
            ClaimLost: the save was taken for dead.
        """
        self._fence(seal(self._claim))

    def _fence(self, data: bytes) -> None:
        outcome = exclusive.put(self._backend, names.index_key(self.save), data, limit=_NOT_ONES_OWN_BYTES)
        if outcome.other == b"":
            raise ClaimLost(self._backend.name, self.save)
        if not outcome.done:
            raise FormatError(f"{self._backend.name}/{names.index_key(self.save)}", "an index of another writer has this random name")
        self._fenced = True

    def _unclaim(self) -> None:
        with suppress(OSError):  # one that stays is dropped by gc, in time
            self._backend.delete(names.claim_key(self.save), durable=False)


def _same_save(one: bytes, other: bytes | None) -> bool:
    """Whether two manifests are of one save: the one, or the other, gave up all but the weights."""
    try:
        return other is not None and manifests.decode(one, "").save == manifests.decode(other, "").save
    except (CorruptError, FormatError):
        return False


def still_there(backend: Backend, known: Known) -> bool:
    """Whether a manifest is still there with the same bytes. What cannot be read is not."""
    try:
        return digest(backend.get(known.key, limit=manifests.MOST_BYTES)) == known.digest
    except OSError:
        return False

"""Checkpoints: what a person can do with those that are there. Saving is the other half (store)."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Final, Unpack, cast

from tensorkeep.backends.keys import Backend
from tensorkeep.errors import CheckpointGone, CorruptError, FormatError, TensorkeepWarning, warn
from tensorkeep.frameworks.restore import ANOTHER_CLASS
from tensorkeep.limits import Limits, limits_of
from tensorkeep.loading import Options, check_options, load_contents
from tensorkeep.store import gc, names, retention, tags
from tensorkeep.store.catalog import LOOKS, Catalog
from tensorkeep.store.checkpoint import open_checkpoint
from tensorkeep.store.commit import Writer
from tensorkeep.store.gc import Collected
from tensorkeep.store.keep import Keep
from tensorkeep.store.known import Known
from tensorkeep.store.results import Checkpoint, Resumed, shown
from tensorkeep.store.retention import Removal
from tensorkeep.store.storage import TRUST


class Checkpoints(ABC):
    """The committed checkpoints of a store.

    Args:
        backend: of the store.
        name: as the caller named it.
        keep: the policy of `prune`.
    """

    def __init__(self, backend: Backend, name: str, keep: Keep | None) -> None:
        self.name: Final = name
        self.keep = keep
        self._backend: Final = backend
        self._catalog: Final = Catalog(backend)

    @abstractmethod
    def _settle(self) -> None:
        """Before the store is looked at: what this process is saving shall be there."""

    @abstractmethod
    def _next_writer(self) -> Writer:
        """Who changes the store next."""

    @abstractmethod
    def _changed(self, step: int | None = None) -> None:
        """Checkpoints were removed; or the run goes on from a step."""

    def load(
        self,
        ref: "str | int" = "latest",
        *,
        verify: bool = True,
        mmap: bool | None = None,
        limits: Limits | None = None,
        **options: Unpack[Options],
    ) -> Any:
        """Load a checkpoint: into a model or state that is there, or as a new state.

        Args:
            ref: `latest`, `best`, `best:METRIC`, `step-1200`, a step, or a tag.
            verify, limits, options: as for `tensorkeep.load`, which tells what they mean.
            mmap: as there, but packs are never mapped, whatever it says.

        Returns:
            The state, as `tensorkeep.load` gives it.

        Raises:
            NoCheckpoint: there is none.
            CorruptError, FormatError, MismatchError: as for `tensorkeep.load`. Nothing was changed.

        Example:
            >>> import tensorkeep as tk
            >>> with tk.Store("runs/a") as store:
            ...     job = store.save({"lr": 0.1}, step=1)
            >>> tk.Store("runs/a").load("step-1")
            {'lr': 0.1}
        """
        check_options("load", options)
        limits = limits_of(limits)
        self._settle()
        return self._catalog.following(ref, lambda known: self._load(known, verify, limits, options))

    def _load(self, known: Known, verify: bool, limits: Limits, options: Options) -> Any:
        try:
            with open_checkpoint(self._backend, known, verify=verify, limits=limits) as contents:
                return load_contents(contents, limits=limits, **options)
        except (CorruptError, FormatError) as error:
            if _is_damage(error):
                self._catalog.found_damaged(known, error)
            raise

    def resume(
        self, *, verify: bool = True, mmap: bool | None = None, limits: Limits | None = None, **options: Unpack[Options]
    ) -> Resumed | None:
        """Load the newest checkpoint that is intact: where a run goes on.

        Args:
            verify, mmap, limits, options: as for `load`; `into=` above all.

        Returns:
            Its `step`, `metrics`, `time` and `state`, and what was `skipped` and why, of which a warning tells too; None where the store
            has no checkpoint yet.

        Raises:
            MismatchError: the checkpoint does not fit the target. Nothing was changed.
            CorruptError, FormatError: every checkpoint is damaged: the error of the newest. Or the newest intact one is beyond `limits`.
        """
        check_options("resume", options)
        limits = limits_of(limits)
        self._settle()
        for left in reversed(range(LOOKS)):
            try:
                found, wrong = self._newest_intact(verify, limits, options, may_go=not left)
                break
            except CheckpointGone:
                continue  # where another process saves and removes, there is a newer one
        if not wrong:
            return found
        skipped = tuple((step, str(wrong[step])) for step in sorted(wrong, reverse=True))
        if found is None:
            raise wrong[skipped[0][0]]
        said = "\n".join(f"  step {step}: {why}" for step, why in skipped)
        warn(TensorkeepWarning(f"{self.name}: resumed from step {found.step}; newer ones are damaged:\n{said}"))
        return dataclasses.replace(found, skipped=skipped)

    def _newest_intact(
        self, verify: bool, limits: Limits, options: Options, *, may_go: bool
    ) -> tuple[Resumed | None, dict[int, Exception]]:
        """The newest checkpoint that can be loaded, and what is wrong with newer ones. `may_go`: one that goes meanwhile is passed over."""
        listing = self._catalog.look()
        wrong: dict[int, Exception] = {}
        found: Resumed | None = None
        for known in listing.downwards():
            try:
                state = self._load(known, verify, limits, options)
            except (CorruptError, FormatError, CheckpointGone) as error:
                if not (may_go if isinstance(error, CheckpointGone) else _is_damage(error)):
                    raise
                wrong[known.step] = error
                continue
            manifest = known.manifest
            found = Resumed(manifest.step, manifest.numbers(), manifest.time, state)
            self._changed(manifest.step)
            break
        return found, wrong | {cast(int, names.step_of(key)): error for key, error in listing.damaged.items()}

    def steps(self) -> list[int]:
        """The steps of all committed checkpoints, ascending: one listing, and nothing is read. What is damaged since is among them."""
        self._settle()
        return self._catalog.look().steps()

    def __iter__(self) -> Iterator[Checkpoint]:
        """All committed checkpoints, ascending."""
        self._settle()
        yield from map(shown, self._catalog.look().all())

    def damaged(self) -> dict[str, str]:
        """The manifests of checkpoints and tags that cannot be read, by key, and why: they count as not there."""
        self._settle()
        listing = self._catalog.look()
        listing.all(), listing.tags()
        return {key: str(error) for key, error in listing.damaged.items()}

    def tag(self, name: str, ref: "str | int" = "latest", *, move: bool = False) -> Checkpoint:
        """Tag a checkpoint: whatever the policy says, it stays.

        Args:
            name: of letters, digits, `.`, `_` and `-`.
            ref: the checkpoint. `latest` and `best` are another one, should it go meanwhile.
            move: take the tag from the checkpoint that has it.

        Returns:
            The checkpoint.

        Raises:
            NoCheckpoint: there is none.
            TagExists: the tag is on another one, and `move` is False.
        """
        self._settle()
        for left in reversed(range(LOOKS)):
            try:
                return shown(tags.put(self._catalog, name, ref, self._next_writer(), move=move))
            except CheckpointGone:
                if not left or names.parse_ref(ref).kind not in ("latest", "best"):
                    raise
        raise AssertionError("the last look returns or raises")

    def tags(self) -> dict[str, Checkpoint]:
        """The checkpoint of each tag."""
        self._settle()
        return {name: shown(known) for name, known in self._catalog.look().tags().items()}

    def delete(self, *refs: "str | int", dry_run: bool = False) -> Removal:
        """Remove checkpoints, or tags by their names. What they alone needed goes with the next `gc`.

        Args:
            refs: as for `load`. What a tag is on stays until the tag is removed too.
            dry_run: only say what it would free.

        Raises:
            NoCheckpoint: one is not there. Nothing was removed.
        """
        self._settle()
        return self._removed(retention.delete(self._catalog, refs, dry_run=dry_run))

    def rollback(self, ref: "str | int", *, dry_run: bool = False) -> Removal:
        """Remove every checkpoint after one, so that a rerun can save those steps again.

        Args:
            ref: the checkpoint to go back to; it stays.
            dry_run: only say what it would free.

        Raises:
            NoCheckpoint: it is not there.
            CorruptError, FormatError: it is damaged. Nothing was removed.
        """
        self._settle()
        return self._removed(retention.rollback(self._catalog, ref, dry_run=dry_run))

    def prune(self, keep: Keep | None = None, *, dry_run: bool = False) -> Removal:
        """Apply a policy now. What that frees goes with the next `gc`.

        Args:
            keep: the policy; the store's own by default.
            dry_run: only say what would become of the checkpoints.

        Raises:
            ValueError: there is no policy.
            NoCheckpoint: `keep` is to keep the best of a metric that no checkpoint has. Nothing was removed.
        """
        policy = keep or self.keep
        if policy is None:
            raise ValueError(f"{self.name} keeps everything: prune(Keep(last=3)), say, would not")
        if not isinstance(policy, Keep):
            raise TypeError(f"prune() takes a tensorkeep.Keep, such as Keep(last=3), found {policy!r:.80}")
        self._settle()
        if keep is not None:  # a metric that is misspelt would cost the best; the store's own policy may be older than its first metrics
            listing = self._catalog.look()
            for metric in keep.directions if listing.steps() else ():
                listing.scored(metric)
        return self._removed(retention.prune(self._catalog, policy, self._next_writer(), dry_run=dry_run))

    def gc(self, *, dry_run: bool = False) -> Collected:
        """Remove what no checkpoint needs: of removed ones, and of saves that were killed.

        Args:
            dry_run: only say what it would free.
        """
        self._settle()
        return gc.collect(self._catalog, dry_run=dry_run)

    def _removed(self, removal: Removal) -> Removal:
        if not removal.dry_run:
            self._changed()
        return removal


def _is_damage(error: Exception) -> bool:
    """Whether it says that a checkpoint is not what was saved, and not that its reader would not take so much, or cannot build it."""
    return not isinstance(error, FormatError) or error.hint not in (TRUST, ANOTHER_CLASS)

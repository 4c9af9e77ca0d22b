"""The recorder: a store's saves, one after the other, from the snapshot to the commit, and what is tidied afterwards.

It remembers what it has committed: the next save borrows from there, without a look at the store.

Lives here: the order of a save's steps. Lives elsewhere: each of them.
"""

import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from typing import Final, Literal

from tensorkeep.backends.keys import Backend, UnsureError
from tensorkeep.chunks import digest
from tensorkeep.errors import CorruptError, FormatError, StepExists, TensorkeepError, TensorkeepWarning, sized, warn
from tensorkeep.limits import DEFAULT_LIMITS
from tensorkeep.store import gc, names, retention
from tensorkeep.store import index as indexes
from tensorkeep.store import manifest as manifests
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.checkpoint import read_index
from tensorkeep.store.commit import Commit, Writer
from tensorkeep.store.encoding import Encoder
from tensorkeep.store.intact import Look
from tensorkeep.store.job import Job
from tensorkeep.store.keep import Keep
from tensorkeep.store.known import Known, size_of
from tensorkeep.store.manifest import Manifest
from tensorkeep.store.outlook import outlook
from tensorkeep.store.saving import KnownChunks, Saving, Source
from tensorkeep.store.sealed import UPGRADE
from tensorkeep.store.snapshot import Plan, Snapshot

Compress = Literal["auto", "none", "max"]

_LOOK_S: Final = 0.5  # from look to look whether the process ends
_MOST_GAINED: Final = 2  # times: what would not fit if it were halved is refused at once


class Recorder:
    """What writes a store's checkpoints, one at a time.

    Args:
        catalog: of the store.
        keep: which checkpoints stay.
        compress: how.
    """

    def __init__(self, catalog: Catalog, keep: Keep | None, compress: Compress) -> None:
        self.backend: Final[Backend] = catalog.backend
        self.catalog, self.keep, self.compress = catalog, keep, compress
        self.id: Final = names.new_writer()
        self._saves = 0
        self._by = f"{socket.gethostname()}, process {os.getpid()}"
        self._looked = False  # whether the store was looked at
        self._newest: tuple[Known, Source] | None = None  # the checkpoint that the next save borrows from
        self._keyframe: tuple[Known, Source] | None = None  # the one whose chunks its deltas refer to
        self._best: dict[str, manifests.Direction] = {} if keep is None else keep.directions
        self._unmet = set(self._best)  # metrics whose best is to be kept, and that no save had yet
        self._encoder = Encoder(self.backend, compress, keep)
        self._owed = False  # whether something was freed and not removed yet
        self._collecting: Generator[None, None, gc.Collected] | None = None  # and what has begun to
        self._passed_s = 0.0  # when its last pass ended
        self.hurry: Final = threading.Event()  # set by whoever waits for the thread that tidies
        self.untold = ""  # what went wrong in tidying, and nobody was told

    def prepare(self, step: int, overwrite: bool) -> bytes | None:
        """Look at the store, before the first save, and see that a step is free. One whose checkpoint is damaged is.

        Returns:
            The manifest whose place the save takes; None where there is none.

        Raises:
            StepExists: it is not.
            FormatError: it is no store, or one of a newer release.
        """
        if not self._looked:
            self._begin()
            newest = next((known for known in self.catalog.look().downwards() if self._is_sound(known)), None)
            if newest is not None:
                self._borrow(newest)
            self._looked = True
        try:
            there = self.backend.get(names.checkpoint_key(step), limit=manifests.MOST_BYTES)
        except FileNotFoundError:
            return None
        return there if overwrite or self._is_damaged(step, there) else None

    def _is_sound(self, known: Known) -> bool:
        """Whether it may be borrowed from: what refers to damaged chunks is damaged too."""
        return Look(self.catalog, DEFAULT_LIMITS).problem(known) is None

    def _is_damaged(self, step: int, data: bytes) -> bool:
        """Whether what was saved of a step, with this manifest, is damaged. The commit has the last word, but a copy in memory is spared.

        Raises:
            StepExists: it is not damaged.
        """
        key = names.checkpoint_key(step)
        try:
            there = Known(key, "", digest(data), manifests.decode(data, f"{self.backend.name}/{key}", step=step))
        except (CorruptError, FormatError) as error:
            return getattr(error, "hint", "") != UPGRADE  # a later release's is none of ours to replace
        if self._is_sound(there):
            raise StepExists(self.backend.name, step, by=there.manifest.by, time=there.manifest.time)
        return True

    def _begin(self) -> None:
        """See that it is a store, or make it one."""
        try:
            self.backend.create(names.STORE, [memoryview(manifests.encode_settings())])
        except (FileExistsError, UnsureError):
            manifests.check_settings(self.backend.get(names.STORE, limit=1 << 20), f"{self.backend.name}/{names.STORE}")

    def _borrow(self, newest: Known) -> None:
        """Read what a checkpoint of another process, or of a former run, has; if it is damaged, nothing is borrowed from it."""
        self._best = {**newest.manifest.best, **self._best}
        with suppress(CorruptError, FormatError, FileNotFoundError):
            self._newest = newest, self._source(newest)
            if newest.manifest.keyframe is None:
                self._keyframe = self._newest
                return
            step, save = newest.manifest.keyframe
            keyframe = self.catalog.look().at(step)
            if keyframe is not None and keyframe.manifest.save == save:
                self._keyframe = keyframe, self._source(keyframe)

    def _source(self, known: Known) -> Source:
        packs = {pack.name: pack.nbytes for pack in known.manifest.packs}
        return Source(known.manifest, read_index(self.backend, known, known.manifest.indexes[0], packs, DEFAULT_LIMITS))

    def check_room(self, plan: Plan) -> None:
        """Before the first save: say what to expect. Before any: refuse what cannot fit, before anything is copied.

        Raises:
            OSError: ENOSPC.
        """
        free = self.backend.free_bytes()
        if not self._saves:
            expected = outlook(self.backend.name, plan.nbytes, self.keep, free)
            logging.getLogger("tensorkeep").info("%s", expected)
            if expected.tight:
                warn(TensorkeepWarning(str(expected)))
        if free is None or self._newest is not None:  # most of it may be known
            return
        least = plan.nbytes if self.compress == "none" else plan.nbytes // _MOST_GAINED
        if least > free:
            said = f"no room for a checkpoint of {sized(plan.nbytes)}: {sized(free)} are free. Nothing was copied or written"
            raise OSError(errno.ENOSPC, said, self.backend.name)

    def write(self, job: Job, taken: Snapshot, step: int, metrics: Mapping[str, float | str], old: bytes | None) -> None:
        """Write a snapshot and commit it, in the place of what `prepare` found there."""
        remembered = [one for one in (self._keyframe, self._newest) if one is not None and self.catalog.damage_of(one[0]) is None]
        at_hand = {known.key: (known, source) for known, source in remembered}
        writer = self.next_writer()
        with Commit(self.backend, writer.id, writer.number, [known for known, _ in at_hand.values()], writer.by) as commit:
            there = {known.key for known in commit.borrowed if self._has_packs(known)}
            self._see_settings()
            sources = [source for key, (_, source) in reversed(at_hand.items()) if key in there]
            keyframe = self._keyframe[1] if self._keyframe is not None and self._keyframe[0].key in there else None
            encoding = self._encoder.begin(taken, keyframe, step)
            saving = Saving(commit.save, taken, KnownChunks(sources), encoding.encode)
            began = time.perf_counter()
            saving.write(self.backend, job.tell)
            seconds = time.perf_counter() - began
            data, packs = saving.index()
            part = commit.put_index(data)
            job.new_bytes = saving.new_bytes + len(data)
            manifest = Manifest(
                step=step,
                save=commit.save,
                by=writer.by,
                time=time.time(),
                metrics=dict(metrics),
                best=self._best,
                nbytes=taken.plan.nbytes,
                new_bytes=job.new_bytes,
                tensors=sum(len(group.shards) for group in taken.groups.values()),
                keyframe=None if encoding.keyframe is None else (encoding.keyframe.step, encoding.keyframe.save),
                packs=packs,
                indexes=[part],
            )
            commit.put_manifest(manifest, old=old)
        self._unmet -= metrics.keys()
        self._encoder.ended(encoding, saving.new_bytes, seconds)
        known = Known(names.checkpoint_key(step), "", digest(manifests.encode(manifest)), manifest)
        sizes = {pack.name: pack.nbytes for pack in packs}
        index = indexes.decode(data, part, sizes, DEFAULT_LIMITS, f"{self.backend.name}/{names.index_key(commit.save)}")
        self.catalog.read_whole(known)  # so that the policy need not read it back
        self._newest = known, Source(manifest, index)
        if manifest.keyframe is None:
            self._keyframe = self._newest

    def _has_packs(self, known: Known) -> bool:
        """Whether what it needs is there: somebody may have removed it by hand. A bucket is not asked, for each answer takes its time."""
        if self.backend.kind != "folder":
            return True
        return all(size_of(self.backend, names.pack_key(pack.name)) == pack.nbytes for pack in known.manifest.packs)

    def _see_settings(self) -> None:
        """A folder that was removed during a run, and is made anew, is to be a store again."""
        if self.backend.kind == "folder" and size_of(self.backend, names.STORE) is None:
            self._begin()

    def failed(self) -> None:
        """A save failed: what it left behind goes after the next one."""
        self._owed = True

    def forget(self) -> None:
        """Let go of what was remembered: somebody removed checkpoints."""
        self._newest = self._keyframe = None
        self._looked = False

    def next_writer(self) -> Writer:
        """Who does the next thing that changes the store."""
        number, self._saves = self._saves, self._saves + 1
        return Writer(self.id, number, self._by)

    def tidy(self, *, prune: bool = True) -> None:
        """Apply the policy, and remove what it freed. Whatever goes wrong here, what was saved is saved: a warning tells it.

        Args:
            prune: whether the policy is applied; else what it freed before is removed.
        """
        try:
            if prune and self.keep is not None:
                removed = retention.prune(self.catalog, self.keep, self.next_writer())
                self._owed |= bool(removed.steps or removed.weights_only)
                if removed.steps and self._unmet:
                    self._tell_of_unmet()
                if self._newest is not None and self._newest[0].step in (*removed.steps, *removed.weights_only):
                    self._tell_of_overtaken(self._newest[0].step, removed)
            self._collect()
        except Exception as error:  # noqa: BLE001  # of a function of the caller's, too; a thread ends here
            said = error if isinstance(error, (OSError, TensorkeepError)) else f"{type(error).__name__}: {error}"
            self.untold = f"{self.backend.name}: old checkpoints could not be removed: {said}"

    def _tell_of_unmet(self) -> None:
        """Say once that checkpoints go although the best of some metric was to stay, and none has it: it may be misspelt."""
        met = {metric for known in self.catalog.look().all() for metric in known.manifest.metrics}
        missing, self._unmet = sorted(self._unmet - met), set()
        if missing:
            found = f"their metrics are {', '.join(map(repr, sorted(met)))}" if met else "save(metrics=...) gave none"
            self.untold = (
                f"{self.backend.name}: no checkpoint has {', '.join(map(repr, missing))}, whose best keep= wants to stay: {found:.500}"
            )

    def _tell_of_overtaken(self, step: int, removed: retention.Removal) -> None:
        """Say that what was just saved is gone: a run that goes on beside later steps of before would keep nothing, and not know."""
        lost = "did not keep it" if step in removed.steps else "kept its weights alone"
        self.untold = (
            f"{self.backend.name}: step {step} was saved, and keep= {lost}, for there are later steps: "
            f"where a run goes on from an earlier one, rollback() removes those first"
        )

    def _collect(self) -> None:
        """Remove what the policy freed. Where listings may be a minute old, it waits between its passes, but for nobody who waits for it.

        What it did not come to is done behind a later save.
        """
        while self._owed or self._collecting is not None:
            if self._collecting is None:
                self._collecting, self._owed = gc.collecting(self.catalog), False
            elif not self._minute_passes():
                return
            try:
                next(self._collecting)
                self._passed_s = time.monotonic()
            except StopIteration:
                self._collecting = None
            except BaseException:
                self._collecting, self._owed = None, True
                raise

    def _minute_passes(self) -> bool:
        """Wait until listings are as new as the last pass; False where somebody waits for this thread, or the process ends."""
        while (left := self._passed_s + gc.SETTLED_S - time.monotonic()) > 0:
            if self.hurry.wait(min(left, _LOOK_S)) or not threading.main_thread().is_alive():
                return False
        return True

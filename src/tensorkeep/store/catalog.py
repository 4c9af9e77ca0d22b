"""The catalog: which checkpoints and tags a store has.

Lives here: listing, reading manifests side by side and keeping them, what a reference means.
Lives elsewhere: one manifest (known), what it says (manifest), which of them stay (keep), the names (names).

A damaged manifest counts as not there: it is told in `Listing.damaged` and hides no other.
"""

import difflib
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, TypeVar

from tensorkeep import workers
from tensorkeep.backends.keys import Backend, Entry
from tensorkeep.errors import CheckpointGone, CorruptError, FormatError, NoCheckpoint
from tensorkeep.store import names
from tensorkeep.store.known import Known, concerns_one_object, read
from tensorkeep.store.manifest import Direction
from tensorkeep.store.metrics import known_direction
from tensorkeep.store.names import Ref

_REQUESTS: Final = 16  # at once, where each waits for an answer
LOOKS: Final = 10  # at most, where what was listed is gone before it is read: another process saves and removes meanwhile
_SHOWN: Final = 6

T = TypeVar("T")
Damage = CorruptError | FormatError | OSError


class Catalog:
    """What was read of a store's manifests so far, whose bytes never change under one version. For any thread.

    Args:
        backend: of the store.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend: Final = backend
        self._lock = threading.Lock()
        self._read: dict[tuple[str, str], Known | Damage] = {}
        self._damaged: dict[bytes, Exception] = {}
        self._whole: set[bytes] = set()

    def look(self) -> "Listing":
        """What there is now: one listing, and nothing is read yet."""
        return Listing(self, self.entries(names.CHECKPOINTS))

    def following(self, ref: "str | int | Ref", read: Callable[[Known], T]) -> T:
        """What can be read of the checkpoint that a reference means. `latest` and `best` are another one, should it go meanwhile.

        Raises:
            CheckpointGone: it went; or one went each time that it was looked for.
            NoCheckpoint, ValueError, CorruptError, FormatError: see `Listing.find`.
        """
        for left in reversed(range(LOOKS)):
            listing = self.look()
            known = listing.find(ref)
            try:
                return read(known)
            except CheckpointGone:
                if not left or listing.parsed(ref).kind not in ("latest", "best"):
                    raise
        raise AssertionError("the last look returns or raises")

    def entries(self, prefix: str) -> list[Entry]:
        """The manifests of a folder, as they are listed now. What was read of others is forgotten."""
        listed = self.backend.list(prefix, strays=True)
        found = [entry for entry in listed if names.step_of(entry.key) is not None or names.tag_of(entry.key) is not None]
        there = {(entry.key, entry.version) for entry in found}
        with self._lock:
            for gone in [at for at in self._read if at[0].startswith(prefix) and at not in there]:
                del self._read[gone]
        return found

    def read(self, entries: Iterable[Entry]) -> dict[str, Known | Damage]:
        """Manifests by key, those that are new read side by side. One that is gone by now is left out.

        Raises:
            OSError: the storage does not answer. What concerns one manifest alone is its damage.
        """
        entries = list(entries)
        with self._lock:
            found = {entry.key: self._read.get((entry.key, entry.version)) for entry in entries}
        new = [entry for entry in entries if found[entry.key] is None]
        waits = self.backend.kind == "object store" or (len(new) > 1 and self.backend.slow_listing)
        jobs = ((entry.nbytes, partial(self._read_one, entry, found)) for entry in new)
        workers.run(jobs, nbytes=0, threads=min(_REQUESTS, len(new)) if waits else None)
        return {key: known for key, known in found.items() if known is not None}

    def _read_one(self, entry: Entry, found: dict[str, Known | Damage | None]) -> None:
        known: Known | Damage
        try:
            known = read(self.backend, entry.key, entry.version, entry.modified)
        except FileNotFoundError:
            return
        except (CorruptError, FormatError) as error:
            known = error
        except OSError as error:
            if not concerns_one_object(error):
                raise
            found[entry.key] = error  # may be read next time
            return
        with self._lock:
            self._read[entry.key, entry.version] = known
        found[entry.key] = known

    def found_damaged(self, known: Known, error: Exception) -> None:
        """Remember that a load or a verification found a checkpoint damaged: to retention it is not intact any more."""
        with self._lock:
            self._damaged[known.digest] = error

    def damage_of(self, known: Known) -> Exception | None:
        """What was found damaged in it so far; None if nothing was."""
        with self._lock:
            return self._damaged.get(known.digest)

    def read_whole(self, known: Known) -> None:
        """Remember that a checkpoint's indexes were read and are right: they never change."""
        with self._lock:
            self._whole.add(known.digest)

    def was_read_whole(self, known: Known) -> bool:
        """Whether its indexes were read before and were right."""
        with self._lock:
            return known.digest in self._whole


class Listing:
    """The checkpoints that a store had at one moment. Manifests are read when they are asked for.

    Attributes:
        damaged: the manifests that were asked for and are damaged: by key, and why.
    """

    def __init__(self, catalog: Catalog, entries: Iterable[Entry]) -> None:
        self._catalog, self._store = catalog, catalog.backend.name
        self._entries = self._by_step(entries)
        self._looks = 1
        self.damaged: dict[str, Damage] = {}

    @staticmethod
    def _by_step(entries: Iterable[Entry]) -> dict[int, Entry]:
        numbered = ((names.step_of(entry.key), entry) for entry in entries)
        return dict(sorted((step, entry) for step, entry in numbered if step is not None))

    def downwards(self) -> Iterator[Known]:
        """From the newest to the oldest, each read when it is its turn."""
        found = False
        while not found:
            for step in reversed(self._entries):
                if (known := self.at(step)) is not None:
                    found = True
                    yield known
            if not found and not self._is_listed_anew():
                return

    def steps(self) -> list[int]:
        """The steps that have a manifest, be it damaged or not, ascending. Nothing is read."""
        return list(self._entries)

    def newest(self) -> Known | None:
        """The checkpoint of the highest step; None if there is none."""
        return next(self.downwards(), None)

    def at(self, step: int) -> Known | None:
        """The checkpoint of a step; None if there is none."""
        entry = self._entries.get(step)
        return next(iter(self._take([entry])), None) if entry is not None else None

    def all(self) -> list[Known]:
        """All of them, by step."""
        while not (found := self._take(self._entries.values())) and self._is_listed_anew():
            pass
        return found

    def _is_listed_anew(self) -> bool:
        """List once more where nothing could be read, and not for damage; False where that is no use.

        A store that another process saves into, and removes from, is never without a checkpoint. But what was listed may be gone before it
        is read, and a folder is not listed at one moment: neither the name that goes meanwhile nor the one that comes may be seen.
        """
        self._looks += 1
        if self.damaged or self._looks > LOOKS or not (self._entries or self._catalog.backend.kind == "folder"):
            return False
        before, self._entries = self._entries, self._by_step(self._catalog.entries(names.CHECKPOINTS))
        return bool(before or self._entries)

    def tags(self) -> dict[str, Known]:
        """What each tag stands for: one more listing."""
        known = self._take(self._catalog.entries(names.TAGS))
        return {one.key.removeprefix(names.TAGS): one for one in known}

    def parsed(self, ref: "str | int | Ref") -> Ref:
        """A reference, whatever it means.

        Raises:
            ValueError: it is none.
        """
        try:
            return names.parse_ref(ref)
        except ValueError as error:
            raise ValueError(f"{self._store}: {error}") from None

    def find(self, ref: "str | int | Ref") -> Known:
        """The checkpoint that a reference means.

        Args:
            ref: `latest`, `best`, `best:loss`, `step-1200`, the step as an int, or a tag.

        Raises:
            NoCheckpoint: there is none; the message lists what there is.
            ValueError: it is no reference; or nobody knows which values of the metric are good.
            CorruptError, FormatError: its manifest is damaged.
        """
        ref = self.parsed(ref)
        if ref.kind == "latest":
            newest = self.newest()
            if newest is None:
                raise self._nothing(ref)
            return newest
        if ref.kind == "best":
            return self.best(ref.name)
        return self._step(ref) if ref.kind == "step" else self._tag(ref)

    def best(self, metric: str = "") -> Known:
        """The checkpoint with the best value of a metric; of equal ones the first. NaN is never the best.

        Args:
            metric: its name; "" for the one that the run was told to keep the best of.

        Raises:
            NoCheckpoint: none has that metric, or the run was told of none.
            ValueError: nobody knows which values of it are good.
        """
        ref = Ref("best", metric)
        known = self.all()
        if not known:
            raise self._nothing(ref)
        if not metric:
            told = next((one.manifest.best for one in reversed(known) if one.manifest.best), {})
            if len(told) != 1:
                said = f"it keeps the best of {_some(told)}" if told else "nobody has said what is best"
                raise NoCheckpoint(self._store, ref, f"{said}: best:METRIC with a metric's name is wanted; {self._metrics(known)}")
            (metric,) = told
        direction = direction_of(metric, known)
        scored = self.scored(metric)
        if direction is None:
            raise ValueError(
                f"{self._store}: whether more of {metric!r:.80} is better nobody has said: "
                f"save with keep=Keep(best={{{metric!r:.80}: 'min'}}) or 'max'"
            )
        return (min if direction == "min" else max)(scored, key=lambda pair: pair[0])[1]

    def scored(self, metric: str) -> list[tuple[float, Known]]:
        """The checkpoints that have a number as a metric, by step, each with that. NaN is none.

        Raises:
            NoCheckpoint: none has.
        """
        known = self.all()
        scored = [(one.manifest.numbers()[metric], one) for one in known if metric in one.manifest.metrics]
        scored = [(value, one) for value, one in scored if not math.isnan(value)]
        if not scored:
            said = f"no checkpoint has a number as {metric!r:.80}; {self._metrics(known, metric)}"
            raise NoCheckpoint(self._store, Ref("best", metric), said)
        return scored

    def _take(self, entries: Iterable[Entry]) -> list[Known]:
        found = []
        for key, known in self._catalog.read(entries).items():
            if isinstance(known, Known):
                found.append(known)
            else:
                self.damaged[key] = known
        return found

    def _step(self, ref: Ref) -> Known:
        known = self.at(ref.step)
        if known is not None:
            return known
        self._tell_damage(names.checkpoint_key(ref.step))
        if not self._entries:
            raise self._nothing(ref)
        near = sorted(sorted(self._entries, key=lambda step: abs(step - ref.step))[:_SHOWN])
        raise NoCheckpoint(
            self._store,
            ref,
            f"it has {len(self._entries):,}, from step {min(self._entries)} to {max(self._entries)}; near are {_some(near)}",
        )

    def _tag(self, ref: Ref) -> Known:
        key = names.tag_key(ref.name)
        try:
            return read(self._catalog.backend, key)
        except FileNotFoundError:
            pass
        except (CorruptError, FormatError) as error:
            self.damaged[key] = error
            raise
        tags = self.tags()
        self._tell_damage(key)
        if not tags and not self._entries:
            raise self._nothing(ref)
        close = difflib.get_close_matches(ref.name, tags, n=_SHOWN)
        if not close and (meant := self._meant(ref.name)):
            raise NoCheckpoint(self._store, ref, f"it is no tag; did you mean {meant}?")
        close = close or list(tags)
        said = f"its tags are {_some(close)}" if len(close) == len(tags) else f"near are {_some(close)}, of {len(tags):,} tags"
        raise NoCheckpoint(self._store, ref, said if tags else "it has no tags; latest, best, best:METRIC and step-1200 are references too")

    def _meant(self, name: str) -> str:
        """Another kind of reference that somebody may have meant by what is no tag; "" if there is none."""
        number = re.search("[0-9]+$", name)
        if number and int(number[0]) in self._entries:
            return f"step-{int(number[0])}"
        return next(iter(difflib.get_close_matches(name, ["latest", "best"], n=1)), "")

    def _tell_damage(self, key: str) -> None:
        if key in self.damaged:
            raise self.damaged[key]

    def _nothing(self, ref: Ref) -> NoCheckpoint:
        damaged = f": the manifests of {len(self.damaged):,} are damaged" if self.damaged else ""
        return NoCheckpoint(self._store, ref, f"it has no checkpoint{damaged or self._no_store()}")

    def _no_store(self) -> str:
        """What to say where there is no store at all, as of a name that is misspelt."""
        try:
            self._catalog.backend.stat(names.STORE)
        except FileNotFoundError:
            return ", as no store is there yet"
        except OSError:
            pass  # nobody can say
        return ""

    @staticmethod
    def _metrics(known: list[Known], metric: str = "") -> str:
        found = list(dict.fromkeys(name for one in reversed(known) for name in one.manifest.metrics))
        if not found:
            return "no checkpoint has metrics"
        return f"metrics are {_some(difflib.get_close_matches(metric, found, n=_SHOWN) or found)}"


def direction_of(metric: str, known: Iterable[Known]) -> Direction | None:
    """Whether less or more of a metric is better: as the newest manifest has it that says so, else as its name does."""
    told = [one.manifest.best[metric] for one in known if metric in one.manifest.best]
    return told[-1] if told else known_direction(metric)


def _some(things: Iterable[object]) -> str:
    texts = [str(thing) for thing in things]
    more = len(texts) - _SHOWN
    return ", ".join(texts[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")

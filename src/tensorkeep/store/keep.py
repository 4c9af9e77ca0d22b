"""What to keep: which checkpoints stay, which give up all but their weights, and when the next is due.

Pure decisions over what manifests say. Lives elsewhere: removing (retention), who asks after each commit (saving).

Damage never makes a checkpoint go: where a rule looks for so many, or for the best, it goes on until it has found intact ones, and keeps
the damaged ones that it met on the way. So the newest intact checkpoint always stays.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, SupportsFloat, SupportsIndex

from tensorkeep.store.manifest import Direction
from tensorkeep.store.metrics import known_direction

_SAMPLE: Final = 1000  # saves that a forecast of dependants looks at


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint, as a policy sees it.

    Attributes:
        step: which one.
        time: when it was saved, in seconds since 1970.
        metrics: the numbers that were given with it.
        nbytes: bytes of all its tensors.
        weights_only: whether the rest of its state was given up.
        tagged: whether a tag is on it.
    """

    step: int
    time: float
    metrics: Mapping[str, float]
    nbytes: int = 0
    weights_only: bool = False
    tagged: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of checkpoints.

    Attributes:
        remove: steps that go, ascending.
        weights_only: steps that give up all but their weights, ascending.
    """

    remove: list[int]
    weights_only: list[int]


@dataclass(frozen=True, slots=True)
class Retained:
    """How many checkpoints a store holds.

    Attributes:
        full: with their whole state.
        weights_only: with their weights alone.
    """

    full: int
    weights_only: int


@dataclass(frozen=True, kw_only=True)
class Keep:
    """Which checkpoints of a run stay. One stays if any rule keeps it; without a rule, all do.

    The newest intact checkpoint stays whatever the rules say, and so do those with a tag.

    Args:
        last: so many, counted from the newest.
        best: the one with the best value of a metric. Its name, such as `"loss"`; or `{name: "min"}` or `"max"`, for one or several.
        every: those whose step is a multiple of this.
        within: those that were saved at most this long before the newest.
        weights_only_after: of all but so many, counted from the newest, only the weights stay: whatever no optimizer's adapter captured.
        also: asked about each that no rule keeps; true keeps it.

    Raises:
        ValueError: a number below 1, a span of time that is none, or a metric whose name does not say whether less is better.

    Example:
        >>> import tensorkeep as tk
        >>> tk.Keep(last=3, best="val_loss", every=1000).directions
        {'val_loss': 'min'}
        >>> tk.Keep(best="heat")
        Traceback (most recent call last):
        ...
        ValueError: whether more of 'heat' is better its name does not say: Keep(best={'heat': 'min'}) or 'max'
    """

    last: int | None = None
    best: str | Mapping[str, Direction] | None = None
    every: int | None = None
    within: timedelta | None = None
    weights_only_after: int | None = None
    also: Callable[[Candidate], bool] | None = None

    def __post_init__(self) -> None:
        for name in ("last", "every", "weights_only_after"):
            object.__setattr__(self, name, _count(f"Keep({name}=)", getattr(self, name)))
        if self.within is not None and not (isinstance(self.within, timedelta) and self.within > timedelta()):
            raise ValueError(f"Keep(within=) is {self.within!r:.80}; it takes a datetime.timedelta above 0, such as timedelta(hours=6)")
        if self.also is not None and not callable(self.also):
            raise ValueError(f"Keep(also=) is {self.also!r:.80}; it takes a function that is given a checkpoint and says whether it stays")
        if self.best is not None and not isinstance(self.best, str):
            if not isinstance(self.best, Mapping) or not self.best:
                raise ValueError(f"Keep(best=) is {self.best!r:.80}; it takes a metric's name, or {{name: 'min' or 'max'}}")
            object.__setattr__(self, "best", dict(self.best))
        _directions(self.best)

    @property
    def directions(self) -> dict[str, Direction]:
        """The metrics of `best`, and whether less or more of each is better."""
        return _directions(self.best)

    def decide(self, candidates: Iterable[Candidate], intact: Callable[[Candidate], bool]) -> Decision:
        """What becomes of checkpoints under this policy.

        Args:
            candidates: all that have a manifest.
            intact: whether nothing is known to be wrong with one. Asked only about those on which something depends.
        """
        ordered = sorted(candidates, key=lambda one: one.step)
        known: dict[int, bool] = {}

        def sound(one: Candidate) -> bool:
            if one.step not in known:
                known[one.step] = intact(one)
            return known[one.step]

        kept = self._kept(ordered, sound)
        left = [one for one in ordered if one.step in kept]
        return Decision([one.step for one in ordered if one.step not in kept], self._lightened(left, sound))

    def _kept(self, ordered: Sequence[Candidate], sound: Callable[[Candidate], bool]) -> set[int]:
        if self._keeps_all:
            return {one.step for one in ordered}
        kept = _until(sound, reversed(ordered), self.last or 1)
        for metric, direction in self.directions.items():
            sign = 1 if direction == "min" else -1
            scored = [one for one in ordered if metric in one.metrics and not math.isnan(one.metrics[metric])]
            kept |= _until(sound, sorted(scored, key=lambda one: (sign * one.metrics[metric], one.step)), 1)
        for one in ordered:
            if one.step not in kept and (
                one.tagged
                or (self.every is not None and one.step % self.every == 0)
                or (self.within is not None and ordered[-1].time - one.time <= self.within.total_seconds())
                or (self.also is not None and self.also(one))
            ):
                kept.add(one.step)
        return kept

    def _lightened(self, left: Sequence[Candidate], sound: Callable[[Candidate], bool]) -> list[int]:
        if self.weights_only_after is None:
            return []
        whole = [one for one in left if not one.weights_only]
        spared = _until(sound, reversed(whole), self.weights_only_after)
        return [one.step for one in whole if one.step not in spared and not one.tagged and sound(one)]

    @property
    def _keeps_all(self) -> bool:
        return self.last is None and self.best is None and self.every is None and self.within is None and self.also is None

    def retained(self, saves: int, *, steps: int = 1, seconds: float = math.inf) -> Retained:
        """How many checkpoints a store holds after so many saves, at most: the best may be among others. `also` is not asked.

        Args:
            saves: that were made.
            steps: from save to save; the first is at that step.
            seconds: from save to save.

        Example:
            >>> import tensorkeep as tk
            >>> tk.Keep(last=3, every=1000).retained(100, steps=100)
            Retained(full=12, weights_only=0)
        """
        if self._keeps_all:
            whole = saves
        else:
            window = self._window(saves, seconds)
            turn = self._turn(steps)
            forever = (saves - window) // turn if turn else 0  # of those before the window
            whole = window + forever + min(len(self.directions), saves - window - forever)
        full = whole if self.weights_only_after is None else min(whole, self.weights_only_after)
        return Retained(full, whole - full)

    def dependants(self, star: int, *, steps: int = 1, seconds: float = math.inf) -> float:
        """How many retained checkpoints refer to one keyframe, over a long run in which each so-many-th save is a keyframe.

        A keyframe stays as bytes as long as one of them does, whether it is itself retained or not.

        Args:
            star: saves from keyframe to keyframe.
            steps, seconds: from save to save.

        Example:
            >>> import tensorkeep as tk
            >>> round(tk.Keep(last=3).dependants(8), 1), round(tk.Keep().dependants(8), 1)
            (2.3, 7.0)
        """
        window, turn = (_SAMPLE, None) if self._keeps_all else (self._window(_SAMPLE, seconds), self._turn(steps))
        dependants = keyframes = 0
        for phase in range(star):  # where in a star the run is
            newest = _SAMPLE + phase
            old = range(turn, newest - window + 1, turn) if turn else range(0)
            others = [save for save in (*old, *range(newest - window + 1, newest + 1)) if save % star]
            dependants += len(others)
            keyframes += len({save // star for save in others})
        return dependants / max(1, keyframes)

    def _window(self, saves: int, seconds: float) -> int:
        """How many of the newest stay for a while."""
        lasting = 0 if self.within is None else 1 + int(min(saves, self.within.total_seconds() / max(seconds, 1e-9)))
        return min(saves, max(self.last or 1, lasting))

    def _turn(self, steps: int) -> int | None:
        """Which so-many-th save stays for ever."""
        return None if self.every is None else self.every // math.gcd(self.every, steps)


@dataclass(frozen=True, kw_only=True)
class Every:
    """When the next checkpoint is due: after so many steps or minutes since the last, whatever comes first.

    Args:
        steps: a checkpoint at each multiple of this, or at the first step that is seen behind one.
        minutes: the most minutes from one to the next.

    Raises:
        ValueError: neither is given, or one is not above 0.

    Example:
        >>> import tensorkeep as tk
        >>> [step for step in range(0, 10) if tk.Every(steps=4).due(step, since=step - 1)]
        [4, 8]
    """

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", _count("Every(steps=)", self.steps))
        minutes: Any = self.minutes
        if minutes is not None and not (
            isinstance(minutes, SupportsFloat) and not isinstance(minutes, bool) and 0 < float(minutes) < math.inf
        ):
            raise ValueError(f"Every(minutes=) is {self.minutes!r:.80}; it takes a number above 0")
        if self.steps is None and self.minutes is None:
            raise ValueError("Every() is never: Every(steps=1000), Every(minutes=10) or both")

    def due(self, step: int, *, since: int | None = None, seconds: float = 0.0) -> bool:
        """Whether it is time to save.

        Args:
            step: the one that was just done.
            since: the step that was last saved, resumed from, or asked about; None at the beginning of a run.
            seconds: since the last save, or since the run began.
        """
        if self.minutes is not None and seconds >= float(self.minutes) * 60:
            return True
        return self.steps is not None and step // self.steps > max(0, since or 0) // self.steps


def _until(sound: Callable[[Candidate], bool], ordered: Iterable[Candidate], count: int) -> set[int]:
    """The steps up to the so-many-th intact one."""
    kept: set[int] = set()
    for one in ordered:
        if not count:
            break
        kept.add(one.step)
        count -= sound(one)
    return kept


def _directions(best: str | Mapping[str, Direction] | None) -> dict[str, Direction]:
    if best is None:
        return {}
    if not isinstance(best, str):
        for metric, direction in best.items():
            if not isinstance(metric, str) or not metric or direction not in ("min", "max"):
                raise ValueError(f"Keep(best={{{metric!r:.80}: {direction!r:.40}}}): a metric's name and 'min' or 'max' are wanted")
        return dict(best)
    found = known_direction(best)
    if found is None:
        raise ValueError(f"whether more of {best!r:.80} is better its name does not say: Keep(best={{{best!r:.80}: 'min'}}) or 'max'")
    return {best: found}


def _count(name: str, value: SupportsIndex | None) -> int | None:
    return None if value is None else counted(name, value)


def counted(name: str, value: SupportsIndex) -> int:
    """An argument that says how many, at least one.

    Raises:
        ValueError: it does not.
    """
    try:
        count = operator.index(value) if not isinstance(value, bool) else 0
    except TypeError:
        count = 0
    if count < 1:
        raise ValueError(f"{name} is {value!r:.80}; it takes a whole number above 0")
    return count

"""What to keep: the rules beside a naive model of them, and arguments at the door."""

import math
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tensorkeep as tk
from tensorkeep.store.keep import Candidate, Every, Keep, Retained

HOUR = timedelta(hours=1)


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[Candidate, bool]]:
    """Checkpoints of a run, and whether each is intact."""
    steps = draw(st.lists(st.integers(0, 40), unique=True, max_size=12))
    values = st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan, math.inf, -math.inf])
    run = []
    for step in steps:
        metrics = draw(st.dictionaries(st.sampled_from(["loss", "acc"]), values, max_size=2))
        clock = draw(st.sampled_from([0.0, 1800.0, 3600.0, 7200.0, 7201.0]))
        one = Candidate(step, clock, metrics, 1, draw(st.booleans()), draw(st.integers(0, 5)) == 0)
        run.append((one, draw(st.integers(0, 3)) > 0))
    return run


keeps = st.builds(
    Keep,
    last=st.none() | st.integers(1, 5),
    best=st.none() | st.sampled_from(["loss", "acc"]) | st.just({"loss": "max", "acc": "min"}),
    every=st.none() | st.integers(1, 12),
    within=st.none() | st.sampled_from([HOUR, 2 * HOUR]),
    weights_only_after=st.none() | st.integers(1, 4),
    also=st.none() | st.just(lambda one: one.step % 7 == 3),
)


def naive(keep: Keep, run: Sequence[tuple[Candidate, bool]]) -> tuple[list[int], list[int]]:
    """The rules, each by itself and without haste: what goes, and what gives up the rest."""
    newest_first = sorted(run, key=lambda pair: -pair[0].step)
    rules = (keep.last, keep.best, keep.every, keep.within, keep.also)
    remove = []
    for one, _ in run:
        newer_intact = [other for other, intact in newest_first if intact and other.step > one.step]
        reasons = [
            all(rule is None for rule in rules),
            one.tagged,
            len(newer_intact) < (keep.last or 1),
            keep.every is not None and one.step % keep.every == 0,
            keep.within is not None and newest_first[0][0].time - one.time <= keep.within.total_seconds(),
            keep.also is not None and keep.also(one),
        ]
        for metric, direction in keep.directions.items():
            own = one.metrics.get(metric, math.nan)
            better = [
                other
                for other, intact in run
                if intact
                and (value := other.metrics.get(metric, math.nan)) == value
                and ((value < own if direction == "min" else value > own) or (value == own and other.step < one.step))
            ]
            reasons.append(own == own and not better)
        if not any(reasons):
            remove.append(one.step)
    lighter = []
    left = [(one, intact) for one, intact in newest_first if one.step not in remove and not one.weights_only]
    for one, intact in left:
        newer = [other for other, sound in left if sound and other.step > one.step]
        if keep.weights_only_after is not None and intact and not one.tagged and len(newer) >= keep.weights_only_after:
            lighter.append(one.step)
    return sorted(remove), sorted(lighter)


class TestKeep:
    @given(keeps, runs())
    @example(Keep(last=1), [(Candidate(1, 0, {}), True), (Candidate(2, 0, {}), False)])
    @example(
        Keep(best="loss"), [(Candidate(1, 0, {"loss": 1.0}), False), (Candidate(2, 0, {"loss": 2.0}), True), (Candidate(3, 0, {}), True)]
    )
    def test_decides_as_the_naive_rules_do(self, keep: Keep, run: list[tuple[Candidate, bool]]) -> None:
        """Whatever the policy, the run and its damage."""
        intact = {one.step: sound for one, sound in run}
        decision = keep.decide([one for one, _ in run], lambda one: intact[one.step])
        assert (decision.remove, decision.weights_only) == naive(keep, run)

    @given(keeps, runs())
    def test_never_gives_up_the_last_intact_checkpoint(self, keep: Keep, run: list[tuple[Candidate, bool]]) -> None:
        """Nor the last whole one, nor one with a tag."""
        intact = {one.step: sound for one, sound in run}
        decision = keep.decide([one for one, _ in run], lambda one: intact[one.step])
        sound = [one for one, whole in run if whole]
        if sound:
            newest = max(sound, key=lambda one: one.step)
            assert newest.step not in decision.remove
        left = [one for one, _ in run if one.step not in decision.remove]
        if any(intact[one.step] and not one.weights_only for one in left):
            assert any(intact[one.step] and not one.weights_only and one.step not in decision.weights_only for one in left)
        assert not {one.step for one, _ in run if one.tagged} & {*decision.remove, *decision.weights_only}

    @settings(max_examples=60)
    @given(keeps, st.integers(0, 40), st.integers(1, 5), st.sampled_from([900.0, 3600.0, 5000.0, math.inf]))
    def test_forecasts_what_it_then_keeps(self, keep: Keep, saves: int, steps: int, seconds: float) -> None:
        """After so many saves, each followed by its pruning, a store holds at most what was said, and as much where nothing is best."""
        keep = Keep(last=keep.last, every=keep.every, within=keep.within, best=keep.best, weights_only_after=keep.weights_only_after)
        held: list[Candidate] = []
        for save in range(1, saves + 1):
            clock = save * seconds if seconds < math.inf else save * 1e9
            held.append(Candidate(save * steps, clock, {"loss": float(save % 7), "acc": float(save % 5)}))
            decision = keep.decide(held, lambda one: True)
            held = [
                Candidate(one.step, one.time, one.metrics, 0, one.weights_only or one.step in decision.weights_only)
                for one in held
                if one.step not in decision.remove
            ]
        said = keep.retained(saves, steps=steps, seconds=seconds)
        found = Retained(sum(not one.weights_only for one in held), sum(one.weights_only for one in held))
        assert found.full + found.weights_only <= said.full + said.weights_only
        assert said.full + said.weights_only - found.full - found.weights_only <= len(keep.directions)
        if keep.best is None:
            assert found == said

    def test_asks_about_damage_no_more_than_it_must(self) -> None:
        """To see whether a checkpoint is intact costs reading its index."""
        asked: list[int] = []
        run = [Candidate(step, 0.0, {"loss": float(step)}) for step in range(1000)]
        Keep(last=3, best="loss", every=100).decide(run, lambda one: asked.append(one.step) is None)
        assert sorted(asked) == [0, 997, 998, 999]

    def test_remembers_a_mapping_as_it_was(self) -> None:
        """A policy does not change with the caller's dict; numbers of NumPy are numbers."""
        best: dict[str, Any] = {"heat": "max"}
        keep = Keep(best=best, last=np.int64(3))
        best["heat"] = "min"
        assert keep.directions == {"heat": "max"} and keep.last == 3

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({"last": 0}, r"Keep\(last=\) is 0; it takes a whole number above 0"),
            ({"last": True}, "whole number"),
            ({"last": 2.0}, "whole number"),
            ({"every": -5}, "whole number"),
            ({"weights_only_after": "3"}, "whole number"),
            ({"within": 3600}, "timedelta"),
            ({"within": timedelta(0)}, "timedelta"),
            ({"also": "step"}, "function"),
            ({"best": "heat"}, "whether more of 'heat' is better its name does not say"),
            ({"best": {}}, "metric's name"),
            ({"best": {"loss": "less"}}, "'min' or 'max'"),
            ({"best": {"": "min"}}, "metric's name"),
            ({"best": ["loss"]}, "metric's name"),
        ],
    )
    def test_refuses_at_the_door(self, arguments: dict[str, Any], said: str) -> None:
        """What makes no sense is an error where it is written, not at the first prune hours later."""
        with pytest.raises(ValueError, match=said):
            Keep(**arguments)

    def test_says_how_many_lean_on_a_keyframe(self) -> None:
        """Few where little is kept, all of a star where everything is, and few again where one in ten stays for ever."""
        assert Keep(last=1).dependants(8) <= 1 and Keep(last=3).dependants(8) < 3
        assert 6.9 < Keep(weights_only_after=2).dependants(8) <= 7
        assert Keep(last=20).dependants(8) > 4
        assert Keep(every=1000).dependants(8, steps=100) < 1.1


class TestEvery:
    def test_is_due_at_multiples_and_behind_them(self) -> None:
        """A run that passes a multiple without a look saves at the next look; the beginning is no reason to save."""
        every = Every(steps=100)
        assert [step for step in range(301) if every.due(step, since=step - 1 if step else None)] == [100, 200, 300]
        assert [step for step in range(0, 400, 64) if every.due(step, since=step - 64)] == [128, 256, 320]
        assert not every.due(1250, since=1200) and every.due(1300, since=1200)

    def test_is_due_by_the_clock(self) -> None:
        """Whatever comes first."""
        assert Every(minutes=10).due(3, since=2, seconds=600) and not Every(minutes=10).due(3, since=2, seconds=599)
        assert Every(minutes=np.float32(0.5)).due(3, seconds=30) and not Every(minutes=np.float32(0.5)).due(3, seconds=29)
        assert Every(steps=5, minutes=10).due(5, since=4, seconds=0) and not Every(steps=5, minutes=10).due(6, since=5, seconds=1)

    @pytest.mark.parametrize(
        "arguments", [{}, {"steps": 0}, {"steps": 1.5}, {"minutes": 0}, {"minutes": math.nan}, {"minutes": "10"}, {"minutes": True}]
    )
    def test_refuses_at_the_door(self, arguments: dict[str, Any]) -> None:
        """Never and nonsense are errors."""
        with pytest.raises(ValueError, match="Every"):
            Every(**arguments)


def test_a_save_that_later_steps_push_out_is_told(tmp_path: Path) -> None:
    """Whoever goes on from an early checkpoint beside later ones would keep nothing of it, in silence."""
    with tk.Store(tmp_path / "run", keep=tk.Keep(last=2)) as run:
        for step in (10, 20, 30):
            run.save({"step": step}, step=step)
        run.save({"step": 11}, step=11, wait=True)
        with pytest.warns(tk.TensorkeepWarning, match=r"step 11 was saved, and keep= did not keep it.*rollback\(\)"):
            run.save({"step": 40}, step=40)
        assert run.steps() == [30, 40]


def test_a_save_that_loses_its_optimizer_to_later_steps_is_told(tmp_path: Path) -> None:
    """The same, of what is not weights."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = {"model": model, "optimizer": optimizer}
    run = tk.Store(tmp_path / "run", keep=tk.Keep(weights_only_after=1))
    run.save(state, step=10)
    run.save(state, step=5, wait=True)
    with pytest.warns(tk.TensorkeepWarning, match="step 5 was saved, and keep= kept its weights alone"):
        run.finish()

"""Runs of numbers that protocol 0 spells out, taken in one step: as pickle itself reads them, and nothing behind them is missed."""

import io
import pickle
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tensorkeep as tk


@given(st.lists(st.one_of(st.integers(), st.booleans(), st.integers(0, 9), st.floats(allow_nan=False), st.none()), max_size=60))
@example(list(range(70_000)))
@example([*range(30_000), True, 2**70, *map(float, range(30_000)), -5])
def test_runs_of_numbers_that_are_spelled_out_come_back(numbers: list[Any]) -> None:
    """Protocol 0 has a line for each, in lists appended one by one; runs longer than a window, and whatever interrupts one."""
    for data in (pickle.dumps(numbers, protocol=0), pickle.dumps(tuple(numbers), protocol=0), pickle.dumps({"a": numbers}, protocol=0)):
        wanted = pickle.loads(data)
        found = tk.loads(data)
        assert found == wanted and repr(found) == repr(wanted)


@pytest.mark.parametrize("run", [b"I1\n" * 300_000, b"L7L\n" * 200_000, b"F1.5\n" * 200_000, b"(lI1\n" + b"aI1\n" * 300_000 + b"a"])
def test_a_call_behind_a_run_of_numbers_is_found(run: bytes) -> None:
    """A scan passes over the run in one step, and goes on behind it."""
    found = tk.scan(io.BytesIO(b"(" + run + b"cos\nsystem\n(S'x'\ntRt."))
    assert any("os.system" in finding.what or "system" in finding.what for finding in found.findings)

"""Readers beside a run that keeps its newest checkpoint alone: what they had found goes before they have read it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from memory_backend import MemoryBackend

Reading = Callable[[tk.Store, Path], Any]
READERS: dict[str, Reading] = {
    "resume": lambda run, _: run.resume().state["step"],  # type: ignore[union-attr]  # None would fail the test
    "load": lambda run, _: run.load()["step"],
    "best": lambda run, _: run.load("best")["step"],
    "export": lambda run, folder: run.export("latest", folder / "newest.safetensors").step,
    "average": lambda run, _: run.average()["step"],
    "iteration": lambda run, _: [one.step for one in run][-1],
    "history": lambda run, _: [int(values[0]) for _, values in run.history("values")][-1],
}
MOMENTS = {"manifest": ("get", "checkpoints/"), "index": ("get", "indexes/"), "pack": ("read", "packs/")}
AS_LISTED = {"export", "average", "iteration", "history"}  # what they have found stays, as it is claimed; or they tell that it went


class Run:
    """A store that saves one step whenever `moment` is about to be reached by a reader, some times, and keeps nothing else.

    Args:
        backend: of the store.
        moment: operation and prefix of the key.
        times: how often.
    """

    def __init__(self, backend: MemoryBackend, moment: tuple[str, str], times: int) -> None:
        self.store = tk.Store("run", keep=tk.Keep(last=1, best={"age": "max"}))
        self.backend, self.moment, self.left, self.step = backend, moment, times, 0
        self.save()
        backend.gate = self.gate

    def save(self) -> None:
        self.step += 1
        self.store.save({"step": self.step, "values": np.full(3, self.step)}, step=self.step, metrics={"age": self.step}, wait=True)
        self.store.prune()  # the policy is applied behind the save: wait for it

    def gate(self, operation: str, key: str) -> None:
        if self.left and operation == self.moment[0] and key.startswith(self.moment[1]):
            self.left -= 1
            self.backend.gate = lambda operation, key: None
            self.save()
            self.backend.gate = self.gate


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    ("verb", "moment"), [(verb, moment) for verb in READERS for moment in MOMENTS if moment == "manifest" or verb not in AS_LISTED]
)
def test_whoever_asks_for_the_newest_gets_one_that_is_there(
    verb: str, moment: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has begun is never taken for a new one, and `latest` is what is there by then."""
    backend = MemoryBackend()
    monkeypatch.setattr("tensorkeep.store.store.open_backend", lambda *_, **__: backend)
    run = Run(backend, MOMENTS[moment], times)
    assert READERS[verb](tk.Store("run"), tmp_path) == run.step == times + 1


@pytest.mark.parametrize("times", [1, 3])
def test_a_tag_goes_to_the_newest_that_is_there(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was found goes before the tag's claim protects it; a step that was named is told to be gone."""
    backend = MemoryBackend()
    monkeypatch.setattr("tensorkeep.store.store.open_backend", lambda *_, **__: backend)
    run = Run(backend, ("create", "claims/"), times)
    assert tk.Store("run").tag("newest").step == run.step == times + 1
    assert tk.Store("run").load("newest")["step"] == run.step
    run.save()  # one that no tag keeps
    run.left = 1
    with pytest.raises(tk.CheckpointGone):
        tk.Store("run").tag("other", f"step-{run.step}")
    assert list(tk.Store("run").tags()) == ["newest"] and not list(backend.list("claims/"))


def test_a_step_that_goes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gets another checkpoint than the one that was named."""
    backend = MemoryBackend()
    monkeypatch.setattr("tensorkeep.store.store.open_backend", lambda *_, **__: backend)
    Run(backend, MOMENTS["index"], 1)
    with pytest.raises(tk.CheckpointGone, match="deleted while it was in use"):
        tk.Store("run").load("step-1")


def test_names_that_move_behind_a_listing_leave_no_run_without_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is listed name by name: the old one may go, and the new one come, where the reader has been already."""
    run = tk.Store(tmp_path / "run", keep=tk.Keep(last=1))
    run.save({"step": 1}, step=1, wait=True)
    run.prune()  # behind the save the store is listed too: wait for that
    listed, true = [], os.listdir

    def moving(folder: Any) -> list[str]:
        names = true(folder)
        if not listed and "0000000001.json" in names:
            listed.append(names)
            run.save({"step": 2}, step=2, wait=True)
            run.prune()
            return []
        return names

    reader = tk.Store(tmp_path / "run")
    monkeypatch.setattr(os, "listdir", moving)
    start = reader.resume()
    assert start is not None and start.step == 2 and len(listed) == 1

"""Several who want to change one checkpoint at the same moment: one wins, the others are told by whom, and nothing is wrong afterwards."""

import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import servers
import tensorkeep as tk
from tensorkeep.backends import capabilities, hidden
from tensorkeep.store.commit import Commit

STEP = 3


@pytest.fixture(params=["folder", "memory", "moto"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where there is no store yet."""
    if request.param == "folder":
        return folder(tmp_path, monkeypatch)
    pytest.importorskip("obstore", reason="obstore is not installed: pip install tensorkeep[cloud]")
    if request.param == "memory":
        return f"memory://{secrets.token_hex(8)}/run"
    servers.use(monkeypatch, request.getfixturevalue("moto_url"))
    return f"s3://{servers.BUCKET}/{secrets.token_hex(8)}/run"


def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place on a disk where one of several wins: with locks, which nobody gives up to wait for however slow the disk is."""
    monkeypatch.setattr(hidden, "_WAIT_S", 300.0)
    if not (capabilities.in_use.locks and capabilities.in_use.relative):
        pytest.skip("without locks, as on Windows, the later of two that replace at one moment wins")
    return str(tmp_path / "run")


def state(who: int) -> dict[str, Any]:
    return {"who": np.full(50_000, who), "shared": np.arange(30_000)}


def at_once(monkeypatch: pytest.MonkeyPatch, acts: list[Callable[[], Any]]) -> list[BaseException | None]:
    """Do all of it in a thread each. They wait for each other between what they looked at and their commits. What each of them met."""
    barrier, true = threading.Barrier(len(acts), timeout=60), Commit.put_manifest
    met: list[BaseException | None] = [None] * len(acts)

    def together(commit: Commit, *args: Any, **kwargs: Any) -> None:
        barrier.wait()
        true(commit, *args, **kwargs)

    def do(number: int) -> None:
        try:
            acts[number]()
        except (tk.TensorkeepError, OSError) as error:
            met[number] = error

    with monkeypatch.context() as patch:
        patch.setattr(Commit, "put_manifest", together)
        threads = [threading.Thread(target=do, args=(number,)) for number in range(len(acts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return met


def saving(place: str, who: int, *, overwrite: bool) -> Callable[[], Any]:
    """One process's save of the step, all of it."""

    def save() -> None:
        with tk.Store(place) as store:
            store.save(state(who), step=STEP, metrics={"who": who}, overwrite=overwrite, wait=True)

    return save


def check(place: str, met: list[BaseException | None]) -> int:
    """One has won, what it saved is there, and every other one was told so; nothing is damaged, and nothing stays behind. Who it was."""
    (winner,) = [number for number, error in enumerate(met) if error is None]
    for error in met:
        if error is not None:
            told = error.__cause__ if isinstance(error, tk.SaveError) else error
            assert isinstance(told, tk.StepExists) and told.by and "while this save was under way" in str(told), told
            assert "Save it once more" in str(told)
    with tk.Store(place) as store:
        (found,) = store
        assert found.metrics["who"] == winner
        loaded = store.load(STEP)
        assert (loaded["who"] == winner).all() and loaded["shared"][-1] == 29_999
        assert store.verify().intact
        store.gc()
        assert store.stats().garbage_bytes == 0
    return winner


def test_of_several_that_overwrite_one_step_one_wins(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each meant the checkpoint that was there when it began. Who is told may save once more."""
    with tk.Store(place) as store:
        store.save(state(99), step=STEP, wait=True)
    for _ in range(3):
        winner = check(place, at_once(monkeypatch, [saving(place, who, overwrite=True) for who in range(4)]))
        loser = (winner + 1) % 4
        saving(place, loser, overwrite=True)()
        assert (tk.load(f"{place}@step-{STEP}")["who"] == loser).all()


def test_of_two_that_save_over_damage_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither asked to overwrite: what is damaged may be replaced by itself, and what the other one saved meanwhile may not."""
    place = folder(tmp_path, monkeypatch)
    with tk.Store(place) as store:
        store.save(state(99), step=STEP, wait=True)
    (manifest,) = (tmp_path / "run" / "checkpoints").iterdir()
    manifest.write_bytes(manifest.read_bytes()[:-20])
    check(place, at_once(monkeypatch, [saving(place, who, overwrite=False) for who in range(2)]))


def test_who_overwrites_what_is_gone_or_lighter_by_then_loses_nothing(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No one else has saved the step: the save goes on."""
    true = Commit.put_manifest
    for fate in ("deleted", "lighter"):
        with tk.Store(place) as store:
            store.save({"optimizer": np.ones(9)}, step=STEP, overwrite=True)
            store.save({"x": np.ones(9)}, step=STEP + 1, wait=True, overwrite=True)

        def late(commit: Commit, *args: Any, fate: str = fate, **kwargs: Any) -> None:
            monkeypatch.setattr(Commit, "put_manifest", true)
            with tk.Store(place) as other:
                if fate == "deleted":
                    other.delete(STEP)
                else:
                    other.prune(tk.Keep(weights_only_after=1))
            true(commit, *args, **kwargs)

        monkeypatch.setattr(Commit, "put_manifest", late)
        saving(place, 1, overwrite=True)()
        assert (tk.load(f"{place}@step-{STEP}")["who"] == 1).all()

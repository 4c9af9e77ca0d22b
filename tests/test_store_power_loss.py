"""Loss of power at any moment of a run: every write, sync, link and rename is recorded, and the disks that a crash may leave are opened."""

import os
import random
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch  # the process that saved is one that ended; nothing else is pretended

import msgspec
import numpy as np
import pytest

import power
import tensorkeep as tk
from tensorkeep.backends import capabilities
from tensorkeep.backends.processes import Process, this_process
from tensorkeep.store import claims

MOST_DISKS = int(os.environ.get("TENSORKEEP_TEST_DISKS", "100"))  # of some thousand
SEED = int(os.environ.get("TENSORKEEP_TEST_SEED", "20261126"))  # the same disks each time
MONTH_S = 31 * 24 * 3600.0


def state(step: int, *, again: int = 0) -> dict[str, object]:
    """Something new, something that stays, and something that comes back."""
    rng = np.random.default_rng((step, again))
    return {"new": rng.random(3000), "old": np.arange(9000.0), "again": np.full(20_000, step % 3, np.float32), "step": step, "n": again}


def same(found: dict[str, object]) -> bool:
    """Whether what was loaded is, bit for bit, some state that was saved."""
    wanted = state(found["step"], again=found["n"])  # type: ignore[arg-type]  # of `state`
    return found.keys() == wanted.keys() and all(np.array_equal(found[key], wanted[key]) for key in wanted)


def ended() -> Process:
    """A process of this machine that is no more."""
    return msgspec.structs.replace(this_process(), pid=0x3FFFFF, started="0")  # above any that Linux gives


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run(place: Path, log: power.Log, compress: str) -> None:
    """Whatever changes a store. Marks: `=step n`, its save n begins; `+step n`, it has returned; `-step`, it is told to go."""

    def save(step: int, *, again: int = 0) -> None:
        log.mark(f"={step} {again}")
        store.save(state(step, again=again), step=step, metrics={"loss": 1 / (step + 1)}, overwrite=bool(again), wait=True)
        log.mark(f"+{step} {again}")

    with tk.Store(place, compress=compress) as store:
        for step in range(3):
            save(step)
        store.finish()
        store.tag("good", "step-1")
        log.mark("tagged")
        log.mark("-2")
        store.rollback("step-1")
        save(2, again=1)
        save(2, again=2)
        store.finish()
        log.mark("-0")
        store.delete("step-0")
        log.mark("-1")
        store.prune(tk.Keep(last=1))
        store.gc()
        log.mark("collected")


@pytest.fixture(autouse=True)
def folders_can_be_synced() -> Iterator[None]:
    """With every optional call off, too: nothing else makes a name durable, and without locks a leftover stays for a day."""
    before = capabilities.in_use
    capabilities.in_use = replace(before, folder_sync=True, locks=True)
    yield
    capabilities.in_use = before


@pytest.mark.parametrize("compress", ["none", "auto"])
def test_no_loss_of_power_costs_a_checkpoint(tmp_path: Path, compress: str) -> None:
    """On every disk: what had been committed and was not told to go is there, whatever is there loads bit for bit, and the run goes on."""
    place = tmp_path / "run"
    place.mkdir()
    with quiet(), patch("tensorkeep.store.commit.this_process", ended), power.recording(place) as log:
        run(place, log, compress)
    every = list(log.disks(seed=SEED))
    assert len(every) > 500
    disks = random.Random(SEED).sample(every, MOST_DISKS)
    goes_on = range(0, len(disks), 8)
    for number, disk in enumerate(disks):
        said = f"seed {SEED}, disk {number} after event {disk.cut}: {sorted(disk.marks)}"
        with quiet():
            _look(tmp_path / "after", disk, said, goes_on=number in goes_on)
        shutil.rmtree(tmp_path / "after")


def _look(place: Path, disk: power.Disk, said: str, *, goes_on: bool) -> None:
    disk.write_to(place)
    store = tk.Store(place)
    steps = store.steps()
    for step in steps:
        found = store.load(step)
        assert found["step"] == step and same(found), said
        done = [int(mark.split()[1]) for mark in disk.marks if mark.startswith(f"+{step} ")]
        begun = [int(mark.split()[1]) for mark in disk.marks if mark.startswith(f"={step} ")]
        assert max(done, default=0) <= found["n"] <= max(begun, default=0), said
    for step in range(3):
        if any(mark.startswith(f"+{step} ") for mark in disk.marks) and not _told_to_go(step, disk):
            assert step in steps, f"{said}: step {step} is lost"
    tags = store.tags()
    assert "tagged" not in disk.marks or "good" in tags, said
    for tag in tags:
        assert same(store.load(tag)), said
    if goes_on:
        store.save(state(7), step=7, wait=True)
        store.gc()
        with tk.Store(place) as again:
            assert same(again.load()) and again.steps()[-1] == 7, said
            for step in again.steps():
                assert same(again.load(step)), said
            needed = {"good"} & set(again.tags())
            assert again.verify().intact or not needed, said
        _nothing_is_left_over(place, said)


def _told_to_go(step: int, disk: power.Disk) -> bool:
    """Whether it was to be removed; step 2 was saved again after that."""
    return f"-{step}" in disk.marks and not any(mark.startswith(f"+{step} ") and not mark.endswith(" 0") for mark in disk.marks)


def _nothing_is_left_over(place: Path, said: str) -> None:
    """Beside what torn claims and empty fences hold; and once a month has passed, nothing at all."""
    needed, found = _needed_and_found(place)
    assert needed <= found, f"{said}: gc took {sorted(needed - found)}"
    torn = {file.stem: file.read_bytes() for file in place.glob("claims/*.json")}
    whole = [save for save, left in torn.items() if _is_whole(left, save)]
    assert not whole, f"{said}: gc leaves claims {whole}, though they say that their process has ended"
    # Nobody can say whose a torn claim is: what bears its name stays, and what is named in the bytes that are left of it.
    held = {key for key in found - needed if any(save in key or _name(key) in left for save, left in torn.items())}
    # A fence that the loss of power has left empty looks like one of gc's own.
    held |= {key for key in found - needed if key.startswith("indexes/") and not (place / key).stat().st_size}
    assert found - needed <= held, f"{said}: gc leaves {sorted(found - needed - held)}"
    for file in (*place.glob("claims/*"), *place.glob("indexes/*")):
        os.utime(file, (file.stat().st_mtime - MONTH_S,) * 2)
    tk.Store(place).gc()
    needed, found = _needed_and_found(place)
    assert needed == found and not list(place.glob("claims/*.json")), f"{said}: gc leaves {sorted(found - needed)} for ever"


def _is_whole(claim: bytes, save: str) -> bool:
    try:
        claims.decode(claim, "a claim", save)
    except (tk.CorruptError, tk.FormatError):
        return False
    return True


def _needed_and_found(place: Path) -> tuple[set[str], set[str]]:
    """Packs and indexes: those that manifests name, and those there are."""
    looked = tk.Store(place)._catalog.look()
    needed = set()
    for known in [*looked.all(), *looked.tags().values()]:
        needed |= {f"packs/{pack.name}.pack" for pack in known.manifest.packs}
        needed |= {f"indexes/{part.save}.idx" for part in known.manifest.indexes}
    return needed, {file.relative_to(place).as_posix() for kind in ("packs", "indexes") for file in place.glob(f"{kind}/*")}


def _name(key: str) -> bytes:
    return Path(key).stem.encode()

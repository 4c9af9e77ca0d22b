"""Saves under fault: each system call failed and killed, power lost at each moment, kill -9 at any."""

import itertools
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tensorkeep as tk
from faults import power, savers, tracing
from faults.zygote import DONE, IN_PLACE, UNHARMED, Zygote
from tensorkeep.backends import capabilities

OLD, NEW, NEXT = 1, 2, 3
SEED = 20261126
needs_strace = pytest.mark.skipif(not tracing.HERE, reason="strace is not installed")
FAULTS = ("EIO", "ENOSPC", "EINTR")
JOBS = ("faults.savers:save_tiny", "faults.savers:save_state")
WRITES = frozenset({"pwritev", "pwritev2", "write"})
CLEANING = frozenset({"unlink", "unlinkat"})  # a fault here is a temporary that stays


@pytest.fixture(autouse=True)
def use_all_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the children differ: what clears up behind them needs locks, also where all tests run without."""
    monkeypatch.setattr(capabilities, "in_use", capabilities.ALL)


@pytest.fixture(params=["all", "none"], scope="module")
def zygote(request: pytest.FixtureRequest) -> Iterator[Zygote]:
    """Children that use all optional system calls, then none."""
    # All that a save imports is there before the fork: the calls of the job are those of the save.
    with Zygote(request.param, ("tensorkeep.verbs.save", "tensorkeep.frameworks.numpy", "tensorkeep.frameworks.records")) as made:
        yield made


def fresh(folder: Path, name: str, job: str = "") -> Path:
    """A folder of its own with the old file."""
    (folder / name).mkdir()
    target = folder / name / ("run.safetensors" if job.endswith("save_state") else "run.bin")
    savers.old_file(target, OLD)
    return target


def check(target: Path, status: int, *, injected: str) -> None:
    """What must hold after a save that met a fault."""
    found = savers.version_of(target)
    if status == DONE:
        assert found == NEW
    elif status == IN_PLACE:
        assert found == NEW and injected in {"fsync", "openat", "close"}  # of the folder: its error says so
    else:
        assert status in (UNHARMED, -signal.SIGKILL), f"{injected}: status {status}"
        assert found == OLD or status == -signal.SIGKILL
    if status != -signal.SIGKILL and injected not in CLEANING:
        assert not savers.temporaries(target.parent)


def check_next(zygote: Zygote, target: Path, job: str) -> None:
    """The next save works. It removes what a killed one left, where there are locks to tell by."""
    assert zygote.run(job, str(target), NEXT) == DONE
    assert savers.version_of(target) == NEXT
    if "none" not in zygote.process.args:
        assert not savers.temporaries(target.parent)


def calls_of_a_save(zygote: Zygote, tmp_path: Path, job: str = "faults.savers:save_tiny") -> list[tracing.Call]:
    target = fresh(tmp_path, "recorded", job)
    if job.endswith("save_new"):
        target.unlink()
    status, calls = tracing.recorded(zygote, job, str(target), NEW, log=tmp_path / "recorded.log")
    assert status == DONE
    return calls


@needs_strace
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("error", [*FAULTS, "KILL"])
def test_each_system_call_failed_once(zygote: Zygote, tmp_path: Path, error: str, job: str) -> None:
    """Whichever call of a save fails or is where the process is killed: the old file, or after success the new one; no litter."""
    places = tracing.places(calls_of_a_save(zygote, tmp_path, job))
    assert len(places) > 12
    for number, (name, which) in enumerate(places):
        target = fresh(tmp_path, f"{error}-{number}-{name}", job)
        fault = "signal=KILL" if error == "KILL" else f"error={error}"
        options = ["-e", f"trace={name}", "-e", f"inject={name}:{fault}:when={which}"]
        status = tracing.traced(zygote, options, job, str(target), NEW, log=tmp_path / "log")
        if error == "KILL":
            assert status == -signal.SIGKILL, f"{name} {which} was never called"
        check(target, status, injected=name)
        if error == "KILL":
            check_next(zygote, target, job)


@needs_strace
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EOPNOTSUPP"])
def test_each_system_call_failed_for_ever(zygote: Zygote, tmp_path: Path, error: str, job: str) -> None:
    """A call that never works from some moment on harms no old file, and is done without where that can be."""
    for name in sorted({name for name, _ in tracing.places(calls_of_a_save(zygote, tmp_path, job))}):
        target = fresh(tmp_path, f"{error}-{name}", job)
        options = ["-e", f"trace={name}", "-e", f"inject={name}:error={error}"]
        status = tracing.traced(zygote, options, job, str(target), NEW, log=tmp_path / "log")
        check(target, status, injected=name)
        if name in {"linkat", "flock", "fchmod", "fchown"} or (name == "fallocate" and error != "ENOSPC"):
            assert status == DONE, f"{name} is not needed"


@needs_strace
def test_a_call_that_lies_about_its_length(zygote: Zygote, tmp_path: Path) -> None:
    """A write that says 0, or more than it was given, is an error, not an endless loop or a hole."""
    name = next(call.name for call in calls_of_a_save(zygote, tmp_path) if call.name in WRITES)
    for number, length in enumerate([0, 1_000_000]):
        target = fresh(tmp_path, f"lie-{number}")
        options = ["-e", f"trace={name}", "-e", f"inject={name}:retval={length}:when=2"]
        status = tracing.traced(zygote, options, "faults.savers:save_tiny", str(target), NEW, log=tmp_path / "log")
        assert status == UNHARMED
        check(target, status, injected=name)


def disks(zygote: Zygote, tmp_path: Path, job: str) -> Iterator[tuple[bool, power.State]]:
    """Disks after a loss of power: all different ones under 2,000, else as many drawn. With each: was the save over?"""
    calls = calls_of_a_save(zygote, tmp_path, job)
    folder = tmp_path / "recorded"
    story = power.told(calls, folder)
    assert story.inodes and story.changes
    old = {} if job.endswith("save_new") else {"run.bin": savers.content(OLD)}
    seen: dict[tuple[bool, frozenset[tuple[str, bytes]]], power.State] = {}
    for moment, disk in power.states(story, old=old, data=savers.content(NEW), seed=SEED):
        over = moment == story.moments - 1
        seen.setdefault((over, frozenset(disk.items())), disk)
    kept = list(seen.items())
    if len(kept) > 2000:
        kept = random.Random(SEED).sample(kept, 2000)
    for (over, _), disk in kept:
        yield over, disk


@needs_strace
@pytest.mark.parametrize("job", ["faults.savers:save_tiny", "faults.savers:save_new"])
def test_power_loss_leaves_the_old_file_or_the_new_one(tmp_path: Path, job: str) -> None:
    """On every disk that a crash may leave there is the old file or the new one, whole, and after the save the new one."""
    for chosen in ("all", "none"):
        base = tmp_path / chosen
        base.mkdir()
        with Zygote(chosen) as zygote:
            count = 0
            for number, (over, disk) in enumerate(disks(zygote, base, job)):
                folder = base / f"disk-{number}"
                folder.mkdir()
                power.materialized(disk, folder)
                target = folder / "run.bin"
                if job.endswith("save_new") and not (over and chosen == "all") and not target.exists():
                    continue
                found = savers.version_of(target)
                # A system that cannot sync folders promises only one of the two.
                assert found == NEW if over and chosen == "all" else found in (OLD, NEW)
                count += 1
            assert count
            for folder in sorted(base.glob("disk-*")):
                if savers.temporaries(folder):
                    savers.save_tiny(str(folder / "run.bin"), NEXT, durable=False)
                    assert os.listdir(folder) == ["run.bin"]


@needs_strace
def test_power_loss_is_seen_by_this_test(zygote: Zygote, tmp_path: Path) -> None:
    """Control: without fsync, some disk holds neither the old file nor the new one, and the rebuilt disks show it."""
    broken = 0
    for number, (_, disk) in enumerate(disks(zygote, tmp_path, "faults.savers:save_not_durable")):
        folder = tmp_path / f"disk-{number}"
        folder.mkdir()
        power.materialized(disk, folder)
        try:
            savers.version_of(folder / "run.bin")
        except AssertionError:
            broken += 1
    assert broken > 10


@pytest.mark.parametrize("job", JOBS)
def test_kill_at_random_moments(zygote: Zygote, tmp_path: Path, job: str) -> None:
    """Four hundred times kill -9, and more until enough fell into saves: never a bad file, never an older one than before, and the next
    save clears what was left."""
    target = fresh(tmp_path, "killed", job)
    chance = random.Random(SEED)
    wanted = 6 if "none" in zygote.process.args else 0  # temporaries of killed saves: with all calls most have no name
    longest_s, version, saves, left = 0.02, OLD, 0, 0
    for kills in range(2000):
        if kills >= 100 and saves > 5 and left >= wanted:  # a hundred for each job, with all calls and with none
            break
        child = zygote.fork("faults.savers:save_for_ever", str(target), version + 1)
        child.begin()
        time.sleep(chance.random() * longest_s)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        found = savers.version_of(target)
        assert found >= version
        longest_s = max(0.01, longest_s * 0.9) if found > version else min(1, longest_s * 1.1)  # how long a save takes, the machine tells
        saves += found - version
        left += len(savers.temporaries(target.parent))
        version = found + 1
        if job.endswith("save_state"):
            tk.save(savers.state(version), target, durable=False)
        else:
            savers.save_tiny(str(target), version, durable=False)
        assert savers.version_of(target) == version
        assert os.listdir(target.parent) == [target.name]
    assert saves > 5, "the children came to no save"
    assert left >= wanted, "the kills fell nowhere near a save"


@needs_strace
def test_no_call_is_made_on_a_name_before_the_bytes_are_safe(zygote: Zygote, tmp_path: Path) -> None:
    """The order that all rests on: writes, fsync of the file, its name, fsync of the folder."""
    calls = ["write" if call.name in WRITES else call.name for call in calls_of_a_save(zygote, tmp_path)]
    order = [name for name, _ in itertools.groupby(name for name in calls if name in {"write", "fsync", "linkat", "rename"})]
    all_in_use = "none" not in zygote.process.args
    assert order == (["write", "fsync", "linkat", "rename", "fsync"] if all_in_use else ["write", "fsync", "rename"])

"""Processes on one store: killed at any moment, and many at once. What was committed must be there and right, always.

`kills(folder, count, seed)` and `crowd(folder, seconds, seed)` do it, and raise what broke; a seed replays what a process does, though
not how they fall together.
"""

import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

import tensorkeep as tk

_NBYTES = 200_000


def state(step: int) -> dict[str, object]:
    """What every process saves at a step."""
    rng = np.random.default_rng(step)
    return {"step": step, "new": rng.random(_NBYTES // 8), "old": np.arange(_NBYTES // 8), "slow": np.arange(2000.0) + step // 10}


def check(found: dict[str, object]) -> int:
    """The step of a loaded state, which is right in every bit."""
    step = int(found["step"])  # type: ignore[call-overload]  # it was saved as one
    for name, wanted in state(step).items():
        assert np.array_equal(found[name], wanted), f"step {step}: {name} is wrong"
    return step


def forked(work: Callable[[], None]) -> int:
    """Run something in a child, which ends with 0 if nothing was raised; gives its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        warnings.simplefilter("ignore")
        work()
        code = 0
    except BaseException:  # noqa: BLE001  # a process ends here
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(code)


def kills(folder: Path, count: int, seed: int) -> int:
    """Kill a saving process at random moments; returns how many checkpoints it had committed in all."""
    rng = random.Random(seed)
    keep = tk.Keep(last=3, every=25)
    committed = -1
    for number in range(count):
        reads, writes = os.pipe()

        def work(first: int = committed + 1, writes: int = writes) -> None:
            store = tk.Store(folder, keep=keep, compress="auto" if first % 2 else "none")
            for step in range(first, first + 1000):
                store.save(state(step), step=step, wait=True, overwrite=True)  # a step whose commit the last one did not live to tell
                os.write(writes, step.to_bytes(4, "little"))

        pid = forked(work)
        os.close(writes)
        told = b""
        with os.fdopen(reads, "rb", buffering=0) as pipe:
            began = time.monotonic()
            for _ in range(rng.choice((0, 1, 1, 2))):  # some commits, however fast the machine is
                told += pipe.read(4) or b""
            time.sleep(rng.uniform(0, 0.05 + (time.monotonic() - began)))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            told += pipe.readall()
        if told:
            committed = max(committed, int.from_bytes(told[-4:], "little"))
        where = f"after kill {number} of seed {seed}"
        store = tk.Store(folder)
        steps = store.steps()
        if committed < 0:
            continue
        assert committed in steps or committed + 1 in steps, f"{where}: step {committed} is lost, there are {steps[-5:]}"
        assert len(steps) >= min(3, committed + 1), f"{where}: only {steps} are left of {committed}"
        for step in {steps[0], *steps[-2:]}:
            assert check(store.load(step)) == step, where
        if number % 20 == 19:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                store.gc()
            for step in steps:
                assert check(store.load(step)) == step, f"{where} and gc"
            assert store.gc(dry_run=True).nbytes == 0, f"{where}: gc left something"
    return committed + 1


_FAIR = (tk.NoCheckpoint, tk.CheckpointGone, tk.StepExists, tk.TagExists, BlockingIOError)  # the last: of a lock, on a disk that stalls


def crowd(folder: Path, seconds: float, seed: int) -> int:
    """Eight processes save, read, prune, tag, verify and collect at once; returns how many checkpoints were saved."""
    end = time.monotonic() + seconds

    def worker(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        store = tk.Store(folder)
        saves = number < 3
        while time.monotonic() < end:
            try:
                if saves:
                    latest = store.steps()[-1:] or [-1]
                    store.save(state(latest[0] + 1), step=latest[0] + 1, wait=True)
                elif number < 5:
                    steps = store.steps()
                    if steps:
                        step = rng.choice(steps)
                        assert check(store.load(step)) == step
                elif number == 5:
                    store.prune(tk.Keep(last=4, every=20))
                    store.gc()
                    time.sleep(0.02)
                elif number == 6:
                    name = rng.choice("abc")
                    store.tag(name, "latest", move=True)
                    assert check(store.load(name)) >= 0
                    if rng.random() < 0.3:
                        store.delete(rng.choice("abc"))
                else:
                    steps = store.steps()
                    if steps:
                        verdict = tk.verify(f"{folder}@step-{rng.choice(steps)}")
                        assert verdict.intact, verdict
            except _FAIR:
                continue
            except tk.SaveError as error:
                if not isinstance(error.__cause__, _FAIR):
                    raise

    children = [forked(lambda number=number: worker(number)) for number in range(8)]  # type: ignore[misc]  # bound now
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert not any(codes), f"seed {seed}: workers ended with {codes}"
    store = tk.Store(folder)
    steps = store.steps()
    for step in steps:
        assert check(store.load(step)) == step
    store.gc()
    for step in steps:
        assert check(store.load(step)) == step
    assert store.gc(dry_run=True).nbytes == 0, "gc left something"
    return steps[-1] + 1

"""Every call that a store makes fails, once or for ever, is answered and the answer lost, or is the last thing that its process does.

`points()` names them all; `check(point)` does one, and says what broke. A point is replayed by its name:
`python tests/store_faults.py 123`.
"""

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from unittest.mock import patch  # puts a backend of ours where a store opens one; nothing is pretended

import numpy as np

import tensorkeep as tk
from faulty import Fault, Faulty, Killed, every_fault
from memory_backend import MemoryBackend
from tensorkeep.backends.keys import Backend

MONTH = 31 * 24 * 3600.0
KEEP = tk.Keep(last=3, every=4, weights_only_after=2)


def state(step: int) -> dict[str, object]:
    """What is saved at a step: something new, something that stays, and something that comes back."""
    rng = np.random.default_rng(step)
    return {"new": rng.random(3000), "old": np.arange(5000.0), "again": np.full(20_000, step % 3, np.float32), "step": step}


@contextmanager
def store_on(backend: Backend, compress: str) -> Iterator[tk.Store]:
    """A store that lives in a backend."""
    with patch("tensorkeep.store.store.open_backend", lambda *_, **__: backend):
        store = tk.Store("memory", keep=KEEP, compress=compress)
    yield store
    with suppress(BaseException):
        store.finish()


@contextmanager
def gone() -> Iterator[None]:
    """Whoever made the claims that are left is no more."""
    with patch("tensorkeep.store.gc.known_alive", lambda _: False), patch("tensorkeep.store.gc.known_dead", lambda _: True):
        yield


def before(compress: str) -> MemoryBackend:
    """A store with some history."""
    backend = MemoryBackend()
    with store_on(backend, compress) as store:
        for step in range(3):
            store.save(state(step), step=step, metrics={"loss": 1 / (step + 1)}, wait=True)
    return backend


def work(store: tk.Store) -> Iterator[None]:
    """All that changes a store, one thing after the other."""
    store.save(state(3), step=3, wait=True)
    yield
    store.finish()
    store.save(state(4), step=4, metrics={"loss": float("nan")}, wait=True)
    yield
    store.finish()
    store.tag("good", "step-4")
    yield
    store.save(state(5), step=5, wait=True)
    yield
    store.finish()
    store.rollback("step-4")
    yield
    store.save(state(5), step=5, wait=True)
    yield
    store.finish()
    store.save(state(5), step=5, overwrite=True, wait=True)
    yield
    store.finish()
    store.delete("good")
    yield
    store.prune(tk.Keep(last=1))
    yield
    store.gc()
    yield


@dataclass(frozen=True)
class Point:
    """One fault.

    Attributes:
        compress: of the store.
        fault: which call, and how.
    """

    compress: str
    fault: Fault


@cache
def points() -> list[Point]:
    """All of them, in a fixed order."""
    found = []
    for compress in ("none", "auto"):
        faulty = Faulty(before(compress))
        with store_on(faulty, compress) as store:
            for _ in work(store):
                pass
        found += [Point(compress, fault) for fault in every_fault(len(faulty.calls))]
    return found


def silent(args: threading.ExceptHookArgs) -> None:
    """A thread of a killed process says nothing."""
    if not issubclass(args.exc_type, Killed):
        threading.__excepthook__(args)


def check(point: Point) -> None:
    """Meet one fault, and see that nothing committed was lost or is wrong, that the next save works, and that gc clears the rest."""
    backend = before(point.compress)
    faulty = Faulty(backend, point.fault)
    with ExitStack() as stack:
        stack.enter_context(patch("threading.excepthook", silent))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        store = stack.enter_context(store_on(faulty, point.compress))
        doing = work(store)
        while True:
            try:
                next(doing)
            except (StopIteration, Killed, OSError, ValueError):
                break
            intact(backend, point)
    assert len(faulty.calls) > point.fault.number, "the work ended before it met the fault"
    intact(backend, point)
    backend.clock += MONTH  # the claims of whoever is gone are dropped
    with store_on(backend, point.compress) as store, gone(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        newest = store.steps()[-1]
        store.save(state(newest + 1), step=newest + 1, wait=True)
        store.finish()
        assert same(store.load(), newest + 1), "the next save is wrong"
        store.gc()
        backend.clock += MONTH
        store.gc()
        left = {key for key in backend.objects if key.startswith(("packs/", "indexes/", "claims/"))}
        needed = set()
        for known in [*store._catalog.look().all(), *store._catalog.look().tags().values()]:
            needed |= {f"packs/{pack.name}.pack" for pack in known.manifest.packs}
            needed |= {f"indexes/{part.save}.idx" for part in known.manifest.indexes}
        assert left == needed, f"gc leaves {sorted(left - needed)[:3]}, or took {sorted(needed - left)[:3]}"


def intact(backend: MemoryBackend, point: Point) -> None:
    """Every checkpoint and tag that is there loads, bit for bit."""
    with store_on(backend, point.compress) as store:
        refs = [*map(str, store.steps()), *store.tags()]
        assert refs, "nothing is left"
        while refs:
            ref = refs.pop()
            try:
                found = store.load(int(ref) if ref.isdigit() else ref)
            except (tk.NoCheckpoint, tk.CheckpointGone):  # a policy is applied off the thread that saved
                if int(ref) in store.steps():  # it was replaced by one without the optimizer
                    refs.append(ref)
                continue
            assert same(found, found["step"]) and (not ref.isdigit() or found["step"] == int(ref)), f"{ref} is wrong"


def same(found: dict[str, object], step: int) -> bool:
    """Whether a loaded state is the one of a step."""
    wanted = state(step)
    return found.keys() == wanted.keys() and all(np.array_equal(found[key], wanted[key]) for key in wanted)


if __name__ == "__main__":
    for number in map(int, sys.argv[1:]):
        print(number, points()[number])
        check(points()[number])

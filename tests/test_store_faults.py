"""Whatever fails: every operation of a save, a tag, prune, delete, rollback and gc fails once, for ever, kills, or loses its answer.

Small true checkpoints over a storage in memory. What must hold is checked right after the fault, and again after a next save and a last gc.
"""

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import pytest

from memory_backend import MemoryBackend
from small_store import load, save
from tensorkeep.backends.keys import UnsureError
from tensorkeep.errors import TensorkeepError
from tensorkeep.store import commit, gc, names, retention, tags
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.commit import Writer
from tensorkeep.store.keep import Keep

E, A, B, C = "e" * 16, "a" * 16, "b" * 16, "c" * 16
DAY = 86400.0
Act = Callable[[MemoryBackend], Any]
Fault = Literal["once", "for ever", "kill", "answer lost", "request lost"]


class Killed(BaseException):
    """The process is gone: nothing that it would do afterwards is done."""


def base(backend: MemoryBackend) -> list[Any]:
    newest = Catalog(backend).look().newest()
    return [newest] if newest else []


ACTS: dict[str, Act] = {
    "save": lambda backend: save(backend, A, 1, 9, weights=b"frozen", rest=b"new", base=base(backend)),
    "overwrite": lambda backend: save(backend, A, 1, 3, weights=b"frozen", rest=b"new", base=base(backend), overwrite=True),
    "first save": lambda backend: save(backend, A, 1, 9, weights=b"w", rest=b"new"),
    "tag": lambda backend: tags.put(Catalog(backend), "paper", 2, Writer(A, 1, "a test")),
    "move a tag": lambda backend: tags.put(Catalog(backend), "old", 2, Writer(A, 1, "a test"), move=True),
    "prune": lambda backend: retention.prune(Catalog(backend), Keep(last=1, every=2), Writer(A, 1, "a test")),
    "weights only": lambda backend: retention.prune(Catalog(backend), Keep(weights_only_after=1), Writer(A, 1, "a test")),
    "delete": lambda backend: retention.delete(Catalog(backend), [1, "latest", "old"]),
    "rollback": lambda backend: retention.rollback(Catalog(backend), 1),
    "gc": lambda backend: gc.collect(Catalog(backend)),
}


def stage() -> MemoryBackend:
    """Three checkpoints that share weights, a tag, garbage of a deleted one, and what a killed save left a day ago."""
    backend = MemoryBackend()
    for step in (0, 1, 2, 3):
        save(backend, E, step, step, weights=b"frozen", rest=b"rest %d" % step, base=base(backend), metrics={"loss": float(step)})
    tags.put(Catalog(backend), "old", 1, Writer(E, 9, "a test"))
    backend.delete(names.checkpoint_key(0))
    with pytest.raises(Killed), commit.Commit(backend, B, 1, base(backend), "a test"):
        backend.put(names.pack_key(f"{B}-1-0"), b"left")
        backend.gate = kill
        raise Killed
    backend.gate = lambda operation, key: None
    backend.clock += DAY + 1
    backend.calls.clear()
    return backend


def kill(operation: str, key: str) -> None:
    raise Killed


def check(backend: MemoryBackend) -> None:
    """Every manifest that is there loads, bit for bit."""
    backend.gate = lambda operation, key: None
    listing = Catalog(backend).look()
    for known in (*listing.all(), *listing.tags().values()):
        found = load(backend, known.manifest)
        assert found["weights"] in (b"frozen", b"w")
        assert known.manifest.weights_only or found["rest"]
    assert not listing.damaged


def fail(backend: MemoryBackend, number: int, fault: Fault) -> list[int]:
    """From now on: operation `number` meets a fault. Once it did, what is returned is below 0."""
    left = [number]

    def gate(operation: str, key: str) -> None:
        left[0] -= 1
        if fault == "kill" and left[0] < 0:
            raise Killed
        if (left[0] == -1 and fault in ("once", "request lost")) or (left[0] < 0 and fault == "for ever"):
            changes = operation in ("create", "replace", "delete")
            raise (UnsureError if changes and fault == "request lost" else OSError)(errno.EIO, "a fault", key)

    backend.gate = gate
    if fault == "answer lost":
        for operation in ("create", "replace", "delete"):
            setattr(backend, operation, lose_answer(getattr(backend, operation), left))
    return left


def lose_answer(act: Callable[..., None], left: list[int]) -> Callable[..., None]:
    def losing(*args: Any, **kwargs: Any) -> None:
        before = left[0]
        act(*args, **kwargs)
        if before >= 0 > left[0]:
            raise UnsureError(errno.ETIMEDOUT, "no answer", str(args[0]))

    return losing


@pytest.mark.parametrize("fault", ["once", "for ever", "kill", "answer lost", "request lost"])
@pytest.mark.parametrize("name", ACTS)
def test_a_fault_at_any_operation_costs_no_checkpoint(name: str, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each operation in turn: what is committed loads, the next save works, and a last gc leaves nothing that nobody needs."""
    before = {known.key for known in Catalog(stage()).look().all()}
    for number in range(200):
        backend = stage()
        left = fail(backend, number, fault)
        with suppress(OSError, TensorkeepError, Killed):
            ACTS[name](backend)
        met = left[0] < 0
        for operation in ("create", "replace", "delete"):
            backend.__dict__.pop(operation, None)
        check(backend)
        if name in ("save", "first save", "overwrite", "tag", "move a tag", "weights only", "gc"):
            assert {known.key for known in Catalog(backend).look().all()} >= before
        saved = save(backend, C, 1, 20, weights=b"frozen", rest=b"next", base=base(backend))
        assert load(backend, saved) == {"weights": b"frozen", "rest": b"next"}
        with monkeypatch.context() as later:
            later.setattr(gc, "known_dead", lambda process: True)  # all of them, as after a night
            backend.clock += 31 * DAY
            gc.collect(Catalog(backend))
        check(backend)
        needed = {key for key in backend.objects if key.startswith((names.CHECKPOINTS, names.TAGS))}
        listing = Catalog(backend).look()
        for known in (*listing.all(), *listing.tags().values()):
            needed.update(gc.needs(known))
        assert set(backend.objects) == needed, f"operation {number}"
        if not met:
            return  # the act has no more operations
    raise AssertionError("the act has no end")


def test_the_faults_are_met() -> None:
    """Each act has so many operations; a fault at each of them is what the test above goes through."""
    counts = {}
    for name, act in ACTS.items():
        backend = stage()
        act(backend)
        counts[name] = len(backend.calls)
    assert min(counts.values()) > 5 and sum(counts.values()) * 5 > 500, counts

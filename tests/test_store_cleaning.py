"""Pruning, deleting, rolling back, tagging, and collecting garbage: what goes, what stays, and what it says it frees."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import tensorkeep as tk
from memory_backend import MemoryBackend, lost_answers
from small_store import load, save, write
from tensorkeep.backends.choosing import open_backend
from tensorkeep.backends.folder import FolderBackend
from tensorkeep.backends.keys import Backend
from tensorkeep.backends.processes import Process, this_process
from tensorkeep.errors import CheckpointGone, CorruptError, FormatError, NoCheckpoint, TagExists
from tensorkeep.store import claims, gc, names, retention, tags
from tensorkeep.store import manifest as manifests
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.commit import Commit, Writer
from tensorkeep.store.keep import Keep

A, B, C = "a" * 16, "b" * 16, "c" * 16
HOUR, DAY = 3600.0, 86400.0
FOLDERS = names.CHECKPOINTS, names.TAGS, names.INDEXES, names.PACKS, names.CLAIMS
DEAD = Process(**{**msgspec.structs.asdict(this_process()), "pid": 2**22 + 1})  # more than Linux ever gives
ELSEWHERE = Process(host="other", boot="other", namespace="other", pid=1, started="1")


@pytest.fixture(params=["memory", "folder"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Where clocks do not matter: in memory, and in a real folder."""
    yield MemoryBackend() if request.param == "memory" else open_backend(tmp_path / "run", create=True)


@pytest.fixture
def memory() -> MemoryBackend:
    return MemoryBackend()


_numbers = iter(range(1, 10**6))


def act() -> Writer:
    return Writer(C, next(_numbers), "a test")


def keys(backend: Backend, *prefixes: str) -> list[str]:
    return [
        entry.key
        for prefix in prefixes or (names.CHECKPOINTS, names.TAGS, names.INDEXES, names.PACKS, names.CLAIMS)
        for entry in backend.list(prefix)
    ]


def fill(backend: Backend, steps: range, **same: Any) -> None:
    """A checkpoint a step, with a metric and a clock, of bytes that differ unless they are given."""
    for step in steps:
        parts = {"weights": b"w%d" % step, "rest": b"optimizer %d" % step, **same}
        save(backend, A, step, step, metrics={"loss": abs(step - 3.0)}, time=step * 60.0, **parts)


def steps(backend: Backend) -> list[int]:
    return [one.step for one in Catalog(backend).look().all()]


class TestPrune:
    def test_does_what_the_policy_says_and_says_what_that_frees(self, backend: Backend) -> None:
        """The dry run and the true one say the same, and gc then frees just that."""
        fill(backend, range(1, 9))
        keep = Keep(last=2, best="loss", every=5, within=timedelta(minutes=3))
        said = retention.prune(Catalog(backend), keep, act(), dry_run=True)
        assert said.dry_run and steps(backend) == list(range(1, 9))
        done = retention.prune(Catalog(backend), keep, act())
        assert steps(backend) == [3, 5, 6, 7, 8]
        assert done.steps == said.steps == (1, 2, 4) and done.nbytes == said.nbytes > 0
        collected = gc.collect(Catalog(backend))
        assert (collected.nbytes, collected.packs, collected.indexes) == (done.nbytes, 6, 3)
        for known in Catalog(backend).look().all():
            assert load(backend, known.manifest)["weights"] == b"w%d" % known.step

    def test_counts_what_is_shared_as_not_freed(self, backend: Backend) -> None:
        """Frozen weights stay as long as one checkpoint names them."""
        base = ()
        for step in (1, 2, 3):
            save(backend, A, step, step, weights=b"frozen" * 1000, rest=b"%d" % step, base=base)
            base = (Catalog(backend).look().find(step),)
        done = retention.prune(Catalog(backend), Keep(last=1), act())
        assert done.steps == (1, 2) and done.nbytes < 6000 + 100
        assert gc.collect(Catalog(backend)).nbytes == done.nbytes
        assert load(backend, Catalog(backend).look().find("latest").manifest) == {"weights": b"frozen" * 1000, "rest": b"3"}

    def test_leaves_weights_alone_where_the_policy_says_so(self, backend: Backend) -> None:
        """The rest of the state goes with its packs; a second time there is nothing to do."""
        fill(backend, range(1, 6))
        keep = Keep(weights_only_after=2)
        said = retention.prune(Catalog(backend), keep, act(), dry_run=True)
        done = retention.prune(Catalog(backend), keep, act())
        assert done.weights_only == said.weights_only == (1, 2, 3) and done.steps == ()
        collected = gc.collect(Catalog(backend))
        assert (collected.packs, collected.indexes) == (3, 1)  # the index of the act itself, which nobody names
        assert done.nbytes == said.nbytes == sum(len(b"optimizer %d" % step) for step in (1, 2, 3))
        found = {known.step: load(backend, known.manifest) for known in Catalog(backend).look().all()}
        assert [step for step, parts in found.items() if "rest" not in parts] == [1, 2, 3]
        assert all(parts["weights"] == b"w%d" % step for step, parts in found.items())
        assert retention.prune(Catalog(backend), keep, act()).weights_only == ()
        assert keys(backend, names.CLAIMS) == []

    def test_keeps_fields_that_it_does_not_know(self, memory: MemoryBackend) -> None:
        """A later release may have written them."""
        fill(memory, range(1, 3))
        key = names.checkpoint_key(1)
        document = msgspec.json.decode(memory.objects[key][0])
        del document["digest"]
        document["statistics"] = {"w": 1.5}
        memory.put(key, manifests.seal(msgspec.defstruct("Later", list(document))(**document)))
        retention.prune(Catalog(memory), Keep(weights_only_after=1), act())
        assert msgspec.json.decode(memory.objects[key][0])["statistics"] == {"w": 1.5}
        assert Catalog(memory).look().find(1).manifest.weights_only

    @pytest.mark.parametrize("harm", ["pack missing", "pack cut", "index missing", "index flipped", "found by a load"])
    def test_never_trades_an_intact_checkpoint_for_a_damaged_one(self, memory: MemoryBackend, harm: str) -> None:
        """Those that a look finds damaged do not count, and stay as long as they would if they were intact."""
        fill(memory, range(1, 5))
        catalog = Catalog(memory)
        pack, index = names.pack_key(f"{A}-4-0"), names.index_key(f"{A}-4")
        if harm == "pack missing":
            memory.delete(pack)
        elif harm == "pack cut":
            memory.put(pack, memory.objects[pack][0][:-1])
        elif harm == "index missing":
            memory.delete(index)
        elif harm == "index flipped":
            memory.put(index, memory.objects[index][0][:-1] + b"\x01")
        else:
            known = catalog.look().find(4)
            catalog.found_damaged(known, CorruptError(file="f", path="w", span=(0, 1), found="a", wanted="b"))
        assert retention.prune(catalog, Keep(last=1), act()).steps == (1, 2)
        assert steps(memory) == [3, 4]

    def test_leaves_damaged_manifests_to_people(self, memory: MemoryBackend) -> None:
        """They are told, not removed, and gc keeps whatever they seem to need; `delete` removes them."""
        fill(memory, range(1, 5))
        key = names.checkpoint_key(2)
        memory.put(key, memory.objects[key][0].replace(b'"tensors":2', b'"tensors":3'))
        done = retention.prune(Catalog(memory), Keep(last=1), act())
        assert done.steps == (1, 3) and [at for at, _ in done.damaged] == [key]
        collected = gc.collect(Catalog(memory))
        assert collected.damaged == (key,)
        assert keys(memory, names.PACKS) == [names.pack_key(f"{A}-{step}-{number}") for step in (2, 4) for number in (0, 1)]
        assert retention.delete(Catalog(memory), [2]).steps == (2,)
        assert gc.collect(Catalog(memory)).packs == 2

    def test_in_an_object_store_spares_what_is_young(self) -> None:
        """For an hour by the storage's own clock: a create may be under way yet."""
        backend = MemoryBackend("object store")
        fill(backend, range(1, 4))
        backend.clock += 3599
        done = retention.prune(Catalog(backend), Keep(last=1), act())
        assert done.steps == () and done.spared == (1, 2) and steps(backend) == [1, 2, 3]
        backend.clock += 2
        assert retention.prune(Catalog(backend), Keep(last=1), act()).steps == (1, 2)

    def test_does_not_bring_back_what_was_deleted_meanwhile(self, memory: MemoryBackend) -> None:
        """A replacement is checked behind a claim: what is gone or new by then stays as it is."""
        fill(memory, range(1, 4))
        done: list[str] = []

        def meanwhile(operation: str, key: str) -> None:
            if operation == "create" and key.startswith(names.CLAIMS) and not done:
                done.append(key)
                memory.gate = lambda operation, key: None
                retention.delete(Catalog(memory), [1])
                save(memory, B, 1, 2, weights=b"new", overwrite=True)
                gc.collect(Catalog(memory))

        memory.gate = meanwhile
        result = retention.prune(Catalog(memory), Keep(weights_only_after=1), act())
        assert result.weights_only == () and steps(memory) == [2, 3]
        assert load(memory, Catalog(memory).look().find(2).manifest)["weights"] == b"new"

    @pytest.mark.parametrize("fate", ["deleted", "overwritten"])
    def test_leaves_alone_what_changes_in_the_last_moment(self, memory: MemoryBackend, fate: str) -> None:
        """Between the last look and the replacement: what was saved anew is not given up for the old one, and what is gone stays gone."""
        fill(memory, range(1, 3))
        done: list[str] = []

        def meanwhile(operation: str, key: str) -> None:
            if operation == "replace" and not done:
                done.append(key)
                if fate == "deleted":
                    retention.delete(Catalog(memory), [1])
                else:
                    save(memory, B, 1, 1, weights=b"new", rest=b"newer", overwrite=True)

        memory.gate = meanwhile
        assert retention.prune(Catalog(memory), Keep(weights_only_after=1), act()).weights_only == ()
        assert done == [names.checkpoint_key(1)] and keys(memory, names.CLAIMS) == []
        if fate == "deleted":
            assert steps(memory) == [2]
        else:
            assert load(memory, Catalog(memory).look().find(1).manifest) == {"weights": b"new", "rest": b"newer"}


class TestDeleteAndRollback:
    def test_delete_takes_every_reference_and_removes_all_or_none(self, backend: Backend) -> None:
        """A reference that means nothing is an error before anything is removed."""
        fill(backend, range(1, 6))
        tags.put(Catalog(backend), "paper", 4, act())
        assert gc.collect(Catalog(backend)).indexes == 1  # the tag's own, which nobody names
        with pytest.raises(NoCheckpoint):
            retention.delete(Catalog(backend), ["latest", "step-77"])
        assert steps(backend) == [1, 2, 3, 4, 5]
        said = retention.delete(Catalog(backend), ["latest", "best:loss", 1, "paper"], dry_run=True)
        done = retention.delete(Catalog(backend), ["latest", "best:loss", 1, "paper"])
        assert done.steps == said.steps == (1, 3, 5) and done.tags == ("paper",) and done.nbytes == said.nbytes
        assert steps(backend) == [2, 4] and keys(backend, names.TAGS) == []
        assert gc.collect(Catalog(backend)).nbytes == done.nbytes

    def test_a_tag_keeps_what_is_deleted(self, backend: Backend) -> None:
        """Nothing is freed, and the tag loads."""
        fill(backend, range(1, 3))
        tags.put(Catalog(backend), "paper", 1, act())
        assert retention.delete(Catalog(backend), [1]).nbytes == 0
        gc.collect(Catalog(backend))
        assert load(backend, Catalog(backend).look().find("paper").manifest) == {"weights": b"w1", "rest": b"optimizer 1"}

    def test_rollback_removes_what_came_later(self, backend: Backend) -> None:
        """So that a rerun can save those steps again; tags keep theirs."""
        fill(backend, range(1, 6))
        tags.put(Catalog(backend), "before", 5, act())
        assert retention.rollback(Catalog(backend), "step-3", dry_run=True).steps == (4, 5)
        assert retention.rollback(Catalog(backend), "step-3").steps == (4, 5)
        save(backend, B, 1, 4, weights=b"again")
        gc.collect(Catalog(backend))
        assert steps(backend) == [1, 2, 3, 4]
        assert load(backend, Catalog(backend).look().find("before").manifest)["weights"] == b"w5"

    def test_rollback_to_what_cannot_be_loaded_removes_nothing(self, memory: MemoryBackend) -> None:
        """Neither to a damaged checkpoint, nor to a tag whose step is gone or another by now, nor to none."""
        fill(memory, range(1, 5))
        tags.put(Catalog(memory), "old", 2, act())
        save(memory, B, 1, 2, weights=b"another", overwrite=True)
        memory.delete(names.pack_key(f"{A}-3-0"))
        for ref, kind in (("step-3", FormatError), ("old", FormatError), ("step-9", NoCheckpoint)):
            with pytest.raises(kind):
                retention.rollback(Catalog(memory), ref)
        assert steps(memory) == [1, 2, 3, 4]


class TestTags:
    def test_keep_a_checkpoint_from_every_policy(self, backend: Backend) -> None:
        """Prune does not touch it, nor its optimizer."""
        fill(backend, range(1, 5))
        tags.put(Catalog(backend), "paper", "step-1", act())
        retention.prune(Catalog(backend), Keep(last=1, weights_only_after=1), act())
        gc.collect(Catalog(backend))
        assert steps(backend) == [1, 4]
        assert load(backend, Catalog(backend).look().find("paper").manifest) == {"weights": b"w1", "rest": b"optimizer 1"}
        assert list(Catalog(backend).look().tags()) == ["paper"]
        assert keys(backend, names.CLAIMS) == [] and len(keys(backend, names.INDEXES)) == 2

    def test_move_only_when_told(self, backend: Backend) -> None:
        """And setting one again where it is changes nothing."""
        fill(backend, range(1, 3))
        tags.put(Catalog(backend), "good", 1, act())
        tags.put(Catalog(backend), "good", 1, act())
        with pytest.raises(TagExists, match="the tag good is on step 1"):
            tags.put(Catalog(backend), "good", 2, act())
        tags.put(Catalog(backend), "good", 2, act(), move=True)
        assert Catalog(backend).look().find("good").step == 2
        tags.remove(Catalog(backend), "good")
        with pytest.raises(NoCheckpoint, match="its tags are none"):
            tags.remove(Catalog(backend), "good")
        assert keys(backend, names.TAGS) == []

    def test_have_names_of_their_own(self, backend: Backend) -> None:
        """No reference that means something else, and nothing that leads out of the folder."""
        fill(backend, range(1, 2))
        for tag in ("latest", "best", "step-3", "Step-12", "../x", "a/b", "", ".hidden", "x" * 101, "nul\0"):
            with pytest.raises(ValueError):
                tags.put(Catalog(backend), tag, 1, act())

    def test_are_told_when_their_checkpoint_goes_meanwhile(self, memory: MemoryBackend) -> None:
        """Between the look and the claim."""
        fill(memory, range(1, 3))

        def meanwhile(operation: str, key: str) -> None:
            if operation == "create" and key.startswith(names.CLAIMS):
                memory.objects.pop(names.checkpoint_key(1))

        memory.gate = meanwhile
        with pytest.raises(CheckpointGone, match="deleted"):
            tags.put(Catalog(memory), "paper", 1, act())
        assert keys(memory, names.TAGS, names.CLAIMS) == []

    @pytest.mark.parametrize("fate", ["moved", "removed"])
    def test_that_somebody_else_changes_meanwhile_are_told(self, memory: MemoryBackend, fate: str) -> None:
        """Of two that move one tag the second is told where it is by now; one that was taken away is made."""
        fill(memory, range(1, 4))
        tags.put(Catalog(memory), "paper", 1, act())
        done: list[str] = []

        def meanwhile(operation: str, key: str) -> None:
            if operation == "replace" and not done:
                done.append(key)
                if fate == "moved":
                    tags.put(Catalog(memory), "paper", 3, act(), move=True)
                else:
                    tags.remove(Catalog(memory), "paper")

        memory.gate = meanwhile
        if fate == "moved":
            with pytest.raises(TagExists, match="on step 3"):
                tags.put(Catalog(memory), "paper", 2, act(), move=True)
        else:
            tags.put(Catalog(memory), "paper", 2, act(), move=True)
        assert Catalog(memory).look().find("paper").step == (3 if fate == "moved" else 2)

    @pytest.mark.parametrize("operation", ["create", "replace", "delete"])
    def test_go_on_after_a_lost_answer(self, memory: MemoryBackend, operation: str) -> None:
        """As saves do."""
        fill(memory, range(1, 3))
        if operation == "replace":
            tags.put(Catalog(memory), "paper", 2, act())
        lost_answers(memory, operation, "", 1)
        tags.put(Catalog(memory), "paper", 1, act(), move=operation == "replace")
        assert Catalog(memory).look().find("paper").step == 1
        assert list(Catalog(memory).look().tags()) == ["paper"]

    def test_that_are_damaged_are_told_and_guard_what_they_seem_to_be_on(self, memory: MemoryBackend) -> None:
        """A flipped bit in a tag must not cost its checkpoint."""
        fill(memory, range(1, 4))
        tags.put(Catalog(memory), "paper", 1, act())
        memory.put(names.tag_key("paper"), memory.objects[names.tag_key("paper")][0].replace(b'"tensors":2', b'"tensors":1'))
        assert retention.prune(Catalog(memory), Keep(last=1), act()).steps == (2,)
        listing = Catalog(memory).look()
        with pytest.raises(CorruptError):
            listing.find("paper")
        assert gc.collect(Catalog(memory)).damaged == (names.tag_key("paper"),)
        assert len(keys(memory, names.PACKS)) == 4
        with pytest.raises(TagExists, match="damaged"):
            tags.put(Catalog(memory), "paper", 3, act())
        assert retention.delete(Catalog(memory), ["paper"]).tags == ("paper",)


def begin(backend: MemoryBackend, writer: str, process: Process, *, age: float, index: bytes | None = None, base: str = "") -> None:
    """What a save under way has made so far: its claim, a pack, perhaps its index."""
    claim = claims.Claim(save=f"{writer}-1", process=process, packs=[base] if base else [], indexes=[])
    backend.put(names.claim_key(f"{writer}-1"), claims.seal(claim), age=age)
    backend.put(names.pack_key(f"{writer}-1-0"), b"its own", age=age)
    if index is not None:
        backend.put(names.index_key(f"{writer}-1"), index, age=age)


class TestCollect:
    def test_finds_nothing_in_a_store_that_is_clean(self, backend: Backend) -> None:
        """And changes nothing."""
        fill(backend, range(1, 4))
        tags.put(Catalog(backend), "paper", 2, act())
        gc.collect(Catalog(backend))
        before = keys(backend)
        collected = gc.collect(Catalog(backend))
        assert keys(backend) == before and collected.nbytes == 0 and collected.damaged == ()

    def test_on_nothing_is_fine(self, backend: Backend) -> None:
        """An empty store has no garbage."""
        assert gc.collect(Catalog(backend)).packs == 0

    @pytest.mark.parametrize("dry_run", [True, False])
    @pytest.mark.parametrize("process", [DEAD, ELSEWHERE, this_process()], ids=["dead", "elsewhere", "alive"])
    @pytest.mark.parametrize("age", [60.0, 2 * HOUR, 25 * HOUR, 31 * DAY], ids=["a minute", "2 hours", "25 hours", "31 days"])
    @pytest.mark.parametrize("index", [None, b"", b"real"], ids=["no index", "empty index", "index"])
    @pytest.mark.parametrize("kind", ["folder", "object store"])
    def test_drops_claims_by_rule_5(self, kind: Any, index: bytes | None, age: float, process: Process, dry_run: bool) -> None:
        """Of the known dead (in an object store after an hour), after a day behind a fence, after 30 days whatever there is."""
        if process is DEAD and not DEAD.boot:
            pytest.skip("this system does not say which start of which machine it is")
        backend = MemoryBackend(kind)
        backend.clock += 10**8
        fill(backend, range(1, 3))
        begin(backend, B, process, age=age, index=index, base=f"{A}-1-0")
        retention.delete(Catalog(backend), [1])
        collected = gc.collect(Catalog(backend), dry_run=dry_run)
        dead = process is DEAD and (kind == "folder" or age > HOUR)
        alive = process not in (DEAD, ELSEWHERE)
        dropped = dead or (age > DAY and index != b"real") or (age > 30 * DAY and not alive)
        packs = {names.pack_key(f"{B}-1-0"), names.pack_key(f"{A}-1-0")}
        assert collected.claims == dropped
        assert collected.packs == (3 if dropped else 1)  # the rest of step 1 was nobody's
        assert (collected.held_bytes > 0) == (not dropped)
        if dry_run:
            assert {*keys(backend, names.PACKS)} >= packs and len(keys(backend, names.CLAIMS)) == 1
            return
        assert {*keys(backend, names.PACKS)} & packs == (set() if dropped else packs)
        fence = backend.objects.get(names.index_key(f"{B}-1"))
        if not dropped:
            assert (fence and fence[0]) == index
        elif dead:
            assert fence is None
        elif index != b"real" and age < 30 * DAY:
            assert fence is not None and fence[0] == b""
        assert steps(backend) == [2] and load(backend, Catalog(backend).look().find(2).manifest)

    @pytest.mark.skipif(not DEAD.boot, reason="this system does not say which start of which machine it is")
    def test_in_an_object_store_waits_an_hour_from_the_index_too(self) -> None:
        """A save of hours that was killed in its very commit: the request may arrive yet."""
        backend = MemoryBackend("object store")
        begin(backend, B, DEAD, age=5 * HOUR)
        backend.put(names.index_key(f"{B}-1"), b"real", age=60)
        assert gc.collect(Catalog(backend)).claims == 0
        backend.clock += HOUR
        assert gc.collect(Catalog(backend)).claims == 1 and keys(backend) == []

    def test_keeps_the_fence_of_a_sleeper_for_30_days(self, memory: MemoryBackend) -> None:
        """Whoever wakes up later than gc finds it, and is told."""
        begin(memory, B, ELSEWHERE, age=25 * HOUR)
        gc.collect(Catalog(memory))
        memory.clock += 29 * DAY
        gc.collect(Catalog(memory))
        assert keys(memory) == [names.index_key(f"{B}-1")]
        memory.clock += 2 * DAY
        assert gc.collect(Catalog(memory)).indexes == 1
        assert keys(memory) == []

    def test_of_two_the_second_goes_on_where_the_first_died(self, memory: MemoryBackend) -> None:
        """Killed between fence and claim: the empty index is there, and so is the claim."""
        begin(memory, B, ELSEWHERE, age=25 * HOUR, index=b"")
        assert gc.collect(Catalog(memory)).claims == 1
        assert keys(memory, names.PACKS, names.CLAIMS) == []

    def test_keeps_what_a_damaged_claim_seems_to_need(self, memory: MemoryBackend) -> None:
        """Until it is a day old, when its save would be told."""
        fill(memory, range(1, 3))
        begin(memory, B, ELSEWHERE, age=60, base=f"{A}-1-0")
        key = names.claim_key(f"{B}-1")
        memory.put(key, memory.objects[key][0].replace(b'"version":"1.0"', b'"version":"1.1"'), age=60)
        retention.delete(Catalog(memory), [1])
        collected = gc.collect(Catalog(memory))
        assert collected.damaged == (key,) and names.pack_key(f"{A}-1-0") in keys(memory) and names.pack_key(f"{B}-1-0") in keys(memory)
        memory.clock += 25 * HOUR
        assert gc.collect(Catalog(memory)).claims == 1
        assert keys(memory, names.PACKS) == [names.pack_key(f"{A}-2-{number}") for number in (0, 1)]

    @pytest.mark.skipif(not DEAD.boot, reason="this system does not say which start of which machine it is")
    @pytest.mark.parametrize("zeros", [False, True], ids=["cut short", "zeros at its end"])
    def test_believes_of_a_torn_claim_names_alone(self, memory: MemoryBackend, zeros: bool) -> None:
        """Torn at any byte by a loss of power, it holds what bears its name, and what its rest names, for 30 days. A whole one goes."""
        claim = claims.seal(claims.Claim(save=f"{B}-1", process=DEAD, packs=[f"{A}-1-0"], indexes=[f"{C}-1"]))
        own, named = [names.index_key(f"{B}-1"), names.pack_key(f"{B}-1-0")], [names.pack_key(f"{A}-1-0"), names.index_key(f"{C}-1")]
        for count in range(len(claim) + 1):
            left = claim[:count] + (bytes(len(claim) - count) if zeros else b"")
            for key in (*own, *named):
                memory.put(key, b"real", age=60)
            memory.put(names.claim_key(f"{B}-1"), left, age=60)
            gc.collect(Catalog(memory))
            whole = left == claim
            stays = [] if whole else [*own, *(key for key in named if Path(key).stem.encode() in left)]
            assert {*keys(memory, names.PACKS, names.INDEXES)} == {*stays}, left
            memory.clock += 31 * DAY
            gc.collect(Catalog(memory))
            assert keys(memory) == []

    def test_touches_nothing_that_is_not_a_stores(self, memory: MemoryBackend) -> None:
        """Foreign names in its folders stay."""
        for key in ("packs/notes.txt", "packs/x.pack", "indexes/mine.idx", "claims/readme", "other/file", f"packs/{A}-1-01.pack"):
            memory.put(key, b"mine", age=99 * DAY)
        gc.collect(Catalog(memory))
        assert len(memory.objects) == 6

    @pytest.mark.parametrize("prefix", [names.CLAIMS, names.CHECKPOINTS, names.TAGS, names.PACKS, names.INDEXES])
    @pytest.mark.parametrize("operation", ["list", "get"])
    def test_removes_nothing_where_it_cannot_see_everything(self, memory: MemoryBackend, operation: str, prefix: str) -> None:
        """A listing or a reading that fails, at any pass, ends it before the first pack goes."""
        fill(memory, range(1, 4))
        tags.put(Catalog(memory), "paper", 1, act())
        begin(memory, B, ELSEWHERE, age=60)
        memory.put(names.pack_key(f"{C}-9-0"), b"garbage")
        for number in range(1, 9):
            left = [number]

            def failing(what: str, key: str, left: list[int] = left) -> None:
                if what == operation and key.startswith(prefix):
                    left[0] -= 1
                    if not left[0]:
                        raise OSError(errno.EIO, "bad", key)

            memory.gate = failing
            if left[0] <= 0:
                break
            try:
                gc.collect(Catalog(memory))
            except OSError:
                assert names.pack_key(f"{C}-9-0") in memory.objects
            else:
                break
            finally:
                memory.gate = lambda operation, key: None
        assert len(steps(memory)) == 3

    def test_settles_what_named_it_before_it_removes_anything(self, memory: MemoryBackend) -> None:
        """A loss of power must not bring a manifest back whose packs are gone."""
        fill(memory, range(1, 3))
        retention.delete(Catalog(memory), [1])
        memory.calls.clear()
        gc.collect(Catalog(memory))
        kinds = [
            operation for operation, key in memory.calls if operation == "settle" or (operation == "delete" and key.startswith(names.PACKS))
        ]
        assert kinds == ["settle", "settle", "delete", "delete"]

    def test_waits_where_listings_may_be_old_and_only_then(self, memory: MemoryBackend) -> None:
        """65 s from pass to pass on a network file system, and none if there is nothing to remove."""
        fill(memory, range(1, 3))
        waited: list[float] = []
        memory.slow_listing = True
        gc.collect(Catalog(memory), wait=waited.append)
        assert waited == []
        retention.delete(Catalog(memory), [1])
        gc.collect(Catalog(memory), dry_run=True, wait=waited.append)
        assert waited == []
        gc.collect(Catalog(memory), wait=waited.append)
        assert waited == [gc.SETTLED_S] * 6 and len(keys(memory, names.PACKS)) == 2

    def test_passes_can_be_done_between_other_things(self, memory: MemoryBackend) -> None:
        """Whoever saves on a network file system need not stand still: a pass at a time, and saves in between."""
        fill(memory, range(1, 3))
        memory.slow_listing = True
        retention.delete(Catalog(memory), [1])
        catalog = Catalog(memory)
        passes = gc.collecting(catalog)
        done = 0
        for _ in passes:
            done += 1
            save(memory, B, done, 10 + done, rest=b"%d" % done, base=[Catalog(memory).look().find("latest")])
        assert done == 6 and len(keys(memory, names.CHECKPOINTS)) == 7
        assert names.pack_key(f"{A}-1-0") not in memory.objects
        for known in Catalog(memory).look().all():
            assert load(memory, known.manifest)

    @pytest.mark.skipif(not DEAD.boot, reason="this system does not say which start of which machine it is")
    def test_knows_at_once_what_a_killed_process_left(self, tmp_path: Path) -> None:
        """A real process in the middle of a save: nothing of it is touched while it lives, and all goes once it is killed."""
        backend = open_backend(tmp_path / "run", create=True)
        fill(backend, range(1, 3))
        code = (
            "import sys\nfrom small_store import *\nfrom tensorkeep.backends.choosing import open_backend\n"
            f"backend = open_backend({str(tmp_path / 'run')!r}, create=False)\n"
            f"with Commit(backend, {B!r}, 1, [], 'a test') as commit:\n"
            "    write(backend, commit, 9, weights=b'w', rest=b'r')\n    print('ready', flush=True)\n    sys.stdin.read()\n"
        )
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
            before = keys(backend)
            alive = gc.collect(Catalog(backend))
            assert (alive.packs, alive.claims) == (0, 0) and alive.held_bytes > 0 and keys(backend) == before
        finally:
            child.kill()
            child.communicate()
        dead = gc.collect(Catalog(backend))
        assert (dead.packs, dead.indexes, dead.claims) == (2, 1, 1)
        assert not [key for key in keys(backend) if B in key]

    def test_leaves_a_save_alone_at_each_of_its_moments(self, memory: MemoryBackend) -> None:
        """A whole collection between any two operations of a save that borrows, whose base is deleted at any moment."""
        for deleted in range(12):
            for collected in range(12):
                memory = MemoryBackend()
                fill(memory, range(1, 3), weights=b"frozen")
                base = [Catalog(memory).look().find(2)]
                left = [deleted, collected]

                def between(operation: str, key: str, memory: MemoryBackend = memory, left: list[int] = left) -> None:
                    memory.gate = lambda operation, key: None
                    left[:] = [number - 1 for number in left]
                    if left[0] == -1:
                        memory.delete(names.checkpoint_key(2))
                    if left[1] == -1:
                        gc.collect(Catalog(memory))
                    memory.gate = between

                memory.gate = between
                manifest = save(memory, B, 1, 3, weights=b"frozen", rest=b"new", base=base)
                memory.gate = lambda operation, key: None
                gc.collect(Catalog(memory))
                assert load(memory, manifest) == {"weights": b"frozen", "rest": b"new"}


def test_a_committed_checkpoint_outlives_a_collection_while_its_claim_is_still_there(backend: Backend) -> None:
    """Between the commit and the end of the block."""
    with Commit(backend, A, 1, [], "a test") as commit:
        manifest = write(backend, commit, 1, weights=b"w", rest=b"r")
        gc.collect(Catalog(backend))
        commit.put_manifest(manifest)
        gc.collect(Catalog(backend))
        assert load(backend, manifest) == {"weights": b"w", "rest": b"r"}
    assert keys(backend, names.CLAIMS) == []


@pytest.mark.parametrize("minute", [0.0, 0.2, 600.0])
def test_a_run_on_a_network_file_system_is_tidied_without_standing_still(
    tmp_path: Path, minute: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gc waits a minute between its passes behind a save, and for nobody who waits for it: the next save, a look, the end."""
    monkeypatch.setattr(FolderBackend, "slow_listing", property(lambda self: True))
    monkeypatch.setattr(gc, "SETTLED_S", minute)
    began = time.monotonic()
    packs = tmp_path / "run" / "packs"
    with tk.Store(tmp_path / "run", keep=Keep(last=1)) as store:
        for step in range(10):
            store.save({"w": np.full(1000, step)}, step=step).wait()
        until = time.monotonic() + 300
        while minute == 0.2 and len(list(packs.iterdir())) > 1 and time.monotonic() < until:
            time.sleep(0.1)  # nobody waits for it
        assert store.steps() == [9]
    assert len(list(packs.iterdir())) == (1 if minute < 1 else 10)
    assert time.monotonic() - began < 600
    assert tk.Store(tmp_path / "run").load()["w"][0] == 9

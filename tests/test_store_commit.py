"""Committing, claiming, and the catalog: one save at a time, with whatever a storage may answer."""

import errno
import math
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from memory_backend import MemoryBackend, lost_answers
from small_store import load, save, there, write
from tensorkeep.backends.keys import UnsureError
from tensorkeep.backends.processes import known_dead, this_process
from tensorkeep.errors import CheckpointGone, ClaimLost, CorruptError, FormatError, NoCheckpoint, StepExists
from tensorkeep.store import claims, names
from tensorkeep.store import manifest as manifests
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.commit import Commit
from tensorkeep.store.known import why_missing
from tensorkeep.store.manifest import Manifest
from tensorkeep.store.metrics import known_direction

A, B = "a" * 16, "b" * 16


@pytest.fixture(params=["folder", "object store"])
def backend(request: pytest.FixtureRequest) -> MemoryBackend:
    return MemoryBackend(request.param)


def unreachable(operation: str, key: str) -> None:
    """A storage that answers nothing about checkpoints."""
    if operation == "get" and key.startswith("checkpoints/"):
        raise OSError(errno.ENETDOWN, "down", key)


def answering(operation: str, key: str) -> None:
    """A storage that does."""


def keys(backend: MemoryBackend, prefix: str) -> list[str]:
    return sorted(key for key in backend.objects if key.startswith(prefix))


class TestASave:
    def test_claims_before_its_first_byte_and_commits_last(self, backend: MemoryBackend) -> None:
        """Claim, check, packs, index, manifest, and the claim is gone."""
        save(backend, A, 1, 100)
        base = Catalog(backend).look().find(100)
        backend.calls.clear()
        save(backend, A, 2, 200, weights=b"other", base=[base])
        changes = [call for call in backend.calls if call[0] in ("create", "replace", "delete")]
        assert [f"{operation} {key.partition('/')[0]}" for operation, key in changes] == [
            "create claims", "create packs", "create indexes", "create checkpoints", "delete claims",
        ]  # fmt: skip
        assert backend.calls[1] == ("get", base.key)  # the check, behind the claim
        assert keys(backend, "claims/") == []

    def test_borrows_what_its_base_has(self, backend: MemoryBackend) -> None:
        """The same bytes are not written twice, and the claim names the packs while the save goes on."""
        save(backend, A, 1, 100)
        base = Catalog(backend).look().find("latest")
        with Commit(backend, A, 2, [base], "a test") as commit:
            claim = claims.decode(backend.objects[f"claims/{A}-2.json"][0], "claim", f"{A}-2")
            manifest = write(backend, commit, 200, weights=b"weights", rest=b"changed")
            commit.put_manifest(manifest)
        assert claim.packs == [f"{A}-1-0", f"{A}-1-1"] and claim.indexes == [f"{A}-1"]
        assert [pack.name for pack in manifest.packs] == [f"{A}-1-0", f"{A}-2-1"]
        assert load(backend, manifest) == {"weights": b"weights", "rest": b"changed"}

    @pytest.mark.parametrize("fate", ["deleted", "replaced", "unreadable"])
    def test_borrows_nothing_from_a_manifest_that_is_not_there_with_the_same_bytes(self, backend: MemoryBackend, fate: str) -> None:
        """What was pruned or overwritten since it was read may have lost its packs."""
        save(backend, A, 1, 100)
        base = Catalog(backend).look().find(100)
        if fate == "deleted":
            backend.delete(base.key)
        elif fate == "replaced":
            save(backend, B, 1, 100, overwrite=True)
        else:
            backend.put(base.key, b"x" * 100)
        manifest = save(backend, A, 2, 200, base=[base])
        assert {names.save_of_pack(pack.name) for pack in manifest.packs} == {f"{A}-2"}

    def test_of_a_step_that_exists_says_by_whom_and_leaves_no_claim(self, backend: MemoryBackend) -> None:
        """The first one's checkpoint stays as it is."""
        first = save(backend, A, 1, 100, weights=b"first")
        with pytest.raises(StepExists, match="step 100 was saved by a test at 1970-01-01") as caught:
            save(backend, B, 1, 100, weights=b"second")
        assert isinstance(caught.value, FileExistsError) and caught.value.errno == errno.EEXIST
        assert Catalog(backend).look().find(100).manifest == first
        assert keys(backend, "claims/") == []
        save(backend, B, 2, 100, weights=b"second", overwrite=True)
        assert load(backend, Catalog(backend).look().find(100).manifest)["weights"] == b"second"

    def test_of_a_step_with_a_damaged_manifest_asks_too(self, backend: MemoryBackend) -> None:
        """It may be what a newer release wrote."""
        save(backend, A, 1, 100)
        backend.put(names.checkpoint_key(100), backend.objects[names.checkpoint_key(100)][0][:-3])
        with pytest.raises(StepExists, match="damaged"):
            save(backend, A, 2, 100)

    @pytest.mark.parametrize("times", [1, 3])
    @pytest.mark.parametrize(
        ("operation", "prefix"),
        [("create", "claims/"), ("create", "indexes/"), ("create", "checkpoints/"), ("replace", "checkpoints/"), ("delete", "claims/")],
    )
    def test_goes_on_after_a_lost_answer(self, backend: MemoryBackend, operation: str, prefix: str, times: int) -> None:
        """A change that is answered "somebody was first", or not at all, is settled by reading."""
        if operation == "replace":
            save(backend, B, 9, 100)
        lost_answers(backend, operation, prefix, times)
        save(backend, A, 1, 100, overwrite=operation == "replace")
        assert [one.step for one in Catalog(backend).look().all()] == [100]
        late = backend.kind == "object store" and prefix == "checkpoints/"  # its first request may arrive yet, and bring it back
        assert len(keys(backend, "claims/")) == late
        with pytest.raises(StepExists):
            save(backend, B, 1, 100)

    def test_takes_exists_for_its_own_where_it_is(self, backend: MemoryBackend) -> None:
        """An object store retries by itself, and then its own first try exists."""
        true = backend.create

        def twice(key: str, data: Any, **kwargs: Any) -> None:
            parts = list(data)
            true(key, parts, **kwargs)
            true(key, parts, **kwargs)

        backend.create = twice  # type: ignore[method-assign]  # a storage whose first answers are always lost
        save(backend, A, 1, 100)
        assert [one.step for one in Catalog(backend).look().all()] == [100]

    def test_tries_again_where_its_request_was_lost(self, backend: MemoryBackend) -> None:
        """No answer, and nothing there: the request never came."""
        true, seen = backend.create, set()

        def lossy(key: str, data: Any, **kwargs: Any) -> None:
            if key not in seen:
                seen.add(key)
                raise UnsureError(errno.ETIMEDOUT, "no answer", key)
            true(key, data, **kwargs)

        backend.create = lossy  # type: ignore[method-assign]  # a storage that loses every first request
        save(backend, A, 1, 100)
        assert [one.step for one in Catalog(backend).look().all()] == [100]

    def test_keeps_its_claim_when_nobody_can_say_whether_it_committed(self, backend: MemoryBackend) -> None:
        """The manifest may appear any time: what it names must stay."""
        lost_answers(backend, "create", "checkpoints/")
        true = backend.get

        def unreachable(key: str, *, limit: int) -> bytes:
            if key.startswith("checkpoints/"):
                raise OSError(errno.ENETDOWN, "down", key)
            return true(key, limit=limit)

        backend.get = unreachable  # type: ignore[method-assign]  # a network that went down
        with pytest.raises(UnsureError):
            save(backend, A, 1, 100)
        assert keys(backend, "claims/") == [f"claims/{A}-1.json"]

    @pytest.mark.parametrize("old", [None, b"old"])
    def test_keeps_its_claim_when_only_its_second_try_certainly_failed(self, old: bytes | None) -> None:
        """The first request, which had no answer, may be done yet."""
        backend, answers = MemoryBackend("object store"), [UnsureError(errno.ETIMEDOUT, "no answer"), PermissionError(errno.EACCES, "no")]

        def failing(operation: str, key: str) -> None:
            if operation in ("create", "replace") and key == names.checkpoint_key(1):
                raise answers.pop(0)

        if old is not None:
            backend.put(names.checkpoint_key(1), old)
        backend.gate = failing
        with pytest.raises(UnsureError), Commit(backend, A, 1, [], "a test") as commit:
            commit.put_manifest(write(backend, commit, 1, weights=b"w", rest=b"r"), old=old)
        assert answers == [] and keys(backend, "claims/") == [f"claims/{A}-1.json"]

    def test_of_several_parts_keeps_all_their_claims_or_none(self, backend: MemoryBackend) -> None:
        """N ranks, of which one commits: the others learn from it whether theirs may go."""
        for times in (0, 99):
            lost_answers(backend, "replace", "checkpoints/", times)
            with suppress(UnsureError), Commit(backend, A, times, [], "a test") as other, Commit(backend, B, times, [], "a test") as first:
                parts = [other.put_index(b"one"), first.put_index(b"two")]
                manifest = Manifest(step=1, save=first.save, by="", time=0, nbytes=0, new_bytes=0, tensors=0, packs=[], indexes=parts)
                old = there(backend, 1)
                backend.gate = unreachable if times else answering
                try:
                    first.put_manifest(manifest, old=old)
                finally:
                    backend.gate = answering
                    if first.stays:
                        other.keep_claim()
            assert len(keys(backend, "claims/")) == (2 if times else 0)

    @pytest.mark.parametrize("prefix", ["claims/", "packs/", "indexes/", "checkpoints/"])
    def test_that_fails_takes_its_claim_back(self, backend: MemoryBackend, prefix: str) -> None:
        """A full disk at any point: nothing is committed, and nothing stays claimed."""

        def full(operation: str, key: str) -> None:
            if operation == "create" and key.startswith(prefix):
                raise OSError(errno.ENOSPC, "full", key)

        backend.gate = full
        with pytest.raises(OSError, match="full"):
            save(backend, A, 1, 100)
        assert keys(backend, "claims/") == keys(backend, "checkpoints/") == []

    def test_that_was_taken_for_dead_is_told(self, backend: MemoryBackend) -> None:
        """An empty index in its name: whoever cleaned up was first, and its packs may be gone."""
        with pytest.raises(ClaimLost, match="Nothing was committed"), Commit(backend, A, 1, [], "a test") as commit:
            backend.put(names.index_key(commit.save), b"")
            write(backend, commit, 100, weights=b"w", rest=b"r")
        assert keys(backend, "checkpoints/") == keys(backend, "claims/") == []

    def test_needs_its_fence(self, backend: MemoryBackend) -> None:
        """No manifest without an index, and none of another save."""
        manifest = save(backend, A, 1, 100)
        with Commit(backend, A, 2, [], "a test") as commit:
            with pytest.raises(RuntimeError, match="fence"):
                commit.put_manifest(msgspec.structs.replace(manifest, save=f"{A}-2"))
            with pytest.raises(ValueError, match="of save"):
                commit.put_manifest(manifest)

    def test_of_two_writers_of_one_step_exactly_one_wins(self, backend: MemoryBackend) -> None:
        """The other one is told while both are under way."""
        with Commit(backend, A, 1, [], "a test") as one, Commit(backend, B, 1, [], "a test") as two:
            first, second = (write(backend, commit, 7, weights=commit.save.encode(), rest=b"r") for commit in (one, two))
            two.put_manifest(second)
            with pytest.raises(StepExists):
                one.put_manifest(first)
        assert Catalog(backend).look().find(7).manifest.save == f"{B}-1"


class TestAClaim:
    def claim(self) -> claims.Claim:
        return claims.Claim(save=f"{A}-1", process=this_process(), packs=[f"{B}-1-0"], indexes=[f"{B}-1"])

    def test_says_what_it_says(self) -> None:
        """Sealed, and read back."""
        claim = self.claim()
        assert claims.decode(claims.seal(claim), "claim", f"{A}-1") == claim

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"save": f"{A}-2"}, "it says that it is of save"),
            ({"packs": ["../../etc/passwd"]}, "no name of a pack"),
            ({"packs": [f"{B}-1-0/../x"]}, "no name of a pack"),
            ({"indexes": [f"{B}-01"]}, "no name of a pack or an index"),
            ({"version": "2.0"}, "version"),
        ],
    )
    def test_that_lies_is_refused(self, changes: dict[str, Any], said: str) -> None:
        """Whatever it claims that is no plain name."""
        data = claims.seal(msgspec.structs.replace(self.claim(), **changes))
        with pytest.raises(FormatError, match=said):
            claims.decode(data, "claim", f"{A}-1")

    def test_with_any_bit_flipped_is_refused_and_still_says_what_it_may_need(self) -> None:
        """No other content passes, and the names in it are found whatever is broken elsewhere."""
        data = claims.seal(self.claim())
        for at in range(len(data)):
            broken = bytes([*data[:at], data[at] ^ 4, *data[at + 1 :]])
            with pytest.raises((FormatError, CorruptError)):
                claims.decode(broken, "claim", f"{A}-1")
        assert claims.mentioned(data) == ({f"{B}-1-0"}, {f"{A}-1", f"{B}-1"})
        assert claims.mentioned(b"\xff" * 100) == (set(), set())

    def test_of_a_process_that_lives_or_is_elsewhere_is_not_of_a_dead_one(self) -> None:
        """Known is more than likely."""
        here = this_process()
        assert not known_dead(here)
        gone = msgspec.structs.replace(here, pid=2**22 + 1)  # more than Linux ever gives
        if here.boot:
            assert known_dead(gone)
            assert known_dead(msgspec.structs.replace(here, started="1")) == bool(here.started)
        for change in ({"boot": "another"}, {"namespace": "another"}, {"boot": ""}, {"pid": -1}, {"pid": 0}, {"pid": 2**70}):
            assert not known_dead(msgspec.structs.replace(gone, **change))


class TestTheCatalog:
    def test_reads_two_objects_to_find_the_newest_of_many(self, backend: MemoryBackend) -> None:
        """One listing, one manifest; a second look reads nothing again."""
        for number in range(30):
            save(backend, A, number, number * 10)
        backend.calls.clear()
        catalog = Catalog(backend)
        newest = catalog.look().newest()
        assert newest is not None and newest.step == 290
        assert backend.calls == [("list", "checkpoints/"), ("get", names.checkpoint_key(290))]
        assert [one.step for one in catalog.look().all()] == list(range(0, 300, 10))
        backend.calls.clear()
        assert [one.step for one in catalog.look().all()] == list(range(0, 300, 10))
        assert backend.calls == [("list", "checkpoints/")]

    def test_sees_what_was_replaced(self, backend: MemoryBackend) -> None:
        """Manifests are remembered by name and version, never by name alone."""
        catalog = Catalog(backend)
        save(backend, A, 1, 5, metrics={"loss": 1.0})
        assert catalog.look().find(5).manifest.metrics == {"loss": 1.0}
        save(backend, A, 2, 5, metrics={"loss": 2.0}, overwrite=True)
        assert catalog.look().find(5).manifest.metrics == {"loss": 2.0}

    def test_tells_of_damaged_manifests_and_hides_no_other(self, backend: MemoryBackend) -> None:
        """A damaged one counts as not there; asked for by name, it is an error that says why."""
        for step in (1, 2, 3):
            save(backend, A, step, step)
        key = names.checkpoint_key(3)
        backend.put(key, backend.objects[key][0].replace(b'"step":3', b'"step":4'))
        listing = Catalog(backend).look()
        assert [known.step for known in listing.downwards()] == [2, 1] and list(listing.damaged) == [key]
        newest = listing.newest()
        assert newest is not None and newest.step == 2
        with pytest.raises(CorruptError, match="damaged"):
            listing.find(3)

    def test_takes_a_bad_sector_for_damage_and_a_network_that_is_down_for_an_error(self, backend: MemoryBackend) -> None:
        """Whoever resumes must not be given an older checkpoint because a server was busy."""
        for step in (1, 2):
            save(backend, A, step, step)
        number = errno.EIO

        def failing(operation: str, key: str) -> None:
            if (operation, key) == ("get", names.checkpoint_key(2)):
                raise OSError(number, "failed", key)

        backend.gate = failing
        assert [one.step for one in Catalog(backend).look().all()] == [1]
        number = errno.ETIMEDOUT
        with pytest.raises(OSError, match="failed"):
            [one.step for one in Catalog(backend).look().all()]

    def test_finds_by_every_reference(self, backend: MemoryBackend) -> None:
        """latest, best, a metric's best, a step, a tag; NaN is never best, and the first of equals is."""
        for step, loss in ((1, 0.5), (2, 0.25), (3, math.nan), (4, 0.25), (5, 0.75)):
            save(backend, A, step, step, metrics={"loss": loss, "val_acc": 1 - loss, "heat": loss}, best={"heat": "max"})
        backend.put(names.tag_key("paper"), backend.objects[names.checkpoint_key(2)][0])
        listing = Catalog(backend).look()
        found = {
            ref: listing.find(ref).step for ref in ("latest", "best", "best:loss", "best:val_acc", "step-4", "step-0000000004", "paper")
        }
        assert found == {"latest": 5, "best": 5, "best:loss": 2, "best:val_acc": 2, "step-4": 4, "step-0000000004": 4, "paper": 2}
        assert listing.find(1).step == 1

    def test_says_what_there_is_instead(self, backend: MemoryBackend) -> None:
        """Near steps, close tags, the metrics there are: as a LookupError and a FileNotFoundError in one."""
        listing = Catalog(backend).look()
        with pytest.raises(NoCheckpoint, match="it has no checkpoint"):
            listing.find("latest")
        for step in range(100, 1300, 100):
            save(backend, A, step, step, metrics={"val_loss": 1.0, "heat": 1.0})
        backend.put(names.tag_key("paper-1"), backend.objects[names.checkpoint_key(200)][0])
        listing = Catalog(backend).look()
        for ref, said in {
            "step-110": "it has 12, from step 100 to 1200; near are 100, 200",
            "papr-1": "its tags are paper-1",
            "best": "nobody has said what is best.*metrics are val_loss, heat",
            "best:loss": "metrics are val_loss",
        }.items():
            with pytest.raises(NoCheckpoint, match=said) as caught:
                listing.find(ref)
            assert isinstance(caught.value, LookupError) and isinstance(caught.value, FileNotFoundError)
        with pytest.raises(ValueError, match="whether more of 'heat' is better nobody has said"):
            listing.find("best:heat")
        with pytest.raises(ValueError, match="no reference"):
            listing.find("best:")

    def test_tells_deleted_and_replaced_from_damaged(self, backend: MemoryBackend) -> None:
        """A reader that misses a pack reads the manifest again."""
        save(backend, A, 1, 5)
        known = Catalog(backend).look().find(5)
        assert isinstance(why_missing(backend, known, "packs/x.pack"), FormatError)
        save(backend, A, 2, 5, weights=b"new", overwrite=True)
        replaced = why_missing(backend, known, "packs/x.pack")
        backend.delete(known.key)
        deleted = why_missing(backend, known, "packs/x.pack")
        assert isinstance(replaced, CheckpointGone) and replaced.fate == "replaced"
        assert isinstance(deleted, CheckpointGone) and deleted.fate == "deleted"

    def test_passes_over_names_that_are_none(self, backend: MemoryBackend) -> None:
        """Foreign objects are not seen; a manifest under another step's name is damaged."""
        save(backend, A, 1, 5)
        data = backend.objects[names.checkpoint_key(5)][0]
        backend.put("checkpoints/5.json", data)
        backend.put("checkpoints/notes.txt", b"mine")
        backend.put(names.checkpoint_key(6), data)
        listing = Catalog(backend).look()
        assert [one.step for one in listing.all()] == [5]
        assert "step 5 stands in it, and 6 in its name" in str(listing.damaged[names.checkpoint_key(6)])

    def test_refuses_every_lie_of_a_manifest(self, backend: MemoryBackend) -> None:
        """Each is damage of that one alone."""
        true = save(backend, A, 1, 5)
        lies: list[dict[str, Any]] = [
            {"step": 6}, {"step": -5}, {"save": "../x"}, {"time": 1e308 * 10}, {"metrics": {"a": "many"}}, {"nbytes": -1}, {"indexes": []},
            {"indexes": [("..", 3, "0" * 64)]}, {"indexes": [(f"{A}-1", 3, "0" * 63)]}, {"packs": [("../etc", 3)]},
            {"packs": [(f"{A}-1-0", 0)]}, {"packs": [(f"{A}-1-0", 3), (f"{A}-1-0", 3)]}, {"best": {"a": "most"}}, {"version": "9.0"},
            {"keyframe": (1, "x")}, {"tensors": -1}, {"weights_only": 3},
        ]  # fmt: skip
        for lie in lies:
            document = {**msgspec.to_builtins(true), **lie}
            backend.put(names.checkpoint_key(5), manifests.seal(msgspec.defstruct("Lie", list(document))(**document)))
            listing = Catalog(backend).look()
            assert [one.step for one in listing.all()] == [], lie
            assert list(listing.damaged) == [names.checkpoint_key(5)], lie
        assert isinstance(true, Manifest)


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        *(
            (name, "min")
            for name in ("loss", "val_loss", "val/loss", "Train Loss", "perplexity", "eval.rmse", "wer", "cross_entropy", "top1_error")
        ),
        *(
            (name, "max")
            for name in ("accuracy", "val-acc", "f1", "rouge1", "ROUGE-L", "eval/episode_reward", "bleu4", "roc_auc", "top5_acc")
        ),
        *((name, None) for name in ("temperature", "lr", "step", "entropy", "", "loss_scale", "score")),
    ],
)
def test_names_that_everybody_uses_say_what_is_better(metric: str, direction: str | None) -> None:
    """Known names need no direction; others ask for one."""
    assert known_direction(metric) == direction

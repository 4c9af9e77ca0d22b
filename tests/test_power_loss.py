"""What a folder backend promises of a loss of power, on every disk that one may leave."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import power
from faulty import Faulty, Killed, every_fault
from tensorkeep.backends import capabilities
from tensorkeep.backends.folder import FolderBackend
from tensorkeep.backends.keys import UnsureError

BIG = bytes(range(256)) * 200


def view(data: bytes) -> list[memoryview]:
    return [memoryview(data)]


@pytest.fixture(params=["all", "none but folder syncs"], autouse=True)
def calls(request: pytest.FixtureRequest) -> Iterator[None]:
    before = capabilities.in_use
    capabilities.in_use = capabilities.ALL if request.param == "all" else replace(capabilities.NONE, folder_sync=True)
    yield
    capabilities.in_use = before


def test_what_was_created_stays_and_what_was_not_is_absent(tmp_path: Path) -> None:
    """Before the call, nothing; during it, nothing or all; after it, all. Packs made together likewise, in a folder made on the way."""
    (tmp_path / "run").mkdir()
    with power.recording(tmp_path / "run") as log:
        backend = FolderBackend(tmp_path / "run", create=True)
        backend.create("claims/a", view(b"claim"), durable=False)
        with backend.creating() as new:
            for _ in range(3):
                new.write("packs/a", view(BIG))
                new.write("packs/b", view(BIG))
        log.mark("packs")
        backend.create("checkpoints/1", view(BIG))
        log.mark("committed")
        backend.delete("claims/a", durable=False)
    disks = list(log.disks(seed=1))
    assert len(disks) > 100
    for disk in disks:
        for key, mark, wanted in (("packs/a", "packs", 3 * BIG), ("packs/b", "packs", 3 * BIG), ("checkpoints/1", "committed", BIG)):
            found = disk.files.get(key)
            assert found == wanted if mark in disk.marks else found in (None, wanted), f"{key} after event {disk.cut}"


def test_what_was_replaced_is_the_old_or_the_new(tmp_path: Path) -> None:
    """Never neither, never a mixture, and the new one once the call has returned; what was deleted stays deleted."""
    FolderBackend(tmp_path, create=True).create("tags/best", view(b"old" * 2000))
    FolderBackend(tmp_path, create=True).create("checkpoints/1", view(BIG))
    with power.recording(tmp_path) as log:
        backend = FolderBackend(tmp_path, create=True)
        backend.replace("tags/best", view(b"new" * 2000), old=b"old" * 2000)
        log.mark("replaced")
        backend.delete("checkpoints/1", "checkpoints/none")
        log.mark("deleted")
    for disk in log.disks(seed=2):
        assert disk.files["tags/best"] in ([b"new" * 2000] if "replaced" in disk.marks else [b"old" * 2000, b"new" * 2000])
        assert "deleted" not in disk.marks or "checkpoints/1" not in disk.files


def test_what_was_settled_stays_as_it_was_listed(tmp_path: Path) -> None:
    """Somebody deleted a manifest without waiting for the disk; who removes what it named has that settled first."""
    backend = FolderBackend(tmp_path, create=True)
    backend.create("checkpoints/1", view(b"manifest"))
    backend.create("packs/a", view(b"pack"))
    for settled in (True, False):
        with power.recording(tmp_path) as log:
            backend.delete("checkpoints/1", durable=False)
            if settled:
                backend.settle("checkpoints/", "nowhere/")
            backend.delete("packs/a")
        broken = any("checkpoints/1" in disk.files and "packs/a" not in disk.files for disk in log.disks(seed=3))
        assert broken != settled
        backend.create("checkpoints/1", view(b"manifest"))
        backend.create("packs/a", view(b"pack"))


def test_the_recorder_would_tell(tmp_path: Path) -> None:
    """A claim that nobody synced may be lost, be empty, be zeros, be torn; so the recorder sees what a sync is for."""
    backend = FolderBackend(tmp_path, create=True)
    backend.create("claims/first", view(b""))
    with power.recording(tmp_path) as log:
        backend.create("claims/a", view(BIG), durable=False)
        log.mark("created")
    found = [disk.files.get("claims/a") for disk in log.disks(seed=4, most_each=50) if "created" in disk.marks]
    assert {None, b"", BIG, bytes(len(BIG))} <= set(found) and len(set(found)) > 4


def test_what_is_made_together_is_synced_together(tmp_path: Path) -> None:
    """Three packs, an index and a manifest: a sync for each file and each folder; a claim that needs none has none."""
    backend = FolderBackend(tmp_path, create=True)
    for folder in ("packs", "indexes", "checkpoints", "claims"):
        backend.create(f"{folder}/first", [])
    with power.recording(tmp_path) as log:
        backend.create("claims/a", view(b"claim"), durable=False)
        with backend.creating() as new:
            for number in range(3):
                new.write(f"packs/{number}", view(BIG))
        backend.create("indexes/a", view(b"index"))
        backend.create("checkpoints/1", view(b"manifest"))
        backend.delete("claims/a", durable=False)
    assert sum(event.kind == "sync" for event in log.events) == 5 + 3


def test_a_disk_can_be_opened(tmp_path: Path) -> None:
    """What is rebuilt is a folder like any other."""
    (tmp_path / "run").mkdir()
    with power.recording(tmp_path / "run") as log:
        FolderBackend(tmp_path / "run", create=True).create("a/b/c", view(BIG))
    *_, last = log.disks(seed=5)
    last.write_to(tmp_path / "after")
    assert FolderBackend(tmp_path / "after", create=False).get("a/b/c", limit=len(BIG)) == BIG


def work(backend: Faulty) -> None:
    backend.create("claims/a", view(b"claim"))
    with backend.creating() as new:
        new.write("packs/a", view(BIG))
        new.write("packs/b", view(BIG))
    backend.create("checkpoints/1", view(b"manifest"))
    list(backend.list("packs/"))
    backend.delete("claims/a")


def test_a_faulty_backend_fails_as_told(tmp_path: Path) -> None:
    """Each call in each way: done or not, told or not; the dead do nothing more. (What the store's own tests rest on.)"""
    whole = Faulty(FolderBackend(tmp_path / "whole", create=True))
    work(whole)
    assert whole.calls == [
        "create claims/a", "write packs/a", "write packs/b", "commit", "create checkpoints/1", "list packs/", "delete claims/a",
    ]  # fmt: skip
    assert len(list(every_fault(7))) == 7 * 8
    for number, fault in enumerate(every_fault(7)):
        inner = FolderBackend(tmp_path / str(number), create=True)
        faulty = Faulty(inner, fault)
        with pytest.raises((OSError, Killed)) as caught:
            work(faulty)
        what = faulty.calls[-1].split()[0]
        unsure = fault.kind == "lost" and what in ("create", "commit", "delete")
        assert isinstance(caught.value, UnsureError) == (unsure or (fault.kind == "exists" and what in ("commit", "delete")))
        assert isinstance(caught.value, FileExistsError) == (fault.kind == "exists" and what == "create")
        assert isinstance(caught.value, Killed) == fault.kind.startswith("kill")
        if what == "commit":
            assert bool(list(inner.list("packs/"))) == (fault.kind not in ("error", "kill"))
        if isinstance(caught.value, Killed):
            with pytest.raises(Killed):
                faulty.delete("packs/a")
            assert len(faulty.calls) == fault.number + 1

"""What every backend promises, for each of them: `tensorkeep.backends.keys`."""

import errno
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

import servers
from tensorkeep.backends import calls, capabilities, hidden
from tensorkeep.backends.choosing import open_backend
from tensorkeep.backends.folder import FolderBackend
from tensorkeep.backends.inner_folder import Root
from tensorkeep.backends.keys import Backend, checked, may_mend
from tensorkeep.backends.new_file import NewFile

Made = Callable[[], Backend]

NO_KEYS: Final = (
    *("", "/", "a/", "/a", "a//b", ".", "..", "../a", "a/../b", ".a", "a.", "-a", "a b", "a\\b", "c:d", "con", "AUX.json"),
    *("a/b/c/d/e", "a\n", "ä", "a\0", "x" * 201, "a:b", "~a", "%2e"),
)


def parts(*texts: bytes) -> list[memoryview]:
    return [memoryview(text) for text in texts]


def got(backend: Backend, key: str) -> bytes:
    return backend.get(key, limit=1 << 20)


@pytest.fixture(params=["folder", "memory", "moto", "localbucket"])
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Opens the same place again and again, as other processes would."""
    if request.param == "folder":
        return lambda: open_backend(tmp_path / "run", create=True)
    pytest.importorskip("obstore", reason="obstore is not installed: pip install tensorkeep[cloud]")
    place = f"{servers.BUCKET}/{secrets.token_hex(8)}/run 1"
    if request.param == "memory":
        return lambda: open_backend(f"memory://{place}", create=True)
    servers.use(monkeypatch, request.getfixturevalue(f"{request.param}_url"))
    return lambda: open_backend(f"s3://{place}", create=True)


@pytest.fixture
def backend(made: Made) -> Backend:
    return made()


class TestEveryBackend:
    def test_gives_back_what_was_created(self, backend: Backend) -> None:
        """An object has all parts, in order, and a size; some of its bytes can be read by themselves."""
        backend.create("packs/a-1-0.pack", parts(b"hello ", b"", b"world"))
        assert got(backend, "packs/a-1-0.pack") == b"hello world"
        entry = backend.stat("packs/a-1-0.pack")
        assert (entry.key, entry.nbytes) == ("packs/a-1-0.pack", 11)
        into = bytearray(5)
        backend.read("packs/a-1-0.pack", 6, 11, memoryview(into))
        assert into == b"world"
        backend.read("packs/a-1-0.pack", 3, 3, memoryview(b""))

    def test_an_empty_object_is_an_object(self, backend: Backend) -> None:
        """A fence is an index without bytes: it is there, and stands in the way of another."""
        backend.create("indexes/a-1.idx", [])
        assert got(backend, "indexes/a-1.idx") == b""
        assert [entry.nbytes for entry in backend.list("indexes/")] == [0]
        with pytest.raises(FileExistsError):
            backend.create("indexes/a-1.idx", parts(b"late"))

    def test_refuses_to_create_what_is_there(self, backend: Backend) -> None:
        """The first wins, and its bytes stay."""
        backend.create("checkpoints/1.json", parts(b"first"))
        with pytest.raises(FileExistsError) as caught:
            backend.create("checkpoints/1.json", parts(b"second"))
        assert caught.value.errno == errno.EEXIST and "checkpoints" in str(caught.value)
        assert got(backend, "checkpoints/1.json") == b"first"

    def test_of_many_creators_one_wins(self, made: Made) -> None:
        """At once, from many threads, each with a backend of its own: one is told that it is done, and its bytes are there."""
        won: list[bytes] = []
        start = threading.Barrier(8)

        def create(mine: bytes) -> None:
            backend = made()
            start.wait()
            try:
                backend.create("checkpoints/7.json", parts(mine))
            except FileExistsError:
                return
            won.append(mine)

        threads = [threading.Thread(target=create, args=(b"%d" % number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert got(made(), "checkpoints/7.json") == won[0]

    def test_replaces_what_is_known_to_be_there(self, backend: Backend) -> None:
        """`replace` takes the place of one; the version differs each time, however quickly one follows another."""
        backend.create("tags/best", parts(b"-1"))
        versions = set()
        for number in range(20):
            backend.replace("tags/best", parts(b"%02d" % number), old=b"%02d" % (number - 1))
            versions.add(backend.stat("tags/best").version)
            assert got(backend, "tags/best") == b"%02d" % number
        assert len(versions) == 20
        assert [entry.version for entry in backend.list("tags/")] == [backend.stat("tags/best").version]

    def test_replaces_no_other(self, backend: Backend) -> None:
        """What somebody else changed or removed stays as he left it."""
        backend.create("tags/best", parts(b"first"))
        for old in (b"other", b"", b"firs", b"first ", b"x" * 1000):
            with pytest.raises(FileExistsError) as caught:
                backend.replace("tags/best", parts(b"second"), old=old)
            assert caught.value.errno == errno.EEXIST and "tags" in str(caught.value)
            assert got(backend, "tags/best") == b"first"
        backend.delete("tags/best")
        with pytest.raises((FileExistsError, FileNotFoundError)):
            backend.replace("tags/best", parts(b"second"), old=b"first")
        assert list(backend.list("tags/")) == []

    def test_of_many_replacers_one_wins(self, made: Made, request: pytest.FixtureRequest) -> None:
        """At once, from many threads, each with a backend of its own: one is told that it is done, and its bytes are there."""
        if "localbucket" in request.node.callspec.id:
            pytest.skip("localbucket knows no If-Match: it says yes to all of them")
        if "folder" in request.node.callspec.id and not (capabilities.in_use.locks and capabilities.in_use.relative):
            pytest.skip("without locks, as on Windows, the later of two that replace at one moment wins")
        for key in ("checkpoints/7.json", "checkpoints/8.json"):
            made().create(key, parts(b"old"))
            won: list[bytes] = []
            start = threading.Barrier(8)

            def replace(mine: bytes, key: str = key, won: list[bytes] = won, start: threading.Barrier = start) -> None:
                backend = made()
                start.wait()
                try:
                    backend.replace(key, parts(mine), old=b"old")
                except FileExistsError:
                    return
                won.append(mine)

            threads = [threading.Thread(target=replace, args=(b"%d" % number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(won) == 1
            assert got(made(), key) == won[0]

    def test_an_object_made_anew_has_another_version(self, backend: Backend) -> None:
        """So nobody who keeps what he has read by name and version takes the old for the new."""
        versions = set()
        for number in range(20):
            backend.create("checkpoints/1.json", parts(b"%02d" % number))
            versions.add(backend.stat("checkpoints/1.json").version)
            backend.delete("checkpoints/1.json")
        assert len(versions) == 20

    def test_lists_one_folder_of_keys(self, backend: Backend) -> None:
        """Sorted, with sizes and versions, and nothing of other folders; a folder that is not there is empty."""
        assert list(backend.list("packs/")) == list(backend.list("")) == []
        for key in ("packs/b", "packs/a", "packs.old/c", "packs/inner/d", "store.json"):
            backend.create(key, parts(key.encode()))
        assert [(entry.key, entry.nbytes) for entry in backend.list("packs/")] == [("packs/a", 7), ("packs/b", 7)]
        assert [entry.key for entry in backend.list("packs/inner/")] == ["packs/inner/d"]
        assert [entry.key for entry in backend.list("")] == ["store.json"]
        assert [entry.version for entry in backend.list("packs/")] == [backend.stat(key).version for key in ("packs/a", "packs/b")]

    def test_deletes_and_does_not_mind_what_is_missing(self, backend: Backend) -> None:
        """All that are named, in several folders, with and without waiting for the disk."""
        for key in ("packs/a", "packs/b", "claims/a"):
            backend.create(key, parts(b"x"))
        backend.delete("packs/a", "nowhere/c", "claims/a", "packs/never")
        backend.delete()
        assert [entry.key for prefix in ("packs/", "claims/") for entry in backend.list(prefix)] == ["packs/b"]
        backend.delete("packs/b", durable=False)
        backend.delete("packs/b")
        assert list(backend.list("packs/")) == []

    def test_says_what_is_missing(self, backend: Backend) -> None:
        """Every way to read says that there is no such object, by name; more bytes than there are is another error."""
        for read in (backend.stat, lambda key: got(backend, key), lambda key: backend.read(key, 0, 1, memoryview(bytearray(1)))):
            with pytest.raises(FileNotFoundError) as caught:
                read("packs/missing")
            assert "missing" in str(caught.value)
        backend.create("packs/short", parts(b"abc"))
        for start, stop in ((0, 4), (3, 4), (9, 10)):
            with pytest.raises(OSError) as ended:
                backend.read("packs/short", start, stop, memoryview(bytearray(stop - start)))
            assert ended.value.errno == errno.EIO and not may_mend(ended.value)
        with pytest.raises(OSError) as large:
            backend.get("packs/short", limit=2)
        assert large.value.errno == errno.EFBIG
        with pytest.raises(ValueError):
            backend.read("packs/short", 0, 3, memoryview(bytearray(2)))

    def test_a_view_is_what_is_read_or_nothing(self, backend: Backend) -> None:
        """It outlives the object, as an open file does; of what is not there, wholly or in part, there is none."""
        data = bytes(range(256)) * 100
        backend.create("packs/a", parts(data))
        for start, stop in ((0, len(data)), (1, 2), (4095, 4097), (5000, 21_000)):
            view = backend.view("packs/a", start, stop)
            assert view is None or (view == data[start:stop] and view.readonly)
        assert backend.view("packs/a", 5000, len(data) + 1) is None and backend.view("packs/b", 0, 1) is None
        whole = backend.view("packs/a", 0, len(data))
        backend.delete("packs/a")
        assert whole is None or whole == data

    def test_makes_large_objects_piece_by_piece(self, backend: Backend) -> None:
        """Any number of threads append to any of several objects, each is told where its bytes went, and nobody sees one before its end."""
        told: dict[tuple[str, int], bytes] = {}

        def append(number: int) -> None:
            for piece in range(12):
                key = f"packs/{(number + piece) % 3}"
                text = bytes([number * 16 + piece]) * (200_000 + number * 1000 + piece)
                told[key, new.write(key, parts(text[:1], text[1:]))] = text

        with backend.creating() as new:
            threads = [threading.Thread(target=append, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert list(backend.list("packs/")) == []
        assert len(told) == 48
        assert [entry.key for entry in backend.list("packs/")] == ["packs/0", "packs/1", "packs/2"]
        for (key, offset), text in told.items():
            into = bytearray(len(text))
            backend.read(key, offset, offset + len(text), memoryview(into))
            assert into == text
        assert sum(entry.nbytes for entry in backend.list("packs/")) == sum(map(len, told.values()))

    def test_what_was_not_finished_was_never_there(self, backend: Backend) -> None:
        """An error in the block leaves no object and no leftover."""
        with pytest.raises(KeyboardInterrupt), backend.creating() as new:
            new.write("packs/a", parts(b"a" * 100_000))
            raise KeyboardInterrupt
        assert list(backend.list("packs/")) == []
        assert list(backend.leftovers("", "packs/")) == []

    def test_tells_the_storages_own_time(self, backend: Backend) -> None:
        """An object's time lies between two questions, by one clock, to two seconds."""
        before = backend.now()
        backend.create("claims/a", parts(b"x"))
        after = backend.now()
        assert before - 2 <= backend.stat("claims/a").modified <= after + 1
        assert [entry.key for prefix in ("", "claims/") for entry in backend.list(prefix)] == ["claims/a"]

    def test_takes_no_name_that_could_lead_elsewhere(self, backend: Backend) -> None:
        """Keys are of one alphabet: whatever a file says, it names an object of the place or nothing."""
        for key in NO_KEYS:
            for call in (
                backend.stat, backend.delete, lambda key: backend.create(key, []), lambda key: backend.replace(key, [], old=b""),
            ):  # fmt: skip
                with pytest.raises(ValueError, match="is no key"):
                    call(key)
            with pytest.raises(ValueError), backend.creating() as new:
                new.write(key, [])
            with pytest.raises(ValueError):
                backend.list(f"{key}/" if key != "a/" else "a")

    def test_free_room_is_a_number_or_unknown(self, backend: Backend) -> None:
        """Where it can be known, it is some bytes, also before anything was made."""
        free = backend.free_bytes()
        assert free is None or free > 0


def test_keys_of_a_store_are_keys() -> None:
    """The names that the store uses, and the longest that a tag may have."""
    for key in (
        "store.json",
        "checkpoints/0000001200.json",
        "packs/3f2a-12-0.pack",
        "claims/3f2a-12.json",
        "tags/v1.0+best@x",
        "tags/" + "x" * 200,
    ):
        assert "/".join(checked(key)) == key


class TestFolder:
    """What is special about a folder."""

    @pytest.fixture(params=["all", "none"], autouse=True)
    def optional_calls(self, request: pytest.FixtureRequest) -> Iterator[None]:
        before = capabilities.in_use
        if request.param == "none":
            capabilities.in_use = capabilities.NONE
        yield
        capabilities.in_use = before

    def test_keeps_every_promise_without_optional_calls(self, tmp_path: Path) -> None:
        """The rest of the promises, once more, in one go."""
        if capabilities.in_use is capabilities.ALL:
            return  # above, each by itself
        for number, name in enumerate(sorted(vars(TestEveryBackend))):
            if name.startswith("test_"):
                made = partial(open_backend, tmp_path / str(number), create=True)
                if "replacers" not in name:  # without locks, several may be told that they were the one
                    getattr(TestEveryBackend(), name)(made if "creators" in name else made())

    def test_has_views_where_files_can_be_mapped(self, tmp_path: Path) -> None:
        """Else nobody would notice that a load copies more than it must."""
        backend = open_backend(tmp_path, create=True)
        backend.create("packs/a", parts(b"abc"))
        assert (backend.view("packs/a", 0, 3) is not None) == (capabilities.in_use.mapping and capabilities.in_use.populate)

    def test_nothing_is_made_before_the_first_object(self, tmp_path: Path) -> None:
        """To open a place makes nothing; without `create`, a place that is not there is an error."""
        place = tmp_path / "a" / "run"
        with pytest.raises(FileNotFoundError):
            open_backend(place, create=False)
        backend = open_backend(place, create=True)
        assert list(backend.list("packs/")) == [] and not backend.slow_listing and list(tmp_path.iterdir()) == []
        backend.delete("packs/a")
        backend.settle("", "packs/")
        assert list(tmp_path.iterdir()) == []
        backend.create("packs/a", [])
        assert open_backend(place, create=False).stat("packs/a").nbytes == 0
        (tmp_path / "file").write_bytes(b"")
        for create in (True, False):
            with pytest.raises(NotADirectoryError):
                open_backend(tmp_path / "file", create=create)

    def test_a_link_is_never_followed(self, tmp_path: Path) -> None:
        """Neither in place of a folder nor of a file, neither to read nor to write nor to remove; the way to the root may be one."""
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "a").write_bytes(b"secret")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "packs").symlink_to(elsewhere)
        (tmp_path / "run" / "a").symlink_to(elsewhere / "a")
        (tmp_path / "way").symlink_to(tmp_path / "run")
        backend = open_backend(tmp_path / "way", create=False)
        for call in (
            backend.stat, lambda key: got(backend, key), lambda key: backend.create(key, []), lambda key: backend.replace(key, [], old=b""),
            backend.delete,
        ):  # fmt: skip
            with pytest.raises(NotADirectoryError, match="link"):
                call("packs/a")
        with pytest.raises(NotADirectoryError, match="link"):
            backend.list("packs/")
        for call in (backend.stat, lambda key: got(backend, key), lambda key: backend.replace(key, [], old=b"secret")):
            with pytest.raises(OSError, match="a link"):
                call("a")
        with pytest.raises(FileExistsError):
            backend.create("a", [])
        assert list(backend.list("")) == []
        backend.delete("a")
        assert (elsewhere / "a").read_bytes() == b"secret"
        assert sorted(os.listdir(elsewhere)) == ["a"]

    @pytest.mark.parametrize("other", ["deletes", "replaces"])
    def test_nobody_comes_between_the_look_and_the_replacement(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
        """Whoever wants to waits: what was deleted meanwhile is not brought back, and what was replaced is not lost unnoticed."""
        if not capabilities.in_use.locks:
            return  # nobody can tell there
        monkeypatch.setattr(hidden, "_WAIT_S", 300.0)
        backend, late = open_backend(tmp_path, create=False), open_backend(tmp_path, create=False)
        backend.create("checkpoints/1", parts(b"old"))
        told: list[str] = []

        def change() -> None:
            try:
                late.delete("checkpoints/1") if other == "deletes" else late.replace("checkpoints/1", parts(b"late"), old=b"old")
            except FileExistsError:
                told.append("another one is there")

        thread = threading.Thread(target=change)
        true = NewFile.take_place

        def slowly(new: NewFile) -> None:
            if not thread.ident:
                thread.start()
                thread.join(0.2)
                assert thread.is_alive()
            true(new)

        monkeypatch.setattr(NewFile, "take_place", slowly)
        backend.replace("checkpoints/1", parts(b"new"), old=b"old")
        thread.join()
        found = [got(backend, entry.key) for entry in backend.list("checkpoints/")]
        assert (found, told) == (([], []) if other == "deletes" else ([b"new"], ["another one is there"]))

    def test_a_process_that_stands_still_while_it_replaces_is_not_waited_for_for_ever(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Others are told that they may try again, and nothing was changed. A forked child of it holds nobody up."""
        if not capabilities.in_use.locks:
            return
        backend = open_backend(tmp_path, create=False)
        backend.create("checkpoints/1", parts(b"old"))
        monkeypatch.setattr(hidden, "_WAIT_S", 0.05)
        root = Root(os.fsdecode(tmp_path), "run", create=False)
        with root.inner(("checkpoints",)) as folder, folder.locked():
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            for call in (lambda: backend.replace("checkpoints/1", [], old=b"old"), lambda: backend.delete("checkpoints/1")):
                with pytest.raises(BlockingIOError) as caught:
                    call()
                assert may_mend(caught.value) and "checkpoints" in str(caught.value) and "another process" in str(caught.value)
            assert got(backend, "checkpoints/1") == b"old"
        backend.replace("checkpoints/1", parts(b"new"), old=b"old")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    def test_a_pipe_or_folder_in_place_of_an_object_is_an_error_at_once(self, tmp_path: Path) -> None:
        """Nobody waits at a pipe, and neither is listed."""
        backend = open_backend(tmp_path, create=False)
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "folder").mkdir()
        for key in ("pipe", "folder"):
            with pytest.raises(OSError) as caught:
                got(backend, key)
            assert caught.value.errno == errno.ENXIO
        assert list(backend.list("")) == []

    def test_an_object_may_have_two_names(self, tmp_path: Path) -> None:
        """A kill between link and unlink leaves two, and so does `cp -al`."""
        backend = open_backend(tmp_path, create=False)
        backend.create("packs/a", parts(b"x"))
        os.link(tmp_path / "packs" / "a", tmp_path / "twice")
        assert got(backend, "packs/a") == b"x"

    def test_files_of_others_are_not_seen(self, tmp_path: Path) -> None:
        """What is not spelled as a key stays out of every listing."""
        backend = open_backend(tmp_path, create=False)
        for name in (".hidden", "with space", "ünicode", "good"):
            (tmp_path / name).write_bytes(b"")
        assert [entry.key for entry in backend.list("")] == ["good"]

    def test_leftovers_are_those_of_the_dead(self, tmp_path: Path) -> None:
        """What a killed writer left is found and removed; what somebody is writing is neither. No other hidden file is touched."""
        backend = open_backend(tmp_path, create=True)
        backend.create("packs/a", parts(b"x"))
        left = tmp_path / "packs" / f".b.{'0' * 16}.tmp"
        left.write_bytes(b"left")
        (tmp_path / "packs" / ".other").write_bytes(b"")
        if not capabilities.in_use.locks:  # then age alone tells
            assert list(backend.leftovers("packs/", remove=True)) == []
            os.utime(left, (1, 1))
        with backend.creating() as new:
            new.write("packs/c", parts(b"c"))
            assert [entry.nbytes for entry in backend.leftovers("packs/")] == [4]
            assert left.exists()
            assert [entry.nbytes for entry in backend.leftovers("", "packs/", remove=True)] == [4]
            assert not left.exists()
        assert sorted(os.listdir(tmp_path / "packs")) == [".other", "a", "c"]

    def test_knows_where_listings_are_old(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """On NFS, SMB and FUSE; not on a disk, nor where all clients of a network file system see the same."""
        backend = open_backend(tmp_path, create=False)
        assert not backend.slow_listing
        for number, slow in ((0x6969, True), (0xFF534D42, True), (0x65735546, True), (0x0BD00BD0, False), (0x47504653, False)):
            monkeypatch.setattr(calls, "file_system", lambda fd, number=number: number)
            assert backend.slow_listing == (slow and capabilities.in_use.file_system)

    def test_a_file_url_is_its_folder(self, tmp_path: Path) -> None:
        """With escapes, and of this machine only."""
        open_backend(f"file://{tmp_path}/a%20b", create=True).create("x", [])
        assert (tmp_path / "a b" / "x").exists()
        for url in ("file://other/run", "file://", f"file://{tmp_path}?a", "gopher://x"):
            with pytest.raises(OSError):
                open_backend(url, create=True)


def test_a_forked_child_finishes_nothing(tmp_path: Path) -> None:
    """Nor does it remove what its parent is writing."""
    backend = FolderBackend(tmp_path, create=False)
    with backend.creating() as new:
        new.write("a", parts(b"x"))
        child = os.fork()
        if child == 0:
            try:
                new.finish(durable=True)  # type: ignore[attr-defined]  # of the folder's
            except RuntimeError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    assert got(backend, "a") == b"x"

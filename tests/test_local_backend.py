"""Local files: what a replaced file keeps, who may not be harmed, what is refused, and reading at offsets."""

import contextlib
import dataclasses
import errno
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import savers
from faults.zygote import DONE, TESTS, UNHARMED, Zygote
from tensorkeep.backends import capabilities, local
from tensorkeep.errors import FormatError

OLD, NEW = 1, 2
ACL = "system.posix_acl_access"
NOBODY = 0xFFFFFFFF  # an entry of the list that is for no one by name


@pytest.fixture(params=["all", "none"], autouse=True)
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with all optional system calls, then with none."""
    chosen: str = request.param
    monkeypatch.setattr(capabilities, "in_use", {"all": capabilities.ALL, "none": capabilities.NONE}[chosen])
    return chosen


@pytest.fixture
def zygote(calls: str) -> Iterator[Zygote]:
    with Zygote(calls) as made:
        yield made


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The old file, alone in its folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "run.bin").write_bytes(savers.content(OLD))
    return folder / "run.bin"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may reach, and write to."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o777)
    shutil.rmtree(folder)


class TestWhatIsKept:
    def test_the_mode_of_the_old_file(self, target: Path) -> None:
        """A replaced file keeps its mode, a read-only one too."""
        for mode in (0o600, 0o640, 0o444, 0o666, 0o755):
            target.chmod(mode)
            savers.save_tiny(str(target), NEW)
            assert stat.S_IMODE(target.stat().st_mode) == mode
            assert savers.version_of(target) == NEW

    def test_the_umask_for_a_new_file(self, tmp_path: Path, zygote: Zygote) -> None:
        """A new file has the mode that the umask leaves."""
        for umask in (0o022, 0o077, 0o002, 0o000):
            path = tmp_path / f"umask-{umask:o}"
            assert zygote.run("faults.savers:save_with_umask", str(path), NEW, umask) == DONE
            assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give files away")
    def test_the_owner_of_the_old_file(self, target: Path) -> None:
        """Root saving over somebody's file leaves it theirs."""
        os.chown(target, 1234, 5678)
        target.chmod(0o640)
        savers.save_tiny(str(target), NEW)
        status = target.stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 5678, 0o640)

    def test_links_are_followed(self, target: Path, tmp_path: Path) -> None:
        """A link stays a link, relative and through another; the file behind it is replaced, and its folder alone is written to."""
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "first").symlink_to("second")
        (elsewhere / "second").symlink_to("../folder/run.bin")
        (elsewhere / "dangling").symlink_to("../folder/new.bin")
        savers.save_tiny(str(elsewhere / "first"), NEW)
        savers.save_tiny(str(elsewhere / "dangling"), NEW)
        assert os.readlink(elsewhere / "first") == "second" and os.readlink(elsewhere / "second") == "../folder/run.bin"
        assert savers.version_of(target) == NEW and savers.version_of(target.with_name("new.bin")) == NEW
        assert len(os.listdir(elsewhere)) == 3

    def test_a_link_to_itself_is_an_error(self, tmp_path: Path) -> None:
        """A circle of links ends in the system's own error."""
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(OSError) as caught:
            savers.save_tiny(str(tmp_path / "loop"), NEW)
        assert caught.value.errno == errno.ELOOP

    def test_other_hard_links_keep_the_old_content(self, target: Path) -> None:
        """A second name of the old file still shows the old file."""
        other = target.with_name("other.bin")
        other.hardlink_to(target)
        savers.save_tiny(str(target), NEW)
        assert savers.version_of(other) == OLD and savers.version_of(target) == NEW

    def test_readers_keep_what_they_opened(self, target: Path) -> None:
        """An open file and its mapping show the old content after a save over it."""
        with local.ReadFile(target) as file:
            mapping = file.mapping()
            savers.save_tiny(str(target), NEW)
            read = bytearray(file.nbytes)
            file.read_into(0, memoryview(read))
        assert read == savers.content(OLD)
        assert mapping is None or bytes(mapping) == savers.content(OLD)

    def test_names_long_and_strange(self, tmp_path: Path) -> None:
        """Names of 255 bytes, of bytes that are no UTF-8, with newlines and pattern characters; relative ones, and as bytes."""
        for name in (b"x" * 255, "é".encode() * 127, "語".encode() * 85, b"caf\xe9.bin", b"a\nb", b"[a-z]*.(bin", b"-rf", b".hidden"):
            path = os.fsencode(tmp_path) + b"/" + name
            for version in (OLD, NEW):
                savers.save_tiny(os.fsdecode(path), version)
            with local.replacing(path, nbytes=1) as pending:
                pending.write(0, [memoryview(b"b")])
            assert os.listdir(os.fsencode(tmp_path)) == [name]
            os.unlink(path)

    def test_a_relative_path_means_the_folder_of_the_beginning(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A change of the current folder during a save does not move the file."""
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path)
        with local.replacing("run.bin", nbytes=1) as pending:
            os.chdir("other")
            pending.write(0, [memoryview(b"x")])
        assert (tmp_path / "run.bin").read_bytes() == b"x" and not os.listdir(tmp_path / "other")

    @pytest.mark.skipif(not hasattr(os, "setxattr"), reason="no access control lists")
    def test_the_access_control_list_of_the_old_file(self, target: Path, calls: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The list is kept; where that cannot be, the group gets no right from what was only the list's mask."""
        entries = [(0x01, 6, NOBODY), (0x02, 6, 1234), (0x04, 0, NOBODY), (0x10, 6, NOBODY), (0x20, 0, NOBODY)]
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
        try:
            os.setxattr(target, ACL, acl)
        except OSError as error:
            pytest.skip(f"no access control lists here: {error}")
        if calls == "none":
            return
        savers.save_tiny(str(target), NEW)
        assert os.getxattr(target, ACL) == acl and stat.S_IMODE(target.stat().st_mode) == 0o660

        def refused(*_: object) -> None:
            raise OSError(errno.EPERM, "refused")

        monkeypatch.setattr(os, "setxattr", refused)
        savers.save_tiny(str(target), NEW)
        assert stat.S_IMODE(target.stat().st_mode) == 0o600

    def test_a_folder_that_names_may_only_be_added_to(self, tmp_path: Path, calls: str) -> None:
        """`chattr +a`: a new file can be saved, and nothing else is left."""
        folder = tmp_path / "append"
        folder.mkdir()
        if calls == "none":
            return
        if shutil.which("chattr") is None or subprocess.run(["chattr", "+a", folder], capture_output=True, check=False).returncode:
            pytest.skip("no folder can be made append-only here")
        try:
            for overwrite in (True, False):
                savers.save_tiny(str(folder / f"{overwrite}.bin"), NEW, overwrite=overwrite)
            assert sorted(os.listdir(folder)) == ["False.bin", "True.bin"]
        finally:
            subprocess.run(["chattr", "-a", folder], check=True)

    def test_a_file_that_appears_during_a_save_is_replaced(self, target: Path) -> None:
        """No file was there when the save began, one is at its end: `overwrite=True` replaces it, and leaves no temporary."""
        late = target.with_name("late.bin")
        with local.replacing(late, nbytes=1) as pending:
            late.write_bytes(b"somebody else's")
            pending.write(0, [memoryview(b"x")])
        assert late.read_bytes() == b"x" and sorted(os.listdir(target.parent)) == ["late.bin", "run.bin"]


class TestWhatIsRefused:
    def test_overwrite_false(self, target: Path) -> None:
        """`overwrite=False` refuses early, and also a file that appears during the save; a new file is made."""
        with pytest.raises(FileExistsError, match="overwrite=True"):
            savers.save_tiny(str(target), NEW, overwrite=False)
        late = target.with_name("late.bin")
        with pytest.raises(FileExistsError, match="left as it is"), local.replacing(late, nbytes=1, overwrite=False) as pending:
            pending.write(0, [memoryview(b"x")])
            late.write_bytes(b"somebody else's")
        assert late.read_bytes() == b"somebody else's" and savers.version_of(target) == OLD
        savers.save_tiny(str(target.with_name("new.bin")), NEW, overwrite=False)
        assert sorted(os.listdir(target.parent)) == ["late.bin", "new.bin", "run.bin"]

    @pytest.mark.parametrize(
        "place", ["folder", "folder/", "", "missing/run.bin", "run.bin/below", "x" * 256, "pipe", "socket", "/dev/null"]
    )
    def test_places_where_no_file_can_be(self, target: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A folder, a special file, a missing folder, a name that is too long: an OSError that names it, and nothing is left."""
        monkeypatch.chdir(target.parent)
        os.mkdir("folder")
        os.mkfifo("pipe")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
            before = sorted(os.listdir())
            with pytest.raises(OSError) as caught:
                savers.save_tiny(place, NEW)
        assert caught.value.filename is not None and os.path.basename(place) in str(caught.value)
        assert sorted(os.listdir()) == before and savers.version_of(target) == OLD

    def test_a_folder_that_may_not_be_written_to(self, open_folder: Path, zygote: Zygote, capfd: pytest.CaptureFixture[str]) -> None:
        """No right to the folder: a PermissionError, the old file untouched. A folder that may be written to but not listed will do."""
        target = open_folder / "run.bin"
        target.write_bytes(savers.content(OLD))
        target.chmod(0o644)
        open_folder.chmod(0o755)
        if os.geteuid() != 0:
            open_folder.chmod(0o555)
        assert zygote.run("faults.savers:save_as_nobody", str(target), NEW) == UNHARMED
        assert savers.version_of(target) == OLD
        open_folder.chmod(0o333)
        assert zygote.run("faults.savers:save_as_nobody", str(target), NEW) == DONE, capfd.readouterr().err
        open_folder.chmod(0o777)
        assert savers.version_of(target) == NEW and os.listdir(open_folder) == ["run.bin"]

    def test_too_few_bytes(self, target: Path) -> None:
        """A save that wrote less, or more, than was announced is an error: a file with a hole never takes the old one's place."""
        for nbytes in (0, 9, 11):
            with pytest.raises(OSError, match="old file is untouched"), local.replacing(target, nbytes=nbytes) as pending:
                pending.write(0, [memoryview(bytes(10))])
        assert savers.version_of(target) == OLD and os.listdir(target.parent) == ["run.bin"]


class TestWhoIsHarmed:
    def test_an_error_of_a_handler_stays_what_it_is(self, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A TimeoutError that a signal's handler raises within a call of the system comes out as itself."""
        error = TimeoutError("the user's own")

        def raising(*_: object) -> int:
            raise error

        for name in ("pwritev", "write"):
            monkeypatch.setattr(os, name, raising)
        with pytest.raises(TimeoutError) as caught:
            savers.save_tiny(str(target), NEW)
        assert caught.value is error and savers.version_of(target) == OLD
        with pytest.raises(TimeoutError) as caught, local.streaming("/dev/null") as put:
            put(memoryview(b"x"))
        assert caught.value is error
        for name in ("preadv", "read"):
            monkeypatch.setattr(os, name, raising)
        with pytest.raises(TimeoutError) as caught, local.ReadFile(target) as file:
            file.read_into(0, memoryview(bytearray(1)))
        assert caught.value is error

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), OSError(errno.EIO, "another's", "elsewhere"), SystemExit(1)])
    def test_an_error_in_the_block(self, target: Path, error: BaseException) -> None:
        """Whatever leaves the block: the same error with a note, the old file, no temporary."""
        with pytest.raises(type(error)) as caught, local.replacing(target, nbytes=10) as pending:
            pending.write(0, [memoryview(bytes(10))])
            raise error
        assert caught.value is error
        assert any("the old file is untouched" in note for note in caught.value.__notes__)
        assert savers.version_of(target) == OLD and os.listdir(target.parent) == ["run.bin"]

    def test_a_limit_on_file_size(self, target: Path, zygote: Zygote) -> None:
        """`RLIMIT_FSIZE` at every kind of place: short writes, then an error; the old file is untouched."""
        for limit in (0, 1, 99, 100, 101, 4096, 9001, savers.NBYTES - 1):
            assert zygote.run("faults.savers:save_with_little_room", str(target), NEW, limit) == UNHARMED
            assert savers.version_of(target) == OLD and os.listdir(target.parent) == ["run.bin"]
        assert zygote.run("faults.savers:save_with_little_limit_told", str(target), NEW) == DONE
        assert zygote.run("faults.savers:save_with_little_room", str(target), NEW, savers.NBYTES) == DONE
        assert savers.version_of(target) == NEW

    def test_short_writes(self, target: Path, zygote: Zygote) -> None:
        """Writes that the system takes in pieces of 1,000 bytes come out whole."""
        assert zygote.run("faults.savers:save_in_short_writes", str(target), NEW) == DONE
        assert savers.version_of(target) == NEW

    def test_a_full_disk(self, tmp_path: Path, calls: str) -> None:
        """A real full file system of 64 KiB, in a mount name space of its own."""
        options = ["-m"] if os.geteuid() == 0 else ["-Urm"]
        script = f'mount -t tmpfs -o size=64k none "$1" && exec "{sys.executable}" -m faults.savers {calls} "$1"'
        environment = os.environ | {"PYTHONPATH": f"{TESTS.parent / 'src'}{os.pathsep}{TESTS}"}
        if shutil.which("unshare") is None or subprocess.run(["unshare", *options, "true"], capture_output=True, check=False).returncode:
            pytest.skip("no mount name space is to be had here")
        ran = subprocess.run(
            ["unshare", *options, "sh", "-c", script, "sh", str(tmp_path)], env=environment, capture_output=True, text=True, check=False
        )
        if "mount:" in ran.stderr:
            pytest.skip(f"no mount is to be had here: {ran.stderr}")
        assert "full disk: all held" in ran.stdout, ran.stderr

    def test_fork_during_and_after(self, target: Path, zygote: Zygote) -> None:
        """Children that are forked in the middle of a save, however they end, neither finish nor spoil it."""
        assert zygote.run("faults.savers:save_and_fork", str(target), NEW) == DONE
        assert savers.version_of(target) == NEW
        assert sorted(os.listdir(target.parent)) == ["run.bin", "run.bin.after", "run.bin.other"]

    def test_threads_that_save_one_path(self, target: Path) -> None:
        """Savers of one path side by side: all succeed, readers always find a whole file, no temporary is left."""
        errors: list[BaseException] = []

        def save(first: int) -> None:
            try:
                for version in range(first, first + 25):
                    savers.save_tiny(str(target), version, durable=False)
                    savers.version_of(target)
            except BaseException as error:  # noqa: BLE001  of a thread, for the assertion below
                errors.append(error)

        threads = [threading.Thread(target=save, args=(100 * number,)) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert savers.version_of(target) % 100 == 24 and os.listdir(target.parent) == ["run.bin"]

    def test_processes_that_save_one_path(self, target: Path, calls: str) -> None:
        """The same with processes; of many that refuse to overwrite, exactly one wins."""
        zygotes = [Zygote(calls) for _ in range(3)]
        try:
            for round_ in range(8):
                new = target.with_name(f"new-{round_}.bin")
                children = [z.fork("faults.savers:save_new", str(new), n) for n, z in enumerate(zygotes, 1)]
                for child in children:
                    child.begin()
                ended = [child.wait() for child in children]
                assert sorted(ended) == [DONE, UNHARMED, UNHARMED]
                assert savers.version_of(new) == ended.index(DONE) + 1
                children = [z.fork("faults.savers:save_tiny", str(target), n) for n, z in enumerate(zygotes, 1)]
                for child in children:
                    child.begin()
                assert [child.wait() for child in children] == [DONE] * 3
                assert savers.version_of(target) in (1, 2, 3)
        finally:
            for one in zygotes:
                one.__exit__(None, None, None)
        assert not savers.temporaries(target.parent)

    def test_leftovers_are_removed_and_nothing_else(self, target: Path, calls: str) -> None:
        """Files of the exact pattern whose lock is free go; other names, folders, links, pipes and a save under way stay."""
        folder = target.parent
        leftover = folder / ".run.bin.0123456789abcdef.tmp"
        leftover.write_bytes(b"left")
        leftover.chmod(0o400)
        others = [".run.bin.0123456789ABCDEF.tmp", ".run.bin.0123.tmp", "run.bin.0123456789abcdef.tmp", ".other.0123456789abcdef.tmp"]
        others += [".run.bin.0123456789abcdef.tmp~", ".runxbin.0123456789abcdef.tmp"]
        for name in others:
            (folder / name).write_bytes(b"mine")
        (folder / ".run.bin.1111111111111111.tmp").mkdir()
        os.mkfifo(folder / ".run.bin.2222222222222222.tmp")
        (folder / ".run.bin.3333333333333333.tmp").symlink_to("run.bin")
        kept = {*os.listdir(folder)} - {leftover.name if calls == "all" else ""}
        with local.replacing(target, nbytes=1) as pending:
            pending.write(0, [memoryview(b"x")])
            during = {*os.listdir(folder)}
            savers.save_tiny(str(target), NEW)
            assert during <= {*os.listdir(folder)}
        assert {*os.listdir(folder)} == kept and target.read_bytes() == b"x"

    @pytest.mark.parametrize("named", ["unnamed", "preallocate", "positional", "locks"])
    def test_each_optional_call_alone_may_be_missing(self, target: Path, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Any one missing call changes nothing about the result."""
        monkeypatch.setattr(capabilities, "in_use", dataclasses.replace(capabilities.ALL, **{named: False}))
        savers.save_tiny(str(target), NEW)
        assert savers.version_of(target) == NEW and os.listdir(target.parent) == ["run.bin"]


class TestReading:
    def test_at_offsets_by_threads(self, tmp_path: Path) -> None:
        """Ranges read by several threads at once, one by one and as vectors, are the file's."""
        data = os.urandom(300_000)
        path = tmp_path / "data"
        path.write_bytes(data)
        wrong: list[int] = []

        def read(start: int) -> None:
            for offset in range(start, 290_000, 7_001):
                one = bytearray(5_000)
                file.read_into(offset, memoryview(one))
                several = [bytearray(size) for size in (0, 1, 2_000, 0, 2_999)]
                file.read_vector(offset, [memoryview(part) for part in several])
                if not one == b"".join(several) == data[offset : offset + 5_000]:
                    wrong.append(offset)

        with local.ReadFile(path) as file:
            assert file.nbytes == 300_000 and file.name == str(path) and not file.remote
            threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not wrong

    def test_another_name_is_no_change_of_a_file(self, target: Path) -> None:
        """Identity: a link more, a link less and a new file at the path leave it; other bytes of the same length do not."""
        with local.ReadFile(target) as file:
            before = file.identity()
            target.with_name("other").hardlink_to(target)
            assert file.identity() == before and hash(file.identity()) == hash(before)
            target.with_name("other").unlink()
            middle = file.identity()
            savers.save_tiny(str(target), NEW)
            assert file.identity() == middle
        with local.ReadFile(target) as file:
            before = file.identity()
            status = target.stat()
            while target.stat().st_ctime_ns == status.st_ctime_ns:  # the clock of a file system may stand still for a while
                time.sleep(0.01)
                with target.open("r+b") as other:
                    other.write(b"x")
                os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
            assert file.identity() != before

    def test_more_vectors_than_one_call_takes(self, tmp_path: Path) -> None:
        """5,000 pieces are written and read back in order."""
        data = os.urandom(5_000 * 3)
        with local.replacing(tmp_path / "many", nbytes=len(data)) as pending:
            pending.write(0, [memoryview(data)[at : at + 3] for at in range(0, len(data), 3)])
        into = bytearray(len(data))
        with local.ReadFile(tmp_path / "many") as file:
            file.read_vector(0, [memoryview(into)[at : at + 3] for at in range(0, len(data), 3)])
        assert into == data

    def test_views_of_other_items_than_bytes(self, tmp_path: Path) -> None:
        """A view of floats is written and read as its bytes."""
        floats = memoryview(os.urandom(64)).cast("d")
        with local.replacing(tmp_path / "floats", nbytes=64) as pending:
            pending.write(0, [floats[:5], floats[5:]])
        assert (tmp_path / "floats").read_bytes() == bytes(floats)
        into = memoryview(bytearray(64)).cast("d")
        with local.ReadFile(tmp_path / "floats") as file:
            file.read_vector(0, [into[:5], into[5:]])
        assert bytes(into) == bytes(floats)

    def test_a_file_that_was_cut_short(self, target: Path) -> None:
        """Reading past the end of a file says which file, at which byte, and that it was cut."""
        with local.ReadFile(target) as file:
            os.truncate(target, 5_000)
            for read in (file.read_into, lambda offset, into: file.read_vector(offset, [into])):
                with pytest.raises(OSError, match=r"cut short.* 5,000.*run\.bin") as caught:
                    read(4_000, memoryview(bytearray(2_000)))
                assert caught.value.errno == errno.EIO
            file.read_ahead(0, savers.NBYTES)

    def test_a_mapping_outlives_its_file_and_never_writes_to_it(self, target: Path, calls: str) -> None:
        """A mapping can be written to; the file stays as it was, and the mapping stays when file and handle are gone."""
        with local.ReadFile(target) as file:
            mapping = file.mapping()
            file.read_ahead(0, file.nbytes)
            file.read_ahead(5, 5)
            file.read_ahead(-1, file.nbytes + 1)
        if calls == "none":
            assert mapping is None
            return
        assert mapping is not None and not mapping.readonly and bytes(mapping) == savers.content(OLD)
        mapping[:8] = bytes(8)
        assert savers.version_of(target) == OLD
        target.unlink()
        assert bytes(mapping) == bytes(8) + savers.content(OLD)[8:]

    def test_an_empty_file_has_no_mapping(self, tmp_path: Path) -> None:
        """None, and no error."""
        (tmp_path / "empty").touch()
        with local.ReadFile(tmp_path / "empty") as file:
            assert file.mapping() is None and file.nbytes == 0
            file.read_into(0, memoryview(b"").cast("B"))
            file.read_ahead(0, 10)

    def test_identity_changes_with_the_file(self, target: Path) -> None:
        """A write to the file shows in its identity; a file in its place is another one."""
        with local.ReadFile(target) as file:
            before = file.identity()
            assert before == file.identity() and before.size == savers.NBYTES
            savers.save_tiny(str(target), NEW)
            with local.ReadFile(target) as other:
                assert other.identity().inode != before.inode
                os.truncate(target, 10)
                assert other.identity().size == 10

    def test_only_regular_files_are_opened(self, tmp_path: Path) -> None:
        """A folder, a pipe that nobody writes to, a device, a socket: an error at once, never a wait."""
        os.mkfifo(tmp_path / "pipe")
        with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(tmp_path):  # the names of sockets are short
            listener.bind("socket")
            for place, error in (
                (tmp_path, IsADirectoryError),
                (tmp_path / "pipe", OSError),
                ("/dev/zero", OSError),
                (tmp_path / "socket", OSError),
            ):
                with pytest.raises(error, match=r"where a (regular )?file is wanted"):
                    local.ReadFile(place)
        with pytest.raises(FileNotFoundError):
            local.ReadFile(tmp_path / "missing")

    def test_kinds(self, target: Path, tmp_path: Path) -> None:
        """What stands at a path, links followed."""
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to(tmp_path / "pipe")
        (tmp_path / "dangling").symlink_to("nowhere")
        with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(tmp_path):  # the names of sockets are short
            listener.bind("socket")
        places = {target: "file", tmp_path: "folder", tmp_path / "link": "stream", tmp_path / "dangling": "missing"}
        places |= {Path("/dev/null"): "stream", tmp_path / "socket": "other"}
        assert {place: local.kind_of(place) for place in places} == places
        assert local.is_stream(tmp_path / "pipe") and not local.is_stream(target)


class TestStreams:
    def test_a_pipe_carries_all_bytes(self, tmp_path: Path) -> None:
        """More than a pipe holds at once, written and read in pieces, arrives whole; a limit is kept."""
        os.mkfifo(tmp_path / "pipe")
        data = os.urandom(1_000_000)

        def write() -> None:
            with local.streaming(tmp_path / "pipe") as put:
                put(memoryview(data)[:1])
                put(memoryview(data)[1:])
                put(memoryview(b""))

        writer = threading.Thread(target=write)
        writer.start()
        assert local.read_stream(tmp_path / "pipe", limit=len(data)) == data
        writer.join()
        assert local.read_stream("/dev/null", limit=0) == b""
        with pytest.raises(FormatError, match="more than 1,000 bytes"):
            local.read_stream("/dev/zero", limit=1_000)

    def test_a_reader_that_goes_away(self, tmp_path: Path) -> None:
        """A broken pipe is an error that names the stream."""
        os.mkfifo(tmp_path / "pipe")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(BrokenPipeError, match=r"ends in the middle.*pipe"), local.streaming(tmp_path / "pipe") as put:
            put(memoryview(b"x"))
            os.close(reader)
            put(memoryview(b"y"))

    def test_a_stream_that_is_gone_leaves_no_file(self, target: Path) -> None:
        """Neither is a file made where a stream was, nor a file that took its place written to."""
        with pytest.raises(FileNotFoundError), local.streaming(target.with_name("gone")):
            pass
        with pytest.raises(OSError, match="no longer a stream"), local.streaming(target):
            pass
        assert savers.version_of(target) == OLD and os.listdir(target.parent) == ["run.bin"]

    def test_a_full_device(self) -> None:
        """Writing to a device that is full is an error."""
        with pytest.raises(OSError) as caught, local.streaming("/dev/full") as put:
            put(memoryview(b"x"))
        assert caught.value.errno == errno.ENOSPC

"""A folder replaced as one: all old files or all new ones, whatever happens; what else is in it stays."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tensorkeep.backends import calls, capabilities
from tensorkeep.backends.new_folder import NewFolder
from tensorkeep.backends.replaced_folder import replacing_folder


@pytest.fixture(params=["exchange", "two renames"], autouse=True)
def ways(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With folders that change places in one call, where the file system of the tests can, and without."""
    exchange = request.param == "exchange" and capabilities.ALL.exchange
    if exchange:
        one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
        try:
            calls.exchange(str(one), str(other))
        except OSError as error:
            pytest.skip(f"no two folders change places here: {error}")
    monkeypatch.setattr(capabilities, "in_use", dataclasses.replace(capabilities.in_use, exchange=exchange))
    yield


def write(folder: NewFolder, **files: bytes) -> None:
    for name, data in files.items():
        with folder.file(name, nbytes=len(data)) as pending:
            pending.write(0, [memoryview(data)])


def save(path: "Path | str", number: int, **options: Any) -> None:
    """What a save does: a folder of two files, `a` and one that bears its number."""
    with replacing_folder(path, drop=lambda name: name.startswith("shard"), **options) as folder:
        write(folder, a=b"%d" % number, **{f"shard{number}": b"%d" % number})


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_a_new_folder_and_those_around_it_are_made(tmp_path: Path) -> None:
    """Nothing there, an empty folder, a name with a slash behind it: the files are there, and nothing beside them."""
    (tmp_path / "empty").mkdir()
    for name in ("x/y/new", "empty", "slash/"):
        save(f"{tmp_path}/{name}", 1)
        assert contents(tmp_path / name) == {"a": b"1", "shard1": b"1"}
    assert sorted(os.listdir(tmp_path)) == ["empty", "slash", "x"]


def test_what_else_is_in_the_folder_stays(tmp_path: Path) -> None:
    """Other files and folders stay, the same files with the same modes; what the save replaces, or drops, goes."""
    path = tmp_path / "model"
    save(path, 1)
    (path / "tokenizer.json").write_text("{}")
    (path / "logs" / "deep").mkdir(parents=True)
    (path / "logs" / "deep" / "events").write_text("e")
    (path / "link").symlink_to("tokenizer.json")
    os.chmod(path, 0o750)
    inode = (path / "tokenizer.json").stat().st_ino
    with open(path / "logs" / "deep" / "events", "a") as log:
        save(path, 2, durable=False)
        log.write("more")  # a file that is open goes on being the one that is there
    found = contents(path)
    assert found == {"a": b"2", "shard2": b"2", "tokenizer.json": b"{}", "link": b"{}", "logs/deep/events": b"emore"}
    assert os.readlink(path / "link") == "tokenizer.json"
    assert (path / "tokenizer.json").stat().st_ino == inode and (path / "tokenizer.json").stat().st_nlink == 1
    assert path.stat().st_mode & 0o777 == 0o750
    assert os.listdir(tmp_path) == ["model"]


def test_a_save_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    """An error in the middle, and a name that is taken: the old files stay, and no hidden folder."""
    path = tmp_path / "model"
    save(path, 1)
    before = contents(path)
    with pytest.raises(RuntimeError), replacing_folder(path, drop=lambda name: True) as folder:
        write(folder, a=b"2")
        raise RuntimeError
    with pytest.raises(FileExistsError):
        save(path, 2, overwrite=False)
    assert contents(path) == before and os.listdir(tmp_path) == ["model"]


def test_a_second_rename_that_fails_takes_the_first_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two renames are needed and the second one is refused, the old folder has its name again."""
    if capabilities.in_use.exchange:
        pytest.skip("one call does it here")
    path = tmp_path / "model"
    save(path, 1)
    true_rename, count = os.rename, iter(range(100))

    def rename(*arguments: Any) -> None:
        if os.path.isdir(arguments[0]) and next(count) == 1:
            raise OSError(errno.EIO, "the disk failed")
        true_rename(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", rename)
        with pytest.raises(OSError, match="the disk failed"):
            save(path, 2)
    assert contents(path) == {"a": b"1", "shard1": b"1"} and os.listdir(tmp_path) == ["model"]


def test_links_lead_to_the_folder_that_is_replaced(tmp_path: Path) -> None:
    """A link to a folder stays a link."""
    save(tmp_path / "model", 1)
    (tmp_path / "latest").symlink_to("model")
    save(tmp_path / "latest", 2)
    assert (tmp_path / "latest").is_symlink() and contents(tmp_path / "model") == {"a": b"2", "shard2": b"2"}


def test_folders_that_cannot_be_replaced_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this process works, a mount, and a file: an error, and nothing changed."""
    save(tmp_path / "model", 1)
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path / "model")
    for path in (".", tmp_path / "model", tmp_path, "/proc"):
        if os.path.isdir(path):
            with pytest.raises(OSError, match="inside"):
                save(path, 2)
    with pytest.raises(OSError):
        save(tmp_path / "file", 2)
    assert contents(tmp_path / "model") == {"a": b"1", "shard1": b"1"} and (tmp_path / "file").read_text() == "x"


def test_who_reads_meanwhile_sees_one_save_whole(tmp_path: Path) -> None:
    """Opened once, a folder is that of one save; its name always leads to one."""
    if not capabilities.in_use.exchange:
        pytest.skip("between two renames there is none")
    path = tmp_path / "model"
    save(path, 0, durable=False)
    stop = threading.Event()
    seen: list[set[bytes]] = []

    def read() -> None:
        ended = False
        while not ended:
            ended = stop.is_set()  # once more after the last save, however late this thread came
            fd = os.open(path, os.O_RDONLY)
            try:
                if names := [name for name in os.listdir(fd) if name == "a" or name.startswith("shard")]:
                    files = [os.open(name, os.O_RDONLY, dir_fd=fd) for name in names]
                    seen.append({os.read(file, 10) for file in files})
                    for file in files:
                        os.close(file)
            except FileNotFoundError:  # the old folder, on its way out
                pass
            finally:
                os.close(fd)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 60):
        save(path, number, durable=False)
    stop.set()
    reader.join()
    assert seen and all(len(one) == 1 for one in seen)


def test_saves_of_several_threads_leave_one_whole(tmp_path: Path) -> None:
    """Four at once, many times: each finds room beside the others, and none takes another's unfinished folder for a leftover."""
    if not capabilities.in_use.exchange:
        pytest.skip("between two renames the folder is away, for the others too")
    path = tmp_path / "model"
    save(path, 0, durable=False)

    def work(number: int) -> None:
        for _ in range(15):
            save(path, number, durable=False)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(1, 5)))
    found = contents(path)
    version = found["a"]
    assert found == {"a": version, "shard" + version.decode(): version}


KILLED = """
import os, signal, sys, dataclasses
from pathlib import Path
sys.path.insert(0, {tests!r})
from tensorkeep.backends import calls, capabilities
import test_replaced_folders as here
capabilities.in_use = dataclasses.replace(capabilities.in_use, exchange={exchange})
folder = Path({folder!r})
for moment in range(1, 500):
    path = folder / str(moment) / "model"
    here.save(path, 1, durable=False)
    (path / "tokenizer.json").write_text("kept")
    child = os.fork()
    if not child:
        left = [moment]
        def hook(event, arguments):
            if event.startswith(("os.", "open", "shutil.", "ctypes.call")):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        here.save(path, 2)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(moment)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_at_any_call_leaves_one_save_whole(tmp_path: Path) -> None:
    """Killed at each of its calls in turn: the old files or the new ones, all of them, the others too; the next save clears up."""
    exchange = capabilities.in_use.exchange
    code = KILLED.format(tests=str(Path(__file__).parent), exchange=exchange, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    moments = int(done.stdout)
    assert moments > 20, signal.SIGKILL
    states: set[bytes] = set()
    for number in range(1, moments + 1):
        path = tmp_path / str(number) / "model"
        if not path.exists():  # between the two renames
            assert not exchange
            (old,) = path.parent.glob(".model.*.old")
            old.rename(path)
        found = contents(path)
        states.add(found["a"])
        version = found["a"]
        assert found == {"a": version, "shard" + version.decode(): version, "tokenizer.json": b"kept"}
        save(path, 3, durable=False)
        assert contents(path) == {"a": b"3", "shard3": b"3", "tokenizer.json": b"kept"}
        if capabilities.in_use.locks:
            assert not list(path.parent.glob(".model.*.tmp"))
    assert states == {b"1", b"2"}

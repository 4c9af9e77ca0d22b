"""Saving to streams: file objects, pipes and descriptors that somebody else has opened."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk

STATE = {"w": np.arange(200_000), "s": [np.ones(3), 1]}
descriptors = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors have names in /proc")


class _PathThatWrites:
    """As `py.path.local`: a path that has a method `write`, which takes the whole content."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)

    def write(self, data: bytes) -> None:
        self.path.write_bytes(data)


def test_a_path_is_a_path_whatever_else_it_can(tmp_path: Path) -> None:
    """A path object with a method `write` names a file; it is no stream."""
    tk.save(STATE, _PathThatWrites(tmp_path / "s"))  # type: ignore[arg-type]
    assert tk.verify(tmp_path / "s").intact


@pytest.mark.parametrize("taken", [0, -1, 10**9])
def test_a_stream_that_lies_is_an_error(taken: int) -> None:
    """A write that takes nothing, less than nothing or more than it was given ends the save with an OSError."""

    class Liar:
        def write(self, part: memoryview) -> int:
            return taken

    with pytest.raises(OSError, match=r"Liar.*ends in the middle") as caught:
        tk.save(STATE, Liar())  # type: ignore[arg-type]
    assert caught.value.errno == errno.EIO


def test_progress_counts_both_passes(tmp_path: Path) -> None:
    """Half of it is told before the first byte is written, and all of it at the end, growing all the time."""
    told: list[tuple[int, int]] = []
    first: list[int] = []

    class Stream:
        def write(self, part: memoryview) -> int:
            first.append(len(told))
            return part.nbytes

    tk.save(STATE, Stream(), progress=lambda done, whole: told.append((done, whole)))  # type: ignore[arg-type]
    whole = told[-1][1]
    assert told == sorted(told) and told[-1] == (whole, whole) and told[first[0] - 1] == (whole // 2, whole)


def _run(code: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    script = f"import os, numpy as np, tensorkeep as tk\nstate = {{'w': np.arange(200_000)}}\n{code}"
    return subprocess.run([sys.executable, "-c", script], check=True, **options)


@descriptors
def test_a_redirected_output_is_written_where_it_stands(tmp_path: Path) -> None:
    """`python save.py > file`: the bytes go into that file, behind what is there, and no other file is made."""
    path = tmp_path / "out"
    with path.open("wb") as out:
        out.write(b"before")
        out.flush()
        _run("tk.save(state, '/dev/stdout'); os.write(1, b'after')", stdout=out, cwd=tmp_path)
    data = path.read_bytes()
    assert data.startswith(b"before") and data.endswith(b"after") and os.listdir(tmp_path) == ["out"]
    assert np.array_equal(tk.loads(data[6:-5])["w"], np.arange(200_000))


@descriptors
def test_a_file_without_a_name_is_written_by_its_descriptor(tmp_path: Path) -> None:
    """A deleted file that is still open, by each of its names, also through a link: its bytes, and no stray file."""
    os.symlink("/dev/fd", tmp_path / "link")
    names = ["/proc/self/fd/{}", "/dev/fd/{}", f"/proc/{os.getpid()}/fd/{{}}", "/proc/thread-self/fd/{}", f"{tmp_path}/link/{{}}"]
    for name in names:
        with (tmp_path / "gone").open("w+b") as file:
            os.unlink(tmp_path / "gone")
            tk.save(STATE, name.format(file.fileno()))
            file.seek(0)
            assert tk.load(file)["s"][1] == 1
        assert os.listdir(tmp_path) == ["link"]


@descriptors
def test_a_descriptor_that_is_not_open_is_an_error_that_names_it() -> None:
    """A number that nothing is open under."""
    with pytest.raises(OSError, match="/dev/fd/987") as caught:
        tk.save(STATE, "/dev/fd/987")
    assert caught.value.errno == errno.EBADF


@descriptors
def test_the_file_of_another_process_is_not_written_to(tmp_path: Path) -> None:
    """Its position is not ours: the error says to name the file, which stays as it was."""
    (tmp_path / "theirs").write_bytes(b"old")
    with (tmp_path / "theirs").open("r+b") as file, subprocess.Popen(["sleep", "60"], stdin=file) as other:
        try:
            with pytest.raises(OSError, match="another process"):
                tk.save(STATE, f"/proc/{other.pid}/fd/0")
        finally:
            other.kill()
    assert (tmp_path / "theirs").read_bytes() == b"old" and os.listdir(tmp_path) == ["theirs"]

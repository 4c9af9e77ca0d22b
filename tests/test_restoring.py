"""Restoring in place: what can go wrong in the very last moment, and what it costs in memory."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from test_workers import _ours

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def _state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"w{number}": rng.standard_normal((600, 1000)) for number in range(6)}


def _during_the_copy(act: Callable[[], None]) -> Callable[[int, int], None]:
    """A progress callback that acts once, when the second pass over the bytes has begun."""
    seen: list[int] = []

    def progress(done: int, whole: int) -> None:
        second = bool(seen) and done < seen[-1]
        seen.append(done)
        if second and seen.count(-1) == 0:
            seen.insert(0, -1)
            act()

    return progress


@pytest.mark.parametrize("how", ["truncated", "changed"])
def test_a_file_that_changes_during_the_copy_is_told_with_what_was_written(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only mixture there can be has its own error, which names what was written to."""
    monkeypatch.setenv("TENSORKEEP_THREADS", "1")
    path = tmp_path / "state.safetensors"
    tk.save(_state(), path)

    def harm() -> None:
        if how == "truncated":
            os.truncate(path, 5_000_000)
        else:
            with path.open("r+b") as file:
                file.seek(-1, 2)
                file.write(b"x")

    target = {name: np.zeros((600, 1000)) for name in _state()}
    with pytest.raises(tk.RestoreInterrupted) as caught:
        tk.load(path, into=target, progress=_during_the_copy(harm))
    assert set(caught.value.written) == set(target)
    assert "Load once more" in str(caught.value)
    assert isinstance(caught.value, OSError)


class _Counter:
    """An object that takes its state by its own code."""

    def __init__(self, count: int) -> None:
        self.count = count

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


def test_a_file_that_fails_during_the_copy_leaves_objects_their_former_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What took its state by its own code before the copy gets its former one back: only the tensors that are named may be a mixture."""
    monkeypatch.setenv("TENSORKEEP_THREADS", "1")
    path = tmp_path / "state.safetensors"
    tk.save({"w": _state(), "counter": _Counter(5)}, path)
    target = {"w": {name: np.zeros((600, 1000)) for name in _state()}, "counter": _Counter(1)}
    with pytest.raises(tk.RestoreInterrupted):
        tk.load(path, into=target, progress=_during_the_copy(lambda: os.truncate(path, 5_000_000)))
    assert target["counter"].count == 1  # type: ignore[union-attr]


def test_a_progress_that_raises_before_the_copy_changes_nothing(tmp_path: Path) -> None:
    """Whatever a callback raises while digests are checked leaves the target as it was."""
    path = tmp_path / "state.safetensors"
    tk.save(_state(), path)
    target = {name: np.zeros((600, 1000)) for name in _state()}

    def progress(done: int, whole: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        tk.load(path, into=target, progress=progress)
    assert not any(array.any() for array in target.values())


class _Mine(Exception):
    """What a user's own handler raises."""


def _raise_mine(number: int, frame: object) -> None:
    raise _Mine


@pytest.mark.parametrize(
    ("number", "handler", "raised"),
    [
        (signal.SIGINT, signal.default_int_handler, KeyboardInterrupt),
        (signal.SIGINT, _raise_mine, _Mine),
        (signal.SIGTERM, _raise_mine, _Mine),
    ],
)
def test_a_signal_waits_for_the_copy_to_end(tmp_path: Path, number: int, handler: Any, raised: type[BaseException]) -> None:
    """Ctrl-C, or a signal whose handler raises, ends a load after the last copy, not in it: the target is whole."""
    former = signal.signal(number, handler)
    try:
        _disturb_the_copy(tmp_path, lambda: os.kill(os.getpid(), number), raised)
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, former)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_progress_that_raises_during_the_copy_waits_for_its_end(tmp_path: Path, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a callback raises in the last copy is raised after it: the target is whole."""
    monkeypatch.setenv("TENSORKEEP_THREADS", threads)

    def fail() -> None:
        raise _Mine

    _disturb_the_copy(tmp_path, fail, _Mine)


def _disturb_the_copy(tmp_path: Path, disturb: Callable[[], None], raised: type[BaseException]) -> None:
    path = tmp_path / "state.safetensors"
    state = _state()
    tk.save(state, path)
    target = {name: np.zeros((600, 1000)) for name in state}
    with pytest.raises(raised):
        tk.load(path, into=target, progress=_during_the_copy(disturb))
    for name, array in target.items():
        assert np.array_equal(array, state[name])


def test_ctrl_c_during_a_save_leaves_the_old_file(tmp_path: Path) -> None:
    """The old file is whole, nothing is left beside it, and the interrupt says so."""
    path = tmp_path / "state.safetensors"
    tk.save({"old": 1}, path)

    def progress(done: int, whole: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        tk.save(_state(), path, progress=progress)
    assert "untouched" in "".join(caught.value.__notes__)
    assert tk.load(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_values_that_cannot_be_built_fail_before_anything_is_changed(tmp_path: Path) -> None:
    """A text that is no UTF-8 is found out before the first tensor is filled."""
    from craft import model_file

    data = np.arange(3.0).tobytes()
    bad = model_file({"dict": ["w", ["t", {"packed": "str", "tensor": "t"}]]}, {"w": ("F64", [3], data), "t": ("U8", [2], b"\xff\xfe")})
    target = {"w": np.zeros(3), "t": ""}
    with pytest.raises(tk.FormatError, match="UTF-8"):
        tk.loads(bad, into=target)
    assert not target["w"].any()


def test_a_read_only_target_is_refused_with_the_others(tmp_path: Path) -> None:
    """What cannot be written to is one of the problems of the report."""
    tk.save({"a": np.ones(2), "b": np.ones(3)}, tmp_path / "s.safetensors")
    frozen = np.zeros(2)
    frozen.flags.writeable = False
    with pytest.raises(tk.MismatchError, match=r"(?s)read-only.*") as caught:
        tk.load(tmp_path / "s.safetensors", into={"a": frozen, "b": np.zeros(4)})
    assert {problem.kind for problem in caught.value.report.problems} == {"target", "shape"}


class _Model:
    """What no adapter knows."""


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (_Model, "the class _Model: pass an object of it"),
        (_Model(), "an object of test_restoring._Model, which no adapter knows"),
        (len, "the function len"),
    ],
    ids=["class", "object", "function"],
)
@pytest.mark.parametrize("around", [lambda state: state, lambda state: {"model": state}], ids=["whole", "inside"])
def test_what_cannot_be_filled_is_told_and_not_taken_for_a_plain_value(target: Any, told: str, around: Callable[[Any], Any]) -> None:
    """`into=Model` for `into=Model()`, or an object that keeps its model in itself: nothing would have been restored."""
    data = tk.dumps(around({"w": np.ones(3)}))
    with pytest.raises(tk.MismatchError) as caught:
        tk.loads(data, into=around(target))
    assert told in str(caught.value)
    with pytest.warns(tk.TensorkeepWarning, match="fits only in part"):
        assert tk.loads(data, into=around(target), strict=False) == around(target)


def test_many_threads_may_read_one_open_file(tmp_path: Path) -> None:
    """A handle is read from eight threads at once, checked and right."""
    state = _state()
    tk.save(state, tmp_path / "s.safetensors")
    wrong: list[str] = []
    with tk.open(tmp_path / "s.safetensors") as contents:

        def read(seed: int) -> None:
            rng = np.random.default_rng(seed)
            for _ in range(50):
                name, row = f"w{rng.integers(6)}", int(rng.integers(600))
                if not np.array_equal(contents.tensors[name][row], state[name][row]):
                    wrong.append(name)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert _ours() == []  # nothing of ours stays


def _peak(code: str, tmp_path: Path) -> int:
    """Bytes that the peak of a piece of code lies above what was there before it."""
    script = f"""
    import sys, re, numpy as np, tensorkeep as tk
    path = sys.argv[1]
    def rss(field):
        return int(re.search(field + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) << 10
    tk.save({{"warm": np.ones(300_000)}}, path); tk.load(path)
    def measured(act):
        open("/proc/self/clear_refs", "w").write("5")
        before = rss("VmRSS"); act(); return rss("VmHWM") - before
{textwrap.indent(textwrap.dedent(code), "    ")}
    """
    script = textwrap.dedent(script)
    environment = {**os.environ, "TENSORKEEP_THREADS": "4"}  # each has a job's 4 MiB in flight, and machines have any number of cores
    command = [sys.executable, "-c", script, str(tmp_path / "p.safetensors")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "PermissionError" in done.stderr:
        pytest.skip("the peak cannot be reset here")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@linux
def test_a_save_takes_64_mib_beside_the_state(tmp_path: Path) -> None:
    """No copy of the state: 512 MiB of large and small tensors."""
    code = """
    state = {f"l{i}": np.ones((1024, 1024), np.float32) for i in range(96)} | {f"s{i}": np.ones(2000, np.float32) for i in range(16000)}
    print(measured(lambda: tk.save(state, path, durable=False)))
    """
    assert _peak(code, tmp_path) < 64 << 20


@linux
def test_a_save_copies_one_tensor_at_a_time_that_is_not_contiguous(tmp_path: Path) -> None:
    """Eight transposed tensors of 32 MiB: one of them, and 64 MiB."""
    code = """
    state = [np.ones((2048, 4096), np.float32).T for i in range(8)]
    print(measured(lambda: tk.save(state, path, durable=False)))
    """
    assert _peak(code, tmp_path) < (64 << 20) + (32 << 20)


@linux
def test_loading_into_arrays_takes_no_copy(tmp_path: Path) -> None:
    """Bytes go straight into place: 256 MiB are loaded, and what stays beside them is the mapped file, which is the page cache's."""
    code = """
    state = {f"l{i}": np.ones((1024, 1024), np.float32) for i in range(64)}
    tk.save(state, path, durable=False)
    def anonymous():
        return int(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) << 10
    before = anonymous(); seen = []
    tk.load(path, into=state, progress=lambda done, whole: seen.append(anonymous()))
    print(max(seen) - before)
    """
    assert _peak(code, tmp_path) < 32 << 20

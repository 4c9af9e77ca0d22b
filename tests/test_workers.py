"""Workers: whatever interrupts them, a call returns, its threads have ended, and the first error is raised."""

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

import tensorkeep as tk
from tensorkeep import workers
from tensorkeep.errors import UnsupportedError

posix = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer that sends signals")


class _Enough(BaseException):
    """What a handler raises, as that of Ctrl-C does."""


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """SIGALRM raises once for each item in it, wherever tensorkeep is: the code of a test, and pytest's, it would break."""
    armed: list[bool] = []
    monkeypatch.setattr(sys, "unraisablehook", deque[object](maxlen=0).append)  # pytest's own is code that the alarm may meet, too

    def handler(number: int, frame: FrameType | None) -> None:
        if _is_inside(frame):
            with suppress(IndexError):  # which another thread may have emptied
                armed.pop()
                raise _Enough

    former = signal.signal(signal.SIGALRM, handler)
    yield armed
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)


def _is_inside(frame: FrameType | None) -> bool:
    while frame is not None and not f"{frame.f_globals.get('__name__')}.".startswith("tensorkeep."):
        frame = frame.f_back
    return frame is not None


def _came_of_an_alarm(error: BaseException | None) -> bool:
    """Itself, or while one was handled: Thread.start has faults of its own."""
    while error is not None and not isinstance(error, _Enough):
        error = error.__context__
    return error is not None


def _ours() -> list[threading.Thread]:
    """Threads of ours that the system knows, a moment later. Python lists some for ever that ended, if their start was interrupted."""
    until = time.monotonic() + 20
    while True:
        running = set(map(int, os.listdir("/proc/self/task"))) if os.path.isdir("/proc/self/task") else None
        named = [thread for thread in threading.enumerate() if thread.name.startswith("tensorkeep-") and thread.ident is not None]
        ours = [thread for thread in named if running is None or thread.native_id in running]
        if not ours or time.monotonic() > until:
            return ours
        time.sleep(0.001)


@posix
@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_signal_at_any_moment_of_a_save_neither_hangs_nor_leaves_threads(
    tmp_path: Path, threads: str, monkeypatch: pytest.MonkeyPatch, armed: list[bool]
) -> None:
    """A handler that raises meets saves of contiguous and of other tensors: each ends soon, and leaves no thread."""
    monkeypatch.setenv("TENSORKEEP_THREADS", threads)
    path = tmp_path / "state.safetensors"
    state = [np.ones((1500, 1000), np.float32).T, np.ones(500_000), np.ones((1000, 1500), np.float32).T, np.ones((90, 3)).T]
    tk.save(state, path, durable=False)
    chance = np.random.default_rng(0)
    met = 0
    for _ in range(2000):  # some 20 are enough on a quiet machine; on a loaded one the alarm mostly comes too late
        if met == 12:
            break
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.02), 0.0007)
        try:
            armed += [True, True]
            tk.save(state, path, durable=False)
            armed.clear()
        except BaseException as error:
            armed.clear()
            if not _came_of_an_alarm(error):
                raise
            met += 1
        assert _ours() == []
    assert met == 12
    assert np.array_equal(tk.load(path)[0], state[0])


@posix
def test_a_signal_while_the_others_work_waits_for_them(monkeypatch: pytest.MonkeyPatch, armed: list[bool]) -> None:
    """Handlers that raise again and again do not end the call before its last job has ended; the first error is raised."""
    monkeypatch.setenv("TENSORKEEP_THREADS", "2")
    ended: list[int] = []
    both = threading.Barrier(2)

    def job(number: int) -> None:
        both.wait()
        if threading.current_thread() is threading.main_thread():
            raise ValueError("the first error")
        while not _waits(threading.main_thread()):  # before, an alarm would be the first error
            time.sleep(0.001)
        armed.extend([True] * 8)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.02)
        time.sleep(0.3)
        armed.clear()  # nor may one come between the end of the waiting and the raising
        ended.append(number)

    with pytest.raises(ValueError, match="first error"):
        workers.run([(8 << 20, lambda: job(1)), (8 << 20, lambda: job(2))], nbytes=16 << 20)
    assert len(ended) == 1


def _waits(thread: threading.Thread) -> bool:
    """Whether it is in the function in which a call waits for its helpers."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code is not workers._join.__code__:
        frame = frame.f_back
    return frame is not None


def test_a_start_that_is_interrupted_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that runs though its start raised is waited for as the others are."""
    monkeypatch.setenv("TENSORKEEP_THREADS", "2")
    start = threading.Thread.start

    def interrupted(self: threading.Thread) -> None:
        start(self)
        raise KeyboardInterrupt

    begun: list[float] = []

    def job() -> None:
        begun.append(time.monotonic())
        time.sleep(0.2)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        workers.run([(8 << 20, job)] * 2, nbytes=16 << 20)
    assert _ours() == []


def test_no_thread_to_be_had_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calling thread does the work where the system gives no other; another RuntimeError is passed on."""
    monkeypatch.setenv("TENSORKEEP_THREADS", "3")
    done: list[int] = []

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    workers.run([(8 << 20, lambda: done.append(1))] * 3, nbytes=24 << 20)
    assert len(done) == 3

    def disturbed(self: threading.Thread) -> None:
        raise RuntimeError("a handler's own")

    monkeypatch.setattr(threading.Thread, "start", disturbed)
    with pytest.raises(RuntimeError, match="own"):
        workers.run([(8 << 20, lambda: done.append(1))] * 3, nbytes=24 << 20)


@pytest.mark.parametrize("shape", [(4, 8), (400, 800)])
def test_truth_values_that_are_none_are_refused_wherever_they_lie(tmp_path: Path, shape: tuple[int, int]) -> None:
    """A byte that is neither 0 nor 1, in a tensor that is copied: the error names its path, the old file stays, and no other."""
    path = tmp_path / "state.safetensors"
    tk.save({"old": 1}, path)
    bad = np.zeros(shape, np.uint8)
    bad[-1, -1] = 2
    for state in ({"mask": bad.view(bool)}, {"mask": bad.view(bool).T}):
        with pytest.raises(UnsupportedError, match="mask"):
            tk.save(state, path)
        with pytest.raises(UnsupportedError, match="mask"):
            tk.dumps(state)
    assert tk.load(path) == {"old": 1} and list(tmp_path.iterdir()) == [path]

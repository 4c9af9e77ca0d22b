"""Saves that are interrupted by signals or called by several threads at once: what is committed is whole, and the next save works."""

import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk

SIZE = 1 << 20


def state(step: int) -> dict[str, np.ndarray]:
    return {"w": np.full(SIZE, step)}


def check(folder: Path, steps: list[int]) -> None:
    """Each step has its own values, and every byte is as it was written."""
    store = tk.Store(folder)
    assert store.steps() == steps and store.verify().intact
    for step in steps:
        assert np.array_equal(store.load(step)["w"], state(step)["w"])


@pytest.mark.skipif(sys.platform == "win32", reason="it has no timers that send signals")
def test_a_save_that_ctrl_c_interrupts_is_waited_for_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python before 3.13 takes a thread for ended when `join` is interrupted; the memory that it reads must not be written to."""
    store = tk.Store(tmp_path)
    write = store._recorder.write

    interrupted = threading.Event()

    def slowly(*arguments: object) -> None:
        interrupted.wait(60)
        write(*arguments)

    monkeypatch.setattr(store._recorder, "write", slowly)
    store.save(state(1), step=1)
    former = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            store.save(state(2), step=2)
    finally:
        signal.signal(signal.SIGALRM, former)
        interrupted.set()
    store.save(state(3), step=3)
    store.close()
    check(tmp_path, [1, 3])


@pytest.mark.parametrize("begun", [False, True])
def test_a_save_whose_thread_is_interrupted_as_it_begins_leaves_the_store_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """Whether the thread had begun or not: one that never does is not waited for, and one that has is."""
    store = tk.Store(tmp_path)
    start, write, writes = threading.Thread.start, store._recorder.write, threading.Event()

    def interrupted(self: threading.Thread) -> None:
        if begun:
            start(self)
            assert writes.wait(60)
        raise KeyboardInterrupt

    def told(*arguments: object) -> None:
        writes.set()
        write(*arguments)

    monkeypatch.setattr(store._recorder, "write", told)
    with monkeypatch.context() as broken:
        broken.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.save(state(1)["w"][:9], step=1)
    store.save(state(2), step=2)
    store.close()
    assert tk.Store(tmp_path).steps() == ([1, 2] if begun else [2]) and tk.Store(tmp_path).verify().intact


def test_several_threads_may_save_into_one_store(tmp_path: Path) -> None:
    """They come one after the other: none copies into memory that another one's save is read from."""
    store = tk.Store(tmp_path)

    def save(first: int) -> None:
        for step in range(first, 40, 4):
            store.save(state(step), step=step)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    check(tmp_path, list(range(40)))


def test_a_save_within_a_save_is_an_error(tmp_path: Path) -> None:
    """As a signal's handler makes it: it cannot wait for what it interrupts. The outer one goes on."""
    store = tk.Store(tmp_path)

    class Meddler:
        def state_dict(self) -> dict[str, np.ndarray]:
            with pytest.raises(tk.StoreBusy, match="step 1 is still being saved"):
                store.save(state(2), step=2)
            return state(1)

        def load_state_dict(self, state: object) -> None: ...

    store.save({"meddler": Meddler()}, step=1, wait=True)
    store.save(state(3), step=3)
    store.close()
    assert tk.Store(tmp_path).steps() == [1, 3] and tk.Store(tmp_path).verify().intact


@pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGTERM that a process sends itself")
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("chained", [False, True], ids=["", "chained"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_sigterm_reaches_whoever_had_it_in_whatever_order_stores_are_closed(tmp_path: Path, first: int, chained: bool, moment: str) -> None:
    """One that was closed does not swallow it when a later one, or a handler that calls what it found, hands it back."""
    heard: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        stores = [tk.Store(tmp_path / name, sigterm=True) for name in "ab"]
        if chained:
            found = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, lambda number, frame: found(number, frame))
        if moment == "before":
            signal.raise_signal(signal.SIGTERM)
        stores[first].close()
        stores[1 - first].close()
        if moment == "after":
            signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, former)

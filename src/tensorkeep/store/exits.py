"""Exits: what happens to stores that are open when a process ends, is told to end, or forks."""

import atexit
import os
import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Protocol


class Open(Protocol):
    """A store, as far as this room knows it."""

    def finish(self) -> None:
        """Wait for the save under way. Raises if it failed and nobody was told."""


_open: Final["weakref.WeakSet[Any]"] = weakref.WeakSet()
_watching: list[bool] = []


def at_exit(store: Open) -> None:
    """Have a store finish its save when the process ends, and say so if it failed."""
    _open.add(store)
    if not _watching:
        _watching.append(True)
        atexit.register(_finish_all)


def _finish_all() -> None:
    failed: BaseException | None = None
    for store in list(_open):
        try:
            store.finish()
        except Exception as error:  # noqa: BLE001  # the other stores are to finish too
            failed = failed or error
    if failed is not None:
        raise failed


class Termination:
    """What to do with SIGTERM: the handler that was there gets it, after the saves.

    Args:
        finish: waits for the save under way.
    """

    def __init__(self, finish: Callable[[], object]) -> None:
        self.asked = False  # whether SIGTERM came
        self.heeded = False  # whether somebody asks `due`, so will save once more and end by itself
        self._finish = finish
        self._over = False  # whether the signal was given back
        self._pid = os.getpid()
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("sigterm=True wants a store that is made in the main thread: Python handles signals there alone")
        self._former: Any = signal.signal(signal.SIGTERM, self._handle) or signal.SIG_DFL  # one of C's cannot be put back

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._over:  # of a later store, which gave back what it had found
            self._pass_on()
            return
        self.asked = True
        if not self.heeded or os.getpid() != self._pid:
            if os.getpid() == self._pid:
                self._finish()
            self.restore()

    def restore(self) -> None:
        """Give the signal back to whoever had it, and pass on one that came."""
        if self._over:
            return
        self._over = True
        if threading.current_thread() is threading.main_thread():
            if self.asked:
                self._pass_on()
            elif signal.getsignal(signal.SIGTERM) == self._handle:
                signal.signal(signal.SIGTERM, self._former)

    def _pass_on(self) -> None:
        installed = signal.getsignal(signal.SIGTERM) == self._handle
        if callable(self._former) and not installed:
            self._former(signal.SIGTERM, None)  # whoever came later has called us, and would again
        elif installed or self._former == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._former)
            signal.raise_signal(signal.SIGTERM)

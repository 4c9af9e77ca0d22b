"""Jobs: a save that goes on in the background."""

import math
import threading
import time
from collections.abc import Callable
from numbers import Real
from typing import Any

from tensorkeep.errors import SaveError


class Job:
    """One save of a store, from the moment that `save` returned.

    Attributes:
        step: which step it saves.
        nbytes: bytes of the state.
        new_bytes: bytes written so far: what was known already is referred to.
        stall_s: seconds that `save` kept its caller.
        write_s: seconds from then until it was durable; 0 until it is.
        skipped: nothing was saved, for another save was under way (`busy="skip"`).
    """

    def __init__(self, store: str, step: int, *, nbytes: int = 0, skipped: bool = False) -> None:
        self.step, self.nbytes, self.skipped = step, nbytes, skipped
        self.new_bytes = 0
        self.stall_s = self.write_s = 0.0
        self._store = store
        self._done_bytes = 0
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._told = False
        if skipped:
            self._ended.set()

    def __repr__(self) -> str:
        state = "skipped" if self.skipped else "failed" if self._error else "done" if self.done else f"{self.progress:.0%}"
        return f"<save of step {self.step}: {state}>"

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._ended.is_set()

    @property
    def error(self) -> BaseException | None:
        """Why it failed; None where it did not, or has not ended."""
        return self._error

    @property
    def progress(self) -> float:
        """How much of the state was dealt with, from 0 to 1."""
        if self.done and self._error is None:
            return 1.0
        return self._done_bytes / self.nbytes if self.nbytes else 0.0

    def wait(self, timeout_s: float | None = None) -> "Job":
        """Wait until the checkpoint is durable.

        Args:
            timeout_s: most seconds to wait.

        Returns:
            The job itself.

        Raises:
            SaveError: it failed; its own error is the cause.
            TimeoutError: it goes on.
            TypeError: `timeout_s` is no number.
        """
        if not self._ended.wait(None if timeout_s is None else _seconds(timeout_s)):
            raise TimeoutError(f"{self._store}: step {self.step} is not saved yet after {timeout_s:g} s; it goes on")
        self.raise_error()
        return self

    def raise_error(self) -> None:
        """Raise what the save failed of, if it did."""
        if self._error is not None:
            self._told = True
            raise SaveError(self._store, self.step, self._error) from self._error

    @property
    def untold(self) -> bool:
        """Whether it failed and nobody was told so."""
        return self._error is not None and not self._told

    def run(self, save: Callable[["Job"], None]) -> None:
        """Do it, on the thread that this is called from, and remember how it went."""
        began = time.perf_counter()
        try:
            save(self)
            self.write_s = time.perf_counter() - began
        except BaseException as error:  # noqa: BLE001  # a thread ends here; `wait`, the next save and the exit raise it
            self._error = error
        finally:
            self._ended.set()

    def tell(self, done: int, _: int) -> None:
        """How far it is, in bytes."""
        self._done_bytes = done


def _seconds(given: Any) -> float:
    """A time to wait that a caller gave, no longer than the system can wait."""
    if not isinstance(given, Real) or math.isnan(given):
        raise TypeError(f"timeout_s= takes a number of seconds, such as 60, or None, found {given!r:.80}")
    return min(float(given), threading.TIMEOUT_MAX)

"""Background: one piece of work on a thread of its own, and waiting for its end."""

import threading
import time
from collections.abc import Callable
from typing import Final

_LOOK_S: Final = 0.2  # from look to look whether it has ended, where the thread itself tells nothing
_MOMENT_S: Final = 0.001


class Background:
    """Work under way. Its own word says when it has ended: where Ctrl-C comes during `Thread.join`, Python before 3.13 takes a running
    thread for an ended one, and the next save would write into the memory that it reads.

    Args:
        work: what to do; it must not raise.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._begun = threading.Lock()  # whoever takes it decides whether the work begins
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="tensorkeep-store")

    def start(self) -> None:
        """Begin.

        Raises:
            BaseException: there is no thread to be had, or a signal's handler raised: `give_up` tells whether it begins yet.
        """
        self._thread.start()

    def give_up(self) -> bool:
        """Have it not begin any more; False if it has."""
        if not self._begun.acquire(blocking=False):
            return False
        self._ended = True
        return True

    def wait(self) -> None:
        """Wait for the end, in any thread, and in a signal's handler."""
        while not self._ended:
            if self._thread.is_alive():
                self._thread.join(_LOOK_S)
            else:
                time.sleep(_MOMENT_S)

    def _run(self) -> None:
        if self._begun.acquire(blocking=False):
            try:
                self._work()
            finally:
                del self._work  # and the memory that it holds
                self._ended = True

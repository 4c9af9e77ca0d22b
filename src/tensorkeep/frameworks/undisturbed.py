"""Undisturbed: nothing ends the last copy in its middle, for half a copy would be a mixture.

Signals whose handlers are Python's, Ctrl-C first of all, and errors of the caller's `progress` are held back, and raised when the copy
is done.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tensorkeep.progress import Progress


@contextmanager
def undisturbed(progress: Progress | None) -> Iterator[Progress | None]:
    """Hold back what would end the block in its middle.

    Args:
        progress: the caller's.

    Yields:
        What to call instead of it.
    """
    errors: list[BaseException] = []

    def tell(done: int, whole: int) -> None:
        if progress is None or errors:
            return
        try:
            progress(done, whole)
        except BaseException as error:  # noqa: BLE001  # raised below
            errors.append(error)

    with _signals_held():
        yield None if progress is None else tell
    if errors:
        raise errors[0]


@contextmanager
def _signals_held() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # no handler of Python's runs in this one
        yield
        return
    caught: list[tuple[int, FrameType | None]] = []
    former: dict[int, Callable[[int, FrameType | None], object]] = {}
    try:
        for number in map(int, signal.valid_signals()):
            if callable(handler := signal.getsignal(number)):
                former[number] = handler
                signal.signal(number, lambda number, frame: caught.append((number, frame)))
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    for number, frame in caught:
        former[number](number, frame)

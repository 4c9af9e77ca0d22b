"""Progress: how a verb tells how far it is. Goes down as an argument, through every room."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all, from one thread at a time."""


def checked(progress: Progress | None) -> Progress | None:
    """What the caller gave, if it can be called.

    Raises:
        TypeError: it cannot.
    """
    if progress is not None and not callable(progress):
        raise TypeError(f"progress= takes a function that is given the bytes done and in all, found {progress!r:.80}")
    return progress


def part_of(progress: Progress | None, before: int, whole: int) -> Progress | None:
    """The progress of one step of several: `before` bytes were done before it, of `whole` in all."""
    progress = checked(progress)
    return None if progress is None else lambda done, _: progress(before + done, whole)

"""Progress: how a verb tells how far it is. Goes down as an argument, through every room."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all, from one thread at a time."""


def part_of(progress: Progress | None, before: int, whole: int) -> Progress | None:
    """The progress of one step of several: `before` bytes were done before it, of `whole` in all."""
    return None if progress is None else lambda done, _: progress(before + done, whole)

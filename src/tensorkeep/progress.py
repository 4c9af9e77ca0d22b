"""Progress: how a verb tells how far it is. Goes down as an argument, through every room."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all, from one thread at a time."""

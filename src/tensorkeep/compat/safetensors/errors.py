"""The one error of the package safetensors, and how ours become it."""

from collections.abc import Iterator
from contextlib import contextmanager

from tensorkeep.errors import CorruptError, FormatError, TensorkeepError


class SafetensorError(TensorkeepError):
    """A file, a slice or an argument that is refused. What was wrong with a file is its cause: a `FormatError` or a `CorruptError`."""


SafetensorError.__module__ = __name__.rpartition(".")[0]  # where people find it


@contextmanager
def as_safetensors(doing: str) -> Iterator[None]:
    """Raise what is found wrong with a file as `SafetensorError`.

    Args:
        doing: what was under way, as that package tells it.
    """
    try:
        yield
    except (FormatError, CorruptError) as error:
        raise SafetensorError(f"{doing}: {error}") from error

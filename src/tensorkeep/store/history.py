"""History: one tensor over all checkpoints of a run, read as one goes. What did not change in between is read once."""

from collections.abc import Iterator
from typing import Any

from tensorkeep.contents import Tensors
from tensorkeep.errors import CheckpointGone, escaped
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.checkpoint import open_checkpoint
from tensorkeep.store.storage import CheckpointStorage
from tensorkeep.tensors import Array


def history(catalog: Catalog, path: str, rows: Any = None, *, limits: Limits = DEFAULT_LIMITS) -> Iterator[tuple[int, Array]]:
    """Step and values of a tensor, from the oldest checkpoint to the newest. Memory holds the chunks of one step.

    Checkpoints without it, and those that are removed meanwhile, are passed over.

    Args:
        catalog: of the store.
        path: of the tensor.
        rows: what `tensor[rows]` takes, such as `slice(0, 10)` or `(3, slice(None))`; None for all of it.
        limits: as for a load.

    Raises:
        KeyError: no checkpoint has such a tensor; raised when all were looked at.
        CorruptError, FormatError: a checkpoint is damaged.
    """
    remembered: dict[bytes, memoryview] = {}
    seen, instead = False, "it has no checkpoint"
    for known in catalog.look().all():
        try:
            with open_checkpoint(catalog.backend, known, limits=limits) as contents:
                try:
                    tensor = contents.tensors[path]
                except KeyError:
                    assert isinstance(contents.tensors, Tensors), "of a checkpoint"
                    instead = contents.tensors.instead_of(path)
                    continue
                storage = contents.storage
                assert isinstance(storage, CheckpointStorage), "of a checkpoint"
                storage.remembered = new = _Fresh(remembered)
                array = tensor.numpy() if rows is None else tensor[rows]
                remembered = new.used
        except CheckpointGone:
            instead = "what it had was removed meanwhile"
            continue
        seen = True
        yield known.step, array
    if not seen:
        raise KeyError(f"{escaped(catalog.backend.name)} has no tensor {path!r:.200} in any checkpoint; {instead}")


class _Fresh(dict[bytes, memoryview]):
    """The chunks of the step before, of which those that are used now stay.

    Attributes:
        used: by digest.
    """

    def __init__(self, before: dict[bytes, memoryview]) -> None:
        super().__init__(before)
        self.used: dict[bytes, memoryview] = {}

    def __getitem__(self, digest: bytes) -> memoryview:
        chunk = self.used[digest] = super().__getitem__(digest)
        return chunk

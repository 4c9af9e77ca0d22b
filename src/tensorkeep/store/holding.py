"""Holding: a checkpoint that is being read is not swept away meanwhile, where the reader may say so."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tensorkeep.errors import CheckpointGone
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.commit import Commit, Writer
from tensorkeep.store.known import Known


@contextmanager
def held(catalog: Catalog, known: Sequence[Known], writer: Writer | None) -> Iterator[None]:
    """Claim what checkpoints need for as long as the block lasts, so that `gc` leaves it.

    Where nothing can be written, nothing is claimed: a reader that misses something then says that the checkpoint is gone.

    Args:
        catalog: of the store.
        known: the checkpoints.
        writer: in whose name; None where nothing shall be written.

    Raises:
        CheckpointGone: one was deleted or replaced before it was claimed.
    """
    if writer is None:
        yield
        return
    commit = Commit(catalog.backend, writer.id, writer.number, known, writer.by)
    try:
        commit.__enter__()
    except OSError:  # a store that is read alone: of another's, or of a disk that is mounted so
        yield
        return
    try:
        there = {one.digest for one in commit.borrowed}
        for one in known:
            if one.digest not in there:
                raise CheckpointGone(catalog.backend.name, one.key, "deleted or replaced")
        yield
    finally:
        commit.__exit__(None, None, None)

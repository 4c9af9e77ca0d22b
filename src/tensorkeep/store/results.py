"""Results: what a store says of its checkpoints, for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tensorkeep.store.known import Known


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where a run goes on.

    Attributes:
        step: of the checkpoint that was loaded.
        metrics: the numbers that it was saved with.
        time: when, in seconds since 1970.
        state: as `tensorkeep.load` gives it.
        skipped: newer ones that are damaged: their steps, and why.
    """

    step: int
    metrics: Mapping[str, float]
    time: float
    state: Any
    skipped: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One committed checkpoint, as a listing shows it.

    Attributes:
        step, metrics, time: as they were saved.
        nbytes: bytes of its tensors.
        new_bytes: bytes that were written for it.
        weights_only: whether the rest of its state was given up.
        by: machine and process that saved it.
    """

    step: int
    metrics: Mapping[str, float]
    time: float
    nbytes: int
    new_bytes: int
    weights_only: bool
    by: str


def shown(known: Known) -> Checkpoint:
    """A checkpoint as a listing shows it."""
    one = known.manifest
    return Checkpoint(one.step, one.numbers(), one.time, one.nbytes, one.new_bytes, one.weights_only, one.by)

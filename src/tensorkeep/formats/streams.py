"""Streams: tensors that stand in one compressed stream are read in the order in which they stand there, for reading back begins anew."""

from collections.abc import Callable, Iterable
from functools import partial

from tensorkeep.formats.casting import CastBytes
from tensorkeep.tensors import LazyTensor
from tensorkeep.transposing import Transposed
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.inflate import InflatedFile
from tensorkeep.wire.sources import Run, Strided, extents_of
from tensorkeep.workers import Job


def in_order(jobs: Iterable[tuple[LazyTensor, Job]]) -> list[Job]:
    """Jobs that read a tensor each: those of one stream become one, in the order of the stream; the others stay as they are."""
    streams: dict[int, list[tuple[int, Job]]] = {}
    ordered: list[Job] = []
    for tensor, job in jobs:
        if (place := _place(tensor)) is None:
            ordered.append(job)
        else:
            streams.setdefault(place[0], []).append((place[1], job))
    for stream in streams.values():
        stream.sort(key=lambda pair: pair[0])
        ordered.append((sum(nbytes for _, (nbytes, _) in stream), partial(_each, [call for _, (_, call) in stream])))
    return ordered


def is_streamed(tensor: LazyTensor) -> bool:
    """Whether its bytes stand in a compressed stream."""
    return _place(tensor) is not None


def _each(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _place(tensor: LazyTensor) -> tuple[int, int] | None:
    """The stream that has its bytes, by id, and where they begin in it."""
    source = tensor.source
    if isinstance(source, (CastBytes, Transposed)):
        return _place(source.tensor)
    if isinstance(source, (Run, Strided)):
        return _outermost(source.extent, source.start)
    extents = extents_of(tensor)
    return _outermost(extents[0], 0) if extents else None


def _outermost(extent: Extent, start: int) -> tuple[int, int] | None:
    """A compressed member of a compressed archive is read as that one is."""
    found = None
    while isinstance(file := extent.opened.file, InflatedFile):
        found = id(file), extent.start + start
        extent, start = file.packed, 0
    return found

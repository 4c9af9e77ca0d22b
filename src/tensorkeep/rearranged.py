"""Rearranged: a storage of which some tensors are handed out transposed.

Lives here: checking, placing and filling where what is asked for is made of what the file has. Lives elsewhere: which tensors those are
(transposing), and the file's own bytes (modelfile, formats).
"""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from tensorkeep.contents import Passing, Placed, Placement, Storage
from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.progress import Progress, part_of
from tensorkeep.tensors import Array, LazyTensor, fresh
from tensorkeep.transposing import Transposed, element
from tensorkeep.workers import Job, run

_AT_ONCE_BYTES: Final = 64 << 20  # of the file's own tensors in memory beside what is made of them, or one that is larger
_PIECE_BYTES: Final = 4 << 20
_SIDE: Final = 256  # elements: 3.7 times as fast as none, for a matrix of 4,096 x 4,096; 64 to 512 do alike


class Rearranged:
    """The storage of a file whose tree `transposing.Rules` changed.

    Args:
        storage: of the file.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def identity(self) -> object:
        return self.storage.identity()

    def close(self) -> None:
        self.storage.close()

    def survey(self, progress: Progress | None) -> list[tuple[str, int, int]]:
        return self.storage.survey(progress)

    def check(self, tensors: Collection[LazyTensor], progress: Progress | None) -> None:
        self.storage.check(_originals(tensors), progress)

    def in_passing(self, tensors: Collection[LazyTensor]) -> Passing:
        return self.storage.in_passing(_originals(tensors))

    def place(self, tensors: Sequence[LazyTensor], progress: Progress | None) -> Placement:
        placed = self.storage.place(_originals(tensors), progress)

        def place(tensor: LazyTensor) -> Placed:
            source = tensor.source
            if not isinstance(source, Transposed):
                return placed(tensor)
            memory = fresh(tensor.nbytes)
            run(_copies(memory, tensor, placed(source.tensor)), nbytes=tensor.nbytes)
            return memory, 0

        return place

    def fill(self, pairs: Sequence[tuple[LazyTensor, memoryview]], progress: Progress | None) -> None:
        straight = [(tensor, memory) for tensor, memory in pairs if not isinstance(tensor.source, Transposed)]
        others = [(tensor, memory) for tensor, memory in pairs if isinstance(tensor.source, Transposed)]
        done, whole = (sum(memory.nbytes for _, memory in some) for some in (straight, pairs))
        self.storage.fill(straight, part_of(progress, 0, whole))
        for batch in _batches(others):
            try:
                placed = self.storage.place(_originals([tensor for tensor, _ in batch]), None)
            except (CorruptError, FormatError) as error:  # all was well a moment ago: the file changed
                raise OSError(str(error)) from error
            jobs = (job for tensor, memory in batch for job in _copies(memory, tensor, placed(_original(tensor))))
            nbytes = sum(memory.nbytes for _, memory in batch)
            run(jobs, nbytes=nbytes, progress=part_of(progress, done, whole))
            done += nbytes


def _original(tensor: LazyTensor) -> LazyTensor:
    return tensor.source.tensor if isinstance(tensor.source, Transposed) else tensor


def _originals(tensors: Collection[LazyTensor]) -> list[LazyTensor]:
    """The file's own tensors, each once."""
    return list({id(original): original for original in map(_original, tensors)}.values())


def _batches(pairs: Sequence[tuple[LazyTensor, memoryview]]) -> Iterator[list[tuple[LazyTensor, memoryview]]]:
    batch: list[tuple[LazyTensor, memoryview]] = []
    nbytes = 0
    for pair in pairs:
        if batch and nbytes + pair[0].nbytes > _AT_ONCE_BYTES:
            yield batch
            batch, nbytes = [], 0
        batch.append(pair)
        nbytes += pair[0].nbytes
    if batch:
        yield batch


def _copies(memory: "memoryview | bytearray | Array", tensor: LazyTensor, placed: Placed) -> Iterator[Job]:
    """Jobs that copy a part of the first axis each."""
    source: Any = tensor.source
    view = source.turned(*placed)
    into: Array = np.ndarray(view.shape, element(tensor), memory)
    length = view.shape[0] if view.shape else 0
    if length < 2 or into.nbytes <= _PIECE_BYTES:
        yield into.nbytes, partial(_copy, into, view)
        return
    each = max(1, _PIECE_BYTES * length // into.nbytes)
    for begin in range(0, length, each):
        end = min(begin + each, length)
        yield into[begin:end].nbytes, partial(_copy, into[begin:end], view[begin:end])


def _copy(into: Array, view: Array) -> None:
    """Copy a transposed view. Where one side's next element is the other side's next row, square by square: a row alone fills no cache."""
    last = view.ndim - 1
    next_to = min(range(view.ndim), key=lambda axis: view.strides[axis], default=last)  # of the view
    if view.ndim < 2 or next_to == last or min(view.shape[next_to], view.shape[last]) < _SIDE // 8:
        np.copyto(into, view)
        return
    for first in range(0, view.shape[next_to], _SIDE):
        for second in range(0, view.shape[last], _SIDE):
            place = [slice(None)] * view.ndim
            place[next_to], place[last] = slice(first, first + _SIDE), slice(second, second + _SIDE)
            np.copyto(into[tuple(place)], view[tuple(place)])


__all__ = ["Rearranged"]

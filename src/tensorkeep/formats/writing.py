"""Writing in other formats: what every writer shares.

A writer finds every offset before a byte is written, so tensors go to their places in any order, by several threads, a piece at a time.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from tensorkeep.backends.files import Sink
from tensorkeep.formats.streams import in_order, is_streamed
from tensorkeep.progress import Progress
from tensorkeep.tensors import LazyTensor, pieces, read_at_once
from tensorkeep.workers import Job


@dataclass(frozen=True, slots=True)
class OutFile:
    """One file to be written.

    Attributes:
        nbytes: its size.
        write: writes all of it.
        name: inside of the folder, where the target is one; else "".
    """

    nbytes: int
    write: Callable[[Sink, Progress | None], None]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a writer would do: one file, or the files of a folder, in the order in which they are written.

    Attributes:
        format: as people call it.
        files: what to write.
        folder: whether the target is a folder.
    """

    format: str
    files: list[OutFile] = field(default_factory=list)
    folder: bool = False


_SMALL_BYTES: Final = 64 << 10  # such neighbours are written in one call
_MOST_TOGETHER: Final = 512


def copies(places: Iterable[tuple[int, LazyTensor]], sink: Sink) -> Iterator[Job]:
    """Jobs that bring tensors to their offsets: small neighbours together, large ones in pieces side by side, where a source has no more
    work with a piece than that, and those of a compressed stream in its order.
    """
    streamed: list[tuple[LazyTensor, Job]] = []
    waiting: list[LazyTensor] = []
    begun = end = 0
    for at, tensor in places:
        if is_streamed(tensor):
            streamed.append((tensor, (tensor.nbytes, partial(_copy_whole, tensor, at, sink))))
            continue
        if waiting and (at != end or tensor.nbytes >= _SMALL_BYTES or len(waiting) == _MOST_TOGETHER):
            yield end - begun, partial(_copy_together, waiting, begun, sink)
            waiting = []
        if tensor.nbytes < _SMALL_BYTES:
            begun = begun if waiting else at
            waiting.append(tensor)
            end = at + tensor.nbytes
        elif getattr(tensor.source, "piecewise", False):
            most = read_at_once(tensor)
            for start in range(0, tensor.nbytes, most):
                stop = min(start + most, tensor.nbytes)
                yield stop - start, partial(_copy_piece, tensor, start, stop, at, sink)
        else:
            yield tensor.nbytes, partial(_copy_whole, tensor, at, sink)
    if waiting:
        yield end - begun, partial(_copy_together, waiting, begun, sink)
    yield from in_order(streamed)


def _copy_together(tensors: list[LazyTensor], at: int, sink: Sink) -> None:
    sink.write(at, [tensor.source.read(0, tensor.nbytes) for tensor in tensors])


def _copy_piece(tensor: LazyTensor, start: int, stop: int, at: int, sink: Sink) -> None:
    sink.write(at + start, [tensor.source.read(start, stop)])


def _copy_whole(tensor: LazyTensor, at: int, sink: Sink) -> None:
    for piece in pieces(tensor):
        sink.write(at, [piece])
        at += piece.nbytes

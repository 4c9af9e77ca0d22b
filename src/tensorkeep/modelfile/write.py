"""Writing a model file: hash and write in parallel from the caller's own memory, the header last.

Only small tensors are gathered, chunk by chunk, and tensors that do not lie contiguous in host memory are copied, one at a time. Those
of an opened file are read in pieces.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from tensorkeep.backends.files import Sink
from tensorkeep.chunks import CHUNK_BYTES, DIGEST_BYTES, SMALL_BYTES, digest
from tensorkeep.formats.streams import in_order
from tensorkeep.modelfile.layout import Layout, copied
from tensorkeep.progress import Progress, part_of
from tensorkeep.tensors import Array, LazyTensor, as_bytes, read_at_once
from tensorkeep.workers import Job, run

JOB_BYTES: Final = 4 * CHUNK_BYTES  # a job's share: large enough for the disk, small enough for the cache

_KEPT_BYTES: Final = 64 << 20  # of small tensors that a stream gives in another order than ours

Part = bytes | memoryview


Finish = Callable[[int, list[Part], int], None]
"""Takes the number of the first chunk, the chunks, and the offset of the first in the data."""


def write_at_offsets(layout: Layout, sink: Sink, progress: Progress | None = None, *, streamed: Iterable[str] = ()) -> None:
    """Write a whole model file into a sink of known size.

    Args:
        layout: of the file.
        sink: where to.
        progress: told of the data.
        streamed: paths of tensors that stand in compressed streams: they are read first, in the order of those.
    """
    digests = bytearray(len(layout.grid) * DIGEST_BYTES)

    def finish(first: int, parts: list[Part], at: int) -> None:
        _hash(digests, first, parts)
        sink.write(layout.data_start + at, [memoryview(part) for part in parts])

    streams = _Streams(layout, set(streamed), finish)
    whole = layout.nbytes - layout.data_start
    run(in_order(streams.jobs), nbytes=streams.nbytes, progress=part_of(progress, 0, whole))
    run(_jobs(layout, finish, streams.read), nbytes=whole - streams.nbytes, progress=part_of(progress, streams.nbytes, whole))
    sink.write(0, [memoryview(layout.header(digests))])


def write_in_order(layout: Layout, write: Callable[[memoryview], object], progress: Progress | None = None) -> None:
    """Write a whole model file into a stream: one pass over memory for the digests, then header and data."""
    digests = bytearray(len(layout.grid) * DIGEST_BYTES)
    nbytes = layout.nbytes - layout.data_start

    def tell(done: int, _: int) -> None:
        if progress is not None:
            progress(done, 2 * nbytes)

    run(_jobs(layout, lambda first, parts, at: _hash(digests, first, parts), {}), nbytes=nbytes, progress=tell)
    write(memoryview(layout.header(digests)))

    def pass_on(first: int, parts: list[Part], at: int) -> None:
        for part in parts:
            write(memoryview(part))
        tell(nbytes + at + sum(map(len, parts)), 0)

    for _, job in _jobs(layout, pass_on, {}):
        job()


def _hash(digests: bytearray, first: int, chunks: list[Part]) -> None:
    for number, chunk in enumerate(chunks, first):
        digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES] = digest(chunk)


class _Streams:
    """Tensors that stand in compressed streams: large ones are written as they are read, small ones are kept until their chunk is full.

    Attributes:
        jobs: to be run before all others.
        nbytes: of these jobs.
        read: what was read, by the tensor's id; None for what is written.
    """

    def __init__(self, layout: Layout, paths: Container[str], finish: Finish) -> None:
        self.jobs: list[tuple[LazyTensor, Job]] = []
        self.nbytes = 0
        self.read: dict[int, memoryview | None] = {}
        kept = 0
        for (path, span), tensor in zip(layout.spans.items(), layout.tensors, strict=True) if paths else ():
            if path not in paths:
                continue
            if tensor.nbytes >= SMALL_BYTES:
                self.read[id(tensor)] = None
                first = bisect_left(layout.grid.starts, span.start)
                lock = threading.Lock()  # of its own: what a stream inflates to is read in pieces
                self.jobs.append((tensor, (tensor.nbytes, partial(_copy, path, tensor, first, span.start, finish, lock))))
                self.nbytes += tensor.nbytes
            elif kept < _KEPT_BYTES:
                kept += tensor.nbytes
                self.jobs.append((tensor, (0, partial(self._keep, path, tensor))))

    def _keep(self, path: str, tensor: LazyTensor) -> None:
        self.read[id(tensor)] = copied(path, tensor, 0, tensor.nbytes)


def _jobs(layout: Layout, finish: Finish, read: Mapping[int, memoryview | None]) -> Iterator[Job]:
    """Jobs over all chunks, in file order, but for what was read before."""
    starts = layout.grid.starts
    number = position = 0  # the chunk being filled, and the byte of the data that comes next
    chunks: list[list[Array | Part]] = []  # of small tensors, waiting until they fill a job
    one_copy = threading.Lock()
    for path, tensor in zip(layout.spans, layout.tensors, strict=True):
        size = tensor.nbytes
        if size == 0:
            continue
        kept = read.get(id(tensor)) if read else None
        view: Array | Part | None = tensor.source.view() if kept is None else kept
        if size >= SMALL_BYTES:
            if chunks:
                yield _gathering(chunks, number - len(chunks), starts, finish)
                chunks = []
            if read and id(tensor) in read:
                pass
            elif view is None and read_at_once(tensor) <= JOB_BYTES:
                for begin in range(0, size, JOB_BYTES):
                    end = min(begin + JOB_BYTES, size)
                    yield end - begin, partial(_piece, path, tensor, begin, end, number + begin // CHUNK_BYTES, position + begin, finish)
            elif view is None:
                yield size, partial(_copy, path, tensor, number, position, finish, one_copy)
            else:
                data = memoryview(view) if isinstance(view, (bytes, memoryview)) else as_bytes(view)
                for begin in range(0, size, JOB_BYTES):
                    part = data[begin : begin + JOB_BYTES]
                    yield len(part), partial(_slice, part, number + begin // CHUNK_BYTES, position + begin, finish)
            number += -(-size // CHUNK_BYTES)
            position += size
            continue
        if position == starts[number]:
            chunks.append([])
        chunks[-1].append(copied(path, tensor, 0, size) if view is None else view)
        position += size
        if position == starts[number + 1]:
            number += 1
            if len(chunks) * CHUNK_BYTES == JOB_BYTES:
                yield _gathering(chunks, number - len(chunks), starts, finish)
                chunks = []
    if chunks:
        yield _gathering(chunks, number - len(chunks), starts, finish)


def _gathering(chunks: list[list[Array | Part]], first: int, starts: list[int], finish: Finish) -> Job:
    """A job over chunks of small tensors: `join` takes anything that lies contiguous, in one call."""
    at = starts[first]
    return starts[first + len(chunks)] - at, lambda: finish(first, [b"".join(chunk) for chunk in chunks], at)


def _slice(data: memoryview, first: int, at: int, finish: Finish) -> None:
    """A job over a part of a large tensor, as it lies in memory."""
    finish(first, [data[begin : begin + CHUNK_BYTES] for begin in range(0, len(data), CHUNK_BYTES)], at)


def _piece(path: str, tensor: LazyTensor, begin: int, end: int, first: int, at: int, finish: Finish) -> None:
    """A job over a part of a large tensor of an opened file."""
    _slice(copied(path, tensor, begin, end), first, at, finish)


def _copy(path: str, tensor: LazyTensor, first: int, at: int, finish: Finish, one_copy: threading.Lock) -> None:
    """A job over a whole large tensor that does not lie so in memory: copied, while no other thread holds a copy."""
    most = -(-read_at_once(tensor) // CHUNK_BYTES) * CHUNK_BYTES
    with one_copy:
        for start in range(0, tensor.nbytes, most):
            data = copied(path, tensor, start, min(start + most, tensor.nbytes))
            for begin in range(0, len(data), JOB_BYTES):
                _slice(data[begin : begin + JOB_BYTES], first + (start + begin) // CHUNK_BYTES, at + start + begin, finish)
            del data

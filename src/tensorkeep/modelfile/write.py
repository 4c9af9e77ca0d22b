"""Writing a model file: hash and write in parallel from the caller's own memory, the header last.

Only small tensors are gathered, chunk by chunk, and tensors that do not lie contiguous in host memory are copied, one at a time.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, Protocol

from tensorkeep.chunks import CHUNK_BYTES, DIGEST_BYTES, SMALL_BYTES, digest
from tensorkeep.modelfile.layout import Layout, copied
from tensorkeep.progress import Progress
from tensorkeep.tensors import Array, LazyTensor, as_bytes
from tensorkeep.workers import Job, run

JOB_BYTES: Final = 4 * CHUNK_BYTES  # a job's share: large enough for the disk, small enough for the cache

Part = bytes | memoryview


class Sink(Protocol):
    """Takes bytes at offsets, from several threads at once."""

    def write(self, offset: int, parts: Sequence[memoryview]) -> None: ...


def write_at_offsets(layout: Layout, sink: Sink, progress: Progress | None = None) -> None:
    """Write a whole model file into a sink of known size."""
    digests = bytearray(len(layout.grid) * DIGEST_BYTES)

    def finish(first: int, parts: list[Part], at: int) -> None:
        _hash(digests, first, parts)
        sink.write(layout.data_start + at, [memoryview(part) for part in parts])

    run(_jobs(layout, finish), nbytes=layout.nbytes - layout.data_start, progress=progress)
    sink.write(0, [memoryview(layout.header(digests))])


def write_in_order(layout: Layout, write: Callable[[memoryview], object], progress: Progress | None = None) -> None:
    """Write a whole model file into a stream: one pass over memory for the digests, then header and data."""
    digests = bytearray(len(layout.grid) * DIGEST_BYTES)
    nbytes = layout.nbytes - layout.data_start

    def tell(done: int, _: int) -> None:
        if progress is not None:
            progress(done, 2 * nbytes)

    run(_jobs(layout, lambda first, parts, at: _hash(digests, first, parts)), nbytes=nbytes, progress=tell)
    write(memoryview(layout.header(digests)))

    def pass_on(first: int, parts: list[Part], at: int) -> None:
        for part in parts:
            write(memoryview(part))
        tell(nbytes + at + sum(map(len, parts)), 0)

    for _, job in _jobs(layout, pass_on):
        job()


def _hash(digests: bytearray, first: int, chunks: list[Part]) -> None:
    for number, chunk in enumerate(chunks, first):
        digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES] = digest(chunk)


Finish = Callable[[int, list[Part], int], None]
"""Takes the number of the first chunk, the chunks, and the offset of the first in the data."""


def _jobs(layout: Layout, finish: Finish) -> Iterator[Job]:
    """Jobs over all chunks, in file order."""
    starts = layout.grid.starts
    number = position = 0  # the chunk being filled, and the byte of the data that comes next
    chunks: list[list[Array | Part]] = []  # of small tensors, waiting until they fill a job
    one_copy = threading.Lock()
    for path, tensor in zip(layout.spans, layout.tensors, strict=True):
        size = tensor.nbytes
        if size == 0:
            continue
        view = tensor.source.view()
        if size >= SMALL_BYTES:
            if chunks:
                yield _gathering(chunks, number - len(chunks), starts, finish)
                chunks = []
            if view is None:
                yield size, partial(_copy, path, tensor, number, position, finish, one_copy)
            else:
                data = memoryview(view) if isinstance(view, bytes) else as_bytes(view)
                for begin in range(0, size, JOB_BYTES):
                    part = data[begin : begin + JOB_BYTES]
                    yield len(part), partial(_slice, part, number + begin // CHUNK_BYTES, position + begin, finish)
            number += -(-size // CHUNK_BYTES)
            position += size
            continue
        if position == starts[number]:
            chunks.append([])
        chunks[-1].append(copied(path, tensor) if view is None else view)
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


def _copy(path: str, tensor: LazyTensor, first: int, at: int, finish: Finish, one_copy: threading.Lock) -> None:
    """A job over a whole large tensor that does not lie so in memory: copied, while no other thread holds a copy."""
    with one_copy:
        data = copied(path, tensor)
        for begin in range(0, len(data), JOB_BYTES):
            _slice(data[begin : begin + JOB_BYTES], first + begin // CHUNK_BYTES, at + begin, finish)
        del data

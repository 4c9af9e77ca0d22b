"""Writing a model file: hash and write in parallel from the caller's own memory, the header last.

Only small tensors are gathered, chunk by chunk, and tensors that do not lie contiguous in host memory are copied, one at a time.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import numpy as np

from tensorkeep.chunks import CHUNK_BYTES, DIGEST_BYTES, SMALL_BYTES, digest
from tensorkeep.modelfile.layout import Layout
from tensorkeep.progress import Progress
from tensorkeep.tensors import Array, ByteSource, as_bytes
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
    hashing = _jobs(layout, lambda first, parts, at: _hash(digests, first, parts))
    run(hashing, nbytes=layout.nbytes - layout.data_start, progress=progress)
    write(memoryview(layout.header(digests)))

    def pass_on(first: int, parts: list[Part], at: int) -> None:
        for part in parts:
            write(memoryview(part))

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
    chunks: list[list[Array | bytes]] = []  # of small tensors, waiting until they fill a job
    for tensor in layout.tensors:
        size = tensor.nbytes
        if size == 0:
            continue
        if size >= SMALL_BYTES:
            if chunks:
                yield _gathering(chunks, number - len(chunks), starts, finish)
                chunks = []
            yield from _slicing(tensor.source, size, number, starts, finish)
            number += -(-size // CHUNK_BYTES)
            position += size
            continue
        if position == starts[number]:
            chunks.append([])
        view = tensor.source.view()
        chunks[-1].append(np.frombuffer(tensor.source.read(0, size), np.uint8) if view is None else view)
        position += size
        if position == starts[number + 1]:
            number += 1
            if len(chunks) * CHUNK_BYTES == JOB_BYTES:
                yield _gathering(chunks, number - len(chunks), starts, finish)
                chunks = []
    if chunks:
        yield _gathering(chunks, number - len(chunks), starts, finish)


def _gathering(chunks: list[list[Array | bytes]], first: int, starts: list[int], finish: Finish) -> Job:
    """A job over chunks of small tensors: `join` takes anything that lies contiguous, in one call."""
    at = starts[first]
    return starts[first + len(chunks)] - at, lambda: finish(first, [b"".join(chunk) for chunk in chunks], at)


def _slicing(source: ByteSource, size: int, first: int, starts: list[int], finish: Finish) -> Iterator[Job]:
    """Jobs over one large tensor, as it lies in memory; where it does not, over a copy that is gone before the next one is made."""
    view = source.view()
    data = source.read(0, size) if view is None else memoryview(view) if isinstance(view, bytes) else as_bytes(view)
    done = threading.Semaphore(0)
    base = starts[first]
    begins = range(0, size, JOB_BYTES)
    for begin in begins:
        end = min(begin + JOB_BYTES, size)

        def call(begin: int = begin, end: int = end) -> None:
            try:
                parts: list[Part] = [data[at : min(at + CHUNK_BYTES, end)] for at in range(begin, end, CHUNK_BYTES)]
                finish(first + begin // CHUNK_BYTES, parts, base + begin)
            finally:
                done.release()

        yield end - begin, call
    if view is None:
        for _ in begins:
            done.acquire()

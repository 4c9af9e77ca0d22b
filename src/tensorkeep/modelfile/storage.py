"""The storage of an open safetensors file: its bytes when they are wanted, and the digests on the way.

Lives here: checking, mapping, reading and placing the bytes of tensors. Lives elsewhere: what the header says (read), OS calls (backends).
"""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import ClassVar, Final

import msgspec
import numpy as np

from tensorkeep import dtypes
from tensorkeep.backends.files import File, MemoryFile, reads_at_a_time
from tensorkeep.backends.remote_file import RemoteFile
from tensorkeep.chunks import CHUNK_BYTES, DIGEST_BYTES, SMALL_BYTES, Grid, digest, grid_of
from tensorkeep.container import Header
from tensorkeep.contents import Passing, Placed, Placement
from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.modelfile.held import Held
from tensorkeep.progress import Progress
from tensorkeep.tensors import Array, LazyTensor, fresh
from tensorkeep.workers import Job, run

JOB_BYTES: Final = 4 * CHUNK_BYTES
_NOTHING: Final = np.empty(0, np.uint8)  # where empty tensors are
MAPPED_BYTES: Final = 64 << 10  # smaller files are read: a mapping costs more than the copy


class FileBytes(msgspec.Struct, gc=False):
    """The bytes of one tensor of an open file."""

    piecewise: ClassVar = True

    storage: "FileStorage"
    start: int  # from the start of the data
    stop: int
    bools: bool = False

    def view(self) -> Array | None:
        return None

    def chunk_digests(self) -> bytes | None:
        """The digests of a tensor's own chunks, as the file has them; None where it has none, or its chunk holds others too."""
        return self.storage.chunk_digests(self)

    def read(self, start: int, stop: int) -> memoryview:
        data = self.storage.read(self.start + start, self.start + stop)
        if self.bools and not dtypes.are_bools(data):
            raise self.storage.no_bools(self)
        return data


class FileStorage:
    """The tensors of one open safetensors file, with its digests.

    Attributes:
        file: the open file.
        header: where the tensors lie.
        grid: the chunks; None for a file without digests.
    """

    def __init__(self, file: File, header: Header, *, verify: bool, mmap: bool | None) -> None:
        self.file, self.header = file, header
        self.verify = verify
        self.grid: Grid | None = None
        self.digests = b""
        self.good = bytearray()  # a byte a chunk: 1 once its digest was found right
        self._mmap = mmap
        self._mapping: memoryview | None = None
        self._mapped = False
        self._kept: tuple[int, int, Array] = (0, 0, _NOTHING)  # the chunk that was read last, where nothing is mapped
        self._held: Held | None = None
        self._lock = threading.Lock()
        self._bools = any(spec.dtype is dtypes.BOOL for spec in {id(span.spec): span.spec for span in header.spans.values()}.values())
        self._names: list[str] = []  # of the tensors that have bytes, and their first ones: damage may be in many places
        self._starts: list[int] = []

    def add_digests(self, digests: bytes) -> None:
        if self.header.data_nbytes > len(digests) // DIGEST_BYTES * CHUNK_BYTES:  # before a grid is made, for a file may be all hole
            raise FormatError(
                self.file.name, f"{len(digests):,} bytes of digests are too few for {self.header.data_nbytes:,} bytes of data"
            )
        grid = grid_of([span.stop - span.start for span in self.header.spans.values()])
        if len(digests) != len(grid) * DIGEST_BYTES:
            raise FormatError(
                self.file.name,
                f"{len(digests):,} bytes of digests, where its {len(grid):,} chunks need {len(grid) * DIGEST_BYTES:,}",
            )
        self.grid, self.digests, self.good = grid, digests, bytearray(len(grid))

    def chunk_digests(self, source: FileBytes) -> bytes | None:
        """The digests of a tensor's own chunks, as they stand in the file; None where there are none, or its chunk holds others too."""
        if self.grid is None or source.stop - source.start < SMALL_BYTES:
            return None
        numbers = self.grid.crossing(source.start, source.stop)
        return self.digests[numbers.start * DIGEST_BYTES : numbers.stop * DIGEST_BYTES]

    def identity(self) -> object:
        return self.file.identity()

    def close(self) -> None:
        self._mapping, self._mapped = None, True
        self._kept = (0, 0, _NOTHING)
        self.file.close()

    def mapping(self) -> memoryview | None:
        """The file mapped copy-on-write, where that is wanted and can be had."""
        with self._lock:
            if not self._mapped:
                wanted = self._mmap if self._mmap is not None else not self.file.remote and self.file.nbytes >= MAPPED_BYTES
                self._mapping = self.file.mapping() if wanted else None
                self._mapped = True
            return self._mapping

    def data(self, start: int, stop: int) -> memoryview:
        """Bytes of the data as they are, unchecked: of the mapping, or read into memory of their own."""
        at = self.header.data_start
        if (mapping := self.mapping()) is not None:
            return mapping[at + start : at + stop]
        into = memoryview(np.empty(stop - start, np.uint8))
        self.file.read_into(at + start, into)
        return into

    def read(self, start: int, stop: int) -> memoryview:
        """Bytes of the data, checked: whole chunks are, where there are digests and they are wanted.

        Those of the mapping are read-only: who wrote into them would change what is read later, as if it stood in the file.
        """
        grid, at = self.grid, self.header.data_start
        if grid is None or not self.verify or stop == start:
            self.file.will_need(at + start, at + stop)
            data = self.data(start, stop)
            return data if self._mapping is None else data.toreadonly()
        crossing = grid.crossing(start, stop)
        first, last = grid.starts[crossing.start], grid.starts[crossing.stop]
        if (mapping := self.mapping()) is not None:
            wanted = [number for number in crossing if not self.good[number]]
            if wanted:
                self.file.will_need(at + first, at + last)
                run(self._checks(wanted, grid), nbytes=last - first)
            return mapping[at + start : at + stop].toreadonly()
        if isinstance(self.file, MemoryFile) and all(self.good[number] for number in crossing):
            return self.data(start, stop)
        begin, end, buffer = self._kept
        if not begin <= first <= last <= end:
            begin, end, buffer = first, last, np.empty(last - first, np.uint8)
            self._run(self._reads([(first, last)], [buffer]), last - first)
        part = buffer[start - begin : stop - begin]
        if end - begin > CHUNK_BYTES:
            return memoryview(part)
        self._kept = begin, end, buffer  # small tensors share a chunk: the next one is likely in it, and takes bytes of its own too
        return memoryview(part.copy())

    def _run(self, jobs: Iterable[Job], nbytes: int, progress: Progress | None = None) -> None:
        run(jobs, nbytes=nbytes, progress=progress, threads=reads_at_a_time(self.file, nbytes))

    def judge(self, number: int, found: bytes) -> None:
        """Compare the digest of a chunk."""
        if found != self.wanted(number):
            raise self.damage(number, found, self.wanted(number))
        self.good[number] = 1

    def wanted(self, number: int) -> bytes:
        return self.digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]

    def damage(self, number: int, found: bytes, wanted: bytes) -> CorruptError:
        assert self.grid is not None, "only a digest can be wrong"
        start, stop = self.grid.span(number)
        at = self.header.data_start
        inside = self.paths(start, stop)
        return CorruptError(
            file=self.file.name,
            path=inside[0],
            span=(at + start, at + stop),
            found=found.hex(),
            wanted=wanted.hex(),
            also=inside[1:],
        )

    def paths(self, start: int, stop: int) -> list[str]:
        """The tensors that have bytes between two offsets of the data."""
        if not self._names:
            filled = [(path, span.start) for path, span in self.header.spans.items() if span.stop > span.start]
            self._names, self._starts = [path for path, _ in filled], [begin for _, begin in filled]
        return self._names[max(0, bisect_right(self._starts, start) - 1) : bisect_left(self._starts, stop)]

    def no_bools(self, source: FileBytes) -> FormatError:
        return FormatError(self.file.name, f"{self.paths(source.start, source.stop)[0]}: a BOOL byte that is neither 0 nor 1")

    def check(self, tensors: Collection[LazyTensor], progress: Progress | None) -> None:
        self._held = Held() if isinstance(self.file, RemoteFile) else None  # until they are filled in
        try:
            self._check_digests(tensors, progress)
        except BaseException:
            self._held = None
            raise
        for source in [source for source in map(_bytes_of, tensors) if source.bools] if self._bools else ():
            if not dtypes.are_bools(self.data(source.start, source.stop)):
                raise self.no_bools(source)

    def in_passing(self, tensors: Collection[LazyTensor]) -> Passing:
        return Passing()

    def _check_digests(self, tensors: Collection[LazyTensor], progress: Progress | None) -> None:
        grid = self.grid
        if grid is None or not self.verify:
            return
        numbers: Iterable[int]
        if len(tensors) == len(self.header.spans):
            numbers = range(len(grid))
        else:
            numbers = sorted({number for source in map(_bytes_of, tensors) for number in grid.crossing(source.start, source.stop)})
        wanted = [number for number in numbers if not self.good[number]]
        nbytes = sum(grid.starts[n + 1] - grid.starts[n] for n in wanted)
        self._run(self._checks(wanted, grid, few=self._are_few(nbytes)), nbytes, progress)

    def _are_few(self, nbytes: int) -> bool:
        """Whether so little is wanted that each range is asked for alone: what the system reads ahead of it may never be used."""
        return 2 * nbytes < self.header.data_nbytes

    def _checks(self, wanted: list[int], grid: Grid, *, few: bool = False, collect: bool = False) -> Iterator[Job]:
        """Jobs over neighbouring chunks, at most JOB_BYTES together. They raise at the first damage, or leave it in `good`."""
        held = self._held
        for first, last in _runs(wanted, grid):
            start, stop = grid.starts[first], grid.starts[last]

            def call(first: int = first, last: int = last, start: int = start, stop: int = stop) -> None:
                at = self.header.data_start
                if few:
                    self.file.will_need(at + start, at + stop)
                self.file.read_ahead(at + start, at + stop)
                data = self.data(start, stop)
                if held is not None:
                    held.add(start, data)
                for number in range(first, last):
                    begin, end = grid.span(number)
                    found = digest(data[begin - start : end - start])
                    if not collect:
                        self.judge(number, found)
                    else:
                        self.good[number] = found == self.wanted(number)

            yield stop - start, call

    def survey(self, progress: Progress | None) -> list[tuple[str, int, int]]:
        grid = self.grid
        if grid is None:
            return []
        self._run(self._checks(list(range(len(grid))), grid, collect=True), grid.starts[-1], progress)
        at = self.header.data_start
        damaged = [grid.span(number) for number in range(len(grid)) if not self.good[number]]
        return [(path, at + start, at + stop) for start, stop in damaged for path in self.paths(start, stop)]

    def place(self, tensors: Sequence[LazyTensor], progress: Progress | None) -> Placement:
        mapping = self.mapping()
        if mapping is None:
            return self._place_apart(tensors, progress)
        self.check(tensors, progress)
        at = self.header.data_start
        return lambda tensor: (mapping, at + tensor.source.start)  # type: ignore[attr-defined]  # a tensor of this file: see _bytes_of

    def _place_apart(self, tensors: Sequence[LazyTensor], progress: Progress | None) -> Placement:
        """Memory of their own: large tensors each, small neighbours by the chunk that they share. Bytes are hashed where they stay."""
        ranges = self._ranges([_bytes_of(tensor) for tensor in tensors])
        memory = [fresh(stop - start) for start, stop in ranges]
        self._run(self._reads(ranges, memory), sum(stop - start for start, stop in ranges), progress)
        starts = [start for start, _ in ranges]

        def placed(tensor: LazyTensor) -> Placed:
            source = _bytes_of(tensor)
            if source.start == source.stop:
                return _NOTHING, 0
            number = bisect_right(starts, source.start) - 1
            return memory[number], source.start - starts[number]

        for tensor in tensors:
            if (source := _bytes_of(tensor)).bools:
                buffer, at = placed(tensor)
                if not dtypes.are_bools(memoryview(buffer)[at : at + tensor.nbytes]):
                    raise self.no_bools(source)
        return placed

    def _ranges(self, sources: Sequence[FileBytes]) -> list[tuple[int, int]]:
        """Ranges of the data that hold these tensors, whole chunks where there are digests; none crosses the end of a large tensor."""
        grid = self.grid if self.verify else None
        spans: set[tuple[int, int]] = set()
        for source in sources:
            if source.start == source.stop:
                continue
            if grid is None:
                spans.add((source.start, source.stop))
            else:
                crossing = grid.crossing(source.start, source.stop)
                spans.add((grid.starts[crossing.start], grid.starts[crossing.stop]))
        return sorted(spans) if grid is not None else _merged(sorted(spans))

    def _reads(self, ranges: list[tuple[int, int]], memory: list[Array]) -> Iterator[Job]:
        """Jobs that read ranges and hash them while they are warm."""
        few = self._are_few(sum(stop - start for start, stop in ranges))
        for (start, stop), buffer in zip(ranges, memory, strict=True):
            into = memoryview(buffer)
            for begin in range(start, stop, JOB_BYTES):
                end = min(begin + JOB_BYTES, stop)

                def call(begin: int = begin, end: int = end, start: int = start, into: memoryview = into) -> None:
                    part = into[begin - start : end - start]
                    if few:
                        self.file.will_need(self.header.data_start + begin, self.header.data_start + end)
                    self.file.read_into(self.header.data_start + begin, part)
                    if self.grid is not None and self.verify:
                        for number in self.grid.crossing(begin, end):
                            first, last = self.grid.span(number)
                            self.judge(number, digest(part[first - begin : last - begin]))

                yield end - begin, call

    def fill(self, pairs: Sequence[tuple[LazyTensor, memoryview]], progress: Progress | None) -> None:
        ordered = sorted(((_bytes_of(tensor), memory) for tensor, memory in pairs), key=lambda pair: pair[0].start)
        try:
            self._run(self._fills(ordered), sum(memory.nbytes for _, memory in ordered), progress)
        finally:
            self._held = None

    def _fills(self, ordered: list[tuple[FileBytes, memoryview]]) -> Iterator[Job]:
        """Jobs that read straight into place: neighbours in one call, large tensors in pieces."""
        waiting: list[memoryview] = []
        start = stop = 0
        for source, memory in ordered:
            if memory.nbytes == 0:
                continue
            if waiting and (source.start != stop or stop - start >= JOB_BYTES or len(waiting) >= 1024):
                yield self._fill(start, stop, waiting)
                waiting = []
            if memory.nbytes > JOB_BYTES and not waiting:
                for begin in range(0, memory.nbytes, JOB_BYTES):
                    piece = memory[begin : begin + JOB_BYTES]
                    yield self._fill(source.start + begin, source.start + begin + piece.nbytes, [piece])
                continue
            if not waiting:
                start = source.start
            waiting.append(memory)
            stop = source.stop
        if waiting:
            yield self._fill(start, stop, waiting)

    def _fill(self, start: int, stop: int, into: list[memoryview]) -> Job:
        def call() -> None:
            at, held = self.header.data_start, self._held
            if held is None:
                self.file.read_vector(at + start, into)
            else:
                held.give(start, into, lambda offset, part: self.file.read_into(at + offset, part))

        return stop - start, call


def _bytes_of(tensor: LazyTensor) -> FileBytes:
    source = tensor.source
    assert isinstance(source, FileBytes), "a tensor of this file"
    return source


def _runs(numbers: list[int], grid: Grid) -> Iterator[tuple[int, int]]:
    """First and last + 1 of runs of neighbouring chunks, at most JOB_BYTES each."""
    index = 0
    while index < len(numbers):
        first = last = numbers[index]
        while index < len(numbers) and numbers[index] == last and grid.starts[last + 1] - grid.starts[first] <= JOB_BYTES:
            last += 1
            index += 1
        if last == first:  # one chunk alone is never larger than a job
            last, index = first + 1, index + 1
        yield first, last


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbouring small spans as one, up to a chunk's length; large ones each by itself."""
    merged: list[tuple[int, int]] = []
    for start, stop in spans:
        if merged and merged[-1][1] == start and stop - merged[-1][0] <= CHUNK_BYTES:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged

"""The storage of an open checkpoint: the bytes of its tensors when they are wanted, from whichever packs they are in.

Lives here: which bytes of which chunks make a tensor, or a part of one, and where they go. Lives elsewhere: what the indexes say (joined),
reading and decoding chunks (chunkreader).
"""

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import ClassVar, Final

import msgspec
import numpy as np

from tensorkeep import dtypes
from tensorkeep.backends.memory import available_bytes
from tensorkeep.chunks import SMALL_BYTES
from tensorkeep.contents import Passing, Placed, Placement
from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.limits import Limits
from tensorkeep.progress import Progress, part_of
from tensorkeep.store.boxes import Box, boxes_of, corners, crossing, in_bytes, moved, slices
from tensorkeep.store.chunkreader import ChunkReader, Payload, Use, Want, Whole
from tensorkeep.store.joined import Part, Stored
from tensorkeep.store.table import DELTA, NO_BASE, PLANES, STORED
from tensorkeep.tensors import Array, LazyTensor, fresh
from tensorkeep.workers import run

TRUST: Final = "If you trust it, pass limits=tk.Limits(expanded_bytes=...)."  # the hint of a refusal of what is not damaged
_SLOW: Final = (PLANES, DELTA)  # to decode
_SHARE: Final = 4  # of the memory that is free, a quarter may be taken for a while
_NOTHING: Final = np.empty(0, np.uint8)  # where empty tensors are


class ChunkBytes(msgspec.Struct, gc=False):
    """The bytes of one tensor of an open checkpoint."""

    piecewise: ClassVar = True

    storage: "CheckpointStorage"
    stored: Stored

    def view(self) -> None:
        return None

    def chunk_digests(self) -> bytes | None:
        """The digests of a tensor's own chunks, as the index has them; None where it is in parts, or its chunk holds others too."""
        return self.storage.chunk_digests(self)

    def read(self, start: int, stop: int) -> memoryview:
        return self.storage.read(self.stored, start, stop)

    def box(self, offset: tuple[int, ...], lengths: tuple[int, ...]) -> memoryview:
        """The bytes of a part of the tensor, in its own C order. Offset and lengths have the last axis in bytes."""
        return self.storage.read_box(self.stored, offset, lengths)


class CheckpointStorage:
    """The tensors of one open checkpoint.

    Args:
        reader: of its chunks.
        identity: tells what would be another if the checkpoint was replaced.
        limits: on what is made of it where there is no target.
    """

    def __init__(self, reader: ChunkReader, identity: Callable[[], object], limits: Limits) -> None:
        self.reader, self.joined = reader, reader.joined
        self.limits = limits
        self._identity = identity
        self.keeps = True  # whether `check` may take memory for what it decodes
        self.remembered: dict[bytes, memoryview] | None = None  # chunks by their digests, shared with other checkpoints' storages
        self._closed = False
        self._decoded: dict[int, memoryview] = {}  # chunks that `check` has decoded, until they are filled in
        self._kept: tuple[int, memoryview] = (-1, memoryview(b""))  # the chunk of small tensors that was read last

    def identity(self) -> object:
        return self._identity()

    def close(self) -> None:
        self._closed = True
        self._decoded.clear()
        self._kept = (-1, memoryview(b""))

    def chunk_digests(self, source: ChunkBytes) -> bytes | None:
        """The digests of a tensor's own chunks, as the index has them; None where it is in parts, or its chunk holds others too."""
        parts = source.stored.parts
        if len(parts) != 1 or parts[0].stop - parts[0].start < SMALL_BYTES:
            return None
        rows = self.joined.grid.crossing(parts[0].start, parts[0].stop)
        return self.joined.table.digest[rows.start : rows.stop].tobytes()

    def check(self, tensors: Collection[LazyTensor], progress: Progress | None) -> None:
        wants: dict[int, Want] = {}
        reader = self.reader
        self._decoded.clear()
        for tensor in tensors:
            bools = tensor.spec.dtype is dtypes.BOOL
            for part in _stored(tensor).parts:
                for row in self.joined.grid.crossing(part.start, part.stop):
                    if bools:
                        _uses(wants, row).append(partial(self._look_for_bools, tensor, part, row))
                    elif not reader.good[row]:
                        wants.setdefault(row, None)
        self._keep(wants)
        if not reader.verify:
            self._usable()
            reader.look(self._all_rows(list(wants)))
            wants = {row: want for row, want in wants.items() if want is not None}
        try:
            self._usable()
            reader.read(wants, progress)
        except BaseException:
            self._decoded.clear()
            raise

    def _keep(self, wants: dict[int, Want]) -> None:
        """Have chunks put where they stay until they are filled in: encoded ones, for decoding takes longer than anything else; of an
        object store all, so that nothing is fetched twice.

        Measured, 512 MiB of float32 in planes into a model: 0.49 s of the processors' time, 0.79 where both `check` and `fill` decode. Only
        so much memory is taken as would not be missed; what does not fit is read and decoded twice.
        """
        if not (self.reader.verify and self.keeps):
            return
        codecs, sizes = self.joined.table.codec, self.joined.sizes
        remote = self.reader.backend.kind == "object store"
        rows = [row for row in wants if remote or codecs[row] in _SLOW]
        left = available_bytes() // _SHARE if rows else 0
        for row in rows:
            left -= int(sizes[row])
            if left < 0:
                break
            memory = self._decoded[row] = memoryview(np.empty(int(sizes[row]), np.uint8))
            if wants[row] is None:
                wants[row] = Whole(memory, 0)
            else:
                _uses(wants, row).append(partial(_copy, 0, memory))

    def in_passing(self, tensors: Collection[LazyTensor]) -> Passing:
        return Passing()

    def _look_for_bools(self, tensor: LazyTensor, part: Part, row: int, chunk: memoryview) -> None:
        first, last = self.joined.grid.span(row)
        if not dtypes.are_bools(chunk[max(part.start, first) - first : min(part.stop, last) - first]):
            raise self._no_bools(tensor.name)

    def _no_bools(self, path: str) -> FormatError:
        return FormatError(self.joined.file, f"{path}: a BOOL byte that is neither 0 nor 1")

    def _all_rows(self, rows: list[int]) -> list[int]:
        bases = self.joined.table.base[np.array(rows, np.int64)] if rows else np.empty(0, np.uint32)
        return rows + [int(base) for base in np.unique(bases) if base != NO_BASE]

    def _usable(self) -> None:
        if self._closed:
            raise ValueError(f"{self.joined.file} was closed; open it again")

    def _read(self, wants: dict[int, Want], progress: Progress | None, *, compare: bool = True) -> None:
        self._usable()
        if self.remembered is not None:
            self._read_new(wants, self.remembered)
            return
        kept = {row: memory for row, memory in self._decoded.items() if row in wants and self.reader.good[row]}
        if not kept:
            self.reader.read(wants, progress, compare=compare)
            return
        sizes = self.joined.sizes
        nbytes = sum(memory.nbytes for memory in kept.values())
        whole = int(sizes[np.fromiter(wants, np.int64, len(wants))].sum())
        jobs = ((memory.nbytes, partial(_take, memory, wants[row])) for row, memory in kept.items())
        run(jobs, nbytes=nbytes, progress=part_of(progress, 0, whole))
        for row in kept:
            del self._decoded[row]
        self.reader.read({row: want for row, want in wants.items() if row not in kept}, part_of(progress, nbytes, whole), compare=compare)

    def _read_new(self, wants: dict[int, Want], remembered: dict[bytes, memoryview]) -> None:
        """Read the chunks that are not remembered, and remember them."""
        digests = {row: self.joined.table.digest[row].tobytes() for row in wants}
        new: dict[int, Want] = {}
        for row, digest in digests.items():
            if digest not in remembered:
                remembered[digest] = memoryview(np.empty(int(self.joined.sizes[row]), np.uint8))
                new[row] = Whole(remembered[digest], 0)
        try:
            self.reader.read(new, None)
        except BaseException:
            for row in new:
                del remembered[digests[row]]
            raise
        for row, want in wants.items():
            _take(remembered[digests[row]], want)

    def place(self, tensors: Sequence[LazyTensor], progress: Progress | None) -> Placement:
        """Memory of their own: large tensors each, small neighbours by the chunk that they share."""
        runs: dict[tuple[int, int], Array] = {}
        apart: dict[int, Array] = {}
        wants: dict[int, Want] = {}
        self.spend(list(map(_stored, tensors)), sum(tensor.nbytes for tensor in tensors))
        for tensor in tensors:
            stored = _stored(tensor)
            if len(stored.parts) == 1 and not stored.in_bytes:
                span = self._span(stored.parts[0])
                if span not in runs:
                    memory = runs[span] = fresh(span[1] - span[0])
                    self._want_flat(Part(*span), 0, span[1] - span[0], memory.data, 0, wants)
            elif stored.parts and id(stored) not in apart:
                memory = apart[id(stored)] = fresh(stored.spec.nbytes)
                self._want(stored, 0, stored.spec.nbytes, memory.data, wants)
        self._read(wants, progress)

        def placed(tensor: LazyTensor) -> Placed:
            stored = _stored(tensor)
            if not stored.parts:
                return _NOTHING, 0
            if id(stored) in apart:
                return apart[id(stored)], 0
            span = self._span(stored.parts[0])
            return runs[span], stored.parts[0].start - span[0]

        for tensor in tensors:
            if tensor.spec.dtype is dtypes.BOOL:
                buffer, at = placed(tensor)
                if not dtypes.are_bools(memoryview(buffer)[at : at + tensor.nbytes]):
                    raise self._no_bools(tensor.name)
        return placed

    def spend(self, tensors: Sequence[Stored], nbytes: int) -> None:
        """Count bytes that are about to be made: a few bytes in a pack may say that they are many."""
        if nbytes <= self.limits.expanded_bytes:
            return
        rows = sorted({row for stored in tensors for part in stored.parts for row in self.joined.grid.crossing(part.start, part.stop)})
        self.reader.look(self._all_rows(rows))
        most = max(self.limits.expanded_bytes, self.limits.expansion * self.joined.payload_nbytes(rows))
        if nbytes > most:
            raise FormatError(
                self.joined.file,
                f"{nbytes:,} bytes would be made of what packs hold of {len(tensors):,} tensors, at most {most:,} may",
                hint=TRUST,
            )

    def _span(self, part: Part) -> tuple[int, int]:
        """The run of the whole chunks that hold a part."""
        rows = self.joined.grid.crossing(part.start, part.stop)
        return self.joined.grid.starts[rows.start], self.joined.grid.starts[rows.stop]

    def fill(self, pairs: Sequence[tuple[LazyTensor, memoryview]], progress: Progress | None) -> None:
        wants: dict[int, Want] = {}
        for tensor, memory in pairs:
            self._want(_stored(tensor), 0, memory.nbytes, memory, wants)
        folder = self.reader.backend.kind == "folder"
        try:
            self._read(wants, progress, compare=not folder)  # a folder tells by its files' times whether they were changed since
        except CorruptError as error:
            raise OSError(f"the checkpoint changed: {error}") from error

    def survey(self, progress: Progress | None) -> list[tuple[str, int, int]]:
        self._usable()
        damaged = self.reader.damaged(self.joined.kept_rows(), progress)
        return [(f"{error.part}: {path}", *error.span) for _, error in sorted(damaged.items()) for path in (error.path, *error.also)]

    def read(self, stored: Stored, start: int, stop: int) -> memoryview:
        """Bytes of a tensor, checked by whole chunks."""
        if start >= stop:
            return memoryview(b"")
        bools = stored.spec.dtype is dtypes.BOOL
        if len(stored.parts) == 1 and not stored.in_bytes:
            part = stored.parts[0]
            rows = self.joined.grid.crossing(part.start + start, part.start + stop)
            if len(rows) == 1 and (data := self._in_one(rows.start, part.start + start, part.start + stop)) is not None:
                return self._bools(data, stored) if bools else data
        self.spend([stored], stop - start)
        memory = memoryview(np.empty(stop - start, np.uint8))
        wants: dict[int, Want] = {}
        self._want(stored, start, stop, memory, wants)
        self._read(wants, None)
        return self._bools(memory, stored) if bools else memory

    def read_box(self, stored: Stored, offset: tuple[int, ...], lengths: tuple[int, ...]) -> memoryview:
        """Bytes of a part of a tensor: only the chunks that hold some of them are read."""
        nbytes = math.prod(lengths)
        if not nbytes:
            return memoryview(b"")
        memory = memoryview(np.empty(nbytes, np.uint8))
        wants: dict[int, Want] = {}
        shape = in_bytes(stored.spec.dtype, stored.spec.shape)
        assert shape is not None, "whoever asks knows where a row ends"
        self._want_box(stored, shape, (offset, lengths), np.frombuffer(memory, np.uint8).reshape(lengths), wants)
        self._read(wants, None)
        return self._bools(memory, stored) if stored.spec.dtype is dtypes.BOOL else memory

    def _bools(self, data: memoryview, stored: Stored) -> memoryview:
        if not dtypes.are_bools(data):
            path = self.joined.paths(self.joined.grid.crossing(stored.parts[0].start, stored.parts[0].stop).start)[0]
            raise self._no_bools(path)
        return data

    def _in_one(self, row: int, start: int, stop: int) -> memoryview | None:
        """Bytes of one chunk, which is kept, for the next small tensor is likely in it; None for those of a large one."""
        first, last = self.joined.grid.span(row)
        if not self.reader.verify and self.joined.table.codec[row] == STORED:
            memory = memoryview(np.empty(stop - start, np.uint8))
            self._usable()
            self.reader.part(row, start - first, stop - first, memory)
            return memory
        kept, chunk = self._kept
        if kept != row:
            chunk = memoryview(np.empty(last - first, np.uint8))
            self._read({row: Whole(chunk, 0)}, None)
            if start == first and stop == last:
                return chunk
            self._kept = row, chunk
        return memoryview(np.array(chunk[start - first : stop - first]))

    def _want(self, stored: Stored, start: int, stop: int, memory: memoryview, wants: dict[int, Want]) -> None:
        """Have bytes `start` to `stop` of a tensor read into memory."""
        if not stored.in_bytes:
            for part in stored.parts:
                first, last = max(start, part.at), min(stop, part.at + part.stop - part.start)
                if first < last:
                    self._want_flat(part, first - part.at, last - part.at, memory, first - start, wants)
            return
        for box, at in boxes_of(stored.in_bytes, start, stop):
            into = np.frombuffer(memory, np.uint8)[at : at + math.prod(box[1])].reshape(box[1])
            self._want_box(stored, stored.in_bytes, box, into, wants)

    def _want_flat(self, part: Part, start: int, stop: int, memory: memoryview, at: int, wants: dict[int, Want]) -> None:
        """Have bytes of a part read to where they lie in one run."""
        grid = self.joined.grid
        start, stop = part.start + start, part.start + stop
        for row in grid.crossing(start, stop):
            first, last = grid.span(row)
            if start <= first and last <= stop and row not in wants:
                wants[row] = Whole(memory, at + first - start)
            else:
                begin, end = max(start, first), min(stop, last)
                _uses(wants, row).append(partial(_copy, begin - first, memory[at + begin - start : at + end - start]))

    def _want_box(self, stored: Stored, shape: tuple[int, ...], box: Box, into: Array, wants: dict[int, Want]) -> None:
        """Have a part of a tensor read into an array of the part's shape, from all shards that cross it."""
        grid = self.joined.grid
        for part in stored.parts:
            shard = (part.offset, part.lengths) if part.lengths else ((0,) * len(shape), shape)
            if (common := crossing(box, shard)) is None:
                continue
            wanted = moved(common, shard[0], -1)  # as the shard counts
            target = into[slices(moved(common, box[0], -1))]
            first_byte, last_byte = corners(shard[1], wanted)
            for row in grid.crossing(part.start + first_byte, part.start + last_byte + 1):
                first, last = grid.span(row)
                begin, end = max(first, part.start), min(last, part.stop)
                pieces: list[_Piece] = []
                for own, at in boxes_of(shard[1], begin - part.start, end - part.start):
                    if (piece := crossing(own, wanted)) is not None:
                        to = target[slices(moved(piece, wanted[0], -1))]
                        pieces.append((begin - first + at, own[1], slices(moved(piece, own[0], -1)), to))
                if pieces:
                    _uses(wants, row).append(partial(_spread, pieces))


_Piece = tuple[int, tuple[int, ...], tuple[slice, ...], Array]
"""Where a box of bytes begins in a chunk, how long it is along each axis, what of it is wanted, and where that goes."""


def _spread(pieces: list[_Piece], chunk: memoryview) -> None:
    data = np.frombuffer(chunk, np.uint8)
    for at, lengths, inside, to in pieces:
        to[...] = data[at : at + math.prod(lengths)].reshape(lengths)[inside]


def _take(chunk: memoryview, want: Want) -> None:
    """Do with the bytes of a chunk what is wanted."""
    if isinstance(want, Whole):
        want.memory[want.at : want.at + chunk.nbytes] = chunk
    for use in want if isinstance(want, list) else ():
        use(chunk)


def _copy(start: int, into: memoryview, chunk: memoryview) -> None:
    into[:] = chunk[start : start + into.nbytes]


def _uses(wants: dict[int, Want], row: int) -> list[Use]:
    """What is done with a chunk, to be added to."""
    want = wants.get(row)
    if isinstance(want, Whole):
        memory, at = want.memory, want.at
        want = [lambda chunk: _copy(0, memory[at : at + chunk.nbytes], chunk)]
    elif want is None:
        want = []
    assert not isinstance(want, Payload), "a tensor is made of chunks"
    wants[row] = want
    return want


def _stored(tensor: LazyTensor) -> Stored:
    source = tensor.source
    assert isinstance(source, ChunkBytes), "a tensor of this checkpoint"
    return source.stored

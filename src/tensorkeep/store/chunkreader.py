"""The chunk reader: chunks out of packs, many at a time, decoded and compared with their digests.

Lives here: which ranges of which packs are read together, decoding with bases, digests, and what is said of damage. Lives elsewhere: which
bytes of which chunk belong to which tensor (storage), the codecs.

A chunk that is stored and wanted whole is read straight to where it belongs; one that is encoded is decoded straight there. All others go
through memory that each thread keeps.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from tensorkeep.backends.keys import Backend
from tensorkeep.chunks import CHUNK_BYTES, digest
from tensorkeep.errors import CorruptError
from tensorkeep.progress import Progress
from tensorkeep.store import names
from tensorkeep.store.codecs import decode, intact
from tensorkeep.store.codecs.scratch import scratch
from tensorkeep.store.joined import Joined
from tensorkeep.store.known import concerns_one_object
from tensorkeep.store.table import NO_BASE, STORED
from tensorkeep.tensors import Array
from tensorkeep.workers import Job, run

JOB_BYTES: Final = 4 * CHUNK_BYTES
_GAP_BYTES: Final = 32 << 10  # that nobody wants, and that are read to spare a request
_REQUESTS: Final = 16  # at once, where each waits for an answer
_MOST_TOGETHER: Final = 4096  # chunks in one job

Use = Callable[[memoryview], None]
"""Takes the bytes of a chunk, which are gone when it returns."""


class Whole:
    """A place in memory for all bytes of a chunk.

    Attributes:
        memory, at: a buffer, and where in it.
    """

    __slots__ = ("at", "memory")

    def __init__(self, memory: memoryview, at: int) -> None:
        self.memory, self.at = memory, at


class Payload:
    """For a chunk's payload as it is in its pack, after what it decodes to was compared.

    Attributes:
        use: takes it; it is gone when that returns.
    """

    __slots__ = ("use",)

    def __init__(self, use: Use) -> None:
        self.use = use


Want = Whole | Payload | list[Use] | None
"""What to do with a chunk; None where it is only compared with its digest."""

Found = Callable[[int, CorruptError], None]
"""Told of each damaged chunk: its row and the error."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One call of `read`: its arguments, and whether it wants so little of its packs that nothing shall be read ahead."""

    wants: Mapping[int, Want]
    compare: bool
    found: Found | None
    alone: bool


class ChunkReader:
    """Reads the chunks of one checkpoint, from any thread.

    Args:
        backend: of the store.
        joined: the checkpoint's chunks.
        verify: whether chunks are compared with their digests.
        missing: makes the error for a pack that is not there; None where the checkpoint is as it was, and so it is damaged.

    Attributes:
        good: a byte a row: 1 once its digest was found right.
    """

    def __init__(self, backend: Backend, joined: Joined, *, verify: bool, missing: Callable[[], Exception | None]) -> None:
        self.backend, self.joined, self.verify = backend, joined, verify
        self.good = bytearray(len(joined.table))
        self._missing = missing

    def read(self, wants: Mapping[int, Want], progress: Progress | None, *, compare: bool = True, found: Found | None = None) -> None:
        """Read chunks, and do with each what is wanted.

        Args:
            wants: by row.
            progress: told of the bytes of the chunks.
            compare: whether digests are compared, unless `verify` is off.
            found: told of damage; without it the first is raised.

        Raises:
            CorruptError: a chunk is not what was written.
            OSError: the storage fails; or the checkpoint was deleted or replaced meanwhile.
        """
        rows = np.fromiter(wants, np.int64, len(wants))
        table = self.joined.table
        rows = rows[np.lexsort((table.offset[rows], table.pack[rows]))]
        nbytes = int(self.joined.sizes[rows].sum())
        threads = _REQUESTS if self.backend.kind == "object store" else None
        around = sum(self.joined.pack_nbytes[number] for number in np.unique(table.pack[rows]).tolist())
        asked = _Asked(wants, compare and self.verify, found, alone=2 * int(table.length[rows].sum(dtype=np.int64)) < around)
        run(self._jobs(rows, asked), nbytes=nbytes, progress=progress, threads=threads)

    def damaged(self, rows: Array, progress: Progress | None) -> dict[int, CorruptError]:
        """Compare chunks with their digests, each once however many rows say the same of it; what is wrong, by row."""
        found: dict[int, CorruptError] = {}
        first = self.joined.first_alike(rows)
        self.read(dict.fromkeys(np.unique(first).tolist()), progress, found=found.__setitem__)
        for row, same in zip(rows.tolist(), first.tolist(), strict=True) if found else ():
            if same in found and row not in found:
                found[row] = self.damage(row, "the same bytes")
        return found

    def _jobs(self, rows: Array, asked: _Asked) -> Iterator[Job]:
        table, sizes = self.joined.table, self.joined.sizes
        columns = (table.pack[rows], table.offset[rows], table.length[rows], sizes[rows])
        together: list[int] = []
        pack, begin, end, made = -1, 0, 0, 0
        for row, its_pack, start, length, size in zip(rows.tolist(), *(column.tolist() for column in columns), strict=True):
            near = its_pack == pack and start <= end + _GAP_BYTES and start + length <= begin + 2 * JOB_BYTES
            if together and not (near and made + size <= JOB_BYTES and len(together) < _MOST_TOGETHER):
                yield made, partial(self._run, together, asked)
                together, made, end = [], 0, 0
            begin = begin if together else start
            together.append(row)
            pack, end, made = its_pack, max(end, start + length), made + size
        if together:
            yield made, partial(self._run, together, asked)

    def _run(self, rows: list[int], asked: _Asked) -> None:
        try:
            straight = self._straight(rows, asked.wants)
            if straight is not None:
                self._read_straight(rows, straight, asked)
            else:
                self._decode(rows, asked)
        except CorruptError as error:
            if asked.found is None:
                raise
            if len(rows) == 1:
                asked.found(rows[0], error)
                return
            for row in rows:  # each by itself, for the others may be well
                self._run([row], asked)

    def _straight(self, rows: list[int], wants: Mapping[int, Want]) -> memoryview | None:
        """The memory for several stored chunks that lie one behind the other, there as in their pack; None where that is not so."""
        table, sizes = self.joined.table, self.joined.sizes
        first = wants[rows[0]]
        if not isinstance(first, Whole) or bool(table.codec[rows].any()):
            return None
        at, offset = first.at, int(table.offset[rows[0]])
        for row in rows:
            want = wants[row]
            if not isinstance(want, Whole) or want.memory is not first.memory or want.at != at or int(table.offset[row]) != offset:
                return None
            at, offset = at + int(sizes[row]), offset + int(sizes[row])
        return first.memory[first.at : at]

    def _read_straight(self, rows: list[int], into: memoryview, asked: _Asked) -> None:
        table, sizes = self.joined.table, self.joined.sizes
        start = int(table.offset[rows[0]])
        self._fetch(rows, start, start + into.nbytes, into, alone=asked.alone)
        at = 0
        for row in rows if asked.compare else ():
            self._compare(row, into[at : at + int(sizes[row])])
            at += int(sizes[row])

    def _decode(self, rows: list[int], asked: _Asked) -> None:
        table, sizes = self.joined.table, self.joined.sizes
        payloads = self._payloads(rows, "reading", alone=asked.alone)
        bases: dict[int, memoryview] = {}
        needed = sorted({int(base) for base in table.base[rows] if base != NO_BASE})
        memory = scratch("decoded bases", np.uint8, int(sizes[needed].sum())).data if needed else memoryview(b"")
        for row, payload in self._payloads(needed, "bases", alone=asked.alone).items() if needed else ():
            bases[row], memory = memory[: int(sizes[row])], memory[int(sizes[row]) :]
            self._decoded(row, payload, bases[row], None)
        for row in rows:
            want, size = asked.wants[row], int(sizes[row])
            if asked.found is not None and not intact(int(table.codec[row]), payloads[row]):
                raise self.damage(row, "other bits")
            if isinstance(want, Whole):
                into = want.memory[want.at : want.at + size]
                self._decoded(row, payloads[row], into, bases)
            elif table.codec[row] == STORED:
                into = payloads[row]
            else:
                into = scratch("chunk", np.uint8, size).data
                self._decoded(row, payloads[row], into, bases)
            if asked.compare:
                try:
                    self._compare(row, into)
                except CorruptError:
                    if (base := int(table.base[row])) != NO_BASE:
                        self._compare(base, bases[base])  # then the damage is there
                    raise
            if isinstance(want, Payload):
                want.use(payloads[row])
            for use in want if isinstance(want, list) else ():
                use(into)

    def _decoded(self, row: int, payload: memoryview, into: memoryview, bases: Mapping[int, memoryview] | None) -> None:
        base = int(self.joined.table.base[row])
        try:
            decode(int(self.joined.table.codec[row]), payload, into, None if bases is None or base == NO_BASE else bases[base])
        except ValueError:
            raise self.damage(row, "not decodable") from None

    def _payloads(self, rows: list[int], name: str, *, alone: bool) -> dict[int, memoryview]:
        """What packs hold of some chunks: where the system has it, or read into memory of this thread, neighbours together.

        What is to be decoded is read: it must not change while that goes on.
        """
        table = self.joined.table
        rows = sorted(rows, key=lambda row: (int(table.pack[row]), int(table.offset[row])))
        runs: list[tuple[list[int], int, int]] = []  # rows, first byte, and the byte after the last
        for row in rows:
            start = int(table.offset[row])
            stop = start + int(table.length[row])
            last = runs[-1] if runs else None
            if last is not None and table.pack[last[0][0]] == table.pack[row] and start <= last[2] + _GAP_BYTES:
                last[0].append(row)
                runs[-1] = last[0], last[1], max(last[2], stop)
            else:
                runs.append(([row], start, stop))
        views = [None if alone or table.codec[group].any() else self._view(group[0], start, stop) for group, start, stop in runs]
        memory = scratch(name, np.uint8, sum(stop - start for (_, start, stop), view in zip(runs, views, strict=True) if view is None)).data
        payloads: dict[int, memoryview] = {}
        for (group, start, stop), view in zip(runs, views, strict=True):
            if view is None:
                view, memory = memory[: stop - start], memory[stop - start :]
                self._fetch(group, start, stop, view, alone=alone)
            for row in group:
                begin = int(table.offset[row]) - start
                payloads[row] = view[begin : begin + int(table.length[row])]
        return payloads

    def _view(self, row: int, start: int, stop: int) -> memoryview | None:
        return self.backend.view(names.pack_key(self.joined.packs[int(self.joined.table.pack[row])]), start, stop)

    def part(self, row: int, start: int, stop: int, into: memoryview) -> None:
        """Some bytes of a stored chunk, and no others, unchecked."""
        offset = int(self.joined.table.offset[row])
        self._fetch([row], offset + start, offset + stop, into, alone=True)

    def _fetch(self, rows: Sequence[int], start: int, stop: int, into: memoryview, *, alone: bool) -> None:
        """A range of a pack, which holds these chunks."""
        if start == stop:
            return
        number = int(self.joined.table.pack[rows[0]])
        key = names.pack_key(self.joined.packs[number])
        try:
            self.backend.read(key, start, stop, into, alone=alone)
        except OSError as error:
            said = self._why(key, number)
            if said is None:
                raise
            if (other := self._missing()) is not None:
                raise other from error
            raise self.damage(rows[0], said) from error

    def _why(self, key: str, number: int) -> str | None:
        """What is wrong with a pack that could not be read; None if it is there as the manifest says."""
        try:
            nbytes = self.backend.stat(key).nbytes
        except FileNotFoundError:
            return "nothing there"
        except OSError as error:
            return "no file" if concerns_one_object(error) else None
        return None if nbytes == self.joined.pack_nbytes[number] else f"{nbytes:,} bytes"

    def look(self, rows: Collection[int]) -> None:
        """See that the packs of some chunks are there, with their sizes; nothing of them is read.

        Raises:
            CorruptError, OSError: as for `read`.
        """
        table = self.joined.table
        packs, first = np.unique(table.pack[np.fromiter(rows, np.int64, len(rows))], return_index=True)
        ordered = list(rows)
        for number, index in zip(packs.tolist(), first.tolist(), strict=True):
            said = self._why(names.pack_key(self.joined.packs[number]), number)
            if said is not None:
                raise self._missing() or self.damage(ordered[index], said)

    def _compare(self, row: int, chunk: memoryview) -> None:
        found = digest(chunk)
        if found != self.joined.table.digest[row].tobytes():
            raise self.damage(row, found.hex())
        self.good[row] = 1

    def damage(self, row: int, found: str) -> CorruptError:
        table = self.joined.table
        start = int(table.offset[row])
        inside = self.joined.paths(row)
        return CorruptError(
            file=self.joined.file,
            path=inside[0] if inside else "(base)",
            span=(start, start + int(table.length[row])),
            found=found,
            wanted=table.digest[row].tobytes().hex(),
            also=inside[1:],
            part=names.pack_key(self.joined.packs[int(table.pack[row])]),
        )

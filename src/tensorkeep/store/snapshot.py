"""Snapshots: a state as it is now, in memory that nobody else writes to.

One copy by threads, into buffers that are kept from save to save and so are touched already; none of arrays that never change. Tensors
come to lie one behind the other in the order in which they are chunked: a chunk is a slice.

Lives here: that memory, and who copies what into it. Lives elsewhere: order and grid (groups), what becomes of the chunks (saving).
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np

from tensorkeep import structure
from tensorkeep.chunks import SMALL_BYTES, Grid, grid_of
from tensorkeep.limits import Limits
from tensorkeep.modelfile.layout import check_bools
from tensorkeep.store.groups import Cut, cuts_of, split
from tensorkeep.store.index import Shard
from tensorkeep.tensors import Array, LazyTensor, as_bytes
from tensorkeep.tree import Tree
from tensorkeep.workers import Job, run

_PIECE_BYTES: Final = 4 << 20  # of one copy: more gives nothing, less lets threads share better
_ALIGNMENT: Final = 64


class Memory:
    """The buffer that snapshots are copied into, one after the other."""

    def __init__(self) -> None:
        self._buffer: Array = np.empty(0, np.uint8)

    @property
    def nbytes(self) -> int:
        return int(self._buffer.nbytes)

    def take(self, nbytes: int) -> Array:
        """So many bytes, the same ones each time while they are enough."""
        if self._buffer.nbytes < nbytes:
            self._buffer = np.empty(0, np.uint8)  # first: never two of them
            self._buffer = np.empty(nbytes, np.uint8)
        return self._buffer[:nbytes]

    def release(self) -> None:
        self._buffer = np.empty(0, np.uint8)


@dataclass(slots=True)
class Plan:
    """What a save will keep, before anything is copied.

    Attributes:
        document: the structure, as JSON.
        framework: what tensors were saved as that it does not mark.
        versions: of the frameworks whose objects are in it, by package.
        groups: by name, the tensors by path, in order.
        grids: by name.
        nbytes: of all tensors.
        copied: of those that must be copied.
    """

    document: bytes
    framework: str
    versions: dict[str, str]
    groups: dict[str, dict[str, LazyTensor]]
    grids: dict[str, Grid]
    nbytes: int
    copied: int

    @property
    def count(self) -> int:
        return sum(map(len, self.groups.values()))


def plan(tree: Tree, limits: Limits, versions: dict[str, str]) -> Plan:
    """Order and size of everything in a tree over live memory.

    Args:
        versions: of the frameworks whose objects are in it, by package.

    Raises:
        UnsupportedError: it holds a value that cannot be kept.
    """
    encoded = structure.encode(tree, limits)
    check_bools(encoded.tensors)
    groups = split(tree, encoded.tensors)
    sizes = {name: [tensor.nbytes for tensor in group.values()] for name, group in groups.items()}
    copied = sum(tensor.nbytes for group in groups.values() for tensor in group.values() if not _is_kept(tensor))
    return Plan(
        msgspec.json.encode(encoded.document),
        encoded.framework,
        versions,
        groups,
        {name: grid_of(own) for name, own in sizes.items()},
        sum(map(sum, sizes.values())),
        copied,
    )


def _is_kept(tensor: LazyTensor) -> bool:
    """Whether its own memory will do: it never changes, and has chunks of its own."""
    return tensor.nbytes >= SMALL_BYTES and bool(getattr(tensor.source, "immutable", False))


@dataclass(slots=True)
class Taken:
    """One group of a snapshot.

    Attributes:
        shards: its tensors as an index lists them.
        grid: of them.
        cuts: what each chunk is of.
        starts: where, in the group, each run of memory begins.
        memory: those runs.
    """

    shards: list[Shard]
    grid: Grid
    cuts: list[Cut]
    starts: list[int] = field(default_factory=list)
    memory: list[memoryview] = field(default_factory=list)

    def chunk(self, number: int) -> memoryview:
        """The bytes of one chunk."""
        start, stop = self.grid.span(number)
        run_number = bisect_right(self.starts, start) - 1
        begin = self.starts[run_number]
        return self.memory[run_number][start - begin : stop - begin]


@dataclass(slots=True)
class Snapshot:
    """A state as it was.

    Attributes:
        plan: what is kept of it; its tensors are gone.
        groups: by name.
    """

    plan: Plan
    groups: dict[str, Taken]


def take(planned: Plan, memory: Memory) -> Snapshot:
    """Copy what may change. When this returns, the caller may change its tensors.

    Args:
        planned: its tensors are let go of here.
        memory: holds the copy until the next one is taken.
    """
    buffer = memory.take(planned.copied + _ALIGNMENT * len(planned.groups))
    groups: dict[str, Taken] = {}
    jobs: list[Job] = []
    at = 0
    for name, group in planned.groups.items():
        shards = [Shard(path, tensor.dtype.stored, tensor.spec.stored_shape) for path, tensor in group.items()]
        taken = Taken(shards, planned.grids[name], cuts_of([tensor.spec for tensor in group.values()], planned.grids[name]))
        groups[name] = taken
        at = _lay_out(list(group.values()), taken, buffer, at, jobs)
        at += -at % _ALIGNMENT
    run(jobs, nbytes=planned.nbytes)
    planned.groups = {name: {} for name in planned.groups}
    return Snapshot(planned, groups)


def _lay_out(tensors: list[LazyTensor], taken: Taken, buffer: Array, at: int, jobs: list[Job]) -> int:
    """Give each tensor its place, and the copies that bring it there; returns the first byte behind them."""
    position = begun = 0  # in the group: of this tensor, of the present run of memory
    first = at  # in the buffer: of the present run
    small: list[tuple[LazyTensor, int]] = []
    for tensor in tensors:
        nbytes = tensor.nbytes
        if nbytes == 0:
            continue
        if _is_kept(tensor):
            _end_run(taken, buffer, begun, first, at)
            taken.starts.append(position)
            taken.memory.append(memoryview(b""))
            jobs.append((nbytes, partial(_keep, tensor, taken, len(taken.memory) - 1)))
            begun, first = position + nbytes, at
        elif nbytes < SMALL_BYTES:
            small.append((tensor, at))
            if at + nbytes - small[0][1] >= _PIECE_BYTES:
                jobs.append(_gathering(small, buffer))
                small = []
            at += nbytes
        else:
            jobs.extend(_copies(tensor, buffer[at : at + nbytes]))
            at += nbytes
        if small and nbytes >= SMALL_BYTES:
            jobs.append(_gathering(small, buffer))
            small = []
        position += nbytes
    if small:
        jobs.append(_gathering(small, buffer))
    _end_run(taken, buffer, begun, first, at)
    return at


def _end_run(taken: Taken, buffer: Array, begun: int, first: int, at: int) -> None:
    if at > first:
        taken.starts.append(begun)
        taken.memory.append(memoryview(buffer[first:at]))


def _keep(tensor: LazyTensor, taken: Taken, number: int) -> None:
    """Hold on to memory that never changes; what is on a device is fetched."""
    taken.memory[number] = tensor.source.read(0, tensor.nbytes)


def _gathering(small: list[tuple[LazyTensor, int]], buffer: Array) -> Job:
    """A job over small neighbours: `join` takes them all in one call."""
    start = small[0][1]
    stop = small[-1][1] + small[-1][0].nbytes
    return stop - start, partial(_gather, [tensor for tensor, _ in small], buffer[start:stop])


def _gather(tensors: list[LazyTensor], into: Array) -> None:
    parts: list[Any] = []
    for tensor in tensors:
        view = tensor.source.view()
        parts.append(tensor.source.read(0, tensor.nbytes) if view is None else view)
    into[:] = np.frombuffer(b"".join(parts), np.uint8)


def _copies(tensor: LazyTensor, into: Array) -> Iterator[Job]:
    """The jobs that copy a large tensor."""
    view = tensor.source.view()
    if view is None:
        yield tensor.nbytes, partial(_fetch, tensor, into)
        return
    data = np.frombuffer(view if isinstance(view, bytes) else as_bytes(view), np.uint8)
    for begin in range(0, tensor.nbytes, _PIECE_BYTES):
        end = min(begin + _PIECE_BYTES, tensor.nbytes)
        yield end - begin, partial(np.copyto, into[begin:end], data[begin:end])


def _fetch(tensor: LazyTensor, into: Array) -> None:
    """Copy what does not lie in the host's memory as it does in a file."""
    into[:] = np.frombuffer(tensor.source.read(0, tensor.nbytes), np.uint8)

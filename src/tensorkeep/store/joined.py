"""Joined: the shards that one or several indexes list, as tensors; and their chunk tables as one.

Lives here: that the shards of each tensor tile it, and where each of its bytes is in the run of all chunks. Lives elsewhere: what an index
must fulfil by itself (index), reading chunks (chunkreader), putting them together (storage).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from tensorkeep import container
from tensorkeep.chunks import Grid
from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits
from tensorkeep.store.boxes import in_bytes, position, tile
from tensorkeep.store.index import Index, Shard
from tensorkeep.store.table import NO_BASE, Table
from tensorkeep.tensors import Array, TensorSpec

MOST_ROWS: Final = 1 << 24  # of all indexes of a checkpoint together: 16 TiB


class Part(msgspec.Struct, frozen=True, gc=False):
    """A shard: bytes that lie in one run, and where they belong.

    Attributes:
        start, stop: in the run of all chunks.
        at: where they begin in their tensor, if they lie in one run there too; else -1.
        offset, lengths: of the shard in its tensor, the last axis in bytes; empty where it is the whole.
    """

    start: int
    stop: int
    at: int = 0
    offset: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A tensor as it is stored.

    Attributes:
        spec: of the whole.
        parts: its shards; an empty one has none.
        in_bytes: its shape with the last axis in bytes; empty where each part lies in one run.
    """

    spec: TensorSpec
    parts: tuple[Part, ...]
    in_bytes: tuple[int, ...] = ()


class Joined:
    """All indexes of a checkpoint as one.

    Attributes:
        file: the checkpoint, for messages.
        tensors: by path, in the order of the indexes.
        table: a row a chunk: those of the indexes one behind the other, then those that are only bases.
        grid: where chunks begin in the run of them all; chunk n is row n.
        sizes: bytes of each row's chunk.
        packs: names of the packs that the rows name.
        pack_nbytes: their sizes.
        rows_of: for each index, which row of `table` each of its own rows is.
        given_up: those of them that the manifest does not name any more, by number.
    """

    def __init__(self, indexes: Sequence[Index], packs: Mapping[str, int], *, weights_only: bool, limits: Limits, file: str) -> None:
        self.file = file
        if sum(len(index.table) for index in indexes) > MOST_ROWS:
            raise FormatError(file, f"its indexes have more than {MOST_ROWS:,} chunks")
        self.packs: list[str] = []
        self.pack_nbytes: list[int] = []
        self._packs(indexes)
        self.given_up = frozenset(number for number, name in enumerate(self.packs) if name not in packs)
        if self.given_up and not weights_only:
            missing = self.packs[min(self.given_up)]
            raise FormatError(file, f"damaged: an index names the pack {missing}, and the manifest does not")
        self.table, self.sizes = self._table(indexes)
        self.grid = _grid(indexes)
        self._starts: list[int] = []  # of the parts that have bytes, and whose they are
        self._paths: list[str] = []
        self._gone = self._given_up_rows()
        self._by_base: Array | None = None  # rows in the order of their bases
        self.tensors = self._tensors(indexes, limits)

    def _packs(self, indexes: Sequence[Index]) -> None:
        numbers: dict[str, int] = {}
        self._numbers: list[Array] = []  # of each index: from its own numbers of packs to ours
        for index in indexes:
            own = []
            for pack in index.packs:
                if pack.name not in numbers:
                    numbers[pack.name] = len(self.packs)
                    self.packs.append(pack.name)
                    self.pack_nbytes.append(pack.nbytes)
                elif self.pack_nbytes[numbers[pack.name]] != pack.nbytes:
                    raise FormatError(self.file, f"damaged: its indexes do not agree on the size of the pack {pack.name}")
                own.append(numbers[pack.name])
            self._numbers.append(np.array(own, np.uint32))

    def _table(self, indexes: Sequence[Index]) -> tuple[Table, Array]:
        if len(indexes) == 1:
            (index,) = indexes
            self.rows_of = [np.arange(len(index.table))]
            return _renumbered(index.table, self._numbers[0]), _sizes(index)
        counts = [len(index.sizes) for index in indexes]
        chunks, total = sum(counts), sum(len(index.table) for index in indexes)
        before, behind = 0, chunks
        rows: list[Array] = []  # of each index: where its rows come in ours
        for index, count in zip(indexes, counts, strict=True):
            spare = len(index.table) - count
            rows.append(np.concatenate([np.arange(before, before + count), np.arange(behind, behind + spare)]))
            before, behind = before + count, behind + spare
        self.rows_of = rows
        columns = {}
        for name in Table.__slots__:
            first = getattr(indexes[0].table, name)
            columns[name] = np.empty((total, *first.shape[1:]), first.dtype)
        sizes = np.empty(total, np.uint64)
        for index, place, numbers in zip(indexes, rows, self._numbers, strict=True):
            own = _renumbered(index.table, numbers)
            for name, column in columns.items():
                column[place] = getattr(own, name)
            delta = own.base != NO_BASE
            columns["base"][place[delta]] = place[own.base[delta]]
            sizes[place] = _sizes(index)
        return Table(**columns), sizes

    def _given_up_rows(self) -> Array:
        """Of each row, whether its pack, or that of its base, was given up."""
        own: Array = np.isin(self.table.pack, list(self.given_up))
        base = self.table.base
        return own | ((base != NO_BASE) & own[np.where(base == NO_BASE, 0, base)]) if len(own) else own

    def _tensors(self, indexes: Sequence[Index], limits: Limits) -> dict[str, Stored]:
        tensors: dict[str, Stored] = {}
        split: dict[str, list[tuple[Shard, int, int]]] = {}  # tensors of which a part was found
        run = 0
        for index in indexes:
            for group in index.groups:
                at = run
                for shard, spec in zip(group.shards, group.specs, strict=True):
                    end = at + spec.nbytes
                    if end > at:
                        self._starts.append(at)
                        self._paths.append(shard.path)
                    if shard.path in split:
                        split[shard.path].append((shard, at, end))
                    elif shard.path in tensors:
                        raise FormatError(self.file, f"damaged: the tensor {shard.path!r:.200} is there twice")
                    else:
                        tensors[shard.path] = Stored(spec, (Part(at, end),) if end > at else ())
                        if shard.offset:
                            split[shard.path] = [(shard, at, end)]
                    at = end
                run = at
        for path, shards in split.items():
            tensors[path] = self._joined(path, shards, limits)
        return tensors

    def _joined(self, path: str, shards: list[tuple[Shard, int, int]], limits: Limits) -> Stored:
        """A tensor of shards, if they tile it."""
        first = shards[0][0]
        if any(shard.dtype != first.dtype or shard.shape != first.shape for shard, _, _ in shards):
            raise FormatError(self.file, f"damaged: the parts of {path!r:.200} do not agree on its dtype and shape")
        if not tile(first.shape, [(_offset(shard), shard.own_shape) for shard, _, _ in shards]):
            raise FormatError(self.file, f"damaged: the parts of {path!r:.200} overlap, or leave holes")
        spec = container.stored_spec(first.dtype, first.shape, path, self.file, limits)
        whole = in_bytes(spec.dtype, spec.shape)
        parts = []
        for shard, start, stop in shards:
            offset, lengths = in_bytes(spec.dtype, _offset(shard)), in_bytes(spec.dtype, shard.own_shape)
            if whole is None or offset is None or lengths is None:
                raise FormatError(self.file, f"damaged: a part of {path!r:.200} begins or ends inside of a byte")
            parts.append(Part(start, stop, position(whole, offset, lengths), offset, lengths))
        return Stored(spec, tuple(parts), whole or () if any(part.at < 0 for part in parts) else ())

    def is_given_up(self, stored: Stored) -> bool:
        """Whether bytes of a tensor lie in packs that the checkpoint does not need any more."""
        return bool(self.given_up) and any(bool(self._gone[slice(*self._rows_of(part.start, part.stop))].any()) for part in stored.parts)

    def kept_rows(self) -> Array:
        """The rows whose chunks can be read."""
        return np.flatnonzero(~self._gone)

    def first_alike(self, rows: Array) -> Array:
        """For each of some rows, the first of them that says the same: a chunk that occurs often need be read once."""
        table = self.table
        columns = [np.ascontiguousarray(getattr(table, name)[rows]).view(np.uint8).reshape(len(rows), -1) for name in Table.__slots__]
        whole = np.concatenate([*columns, np.ascontiguousarray(self.sizes[rows]).view(np.uint8).reshape(len(rows), -1)], axis=1)
        _, first, inverse = np.unique(whole.view(f"V{whole.shape[1]}").reshape(-1), return_index=True, return_inverse=True)
        return rows[first[inverse]]

    def _rows_of(self, start: int, stop: int) -> tuple[int, int]:
        rows = self.grid.crossing(start, stop)
        return rows.start, rows.stop

    def payload_nbytes(self, rows: Sequence[int] | Array) -> int:
        """Bytes that the packs hold of some chunks; what several refer to counts once."""
        pack, offset, length = (column[rows] for column in (self.table.pack, self.table.offset, self.table.length))
        order = np.lexsort((offset, pack))
        pack, offset = pack[order], offset[order]
        first = np.ones(len(order), bool)
        first[1:] = (pack[1:] != pack[:-1]) | (offset[1:] != offset[:-1])
        return int(length[order][first].sum(dtype=np.uint64))

    def paths(self, row: int) -> list[str]:
        """The tensors that have bytes in a chunk; of one that is only a base, those that cannot be read without it."""
        if row >= len(self.grid):
            if self._by_base is None:
                self._by_base = np.argsort(self.table.base, kind="stable")
            first, last = np.searchsorted(self.table.base, [row, row + 1], sorter=self._by_base)
            return list(dict.fromkeys(path for other in self._by_base[first:last].tolist() for path in self.paths(other)))
        start, stop = self.grid.span(row)
        return self._paths[max(0, bisect_right(self._starts, start) - 1) : bisect_left(self._starts, stop)]


def _offset(shard: Shard) -> tuple[int, ...]:
    return shard.offset or (0,) * len(shard.shape)


def _renumbered(table: Table, packs: Array) -> Table:
    if not len(table) or bool((packs == np.arange(len(packs))).all()):
        return table
    return Table(table.digest, packs[table.pack], table.offset, table.length, table.codec, table.base)


def _sizes(index: Index) -> Array:
    """Bytes of each row's chunk: bases have those of the chunks that refer to them."""
    sizes = np.zeros(len(index.table), np.uint64)
    sizes[: len(index.sizes)] = index.sizes
    delta = np.flatnonzero(index.table.base != NO_BASE)
    sizes[index.table.base[delta]] = sizes[delta]
    return sizes


def _grid(indexes: Sequence[Index]) -> Grid:
    starts = [0]
    for index in indexes:
        for group in index.groups:
            run = starts[-1]
            starts += [run + start for start in group.grid.starts[1:]]
    return Grid(starts)

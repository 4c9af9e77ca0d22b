"""Tensors in chunks, of which each is a `torch.save` of its own somewhere in a folder: put together when they are read."""

import math
import threading
from collections.abc import Sequence
from typing import Final

import numpy as np

from tensorkeep.errors import shown
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.torch.dtypes import ITEM_BYTES
from tensorkeep.formats.torch.storage import shape_of
from tensorkeep.formats.torch.zip import read_archive
from tensorkeep.tensors import Array, LazyTensor, spec_of
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.sources import Made, Run

_MOST_CHUNKS: Final = 1_000_000
_MOST_CUTS: Final = 64


class Chunk:
    """One part of a tensor.

    Args:
        extent: its `torch.save`.
        dtype: PyTorch's name.
        offsets, sizes: where it lies in the whole.
    """

    def __init__(self, peek: Peek, name: str, extent: Extent, dtype: str, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> None:
        self.name, self.dtype, self.offsets, self.sizes = name, dtype, offsets, sizes
        self._peek, self._extent = peek, extent
        self._tensor: LazyTensor | None = None
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> memoryview:
        """Bytes from `start` to `stop`.

        Raises:
            FormatError: what is saved there is another tensor than was said.
        """
        with self._lock:
            if self._tensor is None:
                self._tensor = self._opened()
        return self._tensor.source.read(start, stop)

    def _opened(self) -> LazyTensor:
        settled, _ = read_archive(self._peek.within(self._extent))
        found = settled.tree
        ours, shape = shape_of(self.dtype, self.sizes)
        if not isinstance(found, LazyTensor) or found.spec != spec_of(ours, shape):
            what = str(found.spec) if isinstance(found, LazyTensor) else f"a {type(found).__name__}"
            raise self._peek.error(f"{shown(self.name)}: a part is said to be {ours}{list(shape)}, and {what} is there")
        if self._peek.verify and isinstance(found.source, Run):
            found.source.extent.check()
        return found


def put_together(peek: Peek, name: str, dtype: str, size: tuple[int, ...], chunks: Sequence[Chunk]) -> LazyTensor:
    """A tensor of these chunks.

    Raises:
        FormatError: they do not tile it.
    """
    if len(chunks) > _MOST_CHUNKS or any(len(chunk.offsets) != len(size) or len(chunk.sizes) != len(size) for chunk in chunks):
        raise peek.error(f"{shown(name)}: its {len(chunks):,} chunks have other numbers of dimensions than it has, or are too many")
    ours, shape = shape_of(dtype, size)
    spec = spec_of(ours, shape)
    kept = [chunk for chunk in chunks if 0 not in chunk.sizes]
    if spec.nbytes and not _tiles((0,) * len(size), size, kept):
        raise peek.error(f"{shown(name)}: its {len(chunks):,} chunks do not tile its shape {list(size)}")
    if not spec.nbytes:
        return LazyTensor(spec, Made(0, lambda start, stop: b""))
    if len(kept) == 1:
        return LazyTensor(spec, Made(spec.nbytes, kept[0].read))
    return LazyTensor(spec, Made(spec.nbytes, _Assembled(size, ITEM_BYTES[dtype], kept).read))


class _Assembled:
    """Several chunks as one run of bytes."""

    def __init__(self, size: tuple[int, ...], item: int, chunks: Sequence[Chunk]) -> None:
        self.size, self.item, self.chunks = size, item, chunks
        self.row = math.prod(size[1:]) * item  # bytes of a whole row of the first axis

    def read(self, start: int, stop: int) -> memoryview:
        first, last = start // self.row, -(-stop // self.row)
        whole: Array = np.zeros((last - first, *self.size[1:]), np.dtype(f"V{self.item}"))
        for chunk in self.chunks:
            begin, end = max(first, chunk.offsets[0]), min(last, chunk.offsets[0] + chunk.sizes[0])
            if begin < end:
                row = math.prod(chunk.sizes[1:]) * self.item
                data = chunk.read((begin - chunk.offsets[0]) * row, (end - chunk.offsets[0]) * row)
                part = np.frombuffer(data, whole.dtype).reshape(end - begin, *chunk.sizes[1:])
                inner = tuple(slice(at, at + length) for at, length in zip(chunk.offsets[1:], chunk.sizes[1:], strict=True))
                whole[(slice(begin - first, end - first), *inner)] = part
        data = memoryview(whole.reshape(-1).view(np.uint8))
        return data[start - first * self.row : stop - first * self.row]


def _tiles(begin: tuple[int, ...], end: tuple[int, ...], chunks: Sequence[Chunk], cuts: int = 0) -> bool:
    """Whether chunks fill a box exactly: one alone is the box, several can be cut apart along an axis, and each side again.

    Shards of tensors are grids, which a cut along each axis takes apart; what takes many more cuts was not written by PyTorch.
    """
    if len(chunks) == 1:
        chunk = chunks[0]
        return chunk.offsets == begin and all(at + size == stop for at, size, stop in zip(begin, chunk.sizes, end, strict=True))
    if cuts > _MOST_CUTS:
        return False
    for axis in range(len(begin)):
        sides = _cut(begin[axis], end[axis], sorted(chunks, key=lambda chunk: chunk.offsets[axis]), axis)
        if sides is None:
            return False
        if len(sides) > 1:
            return all(
                _tiles((*begin[:axis], start, *begin[axis + 1 :]), (*end[:axis], stop, *end[axis + 1 :]), side, cuts + 1)
                for start, stop, side in sides
            )
    return False


def _cut(begin: int, end: int, ordered: Sequence[Chunk], axis: int) -> list[tuple[int, int, list[Chunk]]] | None:
    """The chunks in runs along an axis, each behind the end of the one before; None where they leave a gap or reach beyond."""
    sides: list[tuple[int, int, list[Chunk]]] = []
    start = reach = begin
    side: list[Chunk] = []
    for chunk in ordered:
        at = chunk.offsets[axis]
        if at >= reach and side:
            if at != reach:
                return None
            sides.append((start, reach, side))
            start, side = at, []
        elif not side and at != begin:
            return None
        side.append(chunk)
        reach = max(reach, at + chunk.sizes[axis])
    if not side or reach != end:
        return None
    return [*sides, (start, reach, side)]

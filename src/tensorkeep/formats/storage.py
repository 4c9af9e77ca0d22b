"""The storage of foreign files: bytes of tensors from extents, and the checksums that some formats have."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, cast

import numpy as np

from tensorkeep.contents import Passing, Placed, Placement
from tensorkeep.dtypes import are_bools
from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.formats.streams import in_order
from tensorkeep.progress import Progress, part_of
from tensorkeep.tensors import LazyTensor, fresh
from tensorkeep.wire.extent import Extent, Opened
from tensorkeep.wire.inflate import InflatedFile
from tensorkeep.wire.sources import Kept, Made, Run, Strided, extents_of
from tensorkeep.workers import Job, run

_PIECE_BYTES: Final = 4 << 20
_NOTHING: Final = np.empty(0, np.uint8)


class ForeignStorage:
    """The tensors of one foreign file or folder.

    Args:
        name: of the file, as the caller named it.
        opened: all files that belong to it; the first is the one that was named. The list may grow while tensors are read.
        verify: whether checksums are compared when tensors are loaded.
        extents: all extents with a checksum, tensors or not, for `survey`.
        views_unchecked: whether `place` gives views of a mapping without comparing the checksums of what is behind them.
    """

    def __init__(
        self, name: str, opened: list[Opened], *, verify: bool, extents: Sequence[Extent] = (), views_unchecked: bool = False
    ) -> None:
        self.name, self._opened, self._verify, self._extents = name, opened, verify, extents
        self._views_unchecked = views_unchecked

    def identity(self) -> object:
        return tuple(opened.file.identity() for opened in self._opened)

    def close(self) -> None:
        for opened in self._opened:
            opened.close()

    def check(self, tensors: Collection[LazyTensor], progress: Progress | None) -> None:
        wanted = self._unchecked(tensors)
        run(_checks(wanted), nbytes=_nbytes(wanted), progress=progress)
        self._check_bools(tensors)

    def _unchecked(self, tensors: Collection[LazyTensor]) -> list[tuple[Extent, list[str]]]:
        """The extents whose checksums are still to be compared, each with the names of the tensors in it."""
        wanted: dict[int, tuple[Extent, list[str]]] = {}
        for tensor in tensors if self._verify else ():
            for extent in extents_of(tensor):
                if extent.checksum is not None and not extent.checksum.good:
                    wanted.setdefault(id(extent), (extent, []))[1].append(tensor.name)
        return list(wanted.values())

    def _check_bools(self, tensors: Collection[LazyTensor]) -> None:
        for tensor in tensors:
            source = tensor.source
            if isinstance(source, (Run, Kept)) and source.bools:
                try:
                    source.read(0, tensor.nbytes)
                except FormatError:
                    raise self._no_bools(tensor) from None

    def _no_bools(self, tensor: LazyTensor) -> FormatError:
        return FormatError(self.name, f"{tensor.name}: a BOOL byte that is neither 0 nor 1")

    def survey(self, progress: Progress | None) -> list[tuple[str, int, int]]:
        damaged: list[tuple[str, int, int]] = []

        def look(extent: Extent) -> None:
            try:
                extent.check()
            except CorruptError as error:
                damaged.append((error.path, *error.span))
            except FormatError:
                damaged.append((extent.name.rpartition(": ")[2], extent.start, extent.stop))

        jobs = ((extent.nbytes, lambda extent=extent: look(extent)) for extent in self._extents)
        run(jobs, nbytes=sum(extent.nbytes for extent in self._extents), progress=progress)
        return sorted(damaged, key=lambda damage: damage[1:])

    def in_passing(self, tensors: Collection[LazyTensor]) -> Passing:
        wanted = self._unchecked(tensors)
        for extent, _ in wanted:
            assert extent.checksum is not None
            extent.checksum.begin()
        beside = _beside(wanted, tensors)

        def finish(progress: Progress | None) -> None:
            jobs = [(nbytes, partial(_naming, *each, Extent.settle)) for nbytes, each in zip(beside, wanted, strict=True)]
            run(jobs, nbytes=sum(beside), progress=progress)

        return Passing(sum(beside), finish)

    def place(self, tensors: Sequence[LazyTensor], progress: Progress | None) -> Placement:
        kept = [tensor for tensor in tensors if type(tensor.source) is Kept]  # a file may have very many of these
        tensors = [tensor for tensor in tensors if type(tensor.source) is not Kept] if kept else tensors
        passing = {id(tensor) for tensor in tensors if _is_checked_in_passing(tensor)}
        others = [tensor for tensor in tensors if id(tensor) not in passing]
        views = [tensor for tensor in others if self._views_unchecked and _is_mapped(tensor)]
        met = {id(tensor) for tensor in views}
        wanted = self._unchecked([tensor for tensor in others if id(tensor) not in met])
        done = _nbytes(wanted)
        in_memory = sum(tensor.nbytes for tensor in kept)
        whole = done + sum(tensor.nbytes for tensor in tensors) + in_memory
        run(_checks(wanted), nbytes=done, progress=part_of(progress, 0, whole))
        self._check_bools([*others, *kept])
        places: dict[int, Placed] = {id(tensor): (bytearray(cast(Kept, tensor.source).data), 0) for tensor in kept}
        done += in_memory
        apart: list[LazyTensor] = []
        for tensor in tensors:
            if tensor.nbytes == 0:
                places[id(tensor)] = (_NOTHING, 0)
                continue
            source = _run(tensor)
            mapping = source.extent.opened.mapping() if source is not None else None
            if source is None or mapping is None:
                apart.append(tensor)
            else:
                places[id(tensor)] = (mapping, source.extent.start + source.start)
                done += tensor.nbytes
        if progress is not None and places:
            progress(done, whole)
        for tensor in apart:
            places[id(tensor)] = (_NOTHING, 0)

        def make(tensor: LazyTensor) -> None:
            memory = fresh(tensor.nbytes)  # only now, when its turn has come
            source = _run(tensor)
            if source is None or id(tensor) not in passing:
                _read(tensor, memoryview(memory))
            else:
                with _named(tensor.name):
                    source.extent.read_into(source.start, memoryview(memory), checked=self._verify)
                if source.bools and not are_bools(memoryview(memory)):
                    raise self._no_bools(tensor)
            places[id(tensor)] = (memory, 0)

        _in_order(apart, make, part_of(progress, done, whole))
        return lambda tensor: places[id(tensor)]

    def fill(self, pairs: Sequence[tuple[LazyTensor, memoryview]], progress: Progress | None) -> None:
        memories = {id(tensor): memory for tensor, memory in pairs}
        _in_order([tensor for tensor, _ in pairs], lambda tensor: _read(tensor, memories[id(tensor)]), progress)


def _nbytes(wanted: Iterable[tuple[Extent, list[str]]]) -> int:
    return sum(extent.nbytes for extent, _ in wanted)


def _checks(wanted: Iterable[tuple[Extent, list[str]]]) -> Iterator[Job]:
    for extent, paths in wanted:
        yield extent.nbytes, partial(_naming, extent, paths, Extent.check)


def _naming(extent: Extent, paths: list[str], compare: Callable[[Extent], None]) -> None:
    with _named(*paths):
        compare(extent)


def _beside(wanted: Iterable[tuple[Extent, list[str]]], tensors: Iterable[LazyTensor]) -> list[int]:
    """How many bytes of each extent no tensor has, as far as it is known of the tensors which they have."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for tensor in tensors:
        source = tensor.source
        for extent in extents_of(tensor):
            spans.setdefault(id(extent), []).append((source.start, source.stop) if isinstance(source, Run) else (0, extent.nbytes))
    found = []
    for extent, _ in wanted:
        beside = reached = 0
        for start, stop in sorted(spans[id(extent)]):
            beside += max(0, start - reached)
            reached = max(reached, stop)
        found.append(beside + max(0, extent.nbytes - reached))
    return found


@contextmanager
def _named(*paths: str) -> Iterator[None]:
    """Name the tensors that have bytes in what was found damaged: people know those, not the records of an archive."""
    try:
        yield
    except CorruptError as error:
        raise CorruptError(
            file=error.file,
            path=paths[0] or error.path,
            span=error.span,
            found=error.found,
            wanted=error.wanted,
            also=paths[1:],
            kind=error.kind,
        ) from None


def _in_order(tensors: Sequence[LazyTensor], read: Callable[[LazyTensor], None], progress: Progress | None) -> None:
    """Read tensors in parallel, but those of one compressed stream one after the other."""
    jobs = in_order((tensor, (tensor.nbytes, partial(read, tensor))) for tensor in tensors)
    run(jobs, nbytes=sum(tensor.nbytes for tensor in tensors), progress=progress)


def _run(tensor: LazyTensor) -> Run | None:
    return tensor.source if isinstance(tensor.source, Run) else None


def _is_mapped(tensor: LazyTensor) -> bool:
    """Whether its bytes can be had as a view of a mapping."""
    source = _run(tensor)
    return source is not None and source.extent.opened.mapping() is not None


def _is_checked_in_passing(tensor: LazyTensor) -> bool:
    """Whether its checksum is compared while it is read, for another pass costs as much: in compressed streams, without a mapping."""
    source = _run(tensor)
    if source is None:
        return False
    whole = source.start == 0 and tensor.nbytes == source.extent.nbytes
    return isinstance(source.extent.opened.file, InflatedFile) or (whole and source.extent.opened.mapping() is None)


def _read(tensor: LazyTensor, into: memoryview) -> None:
    """The bytes of a tensor, straight from the file where they lie there, in pieces where they are made."""
    source = tensor.source
    if isinstance(source, Run):
        source.extent.read_into(source.start, into)
        return
    if isinstance(source, Strided) and source.extent.opened.mapping() is None:
        into[:] = source.read(0, into.nbytes)  # every piece may reach over all of it, which would be inflated again for each
        return
    if isinstance(source, Made) and source.put is not None:
        source.put(into)
        return
    row, granule = _row(tensor), source.granule if isinstance(source, Made) else 0
    each = max(1, granule or row)
    each *= max(1, _PIECE_BYTES // each)
    for begin in range(0, into.nbytes, each):
        end = min(begin + each, into.nbytes)
        into[begin:end] = source.read(begin, end)


def _row(tensor: LazyTensor) -> int:
    return tensor.dtype.nbytes(math.prod(tensor.shape[1:]))

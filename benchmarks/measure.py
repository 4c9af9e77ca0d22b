"""Pairs: ours and the peer's in turn, so that whatever disturbs the machine disturbs both."""

import ctypes
import gc
import os
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np

_FAST_GB_S: Final = 2.5  # memory that the host has to hand out first comes at 0.4 to 1 GB/s, the rest at 4 to 9
_TOUCHES: Final = 4


def nothing() -> None:
    """Nothing to do before a run."""


@dataclass(frozen=True)
class Case:
    """One line of a table.

    Attributes:
        job: what is done.
        against: the peer, and what it does not do that we do.
        ours, peer: do it once, and return the result, which is freed after the clock has stopped. Where `counted` is set they return a
            number of bytes that is compared instead of the time.
        at_most: the ratio that is promised; None where it is only told.
        before: what is done before each run, off the clock.
        unit: what is counted: bytes, told as MiB, or millionths, told as %.
        nbytes: how large the state is: so much memory is made ready before each run, see `ready_memory`.
    """

    job: str
    against: str
    ours: Callable[[], object]
    peer: Callable[[], object]
    at_most: float | None = None
    before: Callable[[], None] = nothing
    counted: bool = False
    nbytes: int = 0
    unit: Literal["MiB", "%"] = "MiB"


@dataclass(frozen=True)
class Result:
    """What a case took: seconds, or bytes for those that count them.

    Attributes:
        ratio: the median of the ratios of the pairs; lowest and highest beside it.
    """

    table: str
    job: str
    against: str
    at_most: float | None
    counted: bool
    unit: str = "MiB"
    ours: list[float] = field(default_factory=list)
    peer: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        return [ours / peer for ours, peer in zip(self.ours, self.peer, strict=True)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool | None:
        return None if self.at_most is None else self.ratio <= self.at_most


def run(case: Case, table: str, pairs: int) -> Result:
    """One run of each to warm up, then pairs; who goes first changes."""
    result = Result(table, case.job, case.against, case.at_most, case.counted, case.unit)
    _once(case, case.ours), _once(case, case.peer)
    for number in range(pairs):
        if number % 2:
            peer, ours = _once(case, case.peer), _once(case, case.ours)
        else:
            ours, peer = _once(case, case.ours), _once(case, case.peer)
        result.ours.append(ours)
        result.peer.append(peer)
    return result


def _once(case: Case, call: Callable[[], object]) -> float:
    gc.collect()  # first: what still holds a mapping would keep its file's pages in memory
    case.before()
    ready_memory(case.nbytes)
    began = time.perf_counter()
    made = call()
    seconds = time.perf_counter() - began
    return float(made) if case.counted else seconds  # type: ignore[arg-type]  # a counted case returns a number


def ready_memory(nbytes: int) -> None:
    """Touch this much memory and free it, again until it is fast.

    A virtual machine may give memory that it freed back to its host. Touching it again then takes a second per GiB, now here and now there,
    which is up to ten times what is measured. Files that are written need memory too: the page cache.
    """
    for _ in range(_TOUCHES if nbytes else 0):
        began = time.perf_counter()
        np.empty(nbytes + nbytes // 8, np.uint8)[::4096] = 1
        if nbytes / (time.perf_counter() - began) > _FAST_GB_S * 1e9:
            return


def settle(*files: Path) -> Callable[[], None]:
    """Before a save: its files are gone, and nothing waits for the disk."""

    def before() -> None:
        for file in files:
            with suppress(FileNotFoundError):
                file.unlink()
        os.sync()

    return before


def cool(*files: Path) -> Callable[[], None]:
    """Before a cold load: no page of its files is in memory, as far as `posix_fadvise(DONTNEED)` can say so."""

    def before() -> None:
        for file in files:
            fd = os.open(file, os.O_RDONLY)
            try:
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)

    return before


def synced(file: Path) -> None:
    """What makes a peer's file durable: fsync of it and of its folder."""
    for path in (file, file.parent):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def can_cool() -> bool:
    """Whether this system can be told to forget a file's pages."""
    return hasattr(os, "posix_fadvise")


def can_count() -> bool:
    """Whether this system counts bytes from the disk and peaks of memory, and lets us read and reset them."""
    return os.access("/proc/self/io", os.R_OK) and os.access("/proc/self/clear_refs", os.W_OK)


def bytes_from_disk() -> int:
    """What this process has had read from the disk so far, page cache misses of mappings too."""
    return _number_in("/proc/self/io", "read_bytes")


def memory_beside(call: Callable[[], object]) -> int:
    """Bytes of memory that a call needs at its peak beside what was there before it."""
    ctypes.CDLL(None).malloc_trim(0)  # else what is free inside the process would be used again, and not counted
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: proc(5)
    before = _number_in("/proc/self/status", "VmRSS")
    call()
    return (_number_in("/proc/self/status", "VmHWM") - before) * 1024


def _number_in(file: str, name: str) -> int:
    for line in Path(file).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"{file} has no {name}")

"""Workers: the one way to use threads.

Lives here: running jobs side by side, a bound on how many wait, the first error, progress.
Lives elsewhere: what a job does. The heavy calls in it (hashing, reading, writing, copying) release the GIL.

No thread outlives a call: a process that forks later inherits no dead pool.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from tensorkeep.progress import Progress, checked

Job = tuple[int, Callable[[], None]]
"""What a worker runs, behind the number of bytes it moves forward."""

MAX_THREADS: Final = 16  # more than a disk or a memory bus can feed


def thread_count() -> int:
    """Threads as many as the process may use, or what `TENSORKEEP_THREADS` says.

    Raises:
        ValueError: `TENSORKEEP_THREADS` is no whole number above 0.
    """
    wanted = os.environ.get("TENSORKEEP_THREADS", "")
    if wanted:
        if not wanted.isascii() or not wanted.isdigit() or int(wanted) < 1:
            raise ValueError(f"TENSORKEEP_THREADS is {wanted!r}; it takes a whole number above 0")
        return int(wanted)
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity to ask for
        available = os.cpu_count() or 1
    return min(available, MAX_THREADS)


class _Shared:
    """What the threads of one call have in common: the jobs, how far they are, the first error."""

    def __init__(self, jobs: Iterable[Job], nbytes: int, progress: Progress | None, begin: Callable[[], object] | None = None) -> None:
        self.jobs: Iterator[Job] = iter(jobs)
        self.begin = begin
        self.nbytes, self.done, self.progress = nbytes, 0, progress
        self.lock = threading.Lock()
        self.error: BaseException | None = None
        self.begun: set[threading.Thread] = set()  # helpers that came to work
        self.ended: set[threading.Thread] = set()  # those of them that will do nothing more

    def next(self) -> Job | None:
        """The next job, made under the lock: an iterator of jobs need not be thread-safe."""
        with self.lock:
            return None if self.error is not None else next(self.jobs, None)

    def finished(self, nbytes: int) -> None:
        with self.lock:
            self.done += nbytes
            if self.progress is not None and self.error is None:
                self.progress(self.done, self.nbytes)

    def failed(self, error: BaseException) -> None:
        with self.lock:
            if self.error is None:
                self.error = error


def _help(shared: _Shared) -> None:
    """What a helper does. No handler of a signal runs in it, so what it says of itself is true."""
    helper = threading.current_thread()
    shared.begun.add(helper)
    try:
        if shared.begin is not None:
            shared.begin()
        _work(shared)
    finally:
        shared.ended.add(helper)


def _work(shared: _Shared) -> None:
    try:
        while (job := shared.next()) is not None:
            nbytes, call = job
            call()
            shared.finished(nbytes)
            job = call = None  # type: ignore[assignment]  # what a job holds is gone before the next one is made
    except BaseException as error:  # noqa: BLE001  # a thread ends here; the caller raises what is passed on
        shared.failed(error)


def run(
    jobs: Iterable[Job],
    *,
    nbytes: int,
    progress: Progress | None = None,
    threads: int | None = None,
    begin: Callable[[], object] | None = None,
) -> None:
    """Run jobs on as many threads as pay, and return when all are done or the first one failed.

    A job is taken from the iterable only when a thread is free for it, so a lazy iterable bounds what is in flight. The calling
    thread works too. After an error, or Ctrl-C, no new job is begun; those under way are waited for. So a job must never wait for one
    that was not begun yet.

    Args:
        jobs: what to run, in this order.
        nbytes: the bytes of all jobs together; a small amount is not worth a thread.
        progress: told how far it is.
        threads: for jobs that mostly wait, such as requests: so many, whatever the bytes and cores. `TENSORKEEP_THREADS` is obeyed.
        begin: what each thread that is started for this does first, such as lowering its priority.

    Raises:
        BaseException: what the first failing job, `progress`, or the handler of a signal raised.
    """
    shared = _Shared(jobs, nbytes, checked(progress), begin)
    helpers = [
        threading.Thread(target=_help, args=(shared,), name=f"tensorkeep-{number}", daemon=True)
        for number in range(_wanted(nbytes, threads) - 1)
    ]
    try:
        _start(helpers)
        _work(shared)
    except BaseException as error:  # noqa: BLE001  # of a signal's handler, between two jobs; raised below
        if shared.error is None:  # and no call of `failed`: at each call Python looks for the next signal
            shared.error = error
    waiting = True
    while waiting:  # whatever handlers raise meanwhile: a thread may be writing into the caller's memory
        try:
            while waiting:  # twice: the jump back to a loop's beginning, behind its `except`, is a moment for handlers too
                try:
                    for helper in helpers:
                        _join(helper, shared)
                    waiting = False
                except BaseException as error:  # noqa: BLE001  # raised below
                    if shared.error is None:
                        shared.error = error
        except BaseException as error:  # noqa: BLE001  # raised below
            if shared.error is None:
                shared.error = error
    if shared.error is not None:
        raise shared.error


def _wanted(nbytes: int, threads: int | None) -> int:
    if threads is None or os.environ.get("TENSORKEEP_THREADS"):
        return min(thread_count(), 1 + nbytes // SMALL if threads is None else threads)
    return threads


def _start(helpers: list[threading.Thread]) -> None:
    try:
        for helper in helpers:
            helper.start()
    except RuntimeError as error:  # no more threads to be had: those there do the work
        if "can't start new thread" not in str(error):  # a signal's handler may raise anything
            raise


def _join(helper: threading.Thread, shared: _Shared) -> None:
    """Wait for a thread to end.

    By its own word: where a handler raises in `start` or `join`, Python may take a running thread for a stopped one, or a thread that
    never came to work for a running one. Of such a one nothing is lost: when it comes, there are no jobs left.
    """
    patience = 1000  # ms
    while helper not in shared.ended:
        if helper in shared.begun and helper.is_alive():
            helper.join()
        elif helper in shared.begun or patience:
            patience -= helper not in shared.begun
            time.sleep(0.001)
        else:
            return
    if helper.is_alive():
        helper.join(1)


SMALL: Final = 4 << 20  # bytes a thread should have to do before another one is started

"""Store: a run's whole history, as a person sees it. Each method calls the room that does it."""

import operator
import os
import threading
import time
from collections.abc import Mapping
from os import PathLike
from typing import Any, Final, Literal, Self

from tensorkeep.backends.choosing import open_backend
from tensorkeep.backends.priority import give_way
from tensorkeep.errors import StoreBusy, TensorkeepWarning, warn
from tensorkeep.frameworks.capture import capture
from tensorkeep.frameworks.versions import of_types
from tensorkeep.limits import Limits, limits_of
from tensorkeep.store import names, snapshot
from tensorkeep.store.archive import Archive
from tensorkeep.store.background import Background
from tensorkeep.store.commit import Writer
from tensorkeep.store.exits import Termination, at_exit
from tensorkeep.store.job import Job
from tensorkeep.store.keep import Every, Keep
from tensorkeep.store.manifest import as_metric
from tensorkeep.store.recorder import Compress, Recorder

Busy = Literal["wait", "skip", "error"]
_BUSY: Final = ("wait", "skip", "error")
_COMPRESS: Final = ("auto", "none", "max")


class Store(Archive):
    """The checkpoints of a run, in a folder or in object storage.

    Saving waits for one copy of the state in memory; the rest goes on in the background. No byte is written twice, every byte is
    checked, and whatever is killed in between, each committed checkpoint loads. Nothing is written before the first save.

    Args:
        url: a folder, or a URL such as `s3://bucket/runs/digits`.
        keep: which checkpoints stay; all of them without it. It is applied after each save.
        compress: `auto` where it costs no time, `none`, or `max`. All are without loss.
        busy: what a save does while another one is under way: `wait` for it, `skip` itself, or raise an `error`.
        sigterm: finish the save under way on SIGTERM, and have the next `due` say yes. In the main thread alone.

    Raises:
        ValueError, TypeError: an argument is none of these.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> weights = np.zeros(3)
        >>> with tk.Store("runs/digits", keep=tk.Keep(last=3, best="loss")) as store:
        ...     start = store.resume(into={"weights": weights})
        ...     for step in range(start.step + 1 if start else 0, 5):
        ...         weights += 1
        ...         job = store.save({"weights": weights}, step=step, metrics={"loss": 1 / (step + 1)})
        >>> tk.Store("runs/digits").steps()
        [2, 3, 4]
    """

    def __init__(
        self,
        url: "str | PathLike[str]",
        *,
        keep: Keep | None = None,
        compress: Compress = "auto",
        busy: Busy = "wait",
        sigterm: bool = False,
    ) -> None:
        if keep is not None and not isinstance(keep, Keep):
            raise TypeError(f"keep= takes a tensorkeep.Keep, such as Keep(last=3), found {keep!r:.80}")
        if compress not in _COMPRESS:
            raise ValueError(f"compress={compress!r:.80}: one of {', '.join(_COMPRESS)} is wanted")
        if busy not in _BUSY:
            raise ValueError(f"busy={busy!r:.80}: one of {', '.join(_BUSY)} is wanted")
        super().__init__(open_backend(url, create=True), os.fspath(url), keep)
        self.busy = busy
        self._pid = os.getpid()
        self._job: Job | None = None
        self._background: Background | None = None
        self._saving = threading.Lock()  # one thread at a time copies into the memory of snapshots
        self._saver: tuple[int, int] | None = None  # that thread, and the step
        self._memory = snapshot.Memory()
        self._recorder = Recorder(self._catalog, keep, compress)
        self._since: int | None = None  # the step that was last saved, resumed from, or asked about
        self._last_s = time.monotonic()  # of the last save, or the beginning
        self._termination = Termination(self._finish_quietly) if sigterm else None
        at_exit(self)

    def __repr__(self) -> str:
        return f"<Store {self.name!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self.finish()
            else:
                self._finish_quietly()  # its own error shall not hide this one
        finally:
            self.close()

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} has a thread of its own and cannot be pickled: pass its name, and open it there")

    def close(self) -> None:
        """Wait for the save under way, and let go of the memory that snapshots were kept in."""
        try:
            if os.getpid() == self._pid:
                self.finish()
                self._recorder.tidy(prune=False)
                self._warn()
        finally:
            self._memory.release()
            if self._termination is not None:
                self._termination.restore()

    def save(
        self,
        state: Any,
        *,
        step: int,
        metrics: Mapping[str, float] | None = None,
        wait: bool = False,
        overwrite: bool = False,
        limits: Limits | None = None,
    ) -> Job:
        """Save a checkpoint. Returns after one copy in memory: the state may be changed at once, the rest goes on in the background.

        Args:
            state: as for `tensorkeep.save`.
            step: its number, from 0.
            metrics: numbers to remember it by, such as `{"loss": 0.12}`.
            wait: return only when it is durable.
            overwrite: take the place of the checkpoint of that step that is there now. If somebody else saves the step meanwhile, theirs
                stays, and this save fails with `StepExists`.
            limits: bounds that it must keep, so that others can read it.

        Returns:
            The job: `wait()`, `done`, `error`, `progress`.

        Raises:
            SaveError: the save before this one failed, and nobody was told; this one was not begun.
            UnsupportedError: a value that cannot be kept.
            FileExistsError: the step is there, `overwrite` is False, and it is not damaged.
            StoreBusy: another save is under way, with `busy="error"`.
            OSError: there is no room for it.
        """
        began = time.perf_counter()
        step = _step(step)
        numbers = _metrics(metrics)
        self._check_process()
        if self._saver is not None and self._saver[0] == threading.get_ident():  # a signal's handler, which nobody can wait for
            raise StoreBusy(self.name, step, self._saver[1])
        with self._saving:
            try:
                self._saver = threading.get_ident(), step
                job = self._begin(state, step, numbers, overwrite, limits_of(limits))
            finally:
                self._saver = None
        job.stall_s = time.perf_counter() - began
        return job.wait() if wait else job

    def _begin(self, state: Any, step: int, metrics: Mapping[str, float | str], overwrite: bool, limits: Limits) -> Job:
        """Copy the state, and let the rest go on in the background."""
        if not self._ready(step):
            return Job(self.name, step, skipped=True)
        old = self._recorder.prepare(step, overwrite)
        met: set[type] = set()
        tree = capture(state, limits, met=met)
        plan = snapshot.plan(tree, limits, of_types(met))
        del tree
        self._recorder.check_room(plan)
        taken = snapshot.take(plan, self._memory)
        job = Job(self.name, step, nbytes=plan.nbytes)

        def work() -> None:
            give_way()
            job.run(lambda job: self._recorder.write(job, taken, step, metrics, old))
            if job.error is None:
                self._recorder.tidy()
            else:
                self._recorder.failed()

        self._recorder.hurry.clear()
        background = Background(work)
        try:
            self._background, self._job = background, job
            self._since, self._last_s = step, time.monotonic()
            background.start()
        except BaseException:
            if background.give_up():
                self._job = None
            raise
        return job

    def _ready(self, step: int) -> bool:
        """Whether a save may begin: no other is under way, or it was waited for."""
        if self._job is None:
            return True
        if not self._job.done:
            if self.busy == "skip":
                return False
            if self.busy == "error":
                raise StoreBusy(self.name, step, self._job.step)
        self.finish()
        return True

    def finish(self) -> None:
        """Wait for the save under way.

        Raises:
            SaveError: it failed, and nobody was told.
        """
        if os.getpid() != self._pid:
            return  # a forked child has no part in it
        job = self._job
        self._finish_quietly()
        self._warn()
        if job is not None and job.untold:
            job.raise_error()

    def _warn(self) -> None:
        if self._recorder.untold:
            said, self._recorder.untold = self._recorder.untold, ""
            warn(TensorkeepWarning(said))

    def _finish_quietly(self) -> None:
        if self._background is not None and os.getpid() == self._pid:
            self._recorder.hurry.set()
            self._background.wait()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(f"{self!r} belongs to the process that made it; a forked child makes a Store of its own")

    def due(self, step: int, every: Every | None = None) -> bool:
        """Whether it is time to save.

        Args:
            step: the present one.
            every: how often, such as `Every(steps=1000, minutes=10)`; without it, SIGTERM alone is heard.

        Returns:
            True as `every` says, counted from the last save; and after SIGTERM, for a store with `sigterm=True`.
        """
        self._check_process()
        if every is not None and not isinstance(every, Every):
            raise TypeError(f"due() takes a tensorkeep.Every, such as Every(steps=1000), found {every!r:.80}")
        if self._termination is not None:
            self._termination.heeded = True
            if self._termination.asked:
                return True
        step = _step(step)
        if every is None:
            return False
        since, self._since = self._since, max(step, self._since or 0)
        return every.due(step, since=since, seconds=time.monotonic() - self._last_s)

    def _settle(self) -> None:
        self._check_process()
        self._finish_quietly()  # if it failed, the next save, `wait` or the exit will say so

    def _next_writer(self) -> Writer:
        return self._recorder.next_writer()

    def _changed(self, step: int | None = None) -> None:
        if step is None:
            self._recorder.forget()  # the next save looks anew at what it may borrow
        else:
            self._since = step


def _step(step: int) -> int:
    try:
        number = operator.index(step) if not isinstance(step, bool) else -1
    except TypeError:
        number = -1
    if not 0 <= number <= names.LAST_STEP:
        raise ValueError(f"step={step!r:.80}: a whole number from 0 is wanted")
    return number


def _metrics(metrics: Mapping[str, float] | None) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(f"metrics= takes names and numbers, such as {{'loss': 0.12}}, found {metrics!r:.80}")
    for name, value in (metrics or {}).items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ValueError(f"metrics: {name!r:.80} is no name of a metric")
        try:
            found[name] = as_metric(float(value))
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"metrics: {name} is {value!r:.80}, which is no number") from None
    return found

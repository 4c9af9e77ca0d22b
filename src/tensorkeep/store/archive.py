"""Archive: what is done with whole checkpoints, beside saving and loading them. Each method calls the room that does it."""

import os
from abc import ABC
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import Any, Unpack

from tensorkeep.backends.choosing import open_backend
from tensorkeep.contents import Contents
from tensorkeep.errors import CheckpointGone
from tensorkeep.limits import Limits, limits_of
from tensorkeep.loading import Options, check_options, load_contents
from tensorkeep.progress import Progress
from tensorkeep.selection import Only
from tensorkeep.store import averaging, copying, verifying
from tensorkeep.store.catalog import LOOKS
from tensorkeep.store.checkpoints import Checkpoints
from tensorkeep.store.copying import Copied
from tensorkeep.store.export import Exported, export, write_model_file
from tensorkeep.store.history import history
from tensorkeep.store.stats import Stats, stats
from tensorkeep.tensors import Array
from tensorkeep.verdict import Verdict


class Archive(Checkpoints, ABC):
    """Checkpoints, verified, exported, averaged and copied."""

    def verify(
        self,
        ref: "str | int | None" = None,
        *,
        deep: bool = True,
        limits: Limits | None = None,
        progress: Progress | None = None,
    ) -> Verdict:
        """Compare every byte that checkpoints need with its digest.

        Args:
            ref: one checkpoint, as for `load`; None for all of them, tags and the store's own file.
            deep: `False` only looks whether all packs and indexes are there with their sizes.
            limits: bounds on what a checkpoint may ask for.
            progress: called with the bytes done and in all.

        Returns:
            Verdict: `intact`; `damaged`, with file, tensor and bytes of each damaged place; `checkpoints`, those that are hurt by it.

        Raises:
            NoCheckpoint: there is no such checkpoint, or no store.

        Example:
            >>> import tensorkeep as tk
            >>> with tk.Store("runs/a") as store:
            ...     job = store.save({"lr": 0.1}, step=1, wait=True)
            ...     store.verify().intact
            True
        """
        self._settle()
        return verifying.verify(self._catalog, ref, deep=deep, limits=limits_of(limits), progress=progress)

    def stats(self, *, limits: Limits | None = None) -> Stats:
        """What the store takes, what of that is needed, and how it is kept. Reads no pack.

        Args:
            limits: as for `load`.

        Returns:
            Stats: `pack_bytes`, of which `live_bytes` are needed and `dead_bytes` are not; `garbage_bytes` for `gc`; `tensor_bytes`, to
            compare with.

        Example:
            >>> import numpy as np
            >>> import tensorkeep as tk
            >>> with tk.Store("runs/f") as store:
            ...     for step in range(3):
            ...         job = store.save({"frozen": np.arange(50000.0)}, step=step, wait=True)
            ...     found = store.stats()
            >>> found.tensor_bytes // 3, found.dead_bytes, found.pack_bytes <= 400000
            (400000, 0, True)
        """
        self._settle()
        return stats(self._catalog, limits=limits_of(limits))

    def history(self, path: str, rows: Any = None, *, limits: Limits | None = None) -> Iterator[tuple[int, Array]]:
        """One tensor over all checkpoints, from the oldest to the newest, read as one goes. What did not change in between is read once.

        Args:
            path: of the tensor.
            rows: what `tensor[rows]` takes, such as `slice(0, 10)`; None for all of it.
            limits: as for `load`.

        Returns:
            Step and values, for each checkpoint that has the tensor. Copy values that are to be changed.

        Raises:
            KeyError: no checkpoint has it.
            CorruptError, FormatError: a checkpoint is damaged.

        Example:
            >>> import numpy as np
            >>> import tensorkeep as tk
            >>> with tk.Store("runs/b") as store:
            ...     for step in range(3):
            ...         job = store.save({"w": np.full(2, float(step))}, step=step)
            ...     [(step, w.tolist()) for step, w in store.history("w")]
            [(0, [0.0, 0.0]), (1, [1.0, 1.0]), (2, [2.0, 2.0])]
        """
        self._settle()
        return history(self._catalog, path, rows, limits=limits_of(limits))

    def export(
        self,
        ref: "str | int",
        path: "str | PathLike[str]",
        *,
        only: Only | None = None,
        dtype: str | None = None,
        limits: Limits | None = None,
        progress: Progress | None = None,
    ) -> Exported:
        """Write a checkpoint as a model file. Tensors are streamed: memory does not grow with the model.

        Args:
            ref: which checkpoint, as for `load`.
            path: of the file, or its URL. It appears whole or not at all.
            only: a glob over paths (`*` crosses dots), or a callable: what to take.
            dtype: `bf16`, `fp16` or `fp32`: cast all floating-point numbers, rounding to nearest even.
            limits: as for `load`.
            progress: called with the bytes done and in all.

        Returns:
            Exported: `step`, `tensors`, `nbytes`, and how many values the cast `changed`.

        Raises:
            NoCheckpoint: there is no such checkpoint.
            CorruptError: it is damaged. No file was written.

        Example:
            >>> import tensorkeep as tk
            >>> with tk.Store("runs/c") as store:
            ...     job = store.save({"lr": 0.1}, step=1, wait=True)
            ...     done = store.export("latest", "model.safetensors")
            >>> tk.load("model.safetensors")
            {'lr': 0.1}
        """
        self._settle()
        return export(
            self._catalog,
            ref,
            path,
            only=only,
            dtype=dtype,
            writer=self._next_writer(),
            limits=limits_of(limits),
            progress=progress,
        )

    def average(
        self, last: int = 10, *, path: "str | PathLike[str] | None" = None, limits: Limits | None = None, **options: Unpack[Options]
    ) -> Any:
        """The mean of the newest checkpoints: exact, and rounded once to the tensor's dtype. Often a better model than any of them.

        Floating-point tensors are averaged. All else is the newest's, and so is what one of them has given up (`weights_only_after`).

        Args:
            last: how many checkpoints, at most.
            path: of a model file to write it to instead, streamed: that takes less than 256 MiB of memory whatever the size of the model.
            limits, options: as for `load`; `into=` fills a model. With `path`, `only` and `progress` alone.

        Returns:
            The state, as `load` gives it; with `path`, an `Exported`.

        Raises:
            NoCheckpoint: there is none.
            MismatchError: a tensor that is loaded is missing in one of them, or has another dtype or shape there. Nothing was changed.
            CorruptError: one is damaged. Nothing was changed.

        Example:
            >>> import numpy as np
            >>> import tensorkeep as tk
            >>> with tk.Store("runs/d") as store:
            ...     for step in range(3):
            ...         job = store.save({"w": np.full(2, float(step))}, step=step)
            ...     store.average(last=2)
            {'w': array([1.5, 1.5])}
        """
        check_options("average", options)
        bounds = limits_of(limits)
        self._settle()
        if path is not None and (others := options.keys() - {"only", "progress"}):
            raise TypeError(f"average(path=) writes a file: {min(others)}= is for the state that it gives without path=")
        for left in reversed(range(LOOKS)):
            try:
                return self._average(last, None if path is None else os.fsdecode(path), bounds, options)
            except CheckpointGone:
                if not left:
                    raise  # else, where another process saves and removes, there are newer ones
        raise AssertionError("the last look returns or raises")

    def _average(self, last: int, path: str | None, limits: Limits, options: Options) -> Any:
        contents: Contents
        with averaging.average(self._catalog, last, limits=limits) as contents:
            if path is None:
                return load_contents(contents, limits=limits, **options)
            only, progress = options.get("only"), options.get("progress")
            return write_model_file(contents, path, only=only, dtype=None, limits=limits, progress=progress)

    def copy(
        self,
        to: "str | PathLike[str] | Archive",
        refs: "Sequence[str | int] | None" = None,
        *,
        limits: Limits | None = None,
        progress: Progress | None = None,
    ) -> Copied:
        """Copy checkpoints into another store, which is made if it is not there. What is there is not copied again, so a copy that was
        interrupted goes on.

        A copy has no dead bytes: it is how a store is made compact.

        Args:
            to: a folder, a URL, or a `Store`.
            refs: which checkpoints, each as for `load`; None for all of them, and tags.
            limits: as for `load`.
            progress: called with the bytes of tensors done and in all.

        Returns:
            Copied: the `steps` that were copied, those that were `there`, and bytes written.

        Raises:
            NoCheckpoint: one is not there, or no store is.
            StepExists, TagExists: the other store has another checkpoint of a step, or under a tag. Those before it were copied.
            CorruptError, FormatError: a checkpoint is damaged. Those before it were copied.

        Example:
            >>> import tensorkeep as tk
            >>> with tk.Store("runs/e") as store:
            ...     job = store.save({"lr": 0.1}, step=1, wait=True)
            ...     store.copy("backup/e").steps
            (1,)
        """
        self._settle()
        target = to._backend if isinstance(to, Checkpoints) else open_backend(to, create=True)
        by = self._next_writer().by
        return copying.copy(self._catalog, target, refs, next_writer=self._next_writer, by=by, limits=limits_of(limits), progress=progress)

"""The cases of the store: saving while training goes on, loading the newest, and what a history takes."""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any, Final

import numpy as np
import torch
import torch.distributed.checkpoint as dcp

import tensorkeep as tk
from benchmarks import states, training
from benchmarks.measure import Case, bytes_from_disk, can_cool, can_count, cool, synced
from tensorkeep.chunks import CHUNK_BYTES


class _Steps:
    """A store, and the next step of it; old ones go."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        self.store = tk.Store(folder / name, keep=tk.Keep(last=2), **options)
        self.step = 0
        self.job: tk.Job | None = None

    def save(self, state: Any, *, wait: bool = False) -> None:
        self.step += 1
        self.job = self.store.save(state, step=self.step, wait=wait)

    def settle(self) -> None:
        self.store.finish()


class _Dcp:
    """The same of torch's DCP: a folder a step, the one before removed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.step = folder, 0
        self.future: Any = None

    def save(self, state: Any) -> None:
        self._next()
        dcp.save({"state": state}, checkpoint_id=self.path, no_dist=True)

    def begin(self, state: Any) -> None:
        self._next()
        self.future = dcp.async_save({"state": state}, checkpoint_id=self.path, no_dist=True)

    def settle(self) -> None:
        if self.future is not None:
            self.future.result()
            self.future = None

    def _next(self) -> None:
        rmtree(self.path, ignore_errors=True)
        self.step += 1

    @property
    def path(self) -> Path:
        return self.folder / f"dcp-{self.step}"


def _changed(tensors: dict[str, torch.Tensor]) -> Callable[[], None]:
    """Before each save: every tensor is another, so nothing is known."""

    def change() -> None:
        for tensor in tensors.values():
            tensor.add_(0.001)

    return change


def _between(*calls: Callable[[], object]) -> Callable[[], None]:
    def before() -> None:
        for call in calls:
            call()

    return before


def torch_states(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """A state of 256 tensors of 4 MiB that changes whole from save to save; all warm, everything durable."""
    tensors = states.large(scale.large)
    size = "1 GiB" if scale.large == 256 else f"{scale.large * 4} MiB"
    change = _changed(tensors)
    plain, auto, theirs = _Steps(folder, "none", compress="none"), _Steps(folder, "auto"), _Dcp(folder)
    settle = _between(plain.settle, auto.settle, theirs.settle, change, os.sync)
    case = partial(Case, nbytes=scale.large * 4 * states.MIB)
    yield case(f"stall of a save, {size}", "DCP async_save", lambda: auto.save(tensors), lambda: theirs.begin(tensors), 0.7, settle)
    yield case(
        f"save until durable, {size}, compress=none",
        "DCP save + sync",
        lambda: plain.save(tensors, wait=True),
        lambda: (theirs.save(tensors), _synced(theirs.path)),
        0.5,
        settle,
    )
    yield case(
        f"save until durable, {size}, compress=none",
        "torch.save + fsync",
        lambda: plain.save(tensors, wait=True),
        lambda: (torch.save(tensors, folder / "torch.pt"), synced(folder / "torch.pt")),
        None,
        settle,
    )
    yield case(
        f"save until durable, {size}, compress=auto",
        "the same, compress=none",
        lambda: auto.save(tensors, wait=True),
        lambda: plain.save(tensors, wait=True),
        1.05,
        settle,
    )
    settle()
    plain.save(tensors, wait=True)
    auto.save(tensors, wait=True)
    theirs.save(tensors)
    target = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    for steps, at_most in ((plain, 0.6), (auto, 1.5)):
        yield case(
            f"load the newest, verified, into a model, {size}, compress={steps.store._recorder.compress}",
            "DCP load",
            lambda steps=steps: steps.store.load(into=target),  # type: ignore[misc]  # bound now
            lambda: dcp.load({"state": target}, checkpoint_id=theirs.path, no_dist=True),
            at_most,
        )
    for steps in (plain, auto):
        steps.store.close()
    for name in ("none", "auto", f"dcp-{theirs.step}"):
        rmtree(folder / name, ignore_errors=True)


def jax_states(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """The same with arrays of JAX, beside Orbax's CheckpointManager."""
    if not importlib.util.find_spec("orbax") or not importlib.util.find_spec("jax"):
        return
    import jax
    import orbax.checkpoint as ocp

    count = scale.large
    size = "1 GiB" if count == 256 else f"{count * 4} MiB"
    arrays = {f"block{number}": jax.random.normal(jax.random.key(number), (1024, 1024)) for number in range(count)}
    state = {"now": arrays}
    jax.block_until_ready(arrays)

    def change() -> None:
        state["now"] = {name: array + 0.001 for name, array in state["now"].items()}
        jax.block_until_ready(state["now"])

    manager = ocp.CheckpointManager(folder / "orbax", options=ocp.CheckpointManagerOptions(max_to_keep=2))
    ours = _Steps(folder, "jax", compress="none")
    auto = _Steps(folder, "jax-auto")
    step = [0]

    def begin() -> None:
        step[0] += 1
        manager.save(step[0], args=ocp.args.StandardSave(state["now"]), force=True)

    settle = _between(ours.settle, auto.settle, manager.wait_until_finished, change, os.sync)
    case = partial(Case, nbytes=scale.large * 4 * states.MIB)
    yield case(f"stall of a save, JAX, {size}", "Orbax, async", lambda: auto.save(state["now"]), begin, 0.5, settle)
    yield case(
        f"save until durable, JAX, {size}, compress=none",
        "Orbax, until finished",
        lambda: ours.save(state["now"], wait=True),
        lambda: (begin(), manager.wait_until_finished()),
        0.4,
        settle,
    )
    settle()
    ours.save(state["now"], wait=True)
    auto.save(state["now"], wait=True)
    begin()
    manager.wait_until_finished()
    abstract = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in state["now"].items()}
    for steps, at_most in ((ours, 0.3), (auto, 0.8)):
        yield case(
            f"load the newest, verified, JAX, {size}, compress={steps.store._recorder.compress}",
            "Orbax restore",
            lambda steps=steps: jax.block_until_ready(steps.store.load(into=abstract)),  # type: ignore[misc]  # bound now
            lambda: jax.block_until_ready(manager.restore(step[0], args=ocp.args.StandardRestore(abstract))),
            at_most,
        )
    manager.close()
    for steps in (ours, auto):
        steps.store.close()
    for name in ("orbax", "jax", "jax-auto"):
        rmtree(folder / name, ignore_errors=True)


def training_goes_on(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """A small GPT trains on all cores while a state of 1 GiB beside it is saved four times in 12 s: what its steps lose by that."""
    quick = scale.large < 256
    ballast = states.large(scale.large)
    change = _changed(ballast)
    seconds = 0.2 if quick else 12.0
    ours, theirs = _Steps(folder, "beside", compress="none"), _Dcp(folder)
    ours.save(ballast, wait=True)
    theirs.begin(ballast)
    theirs.settle()

    def slowed(begin: Callable[[], None], settle: Callable[[], None]) -> int:
        settle(), change(), os.sync()
        alone = _train(seconds, lambda: None)  # just before: a shared machine is now faster and now slower
        rate = _train(seconds, lambda: (settle(), begin()))
        settle()
        return max(1, round(1e6 * (alone - rate) / alone))

    yield Case(
        "training slowed while saving",
        "DCP async_save",
        lambda: slowed(lambda: ours.save(ballast), ours.settle),
        lambda: slowed(lambda: theirs.begin(ballast), theirs.settle),
        0.8,
        counted=True,
        unit="%",
    )
    ours.store.close()
    rmtree(folder / "beside", ignore_errors=True)
    rmtree(theirs.path, ignore_errors=True)


def _train(seconds: float, begin: Callable[[], object]) -> float:
    """Steps a second, over so many seconds, with something begun in each quarter of them."""
    torch.manual_seed(0)
    model = training.Gpt()
    optimizer = torch.optim.AdamW(model.parameters())
    text = torch.randint(256, (training.BATCH, training.CONTEXT + 1))
    began, steps, begun = time.perf_counter(), 0, 0
    while (now := time.perf_counter()) - began < seconds:
        if now - began > (0.1 + begun) * seconds / 4:
            begin()
            begun += 1
        loss = torch.nn.functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    return steps / (time.perf_counter() - began)


def parts(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """What is read where only a part is wanted, cold."""
    if not (can_cool() and can_count()):
        return
    tensors = states.large(scale.large)
    whole = {"w": torch.cat([tensor.flatten() for tensor in tensors.values()]).reshape(-1, 1024)}
    rows = len(whole["w"]) // 100
    for compress in ("none", "auto"):
        place = folder / f"parts-{compress}"
        with tk.Store(place, compress=compress) as store:
            store.save(whole, step=1, wait=True)
        packs = [path for path in place.rglob("*") if path.is_file()]
        yield Case(
            f"1 % of the rows of a tensor of {scale.large * 4} MiB, compress={compress}: bytes from the disk",
            "1.2 of their own, and a chunk",
            lambda place=place: _bytes_for_rows(place, rows),  # type: ignore[misc]  # bound now
            lambda: int(1.2 * rows * 4096) + CHUNK_BYTES,
            1.0,
            cool(*packs),
            counted=True,
        )
        rmtree(place)


def _bytes_for_rows(place: Path, rows: int) -> int:
    before = bytes_from_disk()
    with tk.open(place) as contents:
        contents.tensors["w"][50 * rows + 7 : 51 * rows + 7].sum()
    return bytes_from_disk() - before


def histories(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """What a history takes on disk, all of it: packs, indexes and manifests."""
    kept = training.checkpoints(quick=scale.large < 256)
    raw = sum(array.nbytes for one in kept for array in one.values())
    yield _sized("20 checkpoints of a GPT in AdamW, fp32", "raw", _store_of(folder / "fp32", kept), raw, 0.80)
    import ml_dtypes

    halves = [{name: array.astype(ml_dtypes.bfloat16) for name, array in one.items() if name.startswith("w.")} for one in kept]
    raw = sum(array.nbytes for one in halves for array in one.values())
    yield _sized("the same, weights in bf16", "raw", _store_of(folder / "bf16", halves), raw, 0.50)
    base = {f"base{number}": np.random.default_rng(number).standard_normal((512, 1024), np.float32) for number in range(8)}
    adapters = [{f"lora{number}": np.full((512, 8), step, np.float32) for number in range(8)} for step in range(10)]
    with_base: list[dict[str, Any]] = [{**base, **one} for one in adapters]
    one = sum(array.nbytes for array in with_base[0].values())
    beside = sum(array.nbytes for one in adapters for array in one.values())
    yield _sized(
        "LoRA on a frozen base, 10 saves",
        "one of them, and the adapters",
        _store_of(folder / "lora", with_base, "none"),
        one + beside,
        1.02,
    )


def _sized(job: str, against: str, ours: int, peer: int, at_most: float) -> Case:
    return Case(job, against, lambda: ours, lambda: peer, at_most, counted=True)


def _store_of(folder: Path, checkpoints: "list[dict[str, Any]]", compress: Any = "auto") -> int:
    """The bytes of a store with all of these."""
    with tk.Store(folder, compress=compress) as store:
        for step, one in enumerate(checkpoints):
            store.save(one, step=100 * step, wait=True)
    nbytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    rmtree(folder)
    return nbytes


def _synced(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            synced(path)


TABLES: Final = {
    "Stores, PyTorch": torch_states,
    "Stores, JAX": jax_states,
    "Stores, a part of a tensor": parts,
    "Stores, training beside a save": training_goes_on,
    "Stores, histories": histories,
}

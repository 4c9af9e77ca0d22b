"""The cases: what is compared with what. A generator a state, so that its memory and files are gone before the next one begins."""

import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import joblib
import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

import tensorkeep as tk
from benchmarks import states
from benchmarks.measure import Case, bytes_from_disk, can_cool, can_count, cool, memory_beside, settle, synced


def large_tensors(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """256 tensors of 4 MiB: what moving bytes takes."""
    tensors = states.large(scale.large)
    model = states.model_of(tensors)
    case = partial(Case, nbytes=scale.large * 4 * states.MIB)
    size = "1 GiB" if scale.large == 256 else f"{scale.large * 4} MiB"
    ours, theirs, torchs = folder / "ours.safetensors", folder / "theirs.safetensors", folder / "torch.pt"
    yield case(
        f"save, not durable, {size}",
        "safetensors, without digests",
        lambda: tk.save(tensors, ours, durable=False),
        lambda: safetensors.torch.save_file(tensors, theirs),
        1.0,
        settle(ours, theirs),
    )
    yield case(
        f"save, durable, {size}",
        "torch.save + fsync",
        lambda: tk.save(tensors, ours),
        lambda: (torch.save(tensors, torchs), synced(torchs)),
        0.75,
        settle(ours, torchs),
    )
    yield case(
        f"save, durable, {size}",
        "safetensors + fsync, without digests",
        lambda: tk.save(tensors, ours),
        lambda: (safetensors.torch.save_file(tensors, theirs), synced(theirs)),
        1.05,
        settle(ours, theirs),
    )
    if can_count():
        yield _memory_of_save(f"save, {size}", tensors, ours)
    tk.save(tensors, ours)
    safetensors.torch.save_file(tensors, theirs)
    torch.save(tensors, torchs)
    tensors.clear()
    yield case(f"load, mapped, {size}", "torch.load", lambda: tk.load(ours), lambda: torch.load(torchs), 0.40)
    yield case(
        "load, mmap=False, then update every tensor",
        "torch.load, then the same",
        lambda: _updated(tk.load(ours, mmap=False)),
        lambda: _updated(torch.load(torchs)),
        1.0,
    )
    yield case(
        "load, verify=False",
        "safetensors load_file",
        lambda: tk.load(ours, verify=False),
        lambda: safetensors.torch.load_file(theirs),
        1.0,
    )
    yield case(
        f"load into a model, {size}",
        "torch.load + load_state_dict",
        lambda: tk.load(ours, into=model),
        lambda: model.load_state_dict(torch.load(torchs)),
        0.35,
    )
    yield case(
        f"load into a model, {size}",
        "the same with mmap=True, which checks nothing",
        lambda: tk.load(ours, into=model),
        lambda: model.load_state_dict(torch.load(torchs, mmap=True)),
        2.5,
    )
    if can_cool():
        yield case(f"load cold, {size}", "torch.load cold", lambda: tk.load(ours), lambda: torch.load(torchs), 0.8, cool(ours, torchs))
        yield case(
            f"load cold, {size}, and touch every page",
            "safetensors, then the same",
            lambda: _touched(tk.load(ours)),
            lambda: _touched(safetensors.torch.load_file(theirs)),
            1.3,
            cool(ours, theirs),
        )
    if can_cool() and can_count():
        yield Case(
            f"one tensor of {size}, verify=False: bytes from the disk",
            "its own bytes",
            lambda: _bytes_for_one(ours),
            lambda: 4 * states.MIB,
            1.1,
            cool(ours),
            counted=True,
        )


def small_tensors(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """20,000 tensors of 1 KiB: what each tensor takes."""
    tensors = states.small(scale.small)
    case = partial(Case, nbytes=scale.small * 1024)
    arrays = states.arrays(tensors)
    many = f"{scale.small:,} tensors of 1 KiB"
    ours, theirs, pickled = folder / "ours.safetensors", folder / "theirs.safetensors", folder / "state.pkl"
    yield case(
        f"save, {many}",
        "safetensors (torch)",
        lambda: tk.save(tensors, ours, durable=False),
        lambda: safetensors.torch.save_file(tensors, theirs),
        0.30,
        settle(ours, theirs),
    )
    yield case(
        f"save, {many}",
        "pickle (NumPy)",
        lambda: tk.save(arrays, ours, durable=False),
        lambda: _pickle(arrays, pickled),
        2.0,
        settle(ours, pickled),
    )
    if can_count():
        yield _memory_of_save(f"save, {many}", tensors, ours)
    tk.save(tensors, ours)
    safetensors.torch.save_file(tensors, theirs)
    yield case(f"load, {many}", "safetensors (torch)", lambda: tk.load(ours), lambda: safetensors.torch.load_file(theirs), 0.35)
    tk.save(arrays, ours)
    yield case(f"load, {many}", "safetensors (NumPy)", lambda: tk.load(ours), lambda: safetensors.numpy.load_file(theirs), 0.7)


def training_state(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """A transformer and its AdamW: what a training run saves and resumes from."""
    model, optimizer = states.transformer(scale.layers)
    count = sum(parameter.numel() for parameter in model.parameters())
    case = partial(Case, nbytes=12 * count)  # three float32 a parameter
    name = f"a transformer of {count / 1e6:.0f} M parameters with AdamW"
    ours, torchs = folder / "ours.safetensors", folder / "torch.pt"
    whole = {"model": model, "optimizer": optimizer}

    def torch_save() -> None:
        torch.save({key: value.state_dict() for key, value in whole.items()}, torchs)

    def torch_load() -> None:
        loaded = torch.load(torchs)
        for key, value in whole.items():
            value.load_state_dict(loaded[key])

    before = settle(ours, torchs)
    yield case(f"save, not durable, {name}", "torch.save", lambda: tk.save(whole, ours, durable=False), torch_save, before=before)
    yield case(
        f"save, durable, {name}",
        "torch.save + fsync",
        lambda: tk.save(whole, ours),
        lambda: (torch_save(), synced(torchs)),
        before=before,
    )
    tk.save(whole, ours)
    torch_save()
    yield case(f"load into {name}", "torch.load + load_state_dict", lambda: tk.load(ours, into=whole), torch_load)


def every_peer(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """A transformer and its AdamW as one flat dict, saved and loaded by everyone; not durable, and every byte is in memory at the end."""
    tensors = {name: tensor.detach().clone() for name, tensor in states.flat(*states.transformer(scale.layers)).items()}
    arrays = states.arrays(tensors)
    case = partial(Case, nbytes=sum(array.nbytes for array in arrays.values()))
    ours, ours_numpy = folder / "ours.safetensors", folder / "ours_numpy.safetensors"
    files = {name: folder / f"peer.{name}" for name in ("pt", "safetensors", "numpy.safetensors", "pkl", "npz", "joblib", "h5")}
    savers: dict[str, tuple[Any, Path, Any]] = {
        "torch.save": (tensors, files["pt"], lambda: torch.save(tensors, files["pt"])),
        "safetensors (torch)": (tensors, files["safetensors"], lambda: safetensors.torch.save_file(tensors, files["safetensors"])),
        "safetensors (NumPy)": (
            arrays,
            files["numpy.safetensors"],
            lambda: safetensors.numpy.save_file(arrays, files["numpy.safetensors"]),
        ),
        "pickle": (arrays, files["pkl"], lambda: _pickle(arrays, files["pkl"])),
        "numpy.savez": (arrays, files["npz"], lambda: np.savez(files["npz"], **arrays)),
        "joblib": (arrays, files["joblib"], lambda: joblib.dump(arrays, files["joblib"])),
        "h5py": (arrays, files["h5"], lambda: _h5_save(arrays, files["h5"])),
    }
    for name, (state, file, saver) in savers.items():
        yield case("save", name, lambda state=state: tk.save(state, ours, durable=False), saver, before=settle(ours, file))
        saver()
    tk.save(tensors, ours)
    tk.save(arrays, ours_numpy)
    loaders: dict[str, tuple[Path, Any]] = {
        "torch.load": (ours, lambda: _touched(torch.load(files["pt"]))),
        "torch.load, mmap=True": (ours, lambda: _touched(torch.load(files["pt"], mmap=True))),
        "safetensors (torch)": (ours, lambda: _touched(safetensors.torch.load_file(files["safetensors"]))),
        "safetensors (NumPy)": (ours_numpy, lambda: _touched(safetensors.numpy.load_file(files["numpy.safetensors"]))),
        "pickle": (ours_numpy, lambda: _touched(pickle.loads(files["pkl"].read_bytes()))),
        "numpy.load": (ours_numpy, lambda: _touched(dict(np.load(files["npz"])))),
        "joblib": (ours_numpy, lambda: _touched(joblib.load(files["joblib"]))),
        "h5py": (ours_numpy, lambda: _touched(_h5_load(files["h5"]))),
    }
    for name, (own, loader) in loaders.items():
        yield case("load", name, lambda own=own: _touched(tk.load(own)), loader)


def _memory_of_save(job: str, state: object, file: Path) -> Case:
    return Case(
        f"{job}: memory beside the state",
        "64 MiB",
        lambda: memory_beside(lambda: tk.save(state, file, durable=False)),
        lambda: 64 * states.MIB,
        1.0,
        settle(file),
        counted=True,
    )


def _updated(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for tensor in tensors.values():
        tensor.add_(1)
    return tensors


def _touched(tensors: dict[str, Any]) -> dict[str, Any]:
    """Have every page in memory: a lazy load that never reads proves nothing."""
    for tensor in tensors.values():
        tensor.reshape(-1)[::1024].sum()
    return tensors


def _bytes_for_one(file: Path) -> int:
    before = bytes_from_disk()
    with tk.open(file, verify=False) as f:
        names = list(f.tensors)
        float(f.tensors[names[len(names) // 2]].numpy().sum())
        return bytes_from_disk() - before


def _pickle(state: object, file: Path) -> None:
    with file.open("wb") as stream:
        pickle.dump(state, stream, protocol=5)


def _h5_save(arrays: dict[str, Any], file: Path) -> None:
    with h5py.File(file, "w") as stream:
        for name, array in arrays.items():
            stream[name] = array


def _h5_load(file: Path) -> dict[str, Any]:
    with h5py.File(file) as stream:
        return {name: stream[name][()] for name in stream}


TABLES = {
    "Large tensors": large_tensors,
    "Small tensors": small_tensors,
    "A training state": training_state,
    "Every peer": every_peer,
}

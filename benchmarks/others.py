"""The cases of files that others wrote: ours beside the tool that wrote them, and beside another reader of many formats."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import blake3
import gguf
import h5py
import numpy as np
import onnx
import onnx.numpy_helper
import torch
import ztensor

import tensorkeep as tk
from benchmarks import states
from benchmarks.measure import Case, settle, synced


def pytorch_files(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """Files of torch.save. Ours gives arrays; PyTorch's own names and copies. Neither compares the CRC-32s, unless it says so."""
    file, many = folder / "large.pt", folder / "many.pt"
    size = f"{scale.large * 4} MiB"
    nbytes = scale.large * 4 * states.MIB
    torch.save(states.large(scale.large), file)
    torch.save(states.small(scale.small), many)
    yield Case(f"load .pt, {size}", "torch.load", lambda: tk.load(file), lambda: torch.load(file), 0.6, nbytes=nbytes)
    yield Case(
        f"load .pt, {size}, and touch every page",
        "torch.load, then the same",
        lambda: _touched(tk.load(file)),
        lambda: _touched(torch.load(file)),
        nbytes=nbytes,
    )
    yield Case(
        f"load .pt, {size}, into memory of its own",
        "torch.load",
        lambda: tk.load(file, mmap=False),
        lambda: torch.load(file),
        nbytes=nbytes,
    )
    yield Case(f"verify .pt, {size}: every CRC-32", "torch.load", lambda: tk.verify(file), lambda: torch.load(file), nbytes=nbytes)
    yield Case(
        f"the tree of {scale.small:,} tensors in a .pt",
        "torch.load(mmap=True)",
        lambda: _opened(many),
        lambda: torch.load(many, mmap=True),
        1.2,
    )
    yield Case(f"the tree of {scale.small:,} tensors in a .pt", "ztensor", lambda: _opened(many), lambda: list(ztensor.open(str(many))))
    yield Case(f"load .pt, {scale.small:,} tensors", "torch.load", lambda: tk.load(many), lambda: torch.load(many))


def many_formats(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """The same arrays in five formats: opened and read whole, every page touched."""
    arrays = states.arrays(states.large(scale.large // 4))
    nbytes = sum(array.nbytes for array in arrays.values())
    size = f"{nbytes // states.MIB} MiB"
    case = partial(Case, nbytes=nbytes)
    files = {suffix: folder / f"arrays.{suffix}" for suffix in ("npz", "h5", "gguf", "onnx", "pt")}
    _write(arrays, files)
    genuine: dict[str, tuple[str, Callable[[], Any]]] = {
        "npz": ("np.load", lambda: dict(np.load(files["npz"]))),
        "h5": ("h5py", lambda: _h5(files["h5"])),
        "gguf": ("gguf", lambda: {tensor.name: tensor.data for tensor in gguf.GGUFReader(files["gguf"]).tensors}),
        "onnx": ("onnx", lambda: _onnx(files["onnx"])),
        "pt": ("torch.load", lambda: torch.load(files["pt"])),
    }
    for suffix, (name, read) in genuine.items():
        yield case(
            f"load .{suffix}, {size}", name, lambda suffix=suffix: _touched(tk.load(files[suffix])), lambda read=read: _touched(read())
        )
    for suffix in genuine:
        yield case(
            f"load .{suffix}, {size}",
            "ztensor, which checks nothing",
            lambda suffix=suffix: _touched(tk.load(files[suffix])),
            lambda suffix=suffix: _touched({name: np.from_dlpack(tensor) for name, tensor in ztensor.open(str(files[suffix])).items()}),
        )


def converting(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """From one format to another, and the fingerprint of a model."""
    arrays = states.arrays(states.large(scale.large // 4))
    nbytes = sum(array.nbytes for array in arrays.values())
    size = f"{nbytes // states.MIB} MiB"
    source, ours, theirs = folder / "source.pt", folder / "ours.safetensors", folder / "theirs.zt"
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, source)
    yield Case(
        f"convert .pt to a model file, {size}",
        "ztensor to .zt + fsync",
        lambda: tk.convert(source, ours),
        lambda: (ztensor.convert(str(source), str(theirs)), synced(theirs)),
        before=settle(ours, theirs),
        nbytes=nbytes,
    )
    whole = folder / "whole.safetensors"
    tk.save(states.arrays(states.large(scale.large)), whole)
    yield Case(
        f"fingerprint of a model file, {scale.large} x 4 MiB",
        "BLAKE3 over the file",
        lambda: tk.fingerprint(whole),
        lambda: blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap(whole).digest(),
    )


def _write(arrays: dict[str, Any], files: dict[str, Path]) -> None:
    np.savez(files["npz"], **arrays)
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, files["pt"])
    with h5py.File(files["h5"], "w") as stream:
        for name, array in arrays.items():
            stream[name] = array
    writer = gguf.GGUFWriter(files["gguf"], "llama")
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph([], "arrays", [], [], initializers)
    onnx.save(onnx.helper.make_model(graph), files["onnx"])


def _h5(file: Path) -> dict[str, Any]:
    with h5py.File(file) as stream:
        return {name: stream[name][()] for name in stream}


def _onnx(file: Path) -> dict[str, Any]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer}


def _opened(file: Path) -> int:
    with tk.open(file) as contents:
        return len(contents.tensors)


def _touched(tensors: dict[str, Any]) -> dict[str, Any]:
    """Have every page in memory: a lazy load that never reads proves nothing."""
    for tensor in tensors.values():
        tensor.reshape(-1)[::1024].sum()
    return tensors


TABLES = {"Files of PyTorch": pytorch_files, "Files of many formats": many_formats, "Converting": converting}

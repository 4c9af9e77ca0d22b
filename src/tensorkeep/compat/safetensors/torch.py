"""The names of `safetensors.torch`, over ours, and those of its helpers that other packages import from there."""

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

import torch

from tensorkeep.compat.safetensors.errors import SafetensorError, as_safetensors
from tensorkeep.compat.safetensors.opening import safe_open
from tensorkeep.compat.safetensors.reading import open_bytes
from tensorkeep.compat.safetensors.serializing import Laid, lay_out
from tensorkeep.frameworks.torch import tensors as live
from tensorkeep.tensors import LazyTensor


def save(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors as the bytes of a safetensors file.

    Args:
        tensors: contiguous ones, by name, of which no two share memory.
        metadata: texts to keep with them.

    Raises:
        ValueError: no dict of dense, contiguous tensors.
        RuntimeError: two of them share memory: `save_model` stores these once.

    Example:
        >>> import torch
        >>> from tensorkeep.compat.safetensors.torch import load, save
        >>> load(save({"w": torch.arange(3)}))
        {'w': tensor([0, 1, 2])}
    """
    return _laid(tensors, metadata).to_bytes()


def save_file(tensors: Mapping[str, torch.Tensor], filename: "str | PathLike[str]", metadata: Mapping[str, str] | None = None) -> None:
    """Tensors as a safetensors file, which appears whole and durably, or not at all.

    Args:
        tensors, metadata: as for `save`.
        filename: where to.

    Raises:
        ValueError, RuntimeError: as for `save`.
        OSError: the disk is full, or the folder cannot be written to; an old file is as it was.
    """
    _laid(tensors, metadata).to_file(filename)


def load(data: "bytes | bytearray | memoryview") -> dict[str, torch.Tensor]:
    """The tensors in the bytes of a safetensors file.

    Raises:
        SafetensorError: these are no bytes of a safetensors file, or not those that were written.
    """
    with as_safetensors("Error while deserializing"):
        stored = open_bytes(data)
        placed = stored.storage.place(list(stored.tensors.values()), None)
        return {name: live.build(*placed(tensor), tensor.spec) for name, tensor in stored.tensors.items()}


def load_file(filename: "str | PathLike[str]", device: "str | int" = "cpu", *, backend: str = "mmap") -> dict[str, torch.Tensor]:
    """The tensors in a safetensors file.

    Args:
        filename: the file; a model file may be one too.
        device: where to put them.
        backend: `mmap` for views of the file, copied when written to; `pread` for memory of their own.

    Raises:
        SafetensorError: it is no safetensors file, or its bytes are not those that were written.
        FileNotFoundError: nothing is there.
    """
    with safe_open(filename, framework="pt", device=device, backend=backend) as file:
        return file.get_tensors()


def save_model(
    model: torch.nn.Module, filename: "str | PathLike[str]", metadata: Mapping[str, str] | None = None, force_contiguous: bool = True
) -> None:
    """A model's parameters and buffers, those that share memory once; the metadata say which names were left out for which.

    Args:
        model: any module.
        filename: where to.
        metadata: texts to keep with them.
        force_contiguous: copy what does not lie contiguously; `False` refuses it.

    Raises:
        RuntimeError: tensors share memory, and none of them covers all of it.
        ValueError: a tensor does not lie contiguously.
    """
    state = model.state_dict()
    notes = dict(metadata or {})
    for kept, others in _remove_duplicate_names(state).items():
        for name in others:
            notes.setdefault(name, kept)
            del state[name]
    if force_contiguous:
        state = {name: tensor.contiguous() for name, tensor in state.items()}
    try:
        save_file(state, filename, notes or None)
    except ValueError as error:
        raise ValueError(f"{error} Or use save_model(..., force_contiguous=True).") from error


def load_model(
    model: torch.nn.Module,
    filename: "str | PathLike[str]",
    strict: bool = True,
    device: "str | int" = "cpu",
    *,
    backend: str = "mmap",
) -> tuple[Any, list[str]]:
    """Fill a model from a file that `save_model` wrote, or any other with its names.

    Args:
        model: is changed only if everything fits.
        filename: the file.
        strict: raise if a name is missing or left over.
        device, backend: as for `load_file`.

    Returns:
        The names that the model has and the file lacks, and the other way round.

    Raises:
        RuntimeError: names, or shapes, do not fit.
    """
    found = load_file(filename, device, backend=backend)
    target = model.state_dict()
    spare = [name for names in _remove_duplicate_names(target, preferred_names=found).values() for name in names]
    if strict and _loads_by_name(model):
        _check_names(model, set(target) - set(found) - set(spare), [*(set(found) - set(target)), *(set(spare) & set(found))])
        misfits = [
            f"{name}: {list(found[name].shape)}, the model's is {list(target[name].shape)}"
            for name in found
            if found[name].shape != target[name].shape
        ]
        if misfits:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(model).__name__}: size mismatch for {'; '.join(misfits)}")
    result = model.load_state_dict(found, strict=False)
    missing = set(result.missing_keys)
    unexpected = [*result.unexpected_keys, *(name for name in spare if name not in missing)]
    missing -= set(spare)
    if strict:
        _check_names(model, missing, unexpected)
    return missing, unexpected


def _loads_by_name(model: torch.nn.Module) -> bool:
    """Whether all of its modules load in PyTorch's own way, so that names alone tell what fits."""
    plain = torch.nn.Module
    return type(model).load_state_dict is plain.load_state_dict and all(
        type(module)._load_from_state_dict is plain._load_from_state_dict and not module._load_state_dict_pre_hooks
        for module in model.modules()
    )


def _check_names(model: torch.nn.Module, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    lines = []
    for what, names in (("Missing", missing), ("Unexpected", unexpected)):
        quoted = ", ".join(f'"{name}"' for name in sorted(names))
        lines += [f"    {what} key(s) in state_dict: {quoted}"] if quoted else []
    if lines:
        raise RuntimeError("\n".join([f"Error(s) in loading state_dict for {type(model).__name__}:", *lines]))


def _laid(tensors: Any, metadata: Mapping[str, str] | None) -> Laid:
    if not isinstance(tensors, dict):
        raise ValueError(f"Expected a dict of [str, torch.Tensor] but received {type(tensors)}")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"Key `{name}` is invalid, expected torch.Tensor but received {type(tensor)}")
    sparse = [name for name, tensor in tensors.items() if tensor.layout != torch.strided]
    if sparse:
        raise ValueError(
            f"You are trying to save a sparse tensors: `{sparse}` which this library does not support. You can make it a dense tensor"
            " before saving with `.to_dense()` but be aware this might make a much larger file than needed."
        )
    shared = [names for names in _find_shared_tensors(tensors) if len(names) > 1]
    if shared:
        raise RuntimeError(f"Some tensors share memory, and would come back apart: {shared}. `save_model` stores them once.")
    return lay_out({name: _tensor(name, tensor) for name, tensor in tensors.items()}, metadata)


def _tensor(name: str, tensor: torch.Tensor) -> LazyTensor:
    if tensor.is_meta:
        raise RuntimeError(f"Cannot copy out of meta tensor: `{name}` has no data")
    if not tensor.is_contiguous():
        raise ValueError(
            f"You are trying to save a non contiguous tensor: `{name}` which is not allowed. Pass `{name}.contiguous()`, or the whole"
            " tensor that it is a part of."
        )
    captured = live.capture(tensor)
    if not isinstance(captured, LazyTensor) or not captured.dtype.known:
        raise SafetensorError(f"`{name}`: safetensors has no tensors of {type(tensor).__name__} {tensor.dtype}; tensorkeep.save keeps them")
    return captured


def storage_ptr(tensor: torch.Tensor) -> int:
    """Where the storage of a tensor begins in memory; 0 where it has none."""
    return int(tensor.untyped_storage().data_ptr())


def storage_size(tensor: torch.Tensor) -> int:
    """How many bytes the storage of a tensor has."""
    return int(tensor.untyped_storage().nbytes())


def _end_ptr(tensor: torch.Tensor) -> int:
    """The address behind the last element of a tensor."""
    if not tensor.numel():
        return int(tensor.data_ptr())
    last = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return int(tensor.data_ptr()) + (last + 1) * tensor.element_size()


def _find_shared_tensors(state_dict: Mapping[str, torch.Tensor]) -> list[set[str]]:
    """Names in sets: those of one set have memory in common with each other."""
    by_storage: dict[tuple[Any, int, int], list[str]] = {}
    for name, tensor in state_dict.items():
        if not tensor.is_meta and storage_ptr(tensor) and storage_size(tensor):
            by_storage.setdefault((tensor.device, storage_ptr(tensor), storage_size(tensor)), []).append(name)
    found: list[set[str]] = []
    for names in by_storage.values():
        stop = -1
        for start, end, name in sorted((state_dict[name].data_ptr(), _end_ptr(state_dict[name]), name) for name in names):
            if start >= stop:
                found.append(set())
            found[-1].add(name)
            stop = max(stop, end)
    return found


def _is_complete(tensor: torch.Tensor) -> bool:
    """Whether a tensor covers all of its storage."""
    return bool(tensor.data_ptr() == storage_ptr(tensor) and tensor.nbytes == storage_size(tensor))


def _remove_duplicate_names(
    state_dict: Mapping[str, torch.Tensor], *, preferred_names: Iterable[str] | None = None, discard_names: Iterable[str] | None = None
) -> dict[str, list[str]]:
    """Of tensors that share memory, which name is kept, and for it which others are not.

    Raises:
        RuntimeError: none of them covers all of the memory.
    """
    preferred, discard = set(preferred_names or ()), set(discard_names or ())
    dropped: dict[str, list[str]] = {}
    for names in _find_shared_tensors(state_dict):
        whole = {name for name in names if _is_complete(state_dict[name])}
        if not whole:
            raise RuntimeError(f"None of {sorted(names)} covers the whole storage that they share: save the tensor that they are parts of")
        kept = min(whole & preferred or whole - discard or whole)
        if len(names) > 1:
            dropped[kept] = sorted(names - {kept})
    return dropped

"""`safe_open`: a file whose tensors, or parts of them, are read when they are asked for.

Lives here: its methods, and what a slice may be. Lives elsewhere: the file (reading), the tensors of a framework (frameworks).
Source: `safe_open` and `PySafeSlice` in https://github.com/huggingface/safetensors, `bindings/python/src/lib.rs`, version 0.8.
"""

import errno
import importlib
import os
from collections.abc import Iterable
from contextlib import suppress
from os import PathLike
from typing import Any, Final, Self

import numpy as np

from tensorkeep.compat.safetensors import reading
from tensorkeep.compat.safetensors.errors import SafetensorError, as_safetensors
from tensorkeep.frameworks import table
from tensorkeep.frameworks.protocols import Build
from tensorkeep.tensors import LazyTensor

_FRAMEWORKS: Final = {
    **dict.fromkeys(("pt", "torch", "pytorch"), "torch"),
    **dict.fromkeys(("np", "numpy"), "numpy"),
    **dict.fromkeys(("flax", "jax"), "jax"),
    **dict.fromkeys(("tf", "tensorflow"), "tensorflow"),
}
_CONVERTED: Final = {"jax": ("jax.numpy", "asarray"), "tensorflow": ("tensorflow", "convert_to_tensor")}  # from NumPy's, where need be
_NOT_HERE: Final = ("mlx", "paddle")
_MAPPED: Final = {"mmap": None, "pread": False}
_WHOLE: Final = slice(None)


class _Missing(FileNotFoundError):
    """Nothing is there, told as that package tells it."""

    def __str__(self) -> str:
        return f"{self.strerror}: {self.filename}"


class Opened:
    """What both ways to open a file have in common."""

    def __init__(self, name: "str | PathLike[str]", framework: str, device: "str | int | None", backend: str) -> None:
        if framework in _NOT_HERE:
            raise SafetensorError(f"framework {framework} is not supported here: open it as 'np', and hand the arrays over")
        if framework not in _FRAMEWORKS:
            raise SafetensorError(f"framework {framework!s:.80} is invalid")
        if backend not in _MAPPED:
            raise SafetensorError(f"backend {backend!r:.80} is invalid (expected one of: {', '.join(map(repr, _MAPPED))})")
        self._framework, self._device = _FRAMEWORKS[framework], "cpu" if device is None else device
        self._build = _builder(self._framework, framework, self._device)
        try:
            with as_safetensors("Error while deserializing header"):
                self._stored: reading.Stored | None = reading.open_file(name, mmap=_MAPPED[backend])
        except FileNotFoundError as error:
            raise _Missing(errno.ENOENT, "No such file or directory", os.fspath(name)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        stored, self._stored = self._stored, None
        if stored is not None:
            stored.close()

    def _opened(self) -> reading.Stored:
        if self._stored is None:
            raise SafetensorError("File is closed")
        return self._stored

    def _named(self, name: str) -> tuple[reading.Stored, LazyTensor]:
        stored = self._opened()
        if name not in stored.tensors:
            raise SafetensorError(f"File does not contain tensor {name!s:.200}")
        return stored, stored.tensors[name]

    def metadata(self) -> dict[str, str] | None:
        """The texts in the header, or None."""
        metadata = self._opened().metadata
        return None if metadata is None else dict(metadata)

    def keys(self) -> list[str]:
        """The names of the tensors, sorted."""
        return sorted(self._opened().tensors)

    def offset_keys(self) -> list[str]:
        """The names of the tensors in the order in which they lie in the file."""
        return list(self._opened().tensors)

    def get_tensor(self, name: str) -> Any:
        """One tensor.

        Raises:
            SafetensorError: there is none of that name, or its bytes are not those that were written.
        """
        stored, tensor = self._named(name)
        return self._make(stored, [tensor])[0]

    def get_tensors(self) -> dict[str, Any]:
        """All tensors, by name."""
        stored = self._opened()
        return dict(zip(stored.tensors, self._make(stored, list(stored.tensors.values())), strict=True))

    def get_slice(self, name: str) -> "SafeSlice":
        """A tensor of which parts can be read: `get_slice(name)[:, 2:4]`."""
        stored, tensor = self._named(name)
        return SafeSlice(tensor, self._framework, lambda: self._make(stored, [tensor])[0])

    def _make(self, stored: reading.Stored, tensors: list[LazyTensor]) -> list[Any]:
        with as_safetensors("Error while reading"):
            placed = stored.storage.place(tensors, None)
            return [self._build(*placed(tensor), tensor.spec) for tensor in tensors]


class safe_open(Opened):  # the name that people know
    """Open a safetensors file lazily, as a context manager.

    Args:
        filename: the file.
        framework: whose tensors to give: `pt`, `np`, `flax` or another of their names.
        device: where to put them, for PyTorch.
        backend: `mmap` for views of the file, copied when written to; `pread` for memory of their own.

    Raises:
        SafetensorError: it is no safetensors file, or an argument that is not known.
        FileNotFoundError: nothing is there.

    Example:
        >>> import numpy as np
        >>> from tensorkeep.compat.safetensors import safe_open
        >>> from tensorkeep.compat.safetensors.numpy import save_file
        >>> save_file({"w": np.arange(6.0).reshape(2, 3)}, "w.safetensors")
        >>> with safe_open("w.safetensors", framework="np") as f:
        ...     print(f.keys(), f.get_slice("w")[:, 1])
        ['w'] [1. 4.]
    """

    def __init__(
        self, filename: "str | PathLike[str]", framework: str, device: "str | int | None" = "cpu", *, backend: str = "mmap"
    ) -> None:
        super().__init__(filename, framework, device, backend)


class _safe_open_handle(Opened):
    """The same for a file that is open already: it is opened anew by its name."""

    def __init__(self, f: Any, framework: str, device: "str | int | None" = "cpu", *, backend: str = "mmap") -> None:
        assert callable(f.fileno), "a file of the system"
        super().__init__(f.name, framework, device, backend)


class SafeSlice:
    """A tensor of which parts can be read."""

    def __init__(self, tensor: LazyTensor, framework: str, whole: Any) -> None:
        self._tensor, self._framework, self._whole = tensor, framework, whole

    def get_shape(self) -> list[int]:
        """The shape of the whole."""
        return list(self._tensor.shape)

    def get_dtype(self) -> str:
        """The dtype as the header names it."""
        return self._tensor.dtype.name

    def __getitem__(self, index: Any) -> Any:
        """A part of it: by PyTorch's own rules for PyTorch; else by integers and slices that lie inside.

        Raises:
            SafetensorError: they do not.
        """
        if self._framework == "torch":
            return self._whole()[index]
        indices = _checked(index, self._tensor.shape)
        if self._framework == "numpy":
            with as_safetensors("Error while reading"):
                return np.array(self._tensor[indices])
        return self._whole()[indices]


def _checked(index: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Integers and slices for NumPy, each inside of its dimension."""
    if isinstance(index, list):
        if index:
            raise SafetensorError("Non empty lists are not implemented")
        index = slice(0, 0)
    given = index if isinstance(index, tuple) else (index,)
    if len(given) > len(shape):
        raise SafetensorError(f"Error during slicing {_shown(given)} with shape {list(shape)}: more slices than dimensions in tensor")
    checked: list[Any] = []
    for number, (one, length) in enumerate(zip(given, shape, strict=False)):
        if isinstance(one, slice):
            first, stop = one.start or 0, length if one.stop is None else one.stop
            if one.step not in (None, 1) or first < 0 or stop < first:
                what = "steps, negative ends and ends before the start are not implemented"
                raise SafetensorError(f"Error during slicing {_shown(given)} with shape {list(shape)}: {what}")
            checked.append(slice(first, stop))
        else:
            first = one + length if one < 0 else one
            if first < 0:
                raise SafetensorError(f"Invalid index {one} for dimension {number} of size {length}")
            checked.append(first)
            stop = first + 1
        if (first >= length or stop > length) and not first == stop == length == 0:
            asked = first if first >= length else stop - 1
            what = f"index {asked} out of bounds for tensor dimension #{number} of size {length}"
            raise SafetensorError(f"Error during slicing {_shown(given)} with shape {list(shape)}: {what}")
    return tuple(checked)


def _shown(given: Iterable[Any]) -> str:
    parts = []
    for one in given:
        if isinstance(one, slice):
            parts.append(":".join("" if end is None else str(end) for end in (one.start, one.stop)))
        else:
            parts.append(str(one))
    return f"[{', '.join(parts)}]"


def _builder(framework: str, asked: str, device: "str | int") -> Build:
    """What makes the tensors.

    Raises:
        SafetensorError: the framework has no such device.
    """
    arrays = table.arrays("numpy" if framework == "tensorflow" else framework, forced=True)
    assert arrays is not None, "forced"
    if framework == "torch":
        if device == "cpu":
            return arrays.builder(None)
        try:
            return arrays.builder(str(device) if isinstance(device, str) else f"{_accelerator()}:{int(device)}")
        except (ValueError, TypeError) as error:
            raise SafetensorError(f"device {device!s:.80} is invalid: {error}") from error
    if device != "cpu":
        raise SafetensorError(f"Device {device!s:.80} is not supported for framework {asked}")
    build = arrays.builder(None)
    if framework not in _CONVERTED:
        return build
    module, name = _CONVERTED[framework]
    converted = getattr(importlib.import_module(module), name)
    return lambda buffer, offset, spec: converted(build(buffer, offset, spec))


def _accelerator() -> str:
    """What PyTorch means by the number of a device alone."""
    torch = importlib.import_module("torch")
    with suppress(AttributeError, RuntimeError):
        return str(torch.accelerator.current_accelerator().type)
    return "cuda"

"""The names of `safetensors.numpy`, over ours."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from tensorkeep import dtypes
from tensorkeep.compat.safetensors.errors import SafetensorError, as_safetensors
from tensorkeep.compat.safetensors.opening import safe_open
from tensorkeep.compat.safetensors.reading import open_bytes
from tensorkeep.compat.safetensors.serializing import Laid, lay_out, over
from tensorkeep.tensors import Array, LazyTensor, as_array


def save(tensor_dict: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """Arrays as the bytes of a safetensors file.

    Args:
        tensor_dict: arrays by name. What does not lie contiguously, or little-endian, is copied.
        metadata: texts to keep with them.

    Raises:
        SafetensorError: an array of a type that safetensors does not have.

    Example:
        >>> import numpy as np
        >>> from tensorkeep.compat.safetensors.numpy import load, save
        >>> load(save({"w": np.arange(3)}))
        {'w': array([0, 1, 2])}
    """
    return _laid(tensor_dict, metadata).to_bytes()


def save_file(tensor_dict: Mapping[str, Array], filename: "str | PathLike[str]", metadata: Mapping[str, str] | None = None) -> None:
    """Arrays as a safetensors file, which appears whole and durably, or not at all.

    Args:
        tensor_dict, metadata: as for `save`.
        filename: where to.

    Raises:
        SafetensorError: as for `save`.
        OSError: the disk is full, or the folder cannot be written to; an old file is as it was.
    """
    _laid(tensor_dict, metadata).to_file(filename)


def load(data: "bytes | bytearray | memoryview") -> dict[str, Array]:
    """The arrays in the bytes of a safetensors file.

    Raises:
        SafetensorError: these are no bytes of a safetensors file, or not those that were written.
    """
    with as_safetensors("Error while deserializing"):
        stored = open_bytes(data)
        placed = stored.storage.place(list(stored.tensors.values()), None)
        return {name: as_array(*placed(tensor), tensor.spec) for name, tensor in stored.tensors.items()}


def load_file(filename: "str | PathLike[str]", *, backend: str = "mmap") -> dict[str, Array]:
    """The arrays in a safetensors file.

    Args:
        filename: the file; a model file may be one too.
        backend: `mmap` for views of the file, copied when written to; `pread` for memory of their own.

    Raises:
        SafetensorError: it is no safetensors file, or its bytes are not those that were written.
        FileNotFoundError: nothing is there.
    """
    with safe_open(filename, framework="np", backend=backend) as file:
        return file.get_tensors()


def _laid(tensor_dict: Mapping[str, Any], metadata: Mapping[str, str] | None) -> Laid:
    return lay_out({name: _tensor(name, array) for name, array in tensor_dict.items()}, metadata)


def _tensor(name: str, array: Any) -> LazyTensor:
    if not isinstance(array, (np.ndarray, np.generic)):
        raise TypeError(f"{name!r:.200}: an array of NumPy is wanted, found {type(array).__name__}")
    array = np.asarray(array)
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array)
    dtype = dtypes.of_numpy(little.dtype)
    if dtype is None or not dtype.known or not dtype.fits(array.size):
        raise SafetensorError(f"{name!r:.200}: safetensors has no dtype {array.dtype!s:.80}; tensorkeep.save keeps it")
    if dtype.bits == 4:
        return over(dtypes.pack_f4(little), dtype, array.shape)
    return over(little.reshape(-1).view(np.uint8), dtype, array.shape)

"""The names of `safetensors.flax`, over ours: arrays of JAX."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import jax.numpy as jnp
import numpy as np

from tensorkeep.compat.safetensors import numpy
from tensorkeep.compat.safetensors.opening import safe_open


def save(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """Arrays as the bytes of a safetensors file: see `tensorkeep.compat.safetensors.numpy.save`."""
    return numpy.save(_as_numpy(tensors), metadata)


def save_file(tensors: Mapping[str, Any], filename: "str | PathLike[str]", metadata: Mapping[str, str] | None = None) -> None:
    """Arrays as a safetensors file: see `tensorkeep.compat.safetensors.numpy.save_file`."""
    numpy.save_file(_as_numpy(tensors), filename, metadata)


def load(data: "bytes | bytearray | memoryview") -> dict[str, Any]:
    """The arrays in the bytes of a safetensors file.

    Raises:
        SafetensorError: these are no bytes of a safetensors file, or not those that were written.
    """
    return {name: jnp.array(array) for name, array in numpy.load(data).items()}


def load_file(filename: "str | PathLike[str]", *, backend: str = "mmap") -> dict[str, Any]:
    """The arrays in a safetensors file.

    Raises:
        SafetensorError: it is no safetensors file, or its bytes are not those that were written.
        FileNotFoundError: nothing is there.
    """
    with safe_open(filename, framework="flax", backend=backend) as file:
        return file.get_tensors()


def _as_numpy(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(array) for name, array in tensors.items()}

"""open: look into a file without reading it all."""

from os import PathLike
from typing import BinaryIO

from tensorkeep.contents import Contents
from tensorkeep.limits import Limits
from tensorkeep.opening import open_contents


def open(
    path: "str | PathLike[str] | BinaryIO", *, verify: bool = True, limits: Limits | None = None
) -> Contents:  # the word that everyone knows
    """Open a file lazily: names, dtypes and shapes at once, bytes when they are touched.

    Args:
        path: a model file, or a safetensors file by others.
        verify: check what is read, by whole chunks. `False` reads only the bytes that are asked for.
        limits: bounds on what the file may ask for.

    Returns:
        Contents: a context manager. `f.tensors[path]` is a LazyTensor: `f.tensors["embed"][100:200]` reads those rows.

    Raises:
        FormatError: no file that tensorkeep reads.
        CorruptError: its header is not the one that was written.
        FileNotFoundError: nothing is there.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"embed": np.arange(6.0).reshape(3, 2)}, "embed.safetensors")
        >>> with tk.open("embed.safetensors") as f:
        ...     f.tensors["embed"].shape, f.tensors["embed"][1].tolist()
        ((3, 2), [2.0, 3.0])
    """
    return open_contents(path, verify=verify, limits=limits)

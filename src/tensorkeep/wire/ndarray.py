"""Arrays of NumPy in an extent: any element type, either byte order, either order of axes.

The bytes of a tensor are little-endian and in C order. What lies otherwise in a file is turned when it is read.
"""

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np

from tensorkeep.dtypes import DType, of_numpy
from tensorkeep.errors import FormatError
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.sources import run_of, strided, swapped

_LONG: Final = "fc"  # kinds of which NumPy has some that are not on every machine


def array_of(extent: Extent, start: int, dtype: "np.dtype[Any]", shape: tuple[int, ...], *, fortran: bool = False, what: str) -> LazyTensor:
    """The array whose bytes begin at `start`.

    Args:
        extent: where they lie.
        start: offset of the first one.
        dtype: of an element as it lies there; with a shape of its own (`(3,)f4`), its lengths become the last of the tensor's.
        shape: its lengths.
        fortran: whether the first index runs fastest.
        what: for messages.

    Raises:
        FormatError: so many bytes do not lie there, or no tensor can have such elements.
    """
    inner: tuple[int, ...] = ()
    if dtype.subdtype is not None:
        dtype, inner = dtype.subdtype
    kept = dtype_of(dtype)
    if kept is None:
        raise FormatError(extent.name, f"{what}: elements of the type {dtype!s:.200} cannot be kept as a tensor")
    spec = spec_of(kept, (*shape, *inner))
    if fortran and len(shape) > 1 and spec.nbytes:
        each = math.prod(inner)
        outer = (each * math.prod(shape[:axis]) for axis in range(len(shape)))
        within = (math.prod(inner[axis + 1 :]) for axis in range(len(inner)))
        tensor = strided(extent, start, spec, (*outer, *within), what=what)
    else:
        tensor = run_of(extent, start, spec, what=what)
    return tensor if kept.memory is None or not spec.nbytes else swapped(tensor, kept.memory)


@lru_cache(maxsize=1024)
def dtype_of(dtype: "np.dtype[Any]") -> DType | None:
    """The DType of elements in a file. Beside those that this package saves, `longdouble` as NumPy names it here."""
    if (kept := of_numpy(dtype)) is not None:
        return kept
    if dtype.kind in _LONG and dtype.itemsize > 8 and dtype.names is None and dtype.subdtype is None:
        little = dtype.newbyteorder("<")
        return DType(little.str, 8 * little.itemsize, little, "U8", little.itemsize, None if little == dtype else dtype)
    return None

"""Scratch: arrays that one thread uses again and again, because touching fresh memory takes longer than what is done in it."""

import threading
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_OF_THIS_THREAD = threading.local()


def scratch(name: str, dtype: "np.dtype[Any] | type", count: int) -> Array:
    """An array of `count` items with whatever is in it; the same memory whenever this thread asks by this name."""
    itemsize = np.dtype(dtype).itemsize
    held: Array | None = getattr(_OF_THIS_THREAD, name, None)
    if held is None or held.nbytes < count * itemsize:
        held = np.empty(max(count * itemsize, 1 << 16) // 8 + 1, np.uint64)  # aligned for any item
        setattr(_OF_THIS_THREAD, name, held)
    return held.view(np.uint8)[: count * itemsize].view(dtype)

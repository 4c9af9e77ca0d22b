"""What the figures were measured on: versions, load, and how fast memory is when touched for the first time."""

import importlib.metadata
import os
import platform
import time
from typing import Any, Final

import numpy as np

from tensorkeep import __version__

PACKAGES: Final = ("torch", "safetensors", "numpy", "joblib", "h5py")
_TOUCHED_BYTES: Final = 256 << 20


def described() -> dict[str, Any]:
    """Facts about here and now."""
    return {
        "tensorkeep": __version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def state_of_it() -> dict[str, float]:
    """Load average of the last minute, and GB/s of writing to memory that was never used before."""
    fresh = np.empty(_TOUCHED_BYTES, np.uint8)
    began = time.perf_counter()
    fresh[:] = 1
    seconds = time.perf_counter() - began
    return {"load": round(os.getloadavg()[0], 2), "first_touch_gb_s": round(_TOUCHED_BYTES / seconds / 1e9, 2)}

"""Constant: a chunk whose items are all the same is kept as one of them.

The payload is the shortest run of 1, 2, 4, 8 or 16 bytes that makes the chunk when it is repeated, the last time as far as the chunk goes.
"""

from typing import Final

import numpy as np

PERIODS: Final = (1, 2, 4, 8, 16)  # bytes: what items have


def encode(chunk: memoryview) -> bytes | None:
    """The run that a chunk repeats, or None."""
    if len(chunk) <= PERIODS[-1]:
        return None
    first, last = bytes(chunk[: PERIODS[-1]]), PERIODS[-1]
    if chunk[last : 2 * last] != first[: len(chunk) - last]:
        return None
    data = np.frombuffer(chunk, np.uint8)
    if not bool((data[last:] == data[:-last]).all()):
        return None
    return next(first[:period] for period in PERIODS if first[:period] * (last // period) == first)


def decode(payload: memoryview, into: memoryview) -> None:
    """Repeat the run. Raises ValueError for a run of a length that no item has."""
    if len(payload) not in PERIODS:
        raise ValueError(f"a constant of {len(payload):,} bytes; items have 1, 2, 4, 8 or 16")
    whole = len(into) - len(into) % len(payload)
    run = np.frombuffer(payload, np.dtype(f"V{len(payload)}"))
    np.frombuffer(into[:whole], run.dtype)[...] = run
    into[whole:] = payload[: len(into) - whole]

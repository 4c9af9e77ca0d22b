"""Dequantizing: the bytes of blocks become float32, bit for bit as the reference does it, some blocks at a time."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from tensorkeep.quantized import on_lattices, simple, superblocks
from tensorkeep.quantized.blocks import BLOCKS

Array = np.ndarray[Any, Any]

_AT_ONCE: Final = 64 << 10  # elements: what is made on the way stays in the processor's cache

_KERNELS: Final[dict[str, Callable[[Array, Array], None]]] = {
    "Q4_0": simple.q4_0,
    "Q4_1": simple.q4_1,
    "Q5_0": simple.q5_0,
    "Q5_1": simple.q5_1,
    "Q8_0": simple.q8_0,
    "Q1_0": simple.q1_0,
    "IQ4_NL": simple.iq4_nl,
    "MXFP4": simple.mxfp4,
    "NVFP4": simple.nvfp4,
    "Q2_K": superblocks.q2_k,
    "Q3_K": superblocks.q3_k,
    "Q4_K": superblocks.q4_k,
    "Q5_K": superblocks.q5_k,
    "Q6_K": superblocks.q6_k,
    "Q8_K": superblocks.q8_k,
    "IQ4_XS": superblocks.iq4_xs,
    "TQ1_0": superblocks.tq1_0,
    "TQ2_0": superblocks.tq2_0,
    "IQ2_XXS": on_lattices.iq2_xxs,
    "IQ2_XS": on_lattices.iq2_xs,
    "IQ2_S": on_lattices.iq2_s,
    "IQ3_XXS": on_lattices.iq3_xxs,
    "IQ3_S": on_lattices.iq3_s,
    "IQ1_S": on_lattices.iq1_s,
    "IQ1_M": on_lattices.iq1_m,
}


def known(name: str) -> bool:
    """Whether the blocks of a type can be made numbers of."""
    return name in _KERNELS


def floats(name: str, data: memoryview) -> Array:
    """The numbers of whole blocks of a type that is `known`, as a flat array of float32."""
    count, nbytes = BLOCKS[name]
    blocks: Array = np.frombuffer(data, np.uint8).reshape(-1, nbytes)
    numbers = np.empty((len(blocks), count), np.float32)
    step = max(1, _AT_ONCE // count)
    with np.errstate(all="ignore"):  # a scale may be infinite or no number, and so is what it scales
        for begin in range(0, len(blocks), step):
            _KERNELS[name](blocks[begin : begin + step], numbers[begin : begin + step])
    return numbers.reshape(-1)

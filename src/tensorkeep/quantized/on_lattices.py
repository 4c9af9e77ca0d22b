"""Types of one to three bits an element: superblocks whose groups of four or eight elements are points of a lattice, with signs or a shift.

Each function writes the numbers of some blocks, as in `simple`. The tables of `lattices` are unpacked when the first is needed.
Source: https://github.com/ggml-org/ggml, `ggml-common.h` (the layout of `block_iq2_xxs` and its like) and `ggml-quants.c`.
"""

from typing import Any, Final

import numpy as np

from tensorkeep.quantized import lattices
from tensorkeep.quantized.simple import half

Array = np.ndarray[Any, Any]

_SIGNS: Final = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.float32)
"""By a byte, the sign of each of eight elements."""

_EVEN: Final = np.array([code | (code.bit_count() & 1) << 7 for code in range(128)])
"""Seven bits and an eighth that makes the number of set ones even."""

_DELTA: Final = np.float32(0.125)


def _placed(table: Array, points: Array, out: Array) -> Array:
    """The points of a lattice in their places: a view of `out`, a point a row."""
    rows = out.reshape(-1, table.shape[1])
    np.take(table, points.reshape(-1), axis=0, out=rows, mode="clip")  # no index is beyond its table; "clip" needs no copy
    return rows


def _signed(out: Array, signs: Array) -> None:
    octets = out.reshape(-1, 8)
    octets *= _SIGNS[signs.reshape(-1)]


def _scaled(out: Array, scales: Array) -> None:
    groups = out.reshape(*scales.shape, -1)
    groups *= scales[..., None]


def _nibbles(packed: Array) -> Array:
    """Both halves of each byte, the low one first."""
    both = np.empty((len(packed), 2 * packed.shape[1]), np.uint8)
    both[:, 0::2], both[:, 1::2] = packed & 15, packed >> 4
    return both


def _high_bits(packed: Array, bits: int) -> Array:
    """Groups of so many bits of each byte, the lowest first, where they stand above eight others."""
    groups = packed[:, :, None] >> np.arange(0, 8, bits, dtype=np.uint8) & np.uint8((1 << bits) - 1)
    high: Array = groups.reshape(len(packed), -1).astype(np.uint16) << 8
    return high


def _sevens(words: Array) -> Array:
    """The signs of four octets, seven bits of a word each."""
    signs: Array = _EVEN[words[..., None] >> np.arange(0, 28, 7, dtype=np.uint32) & 127]
    return signs


def iq2_xxs(blocks: Array, out: Array) -> None:
    pairs = blocks[:, 2:].view("<u4").reshape(-1, 8, 2)
    points, words = blocks[:, 2:].reshape(-1, 8, 8)[:, :, :4], pairs[:, :, 1]
    _placed(lattices.IQ2_XXS, points, out)
    _signed(out, _sevens(words))
    _scaled(out, half(blocks, 0) * (np.float32(0.5) + (words >> 28).astype(np.float32)) * np.float32(0.25))


def iq2_xs(blocks: Array, out: Array) -> None:
    words = blocks[:, 2:66].view("<u2")
    _placed(lattices.IQ2_XS, words & 511, out)
    _signed(out, _EVEN[words >> 9])
    _scaled(out, half(blocks, 0) * (np.float32(0.5) + _nibbles(blocks[:, 66:]).astype(np.float32)) * np.float32(0.25))


def iq2_s(blocks: Array, out: Array) -> None:
    _placed(lattices.IQ2_S, blocks[:, 2:34] | _high_bits(blocks[:, 66:74], 2), out)
    _signed(out, blocks[:, 34:66])
    _scaled(out, half(blocks, 0) * (np.float32(0.5) + _nibbles(blocks[:, 74:]).astype(np.float32)) * np.float32(0.25))


def iq3_xxs(blocks: Array, out: Array) -> None:
    words = blocks[:, 66:].view("<u4")
    _placed(lattices.IQ3_XXS, blocks[:, 2:66], out)
    _signed(out, _sevens(words))
    _scaled(out, half(blocks, 0) * (np.float32(0.5) + (words >> 28).astype(np.float32)) * np.float32(0.5))


def iq3_s(blocks: Array, out: Array) -> None:
    _placed(lattices.IQ3_S, blocks[:, 2:66] | _high_bits(blocks[:, 66:74], 1), out)
    _signed(out, blocks[:, 74:106])
    _scaled(out, half(blocks, 0) * (1 + 2 * _nibbles(blocks[:, 106:])).astype(np.float32))


def iq1_s(blocks: Array, out: Array) -> None:
    words = blocks[:, 34:].view("<u2")
    high = (words[:, :, None] >> np.arange(0, 12, 3, dtype=np.uint16) & 7) << 8
    rows = _placed(lattices.IQ1, blocks[:, 2:34] | high.reshape(-1, 32), out)
    rows += np.repeat(np.where(words & 0x8000, -_DELTA, _DELTA).reshape(-1), 4)[:, None]
    _scaled(out, half(blocks, 0) * (2 * (words >> 12 & 7) + 1).astype(np.float32))


def iq1_m(blocks: Array, out: Array) -> None:
    nibbles, words = _nibbles(blocks[:, 32:48]), blocks[:, 48:].view("<u2")
    rows = _placed(lattices.IQ1, blocks[:, :32] | (nibbles & 7).astype(np.uint16) << 8, out)
    rows += np.where(nibbles & 8, -_DELTA, _DELTA).reshape(-1, 1)
    # The scale of the whole is cut into four: a nibble on top of each word.
    top = words >> 12
    scale = (top[:, 0] | top[:, 1] << 4 | top[:, 2] << 8 | top[:, 3] << 12).view(np.float16).astype(np.float32)
    small = (words[:, :, None] >> np.arange(0, 12, 3, dtype=np.uint16) & 7).reshape(-1, 16)
    _scaled(out, scale[:, None] * (2 * small + 1).astype(np.float32))

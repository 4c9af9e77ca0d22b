"""Small blocks: 32 to 128 elements, and one scale for all of them or for each 16.

Each function writes the numbers of some blocks: `blocks` is an array of bytes, a block a row, `out` of float32, a row for each. They do the
multiplications and additions of the reference in its order, so the results have the same bits.
Source: https://github.com/ggml-org/ggml, `ggml-quants.c`, the functions `dequantize_row_...`; OCP Microscaling Formats 1.0, section 5.3.
"""

from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, Any]

_E2M1_TWICE: Final = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
_IQ4: Final = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)


def half(blocks: Array, at: int) -> Array:
    """The float16 at a byte of each block, as a column of float32."""
    column: Array = blocks[:, at : at + 2].view("<f2").astype(np.float32)
    return column


def nibbles(packed: Array, out: Array, less: int = 0) -> None:
    """The low halves of all bytes, then the high ones, less a number."""
    width = packed.shape[-1]
    for begin, halves in ((0, packed & 15), (width, packed >> 4)):
        if less:
            halves = halves.view(np.int8)
            halves -= less
        out[..., begin : begin + width] = halves


def looked_up(table: Array, packed: Array, out: Array) -> None:
    """As `nibbles`, each the place of a number in a table."""
    width = packed.shape[-1]
    out[..., :width] = table[packed & 15]
    out[..., width:] = table[packed >> 4]


def _five_bits(blocks: Array, at: int) -> Array:
    """Numbers of 5 bits: 32 highest bits, then nibbles."""
    high = np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little")
    high <<= 4
    packed = blocks[:, at + 4 :]
    high[:, :16] |= packed & 15
    high[:, 16:] |= packed >> 4
    return high


def q4_0(blocks: Array, out: Array) -> None:
    nibbles(blocks[:, 2:], out, less=8)
    out *= half(blocks, 0)


def q4_1(blocks: Array, out: Array) -> None:
    nibbles(blocks[:, 4:], out)
    out *= half(blocks, 0)
    out += half(blocks, 2)


def q5_0(blocks: Array, out: Array) -> None:
    numbers = _five_bits(blocks, 2).view(np.int8)
    numbers -= 16
    out[...] = numbers
    out *= half(blocks, 0)


def q5_1(blocks: Array, out: Array) -> None:
    out[...] = _five_bits(blocks, 4)
    out *= half(blocks, 0)
    out += half(blocks, 2)


def q8_0(blocks: Array, out: Array) -> None:
    out[...] = blocks[:, 2:].view(np.int8)
    out *= half(blocks, 0)


def q1_0(blocks: Array, out: Array) -> None:
    bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little").view(bool)
    scale = half(blocks, 0)
    out[...] = np.where(bits, scale, -scale)


def iq4_nl(blocks: Array, out: Array) -> None:
    looked_up(_IQ4, blocks[:, 2:], out)
    out *= half(blocks, 0)


def iq4_nl_numbers(packed: Array, out: Array) -> None:
    """The numbers of IQ4_NL before they are scaled, for IQ4_XS, whose blocks hold eight times as many."""
    looked_up(_IQ4, packed, out)


def mxfp4(blocks: Array, out: Array) -> None:
    exponents = blocks[:, :1].astype(np.uint32)
    # Half of 2^(exponent - 127), for the table holds doubled numbers; the two smallest have no exponent left, and are subnormal.
    scale = np.where(exponents < 2, np.uint32(0x00200000) << exponents, (exponents - np.uint32(1)) << np.uint32(23)).view(np.float32)
    looked_up(_E2M1_TWICE, blocks[:, 1:], out)
    out *= scale


def nvfp4(blocks: Array, out: Array) -> None:
    groups = out.reshape(-1, 4, 16)
    looked_up(_E2M1_TWICE, blocks[:, 4:].reshape(-1, 4, 8), groups)
    groups *= _UNSIGNED_E4M3[blocks[:, :4]][:, :, None]


def _unsigned_e4m3() -> Array:
    """Half of each unsigned float of 4 and 3 bits, by its byte; the sign is not looked at, 0x7F is taken as zero."""
    codes = np.arange(256)
    exponents, fractions = codes >> 3 & 15, (codes & 7).astype(np.float64)
    values = np.where(exponents == 0, fractions * 2.0**-9, (1 + fractions / 8) * 2.0 ** (exponents - 7.0)) / 2
    values[[0, 0x7F]] = 0
    return values.astype(np.float32)


_UNSIGNED_E4M3: Final = _unsigned_e4m3()

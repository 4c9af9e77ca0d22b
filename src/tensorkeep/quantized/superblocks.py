"""Superblocks: 256 elements, in groups of 16 or 32 with small scales, which have one scale themselves; and the ternary types.

Each function writes the numbers of some blocks, as in `simple`.
Source: https://github.com/ggml-org/ggml, `ggml-common.h` (the layout of `block_q4_K` and its like) and `ggml-quants.c`.
"""

from typing import Any, Final

import numpy as np

from tensorkeep.quantized.simple import half, iq4_nl_numbers, nibbles

Array = np.ndarray[Any, Any]


def _scaled(out: Array, scales: Array, least: Array | None = None) -> None:
    """Multiply the groups of each row by their scales, and take off the least of each group where there is one."""
    groups = out.reshape(*scales.shape, -1)
    groups *= scales[..., None]
    if least is not None:
        groups -= least[..., None]


def q2_k(blocks: Array, out: Array) -> None:
    scales, packed = blocks[:, :16], blocks[:, 16:80].reshape(-1, 2, 32)
    parts = out.reshape(-1, 2, 4, 32)
    for part in range(4):
        parts[:, :, part] = packed >> 2 * part & 3
    _scaled(out, half(blocks, 80) * (scales & 15).astype(np.float32), half(blocks, 82) * (scales >> 4).astype(np.float32))


def q3_k(blocks: Array, out: Array) -> None:
    high, packed, scales = blocks[:, None, :32], blocks[:, 32:96].reshape(-1, 2, 32), blocks[:, 96:108]
    parts = out.reshape(-1, 2, 4, 32)
    for part in range(4):
        bits = (high >> np.array([[part], [4 + part]], np.uint8) & 1) << 2
        bits |= packed >> 2 * part & 3
        numbers = bits.view(np.int8)
        numbers -= 4  # the bit says that nothing is taken off
        parts[:, :, part] = numbers
    # 16 scales of 6 bits: 8 bytes with two low halves each, 4 with four pairs of high bits each.
    low = np.concatenate([scales[:, :8] & 15, scales[:, :8] >> 4], axis=1)
    top = np.concatenate([scales[:, 8:] >> shift & 3 for shift in (0, 2, 4, 6)], axis=1)
    _scaled(out, half(blocks, 108) * ((low | top << 4).view(np.int8) - np.int8(32)).astype(np.float32))


def _scales_and_least(packed: Array) -> tuple[Array, Array]:
    """8 scales and 8 least numbers of 6 bits each, from 12 bytes: the last 4 of each have their low halves in the last 4 bytes."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, third & 15 | first >> 2 & 48], axis=1)
    least = np.concatenate([second & 63, third >> 4 | second >> 2 & 48], axis=1)
    return scales.astype(np.float32), least.astype(np.float32)


def q4_k(blocks: Array, out: Array) -> None:
    scales, least = _scales_and_least(blocks[:, 4:16])
    nibbles(blocks[:, 16:].reshape(-1, 4, 32), out.reshape(-1, 4, 64))
    _scaled(out, half(blocks, 0) * scales, half(blocks, 2) * least)


def q5_k(blocks: Array, out: Array) -> None:
    scales, least = _scales_and_least(blocks[:, 4:16])
    high, packed = blocks[:, 16:48], blocks[:, 48:]
    parts = out.reshape(-1, 8, 32)
    for part in range(8):
        low = packed[:, 32 * (part // 2) : 32 * (part // 2) + 32] >> 4 * (part % 2) & 15
        parts[:, part] = low | (high >> part & 1) << 4
    _scaled(out, half(blocks, 0) * scales, half(blocks, 2) * least)


def q6_k(blocks: Array, out: Array) -> None:
    packed, high = blocks[:, :128].reshape(-1, 2, 64), blocks[:, 128:192].reshape(-1, 2, 32)
    parts = out.reshape(-1, 2, 4, 32)
    for part in range(4):
        low = packed[:, :, 32 * (part % 2) : 32 * (part % 2) + 32] >> 4 * (part // 2) & 15
        numbers = (low | (high >> 2 * part & 3) << 4).view(np.int8)
        numbers -= 32
        parts[:, :, part] = numbers
    _scaled(out, half(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32))


def q8_k(blocks: Array, out: Array) -> None:
    out[...] = blocks[:, 4:260].view(np.int8)
    out *= blocks[:, :4].view("<f4")


def iq4_xs(blocks: Array, out: Array) -> None:
    high = blocks[:, 2:4].view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    low = np.empty((len(blocks), 8), np.uint8)
    low[:, 0::2], low[:, 1::2] = blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4
    scales = (low | high.astype(np.uint8) << 4).view(np.int8) - np.int8(32)
    iq4_nl_numbers(blocks[:, 8:].reshape(-1, 8, 16), out.reshape(-1, 8, 32))
    _scaled(out, half(blocks, 0) * scales.astype(np.float32))


def tq1_0(blocks: Array, out: Array) -> None:
    """Five numbers of -1, 0 or 1 to a byte, as digits of a fraction of 256: each is what spills over when the rest is tripled."""
    at = 0
    for digits, packed in ((5, blocks[:, :32]), (5, blocks[:, 32:48]), (4, blocks[:, 48:52])):
        for place in range(digits):
            out[:, at : at + packed.shape[1]] = _DIGITS[place][packed]
            at += packed.shape[1]
    out *= half(blocks, 52)


def _digits() -> Array:
    """By place and byte, a digit of TQ1_0 less one."""
    rests = np.arange(256, dtype=np.uint8) * np.array([[1], [3], [9], [27], [81]], np.uint8)
    digits: Array = ((rests.astype(np.uint16) * 3 >> 8).astype(np.int8) - np.int8(1)).astype(np.float32)
    return digits


_DIGITS: Final = _digits()


def tq2_0(blocks: Array, out: Array) -> None:
    packed = blocks[:, :64].reshape(-1, 2, 32)
    parts = out.reshape(-1, 2, 4, 32)
    for part in range(4):
        numbers = (packed >> 2 * part & 3).view(np.int8)
        numbers -= 1
        parts[:, :, part] = numbers
    out *= half(blocks, 64)

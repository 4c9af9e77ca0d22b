"""The table of block types: how many elements are quantized together, and how many bytes such a block takes.

Lives here: names and sizes. Lives elsewhere: what the bytes of a block mean (simple, superblocks, on_lattices), which number stands for a
type in a file (formats.gguf).
Source: https://github.com/ggml-org/ggml, `ggml-common.h`, and `GGML_QUANT_SIZES` of the package gguf 0.19. The two differ in Q8_1, which is
for products on their way and not for files: the package's size stands here, for whatever has fewer bytes is then refused, not misread.
"""

from typing import Final

BLOCKS: Final[dict[str, tuple[int, int]]] = {
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q8_1": (32, 40),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "Q8_K": (256, 292),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ3_XXS": (256, 98),
    "IQ1_S": (256, 50),
    "IQ4_NL": (32, 18),
    "IQ3_S": (256, 110),
    "IQ2_S": (256, 82),
    "IQ4_XS": (256, 136),
    "IQ1_M": (256, 56),
    "TQ1_0": (256, 54),
    "TQ2_0": (256, 66),
    "MXFP4": (32, 17),
    "NVFP4": (64, 36),
    "Q1_0": (128, 18),
}

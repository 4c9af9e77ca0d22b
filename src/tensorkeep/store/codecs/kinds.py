"""Kinds: how to look at the bytes of a chunk, so that what is alike in its items comes to lie side by side.

A chunk has one kind. Where small tensors of several dtypes share it, that is the kind of most of its bytes: what the others lose by it are
a few KiB. Payloads say themselves how their bytes were looked at, so a kind is never needed to read one.
"""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Final


class Kind(Enum):
    """How the items of a chunk look: bytes an item, and bits of its exponent; 0 for what is no float."""

    BYTES = (1, 0)
    INT16 = (2, 0)
    INT32 = (4, 0)
    INT64 = (8, 0)
    FLOAT8 = (1, 4)
    FLOAT16 = (2, 5)
    BFLOAT16 = (2, 8)
    FLOAT32 = (4, 8)
    FLOAT64 = (8, 11)

    @property
    def width(self) -> int:
        """Bytes an item."""
        return self.value[0]

    @property
    def exponent_bits(self) -> int:
        """Bits of the exponent, which stands behind the sign; 0 for what is no float."""
        return self.value[1]

    @property
    def signed_magnitude(self) -> bool:
        """Whether an item is a sign and a magnitude, as IEEE 754 has them."""
        return self.exponent_bits > 0


_BY_NAME: Final = {
    **dict.fromkeys(("U16", "I16"), Kind.INT16),
    **dict.fromkeys(("U32", "I32"), Kind.INT32),
    **dict.fromkeys(("U64", "I64"), Kind.INT64),
    **dict.fromkeys(("F16", "C32"), Kind.FLOAT16),
    **dict.fromkeys(("BF16", "BC32"), Kind.BFLOAT16),
    **dict.fromkeys(("F32", "C64"), Kind.FLOAT32),
    **dict.fromkeys(("F64", "C128"), Kind.FLOAT64),
}
_FLOAT8: Final = re.compile(r"F8_E[34]M[34]\w*|F8_E5M2\w*")  # E8M0 has no sign: as bytes it is ordered already
_TEXT: Final = re.compile(r"[<>]U\d+")
_TIME: Final = re.compile(r"[<>][Mm]8(\[.*\])?")


def kind_of(dtype_name: str) -> Kind:
    """The kind of a tensor, by the name of its dtype: `BF16`, `I64`, `<U5`; whatever is not known is bytes.

    Example:
        >>> kind_of("BF16").name, kind_of("BOOL").name
        ('BFLOAT16', 'BYTES')
    """
    if (found := _BY_NAME.get(dtype_name)) is not None:
        return found
    if _FLOAT8.fullmatch(dtype_name):
        return Kind.FLOAT8
    if _TEXT.fullmatch(dtype_name):
        return Kind.INT32
    return Kind.INT64 if _TIME.fullmatch(dtype_name) else Kind.BYTES


def kind_of_most(parts: Iterable[tuple[str, int]]) -> Kind:
    """The kind of a chunk that several tensors share: that of most of its bytes.

    Args:
        parts: of each tensor the name of its dtype, and how many of its bytes lie in the chunk.
    """
    nbytes: dict[Kind, int] = {}
    for dtype_name, count in parts:
        kind = kind_of(dtype_name)
        nbytes[kind] = nbytes.get(kind, 0) + count
    return max(nbytes, key=lambda kind: nbytes[kind], default=Kind.BYTES)

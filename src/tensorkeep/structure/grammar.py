"""Grammar: what writing and reading a structure agree on."""

from collections import OrderedDict
from typing import Final

from tensorkeep import dtypes
from tensorkeep.dtypes import DType

FACTORIES: Final[dict[str, type]] = {
    kind.__name__: kind for kind in (list, dict, set, tuple, int, float, complex, bool, str, bytes, OrderedDict)
}
"""What a defaultdict may make: nothing else can be kept."""

NUMBERS: Final[dict[type, DType]] = {float: dtypes.F64, int: dtypes.I64, bool: dtypes.BOOL, complex: dtypes.C128}
"""Of which lists are packed, and what they are packed as."""

RESERVED: Final = "__metadata__"
PLAIN: Final = "plain"  # of a tensor that holds a plain value: no framework's, whoever reads it
PATHS_EACH: Final = 16  # bytes of paths that each byte of a structure may ask for, beside the limit


def memory_of(path: str) -> int:
    """Bytes that Python takes for a path and a dot: one for each character, or four if any of them needs so many."""
    return (len(path) + 2) * (1 if path.isascii() else 2 if max(path) < "\U00010000" else 4)

"""Limits: every bound on what a stranger's file may ask for.

Lives here: the numbers, each with its reason. Lives elsewhere: the checks, in whatever room meets the number.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what reading one file may take. Pass your own as `limits=` to any verb.

    Args:
        header_bytes: largest header of a safetensors file, in bytes. 100 MB is the format's own cap.
        depth: deepest nesting of containers in a state.
        values: most values, containers and tensors counted together, in one structure.
        path_bytes: most bytes in the paths of one structure, all together, beyond 16 for each byte of the header: a long key stands
            in the path of all that is below it.
        rank: most dimensions of one tensor; NumPy has no more.
        expanded_bytes: most bytes that may be made from one file, inflated members and views of shared memory counted each time ...
        expansion: ... or so many times the file's size, where that is more.
        opcodes: most steps of one pickle. Where it inflates, each also counts for 64 of `expanded_bytes`.

    Example:
        >>> import tensorkeep as tk
        >>> tk.Limits(depth=20).depth
        20
    """

    header_bytes: int = 100_000_000
    depth: int = 100
    values: int = 20_000_000
    path_bytes: int = 64 << 20
    rank: int = 64
    expanded_bytes: int = 256 << 20
    expansion: int = 100
    opcodes: int = 200_000_000


DEFAULT_LIMITS: Final = Limits()


def limits_of(limits: Limits | None) -> Limits:
    """What a caller gave as `limits=`.

    Raises:
        TypeError: it is no `Limits`.
    """
    if limits is not None and not isinstance(limits, Limits):
        raise TypeError(f"limits= takes a tensorkeep.Limits, such as Limits(depth=20), found {limits!r:.80}")
    return DEFAULT_LIMITS if limits is None else limits

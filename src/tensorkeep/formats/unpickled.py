"""Running a pickle of a file: the machine, its tables of plain Python and NumPy, and the tree that comes of it."""

from typing import Any, Final

from tensorkeep.formats.peek import Peek
from tensorkeep.tree import Tree
from tensorkeep.unpickle.arrays import NUMPY
from tensorkeep.unpickle.finish import finish
from tensorkeep.unpickle.machine import Result, run
from tensorkeep.unpickle.plain import PLAIN
from tensorkeep.unpickle.state import Table
from tensorkeep.wire.extent import Extent

Left = list[str]
"""Sentences about what was not read."""

BASIC: Final[dict[tuple[str, str], Any]] = {**PLAIN, **NUMPY}
"""The constructors that every pickle may use."""


def unpickle(peek: Peek, extent: Extent, left: Left, *, at: int = 0, table: Table = BASIC) -> tuple[Tree, int]:
    """The tree of one pickle, and the place behind it.

    Args:
        peek: the file.
        extent: where the pickle is.
        left: gets a sentence for each place where an object that holds itself was cut.
        at: where it begins.
        table: the constructors.

    Raises:
        FormatError: it breaks the format, or a limit.
    """
    result = raw(peek, extent, at=at, table=table)
    tree, notes = finish(result.value, file=peek.name, limits=peek.limits)
    left += notes
    return tree, result.end


def raw(peek: Peek, extent: Extent, *, at: int = 0, table: Table = BASIC) -> Result:
    """What the machine makes of one pickle, before it is a tree: where that pickle is part of another."""
    return run(extent, table, at=at, limits=peek.limits, budget=peek.budget)

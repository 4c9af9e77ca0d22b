"""Classes: the items of a chunk sorted by the size of the base's item in the same place, which a reader has too.

The size of an item are its 16 bits from the second on; bounds fall. The first class has the items whose base is not below the first bound,
each further one those of the rest that are not below its own, and the last one those that are left. Inside a class the order is the
chunk's.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from tensorkeep.store.codecs.scratch import Array, scratch

_BLOCK_ITEMS: Final = 1 << 17  # at once: indices of more take memory that is fresh each time


class Classes:
    """Which item of a chunk is in which class.

    Args:
        base: items of the base.
        bounds: that part the classes; none makes one class of all items.

    Attributes:
        starts: where each class begins among the items once they are sorted, and the number of all items.
    """

    def __init__(self, base: Array, bounds: Sequence[int]) -> None:
        self._bounds = bounds
        self._sizes = sizes_of(base, scratch("sizes", np.uint16, base.size)) if bounds else np.empty(0, np.uint16)
        self.starts = [0, *(int(np.count_nonzero(self._sizes >= bound)) for bound in bounds), base.size]

    def sort(self, items: Array) -> Array:
        """The items, class by class; `items` itself where there is one class."""
        if not self._bounds:
            return items
        made = scratch("sorted", items.dtype, items.size)
        for block, where, place in self._members():
            np.take(items[block], where, out=made[place], mode="clip")
        return made

    def unsort(self, made: Array, items: Array) -> None:
        """Put what was sorted where it was."""
        for block, where, place in self._members():
            items[block][where] = made[place]

    def _members(self) -> Iterator[tuple[slice, Array, slice]]:
        """Of each block and class: the block, which of its items, and their place once sorted."""
        at, sizes = self.starts[:-1], self._sizes
        for start in range(0, sizes.size, _BLOCK_ITEMS):
            block = slice(start, start + _BLOCK_ITEMS)
            within = sizes[block]
            taken = np.zeros(within.size, np.bool_)
            for number, bound in enumerate((*self._bounds, 0)):
                above = within >= bound
                where = np.flatnonzero(above ^ taken)
                taken = above
                place = slice(at[number], at[number] + where.size)
                at[number] += where.size
                yield block, where, place


def sizes_of(items: Array, into: Array) -> Array:
    """The 16 bits behind the first of each item, which order numbers by their size."""
    shifted = np.add(items, items, out=scratch("shifted", items.dtype, items.size))
    if items.itemsize > 2:
        np.right_shift(shifted, 8 * items.itemsize - 16, out=shifted)
    np.copyto(into, shifted, casting="unsafe")
    return into

"""Keys: dicts and sets of what a stranger chose, without the time that keys made to collide would take.

Numbers can be chosen so that a dict looks for them in one another's places, and so can tuples of them; texts are hashed with a secret.
"""

import time
from typing import Any, Final

import numpy as np

MOST_ALIKE: Final = 64  # keys of one hash
_STEP: Final = 512  # keys that are put into a dict between two looks at the clock; fewer cannot do much harm
_EACH_S: Final = 4e-6  # for a key: some 50 times what it takes where none collide
_PATIENCE_S: Final = 0.5  # beyond that, in a whole structure: for whatever else happens in between, such as a garbage collection


class Unfit(Exception):  # no error of the family: the decoder turns it into one that names the file
    """These keys are refused; the text says why."""


def most_alike(hashes: list[int]) -> int:
    """How often the most frequent number occurs, up to one more than is allowed.

    Sorted, for a dict of them could be attacked like the one that is to be made.
    """
    if len(hashes) <= MOST_ALIKE:
        return len(hashes)
    ordered = np.sort(np.array(hashes, np.int64))
    return MOST_ALIKE + int((ordered[MOST_ALIKE:] == ordered[:-MOST_ALIKE]).any())


class Filling:
    """Fills the dicts and sets of one structure.

    In which places a dict looks for a key, Python alone knows: so many keys are put in step by step, and held against the clock.
    """

    def __init__(self) -> None:
        self._spent_s = 0.0

    def fill(self, made: Any, keys: list[Any], items: list[Any]) -> None:
        """Put items into an empty dict or set.

        Args:
            made: it.
            keys: of the items.
            items: pairs for a dict, the keys themselves for a set.

        Raises:
            Unfit: the keys collide, or cannot be keys.
        """
        if set(map(type, keys)) <= {str}:
            made.update(items)
            return
        try:
            if most_alike(list(map(hash, keys))) > MOST_ALIKE:
                raise Unfit(f"more than {MOST_ALIKE} keys with the same hash")
            if len(items) <= _STEP:
                made.update(items)
                return
            for start in range(0, len(items), _STEP):
                begin = time.thread_time()
                made.update(items[start : start + _STEP])
                self._spent_s += time.thread_time() - begin - _STEP * _EACH_S
                if self._spent_s > _PATIENCE_S:
                    raise Unfit(f"{len(items):,} keys that are made to collide")
        except (TypeError, ValueError, OverflowError) as error:  # scalars of NumPy that have no hash, or refuse to be compared
            raise Unfit(f"a key that cannot be one: {error}") from None

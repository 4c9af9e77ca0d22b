"""Keyframes: when a checkpoint is kept whole for others to be deltas of, and when such a delta is worth having.

Deltas form stars: each refers to a keyframe and to nothing else, so loading never needs more than one base. A keyframe has its price: as
long as one delta is kept, so is it. And deltas grow with the distance from it. Lives here: the arithmetic of both. Lives elsewhere: how
many checkpoints retention will keep (`keep`), what things take (`codecs.chooser`).
"""

from dataclasses import dataclass


def pays(dependants: float, static: float, delta: float, *, kept_anyway: bool = False) -> bool:
    """Whether deltas of one tensor save more than the keyframe that they need costs.

    Args:
        dependants: how many kept checkpoints will be deltas of one keyframe at a time, expected.
        static: bytes of the tensor without a base, or its share of them.
        delta: the same with a base.
        kept_anyway: whether retention keeps the keyframe for its own sake, so that it costs nothing.

    Example:
        Three checkpoints kept, in float32: a delta saves too little. In bfloat16 it saves enough.

        >>> pays(3, 0.83, 0.77), pays(3, 0.66, 0.35)
        (False, True)
    """
    return dependants * (static - delta) > (0 if kept_anyway else static)


@dataclass(slots=True)
class Star:
    """A keyframe and what its deltas have taken.

    What deltas take more than the first one did is the price of not having a keyframe nearer. Once that adds up to what a new one would
    have cost more than a delta, a new one is due: where deltas grow evenly, that is the distance at which all take least.

    Args:
        static: bytes of the keyframe, or its share of the raw ones.

    Example:
        >>> star = Star(static=0.66)
        >>> for delta in (0.53, 0.56, 0.58, 0.59):
        ...     star.add(delta)
        >>> star.due(0.60)
        True
    """

    static: float
    first: float | None = None
    excess: float = 0.0

    def add(self, delta: float) -> None:
        """Another checkpoint was written, as a delta of this size."""
        if self.first is None:
            self.first = delta
        self.excess += delta - self.first

    def due(self, delta: float | None = None) -> bool:
        """Whether the next checkpoint should be a keyframe.

        Args:
            delta: what the next one is expected to take as a delta; that of the last one if not given.
        """
        if delta is not None and delta >= self.static:
            return True
        if self.first is None:
            return False
        beyond = 0.0 if delta is None else delta - self.first
        return self.excess + beyond > self.static - self.first

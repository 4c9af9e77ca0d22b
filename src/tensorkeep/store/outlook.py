"""The outlook: how large a save is, how the store will grow, and what room there is. Said once, before the first save."""

from dataclasses import dataclass
from typing import Final

from tensorkeep.errors import escaped, sized
from tensorkeep.store.keep import Keep

_MANY: Final = 10_000  # saves: what a policy holds after so many, and twice as many, tells whether it grows for ever
_FEW: Final = 10  # saves: where there is room for fewer, a warning is due


@dataclass(frozen=True, slots=True)
class Outlook:
    """What to expect of a store. Before compression, and as if nothing were known already.

    Attributes:
        store: as it was named.
        nbytes: of one checkpoint.
        kept: how many the policy holds at most; None where the store grows for ever.
        free_bytes: of the disk; None where nobody can say.
    """

    store: str
    nbytes: int
    kept: int | None
    free_bytes: int | None

    @property
    def fits(self) -> int | None:
        """How many checkpoints there is room for; None where nobody can say."""
        return None if self.free_bytes is None else self.free_bytes // max(1, self.nbytes)

    @property
    def tight(self) -> bool:
        """Whether the room may not do: for what the policy holds, and one more while it is written, or for a few."""
        return self.fits is not None and self.fits < (_FEW if self.kept is None else self.kept + 1)

    def __str__(self) -> str:
        grows = "every one is kept" if self.kept is None else f"{self.kept:,} of them are kept, {sized(self.kept * self.nbytes)}"
        room = "" if self.fits is None or self.free_bytes is None else f"; {sized(self.free_bytes)} are free, room for {self.fits:,}"
        return f"{escaped(self.store)}: a checkpoint has {sized(self.nbytes)} before compression, and {grows}{room}"


def outlook(store: str, nbytes: int, keep: Keep | None, free_bytes: int | None) -> Outlook:
    """The outlook of a store whose checkpoints have so many bytes."""
    now, later = ((keep or Keep()).retained(saves, seconds=60.0) for saves in (_MANY, 2 * _MANY))
    whole = now.full + now.weights_only
    return Outlook(store, nbytes, whole if whole == later.full + later.weights_only else None, free_bytes)

"""Intactness: whether a checkpoint is to be counted on, as far as a look at names, sizes and indexes tells.

Intact, for retention: manifest and index parse, every pack is there with its size, and no load or verification has found it damaged.
Lives elsewhere: comparing every byte (verifying).
"""

from tensorkeep.errors import CheckpointGone, CorruptError, FormatError
from tensorkeep.limits import Limits
from tensorkeep.store import names
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.checkpoint import read_index
from tensorkeep.store.known import Known, size_of


class Look:
    """A look at what is there now; each thing is looked at once, when it is first asked about.

    Begin it after the manifests were read: what a manifest names was there before it.

    Args:
        catalog: of the store.
        limits: for indexes.
    """

    def __init__(self, catalog: Catalog, limits: Limits) -> None:
        self._catalog, self._limits = catalog, limits
        self._sizes: dict[str, int] | None = None

    def problem(self, known: Known) -> Exception | None:
        """What is wrong with a checkpoint; None if it is intact.

        Raises:
            OSError: the storage does not answer.
        """
        found = self._catalog.damage_of(known)
        if found is not None:
            return found
        needed = [(names.pack_key(pack.name), pack.nbytes) for pack in known.manifest.packs]
        needed += [(names.index_key(part.save), part.nbytes) for part in known.manifest.indexes]
        for key, nbytes in needed:
            there = self._size(key, nbytes)
            if there != nbytes:
                file = f"{self._catalog.backend.name}/{known.key}"
                said = "is missing, or no file that can be read" if there is None else f"has {there:,}"
                return FormatError(file, f"damaged: it needs the {nbytes:,} bytes of {key}, which {said}")
        if not self._catalog.was_read_whole(known):
            packs = {pack.name: pack.nbytes for pack in known.manifest.packs}
            try:
                for part in known.manifest.indexes:
                    read_index(self._catalog.backend, known, part, packs, self._limits)
            except (CheckpointGone, CorruptError, FormatError) as error:
                return error
            self._catalog.read_whole(known)
        return None

    def _size(self, key: str, wanted: int) -> int | None:
        """Bytes of a pack or index, by two listings; what these do not have as it should be is asked for, for they may be old."""
        backend = self._catalog.backend
        if self._sizes is None:
            self._sizes = {entry.key: entry.nbytes for prefix in (names.PACKS, names.INDEXES) for entry in backend.list(prefix)}
        if self._sizes.get(key) != wanted:
            there = size_of(backend, key)
            if there is None:
                return None
            self._sizes[key] = there
        return self._sizes[key]

"""verify: compare every byte of a file with its digests, or with the checksums that its own format has."""

from os import PathLike
from typing import BinaryIO, Final

from tensorkeep.errors import CorruptError
from tensorkeep.limits import Limits, limits_of
from tensorkeep.opening import open_contents, whole_store
from tensorkeep.progress import Progress
from tensorkeep.verdict import Damage, Verdict

OWN_CHECKSUM: Final = "BLAKE3"
HEADER: Final = "(header)"


def verify(path: "str | PathLike[str] | BinaryIO", *, limits: Limits | None = None, progress: Progress | None = None) -> Verdict:
    """Check every byte of a model file against the digests stored in it; of a file by others, against its format's own checksums.

    Reads the file once, in parallel, and changes nothing. Digests show damage, not origin; a CRC-32, as PyTorch's and NumPy's archives
    have it for each of their records, shows accidents, and nothing of what somebody does on purpose.

    Args:
        path: a model file, a folder of them, a store's folder (all its checkpoints), one checkpoint (`runs/a@latest`), or a file in a
            format of others.
        limits: bounds on what the file may ask for.
        progress: called with the bytes done and in all.

    Returns:
        Verdict: `intact`, `unverified` (nothing in it to check against), and `damaged`, with the path and the bytes of each damaged place.

    Raises:
        FormatError: it is no file that tensorkeep can read at all.
        FileNotFoundError: nothing is there.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"w": np.ones(3)}, "ones.safetensors")
        >>> tk.verify("ones.safetensors").intact
        True

    Source: BLAKE3 per chunk, docs/format.md, section "Digests".
    """
    if (store := whole_store(path)) is not None:
        from tensorkeep.store import catalog, verifying  # a file needs none of it

        return verifying.verify(catalog.Catalog(store), limits=limits_of(limits), progress=progress)
    try:
        contents = open_contents(path, limits=limits)
    except CorruptError as error:
        root = error.wanted if error.path == HEADER else ""
        return Verdict(error.file, False, False, (Damage(error.path, *error.span),), root, 0)
    with contents:
        checksum = OWN_CHECKSUM if contents.digests else contents.checksum
        if not checksum:
            return Verdict(contents.file, False, True, (), "", contents.nbytes)
        damaged = tuple(Damage(*found) for found in contents.storage.survey(progress))
        return Verdict(contents.file, not damaged, False, damaged, contents.root, contents.nbytes, checksum)

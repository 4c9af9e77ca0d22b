"""verify: compare every byte of a file with its digests."""

from dataclasses import dataclass
from os import PathLike
from typing import BinaryIO

from tensorkeep.errors import CorruptError
from tensorkeep.limits import Limits
from tensorkeep.opening import open_contents
from tensorkeep.progress import Progress


@dataclass(frozen=True, slots=True)
class Damage:
    """A run of damaged bytes.

    Attributes:
        path: the tensor, or "(header)".
        start, stop: first byte of the file, and the byte after the last.
    """

    path: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found.

    Attributes:
        file: the file as it was named.
        intact: every byte is the byte that was written.
        unverified: there is nothing to check against, as in a file by another writer.
        damaged: what is not as it was written, to the chunk.
        root: the digest of the whole, in hex: the file's identity.
        nbytes: size of the file in bytes.

    Example:
        >>> import io
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> data = bytearray(tk.dumps({"w": np.ones(3)}))
        >>> data[-1] ^= 1
        >>> verdict = tk.verify(io.BytesIO(data))
        >>> verdict.intact, [damage.path for damage in verdict.damaged]
        (False, ['w'])
    """

    file: str
    intact: bool
    unverified: bool
    damaged: tuple[Damage, ...]
    root: str
    nbytes: int


def verify(path: "str | PathLike[str] | BinaryIO", *, limits: Limits | None = None, progress: Progress | None = None) -> Verdict:
    """Check every byte of a model file against the digests stored in it.

    Reads the file once, in parallel, and changes nothing. Digests show damage, not origin.

    Args:
        path: a model file.
        limits: bounds on what the file may ask for.
        progress: called with the bytes done and in all.

    Returns:
        Verdict: `intact`, `unverified` (no digests in it), and `damaged`, with the path and the bytes of each damaged place.

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
    try:
        contents = open_contents(path, limits=limits)
    except CorruptError as error:
        return Verdict(error.file, False, False, (Damage(error.path, *error.span),), error.wanted, 0)
    with contents:
        if not contents.digests:
            return Verdict(contents.file, False, True, (), "", contents.nbytes)
        damaged = tuple(Damage(*found) for found in contents.storage.survey(progress))
        return Verdict(contents.file, not damaged, False, damaged, contents.root, contents.nbytes)

"""Verdicts: what comparing every byte has found."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Damage:
    """A run of damaged bytes.

    Attributes:
        path: the tensor, or "(header)"; in a store behind the file that the bytes are in, such as a pack.
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
        intact: every byte is the byte that was written, as far as `checksum` can tell.
        unverified: there is nothing to check against, as in most files by other writers.
        damaged: what is not as it was written, to the chunk.
        root: the digest of the whole, in hex: the file's identity. "" for formats of others, and for a whole store.
        nbytes: size of the file in bytes.
        checksum: what it was compared with: `BLAKE3` in files of tensorkeep, which covers every byte; the checksum of a format of others,
            such as `CRC-32` in zip archives, which covers their contents and shows accidents only; "" where there is none.
        checkpoints: of a store: the checkpoints that need something damaged: `step-1200`, or a tag's name.

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
    checksum: str = ""
    checkpoints: tuple[str, ...] = ()

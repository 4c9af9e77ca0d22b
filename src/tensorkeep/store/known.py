"""Known: a manifest as it was read, and what it means that it, or an object that it names, is no longer there.

Lives here: one manifest, read by its key, and read again. Lives elsewhere: all of a store's (catalog), what a manifest says (manifest).
"""

import errno
from dataclasses import dataclass
from typing import Final

from tensorkeep.backends.keys import Backend
from tensorkeep.chunks import digest
from tensorkeep.errors import CheckpointGone, FormatError
from tensorkeep.store import manifest as manifests
from tensorkeep.store import names
from tensorkeep.store.manifest import Manifest

_DAMAGE: Final = frozenset(getattr(errno, name) for name in ("EIO", "EFBIG", "ELOOP", "ENXIO", "EILSEQ") if hasattr(errno, name))


@dataclass(frozen=True, slots=True)
class Known:
    """A manifest as it was read.

    Attributes:
        key: where it stands.
        version: of the object, by the storage.
        digest: BLAKE3 of its bytes.
        manifest: what it says.
        modified: when it was written, by the storage's own clock.
    """

    key: str
    version: str
    digest: bytes
    manifest: Manifest
    modified: float = 0.0

    @property
    def step(self) -> int:
        return self.manifest.step


def read(backend: Backend, key: str, version: str = "", modified: float = 0.0) -> Known:
    """One manifest, of a checkpoint or a tag.

    Raises:
        FileNotFoundError: there is none.
        CorruptError, FormatError: it is damaged.
    """
    data = backend.get(key, limit=manifests.MOST_BYTES)
    manifest = manifests.decode(data, f"{backend.name}/{key}", step=names.step_of(key))
    return Known(key, version, digest(data), manifest, modified)


def reread(backend: Backend, known: Known) -> bytes:
    """The bytes of a manifest that was read before.

    Raises:
        CheckpointGone: it is not there any more, or has other bytes.
    """
    try:
        data = backend.get(known.key, limit=manifests.MOST_BYTES)
    except FileNotFoundError:
        raise CheckpointGone(backend.name, known.key, "deleted") from None
    if digest(data) != known.digest:
        raise CheckpointGone(backend.name, known.key, "replaced")
    return data


def concerns_one_object(error: OSError) -> bool:
    """Whether it is this object that is bad, such as for a bad sector or a link in its place, and not the way to all of them."""
    return error.errno in _DAMAGE


def size_of(backend: Backend, key: str) -> int | None:
    """Bytes of an object; None where none can be had: nothing is there, or what is no file.

    Raises:
        OSError: the storage does not answer.
    """
    try:
        return backend.stat(key).nbytes
    except FileNotFoundError:
        return None
    except OSError as error:
        if not concerns_one_object(error):
            raise
        return None


def why_missing(backend: Backend, known: Known, key: str) -> CheckpointGone | FormatError:
    """What it means that an object which a manifest names is not there: by reading the manifest again.

    Args:
        known: the manifest as the reader knows it.
        key: of what is missing.
    """
    try:
        reread(backend, known)
    except CheckpointGone as gone:
        return gone
    return FormatError(f"{backend.name}/{known.key}", f"damaged: it needs {key}, which is missing", hint="Take another checkpoint.")

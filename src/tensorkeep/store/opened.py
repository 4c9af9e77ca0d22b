"""Opened: a store's folder or URL, or a reference into one such as `runs/a@best`, becomes the `Contents` of a checkpoint."""

from typing import Final

from tensorkeep.backends.choosing import open_backend
from tensorkeep.backends.keys import Backend
from tensorkeep.contents import Contents
from tensorkeep.errors import FormatError, NoCheckpoint, TensorkeepError
from tensorkeep.limits import Limits
from tensorkeep.store import manifest as manifests
from tensorkeep.store import names
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.checkpoint import open_checkpoint
from tensorkeep.store.known import concerns_one_object

_MARK: Final = b'"tensorkeep store"'
_SETTINGS_BYTES: Final = 1 << 16  # of `store.json`, at most


def open_store(place: str, ref: str, *, verify: bool, limits: Limits) -> Contents | None:
    """The checkpoint of a store that a reference means; None where there is no store.

    Args:
        place: the store's folder or URL.
        ref: `latest`, `best`, `best:METRIC`, `step-1200` or a tag.
        verify, limits: as for `open_checkpoint`.

    Raises:
        NoCheckpoint: the store has none such, or it is no reference.
        CorruptError, FormatError: the store, or that checkpoint of it, is damaged.
    """
    try:
        backend = open_backend(place, create=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not is_store(backend):
        return None
    try:
        return Catalog(backend).following(ref, lambda known: open_checkpoint(backend, known, verify=verify, limits=limits))
    except TensorkeepError:
        raise
    except ValueError as error:  # of a path it is what a file that is not there is
        raise NoCheckpoint(backend.name, ref, str(error).removeprefix(f"{backend.name}: ")) from None


def is_store(backend: Backend) -> bool:
    """Whether a place holds a store that this release reads.

    Raises:
        CorruptError, FormatError: it holds one, which is damaged or of another version.
    """
    try:
        data = backend.get(names.STORE, limit=_SETTINGS_BYTES)
    except (FileNotFoundError, PermissionError):  # what S3 says of what is not there to whoever may not list
        return False
    except OSError as error:
        if not concerns_one_object(error):
            raise
        if next(iter(backend.list(names.CHECKPOINTS)), None) is None:
            return False
        raise FormatError(f"{backend.name}/{names.STORE}", f"damaged: {error.strerror}") from error
    if _MARK not in data and next(iter(backend.list(names.CHECKPOINTS)), None) is None:
        return False  # of some other program
    manifests.check_settings(data, f"{backend.name}/{names.STORE}")
    return True

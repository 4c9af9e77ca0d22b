"""Choosing: which backend a path or a URL means."""

import errno
import os

from tensorkeep.backends.atomic import Path
from tensorkeep.backends.bucket import BucketBackend
from tensorkeep.backends.folder import FolderBackend
from tensorkeep.backends.keys import Backend
from tensorkeep.backends.object_places import CLOUDS
from tensorkeep.backends.object_store import local_name, scheme_of


def open_backend(place: Path, *, create: bool) -> Backend:
    """The place that a path or a URL names.

    Args:
        place: a folder, `file://` and its path, or `s3://bucket/path`, `gs://`, `az://`, `memory://`.
        create: whether the first object may make the folder. Nothing is made before that.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder, and `create` is False; or it is none.
        OSError: no backend for such a URL.
    """
    name = os.fsdecode(place)
    if not name:
        raise FileNotFoundError(errno.ENOENT, "the path is empty", name)
    scheme = scheme_of(name)
    if scheme == "":
        return FolderBackend(name, create=create)
    if scheme == "file":
        return FolderBackend(local_name(name), create=create, name=name)
    if scheme in CLOUDS:
        return BucketBackend(name)
    raise OSError(errno.EINVAL, f"no place for a store: a folder is wanted, or {', '.join(f'{cloud}://' for cloud in CLOUDS)}", name)

"""A new folder: there whole and durable, with all its files, or not at all.

Its files are written into a hidden folder beside the place, which then gets its name. A folder that holds
anything is never touched.
"""

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from tensorkeep.backends import capabilities
from tensorkeep.backends.atomic import Path, replacing
from tensorkeep.backends.hidden import CLOEXEC, hidden_name, hidden_pattern
from tensorkeep.backends.pending import PendingFile

if sys.platform != "win32":
    import fcntl

_TRIES: Final = 100


class NewFolder:
    """A folder that is being filled.

    Args:
        hidden: where its files are until it gets its name.
        durable: whether its files are to survive a loss of power.
    """

    def __init__(self, hidden: str, *, durable: bool) -> None:
        self.hidden, self._durable = hidden, durable

    @contextmanager
    def file(self, name: str, *, nbytes: int) -> Iterator[PendingFile]:
        """Write one file of it.

        Args:
            name: one of ours; a folder before a `/` is made.
            nbytes: exact size of the file.
        """
        path = os.path.join(self.hidden, *name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with replacing(path, nbytes=nbytes, durable=self._durable, overwrite=False) as pending:
            yield pending

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """An empty folder for the time of the block, inside of this one, where the code of others may write what it likes."""
        path = os.path.join(self.hidden, f".{secrets.token_hex(8)}.tmp")
        os.mkdir(path)
        try:
            yield path
        finally:
            shutil.rmtree(path)


@contextmanager
def new_folder(path: Path, *, durable: bool = True) -> Iterator[NewFolder]:
    """Fill a folder that appears whole at the end of the block, or not at all.

    Args:
        path: of the folder; nothing is there, or an empty folder.
        durable: return only when it would survive a loss of power.

    Raises:
        FileExistsError: something is there.
        OSError: anything fails. What was there is as it was.
    """
    name = os.fsdecode(path)
    target = os.path.realpath(name)
    refuse_taken(name)
    with hidden_folder(target) as hidden:
        yield NewFolder(hidden, durable=durable)
        if durable:
            sync_names(hidden)
        if os.path.isdir(target):
            os.rmdir(target)  # an empty one: some systems do not rename over it. It refuses any other
        os.rename(hidden, target)
    if durable:
        sync_names(os.path.dirname(target))


@contextmanager
def hidden_folder(target: str) -> Iterator[str]:
    """A new hidden folder beside a place, locked for the time of the block; removed if that raises. Those that kills left are removed."""
    _remove_leftovers(target)
    hidden, fd = _created(target)
    try:
        yield hidden
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    finally:
        if fd is not None:
            os.close(fd)


def _created(target: str) -> tuple[str, int | None]:
    for _ in range(_TRIES):
        hidden = hidden_name(target)
        os.mkdir(hidden)
        with suppress(BlockingIOError, FileNotFoundError):  # between mkdir and lock, another save took it for a leftover
            fd = lock_folder(hidden)
            if os.path.isdir(hidden):
                return hidden, fd
            if fd is not None:
                os.close(fd)
    raise FileExistsError(f"no hidden folder beside {target} could be had")


def lock_folder(folder: str) -> int | None:
    """Take the lock of a folder: its descriptor; None where there are no locks, and nobody can tell whose a leftover is.

    Raises:
        BlockingIOError: another process has it.
    """
    if sys.platform == "win32" or not capabilities.in_use.locks:
        return None
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return fd


def _remove_leftovers(target: str) -> None:
    """Remove the hidden folders of this place whose lock is free: of saves that were killed."""
    if sys.platform == "win32" or not capabilities.in_use.locks:
        return
    folder, name = os.path.split(target)
    pattern = hidden_pattern(name)
    try:
        entries = [entry for entry in os.listdir(folder) if pattern.fullmatch(entry)]
    except OSError:  # the folder may be written to, but not listed
        return
    for entry in entries:
        path = os.path.join(folder, entry)
        with suppress(OSError):
            if os.path.isdir(path) and (fd := lock_folder(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(fd)


def refuse_taken(path: Path) -> None:
    """See that a new folder may be made at a path.

    Raises:
        FileExistsError: something is there that is no empty folder.
    """
    name = os.fsdecode(path)
    if not os.path.lexists(name):
        return
    if not os.path.isdir(name) or os.listdir(name):
        raise FileExistsError(errno.EEXIST, "a new folder is wanted, and something is there; nothing was changed", name)


def sync_names(folder: str) -> None:
    """Have the names in a folder on the disk itself, where that can be had."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:  # a system that cannot open folders
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)

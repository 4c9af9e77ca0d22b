"""A folder replaced as one: at any moment it has all of its old files or all of its new ones, whole and durable.

The new files are written into a hidden folder beside it. What else stood in the old one is linked into the new one, the same files under
the same names; then the two change places in one call, and the old one, which now bears the hidden name, is removed. Where folders
cannot change places, the old one is renamed out of the way first: a kill between the two renames leaves it as `.NAME.<16 hex digits>.old`.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from tensorkeep.backends import calls, capabilities
from tensorkeep.backends.atomic import Path
from tensorkeep.backends.new_folder import NewFolder, hidden_folder, lock_folder, new_folder, refuse_taken, sync_names

_MOST_OTHERS: Final = 10_000  # files beside the new ones: to link them takes a second


@contextmanager
def replacing_folder(path: Path, *, drop: Callable[[str], bool], durable: bool = True, overwrite: bool = True) -> Iterator[NewFolder]:
    """Write files of a folder that appear together at the end of the block, in place of the old ones, or not at all.

    Args:
        path: of the folder; it and those around it are made where they are missing. Links are followed.
        drop: tells of a name at the top of the old folder whether it goes with what is replaced. All others stay, but for those that
            the new folder has too.
        durable: return only when it would survive a loss of power.
        overwrite: take a folder that holds something; `False` raises.

    Raises:
        FileExistsError: it holds something and `overwrite` is False.
        OSError: anything fails, or the folder is one that cannot be replaced. What was there is as it was.
    """
    name = os.fsdecode(path)
    target = os.path.realpath(name)
    if not _holds_something(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with new_folder(name.rstrip(os.sep) or name, durable=durable) as folder:
            yield folder
        return
    if not overwrite:
        refuse_taken(name)
    _check_replaceable(target, name)
    with ExitStack() as held:
        with hidden_folder(target) as hidden:
            yield NewFolder(hidden, durable=durable)
            kept, folders = _keep_others(target, hidden, drop, name)
            shutil.copystat(target, hidden)
            for inner in (hidden, *folders) if durable else ():
                sync_names(inner)
            _hold(target, held)  # what bears the hidden name from then on is no leftover before it was looked through
            old = _change_places(hidden, target)
        if durable:
            sync_names(os.path.dirname(target))
        with suppress(FileNotFoundError):  # it was another save's, which has removed it
            for late in _names(old) - kept:  # written there meanwhile, by others
                if not drop(late):
                    with suppress(OSError):
                        os.rename(os.path.join(old, late), os.path.join(target, late))
        shutil.rmtree(old, ignore_errors=True)


def _holds_something(folder: str) -> bool:
    """Whether a folder is there that is not empty. Again if another save exchanged it meanwhile, which empties the old one."""
    if not os.path.isdir(folder):
        return False
    if os.listdir not in os.supports_fd:
        return bool(os.listdir(folder))
    while True:
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:  # open, so that no other folder gets its number
            found = os.listdir(fd)
            if found or os.path.samestat(os.fstat(fd), os.stat(folder)):
                return bool(found)
        except FileNotFoundError:  # between the two renames of a system that cannot exchange
            return False
        finally:
            os.close(fd)


def _hold(folder: str, held: ExitStack) -> None:
    with suppress(OSError):  # another save of this place has it, or it has just taken its place
        if (fd := lock_folder(folder)) is not None:
            held.callback(os.close, fd)


def _check_replaceable(target: str, name: str) -> None:
    """Refuse a folder whose place no other can take: a mount, and where this process works.

    Raises:
        OSError: it is one.
    """
    around = os.path.join(os.path.realpath(os.getcwd()), "")
    if os.path.ismount(target) or around.startswith(os.path.join(target, "")):
        what = "is mounted there" if os.path.ismount(target) else "is where this process works"
        raise OSError(errno.EBUSY, f"a folder that {what} cannot be replaced as one; name a new folder inside of it", name)


def _keep_others(old: str, new: str, drop: Callable[[str], bool], name: str) -> tuple[set[str], list[str]]:
    """Bring everything else of the old folder into the new one: by links, or as copies where the system makes none.

    Returns:
        All names that were looked at, and the folders that were made.

    Raises:
        OSError: there are too many.
    """
    left = _MOST_OTHERS
    looked_at, folders = _names(old), []
    waiting = [entry for entry in looked_at if not drop(entry)]
    while waiting:
        entry = waiting.pop()
        there, here = os.path.join(old, entry), os.path.join(new, entry)
        left -= 1
        if left < 0:
            raise OSError(errno.EMFILE, f"more than {_MOST_OTHERS:,} other files are in this folder; name one of its own", name)
        if os.path.isdir(there) and not os.path.islink(there):
            os.makedirs(here, exist_ok=True)
            shutil.copystat(there, here)
            folders.append(here)
            waiting += [os.path.join(entry, inner) for inner in os.listdir(there)]
        elif not os.path.lexists(here):
            _same_file(there, here)
    return looked_at, folders


def _same_file(there: str, here: str) -> None:
    try:
        os.link(there, here, follow_symlinks=False)
    except (OSError, NotImplementedError):  # another's file, or a system without links
        shutil.copy2(there, here, follow_symlinks=False)


def _names(folder: str) -> set[str]:
    return set(os.listdir(folder))


def _change_places(hidden: str, target: str) -> str:
    """Let the new folder take the place of the old one. Returns the name of the old one."""
    if capabilities.in_use.exchange:
        try:
            calls.exchange(hidden, target)
            return hidden
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):  # a file system that cannot
                raise
    old = f"{hidden.removesuffix('.tmp')}.old"
    os.rename(target, old)
    try:
        os.rename(hidden, target)
    except BaseException:
        os.rename(old, target)
        raise
    return old

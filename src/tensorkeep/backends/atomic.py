"""Replacing a file: whole and durable, or not at all.

The new file has no name while it is written (`O_TMPFILE`). Where no old one is, it gets its name by `link`; else it gets a hidden one
by `link`, and takes the place of the old one by `rename`.
A kill before the link leaves nothing; one between link and rename leaves a hidden file, whose lock is then free: the next save of that
path removes it. Where files without a name cannot be had, the hidden name is there from the start.

What makes it durable: fsync of the file before it is renamed, fsync of the folder after.
"""

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from tensorkeep.backends import calls, capabilities
from tensorkeep.backends.durable import sync, sync_folder
from tensorkeep.backends.hidden import CLOEXEC, create_hidden, hidden_name, remove_leftovers
from tensorkeep.backends.pending import PendingFile, exists, explained, outcome, placed, prepare, take_over, told, uncreated

Path = str | bytes | os.PathLike[str]

_COPY_BYTES: Final = 4 << 20
_TRIES: Final = 10


@contextmanager
def replacing(path: Path, *, nbytes: int, durable: bool = True, overwrite: bool = True) -> Iterator[PendingFile]:
    """Write a file that appears whole at the end of the block, in place of the old one, or not at all.

    Links of the path are followed: the file that they lead to is replaced. Its other hard links keep the old content. The mode is that
    of the old file, else what the umask leaves. As for any atomic replacement, a read-only old file is no obstacle; its folder decides.

    Args:
        path: the file.
        nbytes: exact size of the new file. Room for it is asked for first: a full disk shows before the data are written.
        durable: return only when it would survive a loss of power.
        overwrite: replace an old file; `False` raises, also if one appears in the meantime.

    Yields:
        What to write to.

    Raises:
        FileExistsError: there is one and `overwrite` is False.
        OSError: anything fails. The old file is as it was, unless the message says otherwise.
    """
    name = os.fsdecode(path)
    target = _resolved(name)
    old = _replaceable(target, name)
    if old is not None and not overwrite:
        raise exists(name)
    remove_leftovers(target)
    try:
        pending = PendingFile(name, target, nbytes, old)
    except OSError as error:
        if error.errno is None:  # of a signal's handler
            raise
        raise uncreated(error, target, name) from error
    try:
        prepare(pending)
        yield pending
        _finish(pending, durable=durable, overwrite=overwrite)
    except BaseException as error:
        if not getattr(error, "explained", False):  # Ctrl-C, or an error of the caller's: it stays what it is
            error.add_note(f"tensorkeep: {name}: {outcome(pending)}")
        _discard(pending)
        raise
    _close(pending)


def _resolved(name: str) -> str:
    if not name:
        raise FileNotFoundError(errno.ENOENT, "the path is empty", name)
    if name.endswith((os.sep, os.altsep or os.sep)):
        raise IsADirectoryError(errno.EISDIR, "the path ends as that of a folder; a file is wanted", name)
    return os.path.realpath(name)


def _replaceable(target: str, name: str) -> os.stat_result | None:
    try:
        old = os.stat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(errno.EISDIR, "a folder is there, where the file should go", name)
    if not stat.S_ISREG(old.st_mode):
        raise OSError(errno.EINVAL, "neither a regular file nor a stream; it is not replaced", name)
    return old


def _finish(pending: PendingFile, *, durable: bool, overwrite: bool) -> None:
    if os.getpid() != pending.process:
        raise RuntimeError("a forked child cannot finish the save of its parent")
    try:
        found = os.fstat(pending.fd).st_size
        if found != pending.nbytes:
            raise OSError(errno.EIO, f"the new file has {found:,} bytes, not {pending.nbytes:,}")
        _settle(pending.fd, synced=durable)
        try:
            _put_in_place(pending, durable=durable, overwrite=overwrite)
        except OSError:
            if not placed(pending):  # a network may lose the answer of what it has done
                raise
            if pending.hidden is not None:
                with suppress(OSError):
                    os.unlink(pending.hidden)
    except FileExistsError as error:
        raise exists(pending.name) from error
    except OSError as error:
        if error.errno is None:  # of a signal's handler
            raise
        raise explained(error, pending) from error
    if durable:
        _sync_folder(os.path.dirname(pending.target), pending.name)


def _settle(fd: int, *, synced: bool) -> None:
    """All that may still go wrong with the bytes goes wrong here: fsync, and a close, whose errors count, of a second descriptor."""
    if synced:
        sync(fd)
    os.close(os.dup(fd))


def _put_in_place(pending: PendingFile, *, durable: bool, overwrite: bool) -> None:
    """Give the file its name. It stays locked until then."""
    if pending.hidden is None and (pending.old is None or not overwrite):
        try:
            _link_unnamed(pending.fd, pending.target)
            return
        except OSError as error:
            if placed(pending):
                return
            if isinstance(error, FileExistsError) and not overwrite:
                raise
    if pending.hidden is None:
        pending.hidden = hidden_name(pending.target)
        try:
            _link_unnamed(pending.fd, pending.hidden)
        except OSError:
            with suppress(OSError):  # whatever it says, it may have been done
                os.unlink(pending.hidden)
            _copy_to_hidden(pending, durable=durable)
    assert pending.hidden is not None
    if sys.platform == "win32":
        _close(pending)  # an open file cannot be renamed there
    if overwrite:
        _retried(lambda hidden: os.replace(hidden, pending.target), pending.hidden)
    elif sys.platform == "win32":
        os.rename(pending.hidden, pending.target)  # refuses a name that is taken
    else:
        try:
            _retried(lambda hidden: os.link(hidden, pending.target), pending.hidden)
        except FileExistsError:
            raise
        except OSError as error:  # a file system without hard links
            try:
                calls.rename_exclusively(pending.hidden, pending.target)
            except FileExistsError:
                raise
            except OSError:
                raise error from None
        with suppress(OSError):
            os.unlink(pending.hidden)
    pending.hidden = None


def _link_unnamed(fd: int, name: str) -> None:
    folder = os.open(
        os.path.dirname(name), os.O_PATH | os.O_DIRECTORY | CLOEXEC
    )  # a folder that may be written to, but not listed, will do
    try:
        # A folder's descriptor makes this linkat with AT_SYMLINK_FOLLOW, which /proc needs.
        os.link(f"/proc/self/fd/{fd}", os.path.basename(name), dst_dir_fd=folder, follow_symlinks=True)
    finally:
        with suppress(OSError):  # nothing was written to it
            os.close(folder)


def _copy_to_hidden(pending: PendingFile, *, durable: bool) -> None:
    """For file systems that create files without a name and then refuse to give them one."""
    mode = stat.S_IMODE(os.fstat(pending.fd).st_mode)
    unnamed = pending.fd
    try:
        pending.fd, pending.hidden = create_hidden(pending.target, mode)
        if pending.old is not None:
            take_over(pending, pending.old)
        offset = 0
        while data := os.pread(unnamed, _COPY_BYTES, offset):
            pending.write(offset, [memoryview(data)])
            offset += len(data)
        if offset != pending.nbytes:
            raise OSError(errno.EIO, f"the copy has {offset:,} bytes, not {pending.nbytes:,}")
        _settle(pending.fd, synced=durable)
    finally:
        if pending.fd != unnamed:
            os.close(unnamed)


def _retried(call: Callable[[str], None], name: str) -> None:
    """Some network file systems let a signal interrupt what never is elsewhere."""
    for _ in range(_TRIES):
        with suppress(InterruptedError):
            call(name)
            return
    call(name)


def _discard(pending: PendingFile) -> None:
    if pending.hidden is not None and os.getpid() == pending.process:  # a forked child leaves its parent's file alone
        if sys.platform == "win32":
            _close(pending)
        with suppress(OSError):
            os.unlink(pending.hidden)
    _close(pending)


def _close(pending: PendingFile) -> None:
    """Let go of the lock. What close could say about the bytes, it has said before."""
    fd, pending.fd = pending.fd, -1
    if fd >= 0:
        with suppress(OSError):
            os.close(fd)


def _sync_folder(folder: str, name: str) -> None:
    """Have the new name on the disk itself."""
    if not capabilities.in_use.folder_sync:
        return
    try:
        try:
            fd = os.open(folder, os.O_RDONLY | CLOEXEC)
        except PermissionError:  # it may be written to, but not read: then everything is synced
            os.sync()
            return
        try:
            sync_folder(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno is None:  # of a signal's handler
            raise
        sentence = "the new file is in place and whole, but may not survive a loss of power: its folder could not be synced"
        raise told(error, f"{error.strerror}: {sentence}", name) from error

"""Opening: a path, a file object or bytes become Contents."""

import io
import os
import sys
from functools import partial
from os import PathLike
from typing import Any, BinaryIO

from tensorkeep.backends import local
from tensorkeep.container import LENGTH_BYTES, header_length
from tensorkeep.contents import Contents
from tensorkeep.errors import FormatError
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.modelfile.read import read_contents
from tensorkeep.modelfile.storage import MemoryFile

Source = str | PathLike[str] | BinaryIO


def open_contents(source: Source, *, verify: bool = True, mmap: bool | None = None, limits: Limits | None = None) -> Contents:
    """Open whatever a verb was given.

    Args:
        source: a path, or a binary file object, which is read from where it stands to its end.
        verify: check tensors against their digests when they are read.
        mmap: give views of a mapping; None for what suits the file.
        limits: bounds on what the file may ask for.

    Raises:
        FormatError: no format that tensorkeep reads.
        FileNotFoundError: nothing is there.
    """
    limits = limits or DEFAULT_LIMITS
    if not isinstance(source, (str, bytes, PathLike)):
        return _of_stream(source, verify=verify, limits=limits)
    name = os.fsdecode(source)
    local.refuse_url(name)
    if local.is_stream(name):
        check = partial(_check_head, file=name, limits=limits)
        data = memoryview(local.read_stream(name, limit=sys.maxsize, head=LENGTH_BYTES, check=check))
        return read_contents(MemoryFile(data, name), verify=verify, mmap=False, limits=limits)
    file = local.ReadFile(name)
    try:
        return read_contents(file, verify=verify, mmap=mmap, limits=limits)
    except BaseException:
        file.close()
        raise


def _check_head(head: bytes, *, file: str, limits: Limits) -> None:
    """Refuse a stream whose first bytes begin no file, before all of it is read: it may have no end."""
    header_length(head, sys.maxsize if len(head) == LENGTH_BYTES else len(head), file=file, limits=limits)


def _of_stream(stream: Any, *, verify: bool, limits: Limits) -> Contents:
    if isinstance(stream, io.TextIOBase):
        raise TypeError(f"{stream!r} is open as text; open it with mode 'rb'")
    if not hasattr(stream, "read"):
        raise TypeError(f"a path or a binary file object is wanted, found {stream!r:.80}")
    data = stream.read()
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"{stream!r}.read() gave {type(data).__name__}, bytes are wanted")
    name = getattr(stream, "name", None)
    return of_bytes(data, name=name if isinstance(name, str) else f"<{type(stream).__name__}>", verify=verify, limits=limits)


def of_bytes(data: "bytes | bytearray | memoryview", *, name: str, verify: bool, limits: Limits | None) -> Contents:
    """Open a file that is in memory."""
    view = memoryview(data)
    if not view.nbytes:
        raise FormatError(name, "it is empty")
    view = view if view.format == "B" and view.ndim == 1 else view.cast("B")
    return read_contents(MemoryFile(view, name), verify=verify, mmap=False, limits=limits or DEFAULT_LIMITS)

"""scan: what a file would do if it were loaded the usual way.

Lives here: `Scan`, and whether a path is a file, a folder or a stream. Lives elsewhere: the traps, a family a file (scanning).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any, BinaryIO, Final

from tensorkeep.backends import local, object_store
from tensorkeep.backends.files import File, MemoryFile
from tensorkeep.backends.inside import Folder
from tensorkeep.contents import Contents, Finding
from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits, limits_of
from tensorkeep.modelfile.read import read_contents
from tensorkeep.opening import store_of
from tensorkeep.progress import Progress
from tensorkeep.scanning.folders import scan_file, scan_folder
from tensorkeep.scanning.look import Look
from tensorkeep.wire.extent import Opened

_WORST_FIRST: Final = {"dangerous": 0, "unknown": 1, "harmless": 2}


@dataclass(frozen=True, slots=True)
class Scan:
    """What `scan` found.

    Attributes:
        file: the file or folder as it was named.
        findings: what would be dangerous, or nobody knows, when it is loaded the usual way; the worst first.
        complete: whether everything could be read to its end. A scan that could not is never `clean`.
        incomplete: what could not be read, and why.
        harmless: what would be imported or called too, and is known to do nothing but make data.
        files: how many files were looked at.
        nbytes: their size, in bytes.
        clean: complete, and without a finding.

    Example:
        >>> import io
        >>> import tensorkeep as tk
        >>> scan = tk.scan(io.BytesIO(b"cposix\\nsystem\\n(S'id'\\ntR."))
        >>> scan.clean, [finding.severity for finding in scan.findings]
        (False, ['dangerous'])
        >>> print(scan.findings[0].what)
        would call posix.system('id')
    """

    file: str
    findings: tuple[Finding, ...]
    complete: bool
    incomplete: tuple[str, ...]
    harmless: tuple[Finding, ...]
    files: int
    nbytes: int

    @property
    def clean(self) -> bool:
        return self.complete and not self.findings


def scan(path: "str | PathLike[str] | BinaryIO", *, limits: Limits | None = None, progress: Progress | None = None) -> Scan:
    """Tell what a file would do if it were loaded the usual way. Nothing in it is run, imported or extracted.

    Looks at every pickle, wherever it hides, and at the traps of other formats. It judges code, not weights: a model that was trained to
    misbehave is not found.

    Args:
        path: a file of any format, or a folder, which is walked; links are told and not followed. Of a checkpoint (`runs/a@latest`) the
            whole store is. A file at a URL is read as far as it takes.
        limits: bounds on what it may ask for.
        progress: called with the bytes done and in all: after each file.

    Returns:
        Scan: `findings` (each with severity, place and what), `complete`, and `clean`, which is both.

    Raises:
        FileNotFoundError: nothing is there.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"w": np.ones(3)}, "ones.safetensors")
        >>> tk.scan("ones.safetensors").clean
        True

    Source: the attack files that picklescan, modelscan, fickling and modelaudit publish.
    """
    limits = limits_of(limits)
    looks: list[Look] = []
    done = 0
    name = path if isinstance(path, str) else os.fsdecode(path) if isinstance(path, (bytes, PathLike)) else _name(path)
    for nbytes, whole, look in _looks(path, limits):
        looks.append(look)
        done += nbytes
        if progress is not None:
            progress(done, max(done, whole))
    return _result(name, looks, done)


def _looks(path: Any, limits: Limits) -> Iterator[tuple[int, int, Look]]:
    """The size of each file, that of all together, and what was seen."""
    if not isinstance(path, (str, bytes, PathLike)):
        data = path.read()
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"{path!r}.read() gave {type(data).__name__}, bytes are wanted")
        yield len(data), len(data), scan_file(Opened(MemoryFile(memoryview(data), _name(path)), mmap=False), limits=limits, own=_read)
        return
    name = object_store.local_name(os.fsdecode(path))
    if object_store.scheme_of(name):
        remote = Opened(object_store.open_url(name), mmap=False)
        yield remote.file.nbytes, remote.file.nbytes, scan_file(remote, limits=limits, own=_read)
    elif local.is_stream(name):
        data = memoryview(local.read_stream(name, limit=limits.expanded_bytes))  # it may have no end
        yield data.nbytes, data.nbytes, scan_file(Opened(MemoryFile(data, name), mmap=False), limits=limits, own=_read)
    elif (kind := local.kind_of(name)) == "folder" or (kind == "missing" and store_of(name) is not None):
        name = name if kind == "folder" else name.rpartition("@")[0]  # checkpoints share their files
        try:
            yield from scan_folder(Folder(name), limits=limits, own=_read)
        except FormatError as error:  # more files than any model has
            yield 0, 0, _unread(name, error, limits)
    else:
        opened = Opened(local.ReadFile(name))
        try:
            yield opened.file.nbytes, opened.file.nbytes, scan_file(opened, limits=limits, folder=Folder(os.path.dirname(name)), own=_read)
        finally:
            opened.close()


def _read(file: File, limits: Limits) -> Contents:
    return read_contents(file, verify=False, mmap=False, limits=limits)


def _unread(name: str, error: FormatError, limits: Limits) -> Look:
    look = scan_file(Opened(MemoryFile(memoryview(b""), name), mmap=False), limits=limits, own=_read)
    look.stopped("", error.problem)
    return look


def _name(stream: Any) -> str:
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) else f"<{type(stream).__name__}>"


def _result(name: str, looks: list[Look], nbytes: int) -> Scan:
    found = [
        tally.finding if tally.count == 1 else _counted(tally.finding, tally.count) for look in looks for tally in look.findings.values()
    ]
    found.sort(key=lambda finding: _WORST_FIRST[finding.severity])
    several = len(looks) > 1
    incomplete = [f"{look.file}: {why}" if several else why for look in looks for why in look.incomplete]
    return Scan(
        name,
        tuple(finding for finding in found if finding.severity != "harmless"),
        not incomplete,
        tuple(incomplete),
        tuple(finding for finding in found if finding.severity == "harmless"),
        len(looks),
        nbytes,
    )


def _counted(finding: Finding, count: int) -> Finding:
    return Finding(finding.severity, finding.place, f"{finding.what} ({count:,} times)", finding.rule, finding.file)

"""Loss of power: what a folder backend asks of the system is recorded, and every disk that a crash may leave is rebuilt.

    with recording(root) as log:
        backend.create("checkpoints/1.json", data)
        log.mark("saved")
    for disk in log.disks(seed=1):
        disk.write_to(elsewhere)            # "saved" in disk.marks: it had returned before the crash

What surely survives: bytes of a file that was synced after they were written, and names in a folder that was synced after they were
made. Of bytes that were not, any may be there or not, also as zeros, also torn in the middle of a block; of names that were not, some
first ones. A folder whose own name is lost is lost with all that is in it. That is less than every file system in use promises.
"""

import itertools
import math
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from unittest.mock import patch  # to exchange a module's `os`; nothing is imitated

from tensorkeep.backends import durable, folder, hidden, inner_folder, new_file, pending

_MODULES: Final = (durable, folder, hidden, inner_folder, new_file, pending)
_MOST_WAYS: Final = 1000  # more are drawn from, not counted up
_BLOCK: Final = 4096


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    `write`: file, offset, data. `sync`: file or folder. `link`: folder, name, file. `unlink`: folder, name. `rename`: folder, old name,
    name. `mkdir`: folder, name, new folder. `mark`: a text.
    """

    kind: str
    on: int
    facts: tuple[Any, ...] = ()


@dataclass
class Log:
    """What happened below a root, in order; what was there before lies safely on the disk."""

    root: Path
    events: list[Event] = field(default_factory=list)
    before: dict[int, dict[str, int]] = field(default_factory=dict)  # entries of folders
    contents: dict[int, bytes] = field(default_factory=dict)  # of files
    top: int = 0

    def mark(self, text: str) -> None:
        self.events.append(Event("mark", 0, (text,)))

    def disks(self, *, seed: int, most_each: int = 12) -> Iterator["Disk"]:
        """What may be left after each event.

        Args:
            seed: of what is chosen where there are many ways.
            most_each: how many disks after one event.
        """
        chance = random.Random(seed)
        for cut in range(len(self.events) + 1):
            yield from _disks(self, cut, chance, most_each)


@dataclass(frozen=True)
class Disk:
    """What a crash has left.

    Attributes:
        cut: how many events had happened.
        marks: those before it.
        files: their bytes, by path; folders have None.
    """

    cut: int
    marks: frozenset[str]
    files: dict[str, bytes | None]

    def write_to(self, place: Path) -> None:
        place.mkdir()
        for path, data in self.files.items():
            if data is None:
                (place / path).mkdir(parents=True, exist_ok=True)
            else:
                (place / path).write_bytes(data)


def _disks(log: Log, cut: int, chance: random.Random, most: int) -> Iterator[Disk]:
    past = log.events[:cut]
    marks = frozenset(event.facts[0] for event in past if event.kind == "mark")
    synced = {event.on: number for number, event in enumerate(past) if event.kind == "sync"}
    unsure_names: dict[int, int] = {}  # by folder
    unsure_bytes = False
    for number, event in enumerate(past):
        if number > synced.get(event.on, -1):
            if event.kind in ("link", "unlink", "rename", "mkdir"):
                unsure_names[event.on] = unsure_names.get(event.on, 0) + 1
            unsure_bytes |= event.kind == "write"
    ways = itertools.product(*(range(n + 1) for n in unsure_names.values()))
    if math.prod(n + 1 for n in unsure_names.values()) > _MOST_WAYS:
        none, all_ = tuple(0 for _ in unsure_names), tuple(unsure_names.values())
        ways = iter([none, *(tuple(chance.randint(0, n) for n in all_) for _ in range(most)), all_])
    cuts = [dict(zip(unsure_names, some, strict=True)) for some in ways]
    fates = ["none", "all", "zeros", *(f"some {chance.random()}" for _ in range(2))] if unsure_bytes else ["all"]
    choices = list(itertools.product(cuts, fates))
    if len(choices) > most:
        choices = [choices[0], choices[-1], *chance.sample(choices[1:-1], most - 2)]
    for names, fate in choices:
        yield Disk(cut, marks, _rebuilt(log, past, synced, names, fate))


def _rebuilt(log: Log, past: list[Event], synced: dict[int, int], names: dict[int, int], fate: str) -> dict[str, bytes | None]:
    folders = {on: dict(entries) for on, entries in log.before.items()}
    contents = {file: bytearray(data) for file, data in log.contents.items()}
    chance = random.Random(fate)
    left = dict(names)
    for number, event in enumerate(past):
        sure = number < synced.get(event.on, -1)
        if event.kind == "write":
            _write(contents.setdefault(event.on, bytearray()), *event.facts, fate="all" if sure else fate, chance=chance)
        elif event.kind in ("link", "unlink", "rename", "mkdir"):
            if not sure:
                if not left.get(event.on, 0):
                    continue
                left[event.on] -= 1
            _change(folders, event)
    found: dict[str, bytes | None] = {}

    def walk(on: int, way: str) -> None:
        for name, inner in sorted(folders.get(on, {}).items()):
            if inner in folders:
                found[way + name] = None
                walk(inner, f"{way}{name}/")
            else:
                found[way + name] = bytes(contents.get(inner, b""))

    walk(log.top, "")
    return found


def _write(file: bytearray, offset: int, data: bytes, *, fate: str, chance: random.Random) -> None:
    if fate == "none":
        return
    if fate == "zeros":
        data = bytes(len(data))
    elif fate.startswith("some"):
        kept = bytearray(data)
        for start in range(0, len(data), _BLOCK):
            if chance.random() < 0.5:
                kept[start : start + _BLOCK] = bytes(len(kept[start : start + _BLOCK]))
        data = bytes(kept[: chance.randrange(len(kept) + 1)])
    if len(file) < offset + len(data):
        file.extend(bytes(offset + len(data) - len(file)))
    file[offset : offset + len(data)] = data


def _change(folders: dict[int, dict[str, int]], event: Event) -> None:
    entries = folders.setdefault(event.on, {})
    if event.kind == "link":
        entries[event.facts[0]] = event.facts[1]
    elif event.kind == "mkdir":
        entries[event.facts[0]] = event.facts[1]
        folders.setdefault(event.facts[1], {})
    elif event.kind == "unlink":
        entries.pop(event.facts[0], None)
    elif event.facts[0] in entries:
        entries[event.facts[1]] = entries.pop(event.facts[0])


@contextmanager
def recording(root: Path) -> Iterator[Log]:
    """Record what backends of this process do below a folder, which is there already."""
    log = Log(root)
    recorder = _Recorder(log)
    log.top = recorder.known(os.stat(root))
    for way, folder_names, file_names in os.walk(root):
        on = recorder.known(os.stat(way))
        entries = log.before.setdefault(on, {})
        for name in (*folder_names, *file_names):
            entries[name] = recorder.known(os.stat(os.path.join(way, name)))
        for name in file_names:
            log.contents[entries[name]] = Path(way, name).read_bytes()
    patches = [patch.object(module, "os", recorder) for module in _MODULES]
    for one in patches:
        one.start()
    try:
        yield log
    finally:
        for one in patches:
            one.stop()


class _Recorder(ModuleType):
    """Stands for `os` in the rooms that make files."""

    def __init__(self, log: Log) -> None:
        super().__init__("os")
        self._log, self._lock = log, threading.RLock()
        self._numbers: dict[tuple[int, int], int] = {}
        self._next = itertools.count(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def known(self, status: os.stat_result, *, new: bool = False) -> int:
        """A number for a file or folder, for good: the system uses its own again."""
        key = (status.st_dev, status.st_ino)
        if new or key not in self._numbers:
            self._numbers[key] = next(self._next)
        return self._numbers[key]

    def _note(self, kind: str, on: int, *facts: Any) -> None:
        self._log.events.append(Event(kind, on, facts))

    def _folder(self, path: Any, dir_fd: int | None) -> tuple[int, str]:
        """Of a path: the number of its folder, and its name there."""
        way, name = os.path.split(os.fspath(path))
        return self.known(os.stat(way) if way else os.fstat(dir_fd) if dir_fd is not None else os.stat(".")), name

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        with self._lock:
            fd = os.open(path, flags, mode, dir_fd=dir_fd)
            if flags & os.O_CREAT:
                assert flags & os.O_EXCL, "a file that was there might be changed"
                self._note("link", *self._folder(path, dir_fd), self.known(os.fstat(fd), new=True))
            elif flags & os.O_TMPFILE == os.O_TMPFILE:
                self.known(os.fstat(fd), new=True)
            return fd

    def pwritev(self, fd: int, parts: Any, offset: int) -> int:
        with self._lock:
            count = os.pwritev(fd, parts, offset)
            self._note("write", self.known(os.fstat(fd)), offset, b"".join(parts)[:count])
            return count

    def write(self, fd: int, data: Any) -> int:
        with self._lock:
            offset = os.lseek(fd, 0, os.SEEK_CUR)
            count = os.write(fd, data)
            self._note("write", self.known(os.fstat(fd)), offset, bytes(data)[:count])
            return count

    def fsync(self, fd: int) -> None:
        with self._lock:
            os.fsync(fd)
            self._note("sync", self.known(os.fstat(fd)))

    def link(self, src: Any, dst: Any, *, src_dir_fd: Any = None, dst_dir_fd: Any = None, follow_symlinks: bool = True) -> None:
        with self._lock:
            os.link(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
            on, name = self._folder(dst, dst_dir_fd)
            self._note("link", on, name, self.known(os.stat(dst, dir_fd=dst_dir_fd, follow_symlinks=False)))

    def replace(self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        with self._lock:
            on, name = self._folder(dst, dst_dir_fd)
            old_on, old = self._folder(src, src_dir_fd)
            assert on == old_on, "renamed from folder to folder"
            os.replace(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            self._note("rename", on, old, name)

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        with self._lock:
            on, name = self._folder(path, dir_fd)
            os.unlink(path, dir_fd=dir_fd)
            self._note("unlink", on, name)

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        with self._lock:
            on, name = self._folder(path, dir_fd)
            os.mkdir(path, mode, dir_fd=dir_fd)
            self._note("mkdir", on, name, self.known(os.stat(path, dir_fd=dir_fd), new=True))

    def ftruncate(self, fd: int, nbytes: int) -> None:
        raise AssertionError("no backend cuts a file")

    pwrite = rename = truncate = removedirs = ftruncate

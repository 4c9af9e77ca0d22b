"""Power loss: from the system calls of a save, all states that a disk may be in after the power went.

A write survives surely only if an fsync of its file follows; the others survive by subset, torn between pages, or as a size without
bytes. A folder's changes survive surely only if an fsync of that folder follows; the others do in order, cut anywhere.
"""

import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from faults.tracing import Call

PAGE: Final = 4096
_NAME: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass
class Inode:
    """A file of the log. `writes` are (moment, offset, length); what a moment of `syncs` follows is on the disk."""

    writes: list[tuple[int, int, int]] = field(default_factory=list)
    syncs: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Change:
    """One change of the folder."""

    moment: int
    kind: str  # "link", "rename", "unlink"
    name: str
    inode: int | None = None
    old_name: str = ""


@dataclass
class Story:
    """What a job did to one folder."""

    inodes: dict[int, Inode] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    folder_syncs: list[int] = field(default_factory=list)
    moments: int = 0


State = dict[str, bytes]


def told(calls: list[Call], folder: Path) -> Story:
    """The story that a log tells of one folder."""
    story = Story()
    opened: dict[int, int | str] = {}  # descriptor -> inode, or "folder"
    position: dict[int, int] = {}
    names: dict[str, int] = {}
    for moment, call in enumerate(calls):
        story.moments = moment + 1
        if call.result < 0:
            continue
        quoted = [os.path.basename(name) for name in _NAME.findall(call.arguments)]
        whole = _NAME.findall(call.arguments)
        first = int(call.arguments.split(",")[0]) if re.match(r"\d+\b", call.arguments) else -1
        match call.name:
            case "openat" | "open":
                opened.pop(call.result, None)
                if "O_TMPFILE" in call.arguments:
                    opened[call.result] = _new(story)
                elif whole[0] == str(folder):
                    opened[call.result] = "folder"
                elif "O_CREAT" in call.arguments and os.path.dirname(whole[0]) == str(folder):
                    inode = opened[call.result] = names[quoted[0]] = _new(story)
                    story.changes.append(Change(moment, "link", quoted[0], inode))
                elif quoted[0] in names and os.path.dirname(whole[0]) == str(folder):
                    opened[call.result] = names[quoted[0]]
            case "close":
                opened.pop(first, None)
            case "dup":
                if first in opened:
                    opened[call.result] = opened[first]
            case "lseek":
                position[first] = call.result
            case "write" | "pwrite64" | "pwritev" | "pwritev2":
                if isinstance(inode := opened.get(first), int):
                    offset = position.get(first, 0) if call.name == "write" else _offset(call)
                    position[first] = offset + call.result
                    story.inodes[inode].writes.append((moment, offset, call.result))
            case "fsync" | "fdatasync":
                match opened.get(first):
                    case "folder":
                        story.folder_syncs.append(moment)
                    case int(inode):
                        story.inodes[inode].syncs.append(moment)
            case "sync":
                story.folder_syncs.append(moment)
                for one in story.inodes.values():
                    one.syncs.append(moment)
            case "link" | "linkat":
                inode_linked = opened[int(quoted[0])] if "/proc/self/fd/" in call.arguments else names[quoted[0]]
                assert isinstance(inode_linked, int)
                names[quoted[-1]] = inode_linked
                story.changes.append(Change(moment, "link", quoted[-1], inode_linked))
            case "rename" | "renameat" | "renameat2":
                names[quoted[1]] = names.pop(quoted[0])
                story.changes.append(Change(moment, "rename", quoted[1], names[quoted[1]], quoted[0]))
            case "unlink" | "unlinkat":
                names.pop(quoted[0], None)
                story.changes.append(Change(moment, "unlink", quoted[0]))
            case "ftruncate" | "truncate" | "copy_file_range" | "sendfile":
                raise NotImplementedError(f"{call.name}: tell this module what it does to a disk")
            case _:
                pass
    return story


def _new(story: Story) -> int:
    story.inodes[len(story.inodes)] = Inode()
    return len(story.inodes) - 1


def _offset(call: Call) -> int:
    arguments = call.arguments.split(", ")
    return int(arguments[-2] if call.name == "pwritev2" else arguments[-1])


def states(story: Story, *, old: State, data: bytes, seed: int, subsets: int = 50) -> Iterator[tuple[int, State]]:
    """All legal disks, as (the last moment that was, names and bytes); the same disk may come again."""
    chance = random.Random(seed)
    for moment in range(-1, story.moments):
        changes = [change for change in story.changes if change.moment <= moment]
        synced = max((sync for sync in story.folder_syncs if sync <= moment), default=-1)
        sure = sum(change.moment < synced for change in changes)
        for cut in range(sure, len(changes) + 1):
            names = _folder(changes[:cut])
            wanted = {inode for inode in names.values() if inode is not None}
            for bodies in _bodies(story, wanted, moment, data, chance, subsets):
                disk = dict(old)
                for name, inode in names.items():
                    if inode is None:
                        disk.pop(name, None)
                    else:
                        disk[name] = bodies[inode]
                yield moment, disk


def _folder(changes: list[Change]) -> dict[str, int | None]:
    names: dict[str, int | None] = {}
    for change in changes:
        names[change.name] = change.inode
        if change.kind == "rename":
            names[change.old_name] = None
    return names


def _bodies(story: Story, wanted: set[int], moment: int, data: bytes, chance: random.Random, subsets: int) -> Iterator[dict[int, bytes]]:
    """What the files may hold: of the writes that no fsync followed, each subset, torn between pages, or a size without bytes."""
    sure: dict[int, list[tuple[int, int]]] = {}
    open_: list[tuple[int, int, int]] = []
    sizes: dict[int, int] = {}
    for inode in wanted:
        one = story.inodes[inode]
        synced = max((sync for sync in one.syncs if sync <= moment), default=-1)
        writes = [write for write in one.writes if write[0] <= moment]
        sure[inode] = [(offset, length) for when, offset, length in writes if when < synced]
        for when, offset, length in writes:
            if when > synced:
                open_ += [(inode, start, min(offset + length, start - start % PAGE + PAGE) - start) for start in _pages(offset, length)]
        sizes[inode] = max((offset + length for _, offset, length in writes), default=0)
    if not open_:
        yield {inode: _filled(sure[inode], data, 0) for inode in wanted}
        return
    choices = [set(open_), set[tuple[int, int, int]](), *({one} for one in open_)]
    choices += [{one for one in open_ if chance.random() < 0.5} for _ in range(subsets)]
    for chosen in choices:
        for with_size in (False, True):
            yield {
                inode: _filled(
                    sure[inode] + [(start, length) for of, start, length in chosen if of == inode], data, sizes[inode] if with_size else 0
                )
                for inode in wanted
            }


def _pages(offset: int, length: int) -> Iterator[int]:
    start = offset
    while start < offset + length:
        yield start
        start = start - start % PAGE + PAGE


def _filled(writes: list[tuple[int, int]], data: bytes, size: int) -> bytes:
    body = bytearray(max([size, *(offset + length for offset, length in writes)]))
    for offset, length in writes:
        body[offset : offset + length] = data[offset : offset + length]
    return bytes(body)


def materialized(state: State, folder: Path) -> None:
    """Put a state into an empty folder."""
    for name, body in state.items():
        (folder / name).write_bytes(body)

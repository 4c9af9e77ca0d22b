"""Tracing: strace at a child, to record its system calls or to make some of them fail."""

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from faults.zygote import Zygote

HERE: Final = shutil.which("strace") is not None
_CALL: Final = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+|\?)")
_QUIET: Final = frozenset({"read", "mmap", "munmap", "ioctl", "poll", "epoll_wait"})  # of Python, not of a save


@dataclass(frozen=True)
class Call:
    """One system call that has ended."""

    name: str
    arguments: str
    result: int


def traced(zygote: Zygote, options: list[str], job: str, *arguments: object, log: Path) -> int:
    """Run a job of a zygote under strace; its exit status."""
    child = zygote.fork(job, *arguments)
    tracer = subprocess.Popen(
        ["strace", "-f", "-s", "0", *options, "-o", str(log), "-p", str(child.pid)], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr
    said = tracer.stderr.readline()
    child.begin()
    status = child.wait()
    said += tracer.stderr.read()
    tracer.wait(300)
    tracer.stderr.close()
    assert "attached" in said, said
    return status


def recorded(zygote: Zygote, job: str, *arguments: object, log: Path) -> tuple[int, list[Call]]:
    """The exit status of a job, and its calls that touch files."""
    status = traced(zygote, ["-e", "trace=%file,%desc,sync,syncfs"], job, *arguments, log=log)
    return status, list(parsed(log.read_text(encoding="utf-8", errors="surrogateescape")))


def parsed(log: str) -> list[Call]:
    """Calls in the order in which they ended; those of several threads are put together again."""
    begun: dict[str, str] = {}
    calls = []
    for line in log.splitlines():
        thread, _, text = line.partition(" ")
        text = text.lstrip()
        if text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        if text.startswith("<..."):
            text = begun.pop(thread) + text.partition("resumed>")[2]
        if (found := _CALL.match(text)) and found[3] != "?":
            calls.append(Call(found[1], found[2], int(found[3])))
    return calls


def places(calls: list[Call]) -> list[tuple[str, int]]:
    """Each call of a job as strace counts them: its name, and which of that name it is, from 1."""
    counted: Counter[str] = Counter()
    found = []
    for call in calls:
        counted[call.name] += 1
        if call.name not in _QUIET:
            found.append((call.name, counted[call.name]))
    return found

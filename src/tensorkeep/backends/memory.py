"""Memory: how much of it may still be taken without anybody having to give some back."""

import os
from contextlib import suppress
from typing import Final

_GROUPS: Final = "/sys/fs/cgroup"


def available_bytes(meminfo: str = "/proc/meminfo", own_group: str = "/proc/self/cgroup", groups: str = _GROUPS) -> int:
    """Bytes of memory that are free, or that the system would give without swapping; within the limit of a container too.

    0 where nobody says.

    Args:
        meminfo, own_group, groups: where Linux says it.
    """
    free = _free(meminfo)
    with suppress(OSError):
        for line in _text(own_group).splitlines():  # 0::/a/b of version 2, 5:memory:/a/b of version 1
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                free = min(free, *(_left(f"{groups}{part}", "memory.max", "memory.current") for part in {path.rstrip("/"), ""}))
            elif "memory" in controllers.split(","):
                names = "memory.limit_in_bytes", "memory.usage_in_bytes"
                free = min(free, *(_left(f"{groups}/memory{part}", *names) for part in {path.rstrip("/"), ""}))
    return max(0, free)


def _free(meminfo: str) -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in _text(meminfo).splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):  # elsewhere, or without /proc
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0


def _left(folder: str, most: str, used: str) -> int:
    """What a group may still take: what it read from files counts as taken there, and is given back on demand."""
    cached = 0
    with suppress(OSError, ValueError, IndexError):
        for line in _text(f"{folder}/memory.stat").splitlines():
            if line.startswith("inactive_file "):
                cached = int(line.split()[1])
    with suppress(OSError, ValueError):
        return int(_text(f"{folder}/{most}")) - int(_text(f"{folder}/{used}")) + cached  # "max" is no number: there is no limit
    return 1 << 62


def _text(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read(1 << 20)

"""Processes: who this one is, and whether another one is known to have ended.

Lives here: what a process writes down of itself, so that a later one on the same machine can tell that it is gone.

Known is more than likely: same start of the same machine, same namespaces, and no such process. Of a process elsewhere nothing is known.
"""

import ctypes
import os
import platform
import sys
from contextlib import suppress
from typing import Final

import msgspec

_MOST_PID: Final = 1 << 31
_TEXT_BYTES: Final = 64


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process, as it describes itself.

    Attributes:
        host: its machine's name, for people.
        boot: which start of which machine; "" where the system does not say.
        namespace: in which processes and times are counted: containers of one machine share its start.
        pid: its number there.
        started: when, as the system writes it; "" where it does not say.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host or 'an unnamed machine'}"


def this_process() -> Process:
    """The one that asks."""
    pid = os.getpid()
    boot, namespace = (_linux() if sys.platform == "linux" else _macos() if sys.platform == "darwin" else ("", "")) if pid > 0 else ("", "")
    return Process(host=platform.node(), boot=boot, namespace=namespace, pid=pid, started=_status(pid)[1])


def known_dead(process: Process) -> bool:
    """Whether a process has certainly ended. False where nobody can say."""
    return _lives(process) is False


def known_alive(process: Process) -> bool:
    """Whether a process certainly runs. False where nobody can say."""
    return _lives(process) is True


def _lives(process: Process) -> bool | None:
    here = this_process()
    if not process.boot or not process.namespace or (process.boot, process.namespace) != (here.boot, here.namespace):
        return None
    if not 0 < process.pid < _MOST_PID:
        return None
    try:
        os.kill(process.pid, 0)  # asks only; on Windows, which has no `boot`, it would end it
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        pass
    state, started = _status(process.pid)
    if not started or not process.started:
        return None
    if started != process.started:
        return False  # its number was given to another one
    return not (state in ("Z", "X") and _threads(process.pid) == 1)  # ended, and nobody has asked how


def _linux() -> tuple[str, str]:
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return "", ""  # a /proc of another namespace
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read(_TEXT_BYTES).strip()
        spaces = [os.readlink("/proc/self/ns/pid")]
        with suppress(OSError):  # Linux before 5.6 has none
            spaces.append(os.readlink("/proc/self/ns/time"))
        return boot, " ".join(spaces)
    except (OSError, ValueError):
        return "", ""


def _macos() -> tuple[str, str]:
    text, length = ctypes.create_string_buffer(_TEXT_BYTES), ctypes.c_size_t(_TEXT_BYTES)
    try:
        failed = ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(length), None, ctypes.c_size_t(0))
    except (OSError, AttributeError):
        return "", ""
    return ("", "") if failed or not text.value else (text.value.decode("ascii", "replace"), "all")


def _status(pid: int) -> tuple[str, str]:
    """State and start of a process, by Linux's `/proc`; two empty texts where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            after_name = file.read(4096).rpartition(b")")[2].split()
        return after_name[0].decode("ascii"), after_name[19].decode("ascii")
    except (OSError, IndexError, ValueError):
        return "", ""


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0

"""A guard for files that nobody trusts: opens them in a process of its own, which ends at the first thing that a reader must never do.

Run as a program it is that process: it takes paths on its input, one JSON list a line, and answers with a line for each file.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

MOST_BYTES: Final = 512 << 20  # that one file may take
SECONDS: Final = 2.0  # for any file, and
SECONDS_PER_BYTE: Final = 1.0 / 10_000_000
SLOWNESS: Final = float(os.environ.get("TENSORKEEP_SLOWNESS", "4"))  # how much longer a busy or slow machine may take

_NEVER: Final = (
    "compile", "exec", "import", "pickle.find_class", "marshal.", "socket.", "subprocess.", "os.system", "os.exec", "os.fork",
    "os.posix_spawn", "os.spawn", "os.startfile", "os.remove", "os.rename", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.chmod",
    "os.chown", "os.truncate", "os.putenv", "os.kill", "shutil.", "ctypes.dlopen", "tempfile.", "urllib.", "http.", "ftplib.", "smtplib.",
    "webbrowser.", "pty.", "code.__new__", "function.__new__", "setopencodehook", "sqlite3.", "syslog.", "winreg.", "_winapi.",
)  # fmt: skip
"""Beginnings of the names of events of Python's audit hooks: https://docs.python.org/3/library/audit_events.html"""


@dataclasses.dataclass
class Outcome:
    """What came of one file.

    Attributes:
        path: of the file.
        kind: `read`, or the class of the error.
        message: of the error.
        seconds, nbytes: of the processor that it took, and by how much the memory of the process grew.
        did: what it must never do, and did; "" if nothing.
        findings: severities that a scan found, each once; `incomplete` too.
        tensors: how many were read.
    """

    path: str
    kind: str
    message: str
    seconds: float
    nbytes: int
    did: str
    findings: list[str]
    tensors: int

    def problems(self) -> list[str]:
        """Whatever breaks a promise, in words."""
        found = []
        nbytes = (
            sum(file.stat().st_size for file in Path(self.path).rglob("*")) if Path(self.path).is_dir() else Path(self.path).stat().st_size
        )
        allowed = SLOWNESS * (SECONDS + nbytes * SECONDS_PER_BYTE)
        if self.did:
            found.append(f"it did what no reader may: {self.did}")
        if self.kind not in _ALLOWED:
            found.append(f"{self.kind}: {self.message}")
        elif self.kind != "read" and not self.message.strip():
            found.append("a refusal without a word")
        if self.seconds > allowed:
            found.append(f"{self.seconds:.1f} s, {allowed:.1f} are allowed")
        if self.nbytes > MOST_BYTES:
            found.append(f"{self.nbytes:,} bytes of memory")
        return found


_ALLOWED: Final = {
    "read",
    "FormatError",
    "OutsideError",
    "NotThere",
    "CorruptError",
    "UnsupportedError",
    "MissingExtraError",
    "IsADirectoryError",
    "NoCheckpoint",
}


def look(paths: Iterable[Path], *, scan: bool = True, timeout_s: float = 3000) -> list[Outcome]:
    """Open every file, read all its tensors, and scan it, in a process of its own.

    Args:
        paths: of files and folders.
        scan: whether to scan too.
        timeout_s: for all of them together.
    """
    names = [str(path) for path in paths]
    source = str(Path(sys.modules["tensorkeep"].__file__ or "").parent.parent) if "tensorkeep" in sys.modules else ""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))}
    command = [sys.executable, __file__, *(["--scan"] if scan else [])]
    done = subprocess.run(command, input=json.dumps(names), capture_output=True, text=True, timeout=timeout_s, env=environment, check=False)
    outcomes = [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]
    if len(outcomes) < len(names):
        tail = done.stderr[-2000:]
        outcomes.append(Outcome(names[len(outcomes)], f"the process ended with {done.returncode}", tail, 0, 0, "", [], 0))
    return outcomes


def _peak() -> int:
    """The most memory that was in use since `_forget`, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _forget() -> int:
    """Begin to watch memory anew; what is in use now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


class _Guard:
    """An audit hook that notes, and stops, what a reader must never do."""

    def __init__(self) -> None:
        self.on = False
        self.did = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        forbidden = event.startswith(_NEVER)
        if event == "open":
            flags = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0
            forbidden = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        if forbidden:
            self.on = False
            self.did = f"{event}{arguments!r:.300}"
            raise RuntimeError(self.did)


def _read_all(tk: Any, path: str, tensors_of: Any) -> int:
    """Every tensor of a file, 64 MiB of one at most; what cannot be had as an array is had as bytes."""
    count = 0
    with tk.open(path) as contents:
        for _, tensor in tensors_of(contents.tree):
            tensor.source.read(0, min(tensor.nbytes, 64 << 20))
            count += 1
    return count


def _main(names: Sequence[str], *, scan: bool) -> None:
    import tensorkeep as tk
    from tensorkeep.formats import table
    from tensorkeep.tree import tensors as tensors_of

    for row in table.ROWS:
        table.reader(*row[:2])
    with contextlib.suppress(Exception):
        tk.show(__file__)
    guard = _Guard()
    sys.addaudithook(guard)
    for name in names:
        findings: list[str] = []
        count, kind, message = 0, "read", ""
        before, started = _forget(), time.process_time()  # of this process: others may keep it waiting
        for warm in (True, False) if name == names[0] else (False,):  # what is imported on first use is none of the file's doing
            guard.on, guard.did = not warm, ""
            try:
                count = _read_all(tk, name, tensors_of)
                tk.show(name)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
                kind, message = type(error).__name__, str(error)
            if scan and hasattr(tk, "scan"):
                try:
                    result = tk.scan(name)
                    findings = sorted({finding.severity for finding in result.findings})
                    findings += [] if result.complete else ["incomplete"]
                except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
                    kind, message = (type(error).__name__, f"scan: {error}") if kind in _ALLOWED else (kind, message)
            guard.on = False
        took = time.process_time() - started
        outcome = Outcome(name, kind, message, took, max(0, _peak() - before), guard.did, findings, count)
        print(json.dumps(dataclasses.asdict(outcome)), flush=True)


if __name__ == "__main__":
    _main(json.load(sys.stdin), scan="--scan" in sys.argv)

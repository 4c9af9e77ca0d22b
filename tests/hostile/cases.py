"""A case: a file, or a folder of files, and how opening and scanning it must end.

Lives here: the case itself, how it is written to a disk, what is wrong with an outcome. Lives elsewhere: the cases, in a module for
each family; the process that opens them (guarded).
"""

import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import guarded

READ: Final = "read"
REFUSED: Final = "refused"
EITHER: Final = "either"


@dataclass(frozen=True, slots=True)
class Link:
    """A file that is a link to another: `hard`, or by name."""

    to: str
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One file, or one folder.

    Attributes:
        name: what is special about it.
        files: by name; the first is opened, or the folder that its name begins with.
        end: of opening it and reading all its tensors.
        why: what the refusal must match.
        scan: `clean`: no finding, read to the end; `told`: a finding or incomplete, for what would run something or lie; "": anything.
    """

    name: str
    files: Mapping[str, bytes | Link]
    end: Literal["read", "refused", "either"] = "refused"
    why: str = ""
    scan: Literal["clean", "told", ""] = ""

    def put(self, folder: Path) -> Path:
        """Write it; the path to open."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, bytes):
                path.write_bytes(data)
            elif data.hard:
                os.link(folder / data.to, path)
            else:
                path.symlink_to(data.to)
        return folder / next(iter(self.files)).partition("/")[0]

    def wrong(self, outcome: guarded.Outcome) -> list[str]:
        """What an outcome breaks of the promises for every file, and of those for this one."""
        problems = outcome.problems()
        if self.end == READ and outcome.kind != "read":
            problems.append(f"refused: {outcome.message}")
        if self.end == REFUSED and outcome.kind == "read":
            problems.append(f"read, {outcome.tensors} tensors")
        if self.why and outcome.kind != "read" and not re.search(self.why, outcome.message):
            problems.append(f"refused for another reason: {outcome.message}")
        if self.scan == "clean" and outcome.findings:
            problems.append(f"a false alarm: {outcome.findings}")
        if self.scan == "told" and not outcome.findings:
            problems.append("scanned clean")
        return problems


def one(name: str, data: bytes, end: Any = REFUSED, why: str = "", scan: Any = "", *, file: str = "model.bin") -> Case:
    """A case of one file."""
    return Case(name, {file: data}, end, why, scan)


def honest(name: str, data: "bytes | Mapping[str, bytes]", *, file: str = "model.bin") -> Case:
    """One that must load and scan clean."""
    return Case(name, {file: data} if isinstance(data, bytes) else data, READ, scan="clean")


def builders(module: str) -> Any:
    """A test module that makes files of a format, or a package; None where it, or a tool that it needs, is missing."""
    try:
        return importlib.import_module(module)
    except BaseException as error:
        if isinstance(error, ImportError) or type(error).__name__ == "Skipped":
            return None
        raise


def gathered(*makers: Callable[[], Iterable[Case]]) -> Iterator[Case]:
    """The cases of several makers; no two may have one name."""
    met: set[str] = set()
    for maker in makers:
        for case in maker():
            assert case.name not in met, f"two cases are called {case.name}"
            met.add(case.name)
            yield case

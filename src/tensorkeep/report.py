"""The report: everything in which a file and its target disagree, as data and as a table.

Lives here: problems, their sentences, and what would mend them. Lives elsewhere: finding them (matching).
"""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tensorkeep.errors import shown

_SHOWN: Final = 20  # lines of one kind that a message shows
_COMPARED: Final = 200  # names that are looked through for one that is close: more would take quadratic time
_HEADINGS: Final = {
    "missing": "missing from the file",
    "unexpected": "in the file, not in the target",
    "shape": "another shape",
    "dtype": "another dtype",
    "kind": "another kind of value",
    "tied": "tied in the target",
    "target": "cannot be written to",
    "object": "refused",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One disagreement.

    Attributes:
        kind: `missing`, `unexpected`, `shape`, `dtype`, `kind`, `tied`, `target` or `object`.
        path: of the target, or of the file where the target has none.
        found: what the file has, or "".
        wanted: what the target has, or "".
        hint: what may be the cause, or a way out.
    """

    kind: str
    path: str
    found: str
    wanted: str
    hint: str = ""

    def __str__(self) -> str:
        parts = [part for part in (self.found and f"file has {self.found}", self.wanted and f"target has {self.wanted}") if part]
        return f"{shown(self.path) or '(the whole)'}: {shown(', '.join(parts))}" + (f" ({shown(self.hint)})" if self.hint else "")


@dataclass(frozen=True, slots=True)
class Cast:
    """One tensor that was converted.

    Attributes:
        path: of the target.
        source, target: the two dtypes.
        changed: values that the conversion changed, of how many; -1 before it is done.
        count: elements of the tensor.
    """

    path: str
    source: str
    target: str
    changed: int
    count: int

    def __str__(self) -> str:
        return f"{shown(self.path)}: {self.source} became {self.target}, {self.changed:,} of {self.count:,} values changed"


@dataclass(frozen=True, slots=True)
class Report:
    """All problems of one load at once, and what `cast` and `rename` changed. Prints as a table.

    Attributes:
        problems: everything that does not fit.
        casts: tensors that were converted.
        renamed: (path in the file, path in the target).
        hints: what would mend many problems at once, such as a prefix.
    """

    problems: Sequence[Problem] = ()
    casts: Sequence[Cast] = ()
    renamed: Sequence[tuple[str, str]] = ()
    hints: Sequence[str] = ()

    def of(self, kind: str) -> list[str]:
        """The paths of one kind of problem, such as `missing`."""
        return [problem.path for problem in self.problems if problem.kind == kind]

    @property
    def missing(self) -> list[str]:
        return self.of("missing")

    @property
    def unexpected(self) -> list[str]:
        return self.of("unexpected")

    def __str__(self) -> str:
        lines: list[str] = []
        for kind, heading in _HEADINGS.items():
            some = [problem for problem in self.problems if problem.kind == kind]
            if some:
                lines += [f"  {heading} ({len(some)}):", *_table(some)]
        if self.casts:
            lines += [f"  converted ({len(self.casts)}):", *_shown([f"    {cast}" for cast in self.casts])]
        lines += [f"  hint: {hint}" for hint in self.hints]
        return "\n".join(lines)


def _table(problems: list[Problem]) -> list[str]:
    rows = [
        (
            shown(problem.path) or "(the whole)",
            problem.found and f"file: {shown(problem.found)}",
            problem.wanted and f"target: {shown(problem.wanted)}",
            problem.hint and f"({shown(problem.hint)})",
        )
        for problem in problems[:_SHOWN]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False) if width) + f"  {row[3]}" for row in rows
    ]
    more = len(problems) - _SHOWN
    return [line.rstrip() for line in lines] + ([f"    ... and {more:,} more"] if more > 0 else [])


def _shown(lines: list[str]) -> list[str]:
    return lines[:_SHOWN] + ([f"    ... and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else [])


def make_report(problems: Sequence[Problem], *, renamed: Sequence[tuple[str, str]] = (), spare: Sequence[tuple[str, str]] = ()) -> Report:
    """A report, with the hints that the names give away.

    Args:
        spare: path and description of what the file has beside, where that is no problem: it may be what is missing.
    """
    missing = [problem.path for problem in problems if problem.kind == "missing"]
    others = [(problem.path, problem.found) for problem in problems if problem.kind == "unexpected"] + list(spare)
    hints = _prefix_hints(missing, [path for path, _ in others])
    if missing and others and not hints:
        of_spec: dict[str, list[str]] = {}
        for path, found in others:
            of_spec.setdefault(found, []).append(path)
        problems = [_with_close_match(problem, of_spec.get(problem.wanted, [])) for problem in problems]
    return Report(tuple(problems), renamed=tuple(renamed), hints=tuple(hints))


def _with_close_match(problem: Problem, unexpected: list[str]) -> Problem:
    if problem.kind != "missing" or problem.hint or len(unexpected) > _COMPARED:
        return problem
    close = difflib.get_close_matches(problem.path, unexpected, n=1, cutoff=0.7)
    if not close:
        return problem
    return Problem(problem.kind, problem.path, problem.found, problem.wanted, f"did you mean {close[0]}?")


def _prefix_hints(missing: list[str], unexpected: list[str]) -> list[str]:
    """The prefix that the file has too much or too little, if it explains most of what is missing."""
    if not missing or not unexpected:
        return []
    more = Counter(extra for path in missing[:_SHOWN] for other in unexpected[:_COMPARED] if (extra := _prefix(other, path)))
    less = Counter(extra for path in missing[:_SHOWN] for other in unexpected[:_COMPARED] if (extra := _prefix(path, other)))
    there, absent = set(unexpected), set(missing)
    for prefix, _ in more.most_common(1):
        fits = sum(prefix + path in there for path in missing)
        if 2 * fits > len(missing):
            return [f"the file's paths start with {prefix!r}: rename={{'{prefix}*': '*'}} fits {fits} of {len(missing)}"]
    for prefix, _ in less.most_common(1):
        fits = sum(prefix + path in absent for path in unexpected)
        if 2 * fits > len(missing):
            return [f"the target's paths start with {prefix!r}: rename={{'*': '{prefix}*'}} fits {fits} of {len(missing)}"]
    return []


def _prefix(longer: str, shorter: str) -> str:
    """What stands before `shorter` in `longer`, up to a dot; "" if it does not end so."""
    return longer[: -len(shorter)] if longer.endswith(f".{shorter}") else ""

"""The report: everything in which a file and its target disagree, as data and as a table.

Lives here: problems, their sentences, and what would mend them. Lives elsewhere: finding them (matching).
"""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from tensorkeep.errors import shown
from tensorkeep.selection import Pattern, renamer

_SHOWN: Final = 20  # lines of one kind that a message shows
_COMPARED: Final = 200  # names that are looked through for one that is close: more would take quadratic time
_RULES: Final = 4  # entries of a rename that a hint proposes
_LONGEST_WRAPPER: Final = 200  # characters
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
        lines += [f"  hint: {shown(hint)}" for hint in self.hints]
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
    hints = _wrapper_hints(missing, [path for path, _ in others], unexpected=len(others) - len(spare))
    if missing and others and not hints:
        problems = _with_close_matches(problems, others)
    return Report(tuple(problems), renamed=tuple(renamed), hints=tuple(hints))


def _with_close_matches(problems: Sequence[Problem], others: list[tuple[str, str]]) -> list[Problem]:
    """Names that are close, for as many of the missing as a message shows."""
    of_spec: dict[str, list[str]] = {}
    for path, found in others:
        of_spec.setdefault(found, []).append(path)
    told = list(problems)
    places = (place for place, problem in enumerate(problems) if problem.kind == "missing")
    for place in islice(places, _SHOWN):
        told[place] = _with_close_match(told[place], of_spec.get(told[place].wanted, []))
    return told


def _with_close_match(problem: Problem, others: list[str]) -> Problem:
    if problem.hint or len(others) > _COMPARED:
        return problem
    close = difflib.get_close_matches(problem.path, others, n=1, cutoff=0.7)
    if not close:
        return problem
    return Problem(problem.kind, problem.path, problem.found, problem.wanted, f"did you mean {close[0]}?")


@dataclass(frozen=True, slots=True)
class _Wrapper:
    """What stands in the paths of one side only, where a model was wrapped: `model.module.fc.weight`, `enc._orig_mod.weight`.

    Attributes:
        inside: `module.`, `_orig_mod.`.
        in_file: whether the file has it, or the target.
    """

    inside: str
    in_file: bool

    def rule(self, before: str) -> tuple[str, str]:
        """The pattern and what it becomes, for what stands behind `before`: `model.`, or "" at the root."""
        wrapped, bare = f"{before}{self.inside}*", f"{before}*"
        return (wrapped, bare) if self.in_file else (bare, wrapped)


def _wrapper_hints(missing: list[str], others: list[str], *, unexpected: int) -> list[str]:
    """The part of a path that file or target has too much, if it explains most of what is missing.

    Args:
        others: paths of the file that may be what is missing.
        unexpected: how many of them, from the first on, are problems.
    """
    absent = set(missing)
    for wrapper, befores in _wrappers(missing, others):
        attempts: list[dict[Pattern, str]] = [dict([wrapper.rule(befores[0])]), dict(map(wrapper.rule, befores[:_RULES]))]
        if wrapper.in_file:
            attempts.append(dict([wrapper.rule("*.")]))
        for rules in attempts:
            renamed = renamer(rules)
            new = [renamed(path) for path in others]
            fits = len(absent.intersection(new))
            if fits == len(missing) or (rules is attempts[-1] and 2 * fits > len(missing)):
                left = [path for path, name in zip(others[:unexpected], new, strict=False) if name not in absent]
                where = "at their start" if list(rules) == [wrapper.rule("")[0]] else "inside"
                return [
                    f"the {'file' if wrapper.in_file else 'target'}'s paths have {wrapper.inside!r} {where}: "
                    f"rename={rules}{_only(list(rules), wrapper, left)} fits {fits} of {len(missing)}"
                ]
    return []


def _only(patterns: list[Pattern], wrapper: _Wrapper, left: list[str]) -> str:
    """What leaves the rest of the file out: it would still be unexpected. Only where all of the target is wrapped."""
    whole = f"{wrapper.inside}*"
    if not left or patterns != [whole] or any(path.startswith(wrapper.inside) for path in left):
        return ""
    return f", only={whole!r}"


def _wrappers(missing: list[str], others: list[str]) -> list[tuple[_Wrapper, list[str]]]:
    """The wrappers that a sample of the paths speaks for, and what stands before each; the likeliest first."""
    by_end: dict[str, list[str]] = {}
    for path in others:
        alike = by_end.setdefault(path.rpartition(".")[2], [])
        if len(alike) < _COMPARED:
            alike.append(path)
    votes: dict[_Wrapper, Counter[str]] = {}
    for path in missing[:: len(missing) // _SHOWN + 1]:
        for other in by_end.get(path.rpartition(".")[2], ()):
            in_file = len(other) > len(path)
            if (found := _between(other, path) if in_file else _between(path, other)) is not None:
                votes.setdefault(_Wrapper(found[1], in_file), Counter())[found[0]] += 1
    likely = sorted(votes.items(), key=lambda item: -item[1].total())[:3]
    return [(wrapper, [before for before, _ in befores.most_common()]) for wrapper, befores in likely]


def _between(longer: str, shorter: str) -> tuple[str, str] | None:
    """What stands in the longer path alone, and what before it, each with its last dot; None if they differ otherwise."""
    if not 0 < len(longer) - len(shorter) <= _LONGEST_WRAPPER:
        return None
    long, short = longer.split("."), shorter.split(".")
    more, same = len(long) - len(short), 0
    while same < len(short) - 1 and long[same] == short[same]:
        same += 1
    if more < 1 or long[same + more :] != short[same:]:
        return None
    while same and long[same - 1] == long[same + more - 1]:  # of `model.model.w` the first is the wrapper, as of `model.head`
        same -= 1
    before, inside = ("".join(f"{part}." for part in parts) for parts in (long[:same], long[same : same + more]))
    return None if set("*?[") & {*before, *inside} else (before, inside)

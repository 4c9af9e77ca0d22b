"""Looks: what one scan has seen, and the things that it looks at.

Lives here: `Thing`, a run of bytes with its place, and `Look`, which traps tell what they find. Lives elsewhere: the traps.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tensorkeep.backends.files import Surroundings
from tensorkeep.contents import Finding
from tensorkeep.errors import FormatError, escaped
from tensorkeep.limits import Limits
from tensorkeep.scanning.names import leads_out
from tensorkeep.unpickle.severity import Severity
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.extent import Extent

HEAD_BYTES: Final = 4096
_DEEPEST: Final = 6  # archives, wrappers and texts inside each other
_MOST_THINGS: Final = 200_000
_MOST_FINDINGS: Final = 1_000
_MOST_NAMED: Final = 10_000  # names of other files that are looked up
_STEPS: Final = 400_000  # which may take a second
_TEXT_BYTES: Final = 8 << 20  # likewise
_LONGEST: Final = 400  # characters of what is told


class Thing:
    """A run of bytes that something may load: a file, a member of an archive, what a text encodes.

    Args:
        extent: its bytes.
        place: where in the file it stands: `archive/data.pkl`; "" for the file itself.
        name: the name that says what it is, without folders.
        depth: how many things it stands in.
        tensor: whether a loader takes its bytes for numbers, whatever they look like.
    """

    def __init__(self, extent: Extent, place: str, name: str, *, depth: int = 0, tensor: bool = False) -> None:
        self.extent, self.place, self.name, self.depth, self.tensor = extent, place, name, depth, tensor

    @cached_property
    def head(self) -> bytes:
        """Its first bytes."""
        return bytes(self.extent.read(0, min(HEAD_BYTES, self.extent.nbytes)))

    @property
    def suffix(self) -> str:
        """What its name ends with, in small letters: `.pkl`."""
        return os.path.splitext(self.name)[1].lower()

    def at(self, place: object = "") -> str:
        """The place of something in it."""
        return ": ".join(str(part) for part in (self.place, place) if str(part))


@dataclass(slots=True)
class Tally:
    """Findings that are one: the same rule and sentence in one file."""

    finding: Finding
    count: int = 1


class Look:
    """What a scan has seen so far, and what it may still spend on a file.

    Args:
        file: the file that is being looked at, as it was named.
        inside: looks at a thing, with all traps.
        folder: where it lies, and what it names should lie; None for what lies in none.

    Attributes:
        steps: how many opcodes of pickles may still be followed. What is inflated may have more of them than there is time.
        text_bytes: how many bytes may still be searched as texts are, for the same reason.
    """

    def __init__(
        self, file: str, *, limits: Limits, budget: Budget, inside: "Callable[[Thing, Look], None]", folder: Surroundings | None = None
    ) -> None:
        self.file, self.limits, self.budget, self._inside, self._folder = file, limits, budget, inside, folder
        self.steps = _STEPS + 2 * budget.nbytes
        self.text_bytes = _TEXT_BYTES + 10 * budget.nbytes
        self._named: dict[str, str] = {}
        self.findings: dict[tuple[str, str], Tally] = {}
        self.incomplete: list[str] = []
        self._things = 0

    def found(self, severity: Severity, place: str, what: str, rule: str) -> None:
        """Tell what was found."""
        what = escaped(what if len(what) <= _LONGEST else f"{what[: _LONGEST - 3]}...")
        known = self.findings.get((rule, what))
        if known is not None:
            known.count += 1
        elif len(self.findings) >= _MOST_FINDINGS:
            self.stopped("", f"more than {_MOST_FINDINGS:,} different findings")
        else:
            self.findings[rule, what] = Tally(Finding(severity, escaped(place), what, rule, self.file))

    @property
    def clean(self) -> bool:
        """Whether nothing was found so far that a person must hear of, and all of it was read."""
        return not self.incomplete and all(tally.finding.severity == "harmless" for tally in self.findings.values())

    def stopped(self, place: str, why: str) -> None:
        """Tell that something could not be read to its end."""
        sentence = escaped(f"{place}: {why}" if place else why)
        if sentence not in self.incomplete and len(self.incomplete) < 100:
            self.incomplete.append(sentence)

    def text(self, thing: Thing, most: int) -> bytes | None:
        """All bytes of a text; None if they are more than so many, or than are worth it, which is told."""
        most = max(0, min(most, self.text_bytes))
        if thing.extent.nbytes > most:
            self.stopped(thing.place, f"a text of {thing.extent.nbytes:,} bytes, at most {most:,} are read")
            return None
        self.text_bytes -= thing.extent.nbytes
        return bytes(thing.extent.read())

    def leads_out(self, name: str) -> str:
        """Why a file that is named is none beside this one; "" if it is one, or is not there."""
        if why := leads_out(name):
            return why
        if self._folder is None or len(self._named) >= _MOST_NAMED:
            return self._named.get(name, "")
        if name not in self._named:
            self._named[name] = ""
            try:
                self._folder.open(name.removeprefix("./")).close()
            except FormatError as error:
                self._named[name] = f"is that of no file of its own: {error.problem}"
            except OSError:  # not there, or not to be read: nothing that this file could have of it
                pass
        return self._named[name]

    def inside(self, thing: Thing) -> None:
        """Look at a thing that stands in another."""
        self._things += 1
        if self._things > _MOST_THINGS:
            self.stopped("", f"more than {_MOST_THINGS:,} things inside of it")
        elif thing.depth > _DEEPEST:
            self.stopped(thing.place, f"nested deeper than {_DEEPEST}")
        elif thing.extent.nbytes:
            self._inside(thing, self)

"""The protocols of formats."""

from typing import Protocol

from tensorkeep.contents import Contents
from tensorkeep.formats.carried import Carried
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.writing import Plan
from tensorkeep.limits import Limits


class Reader(Protocol):
    """One foreign format. Never executes, never trusts a number, stays lazy where the format allows."""

    name: str

    def recognizes(self, peek: Peek) -> bool:
        """Whether it is this format, by content. Looks at `peek` alone; never raises for a file of another format."""

    def read(self, peek: Peek) -> Contents:
        """Its contents, made by `assemble.contents`.

        Raises:
            FormatError: it breaks its format, or a limit.
            CorruptError: a checksum of the format is wrong.
            MissingExtraError: an optional package is needed.
        """


class Writer(Protocol):
    """One format that `convert` writes. Every offset is known before a byte is written, and no bit of a tensor changes."""

    def plan(self, carried: Carried, *, limits: Limits) -> Plan:
        """What would be written. Adds to `carried` what the format has no place for, and what it keeps in another way.

        Raises:
            UnsupportedError: a tensor that the format cannot hold.
        """

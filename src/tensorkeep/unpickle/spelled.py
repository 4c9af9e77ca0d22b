"""Runs of numbers that protocol 0 spells out, a line each: pushed one after the other, or each appended to a list at once.

Old pickles have millions of them, so a run is taken in one step. Only the plainest spelling counts as one: whatever else a number may look
like ends the run, and is read by `literals`.
"""

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

_INT: Final = rb"(?:0|-?[1-9][0-9]{0,17})"
_FLOAT: Final = rb"-?[0-9]{1,20}(?:\.[0-9]{0,20})?(?:e[+-]?[0-9]{1,3})?"


class Run(NamedTuple):
    """Numbers that follow each other.

    Attributes:
        values: what they are.
        end: the place behind them.
        appended: whether each is appended to what was on the stack before it.
    """

    values: list[Any]
    end: int
    appended: bool


class Kind(NamedTuple):
    """One of the opcodes that spell a number."""

    pushed: "re.Pattern[bytes]"
    appended: "re.Pattern[bytes]"
    between: bytes
    of_text: Callable[[bytes], Any]


def _kind(opcode: bytes, number: bytes, end: bytes, of_text: Callable[[bytes], Any]) -> Kind:
    return Kind(
        re.compile(number + end + b"\n(?:" + opcode + number + end + b"\n)*"),
        re.compile(number + end + b"\na(?:" + opcode + number + end + b"\na)*"),
        opcode,
        of_text,
    )


INTS: Final = _kind(b"I", _INT, b"", int)
LONGS: Final = _kind(b"L", _INT, b"L", int)
FLOATS: Final = _kind(b"F", _FLOAT, b"", float)


def numbers(kind: Kind, data: bytes, at: int) -> Run | None:
    """The run that begins behind an opcode; None where its first number is spelled in another way.

    Args:
        kind: which opcode it is: `INTS`, `LONGS` or `FLOATS`.
        data: the window.
        at: the place behind the opcode.
    """
    found, end = kind.appended.match(data, at), b"\na"
    if found is None:
        found, end = kind.pushed.match(data, at), b"\n"
    if found is None:
        return None
    if kind is LONGS:
        end = b"L" + end
    texts = found[0][: -len(end)].split(end + kind.between)
    return Run(list(map(kind.of_text, texts)), found.end(), end[-1:] == b"a")

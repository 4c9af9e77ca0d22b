"""Literals: the numbers and texts that the opcodes of protocol 0 spell out in a line."""

import codecs
import re
from typing import Final

from tensorkeep.unpickle.state import State

_LONGEST_NUMBER: Final = 4300  # digits: what Python itself reads and writes
_OCTAL: Final = re.compile(rb"[+-]?0[0-7]+")
_INT: Final = re.compile(rb"\s*[+-]?(?:0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|[0-9]+)\s*")
_DECIMAL: Final = re.compile(rb"\s*[+-]?[0-9]+\s*")
_FLOAT: Final = re.compile(rb"\s*[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf|nan|infinity)\s*", re.IGNORECASE)
_ESCAPE: Final = re.compile(rb"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.|$)", re.DOTALL)
_SHORT: Final = dict(zip(b"ntrabfv\\'\"", b"\n\t\r\a\b\f\v\\'\"", strict=True))


def _short(data: bytes, what: str, state: State, at: int) -> bytes:
    if len(data) > _LONGEST_NUMBER:
        raise state.error(at, f"{what} of {len(data):,} characters; at most {_LONGEST_NUMBER:,} are read")
    return data


def int_of(data: bytes, state: State, at: int, *, plain: bool = False) -> int:
    """The text of an int; `00` and `01` are what protocols 0 and 1 have for False and True, unless it is plain."""
    if not plain and data in (b"00", b"01"):
        return data == b"01"
    text = _short(data, "an int", state, at)
    if not plain and _OCTAL.fullmatch(text):  # as C reads it
        return int(text, 8)
    if _INT.fullmatch(text) is None:
        raise state.error(at, f"{data[:60]!r} as an int")
    return int(text, 10) if _DECIMAL.fullmatch(text) else int(text, 0)


def decimal(data: bytes, state: State, at: int) -> int:
    """A number of the memo."""
    if len(data) > 20 or _DECIMAL.fullmatch(data) is None:
        raise state.error(at, f"{data[:60]!r} as a number of the memo")
    return int(data)


def float_of(data: bytes, state: State, at: int) -> float:
    text = _short(data, "a float", state, at)
    if _FLOAT.fullmatch(text) is None:
        raise state.error(at, f"{data[:60]!r} as a float")
    return float(text)


def quoted(data: bytes, state: State, at: int) -> str:
    """A text of Python 2 as its source would have it, between quotes. Its bytes become the characters of the same number."""
    if len(data) < 2 or data[0] != data[-1] or data[0] not in b"'\"":
        raise state.error(at, "a text that does not stand between quotes")
    inner = data[1:-1]
    return str(_ESCAPE.sub(lambda match: _unescaped(match[1], state, at), inner) if b"\\" in inner else inner, "latin-1")


def _unescaped(code: bytes, state: State, at: int) -> bytes:
    if code == b"x":
        raise state.error(at, "a text with \\x that no two digits follow")
    if code[:1] == b"x":
        return bytes((int(code[1:], 16),))
    if code.isdigit():
        return bytes((int(code, 8) & 0xFF,))
    if not code:
        raise state.error(at, "a text that ends in a backslash")
    if code == b"\n":
        return b""
    short = _SHORT.get(code[0])
    return b"\\" + code if short is None else bytes((short,))


def raw_unicode(data: bytes, state: State, at: int) -> str:
    """A text in which `\\uXXXX` stands for what is no Latin-1."""
    try:
        return codecs.raw_unicode_escape_decode(data)[0]
    except UnicodeDecodeError as error:
        raise state.error(at, f"a text that is spelled wrongly: {error.reason}") from None

"""The header of `.npy`: which array follows, told by a Python dict that is read by a grammar of its own.

NumPy evaluates that dict as a literal of Python, and whatever stands in it as a type. Here is only what NumPy itself writes: one dict of
three keys; texts, whole numbers, truth values, tuples and lists; element types spelled as `dtype.descr` spells them.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, versions 1.0, 2.0 and 3.0.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from tensorkeep.errors import FormatError
from tensorkeep.wire.cursor import Cursor

MAGIC: Final = b"\x93NUMPY"

_MOST_HEADER_BYTES: Final = 1 << 20  # NumPy itself reads no more than 10,000 from a stranger; 10,000 fields take 300 KB
_DEEPEST: Final = 20  # brackets inside each other
_MOST_FIELDS: Final = 10_000
_MOST_ITEM_BYTES: Final = 2**31 - 1  # NumPy's own bound
_MOST_LENGTHS: Final = 64  # dimensions, NumPy's own bound
_MOST_DIGITS: Final = 19  # of 2**63 - 1
_TOKEN: Final = re.compile(
    r"[ \t\r\n]*(?:([][(){},:])|(True|False)\b|(-?[0-9]+)[lL]?(?![\w.])"
    r"|[ub]?('(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"))"
)
_SPACE: Final = re.compile(r"[ \t\r\n\0]*")
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_PLAIN_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_UNITS: Final = "Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as"
_TYPE: Final = re.compile(
    rf"[<>|=]?(?:b1|\?|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[mM]8(?:\[(?:[1-9][0-9]{{0,8}})?(?:{_UNITS})\])?|[SaUV][0-9]{{1,10}}|O[48]?)"
)


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What stands before the bytes of one array.

    Attributes:
        dtype: of an element, in the file's byte order.
        shape: its lengths.
        fortran: whether the first index runs fastest.
        start: where the bytes begin, from the start of the extent.
    """

    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize

    @property
    def objects(self) -> bool:
        """Whether a pickle follows instead of bytes."""
        return self.dtype.hasobject


def read_header(cursor: Cursor) -> NpyHeader:
    """The header that begins where the cursor stands.

    Raises:
        FormatError: it is none, or says what NumPy does not write.
    """
    if bytes(cursor.raw("magic", len(MAGIC))) != MAGIC:
        raise cursor.error("no array of NumPy begins here")
    major, minor = cursor.u8("major version"), cursor.u8("minor version")
    if major not in (1, 2, 3) or minor:
        raise cursor.error(f"version {major}.{minor} of .npy; 1.0, 2.0 and 3.0 are known")
    nbytes = cursor.u16("length of the header") if major == 1 else cursor.u32("length of the header")
    if nbytes > _MOST_HEADER_BYTES:
        raise cursor.error(f"a header of {nbytes:,} bytes, at most {_MOST_HEADER_BYTES:,} are read")
    raw = bytes(cursor.raw("header", nbytes))
    try:
        text = raw.decode("utf-8" if major == 3 else "latin-1")
    except UnicodeDecodeError:
        raise cursor.error("its header is no UTF-8") from None
    dtype, shape, fortran = _Header(text, cursor).read()
    return NpyHeader(dtype, shape, fortran, cursor.at)


def type_of(descr: object) -> "np.dtype[Any]":
    """The element type that a `descr` spells: a text, a pair of type and shape, or a list of fields.

    Raises:
        ValueError: it is none that NumPy writes.
    """
    return _type_of(descr, 0)


class _Header:
    """One dict, read from left to right."""

    def __init__(self, text: str, cursor: Cursor) -> None:
        self._cursor = cursor
        self._tokens: list[tuple[str | Any, ...]] = []  # a mark, a word, a number or a text: one of them each
        at = 0
        while (match := _TOKEN.match(text, at)) is not None:
            self._tokens.append(match.groups())
            at = match.end()
        end = _SPACE.match(text, at)
        if end is None or end.end() != len(text):
            raise self.error(f"at character {at:,} stands {text[at : at + 40]!r}, which NumPy does not write")
        self._tokens.append(("", "", "", ""))  # matches nothing
        self._next = 0

    def error(self, problem: str) -> FormatError:
        return self._cursor.error(f"its header is broken: {problem}")

    def read(self) -> tuple["np.dtype[Any]", tuple[int, ...], bool]:
        header = self._dict()
        if set(header) != {"descr", "fortran_order", "shape"}:
            raise self.error(f"it has the keys {', '.join(map(repr, header))!s:.200}; wanted are descr, fortran_order and shape")
        if self._next != len(self._tokens) - 1:
            raise self.error("something stands behind the dict")
        shape, fortran = header["shape"], header["fortran_order"]
        if not isinstance(shape, tuple) or not all(type(length) is int and 0 <= length < 2**63 for length in shape):
            raise self.error(f"the shape is {shape!r:.200}, wanted is a tuple of numbers from 0")
        if len(shape) > _MOST_LENGTHS:
            raise self.error(f"{len(shape):,} dimensions, NumPy has at most {_MOST_LENGTHS}")
        if type(fortran) is not bool:
            raise self.error(f"fortran_order is {fortran!r:.100}, wanted is True or False")
        try:
            return type_of(header["descr"]), shape, fortran
        except ValueError as error:
            raise self.error(str(error)) from None

    def _dict(self) -> dict[str, object]:
        found: dict[str, object] = {}
        self._wants("{")
        while not self._is("}"):
            key = self._value(1)
            if not isinstance(key, str) or key in found:
                raise self.error(f"the key {key!r:.100} is no text, or occurs twice")
            self._wants(":")
            found[key] = self._value(1)
            if not self._is(","):
                self._wants("}")
                break
        return found

    def _is(self, mark: str) -> bool:
        """Whether this mark comes next; if so, it is passed."""
        if self._tokens[self._next][0] != mark:
            return False
        self._next += 1
        return True

    def _wants(self, mark: str) -> None:
        if not self._is(mark):
            raise self.error(f"wanted is {mark!r}, found {''.join(filter(None, self._tokens[self._next])) or 'the end'!r:.60}")

    def _value(self, depth: int) -> object:
        if depth > _DEEPEST:
            raise self.error(f"brackets nested deeper than {_DEEPEST}")
        mark, word, number, text = self._tokens[self._next]
        self._next += 1
        if text:
            return self._text(text[1:-1])
        if number:
            if len(number) > _MOST_DIGITS:
                raise self.error("a number that no array needs")
            return int(number)
        if word:
            return word == "True"
        if mark == "[":
            return self._items("]", depth)[0]
        if mark == "(":
            items, comma = self._items(")", depth)
            return items[0] if len(items) == 1 and not comma else tuple(items)
        raise self.error(f"a value is wanted, found {mark or 'the end'!r}")

    def _items(self, end: str, depth: int) -> tuple[list[object], bool]:
        """What stands up to the bracket that closes, and whether a comma stands before it."""
        items: list[object] = []
        comma = False
        while not self._is(end):
            if items and not comma:
                raise self.error(f"wanted is ',' or {end!r}")
            items.append(self._value(depth + 1))
            comma = self._is(",")
        return items, comma

    def _text(self, inside: str) -> str:
        if "\\" not in inside:
            return inside

        def plain(match: "re.Match[str]") -> str:
            code = match[1] or match[2] or match[3]
            if code is not None:
                number = int(code, 16)
                if number > 0x10FFFF:
                    raise self.error("a character beyond the last")
                return chr(number)
            if match[4] not in _PLAIN_ESCAPES:
                raise self.error(f"the escape \\{match[4]}")
            return _PLAIN_ESCAPES[match[4]]

        return _ESCAPE.sub(plain, inside)


def _type_of(descr: object, depth: int) -> "np.dtype[Any]":
    if depth > _DEEPEST:
        raise ValueError(f"types nested deeper than {_DEEPEST}")
    if isinstance(descr, str):
        return _named(descr)
    if isinstance(descr, tuple):
        if len(descr) != 2:
            raise ValueError(f"a type of {len(descr)} parts; wanted are a type and a shape")
        return _many(_type_of(descr[0], depth + 1), descr[1])
    if isinstance(descr, list):
        return _fields(descr, depth)
    raise ValueError(f"the type {descr!r:.100} is none that NumPy writes")


@lru_cache(maxsize=256)
def _named(descr: str) -> "np.dtype[Any]":
    """A type of its own name, such as `<f4`."""
    if _TYPE.fullmatch(descr) is None or int("".join(filter(str.isdigit, descr.partition("[")[0])) or 0) > _MOST_ITEM_BYTES // 4:
        raise ValueError(f"the type {descr!r:.100} is none that NumPy writes")
    return _made("|O" if "O" in descr else descr.replace("a", "S") if "[" not in descr else descr)


def _fields(descr: list[object], depth: int) -> "np.dtype[Any]":
    if len(descr) > _MOST_FIELDS:
        raise ValueError(f"{len(descr):,} fields, at most {_MOST_FIELDS:,} are read")
    names: list[str] = []
    formats: list[Any] = []
    offsets: list[int] = []
    offset = 0
    for field in descr:
        if not isinstance(field, tuple) or len(field) not in (2, 3):
            raise ValueError(f"the field {field!r:.100} is none: wanted are a name, a type and perhaps a shape")
        name, kind = field[0], _type_of(field[1], depth + 1)
        if len(field) == 3:
            kind = _many(kind, field[2])
        if isinstance(name, tuple):  # a title beside the name, which says nothing about the bytes
            if len(name) != 2 or not all(isinstance(part, str) for part in name):
                raise ValueError(f"the name {name!r:.100} of a field is none")
            name = name[1]
        if not isinstance(name, str):
            raise ValueError(f"the name {name!r:.100} of a field is no text")
        if name or kind.kind != "V" or kind.names is not None or kind.subdtype is not None:  # else it only fills a gap
            names.append(name)
            formats.append(kind)
            offsets.append(offset)
        offset += kind.itemsize
        if offset > _MOST_ITEM_BYTES:
            raise ValueError(f"an element of more than {_MOST_ITEM_BYTES:,} bytes")
    return _made({"names": names, "formats": formats, "offsets": offsets, "itemsize": offset})


def _many(kind: "np.dtype[Any]", shape: object) -> "np.dtype[Any]":
    """So many elements as one."""
    lengths = shape if isinstance(shape, tuple) else (shape,)
    if not lengths:
        return kind
    if len(lengths) > _MOST_LENGTHS // 2 or not all(type(length) is int and 0 <= length <= _MOST_ITEM_BYTES for length in lengths):
        raise ValueError(f"the shape {shape!r:.100} inside an element is none")
    if math.prod(lengths) * max(1, kind.itemsize) > _MOST_ITEM_BYTES:
        raise ValueError(f"an element of more than {_MOST_ITEM_BYTES:,} bytes")
    return _made((kind, lengths))


def _made(described: Any) -> "np.dtype[Any]":
    """What NumPy makes of a type that was looked through."""
    try:
        made: np.dtype[Any] = np.dtype(described)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ValueError(f"NumPy has no such type: {error!s:.200}") from None
    return made

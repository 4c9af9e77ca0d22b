"""Plain values: what stands in the structure itself, not in a tensor, and how it is written there.

Each kind is one row of a closed table: the exact type, its tag, and how it becomes JSON and comes back, bit for bit. JSON's own
null, booleans, texts and integers up to 2^53 stand for themselves; all else is an object with one tag: `{"float": 0.5}`.

Lives here: the table. Lives elsewhere: containers and tensors (structure).
Source of the layout: docs/format.md, section "Plain values".
"""

import binascii
import codecs
import math
import pathlib
import re
import struct
import types
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, Final

import numpy as np

from tensorkeep import dtypes
from tensorkeep.tree import Stub

EXACT_INT: Final = 2**53  # beyond it JSON's numbers are no longer exact everywhere
LONG_TEXT: Final = 64 << 10  # bytes: longer texts and byte strings stand in a tensor
LONG_LIST: Final = 1000  # numbers: longer lists of one type stand in a tensor


class Refused(Exception):  # no error of the family: structure turns it into one that names the path
    """A value cannot be kept; the text says why."""


def encode_float(value: float) -> object:
    """A float as JSON: the shortest decimal that reads back as the same bits, or text for what JSON has no number for."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "nan:" + struct.pack(">d", value).hex()  # with its sign and payload
    return "inf" if value > 0 else "-inf"


def decode_float(document: object) -> float:
    if type(document) is float:
        return document
    if type(document) is int:  # another writer may spell 1.0 as 1
        return float(document)
    if document in ("inf", "-inf"):
        return float(str(document))
    if isinstance(document, str) and re.fullmatch(r"nan:[0-9a-f]{16}", document):
        value: float = struct.unpack(">d", bytes.fromhex(document[4:]))[0]
        if math.isnan(value):
            return value
    raise ValueError("a float is a number, inf, -inf or nan: with 16 hex digits")


def decode_text(document: object) -> str:
    if not isinstance(document, str):
        raise ValueError("text is wanted")
    return document


def decode_bytes(document: object) -> bytes:
    try:
        return b64decode(decode_text(document), validate=True)
    except binascii.Error as error:
        raise ValueError("bytes are base64") from error


def _decode_int(document: object) -> int:
    text = decode_text(document)
    if re.fullmatch(r"-?0x[0-9a-f]+", text) is None or abs(value := int(text, 16)) <= EXACT_INT:
        raise ValueError("a large int is hexadecimal, beyond 2^53")
    return value


def _decode_complex(document: object) -> complex:
    real, imaginary = _items(document, 2)
    return complex(decode_float(real), decode_float(imaginary))


def _items(document: object, count: int) -> list[Any]:
    if not isinstance(document, list) or len(document) != count:
        raise ValueError(f"a list of {count} is wanted")
    return document


def _ints(document: object, count: int) -> list[int]:
    items = _items(document, count)
    if not all(type(item) is int and -EXACT_INT <= item <= EXACT_INT for item in items):
        raise ValueError("whole numbers of at most 2^53 are wanted")
    return items


def _encode_moment(value: datetime | time) -> object:
    zone = value.tzinfo
    if zone is not None and (type(zone) is not timezone or zone.tzname(None) != timezone(zone.utcoffset(None)).tzname(None)):
        raise Refused(f"a {type(value).__name__} in the time zone {zone}, which a file cannot keep; give it a fixed offset, such as UTC")
    return [value.isoformat(), value.fold]


def _decode_moment(kind: type[datetime] | type[time], document: object) -> object:
    text, fold = _items(document, 2)
    value = kind.fromisoformat(decode_text(text))
    if value.isoformat() != text or type(fold) is not int or fold not in (0, 1):
        raise ValueError("a moment is an ISO 8601 text and a fold of 0 or 1")
    return value.replace(fold=fold)


def _decode_date(document: object) -> date:
    value = date.fromisoformat(decode_text(document))
    if value.isoformat() != document:
        raise ValueError("a date is an ISO 8601 text")
    return value


def _decode_span(document: object) -> timedelta:
    days, seconds, microseconds = _ints(document, 3)
    return timedelta(days, seconds, microseconds)


def _decode_zone(document: object) -> timezone:
    return timezone(_decode_span(document))


def _encode_zone(value: timezone) -> object:
    span = value.utcoffset(None)
    if value.tzname(None) != timezone(span).tzname(None):
        raise Refused(f"the named time zone {value}, which a file cannot keep; use one with a fixed offset alone")
    return [span.days, span.seconds, span.microseconds]


def _decode_slice(document: object) -> slice:
    parts = _items(document, 3)
    if not all(part is None or (type(part) is int and -EXACT_INT <= part <= EXACT_INT) for part in parts):
        raise ValueError("a slice is three whole numbers of at most 2^53, or null")
    return slice(*parts)


def _encode_slice(value: slice) -> object:
    parts = [value.start, value.stop, value.step]
    if not all(part is None or (type(part) is int and abs(part) <= EXACT_INT) for part in parts):
        raise Refused("a slice of other things than whole numbers")
    return parts


def _encode_range(value: range) -> object:
    if max(abs(value.start), abs(value.stop), abs(value.step)) > EXACT_INT:
        raise Refused("a range beyond 2^53")
    return [value.start, value.stop, value.step]


def _encode_dtype(value: "np.dtype[Any]") -> object:
    described = dtypes.describe_numpy(value)
    if described is None:
        raise Refused(f"the NumPy type {value}, which a file cannot keep")
    return described


def _decode_dtype(document: object) -> "np.dtype[Any]":
    found = dtypes.parse(document)
    numpy = None if found is None else found.memory or found.numpy
    if numpy is None:
        raise ValueError("an unknown dtype")
    return numpy


def encode_scalar(value: Any) -> object:
    """A NumPy scalar: its dtype and its bytes, little-endian."""
    array = np.asarray(value)
    dtype = dtypes.of_numpy(array.dtype)
    if dtype is None or dtype.numpy is None:
        raise Refused(f"a NumPy scalar of type {array.dtype}, which a file cannot keep")
    return [_encode_dtype(dtype.numpy), b64encode(array.astype(dtype.numpy).tobytes()).decode()]


def _decode_scalar(document: object) -> object:
    described, data = _items(document, 2)
    dtype, content = _decode_dtype(described), decode_bytes(data)
    if dtype.itemsize != len(content):
        raise ValueError(f"a scalar of {dtype} has {dtype.itemsize} bytes")
    array = np.frombuffer(content, dtype) if content else np.zeros(1, dtype)
    if not dtypes.texts_are_valid(array):
        raise ValueError("no text has such a character")
    if dtype.kind == "U":  # an array's element loses its last zeros, which a text alone may have
        return np.str_(decode_utf32(content, dtype.byteorder))
    return np.bytes_(content) if dtype.kind == "S" else array[0]


def decode_utf32(data: bytes, byteorder: str) -> str:
    """The characters of a text of NumPy. By the codec's own function: to look it up by name would import it for the first such file."""
    decode = codecs.utf_32_be_decode if byteorder == ">" else codecs.utf_32_le_decode
    return decode(data, "surrogatepass", True)[0]


def is_numpy_scalar(value: object) -> bool:
    """Also those of ml_dtypes, which are no `np.generic`."""
    return isinstance(value, np.generic) or type(value).__module__ == "ml_dtypes"


Encode = Callable[[Any], object]
Decode = Callable[[Any], object]

_CODE: Final = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_PATHS: Final = (pathlib.Path, pathlib.PosixPath, pathlib.WindowsPath)

# exact type: (tag, to JSON). Texts that are no UTF-8 get here from structure, as the rest stands for itself.
ENCODERS: Final[dict[type, tuple[str, Encode]]] = {
    float: ("float", encode_float),
    complex: ("complex", lambda value: [encode_float(value.real), encode_float(value.imag)]),
    bytes: ("bytes", lambda value: b64encode(value).decode()),
    bytearray: ("bytearray", lambda value: b64encode(value).decode()),
    datetime: ("datetime", _encode_moment),
    time: ("time", _encode_moment),
    date: ("date", date.isoformat),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    timezone: ("timezone", _encode_zone),
    range: ("range", _encode_range),
    slice: ("slice", _encode_slice),
    **dict.fromkeys(_PATHS, ("path", str)),
    pathlib.PurePosixPath: ("posix_path", str),
    pathlib.PureWindowsPath: ("windows_path", str),
}

DECODERS: Final[dict[str, Decode]] = {
    "float": decode_float,
    "int": _decode_int,
    "complex": _decode_complex,
    "bytes": decode_bytes,
    "bytearray": lambda document: bytearray(decode_bytes(document)),
    "surrogates": lambda document: decode_bytes(document).decode("utf-8", "surrogatepass"),
    "datetime": lambda document: _decode_moment(datetime, document),
    "time": lambda document: _decode_moment(time, document),
    "date": _decode_date,
    "timedelta": _decode_span,
    "timezone": _decode_zone,
    "range": lambda document: range(*_ints(document, 3)),
    "slice": _decode_slice,
    "path": lambda document: pathlib.Path(decode_text(document)),
    "posix_path": lambda document: pathlib.PurePosixPath(decode_text(document)),
    "windows_path": lambda document: pathlib.PureWindowsPath(decode_text(document)),
    "scalar": _decode_scalar,
    "dtype": _decode_dtype,
}


def encode(value: object) -> object:
    """A plain value as JSON, or Refused."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if -EXACT_INT <= value <= EXACT_INT else {"int": hex(value)}  # type: ignore[operator, arg-type]  # an int by its exact type
    if kind is str:
        return value if is_utf8(value) else {"surrogates": b64encode(value.encode("utf-8", "surrogatepass")).decode()}  # type: ignore[arg-type, attr-defined]  # a str by its exact type
    if (row := ENCODERS.get(kind)) is not None:
        tag, to_json = row
        document = to_json(value)
        if tag.endswith("path") and not is_utf8(str(document)):
            raise Refused("a file system path that is no UTF-8")
        return {tag: document}
    if is_numpy_scalar(value):
        return {"scalar": encode_scalar(value)}
    if isinstance(value, np.dtype):
        return {"dtype": _encode_dtype(value)}
    raise Refused(_why(value))


_BASES: Final = (str, int, float, complex, bytes, bytearray, dict, list, tuple, set, frozenset)


def unfillable(value: object) -> str:
    """What a value is that no file has and nothing fills, in words; "" for a plain one, whose place what the file has takes."""
    if value is None or type(value) in ENCODERS or isinstance(value, (*_BASES, np.dtype)) or is_numpy_scalar(value):
        return ""
    if isinstance(value, type):
        return f"the class {value.__qualname__}: pass an object of it"
    if isinstance(value, _CODE):
        return f"the function {value.__qualname__}"
    return f"an object of {type(value).__module__}.{type(value).__qualname__}, which no adapter knows"


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _why(value: object) -> str:
    """What stands in the way, in words."""
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, (*_CODE, type)):
        return f"{getattr(value, '__qualname__', value)!s} is code ({name}), which a file does not keep"
    if isinstance(value, Stub):
        return f"a stub of {value.module}.{value.name}, an object of another file that was not made; save what it holds: its `fields`"
    for base in (str, int, float, complex, bytes, dict, list, tuple, set, frozenset):
        if isinstance(value, base):
            return f"{name} is a kind of {base.__name__} that a file cannot tell from others; pass {base.__name__}(value)"
    return f"an object of {name}, which no adapter knows"

"""The constructors of plain Python: what builtins, collections, datetime, pathlib and their like make in a pickle.

A closed table of exact (module, name) pairs, each made here as pure data. What is not in it stays inert, `getattr`, `eval`, `operator`
and all that may lead elsewhere among it. Bags of attributes (`argparse.Namespace`, `types.SimpleNamespace`) are not in it either: inert,
they show the same attributes by name, and say what they were.
"""

import datetime
import pathlib
from collections import Counter, OrderedDict, deque
from collections import defaultdict as _defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Final

from tensorkeep.unpickle.inert import Constructor, Global, Inert, Keyed, Lump, instance_of
from tensorkeep.unpickle.keys import Keys

_FACTORIES: Final = {
    name: kind
    for kind in (list, dict, set, tuple, int, float, complex, bool, str, bytes)
    for name in (("builtins", kind.__name__), ("__builtin__", kind.__name__))
} | {("__builtin__", "unicode"): str, ("__builtin__", "long"): int}
_LONGEST_PATH: Final = 64 << 10  # characters


def unlumped(value: Any) -> Any:
    """A long byte string itself, where it was left in the file."""
    return value.value() if type(value) is Lump else value


def _only(args: tuple[Any, ...], *kinds: type) -> Any:
    """The one argument, if it is of one of these types."""
    (value,) = args
    value = unlumped(value)
    if type(value) not in kinds:
        raise TypeError(f"a {type(value).__name__}")
    return value


def _pairs(keys: Keys, made: dict[Any, Any], given: Any) -> None:
    """Fill a dict from another, or from pairs."""
    if isinstance(given, dict):
        keys.update(made, [part for item in given.items() for part in item])
        return
    if type(given) not in (list, tuple) or not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in given):
        raise TypeError("pairs of keys and values are wanted")
    keys.update(made, [part for pair in given for part in pair])


def _ordered(args: tuple[Any, ...], keys: Keys) -> object:
    made: OrderedDict[Any, Any] = OrderedDict()
    if args:
        (given,) = args
        _pairs(keys, made, given)
    return made


def _dict(args: tuple[Any, ...], keys: Keys) -> object:
    made: dict[Any, Any] = {}
    if args:
        (given,) = args
        _pairs(keys, made, given)
    return made


def _defaultdict_of(args: tuple[Any, ...], keys: Keys) -> object:
    factory = args[0] if args else None
    known = _FACTORIES.get((factory.module, factory.name)) if type(factory) is Global else None
    made: _defaultdict[Any, Any] = _defaultdict(known)
    if len(args) > 1:
        (_, given) = args
        _pairs(keys, made, given)
    return made


def _counter(args: tuple[Any, ...], keys: Keys) -> object:
    made: Counter[Any] = Counter()
    if args:
        (given,) = args
        if not isinstance(given, dict):
            raise TypeError(f"a {type(given).__name__}")
        _pairs(keys, made, given)
    return made


def _deque(args: tuple[Any, ...], keys: Keys) -> object:
    items, longest = (*args, None) if len(args) == 1 else args or ((), None)
    if (longest is not None and not (type(longest) is int and 0 <= longest < 2**62)) or type(items) not in (list, tuple):
        raise TypeError("items and a length are wanted")
    return deque(items, longest)


def _sequence(kind: "type[list[Any]] | type[tuple[Any, ...]]") -> "Callable[[tuple[Any, ...], Keys], object]":
    def make(args: tuple[Any, ...], keys: Keys) -> object:
        return kind(_only(args, list, tuple, set, frozenset)) if args else kind()

    return make


def _set(args: tuple[Any, ...], keys: Keys) -> object:
    made: set[Any] = set()
    if args:
        keys.add(made, _only(args, list, tuple, set, frozenset))
    return made


def _frozenset(args: tuple[Any, ...], keys: Keys) -> object:
    return frozenset(_set(args, keys))  # type: ignore[call-overload]  # a set


def _slice(args: tuple[Any, ...]) -> object:
    if not all(part is None or type(part) is int for part in args):
        return Inert("builtins", "slice", args)
    start, stop, step = args
    return slice(start, stop, step)


def _range(args: tuple[Any, ...]) -> object:
    if not all(type(part) is int for part in args):
        raise TypeError("whole numbers are wanted")
    return range(*args)


def _complex(args: tuple[Any, ...]) -> object:
    if not all(type(part) in (int, float) for part in args) or len(args) > 2:
        raise TypeError("two numbers are wanted")
    return complex(*args)


def _int(args: tuple[Any, ...]) -> object:
    return int(_only(args, int, bool)) if args else 0


def _float(args: tuple[Any, ...]) -> object:
    return float(_only(args, int, float)) if args else 0.0


def _bool(args: tuple[Any, ...]) -> object:
    return bool(_only(args, int, bool)) if args else False


def _str(args: tuple[Any, ...]) -> object:
    return _only(args, str) if args else ""


def _bytes(args: tuple[Any, ...], keys: Keys) -> object:
    return bytes(_raw(args))


def _bytearray(args: tuple[Any, ...], keys: Keys) -> object:
    return bytearray(_raw(args))


def _raw(args: tuple[Any, ...]) -> "bytes | bytearray":
    """What `bytes` and `bytearray` are called with: nothing, bytes, a text of Python 2, or numbers."""
    if not args:
        return b""
    given = unlumped(args[0])
    if type(given) in (bytes, bytearray) and len(args) == 1:
        return given  # type: ignore[no-any-return]  # one of the two
    if type(given) is str and len(args) == 2:
        return _encoded((given, args[1]))
    if type(given) in (list, tuple) and len(args) == 1 and all(type(part) is int for part in given):
        return bytes(given)
    raise TypeError("bytes are wanted")


def _encoded(args: tuple[Any, ...]) -> bytes:
    """`_codecs.encode`: how protocols 0 to 2 write bytes, as a text whose characters have their numbers."""
    text, codec, *errors = (*args, "utf-8") if len(args) == 1 else args
    text = unlumped(text)
    if type(text) is not str or type(codec) is not str or codec.lower() not in ("latin1", "latin-1", "utf-8", "utf8", "ascii") or errors:
        raise TypeError("a text, and latin1 or utf-8, are wanted")
    return text.encode(codec)


def _encode(args: tuple[Any, ...], keys: Keys) -> object:
    return _encoded(args)


def _moment(kind: Any, length: int) -> "Callable[[tuple[Any, ...]], object]":
    """A constructor of datetime: the state as bytes, or as a text of Python 2; or fields as numbers."""

    def make(args: tuple[Any, ...]) -> object:
        state, *zone = args
        if type(state) is str and len(state) == length:
            state = state.encode("latin-1")
        if not (type(state) is bytes and len(state) == length) and not all(type(part) is int for part in args):
            raise TypeError("its fields are wanted")
        if zone and type(state) is bytes and (len(zone) > 1 or not (zone[0] is None or isinstance(zone[0], datetime.timezone))):
            return Inert("datetime", kind.__name__, args)  # a time zone of a class that is not made here
        return kind(state, *zone)

    return make


def _timedelta(args: tuple[Any, ...]) -> object:
    if not all(type(part) is int for part in args) or len(args) > 3:
        raise TypeError("three whole numbers are wanted")
    return datetime.timedelta(*args)


def _timezone(args: tuple[Any, ...]) -> object:
    if not args or type(args[0]) is not datetime.timedelta or not all(type(name) is str for name in args[1:]) or len(args) > 2:
        raise TypeError("an offset is wanted")
    return datetime.timezone(*args)


def _path(kind: "type[pathlib.PurePath]") -> Keyed:
    def make(args: tuple[Any, ...], keys: Keys) -> object:
        if not all(type(part) is str for part in args) or (length := len(args) + sum(map(len, args))) > _LONGEST_PATH:
            raise TypeError(f"texts of at most {_LONGEST_PATH:,} characters are wanted")
        keys.making(length // 8)  # it is taken apart
        return kind(*args)

    return Keyed(make)


def _reconstructed(args: tuple[Any, ...]) -> object:
    """`copyreg._reconstructor(cls, base, state)`: how protocols 0 and 1 make objects of classes."""
    cls, base, state = args
    if type(base) is not Global:
        raise TypeError("a class and its base are wanted")
    of_builtin = base.name if base.module in ("builtins", "__builtin__") else ""
    if of_builtin == "object":
        return instance_of(cls, ())
    if of_builtin == "list" and type(state) is list:
        made = instance_of(cls, ())
        made.items = state
    elif of_builtin == "dict" and type(state) is dict:
        made = instance_of(cls, ())
        made.entries = state
    else:
        made = instance_of(cls, (state,))
    return made


def _new(args: tuple[Any, ...]) -> object:
    """`copyreg.__newobj__(cls, ...)`."""
    cls, *rest = args
    return instance_of(cls, tuple(rest))


def _new_with_keywords(args: tuple[Any, ...]) -> object:
    """`copyreg.__newobj_ex__(cls, args, kwargs)`."""
    cls, given, keywords = args
    if type(given) is not tuple or type(keywords) is not dict:
        raise TypeError("a class, a tuple and a dict are wanted")
    made = instance_of(cls, given)
    made.kwargs = keywords or None
    return made


def _of_modules(modules: Iterable[str], rows: dict[str, "Constructor | Keyed"]) -> dict[tuple[str, str], "Constructor | Keyed"]:
    return {(module, name): constructor for module in modules for name, constructor in rows.items()}


_PATHS: Final[dict[str, "Constructor | Keyed"]] = {
    "PosixPath": _path(pathlib.Path),
    "WindowsPath": _path(pathlib.PureWindowsPath if type(pathlib.Path()) is pathlib.PosixPath else pathlib.Path),
    "Path": _path(pathlib.Path),
    "PurePath": _path(pathlib.PurePath),
    "PurePosixPath": _path(pathlib.PurePosixPath),
    "PureWindowsPath": _path(pathlib.PureWindowsPath),
}

PLAIN: Final[dict[tuple[str, str], "Constructor | Keyed"]] = {
    **_of_modules(
        ("builtins", "__builtin__"),
        {
            "list": Keyed(_sequence(list)),
            "tuple": Keyed(_sequence(tuple)),
            "dict": Keyed(_dict),
            "set": Keyed(_set),
            "frozenset": Keyed(_frozenset),
            "bytes": Keyed(_bytes),
            "bytearray": Keyed(_bytearray),
            "slice": _slice,
            "range": _range,
            "complex": _complex,
            "int": _int,
            "float": _float,
            "bool": _bool,
            "str": _str,
        },
    ),
    **_of_modules(
        ("collections",),
        {"OrderedDict": Keyed(_ordered), "defaultdict": Keyed(_defaultdict_of), "Counter": Keyed(_counter), "deque": Keyed(_deque)},
    ),
    ("_codecs", "encode"): Keyed(_encode),
    **_of_modules(
        ("datetime",),
        {
            "datetime": _moment(datetime.datetime, 10),
            "date": _moment(datetime.date, 4),
            "time": _moment(datetime.time, 6),
            "timedelta": _timedelta,
            "timezone": _timezone,
        },
    ),
    **_of_modules(("pathlib", "pathlib._local"), _PATHS),
    **_of_modules(("copyreg", "copy_reg"), {"_reconstructor": _reconstructed, "__newobj__": _new, "__newobj_ex__": _new_with_keywords}),
}
"""By module and name, as a pickle names them."""

"""Foreign: formats that may hold programs in languages of which nothing here knows. They are told, and not looked into."""

from typing import Final

from tensorkeep.scanning.look import Look, Thing

_R: Final = "data of R, in which functions and promises may stand that R runs"
_TORCH7: Final = "an object of Torch7, in which functions of Lua may stand"
_MAGICS: Final = (
    *((b"RD" + kind + version + b"\n", _R) for kind in (b"X", b"A", b"B") for version in (b"2", b"3")),
    *((b"X\n\0\0\0" + version, _R) for version in (b"\2", b"\3")),
    *((b"A\n" + version + b"\n", _R) for version in (b"2", b"3")),
    (b"\4\0\0\0\1\0\0\0\3\0\0\0V 1", _TORCH7),
    (b"4\n1\n3\nV 1\n", _TORCH7),
)
_NAMES: Final = {
    **dict.fromkeys((".rds", ".rda", ".rdata"), _R),
    **dict.fromkeys((".t7", ".th7"), _TORCH7),
    ".lua": "a program in Lua",
    ".ipynb": "a notebook, whose cells are programs",
}


def _kind(thing: Thing) -> str:
    for magic, kind in _MAGICS:
        if thing.head.startswith(magic):
            return kind
    return _NAMES.get(thing.suffix, "")


def recognizes(thing: Thing) -> bool:
    """Whether it is one of them by its first bytes, or is called so."""
    return not thing.tensor and bool(_kind(thing))


def scan(thing: Thing, look: Look) -> None:
    """Tell so."""
    look.stopped(thing.place, f"{_kind(thing)}: not looked into")

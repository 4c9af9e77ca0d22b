"""Wrappers: compressed files, which are looked into, and archives that nothing here can open, which is told."""

from typing import Final

from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.extent import Extent, Opened
from tensorkeep.wire.inflate import INFLATERS, InflatedFile

_TRIED_BYTES: Final = 16 << 20
_CODECS: Final = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x5d\x00\x00", "lzma"),
)
_CLOSED: Final = (
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"MSCF\0\0\0\0", "Windows cabinet"),
    (b"\x60\xea", "ARJ"),
    (b"LZIP", "lzip"),
    (b"\x89LZO\0", "lzop"),
    (b"xar!\0", "xar"),
    (b"\x1f\x9d", "compress"),
    (b"!<arch>\n", "Unix"),
    (b"hsqs", "SquashFS"),
    (b"070701", "cpio"),
    (b"\xff\x06\0\0sNaPpY", "Snappy"),
)


def _codec(thing: Thing) -> str:
    head = thing.head
    for magic, codec in _CODECS:
        if head.startswith(magic):
            return codec
    if len(head) > 2 and head[0] == 0x78 and head[1] in (0x01, 0x5E, 0x9C, 0xDA) and not thing.tensor:
        return "zlib"
    return ""


def recognizes(thing: Thing) -> bool:
    """Whether it is compressed."""
    return bool(_codec(thing)) or (thing.head.startswith(b"ZF") and b"0x" in thing.head[:8])


def scan(thing: Thing, look: Look) -> None:
    """Look at what it inflates to."""
    extent, codec = thing.extent, _codec(thing)
    if thing.head.startswith(b"ZF"):  # joblib before 0.10: a length as text, then a stream of zlib
        start = 2 + len(hex(1 << 64)) if len(thing.head) > 2 + len(hex(1 << 64)) else 2
        found = [at for at in range(4, 32) if thing.head[at : at + 1] == b"\x78"]
        extent, codec = extent.part(found[0] if found else min(start, extent.nbytes), extent.nbytes), "zlib"
    if codec not in INFLATERS:
        look.stopped(thing.place, f"compressed with {codec}, which is not read here")
        return
    if codec in ("zlib", "lzma", "gzip") and not _begins(extent, codec):
        return
    if thing.tensor and not _whole(extent, codec):
        return  # bytes that happen to begin as a stream does
    inner = inflated(extent, codec, thing, look)
    if inner is not None:
        name = thing.name.rsplit(".", 1)[0] if "." in thing.name else thing.name
        look.inside(Thing(inner, thing.at("inflated"), name, depth=thing.depth + 1, tensor=thing.tensor))


def _begins(extent: Extent, codec: str) -> bool:
    """Whether a stream whose mark is short does begin here."""
    try:
        data = INFLATERS[codec]().feed(extent.read(0, min(4096, extent.nbytes)), 1 << 16)
    except Exception as error:  # each library raises its own
        if isinstance(error, (MemoryError, KeyboardInterrupt)):
            raise
        return codec == "gzip"
    return bool(data) or codec == "gzip"  # three bytes of it are enough: one without data is empty, or cut short


def _whole(extent: Extent, codec: str) -> bool:
    """Whether a stream comes to an end that fits its checksum, within a small budget of its own."""
    budget = Budget(extent.name, extent.nbytes, Limits(expanded_bytes=_TRIED_BYTES, expansion=1))
    try:
        InflatedFile(extent, codec, None, budget=budget, name=extent.name)
    except FormatError:
        return budget.spent > budget.limit
    return True


def inflated(extent: Extent, codec: str, thing: Thing, look: Look, nbytes: int | None = None) -> Extent | None:
    """What a stream inflates to, within the budget; None if it cannot be told, which the look then knows."""
    try:
        file = InflatedFile(extent, codec, nbytes, budget=look.budget, name=extent.name)
    except FormatError as error:
        if look.budget.spent > look.budget.limit:
            bomb(thing, look, thing.extent.nbytes)
        look.stopped(thing.place, error.problem)
        return None
    return Extent(Opened(file, mmap=False), 0, file.nbytes, extent.name)


def bomb(thing: Thing, look: Look, nbytes: int) -> None:
    """Tell that something inflates to more than a file may."""
    look.found("dangerous", thing.place, f"{nbytes:,} bytes inflate to more than {look.budget.limit:,}: a compression bomb", "bomb")


def closed(thing: Thing) -> str:
    """The name of an archive that nothing here can open; "" for others."""
    return next((name for magic, name in _CLOSED if thing.head.startswith(magic)), "") if not thing.tensor else ""


def recognizes_closed(thing: Thing) -> bool:
    """Whether it is an archive that nothing here can open."""
    return bool(closed(thing))


def scan_closed(thing: Thing, look: Look) -> None:
    """Tell so: model files are not kept in these, and attacks are."""
    kind = closed(thing)
    look.found("unknown", thing.place, f"a {kind} archive, in which nobody keeps models: its content cannot be seen here", "closed-archive")
    look.stopped(thing.place, f"a {kind} archive cannot be looked into")

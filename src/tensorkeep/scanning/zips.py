"""Zip archives: each member, whatever it is called; and where two readers would see two archives, every member that either may see.

The strict reader of all formats (`wire/zip.py`) refuses what tools disagree about. Here such an archive is reported, and then walked by its
local headers and by its directory, so that nothing hides behind the disagreement.
"""

import re
import struct
import zlib
from typing import Final

from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.scanning import torchscript
from tensorkeep.scanning.code import code_in
from tensorkeep.scanning.embedded import embedded
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.scanning.names import leads_out
from tensorkeep.scanning.pickles import of_bytes
from tensorkeep.scanning.wrappers import bomb
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.inflate import at_hand
from tensorkeep.wire.zip import ZipArchive

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_TENSORS: Final = re.compile(
    r"(?:^|/)(?:data|constants|tensors)/\d+$|(?:^|/)code/.*\.py$"
)  # storages; and TorchScript, which torchscript.py reads
_MOST_TOLERANT: Final = 2_000
_WINDOW_BYTES: Final = 8 << 20
_INFLATED_BYTES: Final = 64 << 20
_CHECKED_BYTES: Final = 16 << 20
_KEPT_BYTES: Final = 32 << 20


def recognizes(thing: Thing) -> bool:
    """Whether it begins as an archive, or ends as one."""
    if thing.head.startswith((b"PK\3\4", b"PK\5\6", b"PK\7\x08")):
        return True
    if thing.tensor or thing.extent.nbytes < 22:
        return False
    tail = bytes(thing.extent.read(max(0, thing.extent.nbytes - 22 - 0xFFFF), thing.extent.nbytes))
    end = tail.rfind(b"PK\5\6")
    return end >= 0 and end + 22 + int.from_bytes(tail[end + 20 : end + 22], "little") == len(tail)


def scan(thing: Thing, look: Look) -> None:
    """Look at every member."""
    archive = _opened(thing, look)
    while archive is not None:
        _members(archive, thing, look)
        if not archive.begin:
            return
        # Several archives behind each other, as PyTorch's distributed checkpoints are; readers of one see the last.
        before = Thing(thing.extent.part(0, archive.begin), thing.place, thing.name, depth=thing.depth + 1)
        if not recognizes(before) or not before.head.startswith(b"PK"):
            look.found("unknown", thing.place, f"an archive behind {archive.begin:,} other bytes: two kinds of file in one", "polyglot")
            look.inside(before)
            return
        thing = Thing(before.extent, thing.place, thing.name, depth=thing.depth)
        archive = _opened(thing, look)


def _opened(thing: Thing, look: Look) -> ZipArchive | None:
    try:
        return ZipArchive(thing.extent, budget=look.budget, limits=look.limits)
    except FormatError as error:
        _refused(thing, look, error.problem)
        _walk(thing, look)
        return None


def _members(archive: ZipArchive, thing: Thing, look: Look) -> None:
    names = list(archive)
    torch = any(name.endswith(("data.pkl", "constants.pkl")) for name in names)
    if torch and not any(member.crc for member in archive.values()):
        archive.unsummed = ""  # written by PyTorch without any; where single ones are missing, somebody took them away
    seen: set[str] = set()
    for name in names:
        _member(archive, name, thing, look, torch=torch)
        for sentence in archive.oddities:
            if sentence not in seen and not (archive.begin and thing.suffix == ".distcp"):
                seen.add(sentence)
                look.found("unknown", thing.place, f"tools may read this archive differently: {sentence}", "zip-oddity")
    torchscript.scan(archive, thing, look)
    _comment(archive, thing, look)
    for part in archive.between():
        if headers := _headers(part):
            what = "a member that the archive's directory leaves out: tools that read from the front see it, others do not"
            look.found("unknown", thing.at(f"byte {part.start + headers[0][0]:,}"), what, "zip-hidden")
            look.inside(Thing(part.part(headers[0][0], part.nbytes), thing.place, "", depth=thing.depth + 1))


def _comment(archive: ZipArchive, thing: Thing, look: Look) -> None:
    if not archive.comment.nbytes:
        return
    if code := code_in(str(archive.comment.read(), "utf-8", "replace")):
        look.found("unknown", thing.at("comment"), f"{code[0]}: {code[1]!r}", "code-in-text")
    for kind, data in embedded(str(archive.comment.read(), "latin-1")):
        look.inside(of_bytes(thing, data, f"comment ({kind})"))
    look.inside(Thing(archive.comment, thing.at("comment"), "comment", depth=thing.depth + 1))


def _member(archive: ZipArchive, name: str, thing: Thing, look: Look, *, torch: bool) -> None:
    member = archive[name]
    place = thing.at(name)
    if why := leads_out(name):
        look.found("dangerous", place, f"a member's name {why}: extracting it would write there", "path-traversal")
    if "MethodNode" in name or "OperatorFuncNode" in name:
        look.found("unknown", place, "a node of skops by which some releases call what the file names (CVE-2025-54412)", "skops-method")
    if name.endswith("/") and not member.nbytes:
        return
    try:
        extent = archive.open(name)
    except FormatError as error:
        if look.budget.spent > look.budget.limit:
            bomb(thing, look, thing.extent.nbytes)
            look.stopped(place, error.problem)
        else:
            _refused(thing, look, error.problem)
            _walk(thing, look, only=name)
        return
    tensor = torch and bool(_TENSORS.search(name))
    try:
        if member.nbytes <= _KEPT_BYTES:
            extent = at_hand(extent)  # looked at several times
    except FormatError as error:
        look.stopped(place, error.problem)
        return
    inner = Thing(extent, place, name.rpartition("/")[2], depth=thing.depth + 1, tensor=tensor)
    if member.link:
        _link(inner, look)
        return
    try:
        if not tensor and member.nbytes <= _CHECKED_BYTES:
            extent.check()
    except CorruptError:
        look.found("unknown", place, "its CRC-32 is wrong, which some loaders do not mind and some scanners stop at", "zip-crc")
        if member.flags & 1:
            look.stopped(place, "encrypted")
    except FormatError as error:
        look.stopped(place, error.problem)
        return
    look.inside(inner)


def _link(inner: Thing, look: Look) -> None:
    target = bytes(inner.extent.read(0, min(1000, inner.extent.nbytes))).decode("utf-8", "replace")
    level = "dangerous" if leads_out(target) else "unknown"
    look.found(level, inner.place, f"a symbolic link to {target!r}", "archive-link")  # type: ignore[arg-type]  # one of two literals


def _refused(thing: Thing, look: Look, problem: str) -> None:
    look.found("unknown", thing.place, f"an archive that tools read differently, or not at all: {problem}", "zip-ambiguous")
    look.stopped(thing.place, problem)


def _walk(thing: Thing, look: Look, only: str = "") -> None:
    """Every member that a local header, or an entry of a directory, leads to."""
    spare = 4 * thing.extent.nbytes + _INFLATED_BYTES  # bytes that damaged headers may name, overlaps counted each time
    headers = _headers(thing.extent)
    for number, (header_at, packed, name) in enumerate(headers):
        following = headers[number + 1][0] if number + 1 < len(headers) else thing.extent.nbytes
        if only and name != only:
            continue
        if why := leads_out(name):
            look.found("dangerous", thing.at(name), f"a member's name {why}: extracting it would write there", "path-traversal")
        data = _bytes(thing.extent, header_at, packed, following)
        if data is None:
            continue
        spare -= data.nbytes if isinstance(data, Extent) else len(data)
        if spare < 0 or number >= _MOST_TOLERANT:
            look.stopped(thing.place, "a damaged archive with more members than can be looked at")
            return
        if isinstance(data, Extent):
            look.inside(Thing(data, thing.at(name), name.rpartition("/")[2], depth=thing.depth + 1))
        elif data:
            inner = of_bytes(thing, data, name)
            look.inside(Thing(inner.extent, inner.place, name.rpartition("/")[2], depth=thing.depth + 1))


def _headers(extent: Extent) -> "list[tuple[int, int, str]]":
    """Where local headers stand, with the packed size that they or the directory say, and the name that the directory gives them."""
    local: list[int] = []
    central: dict[int, tuple[int, str]] = {}
    begin = 0
    while begin < extent.nbytes and len(local) + len(central) <= 2 * _MOST_TOLERANT:
        window = bytes(extent.read(begin, min(begin + _WINDOW_BYTES + 64, extent.nbytes)))
        at = window.find(b"PK")
        while 0 <= at < _WINDOW_BYTES:
            kind = window[at + 2 : at + 4]
            if kind == b"\3\4":
                local.append(begin + at)
            elif kind == b"\1\2" and begin + at + _CENTRAL.size <= extent.nbytes:
                entry = _CENTRAL.unpack(bytes(extent.read(begin + at, begin + at + _CENTRAL.size)))
                name_at = begin + at + _CENTRAL.size
                name = bytes(extent.read(name_at, min(name_at + entry[10], extent.nbytes))).decode("utf-8", "replace")
                central[entry[16]] = (entry[8], name)
            at = window.find(b"PK", at + 2)
        begin += _WINDOW_BYTES
    return [(at, *central.get(at, (0, ""))) for at in local]


def _bytes(extent: Extent, header_at: int, packed: int, following: int) -> "Extent | bytes | None":
    """What stands behind a local header: as it is, or inflated as far as it goes."""
    if header_at + _LOCAL.size > extent.nbytes:
        return None
    _, _, _flags, method, _, _, _, said, _, name_nbytes, extra_nbytes = _LOCAL.unpack(
        bytes(extent.read(header_at, header_at + _LOCAL.size))
    )
    start = header_at + _LOCAL.size + name_nbytes + extra_nbytes
    nbytes = packed or (said if said != 0xFFFFFFFF else 0)
    stop = start + nbytes if nbytes else max(following, min(start + 1, extent.nbytes))
    if start >= extent.nbytes or stop <= start:
        return None
    stop = min(stop, extent.nbytes)
    if method != 8:
        return extent.part(start, stop)
    try:
        return zlib.decompressobj(-15).decompress(extent.read(start, stop), _INFLATED_BYTES)
    except zlib.error:
        return extent.part(start, stop)

"""Tar archives: each member, and the names and links that extracting one would follow.

Source: POSIX ustar and pax; GNU tar's long names.
"""

from typing import Final

from tensorkeep.scanning.look import Look, Thing
from tensorkeep.scanning.names import leads_out

_BLOCK: Final = 512
_MOST_MEMBERS: Final = 100_000
_LONGEST_NAME: Final = 64 << 10


def recognizes(thing: Thing) -> bool:
    """Whether its first block is the header of a member: its checksum says so."""
    return len(thing.head) >= _BLOCK and _checks(thing.head[:_BLOCK])


def _checks(block: bytes) -> bool:
    wanted = _number(block[148:156])
    return wanted is not None and wanted > 0 and sum(block[:148]) + 32 * 8 + sum(block[156:512]) == wanted and block[0] != 0


def _number(field: bytes) -> int | None:
    if field[:1] == b"\x80":  # GNU: binary, for what octal digits cannot say
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if not text:
        return 0
    try:
        return int(text, 8)
    except ValueError:
        return None


def scan(thing: Thing, look: Look) -> None:
    """Look at every member."""
    at, count, long_name, long_link = 0, 0, "", ""
    extent = thing.extent
    while at + _BLOCK <= extent.nbytes:
        block = bytes(extent.read(at, at + _BLOCK))
        if not block.strip(b"\0"):
            at += _BLOCK
            continue
        size = _number(block[124:136])
        if not _checks(block) or size is None or size < 0 or at + _BLOCK + size > extent.nbytes:
            look.stopped(thing.at(f"byte {at:,}"), "its tar archive is damaged or cut short here")
            return
        count += 1
        if count > _MOST_MEMBERS:
            look.stopped(thing.place, f"more than {_MOST_MEMBERS:,} members")
            return
        kind, data_at = block[156:157], at + _BLOCK
        at = data_at + -(-size // _BLOCK) * _BLOCK
        if kind in b"LKxg" and kind:
            text = bytes(extent.read(data_at, data_at + min(size, _LONGEST_NAME)))
            if kind in b"LK":
                name = text.rstrip(b"\0").decode("utf-8", "replace")
                long_name, long_link = (name, long_link) if kind == b"L" else (long_name, name)
            else:
                long_name = _pax(text, "path") or long_name
                long_link = _pax(text, "linkpath") or long_link
            continue
        prefix = _text(block[345:500]) if block[257:262] == b"ustar" and block[262:264] != b" \0" else ""
        name = long_name or (f"{prefix}/" if prefix else "") + _text(block[:100])
        link = long_link or _text(block[157:257])
        long_name = long_link = ""
        if why := leads_out(name):
            look.found("dangerous", thing.at(name), f"a member's name {why}: extracting it would write there", "path-traversal")
        if kind in (b"1", b"2"):
            word = "symbolic link" if kind == b"2" else "hard link"
            out = bool(leads_out(link))
            look.found("dangerous" if out else "unknown", thing.at(name), f"a {word} to {link!r}", "archive-link")
        elif kind in (b"3", b"4", b"6"):
            look.found("dangerous", thing.at(name), "a device or pipe, which extracting it would make", "archive-device")
        elif size and kind in (b"0", b"\0", b"7", b"S"):
            inner = extent.part(data_at, data_at + size, f"{extent.name}: {name}")
            look.inside(Thing(inner, thing.at(name), name.rpartition("/")[2], depth=thing.depth + 1))


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def _pax(text: bytes, key: str) -> str:
    for line in text.split(b"\n"):
        _, _, rest = line.partition(b" ")
        name, _, value = rest.partition(b"=")
        if name == key.encode():
            return value.decode("utf-8", "replace")
    return ""

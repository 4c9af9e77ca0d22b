"""MessagePack of Flax and T5X: leaves that name files to be read, by placeholders or as TensorStore specifications."""

import re
from typing import Final

from tensorkeep.scanning.look import Look, Thing
from tensorkeep.scanning.names import leads_out

_SPEC: Final = re.compile(rb"kvstore.{1,400}", re.DOTALL)
_PATH: Final = re.compile(rb"\xa4path(?:[\xa0-\xbf]|\xd9.|\xda..)([\x20-\x7e]{1,300})", re.DOTALL)
_PLACEHOLDER: Final = re.compile(rb"//(?:GDA|Array)?Placeholder:([\x20-\x7e]{1,300})")
_CODE: Final = re.compile(rb"\b(?:__import__\(|os\.system\(|subprocess\.|eval\(|exec\(|__reduce__)[\x20-\x7e]{0,40}")
_MOST_BYTES: Final = 1 << 30
_WINDOW_BYTES: Final = 4 << 20


def recognizes(thing: Thing) -> bool:
    """Whether it begins with a map, as Flax writes them, or is called so."""
    head = thing.head
    return not thing.tensor and (
        thing.suffix in (".msgpack", ".flax", ".orbax")
        or (thing.name in ("checkpoint", "") and 0x80 <= head[0] <= 0x8F)
        or head[0] in (0xDE, 0xDF)
    )


def scan(thing: Thing, look: Look) -> None:
    """Look for names of files."""
    for begin in range(0, thing.extent.nbytes, _WINDOW_BYTES):
        window = bytes(thing.extent.read(begin, min(begin + _WINDOW_BYTES + 1024, thing.extent.nbytes)))
        for spec in _SPEC.finditer(window):
            for found in _PATH.finditer(spec[0]):
                _file(found[1].decode("ascii"), "a TensorStore specification that reads", thing, look)
        for found in _PLACEHOLDER.finditer(window):
            _file(found[1].decode("ascii"), "a placeholder for", thing, look)
        if thing.suffix in (".msgpack", ".flax", ".orbax"):
            for found in _CODE.finditer(window):
                look.found(
                    "unknown",
                    thing.at(f"byte {begin + found.start():,}"),
                    f"Python code: {found[0].decode('ascii', 'replace')!r}",
                    "code-in-text",
                )


def _file(name: str, what: str, thing: Thing, look: Look) -> None:
    why = leads_out(name)
    look.found(
        "dangerous" if why else "harmless",
        thing.place,
        f"{what} the file {name!r}" + (f", whose name {why}" if why else ""),
        "outside-file",
    )

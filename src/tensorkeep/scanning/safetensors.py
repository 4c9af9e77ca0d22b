"""safetensors: no code, so what is looked at is its metadata, and whether other readers would see another file."""

from typing import Final

import msgspec

from tensorkeep.container import parse_header
from tensorkeep.errors import FormatError
from tensorkeep.scanning.jsons import crowded
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.scanning.texts import judge_text, walk

_OWN: Final = "tensorkeep"  # the entry of the metadata that holds a model file's own document
_LENGTH_BYTES: Final = 8
_MOST_BYTES: Final = 100_000_000


def recognizes(thing: Thing) -> bool:
    """Whether a length and a brace stand where a header begins, and it has room."""
    head = thing.head
    if thing.tensor or len(head) < 10 or head[8:9] != b"{":
        return False
    return 2 <= int.from_bytes(head[:8], "little") <= thing.extent.nbytes - _LENGTH_BYTES


def scan(thing: Thing, look: Look) -> None:
    """Look at every text of its metadata."""
    nbytes = int.from_bytes(thing.head[:8], "little")
    if nbytes > _MOST_BYTES:
        look.stopped(thing.place, f"a header of {nbytes:,} bytes")
        return
    raw = bytes(thing.extent.read(_LENGTH_BYTES, _LENGTH_BYTES + nbytes))
    if crowded(raw):
        look.stopped(thing.place, "a header with more tensors than any model has")
        return
    try:
        header = msgspec.json.decode(raw)
    except (ValueError, RecursionError) as error:
        look.stopped(thing.place, f"its header is no JSON: {error}")
        return
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if isinstance(metadata, dict):
        for key, value in metadata.items():
            if isinstance(value, str) and key == _OWN:
                _document(value, thing, look)
            elif isinstance(value, str):
                judge_text(key, value, f"__metadata__ {key}", thing, look)
    ends = [
        entry["data_offsets"][1]
        for key, entry in (header.items() if isinstance(header, dict) else ())
        if key != "__metadata__" and isinstance(entry, dict) and _pair(entry.get("data_offsets"))
    ]
    end = _LENGTH_BYTES + nbytes + max(ends, default=0)
    if end > thing.extent.nbytes:
        look.stopped(thing.place, f"cut short: {end:,} bytes are said, {thing.extent.nbytes:,} are there")
    elif end < thing.extent.nbytes:
        look.found("unknown", thing.at(f"byte {end:,}"), f"{thing.extent.nbytes - end:,} bytes behind the last tensor", "appended-bytes")
        look.inside(Thing(thing.extent.part(end, thing.extent.nbytes), thing.at("appended"), "", depth=thing.depth + 1))
    else:
        try:
            parse_header(raw, thing.extent.nbytes, file=look.file, limits=look.limits)
        except FormatError as error:  # another reader may see another file in it
            look.stopped(thing.place, error.problem)


def _document(text: str, thing: Thing, look: Look) -> None:
    """Our own: metadata that are no texts alone are judged as those beside it."""
    try:
        document = msgspec.json.decode(text)
    except (ValueError, RecursionError):  # whoever reads it tells
        return
    if not isinstance(document, dict):
        return
    for path, key, value in walk(document.get("metadata")):
        if isinstance(value, str):
            judge_text(key, value, f"metadata {path}", thing, look)


def _pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(number, int) for number in value)

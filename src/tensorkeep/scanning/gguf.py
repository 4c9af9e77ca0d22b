"""GGUF: the chat templates in it.

The metadata are read as the reader of the format reads them; where it refuses, templates are found by their key.
"""

import re
from typing import Final

from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.formats.gguf import GgufReader
from tensorkeep.formats.peek import Peek
from tensorkeep.scanning import templates
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.scanning.texts import judge_text

_KEY: Final = re.compile(rb"chat_template[\w.]{0,40}\x08\0\0\0")
_METADATA_BYTES: Final = 256 << 20


def recognizes(thing: Thing) -> bool:
    """Whether it has the mark, in either order of bytes."""
    return thing.head.startswith((b"GGUF", b"FUGG"))


def scan(thing: Thing, look: Look) -> None:
    """Look at its templates and its other texts."""
    try:
        peek = Peek(thing.extent.name, thing.extent, None, limits=look.limits)
        metadata = GgufReader().read(peek).metadata
    except (FormatError, CorruptError) as error:
        if not (isinstance(error, FormatError) and "was not opened from a folder" in error.problem):
            look.stopped(thing.place, str(getattr(error, "problem", error)))
        _by_key(thing, look)
        return
    for key, value in metadata.items():
        if isinstance(value, list) and "template" in key:
            for text in value:
                if isinstance(text, str):
                    templates.judge(text, thing, key, look)
        elif isinstance(value, str):
            if "chat_template" in key:
                templates.judge(value, thing, key, look)
            elif len(value) < 100_000:
                judge_text(key, value, key, thing, look)


def _by_key(thing: Thing, look: Look) -> None:
    raw = bytes(thing.extent.read(0, min(thing.extent.nbytes, _METADATA_BYTES)))
    for found in _KEY.finditer(raw):
        nbytes = int.from_bytes(raw[found.end() : found.end() + 8], "little")
        text = raw[found.end() + 8 : found.end() + 8 + min(nbytes, 1 << 20)].decode("utf-8", "replace")
        templates.judge(text, thing, found[0][:-4].decode(), look)

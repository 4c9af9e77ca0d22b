"""Arrays of NumPy: one of objects is a pickle.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import re
from typing import Final

from tensorkeep.scanning import pickles
from tensorkeep.scanning.look import Look, Thing

_MAGIC: Final = b"\x93NUMPY"
_LONGEST_HEADER: Final = 64 << 10
_OBJECTS: Final = re.compile(r"['\"][|<>=]?O\d*['\"]")


def recognizes(thing: Thing) -> bool:
    """Whether it begins as np.save writes it."""
    return thing.head.startswith(_MAGIC)


def scan(thing: Thing, look: Look) -> None:
    """Look at the pickle in it, if there is one, and for one behind its header in any case."""
    extent, head = thing.extent, thing.head
    width = 2 if head[6:7] == b"\1" else 4
    start = 8 + width
    nbytes = int.from_bytes(head[8:start], "little")
    if len(head) < start or start + nbytes > extent.nbytes or nbytes > _LONGEST_HEADER:
        look.stopped(thing.place, f"its header would take {nbytes:,} bytes")
        pickles.search(thing, look)
        return
    header = bytes(extent.read(start, start + nbytes)).decode("latin-1")
    body = Thing(
        extent.part(start + nbytes, extent.nbytes), thing.at(f"behind {start + nbytes:,} bytes"), thing.name, depth=thing.depth, tensor=True
    )
    if not body.extent.nbytes:
        return
    if _OBJECTS.search(header):
        body.tensor = False
        if not pickles.scan(body, look):
            look.stopped(thing.place, "an array of objects without a pickle")
            pickles.search(body, look)
    elif body.head[0] == 0x80:
        pickles.scan(body, look)
    else:
        pickles.search(body, look)  # behind an array, `np.load` of the same stream goes on with a pickle
    if re.search(r"[a-zA-Z_]\w*\s*\(", header):
        look.found("dangerous", thing.place, f"a header with a call in it: {header.strip()[:100]!r}", "npy-header")

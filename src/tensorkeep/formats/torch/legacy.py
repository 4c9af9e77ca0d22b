"""PyTorch's streams, as `torch.save` wrote them until 1.5, and still does on demand.

A magic number, a version and facts about the machine, each a pickle of its own; the pickle of the state; the keys of its storages; and the
storages themselves in that order, each behind the number of its elements.

Source: `_legacy_save` and `_legacy_load` in `torch/serialization.py`.
"""

import re
from typing import Any, Final

from tensorkeep.contents import Contents
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.torch.dtypes import ITEM_BYTES
from tensorkeep.formats.torch.pickle import Settled, format_of, run_pickle, settle, trailing
from tensorkeep.formats.torch.rebuild import Rebuilder
from tensorkeep.formats.torch.storage import Views, told
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent

_MAGIC: Final = 0x1950A86A20F9469CFC6C
_VERSION: Final = 1001
# A pickle of the magic number: protocol 2 and later, perhaps in a frame; or 0 and 1, which write it in decimal.
_BEGINNING: Final = re.compile(
    rb"(?:\x80[\x02-\x05](?:\x95.{8})?\x8a\x0a" + re.escape(_MAGIC.to_bytes(10, "little")) + rb"|L?I?%dL?\n)" % _MAGIC, re.DOTALL
)


class TorchLegacyReader:
    """`.pth`, `.pt`, `.pkl`: told by the magic number in its first pickle."""

    name = "torch stream"

    def recognizes(self, peek: Peek) -> bool:
        return begins(peek.head)

    def read(self, peek: Peek) -> Contents:
        settled, end = read_stream(peek, peek.data)
        return assemble.contents(
            peek,
            format=format_of(settled.tree),
            tree=settled.tree,
            metadata=settled.metadata,
            findings=trailing(peek, peek.nbytes - end, "the last storage"),
            left_out=settled.left_out,
            version=str(_VERSION),
        )


def begins(head: bytes) -> bool:
    """Whether bytes begin as such a stream does."""
    return _BEGINNING.match(head) is not None


def read_stream(peek: Peek, data: Extent) -> tuple[Settled, int]:
    """What a stream holds, and where it ends.

    Raises:
        FormatError: it is no such stream, or cut short.
    """
    rebuilder = Rebuilder(Views(peek.name, peek.limits))
    value, end = read_raw(peek, data, rebuilder)
    return settle(peek, value, rebuilder), end


def read_raw(peek: Peek, data: Extent, rebuilder: Rebuilder) -> tuple[object, int]:
    """What a stream's pickle gave, not yet a tree, its storages told where they are; and where the stream ends."""
    at = 0
    for what, wanted in (("magic number", _MAGIC), ("version", _VERSION)):
        found, at = run_pickle(peek, data, rebuilder, at=at)
        if type(found) is not int or found != wanted:
            raise peek.error(f"the {what} of its stream is {told(found)}, wanted is {wanted}")
    facts, at = run_pickle(peek, data, rebuilder, at=at)
    if not isinstance(facts, dict):
        raise peek.error(f"it says {told(facts)} about the machine that wrote it; a dict is wanted")
    value, at = run_pickle(peek, data, rebuilder, at=at)
    keys, at = run_pickle(peek, data, rebuilder, at=at)
    return value, place_storages(data, at, keys, rebuilder.views)


def place_storages(data: Extent, at: int, keys: Any, views: Views) -> int:
    """Tell storages where their bytes are, which follow each other; the answer is the place behind the last.

    Raises:
        FormatError: one has another number of elements than the pickle said, or none of that key is known.
    """
    if type(keys) is not list or not all(type(key) is str for key in keys) or len(set(keys)) != len(keys):
        raise views.error("its list of storages is none, or names one twice")
    cursor = Cursor(data, at)
    for key in keys:
        storage = views.storages.get(key)
        if storage is None:
            raise views.error(f"it holds a storage {told(key)} that its pickle does not name")
        count = cursor.i64(f"number of elements of the storage {told(key)}")
        if count != storage.count:
            raise views.error(f"the storage {told(key)} is said to hold {storage.count:,} elements in one place and {count:,} in another")
        nbytes = count * ITEM_BYTES[storage.dtype]
        begin = cursor.at
        cursor.skip(f"the storage {told(key)}", nbytes)
        storage.extent = data.part(begin, begin + nbytes, f"{data.name}: {key}")
    return cursor.at

"""Reading pickles with the machine alone, and crafting ones that pickle itself would never write."""

import struct
from collections.abc import Iterable
from typing import Any

from tensorkeep.backends.files import MemoryFile
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.unpickle.arrays import NUMPY
from tensorkeep.unpickle.finish import finish
from tensorkeep.unpickle.machine import Result, run
from tensorkeep.unpickle.plain import PLAIN
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.extent import Extent, Opened

TABLE = {**PLAIN, **NUMPY}


def extent(data: bytes) -> Extent:
    """Bytes as a reader sees them."""
    return Opened(MemoryFile(memoryview(data), "x.pkl")).whole()


def raw(data: bytes, *, limits: Limits = DEFAULT_LIMITS, table: Any = TABLE, **options: Any) -> Result:
    """What the machine gives: raw objects, and where the pickle ended."""
    return run(extent(data), table, limits=limits, budget=Budget("x.pkl", len(data), limits), **options)


def tree(data: bytes, *, limits: Limits = DEFAULT_LIMITS, buffers: Iterable[object] = ()) -> Any:
    """The tree of a pickle."""
    return finish(raw(data, limits=limits, buffers=buffers).value, file="x.pkl", limits=limits)[0]


def notes(data: bytes) -> list[str]:
    """What was cut while the tree of a pickle was made."""
    return finish(raw(data).value, file="x.pkl", limits=DEFAULT_LIMITS)[1]


def text(value: str) -> bytes:
    """A short text as an opcode."""
    encoded = value.encode()
    return b"\x8c" + bytes((len(encoded),)) + encoded


def named(module: str, name: str) -> bytes:
    """A global as an opcode."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def number(value: int) -> bytes:
    """A small int as an opcode."""
    return b"J" + struct.pack("<i", value)

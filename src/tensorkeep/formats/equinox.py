"""Equinox: the leaves of a model, each as NumPy's `.npy`, one behind the other; often below a line of JSON with its settings.

A file has no names: a leaf goes by its place. Repeated calls of `np.save` into one file leave the same bytes, and read the same.

Lives here: the line in front, and JAX's dtypes that NumPy has no name for. Lives elsewhere: arrays behind each other (npy).

Source: https://github.com/patrick-kidger/equinox/blob/main/equinox/_serialisation.py and
https://docs.kidger.site/equinox/examples/serialisation/ for the line of JSON
"""

from typing import Any, Final

import ml_dtypes
import numpy as np

from tensorkeep import strictjson
from tensorkeep.contents import Contents
from tensorkeep.errors import FormatError
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import LazyTensor
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.ndarray import array_of
from tensorkeep.wire.npy import MAGIC, read_header

_LONGEST_LINE: Final = 1 << 20  # bytes
_BARE: Final = np.dtype("V2")  # two bytes without a name: of JAX's dtypes bfloat16 alone is written so
_NEXT: Final = b"\n" + MAGIC


class EquinoxReader:
    """`.eqx`: two leaves or more, or a line of JSON in front of one."""

    name = "Equinox leaves"

    def recognizes(self, peek: Peek) -> bool:
        if peek.head.startswith(b"{"):
            return _line(peek) is not None
        return peek.head.startswith(MAGIC) and _has_second(peek)

    def read(self, peek: Peek) -> Contents:
        line = b"" if peek.head.startswith(MAGIC) else _line(peek) or b""
        metadata: dict[str, Any] = {}
        if line:
            try:
                found = strictjson.decode(line, object, deepest=peek.limits.depth)
            except ValueError as error:
                raise peek.error(f"its first line is no JSON to trust: {error}") from None
            metadata = found if isinstance(found, dict) else {"line": found}
        leaves, left_out = _leaves(peek, len(line) + 1 if line else 0)
        return assemble.contents(peek, format=self.name, tree=leaves, metadata=metadata, left_out=left_out)


def _leaves(peek: Peek, start: int) -> tuple[list[LazyTensor], list[str]]:
    cursor = peek.cursor(after=start)
    leaves: list[LazyTensor] = []
    bare = 0
    left_out: list[str] = []
    while cursor.left:
        if leaves and bytes(cursor.extent.read(cursor.at, min(cursor.at + len(MAGIC), peek.nbytes))) != MAGIC:
            left_out.append(f"{cursor.left:,} bytes behind leaf {len(leaves) - 1:,}, which are no array")
            break
        header = read_header(cursor)
        if header.objects:
            raise cursor.error(f"leaf {len(leaves):,} is an array of Python objects, which Equinox does not write")
        dtype = header.dtype
        if dtype == _BARE:
            dtype, bare = np.dtype(ml_dtypes.bfloat16), bare + 1
        leaf = array_of(cursor.extent, header.start, dtype, header.shape, fortran=header.fortran, what=f"leaf {len(leaves):,}")
        if len(leaves) > peek.limits.values:
            raise cursor.error(f"more than {peek.limits.values:,} leaves")
        leaves.append(leaf)
        cursor.skip("a leaf", leaf.nbytes)
    if bare:
        left_out.append(f"the dtype of {bare:,} leaves: the file says two bytes without a name, and they are read as bfloat16")
    return leaves, left_out


def _line(peek: Peek) -> bytes | None:
    """The line of JSON in front of the first leaf; None if there is none."""
    start = peek.data.read(0, min(peek.nbytes, len(peek.head)))
    if _NEXT not in peek.head:
        start = peek.data.read(0, min(peek.nbytes, _LONGEST_LINE))
    line, mark, _ = bytes(start).partition(_NEXT)
    return line if mark and b"\n" not in line else None


def _has_second(peek: Peek) -> bool:
    """Whether another array begins where the first one ends."""
    try:
        cursor = Cursor(peek.data)
        header = read_header(cursor)
        if header.objects:
            return False
        first = array_of(peek.data, header.start, header.dtype, header.shape, fortran=header.fortran, what="the first leaf")
        stop = header.start + first.nbytes
        return stop + len(MAGIC) <= peek.nbytes and bytes(peek.data.read(stop, stop + len(MAGIC))) == MAGIC
    except FormatError:
        return False

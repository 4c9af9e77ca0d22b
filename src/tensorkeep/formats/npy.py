"""NumPy's `.npy`: one array, or several behind each other, as repeated calls of `np.save` into one file leave them.

Lives here: what stands in such a file. Lives elsewhere: the header's grammar (`wire.npy`), how elements lie (`wire.ndarray`).
"""

from collections.abc import Iterator
from typing import Final

from tensorkeep.contents import Contents
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.unpickled import unpickle
from tensorkeep.tree import Tree
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.ndarray import array_of
from tensorkeep.wire.npy import MAGIC, read_header

_BARE: Final = "|V2"
_BARE_NOTE: Final = "the meaning of elements of the type V2, which NumPy's files do not tell: JAX and MLX write bfloat16 so"


class NpyReader:
    """`.npy`, versions 1 to 3. Lazy, but for arrays of objects, whose pickle is read by the pickle machine."""

    name = "npy"

    def recognizes(self, peek: Peek) -> bool:
        return peek.head.startswith(MAGIC)

    def read(self, peek: Peek) -> Contents:
        left_out: list[str] = []
        arrays = list(arrays_in(peek.data, peek, "", left_out))
        return contents(peek, format="NumPy array", tree=arrays[0] if len(arrays) == 1 else arrays, left_out=left_out)


def arrays_in(extent: Extent, peek: Peek, path: str, left_out: list[str]) -> Iterator[Tree]:
    """All arrays that stand behind each other in an extent, from its start; the first is there.

    Args:
        extent: where they stand.
        peek: the file that it belongs to.
        path: of the array, for messages.
        left_out: gets a sentence for what is not read.

    Raises:
        FormatError: a header is broken, or the bytes of an array are not there.
    """
    cursor = Cursor(extent)
    while True:
        start = cursor.at
        header = read_header(cursor)
        what = path or f"the array at byte {start:,}"
        if header.objects:
            tree, cursor.at = unpickle(peek, extent, left_out, at=header.start)
            yield tree
            if _ends(cursor, what, left_out):
                return
            continue
        tensor = array_of(extent, header.start, header.dtype, header.shape, fortran=header.fortran, what=what)
        if tensor.dtype.name == _BARE and _BARE_NOTE not in left_out:
            left_out.append(_BARE_NOTE)
        yield tensor
        cursor.skip("array", tensor.nbytes)
        if _ends(cursor, what, left_out):
            return


def _ends(cursor: Cursor, what: str, left_out: list[str]) -> bool:
    """Whether no array follows."""
    if cursor.left >= len(MAGIC) and bytes(cursor.extent.read(cursor.at, cursor.at + len(MAGIC))) == MAGIC:
        return False
    if cursor.left:
        left_out.append(f"{cursor.left:,} bytes behind {what}, which are no array")
    return True

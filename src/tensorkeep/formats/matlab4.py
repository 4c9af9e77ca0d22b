"""MATLAB: `.mat` files of version 4, matrices behind each other, without a mark of the file.

Source: "MAT-File Format", The MathWorks, section 2.
"""

from typing import Any, Final

import numpy as np

from tensorkeep.contents import Contents
from tensorkeep.errors import FormatError
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.matlab import complex_of, fortran, texts
from tensorkeep.formats.peek import Peek
from tensorkeep.tree import Names, Tree
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.sources import held

_NUMBERS: Final = ("f8", "f4", "i4", "i2", "u2", "u1")
_FULL, _TEXT, _SPARSE = 0, 1, 2
_HEADER_BYTES: Final = 20
_LONGEST_NAME: Final = 64
_MAX_MADE_BYTES: Final = 64 << 20


class Matlab4Reader:
    """Variables by name."""

    name = "matlab4"

    def recognizes(self, peek: Peek) -> bool:
        if len(peek.head) < _HEADER_BYTES + 2:
            return False
        order = _order(peek.head)
        try:
            _header(Cursor(peek.data, order=order))
        except FormatError:
            return False
        return True

    def read(self, peek: Peek) -> Contents:
        cursor = peek.cursor(order=_order(peek.head))
        tree: dict[str, Tree] = {}
        names = Names()
        while cursor.left:
            number, kind, shape, is_complex, name = _header(cursor)
            item = np.dtype(cursor.order + _NUMBERS[number])
            nbytes = shape[0] * shape[1] * item.itemsize
            parts = []
            for _ in range(1 + is_complex):
                start = cursor.at
                cursor.skip(f"{name:.100}", nbytes)
                parts.append(peek.data.part(start, cursor.at))
            tree[names.free(name)] = _value(parts, kind, item, shape, name, peek, cursor)
        return contents(peek, format="MATLAB file (version 4)", tree=tree)


def _order(head: bytes) -> str:
    """The first number tells the order of bytes: its thousands, which must read as 0 or 1."""
    return "<" if int.from_bytes(head[:4], "little") < 1000 else ">"


def _header(cursor: Cursor) -> tuple[int, int, tuple[int, int], bool, str]:
    """Type of numbers, type of matrix, shape, whether it has an imaginary part, and name."""
    code = cursor.u32("type of a matrix")
    order, zero, number, kind = code // 1000, code // 100 % 10, code // 10 % 10, code % 10
    if order != (cursor.order == ">") or zero or number >= len(_NUMBERS) or kind > _SPARSE:
        raise cursor.error(f"a matrix of the type {code}")
    rows, columns, imaginary, length = (cursor.i32(what) for what in ("rows", "columns", "imaginary part", "length of a name"))
    if min(rows, columns) < 0 or imaginary not in (0, 1) or not 1 < length <= _LONGEST_NAME:
        raise cursor.error(f"a matrix of {rows} x {columns} with a name of {length} bytes")
    raw = bytes(cursor.raw("name of a matrix", length))
    name = raw.rstrip(b"\0")
    if not raw.endswith(b"\0") or not name.isascii() or not name.decode().isidentifier():
        raise cursor.error(f"a matrix of the name {raw!r:.100}")
    if rows * columns * np.dtype(_NUMBERS[number]).itemsize * (1 + imaginary) > cursor.left:
        raise cursor.error(f"{name.decode()}: {rows} x {columns} numbers, and {cursor.left:,} bytes are left")
    return number, kind, (rows, columns), bool(imaginary), name.decode()


def _value(parts: list[Extent], kind: int, item: "np.dtype[Any]", shape: tuple[int, int], name: str, peek: Peek, cursor: Cursor) -> Tree:
    if kind == _FULL:
        tensors = [fortran(part, item, shape, name) for part in parts]
        return tensors[0] if len(tensors) == 1 else complex_of(*tensors)
    if parts[0].nbytes > _MAX_MADE_BYTES:
        raise cursor.error(f"{name}: a text or sparse matrix of {parts[0].nbytes:,} bytes, the limit is {_MAX_MADE_BYTES:,}")
    peek.budget.spend(4 * parts[0].nbytes, name)
    numbers = np.frombuffer(parts[0].read(), item)
    if kind == _TEXT:
        codes = numbers.astype(np.int64)
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < 0xD800:
            raise cursor.error(f"{name}: a text with a character of the number {int(codes.max())}")
        return held(texts("".join(map(chr, codes.tolist())), shape, cursor))
    return _sparse(numbers.reshape(shape, order="F"), name, cursor)


def _sparse(matrix: "np.ndarray[Any, Any]", name: str, cursor: Cursor) -> Tree:
    """Rows of row, column, value and perhaps imaginary part; the last one has the shape."""
    if matrix.shape[0] < 1 or matrix.shape[1] not in (3, 4):
        raise cursor.error(f"{name}: a sparse matrix of {matrix.shape[1]} columns")
    *_, last = matrix
    if not np.isfinite(matrix[:, :2]).all() or matrix[:, :2].min(initial=0) < 0 or matrix[:, :2].max(initial=0) >= 2**31:
        raise cursor.error(f"{name}: a sparse matrix with places that are no whole numbers")
    values = matrix[:-1, 2] if matrix.shape[1] == 3 else matrix[:-1, 2] + 1j * matrix[:-1, 3]
    places = matrix[:-1, :2].astype(np.int32) - 1
    return {
        "shape": [int(last[0]), int(last[1])],
        "data": held(values.astype(values.dtype.newbyteorder("<"))),
        "row": held(places[:, 0].copy()),
        "col": held(places[:, 1].copy()),
    }

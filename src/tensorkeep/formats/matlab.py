"""MATLAB: `.mat` files of versions 5 to 7.2. Version 4 is in `matlab4`; 7.3 is HDF5.

Numbers keep the type in which they are stored, which for whole doubles is a smaller one, and U8 for truth values: MATLAB itself widens
them again. Arrays lie in Fortran order and come out in C order. A struct is a dict of its fields, several are a list of dicts, a cell
array is a list, both in column-major order; texts are arrays of texts, a row each. Function handles and objects of classes are not read.

Source: "MAT-File Format", The MathWorks, section 1.
"""

import codecs
import math
from typing import Any, Final

import numpy as np

from tensorkeep.contents import Contents
from tensorkeep.dtypes import C128, of_numpy
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import Array, LazyTensor, as_array, as_bytes, spec_of
from tensorkeep.tree import Names, Stub, Tree
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent, Opened
from tensorkeep.wire.inflate import InflatedFile
from tensorkeep.wire.sources import Made, held, strided, swapped

_HEADER_BYTES: Final = 128
_ORDERS: Final = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}  # version 1.0, and the letters MI as a number
_MATRIX, _COMPRESSED, _INT8, _INT32, _UINT32 = 14, 15, 1, 5, 6
_NUMBERS: Final = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
# By type, for either order of bytes. The functions themselves: to look a codec up by its name may import it.
_TEXTS: Final = {
    kind: {"<": little, ">": big}
    for kind, little, big in (
        (1, codecs.latin_1_decode, codecs.latin_1_decode),
        (2, codecs.latin_1_decode, codecs.latin_1_decode),
        (4, codecs.utf_16_le_decode, codecs.utf_16_be_decode),
        (16, codecs.utf_8_decode, codecs.utf_8_decode),
        (17, codecs.utf_16_le_decode, codecs.utf_16_be_decode),
        (18, codecs.utf_32_le_decode, codecs.utf_32_be_decode),
    )
}
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE, _FUNCTION, _OPAQUE = 1, 2, 3, 4, 5, 16, 17
_NUMERIC: Final = range(6, 16)
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_MAX_TEXT_BYTES: Final = 64 << 20
_COMPLEX_BYTES: Final = 16
_PADDING: Final = 1024  # spaces that a text may lack at its end: empty ones of one character occur


class MatlabReader:
    """Variables by name."""

    name = "matlab"

    def recognizes(self, peek: Peek) -> bool:
        return peek.head[124:_HEADER_BYTES] in _ORDERS and peek.head[:1].isalpha()

    def read(self, peek: Peek) -> Contents:
        order = _ORDERS[peek.head[124:_HEADER_BYTES]]
        cursor = peek.cursor(after=_HEADER_BYTES, order=order)
        tree: dict[str, Tree] = {}
        variables = Names()
        left_out: list[str] = []
        while cursor.left >= 8:
            kind, data = _element(cursor)
            if kind == _COMPRESSED:
                file = InflatedFile(data, "zlib", None, budget=peek.budget, name=f"{peek.name}: a variable")
                opened = Opened(file, mmap=False)
                peek.opened.append(opened)
                kind, data = _element(Cursor(opened.whole(), order=order))
            if kind != _MATRIX:
                left_out.append(f"an element of the type {kind} at byte {cursor.at:,}")
                continue
            name, value = _Matrix(data, order, peek, left_out).read(depth=0)
            if not name:  # of the subsystem, which knows about objects and functions
                left_out.append("the workspace of its functions and objects")
                continue
            tree[variables.free(name)] = value
        described = bytes(peek.head[:116]).split(b"\0")[0].decode("latin-1").strip()
        return contents(peek, format="MATLAB file", tree=tree, metadata={"description": described}, left_out=left_out)


def _element(cursor: Cursor) -> tuple[int, Extent]:
    """The type and the data of the next element; a small one stands in its own tag. Moves to the next multiple of eight."""
    start = cursor.at
    tag = cursor.u32("type of an element")
    if tag >> 16:
        nbytes, kind = tag >> 16, tag & 0xFFFF
        if nbytes > 4:
            raise cursor.error(f"a small element of {nbytes:,} bytes")
        data = cursor.extent.part(cursor.at, cursor.at + nbytes)
        cursor.skip("a small element", 4)
        return kind, data
    nbytes = cursor.u32("size of an element")
    begin = cursor.at
    cursor.skip("an element", nbytes)
    data = cursor.extent.part(begin, cursor.at)
    if tag != _COMPRESSED:
        cursor.at += min(-(cursor.at - start) % 8, cursor.left)
    return tag, data


class _Matrix:
    """One variable, field or cell.

    Args:
        data: its element.
        order: of bytes.
        left_out: gets what is not read.
    """

    def __init__(self, data: Extent, order: str, peek: Peek, left_out: list[str]) -> None:
        self._data, self._order, self._peek, self._left_out = data, order, peek, left_out
        self._cursor = Cursor(data, order=order)

    def read(self, *, depth: int) -> tuple[str, Tree]:
        """Its name and its value."""
        if depth > self._peek.limits.depth:
            raise self._cursor.error(f"nested deeper than {self._peek.limits.depth}")
        if not self._data.nbytes:  # an empty cell or field
            return "", held(np.empty((0, 0), np.float64))
        flags = self._ints(_UINT32, "flags")
        kind, bits = (flags[0] & 0xFF, flags[0]) if flags else (0, 0)
        if kind == _OPAQUE:
            return self._opaque()
        shape = tuple(self._ints(_INT32, "shape"))
        if len(shape) < 2 or any(length < 0 for length in shape) or len(shape) > self._peek.limits.rank:
            raise self._cursor.error(f"a variable of the shape {list(shape)!r:.200}")
        name = self._text("name of a variable")
        if kind in _NUMERIC:
            return name, self._numeric(shape, bits, name)
        if kind == _CHAR:
            return name, self._char(shape)
        if kind == _SPARSE:
            return name, self._sparse(shape, bits)
        if kind == _CELL:
            return name, [self._inner(depth) for _ in range(self._count(shape, 1))]
        if kind in (_STRUCT, _OBJECT):
            return name, self._struct(shape, depth, cls=self._text("name of a class") if kind == _OBJECT else "")
        if kind == _FUNCTION:
            self._left_out.append(f"{name:.200}: a function handle")
            return name, Stub("matlab", "function_handle", {"__state__": self._inner(depth)})
        raise self._cursor.error(f"{name:.200} is of class {kind}, which is not known")

    def _opaque(self) -> tuple[str, Tree]:
        name, system, cls = (self._text(what) for what in ("name of a variable", "kind of an object", "name of a class"))
        self._left_out.append(f"{name:.200}: an object of the class {cls:.100}")
        return name, Stub(f"matlab.{system}", cls)

    def _count(self, shape: tuple[int, ...], elements_each: int) -> int:
        count = math.prod(shape)
        return self._cursor.fits("number of elements", count, bytes_each=8 * elements_each) if elements_each else count

    def _inner(self, depth: int) -> Tree:
        kind, data = _element(self._cursor)
        if kind != _MATRIX:
            raise self._cursor.error(f"an element of the type {kind}, where a matrix is wanted")
        return _Matrix(data, self._order, self._peek, self._left_out).read(depth=depth + 1)[1]

    def _struct(self, shape: tuple[int, ...], depth: int, *, cls: str) -> Tree:
        lengths = self._ints(_INT32, "length of the names of fields")
        width = lengths[0] if lengths else 0
        _, raw = _element(self._cursor)
        if not 1 <= width <= 4096:
            raise self._cursor.error(f"names of fields of {width:,} bytes")
        text = bytes(raw.read())
        free = Names().free
        names = [
            free(text[at : at + width].split(b"\0")[0].decode("utf-8", "replace")) for at in range(0, len(text) // width * width, width)
        ]
        made = []
        for _ in range(self._count(shape, len(names))):
            fields: dict[Any, Tree] = {}
            for name in names:
                fields[name] = self._inner(depth)
            made.append(Stub("matlab", cls, fields) if cls else fields)
            if not names and len(made) >= 1000:  # structs without fields take no bytes: as many as one likes
                break
        return made[0] if len(made) == 1 else made

    def _numeric(self, shape: tuple[int, ...], bits: int, name: str) -> LazyTensor:
        kind, real = _element(self._cursor)
        if kind not in _NUMBERS:
            raise self._cursor.error(f"{name:.200}: numbers of the type {kind}, which is not known")
        dtype = np.dtype(self._order + _NUMBERS[kind])
        if not bits & _COMPLEX:
            return self._fortran(real, dtype, shape, name)
        kind, imaginary = _element(self._cursor)
        if kind not in _NUMBERS:
            raise self._cursor.error(f"{name:.200}: numbers of the type {kind}, which is not known")
        imaginary_dtype = np.dtype(self._order + _NUMBERS[kind])
        return complex_of(self._fortran(real, dtype, shape, name), self._fortran(imaginary, imaginary_dtype, shape, name))

    def _fortran(self, data: Extent, dtype: "np.dtype[Any]", shape: tuple[int, ...], name: str) -> LazyTensor:
        """An array in Fortran order."""
        tensor = fortran(data, dtype, shape, f"{name:.200}")
        if data.nbytes != tensor.nbytes:
            raise self._cursor.error(f"{name:.200}: {tensor.spec} takes {tensor.nbytes:,} bytes, {data.nbytes:,} are said")
        return tensor

    def _char(self, shape: tuple[int, ...]) -> LazyTensor:
        kind, data = _element(self._cursor)
        if kind not in _TEXTS or data.nbytes > _MAX_TEXT_BYTES:
            raise self._cursor.error(f"a text of the type {kind}, of {data.nbytes:,} bytes")
        try:
            text, used = _TEXTS[kind][self._order](data.read())
        except UnicodeDecodeError as error:
            raise self._cursor.error(f"a text that is no {error.encoding}: {error.reason}") from None
        if used != data.nbytes:
            raise self._cursor.error("a text that ends within a character")
        self._peek.budget.spend(4 * len(text), "a text")
        return held(texts(text, shape, self._cursor))

    def _sparse(self, shape: tuple[int, ...], bits: int) -> Tree:
        parts = []
        for what, wanted in (("rows", "i4"), ("columns", "i4")):
            kind, data = _element(self._cursor)
            if kind not in _NUMBERS or data.nbytes % np.dtype(_NUMBERS[kind]).itemsize:
                raise self._cursor.error(f"{what} of a sparse matrix are of the type {kind}")
            self._peek.budget.spend(data.nbytes, "a sparse matrix")
            parts.append(np.frombuffer(data.read(), np.dtype(self._order + _NUMBERS[kind])).astype(np.dtype(wanted)))
        count = int(parts[1][-1]) if parts[1].size else 0
        kind, real = _element(self._cursor)
        dtype = np.dtype(self._order + _NUMBERS.get(kind, "f8"))
        if bits & _LOGICAL and real.nbytes <= parts[0].size:  # truth values take a byte each, whatever the type says
            dtype = np.dtype(np.uint8)
        if kind not in _NUMBERS or not 0 <= count * dtype.itemsize <= real.nbytes or count > parts[0].size:
            raise self._cursor.error(f"a sparse matrix with {count:,} values in {real.nbytes:,} bytes")
        self._peek.budget.spend(real.nbytes, "a sparse matrix")
        values: Array = np.frombuffer(real.read(0, count * dtype.itemsize), dtype).astype(dtype.newbyteorder("<"))
        if bits & _COMPLEX:
            kind, data = _element(self._cursor)
            other = np.dtype(self._order + _NUMBERS.get(kind, "f8"))
            if kind not in _NUMBERS or count * other.itemsize > data.nbytes:
                raise self._cursor.error(f"a sparse matrix with {count:,} values in {data.nbytes:,} bytes")
            values = values + 1j * np.frombuffer(data.read(0, count * other.itemsize), other)
        elif bits & _LOGICAL:
            values = values != 0
        rows, columns = parts
        return {
            "shape": list(shape),
            "data": held(values),
            "indices": held(rows[:count]),
            "indptr": held(columns),
        }

    def _ints(self, wanted: int, what: str) -> list[int]:
        kind, data = _element(self._cursor)
        if kind not in (wanted, _INT32, _UINT32) or data.nbytes % 4 or data.nbytes > 4 * 1024:
            raise self._cursor.error(f"{what}: an element of the type {kind} with {data.nbytes:,} bytes")
        found: list[int] = np.frombuffer(data.read(), np.dtype(f"{self._order}{'u' if wanted == _UINT32 else 'i'}4")).tolist()
        return found

    def _text(self, what: str) -> str:
        kind, data = _element(self._cursor)
        if kind not in (_INT8, 2, 16) or data.nbytes > 4096:
            raise self._cursor.error(f"{what}: an element of the type {kind} with {data.nbytes:,} bytes")
        return bytes(data.read()).split(b"\0")[0].decode("utf-8", "replace")


def fortran(data: Extent, dtype: "np.dtype[Any]", shape: tuple[int, ...], what: str) -> LazyTensor:
    """An array in Fortran order and either order of bytes, from the first byte on."""
    known = of_numpy(dtype.newbyteorder("<"))
    assert known is not None, "one of _NUMBERS"
    steps = np.cumprod((1, *shape[:-1]), dtype=object)
    tensor = strided(data, 0, spec_of(known, shape), tuple(map(int, steps)), what=what)
    return tensor if dtype.newbyteorder("<") == dtype or not tensor.nbytes else swapped(tensor, dtype)


def complex_of(real: LazyTensor, imaginary: LazyTensor) -> LazyTensor:
    """The complex tensor of two real ones of the same shape."""

    def make(start: int, stop: int) -> memoryview:
        first, last = start // _COMPLEX_BYTES, -(-stop // _COMPLEX_BYTES)
        made = np.empty(last - first, np.complex128)
        for part, into in ((real, made.real), (imaginary, made.imag)):
            data = part.source.read(part.dtype.nbytes(first), part.dtype.nbytes(last))
            into[...] = as_array(data, 0, spec_of(part.dtype, (last - first,)))
        return as_bytes(made)[start - _COMPLEX_BYTES * first : stop - _COMPLEX_BYTES * first]

    spec = spec_of(C128, real.shape)
    return LazyTensor(spec, Made(spec.nbytes, make))


def texts(text: str, shape: tuple[int, ...], cursor: Cursor) -> Array:
    """Characters in Fortran order as an array of texts, one for each row: its last axis becomes their length."""
    count = math.prod(shape)
    if count == 0:
        return np.zeros((0,), "<U1")
    if count > len(text) + _PADDING:
        raise cursor.error(f"a text of the shape {list(shape)!r:.200} with {len(text):,} characters")
    characters = np.array(list(text[:count].ljust(count)), "<U1")
    rows = np.ascontiguousarray(characters.reshape(shape, order="F"))
    return rows.view(f"<U{shape[-1]}").reshape(shape[:-1])

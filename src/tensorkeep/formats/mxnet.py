"""MXNet: `.params` and `.nd` files of `nd.save`, of all versions; sparse arrays as the tensors they are made of.

Source: MXNet's src/ndarray/ndarray.cc (NDArray::Save, NDArray::Load, LegacyLoad) and include/mxnet/tuple.h.
"""

from typing import Any, Final

from tensorkeep.contents import Contents
from tensorkeep.dtypes import STANDARD
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.tree import Tree
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.sources import run_of

_MAGIC: Final = (0x112).to_bytes(8, "little") + bytes(8)
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_DTYPES: Final = dict(enumerate(("F32", "F64", "F16", "U8", "I32", "I8", "I64", "BOOL", "I16", "U16", "U32", "U64", "BF16")))
_DENSE: Final = 0
_PARTS: Final = {1: ("indices",), 2: ("indptr", "indices")}  # row_sparse, csr: what stands beside the values
_NAMES: Final = {1: "row_sparse", 2: "csr"}


class MxnetReader:
    """A list of arrays, with names or without."""

    name = "mxnet"

    def recognizes(self, peek: Peek) -> bool:
        return peek.head.startswith(_MAGIC)

    def read(self, peek: Peek) -> Contents:
        cursor = peek.cursor(after=len(_MAGIC))
        count = cursor.fits("number of arrays", cursor.u64("number of arrays"), bytes_each=8)
        arrays = [self._array(cursor, number) for number in range(count)]
        named = cursor.fits("number of names", cursor.u64("number of names"), bytes_each=8)
        if named not in (0, count):
            raise cursor.error(f"{named:,} names for {count:,} arrays")
        names = [cursor.text("name", cursor.u64("length of a name")) for _ in range(named)]
        if len(set(names)) != len(names):
            raise peek.error("a name occurs twice")
        if cursor.left:
            raise peek.error(f"{cursor.left:,} bytes follow its last name")
        return contents(peek, format="MXNet arrays", tree=dict(zip(names, arrays, strict=True)) if named else arrays)

    def _array(self, cursor: Cursor, number: int) -> Tree:
        what = f"array {number:,}"
        magic = cursor.u32(what)
        if magic not in (_V2, _V3):
            # The first version wrote the number of axes here, and their lengths in 32 bits.
            shape = self._shape(cursor, what, "q" if magic == _V1 else "I", axes=None if magic == _V1 else magic)
            return self._dense(cursor, what, shape) if shape else None
        kind = cursor.i32(f"{what}: kind")
        if kind == _DENSE:
            shape = self._shape(cursor, what, "q")
            if shape is None or (shape == () and magic == _V2):
                return None  # an array without shape has no values
            return self._dense(cursor, what, shape)
        parts = _PARTS.get(kind)
        if parts is None:
            raise cursor.error(f"{what} is of kind {kind}, known are dense (0), row_sparse (1) and csr (2)")
        self._shape(cursor, what, "q")
        shape = self._shape(cursor, what, "q")
        if shape is None:
            raise cursor.error(f"{what}: a sparse array without shape")
        dtype = self._device_and_dtype(cursor, what)
        layouts = [(name, self._dtype(cursor, f"{what}: {name}"), self._shape(cursor, what, "q")) for name in parts]
        # How many values there are follows from their places; the stored shape may be that of before the first one was put in.
        places = layouts[-1][2] or ()
        stored = (*places, *shape[1:]) if _NAMES[kind] == "row_sparse" else places
        found: dict[str, Any] = {"kind": _NAMES[kind], "shape": list(shape), "values": self._tensor(cursor, what, dtype, stored)}
        for name, part_dtype, part_shape in layouts:
            found[name] = self._tensor(cursor, f"{what}: {name}", part_dtype, part_shape or ())
        return found

    def _shape(self, cursor: Cursor, what: str, code: str, axes: int | None = None) -> tuple[int, ...] | None:
        axes = cursor.i32(f"{what}: number of axes") if axes is None else axes
        if axes == -1:
            return None
        cursor.fits(f"{what}: number of axes", axes, bytes_each=8 if code == "q" else 4)
        return tuple(cursor.number(f"{what}: length of axis {axis}", code) for axis in range(axes))

    def _device_and_dtype(self, cursor: Cursor, what: str) -> str:
        cursor.skip(f"{what}: device", 8)
        return self._dtype(cursor, what)

    def _dtype(self, cursor: Cursor, what: str) -> str:
        found = cursor.i32(f"{what}: dtype")
        return _DTYPES[cursor.one_of(f"{what}: dtype", found, _DTYPES)]

    def _dense(self, cursor: Cursor, what: str, shape: tuple[int, ...]) -> LazyTensor:
        return self._tensor(cursor, what, self._device_and_dtype(cursor, what), shape)

    def _tensor(self, cursor: Cursor, what: str, dtype: str, shape: tuple[int, ...]) -> LazyTensor:
        if any(length < 0 for length in shape):
            raise cursor.error(f"{what} has the shape {list(shape)!r:.200}")
        tensor = run_of(cursor.extent, cursor.at, spec_of(STANDARD[dtype], shape), what=what)
        cursor.skip(what, tensor.nbytes)
        return tensor

"""The constructors of NumPy: arrays, scalars and dtypes in a pickle. The bytes of large arrays stay where they lie in the file.

Arrays of Python objects become nested lists. Masked arrays, and classes of arrays that are not NumPy's own, become stubs that hold a
tensor; so do random generators, which are inert like any object.
Source: `array_reduce` and `array_setstate` of https://github.com/numpy/numpy/blob/main/numpy/_core/src/multiarray/methods.c
"""

import math
from typing import Any, Final

import numpy as np

from tensorkeep import dtypes
from tensorkeep.plain import decode_utf32
from tensorkeep.tensors import LazyTensor, TensorSpec, spec_of
from tensorkeep.unpickle import arraytypes
from tensorkeep.unpickle.arraytypes import PendingDType, dtype_of
from tensorkeep.unpickle.inert import Constructor, Global, Inert, Keyed, Lump, Pending
from tensorkeep.unpickle.keys import Keys
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.sources import Kept, run_of, strided, swapped

_MOST_LENGTHS: Final = 64
_MOST_SPECS: Final = 64  # of one dtype that are remembered
_CORES: Final = ("numpy.core", "numpy._core")
_ARRAYS: Final = frozenset(
    {("numpy", name) for name in ("ndarray", "matrix", "memmap", "recarray")}
    | {("numpy.matrixlib.defmatrix", "matrix"), ("numpy.rec", "recarray")}
    | {(f"{core}.{module}", name) for core in _CORES for module, name in (("memmap", "memmap"), ("records", "recarray"))}
)
"""Classes whose arrays are tensors like any other."""


class PendingArray(Pending):
    """An array whose shape, dtype and bytes come as its state.

    Args:
        cls: its class.
        keys: count the lists that an array of objects becomes.
    """

    __slots__ = ("_cls", "_keys", "_made")

    def __init__(self, cls: Global, keys: Keys) -> None:
        self._cls, self._keys = cls, keys
        self._made: object = None

    def build(self, state: Any) -> None:
        cls = self._cls
        numpys_own = (cls.module, cls.name) in _ARRAYS
        if numpys_own and type(state) is tuple and len(state) == 5:  # most of a large file: not a call more than it takes
            _, shape, dtype, fortran, data = state
            if type(data) is bytes and not fortran and (spec := _met(dtype, shape)) is not None and len(data) == spec.nbytes:
                self._made = LazyTensor(spec, Kept(data, self._keys.file, spec.dtype is dtypes.BOOL))
                return
        if type(state) is tuple and len(state) in (4, 5) and (type(state[-4]) is tuple or numpys_own):
            shape, dtype, fortran, data = state[-4:]
            made = array(shape, dtype, fortran, data, self._keys)
            self._made = made if numpys_own else _stub(cls, {"data": made})
        elif numpys_own:
            raise ValueError(f"an array with a {type(state).__name__} as its state")
        else:  # a class may have a state of its own
            self._made = _stub(cls, state)

    def value(self) -> object:
        if self._made is None:
            raise ValueError("an array without a state")
        return self._made


class PendingMasked(PendingArray):
    """A masked array: its state has the mask behind the bytes, and the value that is shown for what is masked."""

    __slots__ = ()

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 7:
            raise ValueError("a masked array with a state that is none")
        _, shape, dtype, fortran, data, mask, fill_value = state
        plain = dtype_of(dtype).names is None
        fields = {"data": array(shape, dtype, fortran, data, self._keys), "mask": mask}
        if plain:
            fields["mask"] = array(shape, np.dtype("?"), fortran, mask, self._keys)
        self._made = _stub(self._cls, fields | {"fill_value": fill_value})


def _stub(cls: Global, state: object) -> Inert:
    made = Inert(cls.module, cls.name)
    made.states = [state]
    return made


def _met(dtype: Any, shape: Any) -> TensorSpec | None:
    """What arrays of a dtype and a shape are that occurred before; None for others, and for those whose bytes are turned round."""
    return dtype.specs.get(shape) if type(dtype) is PendingDType and type(shape) is tuple else None


def array(shape: Any, raw_dtype: Any, fortran: Any, data: Any, keys: Keys) -> object:
    """An array of its parts: a tensor, or nested lists of objects.

    Raises:
        ValueError: they do not fit together.
    """
    if not fortran and type(data) in (bytes, bytearray) and (spec := _met(raw_dtype, shape)) is not None and len(data) == spec.nbytes:
        return LazyTensor(spec, Kept(bytes(data), keys.file, spec.dtype is dtypes.BOOL))
    dtype = dtype_of(raw_dtype)
    if type(shape) is not tuple or len(shape) > _MOST_LENGTHS or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("an array with a shape that is none")
    if dtype.hasobject:
        return _nested(data, shape, keys)
    known = arraytypes.known(dtype)
    if known is None:
        return _stub(Global("numpy", "ndarray"), {"shape": shape, "dtype": str(dtype), "data": data})
    if dtype.itemsize * math.prod(length or 1 for length in shape) >= 2**63:
        raise ValueError(f"an array of the shape {shape!r:.100}")
    made = _tensor(known, shape, bool(fortran), _kept(data), keys.file)
    if type(raw_dtype) is PendingDType and known.memory is None and len(raw_dtype.specs) < _MOST_SPECS:
        raw_dtype.specs[shape] = made.spec
    return made


def _tensor(dtype: dtypes.DType, shape: tuple[int, ...], fortran: bool, data: "Extent | bytes", file: str) -> LazyTensor:
    spec = spec_of(dtype, shape)
    nbytes = len(data) if isinstance(data, bytes) else data.nbytes
    if nbytes != spec.nbytes:
        raise ValueError(f"{spec} takes {spec.nbytes:,} bytes, and {nbytes:,} are there")
    turned = fortran and len(shape) > 1 and nbytes > 0
    if isinstance(data, bytes):
        if turned:
            data = np.ndarray(shape, f"V{dtype.bits // 8}", data, order="F").tobytes()
        made = LazyTensor(spec, Kept(data, file, spec.dtype is dtypes.BOOL))
    elif turned:
        strides = tuple(math.prod(shape[:axis]) for axis in range(len(shape)))
        made = strided(data, 0, spec, strides, what="an array")
    else:
        made = run_of(data, 0, spec, what="an array")
    return made if dtype.memory is None or not nbytes else swapped(made, dtype.memory)


def _kept(data: Any) -> "Extent | bytes":
    """The bytes of an array: in the file, or in memory where they are few or had to be decoded."""
    if type(data) is Lump:
        return data.extent
    if type(data) is str:  # bytes of Python 2
        data = data.encode("latin-1")
    if type(data) is bytearray:
        data = bytes(data)
    if type(data) is not bytes and not isinstance(data, Extent):
        raise ValueError(f"a {type(data).__name__} as the bytes of an array")
    return data


def _nested(items: Any, shape: tuple[int, ...], keys: Keys) -> object:
    """Objects as lists inside lists, as the shape has it; the object itself for the shape ()."""
    if type(items) is not list or len(items) != math.prod(shape):
        raise ValueError(f"an array of objects of the shape {shape!r:.100}, with other than as many")
    if not shape:
        return items[0]
    if not items:
        return []
    nested = items
    for length in reversed(shape[1:]):
        keys.making(len(nested) // length)
        nested = [nested[start : start + length] for start in range(0, len(nested), length)]
    return nested


def _reconstructed(args: tuple[Any, ...], keys: Keys) -> object:
    """`_reconstruct(class, shape, code)`: shape and code stand for nothing yet."""
    cls, _, _ = args
    if type(cls) is not Global:
        raise ValueError("an array of no class")
    return PendingArray(cls, keys)


def _masked(args: tuple[Any, ...], keys: Keys) -> object:
    """`_mareconstruct(class, base class, shape, code)`."""
    cls, _, _, _ = args
    if type(cls) is not Global:
        raise ValueError("an array of no class")
    return PendingMasked(cls, keys)


def _from_buffer(args: tuple[Any, ...], keys: Keys) -> object:
    """`_frombuffer(bytes, dtype, shape, order)` of protocol 5."""
    data, dtype, shape, order = args[:4]
    if order not in ("C", "F") or dtype_of(dtype).hasobject:
        raise ValueError("an array in an order that is none, or of objects")
    return array(shape, dtype, order == "F", data, keys)


def _scalar(args: tuple[Any, ...]) -> object:
    dtype, data = dtype_of(args[0]), args[1] if len(args) > 1 else b""
    if dtype.hasobject:
        return data
    data = data.value() if type(data) is Lump else data
    data = data.encode("latin-1") if type(data) is str else data
    if type(data) is not bytes or len(data) != dtype.itemsize:
        raise ValueError(f"a scalar of {dtype} has {dtype.itemsize} bytes")
    if arraytypes.known(dtype) is None:
        return _stub(Global("numpy", dtype.name), {"data": data})
    found = np.frombuffer(data, dtype) if data else np.zeros(1, dtype)
    if not dtypes.texts_are_valid(found):
        raise ValueError("a text with a character that is none")
    if dtype.kind == "U":  # an element of an array loses its last zeros, which a text alone may have
        return np.str_(decode_utf32(data, dtype.byteorder))
    return np.bytes_(data) if dtype.kind == "S" else found[0]


NUMPY: Final[dict[tuple[str, str], "Constructor | Keyed"]] = {
    **{(f"{core}.multiarray", "_reconstruct"): Keyed(_reconstructed) for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): Keyed(_from_buffer) for core in _CORES},
    ("numpy", "dtype"): arraytypes.make,
    ("numpy._core._internal", "_convert_to_stringdtype_kwargs"): arraytypes.make_texts,
    ("numpy.ma.core", "_mareconstruct"): Keyed(_masked),
    ("numpy.ma", "_mareconstruct"): Keyed(_masked),
}
"""By module and name, as a pickle names them."""

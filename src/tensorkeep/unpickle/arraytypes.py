"""The dtypes of NumPy in a pickle: a short text, and a state with byte order, fields and units.

A dtype is made when its state comes. What it may hold is bounded: texts of a fixed grammar, few fields, no deep nesting.
Source: `arraydescr_reduce` and `arraydescr_setstate` of https://github.com/numpy/numpy/blob/main/numpy/_core/src/multiarray/descriptor.c
"""

import re
from typing import Any, Final

import ml_dtypes
import numpy as np

from tensorkeep import dtypes
from tensorkeep.tensors import TensorSpec
from tensorkeep.unpickle.inert import Global, Pending
from tensorkeep.wire import ndarray

_TEXT: Final = re.compile(r"[<>|=]?(?:b1|\?|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[SUVa]\d{1,9}|[OMm][48]?)")
_UNIT: Final = re.compile(r"Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as")
_MOST_BYTES: Final = 2**31 - 1  # of one element: NumPy's own bound
_MOST_LEAVES: Final = 10_000  # fields, those of fields counted in each
_DEEPEST: Final = 8
_MOST_LENGTHS: Final = 16  # of a field that is an array

# Where ml_dtypes' types were found before it had them.
_ML_MODULES: Final = (
    "ml_dtypes",
    "ml_dtypes._ml_dtypes_ext",
    "jaxlib.xla_extension",
    "jax.numpy",
    "tensorflow.python.lib.core._pywrap_bfloat16",
)
_ML_NAMES: Final = tuple(name for name in vars(ml_dtypes) if isinstance(getattr(ml_dtypes, name), type) and name not in ("finfo", "iinfo"))
_CLASSES: Final[dict[tuple[str, str], str]] = {(module, name): name for module in _ML_MODULES for name in _ML_NAMES} | {
    (module, "record"): "V" for module in ("numpy", "numpy.rec", "numpy.core.records", "numpy._core.records")
}

AnyDType = np.dtype[Any]


class PendingDType(Pending):
    """A dtype whose state may still come.

    Args:
        base: the dtype that its text names; without byte order, fields and unit.

    Attributes:
        specs: of arrays of this dtype, by shape: many have few. Only of those whose bytes are a tensor's as they are.
    """

    __slots__ = ("_built", "depth", "dtype", "leaves", "specs")

    def __init__(self, base: AnyDType) -> None:
        self.dtype, self.leaves, self.depth, self._built = base, 1, 0, False
        self.specs: dict[Any, TensorSpec] = {}

    def value(self) -> object:
        return self.dtype

    def build(self, state: Any) -> None:
        if self._built:
            raise ValueError("a dtype with two states")
        self._built = True
        self.specs.clear()
        if type(state) is not tuple or len(state) not in (7, 8, 9) or type(state[1]) is not str:
            raise ValueError(f"a state of {len(state) if type(state) is tuple else type(state).__name__} parts for a dtype")
        _, order, subarray, names, fields, nbytes, *_ = state
        if subarray is not None:
            self._array_of(subarray)
        elif names is not None:
            self._record_of(names, fields, nbytes)
        elif self.dtype.kind in "Mm" and len(state) == 9:
            self._moment_of(state[8])
        if order in (">", "<") and self.dtype.names is None and self.dtype.subdtype is None:
            self.dtype = self.dtype.newbyteorder(order)

    def _array_of(self, subarray: Any) -> None:
        inner, shape = subarray if type(subarray) is tuple and len(subarray) == 2 else (None, None)
        shape = (shape,) if type(shape) is int else shape
        base = self._inside(inner)
        if type(shape) is not tuple or len(shape) > _MOST_LENGTHS or not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError("a dtype with a shape that is none")
        count = 1
        for length in shape:
            count *= length
        if count * base.itemsize > _MOST_BYTES:
            raise ValueError(f"a dtype of {count * base.itemsize:,} bytes")
        self.dtype = np.dtype((base, shape))

    def _record_of(self, names: Any, fields: Any, nbytes: Any) -> None:
        if type(names) is not tuple or not all(type(name) is str for name in names) or type(fields) is not dict:
            raise ValueError("a dtype whose fields have no names")
        if type(nbytes) is not int or not 0 <= nbytes <= _MOST_BYTES:
            raise ValueError("a dtype with fields and without a size")
        formats, offsets = [], []
        for name in names:
            inner, offset = fields[name][:2]  # a title, its second name, is let go: a tensor has none
            base = self._inside(inner)
            if type(offset) is not int or not 0 <= offset <= nbytes - base.itemsize:
                raise ValueError(f"a dtype whose field {name!r:.60} lies outside of it")
            formats.append(base)
            offsets.append(offset)
        document: Any = {"names": list(names), "formats": formats, "offsets": offsets, "itemsize": nbytes}
        try:
            self.dtype = np.dtype(document)
        except SyntaxError as error:  # what NumPy calls some bad names
            raise ValueError(str(error)) from None

    def _moment_of(self, metadata: Any) -> None:
        unit = metadata[1] if type(metadata) is tuple and len(metadata) == 2 else None
        if type(unit) is not tuple or len(unit) < 3:
            raise ValueError("a dtype of times without a unit")
        name = str(unit[0], "ascii") if type(unit[0]) is bytes else unit[0]
        if name == "generic":
            return
        if type(name) is not str or _UNIT.fullmatch(name) is None or type(unit[1]) is not int or not 1 <= unit[1] < 2**31 or unit[2] != 1:
            raise ValueError("a dtype of times in a unit that is none")
        self.dtype = np.dtype(f"{self.dtype.kind}8[{unit[1]}{name}]")

    def _inside(self, inner: Any) -> AnyDType:
        """A dtype that is part of this one, counted."""
        if isinstance(inner, PendingDType):
            self.leaves += inner.leaves
            self.depth = max(self.depth, inner.depth + 1)
        else:
            self.leaves += 1
        if inner is self or self.leaves > _MOST_LEAVES or self.depth > _DEEPEST:
            raise ValueError(f"a dtype of more than {_MOST_LEAVES:,} fields, or nested deeper than {_DEEPEST}")
        return dtype_of(inner)


def make(args: tuple[Any, ...]) -> object:
    """`numpy.dtype(text, align, copy)`."""
    named = args[0]
    if type(named) is Global:
        text = _CLASSES[named.module, named.name]
        return PendingDType(np.dtype("V") if text == "V" else np.dtype(getattr(ml_dtypes, text)))
    if type(named) is bytes:
        named = str(named, "latin-1")
    if type(named) is not str or _TEXT.fullmatch(named) is None:
        raise ValueError(f"the dtype {named!r:.60}")
    if (length := re.sub(r"\D", "", named)) and int(length) > _MOST_BYTES // 4:
        raise ValueError(f"a dtype of {length} characters")
    return PendingDType(np.dtype(re.sub(r"^([<>|=]?)a", r"\1S", re.sub(r"O[48]", "O", named))))


def make_texts(args: tuple[Any, ...]) -> object:
    """`numpy._core._internal._convert_to_stringdtype_kwargs(...)`: texts of any length, which come as objects, one by one."""
    return PendingDType(np.dtype("O"))


def dtype_of(raw: Any) -> AnyDType:
    """A dtype that is used by something else."""
    found = raw.dtype if isinstance(raw, PendingDType) else raw
    if not isinstance(found, np.dtype):
        raise ValueError(f"a {type(raw).__name__} as a dtype")
    return found


def known(dtype: AnyDType) -> dtypes.DType | None:
    """The DType of the elements of an array as NumPy writes their bytes, one after the other; None for what a tensor cannot hold."""
    found = None if dtype.hasobject else ndarray.dtype_of(dtype)
    return dtypes.F4_BYTE_EACH if found is dtypes.F4 else found

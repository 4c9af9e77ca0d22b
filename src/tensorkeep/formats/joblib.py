"""joblib's arrays: behind the pickle's own opcodes, in files beside it, or in compressed files beside it.

joblib pickles a wrapper in place of an array. Since 0.10 the bytes of the array follow in the stream right behind the wrapper's state;
before, the wrapper named a file. Whole files of that time that are compressed have a head of joblib's own (see `compressed`).

Source: https://github.com/joblib/joblib/blob/main/joblib/numpy_pickle.py and `numpy_pickle_compat.py` beside it.
"""

from typing import Any, Final

from tensorkeep.formats.compressed import zfile
from tensorkeep.formats.npy import arrays_in
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.unpickled import BASIC, Left, raw
from tensorkeep.unpickle.arraytypes import dtype_of
from tensorkeep.unpickle.inert import Followed, Inert
from tensorkeep.unpickle.state import Table
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.ndarray import array_of

_MOST_LENGTHS: Final = 64
_PACKAGES: Final = ("joblib", "sklearn.externals.joblib")  # scikit-learn brought it along until 0.22


class Joblib:
    """What joblib's wrappers need to know of the file that they stand in.

    Args:
        peek: the file.
        left: gets a sentence for each array that could not be had.

    Attributes:
        table: the constructors of a pickle, joblib's wrappers among them.
        met: whether there was one.
    """

    def __init__(self, peek: Peek, left: Left) -> None:
        self.peek, self.left, self.met = peek, left, False
        wrappers = {
            ("numpy_pickle", "NumpyArrayWrapper"): lambda _: _Inline(self),
            ("numpy_pickle", "NDArrayWrapper"): lambda _: _Beside(self),
            ("numpy_pickle_compat", "NDArrayWrapper"): lambda _: _Beside(self),
            ("numpy_pickle", "ZNDArrayWrapper"): lambda _: _Compressed(self),
            ("numpy_pickle_compat", "ZNDArrayWrapper"): lambda _: _Compressed(self),
        }
        self.table: Table = BASIC | {
            (f"{package}.{module}", name): make for package in _PACKAGES for (module, name), make in wrappers.items()
        }  # fmt: skip


class _Wrapper(Followed):
    """What stands for an array until its state says where that is."""

    __slots__ = ("_joblib", "_made")

    def __init__(self, joblib: Joblib) -> None:
        self._joblib = joblib
        self._made: object = self  # until it has a state
        joblib.met = True

    def build_before(self, state: Any, cursor: Cursor) -> object | None:
        if type(state) is not dict:
            raise ValueError(f"a wrapper of an array with a {type(state).__name__} as its state")
        self._made = self.array(state, cursor)
        return self._made

    def array(self, state: dict[Any, Any], cursor: Cursor) -> object:
        """The array itself."""
        raise NotImplementedError

    def value(self) -> object:
        if self._made is self:
            raise ValueError("a wrapper of an array without a state")
        return self._made

    def missing(self, name: str, cursor: Cursor) -> Inert:
        """What stands for an array whose file is not there."""
        self._joblib.left.append(f"an array that lies in {name!r:.200}, which is not there")
        made = Inert("numpy", "ndarray")
        made.states = [{"filename": name}]
        return made


class _Inline(_Wrapper):
    """Since 0.10: the bytes follow in the stream; of an array of objects a pickle of its own does."""

    __slots__ = ()

    def array(self, state: dict[Any, Any], cursor: Cursor) -> object:
        dtype, shape, order = dtype_of(state.get("dtype")), _shape(state.get("shape")), state.get("order")
        if order not in ("C", "F"):
            raise ValueError(f"an array in the order {order!r:.60}")
        if dtype.hasobject:
            result = raw(self._joblib.peek, cursor.extent, at=cursor.at)  # joblib reads it without its wrappers, too
            cursor.at = result.end
            return result.value
        if state.get("numpy_array_alignment_bytes") is not None:
            cursor.skip("padding before an array", cursor.u8("padding before an array"))
        made = array_of(cursor.extent, cursor.at, dtype, shape, fortran=order == "F", what="an array")
        cursor.skip("array", made.nbytes)
        return made


class _Beside(_Wrapper):
    """Before 0.10: the wrapper names a file of NumPy."""

    __slots__ = ()

    def array(self, state: dict[Any, Any], cursor: Cursor) -> object:
        name = _file_name(state)
        found = self._joblib.peek.sibling_if_there(name)
        if found is None:
            return self.missing(name, cursor)
        return next(arrays_in(found, self._joblib.peek, name, self._joblib.left))


class _Compressed(_Wrapper):
    """Before 0.10, compressed: the wrapper names a compressed file of the bytes alone, and holds all else of the array."""

    __slots__ = ()

    def array(self, state: dict[Any, Any], cursor: Cursor) -> object:
        name, rest = _file_name(state), state.get("state")
        if type(rest) is not tuple or len(rest) not in (3, 4):
            raise ValueError("a wrapper of an array with a state that is none")
        found = self._joblib.peek.sibling_if_there(name)
        if found is None:
            return self.missing(name, cursor)
        shape, dtype, fortran = _shape(rest[-3]), dtype_of(rest[-2]), bool(rest[-1])
        if dtype.hasobject:
            raise ValueError("an array of objects, which none of these files holds")
        inflated = zfile(found, self._joblib.peek.budget)
        made = array_of(inflated, 0, dtype, shape, fortran=fortran, what=name)
        if made.nbytes != inflated.nbytes:
            raise ValueError(f"an array of {made.nbytes:,} bytes, and {name!r:.200} has {inflated.nbytes:,}")
        return made


def _shape(shape: Any) -> tuple[int, ...]:
    if type(shape) is not tuple or len(shape) > _MOST_LENGTHS or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"an array of the shape {shape!r:.200}")
    return shape


def _file_name(state: dict[Any, Any]) -> str:
    name = state.get("filename")
    if type(name) is not str:
        raise ValueError("a wrapper of an array that names no file")
    return name

"""Keras's variables over live memory, whatever the backend: PyTorch's tensors are filled where they lie, others get new values."""

from collections.abc import Hashable
from typing import Any, ClassVar, Final, cast

import keras
import ml_dtypes
import msgspec
import numpy as np

from tensorkeep import dtypes
from tensorkeep.dtypes import DType
from tensorkeep.errors import UnsupportedError
from tensorkeep.frameworks.numpy import LiveArray
from tensorkeep.matching import Matcher, Step
from tensorkeep.tensors import Array, LazyTensor, Live, as_bytes, spec_of
from tensorkeep.tree import Tree

_MOST_COUNTERS: Final = 16  # elements of what may be one
_NO_VALUE: Final = "a variable that has no value yet"


class LiveVariable(msgspec.Struct, gc=False):
    """The bytes of a variable in use.

    Attributes:
        variable: it.
        dtype: of its values.
        tensor: PyTorch's tensor in it; None with other backends.
        staged: what bytes of a file are read into, where the backend's own arrays cannot be written to.
    """

    immutable: ClassVar = False  # a variable gets new values, whatever its backend's arrays are

    variable: Any
    dtype: DType
    tensor: Live | None = None
    staged: Array | None = None

    @property
    def plain(self) -> bool:
        return self.tensor is not None and self.tensor.plain

    @property
    def address(self) -> int:
        return id(self.variable) if self.tensor is None else self.tensor.address

    def owner(self) -> object:
        return self.variable

    def key(self) -> Hashable:
        return id(self.variable) if self.tensor is None else self.tensor.key()

    def extent(self) -> tuple[int, int]:
        return (0, 0) if self.tensor is None else self.tensor.extent()

    def unsaveable(self) -> str:
        if self.tensor is not None:
            return self.tensor.unsaveable()
        value = self.variable._value  # the value alone would be made anew, at random
        if value is None:
            return _NO_VALUE
        return "a variable whose memory was given away" if getattr(value, "is_deleted", bool)() else ""

    def view(self) -> Any:
        return self._array().view() if self.tensor is None else self.tensor.view()

    def read(self, start: int, stop: int) -> memoryview:
        return (self._array() if self.tensor is None else self.tensor).read(start, stop)

    def obstacle(self) -> str:
        return "" if self.tensor is None else self.tensor.obstacle()

    def destination(self) -> memoryview | None:
        if self.tensor is not None:
            return self.tensor.destination()
        if self.dtype.bits == 4 or self.dtype.numpy is None or self.dtype.memory is not None:
            return None
        if self.staged is None:  # a shared one is asked once for each of its names
            self.staged = np.empty(tuple(self.variable.shape), self.dtype.numpy)
        return as_bytes(self.staged)

    def written(self) -> None:
        if self.tensor is not None:
            self.tensor.written()
        elif self.staged is not None:
            self.variable.assign(self.staged)
            self.staged = None  # it may be the variable's own memory now

    def put(self, array: Array) -> None:
        if self.tensor is not None:
            self.tensor.put(array)
        else:
            self.variable.assign(np.array(array))  # a copy: some backends keep the array itself

    def _array(self) -> LiveArray:
        return LiveArray(np.asarray(self.variable.value), self.dtype)


def capture(variable: Any) -> Tree:
    """A variable as a LazyTensor over its memory, of no framework: the file is the same whatever the backend."""
    value = variable._value
    if type(value).__module__.partition(".")[0] == "torch":
        from tensorkeep.frameworks.torch import tensors  # there, for its tensor is

        inner = tensors.capture(value)
        if not isinstance(inner, LazyTensor):
            return inner
        return LazyTensor(inner.spec, LiveVariable(variable, inner.dtype, cast(Live, inner.source)))
    name, held = str(variable.dtype), getattr(value, "dtype", None)  # JAX holds 32 bits where Keras asked for 64
    dtype = dtypes.of_numpy(held if isinstance(held, np.dtype) else np.dtype(getattr(ml_dtypes, name, name)))
    if dtype is None:
        raise UnsupportedError("", f"a variable of {name}")
    return LazyTensor(spec_of(dtype, tuple(variable.shape)), LiveVariable(variable, dtype))


def fit(node: Tree, found: Tree, path: str, matcher: Matcher) -> None:
    """Match a variable with what the file has for it.

    Counters and seeds have other integers with another backend: such a few take over what fits them, to the last bit or not at all.
    """
    source = node.source if isinstance(node, LazyTensor) else None
    if isinstance(found, LazyTensor) and isinstance(source, LiveVariable) and _are_counters(found, cast(LazyTensor, node)):
        values = np.asarray(matcher.read(found))
        wanted = np.dtype(cast(Any, source.dtype.numpy))
        if np.array_equal(values.astype(wanted).astype(object), values.astype(object)):
            assign(source.variable, values.astype(wanted), path, matcher)
            return
    matcher.fit(node, found, path)


def assign(variable: Any, value: Array, path: str, matcher: Matcher) -> None:
    """Give a variable a value of its own shape and dtype, together with all else that is loaded."""
    former: list[Array] = []

    def apply() -> None:
        former.append(np.array(keras.ops.convert_to_numpy(variable.value)))
        variable.assign(value)

    matcher.steps.append(Step(path, apply, lambda: [variable.assign(before) for before in former]))


def _are_counters(found: LazyTensor, wanted: LazyTensor) -> bool:
    return (
        found.shape == wanted.shape
        and found.spec.count <= _MOST_COUNTERS
        and found.dtype.name != wanted.dtype.name
        and all(dtype.numpy is not None and dtype.numpy.kind in "iu" for dtype in (found.dtype, wanted.dtype))
    )

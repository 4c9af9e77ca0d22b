"""SciPy: sparse matrices and arrays, as values: their numbers, and where these stand.

One is made anew of its arrays and looked through before it is used, for C code follows its indices unseen. What an estimator of
scikit-learn holds is kept by that adapter, which takes them apart and makes them in the same way.
"""

import importlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from tensorkeep.errors import UnsupportedError
from tensorkeep.matching import Matcher, Result, Step
from tensorkeep.selection import LEFT_OUT
from tensorkeep.tree import Captured, Tree

_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
    "dia": ("data", "offsets"),
}
_INDICES: Final = (np.int32, np.int64)
NAMES: Final = tuple(f"{layout}_{kind}" for layout in _FIELDS for kind in ("matrix", "array"))
"""Classes that are a few arrays each."""


def is_sparse(value: object) -> bool:
    """Whether it is exactly one of them."""
    cls = type(value)
    return cls.__module__.startswith("scipy.sparse.") and cls.__name__ in NAMES


def take(matrix: Any) -> dict[str, Any]:
    """The state of a matrix: its shape and arrays, not copied."""
    return {"shape": list(matrix.shape), **{field: getattr(matrix, field) for field in _FIELDS[type(matrix).__name__.partition("_")[0]]}}


def make(name: str, state: Mapping[str, Any]) -> object:
    """The matrix of a state, over its arrays.

    Raises:
        ValueError, KeyError, TypeError: it is none, or an index leads beyond it.
    """
    fields = _FIELDS[name.partition("_")[0]]
    shape, arrays = tuple(state["shape"]), [state[field] for field in fields]
    if len(shape) != 2 or not all(type(length) is int and 0 <= length < 2**62 for length in shape):
        raise ValueError("a sparse matrix of no shape")
    if not all(type(array) is np.ndarray and array.dtype.kind in "biufc" for array in arrays):
        raise ValueError("a sparse matrix without arrays")
    if name.startswith("dia") and not bool((abs(arrays[1].astype(float)) < 2**62).all()):
        raise ValueError("a diagonal beyond all numbers")
    cls: Any = getattr(importlib.import_module("scipy.sparse"), name)  # which is imported already: by the caller, or by scikit-learn
    made = cls((arrays[0], (arrays[1], arrays[2])) if name.startswith("coo") else tuple(arrays), shape=shape)
    if fields[1] == "indices":
        made.check_format(full_check=True)
    if made.shape != shape:
        raise ValueError("a sparse matrix of another shape than its own")
    if all(array.dtype in _INDICES for array in arrays[1:]):  # SciPy makes those of 64 bits smaller where they fit
        if name.startswith("coo") and hasattr(made, "coords"):
            made.coords = tuple(arrays[1:])
        else:
            vars(made).update(zip(fields[1:], arrays[1:], strict=True))
    return made


class ScipyAdapter:
    """Sparse matrices and arrays of the layouts that are a few arrays; others are containers of Python's."""

    name = "scipy"
    kinds = frozenset({"scipy.sparse"})

    def owns(self, obj: object) -> bool:
        return type(obj).__module__.startswith("scipy.sparse.") and hasattr(obj, "tocsr")

    def capture(self, obj: Any) -> Tree:
        name = type(obj).__name__
        if not is_sparse(obj) or len(obj.shape) != 2:
            raise UnsupportedError("", f"a {name} of shape {obj.shape}", hint="Pass matrix.tocsr(), a matrix of two axes.")
        return Captured("scipy.sparse", name, take(obj), origin=obj)

    def rebuild(self, node: Captured, state: Any, types: Mapping[str, type]) -> object:
        """The matrix, in memory of its own; the plain state where its parts came back as others than NumPy's arrays.

        Raises:
            ValueError: the state is none of such a matrix.
        """
        if node.cls not in NAMES or not isinstance(state, dict):
            raise ValueError(f"no sparse matrix: {node.cls}")
        if not any(type(value) is np.ndarray for name, value in state.items()):
            return state
        return make(node.cls, {name: np.array(value) if name != "shape" else value for name, value in state.items()})

    def plan(self, target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
        obj: Any = target.origin
        if matcher.found_cls != target.cls or not isinstance(state, dict) or any(part is LEFT_OUT for part in state.values()):
            matcher.problem("object", path, f"a {matcher.found_cls}" if matcher.found_cls else "no sparse matrix", f"a {target.cls}")
            return lambda: obj
        if state.get("shape") != target.state["shape"]:
            matcher.problem("shape", path, str(state.get("shape")), str(target.state["shape"]))
            return lambda: obj
        loaded = matcher.value(Captured(target.kind, target.cls, state))
        former: list[dict[str, Any]] = []

        def become(attributes: Mapping[str, Any]) -> None:
            vars(obj).clear()
            vars(obj).update(attributes)

        def apply() -> None:
            made = loaded()
            former.append(dict(vars(obj)))
            become(vars(made))

        def undo() -> None:
            for attributes in former:
                become(attributes)

        matcher.steps.append(Step(path, apply, undo))
        return lambda: obj


ADAPTER: Final = ScipyAdapter()

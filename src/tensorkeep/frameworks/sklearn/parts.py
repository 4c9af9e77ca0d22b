"""Parts: what fitted estimators hold that is no object of attributes, in both directions: sparse matrices, arrays of objects or of another
order, splines, and what scikit-learn makes in C: trees, search trees and losses.

A part is made anew from its numbers, never from a state that C code would believe unseen: a decision tree is looked through first (checks),
and so is a search tree (searching).
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tensorkeep.frameworks import scipy
from tensorkeep.frameworks.sklearn import checks, names, searching


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of part.

    Attributes:
        take: its state, of plain values, arrays and further parts; references, no copies.
        make: the part, of a state of that shape; ValueError, TypeError or KeyError where it is none.
        shared: whether it may stand in several places of an estimator, and is one object there.
        exchange: lets two of them exchange all they have; None where one never changes, or only in an estimator that holds it.
    """

    take: Callable[[Any], dict[str, Any]]
    make: Callable[[dict[str, Any]], object]
    shared: bool = False
    exchange: Callable[[Any, Any], None] | None = None


def obstacle(obj: Any, state: Mapping[str, Any]) -> str:
    """What of the caller's could not become what a state is of, or ""."""
    part = find(obj)
    if part == "Tree":  # it would move its nodes, and whoever holds a view of them would look into memory that was freed
        return "a Tree by itself"
    if part.startswith(("KDTree", "BallTree")) and searching.is_weighted(obj) != (state.get("sample_weight") is not None):
        return f"a {part} {'with' if searching.is_weighted(obj) else 'without'} weights"
    if part in names.LOSSES and _take_loss(obj)["arguments"] != state.get("arguments"):
        return f"a {part} of other numbers"
    return ""


def find(value: Any) -> str:
    """The name of the part that a value is, or ""."""
    cls = type(value)
    if cls is np.ma.MaskedArray:
        return "MaskedArray"
    if cls is np.ndarray:
        return "object_array" if value.dtype == object else ""
    if isinstance(value, np.dtype):
        return "object_dtype" if value.kind == "O" else ""
    if cls is functools.partial:
        return "check_array" if names.is_checker(value) else ""
    module, name = cls.__module__, cls.__name__
    if module.startswith("scipy.sparse."):
        return name if scipy.is_sparse(value) else ""
    if name in names.LOSSES:
        return name if names.is_known(cls, names.LOSSES) else ""
    return name if module in _MODULES.get(name, ()) else ""


def _take_fortran(array: Any) -> dict[str, Any]:
    raise AssertionError(f"an array of {array.shape} is its own state")


def _take_objects(array: Any) -> dict[str, Any]:
    return {"shape": list(array.shape), "items": list(array.ravel())}


def _make_objects(state: dict[str, Any]) -> object:
    items, shape = state["items"], tuple(state["shape"])
    flat = np.empty(len(items), object)
    for number, item in enumerate(items):
        flat[number] = item
    return flat.reshape(shape)


def _take_masked(array: Any) -> dict[str, Any]:
    # Without one for each element, NumPy keeps a single False.
    fill = array.fill_value
    return {"data": array.data, "mask": np.ma.getmaskarray(array), "fill_value": None if array.dtype == object else fill}


def _make_masked(state: dict[str, Any]) -> object:
    return np.ma.MaskedArray(state["data"], mask=state["mask"], fill_value=state["fill_value"])


def _take_spline(spline: Any) -> dict[str, Any]:
    return {"t": spline.t, "c": spline.c, "k": int(spline.k), "extrapolate": spline.extrapolate, "axis": int(spline.axis)}


def _make_spline(state: dict[str, Any]) -> object:
    from scipy.interpolate import BSpline

    return BSpline(state["t"], state["c"], state["k"], extrapolate=state["extrapolate"], axis=state["axis"])


def _take_tree(tree: Any) -> dict[str, Any]:
    state = tree.__getstate__()
    nodes = state["nodes"]
    # Without what lies between the fields of a node: it was never written to.
    packed = nodes.astype(np.dtype([(name, nodes.dtype[name]) for name in nodes.dtype.names]))
    n_classes = [int(number) for number in np.atleast_1d(tree.n_classes)]
    return {"n_features": int(tree.n_features), "n_classes": n_classes, "max_depth": int(state["max_depth"])} | {
        "nodes": packed,
        "values": state["values"],
    }


def _make_tree(state: dict[str, Any]) -> object:
    from sklearn.tree._tree import NODE_DTYPE, Tree

    packed, values = state["nodes"], state["values"]
    n_features, n_classes, max_depth = state["n_features"], state["n_classes"], state["max_depth"]
    checks.tree(packed, values, n_features, n_classes, max_depth)
    checks.need(set(packed.dtype.names) == set(NODE_DTYPE.names), "a tree whose nodes another version of scikit-learn made")
    nodes = np.zeros(len(packed), NODE_DTYPE)
    for name in NODE_DTYPE.names:
        nodes[name] = packed[name]
    tree = Tree(n_features, np.array(n_classes, np.intp), len(n_classes))
    tree.__setstate__({"max_depth": max_depth, "node_count": len(nodes), "nodes": nodes, "values": np.ascontiguousarray(values)})
    return tree


def _take_loss(loss: Any) -> dict[str, Any]:
    made_by, arguments = loss.__reduce__()[:2]
    numbers = list(arguments) if made_by is type(loss) else []
    return {"arguments": [float(number) for number in numbers]}


def _loss(name: str) -> Part:
    def make(state: dict[str, Any]) -> object:
        arguments = state["arguments"]
        checks.need(isinstance(arguments, list) and all(type(number) is float for number in arguments), "a loss of other than numbers")
        return names.named(name, names.LOSSES)(*arguments)

    return Part(_take_loss, make, shared=True)


def _take_triplet(triplet: Any) -> dict[str, Any]:
    return dict(triplet._asdict())


def _make_triplet(state: dict[str, Any]) -> object:
    from sklearn.impute._iterative import _ImputerTriplet

    return _ImputerTriplet(**state)


_CONTINUOUS: Final = ("beta", "expon", "gamma", "halfnorm", "loguniform", "lognorm", "norm", "reciprocal", "truncnorm", "uniform")
_DISTRIBUTIONS: Final = frozenset({*_CONTINUOUS, "geom", "poisson", "randint"})
_ITS_KEYWORDS: Final = frozenset({"a", "b", "c", "high", "loc", "low", "mu", "p", "s", "scale"})


def _take_distribution(frozen: Any) -> dict[str, Any]:
    import scipy.stats

    name = frozen.dist.name
    if name not in _DISTRIBUTIONS or type(frozen.dist) is not type(getattr(scipy.stats, name)):
        raise names.Unknown(f"a distribution {name} of scipy.stats, which is in no table here")
    return {"name": name, "arguments": list(frozen.args), "keywords": dict(frozen.kwds)}


def _make_distribution(state: dict[str, Any]) -> object:
    import scipy.stats

    checks.need(state["name"] in _DISTRIBUTIONS and set(state["keywords"]) <= _ITS_KEYWORDS, "no distribution")
    return getattr(scipy.stats, state["name"])(*state["arguments"], **state["keywords"])


def _take_checker(checker: Any) -> dict[str, Any]:
    return {"keywords": dict(checker.keywords)}


def _make_checker(state: dict[str, Any]) -> object:
    from sklearn.utils import check_array

    keywords = state["keywords"]
    checks.need(set(keywords) <= {"dtype", "ensure_all_finite", "force_all_finite"}, "a check of arrays with other settings")
    return functools.partial(check_array, **keywords)


PARTS: Final[dict[str, Part]] = {
    "fortran_array": Part(_take_fortran, lambda state: np.asfortranarray(state)),
    "object_array": Part(_take_objects, _make_objects),
    "object_dtype": Part(lambda dtype: {}, lambda state: np.dtype(object)),  # a SimpleImputer keeps that of its texts
    "MaskedArray": Part(_take_masked, _make_masked),
    **{name: Part(scipy.take, functools.partial(scipy.make, name)) for name in scipy.NAMES},
    "BSpline": Part(_take_spline, _make_spline),
    "Tree": Part(_take_tree, _make_tree, shared=True),
    **{
        f"{kind}{bits}": Part(searching.take, functools.partial(searching.make, f"{kind}{bits}"), shared=True, exchange=searching.exchange)
        for kind in ("KDTree", "BallTree")
        for bits in ("", "32", "64")
    },
    **{name: _loss(name) for name in names.LOSSES},
    "_ImputerTriplet": Part(_take_triplet, _make_triplet),
    **dict.fromkeys(("rv_continuous_frozen", "rv_discrete_frozen"), Part(_take_distribution, _make_distribution)),
    "check_array": Part(_take_checker, _make_checker),
}

_MODULES: Final[dict[str, tuple[str, ...]]] = {
    "BSpline": ("scipy.interpolate._bsplines",),
    "Tree": ("sklearn.tree._tree",),
    **dict.fromkeys(("rv_continuous_frozen", "rv_discrete_frozen"), ("scipy.stats._distn_infrastructure",)),
    "_ImputerTriplet": ("sklearn.impute._iterative",),
    **{f"KDTree{bits}": ("sklearn.neighbors._kd_tree",) for bits in ("", "32", "64")},
    **{f"BallTree{bits}": ("sklearn.neighbors._ball_tree",) for bits in ("", "32", "64")},
}

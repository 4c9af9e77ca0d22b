"""Search trees of neighbours: `KDTree` and `BallTree`, in both directions.

C code follows a tree's nodes without looking. Which points are in which node follows from their number and the size of a leaf alone, so
that is computed here and never read. What is read: the order of the points, which must name each once, and numbers of each node that only
decide where the search goes on. A tree whose numbers were not kept is built again from its points, which takes its time.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from tensorkeep.frameworks.sklearn import checks, names

_METRICS: Final = {
    "Euclidean": "euclidean",
    "Manhattan": "manhattan",
    "Chebyshev": "chebyshev",
    "Minkowski": "minkowski",
    "SEuclidean": "seuclidean",
    "Mahalanobis": "mahalanobis",
    "Hamming": "hamming",
    "Canberra": "canberra",
    "BrayCurtis": "braycurtis",
    "Jaccard": "jaccard",
    "Dice": "dice",
    "RogersTanimoto": "rogerstanimoto",
    "RussellRao": "russellrao",
    "SokalMichener": "sokalmichener",
    "SokalSneath": "sokalsneath",
    "Haversine": "haversine",
}
_PARAMETERS: Final = ("p", "w", "V", "VI")
_BOUNDS: Final = {"KDTree": 2, "KDTree64": 2, "BallTree": 1, "BallTree64": 1}
"""Trees over 64 bits, and how many numbers each node has for each feature. Of 32 bits, `__setstate__` takes the metric for another one."""


def take(tree: Any) -> dict[str, Any]:
    """The state of a tree.

    Raises:
        names.Unknown: its metric is code.
    """
    state = tree.__getstate__()
    distance = state[11]
    metric = _METRICS.get(type(distance).__name__.rstrip("3264").removesuffix("Distance"))
    if metric is None:
        raise names.Unknown(f"a {type(tree).__name__} over a metric that is code")
    p, vector, matrix = distance.__getstate__()[:3]
    params: dict[str, Any] = {}
    if metric == "minkowski":
        params = {"p": float(p)} | ({"w": vector} if vector.size else {})
    elif metric == "seuclidean":
        params = {"V": vector}
    elif metric == "mahalanobis":
        params = {"VI": matrix}
    found = {"data": state[0], "leaf_size": state[4], "metric": metric, "metric_params": params, "sample_weight": state[12]}
    nodes = state[2]
    if type(tree).__name__ in _BOUNDS and _laid_out(nodes, *_nodes(len(state[0]), state[4], len(nodes))):
        found |= {"order": state[1], "radius": np.ascontiguousarray(nodes["radius"]), "bounds": state[3]}
    return found


def make(name: str, state: Mapping[str, Any]) -> object:
    """The tree of a state.

    Raises:
        ValueError: it is none.
    """
    import sklearn.neighbors._ball_tree
    import sklearn.neighbors._kd_tree

    cls: Any = getattr(sklearn.neighbors._kd_tree if name.startswith("KD") else sklearn.neighbors._ball_tree, name)
    metric, params = state["metric"], {key: state["metric_params"][key] for key in _PARAMETERS if key in state["metric_params"]}
    checks.need(metric in _METRICS.values(), "a search tree of an unknown metric")
    if "order" in state and name in _BOUNDS:
        return _restored(cls, state, metric, params)
    return cls(state["data"], leaf_size=state["leaf_size"], metric=metric, sample_weight=state["sample_weight"], **params)


def is_weighted(tree: Any) -> bool:
    """Whether its points have weights, which `__setstate__` takes, but never takes away."""
    return tree.__getstate__()[12] is not None


def exchange(one: Any, other: Any) -> None:
    """Let two trees of one class, with weights or without, exchange all they have."""
    if type(one).__name__ in _BOUNDS:
        mine, others = one.__getstate__(), other.__getstate__()
        one.__setstate__(others)
        other.__setstate__(mine)
        return
    for tree, state in zip((one, other), (take(other), take(one)), strict=True):
        tree.reset_n_calls()
        tree.__init__(state["data"], state["leaf_size"], state["metric"], sample_weight=state["sample_weight"], **state["metric_params"])


def _restored(cls: Any, state: Mapping[str, Any], metric: str, params: dict[str, Any]) -> object:
    from sklearn.metrics import DistanceMetric

    points, order, radius, bounds = state["data"], state["order"], state["radius"], state["bounds"]
    leaf_size, weights = state["leaf_size"], state["sample_weight"]
    checks.need(_is_array(points, np.float64, 2) and points.size > 0 and bool(np.isfinite(points).all()), "a search tree without points")
    checks.need(type(leaf_size) is int and 1 <= leaf_size < 2**31, "a search tree with leaves of no size")
    count, width = points.shape
    checks.need(_is_array(radius, np.float64, 1), "nodes without numbers")
    starts, ends, leaves = _nodes(count, leaf_size, len(radius))
    checks.need(len(starts) == len(radius), "a search tree with another number of nodes")
    checks.need(_is_array(bounds, np.float64, 3) and bounds.shape == (_BOUNDS[cls.__name__], len(radius), width), "bounds of other nodes")
    checks.need(_is_array(order, np.intp, 1) and len(order) == count and _names_each(order), "an order that does not name each point once")
    checks.need(weights is None or (_is_array(weights, np.float64, 1) and len(weights) == count), "weights of other points")
    distance = DistanceMetric.get_metric(metric, dtype=np.float64, **params)
    checks.need(metric in cls.valid_metrics, f"a {cls.__name__} over a metric that it does not know")
    distance._validate_data(points)
    tree = cls.__new__(cls)
    nodes = np.zeros(len(radius), tree.__getstate__()[2].dtype)
    nodes["idx_start"], nodes["idx_end"], nodes["is_leaf"], nodes["radius"] = starts, ends, leaves, radius
    levels = len(radius).bit_length()
    calls = count * levels if cls.__name__.startswith("Ball") else 0  # of the metric, as the tree counts them while it is built
    calls = calls if calls < 2**31 else 0
    tree.__setstate__((points, order, nodes, bounds, leaf_size, levels, len(radius), 0, 0, 0, calls, distance, weights))
    return tree


def _nodes(count: int, leaf_size: int, most: int) -> tuple[Any, Any, Any]:
    """First point, point after the last, and whether it is a leaf, of each node; nothing if there were more nodes than `most`.

    Source: sklearn/neighbors/_binary_tree.pxi.tp, `__init__` and `_recursive_build`.
    """
    levels = int(math.log2(max(1.0, (count - 1) / leaf_size)) + 1)
    if (1 << levels) - 1 > most:
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.intp)
    starts, ends = [np.zeros(1, np.intp)], [np.full(1, count, np.intp)]
    for _ in range(levels - 1):
        middle = starts[-1] + (ends[-1] - starts[-1]) // 2
        starts.append(np.stack([starts[-1], middle], 1).reshape(-1))
        ends.append(np.stack([middle, ends[-1]], 1).reshape(-1))
    is_leaf = np.zeros((1 << levels) - 1, np.intp)
    is_leaf[(1 << (levels - 1)) - 1 :] = 1
    return np.concatenate(starts), np.concatenate(ends), is_leaf


def _laid_out(nodes: Any, starts: Any, ends: Any, leaves: Any) -> bool:
    """Whether a tree has its points where they would be computed to be."""
    if len(nodes) != len(starts):
        return False
    return all(np.array_equal(nodes[name], own) for name, own in (("idx_start", starts), ("idx_end", ends), ("is_leaf", leaves)))


def _is_array(value: Any, dtype: Any, rank: int) -> bool:
    return type(value) is np.ndarray and value.dtype == dtype and value.ndim == rank and value.flags.c_contiguous


def _names_each(order: Any) -> bool:
    """Whether whole numbers are those from 0 to their count, each once."""
    if order.min() < 0 or order.max() >= len(order):
        return False
    met = np.zeros(len(order), bool)
    met[order] = True
    return bool(met.all())

"""scikit-learn's search trees: restored as they were, quickly, and never believed by C code where they are not whole."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorkeep as tk
from refusing import Refuses

neighbors = pytest.importorskip("sklearn.neighbors")

TREES = ("KDTree", "BallTree", "KDTree32", "BallTree32")


def tree_of(name: str) -> Any:
    from sklearn.neighbors import _ball_tree, _kd_tree

    return getattr(_kd_tree if name.startswith("KD") else _ball_tree, name)


def again(tree: Any) -> Any:
    """A tree out of its own file, where it stands in a density."""
    return tk.loads(tk.dumps(_around(tree)), build="sklearn").tree_


def _around(tree: Any) -> Any:
    estimator = neighbors.KernelDensity()
    estimator.tree_ = tree
    return estimator


@given(st.integers(1, 300), st.integers(1, 4), st.integers(1, 60), st.sampled_from(TREES), st.booleans())
def test_every_tree_comes_back_as_it_was(count: int, width: int, leaf_size: int, name: str, weighted: bool) -> None:
    """Of any number of points and size of leaves: its arrays and its answers are equal bit for bit."""
    rng = np.random.default_rng(count)
    points = rng.integers(0, 5, (count, width)).astype(float) if count % 2 else rng.normal(size=(count, width))
    tree = tree_of(name)(points, leaf_size=leaf_size, sample_weight=rng.random(count) if weighted else None)
    back = again(tree)
    for one, other in zip(tree.__getstate__()[:11], back.__getstate__()[:11], strict=True):
        assert np.array_equal(one, other)
    k = min(count, 3)
    for one, other in zip(tree.query(points, k=k), back.query(points, k=k), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(tree.kernel_density(points[:2], 1.0), back.kernel_density(points[:2], 1.0))


@pytest.mark.parametrize(
    ("metric", "parameters"),
    [
        ("minkowski", {"p": 3}),
        ("seuclidean", {"V": np.array([1.0, 2.0])}),
        ("mahalanobis", {"VI": np.eye(2)}),
        ("haversine", {}),
        ("canberra", {}),
        ("jaccard", {}),
    ],
)
def test_metrics_come_back_with_their_parameters(metric: str, parameters: dict[str, Any]) -> None:
    """Those that only one of the trees knows, too."""
    points = (
        (np.random.default_rng(0).random((50, 2)) > 0.5).astype(float) if metric == "jaccard" else np.random.default_rng(0).random((50, 2))
    )
    for cls in (neighbors.KDTree, neighbors.BallTree):
        if metric not in cls.valid_metrics:
            continue
        tree = cls(points, metric=metric, leaf_size=5, **parameters)
        for one, other in zip(tree.query(points, k=3), again(tree).query(points, k=3), strict=True):
            assert np.array_equal(one, other)


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({key: value(state[key]) if callable(value) else value})


HARMS: dict[str, Callable[[dict[str, Any]], None]] = {
    "a point that is not there": _set("order", lambda order: np.where(order == 0, 10**9, order)),
    "a point before the first": _set("order", lambda order: np.where(order == 0, -1, order)),
    "a point twice": _set("order", lambda order: np.where(order == 0, 1, order)),
    "fewer points": _set("order", lambda order: order[:-1].copy()),
    "points of another type": _set("order", lambda order: order.astype(np.int32)),
    "an order of numbers": _set("order", lambda order: order.astype(float)),
    "no order": _set("order", None),
    "more nodes": _set("radius", lambda radius: np.zeros(len(radius) * 2 + 1)),
    "no nodes": _set("radius", np.zeros(0)),
    "fewer bounds": _set("bounds", lambda bounds: bounds[:, :-1].copy()),
    "bounds of fewer features": _set("bounds", lambda bounds: bounds[:, :, :-1].copy()),
    "half of the bounds": _set("bounds", lambda bounds: np.zeros((3, *bounds.shape[1:]))),
    "bounds of half the width": _set("bounds", lambda bounds: bounds.astype(np.float32)),
    "leaves of no size": _set("leaf_size", 0),
    "leaves below no size": _set("leaf_size", -5),
    "leaves of one point": _set("leaf_size", 1),
    "leaves of any size": _set("leaf_size", 10**30),
    "leaves of a text": _set("leaf_size", "40"),
    "points of fewer features": _set("data", lambda data: data[:, :-1].copy()),
    "points that are no numbers": _set("data", lambda data: np.where(data > 0, np.nan, data)),
    "points of half the width": _set("data", lambda data: data.astype(np.float32)),
    "no points": _set("data", np.zeros((0, 3))),
    "points in a row": _set("data", lambda data: data.ravel().copy()),
    "weights of fewer points": _set("sample_weight", np.ones(3)),
    "a metric that the tree does not know": _set("metric", "jaccard"),
    "a metric of other features": _set("metric", "haversine"),
    "a metric of another world": _set("metric", "os.system"),
    "a metric without its parameters": _set("metric", "mahalanobis"),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["KDTree", "BallTree"])
def test_what_would_lead_beyond_memory_is_refused(name: str, harm: str) -> None:
    """Each number of a file that C code would follow is looked at before."""
    written = tk.dumps(_around(tree_of(name)(np.random.default_rng(0).normal(size=(200, 3)), leaf_size=10)))
    with tk.open(io.BytesIO(written)) as contents:
        state = contents.tree.state["tree_"].state
        state.update({key: np.array(value) for key, value in state.items() if hasattr(value, "numpy")})
        HARMS[harm](state)
        changed = tk.dumps(contents.tree)
    if name == "BallTree" and harm in ("a metric that the tree does not know",):
        return  # it does know that one
    with pytest.raises(tk.FormatError):
        tk.loads(changed, build="sklearn")


def test_files_without_the_order_are_built_again() -> None:
    """As the first releases wrote them."""
    points = np.random.default_rng(0).normal(size=(200, 3))
    tree = neighbors.KDTree(points)
    with tk.open(io.BytesIO(tk.dumps(_around(tree)))) as contents:
        for key in ("order", "radius", "bounds"):
            del contents.tree.state["tree_"].state[key]
        old = tk.dumps(contents.tree)
    back = tk.loads(old, build="sklearn").tree_
    for one, other in zip(tree.query(points, k=3), back.query(points, k=3), strict=True):
        assert np.array_equal(one, other)


def _seen(tree: Any) -> Any:
    state = tree.__getstate__()
    return type(state[11]), [None if part is None else np.asarray(part).tobytes() for part in (*state[:11], state[12])]


@pytest.mark.parametrize("metric", ["euclidean", "minkowski"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", TREES)
def test_a_tree_by_itself_is_filled_in_place_or_stays_as_it_was(name: str, weighted: bool, metric: str) -> None:
    """As every object of the caller's: it becomes what the file has; where a later one refuses, it has its former points."""

    def make(seed: int, count: int) -> Any:
        rng, p = np.random.default_rng(seed), {"p": 3} if metric == "minkowski" else {}
        weights = rng.random(count) if weighted else None
        return tree_of(name)(rng.normal(size=(count, 3)), leaf_size=4, metric=metric, sample_weight=weights, **p)

    tree, target, refuses = make(0, 50), make(1, 30), Refuses()
    state, before = {"tree": tree, "z": Refuses()}, _seen(target)
    refuses.refuses = True
    with pytest.raises(tk.MismatchError, match="Nothing was changed"):
        tk.loads(tk.dumps(state), into={"tree": target, "z": refuses})
    assert _seen(target) == before
    assert tk.loads(tk.dumps(tree), into=target) is target and _seen(target) == _seen(tree)
    points = np.zeros((2, 3))
    for one, other in zip(tree.query(points, k=3), target.query(points, k=3), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(tree.kernel_density(points, 1.0), target.kernel_density(points, 1.0))


def test_what_cannot_be_filled_is_refused() -> None:
    """scikit-learn's code never takes weights away, and moves the nodes of a decision tree under whoever looks at them."""
    points = np.random.default_rng(0).normal(size=(20, 3))
    plain, weighted = neighbors.KDTree(points), neighbors.KDTree(points, sample_weight=np.ones(20))
    decision = pytest.importorskip("sklearn.tree").DecisionTreeRegressor().fit(points, points[:, 0]).tree_
    loss = pytest.importorskip("sklearn._loss._loss").CyPinballLoss
    tk.loads(tk.dumps(loss(0.3)), into=loss(0.3))
    for one, other in ((plain, weighted), (weighted, plain), (decision, decision), (loss(0.3), loss(0.7))):
        with pytest.raises(tk.MismatchError, match="Nothing was changed"):
            tk.loads(tk.dumps(one), into=other)


def test_a_bunch_is_filled_in_place() -> None:
    """A container of scikit-learn's own: the items are the file's."""
    bunch = pytest.importorskip("sklearn.utils").Bunch
    target = bunch(x=np.zeros(3), y=None, only_here=1)
    assert tk.loads(tk.dumps(bunch(x=np.ones(3), y="text")), into=target) is target
    assert set(target) == {"x", "y"} and target.x[0] == 1 and target.y == "text"

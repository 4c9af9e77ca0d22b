"""Checks: what C code of scikit-learn reads by numbers that a model holds, without looking where they lead.

Python code of an estimator that meets a wrong state raises; C code reads, or writes, beyond its memory. So each class that hands stored
numbers to such code has its check here, with the reason; a subclass has those of its bases. What the checks cannot see, because the
estimator computes it, is asked of the estimator itself when it is whole (`afterwards`).

Lives elsewhere: names and attributes (making); sparse matrices and search trees, which are checked or built again when made (parts).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

State = dict[str, Any]
Of = Callable[[object], State]
"""The attributes of an object that was made of the file."""

_MOST_THREADS: Final = 1024
_MOST_FEATURES: Final = 1 << 24  # of which a matrix without memory is made, to ask an estimator for the shape of its answer


def need(holds: bool, what: str) -> None:
    """Refuse what does not hold.

    Raises:
        ValueError: with what it is.
    """
    if not holds:
        raise ValueError(what)


def _whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(low <= value < high)


def _array(value: object, kinds: str, *shape: int | None) -> bool:
    """Whether it is an array of one of these kinds of numbers, and of this shape; None for any length."""
    if type(value) is not np.ndarray or value.dtype.kind not in kinds or value.ndim != len(shape):
        return False
    return all(wanted is None or wanted == length for wanted, length in zip(shape, value.shape, strict=True))


def _within(array: Any, low: int, high: int) -> bool:
    return array.size == 0 or bool(array.min() >= low and array.max() < high)


def _is_tree(left: Any, right: Any, inner: Any) -> int:
    """The depth of a tree of nodes, of which each comes after its parent; -1 where it is none."""
    count, parents = len(left), np.flatnonzero(inner)
    children = np.concatenate([left[parents], right[parents]]).astype(np.int64)
    if count < 1 or not _within(children, 1, count):
        return -1
    if len(children) != count - 1 or len(np.unique(children)) != len(children):
        return -1  # a node that no other leads to, or two do
    if not (children > np.concatenate([parents, parents])).all():
        return -1
    depth, here = 0, np.zeros(1, np.int64)
    while len(here := here[inner[here]]):  # ends: each node is met once
        here = np.concatenate([left[here], right[here]]).astype(np.int64)
        depth += 1
    return depth


def tree(nodes: Any, values: Any, n_features: Any, n_classes: Any, max_depth: Any) -> None:
    """A decision tree: `apply` follows children and reads features by their numbers; `decision_path` writes as far as the depth says.

    Raises:
        ValueError: it is none.
    """
    need(type(nodes) is np.ndarray and nodes.ndim == 1 and nodes.dtype.names is not None, "no nodes of a tree")
    need(_whole(n_features, 1, 2**31), "a tree over no number of features")
    need(isinstance(n_classes, list) and len(n_classes) > 0 and all(_whole(n, 1, 2**31) for n in n_classes), "a tree without outputs")
    need(_array(values, "f", len(nodes), len(n_classes), max(n_classes)) and values.dtype == np.float64, "values unlike the tree's nodes")
    left, right, feature = nodes["left_child"], nodes["right_child"], nodes["feature"]
    inner = left != -1
    depth = _is_tree(left, right, inner)
    need(depth >= 0, "children that make no tree")
    need(_whole(max_depth, depth, depth + 1), f"a tree that is {depth} nodes deep, and says {max_depth}")
    need(_within(feature[inner], 0, n_features), "a node that asks for a feature that is not there")


def _decision_tree(state: State, of: Of) -> None:
    """`predict` hands columns to the tree by the estimator's own count of them."""
    if (found := state.get("tree_")) is not None:
        need(found.n_features == state["n_features_in_"], "a tree over another number of features")
        need(found.n_outputs == state["n_outputs_"], "a tree with another number of outputs")


def _forest(state: State, of: Of) -> None:
    """The forest looks at the columns; its trees read them unseen."""
    for inner in state.get("estimators_", ()):
        need(of(inner).get("n_features_in_") == state["n_features_in_"], "trees over other numbers of features")


def _isolation_forest(state: State, of: Of) -> None:
    """As in a forest, each tree over columns of its own."""
    for inner, columns in zip(state.get("estimators_", ()), state.get("estimators_features_", ()), strict=True):
        need(_array(columns, "iu", None) and _within(columns, 0, state["n_features_in_"]), "columns that are not there")
        need(of(inner).get("n_features_in_") == len(columns), "trees over other numbers of features")


def _gradient_boosting(state: State, of: Of) -> None:
    """`predict_stages` reads the nodes of each tree itself; how many columns it writes, the estimator is asked (`afterwards`)."""
    if (stages := state.get("estimators_")) is not None:
        need(type(stages) is np.ndarray and stages.dtype == object and stages.ndim == 2, "stages that are no table of trees")
        for inner in stages.flat:
            found = of(inner)
            need(found.get("n_features_in_") == state["n_features_in_"], "trees over other numbers of features")
            need(found["tree_"].n_outputs == 1 and found["tree_"].max_n_classes == 1, "trees of several outputs")


def _columns_of_gradient_boosting(made: Any, state: State) -> Callable[[], object] | None:
    stages = state.get("estimators_")
    if stages is None:
        return None

    def ask() -> None:
        width = state["n_features_in_"]
        need(_whole(width, 1, _MOST_FEATURES), "more features than a model has")
        answer = made._raw_predict_init(np.broadcast_to(np.float32(0), (1, int(width))))
        need(answer.ndim == 2 and answer.shape[1] == stages.shape[1], "trees for another number of outputs")

    return ask


def _hist_gradient_boosting(state: State, of: Of) -> None:
    """Predictors follow children, features and sets of categories by their numbers."""
    if "_predictors" not in state:
        return
    width = state["n_features_in_"]
    mapper = of(state["_bin_mapper"])
    categorical = mapper["is_categorical_"]
    need(_array(categorical, "bu", width), "a bin mapper of other features")
    thresholds = mapper["bin_thresholds_"]
    need(isinstance(thresholds, list) and len(thresholds) == width, "bin thresholds of other features")
    for feature in np.flatnonzero(categorical):
        need(_array(thresholds[feature], "f", None) and _within(thresholds[feature], 0, 256), "categories beyond 255")
    for predictor in {id(inner): inner for stage in state["_predictors"] for inner in stage}.values():
        found = of(predictor)
        nodes = found["nodes"]
        need(_within(nodes["feature_idx"][nodes["is_leaf"] == 0], 0, width), "a node that asks for a feature that is not there")
        of_categories = nodes[(nodes["is_leaf"] == 0) & (nodes["is_categorical"] != 0)]
        need(bool(categorical[of_categories["feature_idx"]].all()), "a node that asks for categories of numbers")
    if state.get("_preprocessor") is not None:
        _columns_of_preprocessor(of(state["_preprocessor"]), width, of)


def _columns_of_preprocessor(columns: State, width: int, of: Of) -> None:
    """It hands over as many columns as it gets, if it is the one that `fit` makes."""
    (first, encoder, coded), (second, numbers, rest), *others = columns["transformers_"]
    need((first, second) == ("encoder", "numerical") and columns["sparse_output_"] is False, "a preprocessor of another kind")
    need(all(step[1] == "drop" for step in others), "a preprocessor of further parts")
    need(_array(coded, "b", width) and _array(rest, "b", width) and bool((coded != rest).all()), "a preprocessor that leaves columns out")
    need(columns["n_features_in_"] == width and columns["remainder"] == "drop", "a preprocessor of other columns")
    need(type(encoder).__name__ == "OrdinalEncoder" and len(of(encoder)["categories_"]) == int(coded.sum()), "an encoder of other columns")
    need(type(numbers).__name__ == "FunctionTransformer" and type(of(numbers)["func"]) is partial, "a preprocessor of other numbers")


def _tree_predictor(state: State, of: Of) -> None:
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    nodes = state["nodes"]
    need(type(nodes) is np.ndarray and nodes.ndim == 1 and nodes.dtype == PREDICTOR_RECORD_DTYPE, "no nodes of a predictor")
    need(nodes.flags.c_contiguous, "nodes that do not lie side by side")
    inner = nodes["is_leaf"] == 0
    need(_is_tree(nodes["left"], nodes["right"], inner) >= 0, "children that make no tree")
    by_category = nodes[inner & (nodes["is_categorical"] != 0)]
    for name in ("raw_left_cat_bitsets", "binned_left_cat_bitsets"):
        need(_array(state[name], "u", None, 8) and state[name].dtype == np.uint32, "sets of categories that are none")
        need(_within(by_category["bitset_idx"], 0, len(state[name])), "a node that asks for a set that is not there")


def _svm(state: State, of: Of) -> None:
    """libsvm reads as many numbers as the count of vectors and classes says."""
    if "_n_support" not in state:
        return
    support, count, vectors = state["support_"], state["_n_support"], state["support_vectors_"]
    need(_array(support, "i", None) and _within(support, 0, state["shape_fit_"][0]), "support vectors that are not there")
    need(_array(count, "i", None) and len(count) >= 2 and _within(count, 0, len(support) + 1), "no counts of support vectors")
    pairs = len(count) * (len(count) - 1) // 2
    coefficients, intercept = state["_dual_coef_"], state["_intercept_"]
    classes = state.get("classes_")
    if classes is not None:
        need(int(count.sum()) == len(support) and len(count) == len(classes), "support vectors of other classes")
        need(_array(intercept, "f", pairs), "intercepts of other classes")
    else:
        need(len(count) == 2 and _array(intercept, "f", 1), "a regression of several outputs")
    for name in ("_probA", "_probB"):
        need(_array(state[name], "f", None) and len(state[name]) in (0, pairs), "probabilities of other classes")
    need(len(state["_probA"]) == len(state["_probB"]), "probabilities of other classes")
    asked = state.get("_effective_probability", state.get("probability", False))
    need(asked in (False, "deprecated") or (classes is not None and len(state["_probA"]) == pairs), "a model without its probabilities")
    need(coefficients.shape == (len(count) - 1, len(support)), "coefficients of other vectors")
    if state["_sparse"]:
        need(coefficients.data.size == (len(count) - 1) * len(support), "coefficients of other vectors")
        need(vectors.shape == (len(support), state["n_features_in_"]) and vectors.format == "csr", "vectors of other features")
    elif state["kernel"] == "precomputed" or not isinstance(state["kernel"], str):
        need(vectors.ndim == 2, "vectors that are none")
    else:
        need(_array(vectors, "f", len(support), state["n_features_in_"]), "vectors of other features")


def _k_means(state: State, of: Of) -> None:
    """The distances to the centers are computed over the columns of the data."""
    if "cluster_centers_" in state:
        need(_array(state["cluster_centers_"], "f", None, state["n_features_in_"]), "centers of other features")
        counts = state.get("_counts")
        need(counts is None or _array(counts, "f", len(state["cluster_centers_"])), "counts of other centers")
    need(_whole(state.get("_n_threads", 1), 1, _MOST_THREADS), "no number of threads")
    around = [state["_bisecting_tree"]] if "_bisecting_tree" in state else []
    seen: set[int] = set()
    while around:
        need(id(around[-1]) not in seen, "clusters that make no tree")
        seen.add(id(around[-1]))
        here = of(around.pop())
        need(_array(here["center"], "f", state["n_features_in_"]), "centers of other features")
        sides = [here.get("left"), here.get("right")]
        need((sides[0] is None) == (sides[1] is None), "a cluster that is divided into one")
        around += [side for side in sides if side is not None]


def _sgd(state: State, of: Of) -> None:
    """`partial_fit` goes on in these arrays, all of one shape, over the columns of the data."""
    if state.get("coef_") is None:
        return
    width, shape = state["n_features_in_"], state["coef_"].shape
    need(shape[-1:] == (width,), "coefficients of other features")
    rows = shape[0] if len(shape) == 2 else 1
    for name in ("coef_", "_standard_coef", "_average_coef"):
        if isinstance(found := state.get(name), np.ndarray):  # of two classes, the average is a row without its table
            need(_array(found, "f", *shape) or (rows == 1 and _array(found, "f", width)), f"{name} unlike coef_")
    for name in ("intercept_", "offset_", "_standard_intercept", "_average_intercept"):
        if isinstance(found := state.get(name), np.ndarray):
            need(_array(found, "f", rows), f"{name} unlike coef_")


def _neighbors(state: State, of: Of) -> None:
    """Distances are computed over the columns of the data, and neighbours are named by their rows."""
    points = state.get("_fit_X")
    if points is None:
        return
    need(tuple(points.shape) == (state["n_samples_fit_"], state["n_features_in_"]), "points of another shape")
    found = state.get("_tree")
    need(found is None or found.data.shape == points.shape, "a search tree over other points")


def _neighbors_classifier(state: State, of: Of) -> None:
    """Votes are counted in a table, by the class of each neighbour."""
    _neighbors(state, of)
    labels, classes = state.get("_y"), state.get("classes_")
    if labels is None or not isinstance(classes, np.ndarray):
        return
    need(_array(labels, "i", state["n_samples_fit_"]) and _within(labels, 0, len(classes)), "points of classes that are not there")


def _vocabulary(state: State, of: Of) -> None:
    """The number of a term is its column in a sparse matrix that nothing checks."""
    if (found := state.get("vocabulary_")) is not None:
        columns = list(found.values())
        need(all(_whole(column, 0, len(columns)) for column in columns) and len(set(columns)) == len(columns), "terms without a column")


def _hasher(state: State, of: Of) -> None:
    """The remainder by the number of features is the column."""
    need(_whole(state["n_features"], 1, 2**31 - 1), "no number of features")


def _label_binarizer(state: State, of: Of) -> None:
    """The number of a label is its column in a sparse matrix that nothing checks."""
    classes = state.get("classes_")
    if classes is not None:
        numbers = {label: number for number, label in enumerate(classes)}
        need(len(numbers) == len(classes), "a class twice")
        need(state.get("_cached_dict") in (None, numbers), "labels of other classes")


def _columns_of_one_hot_encoder(made: Any, state: State) -> Callable[[], object] | None:
    if "_n_features_outs" not in state:
        return None

    def ask() -> None:
        """The columns of each feature begin where those before it end."""
        need(list(made._n_features_outs) == list(made._compute_n_features_outs()), "columns for other categories")

    return ask


def _hdbscan(state: State, of: Of) -> None:
    """`dbscan_clustering` joins the sides of each merge by their numbers."""
    if (merges := state.get("_single_linkage_tree_")) is not None:
        from sklearn.cluster._hdbscan._tree import HIERARCHY_dtype

        need(type(merges) is np.ndarray and merges.ndim == 1 and merges.dtype == HIERARCHY_dtype, "no merges")
        ends = len(merges) + 1 + np.arange(len(merges))
        for side in (merges["left_node"], merges["right_node"]):
            need(_within(side, 0, 2 * len(merges) + 1) and bool((side < ends).all()), "a merge of what is not there yet")


_CHECKS: Final[dict[str, Callable[[State, Of], None]]] = {
    "BaseDecisionTree": _decision_tree,
    "BaseForest": _forest,
    "IsolationForest": _isolation_forest,
    "BaseGradientBoosting": _gradient_boosting,
    "BaseHistGradientBoosting": _hist_gradient_boosting,
    "TreePredictor": _tree_predictor,
    "BaseLibSVM": _svm,
    "_BaseKMeans": _k_means,
    "BaseSGD": _sgd,
    "NeighborsBase": _neighbors,
    "KNeighborsClassifier": _neighbors_classifier,
    "RadiusNeighborsClassifier": _neighbors_classifier,
    "CountVectorizer": _vocabulary,
    "DictVectorizer": _vocabulary,
    "FeatureHasher": _hasher,
    "HashingVectorizer": _hasher,
    "MultiLabelBinarizer": _label_binarizer,
    "HDBSCAN": _hdbscan,
}

_AFTERWARDS: Final[dict[str, Callable[[Any, State], Callable[[], object] | None]]] = {
    "BaseGradientBoosting": _columns_of_gradient_boosting,
    "OneHotEncoder": _columns_of_one_hot_encoder,
}


def _bases(cls: type) -> Sequence[str]:
    return [base.__name__ for base in cls.__mro__ if base.__module__.startswith("sklearn.")]


def attributes(cls: type, state: State, of: Of) -> None:
    """Check the attributes of an object before it gets them.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: they are none of such an object.
    """
    for name in _bases(cls):
        if (check := _CHECKS.get(name)) is not None:
            check(state, of)


def afterwards(made: object, state: State) -> Callable[[], object] | None:
    """What an object must be asked once it has its attributes, or None."""
    for name in _bases(type(made)):
        if (ask := _AFTERWARDS.get(name)) is not None:
            return ask(made, state)
    return None

"""All estimators of the scikit-learn that is installed, fitted on small data as its own checks do it."""

import warnings
from typing import Any, Final

import numpy as np

TEXTS: Final = ["the cat sat", "on the mat a dog", "dog and cat", "", "mat"]
METHODS: Final = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "score_samples",
    "transform",
    "inverse_transform",
    "kneighbors",
    "radius_neighbors",
    "apply",
    "decision_path",
    "bic",
    "aic",
    "get_feature_names_out",
)


def names() -> list[str]:
    from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401  # they list what they enable
    from sklearn.utils.discovery import all_estimators

    return [name for name, _ in all_estimators()]


def fitted(name: str) -> tuple[Any, Any, Any]:
    """An estimator, and the data that it was fitted on: X, which is none of its arrays, and y."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.utils._test_common.instance_generator import _construct_instances
    from sklearn.utils._testing import set_random_state
    from sklearn.utils.discovery import all_estimators
    from sklearn.utils.estimator_checks import _enforce_estimator_tags_X, _enforce_estimator_tags_y

    cls = dict(all_estimators())[name]
    rng = np.random.RandomState(0)
    X, y = rng.normal(loc=3, size=(30, 3)), rng.randint(0, 3, size=30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in ("CountVectorizer", "TfidfVectorizer"):
            return cls().fit(TEXTS), TEXTS, None
        if name == "DictVectorizer":
            rows = [{"a": 1, "b": "x"}, {"c": 2.0}, {"b": "y"}]
            return cls().fit(rows), rows, None
        if name in ("LabelBinarizer", "LabelEncoder"):
            return cls().fit(["a", "b", "c", "a"]), ["b", "a"], None
        if name == "MultiLabelBinarizer":
            return cls().fit([("a", "b"), ("c",)]), [("c", "a"), ("b",)], None
        if name == "FrozenEstimator":
            return cls(LogisticRegression().fit(X, y)), X, y
        estimator = next(iter(_construct_instances(cls)))
        X, y = _enforce_estimator_tags_X(estimator, X), _enforce_estimator_tags_y(estimator, y)
        set_random_state(estimator)
        estimator.fit(X, y)
    return estimator, X.copy(), y


def answers(estimator: Any, X: Any) -> dict[str, Any]:
    """What each method of an estimator says, or the error that it raises."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method in METHODS:
            if not hasattr(estimator, method):
                continue
            try:
                found[method] = getattr(estimator, method)() if method.startswith("get") else getattr(estimator, method)(X)
            except Exception as error:  # noqa: BLE001  # whatever it is, the other must raise it too
                found[method] = repr(error)
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal bit for bit."""
    if type(one) is not type(other):
        return False
    if hasattr(one, "toarray"):
        return same(one.toarray(), other.toarray())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        if one.dtype == object:
            return one.shape == other.shape and same(list(one.ravel()), list(other.ravel()))
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other) or one != one

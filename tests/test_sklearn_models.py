"""scikit-learn: estimators come back whole, bit for bit, by a closed table; what would harm is refused before C code sees it."""

import io
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import estimators
import tensorkeep as tk
from refusing import Refuses
from tensorkeep.frameworks.sklearn import names
from tensorkeep.unpickle.known import sklearn as known
from warned import warned

pytest.importorskip("sklearn")

from scipy import stats
from sklearn import (
    base,
    calibration,
    cluster,
    compose,
    decomposition,
    ensemble,
    feature_extraction,
    feature_selection,
    gaussian_process,
    impute,
    linear_model,
    model_selection,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

X = np.random.default_rng(0).normal(size=(60, 4))
Y = (X[:, 0] + X[:, 1] > 0).astype(int) + (X[:, 2] > 0.5)


class Doubling(base.TransformerMixin, base.BaseEstimator):
    """An estimator of a user's own."""

    def __init__(self, by: float = 2.0) -> None:
        self.by = by

    def fit(self, X: Any, y: Any = None) -> "Doubling":
        self.mean_ = X.mean(axis=0)
        return self

    def transform(self, X: Any) -> Any:
        return (X - self.mean_) * self.by


def halved(X: Any) -> Any:
    return X / 2


def again(estimator: Any, **options: Any) -> Any:
    """An estimator out of its own file."""
    return tk.loads(tk.dumps(estimator), build="sklearn", **options)


def changed(estimator: Any, change: Callable[[Any], None]) -> bytes:
    """The file of an estimator whose tree was changed by someone else, digests and all."""
    with tk.open(io.BytesIO(tk.dumps(estimator))) as contents:
        change(contents.tree)
        return tk.dumps(contents.tree)


@pytest.mark.parametrize("name", estimators.names())
def test_every_estimator_of_scikit_learn_comes_back(name: str) -> None:
    """Built anew or filled in place, whatever an estimator says is equal bit for bit, and so is its file."""
    estimator, data, _ = estimators.fitted(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", tk.TensorkeepWarning)
        written = tk.dumps(estimator)
        built = tk.loads(written, build="sklearn")
        assert tk.dumps(built) == written
        target = estimators.fitted(name)[0] if name == "FrozenEstimator" else base.clone(estimator)
        assert tk.loads(written, into=target) is target
    assert vars(built).keys() == vars(estimator).keys()
    plain = tk.loads(written)  # without being asked for, nothing is built
    assert isinstance(plain, dict) and set(vars(estimator)) - {"f_"} <= set(plain)
    expected = estimators.answers(estimator, data)
    assert type(built) is type(estimator)
    for found in (built, target):
        said = estimators.answers(found, data)
        assert said.keys() == expected.keys()
        assert [method for method in said if not estimators.same(said[method], expected[method])] == []


def test_the_table_is_scikit_learns_own_list() -> None:
    """Each estimator that scikit-learn lists stands in the table; each name of the table is one that a scan knows too."""
    assert set(estimators.names()) <= set(names.ESTIMATORS)
    by_scan = {name for listed in known.NAMES.values() for name in listed.split()}
    assert set(names.ESTIMATORS) | set(names.INSIDE) | set(names.LOSSES) <= by_scan
    for table in (names.ESTIMATORS, names.INSIDE):
        for name in table:
            try:
                assert isinstance(names.named(name, table), type)
            except names.Unknown:
                assert name not in estimators.names()  # of another version than this one


MODELS: dict[str, Callable[[], Any]] = {
    "pipeline": lambda: pipeline.make_pipeline(
        compose.ColumnTransformer([("scale", preprocessing.StandardScaler(), slice(0, 2)), ("keep", "passthrough", [2, 3])]),
        decomposition.PCA(3, random_state=0),
        linear_model.LogisticRegression(),
    ),
    "search": lambda: model_selection.GridSearchCV(
        tree.DecisionTreeClassifier(random_state=0), {"max_depth": [2, 3]}, scoring="accuracy", cv=3
    ),
    "scores": lambda: model_selection.GridSearchCV(svm.SVC(), {"C": [1, 2]}, scoring=["accuracy", "f1_macro"], refit="accuracy", cv=3),
    "drawn": lambda: model_selection.RandomizedSearchCV(
        svm.SVC(), {"C": stats.loguniform(1e-2, 1e2), "degree": stats.randint(1, 4)}, n_iter=2, random_state=0
    ),
    "calibrated": lambda: calibration.CalibratedClassifierCV(svm.LinearSVC(), method="isotonic", cv=3),
    "voting": lambda: ensemble.VotingClassifier(
        [("a", tree.DecisionTreeClassifier(max_depth=2)), ("b", linear_model.LogisticRegression())]
    ),
    "stacking": lambda: ensemble.StackingClassifier([("a", neighbors.KNeighborsClassifier(algorithm="ball_tree", metric="manhattan"))]),
    "boosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=5, early_stopping=True, random_state=0),
    "bagging": lambda: ensemble.BaggingClassifier(tree.ExtraTreeClassifier(), max_features=2, random_state=np.random.RandomState(0)),
    "best": lambda: feature_selection.SelectKBest(feature_selection.mutual_info_classif, k=2),
    "process": lambda: gaussian_process.GaussianProcessClassifier(
        1.0 * gaussian_process.kernels.RBF() + gaussian_process.kernels.WhiteKernel()
    ),
    "rows": lambda: neighbors.KNeighborsClassifier(metric="minkowski", p=3, algorithm="kd_tree"),
    "forest": lambda: ensemble.RandomForestClassifier(10, random_state=np.random.RandomState(3), oob_score=True),
    "bins": lambda: preprocessing.KBinsDiscretizer(3),
    "clusters": lambda: cluster.Birch(n_clusters=3, threshold=0.05, branching_factor=5),
}


@pytest.mark.parametrize("name", MODELS)
def test_composed_models_come_back(name: str) -> None:
    """Models within models, searches with scores, and rarer settings: equal bit for bit, in a state with other values too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MODELS[name]().fit(X, Y)
    state = again({"model": model, "epoch": 3, "mean": X.mean(0)})
    assert state["epoch"] == 3 and state["mean"].tobytes() == X.mean(0).tobytes()
    assert estimators.same(estimators.answers(state["model"], X), estimators.answers(model, X))
    assert tk.dumps(state["model"]) == tk.dumps(model)


def test_categories_of_a_frame_come_back() -> None:
    """Histogram boosting over the categories of a table with names: encoder, checks and sets of categories with it."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"number": X[:, 0], "kind": pandas.Categorical(np.where(X[:, 1] > 0, "a", "b"))})
    model = ensemble.HistGradientBoostingRegressor(categorical_features="from_dtype", max_iter=5).fit(frame, X[:, 1])
    assert np.array_equal(again(model).predict(frame), model.predict(frame))


@pytest.mark.parametrize("fill", [{"strategy": "most_frequent"}, {"strategy": "constant", "fill_value": "none", "add_indicator": True}])
def test_imputers_of_texts_come_back(fill: dict[str, Any]) -> None:
    """Of columns of Python's objects, as a table has them: the imputer keeps their dtype."""
    texts = np.array([["a", "x"], ["b", np.nan], ["a", "y"], [np.nan, "x"]], object)
    model = pipeline.make_pipeline(impute.SimpleImputer(**fill), preprocessing.OneHotEncoder(handle_unknown="ignore")).fit(texts)
    for found in (again(model), tk.loads(tk.dumps(model), into=base.clone(model))):
        assert np.array_equal(found.transform(texts).toarray(), model.transform(texts).toarray())
        assert found[0].statistics_.tolist() == model[0].statistics_.tolist()


def test_categories_come_back() -> None:
    """Histogram boosting over columns of categories."""
    codes = np.column_stack([X[:, 0], np.arange(60) % 5])
    model = ensemble.HistGradientBoostingRegressor(categorical_features=[1], max_iter=5, min_samples_leaf=2).fit(codes, np.arange(60) % 5)
    assert np.array_equal(again(model).predict(codes), model.predict(codes))


@pytest.mark.parametrize(
    "make",
    [
        lambda: linear_model.SGDClassifier(average=True, random_state=np.random.RandomState(1)),
        lambda: linear_model.SGDRegressor(loss="huber", random_state=0),
        lambda: linear_model.Perceptron(),
        lambda: neural_network.MLPClassifier(hidden_layer_sizes=(5,), random_state=np.random.RandomState(1)),
        lambda: neural_network.MLPRegressor(hidden_layer_sizes=(5, 4), solver="sgd", nesterovs_momentum=True, random_state=2),
        lambda: cluster.MiniBatchKMeans(3, random_state=0),
        lambda: cluster.Birch(n_clusters=3, threshold=0.1, branching_factor=5),
        lambda: decomposition.IncrementalPCA(2),
        lambda: decomposition.MiniBatchNMF(2, random_state=0),
        lambda: decomposition.MiniBatchDictionaryLearning(3, random_state=0),
        lambda: decomposition.LatentDirichletAllocation(3, random_state=0),
        lambda: neural_network.BernoulliRBM(3, random_state=np.random.RandomState(0)),
        lambda: preprocessing.StandardScaler(),
    ],
)
@pytest.mark.parametrize("way", ["build", "into"])
def test_partial_fit_goes_on_bit_for_bit(make: Callable[[], Any], way: str) -> None:
    """A training that goes on from a file ends where one without a break ends: momenta, averages and random numbers with it."""
    run = make()
    rows = np.abs(X) / 5
    classes = {"classes": [0, 1, 2]} if base.is_classifier(run) else {}
    for _ in range(3):
        run.partial_fit(rows, Y, **classes)
    written = tk.dumps(run)
    resumed = tk.loads(written, build="sklearn") if way == "build" else tk.loads(written, into=make())
    for _ in range(3):
        run.partial_fit(rows[::-1], Y[::-1])
        resumed.partial_fit(rows[::-1], Y[::-1])
    assert tk.dumps(resumed) == tk.dumps(run)


def test_what_is_one_object_stays_one() -> None:
    """A generator that is a parameter and an attribute, and estimators under several names, are one object after loading."""
    model = neural_network.MLPClassifier(hidden_layer_sizes=(5,), random_state=np.random.RandomState(1), max_iter=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, Y)
    back = again(model)
    assert model._random_state is model.random_state and back._random_state is back.random_state
    votes = ensemble.VotingClassifier([("a", tree.DecisionTreeClassifier())]).fit(X, Y)
    assert again(votes).named_estimators_["a"] is not votes.named_estimators_["a"]
    loaded = again(votes)
    assert loaded.named_estimators_["a"] is loaded.estimators_[0]


def test_into_fills_the_callers_own_objects() -> None:
    """The pipeline and its steps stay the same objects; parameters become the file's, and which were others is told."""
    saved = pipeline.Pipeline([("scale", preprocessing.StandardScaler()), ("fit", linear_model.LogisticRegression(C=0.5))]).fit(X, Y)
    target = pipeline.Pipeline([("scale", preprocessing.StandardScaler()), ("fit", linear_model.LogisticRegression(C=2.0))])
    steps = dict(target.steps)
    with pytest.warns(tk.TensorkeepWarning, match=r"parameters of the Pipeline became those of the file: fit__C: 2\.0 is now 0\.5"):
        assert tk.loads(tk.dumps(saved), into=target) is target
    assert dict(target.steps)["scale"] is steps["scale"] and steps["fit"].C == 0.5
    assert np.array_equal(target.predict_proba(X), saved.predict_proba(X))


def test_into_another_class_is_told_and_changes_nothing() -> None:
    """All of the load is refused, and what stands beside the model that does not fit keeps its values."""
    data = tk.dumps({"model": linear_model.Ridge().fit(X, Y), "scale": preprocessing.StandardScaler().fit(X)})
    target = {"model": linear_model.Lasso(), "scale": preprocessing.StandardScaler()}
    with pytest.raises(tk.MismatchError, match=r"a Ridge.*a Lasso"):
        tk.loads(data, into=target)
    assert not hasattr(target["scale"], "mean_")
    with pytest.raises(tk.MismatchError, match="no estimator"):
        tk.loads(tk.dumps({"a": 1}), into=linear_model.Lasso())
    with pytest.raises(tk.MismatchError, match="a part of it"):
        tk.loads(tk.dumps(linear_model.Ridge().fit(X, Y)), into=linear_model.Ridge(), only="coef*")


def test_a_failing_load_gives_every_object_its_attributes_back() -> None:
    """Where the last of several objects refuses, those before it are as they were."""

    class Refusing:
        def state_dict(self) -> dict[str, int]:
            return {"a": 1}

        def load_state_dict(self, state: object) -> None:
            raise RuntimeError("no")

    target = {"model": linear_model.Ridge(alpha=9.0), "other": Refusing()}
    with pytest.raises(tk.MismatchError, match="no"):
        tk.loads(tk.dumps({"model": linear_model.Ridge().fit(X, Y), "other": Refusing()}), into=target)
    assert vars(target["model"]) == vars(linear_model.Ridge(alpha=9.0))


def test_classes_and_functions_of_users_come_back_only_when_given() -> None:
    """An estimator of one's own, or a function, is a name in the file: `types=` or the target itself says what it stands for."""
    model = pipeline.make_pipeline(Doubling(), preprocessing.FunctionTransformer(halved), linear_model.Ridge()).fit(X, Y)
    data = tk.dumps(model)
    with pytest.raises(tk.FormatError, match=r"steps\.0\.1 is an object of the class Doubling.*types=\(Doubling,\)"):
        tk.loads(data, build="sklearn")
    with pytest.raises(tk.FormatError, match=r"the function halved.*types=\(halved,\)"):
        tk.loads(data, build="sklearn", types=(Doubling,))
    assert np.array_equal(tk.loads(data, build="sklearn", types=(Doubling, halved)).predict(X), model.predict(X))
    with pytest.raises(tk.FormatError, match="Doubling"):
        tk.loads(data, into=pipeline.Pipeline([("a", "passthrough")]))
    target = pipeline.make_pipeline(Doubling(), preprocessing.FunctionTransformer(halved), linear_model.Ridge())
    assert np.array_equal(tk.loads(data, into=target).predict(X), model.predict(X))
    kernel = svm.SVC(kernel=halved)
    assert again(kernel, types=[halved]).kernel is halved
    assert tk.loads(tk.dumps(kernel))["kernel"] == "halved"


@pytest.mark.parametrize(
    ("make", "path", "reason"),
    [
        (lambda: preprocessing.FunctionTransformer(lambda X: X), "func", "code without a name"),
        (lambda: pipeline.make_pipeline(linear_model.Ridge(alpha=object())), r"steps\.0\.1\.alpha", "an object of builtins.object"),
        (lambda: preprocessing.FunctionTransformer(kw_args={"a": subprocess.Popen}), r"kw_args\.a", "which is code"),
        (lambda: svm.SVC(kernel=halved.__get__(3)), "kernel", "an object of builtins.method"),
        (lambda: neighbors.KNeighborsClassifier(metric=halved2, algorithm="ball_tree").fit(X, Y), "_tree", "a metric that is code"),
    ],
)
def test_code_is_refused_with_its_path(make: Callable[[], Any], path: str, reason: str) -> None:
    """What a file cannot keep is refused before anything is written."""
    with pytest.raises(tk.UnsupportedError, match=f"^{path}: .*{reason}"):
        tk.dumps(make())


def halved2(one: Any, other: Any) -> float:
    return float(np.abs(one - other).sum())


def test_an_estimator_in_itself_is_refused() -> None:
    """A cycle names its path."""
    model = linear_model.Ridge()
    model.alpha = [model]
    with pytest.raises(tk.UnsupportedError, match="holds itself"):
        tk.dumps(model)


def test_another_version_is_told_as_scikit_learn_tells_it() -> None:
    """The version stands in the file; a load under another one warns once."""
    from sklearn.exceptions import InconsistentVersionWarning

    def age(tree: Any) -> None:
        tree.state["_sklearn_version"] = "1.2.3"

    model = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.Ridge()).fit(X, Y)
    old = changed(model, age)
    assert tk.loads(tk.dumps(model))["_sklearn_version"] == __import__("sklearn").__version__
    for options in ({"build": "sklearn"}, {"into": pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.Ridge())}):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            tk.loads(old, **options)
        assert [type(warning.message) for warning in warned(told)] == [InconsistentVersionWarning]
    several = changed({name: linear_model.Ridge().fit(X, Y) for name in "abc"}, lambda tree: [age(node) for node in tree.values()])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert len(tk.loads(several, build="sklearn")) == 3
        tk.loads(several, into={name: linear_model.Ridge() for name in "abc"})
    assert [type(warning.message) for warning in warned(told)] == 2 * [InconsistentVersionWarning]  # once a load, however many models


def test_build_is_asked_for_by_a_known_name_and_where_there_is_something_to_build() -> None:
    """Neither an unknown framework nor a file without estimators passes silently; a target and `build=` exclude each other."""
    with pytest.raises(ValueError, match="known are"):
        tk.loads(tk.dumps({}), build="pickle")
    with pytest.raises(tk.FormatError, match="no object of sklearn"):
        tk.loads(tk.dumps({"a": 1}), build="sklearn")
    with pytest.raises(ValueError, match="give one of them"):
        tk.loads(tk.dumps(linear_model.Ridge()), build="sklearn", into=linear_model.Ridge())


def test_nothing_is_imported_that_nobody_asked_for(tmp_path: Path) -> None:
    """A file with an estimator is a plain tree where scikit-learn is not imported, the same as where it is."""
    tk.save(pipeline.make_pipeline(preprocessing.StandardScaler()).fit(np.asfortranarray(X)), tmp_path / "m.safetensors")
    script = f"""
        import sys, tensorkeep as tk
        tree = tk.load({str(tmp_path / "m.safetensors")!r})
        assert "sklearn" not in sys.modules and "scipy" not in sys.modules
        assert tree["steps"][0][1]["mean_"].shape == (4,)
        assert type(tk.load({str(tmp_path / "m.safetensors")!r}, build="sklearn")).__name__ == "Pipeline"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


# Files made to harm


def put(path: str, value: Any) -> Callable[[Any], None]:
    """A change of one place in a tree; a callable changes the array that is there."""

    def change(tree: Any) -> None:
        *parents, last = path.split(".")
        node = tree
        for key in [*parents, last]:
            while hasattr(node, "state"):
                node = node.state
            parent, place = node, int(key) if isinstance(node, (list, tuple)) else key
            node = node.get(place) if isinstance(node, dict) else node[place]
        while hasattr(parent, "state"):
            parent = parent.state
        if hasattr(node, "state") and callable(value):
            node.state = value(np.array(node.state.numpy()))
            return
        parent[place] = value(np.array(node.numpy())) if callable(value) else value

    return change


def at(index: Any, value: Any, field: str | None = None) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        (array if field is None else array[field])[index] = value
        return array

    return change


TREE = lambda: tree.DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, Y)  # noqa: E731
SVC = lambda: svm.SVC().fit(X, Y)  # noqa: E731
HIST = lambda: ensemble.HistGradientBoostingRegressor(max_iter=2).fit(np.repeat(X, 3, 0), np.repeat(Y, 3))  # noqa: E731
MEANS = lambda: cluster.KMeans(3, n_init=1, random_state=0).fit(X)  # noqa: E731
ROWS = lambda: neighbors.KNeighborsClassifier(algorithm="brute").fit(X, Y)  # noqa: E731
WORDS = lambda: feature_extraction.text.CountVectorizer().fit(estimators.TEXTS)  # noqa: E731
STEPS = lambda: linear_model.SGDClassifier(average=True, random_state=0).partial_fit(X, Y, [0, 1, 2])  # noqa: E731
BOOST = lambda: ensemble.GradientBoostingClassifier(n_estimators=2).fit(X, Y)  # noqa: E731
SPARSE = lambda: linear_model.LogisticRegression().fit(X, Y).sparsify()  # noqa: E731
LABELS = lambda: preprocessing.MultiLabelBinarizer().fit([("a", "b"), ("c",)])  # noqa: E731
HOT = lambda: preprocessing.OneHotEncoder().fit(np.arange(9).reshape(3, 3))  # noqa: E731
MERGES = lambda: cluster.HDBSCAN(copy=True).fit(X)  # noqa: E731


@pytest.mark.parametrize(
    ("make", "path", "value", "reason"),
    [
        (TREE, "tree_.nodes", at(0, 10**6, "left_child"), "make no tree"),
        (TREE, "tree_.nodes", at(0, -7, "right_child"), "make no tree"),
        (TREE, "tree_.nodes", at(0, 0, "left_child"), "make no tree"),
        (TREE, "tree_.nodes", at(0, 4, "feature"), "a feature that is not there"),
        (TREE, "tree_.nodes", lambda nodes: nodes[:-1], "unlike the tree's nodes"),
        (TREE, "tree_.values", lambda values: values.astype(np.float32), "unlike the tree's nodes"),
        (TREE, "tree_.max_depth", 0, "nodes deep"),
        (TREE, "tree_.n_features", 3, "that is not there|another number of features"),
        (TREE, "n_features_in_", 2, "another number of features"),
        (SVC, "support_", at(0, 60), "not there"),
        (SVC, "_n_support", at(0, 10**6), "no counts"),
        (SVC, "_n_support", lambda counts: np.append(counts, counts[:1]), "other classes"),
        (SVC, "_dual_coef_", lambda array: array[:, 1:], "other vectors"),
        (SVC, "_intercept_", lambda array: array[:1], "other classes"),
        (SVC, "_effective_probability", True, "without its probabilities"),
        (SVC, "support_vectors_", lambda array: array[:, :1].copy(), "other features"),
        (SVC, "shape_fit_", [1, 4], "not there"),
        (HIST, "_predictors.0.0.nodes", at(0, 10**6, "left"), "make no tree"),
        (HIST, "_predictors.0.0.nodes", at(0, 77, "feature_idx"), "not there"),
        (HIST, "_predictors.0.0.nodes", at(0, 1, "is_categorical"), "a set that is not there"),
        (MEANS, "cluster_centers_", lambda array: array[:, :2].copy(), "other features"),
        (MEANS, "_n_threads", 0, "threads"),
        (ROWS, "_y", at(0, 10**9), "classes that are not there"),
        (ROWS, "_fit_X", lambda array: array[:5], "another shape"),
        (WORDS, "vocabulary_.cat", 10**6, "without a column"),
        (STEPS, "_average_coef", lambda array: array[:, :1].copy(), "unlike coef_"),
        (STEPS, "coef_", lambda array: array[:, :1].copy(), "other features"),
        (BOOST, "init_.class_prior_", lambda array: array[:1], "for another number of outputs|does not work"),
        (SPARSE, "coef_.indices", at(0, 10**6), "no csr_"),
        (SPARSE, "coef_.indptr", at(-1, 10**6), "no csr_"),
        (LABELS, "classes_.items", ["a", "a", "b"], "a class twice"),
        (HOT, "_n_features_outs", [1, 1, 1], "other categories"),
        (MERGES, "_single_linkage_tree_", at(0, 10**6, "left_node"), "not there yet"),
    ],
)
@pytest.mark.parametrize("way", ["build", "into"])
def test_numbers_that_c_code_would_follow_are_checked(make: Any, path: str, value: Any, reason: str, way: str) -> None:
    """A wild index, a wrong shape or a tree that is none is refused at loading, not met as a read beyond memory."""
    model = make()
    data = changed(model, put(path, value))
    target = base.clone(model)
    before = dict(vars(target))
    with pytest.raises((tk.FormatError, tk.MismatchError), match=reason):
        tk.loads(data, build="sklearn") if way == "build" else tk.loads(data, into=target)
    assert vars(target) == before


@pytest.mark.parametrize("kind", ["estimator", "object", "own", "part", "function", "code", "type", "same", "value", "booster"])
@pytest.mark.parametrize("name", ["Popen", "subprocess.Popen", "os.system", "BaseEstimator", "make_pipeline", "__import__", "getattr", ""])
def test_no_name_outside_the_tables_is_ever_made(kind: str, name: str) -> None:
    """A file that names anything else, in any role, gets nothing but an error."""
    from tensorkeep.tree import Captured

    def swap(tree: Any) -> None:
        tree.state["alpha"] = Captured(
            f"sklearn.{kind}", name, {"args": ["true"]} if kind in ("estimator", "own", "object", "part") else name
        )

    data = changed(linear_model.Ridge().fit(X, Y), swap)
    with pytest.raises(tk.FormatError):
        tk.loads(data, build="sklearn")
    with pytest.raises(tk.FormatError):
        tk.loads(data, into=linear_model.Ridge())


@pytest.mark.parametrize("name", ["predict", "fit", "__class__", "__dict__", "get_params", "_parameter_constraints", "_repr_html_"])
def test_no_attribute_hides_what_the_class_has(name: str) -> None:
    """An attribute of a file is never taken for a method."""
    for model, attribute in ((linear_model.Ridge(), name), (svm.SVC(), "_impl")):
        data = changed(model, lambda tree, attribute=attribute: tree.state.__setitem__(attribute, 3))
        with pytest.raises(tk.FormatError, match="would hide"):
            tk.loads(data, build="sklearn")


def test_what_is_shared_again_and_again_is_counted() -> None:
    """A file of a few kilobytes whose pipelines hold each other twice would keep whoever walks them busy for hours."""
    model: Any = linear_model.Ridge()
    for _ in range(23):
        model = pipeline.Pipeline([("a", model), ("b", model)])
    with pytest.raises(tk.FormatError, match="shares too much"):
        again(model)


# Boosters


def test_models_of_xgboost_keep_their_librarys_bytes() -> None:
    """An XGBoost model is one leaf of its library's own bytes, and comes back where its class was given."""
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=2).fit(X, Y)
    back = again(model, types=(xgboost.XGBClassifier,))
    assert np.array_equal(back.predict_proba(X), model.predict_proba(X))
    with pytest.raises(tk.FormatError, match="XGBClassifier"):
        again(model)
    assert np.array_equal(tk.loads(tk.dumps(model), into=xgboost.XGBClassifier()).predict_proba(X), model.predict_proba(X))


def test_models_of_lightgbm_keep_their_librarys_bytes() -> None:
    """A LightGBM model is one leaf of its library's own text, and comes back where its class was given."""
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMClassifier(n_estimators=5, min_child_samples=2, verbose=-1).fit(X, Y)
    back = again(model, types=(lightgbm.LGBMClassifier,))
    assert np.array_equal(back.predict_proba(X), model.predict_proba(X))
    target = lightgbm.LGBMClassifier(n_estimators=5, min_child_samples=2, verbose=-1)
    assert np.array_equal(tk.loads(tk.dumps(model), into=target).predict_proba(X), model.predict_proba(X))


def test_bare_boosters_are_filled_in_place_or_keep_their_model() -> None:
    """XGBoost's and LightGBM's own models, without an estimator around them: a load that fails leaves the former one."""
    lightgbm, xgboost = pytest.importorskip("lightgbm"), pytest.importorskip("xgboost")

    def trained(values: Any) -> dict[str, Any]:
        return {
            "lightgbm": lightgbm.train({"verbose": -1, "min_data_in_leaf": 2}, lightgbm.Dataset(X, values), 3),
            "xgboost": xgboost.train({}, xgboost.DMatrix(X, values), 3),
        }

    def answers(models: dict[str, Any]) -> list[Any]:
        return [models["lightgbm"].predict(X).tolist(), models["xgboost"].predict(xgboost.DMatrix(X)).tolist()]

    saved, target = trained(X[:, 0]), trained(-X[:, 1])
    before = answers(target)
    with pytest.raises(tk.MismatchError):
        tk.loads(tk.dumps({**saved, "z": Refuses()}), into={**target, "z": Refuses(refuses=True)})
    assert answers(target) == before
    assert all(found is target[name] for name, found in tk.loads(tk.dumps(saved), into=target).items())
    assert answers(target) == answers(saved)

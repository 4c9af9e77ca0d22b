"""scikit-learn: what estimators hold beside numbers: generators, splitters, functions with arguments, plain values of all kinds."""

import functools
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk

base = pytest.importorskip("sklearn.base")
from sklearn import model_selection, preprocessing  # noqa: E402  # only where there is scikit-learn


class Holding(base.BaseEstimator):
    """An estimator of a user's own, with anything in it."""

    def __init__(self, held: Any = None) -> None:
        self.held = held


def again(held: Any, *types: Any) -> Any:
    return tk.loads(tk.dumps(Holding(held)), build="sklearn", types=(Holding, *types)).held


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        bytearray([0, 253, 255]),
        slice(-10, None, 2),
        range(3, 9, 2),
        {1, 2},
        frozenset({"a"}),
        {3: "three", None: (1, 2)},
        1 + 2j,
        np.float32(1.5),
        np.dtype("f8"),
        np.dtype(object),
        datetime(2026, 1, 2, 3, 4, 5),
        timedelta(days=-1),
        np.float64,
        int,
        {"made by": [list, dict, tuple, set, frozenset, slice, range]},
    ],
    ids=repr,
)
def test_plain_values_come_back(value: Any) -> None:
    """With their types."""
    found = again(value)
    assert found == value and type(found) is type(value)


def test_arrays_of_objects_and_of_another_order_come_back() -> None:
    """Of several dimensions, and transposed ones."""
    objects = np.array([[1, "2"], [3.0, None]], object)
    found = again({"objects": objects, "turned": objects.T, "fortran": np.asfortranarray(np.eye(3) + 1)})
    assert found["objects"].tolist() == objects.tolist() and found["turned"].tolist() == objects.T.tolist()
    assert found["fortran"].flags.f_contiguous and np.array_equal(found["fortran"], np.eye(3) + 1)


@pytest.mark.parametrize("generator", [np.random.RandomState(42), np.random.default_rng(3), np.random.Generator(np.random.PCG64DXSM(123))])
def test_generators_go_on_and_are_one_where_they_are_one(generator: Any) -> None:
    """What draws from the same generator does so afterwards, too."""
    generator.random(123)
    found = again([generator, generator])
    assert found[0] is found[1]
    assert found[0].random(100).tolist() == generator.random(100).tolist()


@pytest.mark.parametrize(
    "splitter",
    [
        model_selection.KFold(4, shuffle=True, random_state=42),
        model_selection.StratifiedKFold(3),
        model_selection.ShuffleSplit(6, random_state=np.random.RandomState(123)),
        model_selection.TimeSeriesSplit(3),
    ],
    ids=lambda splitter: type(splitter).__name__,
)
def test_splitters_split_the_same(splitter: Any) -> None:
    """Where they come from an estimator."""
    x, y = np.zeros((24, 2)), np.arange(24) % 2
    found = again(splitter)
    for one, other in zip(found.split(x, y), splitter.split(x, y), strict=True):
        assert all(map(np.array_equal, one, other))


class TestPartials:
    def test_one_comes_back_for_whoever_gave_its_function(self) -> None:
        """The function and `functools.partial` itself, both by name."""
        made = preprocessing.FunctionTransformer(functools.partial(np.add, 10), inverse_func=functools.partial(np.add, -10))
        data = tk.dumps(made)
        found = tk.loads(data, build="sklearn", types=(functools.partial, np.add))
        assert found.transform(np.ones(2)).tolist() == [11, 11] and found.inverse_transform(np.ones(2)).tolist() == [-9, -9]
        target = preprocessing.FunctionTransformer(functools.partial(np.add, 1), inverse_func=functools.partial(np.add, 2))
        tk.loads(data, into=target)
        assert target.transform(np.ones(2)).tolist() == [11, 11]

    @pytest.mark.parametrize("types", [(), (functools.partial,), (np.add,)])
    def test_no_file_binds_arguments_to_a_function_by_itself(self, types: tuple[Any, ...]) -> None:
        """Neither to scikit-learn's own functions, nor to those of the caller."""
        for function in (np.add, np.mean):
            if function is np.mean and types == (functools.partial,):
                continue  # of the closed table
            data = tk.dumps(preprocessing.FunctionTransformer(functools.partial(function, 10)))
            with pytest.raises(tk.FormatError, match="types="):
                tk.loads(data, build="sklearn", types=types)

    def test_one_with_attributes_or_over_a_lambda_is_refused(self) -> None:
        """When it is saved, by its path."""
        noted = functools.partial(np.add, 1)
        noted.note = "x"  # type: ignore[attr-defined]  # a partial takes any
        for value in (noted, functools.partial(lambda x: x, 1)):
            with pytest.raises(tk.UnsupportedError, match="held"):
                tk.dumps(Holding(value))

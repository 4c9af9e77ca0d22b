"""Averages of checkpoints: the mean of the exact numbers, rounded once, whatever the dtype."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tensorkeep as tk
from same import assert_same_bits

DTYPES: list[Any] = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]


def _nearest(exact: Fraction, dtype: Any) -> float:
    """The number of a dtype that is nearest, and of two as near the even one; by trying those around it."""
    if dtype is np.float64:
        return float(exact)
    width = np.dtype(dtype).itemsize
    near = np.float32(float(exact)).astype(dtype)
    bits = int(near.view(f"u{width}"))
    around = [np.array(bits + step, f"u{width}").view(dtype)[()] for step in (-1, 0, 1) if bits + step >= 0]
    numbers = [one for one in around if np.isfinite(np.float64(one))]
    return float(min(numbers, key=lambda one: (abs(Fraction(float(one)) - exact), int(one.view(f"u{width}")) & 1)))


def _hard(dtype: Any, count: int, seed: int) -> list[np.ndarray]:
    """Numbers whose mean lies at, or next to, the middle between two of the dtype; and some that cancel."""
    random = np.random.default_rng(seed)
    base = random.standard_normal(300)
    found = [(base * (1 + random.integers(-3, 4, 300) * 2.0**-6)).astype(dtype) for _ in range(count)]
    if dtype in (np.float64, np.float32):
        for number, one in enumerate(found):
            one[:50] = 1 + (number == 0) * np.finfo(dtype).eps  # for two, a tie
            one[50:100] *= dtype(2.0) ** (-40 * number % 120)
            one[100:120] *= -1 if number % 2 else 1
        found[-1][20:40] += dtype(2.0**-60)
        found[-1][:20] = np.nextafter(found[-1][:20], dtype(2)) * (1 if count % 2 else -1)
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("count", [2, 3, 7])
def test_the_mean_is_that_of_the_exact_numbers_rounded_once(tmp_path: Path, dtype: Any, count: int) -> None:
    """Compared with fractions, number by number."""
    arrays = _hard(dtype, count, seed=count)
    with tk.Store(tmp_path) as store:
        for step, array in enumerate(arrays):
            store.save({"w": array}, step=step, wait=True)
        found = store.average()["w"]
        assert found.dtype == np.dtype(dtype)
        for place in range(found.size):
            exact = sum((Fraction(float(array[place])) for array in arrays), Fraction(0)) / count
            assert float(found[place]) == _nearest(exact, dtype), (place, [float(array[place]) for array in arrays])


def test_what_overflows_vanishes_or_is_no_number_has_a_mean_too(tmp_path: Path) -> None:
    """The sum of the largest numbers is beyond float64, their mean is not; zeros keep their sign, and one checkpoint all its bits."""
    odd_nan = np.array([0x7FF8000000000123], np.uint64).view(np.float64)[0]
    rows = [
        [1.7e308, 1.7e308, -0.0, 5e-324, np.inf, np.inf, np.nan, 1e300, 1 / 3],
        [1.7e308, -1.7e308, -0.0, 5e-324, 1.0, -np.inf, 1.0, 1e-300, 1 / 3],
        [1.7e308, 1.7e308, -0.0, 1e-323, 1.0, 1.0, 1.0, -1e300, 1 / 3],
    ]
    with tk.Store(tmp_path) as store:
        for step, row in enumerate(rows):
            store.save({"w": np.array(row), "c": np.array(row[:3]) * 1j}, step=step, wait=True)
        wanted = np.array([1.7e308, 1.7e308 / 3, -0.0, 5e-324, np.inf, np.nan, np.nan, 1e-300 / 3, 1 / 3])
        found = store.average()["w"]
        assert np.array_equal(found, wanted, equal_nan=True) and np.signbit(found[2])
        assert store.average()["c"][0] == 1.7e308j
        store.save({"w": np.array([odd_nan, -0.0])}, step=9, wait=True)
        assert_same_bits(store.average(last=1), store.load())


@pytest.mark.parametrize("name", [None, "mean.safetensors"])
def test_what_a_run_removes_meanwhile_is_not_in_the_average(tmp_path: Path, name: str | None) -> None:
    """Another process saves, removes and collects while the tensors are read: the average is that of what is there then."""
    other = tk.Store(tmp_path / "run")
    arrays = np.random.default_rng(0).standard_normal((3, 300_000))
    for step, array in enumerate(arrays):
        other.save({"w": array, "v": -array}, step=step, wait=True)

    def go_on(_: str) -> bool:  # asked after all were opened, and before one is read
        if 0 in other.steps():
            other.delete(0)
            other.gc()
        return True

    path = None if name is None else tmp_path / name
    found = tk.Store(tmp_path / "run").average(path=path, only=go_on)
    if path is not None:
        found = tk.load(path)
    mean = (arrays[1] + arrays[2]) / 2
    assert other.steps() == [1, 2]
    assert_same_bits(found, {"w": mean, "v": -mean})

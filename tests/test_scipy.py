"""SciPy: sparse matrices come back as themselves, and no index of a file leads beyond one."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk

sparse: Any = pytest.importorskip("scipy.sparse", reason="SciPy is not installed")

DENSE = np.where(np.random.default_rng(0).random((6, 4)) < 0.4, np.arange(24.0).reshape(6, 4), 0)


@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.parametrize("layout", ["csr", "csc", "bsr", "coo", "dia"])
def test_every_layout_comes_back(layout: str, kind: str, tmp_path: Path) -> None:
    """New and in place, empty too, with the dtypes of numbers and indices."""
    make = getattr(sparse, f"{layout}_{kind}")
    for dtype in ("f4", "c16", "i2", "?"):
        for dense in (DENSE.astype(dtype), np.zeros((0, 3), dtype)):
            matrix = make(dense) if layout != "bsr" or dense.size else sparse.csr_matrix(dense)
            tk.save({"x": matrix, "n": 3}, tmp_path / "x.safetensors")
            target = type(matrix)(np.ones(matrix.shape, dtype))
            for found in (tk.load(tmp_path / "x.safetensors")["x"], tk.load(tmp_path / "x.safetensors", into={"x": target})["x"]):
                assert type(found) is type(matrix) and found.dtype == matrix.dtype and found.shape == matrix.shape
                assert np.array_equal(found.toarray(), matrix.toarray())
            assert np.array_equal(target.toarray(), matrix.toarray())


@pytest.mark.parametrize("layout", ["csr", "csc", "bsr", "coo", "dia"])
def test_indices_of_64_bits_stay_so(layout: str) -> None:
    """SciPy's own constructors make them smaller where they fit."""
    matrix = getattr(sparse, f"{layout}_matrix")(DENSE)
    fields = [field for field in ("indices", "indptr", "row", "col", "offsets") if hasattr(matrix, field)]
    if layout == "coo" and hasattr(matrix, "coords"):
        matrix.coords = tuple(part.astype(np.int64) for part in matrix.coords)
    else:
        vars(matrix).update((field, getattr(matrix, field).astype(np.int64)) for field in fields)
    found = tk.loads(tk.dumps(matrix))
    assert [getattr(found, field).dtype for field in fields] == [np.int64] * len(fields)
    assert np.array_equal(found.toarray(), DENSE) and np.array_equal((found.tocsr() @ np.eye(4)), DENSE)


def test_what_does_not_fit_is_told_and_changes_nothing() -> None:
    """Another shape, another layout, and no matrix at all."""
    data = tk.dumps({"x": sparse.csr_matrix(DENSE)})
    for target in (sparse.csr_matrix(DENSE[:-1]), sparse.csc_matrix(DENSE), np.zeros((6, 4))):
        before = target.copy()
        with pytest.raises(tk.MismatchError):
            tk.loads(data, into={"x": target})
        assert abs(target - before).sum() == 0


def test_other_layouts_and_more_axes_are_refused_with_a_way_out() -> None:
    """DOK and LIL are containers of Python's."""
    for matrix in (sparse.dok_matrix(DENSE), sparse.lil_array(DENSE)):
        with pytest.raises(tk.UnsupportedError, match=r"x: .*\n.*tocsr"):
            tk.dumps({"x": matrix})


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("indices", lambda array: array + 100),
        ("indices", lambda array: array - 50),
        ("indptr", lambda array: array * 1000),
        ("indptr", lambda array: array[::-1].copy()),
        ("indptr", lambda array: array[:-1].copy()),
        ("data", lambda array: array[:-1].copy()),
        ("data", lambda array: array.astype("U5")),
        ("shape", lambda shape: [2**70, 4]),
        ("shape", lambda shape: [-6, -4]),
        ("shape", lambda shape: [6]),
        ("shape", lambda shape: "64"),
        ("indices", lambda array: None),
    ],
)
def test_numbers_that_c_code_would_follow_are_checked(part: str, value: Any) -> None:
    """Of a file that someone else made, digests and all."""
    with tk.open(io.BytesIO(tk.dumps(sparse.csr_matrix(DENSE)))) as contents:
        state = contents.tree.state
        found = state[part]
        state[part] = value(np.array(found) if hasattr(found, "numpy") else found)
        data = tk.dumps(contents.tree)
    with pytest.raises(tk.FormatError):
        tk.loads(data)

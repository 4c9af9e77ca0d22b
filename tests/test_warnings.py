"""Warnings: each points at the line of whoever called, however deep in tensorkeep it was seen."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk
from warned import warned


def _saved(folder: Path) -> Path:
    tk.save({"w": np.ones(3), "b": np.ones(3)}, folder / "m.safetensors")
    return folder / "m.safetensors"


def _store(folder: Path) -> tk.Store:
    store = tk.Store(folder / "run")
    store.save({"w": np.ones(3), "b": np.ones(3)}, step=1, wait=True)
    return store


WARNED: dict[str, Callable[[Path], object]] = {
    "save, another suffix": lambda folder: tk.save({"w": np.ones(3)}, folder / "m.pt"),
    "save, overlapping views": lambda folder: tk.save({"a": (w := np.ones(9))[:6], "b": w[3:]}, folder / "m.safetensors"),
    "load, in part": lambda folder: tk.load(_saved(folder), into={"w": np.zeros(3), "c": np.zeros(3)}, strict=False),
    "load, cast": lambda folder: tk.load(_saved(folder), into={"w": np.zeros(3, np.float32), "b": np.zeros(3)}, cast=True),
    "Store.load, in part": lambda folder: _store(folder).load(into={"w": np.zeros(3), "c": np.zeros(3)}, strict=False),
    "Store.resume, in part": lambda folder: _store(folder).resume(into={"w": np.zeros(3), "c": np.zeros(3)}, strict=False),
    "Store.export, another suffix": lambda folder: _store(folder).export("latest", folder / "m.npz"),
}


@pytest.mark.parametrize("what", WARNED)
def test_a_warning_points_at_the_line_that_called(what: str, tmp_path: Path) -> None:
    """Not at a file of ours: the caller's line is the one that can be changed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WARNED[what](tmp_path)
    (warning,) = warned(caught)
    assert warning.filename == __file__
    line = Path(__file__).read_text(encoding="utf-8").splitlines()[warning.lineno - 1]
    assert line.strip().startswith(f'"{what}"')

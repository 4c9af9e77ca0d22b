"""show: what a file holds, at a glance."""

import dataclasses
import io
import time
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk
from craft import safetensors


def rows(state: object) -> list[tuple[str, int]]:
    """Path and count of each row of a state's summary."""
    return [(row.path, row.count) for row in tk.show(io.BytesIO(tk.dumps(state))).rows]


W = np.ones((2, 3), np.float32)


def w() -> np.ndarray:
    """Another one: the same array in two places would be tied."""
    return W.copy()


def test_the_summary_tells_what_was_saved(tmp_path: Path) -> None:
    """Sizes, counts, dtypes, values, metadata, digests and root are those of the file."""
    path = tmp_path / "run.safetensors"
    tk.save({"net": {"w": W, "b": np.zeros(3, np.float16)}, "epoch": 3}, path, metadata={"note": "first"})
    summary = tk.show(path)
    assert (summary.file, summary.nbytes, summary.digests) == (str(path), path.stat().st_size, True)
    assert (summary.tensors, summary.elements) == (2, 9)
    assert [(dtype, share.tensors, share.elements, share.nbytes) for dtype, share in summary.dtypes.items()] == [
        ("F32", 1, 6, 24),
        ("F16", 1, 3, 6),
    ]
    assert [(row.path, row.count, row.dtype, row.shape, row.nbytes) for row in summary.rows] == [
        ("net.w", 1, "F32", (2, 3), 24),
        ("net.b", 1, "F16", (3,), 6),
    ]
    assert [(value.path, value.count, value.text) for value in summary.values] == [("epoch", 1, "3")]
    assert summary.metadata["note"] == "first"
    assert summary.root == tk.verify(path).root
    assert summary.writer == f"tensorkeep {tk.__version__}"
    with pytest.raises(dataclasses.FrozenInstanceError):
        summary.tensors = 3  # type: ignore[misc]  # that it cannot be set is what is tested


def test_a_file_by_others_has_no_digests() -> None:
    """A plain safetensors file is summed up as well, and says that nothing can be checked."""
    data = safetensors({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"x")
    summary = tk.show(io.BytesIO(data))
    assert (summary.tensors, summary.digests, summary.root) == (1, False, "")


def test_numbered_siblings_share_a_row() -> None:
    """Equal dtype and shape at paths that differ in numbers only are one row; another shape is another."""
    layers = [{"mlp": {"weight": w()}, "norm": np.ones(3)} for _ in range(24)]
    layers[7]["mlp"] = {"weight": np.ones((3, 2), np.float32)}
    assert rows({"layers": layers}) == [
        ("layers.{0..6,8..23}.mlp.weight", 23),
        ("layers.{0..23}.norm", 24),
        ("layers.7.mlp.weight", 1),
    ]


def test_several_numbers_are_told_as_boxes_that_hold_no_path_too_many() -> None:
    """Where the second number has not the same range everywhere, the row is split rather than wrong."""
    state = {f"l.{layer}.e.{expert}": w() for layer in range(6) for expert in range(8 if layer < 4 else 2)}
    assert rows(state) == [("l.{0..3}.e.{0..7}", 32), ("l.{4,5}.e.{0,1}", 4)]
    assert rows({f"{number}.{number}": w() for number in range(3)}) == [("0.0", 1), ("1.1", 1), ("2.2", 1)]


def test_numbers_inside_names_count_too() -> None:
    """Flax and many others number with `Dense_0`; leading zeros and huge numbers stay as they are."""
    assert rows({f"Dense_{number}": w() for number in (0, 1, 4)}) == [("Dense_{0,1,4}", 3)]
    assert sorted(rows({f"{number:02d}": w() for number in range(3)})) == [("00", 1), ("01", 1), ("02", 1)]
    assert len(rows({"9" * 5000: w(), "8" * 5000: w()})) == 2


def test_scattered_numbers_stay_short() -> None:
    """Many ranges are cut in the middle; the count is the whole."""
    ((path, count),) = rows({str(number * 3): w() for number in range(100)})
    assert (path, count) == ("{0,3,6,9,...,297}", 100)


def test_tied_tensors_count_once() -> None:
    """A tensor that stands in two places is one row, and the other place says which it is."""
    summary = tk.show(io.BytesIO(tk.dumps({"embed": W, "head": {"w": W}})))
    assert (summary.tensors, summary.elements, dict(summary.ties)) == (1, 6, {"head.w": "embed"})


def test_plain_values_are_told_briefly() -> None:
    """A list of values is one value, long ones are cut, and no int is too long for Python to print."""
    state = {
        "betas": (0.9, 0.999),
        "params": list(range(148)),
        "text": "x" * 500,
        "long": "y" * 70_000,
        "big": 10**5000,
        "empty": [{}, []],
        "groups": [{"lr": 0.1}, {"lr": 0.1}],
    }
    told = {value.path: (value.count, value.text) for value in tk.show(io.BytesIO(tk.dumps(state))).values}
    assert told["betas"] == (1, "(0.9, 0.999)")
    assert told["params"] == (1, "[0, 1, 2, 3, 4, 5, ...]")
    assert len(told["text"][1]) <= 60
    assert told["long"] == (1, "a str of 70,000 bytes")
    assert told["big"][1] == "an int of 16,610 bits"
    assert (told["empty.0"], told["empty.1"]) == ((1, "{}"), (1, "[]"))
    assert told["groups.{0,1}.lr"] == (2, "0.1")
    assert [value.path for value in tk.show(io.BytesIO(tk.dumps(3))).values] == [""]


def test_two_values_of_one_path_are_both_told() -> None:
    """Paths are not escaped, so two may be alike; none is lost."""
    state = {"a.0": 1, "a": {"0": 1}}
    assert sum(value.count for value in tk.show(io.BytesIO(tk.dumps(state))).values) == 2


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    """What `show` tells is what was written."""
    data = tk.dumps({"epoch": 1234567})
    (tmp_path / "other.safetensors").write_bytes(data.replace(b"1234567", b"1234568"))
    with pytest.raises(tk.CorruptError, match="header"):
        tk.show(tmp_path / "other.safetensors")


def test_progress_is_told() -> None:
    """As in every verb."""
    told: list[tuple[int, int]] = []
    data = tk.dumps({"w": W})
    tk.show(io.BytesIO(data), progress=lambda done, whole: told.append((done, whole)))
    assert told == [(len(data), len(data))]


@pytest.mark.parametrize("numbers", ["regular", "random"])
def test_twenty_thousand_tensors_are_told_at_once(tmp_path: Path, numbers: str) -> None:
    """Well under a second on any machine, the worst case too: no two share a row."""
    pairs = np.random.default_rng(0).integers(0, 10**6, (20_000, 2)) if numbers == "random" else [divmod(i, 100) for i in range(20_000)]
    tk.save({f"a.{one}.{two}": np.ones(1, np.float32) for one, two in pairs}, tmp_path / "many.safetensors")
    began = time.perf_counter()
    summary = tk.show(tmp_path / "many.safetensors")
    seconds = time.perf_counter() - began
    assert sum(row.count for row in summary.rows) == summary.tensors
    assert seconds < 10  # a bound against quadratic time, not a speed: it takes 0.15 to 0.4

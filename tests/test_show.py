"""show: what a file holds, at a glance."""

import argparse
import dataclasses
import io
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import tensorkeep as tk
from craft import safetensors
from tensorkeep.cli import cli


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
    assert rows({f"{number}.{2 - number}": w() for number in range(3)}) == [("0.2", 1), ("1.1", 1), ("2.0", 1)]


def test_a_number_that_occurs_twice_in_a_path_is_told_once() -> None:
    """As Keras names its layers: `{same}` stands for the number before it, and is none where that is one number."""
    state = {f"conv1d_{number}.conv1d_{number}.kernel": w() for number in range(3)} | {"dense_3.dense_4.bias": w()}
    assert rows(state) == [("conv1d_{0..2}.conv1d_{same}.kernel", 3), ("dense_3.dense_4.bias", 1)]
    assert rows({"a_7.b_7": w()}) == [("a_7.b_7", 1)]
    assert rows({f"{a}.{a}.{b}": w() for a, b in ((0, 0), (0, 1), (1, 2))}) == [("0.0.{0,1}", 2), ("1.1.2", 1)]


def test_numbers_inside_names_count_too() -> None:
    """Flax and many others number with `Dense_0`; leading zeros stay, and huge numbers are text."""
    assert rows({f"Dense_{number}": w() for number in (0, 1, 4)}) == [("Dense_{0,1,4}", 3)]
    assert rows({f"{number:02d}": w() for number in range(12)}) == [("0{0..9}", 10), ("{10,11}", 2)]
    assert rows({"000": w(), "0": w(), "00": w()}) == [("000", 1), ("0", 1), ("00", 1)]
    assert len(rows({"9" * 5000: w(), "8" * 5000: w()})) == 2


def test_scattered_numbers_stay_short() -> None:
    """Many ranges are cut in the middle; the count is the whole."""
    ((path, count),) = rows({str(number * 3): w() for number in range(100)})
    assert (path, count) == ("{0,3,6,9,...,297}", 100)


def test_tied_tensors_count_once() -> None:
    """A tensor that stands in two places is one row, and the other place says which it is."""
    summary = tk.show(io.BytesIO(tk.dumps({"embed": W, "head": {"w": W}})))
    assert (summary.tensors, summary.elements, dict(summary.ties)) == (1, 6, {"head.w": "embed"})


def test_a_structured_dtype_is_told_by_some_of_its_fields() -> None:
    """NumPy's own spelling of a large one fills a screen."""
    nodes = np.zeros(4, [(name, "<f8") for name in ("left", "right", "feature", "value")])
    summary = tk.show(io.BytesIO(tk.dumps({"nodes": nodes, "pair": np.zeros(2, [("x", "<f4"), ("y", "<f4")]), "c": np.ones(1, "c8")})))
    assert [row.dtype for row in summary.rows] == ["{left, right, feature, ...}", "{x, y}", "C64"]
    assert summary.dtypes["{left, right, feature, ...}"].nbytes == 128


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


class Word:
    """One of many, as in a vocabulary."""

    def __init__(self) -> None:
        self.count = 1


def test_many_objects_of_one_class_are_told_by_the_first(tmp_path: Path) -> None:
    """On the screen; as data there are all of them."""
    (tmp_path / "words.pkl").write_bytes(pickle.dumps({"vocab": {name: Word() for name in "abcdefghij"}, "one": argparse.ArgumentParser}))
    assert len(tk.show(tmp_path / "words.pkl").objects) == 10
    told = CliRunner().invoke(cli, ["show", str(tmp_path / "words.pkl")]).output
    assert [line for line in told.splitlines() if "Word" in line] == [f"    vocab.a  and 9 more  {__name__}.Word"]


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
    began = time.process_time()
    summary = tk.show(tmp_path / "many.safetensors")
    seconds = time.process_time() - began
    assert sum(row.count for row in summary.rows) == summary.tensors
    assert seconds < 10  # a bound against quadratic time, not a speed: it takes 0.15 to 0.4


class Model:
    """What a stranger may have pickled."""

    def __init__(self) -> None:
        self.coef, self.inner = W, argparse.ArgumentParser


def test_objects_of_a_pickle_are_named(tmp_path: Path) -> None:
    """Their classes, and what they hold at its paths; none is made."""
    (tmp_path / "m.pkl").write_bytes(pickle.dumps([Model(), Model()]))
    summary = tk.show(tmp_path / "m.pkl")
    assert [(value.path, value.count, value.text) for value in summary.objects] == [("{0,1}", 2, f"{__name__}.Model")]
    assert [row.path for row in summary.rows] == ["0.coef"]
    text = CliRunner().invoke(cli, ["show", str(tmp_path / "m.pkl")]).output
    assert "objects, none of which was made" in text and f"{__name__}.Model" in text


def test_what_was_left_out_is_told(tmp_path: Path) -> None:
    """With the reason, in a sentence."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["w"] = W
        file["away"] = h5py.SoftLink("/w")
    summary = tk.show(tmp_path / "a.h5")
    assert summary.left_out and "away" in " ".join(summary.left_out)
    assert "left out" in CliRunner().invoke(cli, ["show", str(tmp_path / "a.h5")]).output


def test_a_vocabulary_of_250_000_words_is_told_in_a_line(tmp_path: Path) -> None:
    """Some of it, and how many there are; quickly."""
    state = {"w": W}
    tk.save(state, tmp_path / "a.safetensors", metadata={"words": [f"word {n}" for n in range(250_000)], "template": "{{ x }}" * 10_000})
    tk.convert(tmp_path / "a.safetensors", tmp_path / "a.gguf")
    began = time.process_time()
    text = CliRunner().invoke(cli, ["show", str(tmp_path / "a.gguf")]).output
    assert time.process_time() - began < 5  # a bound against printing it all; it takes 0.2
    (line,) = [line for line in text.splitlines() if line.strip().startswith("words")]
    assert line.endswith("'word 5', ...], 250,000 in all") and len(text) < 2000
    assert "70,000 characters in all" in text
    assert len(tk.show(tmp_path / "a.gguf").metadata["words"]) == 250_000

"""diff: what differs between two models."""

import io
import itertools
import json
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensorkeep as tk
from craft import safetensors, soon
from strategies import states
from tensorkeep.cli import cli

PARTS = ("changed", "retyped", "reshaped", "renamed", "added", "removed", "values", "metadata")


def of(a: Any, b: Any, **options: Any) -> tk.Diff:
    """The difference of two states."""
    return tk.diff(io.BytesIO(tk.dumps(a)), io.BytesIO(tk.dumps(b)), **options)


def parts(found: tk.Diff) -> set[str]:
    return {part for part in PARTS if getattr(found, part)}


@given(states())
@settings(max_examples=60, deadline=None)
def test_a_state_does_not_differ_from_itself(state: object) -> None:
    """Whatever it holds."""
    found = of(state, state)
    assert found.same and parts(found) == set()


def test_every_kind_of_difference_is_told_apart() -> None:
    """Each tensor stands in one part of the answer."""
    w = np.arange(6, dtype=np.float32)
    before = {"same": w.copy(), "value": w.copy(), "type": w.copy(), "shape": w.copy(), "old": w + 7, "gone": w + 8, "n": 1, "m": "x"}
    after = {"same": w.copy(), "value": w + 1, "type": w.astype(np.float64), "shape": w.reshape(2, 3), "moved": w + 7, "new": w + 9}
    after |= {"n": 2, "l": [True]}
    found = of(before, after)
    assert found.equal == 1 and not found.same
    assert [change.path for change in found.changed] == ["value"]
    assert [(change.path, change.dtypes, change.differing) for change in found.retyped] == [("type", ("F32", "F64"), 0)]
    assert [(change.path, change.shapes, change.differing) for change in found.reshaped] == [("shape", ((6,), (2, 3)), None)]
    assert found.renamed == (("old", "moved"),)
    assert [(tensor.path, tensor.dtype, tensor.shape, tensor.nbytes) for tensor in found.added] == [("new", "F32", (6,), 24)]
    assert [tensor.path for tensor in found.removed] == ["gone"]
    assert [(value.path, value.before, value.after) for value in found.values] == [
        ("n", "1", "2"),
        ("m", "'x'", None),
        ("l.0", None, "True"),
    ]


numbers = st.floats(-1e6, 1e6, width=32)


@given(hnp.arrays(np.float32, (3, 4), elements=numbers), hnp.arrays(np.float32, (3, 4), elements=numbers))
@settings(max_examples=60, deadline=None)
def test_the_measures_are_those_of_numpy(a: np.ndarray, b: np.ndarray) -> None:
    """Relative norm, largest change and its place, how many differ."""
    found = of({"w": a}, {"w": b})
    if a.tobytes() == b.tobytes():
        assert found.same
        return
    (change,) = found.changed
    distance = b.astype(np.float64) - a
    assert change.differing == np.count_nonzero(distance)
    norm = np.linalg.norm(a.astype(np.float64))
    wanted = np.linalg.norm(distance) / norm if norm else (np.inf if distance.any() else 0)
    assert change.relative == pytest.approx(wanted, rel=1e-9)
    assert change.largest == np.abs(distance).max()
    if change.largest:
        assert change.largest_at == tuple(np.unravel_index(np.abs(distance).argmax(), (3, 4)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e4m3fn", "float64", "int8", "uint16", "int64", "bool", "complex64"])
def test_every_kind_of_number_is_measured(dtype: str) -> None:
    """Large tensors too, which are read in pieces by several threads."""
    kind = getattr(ml_dtypes, dtype, dtype)
    a = np.zeros(2_500_000, kind)
    b = a.copy()
    a[0] = b[0] = np.ones((), kind)
    b[2_400_001] = np.ones((), kind)
    (change,) = of({"w": a.reshape(5, -1)}, {"w": b.reshape(5, -1)}).changed
    assert (change.differing, change.relative, change.largest, change.largest_at) == (1, 1.0, 1.0, (4, 400_001))


def test_what_is_no_number_differs_without_a_measure() -> None:
    """Texts and records are compared by their bytes."""
    (change,) = of({"t": np.array(["a"])}, {"t": np.array(["b"])}).changed
    assert (change.differing, change.relative) == (None, None)


def test_nans_and_infinities_are_counted_apart() -> None:
    """NaN is NaN; what became infinite or no number is told, and does not spoil the other measures; signs of zero are bits alone."""
    a = np.array([np.nan, 1, 2, np.inf, 0])
    b = np.array([np.nan, np.nan, 3, np.inf, -0.0])
    (change,) = of({"w": a}, {"w": b}).changed
    assert (change.differing, change.not_finite, change.largest, change.largest_at) == (2, 1, 1.0, (2,))
    assert change.relative == pytest.approx(1 / np.sqrt(5))
    (change,) = of({"w": np.zeros(3)}, {"w": -np.zeros(3)}).changed
    assert (change.differing, change.relative, change.largest) == (0, 0.0, 0.0)
    (change,) = of({"w": np.zeros(3)}, {"w": np.ones(3)}).changed
    assert change.relative == np.inf


def test_rtol_lets_small_changes_pass() -> None:
    """By the norm of the change; never what became no number."""
    w = np.ones(100)
    assert of({"w": w}, {"w": w + 1e-6}, rtol=1e-5).same
    assert of({"w": w}, {"w": w + 1e-6}, rtol=1e-5).close == 1
    assert not of({"w": w}, {"w": w + 1e-6}, rtol=1e-7).same
    bad = w.copy()
    bad[0] = np.nan
    assert not of({"w": w}, {"w": bad}, rtol=1.0).same


def test_moved_tensors_are_found_by_their_bytes() -> None:
    """Each once, in the order of the files; not across dtypes or shapes."""
    zeros = [np.zeros(4) for _ in range(3)]
    found = of({f"a.{n}": zero for n, zero in enumerate(zeros)}, {f"b.{n}": zero for n, zero in enumerate(zeros[:2])})
    assert found.renamed == (("a.0", "b.0"), ("a.1", "b.1")) and [tensor.path for tensor in found.removed] == ["a.2"]
    assert of({"a": np.zeros(4)}, {"b": np.zeros((2, 2))}).renamed == ()


def test_only_and_rename_choose_what_is_compared(tmp_path: Path) -> None:
    """`rename` gives paths of the first file their names in the second; `only` takes a part."""
    a = {"module": {"w": np.ones(2), "b": np.zeros(2)}, "step": 1}
    b = {"net": {"w": np.ones(2), "b": np.ones(2)}, "step": 2}
    found = of(a, b, rename=[("module.*", "net.*")])
    assert (found.equal, [change.path for change in found.changed], len(found.values)) == (1, ["net.b"], 1)
    assert of(a, b, rename=[("module.*", "net.*")], only="*.w").same
    assert parts(of(a, b, only="step")) == {"values"}
    with pytest.raises(ValueError, match=r"only='stpe' takes nothing"):
        of(a, b, only="stpe")
    with pytest.raises(tk.UnsupportedError, match="taken"):
        of(a, b, rename=lambda path: "one")


def test_formats_do_not_count(tmp_path: Path) -> None:
    """A plain safetensors file, or an npz, of a model does not differ from it."""
    w = np.random.default_rng(0).random((300, 300))
    tk.save({"w": w, "tied": w}, tmp_path / "a.safetensors")
    tk.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to="safetensors")
    assert tk.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors").same
    tk.convert(tmp_path / "a.safetensors", tmp_path / "c.safetensors", dtype="bf16")
    found = tk.diff(tmp_path / "a.safetensors", tmp_path / "c.safetensors")
    assert parts(found) == {"retyped"} and 0 < (found.retyped[0].relative or 0) < 2**-8


def test_metadata_are_compared_entry_by_entry() -> None:
    """Nested ones by their paths."""
    a = io.BytesIO(tk.dumps(1, metadata={"note": "x", "config": {"layers": [1, 2], "act": "relu"}}))
    b = io.BytesIO(tk.dumps(1, metadata={"note": "x", "config": {"layers": [1, 3], "act": "relu"}}))
    found = tk.diff(a, b)
    assert [(value.path, value.before, value.after) for value in found.metadata] == [("config.layers.1", "2", "3")]
    c = io.BytesIO(tk.dumps(1, metadata={"note": "x"}))
    a.seek(0)
    assert [(value.path, value.after) for value in tk.diff(a, c).metadata] == [("config", None)]
    a.seek(0), c.seek(0)
    assert tk.diff(a, c, only="*").same


def test_long_values_are_compared_whole() -> None:
    """Texts and lists that are stored as tensors are values still; a change beyond what is shown is told."""
    found = of({"t": "x" * 70_000, "l": list(range(5000))}, {"t": "x" * 69_999 + "y", "l": list(range(5000))})
    assert [(value.path, value.after) for value in found.values] == [("t", "another: a str of 70,000 bytes")]


def test_unchanged_tensors_of_model_files_are_not_read(tmp_path: Path) -> None:
    """Their digests are compared: damage in one that both files have is not even met."""
    state = {"a": np.ones(1 << 20), "b": np.zeros(1 << 20)}
    tk.save(state, tmp_path / "a.safetensors")
    tk.save({**state, "b": np.ones(1 << 20)}, tmp_path / "b.safetensors")
    data = bytearray((tmp_path / "a.safetensors").read_bytes())
    data[len(data) - (1 << 24) + 5] ^= 1  # in the first tensor
    (tmp_path / "a.safetensors").write_bytes(data)
    assert [change.path for change in tk.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors").changed] == ["b"]


def test_many_tensors_take_no_quadratic_time() -> None:
    """20,000 of equal bytes, all moved."""
    a, b = ({f"{side}.{number}": np.zeros(2) for number in range(20_000)} for side in "ab")
    with soon(20):
        began = time.process_time()
        assert len(of(a, b).renamed) == 20_000
        assert time.process_time() - began < 20


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["diff", *arguments], standalone_mode=False)


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layers = [{"w": np.full((2, 2), number, np.float32)} for number in range(3)]
    tk.save({"layers": layers, "old": {"x": np.ones(3), "y": np.zeros(3)}, "epoch": 3}, "a.safetensors")
    layers[1]["w"][0, 1] = 9
    extra = {"lora": [np.zeros(5, np.float16), np.zeros(5, np.float16)]}
    tk.save({"layers": layers, "new": {"x": np.ones(3), "y": np.zeros(3)}, "epoch": 4, **extra}, "b.safetensors")


def test_the_command_prints_what_a_person_can_use(two: None) -> None:
    """Counts first, then tables; alike things in a row."""
    text = run("a.safetensors", "b.safetensors").output
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[:2] == ["a.safetensors → b.safetensors", "2 equal, 1 changed, 2 renamed, 2 added, 1 value"]
    assert "layers.1.w F32[2,2] 4.00e+00 8 [0,1] 25 %" in lines
    assert "old.* 2x → new.*" in lines
    assert "lora.{0,1} 2x F16[5] 20 B" in lines
    assert "epoch 3 → 4" in lines


def test_exit_codes(two: None) -> None:
    """0 without --exit-code; with it 3 where something differs, as for every finding; 1 stays for files that cannot be read."""
    assert run("a.safetensors", "b.safetensors").return_value == 0
    assert run("a.safetensors", "b.safetensors", "--exit-code").return_value == 3
    assert run("a.safetensors", "a.safetensors", "--exit-code").return_value == 0
    assert run("a.safetensors", "b.safetensors", "--exit-code", "--only", "layers.0.*").return_value == 0
    assert CliRunner().invoke(cli, ["diff", "a.safetensors", "b.safetensors", "--rename", "x.*=y"]).exit_code == 2


def test_markdown_cannot_be_made_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and values of a stranger stay in their cells, as text."""
    monkeypatch.chdir(tmp_path)
    evil = "a|b`<img src=x>`\n# [x](http://y) @all \x1b[31m"
    tk.save({evil: np.ones(1), "v": evil}, "a.safetensors")
    tk.save({evil: np.zeros(1), "v": "|"}, "b.safetensors")
    text = run("a.safetensors", "b.safetensors", "--md").output
    assert "\x1b" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len([line for line in text.splitlines() if line.startswith("#")]) == 1
    for row in rows:
        bare = row.replace("\\|", "")
        assert bare.count("|") in (7, 3)
        outside = "".join(bare.split("`")[0::2])
        assert "<" not in outside and "@" not in outside and "[" not in outside
    assert bare.count("`") % 2 == 0


def test_json_has_all(two: None) -> None:
    """The result, and whether all is the same."""
    told = json.loads(run("a.safetensors", "b.safetensors", "--json").output)
    assert told["command"] == "diff" and told["same"] is False and told["changed"][0]["largest"] == 8
    assert told["renamed"] == [["old.x", "new.x"], ["old.y", "new.y"]]


def test_top_bounds_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest changes first, and how many more there are."""
    monkeypatch.chdir(tmp_path)
    tk.save({f"t{n}": np.full(1, 1.0) for n in range(30)}, "a.safetensors")
    tk.save({f"t{n}": np.full(1, 1.0 + n) for n in range(30)}, "b.safetensors")
    bad = io.BytesIO(tk.dumps({"w": np.array([1.0, np.inf])}))
    assert tk.diff(io.BytesIO(tk.dumps({"w": np.ones(2)})), bad).changed[0].not_finite == 1
    text = run("a.safetensors", "b.safetensors", "--top", "3").output
    assert "t29" in text and "t27" in text and "t26" not in text and "... and 26 more: --top 29 has them all" in text


def test_a_stranger_with_a_nan_everywhere_is_compared() -> None:
    """Plain safetensors by others, without digests."""
    header = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    one = safetensors(header, np.array([np.nan, 1], np.float32).tobytes())
    other = safetensors(header, np.array([np.nan, 2], np.float32).tobytes())
    (change,) = tk.diff(io.BytesIO(one), io.BytesIO(other)).changed
    assert (change.differing, change.largest, change.relative) == (1, 1.0, 1.0)


def test_how_a_file_is_written_is_no_difference(tmp_path: Path) -> None:
    """A checkpoint of PyTorch, the same in safetensors, in shards and as a model file: its archive's own notes are nobody's metadata."""
    torch = pytest.importorskip("torch")
    state = {"w": torch.arange(6.0), "b": torch.ones(2)}
    torch.save(state, tmp_path / "a.pt")
    tk.convert(tmp_path / "a.pt", tmp_path / "plain.safetensors", to="safetensors")
    tk.convert(tmp_path / "a.pt", tmp_path / "shards", max_shard_size=24)
    tk.convert(tmp_path / "a.pt", tmp_path / "model.safetensors")
    tk.save(state, tmp_path / "own.safetensors")
    with tk.open(tmp_path / "a.pt") as contents:
        assert "byteorder" in contents.metadata
    for one, other in itertools.permutations(["a.pt", "plain.safetensors", "shards", "model.safetensors", "own.safetensors"], 2):
        found = tk.diff(tmp_path / one, tmp_path / other)
        assert found.same, (one, other, found.metadata)
    torch.save({**state, "epoch": 3}, tmp_path / "b.pt")
    assert [(value.path, value.after) for value in tk.diff(tmp_path / "a.pt", tmp_path / "b.pt").values] == [("epoch", "3")]

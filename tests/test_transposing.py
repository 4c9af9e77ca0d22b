"""Kernels of one framework in the order of another: `transpose=` in `load` and `convert`."""

import io
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorkeep as tk
from tensorkeep.cli import run
from tensorkeep.transposing import axes_between, reshaped, transposed


def _saved(path: Path, **arrays: Any) -> Path:
    tk.save(dict(arrays), path)
    return path


class TestRules:
    def test_patterns_and_axes_turn_tensors_of_as_many_axes(self, tmp_path: Path) -> None:
        """A rule is for tensors of its number of axes; the first that fits counts; None leaves a tensor alone."""
        matrix, kernel, bias = np.arange(6.0).reshape(2, 3), np.arange(24.0).reshape(1, 2, 3, 4), np.arange(3.0)
        file = _saved(tmp_path / "a.safetensors", embed=matrix, dense=matrix, conv=kernel, bias=bias)
        rules = [("embed", None), ("*", (1, 0)), (re.compile("^con"), (2, 3, 1, 0))]
        tree = tk.load(file, transpose=rules)
        assert np.array_equal(tree["embed"], matrix) and np.array_equal(tree["dense"], matrix.T)
        assert np.array_equal(tree["conv"], kernel.transpose(2, 3, 1, 0)) and np.array_equal(tree["bias"], bias)

    def test_patterns_are_of_the_paths_of_either_side(self, tmp_path: Path) -> None:
        """What `rename` moved is found by its old name and by its new one."""
        matrix = np.arange(6.0).reshape(2, 3)
        file = _saved(tmp_path / "a.safetensors", old=matrix)
        for pattern in ("old", "new"):
            assert np.array_equal(tk.load(file, rename={"old": "new"}, transpose={pattern: (1, 0)})["new"], matrix.T)

    def test_a_tied_tensor_stays_tied_and_may_be_turned_in_one_place_alone(self, tmp_path: Path) -> None:
        """An embedding and the head that shares it, of which one framework has one the other way."""
        matrix = np.arange(6.0).reshape(2, 3)
        file = _saved(tmp_path / "a.safetensors", embed=matrix, head=matrix)
        both = tk.load(file, transpose={"*": (1, 0)})
        assert both["embed"] is both["head"] and np.array_equal(both["head"], matrix.T)
        one = tk.load(file, transpose={"head": (1, 0)})
        assert np.array_equal(one["embed"], matrix) and np.array_equal(one["head"], matrix.T)

    @pytest.mark.parametrize(
        ("rules", "error", "words"),
        [
            ("torch->caffe", ValueError, "known are 'torch->keras'"),
            ({"w": (0, 0)}, ValueError, "does not name each axis from 0 to 1 once"),
            ({"w": (0, 2)}, ValueError, "does not name each axis"),
            ({"w": "10"}, TypeError, "whole numbers"),
            ({"w": (True, 0)}, TypeError, "whole numbers"),
            ({5: (1, 0)}, TypeError, "globs"),
            (5, TypeError, "name of a rule set"),
            ({"v": (1, 0)}, ValueError, "does nothing"),
            ({"w": (2, 1, 0)}, ValueError, "does nothing"),
            ("torch->keras", ValueError, "no tensor is called so"),
        ],
    )
    def test_what_is_no_rule_or_does_nothing_is_refused(self, tmp_path: Path, rules: Any, error: type[Exception], words: str) -> None:
        """A pattern with a slip in it would leave a square kernel the wrong way round, and nothing would tell."""
        file = _saved(tmp_path / "a.safetensors", w=np.eye(2))
        with pytest.raises(error, match=re.escape(words)):
            tk.load(file, transpose=rules)
        with pytest.raises(error, match=re.escape(words)):
            tk.convert(file, tmp_path / "b.safetensors", transpose=rules)
        assert not (tmp_path / "b.safetensors").exists()

    def test_packed_elements_are_refused(self, tmp_path: Path) -> None:
        """Two to a byte, they would have to be taken apart."""
        import ml_dtypes

        file = _saved(tmp_path / "a.safetensors", w=np.zeros((2, 4), ml_dtypes.float4_e2m1fn))
        with pytest.raises(tk.UnsupportedError, match=r"w: .*packed"):
            tk.load(file, transpose={"w": (1, 0)})


@given(st.data())
def test_every_permutation_of_every_dtype_is_numpys(data: st.DataObject) -> None:
    """Into a target, without one and by `convert`, whatever the shape, the element and the source."""
    shape = data.draw(st.lists(st.integers(0, 5), max_size=5).map(tuple))
    axes = data.draw(st.permutations(range(len(shape))).map(tuple))
    dtype = data.draw(st.sampled_from(["?", "<i2", ">f4", "<f8", "<c8", "<c16", "<U3"]))
    array = np.arange(int(np.prod(shape))).astype(dtype).reshape(shape)
    wanted = array.transpose(axes)
    blob = tk.dumps({"w": array})
    found = tk.loads(blob, transpose={"w": axes})["w"]
    assert found.dtype == wanted.dtype and found.shape == wanted.shape and np.array_equal(found, wanted)
    target = np.empty(wanted.shape, dtype)
    assert tk.loads(blob, into={"w": target}, transpose={"w": axes})["w"] is target and np.array_equal(target, wanted)


@pytest.mark.parametrize("mmap", [True, False])
def test_large_ones_are_turned_in_pieces_and_told_of(tmp_path: Path, mmap: bool) -> None:
    """Several jobs a tensor, many tensors a batch; progress ends at all bytes."""
    rng = np.random.default_rng(0)
    arrays = {f"w{number}": rng.normal(size=(900, 3, 500)).astype("f4") for number in range(3)} | {"b": np.ones(5)}
    file = _saved(tmp_path / "a.safetensors", **arrays)
    target = {name: np.zeros(array.shape[::-1], array.dtype) for name, array in arrays.items()}
    seen: list[tuple[int, int]] = []
    tk.load(file, into=target, transpose={"w*": (2, 1, 0)}, mmap=mmap, progress=lambda done, whole: seen.append((done, whole)))
    assert all(np.array_equal(target[name], array.T) for name, array in arrays.items())
    assert seen[-1][0] == seen[-1][1]
    tree = tk.load(file, transpose={"w*": (2, 1, 0)}, mmap=mmap)
    assert all(np.array_equal(tree[name], array.T) for name, array in arrays.items())


def test_a_damaged_kernel_changes_nothing(tmp_path: Path) -> None:
    """Digests are those of the bytes in the file, and compared before the first change."""
    file = _saved(tmp_path / "a.safetensors", a=np.ones(3), w=np.arange(6.0).reshape(2, 3))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    target = {"a": np.zeros(3), "w": np.zeros((3, 2))}
    with pytest.raises(tk.CorruptError):
        tk.load(file, into=target, transpose={"w": (1, 0)})
    assert not target["a"].any() and not target["w"].any()


def test_a_file_that_changes_during_the_copy_is_told_with_what_was_written(tmp_path: Path) -> None:
    """What is turned is read, and checked, once more: damage by then is no damage that was there before."""
    file = _saved(tmp_path / "a.safetensors", a=np.ones(40_000), w=np.arange(60_000.0).reshape(200, 300))
    target = {"a": np.zeros(40_000), "w": np.zeros((300, 200))}
    checked: list[int] = []

    def change(done: int, whole: int) -> None:
        checked.append(done)
        if done == whole and len(checked) < 10:
            with file.open("r+b") as there:
                there.seek(-8, 2)
                there.write(b"changed!")

    with pytest.raises((tk.RestoreInterrupted, tk.MismatchError), match=r"changed|damaged"):
        tk.load(file, into=target, transpose={"w": (1, 0)}, mmap=False, progress=change)


def test_convert_writes_them_turned_and_casts_them_too(tmp_path: Path) -> None:
    """Of a model file and of another format, with its checksums compared."""
    kernel = np.arange(24.0, dtype="f4").reshape(1, 2, 3, 4)
    file = _saved(tmp_path / "a.safetensors", w=kernel, b=np.ones(2, "f4"))
    tk.convert(file, tmp_path / "b.npz", transpose={"w": (2, 3, 1, 0)})
    assert np.array_equal(np.load(tmp_path / "b.npz")["w"], kernel.transpose(2, 3, 1, 0))
    done = tk.convert(tmp_path / "b.npz", tmp_path / "c.safetensors", transpose={"w": (3, 2, 0, 1)}, dtype="bf16")
    assert len(done.casts) == 2 and np.array_equal(tk.load(tmp_path / "c.safetensors")["w"].astype("f4"), kernel)


class TestHints:
    def test_the_axes_that_would_do_are_named(self, tmp_path: Path) -> None:
        """Whoever forgot `transpose` is told what to pass, for each tensor and for all."""
        file = _saved(tmp_path / "a.safetensors", **{"d.kernel": np.zeros((7, 5)), "c.kernel": np.zeros((8, 3, 2, 2)), "b": np.zeros(3)})
        target = {"d.kernel": np.zeros((5, 7)), "c.kernel": np.zeros((2, 2, 3, 8)), "b": np.zeros(4)}
        with pytest.raises(tk.MismatchError) as caught:
            tk.load(file, into=target)
        report = caught.value.report
        assert isinstance(report, tk.Report)
        hints = {problem.path: problem.hint for problem in report.problems}
        assert "{'d.kernel': (1, 0)}" in hints["d.kernel"] and "{'c.kernel': (2, 3, 1, 0)}" in hints["c.kernel"] and not hints["b"]
        assert "transpose='torch->flax' fits 2 of 2" in str(caught.value)

    @given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.data())
    def test_axes_lead_from_one_shape_to_the_other(self, shape: list[int], data: st.DataObject) -> None:
        """Of any permutation, some axes are found that make it."""
        wanted = tuple(data.draw(st.permutations(shape)))
        axes = axes_between(tuple(shape), wanted)
        assert axes is not None and tuple(shape[axis] for axis in axes) == wanted
        assert axes_between(tuple(shape), (*wanted[:-1], wanted[-1] + 1)) is None


@pytest.mark.parametrize("axes", list(itertools.permutations(range(2))))
def test_axes_that_a_person_named_are_never_split(axes: tuple[int, int]) -> None:
    """To fit a shape by other means than what was asked for would hide a mistake."""
    with tk.open(io.BytesIO(tk.dumps({"w": np.zeros((4, 6))}))) as contents:
        assert reshaped(transposed(contents.tensors["w"], axes), (4, 2, 3)) is None


def test_the_command_takes_rules_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name, or a pattern and axes; what is neither is a mistake of the caller."""
    file = _saved(tmp_path / "a.safetensors", **{"d.kernel": np.arange(6.0).reshape(2, 3)})
    for number, rules in enumerate(("torch->keras", "*.kernel=1,0")):
        target = tmp_path / f"{number}.safetensors"
        assert run(["convert", str(file), str(target), "--transpose", rules]) == 0
        assert tk.load(target)["d.kernel"].shape == (3, 2)
    for rules in ("torch->caffe", "*.kernel=1,x", "*.kernel=0,0", "=1,0"):
        assert run(["convert", str(file), str(tmp_path / "no.safetensors"), "--transpose", rules]) == 2
        assert "transpose" in capsys.readouterr().err

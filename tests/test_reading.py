"""Reading: what to take, what must fit, lazy tensors, streams, paths; and that a load that fails changes nothing."""

import dataclasses
import gc
import gzip
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import pytest

import tensorkeep as tk
from craft import model_file, safetensors
from same import assert_same_bits
from warned import warned

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX's")

MIB = 1 << 20
SHAPES = {"w": (3, 4), "b": (4,)}


def _nested() -> dict[str, Any]:
    rng = np.random.default_rng(7)
    return {
        "encoder": {
            "layers": [{"weight": rng.standard_normal((3, 4)), "bias": np.full(4, float(number))} for number in range(2)],
            "scale": 0.5,
        },
        "head": {"weight": np.arange(6, dtype=np.int32).reshape(2, 3)},
        "epoch": 3,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of a nested state."""
    tk.save(_nested(), tmp_path / "nested.safetensors")
    return tmp_path / "nested.safetensors"


def _damage(path: Path, at: int) -> None:
    """Flip a bit, `at` bytes behind the header."""
    data = bytearray(path.read_bytes())
    data[8 + int.from_bytes(data[:8], "little") + at] ^= 1
    path.write_bytes(data)


def _sparse(path: Path) -> None:
    """A file by others with a tensor of 1 TiB that is one hole, and a small one behind it: nobody can read it all."""
    rows, columns = 1 << 28, 1 << 10
    big = rows * columns * 4
    entries = {
        "hole": {"dtype": "F32", "shape": [rows, columns], "data_offsets": [0, big]},
        "small": {"dtype": "U8", "shape": [3], "data_offsets": [big, big + 3]},
    }
    head = safetensors(entries)
    path.write_bytes(head)
    try:
        with path.open("r+b") as file:
            file.truncate(len(head) + big + 3)
            file.seek(len(head) + big)
            file.write(b"abc")
            file.seek(len(head) + 5 * columns * 4)
            file.write(np.arange(columns, dtype="<f4").tobytes())
    except OSError as error:
        pytest.skip(f"no file of 1 TiB with a hole can be had here: {error}")


class TestOnly:
    def test_a_glob_whose_star_crosses_dots(self, path: Path) -> None:
        """`encoder.*` takes every leaf below, plain values too; the rest is not there at all."""
        whole = _nested()
        assert_same_bits(tk.load(path, only="encoder.*"), {"encoder": whole["encoder"]})
        assert_same_bits(tk.load(path, only="*weight")["head"], whole["head"])
        assert tk.load(path, only="*.scale") == {"encoder": {"scale": 0.5}}
        assert tk.load(path, only="epoch") == {"epoch": 3}

    def test_a_callable_sees_every_path_once_by_its_name(self, path: Path) -> None:
        """The callable gets the file's paths, of tensors and of values."""
        seen: list[str] = []

        def wanted(name: str) -> bool:
            seen.append(name)
            return name == "encoder.layers.1.bias"

        assert tk.load(path, only=wanted)["encoder"]["layers"][0]["bias"].tolist() == [1.0] * 4
        layers = [f"encoder.layers.{number}.{name}" for number in range(2) for name in ("weight", "bias")]
        assert seen == [*layers, "encoder.scale", "head.weight", "epoch"]

    def test_a_glob_means_what_a_shell_means(self, path: Path) -> None:
        """`?` and `[01]` work, and case counts."""
        assert len(tk.load(path, only="encoder.layers.[01].bias")["encoder"]["layers"]) == 2
        assert tk.load(path, only="epoc?") == {"epoch": 3}
        assert tk.load(path, only="EPOCH") == {}

    @pytest.mark.parametrize(("state", "nothing"), [({"a": 1}, {}), ([1, 2], []), ((), ()), (np.ones(2), None)])
    def test_a_pattern_that_hits_nothing_gives_nothing(self, state: object, nothing: object) -> None:
        """No leaf, no error: an empty container of the root's kind."""
        assert tk.loads(tk.dumps(state), only="no such path") == nothing

    def test_only_that_takes_nothing_for_a_target_is_an_error(self, path: Path) -> None:
        """A slip of the pen would leave a model as it was made, and nobody would know."""
        with pytest.raises(ValueError, match=r"only='encodr\.\*' takes nothing"):
            tk.load(path, into={"epoch": 0}, only="encodr.*")
        assert tk.load(path, into={"epoch": 0}, only="epoch")["epoch"] == 3

    def test_what_it_leaves_out_is_never_missing(self, path: Path) -> None:
        """With a target, leaves out of the selection keep what they have, whether the file has them or not."""
        target = _nested()
        target["head"]["bias"] = np.full(2, 9.0)
        for layer in target["encoder"]["layers"]:
            layer["bias"][...] = -1
        head = target["head"]["weight"]
        head[...] = -1
        restored = tk.load(path, into=target, only="encoder.*")
        assert [layer["bias"][0] for layer in target["encoder"]["layers"]] == [0.0, 1.0]
        assert restored["head"]["weight"] is head and (head == -1).all()
        assert restored["head"]["bias"].tolist() == [9.0, 9.0]
        with pytest.raises(tk.MismatchError) as caught:
            tk.load(path, into=target, only="*bias")
        assert caught.value.report.missing == ["head.bias"]

    @pytest.mark.parametrize("mmap", [None, True, False])
    def test_damage_outside_the_selection_is_not_met(self, tmp_path: Path, mmap: bool | None) -> None:
        """Only the chunks of what is selected are read and checked; with it, damage is found."""
        state = {"a": np.zeros(MIB // 4), "b": np.ones(MIB // 4), "c": np.full(3, 2.0)}
        tk.save(state, tmp_path / "s.safetensors")
        _damage(tmp_path / "s.safetensors", 5)
        assert_same_bits(tk.load(tmp_path / "s.safetensors", only="[bc]", mmap=mmap), {"b": state["b"], "c": state["c"]})
        target = {"a": np.full(MIB // 4, 7.0), "b": np.zeros(MIB // 4)}
        tk.load(tmp_path / "s.safetensors", only="b", into=target, mmap=mmap)
        assert (target["b"] == 1).all() and (target["a"] == 7).all()
        for only in (None, "[ab]"):
            with pytest.raises(tk.CorruptError, match=r"^a "):
                tk.load(tmp_path / "s.safetensors", only=only, mmap=mmap)

    @pytest.mark.parametrize("mmap", [None, True, False])
    def test_only_its_bytes_are_read(self, tmp_path: Path, mmap: bool | None) -> None:
        """Three bytes behind a hole of 1 TiB are there at once, in memory of their own too, and in place."""
        _sparse(tmp_path / "sparse.safetensors")
        assert tk.load(tmp_path / "sparse.safetensors", only="small", mmap=mmap)["small"].tobytes() == b"abc"
        small = np.zeros(3, np.uint8)
        tk.load(tmp_path / "sparse.safetensors", only="small", into={"small": small}, mmap=mmap)
        assert small.tobytes() == b"abc"


class TestRename:
    def test_a_mapping_of_paths(self, path: Path) -> None:
        """Exact paths move, values too; what is not named stays."""
        state = tk.load(path, rename={"epoch": "step", "head.weight": "head.w"})
        assert state["step"] == 3 and "epoch" not in state
        assert list(state["head"]) == ["w"]
        assert_same_bits(state["encoder"], _nested()["encoder"])

    def test_a_path_that_nothing_has_changes_nothing(self, path: Path) -> None:
        """A rule that hits nothing is no error."""
        assert_same_bits(tk.load(path, rename={"absent": "x", "absent.*": "y.*"}), _nested())

    @pytest.mark.parametrize(
        "rename",
        [
            {"encoder.*": "body.*"},
            [("encoder.*", "body.*")],
            (("nothing.*", "*"), ("encoder.*", "body.*"), ("*", "never.*")),
            {re.compile(r"^encoder\."): "body."},
            [(re.compile(r"^(enc)oder\."), "body.")],
            lambda name: name.replace("encoder", "body"),
        ],
    )
    def test_patterns_and_callables(self, path: Path, rename: Any) -> None:
        """A glob, a regular expression or a callable moves a whole branch, its lists and keys kept; the first rule that fits counts."""
        state = tk.load(path, rename=rename, only="encoder*")
        assert_same_bits(state, {"body": _nested()["encoder"]})

    def test_regular_expressions_may_use_groups(self, path: Path) -> None:
        """What a group found stands in the new path."""
        target = {"encoder": {"w0": np.zeros((3, 4)), "w1": np.zeros((3, 4))}}
        rename = [(re.compile(r"layers\.(\d+)\.weight"), r"w\1")]
        tk.load(path, into=target, rename=rename)
        assert_same_bits(target["encoder"]["w1"], _nested()["encoder"]["layers"][1]["weight"])

    def test_two_paths_may_swap(self, path: Path) -> None:
        """A swap is no collision, among leaves and among branches."""
        whole = _nested()
        swapped = tk.load(path, rename={"epoch": "encoder.scale", "encoder.scale": "epoch"})
        assert (swapped["epoch"], swapped["encoder"]["scale"]) == (0.5, 3)
        branches = tk.load(path, rename={"encoder.*": "head.*", "head.*": "encoder.*"})
        assert_same_bits(branches["encoder"], whole["head"])
        assert_same_bits(branches["head"], whole["encoder"])

    @pytest.mark.parametrize(
        ("rename", "names"),
        [
            ({"epoch": "encoder"}, ["epoch", "encoder"]),
            ({"encoder.scale": "epoch"}, ["encoder.scale", "epoch"]),
            (lambda name: "same", ["same"]),
            ([("*bias", "*weight")], ["layers.0.bias", "layers.0.weight"]),
            ({"encoder.layers.0.bias": "encoder.layers.1.weight"}, ["layers.0.bias", "layers.1.weight"]),
        ],
    )
    def test_collisions_are_refused(self, path: Path, rename: Any, names: list[str]) -> None:
        """Two leaves under one path: an error that names both, and nothing of a target is changed."""
        target = _nested()
        target["head"]["weight"][...] = 0
        for into in (None, target):
            with pytest.raises(ValueError, match=r"rename=.*" + ".*".join(map(re.escape, names))):
                tk.load(path, rename=rename, into=into)
        assert not target["head"]["weight"].any()

    def test_renaming_goes_into_lists(self, path: Path) -> None:
        """A key of a dict in a list moves within it; items of a list may swap."""
        state = tk.load(path, rename={"encoder.layers.*.bias": "encoder.layers.*.b"})
        assert [list(layer) for layer in state["encoder"]["layers"]] == [["weight", "b"], ["weight", "b"]]
        swapped = tk.load(path, rename={"encoder.layers.0.*": "encoder.layers.1.*", "encoder.layers.1.*": "encoder.layers.0.*"})
        assert_same_bits(swapped["encoder"]["layers"], _nested()["encoder"]["layers"][::-1])
        with pytest.raises(ValueError, match="no place"):
            tk.loads(tk.dumps((1, 2)), rename={"0": "5"})

    def test_a_leaf_may_move_into_a_branch_that_moves(self, path: Path) -> None:
        """The order in which leaves stand in the file does not count."""
        state = tk.load(path, rename={"encoder.*": "net.*", "epoch": "net.epoch"})
        assert list(state["net"]) == ["layers", "scale", "epoch"]
        state = tk.load(path, rename={"head.weight": "body.w", "encoder.*": "body.*"})
        assert list(state["body"]) == ["layers", "scale", "w"]

    def test_many_paths_are_renamed_in_no_time(self) -> None:
        """40,000 paths lose their prefix in less time than it takes to look through them for each of them."""
        data = tk.dumps({f"module.layer.{number}": number for number in range(40_000)})
        begun = time.process_time()
        state = tk.loads(data, rename={"module.*": "*"})
        assert time.process_time() - begun < 10  # measured: 0.3 s; 8,000 took 2.3 s when all names were looked through for each
        assert state["layer.39999"] == 39_999

    def test_an_empty_path_is_refused(self, path: Path) -> None:
        """Nothing is called nothing."""
        with pytest.raises(ValueError, match="empty path"):
            tk.load(path, rename={"epoch": ""})

    def test_the_report_tells_what_was_renamed(self, path: Path) -> None:
        """Each (old, new) stands in the report of a load that did not fit in whole."""
        with pytest.warns(tk.TensorkeepWarning) as caught:
            tk.load(path, into={"step": 0, "more": 1}, rename={"epoch": "step"}, strict=False)
        assert warned(caught)[0].message.report.renamed == (("epoch", "step"),)

    @pytest.mark.parametrize(
        "rename", [{"encoder.*": "enc.*"}, {"encoder.w": "enc.w"}, [("encoder.*", "enc.*"), ("head.*", "top.*")], lambda n: n[:3] + n[7:]]
    )
    def test_what_is_selected_under_another_name_may_be_missing(self, tmp_path: Path, rename: Any) -> None:
        """`only` speaks of the file's paths: a leaf that they would have come from, and did not, is missing."""
        tk.save({"encoder": {"w": np.ones(2)}, "head": {"w": np.ones(3)}}, tmp_path / "s.safetensors")
        target = {"enc": {"w": np.zeros(2), "b": np.zeros(2)}}
        if rename != {"encoder.w": "enc.w"}:
            with pytest.raises(tk.MismatchError) as caught:
                tk.load(tmp_path / "s.safetensors", only="encoder.*", rename=rename, into=target)
            assert caught.value.report.missing == ["enc.b"]
            del target["enc"]["b"]
        tk.load(tmp_path / "s.safetensors", only="encoder.*", rename=rename, into=target)
        assert target["enc"]["w"].all()

    @pytest.mark.parametrize("rename", [{"head.*": "top.*"}, {"head.w": "top.w"}, lambda name: name.replace("head", "top")])
    @pytest.mark.parametrize("only", ["encoder.*", lambda name: not name.startswith("head.")])
    def test_what_is_left_out_is_not_missing_under_another_name(self, tmp_path: Path, rename: Any, only: Any) -> None:
        """What `only` leaves out is not missing where `rename` would have put it."""
        tk.save({"encoder": {"w": np.ones(2)}, "head": {"w": np.ones(3)}}, tmp_path / "s.safetensors")
        target = {"encoder": {"w": np.zeros(2)}, "top": {"w": np.zeros(3)}}
        tk.load(tmp_path / "s.safetensors", only=only, rename=rename, into=target)
        assert target["encoder"]["w"].all() and not target["top"]["w"].any()


@dataclasses.dataclass
class Net:
    w: Any = None
    bias: Any = None
    turned: Any = None
    half: Any = None


@dataclasses.dataclass
class Other(Net):
    biaz: Any = None


Pair = namedtuple("Pair", "left right")


class TestStrict:
    FOUND: ClassVar = {"w": np.ones((2, 2)), "turned": np.ones((5, 3)), "half": np.ones(3, np.float32)}

    def _file(self, tmp_path: Path) -> Path:
        wrong = Other(**self.FOUND, biaz=np.ones(4))
        del wrong.bias
        wrong.__class__ = dataclasses.make_dataclass("Net", [(name, Any) for name in ("w", "turned", "half", "biaz")])
        tk.save({"net": wrong, "lists": {"transformer.a": np.ones(1), "transformer.b": np.ones(1)}}, tmp_path / "net.safetensors")
        return tmp_path / "net.safetensors"

    def _target(self) -> dict[str, Any]:
        return {"net": Net(np.zeros((2, 3)), np.zeros(4), np.zeros((3, 5)), np.zeros(3, np.float16)), "lists": {}}

    def test_all_problems_stand_in_one_error_and_nothing_is_changed(self, tmp_path: Path) -> None:
        """Missing, unexpected, shape and dtype, each by path with both sides; hints for the close name, the transposed and the cast."""
        target = self._target()
        before = dict(vars(target["net"]))
        with pytest.raises(tk.MismatchError, match=r"Nothing was changed") as caught:
            tk.load(self._file(tmp_path), into=target)
        report = caught.value.report
        problems = {(problem.kind, problem.path): problem for problem in report.problems}
        assert set(problems) == {
            ("missing", "net.bias"),
            ("unexpected", "net.biaz"),
            ("shape", "net.w"),
            ("shape", "net.turned"),
            ("dtype", "net.half"),
        }
        assert problems["missing", "net.bias"].hint == "did you mean net.biaz?"
        assert (problems["shape", "net.w"].found, problems["shape", "net.w"].wanted) == ("[2, 2]", "[2, 3]")
        assert problems["shape", "net.turned"].hint.startswith("looks transposed") and not problems["shape", "net.w"].hint
        assert (problems["dtype", "net.half"].found, problems["dtype", "net.half"].wanted) == ("F32", "F16")
        assert "cast=True" in problems["dtype", "net.half"].hint
        assert (report.missing, report.unexpected) == (["net.bias"], ["net.biaz"])
        for path in ("net.bias", "net.biaz", "net.w", "net.turned", "net.half", "looks transposed", str(tmp_path)):
            assert path in str(caught.value)
        assert vars(target["net"]) == before
        assert not any(array.any() for array in before.values())

    def test_not_strict_takes_what_fits_and_warns_once(self, tmp_path: Path) -> None:
        """One warning at the caller's line with the same report as data; what fits is applied, what does not stays."""
        target = {"net": Net(np.zeros((2, 2)), np.full(4, 7.0), np.zeros((3, 5)), np.zeros(3, np.float32)), "more": 5}
        with pytest.warns(tk.TensorkeepWarning, match="fits only in part") as caught:
            restored = tk.load(self._file(tmp_path), into=target, strict=False)
        (warning,) = warned(caught)
        assert warning.filename == __file__
        report = warning.message.report
        assert isinstance(report, tk.Report)
        assert {(problem.kind, problem.path) for problem in report.problems} == {
            ("missing", "net.bias"),
            ("unexpected", "net.biaz"),
            ("shape", "net.turned"),
            ("missing", "more"),
        }
        assert restored["net"] is target["net"]
        assert target["net"].w.all() and target["net"].half.all()
        assert (target["net"].bias == 7).all() and not target["net"].turned.any()
        assert restored["more"] == 5
        assert isinstance(warning.message, UserWarning)

    def test_not_strict_is_silent_where_all_fits(self, path: Path) -> None:
        """No problem, no warning."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tk.load(path, into=_nested(), strict=False)

    @pytest.mark.parametrize(
        ("found", "wanted", "hint"),
        [
            (["module.a", "module.b"], ["a", "b"], "rename={'module.*': '*'}"),
            (["a", "b"], ["_orig_mod.a", "_orig_mod.b"], "rename={'*': '_orig_mod.*'}"),
            (["fc1.wieght"], ["fc1.weight"], "did you mean fc1.wieght?"),
        ],
    )
    def test_names_of_a_plain_dict_get_hints_too(self, found: list[str], wanted: list[str], hint: str) -> None:
        """Other keys of a dict are no problem by themselves, but may be what is missing; the rename that is named mends it."""
        data = tk.dumps({name: np.ones(2) for name in found})
        target = {name: np.zeros(2) for name in wanted}
        with pytest.raises(tk.MismatchError) as caught:
            tk.loads(data, into=target)
        assert hint in str(caught.value)
        assert caught.value.report.unexpected == []
        if hint.startswith("rename="):
            tk.loads(data, into=target, rename=eval(hint.removeprefix("rename=")))
            assert all(array.all() for array in target.values())

    def test_other_kinds_of_values(self) -> None:
        """A number where an array is wanted, a list where a dict is: each is told by its path."""
        data = tk.dumps({"a": 1, "b": [1], "c": np.ones(1), "d": {"x": 1}})
        with pytest.raises(tk.MismatchError) as caught:
            tk.loads(data, into={"a": np.zeros(1), "b": {"x": 1}, "c": 2, "d": [1]})
        assert {(problem.kind, problem.path) for problem in caught.value.report.problems} == {
            ("kind", "a"),
            ("kind", "b"),
            ("missing", "d.0"),
        }

    def test_a_long_report_is_cut_and_its_data_are_not(self) -> None:
        """Hundreds of problems make one readable message; the report has them all."""
        with pytest.raises(tk.MismatchError, match=r"and 280 more") as caught:
            tk.loads(tk.dumps({}), into={str(number): np.zeros(1) for number in range(300)})
        assert len(caught.value.report.missing) == 300
        assert len(str(caught.value).splitlines()) < 30


def _name(kind: Any) -> str:
    """What the dtype of an array prints as."""
    with tk.open(io.BytesIO(tk.dumps({"x": np.zeros(1, kind)}))) as contents:
        return str(contents.tensors["x"].dtype)


class TestCast:
    @pytest.mark.parametrize(
        ("source", "target"),
        [
            (np.float32, np.float16),
            (np.float64, np.float32),
            (np.float16, np.float64),
            (np.float32, ml_dtypes.bfloat16),
            (ml_dtypes.bfloat16, np.float32),
            (np.float64, ml_dtypes.float8_e4m3fn),
            (np.int32, np.float64),
            (np.float32, np.complex64),
        ],
    )
    def test_converts_only_when_asked(self, source: type, target: type) -> None:
        """Refused without `cast`; with it, rounded to nearest even in place, and the report counts what changed."""
        values = np.array([0, 1, -2.5, 100, 1 / 3]).astype(source)
        data = tk.dumps({"w": values})
        into = {"w": np.zeros(5, target)}
        array = into["w"]
        with pytest.raises(tk.MismatchError, match="cast=True converts it"):
            tk.loads(data, into=into)
        assert not array.astype(complex).any()
        with pytest.warns(tk.TensorkeepWarning, match="was converted") as caught:
            assert tk.loads(data, into=into, cast=True)["w"] is array
        wanted = values.astype(target)
        assert_same_bits(array, wanted)
        [cast] = warned(caught)[0].message.report.casts
        assert (cast.path, cast.count) == ("w", 5)
        assert cast.changed == np.count_nonzero(wanted.real.astype(source) != values)
        assert (cast.source, cast.target) == (_name(source), _name(target))

    def test_rounds_once(self) -> None:
        """float64 into bfloat16 is not rounded to float32 on the way: the middle, and one bit more, goes up."""
        values = np.array([1 + 2**-8 + 2**-40, 1 + 2**-8, 1 + 3 * 2**-8])
        into = {"w": np.zeros(3, ml_dtypes.bfloat16)}
        with pytest.warns(tk.TensorkeepWarning):
            tk.loads(tk.dumps({"w": values}), into=into, cast=True)
        assert into["w"].astype(float).tolist() == [1 + 2**-7, 1.0, 1 + 2**-6]

    @pytest.mark.parametrize(
        ("source", "target"), [(np.float32, np.int32), (np.complex64, np.float32), ("U3", np.float32), ("M8[s]", "i8")]
    )
    def test_never_drops_a_part_of_a_number(self, source: Any, target: Any) -> None:
        """A float into an integer, a complex number into a real one, a text into a number: refused with `cast` too."""
        with pytest.raises(tk.MismatchError, match="does not convert"):
            tk.loads(tk.dumps({"w": np.zeros(2, source)}), into={"w": np.ones(2, target)}, cast=True)

    def test_same_dtypes_are_not_converted(self) -> None:
        """`cast=True` is silent where nothing is to be converted."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tk.loads(tk.dumps({"w": np.ones(2)}), into={"w": np.zeros(2)}, cast=True)


class TestInto:
    def test_arrays_keep_their_identity_and_containers_are_not_changed(self, tmp_path: Path) -> None:
        """Arrays anywhere in nested containers are filled in place; plain values are new; the caller's containers stay as they are."""
        make: Callable[[float], dict[str, Any]] = lambda value: {  # noqa: E731
            "list": [np.full(3, value), (np.full((), value), value)],
            "ordered": OrderedDict(z=np.full((2, 2), value), a=str(value)),
            "deque": deque([np.full(1, value)], maxlen=3),
            "pair": Pair(np.full(2, value), int(value)),
            "scalar": np.float32(value),
            7: {None: np.full(1, value)},
            "empty": np.zeros((0, 3)),
        }
        tk.save(make(5.0), tmp_path / "s.safetensors")
        target = make(1.0)
        arrays = {id(array): array for array in _arrays(target)}
        restored = tk.load(tmp_path / "s.safetensors", into=target)
        assert_same_bits(restored, make(5.0))
        assert [id(array) for array in _arrays(restored)] == list(arrays)
        assert target["ordered"]["a"] == "1.0" and target["pair"].right == 1 and target["scalar"] == 1.0
        assert restored is not target and restored["list"] is not target["list"]

    def test_a_bare_array(self, tmp_path: Path) -> None:
        """The array itself is given back, filled."""
        array = np.zeros((2, 3))
        assert tk.loads(tk.dumps(np.ones((2, 3))), into=array) is array
        assert array.all()

    def test_whatever_else_the_file_has_comes_too(self) -> None:
        """Keys and items that the target lacks are in the answer, as arrays of their own."""
        data = tk.dumps({"a": np.ones(2), "b": np.full(2, 2.0), "n": 1, "l": [np.ones(1), 2]})
        restored = tk.loads(data, into={"a": np.zeros(2), "l": [np.zeros(1)]})
        assert_same_bits(restored, {"a": np.ones(2), "l": [np.ones(1), 2], "b": np.full(2, 2.0), "n": 1})
        restored["b"][:] = 0  # it may be written to

    @pytest.mark.parametrize("mmap", [None, True, False])
    @pytest.mark.parametrize("how", ["fortran", "strided", "reversed", "part", "swapped", "unaligned"])
    def test_arrays_of_any_memory_are_filled(self, tmp_path: Path, how: str, mmap: bool | None) -> None:
        """Transposed, strided, reversed, byte-swapped, unaligned, and a part of another array, which keeps the rest."""
        values = np.random.default_rng(0).standard_normal((40, 30))
        tk.save({"w": values}, tmp_path / "s.safetensors")
        around = np.zeros((80, 60))
        target = {
            "fortran": np.zeros((40, 30), order="F"),
            "strided": around[::2, ::2],
            "reversed": np.zeros((40, 30))[::-1, ::-1],
            "part": around[10:50, 5:35],
            "swapped": np.zeros((40, 30), ">f8"),
            "unaligned": np.ndarray((40, 30), "<f8", bytearray(40 * 30 * 8 + 1), 1),
        }[how]
        assert tk.load(tmp_path / "s.safetensors", into={"w": target}, mmap=mmap)["w"] is target
        assert np.array_equal(target, values)
        if how in ("strided", "part"):
            assert np.count_nonzero(around) == values.size

    def test_a_flat_file_by_others_fits_a_nested_target(self, tmp_path: Path) -> None:
        """`layers.0.w` of a flat file goes where the target has layers, 0, w."""
        arrays = {"layers.0.w": np.ones(2, np.float32), "layers.1.w": np.full(2, 2, np.float32)}
        at, entries = 0, {}
        for name, array in arrays.items():
            entries[name] = {"dtype": "F32", "shape": [2], "data_offsets": [at, at + 8]}
            at += array.nbytes
        (tmp_path / "flat.safetensors").write_bytes(safetensors(entries, b"".join(array.tobytes() for array in arrays.values())))
        target = {"layers": [{"w": np.zeros(2, np.float32)}, {"w": np.zeros(2, np.float32)}]}
        restored = tk.load(tmp_path / "flat.safetensors", into=target)
        assert [layer["w"].tolist() for layer in target["layers"]] == [[1, 1], [2, 2]]
        assert list(restored) == ["layers"]

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"framework": "keras"}, ValueError),
            ({"only": 5}, TypeError),
            ({"only": lambda path: 1 / 0}, ZeroDivisionError),
            ({"rename": lambda path: 1 / 0}, ZeroDivisionError),
            ({"rename": lambda path: None}, TypeError),
            ({"rename": {"a*": "b"}}, ValueError),
            ({"types": (5,)}, TypeError),
            ({"limits": tk.Limits(header_bytes=10)}, tk.FormatError),
        ],
    )
    def test_a_load_that_fails_leaves_everything_as_it_was(self, path: Path, options: dict[str, Any], error: type[Exception]) -> None:
        """Whatever raises, no byte of the target is another."""
        target = _nested()
        for array in _arrays(target):
            array[...] = 9
        with pytest.raises(error):
            tk.load(path, into=target, **options)
        assert all((array == 9).all() for array in _arrays(target))

    def test_one_problem_among_many_arrays_changes_none(self, path: Path) -> None:
        """All or nothing: the last leaf does not fit, so the first is not filled."""
        target = _nested()
        for array in _arrays(target):
            array[...] = 9
        target["head"]["weight"] = np.full((3, 2), 9, np.int32)
        with pytest.raises(tk.MismatchError, match="transposed"):
            tk.load(path, into=target)
        assert all((array == 9).all() for array in _arrays(target))

    def test_progress_goes_up_to_the_whole(self, tmp_path: Path) -> None:
        """Bytes done never pass the whole, and end there; saving tells it too."""
        state = {"w": np.zeros((40, MIB // 80)), "v": np.ones(10)}
        for act in (
            lambda progress: tk.save(state, tmp_path / "p.safetensors", progress=progress),
            lambda progress: tk.load(tmp_path / "p.safetensors", progress=progress),
            lambda progress: tk.verify(tmp_path / "p.safetensors", progress=progress),
        ):
            seen: list[tuple[int, int]] = []
            act(lambda done, whole, seen=seen: seen.append((done, whole)))
            assert seen == sorted(seen) and seen[-1][0] == seen[-1][1] > 0


def _arrays(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        for child in value.values():
            yield from _arrays(child)
    elif isinstance(value, (list, tuple, deque)):
        for child in value:
            yield from _arrays(child)


LARGE = np.arange(300_000.0).reshape(3000, 100)  # three chunks; row 1310 lies in the first two
INDEXES: list[Any] = [
    0,
    -1,
    2999,
    np.int64(5),
    slice(None),
    slice(10, 20),
    slice(-20, -10),
    slice(10, 2000, 7),
    slice(2000, 10, -7),
    slice(None, None, -1),
    slice(5, 2),
    slice(2990, 10_000),
    ...,
    None,
    (),
    (7, 3),
    (slice(2, 9), 4),
    (slice(2, 9), slice(90, None, 3)),
    (slice(9, 2, -2), -1),
    (..., 5),
    (3, ...),
    (3, None),
    (None, 3),
    (slice(2, 4), None, 1),
    [2, 900, -1],
    ([2, 900], [3, 4]),
    (slice(2, 5), [1, 2]),
    (4, [1, 2]),
    np.arange(3000) % 1000 == 0,
    (0, True),
]


class TestLazyTensors:
    @pytest.fixture
    def large(self, tmp_path: Path) -> Path:
        """A file of one tensor of three chunks, and a small one."""
        tk.save({"large": LARGE, "small": np.arange(24).reshape(2, 3, 4)}, tmp_path / "large.safetensors")
        return tmp_path / "large.safetensors"

    @pytest.mark.parametrize("verify", [True, False])
    @pytest.mark.parametrize("index", INDEXES, ids=lambda index: "mask" if isinstance(index, np.ndarray) else repr(index))
    def test_an_index_gives_what_numpy_gives(self, large: Path, index: Any, verify: bool) -> None:
        """Ints, ranges, steps, backwards, ellipses, several axes, lists and masks: the same values, shape and type."""
        with tk.open(large, verify=verify) as contents:
            found = contents.tensors["large"][index]
        wanted = LARGE[index]
        assert type(found) is type(wanted)
        assert_same_bits(np.asarray(found), np.asarray(wanted))

    def test_an_int_beside_a_list_is_one_of_the_lists_as_in_numpy(self, large: Path) -> None:
        """NumPy moves the axes of lists that a slice parts to the front, an int among them."""
        small = np.arange(24).reshape(2, 3, 4)
        with tk.open(large) as contents:
            assert_same_bits(contents.tensors["small"][1, :, [0, 2]], small[1, :, [0, 2]])

    @pytest.mark.parametrize("index", [3000, -3001, (0, 100), (0, 0, 0), "w", 1.5, (0, "w")], ids=repr)
    def test_what_is_out_of_range_is_an_index_error(self, large: Path, index: Any) -> None:
        """As for arrays; a row out of range names the tensor."""
        with tk.open(large) as contents, pytest.raises(IndexError) as caught:
            contents.tensors["large"][index]
        assert not isinstance(index, int) or "large" in str(caught.value)

    @pytest.mark.parametrize(
        "array",
        [
            np.array(5.0),
            np.arange(12, dtype=">i4").reshape(3, 4),
            np.array([["a", "bcd"], ["é", ""]]),
            np.arange(6).astype(complex).reshape(3, 2),
            np.zeros((0, 3)),
            np.zeros((3, 0)),
            np.array([(1, 2.5), (3, 4.5)], [("a", "i4"), ("b", "f8")]),
            np.array(["2020-01-01", "NaT"], "M8[D]"),
            np.arange(8).reshape(2, 4).astype(ml_dtypes.float4_e2m1fn),
            np.arange(6).reshape(3, 2).astype(ml_dtypes.bfloat16),
            np.array([True, False, True]),
        ],
        ids=lambda array: f"{array.dtype}{list(array.shape)}",
    )
    def test_every_dtype_can_be_sliced(self, array: np.ndarray) -> None:
        """Whole, by rows and by row, with dtype, shape and size known before."""
        with tk.open(io.BytesIO(tk.dumps({"x": array}))) as contents:
            lazy = contents.tensors["x"]
            assert lazy.shape == array.shape
            assert_same_bits(lazy.numpy(), array)
            assert_same_bits(lazy[...], array)
            if array.ndim:
                assert len(lazy) == len(array)
                assert_same_bits(lazy[1:], array[1:])
                assert_same_bits(list(lazy), list(array))
            if len(array.shape) > 1 and array.shape[0]:
                assert_same_bits(lazy[-1], array[-1])

    def test_rows_of_packed_tensors_must_be_whole_bytes(self) -> None:
        """Two 4-bit floats share a byte: an odd start is refused with what to do."""
        array = np.arange(6).astype(ml_dtypes.float4_e2m1fn)
        with tk.open(io.BytesIO(tk.dumps({"x": array}))) as contents:
            lazy = contents.tensors["x"]
            assert_same_bits(lazy[2:4], array[2:4])
            for index in (slice(1, 3), slice(0, 3), 2):
                with pytest.raises(IndexError, match="whole bytes"):
                    lazy[index]

    def test_a_slice_checks_its_own_chunks_and_no_others(self, large: Path) -> None:
        """Damage in the second chunk is met by rows of it alone, one that only begins or ends there included."""
        _damage(large, 3 * MIB // 2)
        with tk.open(large) as contents:
            lazy = contents.tensors["large"]
            assert np.array_equal(lazy[:1310], LARGE[:1310])
            assert np.array_equal(lazy[2622:], LARGE[2622:])
            for index in (1310, 2000, slice(1300, 1320), slice(2621, 2622), slice(None)):
                with pytest.raises(tk.CorruptError, match=r"^large .*is damaged") as caught:
                    lazy[index]
                assert caught.value.span[1] - caught.value.span[0] == MIB
            assert np.array_equal(lazy[0], LARGE[0])
            assert contents.tensors["small"].numpy().sum() == 276
        with tk.open(large, verify=False) as contents:
            assert np.array_equal(contents.tensors["large"][1310], LARGE[1310])
            assert not np.array_equal(contents.tensors["large"].numpy(), LARGE)

    def test_without_checks_only_the_rows_are_read(self, tmp_path: Path) -> None:
        """Rows of a tensor of 1 TiB come at once."""
        _sparse(tmp_path / "sparse.safetensors")
        for verify in (True, False):  # there is nothing to check against, either way
            with tk.open(tmp_path / "sparse.safetensors", verify=verify) as contents:
                hole = contents.tensors["hole"]
                assert hole.nbytes == 1 << 40 and hole.shape == (1 << 28, 1 << 10)
                assert hole[5].tolist() == list(range(1 << 10))
                assert not hole[1 << 27 : (1 << 27) + 3].any()
                assert hole[4:7, 3].tolist() == [0, 3, 0]

    def test_names_dtypes_and_reprs_read_nothing(self, large: Path) -> None:
        """All that the header says is there, though every tensor is damaged."""
        for at in (0, MIB, 2 * MIB, LARGE.nbytes):
            _damage(large, at)
        with tk.open(large) as contents:
            assert "large.safetensors" in repr(contents) and "2 tensors" in repr(contents)
            assert {name: (str(lazy.dtype), lazy.shape, lazy.nbytes) for name, lazy in contents.tensors.items()} == {
                "large": ("F64", (3000, 100), LARGE.nbytes),
                "small": ("I64", (2, 3, 4), 192),
            }
            assert repr(contents.tensors["large"]) == "LazyTensor('large', F64[3000,100])"
            assert len(contents.tensors["large"]) == 3000
            for read in (lambda lazy: lazy.numpy(), np.asarray, lambda lazy: lazy.tobytes(), lambda lazy: lazy[0], np.from_dlpack, list):
                for lazy in contents.tensors.values():
                    with pytest.raises(tk.CorruptError):
                        read(lazy)

    def test_a_name_that_is_not_there_is_answered_with_one_that_is(self, large: Path) -> None:
        """A KeyError with the name that was meant."""
        with tk.open(large) as contents, pytest.raises(KeyError, match="did you mean 'large'"):
            contents.tensors["larg"]

    def test_a_tied_tensor_is_found_by_each_of_its_paths(self, tmp_path: Path) -> None:
        """It is listed once; what holds the file open is let go of without the garbage collector."""
        shared = np.ones(3)
        tk.save({"embed": shared, "head": [{"w": shared}], "other": np.zeros(2)}, tmp_path / "tied.safetensors")
        with tk.open(tmp_path / "tied.safetensors") as f:
            assert f.tensors["head.0.w"] is f.tensors["embed"]
            assert sorted(f.tensors) == ["embed", "other"]
            for wrong, meant in (("head.1.w", "head.0.w"), ("othr", "other")):
                with pytest.raises(KeyError, match=f"did you mean '{meant}'"):
                    f.tensors[wrong]
        storage = weakref.ref(f.storage)
        gc.disable()
        try:
            del f
            assert storage() is None
        finally:
            gc.enable()

    def test_array_protocol(self, large: Path) -> None:
        """`np.asarray`, `np.array`, a dtype, and `copy` as NumPy means them."""
        with tk.open(large) as contents:
            lazy = contents.tensors["large"]
            assert_same_bits(np.asarray(lazy), LARGE)
            assert_same_bits(np.asarray(lazy, dtype=np.float32), LARGE.astype(np.float32))
            first, second = lazy.__array__(copy=True), lazy.__array__(copy=True)
            assert not np.shares_memory(first, second)
            assert_same_bits(lazy.__array__(np.float64, copy=None), LARGE)
            with pytest.raises(ValueError, match="copy"):
                lazy.__array__(np.float32, copy=False)
            assert np.add(lazy, 1)[0, 0] == 1

    def test_dlpack(self, large: Path) -> None:
        """NumPy and PyTorch take a lazy tensor as it is."""
        with tk.open(large) as contents:
            assert_same_bits(np.from_dlpack(contents.tensors["large"]), LARGE)
            torch = pytest.importorskip("torch")
            tensor = torch.from_dlpack(contents.tensors["large"])
        assert tensor.dtype == torch.float64
        assert_same_bits(tensor.numpy(), LARGE)

    def test_bytes(self, large: Path) -> None:
        """`tobytes()` is C order, little-endian, whatever the array was."""
        big = np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3))
        with tk.open(io.BytesIO(tk.dumps({"x": big}))) as contents:
            assert contents.tensors["x"].tobytes() == big.astype("<i4").tobytes(order="C")
            assert contents.tensors["x"].nbytes == 24

    def test_what_was_read_lives_on_and_handles_do_not(self, large: Path, tmp_path: Path) -> None:
        """After closing, arrays stay valid; lazy tensors say which file is closed, and closing twice is no error."""
        tk.save({"w": np.ones(3)}, tmp_path / "tiny.safetensors")
        for path, name in ((large, "large"), (tmp_path / "tiny.safetensors", "w")):
            contents = tk.open(path)
            lazy = contents.tensors[name]
            kept, rows = lazy.numpy(), lazy[:2]
            contents.close()
            contents.close()
            for read in (lambda lazy: lazy.numpy(), lambda lazy: lazy[0], lambda lazy: lazy.tobytes()):
                with pytest.raises(OSError, match=rf"closed.*{re.escape(path.name)}"):
                    read(lazy)
            assert lazy.shape == kept.shape
            assert np.array_equal(kept[:2], rows)
            path.unlink()
            assert kept.sum() in (3, LARGE.sum())

    def test_a_file_that_is_replaced_under_a_handle(self, large: Path) -> None:
        """The handle goes on reading the file that it opened."""
        with tk.open(large) as contents:
            tk.save({"large": np.zeros(3)}, large)
            assert np.array_equal(contents.tensors["large"][2999], LARGE[2999])
        assert tk.load(large)["large"].tolist() == [0, 0, 0]

    def test_an_open_file_may_be_saved_on(self, large: Path, tmp_path: Path) -> None:
        """Lazy tensors of one file are saved into another, and over their own file."""
        with tk.open(large) as contents:
            tk.save({"copy": contents.tensors["large"], "n": 1}, tmp_path / "other.safetensors")
            tk.save({"only": contents.tensors["large"]}, large)
        assert_same_bits(tk.load(tmp_path / "other.safetensors"), {"copy": LARGE, "n": 1})
        assert_same_bits(tk.load(large), {"only": LARGE})

    def test_damage_is_not_passed_on_by_saving(self, large: Path, tmp_path: Path) -> None:
        """Bytes that go from file to file are checked on the way: no new digest is made of damaged ones."""
        _damage(large, 100)
        with tk.open(large) as contents, pytest.raises(tk.CorruptError):
            tk.save({"copy": contents.tensors["large"]}, tmp_path / "other.safetensors")
        assert not (tmp_path / "other.safetensors").exists()


class TestMemory:
    def test_mapped_arrays_are_copied_when_written_to(self, tmp_path: Path) -> None:
        """Writing to a loaded array never changes the file, and what was loaded before does not see it."""
        tk.save({"w": LARGE}, tmp_path / "s.safetensors")
        before = (tmp_path / "s.safetensors").read_bytes()
        first = tk.load(tmp_path / "s.safetensors", mmap=True)
        second = tk.load(tmp_path / "s.safetensors", mmap=True)
        assert first["w"].flags.writeable
        first["w"][...] = -1
        assert_same_bits(second["w"], LARGE)
        assert (tmp_path / "s.safetensors").read_bytes() == before
        assert tk.verify(tmp_path / "s.safetensors").intact

    def test_memory_of_its_own_is_immune_to_changes_of_the_file(self, tmp_path: Path) -> None:
        """With `mmap=False`, whatever becomes of the file, the arrays stay; each may be written to."""
        tk.save({"w": LARGE, "v": np.ones(5)}, tmp_path / "s.safetensors")
        loaded = tk.load(tmp_path / "s.safetensors", mmap=False)
        with (tmp_path / "s.safetensors").open("r+b") as file:
            file.write(bytes(LARGE.nbytes))
        os.truncate(tmp_path / "s.safetensors", 0)
        assert_same_bits(loaded, {"w": LARGE, "v": np.ones(5)})
        loaded["w"][0] = 7
        assert loaded["v"].flags.writeable and loaded["v"].all()

    @pytest.mark.parametrize("mmap", [None, True, False])
    def test_saving_over_the_very_file_that_is_loaded(self, tmp_path: Path, mmap: bool | None) -> None:
        """What is loaded and mapped may be changed and saved over itself, again and again."""
        path = tmp_path / "s.safetensors"
        tk.save({"w": LARGE, "v": np.ones(3)}, path)
        first = tk.load(path, mmap=mmap)
        for count in range(1, 4):
            state = tk.load(path, mmap=mmap)
            state["w"] += 1
            tk.save(state, path, durable=False)
            assert_same_bits(tk.load(path)["w"], LARGE + count)
        assert_same_bits(first["w"], LARGE)
        assert os.listdir(tmp_path) == ["s.safetensors"]

    def test_a_target_that_is_mapped_from_the_file_itself(self, tmp_path: Path) -> None:
        """A loaded state is the target of a load of its own file."""
        tk.save({"w": LARGE}, tmp_path / "s.safetensors")
        state = tk.load(tmp_path / "s.safetensors", mmap=True)
        state["w"] *= 2
        array = state["w"]
        tk.load(tmp_path / "s.safetensors", into=state)
        assert_same_bits(array, LARGE)


class TestTruthValues:
    BAD: ClassVar = {
        "ours": model_file({"dict": ["w"]}, {"w": ("BOOL", [2], b"\x00\x02")}),
        "others": safetensors({"w": {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}}, b"\x00\x02"),
        "a long list": model_file({"packed": "list", "tensor": "w"}, {"w": ("BOOL", [2], b"\x00\x02")}),
    }

    @pytest.mark.parametrize("mmap", [True, False])
    @pytest.mark.parametrize("verify", [True, False])
    @pytest.mark.parametrize("whose", BAD)
    def test_other_bytes_than_0_and_1_are_refused(self, tmp_path: Path, whose: str, verify: bool, mmap: bool) -> None:
        """A BOOL byte that is neither 0 nor 1 is an error, however it is read, and no target is changed."""
        path = tmp_path / "bad.safetensors"
        path.write_bytes(self.BAD[whose])
        with pytest.raises(tk.FormatError, match="w: a BOOL byte"):
            tk.load(path, verify=verify, mmap=mmap)
        target = {"w": np.ones(2, bool)}
        if whose != "a long list":
            with pytest.raises(tk.FormatError, match="w: a BOOL byte"):
                tk.load(path, verify=verify, mmap=mmap, into=target)
        assert target["w"].view(np.uint8).tolist() == [1, 1]
        with tk.open(path, verify=verify) as contents:
            assert contents.tensors["w"][0] == np.False_
            for read in (lambda lazy: lazy.numpy(), lambda lazy: lazy[1], lambda lazy: lazy.tobytes()):
                with pytest.raises(tk.FormatError, match="w: a BOOL byte"):
                    read(contents.tensors["w"])

    def test_such_an_array_cannot_be_saved(self) -> None:
        """What no reader would take is not written; the error says what to pass instead."""
        with pytest.raises(tk.UnsupportedError, match=r"(?s)net\.mask.*!= 0"):
            tk.dumps({"net": {"mask": np.array([0, 255], np.uint8).view(bool)}})


class _Chosen:
    """A path by `__fspath__`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return os.fspath(self.path)


class TestPaths:
    @pytest.mark.parametrize("kind", [str, os.fsencode, Path, _Chosen], ids=["str", "bytes", "Path", "PathLike"])
    def test_every_kind_of_path(self, tmp_path: Path, kind: Callable[[Any], Any]) -> None:
        """str, bytes, pathlib and any PathLike, for each verb."""
        path = kind(str(tmp_path / "é.safetensors")) if kind is not _Chosen else _Chosen(tmp_path / "é.safetensors")
        tk.save({"w": np.ones(2)}, path)
        assert tk.load(path)["w"].all()
        assert tk.verify(path).intact
        with tk.open(path) as contents:
            assert contents.file == str(tmp_path / "é.safetensors")

    @posix
    def test_a_name_that_is_no_utf8(self, tmp_path: Path) -> None:
        """Bytes that no encoding knows name a file like any other, as bytes and by `os.fsdecode`."""
        name = os.fsencode(tmp_path) + b"/caf\xe9.safetensors"
        try:
            tk.save({"w": 1}, name)
        except OSError as error:
            pytest.skip(f"this file system knows no such names: {error}")
        assert tk.load(os.fsdecode(name)) == tk.load(name) == {"w": 1}

    @posix
    def test_links_are_followed(self, tmp_path: Path, path: Path) -> None:
        """A file is read through a link, and through a link to its folder; a link that leads nowhere is a missing file."""
        (tmp_path / "link").symlink_to(path)
        (tmp_path / "folder").symlink_to(tmp_path)
        (tmp_path / "dangling").symlink_to("nowhere")
        for name in ("link", "folder/link", f"folder/{path.name}"):
            assert_same_bits(tk.load(tmp_path / name), _nested())
        with pytest.raises(FileNotFoundError, match="dangling"):
            tk.load(tmp_path / "dangling")

    @pytest.mark.parametrize("verb", [tk.load, tk.open, tk.verify, tk.show])
    def test_what_is_no_file_is_pythons_own_error(self, tmp_path: Path, verb: Callable[[Path], object]) -> None:
        """A folder, nothing, below a file: the errors that `open` raises, with errno and name."""
        (tmp_path / "file").write_bytes(b"x")
        with pytest.raises(IsADirectoryError, match="folder"):
            verb(tmp_path)
        with pytest.raises(FileNotFoundError) as caught:
            verb(tmp_path / "missing")
        assert caught.value.filename == str(tmp_path / "missing") and caught.value.errno is not None
        with pytest.raises(NotADirectoryError):
            verb(tmp_path / "file" / "below")

    @pytest.mark.parametrize("verb", [tk.load, tk.open, tk.verify, tk.show])
    @pytest.mark.parametrize(
        "content", [b"", b"x", b"PK\x03\x04" + bytes(100), b"\x80\x04\x95" + bytes(100), b"\x89HDF\r\n\x1a\n" + bytes(100)]
    )
    def test_what_is_no_model_file_is_a_format_error(self, tmp_path: Path, content: bytes, verb: Callable[[Path], object]) -> None:
        """An empty file, a zip, a pickle, an HDF5 file: a FormatError, which is a ValueError too, that names the file."""
        (tmp_path / "strange").write_bytes(content)
        with pytest.raises(tk.FormatError, match=r"strange: ") as caught:
            verb(tmp_path / "strange")
        assert isinstance(caught.value, ValueError) and caught.value.file == str(tmp_path / "strange")

    @posix
    @pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_may_not_be_read(self, path: Path) -> None:
        """A PermissionError that names the file."""
        path.chmod(0)
        with pytest.raises(PermissionError, match="nested"):
            tk.load(path)

    @posix
    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may become somebody else")
    def test_a_file_of_root_that_may_not_be_read(self) -> None:
        """The same for root, who gives up the right to it for a moment."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            path = Path(folder) / "mine.safetensors"
            tk.save({"w": 1}, path)
            path.chmod(0o600)
            os.seteuid(65534)
            try:
                with pytest.raises(PermissionError, match="mine"):
                    tk.load(path)
            finally:
                os.seteuid(0)

    def test_overwrite_false(self, path: Path) -> None:
        """What is there stays, and the error says what to pass; a new name is written."""
        with pytest.raises(FileExistsError, match="overwrite=True") as caught:
            tk.save({"new": 1}, path, overwrite=False)
        assert caught.value.filename == str(path)
        assert_same_bits(tk.load(path), _nested())
        tk.save({"new": 1}, path.with_name("new.safetensors"), overwrite=False)
        assert tk.load(path.with_name("new.safetensors")) == {"new": 1}

    @pytest.mark.parametrize("suffix", [".pt", ".pth", ".H5", ".npz", ".pkl", ".onnx", ".gguf", ".keras"])
    @pytest.mark.parametrize("kind", [str, os.fsencode], ids=["str", "bytes"])
    def test_another_formats_suffix_is_warned_of_and_written(self, tmp_path: Path, suffix: str, kind: Callable[[str], Any]) -> None:
        """One warning at the caller's line, which names the file and the suffix that suits; the file is a model file."""
        name = str(tmp_path / f"model{suffix}")
        with pytest.warns(tk.TensorkeepWarning, match=rf"^{re.escape(name)}: .*{suffix.lower()}.*\.safetensors suits") as caught:
            tk.save({"w": 1}, kind(name))
        assert [warning.filename for warning in warned(caught)] == [__file__]
        assert tk.load(name) == {"w": 1}

    @pytest.mark.parametrize("name", ["model.safetensors", "model", "model.st", "model.v2", ".pt"])
    def test_other_names_are_fine(self, tmp_path: Path, name: str) -> None:
        """No warning where no other format lays claim to the name."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tk.save({"w": 1}, tmp_path / name)


class _Slow(io.RawIOBase):
    """A stream that cannot seek, and takes and gives a few bytes at a time."""

    def __init__(self, data: bytes = b"") -> None:
        self.data, self.at = bytearray(data), 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), 1000, len(self.data) - self.at)
        buffer[:count] = self.data[self.at : self.at + count]
        self.at += count
        return count

    def write(self, part: Any) -> int:
        self.data += bytes(part[:777])
        return min(len(part), 777)


class TestStreams:
    STATE: ClassVar = {"large": LARGE, "small": np.arange(5, dtype=np.int8), "n": 3}

    def test_bytes(self) -> None:
        """`dumps` and `loads`, of bytes, bytearray and memoryview; the arrays may be written to, and the bytes stay."""
        data = tk.dumps(self.STATE)
        for given in (
            data,
            bytearray(data),
            memoryview(data),
            memoryview(data + b"\0" * (-len(data) % 4)).cast("I").cast("B")[: len(data)],
        ):
            loaded = tk.loads(given)
            assert_same_bits(loaded, self.STATE)
            loaded["large"][...] = 0
        assert data == tk.dumps(self.STATE)

    def test_files_in_memory_and_from_where_they_stand(self) -> None:
        """A BytesIO both ways; what stands before its position is not looked at."""
        file = io.BytesIO()
        file.write(b"before")
        assert tk.save(self.STATE, file) is None
        assert file.getvalue()[6:] == tk.dumps(self.STATE)
        file.seek(6)
        assert_same_bits(tk.load(file), self.STATE)
        file.seek(6)
        assert tk.verify(file).intact
        file.seek(6)
        with tk.open(file) as contents:
            assert np.array_equal(contents.tensors["large"][7], LARGE[7])

    @pytest.mark.parametrize("buffering", [0, -1])
    def test_open_files(self, tmp_path: Path, buffering: int) -> None:
        """Files opened by Python, buffered or not, both ways; they stay open, and errors name them."""
        with (tmp_path / "f").open("wb", buffering=buffering) as file:
            tk.save(self.STATE, file)
            assert not file.closed
        assert (tmp_path / "f").read_bytes() == tk.dumps(self.STATE)
        with (tmp_path / "f").open("rb", buffering=buffering) as file:
            assert_same_bits(tk.load(file), self.STATE)
            assert not file.closed
        (tmp_path / "f").write_bytes(b"nonsense")
        with (tmp_path / "f").open("rb") as file, pytest.raises(tk.FormatError, match=re.escape(str(tmp_path / "f"))):
            tk.load(file)

    def test_streams_that_cannot_seek_and_take_little(self) -> None:
        """A raw stream that takes 777 bytes a call gets them all; one that gives 1,000 is read to its end."""
        slow = _Slow()
        tk.save(self.STATE, slow)
        assert bytes(slow.data) == tk.dumps(self.STATE)
        assert_same_bits(tk.load(_Slow(slow.data)), self.STATE)

    def test_a_compressed_file(self, tmp_path: Path) -> None:
        """A file object of another module is as good."""
        with gzip.open(tmp_path / "f.gz", "wb", compresslevel=1) as file:
            tk.save(self.STATE, file)
        with gzip.open(tmp_path / "f.gz", "rb") as file:
            assert_same_bits(tk.load(file), self.STATE)

    def test_text_files_are_refused_with_the_mode_to_take(self, tmp_path: Path) -> None:
        """A file opened as text is a TypeError before anything is written."""
        with (tmp_path / "text").open("w", encoding="utf-8") as file, pytest.raises(TypeError, match="mode 'wb'"):
            tk.save(self.STATE, file)
        assert (tmp_path / "text").read_bytes() == b""
        for file in ((tmp_path / "text").open(encoding="utf-8"), io.StringIO("x")):
            with file, pytest.raises(TypeError, match="mode 'rb'"):
                tk.load(file)
        with pytest.raises(TypeError, match="mode 'wb'"):
            tk.save(self.STATE, io.StringIO())

    def test_a_stream_that_fails_passes_its_error_on(self) -> None:
        """A disk that is full behind a file object is no surprise."""

        class Full(io.RawIOBase):
            def write(self, part: Any) -> int:
                raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            tk.save(self.STATE, Full())

    @posix
    def test_a_pipe_with_a_name_both_ways(self, tmp_path: Path) -> None:
        """A FIFO is written and read as a stream of more than it holds at once."""
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=tk.save, args=(self.STATE, tmp_path / "pipe"))
        writer.start()
        loaded = tk.load(tmp_path / "pipe")
        writer.join()
        assert_same_bits(loaded, self.STATE)
        assert (tmp_path / "pipe").is_fifo()

    @posix
    @pytest.mark.parametrize("into", ["a pipe", "a file"])
    def test_the_standard_output(self, tmp_path: Path, into: str) -> None:
        """`/dev/stdout` of another process carries a model file, into a pipe or a file."""
        code = "import numpy as np, tensorkeep as tk; tk.save({'w': np.arange(300_000.0), 'n': 1}, '/dev/stdout')"
        if into == "a pipe":
            data = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
        else:
            with (tmp_path / "out").open("wb") as file:
                subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
            data = (tmp_path / "out").read_bytes()
        assert_same_bits(tk.loads(data), {"w": np.arange(300_000.0), "n": 1})

    @posix
    def test_the_standard_input(self) -> None:
        """`/dev/stdin` of another process is read as a stream."""
        code = "import tensorkeep as tk; print(tk.load('/dev/stdin')['large'].sum())"
        done = subprocess.run([sys.executable, "-c", code], input=tk.dumps(self.STATE), stdout=subprocess.PIPE, check=True)
        assert float(done.stdout) == LARGE.sum()

    def test_bytes_behind_the_end_are_refused(self) -> None:
        """Nothing may follow the data."""
        with pytest.raises(tk.FormatError):
            tk.load(io.BytesIO(tk.dumps(self.STATE) + b"x"))


class TestMetadata:
    def test_notes_are_kept_and_handed_back(self, tmp_path: Path) -> None:
        """`metadata=` comes back from `open`, of any plain type, from files and streams, and is no part of the state."""
        notes = {"note": "é", "epoch": 3, "nested": {"a": [1, None, (2.5,)]}, "": "empty key"}
        tk.save({"w": 1}, tmp_path / "s.safetensors", metadata=notes)
        file = io.BytesIO()
        tk.save({"w": 1}, file, metadata=notes)
        file.seek(0)
        for source in (tmp_path / "s.safetensors", file):
            with tk.open(source) as contents:
                assert_same_bits(dict(sorted(contents.metadata.items())), dict(sorted(notes.items())))
        assert tk.load(tmp_path / "s.safetensors") == {"w": 1}

    def test_notes_of_others_are_shown(self) -> None:
        """A file by others has its metadata as it is."""
        data = safetensors(
            {"__metadata__": {"format": "pt", "who": "somebody"}, "w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"x"
        )
        with tk.open(io.BytesIO(data)) as contents:
            assert contents.metadata == {"format": "pt", "who": "somebody"}
            assert (contents.format, contents.digests) == ("safetensors", False)


class TestWrongArguments:
    @pytest.mark.parametrize("source", [None, 5, 1.5, {"a": 1}, ["x"], tk])
    @pytest.mark.parametrize("verb", [tk.load, tk.open, tk.verify, tk.show])
    def test_no_path_and_no_file(self, verb: Callable[[Any], object], source: Any) -> None:
        """What is neither a path nor a file object is a TypeError that says what is wanted."""
        with pytest.raises(TypeError, match="a path or a binary file object is wanted"):
            verb(source)

    @pytest.mark.parametrize("target", [None, 5, {"w": 1}, ["x"]])
    def test_no_place_to_save_to(self, target: Any) -> None:
        """State and path the wrong way round, too."""
        with pytest.raises(TypeError, match="a path or a binary file object is wanted"):
            tk.save("model.safetensors", target)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"only": 5}, "only= takes a glob or a callable, found 5"),
            ({"only": ["a", "b"]}, "only= takes a glob or a callable"),
            ({"rename": "a"}, "rename= takes a mapping, pairs of patterns or a callable, found 'a'"),
            ({"rename": ("a", "b")}, "rename= takes"),
            ({"rename": 5}, "rename= takes"),
            ({"rename": lambda path: 5}, "a path is wanted"),
            ({"rename": {"e*": "x"}}, "same number of"),
            ({"types": Net}, r"types=\(Settings,\)"),
            ({"types": ("Net",)}, r"types=\(Settings,\)"),
            ({"framework": "jaks"}, "known are numpy, torch"),
        ],
    )
    def test_options_of_load(self, path: Path, options: dict[str, Any], sentence: str) -> None:
        """Each says what it takes."""
        with pytest.raises((TypeError, ValueError), match=sentence):
            tk.load(path, **options)

    @pytest.mark.parametrize("metadata", ["note", [("a", "b")], 5])
    def test_metadata_that_are_no_dict(self, tmp_path: Path, metadata: Any) -> None:
        """A TypeError, and no file."""
        with pytest.raises(TypeError, match="metadata= takes a dict"):
            tk.save({"w": 1}, tmp_path / "s.safetensors", metadata=metadata)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("data", ["text", None, 5, [1]])
    def test_loads_takes_bytes(self, data: Any) -> None:
        """A TypeError of Python's own words."""
        with pytest.raises(TypeError, match="bytes"):
            tk.loads(data)

"""The contract of all adapters: what each of them does in the same way, over the table. A new one gets these tests by being listed."""

import io
import itertools
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adapters
import tensorkeep as tk
from adapters import EXAMPLES, Example
from refusing import Refuses
from tensorkeep.frameworks.table import ROWS
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, children
from warned import warned

ADDED = 2  # elements on a further axis, for a tensor of a wrong shape


@pytest.fixture(params=EXAMPLES, ids=str)
def example(request: pytest.FixtureRequest) -> Example:
    found: Example = request.param
    pytest.importorskip(found.needs, reason=f"{found.needs} is not installed: {found}")
    return found


def every_leaf(node: Any) -> Iterator[tuple[Any, Any]]:
    """Where each leaf of a file's tree stands: what holds it, and its key there. Configurations are left aside."""
    if isinstance(node, Captured):
        if isinstance(node.state, Captured) or children(node.state) is not None:
            yield from every_leaf(node.state)
        else:
            yield node, None
        return
    for key, child in children(node) or ():
        if key == "config":
            continue
        if isinstance(child, Captured) or children(child) is not None:
            yield from every_leaf(child)
        elif isinstance(node, (dict, list)):
            yield node, key


def changed(data: bytes, number: int, how: str) -> bytes | None:
    """A file of which one leaf is gone, or of another shape or kind; its digests are right. None where there are no more leaves."""
    with tk.open(io.BytesIO(data)) as contents:
        places = list(every_leaf(contents.tree))
        if number >= len(places):
            return None
        holder, key = places[number]
        leaf = holder.state if key is None else holder[key]
        array = leaf.numpy() if isinstance(leaf, LazyTensor) else None
        if how == "gone" and isinstance(holder, dict):
            del holder[key]
        else:
            other: Any = "a text" if array is None or how != "shape" else np.zeros((*array.shape, ADDED), array.dtype)
            if key is None:
                holder.state = other
            else:
                holder[key] = other
        return tk.dumps(contents.tree)


def around(example: Example, seed: int) -> dict[str, Any]:
    """A state with the object in the middle, and arrays that would be filled before and after it."""
    return {"first": np.full(3, float(seed)), "object": example.make(seed), "last": np.full(2, float(seed))}


def seen(example: Example, state: dict[str, Any]) -> Any:
    return adapters.bits(state["first"]), example.seen(state["object"]), adapters.bits(state["last"])


def test_every_adapter_has_an_example() -> None:
    """The table and the examples name the same adapters."""
    assert {row.name for row in ROWS} == {example.row for example in EXAMPLES}


def test_saving_changes_nothing_and_says_the_same_twice(example: Example) -> None:
    """What is saved stays what it was; equal objects make equal files."""
    state = around(example, 1)
    before = seen(example, state)
    data = tk.dumps(state)
    assert seen(example, state) == before and tk.dumps(state) == data == tk.dumps(around(example, 1))


def test_what_is_saved_comes_back_into_a_fresh_one_bit_for_bit(example: Example) -> None:
    """The target is filled where it can be, and the caller's containers are not changed."""
    state, target = around(example, 1), around(example, 2)
    before, inside = dict(target), target["object"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", tk.TensorkeepWarning)
        loaded = tk.loads(tk.dumps(state), into=target)
    assert seen(example, loaded) == seen(example, state)
    assert loaded["first"] is target["first"] and all(target[name] is before[name] for name in before)
    if example.in_place and not isinstance(inside, dict):
        assert loaded["object"] is inside


@pytest.mark.parametrize("how", ["gone", "shape", "kind"])
def test_a_load_that_fails_at_any_leaf_changes_nothing(example: Example, how: str) -> None:
    """Each leaf in turn is missing, of another shape, or no tensor; the error is the one of all adapters and prints as a table."""
    data, target = tk.dumps(around(example, 1)), around(example, 2)
    before, refused, number = seen(example, target), 0, 0
    while (broken := changed(data, number, how)) is not None:
        number += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of parameters and versions that are others now
                tk.loads(broken, into=target)
        except tk.MismatchError as error:
            refused += 1
            assert isinstance(error, ValueError) and isinstance(error.report, (tk.Report, str))
            assert "Nothing was changed" in str(error) and len(str(error).splitlines()) > 1
            if isinstance(error.report, tk.Report):
                assert error.report.problems and all(problem.path in str(error) for problem in error.report.problems if problem.path)
        except tk.FormatError:
            refused += 1  # of an object that is built by a table
        else:
            target = around(example, 2)  # what that leaf is, is not the target's business
            continue
        assert seen(example, target) == before, f"leaf {number}"
    assert refused >= 2, "the arrays around it, at least"
    if example.by_leaf:
        assert refused > 2


def test_a_byte_damaged_in_any_tensor_changes_nothing(example: Example) -> None:
    """The digests of the whole load are compared before the first change."""
    data, target = tk.dumps(around(example, 1)), around(example, 2)
    before, damaged = seen(example, target), 0
    with tk.open(io.BytesIO(data)) as contents:
        header = len(data) - sum(tensor.nbytes for tensor in contents.tensors.values())
        ends = np.cumsum([header, *(tensor.nbytes for tensor in contents.tensors.values())])
    for start, end in itertools.pairwise(ends):
        if start == end:
            continue
        broken = bytearray(data)
        broken[(start + end) // 2] ^= 1
        with pytest.raises((tk.CorruptError, tk.FormatError)):
            tk.loads(bytes(broken), into=target)
        damaged += 1
        assert seen(example, target) == before
    assert damaged >= 2


@pytest.mark.parametrize("place", ["a", "n", "z"])
def test_code_of_another_object_that_raises_changes_nothing(example: Example, place: str) -> None:
    """Whoever refuses, before or after: every object has its former state back."""
    state, target = around(example, 1), around(example, 2)
    data = tk.dumps(dict(sorted({**state, place: Refuses()}.items())))
    refuses = Refuses()
    refuses.refuses = True
    before = seen(example, target)
    with pytest.raises(tk.MismatchError, match="Nothing was changed"):
        tk.loads(data, into=dict(sorted({**target, place: refuses}.items())))
    assert seen(example, target) == before


def test_only_and_rename_reach_whole_objects(example: Example) -> None:
    """`only` takes the object alone, `rename` another name for it, and the rest stays."""
    state, target = around(example, 1), around(example, 2)
    data = tk.dumps(state)
    loaded = tk.loads(data, into=target, only=lambda path: path.startswith("object"))
    assert example.seen(loaded["object"]) == example.seen(state["object"]) and target["first"][0] == 2
    renamed = {"other": example.make(3)}
    loaded = tk.loads(data, into=renamed, rename=lambda path: path.replace("object", "other", 1))
    assert example.seen(loaded["other"]) == example.seen(state["object"])


def test_strict_false_takes_what_fits_and_warns_with_the_report(example: Example) -> None:
    """With a leaf of another shape the others come, in every adapter that matches them one by one."""
    data, target = tk.dumps(around(example, 1)), around(example, 2)
    broken = changed(data, 0, "shape")
    assert broken is not None
    with pytest.warns(tk.TensorkeepWarning, match="fits only in part") as caught:
        loaded = tk.loads(broken, into=target, strict=False)
    report = warned(caught)[0].message.report  # type: ignore[union-attr]  # of ours
    assert isinstance(report, tk.Report) and report.of("shape") == ["first"]
    assert loaded["first"][0] == 2 and loaded["last"][0] == 1
    assert example.seen(loaded["object"]) == example.seen(around(example, 1)["object"])


@pytest.mark.parametrize("example", [example for example in EXAMPLES if example.by_leaf and example.narrow], indirect=True, ids=str)
def test_other_dtypes_need_cast_and_are_counted(example: Example) -> None:
    """float64 in the file for narrower numbers in the target."""
    data, target = tk.dumps(around(example, 1)), around(example, 2)
    before = seen(example, target)
    with tk.open(io.BytesIO(data)) as contents:
        wide = 0
        for holder, key in every_leaf(contents.tree):
            leaf = holder.state if key is None else holder[key]
            if isinstance(leaf, LazyTensor) and str(leaf.dtype) in ("F32", "BF16") and key is not None:
                holder[key] = leaf.numpy().astype("f8")
                wide += 1
        data = tk.dumps(contents.tree)
    with pytest.raises(tk.MismatchError) as caught:
        tk.loads(data, into=target)
    assert isinstance(caught.value.report, tk.Report)
    refused = len(caught.value.report.of("dtype"))
    assert 0 < refused <= wide  # the steps of PyTorch's optimizers are numbers, of any dtype
    assert seen(example, target) == before
    with pytest.warns(tk.TensorkeepWarning, match="was converted") as told:
        loaded = tk.loads(data, into=target, cast=True)
    assert len(warned(told)[0].message.report.casts) == wide  # type: ignore[union-attr]  # of ours
    assert seen(example, loaded) == seen(example, around(example, 1))


def test_one_state_of_all_frameworks_comes_back(tmp_path: Path) -> None:
    """PyTorch, Keras, JAX, scikit-learn, NumPy, generators, records and plain values in one dict, in one file."""
    here = [example for example in EXAMPLES if example.needs in sys.modules or _installed(example.needs)]
    state = {str(example): example.make(1) for example in here} | {"plain": {"epoch": 3, 7: (None, "x", 1.5)}}
    target = {str(example): example.make(2) for example in here} | {"plain": {"epoch": 0}}
    tk.save(state, tmp_path / "all.safetensors")
    loaded = tk.load(tmp_path / "all.safetensors", into=target)
    assert loaded["plain"] == state["plain"]
    for example in here:
        assert example.seen(loaded[str(example)]) == example.seen(state[str(example)]), str(example)
    assert tk.verify(tmp_path / "all.safetensors").intact


def _installed(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


FLAT = {
    "numpy": lambda seed: {"w": np.full((3, 4), float(seed), "f4")},
    "torch": lambda seed: {"w": __import__("torch").full((3, 4), float(seed))},
    "jax": lambda seed: {"w": __import__("jax").numpy.full((3, 4), float(seed))},
    "keras": lambda seed: {"w": __import__("keras").Variable(np.full((3, 4), float(seed), "f4"))},
}


@pytest.mark.parametrize("source", FLAT)
@pytest.mark.parametrize("into", FLAT)
def test_tensors_of_one_framework_go_into_those_of_another(source: str, into: str) -> None:
    """The file says what a tensor was, and the target what it becomes."""
    pytest.importorskip(source)
    pytest.importorskip(into)
    target = FLAT[into](2)
    loaded = tk.loads(tk.dumps(FLAT[source](1)), into=target)
    assert type(loaded["w"]) is type(target["w"])
    value = loaded["w"].value if into == "keras" else loaded["w"]
    assert np.array_equal(np.asarray(value.detach() if hasattr(value, "detach") else value), np.ones((3, 4), "f4"))


def test_nothing_is_imported_that_the_user_did_not_import(tmp_path: Path) -> None:
    """A file of all frameworks opens as NumPy's arrays in a process that refuses to import any of them."""
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    here = [example for example in EXAMPLES if _installed(example.needs)]
    path = tmp_path / "all.safetensors"
    tk.save({str(example): example.make(1) for example in here}, path)
    script = """
        import sys

        class Guard:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in "torch keras tensorflow jax jaxlib flax optax equinox sklearn scipy".split():
                    raise AssertionError(f"{name} was imported")

        sys.meta_path.insert(0, Guard())
        import numpy as np
        import tensorkeep as tk

        path = sys.argv[1]
        state = tk.load(path)
        assert type(state["torch: module"]["0.weight"]) is type(state["jax: pytree"]["params"]["w"]) is np.ndarray
        tk.show(path), tk.verify(path), tk.scan(path), tk.fingerprint(path)
        tk.convert(path, path + ".copy.safetensors", only="torch: module.*")
        tk.load(path, into={"numpy: arrays": {"w": np.zeros((3, 4), "f4")}}, only="numpy: arrays.w")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_only_leaves_whole_objects_out(example: Example) -> None:
    """Of an object that was not selected nothing is built, not even where it holds empty containers."""
    data = tk.dumps(around(example, 1))
    loaded = tk.loads(data, into={"first": np.zeros(3)}, only="first")
    assert loaded["first"][0] == 1 and "object" not in loaded and "last" not in loaded
    assert set(tk.loads(data, only="first")) == {"first"}

"""skops: the tree of an object as its schema has it; a schema that is hostile ends in an error."""

import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from craft import soon
from same import assert_same_bits
from tensorkeep.errors import TensorkeepError
from tensorkeep.tree import Stub


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(schema: object, **members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, data in members.items():
            made.writestr(name.replace("_npy", ".npy"), data)
        made.writestr("schema.json", schema if isinstance(schema, (bytes, str)) else json.dumps(schema))
    return file.getvalue()


def node(loader: str, content: object = None, name: str = "x", module: str = "m", **more: object) -> dict[str, Any]:
    return {"__class__": name, "__module__": module, "__loader__": loader, "content": content, **more}


def value(text: str) -> dict[str, Any]:
    return node("JsonNode", text, "str", "builtins", is_json=True)


def tuple_(*items: object) -> dict[str, Any]:
    return node("TupleNode", list(items), "tuple", "builtins")


def test_values_of_all_kinds_come_back_as_skops_loads_them() -> None:
    """Containers, keys that are numbers, NaN, bytes, slices, sparse matrices, what is shared."""
    io_ = pytest.importorskip("skops.io")
    sparse = pytest.importorskip("scipy.sparse")
    array = np.arange(6.0).reshape(2, 3)
    state = {
        "a": [1, 2.5, "x", None, True, float("inf")],
        "keys": {1: "one", 2: "two"},
        "t": (1, (2,)),
        "set": {1, 2},
        "slice": slice(1, None, 2),
        "bytes": b"ab",
        "more": bytearray(b"cd"),
        "array": array,
        "again": array,
    }
    file = io.BytesIO()
    io_.dump(state | {"sparse": sparse.csr_matrix(np.eye(3))}, file)
    tree = tk.load(io.BytesIO(file.getvalue()))
    found = tree.pop("sparse")
    assert_same_bits(tree, state)
    assert tree["array"] is tree["again"] and np.array_equal(found["data"], np.ones(3))


def test_what_the_schema_does_not_name_is_told() -> None:
    """Members beside the tree are left out, with a sentence."""
    data = archive(
        node("ObjectNode", node("DictNode", {"w": node("NdArrayNode", type="numpy", file="w.npy")})), w_npy=npy(np.ones(2)), other=b"?"
    )
    with tk.open(io.BytesIO(data)) as file:
        assert list(file.tensors) == ["w"] and file.left_out == ("other: the schema does not name it",)
        assert isinstance(file.tree, Stub)


def shared(levels: int) -> dict[str, Any]:
    """Each level holds the one before twice."""
    made: dict[str, Any] = node("ListNode", [value("1")], "list", "builtins", __id__=0)
    for number in range(1, levels):
        made = node("ListNode", [made, node("CachedNode", __id__=number - 1)], "list", "builtins", __id__=number)
    return made


def deep(levels: int) -> dict[str, Any]:
    made = value("1")
    for _ in range(levels):
        made = node("ListNode", [made], "list", "builtins")
    return made


HOSTILE: dict[str, Any] = {
    "a list": [1],
    "no JSON": "{",
    "no UTF-8": b'{"__class__": "x", "__module__": "\xff"}',
    "a key twice": '{"__class__": "a", "__class__": "b", "__module__": "m", "__loader__": "ObjectNode"}',
    "no class": {"__loader__": "ObjectNode", "x": {"__class__": 1, "__module__": 2}},
    "a class that is none": node("TypeNode", name=["x"]),  # type: ignore[arg-type]  # that is the point
    "a file that is not there": node("NdArrayNode", type="numpy", file="../secret.npy"),
    "a value that is no JSON": value("os.system('x')"),
    "a value nested deeply": value("[" * 100_000),
    "a value that is a number": node("JsonNode", 5),
    "deep": deep(150),
    "very deep": "[" * 100_000,
    "shared": shared(50),
    "an array that is none": node("NdArrayNode", type="numpy", file="schema.json"),
    "a sparse matrix that is none": node("SparseMatrixNode", type="scipy", file="schema.json"),
}


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_schema_is_refused(schema: object) -> None:
    """In little time, and with a clear error."""
    text = schema if isinstance(schema, (bytes, str)) else json.dumps(schema)
    data = archive(
        text
        if b"__class__" in (text if isinstance(text, bytes) else text.encode())
        else f'{{"__class__": 1, "__module__": 2, "x": {text}}}'
    )
    with soon(2.0), pytest.raises(TensorkeepError):
        tk.load(io.BytesIO(data))


def test_a_node_that_leads_back_to_itself_is_cut() -> None:
    """And a sentence tells of it."""
    data = archive(node("ObjectNode", node("DictNode", {"me": node("CachedNode", __id__=7), "n": value("1")}), __id__=7))
    with tk.open(io.BytesIO(data)) as file:
        assert file.tree["me"] is None and file.tree["n"] == 1 and "cut there" in file.left_out[0]


@pytest.mark.parametrize("change", range(40))
def test_a_schema_changed_in_one_node_is_read_or_refused(change: int) -> None:
    """Every value of a schema replaced by another kind of value."""
    schema = node(
        "ObjectNode",
        node(
            "DictNode",
            {"w": node("NdArrayNode", type="numpy", file="w.npy", __id__=3), "t": tuple_(value("1"), node("CachedNode", __id__=3))},
        ),
        protocol=2,
        _skops_version="0.11",
    )
    places: list[tuple[dict[str, Any], str]] = []

    def walk(part: Any) -> None:
        for key, inside in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
            if isinstance(part, dict):
                places.append((part, key))
            walk(inside)

    walk(schema)
    if change >= len(places):
        return
    part, key = places[change]
    for other in (None, 5, -1, "x", [], {}, [[]], {"__loader__": "ListNode"}, True, 1e300):
        before, part[key] = part[key], other
        try:
            with tk.open(io.BytesIO(archive(schema, w_npy=npy(np.ones(2))))) as file:
                assert file.tensors is not None
        except TensorkeepError:
            pass
        part[key] = before

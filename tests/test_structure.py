"""The structure, read as hostile: every broken node is a FormatError, at once and without much memory."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tensorkeep as tk
from craft import model_file

W = {"w": ("U8", [4], b"abcd")}
DEEP: object = 1
for _ in range(400):
    DEEP = [DEEP]
COLLIDING = {"dict": [[{"int": hex((2**61 - 1) * number)}, 1] for number in range(2**53 // (2**61 - 1) + 5, 500)]}

BAD: dict[str, tuple[object, dict]] = {
    "unknown tag": ({"spell": 1}, {}),
    "no tag": ({}, {}),
    "bare fraction": (0.5, {}),
    "dict that is no list": ({"dict": 5}, {}),
    "pair of three": ({"dict": [[1, 2, 3]]}, {}),
    "item that is a number": ({"dict": [5]}, {}),
    "key twice": ({"dict": [["a", 1], ["a", 2]]}, {}),
    "keys that are equal": ({"dict": [[1, 1], [True, 2]]}, {}),
    "key that is a list": ({"dict": [[["a"], 1]]}, {}),
    "key that is a dict": ({"dict": [[{"dict": []}, 1]]}, {}),
    "key that cannot be one": ({"dict": [[{"bytearray": ""}, 1]]}, {}),
    "keys that collide": (COLLIDING, {}),
    "tensor that is not there": ({"dict": [["w", {"tensor": "w"}], ["v", {"tensor": "v"}]]}, W),
    "short tensor that is not there": ({"dict": ["w", "v"]}, W),
    "tensor that is never used": ({"dict": []}, W),
    "tensor of two dtypes": ({"dict": ["w", ["v", {"tensor": "w", "dtype": "I4"}]]}, W),
    "tensor whose path is a number": ({"tensor": 5}, W),
    "framework that is a number": ({"tensor": "w", "as": 5}, W),
    "dtype that does not fit": ({"tensor": "w", "dtype": "C128"}, W),
    "dtype of another storage": ({"tensor": "w", "dtype": ">f4"}, W),
    "dtype that is unknown": ({"tensor": "w", "dtype": "X"}, W),
    "dtype of objects": ({"tensor": "w", "dtype": "|O"}, W),
    "dtype with code": ({"tensor": "w", "dtype": "i4,(os.system('x'))f4"}, W),
    "fields beyond the item": ({"tensor": "w", "dtype": {"fields": [["a", "F32", 2, []]], "itemsize": 4}}, W),
    "fields twice": ({"tensor": "w", "dtype": {"fields": [["a", "U8", 0, []], ["a", "U8", 1, []]], "itemsize": 4}}, W),
    "field of a huge shape": ({"tensor": "w", "dtype": {"fields": [["a", "U8", 0, [2**30, 2**30]]], "itemsize": 4}}, W),
    "too deep": (DEEP, {}),
    "set item twice": ({"set": [1, True]}, {}),
    "set that is no list": ({"set": "ab"}, {}),
    "deque beyond its bound": ({"deque": [1, 2, 3], "maxlen": 2}, {}),
    "factory that is code": ({"defaultdict": [], "factory": "eval"}, {}),
    "factory that is a list": ({"defaultdict": [], "factory": ["list"]}, {}),
    "object without a class": ({"object": "records.bag", "state": None}, {}),
    "bag of numbers": ({"object": "records.bag", "class": "Namespace", "state": {"dict": [[1, 2]]}}, {}),
    "generator of nonsense": ({"object": "rng.python", "class": "Random", "state": 5}, {}),
    "bits of nonsense": ({"object": "rng.bits", "class": "PCG64", "state": {"dict": []}}, {}),
    "packed of an unknown kind": ({"packed": "code", "tensor": "w"}, W),
    "packed list of bytes": ({"packed": "list", "tensor": "w", "dtype": "I4"}, W),
    "packed text that is no UTF-8": ({"packed": "str", "tensor": "w"}, {"w": ("U8", [2], b"\xff\xfe")}),
    "small int as text": ({"int": "0x5"}, {}),
    "int in words": ({"int": "many"}, {}),
    "float in words": ({"float": "big"}, {}),
    "NaN that is none": ({"float": "nan:0000000000000000"}, {}),
    "complex of one": ({"complex": [1.0]}, {}),
    "bytes that are no base64": ({"bytes": "%"}, {}),
    "moment of nonsense": ({"datetime": ["yesterday", 0]}, {}),
    "moment in another spelling": ({"datetime": ["20200101", 0]}, {}),
    "fold of two": ({"datetime": ["2020-01-01T00:00:00", 2]}, {}),
    "day of nonsense": ({"date": "2020-13-01"}, {}),
    "span of texts": ({"timedelta": ["1", 0, 0]}, {}),
    "span beyond all bounds": ({"timedelta": [10**12, 0, 0]}, {}),
    "zone beyond a day": ({"timezone": [5, 0, 0]}, {}),
    "range of step zero": ({"range": [0, 1, 0]}, {}),
    "slice of texts": ({"slice": ["a", None, None]}, {}),
    "scalar of another size": ({"scalar": ["F32", "AAAA"]}, {}),
    "scalar of objects": ({"scalar": ["|O", "AAAA"]}, {}),
    "path that is a number": ({"path": 5}, {}),
}


@pytest.mark.parametrize("what", BAD)
def test_a_broken_structure_is_refused(what: str) -> None:
    """Every lie in a structure whose digests and root are right is a FormatError, in under a second."""
    structure, entries = BAD[what]
    begin = time.process_time()
    with pytest.raises(tk.FormatError):
        tk.loads(model_file(structure, entries))
    assert time.process_time() - begin < 5  # a bound against quadratic time, not a speed


def test_more_values_than_the_limit_are_refused() -> None:
    """Limits can be set by whoever loads."""
    data = tk.dumps([[1] * 100] * 100)
    assert len(tk.loads(data)) == 100
    with pytest.raises(tk.FormatError, match="values"):
        tk.loads(data, limits=tk.Limits(values=1000))
    with pytest.raises(tk.FormatError, match="deep"):
        tk.loads(tk.dumps([[[[[1]]]]]), limits=tk.Limits(depth=3))


def test_an_unknown_kind_of_object_is_its_plain_state() -> None:
    """A file by a newer adapter still loads as a tree; nothing is imported for it."""
    data = model_file({"object": "os.system", "class": "evil", "state": {"dict": [["a", 1]]}}, {})
    assert tk.loads(data) == {"a": 1}


_SAVE = """
import hashlib, pathlib, sys
import numpy as np
import tensorkeep as tk
keys = [frozenset({"a", "b", "c"}), (frozenset({"a", "b"}), 1), (np.float32(1), "a"), (np.str_("a"),)]
keys += [pathlib.PurePosixPath("a/b"), 0.5, b"x"]
state = {"m": {key: {"w": np.full(2, number), "deep": [{"v": np.ones(number)}]} for number, key in enumerate(keys)}}
if sys.argv[1] == "save":
    tk.save(state, sys.argv[2])
    print(hashlib.sha256(pathlib.Path(sys.argv[2]).read_bytes()).hexdigest())
else:
    found = tk.load(sys.argv[2], framework="numpy")
    assert all(found["m"][key]["w"].tolist() == [number] * 2 for number, key in enumerate(keys))
    assert [found["m"][key]["deep"][0]["v"].size for key in keys] == list(range(len(keys)))
"""


def test_paths_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """Below keys that Python spells in another order in each process, tensors have the same paths, and come back elsewhere."""
    path = str(tmp_path / "s.safetensors")
    said = set()
    for seed in ("1", "2", "3"):
        for job in ("save", "load"):
            environment = {**os.environ, "PYTHONHASHSEED": seed if job == "save" else seed + "0"}
            done = subprocess.run([sys.executable, "-c", _SAVE, job, path], env=environment, capture_output=True, text=True, check=True)
            said.add(done.stdout)
    assert len(said - {""}) == 1

"""MATLAB's files, of version 4 and 5, against SciPy."""

import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk

io = pytest.importorskip("scipy.io")
sparse = pytest.importorskip("scipy.sparse")

NUMBERS = {
    "matrix": np.arange(6.0).reshape(2, 3) / 3,
    "cube": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
    "single": np.float32([[1.5]]),
    "complex": np.array([[1 + 2j, 3 - 4j]]),
    "truths": np.array([[True, False], [False, True], [True, True]]),
    "long": np.array([[2**60]], np.int64),
    "empty": np.zeros((0, 3)),
}


def write(path: Path, values: dict[str, Any], **options: Any) -> Path:
    io.savemat(path, values, **options)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_read_as_scipy_reads_them(tmp_path: Path, compressed: bool) -> None:
    """Every type, of two and three axes, in C order, complex and logical ones too."""
    path = write(tmp_path / "m.mat", NUMBERS, do_compression=compressed)
    wanted = io.loadmat(path)
    found = tk.load(path)
    assert list(found) == list(NUMBERS)
    for name in NUMBERS:
        array = wanted[name]
        assert (found[name].dtype, found[name].shape, found[name].tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_texts_structs_cells_and_sparse_matrices_are_readable(tmp_path: Path) -> None:
    """A struct is a dict, a cell array a list, a text an array of texts; a sparse matrix the arrays it is made of."""
    cell = np.empty((1, 2), object)
    cell[0, 0], cell[0, 1] = np.arange(3), "text"
    matrix = sparse.csc_matrix(np.array([[0, 2.0], [0, 0], [1, 0]]))
    net = {"weights": cell, "rate": 0.5, "inner": {"name": "net"}}
    found = tk.load(write(tmp_path / "m.mat", {"net": net, "adjacent": matrix, "words": np.array(["one", "three"])}))
    assert found["net"]["weights"][0].tolist() == [[0, 1, 2]]
    assert found["net"]["inner"]["name"].tolist() == ["net"]
    assert [word.strip() for word in found["words"]] == ["one", "three"]
    wanted = {"shape": [3, 2], "data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
    for key, value in wanted.items():
        assert np.array_equal(found["adjacent"][key], value)


def test_version_4_reads_as_scipy_reads_it(tmp_path: Path) -> None:
    """Numbers, complex ones, and texts."""
    values = {"w": np.arange(6.0).reshape(2, 3), "z": np.array([[1 + 2j, 3]]), "text": "some words"}
    path = write(tmp_path / "m.mat", values, format="4")
    wanted, found = io.loadmat(path), tk.load(path)
    for name in values:
        assert found[name].dtype == wanted[name].dtype and np.array_equal(found[name], wanted[name])


def test_files_cut_short_or_changed_are_refused_or_read(tmp_path: Path) -> None:
    """Every truncation, and single bytes changed: a clear refusal or a reading."""
    chance = random.Random(3)
    for options in ({}, {"do_compression": True}, {"format": "4"}):
        values = {"w": NUMBERS["matrix"], "text": "abc"} | ({} if options.get("format") else {"s": {"a": 1.0, "b": np.arange(3)}})
        data = write(tmp_path / "m.mat", values, **options).read_bytes()
        broken = [data[:length] for length in range(0, len(data), 3)]
        for at in range(0, len(data), 2):
            changed = bytearray(data)
            changed[at] ^= chance.choice((1, 0x80, 0xFF))
            broken.append(bytes(changed))
        for piece in broken:
            try:
                tk.loads(piece)
            except tk.TensorkeepError as error:
                assert str(error)


def test_shapes_and_counts_are_not_believed() -> None:
    """A cell array of 2^31 empty cells, a struct without fields of as many elements: refused, or small."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    def matrix(flags: int, shape: tuple[int, ...], rest: bytes) -> bytes:
        head = element(6, struct.pack("<II", flags, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, b"x")
        return b"MATLAB 5.0".ljust(124) + b"\0\1IM" + element(14, head + rest)

    huge = (46341, 46341)
    with pytest.raises(tk.FormatError, match="elements"):
        tk.loads(matrix(1, huge, b""))
    fields = element(5, struct.pack("<i", 8)) + element(1, b"")
    assert len(tk.loads(matrix(2, huge, fields))["x"]) <= 1000
    with pytest.raises(tk.FormatError):
        tk.loads(matrix(4, huge, element(16, b"a")))

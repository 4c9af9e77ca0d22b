"""Equinox's leaves: arrays behind each other, with or without a line of JSON in front, lazily, and refused clearly where broken."""

import io
import json
from pathlib import Path
from typing import Final

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorkeep as tk

LEAVES: Final = (np.arange(6, dtype=np.float32).reshape(2, 3), np.float64(1.5), np.array(True), np.zeros((0, 2), np.int16))


def saved(*leaves: object, line: bytes = b"") -> bytes:
    """Leaves as `tree_serialise_leaves` writes them."""
    file = io.BytesIO(line)
    file.seek(0, io.SEEK_END)
    for leaf in leaves:
        np.save(file, leaf)  # type: ignore[arg-type]  # whatever has a dtype
    return file.getvalue()


def opened(data: bytes) -> tk.Contents:
    return tk.open(io.BytesIO(data))


@pytest.mark.parametrize("line", [b"", b'{"width": 8, "name": "mlp"}\n'])
def test_leaves_go_by_their_place(line: bytes) -> None:
    """In order, each with its dtype and shape; the line of JSON becomes metadata."""
    with opened(saved(*LEAVES, line=line)) as contents:
        assert contents.format == "Equinox leaves"
        assert list(contents.tensors) == ["0", "1", "2", "3"]
        assert dict(contents.metadata) == (json.loads(line) if line else {})
        for leaf, tensor in zip(LEAVES, contents.tensors.values(), strict=True):
            assert tensor.numpy().dtype == np.asarray(leaf).dtype and tensor.numpy().tolist() == np.asarray(leaf).tolist()
        assert contents.tensors["0"][1].tolist() == [3, 4, 5]


def test_bfloat16_is_read_as_such_and_told() -> None:
    """NumPy's format has no name for it; of JAX's dtypes no other takes two bytes without one."""
    with opened(saved(np.ones(3, ml_dtypes.bfloat16), np.ones(1))) as contents:
        assert contents.tensors["0"].numpy().dtype == ml_dtypes.bfloat16
        assert "bfloat16" in contents.left_out[0]


def test_one_array_alone_is_an_npy_file() -> None:
    """What only holds one array is not taken for a list of leaves; below a line of JSON it is."""
    assert opened(saved(np.ones(2))).format == "NumPy array"
    assert opened(saved(np.ones(2), line=b"{}\n")).format == "Equinox leaves"


def test_a_long_first_line_is_read_whole() -> None:
    """Settings may be longer than the first look at a file."""
    line = json.dumps({"settings": ["x" * 40] * 1000}).encode() + b"\n"
    assert len(opened(saved(np.ones(2), line=line)).metadata["settings"]) == 1000


BROKEN: Final = {
    "a key twice in the line": (saved(np.ones(2), line=b'{"a": 1, "a": 2}\n'), "twice"),
    "a second array cut short": (saved(*LEAVES[:2])[:-3], "there"),
    "an array of objects": (saved(np.ones(2), np.array([{}])), "objects"),
    "a header that is code": (saved(np.ones(2), np.ones(2)).replace(b"'shape': (2,)", b"'shape': f(),", 2), "header|shape"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_the_reason(name: str) -> None:
    """Each lie has its sentence."""
    data, word = BROKEN[name]
    with pytest.raises(tk.FormatError, match=word):
        opened(data)


def outcome(data: bytes) -> None:
    """Reads all of it, or is refused as the library refuses."""
    try:
        with opened(data) as contents:
            for tensor in contents.tensors.values():
                tensor.tobytes()
    except tk.TensorkeepError:
        pass


def test_every_truncation_and_every_flipped_byte_ends_clearly() -> None:
    """Only errors of the library, or a reading."""
    data = saved(*LEAVES[:2], line=b'{"a": 1}\n')
    for cut in range(1, len(data)):
        outcome(data[:cut])
    for place in range(len(data)):
        for bits in (0x01, 0x80):
            outcome(data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :])


def test_settings_nested_without_end_are_refused() -> None:
    """However compactly they are written."""
    deep = b'{"a":' * 150 + b"1" + b"}" * 150
    with pytest.raises(tk.FormatError, match="nested deeper"):
        tk.load(io.BytesIO(saved(*LEAVES[:2], line=deep + b"\n")))


@given(st.binary(max_size=60))
def test_any_bytes_behind_a_leaf_end_clearly(rest: bytes) -> None:
    """Whatever follows."""
    outcome(saved(*LEAVES[:2]) + rest)


def test_equinox_itself_agrees(tmp_path: Path) -> None:
    """What `tree_serialise_leaves` writes reads leaf by leaf."""
    eqx = pytest.importorskip("equinox")
    jax = pytest.importorskip("jax")
    model = (eqx.nn.MLP(4, 2, 8, 2, key=jax.random.key(0)), 3, jax.numpy.ones(3, jax.numpy.bfloat16))
    eqx.tree_serialise_leaves(str(tmp_path / "m.eqx"), model)
    leaves = [leaf for leaf in jax.tree_util.tree_leaves(model) if eqx.is_array_like(leaf)]
    with tk.open(tmp_path / "m.eqx") as contents:
        assert len(contents.tensors) == len(leaves)
        for leaf, tensor in zip(leaves, contents.tensors.values(), strict=True):
            np.testing.assert_array_equal(tensor.numpy(), np.asarray(leaf))

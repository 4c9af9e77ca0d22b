"""The container: what safetensors allows is read, all else is refused, each with its own sentence."""

import io
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorkeep as tk
from craft import safetensors

GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]}}
DATA = bytes(range(11))


TWICE = b'{"a":%(a)b,"a":%(a)b}' % {b"a": json.dumps(GOOD["a"]).encode()}


def changed(**entry: object) -> bytes:
    return safetensors({**GOOD, "a": {**GOOD["a"], **entry}}, DATA)


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 bytes"),
    "zeros": (bytes(100), "zeros"),
    "a header of one byte": (struct.pack("<Q", 1) + b"{", "not even hold"),
    "one byte too many": (safetensors({}, b"x"), "1 byte follows"),
    "seven bytes": (b"1234567", "8"),
    "length beyond the file": (struct.pack("<Q", 50) + b"{}", "cut short"),
    "length beyond the limit": (struct.pack("<Q", 2**62) + b"{}", "limit"),
    "no brace": (safetensors(None, text=b"[]"), "starts with"),
    "leading space": (safetensors(None, text=b" {}"), "starts with"),
    "no JSON": (safetensors(None, text=b"{a}"), "JSON"),
    "no UTF-8": (safetensors(None, text=b'{"\xff":1}'), "UTF-8|JSON"),
    "a tensor twice": (safetensors(None, DATA, text=TWICE), "twice"),
    "a field twice": (safetensors(None, b"1", text=b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}'), "twice"),
    "metadata twice": (safetensors(None, text=b'{"__metadata__":{},"__metadata__":{}}'), "twice"),
    "a metadata key twice": (safetensors(None, text=b'{"__metadata__":{"a":"1","a":"2"}}'), "twice"),
    "metadata that is no text": (safetensors({"__metadata__": {"a": 1}}), "laid out"),
    "metadata that is no object": (safetensors({"__metadata__": "a"}), "laid out"),
    "an entry that is no object": (safetensors({"a": 1}), "laid out"),
    "no dtype": (safetensors({"a": {"shape": [], "data_offsets": [0, 0]}}), "dtype"),
    "unknown dtype": (changed(dtype="F33"), "F33"),
    "negative length": (changed(shape=[-2]), "shape"),
    "length that is no int": (changed(shape=[2.5]), "laid out"),
    "length that is a bool": (changed(shape=[True]), "laid out"),
    "too many dimensions": (changed(shape=[1] * 100), "shape"),
    "shape larger than the bytes": (changed(shape=[3]), "takes 12"),
    "shape that overflows": (changed(shape=[2**62, 2**62]), "takes"),
    "offsets not in order": (changed(data_offsets=[8, 0]), "order"),
    "negative offset": (changed(data_offsets=[-8, 0]), "order"),
    "three offsets": (changed(data_offsets=[0, 8, 9]), "laid out"),
    "one offset": (changed(data_offsets=[0]), "laid out"),
    "overlap": (safetensors({"a": GOOD["a"], "b": {**GOOD["b"], "data_offsets": [7, 10]}}, DATA[:10]), "overlaps"),
    "hole": (safetensors({"a": GOOD["a"], "b": {**GOOD["b"], "data_offsets": [9, 12]}}, DATA + b"1"), "hole"),
    "hole at the start": (safetensors({"b": {**GOOD["b"], "data_offsets": [1, 4]}}, b"1234"), "hole"),
    "bytes after the data": (safetensors(GOOD, DATA + b"x"), "follow"),
    "bytes missing": (safetensors(GOOD, DATA[:-1]), "cut short"),
    "half a byte": (safetensors({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, b"1"), "whole byte"),
    "nested too deeply": (safetensors(None, text=b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "laid out|deep"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_header_is_refused_with_its_own_sentence(tmp_path: Path, what: str) -> None:
    """Every way of breaking the container is a FormatError that names the file and what is wrong."""
    data, sentence = BAD[what]
    (tmp_path / "bad.safetensors").write_bytes(data)
    for act in (tk.load, tk.open, tk.verify):
        with pytest.raises(tk.FormatError, match=sentence) as caught:
            act(tmp_path / "bad.safetensors")
        assert "bad.safetensors" in str(caught.value)
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("low", [b"\x80\x02", b"\x80\x04\x95", b"\x1f\x8b", b"\x08\x0a\x12"])
def test_a_file_that_was_cut_short_is_not_taken_for_another_format(low: bytes) -> None:
    """The length of a header may begin with the bytes of a pickle; then the file is cut short, and the error says that."""
    with pytest.raises(tk.FormatError, match="cut short"):
        tk.loads(low.ljust(8, b"\0") + b'{"a":')


def test_what_the_format_allows_is_read() -> None:
    """Tensors in any order, unknown fields, trailing spaces, other spellings of JSON, empty tensors, an empty file, no metadata."""
    text = (
        b'{"b": {"dtype":"U8","shape":[3],"data_offsets":[8,11], "more": 1},\n "\\u0061":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"}}'
    )
    text += b"   "
    loaded = tk.loads(safetensors(None, DATA, text=text))
    assert loaded["a"].tobytes() + loaded["b"].tobytes() == DATA
    assert tk.loads(safetensors({})) == tk.loads(safetensors(None, text=b'{"__metadata__" : null }')) == {}
    empty = tk.loads(safetensors({"e": {"dtype": "F32", "shape": [0, 4], "data_offsets": [0, 0]}}))
    assert empty["e"].shape == (0, 4)


def test_a_misaligned_tensor_of_others_is_copied_to_its_alignment(tmp_path: Path) -> None:
    """A float32 at an odd address of the file comes as an aligned array, mapped or not."""
    header = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "F32", "shape": [20_000], "data_offsets": [1, 80_001]},
    }
    values = np.arange(20_000, dtype=np.float32)
    (tmp_path / "odd.safetensors").write_bytes(safetensors(header, b"x" + values.tobytes()))
    for mmap in (True, False):
        loaded = tk.load(tmp_path / "odd.safetensors", mmap=mmap)["b"]
        assert loaded.flags.aligned
        assert np.array_equal(loaded, values)


def test_packed_six_bit_floats_of_others_have_bytes_but_no_values() -> None:
    """For F6 no common packing exists: NumPy cannot show it, and the error says what works."""
    data = safetensors({"a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}, b"abc")
    with tk.open(io.BytesIO(data)) as contents:
        assert contents.tensors["a"].tobytes() == b"abc"
        with pytest.raises(tk.UnsupportedError, match="tobytes"):
            contents.tensors["a"].numpy()


def _frame(data: bytes) -> tuple[dict, int]:
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), 8 + length


@given(st.lists(st.integers(0, 300) | st.sampled_from([65_535, 65_536, 1 << 20, (1 << 20) + 1, 3 << 20]), max_size=12))
@settings(max_examples=50)
def test_layout_follows_the_description(sizes: list[int]) -> None:
    """File order, alignment, padding, tiling and chunks are those that the format describes, computed a second way."""
    import base64

    from blake3 import blake3

    from craft import chunks

    state = {f"t{number}": np.full(size, number, np.uint8) for number, size in enumerate(sizes)}
    data = tk.dumps(state)
    header, start = _frame(data)
    document = json.loads(header.pop("__metadata__")["tensorkeep"])
    assert start % 64 == 0
    power = {path: min(64, size & -size) if (size := math.prod(entry["shape"])) else 64 for path, entry in header.items()}
    assert list(header) == sorted(header, key=lambda path: (-power[path], path.encode()))
    end = 0
    for path, entry in header.items():
        assert entry["data_offsets"][0] == end
        assert end % power[path] == 0
        end = entry["data_offsets"][1]
    assert len(data) == start + end
    spans = chunks([entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values()])
    assert base64.b64decode(document["digests"]) == b"".join(blake3(data[start + a : start + b]).digest() for a, b in spans)
    head = data[:start]
    assert head.count(document["root"].encode()) == 1
    assert blake3(head.replace(document["root"].encode(), b"0" * 64)).hexdigest() == document["root"]


def test_the_header_cap_of_safetensors_is_kept() -> None:
    """A header that other tools would refuse is refused at save time, and its largest part is named."""
    with pytest.raises(tk.UnsupportedError, match="metadata 'note'"):
        tk.dumps({}, metadata={"note": "x" * 5000}, limits=tk.Limits(header_bytes=4000))
    many = {f"{'n' * 100}{number}": np.zeros(1) for number in range(50)}
    with pytest.raises(tk.UnsupportedError, match="names, shapes"):
        tk.dumps(many, limits=tk.Limits(header_bytes=4000))


@pytest.mark.parametrize("act", [tk.load, tk.verify, tk.open], ids=["load", "verify", "open"])
def test_truncation_anywhere_is_refused(tmp_path: Path, act: Callable[..., object]) -> None:
    """A file that ends early, at any byte of its header or at 200 places of its data, is refused and never read in part."""
    data = tk.dumps({"a": np.arange(4000.0), "b": [1, "x"]})
    start = _frame(data)[1]
    path = tmp_path / "cut.safetensors"
    for length in [*range(start), *range(start, len(data), max(1, (len(data) - start) // 200))]:
        path.write_bytes(data[:length])
        with pytest.raises(tk.FormatError):
            act(path)

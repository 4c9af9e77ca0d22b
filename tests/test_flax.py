"""Flax's MessagePack: read as Flax reads it, lazily, and refused clearly where it is broken."""

import io
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorkeep as tk
from tensorkeep.tree import walk

pack: Final = msgspec.msgpack.encode


def array(value: np.ndarray) -> msgspec.msgpack.Ext:
    """An array as Flax writes it."""
    return msgspec.msgpack.Ext(1, pack((list(value.shape), value.dtype.name, value.tobytes())))


def opened(data: bytes, **options: Any) -> tk.Contents:
    return tk.open(io.BytesIO(data), **options)


SMALL: Final = {
    "step": 7,
    "params": {"w": array(np.arange(6, dtype=np.float32).reshape(2, 3)), "b": array(np.ones(2, ml_dtypes.bfloat16))},
    "z": msgspec.msgpack.Ext(2, pack((1.0, -2.0))),
    "s": msgspec.msgpack.Ext(3, pack(([], "float16", np.float16(0.5).tobytes()))),
}


def test_a_state_dict_reads_as_it_was() -> None:
    """Arrays lazy at their paths, complex numbers and scalars as values."""
    with opened(pack(SMALL)) as contents:
        assert contents.format == "Flax msgpack"
        assert list(contents.tensors) == ["params.w", "params.b"]
        assert contents.tensors["params.w"][1].tolist() == [3, 4, 5]
        assert contents.tensors["params.b"].numpy().dtype == ml_dtypes.bfloat16
        assert contents.tree["step"] == 7 and contents.tree["z"] == 1 - 2j
        assert type(contents.tree["s"]) is np.float16 and contents.tree["s"] == 0.5


@pytest.mark.parametrize("name", ["bool", "int8", "uint64", "float16", "complex64", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int4"])
def test_every_dtype_comes_back(name: str) -> None:
    """Also those of ml_dtypes, an element to a byte where they have four bits."""
    value = np.ones((2, 2), getattr(ml_dtypes, name, name))
    with opened(pack({"w": array(value)})) as contents:
        found = contents.tensors["w"].numpy()
        assert found.dtype == value.dtype and found.tobytes() == value.tobytes()


@given(st.integers(0, 40), st.integers(1, 9), st.integers(0, 40), st.integers(0, 40))
def test_a_cut_array_is_put_together_where_it_is_read(count: int, each: int, start: int, length: int) -> None:
    """Whatever the cuts, each slice has the bytes of the whole."""
    value = np.arange(count, dtype=np.int16)
    parts = [value[i : i + each] for i in range(0, count, each)] or [value]
    cut = {"__msgpack_chunked_array__": True, "shape": {"0": count}, "chunks": {str(i): array(part) for i, part in enumerate(parts)}}
    with opened(pack({"w": cut})) as contents:
        assert contents.tensors["w"][start : start + length].tolist() == value[start : start + length].tolist()


def test_an_array_that_was_kept_apart_is_told_and_not_followed(tmp_path: Path) -> None:
    """The names of old multi-host files stay texts, whatever they lead to."""
    (tmp_path / "secret").write_bytes(b"secret")
    file = tmp_path / "checkpoint"
    file.write_bytes(pack({"a": "//GDAPlaceholder:../secret", "b": ["//ArrayPlaceholder:b"], "c": array(np.ones(1))}))
    with tk.open(file) as contents:
        assert [note.partition(":")[0] for note in contents.left_out] == ["a", "b.0"]
        assert contents.tree["a"] == "//GDAPlaceholder:../secret"


def test_plain_messagepack_reads_too() -> None:
    """Maps with texts, numbers and byte strings, without an array."""
    value = {"name": "é", "list": [1, -1, 2**63, 1.5, None, True], "bytes": b"\0\1", "deep": [[[]]], "": {}}
    with opened(pack(value)) as contents:
        assert contents.format == "MessagePack" and contents.tree == value


BROKEN: Final = {
    "a key twice": (b"\x83\xa1b" + pack(SMALL["params"]["w"]) + b"\xa1a\x01\xa1a\x02", "twice"),
    "a key that is a list": (b"\x82\xa1b" + pack(SMALL["params"]["w"]) + b"\x90\x02", "key"),
    "an unknown extension": (pack({"a": msgspec.msgpack.Ext(9, b"x" * 20), "b": SMALL["params"]["w"]}), "type 9"),
    "an unknown dtype": (pack({"a": msgspec.msgpack.Ext(1, pack(([1], "object", b"12345678")))}), "object"),
    "too few bytes": (pack({"a": msgspec.msgpack.Ext(1, pack(([9], "float32", b"12345678")))}), "36"),
    "a huge shape": (pack({"a": msgspec.msgpack.Ext(1, pack(([2**62, 2**62], "int8", b"")))}), "bytes"),
    "a negative length": (pack({"a": msgspec.msgpack.Ext(1, pack(([-1], "int8", b"")))}), "shape"),
    "an extension inside another": (pack({"a": msgspec.msgpack.Ext(1, pack(([SMALL["z"]], "int8", b"")))}), "inside"),
    "chunks that do not add up": (
        pack({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {"0": array(np.ones(2))}}}),
        "3",
    ),
    "chunks of two dtypes": (
        pack(
            {
                "a": {
                    "__msgpack_chunked_array__": True,
                    "shape": {"0": 2},
                    "chunks": {"0": array(np.ones(1)), "1": array(np.ones(1, np.int8))},
                }
            }
        ),
        "I8",
    ),
    "a count that cannot be": (pack({"a": SMALL["params"]["w"]})[:1] + b"\xa1b\xdd\xff\xff\xff\xff" + pack(SMALL["params"]["w"]), "count"),
    "nested deeper than allowed": (b"\x82\xa1b" + pack(SMALL["params"]["w"]) + b"\xa1a" + b"\x91" * 200 + b"\x00", "deeper"),
    "bytes behind its end": (pack(SMALL) + b"\0", "follow"),
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
            for _, leaf in walk(contents.tree):
                if isinstance(leaf, tk.LazyTensor):
                    leaf.tobytes()
    except tk.TensorkeepError:
        pass


def test_every_truncation_and_every_flipped_byte_ends_clearly() -> None:
    """Only errors of the library, or a reading."""
    data = pack(SMALL)
    for cut in range(1, len(data)):
        with pytest.raises(tk.TensorkeepError):
            opened(data[:cut])
    for place in range(len(data)):
        for bits in (0x01, 0x80, 0xFF):
            outcome(data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :])


@given(st.binary(max_size=60))
def test_any_bytes_behind_a_map_end_clearly(rest: bytes) -> None:
    """Whatever follows."""
    outcome(b"\x82\xa1a" + rest)


def test_many_values_are_refused_before_they_take_the_memory() -> None:
    """A file of small values is no way around the limits."""
    data = b"\x82\xa1b" + pack(SMALL["params"]["w"]) + b"\xa1a\xdd" + (300).to_bytes(4, "big") + b"\xc0" * 300
    assert len(opened(data).tree["a"]) == 300
    with pytest.raises(tk.FormatError, match="values"):
        opened(data, limits=tk.Limits(values=1000))


def test_flax_itself_agrees(tmp_path: Path) -> None:
    """What `to_bytes` writes reads as `msgpack_restore` reads it."""
    serialization = pytest.importorskip("flax.serialization")
    state = {"a": {"w": np.arange(3.0), "n": np.int32(3), "z": 2j}, "l": {"0": np.ones((2, 2), np.float16)}}
    data = serialization.msgpack_serialize(state)
    wanted = serialization.msgpack_restore(data)
    with opened(data) as contents:
        np.testing.assert_array_equal(contents.tensors["a.w"].numpy(), wanted["a"]["w"])
        np.testing.assert_array_equal(contents.tensors["l.0"].numpy(), wanted["l"]["0"])
        assert contents.tree["a"]["n"] == wanted["a"]["n"] and contents.tree["a"]["z"] == 2j

"""NumPy's arrays in pickles: every dtype, order and protocol, left in the file where they lie, and lies about them refused."""

import pickle
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tensorkeep as tk
from pickled import extent, named, number, text, tree
from same import assert_same_bits
from strategies import arrays, scalars
from tensorkeep.errors import FormatError
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Stub
from tensorkeep.wire.sources import Run, Strided

ARRAYS: list[np.ndarray[Any, Any]] = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(24, dtype="i2").reshape(2, 3, 4)),
    np.arange(6, dtype=">i4").reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)),
    np.array(["ab", "", "\U0001f600"]),
    np.array(["ab", "c"], ">U2"),
    np.array([b"ab", b"c\0d"]),
    np.array(["2020", "NaT"], "M8[25s]"),
    np.array([1, 2], "m8"),
    np.array(3.5),
    np.zeros((0, 3), "c16"),
    np.zeros((3, 0), ">c8", order="F"),
    np.array([True, False]),
    np.zeros(3, [("a", "<f4"), ("b", ">i2", (2,)), ("c", "U3")]),
    np.zeros(2, np.dtype([("a", "u1"), ("b", "f8")], align=True)),
    np.zeros(2, [("outer", [("inner", "f4"), ("other", "S2")])]),
    np.zeros(2, "V5"),
    np.zeros(2, "U0"),
    np.ones((2, 2), ml_dtypes.bfloat16),
    np.ones(3, ml_dtypes.float8_e4m3fn),
    np.ones(3, ml_dtypes.float4_e2m1fn),
    np.ones(3, ml_dtypes.int4),
    np.ones(4, ml_dtypes.uint4),
    np.arange(60_000.0).reshape(300, 200),
    np.arange(60_000, dtype=">i8").reshape(300, 200).T,
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{list(array.shape)}{'F' * (not array.flags.c_contiguous)}")
def test_every_kind_of_array_comes_back_bit_for_bit(array: np.ndarray[Any, Any], protocol: int) -> None:
    """Dtype with byte order, shape and bytes, whole and row by row."""
    found = tree(pickle.dumps(array, protocol))
    assert isinstance(found, LazyTensor)
    assert_same_bits(found.numpy(), np.ascontiguousarray(array).reshape(array.shape))
    if array.ndim:
        for row in range(min(3, len(array))):
            assert_same_bits(np.asarray(found[row]), np.asarray(np.ascontiguousarray(array)[row]))


@given(arrays, st.integers(0, 5))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_array_comes_back_bit_for_bit(array: np.ndarray[Any, Any], protocol: int) -> None:
    """Strided, reversed, read-only, big-endian: any array that pickle takes."""
    assert_same_bits(tree(pickle.dumps(array, protocol)).numpy(), np.array(array, order="C"))


@given(scalars, st.integers(0, 5))
def test_any_scalar_comes_back_bit_for_bit(scalar: Any, protocol: int) -> None:
    """Scalars keep type and bits."""
    data = pickle.dumps(scalar, protocol)
    assert_same_bits(tree(data), pickle.loads(data))


def test_large_arrays_are_not_read() -> None:
    """Their bytes stay in the file, in either order, whatever protocol 3 or newer wrote them."""
    array = np.arange(100_000.0).reshape(1000, 100)
    for protocol in (3, 4, 5):
        data = pickle.dumps([array, np.asfortranarray(array)], protocol)
        row_major, column_major = tree(data)
        assert type(row_major.source) is Run and row_major.source.extent.opened.file.nbytes == len(data)
        assert type(column_major.source) is Strided and column_major.source.extent.opened.file.nbytes == len(data)
        assert_same_bits(column_major.numpy(), array)


def test_bytes_beside_the_pickle_are_taken_from_where_they_are() -> None:
    """Protocol 5 may put the bytes of arrays elsewhere: given as extents or as bytes, they are found."""
    kept: list[pickle.PickleBuffer] = []
    array = np.arange(20_000.0).reshape(100, 200)
    data = pickle.dumps([array, array.T], 5, buffer_callback=kept.append)
    raw_bytes = [bytes(buffer.raw()) for buffer in kept]
    for buffers in (raw_bytes, [extent(buffer) for buffer in raw_bytes]):
        found = tree(data, buffers=buffers)
        assert_same_bits(found[0].numpy(), array)
        assert_same_bits(found[1].numpy(), np.ascontiguousarray(array.T))


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_objects_become_nested_lists(protocol: int) -> None:
    """Their items can be looked at, arrays among them as tensors."""
    inner = np.ones(2)
    array = np.empty((2, 2), object)
    array[:] = [[1, "a"], [None, inner]]
    found = tree(pickle.dumps(array, protocol))
    assert found[0] == [1, "a"] and found[1][0] is None and found[1][1].numpy().tolist() == [1, 1]
    assert tree(pickle.dumps(np.array({"a": 1}, object), protocol)) == {"a": 1}
    assert tree(pickle.dumps(np.empty((0, 5), object), protocol)) == []


@pytest.mark.parametrize("protocol", range(6))
def test_kinds_of_arrays_that_are_more_than_their_values_hold_tensors(protocol: int) -> None:
    """Masked arrays, records, matrices and random generators show their arrays at readable paths."""
    masked = tree(pickle.dumps(np.ma.masked_array([[1, 2], [3, 4]], [[0, 1], [0, 0]]), protocol))
    assert masked.name == "MaskedArray" and masked["data"].numpy().tolist() == [[1, 2], [3, 4]]
    assert masked["mask"].numpy().tolist() == [[False, True], [False, False]]
    assert tree(pickle.dumps(np.asmatrix([[1, 2]]), protocol)).numpy().tolist() == [[1, 2]]
    assert tree(pickle.dumps(np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), protocol)).dtype.numpy.names == ("a", "b")
    generator = tree(pickle.dumps(np.random.RandomState(1), protocol))
    assert isinstance(generator, Stub)
    assert generator["state"]["key"].numpy().tolist() == np.random.RandomState(1).get_state()[1].tolist()  # type: ignore[index]


def test_an_old_random_state_has_its_numbers_under_its_state() -> None:
    """`numpy.random.__RandomState_ctor` was given a tuple."""
    array = pickle.dumps(np.arange(3, dtype="u4"), 2)[2:-1]
    data = named("numpy.random", "__RandomState_ctor") + b")R(" + text("MT19937") + array + b"K\x05K\x00G" + bytes(8) + b"tb."
    found = tree(data)
    assert found["__state__"][1].numpy().tolist() == [0, 1, 2]


class Quantity(np.ndarray):  # type: ignore[type-arg]
    """Somebody's own kind of array."""


def test_a_class_of_arrays_that_is_not_numpys_is_a_stub_with_a_tensor() -> None:
    """What it is, and what it holds, can both be seen."""
    found = tree(pickle.dumps(np.ones(3).view(Quantity), 4))
    assert found.name == "Quantity" and found["data"].numpy().tolist() == [1, 1, 1]


def dtype_opcodes(code: str, state: bytes = b"") -> bytes:
    """`numpy.dtype(code)`, and its state."""
    return named("numpy", "dtype") + text(code) + b"K\x00K\x01\x87R" + state


PLAIN_STATE = b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def array_opcodes(shape: bytes, dtype: bytes, data: bytes, fortran: bytes = b"\x89") -> bytes:
    """An array with any shape, dtype and bytes."""
    made = named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"
    return made + b"(K\x01" + shape + dtype + fortran + data + b"tb."


EIGHT = b"C\x08" + bytes(8)


def record_state(names: bytes, fields: bytes, nbytes: int) -> bytes:
    """The state of a dtype with fields."""
    return b"(K\x03" + text("|") + b"N" + names + fields + number(nbytes) + b"K\x01K\x00tb"


LIES = {
    "fewer bytes than the shape": array_opcodes(b"K\x03\x85", dtype_opcodes("f4", PLAIN_STATE), EIGHT),
    "more bytes than the shape": array_opcodes(b"K\x01\x85", dtype_opcodes("f4", PLAIN_STATE), EIGHT),
    "a negative length": array_opcodes(b"J\xfe\xff\xff\xffJ\xff\xff\xff\xff\x86", dtype_opcodes("f4", PLAIN_STATE), EIGHT),
    "a length that is True": array_opcodes(b"\x88K\x02\x86", dtype_opcodes("f4", PLAIN_STATE), EIGHT),
    "a length of 2^62 times 0": array_opcodes(
        b"\x8a\x08" + (2**62).to_bytes(8, "little") + b"K\x00\x86", dtype_opcodes("f4", PLAIN_STATE), b"C\x00"
    ),
    "70 lengths": array_opcodes(b"(" + b"K\x01" * 70 + b"t", dtype_opcodes("f8", PLAIN_STATE), EIGHT),
    "a text as the shape": array_opcodes(text("2"), dtype_opcodes("f4", PLAIN_STATE), EIGHT),
    "a dtype that is a text": array_opcodes(b"K\x02\x85", text("f4"), EIGHT),
    "an unknown dtype": array_opcodes(b"K\x02\x85", dtype_opcodes("q9"), EIGHT),
    "a dtype to be evaluated": array_opcodes(b"K\x02\x85", dtype_opcodes("f4,f4"), EIGHT),
    "a text of 2^31 characters": array_opcodes(b"K\x00\x85", dtype_opcodes("U999999999"), b"C\x00"),
    "bytes that are a list": array_opcodes(b"K\x02\x85", dtype_opcodes("f4", PLAIN_STATE), b"]"),
    "objects that are bytes": array_opcodes(b"K\x02\x85", dtype_opcodes("O8", PLAIN_STATE), EIGHT),
    "more objects than there are": array_opcodes(b"M\xff\xffM\xff\xff\x86", dtype_opcodes("O8", PLAIN_STATE), b"]"),
    "a dtype with two states": array_opcodes(b"K\x02\x85", dtype_opcodes("f4", PLAIN_STATE * 2), EIGHT),
    "a field outside": dtype_opcodes("V4", record_state(text("a") + b"\x85", b"}" + text("a") + dtype_opcodes("f8") + b"K\x00\x86s", 4))
    + b".",
    "a field that is missing": dtype_opcodes("V4", record_state(text("a") + b"\x85", b"}", 4)) + b".",
    "a field with its own dtype in it": b"".join(
        [dtype_opcodes("V8"), b"q\x00", record_state(text("a") + b"\x85", b"}" + text("a") + b"h\x00K\x00\x86s", 8), b"."]
    ),
    "a dtype of 2^40 bytes": dtype_opcodes("V8", b"(K\x03" + text("|") + dtype_opcodes("f8") + number(2**30) + b"\x86NNK\x08K\x01K\x00tb."),
    "times in a unit that is none": dtype_opcodes("M8", b"(K\x04" + text("<") + b"NNNK\x08K\x08K\x00N(C\x03yrsK\x01K\x01K\x01t\x86tb."),
    "a scalar of other length": named("numpy.core.multiarray", "scalar") + dtype_opcodes("f4") + EIGHT + b"\x86R.",
    "a text beyond Unicode": named("numpy.core.multiarray", "scalar") + dtype_opcodes("U1") + b"C\x04\xff\xff\xff\xff\x86R.",
    "a buffer in an order that is none": named("numpy.core.numeric", "_frombuffer")
    + b"("
    + EIGHT
    + dtype_opcodes("f8")
    + b"K\x01\x85"
    + text("X")
    + b"tR.",
    "an array without a state": named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R.",
    "an array of no class": named("numpy.core.multiarray", "_reconstruct") + b"NK\x00\x85C\x01b\x87R.",
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_an_array_is_refused(lie: str) -> None:
    """Whatever does not fit together is refused before memory is taken."""
    with pytest.raises(FormatError):
        tree(LIES[lie])


def test_fields_shared_by_fields_are_counted_each_time() -> None:
    """Eight dtypes of ten fields each, one inside the other, would have a hundred million leaves."""
    dtype, data = dtype_opcodes("u1") + b"q\x00", b""
    names = b"(" + b"".join(text(str(field)) for field in range(10)) + b"t"
    for level in range(8):
        fields = b"}(" + b"".join(text(str(field)) + b"h" + bytes((level,)) + b"K\x00\x86" for field in range(10)) + b"u"
        data += dtype + b"0"
        dtype = dtype_opcodes("V1", record_state(names, fields, 1)) + b"q" + bytes((level + 1,))
    with pytest.raises(FormatError, match="10,000 fields"):
        tree(data + dtype + b".")


def test_extended_precision_is_a_tensor_under_numpys_own_name() -> None:
    """It differs from machine to machine: it can be read, and not be saved."""
    array = np.ones(2, np.longdouble)
    if array.dtype == np.float64:
        pytest.skip("longdouble is float64 here")
    found = tree(pickle.dumps(array, 4))
    assert str(found.dtype) == array.dtype.str and found.tobytes() == array.tobytes()
    with pytest.raises(tk.UnsupportedError, match="no name for"):
        tk.dumps({"w": found})

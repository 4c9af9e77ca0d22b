"""Generated states: everything that a file keeps, nested anyhow."""

import argparse
import datetime as dt
import pathlib
import struct
import types
from collections import Counter, OrderedDict, defaultdict, deque

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

ML_DTYPES = [
    np.dtype(getattr(ml_dtypes, name))
    for name in (
        *("bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2"),
        *("float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn", "int4", "uint4", "int2", "uint2"),
    )
    if hasattr(ml_dtypes, name)
]
_FLOAT_BITS = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack(">d", bits.to_bytes(8, "big"))[0])
floats = st.floats(allow_nan=True) | _FLOAT_BITS
texts = st.text(max_size=20) | st.text(st.characters(codec=None), max_size=8)  # surrogates too
moments = st.datetimes(timezones=st.none() | st.just(dt.UTC) | st.integers(-1439, 1439).map(lambda m: dt.timezone(dt.timedelta(minutes=m))))
keys = st.recursive(
    st.none() | st.booleans() | st.integers() | floats.filter(lambda value: value == value) | texts | st.binary(max_size=8),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=2),
    max_leaves=3,
)


def _weird(array: np.ndarray) -> st.SearchStrategy[np.ndarray]:
    """The same values in another memory: Fortran order, reversed, strided, read-only, big-endian."""
    frozen = array.copy()
    frozen.flags.writeable = False
    forms = [array, np.asfortranarray(array), array[::-1] if array.ndim else array, array.T, frozen]
    if array.dtype.names is None and array.dtype.kind in "iufcMmU":
        forms.append(array.astype(array.dtype.newbyteorder(">")))
    if array.ndim and array.shape[0] > 1:
        forms.append(array[::2])
    return st.sampled_from(forms)


@st.composite
def ml_arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays of the types that NumPy itself lacks."""
    dtype = draw(st.sampled_from(ML_DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    return np.asarray(draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 1)))).astype(dtype)


standard = (
    hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.unsigned_integer_dtypes() | hnp.floating_dtypes(sizes=(16, 32, 64))
    | hnp.complex_number_dtypes(sizes=(64, 128)) | hnp.unicode_string_dtypes(max_len=5) | hnp.byte_string_dtypes(max_len=5)
    | hnp.datetime64_dtypes() | hnp.timedelta64_dtypes() | hnp.array_dtypes(hnp.integer_dtypes() | hnp.floating_dtypes(sizes=(32, 64)))
).filter(lambda dtype: np.dtype(dtype).names is None or all(len(field) == 2 for field in np.dtype(dtype).fields.values()))  # fmt: skip
arrays = (hnp.arrays(standard, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6)).flatmap(_weird) | ml_arrays()).filter(
    lambda array: array.dtype.itemsize > 0 and array.dtype.subdtype is None
)
scalars = hnp.arrays(standard, ()).map(lambda array: array[()]).filter(lambda value: isinstance(value, np.generic))
plain = (
    st.none() | st.booleans() | st.integers() | st.integers(min_value=2**60, max_value=2**4000) | floats | st.complex_numbers() | texts
    | st.binary(max_size=30) | st.binary(max_size=10).map(bytearray) | moments | st.dates() | st.times() | st.timedeltas()
    | st.sampled_from([range(3), range(9, 0, -2), slice(None), slice(1, 2, 3), np.dtype("f4"), np.dtype(">i2"), dt.UTC])
    | st.sampled_from([pathlib.Path("a/b"), pathlib.PurePosixPath("/x"), pathlib.PureWindowsPath("c:\\y")])
    | st.sets(keys, max_size=4) | st.frozensets(keys, max_size=3) | scalars
)  # fmt: skip


def containers(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Every container that a tree knows."""
    dicts = st.dictionaries(keys, inner, max_size=4)
    named = st.dictionaries(st.sampled_from(["a", "b", "layer"]), inner, max_size=3)
    return (
        dicts | dicts.map(OrderedDict) | dicts.map(lambda d: defaultdict(list, d)) | st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple) | st.lists(inner, max_size=3).map(lambda items: deque(items, 5))
        | named.map(lambda d: types.SimpleNamespace(**d)) | named.map(lambda d: argparse.Namespace(**d))
        | st.dictionaries(texts, st.integers(), max_size=3).map(Counter) | inner.map(lambda value: [value, value])
    )  # fmt: skip


def states() -> st.SearchStrategy[object]:
    """Any state."""
    return st.recursive(plain | arrays, containers, max_leaves=12)

"""Comparing states bit for bit: types, values, NaN payloads, dtypes, byte orders, shapes, order of keys, ties."""

import argparse
import dataclasses
import struct
import types
from collections import defaultdict, deque
from typing import Any

import numpy as np


def assert_same_bits(found: Any, wanted: Any, where: str = "state", ties: dict[int, int] | None = None) -> None:
    """Fail, naming the place, if two states differ in any bit that a file keeps."""
    ties = {} if ties is None else ties
    assert type(found) is type(wanted), f"{where}: {type(found)} is not {type(wanted)}"
    if isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype, f"{where}: {found.dtype} is not {wanted.dtype}"
        assert found.shape == wanted.shape, f"{where}: {found.shape} is not {wanted.shape}"
        assert found.tobytes() == wanted.tobytes(), f"{where}: other bits"
        if wanted.size:
            assert ties.setdefault(id(wanted), id(found)) == id(found), f"{where}: a tie was lost"
    elif isinstance(wanted, dict):
        assert len(found) == len(wanted), f"{where}: {len(found)} keys are not {len(wanted)}"
        for (found_key, found_child), (wanted_key, wanted_child) in zip(found.items(), wanted.items(), strict=True):
            assert_same_bits(found_key, wanted_key, f"{where} key", ties)
            assert_same_bits(found_child, wanted_child, f"{where}[{wanted_key!r}]", ties)
        if isinstance(wanted, defaultdict):
            assert found.default_factory is wanted.default_factory, where
    elif isinstance(wanted, (list, tuple, deque)):
        assert len(found) == len(wanted), f"{where}: {len(found)} items are not {len(wanted)}"
        for number, (found_child, wanted_child) in enumerate(zip(found, wanted, strict=True)):
            assert_same_bits(found_child, wanted_child, f"{where}[{number}]", ties)
        assert not isinstance(wanted, deque) or found.maxlen == wanted.maxlen, where
    elif isinstance(wanted, (set, frozenset)):
        assert found == wanted, where
        assert sorted(str(type(item)) for item in found) == sorted(str(type(item)) for item in wanted), where
    elif isinstance(wanted, float):
        assert struct.pack(">d", found) == struct.pack(">d", wanted), f"{where}: {found!r} is not {wanted!r}"
    elif isinstance(wanted, complex):
        assert struct.pack(">dd", found.real, found.imag) == struct.pack(">dd", wanted.real, wanted.imag), where
    elif isinstance(wanted, np.generic) or type(wanted).__module__ == "ml_dtypes":
        assert np.asarray(found).dtype == np.asarray(wanted).dtype, where
        assert np.asarray(found).tobytes() == np.asarray(wanted).tobytes(), where
    elif dataclasses.is_dataclass(wanted):
        for field in dataclasses.fields(wanted):
            assert_same_bits(getattr(found, field.name), getattr(wanted, field.name), f"{where}.{field.name}", ties)
    elif isinstance(wanted, (argparse.Namespace, types.SimpleNamespace)):
        assert_same_bits(vars(found), vars(wanted), where, ties)
    elif hasattr(wanted, "bit_generator"):
        assert found.bit_generator.state == wanted.bit_generator.state, where
    else:
        assert found == wanted, f"{where}: {found!r} is not {wanted!r}"
        assert getattr(found, "fold", 0) == getattr(wanted, "fold", 0), where

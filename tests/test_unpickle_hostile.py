"""Pickles that were made to harm: every opcode abused, every byte changed, and little that asks for much. Each is refused, or read soon."""

import collections
import datetime
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft import soon
from pickled import named, raw, text, tree
from tensorkeep.errors import FormatError
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.unpickle.opcodes import HANDLERS

REFUSALS = (FormatError,)
SAMPLE = [
    {"w": np.ones((1, 2), np.float32), 1: [1.5, None, True, 2**40, -1], "t": (1, (2,), (3, 4, 5), "é")},
    *(collections.OrderedDict(a=1), {1, 2}, frozenset("ab"), b"bytes", bytearray(b"more"), 300, 70_000, 3 + 4j, slice(1, 2)),
    *(datetime.datetime(2020, 1, 2), np.float64(2.5), np.array([1, "a"], object), collections.deque([1], 2), OSError("an object"), len),
]

LEFT: dict[str, bytes] = {
    "nothing": b"",
    "a mark": b"(",
    "None": b"N",
    "an int": b"K\x05",
    "a text": text("a"),
    "a list": b"]",
    "a dict": b"}",
    "a tuple": b"K\x01\x85",
    "a set": b"\x8f",
    "a class": named("a", "B"),
    "a known class": named("collections", "OrderedDict"),
    "an object": named("a", "B") + b")R",
    "bytes": b"C\x01a",
    "an array to come": named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R",
    "a dtype": named("numpy", "dtype") + text("f4") + b"K\x00K\x01\x87R",
    "an ordered dict": named("collections", "OrderedDict") + b")R",
}
AFTER = [b"", b"\x01" * 9, b"a\nb\n"]


@pytest.mark.parametrize("left", LEFT)
def test_every_opcode_on_every_kind_of_thing_is_refused_or_read(left: str) -> None:
    """All 256 bytes as opcodes, on one, two and three things of a kind, with and without a mark, and whatever behind them."""
    for opcode in range(256):
        for below in (LEFT[left], LEFT[left] * 3, b"(" + LEFT[left], b"]" + LEFT[left], b"}N" + LEFT[left]):
            for after in AFTER:
                try:
                    tree(below + bytes((opcode,)) + after + b".")
                except REFUSALS:
                    continue


@pytest.mark.parametrize("protocol", range(6))
def test_every_truncation_is_refused(protocol: int) -> None:
    """A pickle that ends early is never taken for whole."""
    data = pickle.dumps(SAMPLE, protocol)
    for length in range(len(data)):
        with pytest.raises(FormatError):
            tree(data[:length])


@pytest.mark.parametrize("protocol", range(6))
def test_every_changed_byte_is_refused_or_read(protocol: int) -> None:
    """Any byte changed to any of some values gives a tree or a clear error, nothing else."""
    data = pickle.dumps(SAMPLE, protocol)
    for place in range(len(data)):
        for value in {data[place] ^ 1, 0xFF, ord("R")}:
            changed = data[:place] + bytes((value,)) + data[place + 1 :]
            try:
                tree(changed)
            except REFUSALS:
                continue


OPCODES = [bytes((code,)) for code in (*HANDLERS, *b"(.KJMGX]})teu\x85\x86\x87\x94qrhjRNb")]


@given(st.lists(st.sampled_from(OPCODES) | st.binary(max_size=3), max_size=60))
def test_any_run_of_opcodes_is_refused_or_read(parts: list[bytes]) -> None:
    """Opcodes in any order, with any bytes between them."""
    try:
        tree(b"".join(parts) + b".")
    except REFUSALS:
        return


def test_lengths_are_held_against_the_file() -> None:
    """No length is believed: neither 4 GB of text nor 2^63 bytes take memory."""
    most = b"\xff" * 8
    huge = [b"X" + most[:4], b"\x8d" + most, b"B" + most[:4], b"\x8e" + most[:7] + b"\x7f", b"\x96" + most, b"\x95" + most]
    huge += [b"T" + most[:4], b"T" + most[:3] + b"\x7f", b"\x8b" + most[:4], b"\x8b" + most[:3] + b"\x7f"]
    for opcode in huge:
        with pytest.raises(FormatError):
            tree(opcode + b"abc.")
    assert raw(b"Nr\xff\xff\xff\xff.").value is None  # a number of the memo is no size


def test_a_number_of_the_memo_that_was_never_given_is_refused() -> None:
    """Neither one in a gap nor one beyond the end stands for anything."""
    gap = b"Nr\x00\x00\x01\x00"
    for data in (b"h\x00.", b"j\x00\x00\x00\x01.", b"g5\n.", b"g-1\n.", b"Nq\x05h\x04.", gap + b"j\x01\x00\x00\x00.", b"Np-1\n."):
        with pytest.raises(FormatError):
            raw(data)
    assert raw(b"Nq\x05K\x07\x94h\x01.").value == 7  # MEMOIZE counts what is there, as CPython does
    assert raw(b"K\x01q\x050K\x02q\x010K\x03q\x000h\x05h\x01h\x00\x87.").value == (1, 2, 3)


def of_bytes(nbytes: int, part: bytes, before: bytes) -> bytes:
    """One opcode after the other, so many bytes of them."""
    return before + part * (nbytes // len(part)) + b"."


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


ALIKE = 2**61 - 1  # ints that differ by it have the same hash
LAUGH = b")" + b"2\x86" * 63
LISTS = b"K\x01" + b"".join(b"](q%ch%ch%ce" % (i + 1, i, i) if i else b"]q\x00]q\x01" for i in range(40))
SIXTY = bytes(60_000)
RECONSTRUCT = named("numpy.core.multiarray", "_reconstruct") + b"\x94" + named("numpy", "ndarray") + b"K\x00\x85U\x01b\x87\x940"
OBJECTS = named("numpy", "dtype") + text("O8") + b"K\x00K\x01\x87R\x94(" + b"N" * 50_000 + b"l\x94"


def alike(count: int, after: bytes = b"") -> bytes:
    """Ints of the same hash."""
    return b"".join(b"\x8a\x0b" + (ALIKE * i + 1).to_bytes(11, "little") + after for i in range(count))


ONLY = {
    "lists": b"]",
    "dicts": b"}",
    "sets": b"\x8f",
    "tuples of one": b"\x85",
    "marks and tuples": b"(t",
    "memo": b"\x94",
    "dicts of one": b"}NNs",
    "DICT of one": b"(NNd",
    "frozensets": b"(K\x01\x91",
    "ints as text": b"I1\n",
    "dups": b"2",
    "instances": b"(ios\nsystem\n",
    "appends to itself": b"h\x00a",
    "bytearrays": b"\x96\x01\0\0\0\0\0\0\0a",
    "texts": b"\x8c\x02\xc4\x80",
}
OVER_AND_OVER = {  # what is remembered first, and what is done with it again and again
    "a long key": ((b"X" + u32(60_000) + b"a" * 60_000 + b"\x94") * 2 + b"}", b"h\x00Nsh\x01Ns"),
    "a huge int as a key": (b"\x8b" + u32(60_000) + b"\x01" * 60_000 + b"\x94}", b"h\x00Ns"),
    "a key of many parts": (b")" + b"2\x86" * 12 + b"\x94}", b"h\x00Ns"),
    "sets of one long list": (named("builtins", "set") + b"\x94(" + b"K\x01" * 60_000 + b"l\x94", b"h\x00h\x01\x85R0"),
    "copies of bytes": (named("builtins", "bytearray") + b"\x94B" + u32(60_000) + SIXTY + b"\x94", b"h\x00h\x01\x85R"),
    "copies of text": (named("_codecs", "encode") + b"\x94X" + u32(60_000) + SIXTY + text("latin1") + b"\x86\x94", b"h\x00h\x01R"),
    "paths": (named("pathlib", "PurePosixPath") + b"\x94" + text("a/" * 100) + b"\x85\x94", b"h\x00h\x01R"),
    "ordered dicts": (named("collections", "OrderedDict") + b"\x94", b"h\x00)R"),
    "calls of calls": (named("a", "b"), b")R"),
    "states": (named("a", "b") + b")R", b"Nb"),
    "lists out of an array": (RECONSTRUCT + OBJECTS, b"h\x00h\x01R(K\x01(M\xa8aK\x02th\x02\x89h\x03tb"),
}
DEMANDS: dict[str, Callable[[int], bytes]] = {
    **{f"only {name}": lambda nbytes, part=part: of_bytes(nbytes, part, b"]q\x00") for name, part in ONLY.items()},  # type: ignore[misc]
    **{name: lambda nbytes, how=how: of_bytes(nbytes, how[1], how[0]) for name, how in OVER_AND_OVER.items()},  # type: ignore[misc]
    "only marks": lambda nbytes: b"(" * nbytes,
    "laughs": lambda nbytes: LAUGH + b".",
    "lists that laugh": lambda nbytes: LISTS + b".",
    "laughs as a key": lambda nbytes: LAUGH + b"q\x00}h\x00Ns.",
    "laughs in a set": lambda nbytes: named("builtins", "set") + b"(" + LAUGH + b"l\x85R.",
    "laughs as arguments": lambda nbytes: named("os", "system") + LAUGH + b"R.",
    "a deep tuple as a key": lambda nbytes: b")" + b"\x85" * nbytes + b"q\x00}h\x00Ns.",
    "deep lists": lambda nbytes: b"]" * (nbytes // 2) + b"a" * (nbytes // 2 - 1) + b".",
    "deep tuples": lambda nbytes: of_bytes(nbytes, b"\x85", b")"),
    "keys of one hash": lambda nbytes: b"}(" + alike(nbytes // 14, b"N") + b"u.",
    "keys of one hash, singly": lambda nbytes: b"}" + alike(nbytes // 15, b"Ns") + b".",
    "items of one hash": lambda nbytes: b"\x8f(" + alike(nbytes // 13) + b"\x90.",
    "globals": lambda nbytes: b"".join(b"c%x\nb\n" % i for i in range(nbytes // 8)) + b".",
    "numbers of the memo": lambda nbytes: b"N" + b"".join(b"r" + u32(i * 77) for i in range(nbytes // 5)) + b".",
    "an int of many digits": lambda nbytes: b"I" + b"9" * nbytes + b"\n.",
    "a long of many digits": lambda nbytes: b"L" + b"9" * nbytes + b"L\n.",
    "a float of many digits": lambda nbytes: b"F" + b"9" * nbytes + b"\n.",
    "a text of escapes": lambda nbytes: b"S'" + b"\\x41" * (nbytes // 4) + b"'\n.",
    "a long name": lambda nbytes: b"c" + b"a" * nbytes + b"\nb\n.",
    "children of a long key": lambda nbytes: b"}X" + u32(nbytes // 2) + b"a" * (nbytes // 2) + b"](" + b"]" * (nbytes // 2) + b"es.",
}


@pytest.mark.parametrize("demand", DEMANDS)
def test_a_small_file_that_asks_for_much_gets_little(demand: str) -> None:
    """Some 100 KB never take 100 MB, nor more than a moment, whatever stands in them."""
    data = DEMANDS[demand](100_000)
    tracemalloc.start()
    try:
        with soon(40.0):  # tracing makes it some ten times slower
            tree(data)
    except REFUSALS:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100 << 20


def test_the_demands_are_refused_where_honest_pickles_ask_for_none_of_them() -> None:
    """What makes no sense in a genuine pickle is an error, not only slow."""
    for demand in ("only marks", "laughs", "laughs as a key", "laughs in a set", "deep lists", "a long of many digits", "states"):
        with pytest.raises(FormatError):
            tree(DEMANDS[demand](100_000))
    for demand in ("only lists", "keys of one hash", "keys of one hash, singly", "items of one hash", "copies of bytes"):
        with pytest.raises(FormatError):
            tree(DEMANDS[demand](1_000_000))


def test_an_honest_pickle_of_many_small_things_is_read() -> None:
    """The bounds are far from what genuine files have: records of five values, keys of numbers."""
    records = [{"id": i, "name": f"n{i}", "at": (i, i + 1), "tags": [], "value": i / 7} for i in range(20_000)]
    assert tree(pickle.dumps(records, 4)) == records
    keys = {(i, f"k{i}"): i for i in range(10_000)} | dict.fromkeys(range(50000)) | {float(i) + 0.5: 1 for i in range(10_000)}
    assert tree(pickle.dumps(keys, 4)) == keys


def test_a_shared_list_is_counted_each_time_it_is_met() -> None:
    """Few honest shares are fine; a file of a kilobyte whose tree would be walked for ever is refused."""
    shared: Any = list(range(100))
    assert tree(pickle.dumps([shared] * 1000)) == [shared] * 1000
    for _ in range(14):
        shared = [shared, shared]
    with pytest.raises(FormatError, match="counted each time"):
        tree(pickle.dumps(shared))


def test_limits_can_be_raised_by_who_trusts_a_file() -> None:
    """A deep list is read where the caller allows it, up to what Python itself can follow."""
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep]
    with pytest.raises(FormatError, match="nested deeper"):
        tree(pickle.dumps(deep))
    assert tree(pickle.dumps(deep), limits=Limits(depth=200)) == deep
    data = b"]" * 50_000 + b"a" * 49_999 + b"."
    with pytest.raises(FormatError, match="Python can follow"):
        tree(data, limits=Limits(depth=1_000_000))
    assert DEFAULT_LIMITS.depth == 100

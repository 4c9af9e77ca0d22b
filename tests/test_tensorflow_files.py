"""TensorFlow's checkpoints and SavedModels: read as TensorFlow reads them, every entry checked, and refused clearly where broken."""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorkeep as tk

# --- Small writers, by the formats' descriptions --------------------------------------------------------------------------------------


def crc32c(data: bytes) -> int:
    """Bit by bit, as RFC 3720 has it."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fixed32(number: int, value: int) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<I", value)


def shape(lengths: Iterable[int]) -> bytes:
    return b"".join(field(2, field(1, length)) for length in lengths)


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A block with shared prefixes and one restart."""
    out, last = b"", b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return out + struct.pack("<II", 0, 1)


def snappy(data: bytes) -> bytes:
    """Literals, and one copy where the data repeat."""
    out = varint(len(data))
    for start in range(0, len(data), 60):
        part = data[start : start + 60]
        if start and part == data[start - 60 : start]:
            out += bytes([len(part) - 1 << 2 | 2]) + struct.pack("<H", 60)
        else:
            out += bytes([len(part) - 1 << 2]) + part
    return out


def table(entries: dict[bytes, bytes], *, each: int = 3, packed: bool = False) -> bytes:
    """A LevelDB table of blocks of a few entries."""
    out, index = b"", []

    def add(content: bytes) -> bytes:
        nonlocal out
        kind = bytes([packed])
        content = snappy(content) if packed else content
        handle = varint(len(out)) + varint(len(content))
        out += content + kind + struct.pack("<I", masked(content + kind))
        return handle

    items = sorted(entries.items())
    for start in range(0, len(items), each):
        index.append((items[min(start + each, len(items)) - 1][0], add(block(items[start : start + each]))))
    handles = add(block([])) + add(block(index))
    return out + handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


DTYPES: Final = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int8": 6, "complex64": 8, "int64": 9, "bool": 10, "bfloat16": 14}


def entry(value: np.ndarray, start: int, *, shard: int = 0, data: bytes | None = None, **other: int) -> bytes:
    data = value.tobytes() if data is None else data
    number = other.get("number", DTYPES.get(value.dtype.name, 1))
    message = field(1, number) + field(2, shape(value.shape)) + field(3, shard) + field(4, start)
    return message + field(5, other.get("nbytes", len(data))) + fixed32(6, other.get("checksum", masked(data)))


def write_bundle(prefix: Path, values: dict[str, np.ndarray], *, big: bool = False, **options: Any) -> None:
    """A checkpoint of one shard."""
    data, entries = b"", {b"": field(1, 1) + field(2, int(big))}
    for name, value in values.items():
        raw = value.astype(value.dtype.newbyteorder(">")).tobytes() if big else value.tobytes()
        entries[name.encode()] = entry(value, len(data), data=raw)
        data += raw
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(entries, **options))


VALUES: Final = {
    "layer/kernel": np.arange(12, dtype=np.float32).reshape(3, 4),
    "layer/bias": np.ones(3, ml_dtypes.bfloat16),
    "layer/c": np.array([1 + 2j, 3], np.complex64),
    "step": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.int32),
    "mask": np.array([True, False]),
}


def assert_holds(contents: tk.Contents, values: dict[str, np.ndarray]) -> None:
    assert sorted(contents.tensors) == sorted(values)
    for name, value in values.items():
        found = contents.tensors[name].numpy()
        assert found.dtype == value.dtype and found.shape == value.shape and found.tobytes() == value.tobytes()


# --- Checkpoints ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "snappy"])
@pytest.mark.parametrize("big", [False, True], ids=["little-endian", "big-endian"])
def test_a_checkpoint_reads_by_prefix_and_by_its_index(tmp_path: Path, packed: bool, big: bool) -> None:
    """The prefix is no file, and opens all the same; whatever the byte order and the blocks of the index."""
    write_bundle(tmp_path / "model.ckpt", VALUES, packed=packed, big=big)
    for name in ("model.ckpt", "model.ckpt.index"):
        with tk.open(tmp_path / name) as contents:
            assert_holds(contents, VALUES)
            assert contents.tensors["layer/kernel"][1:].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    with tk.open(tmp_path / "model.ckpt") as contents:
        assert contents.checksum == "CRC-32C" and contents.storage.survey(None) == []


def test_the_latest_of_a_folder_is_opened_and_the_others_are_told(tmp_path: Path) -> None:
    """As the file `checkpoint` names it, whose path is that of another machine: only its last part counts."""
    write_bundle(tmp_path / "ckpt-1", {"w": np.zeros(1)})
    write_bundle(tmp_path / "ckpt-2", {"w": np.ones(1)})
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/home/else/../ckpt-1"\nall_model_checkpoint_paths: "ckpt-2"\n')
    with tk.open(tmp_path) as contents:
        assert contents.tensors["w"].numpy().tolist() == [0] and contents.metadata["checkpoint"] == "ckpt-1"
        assert "ckpt-2" in contents.left_out[0]
    (tmp_path / "checkpoint").unlink()
    write_bundle(tmp_path / "ckpt-10", {"w": np.full(1, 10.0)})
    assert tk.load(tmp_path)["w"].tolist() == [10]


def test_a_partitioned_variable_is_put_together(tmp_path: Path) -> None:
    """Slices along an axis, each an entry of its own, whose key is written in order."""
    whole = np.arange(260, dtype=np.float32).reshape(130, 2)
    cuts = [(0, 60), (60, 70)]
    slices = b"".join(field(7, field(1, field(1, start) + field(2, count)) + field(1, b"")) for start, count in cuts)
    head = field(1, 1) + field(2, shape(whole.shape)) + slices
    keys = [  # a number from 0, the name, its end, the rank; then start and length along each axis, -1 for the whole of it
        b"\0part\0\1\1\2" + ordered(start) + ordered(count) + ordered(0) + ordered(-1) for start, count in cuts
    ]
    entries = {b"": field(1, 1), b"part": head}
    data = b""
    for key, (start, count) in zip(keys, cuts, strict=True):
        part = whole[start : start + count]
        entries[key] = entry(part, len(data))
        data += part.tobytes()
    (tmp_path / "p.data-00000-of-00001").write_bytes(data)
    (tmp_path / "p.index").write_bytes(table(entries))
    with tk.open(tmp_path / "p") as contents:
        assert_holds(contents, {"part": whole})
        assert contents.tensors["part"][59:62].tolist() == whole[59:62].tolist()
    (tmp_path / "p.data-00000-of-00001").write_bytes(data[:-1] + b"\x7f")
    with pytest.raises(tk.CorruptError):
        tk.load(tmp_path / "p")


def ordered(value: int) -> bytes:
    """Signed numbers of one or two bytes, as `ordered_code.cc` has them."""
    return bytes([0x80 ^ value & 0xFF]) if -64 <= value < 64 else struct.pack(">H", 0xC000 ^ value & 0xFFFF)


def texts(values: list[bytes]) -> tuple[bytes, int]:
    """The bytes of a tensor of texts, and its checksum."""
    lengths = b"".join(struct.pack("<I", len(value)) for value in values)
    stored = struct.pack("<I", masked(lengths))
    return b"".join(varint(len(value)) for value in values) + stored + b"".join(values), masked(lengths + stored + b"".join(values))


def test_texts_are_values_and_the_object_graph_gives_names(tmp_path: Path) -> None:
    """Texts come as byte strings in the tensor's shape; the graph's own names of variables stand in the metadata."""
    graph = field(1, field(2, field(1, "VARIABLE_VALUE") + field(2, "dense/kernel") + field(3, "w/.ATTRIBUTES/VARIABLE_VALUE")))
    first, first_sum = texts([b"a", b"bcd", b"", b"\xff"])
    second, second_sum = texts([graph])
    w = np.ones(2, np.float32)
    entries = {
        b"": field(1, 1),
        b"names": entry(np.zeros((2, 2)), 0, data=first, number=7, checksum=first_sum),
        b"_CHECKPOINTABLE_OBJECT_GRAPH": entry(np.array(0), len(first), data=second, number=7, checksum=second_sum),
        b"w/.ATTRIBUTES/VARIABLE_VALUE": entry(w, len(first + second)),
        b"other": entry(np.zeros(1), 0, number=21),
    }
    (tmp_path / "t.data-00000-of-00001").write_bytes(first + second + w.tobytes())
    (tmp_path / "t.index").write_bytes(table(entries))
    with tk.open(tmp_path / "t") as contents:
        assert contents.tree["names"] == [[b"a", b"bcd"], [b"", b"\xff"]]
        assert contents.metadata["variable names"] == {"w/.ATTRIBUTES/VARIABLE_VALUE": "dense/kernel"}
        assert list(contents.tensors) == ["w/.ATTRIBUTES/VARIABLE_VALUE"]
        assert "variant" in contents.left_out[0]
    (tmp_path / "t.data-00000-of-00001").write_bytes(b"\1\4" + (first + second + w.tobytes())[2:])
    with pytest.raises(tk.TensorkeepError):
        tk.open(tmp_path / "t")


def test_a_checkpoint_of_version_1_reads(tmp_path: Path) -> None:
    """One table that holds the values themselves, as floats or as numbers of variable length."""
    cut = field(1, b"") + field(1, b"")
    whole = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array([[-1, 300]], np.int32)}
    listed = b"".join(
        field(1, field(1, name) + field(2, shape(a.shape)) + field(3, DTYPES[a.dtype.name]) + field(4, cut)) for name, a in whole.items()
    )
    numbers = {"w": field(5, whole["w"].tobytes()), "n": field(7, varint(-1) + varint(300))}
    entries = {b"": field(1, listed)} | {
        b"\0" + name.encode() + b"\0\1\1\2" + 2 * (ordered(0) + ordered(-1)): field(2, field(1, name) + field(2, cut) + field(3, value))
        for name, value in numbers.items()
    }
    (tmp_path / "v1.ckpt").write_bytes(table(entries))
    with tk.open(tmp_path / "v1.ckpt") as contents:
        assert contents.version == "1"
        assert_holds(contents, whole)


def test_damage_is_found_by_load_and_by_a_survey(tmp_path: Path) -> None:
    """The checksum of an entry covers its bytes; the block's own covers the index."""
    write_bundle(tmp_path / "m", VALUES)
    data = tmp_path / "m.data-00000-of-00001"
    good = data.read_bytes()
    data.write_bytes(good[:5] + bytes([good[5] ^ 1]) + good[6:])
    with pytest.raises(tk.CorruptError, match="CRC-32C"):
        tk.load(tmp_path / "m")
    with tk.open(tmp_path / "m") as contents:
        assert [path for path, *_ in contents.storage.survey(None)] == ["layer/kernel"]
    assert [damage.path for damage in tk.verify(tmp_path / "m").damaged] == ["layer/kernel"]
    assert tk.load(tmp_path / "m", verify=False)["step"] == 7


# --- SavedModels ----------------------------------------------------------------------------------------------------------------------


def write_saved_model(folder: Path) -> None:
    (folder / "variables").mkdir(parents=True)
    (folder / "assets").mkdir()
    (folder / "assets" / "words.txt").write_text("a")
    write_bundle(folder / "variables" / "variables", VALUES)
    argument = field(1, "x") + field(2, field(1, "x:0") + field(2, 1) + field(3, field(2, field(1, -1)) + field(2, field(1, 4))))
    signature = field(1, "serve") + field(2, field(1, argument))
    graph = field(1, field(2, "Const") + field(1, "c")) + field(2, field(1, field(3, field(2, "ReadFile"))))
    info = field(4, "tag") + field(5, "2.99")
    (folder / "saved_model.pb").write_bytes(field(1, 1) + field(2, field(1, info) + field(2, graph) + field(5, signature)))


def test_a_saved_model_gives_its_variables_and_says_what_its_graph_is(tmp_path: Path) -> None:
    """Tags, signatures and a count of operations, those of functions too; by the folder or by the file in it."""
    write_saved_model(tmp_path / "m")
    for name in ("m", "m/saved_model.pb"):
        with tk.open(tmp_path / name) as contents:
            assert_holds(contents, VALUES)
            (graph,) = contents.metadata["graphs"]
            assert graph["tags"] == ["tag"] and contents.writer == "TensorFlow 2.99"
            assert graph["signatures"] == {"serve": {"inputs": {"x": "float32[?,4]"}, "outputs": {}}}
            assert graph["operations"] == {"Const": 1, "ReadFile": 1}
    assert any("words.txt" in note for note in tk.open(tmp_path / "m").left_out)


def test_a_saved_model_without_variables_gives_the_constants_of_its_graph(tmp_path: Path) -> None:
    """Weights may be frozen into the graph; that there are no variables is told."""
    w = const("w", tensor_proto(1, [2], field(4, np.ones(2, np.float32).tobytes())))
    (tmp_path / "saved_model.pb").write_bytes(field(1, 1) + field(2, field(2, field(1, w))))
    with tk.open(tmp_path) as contents:
        assert contents.tensors["w"].numpy().tolist() == [1, 1]
        assert "variables" in contents.left_out[0]


# --- Frozen graphs --------------------------------------------------------------------------------------------------------------------


def const(name: str, tensor: bytes) -> bytes:
    return (
        field(1, name)
        + field(2, "Const")
        + field(5, field(1, "dtype") + field(2, field(6, 1)))
        + field(5, field(1, "value") + field(2, field(8, tensor)))
    )


def tensor_proto(dtype: int, lengths: list[int], values: bytes) -> bytes:
    return field(1, dtype) + field(2, shape(lengths)) + values


GRAPH: Final = b"".join(
    field(1, node)
    for node in (
        field(1, "x") + field(2, "Placeholder"),
        const("w", tensor_proto(1, [2, 3], field(4, np.arange(6, dtype=np.float32).tobytes()))),
        const("fill", tensor_proto(1, [1000, 1000], field(5, struct.pack("<f", 2.5)))),
        const("ints", tensor_proto(3, [3], field(7, varint(-1) + varint(2)))),
        const("half", tensor_proto(19, [2], field(13, varint(0x3C00) + varint(0x4000)))),
        const("text", field(1, 7) + field(2, b"") + field(8, b"abc")),
        const("none", tensor_proto(20, [], b"")),
    )
) + field(2, field(1, field(1, field(1, "f")) + field(3, const("c", tensor_proto(9, [1], field(10, varint(5)))))))


def test_the_constants_of_a_frozen_graph_are_tensors(tmp_path: Path) -> None:
    """As bytes, as values of each kind, or as one value for all that follow; those of functions too."""
    (tmp_path / "frozen.pb").write_bytes(GRAPH)
    with tk.open(tmp_path / "frozen.pb") as contents:
        tensors = contents.tensors
        assert contents.format == "TensorFlow graph" and list(tensors) == ["w", "fill", "ints", "half", "f/c"]
        assert tensors["w"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
        assert tensors["fill"][999].tolist() == [2.5] * 1000
        assert tensors["ints"].numpy().tolist() == [-1, 2, 2] and tensors["f/c"].numpy().tolist() == [5]
        assert tensors["half"].numpy().dtype == np.float16 and tensors["half"].numpy().tolist() == [1, 2]
        assert contents.tree["text"] == b"abc" and contents.metadata["operations"] == {"Const": 7, "Placeholder": 1}
        assert "resource" in contents.left_out[0]


def test_every_flipped_byte_of_a_frozen_graph_ends_clearly(tmp_path: Path) -> None:
    """Only errors of the library, or a reading."""
    file = tmp_path / "frozen.pb"
    for place in range(len(GRAPH)):
        file.write_bytes(GRAPH[:place] + bytes([GRAPH[place] ^ (1 if place % 2 else 0x80)]) + GRAPH[place + 1 :])
        outcome(file)


# --- What is broken -------------------------------------------------------------------------------------------------------------------

ONE: Final = np.ones(2, np.float32)

BROKEN: Final[dict[str, tuple[dict[bytes, bytes], str]]] = {
    "no header": ({b"w": entry(ONE, 0)}, "no format|no safetensors"),
    "a header without shards": ({b"": field(1, 0), b"w": entry(ONE, 0)}, "shards"),
    "a shard that is not there": ({b"": field(1, 2), b"w": entry(ONE, 0, shard=1)}, "not there"),
    "a shard beyond the last": ({b"": field(1, 1), b"w": entry(ONE, 0, shard=1)}, "shard 1 of 1"),
    "bytes beyond the end": ({b"": field(1, 1), b"w": entry(ONE, 1)}, "are there"),
    "a negative offset": ({b"": field(1, 1), b"w": entry(ONE, -4)}, "are there"),
    "a size unlike the shape": ({b"": field(1, 1), b"w": entry(np.ones(3, np.float32), 0, nbytes=8)}, "12 bytes"),
    "a huge shape": ({b"": field(1, 1), b"w": entry(ONE, 0)[:2] + field(2, shape([2**62, 2**62])) + field(5, 8)}, "takes"),
    "a negative length": ({b"": field(1, 1), b"w": field(1, 1) + field(2, shape([-1])) + field(5, 8)}, "known"),
    "a dtype written twice": ({b"": field(1, 1), b"w": field(1, 3) + entry(ONE, 0)}, "twice|2 times"),
    "a slice that is not there": ({b"": field(1, 1), b"w": field(1, 1) + field(2, shape([2])) + field(7, field(1, b""))}, "slice"),
    "texts of a huge shape": ({b"": field(1, 1), b"w": field(1, 7) + field(2, shape([2**40])) + field(5, 8)}, "count of texts"),
    "a name that is no UTF-8": ({b"": field(1, 1), b"\xff": entry(ONE, 0)}, "UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    """Each lie has its sentence."""
    entries, word = BROKEN[name]
    (tmp_path / "m.data-00000-of-00001").write_bytes(ONE.tobytes())
    (tmp_path / "m.index").write_bytes(table(entries))
    with pytest.raises(tk.FormatError, match=word):
        tk.open(tmp_path / "m")


def test_a_block_that_stands_twice_in_the_index_is_refused(tmp_path: Path) -> None:
    """Keys stand in order, so that no block can be met twice: a small index cannot become a large one."""
    write_bundle(tmp_path / "m", {"w": ONE})
    data = (tmp_path / "m.index").read_bytes()
    content = block([(b"", field(1, 1)), (b"w", entry(ONE, 0))])
    out = content + b"\0" + struct.pack("<I", masked(content + b"\0"))
    index = block([(bytes([byte]), varint(0) + varint(len(content))) for byte in range(200)])
    footer = (varint(0) + varint(len(content)) + varint(len(out)) + varint(len(index))).ljust(40, b"\0")
    data = out + index + b"\0" + struct.pack("<I", masked(index + b"\0")) + footer + data[-8:]
    (tmp_path / "m.index").write_bytes(data)
    with pytest.raises(tk.FormatError, match="order"):
        tk.open(tmp_path / "m")


def test_a_changed_byte_of_the_index_is_damage(tmp_path: Path) -> None:
    """Each block has a checksum, which is compared before anything in it is believed."""
    write_bundle(tmp_path / "m", {"w": ONE})
    file = tmp_path / "m.index"
    good = file.read_bytes()
    stop = good.index(struct.pack("<II", 0, 1)) + 13
    for place in range(2, stop):
        file.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        with pytest.raises(tk.CorruptError, match=r"\(index\)"):
            tk.open(file)


def test_slices_that_overlap_are_refused(tmp_path: Path) -> None:
    """Every element comes from one place."""
    slices = 2 * field(7, field(1, field(1, 0) + field(2, 1)))
    entries = {b"": field(1, 1), b"w": field(1, 1) + field(2, shape([2])) + slices, b"\0w\0\1\1\1\x80\x81": entry(ONE[:1], 0)}
    (tmp_path / "m.data-00000-of-00001").write_bytes(ONE.tobytes())
    (tmp_path / "m.index").write_bytes(table(entries))
    with pytest.raises(tk.FormatError, match="exactly"):
        tk.open(tmp_path / "m")


def outcome(file: Path) -> None:
    """Reads all of it, or is refused as the library refuses."""
    try:
        with tk.open(file) as contents:
            for tensor in contents.tensors.values():
                tensor.tobytes()
    except tk.TensorkeepError:
        pass


def mend(index: bytearray) -> None:
    """The right checksum on the first block, so that what is in it is looked at."""
    stop = index.index(struct.pack("<II", 0, 1)) + 8
    index[stop + 1 : stop + 5] = struct.pack("<I", masked(bytes(index[: stop + 1])))


@pytest.mark.parametrize("mended", [False, True], ids=["as it is", "checksum mended"])
def test_every_truncation_and_every_flipped_byte_ends_clearly(tmp_path: Path, mended: bool) -> None:
    """Of the index and of the graph: only errors of the library, or a reading."""
    write_bundle(tmp_path / "m", {"w": ONE, "b": ONE}, each=10)
    file = tmp_path / "m.index"
    good = file.read_bytes()
    for place in range(len(good)):
        changed = bytearray(good)
        changed[place] ^= 0x01 if place % 2 else 0xFF
        if mended:
            mend(changed) if struct.pack("<II", 0, 1) in changed else None
        file.write_bytes(changed)
        outcome(file)
        if not mended:
            file.write_bytes(good[: place + 1])
            outcome(file)


def test_every_flipped_byte_of_a_graph_ends_clearly(tmp_path: Path) -> None:
    """Only errors of the library, or a reading."""
    write_saved_model(tmp_path / "m")
    file = tmp_path / "m" / "saved_model.pb"
    good = file.read_bytes()
    for place in range(len(good)):
        for bits in (0x01, 0x80):
            file.write_bytes(good[:place] + bytes([good[place] ^ bits]) + good[place + 1 :])
            outcome(tmp_path / "m")


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), st.integers(0, 5), max_size=6), st.integers(1, 4), st.booleans())
def test_any_names_come_back(tmp_path_factory: pytest.TempPathFactory, names: dict[str, int], each: int, packed: bool) -> None:
    """Whatever the names, and wherever the blocks of the index end."""
    folder = tmp_path_factory.mktemp("names")
    values = {name: np.full(length, length, np.int32) for name, length in names.items() if not name.startswith("\0")}
    values = {name: value for name, value in values.items() if name != "__metadata__"}
    write_bundle(folder / "m", values, each=each, packed=packed)
    with tk.open(folder / "m") as contents:
        assert_holds(contents, values)


@given(st.binary(max_size=300), st.integers(1, 3))
def test_the_checksum_is_that_of_the_description(data: bytes, times: int) -> None:
    """Of any length, whole or in two parts."""
    from tensorkeep.wire.crc32c import crc32c as ours

    data *= times
    assert ours(data) == crc32c(data)
    assert ours(data[7:], ours(data[:7])) == crc32c(data)


def test_the_checksum_of_long_runs() -> None:
    """Beyond a row, and not a whole number of them: from the value that RFC 3720 gives for zeros, and by parts."""
    from tensorkeep.wire.crc32c import crc32c as ours

    assert ours(bytes(32)) == 0x8A9136AA
    data = np.random.default_rng(0).bytes(200_003)
    assert ours(data) == ours(data[100_000:], ours(data[:100_000])) == ours(data[1:], ours(data[:1]))


def test_tensorflow_itself_agrees(tmp_path: Path) -> None:
    """What `tf.train.Checkpoint` and `Saver` write reads as TensorFlow reads it."""
    tf = pytest.importorskip("tensorflow")
    checkpoint = tf.train.Checkpoint(
        w=tf.Variable(tf.random.normal((4, 3))), s=tf.Variable(["a", "bc"]), h=tf.Variable(tf.ones(2, tf.bfloat16))
    )
    prefix = checkpoint.write(str(tmp_path / "c"))
    reader = tf.train.load_checkpoint(prefix)
    with tk.open(prefix) as contents:
        for name in contents.tensors:
            np.testing.assert_array_equal(contents.tensors[name].numpy(), reader.get_tensor(name))
        assert contents.tree["s/.ATTRIBUTES/VARIABLE_VALUE"] == [b"a", b"bc"]

"""TensorFlow Lite models, written here by the schema; real ones, with TensorFlow's own reading as the truth, are in test_real_files."""

import io
import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorkeep as tk

REFUSALS = (tk.FormatError, tk.CorruptError, tk.UnsupportedError)
SCALARS = {"b": 1, "B": 1, "?": 1, "i": 4, "I": 4, "Q": 8}


class Table(dict[int, Any]):
    """A table: by field a pair of a scalar's kind and value, or a `Table`, text, bytes, array, or list of tables."""


def flatbuffer(root: Table, mark: bytes = b"TFL3", *, sized: bool = False) -> bytes:
    """Lay out a table and all that it refers to, each thing behind what refers to it."""
    out = bytearray(b"\0\0\0\0" + mark)
    waiting: list[tuple[int, Any]] = [(0, root)]
    while waiting:
        at, thing = waiting.pop(0)
        out += b"\0" * (-len(out) % 8)
        if isinstance(thing, Table):
            where = _table(out, thing, waiting)
        elif isinstance(thing, list):
            where = len(out)
            out += struct.pack("<I", len(thing))
            for inner in thing:
                waiting.append((len(out), inner))
                out += bytes(4)
        else:
            raw = thing.encode() if isinstance(thing, str) else thing.tobytes() if isinstance(thing, np.ndarray) else thing
            count = thing.size if isinstance(thing, np.ndarray) else len(raw)
            out += b"\0" * 4 if isinstance(thing, np.ndarray) and thing.itemsize == 8 else b""
            where = len(out)
            out += struct.pack("<I", count) + raw + b"\0"
        struct.pack_into("<I", out, at, where - at)
    return (struct.pack("<I", len(out)) if sized else b"") + bytes(out)


def _table(out: bytearray, table: Table, waiting: list[tuple[int, Any]]) -> int:
    places, body = {}, bytearray(4)
    for number, value in table.items():
        width = SCALARS[value[0]] if isinstance(value, tuple) else 4
        body += b"\0" * (-len(body) % width)
        places[number] = len(body)
        body += struct.pack(f"<{value[0]}", value[1]) if isinstance(value, tuple) else bytes(4)
    count = max(table, default=-1) + 1
    fields = struct.pack("<HH", 4 + 2 * count, len(body)) + b"".join(struct.pack("<H", places.get(number, 0)) for number in range(count))
    out += fields + b"\0" * (-len(fields) % 8)
    where = len(out)
    struct.pack_into("<i", body, 0, len(fields) + -len(fields) % 8)
    out += body
    waiting += [(where + places[number], value) for number, value in table.items() if not isinstance(value, tuple)]
    return where


def tensor(name: str, kind: int, shape: tuple[int, ...], buffer: int, **more: Any) -> Table:
    made = Table({0: np.array(shape, np.int32), 1: ("b", kind), 2: ("I", buffer), 3: name})
    made.update({int(key.removeprefix("f")): value for key, value in more.items()})
    return made


def model(tensors: list[Table], buffers: "list[Table | bytes]", **more: Any) -> Table:
    """A model of one graph; buffer 0 is the empty one."""
    made = [Table()] + [Table({0: buffer}) if isinstance(buffer, bytes) else buffer for buffer in buffers]
    root = Table({0: ("I", 3), 2: [Table({0: tensors, 4: "main"})], 3: "a description", 4: made})
    root.update({int(key.removeprefix("f")): value for key, value in more.items()})
    return root


def opened(root: "Table | bytes") -> Any:
    return tk.open(io.BytesIO(root if isinstance(root, bytes) else flatbuffer(root)))


F = struct.pack("<4f", 1, 2, 3, 4)


@pytest.mark.parametrize("sized", [False, True])
def test_tensors_with_bytes_are_read_by_graph_number_and_name(sized: bool) -> None:
    """Those without a buffer are made while the model runs; with or without the size before the whole."""
    root = model([tensor("input", 0, (1, 2), 0), tensor("w", 0, (2, 2), 1), tensor("", 2, (), 2)], [F, struct.pack("<i", -7)])
    with opened(flatbuffer(root, sized=sized)) as contents:
        assert contents.format == "TensorFlow Lite" and contents.version == "3"
        assert list(contents.tensors) == ["0/1/w", "0/2/"]
        np.testing.assert_array_equal(contents.tensors["0/1/w"].numpy(), [[1, 2], [3, 4]])
        assert contents.tensors["0/2/"].numpy() == -7
        assert contents.metadata["description"] == "a description" and contents.metadata["graphs"] == ["main"]


def test_what_the_model_says_of_itself() -> None:
    """Operators by number, those of others by name; signatures; metadata as texts where they are."""
    operators = [Table({0: ("b", 3)}), Table({0: ("b", 127), 3: ("i", 150)}), Table({0: ("b", 32), 1: "FlexReadFile", 3: ("i", 32)})]
    metadata = [Table({0: "min_runtime_version", 1: ("I", 1)}), Table({0: "raw", 1: ("I", 2)})]
    root = model([], [b"1.5.0\0\0\0", b"\xff"], f1=operators, f6=metadata, f7=[Table({2: "serving_default"})])
    with opened(root) as contents:
        assert contents.metadata == {
            "description": "a description",
            "operators": [3, 150],
            "custom_operators": ["FlexReadFile"],
            "signatures": ["serving_default"],
            "metadata": {"min_runtime_version": "1.5.0", "raw": b"\xff"},
            "graphs": ["main"],
        }


@pytest.mark.parametrize(
    ("kind", "dtype", "raw"),
    [
        (0, "F32", 16), (1, "F16", 8), (2, "I32", 16), (3, "U8", 4), (4, "I64", 32), (7, "I16", 8), (8, "C64", 32), (9, "I8", 4),
        (10, "F64", 32), (11, "C128", 64), (12, "U64", 32), (15, "U32", 16), (16, "U16", 8), (18, "BF16", 8), (21, "F8_E4M3", 4),
        (22, "F8_E5M2", 4),
    ],
)  # fmt: skip
def test_every_type_keeps_its_bytes(kind: int, dtype: str, raw: int) -> None:
    """All types of numbers, as they lie there."""
    data = np.random.default_rng(kind).bytes(raw)
    with opened(model([tensor("w", kind, (4,), 1)], [data])) as contents:
        found = contents.tensors["0/0/w"]
        assert (str(found.dtype), found.shape, found.tobytes()) == (dtype, (4,), data)


def test_small_elements_are_unpacked_and_truth_values_checked() -> None:
    """Two or four elements to a byte, the first in the low bits; a truth value is 0 or 1."""
    root = model(
        [tensor("i4", 17, (3,), 1), tensor("u4", 20, (4,), 2), tensor("i2", 19, (5,), 3), tensor("b", 6, (2,), 4)],
        [b"\x8f\x07", b"\x8f\x07", b"\xe4\x02", b"\1\0"],
    )
    with opened(root) as contents:
        assert contents.tensors["0/0/i4"].numpy().astype(int).tolist() == [-1, -8, 7]
        assert contents.tensors["0/1/u4"].numpy().astype(int).tolist() == [15, 8, 7, 0]
        assert contents.tensors["0/2/i2"].numpy().astype(int).tolist() == [0, 1, -2, -1, -2]
        assert contents.tensors["0/3/b"].numpy().tolist() == [True, False]
    with opened(model([tensor("b", 6, (2,), 1)], [b"\1\2"])) as contents, pytest.raises(tk.FormatError, match="BOOL"):
        contents.tensors["0/0/b"].numpy()


def test_quantized_integers_are_dequantized_on_request() -> None:
    """One scale, or one for each slice along an axis; rows of them too."""
    one = Table({2: np.array([0.5], np.float32), 3: np.array([10], np.int64)})
    each = Table({2: np.array([0.5, 2], np.float32), 3: np.array([0, 1], np.int64), 6: ("i", 1)})
    rows = Table({2: np.array([0.5, 2], np.float32)})
    tensors = [tensor(name, 9, (2, 2), 1, f4=scales) for name, scales in (("one", one), ("each", each), ("rows", rows))]
    with opened(model(tensors, [bytes([0, 10, 20, 246])])) as contents:
        one, each, rows = contents.tensors.values()
        np.testing.assert_array_equal(rows.dequantize(), np.array([[0, 5], [40, -20]], np.float32))
        assert one.numpy().tolist() == [[0, 10], [20, -10]]
        np.testing.assert_array_equal(one.dequantize(), np.array([[-5, 0], [5, -10]], np.float32))
        np.testing.assert_array_equal(each.dequantize(), np.array([[0, 18], [10, -22]], np.float32))
        np.testing.assert_array_equal(each.dequantized()[1:], np.array([[10, -22]], np.float32))
        assert contents.metadata["quantization"]["0/1/each"] == {"scale": [0.5, 2], "zero_point": [0, 1], "axis": 1}


def test_one_buffer_of_two_tensors_is_one_tensor() -> None:
    """Tensors that share their bytes are tied, unless their types or shapes differ."""
    root = model([tensor("a", 0, (4,), 1), tensor("b", 0, (4,), 1), tensor("c", 0, (2, 2), 1)], [F])
    with opened(root) as contents:
        assert contents.tree["0/0/a"] is contents.tree["0/1/b"] and contents.tree["0/2/c"] is not contents.tree["0/0/a"]


def test_what_is_no_dense_array_of_numbers_is_told() -> None:
    """Texts, sparse tensors, and scales of blocks are left out, with a word."""
    blocks = Table({4: ("B", 2), 2: np.array([0.5], np.float32)})
    root = model([tensor("t", 5, (1,), 1), tensor("s", 0, (4,), 1, f6=Table()), tensor("q", 9, (16,), 1, f4=blocks)], [F])
    with opened(root) as contents:
        assert list(contents.tensors) == ["0/2/q"] and len(contents.left_out) == 3


class TestElsewhere:
    """Bytes behind the FlatBuffer, and in other files."""

    def test_bytes_behind_the_flatbuffer_are_read(self) -> None:
        """Large models have them there, at offsets from the start of the file."""
        root = model([tensor("w", 0, (2, 2), 1)], [Table({1: ("Q", 1), 2: ("Q", 1)})])
        size = len(flatbuffer(root))
        with opened(flatbuffer(model([tensor("w", 0, (2, 2), 1)], [Table({1: ("Q", size), 2: ("Q", 16)})])) + F) as contents:
            np.testing.assert_array_equal(contents.tensors["0/0/w"].numpy(), [[1, 2], [3, 4]])
        with pytest.raises(tk.FormatError, match="the file has"):
            opened(model([tensor("w", 0, (2, 2), 1)], [Table({1: ("Q", 1 << 60), 2: ("Q", 16)})]))

    def write(self, folder: Path, name: str, length: int = 16, packing: str = "unpacked") -> Path:
        external = Table({0: ("I", 9), 1: ("I", 0), 2: ("Q", 4), 3: ("Q", length), 4: packing})
        root = model([tensor("w", 0, (2, 2), 0, f10=("I", 9)), tensor("v", 0, (4,), 1)], [F], f8=[Table({0: name})], f9=[external])
        (folder / "m.tflite").write_bytes(flatbuffer(root))
        return folder / "m.tflite"

    def test_a_file_in_the_folder_is_read(self, tmp_path: Path) -> None:
        """At its offset."""
        (tmp_path / "weights.bin").write_bytes(bytes(4) + F)
        with tk.open(self.write(tmp_path, "weights.bin")) as contents:
            np.testing.assert_array_equal(contents.tensors["0/0/w"].numpy(), [[1, 2], [3, 4]])
        with pytest.raises(tk.FormatError, match="which has 20"):
            tk.open(self.write(tmp_path, "weights.bin", length=17))
        with tk.open(self.write(tmp_path, "weights.bin", packing="zipped")) as contents:
            assert "packed as 'zipped'" in contents.left_out[0]

    @pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "link", ""])
    def test_a_file_outside_is_never_read_and_a_finding(self, tmp_path: Path, name: str) -> None:
        """A name that leads out of the folder: a finding, the tensor left out, the others read."""
        (tmp_path / "secret").write_bytes(bytes(100))
        (tmp_path / "in").mkdir()
        os.symlink(tmp_path / "secret", tmp_path / "in" / "link")
        with tk.open(self.write(tmp_path / "in", name)) as contents:
            assert list(contents.tensors) == ["0/1/v"] and contents.findings[0].severity == "dangerous"


BAD_SCALES = Table({2: np.array([1, 2, 3], np.float32)})
HOSTILE: dict[str, tuple[Table, str]] = {
    "version": (Table({0: ("I", 2)}), "version 2"),
    "type": (model([tensor("w", 99, (4,), 1)], [F]), "type 99"),
    "shape": (model([tensor("w", 0, (-4,), 1)], [F]), "no array can have"),
    "huge shape": (model([tensor("w", 0, (1 << 30, 1 << 30, 1 << 30), 1)], [F]), "no array can have"),
    "large shape": (model([tensor("w", 0, (1 << 30,), 1)], [F]), "16 are there"),
    "small shape": (model([tensor("w", 0, (2,), 1)], [F]), "16 bytes"),
    "many dimensions": (model([tensor("w", 0, (1,) * 100, 1)], [F]), "100 dimensions"),
    "buffer": (model([tensor("w", 0, (4,), 7)], [F]), "buffer 7 of 2"),
    "external buffer": (model([tensor("w", 0, (4,), 0, f10=("I", 5))], [F]), "external buffer 5"),
    "scales": (model([tensor("w", 9, (16,), 1, f4=BAD_SCALES)], [F]), "3 scales"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_model_that_breaks_the_format_is_refused_in_words(what: str) -> None:
    """Each lie ends in a FormatError that names it."""
    root, word = HOSTILE[what]
    with pytest.raises(tk.FormatError, match=word):
        opened(root)


@pytest.mark.parametrize("offset", [0, 3, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_reference_leads_forward_and_stays_inside(offset: int) -> None:
    """The first reference of all, to the model itself."""
    with pytest.raises(tk.FormatError, match="a reference that leads"):
        opened(struct.pack("<I", offset) + small()[4:])


def test_what_is_referred_to_again_and_again_is_refused_in_time() -> None:
    """400 graphs that are all one graph, of 2,000 tensors that are all one: a small file that would be 800,000 tensors."""
    graph = Table({0: [Table()] * 2000})
    data = bytearray(flatbuffer(Table({0: ("I", 3), 2: [graph, *[Table()] * 399], 4: [Table()]})))
    # Let all refer to the first.
    root = struct.unpack_from("<I", data)[0]
    fields = root - struct.unpack_from("<i", data, root)[0]
    place = root + struct.unpack_from("<H", data, fields + 4 + 2 * 2)[0]
    vector = place + struct.unpack_from("<I", data, place)[0]
    first = vector + 4 + struct.unpack_from("<I", data, vector + 4)[0]
    for number in range(400):
        at = vector + 4 + 4 * number
        struct.pack_into("<I", data, at, first - at)
    begin = time.process_time()
    with pytest.raises(tk.FormatError, match="again"):
        opened(bytes(data))
    assert time.process_time() - begin < 10


def read_all(data: bytes) -> None:
    """Everything that a file can be asked for, or a refusal of ours."""
    try:
        with opened(data) as contents:
            for found in contents.tensors.values():
                found.tobytes()
    except REFUSALS:
        pass


def small() -> bytes:
    scale = Table({2: np.array([0.5, 2], np.float32), 3: np.array([0, 1], np.int64), 6: ("i", 1)})
    return flatbuffer(
        model(
            [tensor("w", 0, (2, 2), 1), tensor("q", 9, (8, 2), 1, f4=scale), tensor("n", 17, (3,), 2)],
            [F, b"\x12\x03"],
            f1=[Table({0: ("b", 32), 1: "Custom"})],
            f6=[Table({0: "name", 1: ("I", 1)})],
        )
    )


def test_every_truncation_and_every_changed_byte_is_a_reading_or_a_refusal() -> None:
    """Cut anywhere, or any byte changed: no error that is not ours."""
    data = small()
    with opened(data) as contents:
        assert len(contents.tensors) == 3
    for length in range(8, len(data)):
        read_all(data[:length])
    for at in range(len(data)):
        for flip in (0x01, 0x04, 0x80, 0xFF):
            read_all(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_behind_the_mark_are_a_reading_or_a_refusal(tail: bytes) -> None:
    """No bytes make it fail in another way."""
    read_all(b"\x08\0\0\0TFL3" + tail)
    read_all(struct.pack("<I", len(tail) + 8) + b"\x08\0\0\0TFL3" + tail)

"""ONNX models: written here by the format's description and by the package onnx, read as that package reads them."""

import io
import os
import struct
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorkeep as tk
from tensorkeep.backends.files import MemoryFile
from tensorkeep.formats.onnx import OnnxReader
from tensorkeep.formats.peek import Peek
from tensorkeep.wire.extent import Opened

REFUSALS = (tk.FormatError, tk.CorruptError, tk.UnsupportedError)


def varint(value: int) -> bytes:
    """A number of protobuf."""
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, value: "int | bytes | str | float") -> bytes:
    """A field of protobuf: a number, bytes, a text, or a float of 32 bits."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def tensor(name: str, kind: int, shape: tuple[int, ...], *fields: bytes) -> bytes:
    """A TensorProto."""
    return b"".join(field(1, length) for length in shape) + field(2, kind) + field(8, name) + b"".join(fields)


def attribute(name: str, *fields: bytes) -> bytes:
    return field(1, name) + b"".join(fields)


def node(operator: str, output: str, *attributes: bytes, inputs: tuple[str, ...] = (), domain: str = "") -> bytes:
    """A NodeProto."""
    parts = [field(1, name) for name in inputs] + [field(2, output), field(4, operator)] + [field(5, one) for one in attributes]
    return b"".join(parts) + (field(7, domain) if domain else b"")


def graph(*fields: bytes) -> bytes:
    return b"".join(fields) + field(2, "g")


def model(*fields: bytes, version: int = 10) -> bytes:
    """A ModelProto with one graph."""
    return field(1, version) + field(2, "test") + field(7, graph(*fields)) + field(8, field(2, 21))


def opened(data: bytes) -> Any:
    return tk.open(io.BytesIO(data))


W = tensor("w", 1, (2, 2), field(9, struct.pack("<4f", 1, 2, 3, 4)))


def test_initializers_and_what_the_model_says_of_itself() -> None:
    """Names, values, producer, operator sets, properties, inputs and outputs."""
    shape = field(1, field(1, 3)) + field(1, field(2, "n")) + field(1, b"")
    value = field(1, "x") + field(2, field(1, field(1, 10) + field(2, shape)))
    own = field(1, "w") + field(2, field(1, field(1, 1)))
    data = model(field(5, W), field(11, value), field(11, own), field(12, field(1, "y")), field(1, node("Gelu", "y", domain="com.x")))
    data += field(14, field(1, "key") + field(2, "value")) + field(3, "2.0")
    with opened(data) as contents:
        assert contents.format == "ONNX" and contents.version == "10" and contents.writer == "test 2.0"
        np.testing.assert_array_equal(contents.tensors["w"].numpy(), [[1, 2], [3, 4]])
        assert contents.metadata == {
            "ir_version": 10,
            "producer_name": "test",
            "producer_version": "2.0",
            "opsets": {"ai.onnx": 21},
            "properties": {"key": "value"},
            "graph": "g",
            "inputs": {"x": {"dtype": "F16", "shape": [3, "n", None]}},
            "outputs": {"y": "no tensor"},
            "operators": {"com.x::Gelu": 1},
        }


def test_constants_of_inner_graphs_and_functions_are_found() -> None:
    """By the name of their output, `~2` appended where two branches have one name; numbers and texts as plain values."""
    constant = node("Constant", "c", attribute("value", field(5, tensor("ignored", 7, (), field(7, varint(5))))))
    branch = graph(field(1, constant), field(5, tensor("inner", 2, (1,), field(9, b"\7"))))
    both = node("If", "y", attribute("then_branch", field(6, branch)), attribute("else_branch", field(6, branch)))
    plain = [
        node("Constant", "f", attribute("value_float", field(2, 0.5))),
        node("Constant", "i", attribute("value_int", field(3, -3))),
        node("Constant", "s", attribute("value_string", field(4, "text"))),
        node("Constant", "fs", attribute("value_floats", field(7, struct.pack("<2f", 1, 2)))),
        node("Constant", "is", attribute("value_ints", field(8, 1), field(8, -1))),
        node("Constant", "ss", attribute("value_strings", field(9, "a"), field(9, b"\xff"))),
    ]
    data = model(field(5, W), field(1, both), *(field(1, one) for one in plain))
    data += field(25, field(1, "function") + field(7, constant))
    with opened(data) as contents:
        assert list(contents.tensors) == ["w", "inner", "c", "inner~2", "c~2", "c~3"]
        assert contents.tensors["c~2"].numpy() == 5
        found = {name: value for name, value in contents.tree.items() if name not in contents.tensors}
        assert found == {"f": 0.5, "i": -3, "s": "text", "fs": [1, 2], "is": [1, -1], "ss": ["a", b"\xff"]}


def test_fill_values_of_stored_shapes_are_told_and_others_read() -> None:
    """A model whose weights were replaced by ConstantOfShape of a stored shape has no tensors there; else the value is one."""
    value = attribute("value", field(5, tensor("", 1, (1,), field(4, struct.pack("<f", 0.5)))))
    shape = tensor("shape", 7, (1,), field(7, varint(3)))
    filled = node("ConstantOfShape", "weight", value, inputs=("shape",))
    free = node("ConstantOfShape", "zeros", value, inputs=("x",))
    with opened(model(field(5, shape), field(1, filled), field(1, free))) as contents:
        assert list(contents.tensors) == ["shape", "zeros.value"]
        assert "1 tensors of one number" in contents.left_out[0]


def test_sparse_initializers_come_as_their_parts() -> None:
    """Values, indices and dims, under the name of the values."""
    values = tensor("s", 1, (2,), field(9, struct.pack("<2f", 5, 6)))
    indices = tensor("", 7, (2,), field(9, struct.pack("<2q", 1, 3)))
    sparse = field(1, values) + field(2, indices) + field(3, 4)
    with opened(model(field(15, sparse))) as contents:
        assert contents.tree["s"]["dims"] == [4]
        assert contents.tensors["s.values"].numpy().tolist() == [5, 6] and contents.tensors["s.indices"].numpy().tolist() == [1, 3]


def test_texts_come_as_lists() -> None:
    """A tensor of texts is no tensor here: lists by its shape; bytes where they are no UTF-8."""
    texts = [field(6, part) for part in (b"a", b"\xff", b"c", b"d")]
    with opened(model(field(5, tensor("t", 8, (2, 2), *texts)), field(5, tensor("one", 8, (), texts[0])))) as contents:
        assert contents.tree == {"t": [["a", b"\xff"], ["c", "d"]], "one": "a"}


ALL_KINDS = [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26]


def nibbles(data: Any, dtype: Any) -> Any:
    """As ours keeps small elements: one to a byte, in the low bits."""
    bits = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2}.get(str(dtype))
    return data if bits is None else data & ((1 << bits) - 1)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("count", [5, 6, 0])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_type_reads_as_the_package_reads_it(kind: int, count: int, raw: bool) -> None:
    """Random bits of all types, as raw data and as numbers: the package's own arrays."""
    onnx = pytest.importorskip("onnx")
    if kind not in onnx.TensorProto.DataType.values():
        pytest.skip("this onnx does not know the type")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    rng = np.random.default_rng(kind)
    if dtype == np.bool_:
        array = rng.integers(0, 2, count).astype(bool)
    elif dtype.itemsize > 1 or dtype.kind in "iu":
        array = np.frombuffer(rng.bytes(count * dtype.itemsize), dtype)
    else:
        array = rng.standard_normal(count).astype(dtype)
    message = onnx.numpy_helper.from_array(array, "x")
    if not raw:
        message = as_numbers(onnx, message, array, kind)
    wanted = onnx.numpy_helper.to_array(message)
    made = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [message]))
    with opened(made.SerializeToString()) as contents:
        found = contents.tensors["x"].numpy()
        assert found.shape == wanted.shape and found.dtype == wanted.dtype
        assert nibbles(found.view(np.uint8), dtype).tobytes() == nibbles(wanted.view(np.uint8), dtype).tobytes()
        halves = [contents.tensors["x"][begin : begin + 2].view(np.uint8).tobytes() for begin in range(0, count - count % 2, 2)]
        assert b"".join(halves) == found[: count - count % 2].view(np.uint8).tobytes()


def as_numbers(onnx: Any, message: Any, array: Any, kind: int) -> Any:
    """The same tensor with its elements in the field of numbers that its type asks for."""
    made = onnx.TensorProto()
    made.CopyFrom(message)
    packed = bytes(made.raw_data)
    made.ClearField("raw_data")
    if kind in (1, 14):
        made.float_data.extend(array.view(np.float32).tolist())
    elif kind in (11, 15):
        made.double_data.extend(array.view(np.float64).tolist())
    elif kind == 7:
        made.int64_data.extend(array.tolist())
    elif kind in (12, 13):
        made.uint64_data.extend(array.tolist())
    elif kind in (2, 3, 4, 5, 6, 9):
        made.int32_data.extend(array.astype(np.int64).tolist())
    else:
        made.int32_data.extend(np.frombuffer(packed, np.uint16 if kind in (10, 16) else np.uint8).tolist())
    return made


def test_numbers_may_stand_packed_or_each_for_itself() -> None:
    """Older writers give each number a tag of its own; both are read, also mixed."""
    alone = b"".join(varint(4 << 3 | 5) + struct.pack("<f", value) for value in (1, 2, 3))
    mixed = field(5, varint(1) + varint(-2)) + varint(5 << 3) + varint(-3) + field(5, varint(4))
    with opened(model(field(5, tensor("f", 1, (3,), alone)), field(5, tensor("i", 6, (4,), mixed)))) as contents:
        assert contents.tensors["f"].numpy().tolist() == [1, 2, 3]
        assert contents.tensors["i"].numpy().tolist() == [1, -2, -3, 4]


def test_large_fields_of_numbers_are_unpacked_once_and_fast() -> None:
    """Half a million numbers of variable length: read when they are asked for, and not anew for each piece."""
    numbers = np.random.default_rng(0).integers(-(2**31), 2**31, 500_000)
    packed = b"".join(map(varint, numbers.tolist()))
    with opened(model(field(5, tensor("i", 6, (500_000,), field(5, packed))))) as contents:
        begin = time.process_time()
        np.testing.assert_array_equal(contents.tensors["i"].numpy(), numbers)
        assert [int(contents.tensors["i"][at : at + 1][0]) for at in range(2000)] == numbers[:2000].tolist()
        assert time.process_time() - begin < 3


class TestExternal:
    """Tensors whose bytes lie in other files."""

    def write(self, folder: Path, location: str, offset: str = "4", length: str = "8", **more: bytes) -> Path:
        pairs = [("location", location), ("offset", offset), ("length", length)]
        told = [field(13, field(1, key) + field(2, value)) for key, value in pairs if value]
        (folder / "m.onnx").write_bytes(model(field(5, tensor("w", 1, (2,), *told, field(14, 1))), field(5, W.replace(b"w", b"v"))))
        return folder / "m.onnx"

    def test_a_file_in_the_folder_is_read(self, tmp_path: Path) -> None:
        """At its offset; without offset and length the whole file is one tensor."""
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "d.bin").write_bytes(struct.pack("<3f", 1, 2, 3))
        (tmp_path / "whole").write_bytes(struct.pack("<2f", 4, 5))
        with tk.open(self.write(tmp_path, "./sub/d.bin")) as contents:
            assert contents.tensors["w"].numpy().tolist() == [2, 3]
        with tk.open(self.write(tmp_path, "whole", "", "")) as contents:
            assert contents.tensors["w"].numpy().tolist() == [4, 5]
        assert tk.load(tmp_path / "m.onnx")["w"].tolist() == [4, 5]

    @pytest.mark.parametrize(
        "location", ["../secret", "/etc/passwd", "sub/../../secret", "link", "linked/d.bin", "hard", "C:\\x", "a\\b", ""]
    )
    def test_a_file_outside_is_never_read_and_a_finding(self, tmp_path: Path, location: str) -> None:
        """A name that leads out of the folder: a finding, the tensor left out, the others read."""
        (tmp_path / "secret").write_bytes(bytes(100))
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "d.bin").write_bytes(bytes(100))
        folder = tmp_path / "in"
        folder.mkdir()
        os.symlink(tmp_path / "secret", folder / "link")
        os.symlink(tmp_path / "out", folder / "linked")
        os.link(tmp_path / "secret", folder / "hard")
        with tk.open(self.write(folder, location)) as contents:
            assert list(contents.tensors) == ["v"]
            assert contents.findings[0].severity == "dangerous" and contents.findings[0].place == "w"
            assert "outside" in contents.left_out[0]

    @pytest.mark.parametrize(
        ("location", "offset", "length", "word"),
        [
            ("gone", "0", "8", "not there"),
            ("d.bin", "8", "8", "which has 12"),
            ("d.bin", "0", "12", "said are 12"),
            ("d.bin", "-1", "8", "no number"),
            ("d.bin", "9" * 30, "8", "no number"),
            ("d.bin", "٣", "8", "no number"),
        ],
    )
    def test_a_wrong_place_is_told(self, tmp_path: Path, location: str, offset: str, length: str, word: str) -> None:
        """A file that is not there, bytes that are not, numbers that are none."""
        (tmp_path / "d.bin").write_bytes(bytes(12))
        with pytest.raises(tk.FormatError, match=word):
            tk.open(self.write(tmp_path, location, offset, length))

    def test_bytes_in_memory_have_no_folder(self, tmp_path: Path) -> None:
        """A model in memory lies in no folder, so no other file is opened for it."""
        data = self.write(tmp_path, "d.bin").read_bytes()
        with pytest.raises(tk.FormatError, match="not opened from a folder"):
            opened(data)

    def test_what_the_package_writes_is_read(self, tmp_path: Path) -> None:
        """External data as onnx saves them."""
        onnx = pytest.importorskip("onnx")
        array = np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)
        made = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(array, "x")]))
        onnx.save(made, str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.data", size_threshold=0)
        with tk.open(tmp_path / "m.onnx") as contents:
            np.testing.assert_array_equal(contents.tensors["x"].numpy(), array)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "shape": (tensor("w", 1, (-1,), field(9, b"")), "no array can have"),
    "huge shape": (tensor("w", 1, (1 << 40, 1 << 40), field(9, bytes(4))), "no array can have"),
    "large shape": (tensor("w", 1, (1 << 40,), field(9, bytes(4))), "4 are there"),
    "too few bytes": (tensor("w", 1, (2,), field(9, bytes(4))), "4 are there"),
    "too many bytes": (tensor("w", 1, (2,), field(9, bytes(12))), "12 bytes"),
    "no bytes": (tensor("w", 1, (2,)), "0 are there"),
    "type": (tensor("w", 99, (1,), field(9, bytes(4))), "type 99"),
    "no type": (tensor("w", 0, (1,), field(9, bytes(4))), "type 0"),
    "two fields": (tensor("w", 1, (1,), field(9, bytes(4)), field(4, bytes(4))), "2 fields"),
    "raw data twice": (tensor("w", 1, (1,), field(9, bytes(4)), field(9, bytes(4))), "occurs 2 times"),
    "wrong field": (tensor("w", 1, (1,), field(7, varint(1))), "field 7"),
    "number too large": (tensor("w", 3, (1,), field(5, varint(200))), "no int8"),
    "truth value": (tensor("w", 9, (1,), field(5, varint(2))), "truth value"),
    "too few numbers": (tensor("w", 6, (3,), field(5, varint(2))), "1 numbers"),
    "cut number": (tensor("w", 6, (1,), field(5, b"\xff")), "cut short"),
    "long number": (tensor("w", 6, (1,), field(5, b"\xff" * 10 + b"\1")), "64 bits"),
    "segment": (tensor("w", 1, (1,), field(3, b""), field(9, bytes(4))), "segment"),
    "texts": (tensor("w", 8, (3,), field(6, "a")), "1 texts"),
    "no texts": (tensor("w", 8, (1,)), "has none"),
    "here and elsewhere": (tensor("w", 1, (1,), field(9, bytes(4)), field(14, 1)), "another file"),
    "many dimensions": (tensor("w", 1, (1,) * 100, field(9, bytes(4))), "100 dimensions"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_tensor_that_breaks_the_format_is_refused_in_words(what: str) -> None:
    """Each lie ends in a FormatError that names it."""
    message, word = HOSTILE[what]
    with pytest.raises(tk.FormatError, match=word):
        opened(model(field(5, message)))


def test_graphs_inside_graphs_have_a_bound() -> None:
    """Nesting deeper than protobuf's own bound is refused, whatever the size."""
    inner = graph(field(1, node("Constant", "c", attribute("value", field(5, W)))))
    for _ in range(60):
        inner = graph(field(1, node("If", "y", attribute("then_branch", field(6, inner)))))
    with pytest.raises(tk.FormatError, match="nested deeper"):
        opened(field(1, 10) + field(7, inner))


def test_many_small_fields_take_no_more_than_their_time() -> None:
    """300,000 fields of one number, and 5,000 names that are one: seconds, not minutes."""
    begin = time.process_time()
    with opened(model(field(5, tensor("w", 6, (300_000,), (varint(5 << 3) + b"\1") * 300_000)))) as contents:
        assert contents.tensors["w"].numpy().sum() == 300_000
    with opened(model(*[field(5, W)] * 5_000)) as contents:
        assert len(contents.tensors) == 5_000
    assert time.process_time() - begin < 10


def test_more_messages_than_a_file_needs_are_refused() -> None:
    """A message of two bytes takes microseconds: a file made of nothing else is refused, one of many nodes is read."""
    with pytest.raises(tk.FormatError, match="messages, which is more"):
        opened(model(field(1, b"") * 400_000))
    with opened(model(*[field(1, node("Add", "sum", inputs=("left", "right")))] * 20_000)) as contents:
        assert contents.metadata["operators"] == {"Add": 20_000}


def read_all(data: bytes) -> None:
    """Everything that a file can be asked for, or a refusal of ours."""
    try:
        with opened(data) as contents:
            for found in contents.tensors.values():
                found.tobytes()
    except REFUSALS:
        pass


def small() -> bytes:
    constant = node("Constant", "c", attribute("value", field(5, tensor("n", 22, (3,), field(5, varint(0x21) + varint(3))))))
    inner = graph(field(1, constant))
    return model(
        field(5, W),
        field(5, tensor("t", 8, (1,), field(6, "a"))),
        field(15, field(1, W) + field(2, tensor("", 7, (1,), field(7, varint(300)))) + field(3, 4)),
        field(1, node("If", "y", attribute("then_branch", field(6, inner)))),
        field(11, field(1, "x") + field(2, field(1, field(1, 1) + field(2, field(1, field(1, 3)))))),
    )


def test_every_truncation_and_every_changed_byte_is_a_reading_or_a_refusal() -> None:
    """Cut anywhere, or any byte changed: no error that is not ours."""
    data = small()
    read_all(data)
    for length in range(1, len(data)):
        read_all(data[:length])
    for at in range(len(data)):
        for flip in (0x01, 0x04, 0x80, 0xFF):
            read_all(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])


def test_a_cut_model_is_told_as_one() -> None:
    """The first bytes of a model are known for what they are."""
    with pytest.raises(tk.FormatError, match="cut short"):
        opened(small()[:-60])


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_any_graph_is_a_reading_or_a_refusal(data: bytes) -> None:
    """No bytes inside of a model make it fail in another way."""
    read_all(field(1, 8) + field(7, data))
    read_all(model(field(5, data)))
    read_all(model(field(1, data)))


@pytest.mark.parametrize(
    "other",
    [
        field(1, 8) + field(2, "a model of another format"),  # as a SavedModel and a Core ML model begin
        field(1, 8) + field(7, field(3, 1)),  # its field 7 is no graph
        field(7, W),  # no version
        field(1, 8) + field(200, "network") + field(7, graph()),
    ],
)
def test_other_messages_are_not_taken_for_models(other: bytes) -> None:
    """Protobufs of other formats are left to their readers."""
    peek = Peek("x", Opened(MemoryFile(memoryview(other), "x")).whole(), None, limits=tk.Limits())
    assert not OnnxReader().recognizes(peek)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=5), st.lists(st.integers(0, 3), max_size=3)), max_size=5))
def test_any_initializers_come_back_bit_for_bit(tensors: list[tuple[str, list[int]]]) -> None:
    """Names, shapes and bytes of whatever initializers a model has, as the package writes them."""
    onnx = pytest.importorskip("onnx")
    unique = {name: np.full(shape, number, ml_dtypes.bfloat16) for number, (name, shape) in enumerate(tensors) if name != "__metadata__"}
    messages = [onnx.numpy_helper.from_array(array, name) for name, array in unique.items()]
    made = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], messages))
    with opened(made.SerializeToString()) as contents:
        assert {name: (one.shape, one.tobytes()) for name, one in contents.tensors.items()} == {
            name: (array.shape, array.tobytes()) for name, array in unique.items()
        }


def test_small_initializers_told_at_a_glance_are_those_that_are_looked_into(tmp_path: Path) -> None:
    """Scalars and short vectors, with their fields in the usual order and in others: the same names, shapes and bits as `onnx` reads."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    arrays = [np.float32(1.5), np.array([1, 2, 3], np.int64), np.array(True), np.zeros((2, 0, 3), np.float16), np.arange(6, dtype=np.uint8)]
    usual = [numpy_helper.from_array(np.asarray(array), f"w{number}") for number, array in enumerate(arrays)]
    others = [helper.make_tensor(f"v{number}", array.data_type, array.dims, [1] * 3) for number, array in enumerate(usual[1:2])]
    documented = numpy_helper.from_array(np.ones(3, np.float32), "documented")
    documented.doc_string = "three ones"
    initializers = [*usual, *others, documented]
    model = helper.make_model(helper.make_graph([], "g", [], [], initializer=initializers))
    onnx.save(model, tmp_path / "m.onnx")
    found = tk.load(tmp_path / "m.onnx")
    assert list(found) == [tensor.name for tensor in initializers]
    for tensor in initializers:
        wanted = numpy_helper.to_array(tensor)
        assert found[tensor.name].dtype == wanted.dtype and np.array_equal(found[tensor.name], wanted)
    assert not tk.scan(tmp_path / "m.onnx").findings


def test_a_small_initializer_that_lies_is_refused_or_found(tmp_path: Path) -> None:
    """A shape that its bytes do not fill, and bytes in a file outside of the folder."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    short = numpy_helper.from_array(np.ones(3, np.float32), "short")
    short.dims[0] = 4
    outside = TensorProto(name="out", data_type=1, dims=[1], data_location=1)
    outside.external_data.add(key="location", value="../../x")
    for tensor in (short, outside):
        (tmp_path / "m.onnx").write_bytes(helper.make_model(helper.make_graph([], "g", [], [], initializer=[tensor])).SerializeToString())
        if tensor is short:
            with pytest.raises(tk.FormatError, match="short"):
                tk.load(tmp_path / "m.onnx")
        else:
            assert tk.scan(tmp_path / "m.onnx").findings

"""GGUF files, written here by the format's description and by the package gguf, read as that package reads them."""

import io
import math
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorkeep as tk
from tensorkeep import dtypes
from tensorkeep.cli import cli
from tensorkeep.quantized.blocks import BLOCKS

REFUSALS = (tk.FormatError, tk.CorruptError, tk.UnsupportedError)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}
TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "Q4_K": 12, "I8": 24, "I64": 27, "F64": 28, "BF16": 30}


class Writer:
    """A GGUF file by its description, with anything that can be lied about as an argument."""

    def __init__(self, version: int = 3, order: str = "<") -> None:
        self.version, self.order = version, order
        self.metadata: list[bytes] = []
        self.infos: list[bytes] = []
        self.data = b""

    def pack(self, code: str, *values: Any) -> bytes:
        return struct.pack(self.order + code, *values)

    def length(self, value: int) -> bytes:
        return self.pack("I" if self.version == 1 else "Q", value)

    def text(self, text: "str | bytes") -> bytes:
        raw = text.encode() if isinstance(text, str) else text
        return self.length(len(raw)) + raw

    def value(self, kind: int, value: Any) -> bytes:
        if kind == 8:
            return self.text(value)
        if kind == 9:
            inner, items = value
            return self.pack("I", inner) + self.length(len(items)) + b"".join(self.value(inner, item) for item in items)
        return self.pack("?" if kind == 7 else NUMBERS[kind], value)

    def entry(self, key: str, kind: int, value: Any) -> "Writer":
        self.metadata.append(self.text(key) + self.pack("I", kind) + self.value(kind, value))
        return self

    def tensor(self, name: str, kind: int, shape: tuple[int, ...], data: bytes, offset: int | None = None) -> "Writer":
        self.data += b"\0" * (-len(self.data) % 32)
        where = len(self.data) if offset is None else offset
        self.infos.append(
            self.text(name) + self.pack("I", len(shape)) + b"".join(map(self.length, reversed(shape))) + self.pack("IQ", kind, where)
        )
        self.data += data
        return self

    def bytes(self, alignment: int = 32, tensors: int | None = None, entries: int | None = None) -> bytes:
        head = b"GGUF" + self.pack("I", self.version)
        head += self.length(len(self.infos) if tensors is None else tensors) + self.length(
            len(self.metadata) if entries is None else entries
        )
        head += b"".join(self.metadata + self.infos)
        return head + b"\0" * (-len(head) % alignment) + self.data


def opened(data: bytes) -> Any:
    """What a GGUF file in memory holds."""
    return tk.open(io.BytesIO(data))


def small(version: int = 3, order: str = "<") -> bytes:
    """A little of everything."""
    writer = Writer(version, order)
    writer.entry("general.architecture", 8, "llama").entry("general.alignment", 4, 32).entry("flag", 7, True)
    writer.entry("scores", 9, (6, [0.5, -1.0])).entry("tokens", 9, (8, ["a", "", "ü"])).entry("deep", 9, (9, [(2, [1, 2]), (8, ["x"])]))
    writer.tensor("w", 0, (2, 3), struct.pack(order + "6f", *range(6)))
    writer.tensor("h", 1, (), struct.pack(order + "e", 1.5))
    writer.tensor("bytes", 24, (3,), b"\1\2\xff")
    return writer.bytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_version_and_byte_order_is_read(version: int, order: str) -> None:
    """Versions 1 to 3, little- and big-endian: the same names, shapes, values and metadata."""
    with opened(small(version, order)) as contents:
        assert contents.format == "GGUF" and contents.version == str(version)
        assert {path: (str(t.dtype), t.shape) for path, t in contents.tensors.items()} == {
            "w": ("F32", (2, 3)),
            "h": ("F16", ()),
            "bytes": ("I8", (3,)),
        }
        np.testing.assert_array_equal(contents.tensors["w"].numpy(), np.arange(6, dtype=np.float32).reshape(2, 3))
        np.testing.assert_array_equal(contents.tensors["w"][1:], [[3, 4, 5]])
        assert contents.tensors["h"].numpy() == 1.5
        assert contents.tensors["bytes"].numpy().tolist() == [1, 2, -1]
        assert contents.metadata == {
            "general.architecture": "llama",
            "general.alignment": 32,
            "flag": True,
            "scores": [0.5, -1.0],
            "tokens": ["a", "", "ü"],
            "deep": [[1, 2], ["x"]],
        }


@pytest.mark.parametrize("kind", NUMBERS)
def test_every_kind_of_number_is_read_alone_and_in_arrays(kind: int) -> None:
    """All numbers of the metadata, at their ends."""
    code = NUMBERS[kind]
    bits = 8 * struct.calcsize(code)
    ends = [0.5, -2.0] if code in "fd" else [0, 2**bits - 1] if code.isupper() else [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]
    with opened(Writer().entry("one", kind, ends[1]).entry("many", 9, (kind, ends)).bytes()) as contents:
        assert contents.metadata == {"one": ends[1], "many": ends}


def test_a_text_that_is_no_utf8_stays_bytes() -> None:
    """Tokens of some vocabularies are single bytes of a character; a key or a tensor's name must be a text."""
    with opened(Writer().entry("tokens", 9, (8, [b"\xff", "a"])).entry("one", 8, b"\xc3").bytes()) as contents:
        assert contents.metadata == {"tokens": [b"\xff", "a"], "one": b"\xc3"}
    with pytest.raises(tk.FormatError, match="no UTF-8"):
        opened(Writer().tensor(b"\xff", 0, (1,), bytes(4)).bytes())  # type: ignore[arg-type]  # a name that is none


def test_a_large_vocabulary_opens_fast() -> None:
    """250,000 texts with as many scores and merges: a few tenths of a second, though each text is a value of its own."""
    texts = [f"token {number}" for number in range(250_000)]
    data = Writer().entry("tokens", 9, (8, texts)).entry("merges", 9, (8, texts)).entry("scores", 9, (6, [0.5] * 250_000)).bytes()
    begin = time.process_time()
    with opened(data) as contents:
        assert contents.metadata["tokens"] == texts and len(contents.metadata["scores"]) == 250_000
    assert time.process_time() - begin < 3  # on a loaded machine; 0.2 s on a free one


def test_texts_longer_than_a_window_are_read() -> None:
    """A text may be larger than what is read at once, and stand at its edge."""
    texts = ["x" * length for length in (3, 1 << 20, (1 << 20) - 8, 0, 2_500_000, 1)]
    with opened(Writer().entry("tokens", 9, (8, texts)).bytes()) as contents:
        assert contents.metadata["tokens"] == texts


def test_an_array_of_too_many_numbers_is_left_out_and_told() -> None:
    """Numbers as Python values take many times their bytes in the file: more than a million are left out, with a word."""
    data = Writer().entry("many", 9, (0, bytes((1 << 20) + 1))).entry("few", 9, (0, bytes(1 << 20))).bytes()
    with opened(data) as contents:
        assert list(contents.metadata) == ["few"] and "many" in contents.left_out[0]


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_stay_as_they_are(name: str, tmp_path: Path) -> None:
    """Every quantized type: its name, its logical shape, its raw bytes; rows of it; and through a model file and back."""
    count, nbytes = BLOCKS[name]
    number = gguf_number(name)
    raw = np.random.default_rng(1).bytes(3 * 2 * nbytes)
    with opened(Writer().tensor("w", number, (3, 2 * count), raw).bytes()) as contents:
        tensor = contents.tensors["w"]
        assert (str(tensor.dtype), tensor.shape, tensor.nbytes) == (name, (3, 2 * count), len(raw))
        assert tensor.tobytes() == raw and tensor.numpy().tobytes() == raw
        assert tensor.numpy().shape == (3, 2 * nbytes) and tensor.numpy().dtype == np.uint8
        assert tensor[1:2].tobytes() == raw[2 * nbytes : 4 * nbytes]
        tk.save({"w": tensor}, tmp_path / "blocks.safetensors")
    with tk.open(tmp_path / "blocks.safetensors") as contents:
        again = contents.tensors["w"]
        assert (str(again.dtype), again.shape, again.tobytes()) == (name, (3, 2 * count), raw)
        tk.verify(tmp_path / "blocks.safetensors")


def gguf_number(name: str) -> int:
    """The number of a type in a file, from the package."""
    gguf = pytest.importorskip("gguf")
    try:
        return int(gguf.GGMLQuantizationType[name])
    except KeyError:
        pytest.skip(f"this gguf does not know {name}")


DEQUANTIZED = [name for name in BLOCKS if name not in ("Q8_1", "Q8_K", "Q1_0")]


@pytest.mark.parametrize("name", DEQUANTIZED)
def test_dequantized_blocks_have_the_bits_of_the_reference(name: str) -> None:
    """Random bytes are blocks too, infinite scales and NaN among them: every bit as the package gguf makes it."""
    gguf = pytest.importorskip("gguf")
    count, nbytes = BLOCKS[name]
    number = gguf_number(name)
    raw = np.random.default_rng(2).integers(0, 256, (7, 40 * nbytes), dtype=np.uint8)
    raw[0, : 256 * (40 * nbytes // 256)] = np.tile(np.arange(256, dtype=np.uint8), 40 * nbytes // 256)
    with np.errstate(all="ignore"):
        wanted = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(number))
    with opened(Writer().tensor("w", number, (7, 40 * count), raw.tobytes()).bytes()) as contents:
        tensor = contents.tensors["w"]
        found = tensor.dequantize()
        assert found.dtype == np.float32 and found.shape == wanted.shape
        np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))
        lazy = tensor.dequantized()
        assert str(lazy.dtype) == "F32" and lazy.shape == tensor.shape
        np.testing.assert_array_equal(lazy[2:4].view(np.uint32), wanted[2:4].view(np.uint32))
        np.testing.assert_array_equal(np.frombuffer(lazy.source.read(44, 1004), np.uint32), wanted.reshape(-1).view(np.uint32)[11:251])


def test_types_that_the_reference_cannot_dequantize() -> None:
    """Q8_K and Q1_0 by their description; Q8_1, which no file has, is refused in words."""
    numbers = np.arange(-128, 128, dtype=np.int8)
    with opened(Writer().tensor("w", 15, (256,), struct.pack("<f", 0.5) + numbers.tobytes() + bytes(32)).bytes()) as contents:
        np.testing.assert_array_equal(contents.tensors["w"].dequantize(), numbers * np.float32(0.5))
    with opened(Writer().tensor("w", 41, (128,), struct.pack("<e", 0.5) + b"\x05" + bytes(15)).bytes()) as contents:
        np.testing.assert_array_equal(contents.tensors["w"].dequantize(), [0.5, -0.5, 0.5] + [-0.5] * 125)
    with (
        opened(Writer().tensor("w", 9, (32,), bytes(40)).bytes()) as contents,
        pytest.raises(tk.UnsupportedError, match=r"w: Q8_1.*cannot be dequantized"),
    ):
        contents.tensors["w"].dequantize()


def test_plain_numbers_dequantized_are_float32() -> None:
    """Floats become the nearest float32, integers are no real numbers unless the file says which."""
    writer = Writer().tensor("h", 1, (2,), struct.pack("<2e", 0.1, -2)).tensor("d", 28, (1,), struct.pack("<d", 0.1))
    writer.tensor("b", 30, (2,), b"\x80\x3f\x00\xc0").tensor("i", 26, (1,), bytes(4)).tensor("f", 0, (1,), struct.pack("<f", 3))
    with opened(writer.bytes()) as contents:
        assert contents.tensors["h"].dequantize().tolist() == [float(np.float16(0.1)), -2]
        assert contents.tensors["d"].dequantize().tolist() == [float(np.float32(0.1))]
        assert contents.tensors["b"].dequantize().tolist() == [1, -2]
        assert contents.tensors["f"].dequantized() is contents.tensors["f"]
        with pytest.raises(tk.UnsupportedError, match="i: I32"):
            contents.tensors["i"].dequantize()


def test_load_gives_blocks_as_bytes_and_show_their_numbers(tmp_path: Path) -> None:
    """`load` gives what stands there; the command that shows one tensor shows numbers."""
    (tmp_path / "q.gguf").write_bytes(Writer().tensor("w", 8, (2, 32), (struct.pack("<e", 2) + bytes([1] * 32)) * 2).bytes())
    loaded = tk.load(tmp_path / "q.gguf")
    assert loaded["w"].shape == (2, 34) and loaded["w"].dtype == np.uint8
    shown = CliRunner().invoke(cli, ["show", str(tmp_path / "q.gguf"), "--tensor", "w"])
    assert "2.0, 2.0" in shown.output, shown.output


def test_files_of_the_package_read_as_it_reads_them(tmp_path: Path) -> None:
    """What gguf writes, with all that its writer knows to say, reads as its own reader reads it."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "w.gguf", "llama")
    writer.add_name("a name")
    writer.add_token_list(["a", "b", "ü"])
    writer.add_token_scores([0.5, 1.5, -2.0])
    writer.add_array("mixed", [1, 2, 3])
    writer.add_custom_alignment(64)
    weights = np.random.default_rng(3).standard_normal((4, 64)).astype(np.float32)
    writer.add_tensor("plain", weights)
    writer.add_tensor("halves", weights.astype(np.float16))
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor("blocks", gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    theirs = gguf.GGUFReader(tmp_path / "w.gguf")
    with tk.open(tmp_path / "w.gguf") as contents:
        assert list(contents.tensors) == [tensor.name for tensor in theirs.tensors]
        for tensor in theirs.tensors:
            ours = contents.tensors[tensor.name]
            assert ours.shape == tuple(map(int, reversed(tensor.shape))) and ours.tobytes() == tensor.data.tobytes()
        assert {key: field.contents() for key, field in theirs.fields.items() if not key.startswith("GGUF.")} == contents.metadata


class TestSplit:
    """A model in several files."""

    def parts(self, folder: Path, count: int = 3) -> None:
        for number in range(count):
            writer = Writer().entry("split.no", 2, number).entry("split.count", 2, count)
            if number == 0:
                writer.entry("split.tensors.count", 5, count)
            writer.tensor(f"w{number}", 0, (1,), struct.pack("<f", number))
            (folder / f"m-{number + 1:05}-of-{count:05}.gguf").write_bytes(writer.bytes())

    def test_the_first_opens_all(self, tmp_path: Path) -> None:
        """The first file of several stands for the whole; another one for itself, and says so."""
        self.parts(tmp_path)
        with tk.open(tmp_path / "m-00001-of-00003.gguf") as contents:
            assert [float(tensor.numpy()[0]) for tensor in contents.tensors.values()] == [0, 1, 2]
        with tk.open(tmp_path / "m-00002-of-00003.gguf") as contents:
            assert list(contents.tensors) == ["w1"] and "open the first one" in contents.left_out[0]
        (tmp_path / "renamed.gguf").write_bytes((tmp_path / "m-00001-of-00003.gguf").read_bytes())
        with tk.open(tmp_path / "renamed.gguf") as contents:
            assert list(contents.tensors) == ["w0"] and "one of 3" in contents.left_out[0]

    def test_a_missing_or_wrong_part_is_told(self, tmp_path: Path) -> None:
        """A part that is not there, or of another model, is an error that names it."""
        self.parts(tmp_path)
        third = tmp_path / "m-00003-of-00003.gguf"
        third.write_bytes((tmp_path / "m-00002-of-00003.gguf").read_bytes())
        with pytest.raises(tk.FormatError, match="part 3 of 3"):
            tk.open(tmp_path / "m-00001-of-00003.gguf")
        third.unlink()
        with pytest.raises(tk.FormatError, match="m-00003-of-00003"):
            tk.open(tmp_path / "m-00001-of-00003.gguf")


def hostile() -> dict[str, tuple[bytes, str]]:
    """Files that break the format, and the word that their refusal has."""
    four = bytes(4)
    block = Writer().tensor("w", 2, (33,), bytes(40)).bytes()
    deep: Any = (0, [])
    for _ in range(200):
        deep = (9, [deep])
    huge = struct.pack("<Q", 1 << 62)
    return {
        "version": (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "version"),
        "version 0": (b"GGUF" + struct.pack("<IQQ", 0, 0, 0), "version"),
        "nothing": (b"GGUF", "version"),
        "tensor count": (Writer().bytes(tensors=1 << 60), "number of tensors"),
        "tensor count near": (Writer().bytes(tensors=1), "number of tensors"),
        "very many entries": (Writer().bytes(entries=200_001) + bytes(3 << 20), "at most 200,000 are read"),
        "entry count": (Writer().bytes(entries=1 << 63), "number of metadata"),
        "twice a key": (Writer().entry("k", 4, 1).entry("k", 4, 2).bytes(), "occurs twice"),
        "twice a tensor": (Writer().tensor("w", 0, (1,), four).tensor("w", 0, (1,), four).bytes(), "occurs twice"),
        "type of a value": (Writer().bytes(alignment=1, entries=1) + Writer().text("k") + struct.pack("<IQ", 13, 0) + bytes(40), "type"),
        "type of a tensor": (Writer().tensor("w", 99, (1,), four).bytes(), "type 99"),
        "removed type": (Writer().tensor("w", 4, (32,), bytes(20)).bytes(), "type 4"),
        "truth value": (
            Writer().bytes(alignment=1, entries=1) + Writer().text("k") + struct.pack("<IB", 7, 2) + bytes(40),
            "wanted is 0 or 1",
        ),
        "truth values": (
            Writer().bytes(alignment=1, entries=1) + Writer().text("k") + struct.pack("<IIQ", 9, 7, 2) + b"\1\2" + bytes(40),
            "truth value",
        ),
        "text": (Writer().bytes(alignment=1, entries=1) + Writer().text("k") + struct.pack("<I", 8) + huge + bytes(40), "would take"),
        "array": (
            Writer().bytes(alignment=1, entries=1) + Writer().text("k") + struct.pack("<II", 9, 0) + huge + bytes(40),
            "number of items",
        ),
        "array of texts": (
            Writer().bytes(alignment=1, entries=1) + Writer().text("k") + struct.pack("<II", 9, 8) + huge + bytes(40),
            "number of texts",
        ),
        "array of arrays": (
            Writer().bytes(alignment=1, entries=1) + Writer().text("k") + struct.pack("<II", 9, 9) + huge + bytes(40),
            "number of arrays",
        ),
        "deep": (Writer().entry("k", 9, deep).bytes(), "nested deeper"),
        "alignment 0": (Writer().entry("general.alignment", 4, 0).bytes(), "alignment"),
        "alignment 3": (Writer().entry("general.alignment", 4, 3).bytes(), "alignment"),
        "alignment text": (Writer().entry("general.alignment", 8, "32").bytes(), "alignment"),
        "rows of blocks": (block, "do not divide"),
        "no rows of blocks": (Writer().tensor("w", 2, (), bytes(18)).bytes(), "do not divide"),
        "dimensions": (Writer().tensor("w", 0, (1,) * 100, four).bytes(), "100 dimensions"),
        "overflow": (Writer().tensor("w", 0, (1 << 32, 1 << 32, 1 << 32), four).bytes(), "no array can have"),
        "overflow of nothing": (Writer().tensor("w", 0, (0, 1 << 40, 1 << 40), b"").bytes(), "no array can have"),
        "larger": (Writer().tensor("w", 0, (1 << 40,), four).bytes(), "cut short: its tensors end at byte"),
        "offset": (Writer().tensor("w", 0, (1,), four, offset=(1 << 64) - 32).bytes(), "cut short"),
        "odd offset": (Writer().tensor("w", 0, (1,), bytes(40), offset=4).bytes(), "no multiple"),
        "overlap": (Writer().tensor("v", 0, (16,), bytes(64)).tensor("w", 0, (1,), four, offset=32).bytes(), "overlap"),
        "one place": (Writer().tensor("v", 0, (1,), four).tensor("w", 0, (1,), four, offset=0).bytes(), "overlap"),
    }


@pytest.mark.parametrize("what", hostile())
def test_a_file_that_breaks_the_format_is_refused_in_words(what: str) -> None:
    """Each lie ends in a FormatError that names it."""
    data, word = hostile()[what]
    with pytest.raises(tk.FormatError, match=word):
        opened(data)


@pytest.mark.parametrize("magic", [b"lmgg", b"fmgg", b"tjgg", b"algg"])
def test_older_formats_are_told_by_name_with_what_to_do(magic: bytes) -> None:
    """Files from before GGUF name their converter."""
    with pytest.raises(tk.FormatError, match=r"before GGUF(.|\n)*convert_llama_ggml_to_gguf"):
        opened(magic + struct.pack("<I", 1) + bytes(100))


def read_all(data: bytes) -> None:
    """Everything that a file can be asked for, or a refusal of ours."""
    try:
        with opened(data) as contents:
            for tensor in contents.tensors.values():
                tensor.tobytes()
    except REFUSALS:
        pass


@pytest.mark.parametrize("version", [1, 3])
def test_every_truncation_and_every_changed_byte_is_a_reading_or_a_refusal(version: int) -> None:
    """Cut anywhere, or any byte changed: no error that is not ours."""
    data = small(version)
    for length in range(4, len(data)):
        read_all(data[:length])
    for at in range(4, len(data)):
        for flip in (0x01, 0x80, 0xFF):
            read_all(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])


def test_a_cut_file_says_how_much_of_it_is_there() -> None:
    """A download that broke off is told with both sizes."""
    data = Writer().tensor("w", 0, (1000,), bytes(4000)).bytes()
    with pytest.raises(tk.FormatError, match=f"end at byte {len(data):,}, the file has {len(data) - 10:,}"):
        opened(data[:-10])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_behind_the_magic_are_a_reading_or_a_refusal(tail: bytes) -> None:
    """No bytes make it fail in another way."""
    read_all(b"GGUF" + tail)
    read_all(b"GGUF\3\0\0\0" + bytes(8) + b"\2" + bytes(7) + tail)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8), st.sampled_from(["F32", "F16", "I8", "I64", "F64", "BF16", "Q4_0", "Q8_0"]), max_size=6
    ),
    st.lists(st.integers(0, 3), max_size=4),
    st.randoms(use_true_random=False),
)
def test_any_tensors_come_back_bit_for_bit(names: dict[str, str], shape: list[int], random: Any) -> None:
    """Names, dtypes, shapes and bytes of whatever tensors a file has."""
    names.pop("__metadata__", None)
    writer, wanted = Writer(), {}
    for name, kind in names.items():
        dtype = dtypes.BLOCKED.get(kind) or dtypes.STANDARD[kind]
        whole = (*shape, 2 * dtype.block)
        raw = random.randbytes(dtype.nbytes(math.prod(whole)))
        writer.tensor(name, TYPES[kind], whole, raw)
        wanted[name] = (kind, whole, raw)
    with opened(writer.bytes()) as contents:
        found = {path: (str(tensor.dtype), tensor.shape, tensor.tobytes()) for path, tensor in contents.tensors.items()}
    assert found == wanted

"""The format of the codecs: as the docs tell it, as older releases wrote it, and within bounds whoever wrote it."""

import base64
import json
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.store.codecs import Codec, Kind, decode, encode
from tensorkeep.store.codecs.entropy import _ZSTD
from test_codecs import FLOATS, back, chunks, raw, weights

VECTORS = Path(__file__).parent / "vectors" / "codecs-v1"
PAGE = Path(__file__).parent.parent / "docs" / "store-format.md"
CHUNK = 1 << 20


@pytest.fixture(scope="session")
def documented() -> Callable[..., bytes]:
    """The reader of the docs, as it stands there."""
    source = PAGE.read_text(encoding="utf-8").partition("### A reader\n\n```python\n")[2].partition("```")[0]
    namespace: dict[str, Any] = {}
    exec(compile(source, str(PAGE), "exec"), namespace)
    read: Callable[..., bytes] = namespace["read_chunk"]
    return read


VECTOR_NAMES = [case["name"] for case in json.loads((VECTORS / "payloads.json").read_text())]


@pytest.mark.parametrize("name", VECTOR_NAMES)
def test_payloads_of_every_release_give_their_chunks(name: str, documented: Callable[..., bytes]) -> None:
    """Bit for bit, by the package and by the reader of the docs. A vector is never made anew."""
    case = next(case for case in json.loads((VECTORS / "payloads.json").read_text()) if case["name"] == name)
    payload, chunk, base = (base64.b64decode(case[part]) for part in ("payload", "chunk", "base"))
    assert back(Codec(case["codec"]), payload, len(chunk), memoryview(base)) == chunk
    assert documented(case["codec"], payload, len(chunk), base) == chunk


def test_vectors_have_every_part_of_the_format() -> None:
    """Every codec, every width, every way to keep a run."""
    cases = json.loads((VECTORS / "payloads.json").read_text())
    assert {file.name for file in VECTORS.iterdir()} - {"__pycache__"} == {"payloads.json", "make.py"}
    assert {case["codec"] for case in cases} == {0, 1, 2, 3}
    heads = [base64.b64decode(case["payload"])[0] for case in cases if case["codec"] in (2, 3)]
    assert {head & 3 for head in heads} == {0, 1, 2, 3} and any(head >> 4 for head in heads)
    first = {base64.b64decode(case["payload"])[2] for case in cases if case["codec"] == 2}
    assert first == {0, 1, 2, 3}, "how the first run of planes is kept"


@given(chunks(), st.booleans())
def test_the_reader_of_the_docs_agrees(documented: Callable[..., bytes], chunk: tuple[Kind, bytes], thorough: bool) -> None:
    """Whatever the package writes, it reads."""
    kind, data = chunk
    base = bytes(len(data) // 2) + data[len(data) // 2 :]
    for codec in (Codec.CONSTANT, Codec.PLANES, Codec.DELTA):
        payload = encode(codec, memoryview(data), kind, memoryview(base), thorough=thorough)
        if payload is not None:
            assert documented(codec, payload, len(data), base) == data


@pytest.mark.parametrize("kind", list(FLOATS))
def test_the_reader_of_the_docs_agrees_on_classes(documented: Callable[..., bytes], kind: Kind) -> None:
    """Weights that moved, enough of them to be sorted by size."""
    first = weights(kind, 20_001)
    later = (first.astype(np.float64) + np.random.default_rng(1).normal(size=first.size) * 1e-4).astype(first.dtype)
    payload = encode(Codec.DELTA, raw(later), kind, raw(first))
    assert payload is not None and (kind is Kind.FLOAT8 or payload[0] >> 4)
    assert documented(3, payload, later.nbytes, first.tobytes()) == later.tobytes()


def frame(content: bytes, **options: int) -> bytes:
    """A frame of Zstandard with parameters by name."""
    return bytes(_ZSTD.compress(content, options={_ZSTD.CompressionParameter[name]: value for name, value in options.items()}))


def run(how: int, body: bytes) -> bytes:
    """A run as the format has it."""
    return struct.pack("<BI", how, len(body)) + body


def far_looking() -> bytes:
    """A frame of a whole chunk that does not say how long it is, and asks for a window of 8 MiB."""
    compressor = _ZSTD.ZstdCompressor(options={_ZSTD.CompressionParameter.window_log: 23})
    halves = [compressor.compress(bytes(CHUNK // 2)) for _ in range(2)]
    return b"".join((*halves, compressor.flush()))


HOSTILE = {
    "a frame of 64 MiB": b"\0\0" + run(2, frame(bytes(64 << 20))),
    "a frame that looks back 8 MiB": b"\0\0" + run(2, far_looking()),
    "a frame of one byte": b"\0\0" + run(2, frame(b"a")),
    "a frame that is cut off": b"\0\0" + run(2, frame(bytes(range(256)) * 4096)[:-3]),
    "two frames": b"\0\0" + run(2, frame(bytes(CHUNK // 2)) * 2),
    "a frame and more": b"\0\0" + run(2, frame(bytes(CHUNK)) + b"\0"),
    "a frame of one byte too few": b"\0\0" + run(2, frame(bytes(CHUNK - 1))),
    "a frame of one byte too many": b"\0\0" + run(2, frame(bytes(CHUNK + 1))),
    "a frame to be skipped": b"\0\0" + run(2, b"\x50\x2a\x4d\x18\x04\0\0\0abcd"),
    "no frame": b"\0\0" + run(2, b"not Zstandard"),
    "an empty frame": b"\0\0" + run(2, frame(b"")),
    "sparse in sparse": b"\0\0" + run(3, b"\0" + run(3, b"\0" + run(1, b"\0") + run(1, b"\0")) + run(1, b"\0")),
    "sparse with a mask of another length": b"\0\0" + run(3, b"\0" + run(0, bytes(9)) + run(1, b"\1")),
    "sparse with too few others": b"\0\0" + run(3, b"\0" + run(1, b"\xff") + run(0, bytes(CHUNK - 1)[:900_000])),
    "sparse with more behind it": b"\0\0" + run(3, b"\0" + run(1, b"\0") + run(0, b"") + b"\0"),
    "a run that is longer than the payload": b"\0\0" + struct.pack("<BI", 0, 0xFFFFFFFF) + b"abc",
    "a run kept in an unknown way": b"\0\0" + run(4, b"\0"),
    "a constant run of two bytes": b"\0\0" + run(1, b"\0\0"),
    "items of 16 bytes": b"\4\0" + run(1, b"\0"),
    "rotated by as many bits as there are": b"\1\x10" + run(1, b"\0") * 2,
    "a head alone": b"\3",
    "planes with more behind them": b"\0\0" + run(1, b"\0") + b"\0",
    "planes without the last one": b"\1\0" + run(1, b"\0"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_payload_is_refused_in_bounded_time_and_memory(name: str) -> None:
    """Each lie alone: a sentence, a few chunks of memory at most, and no time."""
    into = memoryview(bytearray(CHUNK))
    payload = memoryview(HOSTILE[name] + bytes(8))
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(ValueError) as error:
        decode(Codec.PLANES, payload, into)
    seconds = time.process_time() - began
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(str(error.value)) > 15
    assert most < 12 * CHUNK and seconds < 0.5


DELTAS = {
    "bounds of bytes": b"\x10" + bytes(2) + b"\0" + run(1, b"\0") + b"\0" + run(0, b""),
    "bounds that do not fall": b"\x21" + struct.pack("<HH", 5, 5) + (b"\0" + run(1, b"\0") * 2) * 3,
    "a bit that is not known": b"\x09\0" + run(1, b"\0") * 2,
    "bounds that are cut off": b"\xf1\0\0",
    "a class without its section": b"\x11" + struct.pack("<H", 1) + b"\0" + run(1, b"\0") * 2,
}


def test_a_run_that_no_item_has_is_refused() -> None:
    """Of three bytes, of none, of seventeen."""
    for payload in (b"abc", b"", bytes(17)):
        with pytest.raises(ValueError, match="items have 1, 2, 4, 8 or 16"):
            back(Codec.CONSTANT, payload, CHUNK)


@pytest.mark.parametrize("name", DELTAS)
def test_a_hostile_delta_is_refused(name: str) -> None:
    """What only deltas have to lie about."""
    with pytest.raises(ValueError) as error:
        back(Codec.DELTA, DELTAS[name] + bytes(8), CHUNK, memoryview(bytes(CHUNK)))
    assert len(str(error.value)) > 15


def test_many_small_classes_are_no_work() -> None:
    """All the bounds there may be, over a whole chunk: as quick as one class is, within a small factor."""
    base = memoryview(np.random.default_rng(0).bytes(CHUNK))
    bounds = struct.pack("<15H", *range(15, 0, -1))
    began = time.process_time()
    assert len(back(Codec.DELTA, b"\xf5" + bounds + (b"\0" + run(1, b"\0") * 2) * 16 + bytes(8), CHUNK, base)) == CHUNK
    assert time.process_time() - began < 2

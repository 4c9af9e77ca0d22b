"""Codecs of the store: every chunk comes back bit for bit, and a payload of a stranger costs little and never crashes."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep import dtypes
from tensorkeep.store import codecs, table
from tensorkeep.store.codecs import Codec, Kind, decode, encode, intact, kind_of, kind_of_most

CHUNK = 1 << 20
FLOATS = {
    Kind.FLOAT8: ml_dtypes.float8_e4m3fn,
    Kind.FLOAT16: np.float16,
    Kind.BFLOAT16: ml_dtypes.bfloat16,
    Kind.FLOAT32: np.float32,
    Kind.FLOAT64: np.float64,
}
# Of a chunk of 1 MiB: what is left of normal numbers, and of what a fine-tuning changed in them.
STATIC = {Kind.FLOAT8: 0.86, Kind.FLOAT16: 0.86, Kind.BFLOAT16: 0.667, Kind.FLOAT32: 0.835, Kind.FLOAT64: 0.9}
TUNED = {Kind.FLOAT8: 0.01, Kind.FLOAT16: 0.01, Kind.BFLOAT16: 0.01, Kind.FLOAT32: 0.2, Kind.FLOAT64: 0.65}
SPECIAL = np.array([0x7FF8000000000001, 0xFFF0000000000123, 0x8000000000000000, 0, 1, 0x8000000000000001, 0x7FF0000000000000], np.uint64)


def weights(kind: Kind, count: int, seed: int = 0, scale: float = 0.02) -> np.ndarray:
    """Numbers as training makes them, of a kind of floats."""
    return (np.random.default_rng(seed).normal(size=count) * scale).astype(FLOATS[kind])


def raw(array: np.ndarray) -> memoryview:
    """The bytes of an array."""
    return memoryview(array.tobytes())


def back(codec: Codec, payload: bytes, nbytes: int, base: memoryview | None = None) -> bytes:
    """What a payload decodes to, in memory that held something else before."""
    into = bytearray(b"\xa5" * nbytes)
    decode(codec, memoryview(payload), memoryview(into), base)
    return bytes(into)


@st.composite
def chunks(draw: st.DrawFn) -> tuple[Kind, bytes]:
    """A chunk of any kind: noise, numbers of a network, few values, or what IEEE 754 has at its edges; of any size, tails included."""
    kind = draw(st.sampled_from(list(Kind)))
    nbytes = draw(st.integers(0, 40) | st.integers(1_000, 70_000))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    how = draw(st.sampled_from(["noise", "weights", "few", "edges", "same", "given"]))
    if how == "noise":
        data = rng.bytes(nbytes)
    elif how == "weights":
        data = (rng.normal(size=nbytes) * 0.02).astype(FLOATS.get(kind, np.float32)).tobytes()
    elif how == "few":
        data = rng.choice(rng.integers(0, 256, 3, dtype=np.uint8), nbytes, p=(0.98, 0.01, 0.01)).tobytes()
    elif how == "edges":
        data = rng.choice(SPECIAL, nbytes // 8 + 1).tobytes()[8 - kind.width :]  # so that the first bits of an item of any width are theirs
    elif how == "same":
        data = draw(st.binary(min_size=1, max_size=16)) * (nbytes + 1)
    else:
        data = draw(st.binary(max_size=300))
    return kind, data[:nbytes]


@given(chunks(), st.booleans())
def test_every_chunk_comes_back_bit_for_bit(chunk: tuple[Kind, bytes], thorough: bool) -> None:
    """Whatever the kind, the size and the bytes, and by each codec that gains anything."""
    kind, data = chunk
    for codec in (Codec.CONSTANT, Codec.PLANES):
        payload = encode(codec, memoryview(data), kind, thorough=thorough)
        if payload is not None:
            assert len(payload) < len(data)
            assert back(codec, payload, len(data)) == data


@given(chunks(), chunks(), st.booleans())
def test_every_change_comes_back_bit_for_bit(chunk: tuple[Kind, bytes], other: tuple[Kind, bytes], thorough: bool) -> None:
    """Between any two chunks of one size: those of one network, and those that have nothing in common."""
    kind, data = chunk
    base = bytearray((other[1] * (len(data) // max(1, len(other[1])) + 1))[: len(data)].ljust(len(data), b"\1"))
    for number in range(0, len(data), 3):
        base[number] = data[number]
    payload = encode(Codec.DELTA, memoryview(data), kind, memoryview(base), thorough=thorough)
    if payload is not None:
        assert len(payload) < len(data)
        assert back(Codec.DELTA, payload, len(data), memoryview(base)) == data


@pytest.mark.parametrize("kind", list(FLOATS))
def test_a_whole_chunk_of_weights_gains_what_their_exponents_leave(kind: Kind) -> None:
    """1 MiB of normal numbers: two thirds for bfloat16; what fine tuning changed takes far less."""
    chunk = raw(weights(kind, CHUNK // kind.width))
    payload = encode(Codec.PLANES, chunk, kind)
    assert payload is not None and back(Codec.PLANES, payload, CHUNK) == chunk
    assert len(payload) / CHUNK < STATIC[kind]
    tuned = raw((weights(kind, CHUNK // kind.width).astype(np.float64) * (1 + 1e-6)).astype(FLOATS[kind]))
    payload = encode(Codec.DELTA, tuned, kind, chunk)
    assert payload is not None and back(Codec.DELTA, payload, CHUNK, chunk) == tuned
    assert len(payload) / CHUNK < TUNED[kind]


def test_what_repeats_is_kept_once() -> None:
    """Zeros, a number that fills a tensor, and complex ones; a run that almost fills it is no constant."""
    assert encode(Codec.CONSTANT, memoryview(bytes(CHUNK)), Kind.FLOAT32) == b"\0"
    ones = raw(np.ones(CHUNK // 4, np.float32))
    assert encode(Codec.CONSTANT, ones, Kind.FLOAT32) == np.float32(1).tobytes()
    pairs = raw(np.full(CHUNK // 16, 1 + 2j))
    assert encode(Codec.CONSTANT, pairs, Kind.FLOAT64) == np.complex128(1 + 2j).tobytes()
    assert encode(Codec.CONSTANT, memoryview(bytes(CHUNK - 1) + b"\1"), Kind.BYTES) is None
    assert back(Codec.CONSTANT, b"abcdefgh", 19) == b"abcdefghabcdefghabc"


def test_counters_masks_and_ids_shrink_without_being_floats() -> None:
    """Step counters, masks and token ids: their planes that tell nothing cost nothing."""
    rng = np.random.default_rng(0)
    ids = raw(rng.integers(0, 50_000, CHUNK // 8))
    mask = raw(rng.random(CHUNK) < 0.1)
    count = raw(np.arange(CHUNK // 8))
    for data, kind, most in ((ids, Kind.INT64, 0.26), (mask, Kind.BYTES, 0.15), (count, Kind.INT64, 0.01)):
        payload = encode(Codec.PLANES, data, kind)
        assert payload is not None and len(payload) < most * CHUNK
        assert back(Codec.PLANES, payload, CHUNK) == data


def test_noise_gains_nothing() -> None:
    """What cannot shrink is refused, so that the caller stores it."""
    noise = memoryview(np.random.default_rng(0).bytes(CHUNK))
    for kind in Kind:
        assert encode(Codec.PLANES, noise, kind) is None
        assert encode(Codec.DELTA, noise, kind, memoryview(bytes(CHUNK))) is None
    assert encode(Codec.DELTA, noise, Kind.BYTES, noise[1:]) is None, "a base of another size"
    assert encode(Codec.STORED, noise, Kind.BYTES) is None


def test_a_chunk_is_never_changed_by_encoding_it() -> None:
    """Codecs work in memory of their own."""
    data = bytearray(raw(weights(Kind.FLOAT32, 5_000)))
    before, base = bytes(data), bytes(len(data))
    encode(Codec.PLANES, memoryview(data), Kind.FLOAT32)
    encode(Codec.DELTA, memoryview(data), Kind.FLOAT32, memoryview(base))
    encode(Codec.PLANES, memoryview(data), Kind.BYTES)
    assert data == before and base == bytes(len(data))


def test_every_dtype_has_a_kind() -> None:
    """By the names of the dtypes; what nobody knows is bytes. A shared chunk has the kind of most of it."""
    for name, dtype in dtypes.STANDARD.items():
        numpy = dtype.numpy
        assert numpy is not None
        width = 1 if name == "F4" else numpy.itemsize // (2 if numpy.kind == "c" else 1)
        signed = numpy.kind in "fc" or (name[0] in "FB" and name not in ("BOOL", "F4", "F8_E8M0"))
        assert (kind_of(name).width, kind_of(name).signed_magnitude) == (width, signed), name
    assert (kind_of("F16").exponent_bits, kind_of("BF16").exponent_bits, kind_of("F64").exponent_bits) == (5, 8, 11)
    assert (kind_of("C32"), kind_of("BC32"), kind_of("C64")) == (Kind.FLOAT16, Kind.BFLOAT16, Kind.FLOAT32)
    assert kind_of("<U5") is Kind.INT32 and kind_of("<M8[ns]") is Kind.INT64 and kind_of("Q4_K") is Kind.BYTES
    assert kind_of_most([("F32", 8), ("I64", 8), ("F32", 4)]) is Kind.FLOAT32
    assert kind_of_most([]) is Kind.BYTES


def test_numbers_are_those_of_the_chunk_table() -> None:
    """The format's numbers, in both places where they stand."""
    assert tuple(Codec) == (table.STORED, table.CONSTANT, table.PLANES, table.DELTA)
    assert [codec.value for codec in Codec] == [0, 1, 2, 3]


def payloads() -> list[tuple[Codec, bytes, int]]:
    """Genuine payloads of each codec that has something to damage."""
    chunk = raw(weights(Kind.FLOAT16, 3_000))
    base = memoryview(bytes(len(chunk)))
    mask = raw(np.random.default_rng(0).random(5_000) < 0.1)
    made = [(Codec.CONSTANT, encode(Codec.CONSTANT, memoryview(bytes(99)), Kind.BYTES), 99)]
    made += [(Codec.PLANES, encode(Codec.PLANES, chunk, Kind.FLOAT16), len(chunk))]
    made += [(Codec.PLANES, encode(Codec.PLANES, mask, Kind.BYTES), len(mask))]
    made += [(Codec.DELTA, encode(Codec.DELTA, chunk, Kind.FLOAT16, base), len(chunk))]
    return [(codec, payload, nbytes) for codec, payload, nbytes in made if payload is not None]


@given(st.data())
def test_a_damaged_payload_is_a_value_error_or_other_bytes(data: st.DataObject) -> None:
    """Cut off, lengthened, flipped or overwritten: nothing else comes of it."""
    codec, payload, nbytes = data.draw(st.sampled_from(payloads()))
    broken = bytearray(payload)
    match data.draw(st.sampled_from(["cut", "more", "flip", "overwrite"])):
        case "cut":
            broken = broken[: data.draw(st.integers(0, len(broken) - 1))]
        case "more":
            broken += data.draw(st.binary(min_size=1, max_size=20))
        case "flip":
            at = data.draw(st.integers(0, min(len(broken), 60) - 1) | st.integers(0, len(broken) - 1))
            broken[at] ^= 1 << data.draw(st.integers(0, 7))
        case "overwrite":
            at = data.draw(st.integers(0, len(broken) - 1))
            broken[at : at + 8] = data.draw(st.binary(min_size=1, max_size=8))
    try:
        assert len(back(codec, bytes(broken), nbytes, memoryview(bytes(nbytes)))) == nbytes
    except ValueError as error:
        assert str(error)
    if codec is not Codec.CONSTANT and len(broken) != len(payload):
        with pytest.raises(ValueError):
            back(codec, bytes(broken), nbytes, memoryview(bytes(nbytes)))


@given(st.integers(0, 255), st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_are_a_value_error_or_a_chunk(codec: int, payload: bytes, nbytes: int) -> None:
    """Bytes that no encoder made, for any codec's number."""
    try:
        back(codec, payload, nbytes, memoryview(bytes(nbytes)))  # type: ignore[arg-type]  # numbers that are no codec as well
    except ValueError as error:
        assert str(error)
        assert codec <= max(Codec) or "unknown codec" in str(error)


def test_a_base_that_is_missing_or_of_another_size_is_an_error() -> None:
    """A delta says what it lacks."""
    chunk = raw(weights(Kind.FLOAT16, 3_000))
    payload = encode(Codec.DELTA, chunk, Kind.FLOAT16, memoryview(bytes(len(chunk))))
    assert payload is not None
    with pytest.raises(ValueError, match="without a base"):
        back(Codec.DELTA, payload, len(chunk))
    with pytest.raises(ValueError, match="has a base of 5,999"):
        back(Codec.DELTA, payload, len(chunk), memoryview(bytes(len(chunk) - 1)))


def test_the_names_of_the_room() -> None:
    """What the store may use."""
    assert codecs.__all__ == ["Codec", "Kind", "decode", "encode", "intact", "kind_of", "kind_of_most"]


@given(st.data())
def test_each_flipped_bit_of_a_payload_is_found(data: st.DataObject) -> None:
    """By the chunk that comes out, by an error, or, where no decoder looks at it, as in the header of a frame, by `intact`."""
    codec, payload, nbytes = data.draw(st.sampled_from(payloads()))
    base = memoryview(bytes(nbytes))
    chunk = back(codec, payload, nbytes, base)
    assert intact(codec, memoryview(payload))
    broken = bytearray(payload)
    broken[data.draw(st.integers(0, min(len(broken), 60) - 1) | st.integers(0, len(broken) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        same = back(codec, bytes(broken), nbytes, base) == chunk
    except ValueError:
        same = False
    assert not (same and intact(codec, memoryview(broken)))
    assert not intact(Codec.PLANES, memoryview(b"")) and not intact(Codec.PLANES, memoryview(bytes(9)))

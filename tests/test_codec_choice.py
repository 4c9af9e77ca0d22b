"""Which codec a chunk gets, and when a delta is worth its keyframe."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorkeep.store.codecs import Codec, Kind, chooser, decode
from tensorkeep.store.codecs.chooser import Chooser
from tensorkeep.store.keyframes import Star, pays

CHUNK = 1 << 18


def weights(seed: int = 0, dtype: object = ml_dtypes.bfloat16) -> np.ndarray:
    """A quarter of a MiB of a network's numbers."""
    return (np.random.default_rng(seed).normal(size=CHUNK // np.dtype(dtype).itemsize) * 0.02).astype(dtype)  # type: ignore[arg-type,call-overload]


def raw(array: np.ndarray) -> memoryview:
    """The bytes of an array."""
    return memoryview(array.tobytes())


def moved(array: np.ndarray, by: float) -> np.ndarray:
    """The numbers some steps of training later."""
    return (array.astype(np.float64) + np.random.default_rng(1).normal(size=array.shape) * by).astype(array.dtype)


NOISE = memoryview(np.random.default_rng(0).bytes(CHUNK))


def comes_back(choice: Chooser, path: str, chunk: memoryview, kind: Kind, base: memoryview | None = None) -> Codec:
    """The codec of a chunk; its payload is never longer than the chunk, and gives it back."""
    codec, payload = choice.encode(path, chunk, kind, base)
    assert len(payload) <= len(chunk)
    into = bytearray(len(chunk))
    decode(codec, memoryview(payload), memoryview(into), base)
    assert into == chunk
    return codec


def test_each_chunk_gets_what_suits_it() -> None:
    """Weights, what they became, zeros and noise, by one chooser, again and again."""
    choice = Chooser("auto", threads=2)
    first = weights()
    later = moved(first, 1e-4)
    for _ in range(40):
        assert comes_back(choice, "w", raw(first), Kind.BFLOAT16) is Codec.PLANES
        assert comes_back(choice, "w", raw(later), Kind.BFLOAT16, raw(first)) is Codec.DELTA
        assert comes_back(choice, "zeros", memoryview(bytes(CHUNK)), Kind.FLOAT32) is Codec.CONSTANT
        assert comes_back(choice, "noise", NOISE, Kind.FLOAT32) is Codec.STORED
    planes, delta = choice.shares("w")
    assert planes is not None and delta is not None and 0.6 < planes < 0.68 and delta < 0.4
    assert choice.shares("unknown") == (None, None)


def test_none_stores_and_max_takes_the_smallest() -> None:
    """`none` encodes nothing, not even zeros; `max` is never longer than `auto`."""
    never, always, most = Chooser("none"), Chooser("auto"), Chooser("max")
    text = memoryview((b"the quick brown fox " * CHUNK)[:CHUNK])
    first = weights()
    for chunk, kind, base in (
        (memoryview(bytes(CHUNK)), Kind.BYTES, None),
        (raw(first), Kind.BFLOAT16, None),
        (raw(moved(first, 1e-3)), Kind.BFLOAT16, raw(first)),
        (text, Kind.INT32, None),
        (raw(weights(dtype=np.float32)), Kind.FLOAT32, None),
    ):
        assert comes_back(never, "w", chunk, kind, base) is Codec.STORED
        comes_back(most, "w", chunk, kind, base)
        assert len(most.encode("w", chunk, kind, base)[1]) <= len(always.encode("w", chunk, kind, base)[1])


def test_what_gained_nothing_is_not_tried_with_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of noise costs a sample now and then, and one without a good delta asks for no base."""
    tried = []
    real = chooser.encode
    monkeypatch.setattr(chooser, "encode", lambda codec, *rest, **more: (tried.append(codec), real(codec, *rest, **more))[1])
    choice = Chooser("auto")
    for _ in range(32):
        choice.encode("noise", NOISE, Kind.FLOAT32)
    assert tried.count(Codec.PLANES) == 2
    assert choice.wants_base("noise"), "nobody tried yet"
    first, other = raw(weights(0)), raw(weights(7))
    assert comes_back(choice, "moment", first, Kind.BFLOAT16, other) is Codec.PLANES
    assert not choice.wants_base("moment")
    choice.rebased()
    assert choice.wants_base("moment"), "a new keyframe may be nearer"
    assert not Chooser("none").wants_base("w") and Chooser("max").wants_base("w")


def test_a_base_of_another_size_is_no_base() -> None:
    """A tensor that grew since the keyframe is kept as if there were none."""
    choice = Chooser("auto")
    codec, payload = choice.encode("w", raw(weights()), Kind.BFLOAT16, raw(weights())[:-2])
    assert codec is Codec.PLANES
    codec, payload = Chooser("max").encode("w", raw(weights()), Kind.BFLOAT16, raw(weights())[:-2])
    assert codec is Codec.PLANES and len(payload) < CHUNK


def saved(choice: Chooser, seconds_a_byte: float, chunks: int = 64) -> int:
    """How many chunks a save encodes, on a disk that takes so long for each byte."""
    codecs = [comes_back(choice, "w", raw(weights()), Kind.BFLOAT16) for _ in range(chunks)]
    choice.wrote(chunks * CHUNK, chunks * CHUNK * seconds_a_byte)
    return chunks - codecs.count(Codec.STORED)


def test_a_disk_that_is_faster_than_encoding_gets_what_is_there() -> None:
    """One save is stored to see how fast the disk is; on a fast one the others are too, but for a try now and then, until it is slow."""
    choice = Chooser("auto", threads=1)
    assert saved(choice, 1e-12) == 64, "nobody knows yet"
    assert saved(choice, 1e-12) == 0
    assert sum(saved(choice, 1e-12) for _ in range(4)) == 1
    assert saved(choice, 1e-3) <= 1, "that it was slow is known after it"
    assert saved(choice, 1e-3) == 64
    choice.wrote(0, 0.0)  # says nothing
    assert saved(choice, 1e-3) == 64


def test_on_a_fast_disk_no_base_is_read_but_now_and_then() -> None:
    """To read a base, and to sample a delta, would take longer than the disk takes for the whole."""
    choice = Chooser("auto", threads=1)
    saved(choice, 1e-12), saved(choice, 1e-12)
    assert sum(choice.wants_base(f"w{number}") for number in range(512)) == 2
    for _ in range(2):  # the first is late
        saved(choice, 1e-3)
    assert all(choice.wants_base(f"w{number}") for number in range(512))


def test_a_disk_that_is_slow_is_seen_without_storing_anything() -> None:
    """Where encoding takes a small part of the time of a save, it goes on."""
    choice = Chooser("auto", threads=2)
    assert [saved(choice, 1e-3) for _ in range(4)] == [64] * 4


def test_a_delta_pays_only_where_enough_depend_on_its_keyframe() -> None:
    """Three float32 checkpoints: no; three of bfloat16, or many: yes; where the keyframe is kept anyway, whatever is smaller."""
    assert not pays(3, 0.83, 0.77)
    assert pays(3, 0.66, 0.35)
    assert pays(19, 0.83, 0.77)
    assert pays(1, 0.83, 0.82, kept_anyway=True) and not pays(100, 0.82, 0.83, kept_anyway=True)
    assert not pays(0, 0.66, 0.01)


@given(st.floats(0.001, 0.05), st.floats(0.1, 0.6))
def test_keyframes_come_as_often_as_is_best_where_deltas_grow_evenly(growth: float, first: float) -> None:
    """Against every fixed distance: never more than a few percent above the best of them."""
    static = 0.66

    def of_period(period: int) -> float:
        return (static + sum(first + growth * gap for gap in range(period - 1))) / period

    star, total, count = Star(static), static, 1
    while not star.due(first + growth * (count - 1)) and count < 1000:
        star.add(first + growth * (count - 1))
        total, count = total + first + growth * (count - 1), count + 1
    assert total / count <= 1.03 * min(of_period(period) for period in range(1, 1000))


def test_a_star_whose_deltas_gain_nothing_is_over_at_once() -> None:
    """And one that has none yet goes on, as long as nothing is expected to be larger than a keyframe."""
    assert Star(0.66).due(0.66) and not Star(0.66).due(0.5) and not Star(0.66).due()
    star = Star(0.66)
    for _ in range(1000):
        star.add(0.3)
    assert not star.due(), "deltas that do not grow need no other keyframe"

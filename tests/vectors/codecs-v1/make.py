"""How the vectors were made, by the release that first wrote codecs of version 1. No test runs it; what it made is never made anew."""

import base64
import json
from pathlib import Path

import ml_dtypes
import numpy as np

from tensorkeep.store.codecs import Codec, Kind, encode

rng = np.random.default_rng(2026)
cases = []


def add(name: str, codec: Codec, chunk: bytes, kind: Kind, base: bytes = b"", thorough: bool = False) -> None:
    payload = encode(codec, memoryview(chunk), kind, memoryview(base), thorough=thorough) if codec else chunk
    assert payload is not None, name
    parts = {"payload": payload, "chunk": chunk, "base": base}
    cases.append({"name": name, "codec": int(codec)} | {part: base64.b64encode(data).decode() for part, data in parts.items()})


def numbers(count: int, dtype: object) -> np.ndarray:
    return (rng.normal(size=count) * 0.02).astype(dtype)


special = np.array([0x7FF8000000000001, 0xFFF0000000000123, 0x8000000000000000, 0, 1, 0x8000000000000001], np.uint64)
floats = {
    Kind.FLOAT8: ml_dtypes.float8_e4m3fn, Kind.FLOAT16: np.float16, Kind.BFLOAT16: ml_dtypes.bfloat16, Kind.FLOAT32: np.float32,
    Kind.FLOAT64: np.float64,
}  # fmt: skip

add("stored", Codec.STORED, b"as it is", Kind.BYTES)
for period in (1, 2, 4, 8, 16):
    add(f"constant, {period} bytes, cut off", Codec.CONSTANT, (bytes(range(1, period + 1)) * 20)[: 16 + period], Kind.BYTES)
for kind, dtype in floats.items():
    chunk = numbers(1500, dtype).tobytes()
    add(f"planes, {kind.name}, a tail", Codec.PLANES, chunk + b"tail..."[: kind.width - 1], kind)
    # 4,500 items and more are sorted into classes; the last ones are not a number, infinite, negative zeros, denormal
    first = np.concatenate([numbers(4500, dtype), special[: 8 * (len(special) // 8) or None].view(np.uint8).repeat(1).view(dtype)])
    later = first.copy()
    with np.errstate(all="ignore"):
        later[:4500] = (first[:4500].astype(np.float64) + rng.normal(size=4500) * 2e-4).astype(dtype)
    later[4400:] = later[4400:][::-1]
    add(f"delta, {kind.name}, classes", Codec.DELTA, later.tobytes(), kind, first.tobytes())
ids = rng.integers(0, 3000, 400)
add("planes, INT64, constant planes", Codec.PLANES, ids.tobytes() + b"tail", Kind.INT64)
add("delta, INT64, a counter", Codec.DELTA, (ids + 100).tobytes(), Kind.INT64, ids.tobytes())
mask = rng.random(4001) < 0.1
add("planes, BYTES, sparse", Codec.PLANES, mask.tobytes(), Kind.BYTES)
add("planes, BYTES, sparse with values", Codec.PLANES, (mask * rng.integers(1, 5, 4001)).astype(np.uint8).tobytes(), Kind.BYTES)
add("planes, INT16, what repeats", Codec.PLANES, (b"the quick brown fox jumps over the lazy dog. " * 40)[:1601], Kind.INT16, thorough=True)
add("planes, INT32, the first plane raw", Codec.PLANES, b"".join(rng.bytes(1) + b"\0\0" + rng.bytes(1) for _ in range(300)), Kind.INT32)
(Path(__file__).parent / "payloads.json").write_text(json.dumps(cases, indent=1) + "\n")

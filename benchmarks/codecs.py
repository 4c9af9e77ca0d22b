"""The cases of the store's codecs: what is left of a model and of a run, and how fast, beside ZipNN and z4ai if they are there."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np

from benchmarks import states, training
from benchmarks.measure import Case
from tensorkeep.chunks import grid_of
from tensorkeep.store.codecs import Codec, Kind, decode, encode
from tensorkeep.store.codecs.chooser import Chooser
from tensorkeep.store.keyframes import Star
from tensorkeep.workers import run, thread_count

_CHUNK: Final = states.MIB
_KINDS: Final = {"bf16": (Kind.BFLOAT16, ml_dtypes.bfloat16), "fp32": (Kind.FLOAT32, np.float32)}
_WITHOUT: Final = {"bf16": 0.667, "fp32": 0.84}  # of the raw bytes, at most


def codecs(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """Normal numbers, which have the exponents of a trained network's, cut into chunks of 1 MiB as a store cuts them."""
    nbytes = scale.large * states.MIB // 4
    threads = thread_count()
    for name, (kind, dtype) in _KINDS.items():
        data = (np.random.default_rng(0).normal(size=nbytes // kind.width) * 0.02).astype(dtype).tobytes()
        ours = _encoded(data, kind, threads)
        assert _decoded(ours, nbytes, threads) == data
        size = f"{nbytes // states.MIB} MiB of {name}"
        yield _bytes(f"{size}: bytes", "raw", sum(len(payload) for _, payload in ours), nbytes, _WITHOUT[name])
        for peer, (compress, decompress) in _peers(name).items():
            theirs = compress(bytearray(data))
            yield _bytes(f"{size}: bytes", peer, sum(len(payload) for _, payload in ours), len(theirs), 1.01)
            most = 1 / 1.5 if name == "bf16" and peer == "ZipNN" else None
            fresh: list[bytearray] = []  # for a peer that works in its caller's memory, and leaves it changed
            yield Case(
                f"encode {size}, {threads} threads",
                peer,
                partial(_encoded, data, kind, threads),
                partial(lambda compress, fresh: compress(fresh.pop()), compress, fresh),
                most,
                partial(lambda data, fresh: (fresh.clear(), fresh.append(bytearray(data))), data, fresh),
                nbytes=nbytes,
            )
            yield Case(
                f"decode {size}, {threads} threads",
                peer,
                partial(_decoded, ours, nbytes, threads),
                partial(decompress, theirs),
                most,
                nbytes=nbytes,
            )


def runs(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """Twenty checkpoints, a hundred steps apart, of a GPT in AdamW, all of them kept: all payloads, deltas of keyframes included."""
    kept = training.checkpoints(quick=scale.large < 256)
    parts = {part: [{name: array for name, array in one.items() if name[0] == part} for one in kept] for part in "wmvs"}
    raws = {part: sum(array.nbytes for one in ones for array in one.values()) for part, ones in parts.items()}
    ours = {part: _of_a_run(ones, Kind.FLOAT32) for part, ones in parts.items()}
    yield _bytes("fp32 weights and AdamW", "raw", sum(ours.values()), sum(raws.values()), 0.80)
    for part, what in (("w", "fp32 weights"), ("m", "first moments"), ("v", "second moments")):
        yield _bytes(f"of these: {what}", "raw", ours[part], raws[part])
    weights = [{name: array.astype(ml_dtypes.bfloat16) for name, array in one.items()} for one in parts["w"]]
    nbytes = _of_a_run(weights, Kind.BFLOAT16)
    yield _bytes("weights in bf16", "raw", nbytes, raws["w"] // 2, 0.50)
    for peer, (compress, _) in _peers("bf16").items():
        files = (b"".join(array.tobytes() for array in one.values()) for one in weights)
        yield _bytes("weights in bf16", f"{peer}, each file", nbytes, sum(len(compress(bytearray(file))) for file in files))


def _bytes(job: str, against: str, ours: int, peer: int, at_most: float | None = None) -> Case:
    return Case(job, against, lambda: ours, lambda: peer, at_most, counted=True)


def _encoded(data: bytes, kind: Kind, threads: int) -> list[tuple[int, bytes]]:
    view = memoryview(data)
    payloads: list[Any] = [None] * -(-len(data) // _CHUNK)
    choice = Chooser("auto", threads=threads)

    def one(number: int) -> None:
        payloads[number] = choice.encode("weights", view[number * _CHUNK : (number + 1) * _CHUNK], kind)

    run(((_CHUNK, partial(one, number)) for number in range(len(payloads))), nbytes=len(data), threads=threads)
    return payloads


def _decoded(payloads: list[tuple[int, bytes]], nbytes: int, threads: int) -> memoryview:
    view = memoryview(np.empty(nbytes, np.uint8))

    def one(number: int) -> None:
        codec, payload = payloads[number]
        decode(codec, memoryview(payload), view[number * _CHUNK : (number + 1) * _CHUNK])

    run(((_CHUNK, partial(one, number)) for number in range(len(payloads))), nbytes=nbytes, threads=threads)
    return view


def _of_a_run(kept: list[training.Checkpoint], kind: Kind) -> int:
    """Bytes of all payloads of one part of a state, which is a star of its own."""
    total, star, base = 0, None, None
    for one in kept:
        chunks = _chunks(list(one.values()))
        static = sum(_least(chunk, kind, None) for chunk in chunks)
        delta = None if base is None else sum(_least(chunk, kind, other) for chunk, other in zip(chunks, base, strict=True))
        if star is None or delta is None or star.due(delta):
            star, base = Star(static), chunks
            total += static
        else:
            star.add(delta)
            total += delta
    return total


def _least(chunk: memoryview, kind: Kind, base: memoryview | None) -> int:
    made = [encode(codec, chunk, kind, base) for codec in (Codec.CONSTANT, Codec.PLANES, Codec.DELTA)]
    return min(len(chunk), *(len(payload) for payload in made if payload is not None)) if any(made) else len(chunk)


def _chunks(arrays: list[Any]) -> list[memoryview]:
    arrays = sorted(arrays, key=lambda array: -array.nbytes)
    data = memoryview(b"".join(array.tobytes() for array in arrays))
    grid = grid_of([array.nbytes for array in arrays])
    return [data[slice(*grid.span(number))] for number in range(len(grid))]


def _peers(name: str) -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    found: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}
    if importlib.util.find_spec("zipnn"):
        zipnn = importlib.import_module("zipnn")
        dtype = {"bf16": "bfloat16", "fp32": "float32"}[name]
        codec = zipnn.ZipNN(input_format="byte", bytearray_dtype=dtype, threads=thread_count())
        found["ZipNN"] = (codec.compress, codec.decompress)
    if importlib.util.find_spec("z4ai"):
        z4ai = importlib.import_module("z4ai")
        found["z4ai"] = (partial(_z4ai, z4ai, name), z4ai.decompress)
    return found


def _z4ai(z4ai: Any, name: str, data: bytearray) -> bytes:
    return bytes(z4ai.compress(bytes(data), dtype=name))


TABLES: Final = {"Stores, codecs": codecs, "Stores, codecs in a run": runs}

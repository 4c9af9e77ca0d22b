"""Codecs: how the bytes of one chunk are kept in a pack. Lossless, pure functions over bytes; heavy calls release the GIL.

Lives here: what each codec's number means, and the one door to all of them. Lives elsewhere: which one suits (`chooser.py`), when a
delta pays (`store/keyframes.py`), digests: the caller compares that of what came out, so a codec need only never crash, never be slow
and never make more than it was asked for.

Source: docs/store-format.md, section "Codecs"
"""

from enum import IntEnum
from typing import Final

from tensorkeep.store.codecs import constant, delta, planes, seal
from tensorkeep.store.codecs.kinds import Kind, kind_of, kind_of_most


class Codec(IntEnum):
    """How a chunk is kept; the numbers are those of the format."""

    STORED = 0
    CONSTANT = 1
    PLANES = 2
    DELTA = 3


_KNOWN: Final = frozenset(Codec)
_SEALED: Final = frozenset({Codec.PLANES, Codec.DELTA})


def encode(codec: Codec, chunk: memoryview, kind: Kind, base: memoryview | None = None, *, thorough: bool = False) -> bytes | None:
    """What a pack keeps of a chunk, or None where this codec gains nothing.

    Args:
        codec: how; `STORED` gains nothing, ever: the chunk itself is its payload.
        chunk: its bytes, contiguous; they are not changed.
        kind: how to look at them: whichever is given, the same bytes come back.
        base: for `DELTA`: the bytes of the same chunk of the keyframe.
        thorough: try everything, whatever time it takes.
    """
    payload: bytes | None = None
    if codec is Codec.CONSTANT:
        payload = constant.encode(chunk)
    elif codec is Codec.PLANES:
        payload = planes.encode(chunk, kind.width, int(kind.signed_magnitude), thorough=thorough)
    elif codec is Codec.DELTA and base is not None:
        payload = delta.encode(chunk, base, kind, thorough=thorough)
    return payload if payload is not None and len(payload) < len(chunk) else None


def intact(codec: int, payload: memoryview) -> bool:
    """Whether those bits of a payload are as they were written that may change nothing in its chunk: for the others, compare its digest."""
    return codec not in _SEALED or seal.holds(payload)


def decode(codec: int, payload: memoryview, into: memoryview, base: memoryview | None = None) -> None:
    """Make a chunk of what a pack keeps of it.

    Args:
        codec: its number in the chunk table; need not be one that is known.
        payload: what the pack has, of whomever.
        into: writable, of exactly the chunk's size. Compare its digest afterwards: a flipped bit may make other bytes without an error.
        base: for `DELTA`: the bytes of the base.

    Raises:
        ValueError: the payload is malformed, in a plain sentence; `into` may have been written to.
    """
    if codec == Codec.STORED:
        if len(payload) != len(into):
            raise ValueError(f"a stored chunk of {len(into):,} bytes has {len(payload):,}")
        into[:] = payload
        return
    if codec not in _KNOWN:
        raise ValueError(f"an unknown codec, {codec}; this version knows 0 to {max(Codec)}")
    if len(payload) >= len(into):
        raise ValueError(f"a payload of {len(payload):,} bytes for a chunk of {len(into):,}: nothing that gains is as long")
    if codec == Codec.CONSTANT:
        constant.decode(payload, into)
    elif codec == Codec.PLANES:
        planes.decode(payload, into)
    elif base is None:
        raise ValueError("a delta without a base")
    else:
        delta.decode(payload, base, into)


__all__ = ["Codec", "Kind", "decode", "encode", "intact", "kind_of", "kind_of_most"]

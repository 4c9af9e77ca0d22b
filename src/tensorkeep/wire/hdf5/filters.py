"""Filters: what was done to a chunk when it was written, undone. Section IV.A.2.l.

What comes out is never more than the chunk may have, whatever the compressed bytes say.
"""

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.wire.hdf5.file import Hdf5File, Message
from tensorkeep.wire.inflate import INFLATERS

_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF, _ZSTD = 1, 2, 3, 32000, 32015
_NAMES: Final = {4: "szip", 5: "nbit", 6: "scaleoffset", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32026: "blosc2"}
_READ: Final = frozenset({_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF, _ZSTD})
_CHECKSUM_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Filter:
    """One step of the pipeline: its registered number, and the numbers that it was set up with."""

    number: int
    settings: tuple[int, ...]


def pipeline(file: Hdf5File, message: Message) -> tuple[Filter, ...]:
    """The filters of a data set, in the order in which they were applied."""
    block = file.open(message)
    version, count = block.version("the filters", (1, 2)), block.u8("number of filters")
    block.skip("reserved", 6 * (version == 1))
    found = []
    for _ in range(count):
        number = block.u16("filter")
        name_bytes = block.u16("size of its name") if version == 1 or number >= 256 else 0
        block.skip("flags", 2)
        settings = block.u16("number of settings")
        block.skip("name", -(-name_bytes // 8) * 8 if version == 1 else name_bytes)
        found.append(Filter(number, tuple(block.u32("setting") for _ in range(block.fits("settings", settings, bytes_each=4)))))
        block.skip("padding", 4 * (settings % 2) if version == 1 else 0)
    return tuple(found)


def unread(filters: tuple[Filter, ...]) -> str:
    """Which filter keeps a data set from being read; "" for none."""
    for step in filters:
        if step.number not in _READ:
            return f"compressed by {_NAMES.get(step.number, 'a filter')} ({step.number}), which is not read"
    return ""


def undo(data: memoryview, filters: tuple[Filter, ...], mask: int, nbytes: int, item: int, name: str) -> memoryview:
    """A chunk as it was before the filters.

    Args:
        mask: a bit for each filter that was left out for this chunk.
        nbytes: of the chunk.
        item: bytes of one element.
        name: for messages.

    Raises:
        FormatError: it is damaged, or not of that size.
        CorruptError: its checksum is wrong.
    """
    most = nbytes + _CHECKSUM_BYTES * len(filters)
    for place in reversed(range(len(filters))):
        step = filters[place]
        if mask >> place & 1:
            continue
        if step.number == _FLETCHER32:
            data = _checked(data, name)
        elif step.number == _SHUFFLE:
            data = _unshuffle(data, step.settings[0] if step.settings else item)
        elif step.number == _LZF:
            data = memoryview(_lzf(bytes(data), most, name))
        else:
            data = memoryview(_inflate(data, "zlib" if step.number == _DEFLATE else "zstd", most, name))
    if data.nbytes != nbytes:
        raise FormatError(name, f"a chunk has {data.nbytes:,} bytes, {nbytes:,} are wanted")
    return data


def _inflate(data: memoryview, codec: str, most: int, name: str) -> bytes:
    inflater = INFLATERS[codec]()
    try:
        made = inflater.feed(data, most + 1)
        while not inflater.ended and len(made) <= most and (more := inflater.feed(memoryview(b""), most + 1 - len(made))):
            made += more
    except (zlib.error, OSError, EOFError, ValueError) as error:
        raise FormatError(name, f"damaged: a chunk cannot be inflated: {error}") from None
    except Exception as error:
        if type(error).__name__ == "ZstdError":  # of whichever package has it
            raise FormatError(name, f"damaged: a chunk cannot be inflated: {error}") from None
        raise
    if len(made) > most or not inflater.ended:
        raise FormatError(name, f"damaged: a chunk {'inflates to more than' if len(made) > most else 'ends before'} {most:,} bytes")
    return made


def _unshuffle(data: memoryview, item: int) -> memoryview:
    """The first bytes of all elements stand first, then all second ones; what is left over at the end stands as it was."""
    if item < 2 or data.nbytes < item:
        return data
    whole = data.nbytes // item * item
    planes = np.frombuffer(data[:whole], np.uint8).reshape(item, -1)
    made = np.empty(data.nbytes, np.uint8)
    made[:whole].reshape(-1, item)[:] = planes.T
    made[whole:] = np.frombuffer(data[whole:], np.uint8)
    return memoryview(made)


def _checked(data: memoryview, name: str) -> memoryview:
    """Compare the last four bytes with those before: Fletcher's sum of big-endian words, modulo 65535. libhdf5, H5_checksum_fletcher32."""
    if data.nbytes < _CHECKSUM_BYTES:
        raise FormatError(name, "a chunk is too small for its checksum")
    body, stated = data[:-_CHECKSUM_BYTES], int.from_bytes(data[-_CHECKSUM_BYTES:], "little")
    words = np.frombuffer(bytes(body) + b"\0" * (body.nbytes % 2), ">u2").astype(np.uint64)
    low = high = 0
    for begin in range(0, len(words), 65536):
        piece = words[begin : begin + 65536]
        weights = np.arange(len(piece), 0, -1, dtype=np.uint64)
        high = int((high + len(piece) * low + int((piece * weights).sum())) % 65535)
        low = int((low + int(piece.sum())) % 65535)
    # A sum that is 0 modulo 65535 is written as 65535 or as 0.
    if (stated & 0xFFFF) % 65535 != low or (stated >> 16) % 65535 != high:
        raise CorruptError(
            file=name, path="(chunk)", span=(0, data.nbytes), found=f"{high << 16 | low:08x}", wanted=f"{stated:08x}", kind="Fletcher-32"
        )
    return body


def _lzf(data: bytes, most: int, name: str) -> bytes:
    """LibLZF: runs of literals, and copies of what was made before."""
    made = bytearray()
    at, end = 0, len(data)
    try:
        while at < end:
            control = data[at]
            at += 1
            if control < 32:
                made += data[at : at + control + 1]
                at += control + 1
            else:
                length = control >> 5
                if length == 7:
                    length += data[at]
                    at += 1
                back = len(made) - ((control & 31) << 8 | data[at]) - 1
                at += 1
                length += 2
                if back < 0:
                    raise FormatError(name, "damaged: a chunk copies from before its beginning")
                piece = made[back : back + length]
                while len(piece) < length:
                    piece += piece[: length - len(piece)]
                made += piece
            if len(made) > most:
                raise FormatError(name, f"damaged: a chunk inflates to more than {most:,} bytes")
    except IndexError:
        raise FormatError(name, "damaged: a compressed chunk ends in the middle") from None
    return bytes(made)

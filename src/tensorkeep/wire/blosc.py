"""Blosc 1: blocks that are shuffled by bytes or bits and packed by another codec. Zarr's arrays often have their chunks so.

BloscLZ and Snappy are not read as codecs inside of it.

Source: https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst, and `blosc/blosc.c` for when a block is split
"""

import zlib
from typing import Final

import numpy as np

from tensorkeep.backends.files import MemoryFile
from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits
from tensorkeep.tensors import as_bytes
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent, Opened
from tensorkeep.wire.inflate import InflatedFile
from tensorkeep.wire.lz4 import decode

_HEADER_BYTES: Final = 16
_SHUFFLED, _STORED, _BIT_SHUFFLED, _WHOLE = 0x01, 0x02, 0x04, 0x10
_CODECS: Final = ("blosclz", "lz4", "snappy", "zlib", "zstd")
_MOST_STREAMS: Final = 16  # into which a block is split, one for each byte of an element ...
_SHORTEST_BLOCK: Final = 2048  # bytes: writers take what a core's first cache holds, and each block costs
_LEAST_ELEMENTS: Final = 128  # ... if it has so many


def inflate(packed: Extent, nbytes: int, budget: Budget) -> Extent:
    """What a chunk of Blosc holds.

    Args:
        nbytes: how many bytes that must be.

    Raises:
        FormatError: it is damaged, holds another number of bytes, or is packed by a codec that is not read.
    """
    cursor = Cursor(packed)
    cursor.one_of("version of Blosc", cursor.u8("version of Blosc"), {1, 2})
    cursor.u8("version of its codec")
    flags, item = cursor.u8("flags"), cursor.u8("size of an element")
    said, block, whole = (cursor.u32(what) for what in ("size", "size of a block", "size when packed"))
    if said != nbytes or whole != packed.nbytes or not item:
        raise cursor.error(f"a chunk of Blosc of {whole:,} bytes that hold {said:,}; {packed.nbytes:,} are there, wanted are {nbytes:,}")
    if flags & _STORED:
        if nbytes + _HEADER_BYTES != packed.nbytes:
            raise cursor.error(f"a stored chunk of {packed.nbytes:,} bytes, wanted are {nbytes + _HEADER_BYTES:,}")
        return packed.part(_HEADER_BYTES, packed.nbytes)
    codec = _CODECS[flags >> 5] if flags >> 5 < len(_CODECS) else ""
    if codec not in ("lz4", "zlib", "zstd"):
        raise cursor.error(f"a chunk of Blosc packed by {codec or f'codec {flags >> 5}'}; tensorkeep reads lz4, zlib and zstd in it")
    if nbytes and not min(nbytes, _SHORTEST_BLOCK) <= block <= nbytes:
        raise cursor.error(f"blocks of {block:,} bytes, of {nbytes:,} in all")
    count = cursor.fits("count of blocks", -(-nbytes // block) if nbytes else 0, bytes_each=4)
    starts = [cursor.u32("offset of a block") for _ in range(count)]
    budget.spend(nbytes, "a chunk of Blosc")
    into = np.empty(nbytes, np.uint8)
    for number, start in enumerate(starts):
        size = min(block, nbytes - number * block)
        split = not flags & _WHOLE and item <= _MOST_STREAMS and block // item >= _LEAST_ELEMENTS and size == block
        at = Cursor(packed, start)
        plain = b"".join(_stream(at, size // (item if split else 1), codec) for _ in range(item if split else 1))
        if len(plain) != size:
            raise at.error(f"a block of {len(plain):,} bytes, wanted are {size:,}")
        into[number * block : number * block + size] = _in_order(plain, item, flags)
    return Opened(MemoryFile(as_bytes(into), packed.name)).whole()


def _stream(cursor: Cursor, nbytes: int, codec: str) -> bytes:
    """One stream of a block: its length, and its bytes, stored where packing did not pay."""
    length = cursor.i32("length of a stream")
    start = cursor.at
    cursor.skip("a stream", length)
    data = cursor.extent.part(start, cursor.at)
    if length == nbytes:
        return bytes(data.read())
    try:
        if codec == "lz4":
            made = decode(bytes(data.read()), b"", nbytes)
        elif codec == "zlib":
            made = zlib.decompressobj().decompress(data.read(), nbytes)
        else:
            budget = Budget(data.name, 0, Limits(expanded_bytes=nbytes))  # the chunk was counted
            made = bytes(Opened(InflatedFile(data, codec, nbytes, budget=budget, name=data.name)).whole().read())
    except (ValueError, zlib.error) as error:
        if isinstance(error, FormatError):
            raise
        raise cursor.error(f"damaged: a stream cannot be unpacked: {error}") from None
    if len(made) != nbytes:
        raise cursor.error(f"a stream of {len(made):,} bytes, wanted are {nbytes:,}")
    return made


def _in_order(plain: bytes, item: int, flags: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """A block with its bytes, or bits, back in the elements that they are of."""
    data = np.frombuffer(plain, np.uint8)
    count = len(data) // item
    whole, rest = data[: count * item], data[count * item :]
    if flags & _SHUFFLED and item > 1:
        whole = whole.reshape(item, count).T.reshape(-1)
    elif flags & _BIT_SHUFFLED and count % 8 == 0 and count:
        bits = np.unpackbits(whole.reshape(8 * item, count // 8), axis=1, bitorder="little")
        whole = np.packbits(np.ascontiguousarray(bits.T), axis=1, bitorder="little").reshape(-1)
    return np.concatenate([whole, rest])

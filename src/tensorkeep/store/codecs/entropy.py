"""Zstandard frames: how planes of bytes are entropy-coded, and how a frame of a stranger is read within bounds.

With a tiny hash table and matches of 7 bytes at least, Zstandard finds hardly any match and spends no time on the search: it becomes a
Huffman coder with a table for each 128 KiB, and any of its decoders reads the result.

Source: https://datatracker.ietf.org/doc/html/rfc8878
"""

import importlib
import sys
import threading
from typing import Any, Final

_ZSTD: Final[Any] = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
_PARAMETER: Final = _ZSTD.CompressionParameter

WINDOW_LOG: Final = 20  # a frame may look back 1 MiB at most: the largest chunk, and what bounds a reader's memory

_HUFFMAN: Final = {
    _PARAMETER.strategy: _ZSTD.Strategy.fast,
    _PARAMETER.min_match: 7,
    _PARAMETER.hash_log: 6,
    _PARAMETER.window_log: 17,
    _PARAMETER.target_length: 0,
}
_OPTIONS: Final = {
    "huffman": _HUFFMAN,  # numbers without repetition: exponents
    "matches": {_PARAMETER.compression_level: 3, _PARAMETER.window_log: WINDOW_LOG},  # what repeats: masks, indices, zeros
    "thorough": {_PARAMETER.compression_level: 9, _PARAMETER.window_log: WINDOW_LOG},
}
_READ_WITHIN: Final = {_ZSTD.DecompressionParameter.window_log_max: WINDOW_LOG}

_OF_THIS_THREAD = threading.local()


def compressed(data: Any, how: str) -> bytes:
    """One frame of `data`, any contiguous bytes; `how` is a name of `_OPTIONS`. A compressor is kept for each thread."""
    compressor = getattr(_OF_THIS_THREAD, how, None)
    if compressor is None:
        compressor = _ZSTD.ZstdCompressor(options=_OPTIONS[how])
        setattr(_OF_THIS_THREAD, how, compressor)
    frame: bytes = compressor.compress(data, compressor.FLUSH_FRAME)
    return frame


def decompressed(frame: Any, nbytes: int) -> bytes:
    """The content of exactly one frame, which must be of exactly `nbytes`; hardly makes more.

    Raises:
        ValueError: it is anything else.
    """
    decompressor = _ZSTD.ZstdDecompressor(options=_READ_WITHIN)
    try:
        made: bytes = decompressor.decompress(frame, nbytes + 1)  # one more, so that the end of the frame is seen
    except _ZSTD.ZstdError as error:
        raise ValueError(f"a frame is no Zstandard: {error}") from error
    if len(made) != nbytes or not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"a frame does not hold the {nbytes:,} bytes that it should")
    return made

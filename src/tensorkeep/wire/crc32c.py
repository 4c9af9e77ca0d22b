"""CRC-32C, the checksum of LevelDB, TensorFlow and TensorStore, in NumPy: no package of the core dependencies has it.

A register of the checksum is a polynomial, and passing over zero bytes is a linear map of it. So a long run is folded: row after row of
64 KiB, the sum so far moved over one row and the next row added, two look-ups for each four bytes. What is left, a row, is folded in
halves down to one word. About 1.4 GB/s on one core, where a loop over bytes makes 10 MB/s.

Source: RFC 3720, section 12.1, for the polynomial; https://github.com/google/leveldb/blob/main/util/crc32c.h for the mask.
"""

from functools import cache
from typing import Any, Final

import numpy as np

from tensorkeep.wire.extent import Checksum

_POLYNOMIAL: Final = 0x82F63B78  # bits in reverse, as the register has them
_ALL: Final = 0xFFFFFFFF
_ROW_WORDS: Final = 16384  # of four bytes: a row, the sum and both tables stay in a core's cache
_SHORT: Final = 64  # bytes that are not worth the folding

_Words = np.ndarray[Any, np.dtype[np.uint32]]


def _byte_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE: Final = _byte_table()


def crc32c(data: "memoryview | bytes", value: int = 0) -> int:
    """The checksum of bytes that follow those with the checksum `value`; of the first ones 0."""
    view = memoryview(data).cast("B") if not isinstance(data, bytes) else memoryview(data)
    register = value ^ _ALL
    if view.nbytes >= _SHORT:
        short = view.nbytes % 4
        register = _folded(np.frombuffer(view[: view.nbytes - short], "<u4"), register)
        view = view[view.nbytes - short :]
    for byte in view:
        register = _TABLE[(register ^ byte) & 0xFF] ^ register >> 8
    return register ^ _ALL


def _folded(words: _Words, register: int) -> int:
    """The register after so many words."""
    rows, first = divmod(len(words), _ROW_WORDS)
    if rows == 0:
        width = 1 << (len(words) - 1).bit_length()
        total = np.zeros(width, np.uint32)
        total[width - len(words) :] = words  # zeros in front change nothing, but for where the register is added
        total[width - len(words)] ^= np.uint32(register)
    else:
        total = np.zeros(_ROW_WORDS, np.uint32)
        total[_ROW_WORDS - first :] = words[:first]
        body = words[first:].reshape(rows, _ROW_WORDS)
        low, high = _tables(_ROW_WORDS)
        if first:
            total[_ROW_WORDS - first] ^= np.uint32(register)
            begin = 0
        else:
            total[:] = body[0]
            total[0] ^= np.uint32(register)
            begin = 1
        for row in body[begin:]:
            total = low[total & 0xFFFF] ^ high[total >> 16] ^ row
    while len(total) > 1:
        half = len(total) // 2
        total = _moved(total[:half], half) ^ total[half:]
    return int(_moved(total, 1)[0])


def _moved(words: _Words, over: int) -> _Words:
    """Registers after so many words of zeros."""
    tables = _small_tables(over)
    moved: _Words = tables[0][words & 0xFF] ^ tables[1][words >> 8 & 0xFF] ^ tables[2][words >> 16 & 0xFF] ^ tables[3][words >> 24]
    return moved


@cache
def _columns(words: int) -> tuple[int, ...]:
    """What becomes of each bit of a register after so many words of zeros, a power of two."""
    if words == 1:
        columns = []
        for bit in range(32):
            register = 1 << bit
            for _ in range(4):
                register = _TABLE[register & 0xFF] ^ register >> 8
            columns.append(register)
        return tuple(columns)
    half = _columns(words // 2)
    return tuple(_apply(half, column) for column in half)


def _apply(columns: tuple[int, ...], register: int) -> int:
    result = 0
    for bit in range(32):
        if register >> bit & 1:
            result ^= columns[bit]
    return result


def _table_of(columns: tuple[int, ...]) -> _Words:
    """For every value of some neighbouring bits, what becomes of them."""
    table = np.zeros(1, np.uint32)
    for column in columns:
        table = np.concatenate([table, table ^ np.uint32(column)])
    return table


@cache
def _tables(words: int) -> tuple[_Words, _Words]:
    columns = _columns(words)
    return _table_of(columns[:16]), _table_of(columns[16:])


@cache
def _small_tables(words: int) -> tuple[_Words, _Words, _Words, _Words]:
    columns = _columns(words)
    return _table_of(columns[:8]), _table_of(columns[8:16]), _table_of(columns[16:24]), _table_of(columns[24:])


def unmasked(stored: int) -> int:
    """A checksum as LevelDB and TensorFlow store it: turned, and moved by a constant."""
    turned = stored - 0xA282EAD8 & _ALL
    return turned >> 17 | turned << 15 & _ALL


def checksum(wanted: int) -> Checksum:
    """For an extent that should add up to this."""
    return Checksum("CRC-32C", wanted, lambda data, value: crc32c(data, value), _POLYNOMIAL)

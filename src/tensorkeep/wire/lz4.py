"""LZ4 frames, read in Python: the common decoder, written in C, trusts its input where it should not.

Sources: https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md (1.6.4), lz4_Block_format.md beside it, and
https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md (XXH32).
"""

import struct
from typing import Final

import numpy as np

_FRAME: Final = 0x184D2204
_SKIPPED: Final = range(0x184D2A50, 0x184D2A60)
_BLOCK_BYTES: Final = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_HISTORY: Final = 64 << 10  # how far back a match may reach
_STORED: Final = 0x8000_0000
_MASK: Final = 0xFFFF_FFFF
_P1, _P2, _P3, _P4, _P5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393


class Lz4Frame:
    """One frame, fed with input; see `inflate.Inflater`. Checksums of header, blocks and content are compared where they stand.

    `feed` raises ValueError for what is no frame, or a damaged one.
    """

    def __init__(self) -> None:
        self._input = bytearray()
        self._at = 0  # where unread input begins
        self._ready: memoryview = memoryview(b"")  # decoded, and not asked for yet
        self._history = b""
        self._begun = self._ended = False
        self._linked = self._block_checks = self._content_checks = False
        self._content_bytes: int | None = None
        self._made = self._block_bytes = 0
        self._hash = Xxh32()
        self._starved = True

    @property
    def hungry(self) -> bool:
        return self._starved and not self._ready

    @property
    def ended(self) -> bool:
        return self._ended and not self._ready

    @property
    def unused(self) -> int:
        return len(self._input) - self._at if self._ended else 0

    def feed(self, data: memoryview, most: int) -> bytes:
        self._input += data
        self._starved = False
        while not self._ready and not self._ended and not self._starved:
            self._starved = not (self._block() if self._begun else self._header())
        made, self._ready = bytes(self._ready[:most]), self._ready[most:]
        return made

    def _take(self, nbytes: int) -> bytes | None:
        """So many bytes of input; None where they have not come yet."""
        if len(self._input) - self._at < nbytes:
            return None
        taken = bytes(self._input[self._at : self._at + nbytes])
        self._at += nbytes
        if self._at > _HISTORY:
            del self._input[: self._at]
            self._at = 0
        return taken

    def _peek(self, nbytes: int, ahead: int = 0) -> bytes | None:
        begin = self._at + ahead
        return bytes(self._input[begin : begin + nbytes]) if len(self._input) - begin >= nbytes else None

    def _header(self) -> bool:
        """Read what stands before the blocks; False where it has not come yet."""
        head = self._peek(8)
        if head is None:
            return False
        magic, size = struct.unpack("<2I", head)
        if magic in _SKIPPED:
            if self._take(8 + size) is None:
                return False
            self._ended = True
            return True
        if magic != _FRAME:
            raise ValueError("no frame begins here")
        flags, sizes = head[4], head[5]
        nbytes = 2 + 8 * bool(flags & 8) + 4 * bool(flags & 1)
        described = self._peek(nbytes + 1, 4)
        if described is None:
            return False
        if flags >> 6 != 1 or flags & 2 or sizes & 0x8F or (sizes >> 4) not in _BLOCK_BYTES:
            raise ValueError(f"flags {flags:#04x} {sizes:#04x}, which this version of the format does not have")
        if described[-1] != xxh32(described[:-1]) >> 8 & 0xFF:
            raise ValueError("the checksum of its header is wrong")
        if flags & 1:
            raise ValueError("it needs a dictionary, which stands elsewhere")
        self._linked, self._block_checks, self._content_checks = not flags & 0x20, bool(flags & 0x10), bool(flags & 4)
        self._content_bytes = int.from_bytes(described[2:10], "little") if flags & 8 else None
        self._block_bytes = _BLOCK_BYTES[sizes >> 4]
        self._take(4 + nbytes + 1)
        self._begun = True
        return True

    def _block(self) -> bool:
        """Read one block, or the end of the frame; False where it has not come yet."""
        word = self._peek(4)
        if word is None:
            return False
        size = int.from_bytes(word, "little")
        if size == 0:
            return self._end()
        nbytes = size & ~_STORED
        if nbytes > self._block_bytes:
            raise ValueError(f"a block of {nbytes:,} bytes, its frame allows {self._block_bytes:,}")
        whole = self._take(4 + nbytes + 4 * self._block_checks)
        if whole is None:
            return False
        packed = whole[4 : 4 + nbytes]
        if self._block_checks and xxh32(packed) != int.from_bytes(whole[4 + nbytes :], "little"):
            raise ValueError("the checksum of a block is wrong")
        made = packed if size & _STORED else decode(packed, self._history, self._block_bytes)
        if self._linked:
            self._history = made[-_HISTORY:] if len(made) >= _HISTORY else (self._history + made)[-_HISTORY:]
        if self._content_checks:
            self._hash.update(made)
        self._made += len(made)
        if self._content_bytes is not None and self._made > self._content_bytes:
            raise ValueError(f"more than the {self._content_bytes:,} bytes that it says to hold")
        self._ready = memoryview(made)
        return True

    def _end(self) -> bool:
        tail = self._take(4 + 4 * self._content_checks)
        if tail is None:
            return False
        if self._content_bytes is not None and self._made != self._content_bytes:
            raise ValueError(f"{self._made:,} bytes, and it says to hold {self._content_bytes:,}")
        if self._content_checks and self._hash.digest() != int.from_bytes(tail[4:], "little"):
            raise ValueError("the checksum of its content is wrong")
        self._ended = True
        return True


def decode(packed: bytes, history: bytes, most: int) -> bytes:
    """One block.

    Args:
        packed: its bytes.
        history: what was made before it, where its matches may reach into that.
        most: bytes that it may become.

    Raises:
        ValueError: it is damaged, or would become more.
    """
    made = bytearray(history)
    limit = len(made) + most
    at, end = 0, len(packed)
    try:
        while at < end:
            token = packed[at]
            at += 1
            length = token >> 4
            if length:
                if length == 15:
                    while (more := packed[at]) == 255:
                        length += 255
                        at += 1
                    length += more
                    at += 1
                if at + length > end:
                    raise ValueError("a block that ends within its literals")
                made += packed[at : at + length]
                at += length
            if at == end:
                break
            back = packed[at] | packed[at + 1] << 8
            at += 2
            length = token & 15
            if length == 15:
                while (more := packed[at]) == 255:
                    length += 255
                    at += 1
                length += more
                at += 1
            length += 4
            here = len(made)
            if not 0 < back <= here or here + length > limit:
                raise ValueError("a block whose match reaches beyond what was made, or that becomes too long")
            if back >= length:
                made += made[here - back : here - back + length]
            else:
                made += (made[here - back :] * (length // back + 1))[:length]
    except IndexError:
        raise ValueError("a block that ends within a sequence") from None
    if len(made) > limit:
        raise ValueError("a block that becomes too long")
    return bytes(memoryview(made)[len(history) :])


class Xxh32:
    """XXH32, seed 0, of bytes that come piece by piece."""

    def __init__(self) -> None:
        self._lanes = [(_P1 + _P2) & _MASK, _P2, 0, -_P1 & _MASK]
        self._rest = b""
        self._count = 0

    def update(self, data: bytes) -> None:
        self._count += len(data)
        data = self._rest + data if self._rest else data
        whole = len(data) & ~15
        self._rest = data[whole:]
        words = (np.frombuffer(data[:whole], "<u4") * np.uint32(_P2)).reshape(-1, 4)
        # The lanes do not know of each other: one after the other leaves fewer names to look up in the loop.
        for lane in range(4):
            value = self._lanes[lane]
            for word in words[:, lane].tolist():
                value = value + word & _MASK
                value = (value << 13 & _MASK | value >> 19) * _P1 & _MASK
            self._lanes[lane] = value

    def digest(self) -> int:
        if self._count >= 16:
            value = sum(_turn(lane, bits) for lane, bits in zip(self._lanes, (1, 7, 12, 18), strict=True))
        else:
            value = _P5
        value = value + self._count & _MASK
        words = len(self._rest) // 4
        for (word,) in struct.iter_unpack("<I", self._rest[: 4 * words]):
            value = _turn(value + word * _P3 & _MASK, 17) * _P4 & _MASK
        for byte in self._rest[4 * words :]:
            value = _turn(value + byte * _P5 & _MASK, 11) * _P1 & _MASK
        value = (value ^ value >> 15) * _P2 & _MASK
        value = (value ^ value >> 13) * _P3 & _MASK
        return value ^ value >> 16


def xxh32(data: bytes) -> int:
    """The XXH32 of some bytes."""
    hashed = Xxh32()
    hashed.update(data)
    return hashed.digest()


def _turn(value: int, bits: int) -> int:
    return (value << bits | value >> 32 - bits) & _MASK

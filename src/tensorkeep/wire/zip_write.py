"""Laying out a zip archive of stored members: every offset before a byte, so that members can be written in any order.

Source: APPNOTE.TXT 6.3.10 (PKWARE). Members over 4 GiB, archives over 4 GiB and over 65,535 members take the zip64 fields of its 4.3.
"""

import struct
import zlib
from collections.abc import Iterable
from typing import Final

from tensorkeep.backends.files import Sink

_LOCAL: Final = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL: Final = struct.Struct("<4sHHHHHHIIIHHHHHII")
_UTF8_NAMES: Final = 0x800
_NO_DATE: Final = 0x21  # 1 January 1980, the first that there is: equal contents make equal files
_WIDE: Final = 0xFFFFFFFF  # in a field of 32 bits: the number stands in a field of 64 elsewhere
_WIDE_FROM: Final = 0xFFFFFFFF  # the first number that needs one
_MANY: Final = 0xFFFF
_PADDING_ID: Final = 0x4246  # "FB", what PyTorch pads with


class OutMember:
    """A member to be written.

    Attributes:
        name: of it, as bytes.
        nbytes: its size.
        header_at, data_at: where its header and its bytes go.
        crc: of its bytes, once they are written.
    """

    __slots__ = ("crc", "data_at", "extra", "header_at", "name", "nbytes")

    def __init__(self, name: str, nbytes: int, header_at: int, alignment: int) -> None:
        self.name, self.nbytes, self.header_at, self.crc = name.encode(), nbytes, header_at, 0
        self.extra = struct.pack("<HHQQ", 1, 16, nbytes, nbytes) if nbytes >= _WIDE_FROM else b""
        end = header_at + _LOCAL.size + len(self.name) + len(self.extra)
        if end % alignment:
            padding = -(end + 4) % alignment
            self.extra += struct.pack("<HH", _PADDING_ID, padding) + b"Z" * padding
        self.data_at = header_at + _LOCAL.size + len(self.name) + len(self.extra)

    def write(self, parts: Iterable[memoryview], sink: Sink) -> None:
        """Write its bytes, piece by piece, and then its header, in which their checksum stands."""
        at, crc = self.data_at, 0
        for part in parts:
            crc = zlib.crc32(part, crc)
            sink.write(at, [part])
            at += part.nbytes
        assert at == self.data_at + self.nbytes, "as many bytes as were announced"
        self.crc = crc
        size, needs = (_WIDE, 45) if self.nbytes >= _WIDE_FROM else (self.nbytes, 20)
        head = _LOCAL.pack(b"PK\3\4", needs, _UTF8_NAMES, 0, 0, _NO_DATE, crc, size, size, len(self.name), len(self.extra))
        sink.write(self.header_at, [memoryview(head + self.name + self.extra)])

    def central(self) -> bytes:
        """What the directory says of it."""
        large, far = self.nbytes >= _WIDE_FROM, self.header_at >= _WIDE_FROM
        wide = ([self.nbytes, self.nbytes] if large else []) + ([self.header_at] if far else [])
        extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        size, at = _WIDE if large else self.nbytes, _WIDE if far else self.header_at
        needs = 45 if wide else 20
        fields = (needs, needs, _UTF8_NAMES, 0, 0, _NO_DATE, self.crc, size, size, len(self.name), len(extra), 0, 0, 0, 0, at)
        return _CENTRAL.pack(b"PK\1\2", *fields) + self.name + extra


class OutArchive:
    """An archive that is laid out member by member, and then written.

    Args:
        alignment: of the first byte of each member's bytes, in bytes.
    """

    def __init__(self, alignment: int = 64) -> None:
        self.alignment = alignment
        self.members: list[OutMember] = []
        self._end = 0

    def add(self, name: str, nbytes: int) -> OutMember:
        member = OutMember(name, nbytes, self._end, self.alignment)
        self.members.append(member)
        self._end = member.data_at + nbytes
        return member

    @property
    def nbytes(self) -> int:
        """Of the whole archive: the directory's size does not depend on what stands in it."""
        return self._end + len(self._directory())

    def finish(self, sink: Sink) -> None:
        """Write the directory, when all members were written."""
        sink.write(self._end, [memoryview(self._directory())])

    def _directory(self) -> bytes:
        central = b"".join(member.central() for member in self.members)
        count, at = len(self.members), self._end
        wide = count >= _MANY or at >= _WIDE_FROM or len(central) >= _WIDE_FROM
        if wide:
            record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(central), at)
            central_end = at + len(central)
            record += struct.pack("<4sIQI", b"PK\6\7", 0, central_end, 1)
        else:
            record = b""
        few = min(count, _MANY)
        end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, few, few, *((_WIDE, _WIDE) if wide else (len(central), at)), 0)
        return central + record + end

"""Zip: one strict reader for all formats that are zip archives (torch, NumPy, Keras, skops, packages).

Two readers of one archive must not be able to disagree. A name that occurs twice, members that overlap, a local header unlike the
central one, and flags that other tools obey or ignore are refused, or, where the true tool of a format reads on, noted in `oddities`,
from where they become findings.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

import codecs
import struct
from collections.abc import Iterator, Mapping
from itertools import pairwise
from operator import attrgetter
from typing import Final

import msgspec

from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent, Opened, crc32
from tensorkeep.wire.inflate import InflatedFile

_END: Final = struct.Struct("<4s4H2IH")
_END_SIGNATURE: Final = b"PK\5\6"
_END64: Final = b"PK\6\6"
_LOCATOR64: Final = b"PK\6\7"
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CP437: Final = codecs.lookup("cp437")  # here, once: later the codec would be imported for a stranger's file
_MAX_COMMENT: Final = 65_535
_LONGEST_REMARK: Final = 1024
_LOCAL_READ: Final = 256  # bytes read of a local header at once: most are shorter, with the padding that aligns their data
_CODECS: Final = {0: "", 8: "deflate", 12: "bzip2", 14: "lzma", 93: "zstd"}
_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000
_DESCRIPTOR: Final = 0x8  # sizes and CRC stand behind the data


# A struct of msgspec, for a torch archive may have 200,000 members.
class Member(msgspec.Struct, frozen=True, gc=False):
    """One entry of the central directory.

    Attributes:
        name: as it is written; never a path of a file system.
        nbytes, packed_nbytes: inflated, and as it lies in the archive.
        crc: CRC-32 of the inflated bytes.
        method: 0 stored, 8 deflated.
        header_at: where its local header begins.
        link: whether its attributes make it a symbolic link.
    """

    name: str
    nbytes: int
    packed_nbytes: int
    crc: int
    method: int
    flags: int
    header_at: int
    link: bool


class _Late(Extent):
    """A stored member whose place is found when its bytes are wanted."""

    __slots__ = ("_archive", "_at", "_member")

    def __init__(self, archive: "ZipArchive", member: Member) -> None:
        self.opened, self.name = archive.extent.opened, f"{archive.extent.name}: {member.name}"
        self._archive, self._member, self._at = archive, member, -1

    @property
    def nbytes(self) -> int:
        return self._member.nbytes

    @property
    def start(self) -> int:  # type: ignore[override]  # an attribute of others, which know it from the beginning
        if self._at < 0:
            self._at = self._archive.packed(self._member.name).start
        return self._at

    @property
    def stop(self) -> int:  # type: ignore[override]  # as above
        return self.start + self._member.nbytes


def _is_remark(comment: bytes) -> bool:
    """Whether a comment is a few lines for people, which nobody takes for anything else."""
    try:
        text = comment.decode()
    except UnicodeDecodeError:
        return False
    return len(comment) <= _LONGEST_REMARK and "PK" not in text and "".join(text.split()).isprintable()


class ZipArchive(Mapping[str, Member]):
    """The members of an archive, by name, in the order of the central directory. None is read before it is asked for.

    Attributes:
        extent: the archive.
        comment: the bytes behind the archive that it says are its comment.
        oddities: what other readers may read in another way, though it was read here.
        begin: where the archive begins: what stands before is none of it.
        unsummed: how names begin whose CRC-32 of 0 says that none was made; None where none may be missing.

    Raises:
        FormatError: it is no zip archive, or one that two readers may read in two ways.
    """

    def __init__(self, extent: Extent, *, budget: Budget, limits: Limits) -> None:
        self.extent, self._budget, self._limits = extent, budget, limits
        self.oddities: list[str] = []
        self.unsummed: str | None = None
        self._members: dict[str, Member] = {}
        self.begin = 0  # bytes before the archive, which offsets do not count
        self._opened: dict[str, Extent] = {}
        self._room: dict[str, int] = {}  # by name, where what follows the member begins
        self._read_directory()

    def __getitem__(self, name: str) -> Member:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def error(self, problem: str) -> FormatError:
        return FormatError(self.extent.name, problem)

    def _read_directory(self) -> None:
        end_at, count, nbytes, at = self._find_end()
        begin = end_at - nbytes
        if begin < 0:
            raise self.error("cut short, or no zip archive: its directory does not fit in")
        self.begin = begin - at
        if self.begin < 0:
            raise self.error("cut short, or no zip archive: its directory would begin behind its end")
        if self.begin:
            self.oddities.append(f"{self.begin:,} bytes stand before the archive")
        if count < 0 or count * _CENTRAL.size > nbytes:
            raise self.error(f"its directory of {nbytes:,} bytes is said to have {count:,} members")
        if count > self._limits.values:
            raise self.error(f"{count:,} members, the limit is {self._limits.values:,}")
        directory, at = self.extent.read(begin, end_at), 0
        for _ in range(count):
            member, at = self._member(directory, at)
            if member.name in self._members:
                raise self.error(f"the name {member.name!r:.200} occurs twice, and tools differ in which one they read")
            self._members[member.name] = member
        if at != nbytes:
            raise self.error(f"its directory has {nbytes - at:,} bytes more than its {count:,} members take")
        self._check_overlaps(begin)

    def _find_end(self) -> tuple[int, int, int, int]:
        """Where the directory ends, how many members it has, its size and its stated offset."""
        total = self.extent.nbytes
        tail_at = max(0, total - _MAX_COMMENT - _END.size)
        tail = bytes(self.extent.read(tail_at, total))
        found = tail.rfind(_END_SIGNATURE)
        while found >= 0:
            if found + _END.size <= len(tail):
                _, disk, disk_of, here, count, nbytes, at, comment = _END.unpack_from(tail, found)
                if found + _END.size + comment == len(tail):
                    break
            found = tail.rfind(_END_SIGNATURE, 0, found)
        else:
            raise self.error("cut short, or no zip archive: it has no directory at its end")
        self.comment = self.extent.part(total - comment, total)
        if comment and _END_SIGNATURE in tail[found + _END.size :]:
            self.oddities.append("its comment holds the end of another archive")
        elif comment and not _is_remark(tail[found + _END.size :]):
            self.oddities.append(f"a comment of {comment:,} bytes stands behind the archive")
        end_at = tail_at + found
        # miniz, and so torch, may write the 64-bit record where the short one would do; other tools read it wherever it is.
        has64 = end_at >= 20 and bytes(self.extent.read(end_at - 20, end_at - 16)) == _LOCATOR64
        if has64 or 0xFFFF in (here, count) or 0xFFFFFFFF in (nbytes, at):
            return self._end64(end_at, (count, nbytes, at))
        if disk or disk_of or here != count:
            raise self.error("one part of an archive in several; join them first")
        return end_at, count, nbytes, at

    def _end64(self, end_at: int, said: tuple[int, int, int]) -> tuple[int, int, int, int]:
        if end_at < 20 or bytes(self.extent.read(end_at - 20, end_at - 16)) != _LOCATOR64:
            count, nbytes, at = said
            if count == 0xFFFF and 0xFFFFFFFF not in (nbytes, at):
                return end_at, count, nbytes, at  # it may have just so many members
            raise self.error("its sizes are said to stand in a 64-bit record, and there is none")
        locator = Cursor(self.extent.part(0, end_at), end_at - 16)
        disk, stated, disks = locator.u32("disk"), locator.u64("offset of the 64-bit end record"), locator.u32("number of disks")
        record_at = end_at - 20 - 56
        if record_at < 0 or disk or disks not in (0, 1) or stated > record_at:
            raise self.error("its 64-bit end record is not where it is said to be")
        cursor = Cursor(self.extent.part(0, end_at - 20), record_at)
        if bytes(cursor.raw("signature", 4)) != _END64 or cursor.u64("size of the record") != 44:
            raise self.error("its 64-bit end record is not where it is said to be")
        cursor.skip("versions", 4)
        if cursor.u32("disk") or cursor.u32("disk of the directory"):
            raise self.error("one part of an archive in several; join them first")
        here, count = cursor.u64("members here"), cursor.u64("members")
        nbytes, at = cursor.u64("size of the directory"), cursor.u64("offset of the directory")
        if here != count:
            raise self.error("one part of an archive in several; join them first")
        for name, short, long, full in zip(
            ("members", "size", "offset"), said, (count, nbytes, at), (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF), strict=True
        ):
            if short not in (full, long):
                raise self.error(f"its two end records differ: {name} {short:,} and {long:,}")
        return record_at, count, nbytes, at

    def _member(self, directory: memoryview, at: int) -> tuple[Member, int]:
        """The member that stands at a place of the directory, and the place behind it."""
        if at + _CENTRAL.size > len(directory):
            raise self.error("cut short: its directory ends within a member")
        (
            signature,
            _made_by,
            _needed,
            flags,
            method,
            _time,
            _date,
            crc,
            packed,
            nbytes,
            name_nbytes,
            extra_nbytes,
            comment_nbytes,
            disk,
            _internal,
            attributes,
            header_at,
        ) = _CENTRAL.unpack_from(directory, at)
        if signature != b"PK\1\2":
            raise self.error(f"its directory is damaged: member {len(self._members):,} begins with {signature!r}")
        name_at = at + _CENTRAL.size
        extra_at = name_at + name_nbytes
        end = extra_at + extra_nbytes + comment_nbytes
        if end > len(directory):
            raise self.error("cut short: its directory ends within a member")
        name = self._name(bytes(directory[name_at:extra_at]), flags)
        if 0xFFFFFFFF in (nbytes, packed, header_at) or disk == 0xFFFF:
            extra = bytes(directory[extra_at : extra_at + extra_nbytes])
            nbytes, packed, header_at, disk = self._extra64(extra, name, [nbytes, packed, header_at, disk])
        if disk:
            raise self.error(f"{name!r:.200} lies in another part of the archive")
        return Member(name, nbytes, packed, crc, method, flags, header_at + self.begin, attributes >> 28 == 0xA), end

    def _name(self, raw: bytes, flags: int) -> str:
        if b"\0" in raw:
            raise self.error(f"the name {raw!r:.200} has a zero in it, at which some tools stop reading")
        try:
            return raw.decode() if flags & 0x800 or raw.isascii() else _CP437.decode(raw)[0]
        except UnicodeDecodeError:
            raise self.error(f"the name {raw!r:.200} is no UTF-8") from None

    def _extra64(self, extra: bytes, name: str, fields: list[int]) -> list[int]:
        """The fields that are full in 32 bits, from the extra field that has them in 64."""
        at = 0
        while at + 4 <= len(extra):
            kind, nbytes = struct.unpack_from("<2H", extra, at)
            if kind == 1:
                data = extra[at + 4 : at + 4 + nbytes]
                for index, (full, size) in enumerate(((0xFFFFFFFF, 8), (0xFFFFFFFF, 8), (0xFFFFFFFF, 8), (0xFFFF, 4))):
                    if fields[index] == full:
                        if len(data) < size:
                            raise self.error(f"{name!r:.200}: its 64-bit sizes are cut short")
                        fields[index], data = int.from_bytes(data[:size], "little"), data[size:]
                return fields
            at += 4 + nbytes
        return fields

    def _check_overlaps(self, directory_at: int) -> None:
        ordered = sorted(self._members.values(), key=attrgetter("header_at"))
        for member, follows in pairwise(ordered):
            if member.header_at + _LOCAL.size + member.packed_nbytes > follows.header_at:
                raise self.error(f"the members {member.name!r:.200} and {follows.name!r:.200} overlap")
            self._room[member.name] = follows.header_at
        if ordered:
            last = ordered[-1]
            if last.header_at + _LOCAL.size + last.packed_nbytes > directory_at:
                raise self.error(f"{last.name!r:.200} would reach into the directory: cut short or damaged")
            self._room[last.name] = directory_at

    def between(self) -> Iterator[Extent]:
        """What the directory leaves out: in front of, between and behind the members that it has, where a member would find room."""
        begin = self.begin
        for member in sorted(self._members.values(), key=attrgetter("header_at")):
            if member.header_at - begin >= _LOCAL.size:
                yield self.extent.part(begin, member.header_at)
            name_nbytes, extra_nbytes = _LOCAL.unpack(self.extent.read(member.header_at, member.header_at + _LOCAL.size))[-2:]
            begin = member.header_at + _LOCAL.size + name_nbytes + extra_nbytes + member.packed_nbytes
        if (stop := max(self._room.values(), default=begin)) - begin >= _LOCAL.size:
            yield self.extent.part(begin, stop)

    def packed(self, name: str) -> Extent:
        """A member as it lies in the archive, behind its local header.

        Raises:
            FormatError: its local header says another thing than the central one.
        """
        member = self._members[name]
        begin, room = member.header_at, self._room[name]
        header = self.extent.read(begin, min(begin + _LOCAL_READ, room))
        signature, _, flags, method, _, _, crc, packed, nbytes, name_nbytes, extra_nbytes = _LOCAL.unpack_from(header)
        if signature != b"PK\3\4":
            raise self.error(f"{name!r:.200}: no local header where the directory says")
        extra_at = _LOCAL.size + name_nbytes
        data_at = extra_at + extra_nbytes
        if begin + data_at + member.packed_nbytes > room:
            raise self.error(f"{name!r:.200} overlaps what follows it")
        if data_at > len(header):
            header = self.extent.read(begin, begin + data_at)
        local_name = bytes(header[_LOCAL.size : extra_at])
        if self._name(local_name, flags) != name:
            raise self.error(f"{name!r:.200} is called {local_name!r:.200} in its local header")
        if method != member.method:
            raise self.error(f"{name!r:.200}: two headers differ in the compression: {member.method} and {method}")
        if (flags ^ member.flags) & _ENCRYPTED:
            self.oddities.append(f"{name!r:.200}: one of its headers says that it is encrypted, the other not")
        if not flags & _DESCRIPTOR:
            if 0xFFFFFFFF in (nbytes, packed):
                nbytes, packed, _, _ = self._extra64(bytes(header[extra_at:data_at]), name, [nbytes, packed, 0, 0])
            if (packed, nbytes) != (member.packed_nbytes, member.nbytes):
                raise self.error(f"{name!r:.200}: two headers differ in the size: {member.nbytes:,} and {nbytes:,} bytes")
            if crc != member.crc:
                self.oddities.append(f"{name!r:.200}: two headers differ in the CRC-32")
        at = begin + data_at
        return self.extent.part(at, at + member.packed_nbytes, f"{self.extent.name}: {name}")

    def open(self, name: str) -> Extent:
        """The bytes of a member, inflated when they are read; they carry their CRC-32.

        Raises:
            FormatError: it is encrypted, compressed in an unknown way, larger than the budget allows, or its headers differ.
        """
        if (known := self._opened.get(name)) is not None:
            return known
        member = self._members[name]
        # Of a file far away the local headers, a request each, are read with the data behind them.
        late = self.extent.opened.file.remote and _CODECS.get(member.method) == "" and member.nbytes == member.packed_nbytes
        packed = _Late(self, member) if late else self.packed(name)
        if member.flags & _ENCRYPTED and member.method in (0, 8):
            # The bit alone makes some tools stop, and some scanners with them; torch reads on. If it is true, the CRC is wrong.
            self.oddities.append(f"{name!r:.200} is flagged as encrypted")
        codec = _CODECS.get(member.method)
        if codec is None or codec == "lzma":  # whose header in a zip is one of its own, and which no framework writes
            raise self.error(f"{name!r:.200}: compressed by method {member.method}, which is not read")
        if codec:
            file = InflatedFile(packed, codec, member.nbytes, budget=self._budget, name=packed.name)
            extent = Extent(Opened(file, mmap=False), 0, file.nbytes, packed.name)
        else:
            if member.nbytes != member.packed_nbytes:
                raise self.error(f"{name!r:.200}: stored, and {member.packed_nbytes:,} bytes are said to be {member.nbytes:,}")
            extent = packed
        if member.crc or not member.nbytes or self.unsummed is None or not name.startswith(self.unsummed):
            extent.checksum = crc32(member.crc)
        self._opened[name] = extent
        return extent

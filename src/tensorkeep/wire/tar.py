"""Tar: an uncompressed archive's members, as extents. Nothing is ever extracted.

Names that occur twice, links, devices and sparse members are refused where they are asked for; a header whose checksum is wrong ends the
reading.

Source: POSIX.1-2024, `pax`, "ustar interchange format"; and the GNU tar manual, "Basic Tar Format".
"""

from collections.abc import Iterator, Mapping
from typing import Final

from tensorkeep.errors import FormatError
from tensorkeep.wire.extent import Extent

BLOCK_BYTES: Final = 512
MAGIC_AT: Final = 257
MAGIC: Final = b"ustar"
_REGULAR: Final = {b"0", b"\0", b"7"}
_PAX: Final = {b"x", b"g"}
_GNU_NAME: Final = b"L"
_MOST_MEMBERS: Final = 100_000
_LONGEST_NAME: Final = 4096


class TarArchive(Mapping[str, Extent]):
    """The regular members of an archive, by name, in its order.

    Attributes:
        extent: the archive.
        others: names of links, devices and folders, with their kinds: they have no bytes to read.
        end: where the archive ends, in bytes.

    Raises:
        FormatError: it breaks the format, or two members have one name.
    """

    def __init__(self, extent: Extent) -> None:
        self.extent = extent
        self.others: list[tuple[str, str]] = []
        self._members: dict[str, Extent] = {}
        self.end = self._read()

    def __getitem__(self, name: str) -> Extent:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def _error(self, problem: str, at: int) -> FormatError:
        return FormatError(self.extent.name, f"{problem} (member at byte {at:,})")

    def _read(self) -> int:
        at, count = 0, 0
        long_name: str | None = None
        while at + BLOCK_BYTES <= self.extent.nbytes:
            header = bytes(self.extent.read(at, at + BLOCK_BYTES))
            if not header.strip(b"\0"):
                return at
            count += 1
            if count > _MOST_MEMBERS:
                raise self._error(f"more than {_MOST_MEMBERS:,} members", at)
            name, nbytes, kind = self._header(header, at)
            begin = at + BLOCK_BYTES
            if nbytes > self.extent.nbytes - begin:
                raise self._error(f"{name!r:.100} would take {nbytes:,} bytes, {self.extent.nbytes - begin:,} are left: cut short", at)
            data = self.extent.part(begin, begin + nbytes, f"{self.extent.name}: {long_name or name}")
            if kind == _GNU_NAME:
                long_name = self._text(data, at).rstrip("\0")
            elif kind in _PAX:
                long_name = self._pax_name(data, at) if kind == b"x" else long_name
            else:
                self._add(long_name or name, kind, data, at)
                long_name = None
            at = begin + nbytes + -nbytes % BLOCK_BYTES
        return min(at, self.extent.nbytes)

    def _add(self, name: str, kind: bytes, data: Extent, at: int) -> None:
        name = name.removeprefix("./")
        if kind not in _REGULAR or name.endswith("/"):
            self.others.append((name, kind.decode("latin-1")))
        elif name in self._members:
            raise self._error(f"the name {name!r:.100} occurs twice, and tools differ in which one they read", at)
        else:
            self._members[name] = data

    def _header(self, header: bytes, at: int) -> tuple[str, int, bytes]:
        stated = self._octal(header[148:156], "checksum", at)
        summed = sum(header) - sum(header[148:156]) + 8 * 0x20
        if stated != summed:
            raise self._error(f"its header adds up to {summed}, {stated} is stated: damaged, or no tar archive", at)
        name = header[:100].partition(b"\0")[0]
        if header[MAGIC_AT : MAGIC_AT + 6] == b"ustar\0" and (prefix := header[345:500].partition(b"\0")[0]):
            name = prefix + b"/" + name
        return name.decode("utf-8", "replace"), self._octal(header[124:136], "size", at), header[156:157]

    def _octal(self, data: bytes, what: str, at: int) -> int:
        if data[0] & 0x80:  # GNU writes what has no room in octal as a binary number
            return int.from_bytes(data[1:], "big") | (data[0] & 0x7F) << (8 * (len(data) - 1))
        digits = data.strip(b" \0")
        if not digits.isdigit() or set(digits) - set(b"01234567"):
            raise self._error(f"its {what} is {digits!r:.40}, which is no octal number", at)
        return int(digits, 8)

    def _text(self, data: Extent, at: int) -> str:
        if data.nbytes > _LONGEST_NAME:
            raise self._error(f"a name of {data.nbytes:,} bytes", at)
        return str(data.read(), "utf-8", "replace")

    def _pax_name(self, data: Extent, at: int) -> str | None:
        """The name that an extended header gives; sizes in one are for members that no model has, and refused."""
        if data.nbytes > 16 * _LONGEST_NAME:
            raise self._error(f"an extended header of {data.nbytes:,} bytes", at)
        rest, name = bytes(data.read()), None
        while rest:
            digits, _, _ = rest.partition(b" ")
            if not digits.isdigit() or len(digits) > 6 or not len(digits) < int(digits) <= len(rest):
                raise self._error("an extended header that is none", at)
            record, rest = rest[len(digits) + 1 : int(digits)], rest[int(digits) :]
            key, _, value = record.rstrip(b"\n").partition(b"=")
            if key in (b"size", b"GNU.sparse.size", b"GNU.sparse.major"):
                raise self._error(f"an extended header with {key!r:.40}", at)
            if key == b"path":
                name = value.decode("utf-8", "replace")
        return name


def begins_tar(head: bytes) -> bool:
    """Whether the first bytes of a file begin a tar archive."""
    return head[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC

"""The file: its superblock, the headers of its objects, and how much may be read of them.

A header may name any address, so that small files can make a reader run in circles or over the same bytes again and again. Here every
byte of metadata that is read is counted, and so is every message: both are bounded by the size of the file.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_USER_BLOCKS: Final = (0, 512, 1024, 2048)  # bytes before the file itself; HDF5 allows for larger ones, which nobody writes

DATASPACE: Final = 0x01
LINK_INFO: Final = 0x02
DATATYPE: Final = 0x03
OLD_FILL: Final = 0x04
FILL: Final = 0x05
LINK: Final = 0x06
EXTERNAL_FILES: Final = 0x07
LAYOUT: Final = 0x08
FILTERS: Final = 0x0B
ATTRIBUTE: Final = 0x0C
_CONTINUATION: Final = 0x10
SYMBOL_TABLE: Final = 0x11
ATTRIBUTE_INFO: Final = 0x15

_SHARED: Final = 0x02  # flag of a message that stands elsewhere
LONGEST_NAME: Final = 65_536  # bytes
_OLD_HEAD: Final = struct.Struct("<HHB3x")  # of a message: kind, size, flags
_HEAD: Final = struct.Struct("<BHB")  # and, in some headers, the order of creation
_MOST_MESSAGES: Final = 65_536  # of one object; the count of version 1 has 16 bits
_STEPS: Final = 100_000
_BYTES_A_STEP: Final = 8  # no message, link or record of an honest file takes less, all that belongs to it counted
_TIMES_READ: Final = 4  # honest metadata are read about once
_BYTES_AT_LEAST: Final = 1 << 20


class Block(Cursor):
    """Some bytes of metadata, and a place in them: a cursor that knows how wide the file's addresses and lengths are."""

    __slots__ = ("file", "place")

    def __init__(self, file: "Hdf5File", data: memoryview, address: int) -> None:
        super().__init__(file.extent)
        self._window, self.file, self.place = data, file, address

    @property
    def whole(self) -> memoryview:
        """All its bytes."""
        return self._window

    @property
    def left(self) -> int:
        return len(self._window) - self.at

    def raw(self, what: str, nbytes: int) -> memoryview:
        start = self.at
        if not 0 <= nbytes <= len(self._window) - start:
            raise self.error(f"{what} would take {nbytes:,} bytes, {self.left:,} are left")
        self.at = start + nbytes
        return self._window[start : start + nbytes]

    def error(self, problem: str, *, hint: str = "") -> FormatError:
        return FormatError(self.file.name, f"{problem} (at byte {self.place + self.at:,})", hint=hint)

    def wide(self, what: str, nbytes: int) -> int:
        """A whole number of any width."""
        return int.from_bytes(self.raw(what, nbytes), "little")

    def address(self, what: str) -> int | None:
        """A place in the file; None where it says that there is none."""
        width = self.file.address_bytes
        found = self.wide(what, width)
        return None if found == (1 << 8 * width) - 1 else found

    def length(self, what: str) -> int:
        return self.wide(what, self.file.length_bytes)

    def step(self, count: int) -> None:
        self.file.step(count)

    def signature(self, wanted: bytes) -> None:
        if (found := bytes(self.raw("signature", len(wanted)))) != wanted:
            raise self.error(f"{wanted!r} should stand here, found is {found!r}")

    def version(self, what: str, wanted: tuple[int, ...]) -> int:
        return self.one_of(f"version of {what}", self.u8(what), wanted)

    def name(self, what: str, *, padded: bool) -> str:
        """A text that ends at a zero; with its padding to 8 bytes, where it has one."""
        for most in (256, LONGEST_NAME):
            rest = bytes(self._window[self.at : self.at + most])
            if (end := rest.find(b"\0")) >= 0:
                self.skip(what, min(-(-(end + 1) // 8) * 8 if padded else end + 1, self.left))
                return rest[:end].decode("utf-8", "backslashreplace")
        raise self.error(f"{what} has no end within {LONGEST_NAME:,} bytes")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of an object header.

    Attributes:
        kind: its number in section IV.A.2.
        data, address: its bytes, and where they stand in the file.
        flags: as they stand there.
    """

    kind: int
    data: memoryview
    address: int
    flags: int

    @property
    def shared(self) -> bool:
        """Whether it stands elsewhere."""
        return bool(self.flags & _SHARED)


@dataclass(slots=True)
class Object:
    """What stands at one address: a group, a data set, or a type that has a name."""

    address: int
    messages: list[Message] = field(default_factory=list)

    def first(self, kind: int) -> Message | None:
        return next((message for message in self.messages if message.kind == kind), None)

    def all(self, kind: int) -> list[Message]:
        return [message for message in self.messages if message.kind == kind]


def find_signature(extent: Extent) -> int | None:
    """Where the superblock begins, behind a user block or at once; None where it does not."""
    head = bytes(extent.read(0, min(extent.nbytes, _USER_BLOCKS[-1] + len(SIGNATURE))))
    return next((at for at in _USER_BLOCKS if head.startswith(SIGNATURE, at)), None)


class Hdf5File:
    """One HDF5 file.

    Args:
        extent: its bytes.
        limits, budget: bounds on what it may ask for.

    Attributes:
        root: the address of the root group.
        version: of the superblock.
        known_types: what the types of elements that were met mean, by their bytes; theirs who reads types.

    Raises:
        FormatError: it is none, or was cut short.
    """

    def __init__(self, extent: Extent, *, limits: Limits, budget: Budget) -> None:
        self.extent, self.limits, self.budget, self.name = extent, limits, budget, extent.name
        self.base = find_signature(extent) or 0
        self.address_bytes = self.length_bytes = 8
        self._bytes_left = _TIMES_READ * extent.nbytes + _BYTES_AT_LEAST
        self._steps_left = _STEPS + extent.nbytes // _BYTES_A_STEP
        self._objects: dict[int, Object] = {}
        self.known_types: dict[bytes, object] = {}
        self.version, self.root = self._superblock()

    def error(self, problem: str, *, hint: str = "") -> FormatError:
        return FormatError(self.name, problem, hint=hint)

    def step(self, count: int = 1) -> None:
        """Count messages, links or records that are about to be read."""
        self._steps_left -= count
        if self._steps_left < 0:
            raise self.error("its metadata are read again and again: more entries than a file of its size can have")

    def count(self, nbytes: int) -> None:
        """Count bytes of metadata that are about to be read, or names that are about to be made."""
        self._bytes_left -= nbytes
        if self._bytes_left < 0:
            raise self.error("its metadata are read again and again: more bytes than a file of its size can have")

    def block(self, address: int | None, nbytes: int, what: str) -> Block:
        """Bytes of metadata at an address."""
        if address is None:
            raise self.error(f"{what} has no address")
        start = self.base + address
        if not 0 <= start <= start + nbytes <= self.extent.nbytes:
            raise self.error(
                f"{what} would be at bytes {start:,} to {start + nbytes:,}, {self.extent.nbytes:,} are there",
                hint="It may have been cut short on its way.",
            )
        self.count(nbytes)
        return Block(self, self.extent.read(start, start + nbytes), start)

    def rest(self, address: int | None, most: int, what: str) -> Block:
        """As many bytes at an address as there are, at most so many: for what tells its own size."""
        if address is None:
            raise self.error(f"{what} has no address")
        return self.block(address, max(0, min(most, self.extent.nbytes - self.base - address)), what)

    def _superblock(self) -> tuple[int, int]:
        """Version, and address of the root group. Section II."""
        block = self.rest(0, 128, "superblock")
        block.signature(SIGNATURE)
        version = block.version("the superblock", (0, 1, 2, 3))
        if version < 2:
            block.skip("versions", 4)
        widths = block.u8("size of addresses"), block.u8("size of lengths")
        self.address_bytes, self.length_bytes = (block.one_of("size of addresses and lengths", width, (2, 4, 8)) for width in widths)
        block.skip("flags", 1)
        if version < 2:
            block.skip("ranks of the trees", 8 + 4 * (version == 1))
        base = block.address("base address") or 0
        block.address("free space, or superblock extension")
        end = block.address("end of the file")
        if version < 2:
            block.address("driver information")
            block.length("name of the root")
        root = block.address("root group")
        # libhdf5 takes the place where the signature stands for the base, whatever the superblock says.
        whole = 0 if end is None else end + self.base - base
        if whole > self.extent.nbytes:
            raise self.error(f"cut short: {self.extent.nbytes:,} of {whole:,} bytes", hint="Fetch it again.")
        if root is None:
            raise self.error("its root group has no address")
        return version, root

    def object(self, address: int) -> Object:
        """The object at an address; the same one each time."""
        if (known := self._objects.get(address)) is None:
            version = self.block(address, 1, "object header").u8("version")
            known = Object(address, self._messages(address) if version != 1 else self._old_messages(address))
            self._objects[address] = known
        return known

    def _old_messages(self, address: int) -> list[Message]:
        """The messages of a header of version 1. Section IV.A.1.a."""
        head = self.block(address, 16, "object header")
        head.skip("version", 2)
        count = head.u16("number of messages")
        head.skip("reference count", 4)
        waiting = [(address + 16, head.u32("size of the object header"))]
        found: list[Message] = []
        for start, nbytes in waiting:  # grows: every continuation is a message, and these are counted
            block = self.block(start, nbytes, "object header")
            while block.left >= 8 and count > 0:
                kind, size, flags = _OLD_HEAD.unpack(block.raw("message", _OLD_HEAD.size))
                count -= 1
                self._add(found, waiting, kind, size, flags, block, start)
        return found

    def _messages(self, address: int) -> list[Message]:
        """The messages of a header of version 2. Section IV.A.1.b."""
        head = self.rest(address, 64, "object header")
        head.signature(b"OHDR")
        head.version("the object header", (2,))
        flags = head.u8("flags")
        head.skip("times", 16 * bool(flags & 0x20))
        head.skip("phase change values", 4 * bool(flags & 0x10))
        nbytes = head.wide("size of the object header", 1 << (flags & 3))
        head_bytes = 4 + bool(flags & 4) * 2
        waiting = [(address + head.at, nbytes + 4)]
        found: list[Message] = []
        for number, (start, size) in enumerate(waiting):
            block = self.block(start, size, "object header")
            if number:
                block.signature(b"OCHK")
            while block.left - 4 >= head_bytes:  # what is less is a gap; the last 4 are a checksum
                kind, size, message_flags = _HEAD.unpack_from(block.raw("message", head_bytes))
                self._add(found, waiting, kind, size, message_flags, block, start)
        return found

    def _add(
        self, found: list[Message], waiting: list[tuple[int, int]], kind: int, nbytes: int, flags: int, block: Block, start: int
    ) -> None:
        self.step()
        at = block.at
        data = block.raw("message", nbytes)
        if kind == _CONTINUATION:
            inner = Block(self, data, self.base + start + at)
            if (next_at := inner.address("continuation")) is None or len(waiting) > _MOST_MESSAGES:
                raise inner.error("an object header goes on nowhere, or without end")
            waiting.append((next_at, inner.length("size of the continuation")))
        elif kind:
            found.append(Message(kind, data, self.base + start + at, flags))
        if len(found) > _MOST_MESSAGES:
            raise block.error(f"an object header of more than {_MOST_MESSAGES:,} messages")

    def open(self, message: Message) -> Block:
        """The bytes of a message, wherever they stand.

        Raises:
            FormatError: it is shared in a way that is not read.
        """
        return self.shared(message) if message.shared else Block(self, message.data, message.address)

    def shared(self, message: Message) -> Block:
        """What a message that stands elsewhere refers to: one of its kind in the header of another object. Section IV.A.2."""
        block = Block(self, message.data, message.address)
        version, kind = block.version("a shared message", (1, 2, 3)), block.u8("kind of shared message")
        if version == 3 and kind == 1:
            raise block.error("a message in the file's table of shared messages, which is not read")
        if version == 1:
            block.skip("reserved", 6)
        address = block.address("shared message")
        if address is None:
            raise block.error("a shared message has no address")
        there = self.object(address).first(message.kind)
        if there is None or there.shared:
            raise block.error("a shared message is not where it is said to be")
        return Block(self, there.data, there.address)

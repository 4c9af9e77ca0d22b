"""Files: what every room above reads from, be it on a disk, in memory, or made on the way.

Lives here: the protocols of what is read and of what is written to, and bytes in memory as a file. Lives elsewhere: files of the
system (local).
"""

from collections.abc import Sequence
from typing import Final, Protocol

_MOST_READS: Final = 16
_READ_BYTES: Final = 4 << 20


class File(Protocol):
    """An open file, as the backends have it."""

    name: str
    nbytes: int

    @property
    def remote(self) -> bool: ...
    def identity(self) -> object: ...
    def read_into(self, offset: int, into: memoryview) -> None: ...
    def read_vector(self, offset: int, into: Sequence[memoryview]) -> None: ...
    def mapping(self) -> memoryview | None: ...
    def read_ahead(self, start: int, stop: int) -> None: ...
    def will_need(self, start: int, stop: int) -> None: ...
    def close(self) -> None: ...


class Sink(Protocol):
    """Takes bytes at offsets, from several threads at once."""

    def write(self, offset: int, parts: Sequence[memoryview]) -> None: ...


class Unmapped:
    """What files have in common that are no files of the system: one kind of read, and nothing to map or to ask for ahead."""

    def read_into(self, offset: int, into: memoryview) -> None:
        raise NotImplementedError

    def read_vector(self, offset: int, into: Sequence[memoryview]) -> None:
        for part in into:
            self.read_into(offset, part)
            offset += part.nbytes

    def mapping(self) -> memoryview | None:
        return None

    def read_ahead(self, start: int, stop: int) -> None: ...

    def will_need(self, start: int, stop: int) -> None: ...

    def close(self) -> None: ...


class MemoryFile(Unmapped):
    """Bytes in memory as a file."""

    remote = False

    def __init__(self, data: memoryview, name: str) -> None:
        self.data, self.name, self.nbytes = data, name, data.nbytes

    def identity(self) -> object:
        return None

    def read_into(self, offset: int, into: memoryview) -> None:
        into[:] = self.data[offset : offset + into.nbytes]


class MemorySink:
    """Memory that takes bytes at offsets."""

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory

    def write(self, offset: int, parts: Sequence[memoryview]) -> None:
        for part in parts:
            self.memory[offset : offset + part.nbytes] = part
            offset += part.nbytes


def reads_at_a_time(file: File, nbytes: int) -> int | None:
    """How many reads to have under way for so many bytes: over a network, more than there are cores; None where these decide."""
    return max(1, min(_MOST_READS, nbytes // _READ_BYTES)) if file.remote else None


class Surroundings(Protocol):
    """Where a file lies: what else is there that it may name, by plain relative names alone."""

    name: str

    def files(self) -> list[str]:
        """The names of all files, with `/` between folders, sorted; none where they cannot be listed."""

    def has(self, name: str) -> bool:
        """Whether a file of that name can be opened."""

    def link(self, name: str) -> str:
        """Where a link leads, as it is written; "" for what is no link."""

    def open(self, name: str) -> File:
        """Open a file that a file has named.

        Raises:
            FormatError: the name leads out, or to what is no regular file.
            FileNotFoundError: nothing is there.
        """

    def late(self, name: str) -> File:
        """A file that may be opened for each read: for folders of thousands of small ones.

        Raises:
            FormatError, FileNotFoundError: as for `open`.
        """

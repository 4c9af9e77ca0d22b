"""PyTorch's zip archives: what their three generations, TorchScript and torch.export have in common.

Every record lies in one folder, whatever its name. Beside the pickle there are small records that say how to read the others: `version`,
`byteorder`, `.format_version`, `.storage_alignment`, `.data/serialization_id`; and the storages, `data/0`, `data/1`, ...

Source: `caffe2/serialize/inline_container.cc` and `torch/serialization.py` of PyTorch 2.13.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

from tensorkeep.contents import Finding
from tensorkeep.formats.peek import Peek
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.zip import ZipArchive

PICKLE: Final = "data.pkl"
_NOTE_BYTES: Final = 200  # of a record that is a number or a word
_NOTES: Final = ("version", ".data/version", ".format_version", ".storage_alignment", ".data/serialization_id")


class Archive:
    """The records of one archive, by their names inside of its folder.

    Args:
        peek: what is read.

    Attributes:
        zip: all members.
        prefix: what stands before the name of each record, with its `/`.
        swapped: whether numbers are big-endian.
    """

    def __init__(self, peek: Peek, prefix: str) -> None:
        assert peek.zip is not None, "asked before"
        self.peek, self.zip, self.prefix = peek, peek.zip, prefix
        # `set_crc32_options(False)` makes PyTorch write none at all, `skip_data` none of the storages, which somebody fills in later.
        self.zip.unsummed = f"{prefix}data/" if any(member.crc for member in self.zip.values()) else ""
        order = self.note("byteorder") or "little"
        if order not in ("little", "big"):
            raise peek.error(f"its byte order is {order!r:.60}; little and big are known")
        self.swapped = order == "big"

    def has(self, record: str) -> bool:
        return self.prefix + record in self.zip

    def open(self, record: str) -> Extent:
        """The bytes of a record.

        Raises:
            FormatError: there is none of that name.
        """
        name = self.prefix + record
        if name not in self.zip:
            raise self.peek.error(f"it has no record {record!r:.100}", hint="It may have been cut short, or made by another program.")
        return self.zip.open(name)

    def storage(self, key: str, folder: str = "data/") -> Extent:
        """The bytes of a storage."""
        if "/" in key or not key:
            raise self.peek.error(f"a storage called {key!r:.60}, which is no plain name")
        return self.open(f"{folder}{key}")

    def note(self, record: str) -> str:
        """A small record as text; "" where there is none. A large one is refused before it is inflated."""
        member = self.zip.get(self.prefix + record)
        if member is None:
            return ""
        if member.nbytes > _NOTE_BYTES:
            raise self.peek.error(f"the record {record!r:.60} has {member.nbytes:,} bytes; {_NOTE_BYTES} at most make sense")
        return str(self.open(record).checked(), "utf-8", "replace").strip()

    def names(self, folder: str = "") -> Iterator[str]:
        """The records in a folder of it."""
        begin = self.prefix + folder
        return (name[len(self.prefix) :] for name in self.zip if name.startswith(begin))

    def metadata(self) -> dict[str, Any]:
        """What the small records say: nothing of the model, all of the file."""
        found = {name.removeprefix(".data/").removeprefix("."): self.note(name) for name in _NOTES if self.has(name)}
        return found | {"byteorder": self.note("byteorder")} if self.has("byteorder") else found

    @property
    def version(self) -> str:
        return self.note("version") or self.note(".data/version")

    def checked(self) -> Sequence[Extent]:
        """All members with their checksums, opened when they are looked at."""
        return _Members(self.zip)

    def findings(self) -> list[Finding]:
        """What other tools may read in another way."""
        found = [Finding("unknown", self.peek.name, oddity) for oddity in self.zip.oddities]
        lower = {name.lower() for name in self.zip}
        if len(lower) < len(self.zip):  # PyTorch looks for names in any case
            found.append(Finding("unknown", self.peek.name, "two members have names that differ in upper and lower case only"))
        strangers = [name for name in self.zip if not name.startswith(self.prefix)]
        if strangers:
            what = f"{len(strangers):,} members lie outside of the archive's folder {self.prefix!r:.60}"
            found.append(Finding("unknown", strangers[0], what))
        return found


class _Members(Sequence[Extent]):
    """The members of an archive as extents."""

    def __init__(self, archive: ZipArchive) -> None:
        self._zip, self._names = archive, [name for name in archive if not name.endswith("/")]

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Extent: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Extent]: ...
    def __getitem__(self, index: int | slice) -> Extent | Sequence[Extent]:
        if isinstance(index, slice):
            return [self._zip.open(name) for name in self._names[index]]
        return self._zip.open(self._names[index])


def prefix_of(archive: ZipArchive, record: str = PICKLE) -> str | None:
    """The folder that a record lies in; None if there is none of that name, or it lies elsewhere than the archive's first member.

    PyTorch takes the folder of the first member for the archive's. Where that one has no such record, and just one other folder has,
    it is that one.
    """
    first = next(iter(archive), "")
    prefix = first[: first.find("/") + 1]
    if prefix + record in archive:
        return prefix
    others = [name for name in archive if name == record or (name.endswith(f"/{record}") and name.count("/") == record.count("/") + 1)]
    return others[0][: len(others[0]) - len(record)] if len(others) == 1 else None


def archive_of(peek: Peek, record: str = PICKLE) -> str | None:
    """The folder of a record, where the file is a zip archive that has it. Never raises for files of other formats."""
    return None if peek.zip is None else prefix_of(peek.zip, record)

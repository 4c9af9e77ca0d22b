"""HDF5: Keras configurations in attributes, and data that stand in other files: external links, external raw data, virtual data sets.

The structures are found by their bytes, each with a check that chance does not pass: so a file that no library opens is looked at too,
and no library opens a hostile one.
Source: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, sections IV.A.2.g, IV.A.2.h, IV.A.2.i
"""

import re
from collections.abc import Iterator
from typing import Final

from tensorkeep.errors import FormatError
from tensorkeep.scanning import pickles
from tensorkeep.scanning.jsons import documents
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.scanning.texts import judge_document
from tensorkeep.wire.extent import Extent

_MAGIC: Final = b"\x89HDF\r\n\x1a\n"
_WINDOW_BYTES: Final = 4 << 20
_LINK: Final = re.compile(rb"\x01[\x08-\x1f]\x40", re.DOTALL)  # version, flags with a link type, and the type: external
_RAW: Final = re.compile(rb"\x01\0\0\0(?:[\x01-\xff]\0|\0[\x01-\x03]){2}.{5}\0{3}", re.DOTALL)
_VIRTUAL: Final = re.compile(rb"\x04\x03.{5}\0{3}", re.DOTALL)
_LINK_BYTES: Final = 4096
_MOST_TRIES: Final = 500_000


def recognizes(thing: Thing) -> bool:
    """Whether a superblock stands at one of the places where it may: 0, 512, 1024, ..."""
    head = thing.head
    return not thing.tensor and any(head[at : at + 8] == _MAGIC for at in (0, 512, 1024, 2048))


def scan(thing: Thing, look: Look) -> None:
    """Look at its configurations and at what stands elsewhere."""
    extent = thing.extent
    version = thing.head[8] if thing.head.startswith(_MAGIC) and len(thing.head) > 8 else 0
    if version > 3:
        look.stopped(thing.place, f"a superblock of version {version}")
    _check_length(thing, look)
    for at, document in documents(extent):
        judge_document(document, thing, look, where=f"byte {at:,} ")
    pickles.search(thing, look, spelled=True)  # attributes: PyTables unpickles those that end in a dot, of any file
    for at, file, path in _links(extent):
        look.found("dangerous", thing.at(f"byte {at:,}"), f"an external link to {path!r} in the file {file!r}", "hdf5-external-link")
    for at in _pointers(extent, _RAW, 8, b"HEAP"):
        look.found("dangerous", thing.at(f"byte {at:,}"), "a data set whose bytes are those of another file", "hdf5-external-data")
    for at in _pointers(extent, _VIRTUAL, 2, b"GCOL"):
        look.found("unknown", thing.at(f"byte {at:,}"), "a virtual data set, put together from data sets of other files", "hdf5-virtual")


def _check_length(thing: Thing, look: Look) -> None:
    """Whether the file is as long as its superblock says."""
    head = thing.head
    if not head.startswith(_MAGIC) or len(head) < 64:
        return
    end_at = {0: 40, 1: 44, 2: 28, 3: 28}.get(head[8])
    if end_at is None or head[13 if head[8] < 2 else 9] != 8:
        return
    end = int.from_bytes(head[end_at : end_at + 8], "little")
    if end > thing.extent.nbytes:
        look.stopped(thing.place, f"cut short: {end:,} bytes are said, {thing.extent.nbytes:,} are there")


def _windows(extent: Extent) -> Iterator[tuple[int, bytes, int]]:
    begin = 0
    while begin < extent.nbytes:
        stop = min(begin + _WINDOW_BYTES, extent.nbytes)
        yield begin, bytes(extent.read(begin, min(stop + _LINK_BYTES, extent.nbytes))), stop - begin
        begin = stop


def _links(extent: Extent) -> Iterator[tuple[int, str, str]]:
    """Link messages of type 64 (external): where, the file, and the object in it."""
    for begin, window, nbytes in _windows(extent):
        for found in _LINK.finditer(window):
            if found.start() >= nbytes:
                break
            if (link := _link(window, found.start())) is not None:
                yield begin + found.start(), *link


def _link(window: bytes, start: int) -> tuple[str, str] | None:
    flags = window[start + 1]
    at = start + 3 + (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
    width = 1 << (flags & 3)
    name_nbytes = int.from_bytes(window[at : at + width], "little")
    if not 0 < name_nbytes < 1024:
        return None
    at += width
    name = window[at : at + name_nbytes]
    at += name_nbytes
    info_nbytes = int.from_bytes(window[at : at + 2], "little")
    info = window[at + 2 : at + 2 + info_nbytes]
    if info_nbytes < 5 or len(info) < info_nbytes or info[0] != 0 or not _printable(name):
        return None
    file, _, rest = info[1:].partition(b"\0")
    path, end, more = rest.partition(b"\0")
    if not end or more.strip(b"\0") or not file or not path or not _printable(file) or not _printable(path):
        return None
    return file.decode("utf-8", "replace"), path.decode("utf-8", "replace")


def _printable(raw: bytes) -> bool:
    try:
        return raw.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False


def _pointers(extent: Extent, pattern: "re.Pattern[bytes]", at: int, signature: bytes) -> Iterator[int]:
    """Messages of a kind whose address leads to a heap: that of the names of files, or of the mappings."""
    tries = 0
    for begin, window, nbytes in _windows(extent):
        for found in pattern.finditer(window):
            if found.start() >= nbytes:
                break
            tries += 1
            if tries > _MOST_TRIES:
                raise FormatError(extent.name, f"more than {_MOST_TRIES:,} places that look like messages of HDF5")
            address = int.from_bytes(window[found.start() + at : found.start() + at + 8], "little")
            if 0 < address <= extent.nbytes - 4 and bytes(extent.read(address, address + 4)) == signature:
                yield begin + found.start()

"""OCDBT: TensorStore's database of keys and values, a B+tree whose nodes and values lie in files beside its manifest.

Read is the newest version, from the manifest alone to the tree's root. Every node has a CRC-32C, which is compared. A node is met once:
heights fall on the way down and no place is visited twice, so neither loops nor shared nodes can multiply what is read.

Source: https://google.github.io/tensorstore/kvstore/ocdbt/index.html, "Storage format"
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from tensorkeep.backends.files import MemoryFile
from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.wire.budget import Budget
from tensorkeep.wire.crc32c import crc32c
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent, Opened
from tensorkeep.wire.inflate import InflatedFile

MANIFEST: Final = "manifest.ocdbt"
_MANIFEST_MAGIC, _NODE_MAGIC = 0x0CDB3A2A, 0x0CDB20DE
_SHORTEST: Final = 4 + 8 + 2 + 4  # magic, length, version and compression, checksum
_SINGLE: Final = 0  # a manifest that holds the versions itself
_LONGEST: Final = 65_535  # bytes of a key, and of a path
_NOWHERE: Final = (1 << 64) - 1
_KEY_BYTES: Final = 64 << 20  # of all keys together: each may share all but one byte with the last

OpenFile = Callable[[str], Extent]


class _Place(NamedTuple):
    """Where a node or a value lies: a file, and what is in front of the paths in a node from there."""

    path: str
    base: str
    start: int
    nbytes: int


def read(manifest: Extent, open_file: OpenFile, *, budget: Budget) -> dict[bytes, Extent]:
    """All keys of the newest version, in order, and where their values are.

    Args:
        manifest: the file `manifest.ocdbt`.
        open_file: gives a data file by its path in the database's folder; it alone decides whether the path may be followed.

    Raises:
        FormatError: it breaks its format.
        CorruptError: a node is not the one that was written.
    """
    cursor = _body(manifest, _MANIFEST_MAGIC, budget)
    cursor.skip("id of the database", 16)
    if (kind := cursor.varint("kind of manifest")) != _SINGLE:
        raise cursor.error(f"a manifest of kind {kind}, whose versions stand in other files, which tensorkeep does not read")
    for what in ("largest inline value", "largest node"):
        cursor.varint(what)
    cursor.u8("arity of the version tree")
    if cursor.varint("compression") == 1:
        cursor.i32("level of compression")
    root = _newest(cursor)
    return {} if root is None else _Walk(open_file, budget).of(*root)


def _newest(cursor: Cursor) -> tuple[_Place, int] | None:
    """The root of the newest version, and its height; None if the version is empty."""
    files = _files(cursor, "")
    count = cursor.fits("count of versions", cursor.varint("count of versions"), bytes_each=10)
    if not count:
        raise cursor.error("a manifest without a version")
    _varints(cursor, count, "generation")
    heights = [cursor.u8("height of a tree") for _ in range(count)]
    numbers = [_varints(cursor, count, what) for what in ("data file", "offset", "length")]
    number, start, nbytes = (column[-1] for column in numbers)
    if start == nbytes == _NOWHERE:
        return None
    return _place(cursor, files, number, start, nbytes), heights[-1]


class _Walk:
    """The tree below one root."""

    def __init__(self, open_file: OpenFile, budget: Budget) -> None:
        self._open_file, self._budget = open_file, budget
        self._met: set[tuple[str, int]] = set()
        self._found: dict[bytes, Extent] = {}
        self._key_bytes = 0
        self._last: bytes | None = None

    def of(self, root: _Place, height: int) -> dict[bytes, Extent]:
        waiting = [(root, height, b"")]
        while waiting:
            place, height, prefix = waiting.pop()
            if (place.path, place.start) in self._met:
                raise FormatError(place.path, f"the node at byte {place.start:,} stands twice in one tree")
            self._met.add((place.path, place.start))
            cursor = _body(self._at(place), _NODE_MAGIC, self._budget)
            if cursor.u8("height of a node") != height:
                raise cursor.error(f"a node that is not {height} above the leaves, where its parent has it")
            files = _files(cursor, place.base)
            count = cursor.varint("count of entries")
            if count == 0:
                raise cursor.error("a node without entries")
            cursor.fits("count of entries", count, bytes_each=3)
            if height == 0:
                self._leaf(cursor, files, count, prefix)
            else:  # the first child last, to be taken first
                waiting += [(child, height - 1, below) for child, below in reversed(self._inner(cursor, files, count, prefix))]
        return self._found

    def _at(self, place: _Place) -> Extent:
        whole = self._open_file(place.path)
        return whole.part(place.start, place.start + place.nbytes)

    def _keys(self, cursor: Cursor, count: int, *, inner: bool) -> tuple[list[bytes], list[int]]:
        """The keys of a node, without what is common to the whole of it; of an inner one also how much of each its child leaves out."""
        shared = [0, *_varints(cursor, count - 1, "shared bytes of a key")]
        own = _varints(cursor, count, "own bytes of a key")
        common = _varints(cursor, count, "bytes common to a subtree") if inner else []
        keys: list[bytes] = []
        key = b""
        for from_last, more in zip(shared, own, strict=True):
            if from_last > len(key) or from_last + more > _LONGEST:
                raise cursor.error(f"a key of {more:,} bytes that shares {from_last:,} with one of {len(key):,}")
            key = key[:from_last] + bytes(cursor.raw("a key", more))
            self._key_bytes += len(key)
            if self._key_bytes > _KEY_BYTES:
                raise cursor.error(f"keys of more than {_KEY_BYTES:,} bytes together")
            keys.append(key)
        return keys, common

    def _inner(self, cursor: Cursor, files: list[tuple[str, str]], count: int, prefix: bytes) -> list[tuple[_Place, bytes]]:
        keys, common = self._keys(cursor, count, inner=True)
        columns = [_varints(cursor, count, what) for what in ("data file", "offset", "length")]
        children = []
        for key, length, number, start, nbytes in zip(keys, common, *columns, strict=True):
            if length > len(key) or len(prefix) + length > _LONGEST:
                raise cursor.error(f"a subtree that has {length:,} bytes of a key of {len(key):,} in common")
            children.append((_place(cursor, files, number, start, nbytes), prefix + key[:length]))
        return children

    def _leaf(self, cursor: Cursor, files: list[tuple[str, str]], count: int, prefix: bytes) -> None:
        keys, _ = self._keys(cursor, count, inner=False)
        lengths = _varints(cursor, count, "length of a value")
        kinds = [cursor.one_of("kind of a value", cursor.u8("kind of a value"), {0, 1}) for _ in range(count)]
        apart = sum(kinds)
        numbers, starts = iter(_varints(cursor, apart, "data file")), iter(_varints(cursor, apart, "offset"))
        for key, nbytes, kind in zip(keys, lengths, kinds, strict=True):
            if kind:
                value = self._at(_place(cursor, files, next(numbers), next(starts), nbytes))
            else:
                start = cursor.at
                cursor.skip("a value", nbytes)
                value = cursor.extent.part(start, cursor.at)
            whole = prefix + key
            self._key_bytes += len(prefix)
            if (self._last is not None and whole <= self._last) or self._key_bytes > _KEY_BYTES:
                raise cursor.error(f"the key {whole!r:.200} is not in order, or keys of more than {_KEY_BYTES:,} bytes together")
            self._found[whole] = value
            self._last = whole


def _body(whole: Extent, magic: int, budget: Budget) -> Cursor:
    """What a manifest or node holds: its frame checked, and inflated."""
    if whole.nbytes < _SHORTEST:
        raise FormatError(whole.name, f"cut short: {whole.nbytes:,} bytes, where a node of OCDBT has {_SHORTEST} or more")
    head = Cursor(whole)
    found = int.from_bytes(head.raw("magic", 4), "big")
    if found != magic:
        raise head.error(f"{found:#010x} stands where a node of OCDBT begins with {magic:#010x}")
    if (nbytes := head.u64("length of a node")) != whole.nbytes:
        raise head.error(
            f"a node that says to have {nbytes:,} bytes, and has {whole.nbytes:,}", hint="It may have been cut short on its way."
        )
    stop = whole.nbytes - 4
    wanted, sum_found = int.from_bytes(whole.read(stop), "little"), crc32c(whole.read(0, stop))
    if wanted != sum_found:
        raise CorruptError(
            file=whole.name,
            path="(index)",
            span=(whole.start, whole.stop),
            found=f"{sum_found:08x}",
            wanted=f"{wanted:08x}",
            kind="CRC-32C",
        )
    if (version := head.varint("version of a node")) != 0:
        raise head.error(f"version {version} of the format, this release reads 0")
    compression = head.one_of("compression of a node", head.varint("compression of a node"), {0, 1})
    body = whole.part(head.at, stop)
    if not compression:
        return Cursor(body)
    inflated = Opened(InflatedFile(body, "zstd", None, budget=budget, name=whole.name)).whole()
    return Cursor(Opened(MemoryFile(inflated.read(), whole.name)).whole())


def _varints(cursor: Cursor, count: int, what: str) -> list[int]:
    return [cursor.varint(what) for _ in range(count)]


def _files(cursor: Cursor, base: str) -> list[tuple[str, str]]:
    """The table of data files: of each its path, and what of it stands before the paths in its nodes."""
    count = cursor.fits("count of data files", cursor.varint("count of data files"), bytes_each=2)
    shared = [0, *_varints(cursor, count - 1, "shared bytes of a path")] if count else []
    own = _varints(cursor, count, "own bytes of a path")
    bases = _varints(cursor, count, "bytes of a base path")
    files = []
    path = b""
    left = _KEY_BYTES
    for from_last, more, base_bytes in zip(shared, own, bases, strict=True):
        if from_last > len(path) or from_last + more > _LONGEST or base_bytes > from_last + more:
            raise cursor.error(f"a path of {more:,} bytes that shares {from_last:,} with one of {len(path):,}")
        path = path[:from_last] + bytes(cursor.raw("a path", more))
        left -= len(path) + len(base)
        try:
            files.append((base + path.decode(), base + path[:base_bytes].decode()))
        except UnicodeDecodeError:
            raise cursor.error(f"the path {path!r:.200} is no UTF-8") from None
        if left < 0 or len(files[-1][0]) > _LONGEST:
            raise cursor.error(f"paths of more than {_KEY_BYTES:,} bytes together")
    return files


def _place(cursor: Cursor, files: list[tuple[str, str]], number: int, start: int, nbytes: int) -> _Place:
    if number >= len(files):
        raise cursor.error(f"data file {number:,} of {len(files):,}")
    return _Place(*files[number], start, nbytes)

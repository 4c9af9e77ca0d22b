"""The index of a checkpoint: its structure, its tensors and their shards, and its chunk table.

    8 bytes    "TKINDEX1"
    8 bytes    length of the document, little-endian
    document   JSON, followed by zeros up to a multiple of 8
    columns    of the chunk table, one behind the other

Lives here: this layout, and what must hold between document and table. Lives elsewhere: the table's columns (table), order and grid of
the tensors (groups), what the structure means (structure), joining the indexes of several writers (joined).
Source of the layout: docs/store-format.md.
"""

import math
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from tensorkeep import container, strictjson
from tensorkeep._version import __version__
from tensorkeep.chunks import Grid, digest, grid_of
from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.frameworks.versions import Versions
from tensorkeep.limits import Limits
from tensorkeep.store import table as tables
from tensorkeep.store.groups import GROUPS
from tensorkeep.store.manifest import Needed, Part, is_needed
from tensorkeep.store.sealed import VERSION
from tensorkeep.store.table import ALIGNMENT, Table
from tensorkeep.tensors import Array, TensorSpec

MAGIC: Final = b"TKINDEX1"
PREFIX_BYTES: Final = len(MAGIC) + 8
MOST_BYTES: Final = 1 << 30  # of an index: ten million chunks and more
_MOST_ROWS: Final = 1 << 24


class Shard(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A tensor as an index lists it, or a part of one.

    Attributes:
        path: of the tensor.
        dtype: the safetensors dtype that its bytes stand under.
        shape: of the whole tensor, as it is stored.
        offset: of the part, an element an axis; empty where it is the whole.
        extent: the part's own shape; empty where it is the whole.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: tuple[int, ...] = ()
    extent: tuple[int, ...] = ()

    @property
    def own_shape(self) -> tuple[int, ...]:
        return self.extent if self.offset else self.shape


class GroupDocument(msgspec.Struct, frozen=True):
    """A group as the document writes it."""

    name: str
    tensors: list[Shard]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The document of an index."""

    version: str = VERSION
    writer: str = f"tensorkeep {__version__}"
    save: str
    framework: str
    versions: Versions | msgspec.UnsetType = msgspec.UNSET  # not written where there are none: as 0.1.0 did
    structure: msgspec.Raw
    groups: list[GroupDocument]
    packs: list[Needed]
    rows: int
    columns: list[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Group:
    """The tensors of one kind of pack.

    Attributes:
        shards: in order.
        specs: dtype and own shape of each.
        grid: how they are cut.
        first_row: the row of their first chunk.
    """

    name: str
    shards: list[Shard]
    specs: list[TensorSpec]
    grid: Grid
    first_row: int


@dataclass(frozen=True, slots=True)
class Index:
    """An index, checked: every row can be true, whatever stands in the packs.

    Attributes:
        file: its key, for messages.
        save: the save that wrote it.
        writer: which release of which program did.
        framework: what tensors were saved as that the structure does not mark.
        versions: of the frameworks whose objects are in it, by package.
        structure: the structure document, not decoded yet.
        groups: of its tensors.
        packs: those that its table names.
        table: a row a chunk.
        sizes: bytes of the chunks of the groups, in order.
    """

    file: str
    save: str
    writer: str
    framework: str
    versions: dict[str, str]
    structure: bytes
    groups: list[Group]
    packs: list[Needed]
    table: Table
    sizes: Array


def encode(
    *,
    save: str,
    framework: str,
    structure: bytes,
    groups: dict[str, list[Shard]],
    packs: list[Needed],
    table: Table,
    versions: dict[str, str] | None = None,
) -> bytes:
    """An index as bytes."""
    document = msgspec.json.encode(
        Document(
            save=save,
            framework=framework,
            versions=versions or msgspec.UNSET,
            structure=msgspec.Raw(structure),
            groups=[GroupDocument(name, shards) for name, shards in groups.items()],
            packs=packs,
            rows=len(table),
            columns=tables.COLUMNS,
        )
    )
    padding = bytes(-len(document) % ALIGNMENT)
    return b"".join((MAGIC, len(document).to_bytes(8, "little"), document, padding, *tables.encode(table)))


def document_bytes(prefix: bytes, nbytes: int) -> int:
    """How many bytes of an index have all the names in it: up to the end of its document. All of what is no index.

    Args:
        prefix: its first `PREFIX_BYTES` bytes.
        nbytes: how many it has.
    """
    length = int.from_bytes(prefix[len(MAGIC) :], "little")
    return PREFIX_BYTES + length if prefix.startswith(MAGIC) and PREFIX_BYTES + length <= nbytes else nbytes


def decode(data: bytes, part: Part, packs: dict[str, int], limits: Limits, file: str) -> Index:
    """An index that nobody vouches for.

    Args:
        data: the whole object.
        part: what the manifest says of it.
        packs: size in bytes of every pack that the manifest names.
        limits: rank of tensors, size of the structure.
        file: for messages.

    Raises:
        CorruptError: it is not the one that the manifest names.
        FormatError: it breaks the format in any way.
    """
    found = digest(data).hex()
    if len(data) != part.nbytes or found != part.digest:
        raise CorruptError(file=file, path="(index)", span=(0, len(data)), found=found, wanted=part.digest)

    def wrong(problem: str) -> FormatError:
        return FormatError(file, f"damaged: {problem}")

    length = int.from_bytes(data[len(MAGIC) : PREFIX_BYTES], "little")
    if not data.startswith(MAGIC) or length > len(data) - PREFIX_BYTES:
        raise wrong("it is no index")
    if length > limits.header_bytes:
        raise wrong(f"its document would take {length:,} bytes, the limit is {limits.header_bytes:,}")
    try:
        document = strictjson.decode(data[PREFIX_BYTES : PREFIX_BYTES + length], Document)
    except (msgspec.MsgspecError, ValueError) as error:
        raise wrong(f"its document: {error}") from None
    if document.version.partition(".")[0] != VERSION.partition(".")[0]:
        raise FormatError(file, f"version {document.version[:20]} of the format, this release reads {VERSION}")
    if document.save != part.save:
        raise wrong(f"it says that it is of save {document.save!r:.80}")
    start = PREFIX_BYTES + length + (-length) % ALIGNMENT
    rows = document.rows
    if not 0 <= rows <= _MOST_ROWS or any(not 0 < width <= 1 << 20 for _, width in document.columns):
        raise wrong(f"a chunk table of {rows:,} rows")
    if start + tables.nbytes_of(rows, document.columns) != len(data):
        raise wrong("its chunk table has not the size that its document says")
    groups = _groups(document, rows, limits, file)
    sizes = np.concatenate([np.diff(np.array(group.grid.starts, np.uint64)) for group in groups] or [np.empty(0, np.uint64)])
    if len(sizes) > rows:
        raise wrong(f"its tensors have {len(sizes):,} chunks, its table {rows:,} rows")
    for pack in document.packs:
        if not is_needed(pack) or packs.get(pack.name, pack.nbytes) != pack.nbytes:
            raise wrong(f"the manifest does not name its pack {pack.name!r:.80} so")
    table = tables.decode(memoryview(data)[start:], rows, document.columns, file)
    tables.check(table, sizes, [pack.nbytes for pack in document.packs], file)
    return Index(
        file,
        document.save,
        document.writer,
        document.framework,
        document.versions or {},
        bytes(document.structure),
        groups,
        document.packs,
        table,
        sizes,
    )


def _groups(document: Document, rows: int, limits: Limits, file: str) -> list[Group]:
    groups: list[Group] = []
    row = 0
    specs: dict[tuple[str, tuple[int, ...]], TensorSpec] = {}
    left = rows << 20  # bytes that so many chunks can hold: no grid is made of more
    for group in document.groups:
        if group.name not in GROUPS or any(group.name == other.name for other in groups):
            raise FormatError(file, f"damaged: a group {group.name!r:.40}, which is unknown or there twice")
        own: list[TensorSpec] = []
        for shard in group.tensors:
            key = shard.dtype, shard.own_shape
            if key not in specs:
                specs[key] = container.stored_spec(shard.dtype, shard.own_shape, shard.path, file, limits)
            _check_part(shard, file)
            own.append(specs[key])
            left -= specs[key].nbytes
            if left < 0:
                raise FormatError(file, f"damaged: {rows:,} chunks cannot hold its tensors")
        grid = grid_of([spec.nbytes for spec in own])
        groups.append(Group(group.name, group.tensors, own, grid, row))
        row += len(grid)
    return groups


def _check_part(shard: Shard, file: str) -> None:
    if not shard.offset and not shard.extent:
        return
    rank = len(shard.shape)
    inside = len(shard.offset) == len(shard.extent) == rank and all(
        start >= 0 and length >= 0 and start + length <= whole
        for start, length, whole in zip(shard.offset, shard.extent, shard.shape, strict=True)
    )
    if not inside or math.prod(shard.extent) == 0:
        raise FormatError(file, f"damaged: {shard.path!r:.200}: a shard at {shard.offset} of {shard.extent} in {shard.shape}")

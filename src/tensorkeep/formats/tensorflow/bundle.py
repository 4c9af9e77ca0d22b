"""TensorFlow's checkpoints of version 2: a table of entries beside files of bytes, each entry with its CRC-32C.

Lives here: the entries of a bundle, partitioned variables, and texts. Lives elsewhere: which files belong together (checkpoint),
the table itself (wire).

Source: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/tensor_bundle.proto, and
`tensorflow/core/util/tensor_bundle/` for texts; `tensorflow/core/lib/strings/ordered_code.cc` for the keys of slices.
"""

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.tensorflow.tensor import STRING, Slice, assembled, dtype_of, kind_name, plain, shape_of, slice_of, tiles
from tensorkeep.tensors import LazyTensor, TensorSpec, spec_of
from tensorkeep.tree import Tree
from tensorkeep.wire.crc32c import checksum, crc32c, unmasked
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.leveldb import entries
from tensorkeep.wire.protobuf import Message
from tensorkeep.wire.sources import run_of, swapped

OBJECT_GRAPH: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"
_MOST_SHARDS: Final = 99_999  # five digits in the name


@dataclass(slots=True)
class Bundle:
    """What a bundle holds.

    Attributes:
        tree: tensors by their keys, texts as byte strings in lists of the tensor's shape.
        graph: the object graph, as it is written; None for a checkpoint of TensorFlow 1.
        checked: the bytes of all entries, each with its checksum.
        left_out: what was not read, and why.
    """

    tree: dict[str, Tree] = field(default_factory=dict)
    graph: bytes | None = None
    checked: list[Extent] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_bundle(peek: Peek, table: Extent, prefix: str) -> Bundle:
    """A bundle, its tensors lazy.

    Args:
        table: the `.index` file.
        prefix: the name of the checkpoint, beside which its data files lie.
    """
    return _Reading(peek, table, prefix).run()


class _Reading:
    def __init__(self, peek: Peek, table: Extent, prefix: str) -> None:
        self._peek, self._table, self._prefix = peek, table, prefix
        self._shards: dict[int, Extent] = {}
        self._pieces: dict[bytes, Extent] = {}
        self._shapes: dict[bytes, tuple[int, ...]] = {}
        self._bundle = Bundle()

    def run(self) -> Bundle:
        variables: dict[str, Extent] = {}
        header: Extent | None = None
        for key, value in entries(self._table, budget=self._peek.budget):
            if not key:
                header = value
            elif key[0] == 0:  # a piece of a partitioned variable: a name that begins with a number
                self._pieces[key] = value
            else:
                variables[_name(key, value)] = value
        if header is None:
            raise FormatError(self._table.name, "a LevelDB table without the header of a TensorFlow checkpoint")
        self._header(Message(header, "header of a checkpoint"))
        for name, value in variables.items():
            self._variable(name, Message(value, f"{name:.200}"))
        return self._bundle

    def _header(self, message: Message) -> None:
        self._count = message.signed(1, "number of shards")
        if not 0 < self._count <= _MOST_SHARDS:
            raise message.error(f"{self._count:,} shards")
        self._big_endian = message.unsigned(2, "byte order") == 1

    def _variable(self, name: str, entry: Message) -> None:
        number = entry.unsigned(1, "dtype")
        shape = self._shape(entry)
        slices = [slice_of(message) for message in entry.messages(7, "slice")]
        if plain(number) == STRING and not slices:
            self._texts(name, entry, shape)
            return
        dtype = dtype_of(number)
        if dtype is None:
            self._bundle.left_out.append(f"{name}: a value {kind_name(number)}, which is no tensor of numbers")
            return
        spec = spec_of(dtype, shape)
        self._bundle.tree[name] = self._partitioned(name, spec, slices, entry) if slices else self._run(name, spec, entry)

    def _shape(self, entry: Message) -> tuple[int, ...]:
        """The shape of an entry. Models repeat few of them many times."""
        content = entry.content(2, "shape")
        written = b"" if content is None else bytes(content.read())
        if (known := self._shapes.get(written)) is None:
            known = self._shapes[written] = shape_of(entry.message(2, "shape"))
        return known

    def _run(self, name: str, spec: TensorSpec, entry: Message) -> LazyTensor:
        data = self._data(name, entry)
        if data.nbytes != spec.nbytes:
            raise entry.error(f"{spec} takes {spec.nbytes:,} bytes, its entry has {data.nbytes:,}")
        item = spec.dtype.bits // 8
        tensor = run_of(data, 0, spec, what=name)
        if not self._big_endian or item == 1:
            return tensor
        numpy = spec.dtype.numpy
        return swapped(tensor, numpy if numpy is not None and numpy.kind == "c" else np.dtype(f"u{item}"))

    def _partitioned(self, name: str, spec: TensorSpec, slices: list[Slice], entry: Message) -> LazyTensor:
        blocks = []
        for cut in slices:
            spans = cut.inside(spec.shape)
            found = self._pieces.get(key_of_slice(name, cut))
            if spans is None or found is None:
                raise entry.error(f"the slice {cut.axes!r:.100} is not there, or outside of the shape {list(spec.shape)!r:.100}")
            part = spec_of(spec.dtype, tuple(stop - start for start, stop in spans))
            blocks.append((spans, self._run(name, part, Message(found, f"a slice of {name:.200}"))))
        if not tiles(spec.shape, [spans for spans, _ in blocks]):
            raise entry.error(f"its {len(blocks):,} slices do not fill the shape {list(spec.shape)!r:.100} exactly")
        return assembled(spec, blocks)

    def _texts(self, name: str, entry: Message, shape: tuple[int, ...]) -> None:
        data = self._data(name, entry, checked=False)
        cursor = Cursor(data)
        count = cursor.fits("count of texts", math.prod(shape), bytes_each=1)
        lengths = [cursor.varint("length of a text") for _ in range(count)]
        stored = bytes(cursor.raw("checksum of the lengths", 4))
        if sum(lengths) != cursor.left:
            raise cursor.error(f"{name:.200}: its texts have {sum(lengths):,} bytes, {cursor.left:,} are there")
        self._peek.budget.spend(data.nbytes + 50 * count, f"{name:.200}")
        values = [bytes(cursor.raw("a text", nbytes)) for nbytes in lengths]
        if self._peek.verify:
            _check_texts(data, lengths, stored, values, unmasked(entry.fixed(6, "checksum")))
        if name == OBJECT_GRAPH and count == 1:
            self._bundle.graph = values[0]
        else:
            self._bundle.tree[name] = nested(values, shape)

    def _data(self, name: str, entry: Message, *, checked: bool = True) -> Extent:
        """Where the bytes of an entry are."""
        shard, start, nbytes = (entry.signed(number, what) for number, what in ((3, "shard"), (4, "offset"), (5, "size")))
        if not 0 <= shard < self._count:
            raise entry.error(f"it lies in shard {shard:,} of {self._count:,}")
        if shard not in self._shards:
            self._shards[shard] = self._peek.sibling(f"{self._prefix}.data-{shard:05d}-of-{self._count:05d}")
        whole = self._shards[shard]
        if start < 0 or nbytes < 0 or start + nbytes > whole.nbytes:
            raise FormatError(
                whole.name,
                f"{name:.200} takes bytes {start:,} to {start + nbytes:,}, {whole.nbytes:,} are there",
                hint="The file may have been cut short on its way.",
            )
        data = whole.part(start, start + nbytes, f"{whole.name}: {name}")
        if checked:
            data.checksum = checksum(unmasked(entry.fixed(6, "checksum")))
            self._bundle.checked.append(data)
        return data


def _check_texts(data: Extent, lengths: list[int], stored: bytes, values: list[bytes], wanted: int) -> None:
    """Compare texts with both of their checksums: one is of the lengths as fixed numbers, the other of these and all that follows."""
    of_lengths = crc32c(b"".join(length.to_bytes(4 if length < 1 << 32 else 8, "little") for length in lengths))
    found = crc32c(stored + b"".join(values), of_lengths)
    if of_lengths != unmasked(int.from_bytes(stored, "little")) or found != wanted:
        raise CorruptError(
            file=data.opened.file.name,
            path=data.name.rpartition(": ")[2],
            span=(data.start, data.stop),
            found=f"{found:08x}",
            wanted=f"{wanted:08x}",
            kind="CRC-32C",
        )


def _name(key: bytes, value: Extent) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise FormatError(value.name, f"the key {key!r:.200} is no UTF-8") from None


def nested(values: list[bytes], shape: tuple[int, ...]) -> Tree:
    """Values in C order as lists in lists; the value itself where there are no dimensions."""
    if not shape:
        return values[0] if values else b""
    tree: list[Tree] = list(values)
    for length in reversed(shape[1:]):
        tree = [tree[start : start + length] for start in range(0, len(tree), length)] if length else []
    return tree


def key_of_slice(name: str, cut: Slice) -> bytes:
    """The key of a piece of a variable: numbers and texts written so that their order is that of their bytes."""
    text = name.encode().replace(b"\0", b"\0\xff")
    axes = b"".join(_ordered(start) + _ordered(-1 if length is None else length) for start, length in cut.axes)
    return b"\0" + text + b"\0\1" + _counted(len(cut.axes)) + axes


def _counted(value: int) -> bytes:
    """A number from 0: its length in bytes, and the bytes, the highest first."""
    digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(digits)]) + digits


def _ordered(value: int) -> bytes:
    """A signed number: as many ones as it has bytes in front, so that a longer one is larger."""
    magnitude = ~value if value < 0 else value
    nbytes = magnitude.bit_length() // 7 + 1
    digits = bytearray(value.to_bytes(nbytes, "big", signed=True))
    for bit in range(nbytes):
        digits[bit // 8] ^= 0x80 >> bit % 8
    return bytes(digits)

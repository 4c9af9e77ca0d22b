"""TensorFlow's checkpoints of version 1: one table that holds the tensors themselves, cut into slices.

Source: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/saved_tensor_slice.proto
"""

from tensorkeep.errors import FormatError
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.tensorflow.bundle import key_of_slice, nested
from tensorkeep.formats.tensorflow.tensor import Slice, assembled, dtype_of, kind_name, shape_of, slice_of, tensor_of, tiles
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.tree import Tree
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.leveldb import entries
from tensorkeep.wire.protobuf import Message


def read_slices(peek: Peek, table: Extent) -> dict[str, Tree]:
    """The tensors of a checkpoint of version 1, by name."""
    found = dict(entries(table, budget=peek.budget))
    header = found.get(b"")
    listed = None if header is None else Message(header, "header of a checkpoint").message(1, "list of tensors")
    if listed is None:
        raise FormatError(table.name, "a LevelDB table without the header of a TensorFlow checkpoint")
    tree: dict[str, Tree] = {}
    for entry in listed.messages(1, "tensor"):
        name = entry.text(1, "name of a tensor")
        if name in tree:
            raise entry.error(f"the tensor {name!r:.200} is listed twice")
        slices = [slice_of(message) for message in entry.messages(4, "slice")]
        tree[name] = _tensor(peek, found, name, entry, slices)
    return tree


def _tensor(peek: Peek, found: dict[bytes, Extent], name: str, entry: Message, slices: list[Slice]) -> Tree:
    shape, number = shape_of(entry.message(2, "shape")), entry.unsigned(3, "dtype")
    dtype = dtype_of(number)
    blocks: list[tuple[tuple[tuple[int, int], ...], LazyTensor]] = []
    for cut in slices:
        spans, value = cut.inside(shape), found.get(key_of_slice(name, cut))
        piece = None if value is None else Message(value, f"a slice of {name:.200}").message(2, "slice")
        data = None if piece is None else piece.message(3, "values of a slice")
        if spans is None or data is None:
            raise entry.error(f"the slice {cut.axes!r:.100} of {name:.200} is not there, or outside of {list(shape)!r:.100}")
        lengths = tuple(stop - start for start, stop in spans)
        tensor = tensor_of(data, name, number=number, shape=lengths)
        if isinstance(tensor, list) and len(slices) == 1:
            return nested(tensor, shape)
        if not isinstance(tensor, LazyTensor):
            raise entry.error(f"{name:.200} holds values {kind_name(number)}, which are no tensor of numbers")
        blocks.append((spans, tensor))
    if dtype is None or not tiles(shape, [spans for spans, _ in blocks]):
        raise entry.error(f"the {len(blocks):,} slices of {name:.200} do not fill the shape {list(shape)!r:.100} exactly")
    return assembled(spec_of(dtype, shape), blocks)

"""Flax: state dicts as MessagePack, the arrays in an extension type of Flax's own.

Lives here: what those extensions mean, and arrays that were cut because MessagePack holds no byte string of 4 GiB. Old multi-host files
name arrays that were kept apart: the names stay texts, and nothing is opened for them.
Lives elsewhere: MessagePack itself (wire).

Source: https://github.com/google/flax/blob/main/flax/serialization.py, and `flax/training/checkpoints.py` for the placeholders.
"""

import re
from functools import partial
from typing import Any, Final

from tensorkeep import dtypes
from tensorkeep.contents import Contents
from tensorkeep.errors import FormatError
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import HEAD_BYTES, Peek
from tensorkeep.limits import Limits
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.tree import Tree, join
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.msgpack import Unpacker
from tensorkeep.wire.sources import joined, run_of

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_FIELDS: Final = Limits(values=1000, depth=3)  # of an extension: a shape, a name, bytes
_CHUNKED: Final = "__msgpack_chunked_array__"
_LOOKED_INTO: Final = (dict, list, str)
_PLACEHOLDERS: Final = ("//GDAPlaceholder:", "//ArrayPlaceholder:")

_NUMBERED: Final = re.compile(r"(?:checkpoint|ckpt)_(\d{1,18})")

_BEGIN: Final = re.compile(rb"(?:[\x81-\x8f]|\xde..|\xdf....)(?:[\xa0-\xbf]|\xd9.|\xda..|[\x00-\x7f])", re.DOTALL)
"""A map of at least one entry, and a key that is a text or a small number."""

_AN_ARRAY: Final = re.compile(rb"(?:[\xd4-\xd8]|\xc7.|\xc8..|\xc9....)[\x01\x03]\x93[\x90-\x9f]", re.DOTALL)
"""An array or a scalar of NumPy: shape, name of the dtype, bytes."""


class FlaxReader:
    """What `flax.serialization.to_bytes` writes, and `flax.training.checkpoints`. A MessagePack file without arrays is read too."""

    name = "Flax msgpack"

    def recognizes(self, peek: Peek) -> bool:
        if _AN_ARRAY.match(peek.head):
            return True
        if _BEGIN.match(peek.head) is None:
            return False
        return _AN_ARRAY.search(peek.head) is not None or (peek.nbytes <= HEAD_BYTES and _is_whole(peek))

    def read(self, peek: Peek) -> Contents:
        left_out: list[str] = []
        tree = read_tree(peek, peek.data, left_out)
        flax = bool(left_out) or _holds_arrays(tree)
        return assemble.contents(peek, format=self.name if flax else "MessagePack", tree=tree, left_out=left_out)


class FlaxFolderReader:
    """A folder of `flax.training.checkpoints`: opens the newest file, by the number in its name."""

    name = "Flax msgpack"

    def recognizes(self, peek: Peek) -> bool:
        return peek.is_folder and (newest := _newest(peek)) is not None and FlaxReader().recognizes(peek.within(peek.sibling(newest)))

    def read(self, peek: Peek) -> Contents:
        newest = _newest(peek)
        assert newest is not None, "recognizes() found one"
        others = [file for file in peek.files if file != newest and _NUMBERED.fullmatch(file)]
        left_out = [f"{len(others):,} older checkpoints, such as {others[-1]!r:.100}: this is {newest!r:.100}"] if others else []
        tree = read_tree(peek, peek.sibling(newest), left_out)
        return assemble.contents(peek, format=self.name, tree=tree, metadata={"checkpoint": newest}, left_out=left_out)


def _newest(peek: Peek) -> str | None:
    numbered = [(int(match[1]), file) for file in peek.files if (match := _NUMBERED.fullmatch(file))]
    return max(numbered)[1] if numbered else None


def read_tree(peek: Peek, data: Extent, left_out: list[str]) -> Tree:
    """The state dict that fills an extent, its arrays lazy.

    Args:
        left_out: gets a sentence for each array that is named and kept elsewhere.
    """
    cursor = Cursor(data, order=">")
    tree = Unpacker(cursor, limits=peek.limits, binary=partial(_bytes, peek), extension=_extension).value()
    if cursor.left:
        raise cursor.error(f"{cursor.left:,} bytes follow its end")
    return _whole(tree, "", peek.name, left_out)


def _bytes(peek: Peek, data: Extent) -> bytes:
    peek.budget.spend(data.nbytes, "a byte string")
    return bytes(data.read())


def _extension(kind: int, data: Extent) -> object:
    """An array, a complex number, or a scalar of NumPy."""
    if kind not in (_ARRAY, _COMPLEX, _SCALAR):
        raise FormatError(data.name, f"an extension of type {kind}, which Flax does not write (at byte {data.start:,})")
    cursor = Cursor(data, order=">")
    fields = Unpacker(cursor, limits=_FIELDS, binary=lambda part: part, extension=_no_extension).value()
    if cursor.left or not isinstance(fields, list):
        raise cursor.error("an extension that is no list of fields")
    if kind == _COMPLEX:
        if len(fields) != 2 or not all(type(part) is float for part in fields):
            raise cursor.error(f"a complex number of {len(fields)} parts, wanted are two floats")
        return complex(*fields)
    tensor = _array(cursor, fields)
    return tensor.numpy()[()] if kind == _SCALAR and tensor.shape == () else tensor


def _no_extension(kind: int, data: Extent) -> object:
    raise FormatError(data.name, f"an extension of type {kind} inside another (at byte {data.start:,})")


def _array(cursor: Cursor, fields: list[Any]) -> LazyTensor:
    if len(fields) != 3:
        raise cursor.error(f"an array of {len(fields)} fields, wanted are shape, dtype and bytes")
    shape, name, data = fields
    name = str(name.read()[:100], "utf-8", "replace") if isinstance(name, Extent) else name
    if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
        raise cursor.error(f"an array of shape {shape!r:.100}")
    dtype = dtypes.named(name) if isinstance(name, str) else None
    if dtype is None:
        raise cursor.error(f"an array of dtype {name!r:.100}, which tensorkeep does not know")
    if not isinstance(data, Extent):
        raise cursor.error("an array whose bytes are no byte string")
    spec = spec_of(dtype, tuple(shape))
    if spec.nbytes != data.nbytes:
        raise cursor.error(f"an array of {spec} that has {data.nbytes:,} bytes, wanted are {spec.nbytes:,}")
    return run_of(data, 0, spec, what="an array")


def _whole(node: Tree, path: str, file: str, left_out: list[str]) -> Tree:
    """A tree with its cut arrays put together."""
    if isinstance(node, dict):
        if _CHUNKED in node:
            return _put_together(node, path, file)
        return {key: _whole(child, join(path, key), file, left_out) for key, child in node.items()}
    if isinstance(node, list):
        return [_whole(child, join(path, key), file, left_out) if type(child) in _LOOKED_INTO else child for key, child in enumerate(node)]
    if isinstance(node, str) and node.startswith(_PLACEHOLDERS):
        left_out.append(f"{path}: Flax kept this array apart, and here stands its name: {node:.200}. A name in a file is not followed.")
    return node


def _put_together(node: dict[Any, Any], path: str, file: str) -> LazyTensor:
    lengths, chunks = (_in_order(node.get(key)) for key in ("shape", "chunks"))
    if lengths is None or not all(type(length) is int and length >= 0 for length in lengths):
        raise FormatError(file, f"{path:.200}: an array in chunks whose shape is {node.get('shape')!r:.100}")
    if not chunks or not all(isinstance(chunk, LazyTensor) and len(chunk.shape) == 1 for chunk in chunks):
        raise FormatError(file, f"{path:.200}: an array in chunks, and its chunks are no list of flat arrays")
    return joined(chunks, tuple(lengths), file=file, what=path)


def _in_order(node: object) -> list[Any] | None:
    """A tuple that is kept as a dict of its places: `{"0": ..., "1": ...}`."""
    if not isinstance(node, dict) or any(str(place) not in node for place in range(len(node))):
        return None
    return [node[str(place)] for place in range(len(node))]


def _holds_arrays(node: Tree) -> bool:
    if isinstance(node, dict):
        return any(_holds_arrays(child) for child in node.values())
    return any(map(_holds_arrays, node)) if isinstance(node, list) else isinstance(node, LazyTensor)


def _is_whole(peek: Peek) -> bool:
    """Whether a small file is one MessagePack value, to its end."""
    try:
        read_tree(peek, peek.data, [])
    except FormatError:
        return False
    return True

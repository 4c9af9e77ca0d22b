"""Paddle: parameters for inference, all in one `.pdiparams`, or a folder with a file for each, and the program that names them.

Lives elsewhere: `.pdparams` and `.pdopt`, which are pickles.
Source: Paddle's paddle/fluid/framework/{lod_tensor.cc,tensor_util.cc,framework.proto}.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from tensorkeep.contents import Contents
from tensorkeep.dtypes import C128, STANDARD, DType
from tensorkeep.errors import FormatError
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.peek import Peek
from tensorkeep.tensors import LazyTensor, spec_of
from tensorkeep.tree import Tree
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.protobuf import Message
from tensorkeep.wire.sources import run_of

_DTYPES: Final = {
    0: "BOOL", 1: "I16", 2: "I32", 3: "I64", 4: "F16", 5: "F32", 6: "F64", 19: "U64", 20: "U8", 21: "I8", 22: "BF16", 23: "C64",
    32: "F8_E4M3", 33: "F8_E5M2",
}  # fmt: skip
_COMPLEX128: Final = 24
_SHORTEST: Final = 4 + 8 + 4 + 4 + 2  # version, levels, version, size of the description, its dtype
_MOST_FILES: Final = 20_000
_HOLDER_KINDS: Final = {9, 10, 17}  # feed, fetch and raw variables of a program hold no tensor


class PaddleReader:
    """A file of tensors behind each other, or a folder of files with one each."""

    name = "paddle"

    def recognizes(self, peek: Peek) -> bool:
        if not peek.is_folder:
            return _begins_tensor(peek.data)
        names = [name for name in peek.files if not name.startswith("__") and not name.startswith(".")]
        if not names or len(names) > _MOST_FILES or any("/" in name for name in names) or peek.folder is None:
            return False
        try:
            return all(_begins_tensor(peek.sibling(name)) for name in (names[0], names[-1]))
        except (FormatError, OSError):
            return False

    def read(self, peek: Peek) -> Contents:
        if peek.is_folder:
            return self._folder(peek)
        tensors = list(_tensors(peek.data))
        names, left_out = _names(peek, len(tensors))
        tree: Tree = dict(zip(names, tensors, strict=True)) if names else tensors[0] if len(tensors) == 1 else tensors
        return contents(peek, format="Paddle parameters", tree=tree, left_out=left_out)

    def _folder(self, peek: Peek) -> Contents:
        tree: dict[str, LazyTensor] = {}
        left_out = []
        for name in peek.files:
            data = peek.sibling(name)
            if not _begins_tensor(data):
                left_out.append(f"{name}: no tensor of Paddle")
                continue
            found = list(_tensors(data))
            if len(found) != 1:
                raise FormatError(data.name, f"{len(found)} tensors, where a file of this folder holds one")
            tree[name] = found[0]
        return contents(peek, format="Paddle parameters (a folder)", tree=tree, left_out=left_out)


def _begins_tensor(data: Extent) -> bool:
    """Whether it begins with version 0, few levels of detail, version 0, and the description of a tensor."""
    if data.nbytes < _SHORTEST:
        return False
    head = bytes(data.read(0, _SHORTEST))
    levels = int.from_bytes(head[4:12], "little")
    if head[:4] != bytes(4) or levels > 2:
        return False
    if levels:
        return data.nbytes > 64 and _try_first(data)
    size = int.from_bytes(head[16:20], "little")
    return head[12:16] == bytes(4) and 2 <= size <= 512 and head[20] == 0x08 and (head[21] in _DTYPES or head[21] == _COMPLEX128)


def _try_first(data: Extent) -> bool:
    try:
        next(_tensors(data))
    except (FormatError, StopIteration):
        return False
    return True


def _tensors(data: Extent) -> Iterator[LazyTensor]:
    cursor = Cursor(data)
    number = 0
    while cursor.left:
        yield _tensor(cursor, f"tensor {number:,}")
        number += 1


def _tensor(cursor: Cursor, what: str) -> LazyTensor:
    cursor.one_of(f"{what}: version", cursor.u32(f"{what}: version"), {0})
    levels = cursor.fits(f"{what}: levels of detail", cursor.u64(f"{what}: levels of detail"), bytes_each=8)
    for _ in range(levels):
        cursor.skip(f"{what}: level of detail", cursor.u64(f"{what}: size of a level"))
    cursor.one_of(f"{what}: version of its values", cursor.u32(f"{what}: version of its values"), {0})
    size = cursor.fits(f"{what}: size of its description", cursor.i32(f"{what}: size of its description"), bytes_each=1)
    described = Message(cursor.extent.part(cursor.at, cursor.at + size), f"{what}: description")
    cursor.skip(what, size)
    code = described.unsigned(1, "dtype")
    dtype: DType | None = C128 if code == _COMPLEX128 else STANDARD.get(_DTYPES.get(code, ""))
    if dtype is None:
        raise cursor.error(f"{what} has the dtype {code}, which is not known")
    shape = tuple(described.integers(2, "shape"))
    if any(length < 0 for length in shape):
        raise cursor.error(f"{what} has the shape {list(shape)!r:.200}")
    tensor = run_of(cursor.extent, cursor.at, spec_of(dtype, shape), what=what)
    cursor.skip(what, tensor.nbytes)
    return tensor


def _names(peek: Peek, count: int) -> tuple[list[str], list[str]]:
    """The names of a combined file's tensors: those of the program's parameters, sorted; and what was left out."""
    stem = peek.base.rpartition(".")[0] or peek.base
    for other in (f"{stem}.pdmodel", f"{stem}.json", "__model__"):
        if peek.folder is None or other == peek.base or not peek.folder.has(other):
            continue
        program = peek.sibling(other)
        try:
            names = sorted(_of_json(program, peek) if other.endswith(".json") else _persistables(Message(program, "program")))
        except FormatError as error:
            return [], [f"names: {other} cannot be read: {error.problem}"]
        if len(names) == count:
            return names, []
        return [], [f"names: {other} has {len(names):,} parameters, this file {count:,} tensors"]
    return ([], ["names: they stand in the program beside it (.pdmodel), which is not there"]) if count > 1 else ([], [])


def _of_json(program: Extent, peek: Peek) -> Iterator[str]:
    """The parameters of a program of Paddle 3: operations of the kind `p`, whose fourth attribute is the name."""
    if program.nbytes > peek.limits.header_bytes:
        raise FormatError(program.name, f"{program.nbytes:,} bytes, the limit is {peek.limits.header_bytes:,}")
    try:
        document = msgspec.json.decode(program.read(), type=_Document)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise FormatError(program.name, f"no program of Paddle: {error}") from None
    for region in document.program.regions:
        for block in region.blocks:
            for operation in block.ops:
                attributes = operation.attributes
                if operation.kind == "p" and isinstance(attributes, list) and len(attributes) > 3 and isinstance(attributes[3], str):
                    yield attributes[3]


class _Operation(msgspec.Struct):
    kind: str = msgspec.field(name="#", default="")
    attributes: object = msgspec.field(name="A", default=None)


class _Block(msgspec.Struct):
    ops: list[_Operation]


class _Region(msgspec.Struct):
    blocks: list[_Block]


class _Program(msgspec.Struct):
    regions: list[_Region]


class _Document(msgspec.Struct):
    program: _Program


def _persistables(program: Message) -> Iterator[str]:
    for block in program.messages(1, "block"):
        for variable in block.messages(3, "variable"):
            kind = variable.message(2, "type of a variable")
            if variable.unsigned(3, "persistable") and kind is not None and kind.unsigned(1, "kind") not in _HOLDER_KINDS:
                yield variable.text(1, "name of a variable")

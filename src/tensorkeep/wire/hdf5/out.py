"""Laying out an HDF5 file: groups and contiguous data sets in the oldest form, which every reader knows.

A superblock of version 0; each group an object header of version 1 with a B-tree, a local heap of names and symbol table nodes; each data
set an object header with its type and place. All offsets follow from names, types and shapes, so the data can be written in any order.

Source: https://docs.hdfgroup.org/hdf5/develop/_f_m_t3.html
"""

import struct
from dataclasses import dataclass, field
from typing import Any, Final

from tensorkeep.tensors import LazyTensor

_UNDEFINED: Final = (1 << 64) - 1
_LEAF_K: Final = 16  # a node of symbols holds twice as many
_LEAST_INTERNAL_K: Final = 16  # of the library's default
_ALIGNMENT: Final = 64
_NO_FREE_SPACE: Final = 1  # in a heap


@dataclass(slots=True, eq=False)
class OutGroup:
    """A group: its members by name."""

    members: "dict[str, OutGroup | LazyTensor]" = field(default_factory=dict)
    header_at: int = 0
    tree_at: int = 0
    heap_at: int = 0


@dataclass(slots=True)
class OutFile:
    """A file that is laid out.

    Attributes:
        head: all bytes before the data, from the beginning of the file.
        places: each tensor once, with the offset of its first byte.
        nbytes: of the file.
    """

    head: bytes
    places: list[tuple[int, LazyTensor]]
    nbytes: int


def lay_out(root: OutGroup) -> OutFile:
    """A whole file around the data. A tensor that is a member of several groups is one data set with several names."""
    return _Layout(root).file()


class _Layout:
    def __init__(self, root: OutGroup) -> None:
        self.root = root
        self.groups: list[OutGroup] = []
        self.tensors: dict[int, LazyTensor] = {}
        self.links: dict[int, int] = {}  # how many names each tensor has, by its id
        self.visit(root)
        most = max(len(_nodes(group)) for group in self.groups)
        self.internal_k = max(_LEAST_INTERNAL_K, -(-most // 2))
        self.tree_nbytes = 24 + 2 * self.internal_k * 16 + 8
        self.node_nbytes = 8 + 2 * _LEAF_K * 40

    def visit(self, group: OutGroup) -> None:
        self.groups.append(group)
        for member in group.members.values():
            if isinstance(member, OutGroup):
                self.visit(member)
            else:
                self.tensors[id(member)] = member
                self.links[id(member)] = self.links.get(id(member), 0) + 1

    def file(self) -> OutFile:
        at = 96
        for group in self.groups:
            group.header_at, group.tree_at = at, at + 40
            group.heap_at = group.tree_at + self.tree_nbytes + len(_nodes(group)) * self.node_nbytes
            at = group.heap_at + 32 + len(_heap(group)[0])
        headers: dict[int, int] = {}
        for key, tensor in self.tensors.items():
            headers[key] = at
            at += len(_data_set(tensor, 0, 1))
        places: list[tuple[int, LazyTensor]] = []
        parts = [b""]
        for key, tensor in self.tensors.items():
            at += -at % _ALIGNMENT if tensor.nbytes else 0
            places.append((at, tensor))
            parts.append(_data_set(tensor, at, self.links[key]))
            at += tensor.nbytes
        groups = [self.group(group, headers) for group in self.groups]
        head = b"".join([self.superblock(at), *groups, *parts])
        return OutFile(head, places, max(at, len(head)))

    def superblock(self, end: int) -> bytes:
        fixed = struct.pack("<8B2HI", 0, 0, 0, 0, 0, 8, 8, 0, _LEAF_K, self.internal_k, 0)
        addresses = struct.pack("<4Q", 0, _UNDEFINED, end, _UNDEFINED)
        return b"\x89HDF\r\n\x1a\n" + fixed + addresses + _symbol(0, self.root)

    def group(self, group: OutGroup, headers: dict[int, int]) -> bytes:
        """A group's header, tree, nodes and heap, as they lie behind each other."""
        segment, offsets = _heap(group)
        nodes = _nodes(group)
        tree = [b"TREE", struct.pack("<BBHQQQ", 0, 0, len(nodes), _UNDEFINED, _UNDEFINED, 0)]
        symbols = []
        for number, names in enumerate(nodes):
            tree.append(struct.pack("<QQ", group.tree_at + self.tree_nbytes + number * self.node_nbytes, offsets[names[-1]]))
            node = [b"SNOD", struct.pack("<BBH", 1, 0, len(names))]
            for name in names:
                member = group.members[name]
                where = member if isinstance(member, OutGroup) else headers[id(member)]
                node.append(_symbol(offsets[name], where))
            symbols.append(b"".join(node).ljust(self.node_nbytes, b"\0"))
        heap = b"HEAP" + struct.pack("<B3xQQQ", 0, len(segment), _NO_FREE_SPACE, group.heap_at + 32)
        header = _header([(0x11, struct.pack("<QQ", group.tree_at, group.heap_at))], 1)
        return b"".join([header, b"".join(tree).ljust(self.tree_nbytes, b"\0"), *symbols, heap, segment])


def _nodes(group: OutGroup) -> list[list[str]]:
    """The names of a group, sorted as bytes, in nodes."""
    names = sorted(group.members, key=str.encode)
    return [names[start : start + 2 * _LEAF_K] for start in range(0, len(names), 2 * _LEAF_K)]


def _heap(group: OutGroup) -> tuple[bytes, dict[str, int]]:
    """The names of a group behind each other, and where each begins. The empty one is first."""
    parts, offsets, at = [bytes(8)], {}, 8
    for name in group.members:
        data = name.encode() + b"\0"
        data += bytes(-len(data) % 8)
        offsets[name] = at
        parts.append(data)
        at += len(data)
    return b"".join(parts), offsets


def _symbol(name: int, member: OutGroup | int) -> bytes:
    """An entry of a symbol table: of a group with what a reader would find in its header, of a data set with its address alone."""
    if isinstance(member, OutGroup):
        return struct.pack("<QQIIQQ", name, member.header_at, 1, 0, member.tree_at, member.heap_at)
    return struct.pack("<QQII16x", name, member, 0, 0)


def _header(messages: list[tuple[int, bytes]], links: int) -> bytes:
    body = b""
    for kind, data in messages:
        data += bytes(-len(data) % 8)
        body += struct.pack("<HHB3x", kind, len(data), 0) + data
    return struct.pack("<BxHII4x", 1, len(messages), links, len(body)) + body


def _data_set(tensor: LazyTensor, at: int, links: int) -> bytes:
    shape = tensor.shape
    space = struct.pack(f"<BBB5x{len(shape)}Q", 1, len(shape), 0, *shape)
    no_fill = bytes((2, 2, 0, 0))  # version, room is taken late, never filled, no value
    place = struct.pack("<BBQQ", 3, 1, at if tensor.nbytes else _UNDEFINED, tensor.nbytes)
    return _header([(0x01, space), (0x03, TYPES[str(tensor.dtype)]), (0x05, no_fill), (0x08, place)], links)


def _integer(nbytes: int, *, signed: bool) -> bytes:
    return struct.pack("<BBBBIHH", 0x10, 8 * signed, 0, 0, nbytes, 0, 8 * nbytes)


def _float(nbytes: int, exponent: int, mantissa: int) -> bytes:
    bits = 8 * nbytes
    bias = (1 << (exponent - 1)) - 1
    return struct.pack("<BBBBIHHBBBBI", 0x11, 0x20, bits - 1, 0, nbytes, 0, bits, mantissa, exponent, 0, mantissa, bias)


def _complex(part: bytes, nbytes: int) -> bytes:
    """As h5py does: a record of `r` and `i`."""
    members = b"".join(
        name.ljust(8, b"\0") + struct.pack("<IB3xII4I", at, 0, 0, 0, 0, 0, 0, 0) + part for name, at in ((b"r", 0), (b"i", nbytes))
    )
    return struct.pack("<BBBBI", 0x16, 2, 0, 0, 2 * nbytes) + members


def _boolean() -> bytes:
    """As h5py does: bytes of which two values have a name."""
    return struct.pack("<BBBBI", 0x18, 2, 0, 0, 1) + _integer(1, signed=True) + b"FALSE\0\0\0TRUE\0\0\0\0" + b"\0\1"


_F32, _F64 = _float(4, 8, 23), _float(8, 11, 52)
TYPES: Final[dict[str, Any]] = {
    **{f"{'I' if signed else 'U'}{8 * nbytes}": _integer(nbytes, signed=signed) for nbytes in (1, 2, 4, 8) for signed in (False, True)},
    "F16": _float(2, 5, 10),
    "F32": _F32,
    "F64": _F64,
    "C64": _complex(_F32, 4),
    "C128": _complex(_F64, 8),
    "BOOL": _boolean(),
}
"""By the name of a dtype, the message that describes it."""

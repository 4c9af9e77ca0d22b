"""Groups: their links, in a table of symbols, in messages, or in a heap."""

from dataclasses import dataclass
from typing import Final, Literal

from tensorkeep.wire.hdf5.file import LINK, LINK_INFO, SYMBOL_TABLE, Block, Hdf5File, Object
from tensorkeep.wire.hdf5.heaps import LocalHeap, dense

_LINK_NAMES: Final = 5  # kind of B-tree
_MOST_DEPTH: Final = 32
_KINDS: Final = {0: "hard", 1: "soft", 64: "external"}


@dataclass(frozen=True, slots=True)
class Link:
    """One name in a group.

    Attributes:
        address: of the object, for a hard link.
        target: what a soft or external link names.
        order: when it was made, if the file says so.
    """

    name: str
    kind: Literal["hard", "soft", "external", "of the user"]
    address: int | None
    target: str = ""
    order: int = 0


def links(file: Hdf5File, group: Object) -> list[Link]:
    """The links of a group, in the order of their making where the file has it, else by name. Numbers stand in their own order.

    Raises:
        FormatError: two have one name, or they are damaged.
    """
    found = [_link(file.open(message)) for message in group.all(LINK)]
    if (message := group.first(SYMBOL_TABLE)) is not None:
        block = file.open(message)
        tree, heap = block.address("tree of symbols"), block.address("heap of names")
        found += _symbols(file, tree, LocalHeap(file, heap))
    if (message := group.first(LINK_INFO)) is not None:
        block = file.open(message)
        block.version("the link information", (0,))
        block.skip("largest creation index", 8 * (block.u8("flags") & 1))
        heap, tree = block.address("heap of links"), block.address("tree of names")
        found += map(_link, dense(file, heap, tree, _LINK_NAMES, skip=4))
    found.sort(key=lambda link: (link.order, link.name))
    names = {link.name for link in found}
    if len(names) != len(found):
        raise file.error(f"two links of one group have the same name, at byte {group.address:,}")
    return sorted(found, key=lambda link: int(link.name)) if all(map(_is_number, names)) else found


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 10


def _link(block: Block) -> Link:
    """Section IV.A.2.g."""
    block.version("the link", (1,))
    flags = block.u8("flags")
    kind = block.u8("kind of link") if flags & 8 else 0
    order = block.u64("creation order") if flags & 4 else 0
    block.skip("character set", 1 if flags & 16 else 0)
    name = bytes(block.raw("name of a link", block.wide("size of the name", 1 << (flags & 3)))).decode("utf-8", "backslashreplace")
    if kind == 0:
        return Link(name, "hard", block.address("object"), order=order)
    text = bytes(block.raw("target of a link", block.u16("size of the target")))
    if kind == 64:  # a byte of flags, then file and object, each with a zero at its end
        target = " : ".join(part.decode("utf-8", "backslashreplace") for part in text[1:].split(b"\0") if part)
        return Link(name, "external", None, target, order)
    if kind == 1:
        return Link(name, "soft", None, text.decode("utf-8", "backslashreplace"), order)
    return Link(name, "of the user", None, f"kind {kind}", order)


def _symbols(file: Hdf5File, tree: int | None, heap: LocalHeap) -> list[Link]:
    """The links of a group of the old kind: a B-tree of version 1 over tables of symbols. Sections III.A.1, III.B and III.C."""
    found: list[Link] = []
    met: set[int] = set()
    waiting = [(tree, -1)]
    while waiting:
        address, level = waiting.pop()
        if address is None:
            continue
        if address in met:
            raise file.error("the tree of a group leads back to itself")
        met.add(address)
        head = file.block(address, 8 + 2 * file.address_bytes, "tree of a group")
        head.signature(b"TREE")
        head.one_of("kind of tree", head.u8("kind of tree"), (0,))
        found_level, count = head.u8("level"), head.u16("entries")
        if (level >= 0 and found_level != level) or found_level > _MOST_DEPTH:
            raise head.error(f"a node of level {found_level} in the tree of a group")
        file.step(count)
        each = file.length_bytes + file.address_bytes
        node = file.block(address + 8 + 2 * file.address_bytes, count * each, "tree of a group")
        children = []
        for _ in range(count):
            node.skip("key", file.length_bytes)
            children.append(node.address("child"))
        if found_level:
            waiting += [(child, found_level - 1) for child in reversed(children)]
        else:
            for child in children:
                found += _table(file, child, heap, met)
    return found


def _table(file: Hdf5File, address: int | None, heap: LocalHeap, met: set[int]) -> list[Link]:
    if address is None or address in met:
        raise file.error("the tree of a group leads back to itself, or nowhere")
    met.add(address)
    head = file.block(address, 8, "table of symbols")
    head.signature(b"SNOD")
    head.skip("version", 2)
    count = head.u16("number of symbols")
    file.step(count)
    entry_bytes = 2 * file.address_bytes + 24
    block = file.block(address + 8, count * entry_bytes, "table of symbols")
    found = []
    for _ in range(count):
        entry = Block(file, block.raw("symbol", entry_bytes), address)
        name = heap.text(entry.wide("name", file.address_bytes))
        target, cached = entry.address("object"), entry.u32("kind of cache")
        entry.skip("reserved", 4)
        if cached == 2:
            found.append(Link(name, "soft", None, heap.text(entry.u32("target of a link"))))
        else:
            found.append(Link(name, "hard", target))
    return found

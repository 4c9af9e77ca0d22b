"""Trees: a state after adapters have turned every object into plain containers, plain values and tensors.

A tree is made of `dict`, `OrderedDict`, `defaultdict`, `Counter`, `list`, `tuple`, `deque`, `Captured` (an object, with the tree
of its state), and leaves: `LazyTensor`, `Packed`, and plain values. Two places that hold the same `LazyTensor` are tied.

Lives here: the two node classes, children and paths. Lives elsewhere: what the leaves look like in a file (structure).
"""

import reprlib
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Final, Literal

from tensorkeep.tensors import LazyTensor

Tree = Any
"""Any node of a tree; Python's types cannot say more."""

CONTAINERS: Final = (dict, list, tuple, deque)
"""What has children, beside `Captured`; dict stands for its three known subclasses too."""


class Captured:
    """What an adapter made of an object: a model, an optimizer, a generator, a dataclass.

    Attributes:
        kind: who knows how to bring it back, such as `torch.module` or `dataclass`.
        cls: the `__qualname__` of its class: information, and what `types=` is matched with. Never imported.
        state: the tree of its state.
        origin: the object itself, where it is live.
        extra: what the adapter wants to remember beside the state while the object is live; no file holds it.
    """

    __slots__ = ("cls", "extra", "kind", "origin", "state")

    def __init__(self, kind: str, cls: str, state: Tree, *, origin: object = None, extra: object = None) -> None:
        self.kind, self.cls, self.state, self.origin, self.extra = kind, cls, state, origin, extra


class Packed:
    """A long text, byte string or list of numbers, whose bytes stand in a tensor of their own.

    Attributes:
        kind: what it is: `str`, `bytes`, `list` or `tuple`.
        tensor: U8 for text and bytes, else BOOL, I64, F64 or C128.
    """

    __slots__ = ("kind", "tensor")

    def __init__(self, kind: Literal["str", "bytes", "list", "tuple"], tensor: LazyTensor) -> None:
        self.kind, self.tensor = kind, tensor

    def value(self) -> object:
        """The value itself. Reads and checks its bytes.

        Raises:
            ValueError: the bytes of a text are no UTF-8.
        """
        if self.kind == "bytes":
            return self.tensor.tobytes()
        if self.kind == "str":
            return str(self.tensor.source.read(0, self.tensor.nbytes), "utf-8")
        items = self.tensor.numpy().tolist()
        return tuple(items) if self.kind == "tuple" else items


class _Brief(reprlib.Repr):
    """Values as Python writes them, shortened before the work is done, and however deep: a stranger's file may hold any."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60

    def repr_int(self, value: int, level: int) -> str:
        return repr(value) if value.bit_length() < 200 else f"an int of {value.bit_length():,} bits"


_brief: Final = _Brief()


def brief(value: object, longest: int = 60) -> str:
    """A value in so many characters at most, for messages and tables."""
    text = _brief.repr(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


SIMPLE_KEYS: Final = frozenset({str, int, bool, type(None)})
"""Keys whose names any program can tell. A path below another key is a name that only its writer knows how to make."""


def name_of(key: object) -> str:
    """A key as it stands in a path: the same in every process, for equal states make equal files."""
    if type(key) is str:
        return key
    if type(key) is tuple:
        return f"({', '.join(map(_spelled, key))}{',' * (len(key) == 1)})"
    if type(key) is frozenset:
        return f"frozenset({{{', '.join(sorted(map(_spelled, key)))}}})"
    if isinstance(key, PurePath):
        return key.as_posix()
    try:
        return str(key)
    except ValueError:  # Python refuses to spell an int of more than 4,300 digits
        return hex(key) if type(key) is int else f"a {type(key).__name__} of huge ints"


def _spelled(part: object) -> str:
    return repr(part) if type(part) in (str, bytes) else name_of(part)


def join(path: str, key: object) -> str:
    """The path of a child: the keys from the root joined by dots, unescaped."""
    name = key if type(key) is str else name_of(key)
    return f"{path}.{name}" if path else name


def children(node: Tree) -> Iterator[tuple[object, Tree]] | None:
    """Key and child of each child of a node, or None for a leaf. A `Captured` adds nothing to the path: see `walk`."""
    if isinstance(node, dict):
        return iter(node.items())
    if isinstance(node, (list, tuple, deque)):
        return iter(enumerate(node))
    return None


def walk(node: Tree, path: str = "") -> Iterator[tuple[str, Tree]]:
    """Path and leaf of every leaf, in order. Empty containers are no leaves."""
    while isinstance(node, Captured):
        node = node.state
    inside = children(node)
    if inside is None:
        yield path, node
        return
    for key, child in inside:
        if isinstance(child, LazyTensor):
            yield join(path, key), child
        else:
            yield from walk(child, join(path, key))


def like(node: dict[Any, Any]) -> dict[Any, Any]:
    """An empty dict of the same kind, its default factory and `_metadata` (PyTorch's module versions) kept."""
    fresh = defaultdict(node.default_factory) if isinstance(node, defaultdict) else type(node)()
    if (metadata := getattr(node, "_metadata", None)) is not None:
        fresh._metadata = metadata  # type: ignore[attr-defined]  # an OrderedDict takes attributes
    return fresh


def versions(node: Tree, path: str = "") -> Iterator[tuple[str, object]]:
    """Path and version of every module of which a state says one: PyTorch keeps them in the `_metadata` of its dicts."""
    while isinstance(node, Captured):
        node = node.state
    metadata = getattr(node, "_metadata", None)
    if isinstance(metadata, dict):
        for name, version in metadata.items():
            yield (join(path, name) if name else path), version
    for key, child in children(node) or ():
        if children(child) is not None or isinstance(child, Captured):
            yield from versions(child, join(path, key))


def tensors(node: Tree) -> Iterator[tuple[str, LazyTensor]]:
    """Path and tensor of every tensor, `Packed` ones too."""
    for path, leaf in walk(node):
        if isinstance(leaf, LazyTensor):
            yield path, leaf
        elif isinstance(leaf, Packed):
            yield path, leaf.tensor

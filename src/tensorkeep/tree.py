"""Trees: a state after adapters have turned every object into plain containers, plain values and tensors.

A tree is made of `dict`, `OrderedDict`, `defaultdict`, `Counter`, `list`, `tuple`, `deque`, `Captured` (an object, with the tree
of its state), `Stub` (an object of a stranger's file, never made), and leaves: `LazyTensor`, `Packed`, and plain values. Two places
that hold the same `LazyTensor` are tied.

Lives here: the node classes, children and paths. Lives elsewhere: what the leaves look like in a file (structure).
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


class Stub:
    """An object or a class that a file names, kept inert: nothing was imported, and nothing called.

    Attributes:
        module, name: as the file names it, such as `sklearn.linear_model._base` and `LinearRegression`.
        fields: what the file says of the object: its attributes by name; under `__args__` and `__kwargs__` what it would have been
            made with, under `__state__` a state that is no dict of attributes, under `__items__` what it would hold as a list or dict,
            under `__callee__` what would have been called where that is an object too. Empty where the file names the class or
            function itself.
        made: whether it stands for an object; False for the class or function itself.
    """

    __slots__ = ("fields", "made", "module", "name")

    def __init__(self, module: str, name: str, fields: "dict[Any, Tree] | None" = None, *, made: bool = True) -> None:
        self.module, self.name, self.fields, self.made = module, name, {} if fields is None else fields, made

    def __getitem__(self, field: str) -> Any:
        return self.fields[field]

    def __repr__(self) -> str:
        named = f"{self.module}.{self.name}" if self.module else self.name
        inside = ", ".join(brief(name) if not isinstance(name, str) else name for name in list(self.fields)[:5])
        more = f", ... {len(self.fields)} in all" if len(self.fields) > 5 else ""
        return f"<stub of {named}{': ' if inside else ''}{inside}{more}>" if self.made else f"<stub: {named} itself>"

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} stands for an object that was not made, and cannot be pickled")


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
    if isinstance(node, Stub) and node.fields:
        return iter(node.fields.items())
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
        if type(child) is not LazyTensor and (children(child) is not None or isinstance(child, Captured)):
            yield from versions(child, join(path, key))


def tensors(node: Tree) -> Iterator[tuple[str, LazyTensor]]:
    """Path and tensor of every tensor, `Packed` ones too."""
    for path, leaf in walk(node):
        if isinstance(leaf, LazyTensor):
            yield path, leaf
        elif isinstance(leaf, Packed):
            yield path, leaf.tensor


class Names:
    """Gives out names, each once: `~2`, `~3`, ... is appended where one is taken, empty or reserved.

    It remembers where it stopped, for a file may have any number of things of one name.
    """

    def __init__(self) -> None:
        self._taken = {"", "__metadata__"}
        self._next: dict[str, int] = {}

    def free(self, name: str) -> str:
        """This name, or the next one like it that is free; taken from now on."""
        if name not in self._taken:
            self._taken.add(name)
            return name
        number = self._next.get(name, 2)
        while (free := f"{name}~{number}") in self._taken:
            number += 1
        self._next[name] = number + 1
        self._taken.add(free)
        return free


def named_tensors(node: Tree) -> dict[str, LazyTensor]:
    """Every tensor that is no packed value, by path, at each of its paths.

    `~2`, `~3`, ... is appended where a path is taken, empty or reserved.
    """
    names = Names()
    return {names.free(path): leaf for path, leaf in walk(node) if isinstance(leaf, LazyTensor)}

"""Encoding: a tree becomes a document, bit for bit, and each tensor gets its path."""

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from tensorkeep import dtypes, plain
from tensorkeep.errors import UnsupportedError
from tensorkeep.limits import Limits
from tensorkeep.structure.grammar import FACTORIES, NUMBERS, PLAIN, RESERVED, memory_of
from tensorkeep.structure.keys import MOST_ALIKE, most_alike
from tensorkeep.tensors import Array, LazyTensor, TensorSpec, as_bytes
from tensorkeep.tree import SIMPLE_KEYS, Captured, Packed, Tree, join, name_of


@dataclass(frozen=True, slots=True)
class Encoded:
    """A tree as a document and its tensors.

    Attributes:
        document: JSON.
        tensors: by path, each once, in the order of the tree.
        framework: what tensors were saved as that the document does not mark with "as".
        path_bytes: what its paths take when it is read.
    """

    document: object
    tensors: dict[str, LazyTensor]
    framework: str
    path_bytes: int


class ArrayBytes(msgspec.Struct, gc=False):
    """A ByteSource over a contiguous array of ours."""

    array: Array

    def view(self) -> Array:
        return self.array

    def read(self, start: int, stop: int) -> memoryview:
        return as_bytes(self.array)[start:stop]


def encode(tree: Tree, limits: Limits, *, packing: bool = True) -> Encoded:
    """A tree as a document and its tensors, which get their paths here.

    Args:
        packing: whether long texts and lists of numbers become tensors.

    Raises:
        UnsupportedError: it holds a value that cannot be kept, or passes a limit: a reader would refuse it.
    """
    encoder = _Encoder(limits, packing)
    document = encoder.node(tree, "", 0)
    return Encoded(document, encoder.tensors, encoder.framework or "numpy", encoder.path_bytes)


class _Encoder:
    def __init__(self, limits: Limits, packing: bool) -> None:
        self.limits, self.packing = limits, packing
        self.tensors: dict[str, LazyTensor] = {}
        self.framework = ""
        self.values = self.path_bytes = 0
        self.unusual = 0  # keys around the present node whose names other programs cannot tell

    def node(self, node: Tree, path: str, depth: int) -> object:
        kind = type(node)
        if kind is LazyTensor:
            return self.tensor(node, path)
        if kind is str and len(node) * 4 <= plain.LONG_TEXT and node.isascii():
            return node
        if kind is dict:
            return {"dict": self.items(node, path, depth)}
        if kind is list or kind is tuple:
            if self.packing and len(node) > plain.LONG_LIST and (packed := _pack_numbers(node)) is not None:
                return self.packed(packed, path)
            children = self.children(node, path, depth)
            return children if kind is list else {"tuple": children}
        return self.rarer(node, path, depth)

    def check_depth(self, path: str, depth: int) -> None:
        if depth > self.limits.depth:
            raise UnsupportedError(path, f"nested more than {self.limits.depth} containers deep")

    def count(self, number: int, path: str, depth: int) -> None:
        """Count so many values in a container, as a reader does."""
        self.check_depth(path, depth)
        self.values += number
        self.path_bytes += number * memory_of(path)
        if self.values > self.limits.values:
            raise UnsupportedError(path, f"more than {self.limits.values:,} values", hint="Pass numbers as arrays.")

    def children(self, node: Any, path: str, depth: int) -> list[object]:
        self.count(len(node), path, depth)
        return [self.node(child, join(path, number), depth + 1) for number, child in enumerate(node)]

    def rarer(self, node: Tree, path: str, depth: int) -> object:
        kind = type(node)
        if kind is Captured:
            self.check_depth(path, depth)
            return {"object": node.kind, "class": node.cls, "state": self.node(node.state, path, depth + 1)}
        if kind is OrderedDict:
            document: dict[str, object] = {"OrderedDict": self.items(node, path, depth)}
            if (metadata := getattr(node, "_metadata", None)) is not None:
                document["metadata"] = self.node(metadata, join(path, "_metadata"), depth + 1)
            return document
        if kind is defaultdict:
            factory = node.default_factory
            name = getattr(factory, "__name__", "")
            if factory is not None and FACTORIES.get(name) is not factory:
                raise UnsupportedError(path, f"a defaultdict that makes {factory!r}, which is code", hint="Pass dict(value).")
            return {"defaultdict": self.items(node, path, depth), "factory": name or None}
        if kind is Counter:
            return {"Counter": self.items(node, path, depth)}
        if kind is deque:
            return {"deque": self.children(node, path, depth), "maxlen": node.maxlen}
        if kind is set or kind is frozenset:
            self.count(len(node), path, depth)
            self.check_keys(node, path)
            return {kind.__name__: sorted((self.hashable(item, path, depth + 1) for item in node), key=msgspec.json.encode)}
        if kind is Packed:
            return self.packed(node, path)
        if self.packing and (kind is str or kind is bytes) and (packed := _pack_text(node)) is not None:
            return self.packed(packed, path)
        try:
            return plain.encode(node)
        except plain.Refused as refused:
            raise UnsupportedError(path, str(refused)) from None

    def items(self, node: Mapping[Any, Tree], path: str, depth: int) -> list[object]:
        prefix = f"{path}." if path else ""
        items: list[object] = []
        self.count(2 * len(node), path, depth)
        self.check_keys(node, path)
        for key, child in node.items():
            inner = prefix + (key if type(key) is str else name_of(key))
            if type(child) is LazyTensor and type(key) is str and not self.unusual and self.plain_tensor(child, inner):
                items.append(key)  # what a state_dict is made of
                continue
            unusual = type(key) not in SIMPLE_KEYS
            self.unusual += unusual
            document = self.node(child, inner, depth + 1)
            self.unusual -= unusual
            items.append([key if type(key) is str and key.isascii() else self.hashable(key, inner, depth), document])
        return items

    def check_keys(self, keys: Any, path: str) -> None:
        if len(keys) > MOST_ALIKE and not set(map(type, keys)) <= {str} and most_alike(list(map(hash, keys))) > MOST_ALIKE:
            raise UnsupportedError(path, f"more than {MOST_ALIKE} keys or items of one hash, which is what an attack looks like")

    def hashable(self, value: object, path: str, depth: int) -> object:
        """A dict's key or a set's item: plain values, and tuples and frozen sets of them."""
        self.count(1 + (len(value) if type(value) in (tuple, frozenset) else 0), "", depth)  # type: ignore[arg-type]  # of these two
        if type(value) is tuple:
            return {"tuple": [self.hashable(item, path, depth + 1) for item in value]}
        if type(value) is frozenset:
            return {"frozenset": sorted((self.hashable(item, path, depth + 1) for item in value), key=msgspec.json.encode)}
        try:
            return plain.encode(value)
        except plain.Refused as refused:
            raise UnsupportedError(path, f"a key or set item that is {refused}") from None

    def tensor(self, tensor: LazyTensor, path: str) -> dict[str, object]:
        if not self.known(tensor) and not self.plain_tensor(tensor, path):
            if (rank := len(tensor.spec.stored_shape)) > self.limits.rank:
                raise UnsupportedError(path, f"an array of {tensor.dtype} is stored with {rank} dimensions", hint="Reshape it to fewer.")
            if tensor.dtype.tail == 0:  # no byte of the file stands behind its elements
                self.count(tensor.spec.count, "", 0)
            tensor.name = self.free(path)
            self.tensors[tensor.name] = tensor
        document: dict[str, object] = {"tensor": tensor.name}
        if not tensor.spec.dtype.known:
            document["dtype"] = _described(tensor.spec.dtype, path)
        if tensor.framework != PLAIN:
            self.framework = self.framework or tensor.framework
            if tensor.framework != self.framework:
                document["as"] = tensor.framework
        return document

    def known(self, tensor: LazyTensor) -> bool:
        """Whether the tensor has its path already: a tie refers to the same one."""
        return self.tensors.get(tensor.name) is tensor

    def plain_tensor(self, tensor: LazyTensor, path: str) -> bool:
        """Give a tensor its path, if its path alone says everything about it."""
        if not path or path in self.tensors or path == RESERVED or not path.isascii() or self.known(tensor):
            return False
        if not tensor.spec.dtype.known or tensor.framework != (self.framework or tensor.framework):
            return False
        if tensor.framework == PLAIN:
            return False
        self.framework = tensor.framework
        tensor.name = path
        self.tensors[path] = tensor
        return True

    def free(self, path: str) -> str:
        """A path that is free, by appending ~2, ~3, ... where it is taken, empty, reserved or no valid UTF-8."""
        if path and path != RESERVED and path not in self.tensors and plain.is_utf8(path):
            return path
        path = path.encode("utf-8", "replace").decode()
        number = 2
        while f"{path}~{number}" in self.tensors:
            number += 1
        return f"{path}~{number}"

    def packed(self, node: Packed, path: str) -> object:
        return {"packed": node.kind, **self.tensor(node.tensor, path)}


def _pack_text(value: str | bytes) -> Packed | None:
    """A long text or byte string as a tensor; None if it is short, or a text that is no UTF-8."""
    if isinstance(value, str):
        if len(value) * 4 <= plain.LONG_TEXT or not plain.is_utf8(value):
            return None
        data = value.encode()
    else:
        data = value
    if len(data) <= plain.LONG_TEXT:
        return None
    tensor = LazyTensor(TensorSpec(dtypes.U8, (len(data),)), ArrayBytes(np.frombuffer(data, np.uint8)), framework=PLAIN)
    return Packed("str" if isinstance(value, str) else "bytes", tensor)


def _pack_numbers(values: list[Any] | tuple[Any, ...]) -> Packed | None:
    """A long list of numbers of one type as a tensor; None if they differ, or an int needs more than 64 bits."""
    kind = type(values[0])
    dtype = NUMBERS.get(kind)
    if dtype is None or not all(type(value) is kind for value in values):
        return None
    try:
        array = np.array(values, dtype.numpy)
    except OverflowError:
        return None
    return Packed(
        "list" if type(values) is list else "tuple",
        LazyTensor(TensorSpec(dtype, array.shape), ArrayBytes(array), framework=PLAIN),
    )


@lru_cache(maxsize=256)
def _kept(dtype: dtypes.DType) -> object | None:
    """A dtype as JSON, if that is read back: files of others may have some that differ from machine to machine, as NumPy's longdouble."""
    described = dtypes.describe(dtype)
    return described if dtypes.parse(described) is not None else None


def _described(dtype: dtypes.DType, path: str) -> object:
    if (described := _kept(dtype)) is None:
        raise UnsupportedError(path, f"a tensor of {dtype}, which the format has no name for", hint="Cast it first, such as to float64.")
    return described

"""The structure: the JSON document that holds a tree without its tensor bytes.

JSON's null, true, false, integers up to 2^53, texts and arrays stand for themselves, an array for a list. All else is an object
whose first key is a tag; keys that a reader does not know are ignored, tags are not:

    {"dict": [[key, node], ...]}        also "OrderedDict", "Counter", and "defaultdict" with its "factory"; an entry that is a text
                                        alone is the key of a tensor whose path is the dict's path, a dot, and that key (not below a
                                        key whose name another program could not tell, such as a tuple)
    {"tuple": [node, ...]}              also "set", "frozenset", and "deque" with its "maxlen"
    {"tensor": path}                    "dtype" where the header's does not say it all, "as" where the framework differs
    {"packed": "str", "tensor": path}   a long text, byte string or list of numbers
    {"object": kind, "class": name, "state": node}
    {"float": 0.5}, ...                 plain values: see plain.py

Lives here: tree -> document, bit for bit, and document -> tree, read as untrusted. Lives elsewhere: the container around it.
Source of the layout: docs/format.md, section "Structure".
"""

import math
import time
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from tensorkeep import dtypes, plain
from tensorkeep.dtypes import DType
from tensorkeep.errors import FormatError, UnsupportedError
from tensorkeep.limits import Limits
from tensorkeep.tensors import Array, LazyTensor, TensorSpec, as_bytes
from tensorkeep.tree import SIMPLE_KEYS, Captured, Packed, Tree, brief, join, name_of

FACTORIES: Final[dict[str, type]] = {kind.__name__: kind for kind in (list, dict, set, tuple, int, float, complex, bool, str, bytes)}
"""What a defaultdict may make: nothing else can be kept."""

RESERVED: Final = "__metadata__"
_MOST_ALIKE: Final = 64  # keys of one hash
_STEP: Final = 512  # keys that are put into a dict between two looks at the clock; fewer cannot do much harm
_EACH_S: Final = 4e-6  # for a key: some 50 times what it takes where none collide
_PATIENCE_S: Final = 0.5  # beyond that, in a whole structure: for whatever else happens in between, such as a garbage collection
PATHS_EACH: Final = 16  # bytes of paths that each byte of a structure may ask for, beside the limit

PLAIN: Final = "plain"  # of a tensor that holds a plain value: no framework's, whoever reads it


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


def encode(tree: Tree, limits: Limits) -> Encoded:
    """A tree as a document and its tensors, which get their paths here.

    Raises:
        UnsupportedError: it holds a value that cannot be kept, or passes a limit: a reader would refuse it.
    """
    encoder = _Encoder(limits)
    document = encoder.node(tree, "", 0)
    return Encoded(document, encoder.tensors, encoder.framework or "numpy", encoder.path_bytes)


class _Encoder:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
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
        self.check_depth(path, depth)
        if kind is dict:
            return {"dict": self.items(node, path, depth)}
        if kind is list or kind is tuple:
            if len(node) > plain.LONG_LIST and (packed := _pack_numbers(node)) is not None:
                return self.packed(packed, path)
            children = self.children(node, path, depth)
            return children if kind is list else {"tuple": children}
        return self.rarer(node, path, depth)

    def check_depth(self, path: str, depth: int) -> None:
        if depth > self.limits.depth:
            raise UnsupportedError(path, f"nested more than {self.limits.depth} containers deep")

    def count(self, number: int, path: str) -> None:
        """Count so many values below a path, as a reader does."""
        self.values += number
        self.path_bytes += number * _memory(path)
        if self.values > self.limits.values:
            raise UnsupportedError(path, f"more than {self.limits.values:,} values", hint="Pass numbers as arrays.")

    def children(self, node: Any, path: str, depth: int) -> list[object]:
        self.count(len(node), path)
        return [self.node(child, join(path, number), depth + 1) for number, child in enumerate(node)]

    def rarer(self, node: Tree, path: str, depth: int) -> object:
        kind = type(node)
        if kind is Captured:
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
            self.check_keys(node, path)
            return {kind.__name__: sorted((self.hashable(item, path, depth + 1) for item in node), key=msgspec.json.encode)}
        if kind is Packed:
            return self.packed(node, path)
        if (kind is str or kind is bytes) and (packed := _pack_text(node)) is not None:
            return self.packed(packed, path)
        try:
            return plain.encode(node)
        except plain.Refused as refused:
            raise UnsupportedError(path, str(refused)) from None

    def items(self, node: Mapping[Any, Tree], path: str, depth: int) -> list[object]:
        prefix = f"{path}." if path else ""
        items: list[object] = []
        self.count(2 * len(node), path)
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
        if len(keys) > _MOST_ALIKE and not set(map(type, keys)) <= {str} and _most_alike(list(map(hash, keys))) > _MOST_ALIKE:
            raise UnsupportedError(path, f"more than {_MOST_ALIKE} keys or items of one hash, which is what an attack looks like")

    def hashable(self, value: object, path: str, depth: int) -> object:
        """A dict's key or a set's item: plain values, and tuples and frozen sets of them."""
        self.check_depth(path, depth)
        self.values += 1
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
            tensor.name = self.free(path)
            self.tensors[tensor.name] = tensor
        document: dict[str, object] = {"tensor": tensor.name}
        if not tensor.spec.dtype.known:
            document["dtype"] = dtypes.describe(tensor.spec.dtype)
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


_NUMBERS: Final[dict[type, DType]] = {float: dtypes.F64, int: dtypes.I64, bool: dtypes.BOOL, complex: dtypes.C128}


def _pack_numbers(values: list[Any] | tuple[Any, ...]) -> Packed | None:
    """A long list of numbers of one type as a tensor; None if they differ, or an int needs more than 64 bits."""
    kind = type(values[0])
    dtype = _NUMBERS.get(kind)
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


def decode(document: object, stored: Mapping[str, LazyTensor], *, framework: str, file: str, nbytes: int, limits: Limits) -> Tree:
    """The tree of a document that nobody vouches for.

    Args:
        document: JSON, as `encode` made it.
        stored: by path, the tensors as the header of the file names them; the logical dtype is set here.
        framework: what tensors without an "as" were saved as.
        file: for messages.
        nbytes: of the document as it was written.
        limits: depth, number of values, and what their paths may take.

    Raises:
        FormatError: it breaks the layout or a limit, or refers to a tensor that is not there, or leaves one out.
    """
    decoder = _Decoder(stored, framework, file, nbytes, limits)
    try:
        tree = decoder.node(document, "", 0)
    except RecursionError:
        raise decoder.wrong("nested deeper than this process can follow") from None
    if len(decoder.nodes) != len(stored):
        missed = next(path for path in stored if path not in decoder.nodes)
        raise FormatError(file, f"the structure never refers to the tensor {missed!r} of the header")
    return tree


def _memory(path: str) -> int:
    """Bytes that Python takes for a path and a dot: one for each character, or four if any of them needs so many."""
    return (len(path) + 2) * (1 if path.isascii() else 2 if max(path) < "\U00010000" else 4)


def _most_alike(hashes: list[int]) -> int:
    """How often the most frequent number occurs. Sorted, for a dict of them could be attacked like the one that is to be made."""
    if len(hashes) <= _MOST_ALIKE:
        return len(hashes)
    ordered = np.sort(np.array(hashes, np.int64))
    return _MOST_ALIKE + int((ordered[_MOST_ALIKE:] == ordered[:-_MOST_ALIKE]).any())


class _Decoder:
    def __init__(self, stored: Mapping[str, LazyTensor], framework: str, file: str, nbytes: int, limits: Limits) -> None:
        self.stored, self.framework, self.file, self.limits = stored, framework, file, limits
        self.nodes: dict[str, LazyTensor] = {}
        self.said: dict[str, tuple[object, object]] = {}  # dtype and framework, of those whose node names them
        self.packed_paths: set[str] = set()
        self.values = 0
        self.path_bytes = -PATHS_EACH * nbytes
        self.spent_s = 0.0  # for dicts and sets whose keys might be made to collide

    def wrong(self, problem: str) -> FormatError:
        return FormatError(self.file, f"its structure is broken: {problem}")

    def node(self, document: Any, path: str, depth: int) -> Tree:
        self.values += 1
        kind = type(document)
        if kind is dict:
            if "tensor" in document and "packed" not in document:
                return self.tensor(document)
            return self.tagged(document, path, depth)
        if kind is list:
            return self.children(document, path, depth)
        if kind is float:
            raise self.wrong('a bare number with a fraction, where {"float": ...} is wanted')
        return self.small(document) if kind is int else document  # an integer, null, a boolean or a text

    def small(self, number: int) -> int:
        if not -plain.EXACT_INT <= number <= plain.EXACT_INT:
            raise self.wrong('a bare number beyond 2^53, where {"int": ...} is wanted')
        return number

    def check(self, depth: int, inside: object = (), path: str = "") -> None:
        """Refuse what passes a limit, before the children of a node are made: their paths repeat its own, however long that is."""
        if depth > self.limits.depth:
            raise self.wrong(f"nested deeper than {self.limits.depth}")
        count = len(inside) if isinstance(inside, list) else 0
        if self.values + count > self.limits.values:
            raise self.wrong(f"more than {self.limits.values:,} values")
        self.path_bytes += count * _memory(path)
        if self.path_bytes > self.limits.path_bytes:
            raise self.wrong(f"more than {self.limits.path_bytes:,} bytes in its paths")

    def children(self, document: object, path: str, depth: int) -> list[Tree]:
        self.check(depth, document, path)
        if not isinstance(document, list):
            raise self.wrong(f"a list is wanted, found {brief(document)}")
        return [self.node(child, join(path, number), depth + 1) for number, child in enumerate(document)]

    def entries(self, document: object, path: str, depth: int) -> dict[Any, Tree]:
        self.check(depth, document, path)
        if not isinstance(document, list):
            raise self.wrong(f"a list of pairs is wanted, found {brief(document)}")
        prefix = f"{path}." if path else ""
        if set(map(type, document)) <= {str}:
            entries = dict(zip(document, self.all_known([prefix + key for key in document] if prefix else document), strict=True))
            self.values += len(entries)
        else:
            pairs = [(item, self.known(prefix + item)) if type(item) is str else self.pair(item, path, depth) for item in document]
            self.values += len(pairs)
            entries = self.filled({}, [key for key, _ in pairs], pairs)
        if len(entries) != len(document):
            raise self.wrong("a dict has a key twice")
        return entries

    def all_known(self, paths: list[str]) -> list[LazyTensor]:
        """Tensors by their paths alone. Most of a structure is these: where each is there and new, no step is taken for each."""
        found = [tensor for tensor in map(self.stored.get, paths) if tensor is not None]
        if len(found) < len(paths) or not self.nodes.keys().isdisjoint(paths):
            return [self.known(path) for path in paths]
        self.nodes.update(zip(paths, found, strict=True))
        for tensor in found:
            tensor.framework = self.framework
        return found

    def known(self, path: str) -> LazyTensor:
        """A tensor by its path alone: the dtype of the header, the framework of the file."""
        tensor = self.stored.get(path)
        if tensor is None or path in self.nodes:
            return self.tensor({"tensor": path})
        tensor.framework = self.framework
        self.nodes[path] = tensor
        return tensor

    def pair(self, item: object, path: str, depth: int) -> tuple[Any, Tree]:
        if not isinstance(item, list) or len(item) != 2:
            raise self.wrong(f"a pair of key and node is wanted, found {brief(item)}")
        key = item[0] if type(item[0]) is str else self.hashable(item[0], depth)
        return key, self.node(item[1], join(path, key), depth + 1)

    def filled(self, made: Any, keys: list[Any], items: list[Any]) -> Any:
        """Fill an empty dict or set, unless its keys are made to collide: with them each would walk past all others.

        Numbers can be chosen so that a dict looks for them in one another's places, and so can tuples of them; texts are hashed
        with a secret. What a place is, Python alone knows: so many keys are put in step by step, and held against the clock.
        """
        if set(map(type, keys)) <= {str}:
            made.update(items)
            return made
        try:
            self.fill(made, keys, items)
        except FormatError:
            raise
        except (TypeError, ValueError, OverflowError) as error:  # scalars of NumPy that have no hash, or refuse to be compared
            raise self.wrong(f"a key that cannot be one: {error}") from None
        return made

    def fill(self, made: Any, keys: list[Any], items: list[Any]) -> None:
        if _most_alike(list(map(hash, keys))) > _MOST_ALIKE:
            raise self.wrong(f"more than {_MOST_ALIKE} keys with the same hash")
        if len(items) <= _STEP:
            made.update(items)
            return
        for start in range(0, len(items), _STEP):
            begin = time.thread_time()
            made.update(items[start : start + _STEP])
            self.spent_s += time.thread_time() - begin - _STEP * _EACH_S
            if self.spent_s > _PATIENCE_S:
                raise self.wrong(f"{len(items):,} keys that are made to collide")

    def hashable(self, document: object, depth: int) -> Any:
        self.check(depth)
        self.values += 1
        if isinstance(document, dict) and (tag := next(iter(document), None)) in ("tuple", "frozenset"):
            inside = document[tag]
            if not isinstance(inside, list):
                raise self.wrong(f"a {tag} is a list")
            self.check(depth, inside)
            items = [self.hashable(item, depth + 1) for item in inside]
            return tuple(items) if tag == "tuple" else self.set_of(items, frozenset)
        if isinstance(document, (list, float)):
            raise self.wrong(f"a key that is {brief(document)}")
        if isinstance(document, dict):
            return self.value(document)
        return self.small(document) if type(document) is int else document

    def set_of(self, items: list[Any], kind: type) -> Any:
        made = self.filled(set(), items, items)
        made = made if kind is set else kind(made)
        if len(made) != len(items):
            raise self.wrong("a set has an item twice")
        return made

    def tensor(self, document: dict[str, Any]) -> LazyTensor:
        path = document["tensor"]
        described, framework = document.get("dtype"), document.get("as", self.framework)
        if type(path) is str and (known := self.nodes.get(path)) is not None:
            if self.said.get(path, (None, self.framework)) != (described, framework):
                raise self.wrong(f"the tensor {path!r} occurs as two dtypes or frameworks")
            return known
        stored = self.stored.get(path) if type(path) is str else None
        if stored is None:
            raise self.wrong(f"it refers to a tensor {brief(path)}, which the header does not have")
        if not isinstance(framework, str):
            raise self.wrong(f"the framework of {path!r} is {brief(framework)}")
        if described is not None:
            stored.spec = self.logical(stored.spec, described, path)
        stored.framework = framework
        self.nodes[path] = stored
        self.said[path] = (described, framework)
        return stored

    def logical(self, spec: TensorSpec, described: object, path: str) -> TensorSpec:
        dtype = dtypes.parse(described)
        if dtype is None or dtype.stored != spec.dtype.name:
            raise self.wrong(f"the tensor {path!r} is said to be {brief(described)}, but is stored as {spec.dtype}")
        if dtype.tail is None:
            return TensorSpec(dtype, spec.shape)
        if dtype.tail == 0:  # no byte of the file stands behind its elements, so each counts like a value that is written out
            self.values += math.prod(spec.shape[:-1])
            self.check(0)
        if not spec.shape or spec.shape[-1] != dtype.tail:
            raise self.wrong(f"the tensor {path!r} of {dtype} needs a last axis of {dtype.tail}, found shape {spec.shape}")
        return TensorSpec(dtype, spec.shape[:-1])

    def tagged(self, document: dict[str, Any], path: str, depth: int) -> Tree:
        tag = next(iter(document), "")
        if tag == "dict":
            return self.entries(document[tag], path, depth)
        if tag == "tuple":
            return tuple(self.children(document[tag], path, depth))
        if tag == "packed":
            return self.packed(document)
        if tag == "object":
            kind, cls = document[tag], document.get("class")
            if not isinstance(kind, str) or not isinstance(cls, str):
                raise self.wrong(f"an object without kind or class: {brief(document)}")
            self.check(depth)
            return Captured(kind, cls, self.node(document.get("state"), path, depth + 1))
        if tag in ("OrderedDict", "Counter", "defaultdict"):
            return self.dictlike(tag, document, path, depth)
        if tag in ("set", "frozenset"):
            if not isinstance(document[tag], list):
                raise self.wrong(f"a {tag} is a list")
            self.check(depth, document[tag])
            return self.set_of([self.hashable(item, depth + 1) for item in document[tag]], set if tag == "set" else frozenset)
        if tag == "deque":
            most = document.get("maxlen")
            children = self.children(document[tag], path, depth)
            if not (most is None or (type(most) is int and len(children) <= most <= plain.EXACT_INT)):
                raise self.wrong("a deque longer than its own bound")
            return deque(children, most)
        return self.value(document)

    def dictlike(self, tag: str, document: dict[str, Any], path: str, depth: int) -> dict[Any, Any]:
        entries = self.entries(document[tag], path, depth)
        if tag == "Counter":
            counter: Counter[Any] = Counter()
            dict.update(counter, entries)
            return counter
        if tag == "defaultdict":
            factory = document.get("factory")
            if factory is not None and not (isinstance(factory, str) and factory in FACTORIES):
                raise self.wrong(f"a defaultdict that makes {brief(factory)}")
            return defaultdict(None if factory is None else FACTORIES[factory], entries)
        ordered = OrderedDict(entries)
        if (metadata := document.get("metadata")) is not None:
            ordered._metadata = self.node(metadata, join(path, "_metadata"), depth + 1)  # type: ignore[attr-defined]  # where PyTorch keeps module versions
        return ordered

    def packed(self, document: dict[str, Any]) -> Packed:
        kind = document["packed"]
        if "tensor" not in document or kind not in ("str", "bytes", "list", "tuple"):
            raise self.wrong(f"a packed value of an unknown kind: {brief(document)}")
        tensor = self.tensor(document)
        if tensor.name in self.packed_paths:
            raise self.wrong(f"the packed {kind} {tensor.name!r:.80} occurs twice: each would be made anew, however long it is")
        self.packed_paths.add(tensor.name)
        wanted = (dtypes.U8,) if kind in ("str", "bytes") else tuple(_NUMBERS.values())
        if tensor.dtype not in wanted or len(tensor.shape) != 1:
            raise self.wrong(f"{tensor!r} cannot be a packed {kind}")
        return Packed(kind, tensor)

    def value(self, document: dict[str, Any]) -> object:
        tag = next(iter(document), "")
        decode = plain.DECODERS.get(tag)
        if decode is None:
            raise FormatError(
                self.file,
                f"its structure has a {tag!r:.40}, which this release does not know",
                hint="A newer release of tensorkeep may: pip install -U tensorkeep",
            )
        try:
            return decode(document[tag])
        except (ValueError, OverflowError, TypeError) as error:
            raise self.wrong(f"a {tag} that is none: {brief(document[tag])} ({error})") from None

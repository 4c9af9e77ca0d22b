"""Decoding: a document that nobody vouches for becomes a tree."""

import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from typing import Any, Final

from tensorkeep import dtypes, plain
from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits
from tensorkeep.structure.grammar import FACTORIES, NUMBERS, PATHS_EACH, memory_of
from tensorkeep.structure.keys import Filling, Unfit
from tensorkeep.tensors import LazyTensor, TensorSpec
from tensorkeep.tree import Captured, Packed, Tree, brief, join

_LONG: Final = 1000  # items of a list that are looked at together
_PLAIN_KINDS: Final = ({str}, {int}, {bool})


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
        raise FormatError(
            file, "nested deeper than this process can follow", hint="Load it where fewer functions have called each other."
        ) from None
    if len(decoder.nodes) != len(stored):
        missed = next(path for path in stored if path not in decoder.nodes)
        raise FormatError(file, f"the structure never refers to the tensor {missed!r} of the header")
    return tree


class _Decoder:
    def __init__(self, stored: Mapping[str, LazyTensor], framework: str, file: str, nbytes: int, limits: Limits) -> None:
        self.stored, self.framework, self.file, self.limits = stored, framework, file, limits
        self.nodes: dict[str, LazyTensor] = {}
        self.said: dict[str, tuple[object, object]] = {}  # dtype and framework, of those whose node names them
        self.packed_paths: set[str] = set()
        self.values = 0
        self.path_bytes = -PATHS_EACH * nbytes
        self.filling = Filling()

    def wrong(self, problem: str) -> FormatError:
        return FormatError(self.file, f"its structure is broken: {problem}")

    def node(self, document: Any, path: str, depth: int) -> Tree:
        self.values += 1
        kind = type(document)
        if kind is dict:
            if "tensor" in document and "packed" not in document:
                return self.tensor(document)
            if next(iter(document), "") == "dict":
                return self.entries(document["dict"], path, depth)
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
        self.path_bytes += count * memory_of(path)
        if self.path_bytes > self.limits.path_bytes:
            raise self.wrong(f"more than {self.limits.path_bytes:,} bytes in its paths")

    def children(self, document: object, path: str, depth: int) -> list[Tree]:
        self.check(depth, document, path)
        if not isinstance(document, list):
            raise self.wrong(f"a list is wanted, found {brief(document)}")
        if len(document) > _LONG and set(map(type, document)) in _PLAIN_KINDS:  # a vocabulary: without a path for each word
            self.values += len(document)
            for number in (min(document), max(document)) if type(document[0]) is int else ():
                self.small(number)
            return document
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
            pairs: list[tuple[Any, Tree]] = []
            for item in document:  # in place, for each function on the way is one more frame for each level of a state
                if type(item) is str:
                    pairs.append((item, self.known(prefix + item)))
                    continue
                if type(item) is not list or len(item) != 2:
                    raise self.wrong(f"a pair of key and node is wanted, found {brief(item)}")
                key = item[0] if type(item[0]) is str else self.hashable(item[0], depth)
                pairs.append((key, self.node(item[1], join(path, key), depth + 1)))
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

    def filled(self, made: Any, keys: list[Any], items: list[Any]) -> Any:
        """Fill an empty dict or set."""
        try:
            self.filling.fill(made, keys, items)
        except Unfit as unfit:
            raise self.wrong(str(unfit)) from None
        return made

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
        if dtype.tail == 0:  # no byte of the file stands behind its elements, so each counts like a value that is written out
            self.values += math.prod(spec.shape[:-1])
            self.check(0)
        shape = dtype.logical_shape(spec.shape)
        if shape is None:
            axis = f"{dtype.tail}" if dtype.block == 1 else f"a multiple of {dtype.bits // 8} bytes"
            raise self.wrong(f"the tensor {path!r} of {dtype} needs a last axis of {axis}, found shape {spec.shape}")
        return TensorSpec(dtype, shape)

    def tagged(self, document: dict[str, Any], path: str, depth: int) -> Tree:
        tag = next(iter(document), "")
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
        wanted = (dtypes.U8,) if kind in ("str", "bytes") else tuple(NUMBERS.values())
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

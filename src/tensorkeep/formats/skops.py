"""skops: scikit-learn's objects in a zip archive, their attributes in `schema.json`, their arrays beside it.

Nothing is built. An object becomes a stub with its attributes; arrays stand where the schema places them.

Source: https://skops.readthedocs.io/en/stable/persistence.html, and what skops 0.5 to 0.16 write (protocols 0 to 2). A node of the schema
has `__module__` and `__class__`, a `__loader__` that says what kind of thing it is, and an `__id__`, by which a later node may refer to it.
"""

from collections.abc import Callable
from typing import Any, Final

from tensorkeep import strictjson
from tensorkeep.contents import Contents, Finding
from tensorkeep.errors import FormatError
from tensorkeep.formats.assemble import contents
from tensorkeep.formats.npy import arrays_in
from tensorkeep.formats.npz import arrays_of
from tensorkeep.formats.peek import Peek
from tensorkeep.tree import Stub, Tree
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.json import MOST_BYTES
from tensorkeep.wire.zip import ZipArchive

_SCHEMA: Final = "schema.json"
_FREE: Final = 500_000  # nodes, shared ones counted each time ...
_EACH: Final = 16  # ... and for each that stands in the schema
_OF_NODE: Final = frozenset({"__class__", "__module__", "__loader__", "__id__"})
_FLOATS: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}  # as Python's json spells them
_KEYS: Final[dict[str, Callable[[str], object]]] = {
    "int": int,
    "float": float,
    "bool": {"True": True, "False": False, "true": True, "false": False}.__getitem__,
}


class SkopsReader:
    """skops, protocols 0 to 2. Lazy."""

    name = "skops"

    def recognizes(self, peek: Peek) -> bool:
        if peek.zip is None or _SCHEMA not in peek.zip:
            return False
        head = bytes(peek.zip.open(_SCHEMA).read(0, min(4096, peek.zip[_SCHEMA].nbytes)))
        return b'"__class__"' in head and b'"__module__"' in head

    def read(self, peek: Peek) -> Contents:
        archive = peek.zip
        assert archive is not None, "recognizes() was asked"
        if archive[_SCHEMA].nbytes > MOST_BYTES:
            raise peek.error(f"{_SCHEMA} has {archive[_SCHEMA].nbytes:,} bytes; at most {MOST_BYTES:,} are read")
        try:
            schema = strictjson.decode(bytes(archive.open(_SCHEMA).checked()), object, deepest=5 * peek.limits.depth)
        except ValueError as error:
            if isinstance(error, FormatError):
                raise
            raise peek.error(f"{_SCHEMA} is no JSON: {error!s:.200}") from None
        if not isinstance(schema, dict) or not isinstance(schema.get("__loader__"), str):
            raise peek.error(f"{_SCHEMA} holds no node")
        walk = _Schema(peek, archive)
        tree = walk.node(schema, "", 0)
        metadata = {key: schema[key] for key in ("protocol", "_skops_version") if isinstance(schema.get(key), (int, str))}
        unread = [name for name in archive if name not in walk.read and name != _SCHEMA]
        left_out = walk.notes + [f"{name}: the schema does not name it" for name in unread]
        return contents(
            peek,
            format="skops",
            tree=tree,
            metadata=metadata,
            left_out=left_out,
            findings=[Finding("unknown", "the zip archive", oddity) for oddity in archive.oddities],
            version=str(metadata.get("protocol", "")),
            writer=f"skops {metadata['_skops_version']}" if "_skops_version" in metadata else "",
            checked=[archive.open(name) for name in archive],
        )


class _Schema:
    """One walk over the schema.

    Attributes:
        notes: what was not read, and why.
        read: the members of the archive that the schema names.
    """

    def __init__(self, peek: Peek, archive: ZipArchive) -> None:
        self.peek, self.archive = peek, archive
        self.notes: list[str] = []
        self.read: set[str] = set()
        self.met = self.distinct = 0
        self._known: dict[object, tuple[Tree, int]] = {}  # by id of the schema: the tree, and how many nodes are in it
        self._files: dict[str, Tree] = {}

    def node(self, raw: Any, path: str, depth: int) -> Tree:
        """What a node stands for; what is no node comes back as it is, its nodes inside replaced."""
        if depth > self.peek.limits.depth:
            raise self.peek.error(f"{path:.200}: nested deeper than {self.peek.limits.depth}")
        self._count(1)
        if isinstance(raw, list):
            return [self.node(item, f"{path}.{number}", depth + 1) for number, item in enumerate(raw)]
        if not isinstance(raw, dict):
            return raw
        loader = raw.get("__loader__")
        if not isinstance(loader, str):
            return {key: self.node(value, f"{path}.{key}", depth + 1) for key, value in raw.items()}
        identity = raw.get("__id__")
        if loader == "CachedNode":
            return self._again(identity, path)
        before = self.met
        made = self._made(loader, raw, path, depth)
        if isinstance(identity, int):
            self._known[identity] = made, self.met - before
        return made

    def _count(self, nodes: int, *, again: bool = False) -> None:
        self.met += nodes
        self.distinct += 0 if again else nodes
        if self.met > min(self.peek.limits.values, _FREE + _EACH * self.distinct):
            raise self.peek.error(f"{self.met:,} values, what is shared counted each time, and {self.distinct:,} without")

    def _again(self, identity: object, path: str) -> Tree:
        known = self._known.get(identity) if isinstance(identity, int) else None
        if known is None:
            self.notes.append(f"{path}: it refers to what holds it, or to nothing, and was cut there")
            return None
        self._count(known[1], again=True)
        return known[0]

    def _made(self, loader: str, raw: dict[str, Any], path: str, depth: int) -> Tree:
        inside = raw.get("content")
        below = path or "the whole"
        if loader == "JsonNode":
            return self._json(inside, below)
        if loader == "DictNode" and isinstance(inside, dict):
            values = {key: self.node(value, f"{path}.{key}" if path else key, depth + 1) for key, value in inside.items()}
            return dict(zip(self._keys(list(values), raw.get("key_types")), values.values(), strict=True))
        if loader in ("ListNode", "TupleNode", "SetNode") and isinstance(inside, list):
            items = [self.node(value, f"{path}.{number}" if path else str(number), depth + 1) for number, value in enumerate(inside)]
            return self._sequence(loader, raw, items)
        if loader in ("FunctionNode", "TypeNode"):
            return Stub(*self._name(raw, below), made=False)
        if loader == "SliceNode" and isinstance(inside, dict):
            parts = [inside.get(part) for part in ("start", "stop", "step")]
            if all(part is None or type(part) is int for part in parts):
                return slice(*parts)
        if loader in ("NdArrayNode", "SparseMatrixNode", "BytesNode", "BytearrayNode") and isinstance(raw.get("file"), str):
            return self._file(loader, raw["file"], below)
        return self._object(raw, path, depth)

    def _object(self, raw: dict[str, Any], path: str, depth: int) -> Stub:
        """An object: its attributes are its fields, and so is all else that its node says."""
        fields: dict[Any, Tree] = {}
        for key, value in raw.items():
            if key in _OF_NODE or (depth == 0 and key in ("protocol", "_skops_version")):
                continue
            where = f"{path}.{key}" if path else key
            if key != "content":
                fields[f"__{key.strip('_')}__"] = self.node(value, where, depth + 1)
                continue
            state = self.node(value, path, depth + 1)
            if isinstance(state, dict):
                fields.update(state)
            elif state is not None:
                fields["__state__"] = state
        return Stub(*self._name(raw, path), fields)

    def _name(self, raw: dict[str, Any], path: str) -> tuple[str, str]:
        module, name = raw.get("__module__"), raw.get("__class__")
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.peek.error(f"{_SCHEMA}: {path:.200} has no class and module")
        return module, name

    def _json(self, text: object, path: str) -> Tree:
        if not isinstance(text, str):
            raise self.peek.error(f"{_SCHEMA}: the value of {path:.200} is no text")
        if text in _FLOATS:
            return _FLOATS[text]
        try:
            return strictjson.decode(text.encode("utf-8", "surrogatepass"), object, deepest=self.peek.limits.depth)
        except ValueError as error:
            raise self.peek.error(f"{_SCHEMA}: the value of {path:.200} is no JSON: {error!s:.200}") from None

    def _keys(self, keys: list[str], kinds: Any) -> list[Any]:
        """Keys of the type that they had. JSON knows only texts."""
        named = kinds.get("content") if isinstance(kinds, dict) else None
        if not isinstance(named, list) or len(named) != len(keys):
            return list(keys)
        found: list[Any] = []
        for key, kind in zip(keys, named, strict=True):
            make = _KEYS.get(str(kind.get("__class__"))) if isinstance(kind, dict) and kind.get("__module__") == "builtins" else None
            try:
                found.append(key if make is None or len(key) > 40 else make(key))
            except (ValueError, KeyError):
                found.append(key)
        return found if len(set(found)) == len(found) else list(keys)

    def _sequence(self, loader: str, raw: dict[str, Any], items: list[Tree]) -> Tree:
        if loader == "ListNode":
            return items
        if loader == "TupleNode":
            plain = (raw.get("__module__"), raw.get("__class__")) == ("builtins", "tuple")
            return tuple(items) if plain else Stub(*self._name(raw, "a tuple"), {"__args__": tuple(items)})
        if all(type(item) in (str, int, float, bool, type(None)) for item in items):
            return set(items)
        return Stub(*self._name(raw, "a set"), {"__items__": items})

    def _file(self, loader: str, name: str, path: str) -> Tree:
        """What lies in a member of the archive. Two nodes that name the same one are tied."""
        if name not in self._files:
            if name not in self.archive:
                raise self.peek.error(f"{path:.200} is said to lie in {name!r:.200}, which is not in the archive")
            self.read.add(name)
            self._files[name] = self._member(loader, self.archive.open(name), path)
        return self._files[name]

    def _member(self, loader: str, member: Extent, path: str) -> Tree:
        if loader == "NdArrayNode":
            return next(arrays_in(member, self.peek, path, self.notes))
        if loader == "SparseMatrixNode":
            inner = ZipArchive(member, budget=self.peek.budget, limits=self.peek.limits)
            return arrays_of(inner, self.peek, self.notes, prefix=f"{path}.")
        self.peek.budget.spend(member.nbytes, path)
        data = bytes(member.checked())
        return bytearray(data) if loader == "BytearrayNode" else data

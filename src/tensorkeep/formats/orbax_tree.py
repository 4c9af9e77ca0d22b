"""Orbax's tree: names and kinds of all leaves, as `_METADATA` lists them, back to nested dicts and lists.

Source: https://github.com/google/orbax/blob/main/checkpoint/orbax/checkpoint/_src/metadata/tree.py
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tensorkeep.errors import FormatError
from tensorkeep.tree import Tree

_SEQUENCE, _DICT = 1, 2

_EMPTY: Final[dict[str, Callable[[], Tree]]] = {
    "None": lambda: None,
    "Dict": dict,
    "List": list,
    "Tuple": tuple,
    "NamedTuple": lambda: None,
}

Keys = tuple[tuple[str, int], ...]
"""Each key on the way to a leaf, and whether it is a place in a sequence or a key of a dict."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One leaf of the tree.

    Attributes:
        keys: the way to it.
        name: of its array: the keys joined by dots.
        kind: `jax.Array`, `np.ndarray`, `scalar`, `string`, ...
        empty: makes what it is, where it is an empty container or None.
    """

    keys: Keys
    name: str
    kind: str
    empty: Callable[[], Tree] | None


def leaves_of(document: object, file: str, *, deepest: int) -> list[Leaf]:
    """All leaves that the metadata list.

    Raises:
        FormatError: they are laid out in another way.
    """
    listed = document.get("tree_metadata") if isinstance(document, dict) else None
    if not isinstance(listed, dict):
        raise FormatError(file, "its metadata lack a dict `tree_metadata`")
    leaves: dict[Keys, Leaf] = {}
    for entry in listed.values():
        keys, value = (entry.get(key) for key in ("key_metadata", "value_metadata")) if isinstance(entry, dict) else (None, None)
        if not isinstance(keys, list) or not isinstance(value, dict):
            raise FormatError(file, f"a leaf that is described as {entry!r:.100}")
        if len(keys) > deepest:
            raise FormatError(file, f"a leaf nested deeper than {deepest}")
        way = tuple(_key(key, file) for key in keys)
        kind = value.get("value_type")
        if not isinstance(kind, str) or way in leaves:
            raise FormatError(file, f"the leaf {'.'.join(key for key, _ in way)!r:.200} is listed twice, or is of kind {kind!r:.40}")
        empty = _EMPTY.get(kind) if value.get("skip_deserialize") is not False else None
        leaves[way] = Leaf(way, ".".join(key for key, _ in way), kind, empty)
    return list(leaves.values())


def _key(entry: Any, file: str) -> tuple[str, int]:
    key, kind = (entry.get("key"), entry.get("key_type")) if isinstance(entry, dict) else (None, None)
    if not isinstance(key, (str, int)) or kind not in (_SEQUENCE, _DICT):
        raise FormatError(file, f"a key that is described as {entry!r:.100}")
    return str(key), kind


class _Inner(dict[tuple[str, int], Any]):
    """What has children, told apart from the values of leaves."""


def tree_of(leaves: list[Leaf], values: Mapping[Keys, Tree], file: str) -> Tree:
    """The tree with a value at each leaf.

    Raises:
        FormatError: a leaf lies below another, or a key is written as two kinds.
    """
    if [leaf.keys for leaf in leaves] == [()]:
        return values[()]
    root = _Inner()
    for leaf in leaves:
        node = root
        for key in leaf.keys[:-1]:
            below = node.setdefault(key, _Inner())
            if not isinstance(below, _Inner):
                raise FormatError(file, f"{leaf.name!r:.200} lies below another leaf")
            node = below
        if not leaf.keys or leaf.keys[-1] in node:
            raise FormatError(file, f"{leaf.name!r:.200} is a leaf, and has others below it")
        node[leaf.keys[-1]] = values[leaf.keys]
    return _finished(root, file) if root else {}


def _finished(node: _Inner, file: str) -> Tree:
    """Dicts of places become lists, where the places are 0, 1, 2, ..."""
    children = {key: _finished(child, file) if isinstance(child, _Inner) else child for key, child in node.items()}
    places = {key: child for (key, kind), child in children.items() if kind == _SEQUENCE}
    if len(places) == len(children) and all(str(place) in places for place in range(len(places))):
        return [places[str(place)] for place in range(len(places))]
    finished: dict[str, Tree] = {}
    for (key, _), child in children.items():
        if key in finished:
            raise FormatError(file, f"the key {key!r:.200} stands in one place as two kinds")
        finished[key] = child
    return finished

"""Selection: which leaves of a file to take, and under which paths.

Lives here: `only` and `rename`, on trees. Lives elsewhere: whether what was taken fits (matching).
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from tensorkeep.tree import Captured, Tree, children, join, like, walk

Only = str | Callable[[str], bool]
"""A glob, of which `*` crosses dots, or a callable over the file's paths."""

Pattern = str | re.Pattern[str]
Rename = Mapping[Pattern, str] | Sequence[tuple[Pattern, str]] | Callable[[str], str]
"""Paths of the file to paths of the target: exact paths, globs whose every `*` stands for the same text in both, compiled regular
expressions, tried in order; or a callable."""


class _LeftOut:
    """A leaf that `only` did not take: never read, never missing."""


LEFT_OUT: Final = _LeftOut()


def selector(only: Only | None) -> Callable[[str], bool]:
    """`only` as a predicate over paths."""
    if only is None:
        return lambda path: True
    if callable(only):
        return only
    if not isinstance(only, str):
        raise TypeError(f"only= takes a glob or a callable, found {only!r:.80}")
    return lambda path: fnmatchcase(path, only)


def renamer(rename: Rename) -> Callable[[str], str]:
    """`rename` as a function over paths."""
    if callable(rename):
        return rename
    pairs = list(rename.items()) if isinstance(rename, Mapping) else list(rename)
    rules: list[Callable[[str], str | None]] = []
    exact: dict[str, str] = {}
    for pattern, new in pairs:
        if isinstance(pattern, str) and "*" not in pattern:
            exact[pattern] = new
        else:
            rules.append(_rule(pattern, new))

    def renamed(path: str) -> str:
        if path in exact:
            return exact[path]
        return next((new for rule in rules if (new := rule(path)) is not None), path)

    return renamed


def _rule(pattern: Pattern, new: str) -> Callable[[str], str | None]:
    if isinstance(pattern, re.Pattern):
        return lambda path: pattern.sub(new, path) if pattern.search(path) else None
    stars = pattern.count("*")
    if new.count("*") != stars:
        raise ValueError(f"rename=: {pattern!r} and {new!r} need the same number of *")
    compiled = re.compile("(.*)".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    pieces = new.split("*")

    def rule(path: str) -> str | None:
        match = compiled.fullmatch(path)
        if match is None:
            return None
        return pieces[0] + "".join(group + piece for group, piece in zip(match.groups(), pieces[1:], strict=True))

    return rule


def take(tree: Tree, only: Only | None, rename: Rename | None) -> tuple[Tree, list[tuple[str, str]]]:
    """The part of a tree that `only` selects, its leaves moved where `rename` says.

    Returns:
        The tree, with `LEFT_OUT` where a leaf was not taken, and the (old, new) paths of the leaves that moved.

    Raises:
        ValueError: two leaves get the same path, or one a path that is taken.
    """
    if only is not None:
        tree = _pruned(tree, "", selector(only))
    if rename is None:
        return tree, []
    new_paths = _new_paths(tree, renamer(rename))
    moved: list[tuple[str, str, Tree]] = []
    tree = _without_moved(tree, "", new_paths, moved)
    for old, new, node in moved:
        _insert(tree, old, new, node)
    return tree, [(old, new) for old, new in new_paths.items() if old != new]


def _pruned(node: Tree, path: str, selected: Callable[[str], bool]) -> Tree:
    """The tree with LEFT_OUT for what was not selected; below the root, for containers of which nothing was, too."""
    if isinstance(node, Captured):
        state = _pruned(node.state, path, selected)
        return state if state is LEFT_OUT else Captured(node.kind, node.cls, state)
    inside = children(node)
    if inside is None:
        return node if selected(path) else LEFT_OUT
    items = [(key, _pruned(child, join(path, key), selected)) for key, child in inside]
    if path and items and all(child is LEFT_OUT for _, child in items):
        return LEFT_OUT
    return _copied(node, items)


def _new_paths(tree: Tree, renamed: Callable[[str], str]) -> dict[str, str]:
    new_paths: dict[str, str] = {}
    for path, _ in walk(tree):
        new_paths[path] = new = renamed(path)
        if not isinstance(new, str):
            raise TypeError(f"rename= gave {new!r:.80} for {path!r}; a path is wanted")
    return new_paths


class _Gone:
    """Stands where a node was that moved elsewhere."""


_GONE: Final = _Gone()


def _without_moved(node: Tree, path: str, new_paths: Mapping[str, str], moved: list[tuple[str, str, Tree]]) -> Tree:
    """The tree without what gets another path. A container whose leaves all move along with it moves whole, its keys kept."""
    if path and (new := _destination(node, path, new_paths)) is not None:
        moved.append((path, new, node))
        return _GONE
    if isinstance(node, Captured):
        return Captured(node.kind, node.cls, _without_moved(node.state, path, new_paths, moved))
    inside = children(node)
    if inside is None:
        return node
    return _copied(node, [(key, _without_moved(child, join(path, key), new_paths, moved)) for key, child in inside])


def _destination(node: Tree, path: str, new_paths: Mapping[str, str]) -> str | None:
    """Where a node moves to as a whole, or None."""
    candidate: str | None = None
    for old, _ in walk(node, path):
        rest, new = old[len(path) :], new_paths[old]
        if candidate is None:
            if not new.endswith(rest) or new == old:
                return None
            candidate = new[: len(new) - len(rest)]
        if new != candidate + rest:
            return None
    return candidate or None


def _copied(node: Tree, items: Iterable[tuple[Any, Tree]]) -> Tree:
    """A container like `node` with other children; those that are gone leave a dict, and a gap in a list."""
    if isinstance(node, dict):
        fresh = like(node)
        for key, child in items:
            if child is not _GONE:
                fresh[key] = child
        return fresh
    kept = [LEFT_OUT if child is _GONE else child for _, child in items]
    return deque(kept, node.maxlen) if isinstance(node, deque) else type(node)(kept)


def _insert(tree: Tree, old: str, new: str, leaf: Tree) -> None:
    """Put a leaf under its new path: into the deepest dict on the way there, under the rest as its key."""
    node, rest = tree, new
    while isinstance(node, Captured):
        node = node.state
    while isinstance(node, dict):
        below = _child_on_the_way(node, rest)
        if below is None:
            if rest in node:
                raise ValueError(f"rename=: {old!r} and another tensor would both be {new!r}")
            node[rest] = leaf
            return
        node, rest = below
    raise ValueError(f"rename=: there is no place for {new!r} in the file's structure")


def _child_on_the_way(node: dict[Any, Tree], rest: str) -> tuple[Tree, str] | None:
    for key, child in node.items():
        while isinstance(child, Captured):
            child = child.state
        if isinstance(child, dict) and rest.startswith(f"{key}."):
            return child, rest[len(str(key)) + 1 :]
    return None

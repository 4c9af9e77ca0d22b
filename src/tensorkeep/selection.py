"""Selection: which leaves of a file to take, and under which paths.

Lives here: `only` and `rename`, on trees. Lives elsewhere: whether what was taken fits (matching).
"""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from tensorkeep.tree import Captured, Tree, children, join, like

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
        The tree, with `LEFT_OUT` where a leaf was not taken, and the (old, new) paths that differ.

    Raises:
        ValueError: two leaves get the same path, or one a path that is taken.
    """
    if only is not None:
        tree = _pruned(tree, "", selector(only))
    if rename is None:
        return tree, []
    moved: list[tuple[str, str, Tree]] = []
    tree = _without_moved(tree, "", renamer(rename), moved)
    for old, new, leaf in moved:
        _insert(tree, old, new, leaf)
    return tree, [(old, new) for old, new, _ in moved]


def _pruned(node: Tree, path: str, selected: Callable[[str], bool]) -> Tree:
    return _mapped(node, path, lambda leaf_path, leaf: leaf if selected(leaf_path) else LEFT_OUT)


class _Gone:
    """Stands where a leaf was that moved elsewhere."""


_GONE: Final = _Gone()


def _without_moved(node: Tree, path: str, renamed: Callable[[str], str], moved: list[tuple[str, str, Tree]]) -> Tree:
    def visit(leaf_path: str, leaf: Tree) -> Tree:
        new = renamed(leaf_path)
        if not isinstance(new, str):
            raise TypeError(f"rename= gave {new!r:.80} for {leaf_path!r}; a path is wanted")
        if new == leaf_path:
            return leaf
        moved.append((leaf_path, new, leaf))
        return _GONE

    return _mapped(node, path, visit)


def _mapped(node: Tree, path: str, visit: Callable[[str, Tree], Tree]) -> Tree:
    """A copy of a tree with other leaves; those that are `_GONE` leave their dict."""
    if isinstance(node, Captured):
        return Captured(node.kind, node.cls, _mapped(node.state, path, visit))
    inside = children(node)
    if inside is None:
        return visit(path, node)
    mapped = [(key, _mapped(child, join(path, key), visit)) for key, child in inside]
    if isinstance(node, dict):
        fresh = like(node)
        for key, child in mapped:
            if child is not _GONE:
                fresh[key] = child
        return fresh
    items: list[Any] = [LEFT_OUT if child is _GONE else child for _, child in mapped]
    return deque(items, node.maxlen) if isinstance(node, deque) else type(node)(items)


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

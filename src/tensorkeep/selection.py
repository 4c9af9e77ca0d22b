"""Selection: which leaves of a file to take, and under which paths.

Lives here: `only` and `rename`, on trees. Lives elsewhere: whether what was taken fits (matching).
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Stub, Tree, children, join, like, name_of, walk

Only = str | Callable[[str], bool]
"""A glob, of which `*` crosses dots, or a callable over the file's paths."""

Pattern = str | re.Pattern[str]
Rename = Mapping[Pattern, str] | Sequence[tuple[Pattern, str]] | Callable[[str], str]
"""Paths of the file to paths of the target: exact paths, globs whose every `*` stands for the same text in both, compiled regular
expressions, tried in order; or a callable."""


class Clash(ValueError):
    """A rename that these names of the file do not allow, though its patterns are fine."""


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
    pairs = _pairs(rename)
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


def matcher_of(pattern: Pattern, argument: str) -> Callable[[str], bool]:
    """A pattern of `rename` as a predicate over paths.

    Args:
        argument: whose pattern it is, for messages.
    """
    if isinstance(pattern, str) and "*" not in pattern:
        return lambda path: path == pattern
    if not isinstance(pattern, (str, re.Pattern)):
        raise TypeError(f"{argument} takes globs and compiled regular expressions, found {pattern!r:.80}")
    rule = _rule(pattern, pattern if isinstance(pattern, str) else "")
    return lambda path: rule(path) is not None


def _pairs(rename: Any) -> list[tuple[Pattern, str]]:
    if isinstance(rename, Mapping):
        return list(rename.items())
    if isinstance(rename, (list, tuple)) and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in rename):
        return [(pattern, new) for pattern, new in rename]
    raise TypeError(f"rename= takes a mapping, pairs of patterns or a callable, found {rename!r:.80}")


def expected(tree: Tree, only: Only | None, rename: Rename | None) -> Callable[[str], bool]:
    """Tells of a path of the target whether the file should have it: not where `only` left out what would have come there."""
    selected = selector(only)
    if only is None or rename is None:
        return selected
    renamed = renamer(rename)
    left_out = {renamed(path) for path, _ in walk(tree) if not selected(path)}
    back = [] if callable(rename) else [_back(pattern, new) for pattern, new in _pairs(rename)]

    def wanted(path: str) -> bool:
        origins = [path, *(origin for rule in back if (origin := rule(path)) is not None)]
        origins = [origin for origin in origins if renamed(origin) == path]
        return path not in left_out and (not origins or any(map(selected, origins)))

    return wanted


def _back(pattern: Pattern, new: str) -> Callable[[str], str | None]:
    """From a new path to the old one. What a regular expression replaced cannot be told."""
    return (lambda path: None) if isinstance(pattern, re.Pattern) else _rule(new, pattern)


def _rule(pattern: Pattern, new: str) -> Callable[[str], str | None]:
    if isinstance(pattern, re.Pattern):
        return lambda path: pattern.sub(new, path) if pattern.search(path) else None
    stars = pattern.count("*")
    if new.count("*") != stars:
        raise ValueError(f"rename=: {pattern!r} and {new!r} need the same number of *")
    if not stars:
        return lambda path: new if path == pattern else None
    first, *between = pattern.split("*")
    last = between.pop()
    pieces = new.split("*")

    def rule(path: str) -> str | None:
        # As the regular expression `first(.*)between(.*)last` would, in linear time: the first star takes all it can, so each text
        # between two stars stands as far right as it can. Backtracking over a path of a stranger's file may take for ever.
        start, stop = len(first), len(path) - len(last)
        if start > stop or not path.startswith(first) or not path.endswith(last):
            return None
        groups: list[str] = []
        for text in reversed(between):
            at = path.rfind(text, start, stop)
            if at < 0:
                return None
            groups.append(path[at + len(text) : stop])
            stop = at
        groups.append(path[start:stop])
        return pieces[0] + "".join(group + piece for group, piece in zip(reversed(groups), pieces[1:], strict=True))

    return rule


def take(tree: Tree, only: Only | None, rename: Rename | None) -> tuple[Tree, list[tuple[str, str]]]:
    """The part of a tree that `only` selects, its leaves moved where `rename` says.

    Returns:
        The tree, with `LEFT_OUT` where a leaf was not taken, and the (old, new) paths of the leaves that moved.

    Raises:
        Clash: two leaves get the same path, or one a path that is taken, or none.
    """
    if only is not None:
        tree = _pruned(tree, "", selector(only))
    if rename is None:
        return tree, []
    new_paths = _new_paths(tree, renamer(rename))
    moved: list[tuple[str, str, Tree]] = []
    wholes: dict[int, str] = {}
    _destination(tree, "", new_paths, wholes)
    tree = _without_moved(tree, "", new_paths, wholes, moved)
    index: dict[int, Names] = {}
    for old, new, node in sorted(moved, key=lambda move: children(move[2]) is None):  # containers first: leaves may go into them
        _insert(tree, old, new, node, index)
    return tree, [(old, new) for old, new in new_paths.items() if old != new]


def _pruned(node: Tree, path: str, selected: Callable[[str], bool]) -> Tree:
    """The tree with LEFT_OUT for what was not selected; below the root, for containers of which nothing was, too.

    An empty container that stands beside what was left out goes with it: half of an object is none.
    """
    if isinstance(node, Captured):
        state = _pruned(node.state, path, selected)
        return state if state is LEFT_OUT else Captured(node.kind, node.cls, state)
    inside = children(node)
    if inside is None:
        return node if selected(path) else LEFT_OUT
    items = [(key, _pruned(child, join(path, key), selected)) for key, child in inside]
    if path and any(child is LEFT_OUT for _, child in items) and all(child is LEFT_OUT or _is_empty(child) for _, child in items):
        return LEFT_OUT
    return _copied(node, items)


def replaced(node: Tree, put: Callable[[str, LazyTensor], Tree], path: str = "") -> Tree:
    """The tree with other tensors in the places of its own; packed values stay.

    Args:
        put: the one for a path and the tensor there, or LEFT_OUT.
    """
    if isinstance(node, LazyTensor):
        return put(path, node)
    if isinstance(node, Captured):
        return Captured(node.kind, node.cls, replaced(node.state, put, path))
    inside = children(node)
    return node if inside is None else _copied(node, [(key, replaced(child, put, join(path, key))) for key, child in inside])


def _is_empty(node: Tree) -> bool:
    """Whether it is a container of nothing, of which there is nothing to select."""
    while isinstance(node, Captured):
        node = node.state
    inside = children(node)
    return inside is not None and all(_is_empty(child) for _, child in inside)


def _new_paths(tree: Tree, renamed: Callable[[str], str]) -> dict[str, str]:
    new_paths: dict[str, str] = {}
    for path, _ in walk(tree):
        new_paths[path] = new = renamed(path)
        if not isinstance(new, str):
            raise TypeError(f"rename= gave {new!r:.80} for {path!r}; a path is wanted")
        if path and not new:
            raise Clash(f"rename= gave an empty path for {path!r:.200}")
    return new_paths


class _Gone:
    """Stands where a node was that moved elsewhere."""


_GONE: Final = _Gone()


def _without_moved(
    node: Tree, path: str, new_paths: Mapping[str, str], wholes: Mapping[int, str], moved: list[tuple[str, str, Tree]]
) -> Tree:
    """The tree without what gets another path. A container whose leaves all move along with it moves whole, its keys kept."""
    inner = node
    while isinstance(inner, Captured):
        inner = inner.state
    inside = children(inner)
    new = new_paths[path] if inside is None else wholes.get(id(inner), path)
    if path and new != path:
        moved.append((path, new, node))
        return _GONE
    if isinstance(node, Captured):
        return Captured(node.kind, node.cls, _without_moved(node.state, path, new_paths, wholes, moved))
    if inside is None:
        return node
    return _copied(node, [(key, _without_moved(child, join(path, key), new_paths, wholes, moved)) for key, child in inside])


def _destination(node: Tree, path: str, new_paths: Mapping[str, str], wholes: dict[int, str]) -> str | None:
    """Where a node goes, if all its leaves go there with it: "" if they do not, None if it has none. From the leaves up, each once.

    Args:
        wholes: gets the destination of each container that goes somewhere as a whole, by its id.
    """
    while isinstance(node, Captured):
        node = node.state
    inside = children(node)
    if inside is None:
        return new_paths[path]
    whole: str | None = None
    for key, child in inside:
        below = join(path, key)
        new = _destination(child, below, new_paths, wholes)
        if new is None:
            continue
        rest = below[len(path) :]
        if whole is None:
            whole = new[: len(new) - len(rest)] if new.endswith(rest) else ""
        if whole and new != whole + rest:
            whole = ""
    if whole:
        wholes[id(node)] = whole
    return whole


def _copied(node: Tree, items: Iterable[tuple[Any, Tree]]) -> Tree:
    """A container like `node` with other children; those that are gone leave a dict, and a gap in a list."""
    if isinstance(node, Stub):
        return Stub(node.module, node.name, {key: child for key, child in items if child is not _GONE}, made=node.made)
    if isinstance(node, dict):
        fresh = like(node)
        for key, child in items:
            if child is not _GONE:
                fresh[key] = child
        return fresh
    kept = [LEFT_OUT if child is _GONE else child for _, child in items]
    return deque(kept, node.maxlen) if isinstance(node, deque) else type(node)(kept)


Names = dict[str, Tree]
"""The children of a container by the names of their keys."""


def _insert(tree: Tree, old: str, new: str, moved: Tree, index: dict[int, Names]) -> None:
    """Put a node under its new path: into the deepest container on the way there, of which a list must have a gap for it.

    Args:
        index: the names in each container that was looked into; kept from call to call.
    """
    node, rest = tree, new
    while True:
        while isinstance(node, Captured):
            node = node.state
        if id(node) not in index:
            index[id(node)] = {name_of(key): child for key, child in children(node) or ()}
        names = index[id(node)]
        name = _on_the_way(names, rest)
        if not name:
            break
        node, rest = names[name], rest[len(name) + 1 :]
    if names.get(rest, LEFT_OUT) is not LEFT_OUT:
        raise Clash(f"rename=: {old!r:.200} and another tensor would both be {new!r:.200}")
    if isinstance(node, dict):
        node[rest] = moved
    elif isinstance(node, (list, deque)) and rest in names:
        node[int(rest)] = moved
    else:
        raise Clash(f"rename=: there is no place for {new!r:.200} in the file's structure")
    names[rest] = moved


def _on_the_way(names: Names, rest: str) -> str:
    """The name of the container that a path leads through, or ""."""
    dot = rest.find(".")
    while dot >= 0:
        child = names.get(rest[:dot], LEFT_OUT)
        while isinstance(child, Captured):
            child = child.state
        if children(child) is not None and dot:
            return rest[:dot]
        dot = rest.find(".", dot + 1)
    return ""

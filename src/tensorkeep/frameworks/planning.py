"""Planning: which adapter matches an object of the target, and what of the file it gets to see."""

from collections.abc import Sequence
from typing import Final

from tensorkeep.frameworks import table
from tensorkeep.matching import Matcher, Result
from tensorkeep.tree import Captured, Tree, like, tensors, versions

UNTOLD: Final = "numpy"
"""What a tensor is said to be saved as where nothing is known."""


def plan(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Match an object of the target with what the file has for it."""
    adapter = table.of_kind(target.kind)
    assert adapter is not None, "it captured the target"
    return adapter.plan(target, _variables(state) if _is_another(matcher.found_kind, target.kind) else state, path, matcher)


def plan_untold(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """The same for a file that does not say what its tensors were saved as: an object's own code gets those of its framework."""
    adapter = table.of_kind(target.kind)
    if adapter is not None and table.arrays(adapter.name) is not None:
        framework = adapter.name
    else:
        framework = next((tensor.framework for _, tensor in tensors(target.state)), UNTOLD)
    for _, tensor in tensors(state):
        if tensor.framework == UNTOLD:
            tensor.framework = framework
    return plan(target, state, path, matcher)


def renamed_versions(tree: Tree, renamed: Sequence[tuple[str, str]]) -> dict[str, object]:
    """Of each module its version, by its path in the target: it moved as what is in it did."""
    found = dict(versions(tree))
    moved: dict[str, str] = {}
    for old, new in renamed if found else ():
        while old and new and old.rpartition(".")[2] == new.rpartition(".")[2]:
            old, new = old.rpartition(".")[0], new.rpartition(".")[0]
            moved.setdefault(old, new)
    return {path: version for path, version in found.items() if path not in moved} | {
        moved[path]: version for path, version in found.items() if path in moved
    }


def _is_another(found: str, wanted: str) -> bool:
    """Whether a model of Keras is to go into one of another framework."""
    return found.startswith("keras.") and not wanted.startswith("keras.")


def _variables(state: Tree) -> Tree:
    """What a model of Keras has of variables: its configuration and its optimizer are of no use elsewhere."""
    if not isinstance(state, dict):
        return state
    fresh = like(state)
    fresh.update((key, node) for key, node in state.items() if not isinstance(node, Captured) and any(tensors(node)))
    return fresh

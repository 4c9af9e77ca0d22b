"""Special: the few classes of which the attributes are not the whole of the state, or more than it.

A hook before taking changes the attributes; one after making completes them.
"""

from collections.abc import Callable
from typing import Any, Final

LEAVES: Final = "_leaves"
"""Where a Birch keeps the order of its leaves, which are a doubly linked list: as the names of their places."""


def leaves(birch: Any) -> list[Any]:
    """The leaves of a Birch, in their order."""
    found, leaf = [], birch.dummy_leaf_.next_leaf_
    while leaf is not None:
        found.append(leaf)
        leaf = leaf.next_leaf_
    return found


def _take_node(node: Any, state: dict[str, Any]) -> dict[str, Any]:
    """A node of a Birch without its neighbours, and without what are views of its other arrays."""
    return {name: value for name, value in state.items() if name not in ("prev_leaf_", "next_leaf_", "centroids_", "squared_norm_")}


def _make_node(node: Any, state: dict[str, Any]) -> dict[str, Any]:
    count = len(state["subclusters_"])
    views = {"centroids_": state["init_centroids_"][:count], "squared_norm_": state["init_sq_norm_"][:count]} if count else {}
    return {**state, **views, "prev_leaf_": None, "next_leaf_": None}


def link_leaves(birch: dict[str, Any], leaves: list[Any]) -> None:
    """Chain the leaves of a Birch behind the one that only begins their list."""
    before = birch.get("dummy_leaf_")
    for leaf in leaves:
        vars(before)["next_leaf_"], vars(leaf)["prev_leaf_"] = leaf, before
        before = leaf


def _make_isotonic(cls: Any, state: dict[str, Any]) -> dict[str, Any]:
    if "X_thresholds_" not in state or "y_thresholds_" not in state:
        return state
    made = object.__new__(cls)
    vars(made).update(state)
    made._build_f(state["X_thresholds_"], state["y_thresholds_"])
    return dict(vars(made))


TAKING: Final[dict[str, Callable[[Any, dict[str, Any]], dict[str, Any]]]] = {"_CFNode": _take_node}

MAKING: Final[dict[str, Callable[[Any, dict[str, Any]], dict[str, Any]]]] = {"IsotonicRegression": _make_isotonic, "_CFNode": _make_node}


def complete(cls: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of an object, of those that the file has."""
    hook = MAKING.get(cls.__name__)
    if hook is not None:
        return hook(cls, state)
    setter = getattr(cls, "__setstate__", None)
    if setter is None or cls.__module__.partition(".")[0] == "sklearn" or setter.__module__ == "sklearn.base":
        return state
    made = cls.__new__(cls)  # a class that the caller gave, with a way of its own to take its state
    setter(made, dict(state))
    return dict(vars(made))

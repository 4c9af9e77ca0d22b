"""Laughs: few bytes that share values so that whoever walks them all never comes to an end ("a billion laughs")."""

from typing import Any, Final

_MOST: Final = 10**8
_DEEPEST: Final = 10_000


def walked(value: Any) -> int:
    """How many values a walk meets, what is shared counted each time; at most a number that no honest pickle has."""
    sizes: dict[int, int] = {}
    waiting: list[tuple[Any, bool]] = [(value, False)]
    while waiting and len(sizes) < _DEEPEST:
        node, done = waiting.pop()
        if not isinstance(node, (list, tuple, dict)):
            continue
        inside = list(node.values()) if isinstance(node, dict) else node
        if done:
            itself = sum(child is node for child in inside)
            sizes[id(node)] = (
                _MOST if itself > 1 else min(_MOST, 1 + sum(sizes.get(id(child), 1) for child in inside))
            )  # of a loop in a loop no walk ends
        elif id(node) not in sizes:
            sizes[id(node)] = 1  # of a cycle, what is met again counts once
            waiting.append((node, True))
            waiting += [(child, False) for child in inside]
    return sizes.get(id(value), 1)


def multiplies(value: Any, steps: int) -> int:
    """The number, if it is out of all proportion to the steps that made it; else 0."""
    number = walked(value)
    return number if number >= 100_000 and number > 200 * steps else 0

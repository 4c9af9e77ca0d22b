"""Alike: things of one kind whose paths differ in numbers only, told in one row."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import prod
from operator import itemgetter
from typing import Final, TypeVar

import msgspec

_MOST_NUMBERS: Final = 8  # in a path that may share a row: no real one has more, and each costs a level of recursion
_LONGEST_NUMBER: Final = 9  # digits: longer ones count nothing
_SAME: Final = "{same}"  # a number that is the same as one before it in each path
_DIGITS: Final = re.compile("((?:[1-9][0-9]*|0(?![0-9])))")  # the zeros before it stay text: `00{0..9}`

Kind = TypeVar("Kind")


def together(leaves: Sequence[tuple[str, Kind]]) -> Iterator[tuple[str, int, Kind]]:
    """Leaves of one kind whose paths differ in numbers only, in one row each: path, how many, kind."""
    groups: dict[tuple[Kind, tuple[str, ...]], list[list[int]]] = {}
    met: set[str] = set()
    for path, kind in leaves:
        parts = _DIGITS.split(path)  # text, digits, text, ...
        plain = all(len(part) <= _LONGEST_NUMBER for part in parts[1::2])
        if not plain or len(parts) > 2 * _MOST_NUMBERS + 1 or path in met:
            parts = [path]  # two values may have one path: {"a.b": 1, "a": {"b": 2}}
        met.add(path)
        groups.setdefault((kind, tuple(parts[0::2])), []).append(list(map(int, parts[1::2])))
    for (kind, texts), numbers in groups.items():
        places, left = _without_repeats(numbers)
        for box in _boxes(left):
            told = [_SAME if repeat and len(box[place]) > 1 else _range(box[place]) for place, repeat in places]
            yield "".join(text + part for text, part in zip(texts, [*told, ""], strict=True)), prod(map(len, box)), kind


def _without_repeats(numbers: list[list[int]]) -> tuple[list[tuple[int, bool]], list[list[int]]]:
    """The numbers without those that repeat the one before in every path: Keras writes `conv1d_7.conv1d_7.kernel`.

    One that is the same in all paths, as the 1 of `conv1d`, is no number to repeat.

    Returns:
        for each number of a path, its place among those that are left, and whether it repeats the one there; and what is left.
    """
    kept: list[tuple[int, ...]] = []
    places: list[tuple[int, bool]] = []
    varying = None
    for column in zip(*numbers, strict=True):
        if column == varying:
            places.append((kept.index(column), True))
            continue
        places.append((len(kept), False))
        kept.append(column)
        if any(number != column[0] for number in column):
            varying = column
    return places, list(map(list, zip(*kept, strict=True))) if kept else numbers


def _boxes(numbers: list[list[int]]) -> list[list[list[int]]]:
    """Few boxes that hold just these: experts 0 to 7 of layers 0 to 3 are one, and another number of experts in layer 4 another.

    A box is a list of numbers for each place.
    """
    if not numbers[0]:
        return [[] for _ in numbers]
    # Sorted, and told apart as bytes: a dict of these numbers could be attacked.
    alike: dict[bytes, tuple[list[int], list[list[int]]]] = {}
    for first, group in groupby(sorted(numbers), key=itemgetter(0)):
        rests = [rest for _, *rest in group]
        alike.setdefault(msgspec.json.encode(rests), ([], rests))[0].append(first)
    return [[firsts, *box] for firsts, rests in alike.values() for box in _boxes(rests)]


def _range(numbers: Sequence[int]) -> str:
    """Rising numbers in few characters: `7`, `{0,2}`, `{0..23}`, `{0..22,25}`."""
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(first) if first == last else f"{first},{last}" if last == first + 1 else f"{first}..{last}" for first, last in runs]
    return "{" + ",".join(parts if len(parts) <= 6 else [*parts[:4], "...", parts[-1]]) + "}"

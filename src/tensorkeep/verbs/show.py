"""show: what a file holds, at a glance.

Lives here: `Summary`, and how tensors alike are told in one row. Lives elsewhere: how it looks on a screen (cli).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from operator import itemgetter
from os import PathLike
from typing import Any, BinaryIO, Final, TypeVar

import msgspec

from tensorkeep.contents import Contents
from tensorkeep.limits import Limits
from tensorkeep.opening import open_contents
from tensorkeep.progress import Progress
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import CONTAINERS, Captured, Packed, Tree, brief, children, join

_MOST_NUMBERS: Final = 8  # in a path that may share a row: no real one has more, and each costs a level of recursion
_LONGEST_NUMBER: Final = 9  # digits: longer ones count nothing
_DIGITS: Final = re.compile("([0-9]+)")

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class Row:
    """Tensors alike: the same dtype and shape, at paths that differ in numbers only.

    Attributes:
        path: such as `layers.{0..23}.mlp.weight`: these paths and no other, unless its ranges are too many to tell (`...`).
        count: how many.
        dtype, shape: of each.
        nbytes: of all together.
    """

    path: str
    count: int
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Value:
    """Plain values alike: the same text, at paths that differ in numbers only.

    Attributes:
        path: as in `Row`; "" if the value is the whole state.
        count: how many.
        text: the value as Python writes it, shortened.
    """

    path: str
    count: int
    text: str


@dataclass(frozen=True, slots=True)
class Share:
    """How much of a file is of one dtype: tensors, elements, and bytes."""

    tensors: int
    elements: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a file holds.

    Attributes:
        file, format, version, writer: what it is, and who wrote it.
        nbytes: size of the file in bytes.
        tensors: how many; tied ones count once.
        elements: of all of them together, those of an optimizer too.
        dtypes: by dtype, its share; the largest first.
        rows: the tensors, those alike together, in the order of the tree.
        ties: by path, the path of the tensor that is the same one.
        values: the plain values, those alike together, in the order of the tree. A list of them is one value.
        metadata: what the file says about itself.
        digests: whether every byte can be checked.
        root: the file's identity, in hex, or "".

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"w": np.ones((2, 3), np.float32), "epoch": 3}, "run.safetensors")
        >>> summary = tk.show("run.safetensors")
        >>> summary.tensors, summary.elements, summary.dtypes["F32"].nbytes
        (1, 6, 24)
        >>> [(value.path, value.text) for value in summary.values]
        [('epoch', '3')]
    """

    file: str
    format: str
    version: str
    writer: str
    nbytes: int
    tensors: int
    elements: int
    dtypes: Mapping[str, Share]
    rows: tuple[Row, ...]
    ties: Mapping[str, str]
    values: tuple[Value, ...]
    metadata: Mapping[str, Any]
    digests: bool
    root: str


def show(path: "str | PathLike[str] | BinaryIO", *, limits: Limits | None = None, progress: Progress | None = None) -> Summary:
    """Tell what a file holds. Reads its header only.

    Args:
        path: a model file, or a safetensors file by others.
        limits: bounds on what the file may ask for.
        progress: called with the bytes done and in all: once, for a header is read in one go.

    Returns:
        Summary: sizes, dtypes, the tensors with those alike together, plain values, metadata.

    Raises:
        FormatError: no file that tensorkeep reads.
        CorruptError: its header is not the one that was written.
        FileNotFoundError: nothing is there.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"layers": [{"w": np.ones((2, 3))}, {"w": np.ones((2, 3))}]}, "net.safetensors")
        >>> [(row.path, row.count) for row in tk.show("net.safetensors").rows]
        [('layers.{0,1}.w', 2)]
    """
    with open_contents(path, limits=limits) as contents:
        summary = _summary(contents)
    if progress is not None:
        progress(summary.nbytes, summary.nbytes)
    return summary


def _summary(contents: Contents) -> Summary:
    tensors: list[LazyTensor] = []
    values: list[tuple[str, str]] = []
    ties: dict[str, str] = {}
    met: set[int] = set()
    for path, leaf in _leaves(contents.tree, ""):
        if not isinstance(leaf, LazyTensor):
            values.append((path, _text(leaf)))
        elif id(leaf) in met:
            ties[path] = leaf.name
        else:
            met.add(id(leaf))
            tensors.append(leaf)
    return Summary(
        file=contents.file,
        format=contents.format,
        version=contents.version,
        writer=contents.writer,
        nbytes=contents.nbytes,
        tensors=len(tensors),
        elements=sum(tensor.spec.count for tensor in tensors),
        dtypes=_dtypes(tensors),
        rows=tuple(_rows(tensors)),
        ties=ties,
        values=tuple(Value(path, count, text) for path, count, text in _together(values)),
        metadata=dict(contents.metadata),
        digests=contents.digests,
        root=contents.root,
    )


def _leaves(node: Tree, path: str) -> Iterator[tuple[str, Tree]]:
    """As `tree.walk`, but a list of plain values is one leaf, and so is an empty container."""
    while isinstance(node, Captured):
        node = node.state
    inside = children(node)
    if not inside or not node or not (isinstance(node, dict) or any(isinstance(child, _BRANCHES) for child in node)):
        yield path, node
        return
    for key, child in inside:
        if isinstance(child, LazyTensor):
            yield join(path, key), child
        else:
            yield from _leaves(child, join(path, key))


_BRANCHES: Final = (*CONTAINERS, Captured, LazyTensor, Packed)


def _text(value: object) -> str:
    if isinstance(value, Packed):
        return f"a {value.kind} of {value.tensor.shape[0]:,} {'bytes' if value.kind in ('str', 'bytes') else 'numbers'}"
    return brief(value)


def _dtypes(tensors: Sequence[LazyTensor]) -> dict[str, Share]:
    by_dtype: dict[str, list[LazyTensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(str(tensor.dtype), []).append(tensor)
    shares = {
        dtype: Share(len(alike), sum(tensor.spec.count for tensor in alike), sum(tensor.nbytes for tensor in alike))
        for dtype, alike in by_dtype.items()
    }
    return dict(sorted(shares.items(), key=lambda item: -item[1].nbytes))


def _rows(tensors: Sequence[LazyTensor]) -> Iterator[Row]:
    # Grouped by texts, which are hashed with a secret: shapes could be made to collide.
    paths = [(tensor.name, f"{tensor.nbytes} {tensor.spec}") for tensor in tensors]
    known = {text: tensor for (_, text), tensor in zip(paths, tensors, strict=True)}
    for path, count, text in _together(paths):
        like = known[text]
        yield Row(path, count, str(like.dtype), like.shape, like.nbytes * count)


def _together(leaves: Sequence[tuple[str, Kind]]) -> Iterator[tuple[str, int, Kind]]:
    """Leaves of one kind whose paths differ in numbers only, in one row each: path, how many, kind."""
    groups: dict[tuple[Kind, tuple[str, ...]], list[list[int]]] = {}
    met: set[str] = set()
    for path, kind in leaves:
        parts = _DIGITS.split(path)  # text, digits, text, ...
        plain = all(len(part) <= _LONGEST_NUMBER and (part == "0" or part[0] != "0") for part in parts[1::2])
        if not plain or len(parts) > 2 * _MOST_NUMBERS + 1 or path in met:
            parts = [path]  # two values may have one path: {"a.b": 1, "a": {"b": 2}}
        met.add(path)
        groups.setdefault((kind, tuple(parts[0::2])), []).append(list(map(int, parts[1::2])))
    for (kind, texts), numbers in groups.items():
        for box in _boxes(numbers):
            ranges = [*map(_range, box), ""]
            yield "".join(text + part for text, part in zip(texts, ranges, strict=True)), prod(map(len, box)), kind


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

"""show: what a file holds, at a glance."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, BinaryIO

from tensorkeep.contents import Contents
from tensorkeep.limits import Limits
from tensorkeep.opening import open_contents
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Packed, walk

_SHORT = 60  # characters of a value that are shown


@dataclass(frozen=True, slots=True)
class Row:
    """Tensors alike: the same dtype and shape, at paths that differ in numbers only.

    Attributes:
        path: such as `layers.{0..23}.mlp.weight`.
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
        tensors, parameters: how many tensors, and elements of them together.
        dtypes: by dtype, its share.
        rows: the tensors, those alike together, in the order of the tree.
        values: path and value, shortened, of every plain value.
        metadata: what the file says about itself.
        digests: whether every byte can be checked.
        root: the file's identity, in hex, or "".
    """

    file: str
    format: str
    version: str
    writer: str
    nbytes: int
    tensors: int
    parameters: int
    dtypes: Mapping[str, Share]
    rows: tuple[Row, ...]
    values: tuple[tuple[str, str], ...]
    metadata: Mapping[str, Any]
    digests: bool
    root: str


def show(path: "str | PathLike[str] | BinaryIO", *, limits: Limits | None = None) -> Summary:
    """Tell what a file holds. Reads its header only.

    Args:
        path: a model file, or a safetensors file by others.
        limits: bounds on what the file may ask for.

    Returns:
        Summary: sizes, dtypes, the tensors with those alike together, plain values, metadata.

    Raises:
        FormatError: no file that tensorkeep reads.
        FileNotFoundError: nothing is there.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"layers": [{"w": np.ones((2, 3))}, {"w": np.ones((2, 3))}]}, "net.safetensors")
        >>> [(row.path, row.count) for row in tk.show("net.safetensors").rows]
        [('layers.{0,1}.w', 2)]
    """
    with open_contents(path, limits=limits) as contents:
        return _summary(contents)


def _summary(contents: Contents) -> Summary:
    tensors: list[tuple[str, LazyTensor]] = []
    values: list[tuple[str, str]] = []
    for path, leaf in walk(contents.tree):
        if isinstance(leaf, LazyTensor):
            tensors.append((path, leaf))
        elif isinstance(leaf, Packed):
            values.append((path, f"a {leaf.kind} of {leaf.tensor.shape[0]:,}"))
        else:
            values.append((path, _short(leaf)))
    once = list(contents.tensors.values())
    return Summary(
        contents.file,
        contents.format,
        contents.version,
        contents.writer,
        contents.nbytes,
        len(once),
        sum(tensor.spec.count for tensor in once),
        _dtypes(once),
        tuple(_rows(tensors)),
        tuple(values),
        dict(contents.metadata),
        contents.digests,
        contents.root,
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."


def _dtypes(tensors: list[LazyTensor]) -> dict[str, Share]:
    shares: dict[str, Share] = {}
    for tensor in tensors:
        name = str(tensor.dtype)
        before = shares.get(name, Share(0, 0, 0))
        shares[name] = Share(before.tensors + 1, before.elements + tensor.spec.count, before.nbytes + tensor.nbytes)
    return dict(sorted(shares.items(), key=lambda item: -item[1].nbytes))


def _rows(tensors: list[tuple[str, LazyTensor]]) -> list[Row]:
    groups: dict[tuple[tuple[str | None, ...], str, tuple[int, ...]], list[tuple[tuple[int, ...], int]]] = {}
    for path, tensor in tensors:
        parts = path.split(".")
        pattern = tuple(None if _is_number(part) else part for part in parts)
        numbers = tuple(int(part) for part in parts if _is_number(part))
        groups.setdefault((pattern, str(tensor.dtype), tensor.shape), []).append((numbers, tensor.nbytes))
    return [
        Row(_collapsed(pattern, [numbers for numbers, _ in members]), len(members), dtype, shape, sum(nbytes for _, nbytes in members))
        for (pattern, dtype, shape), members in groups.items()
    ]


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) < 10 and str(int(part)) == part


def _collapsed(pattern: tuple[str | None, ...], numbers: list[tuple[int, ...]]) -> str:
    columns = iter([sorted(set(column)) for column in zip(*numbers, strict=True)])
    return ".".join(_range(next(columns)) if part is None else part for part in pattern)


def _range(numbers: list[int]) -> str:
    """Numbers in few characters: `7`, `{0,2}`, `{0..23}`, `{0..23, 25}`."""
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(first) if first == last else f"{first},{last}" if last == first + 1 else f"{first}..{last}" for first, last in runs]
    return "{" + ",".join(parts if len(parts) <= 4 else [*parts[:3], f"...,{numbers[-1]}"]) + "}"

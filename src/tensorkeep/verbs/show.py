"""show: what a file holds, at a glance.

Lives here: `Summary`. Lives elsewhere: how tensors alike are told in one row (alike), how it looks on a screen (cli).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, BinaryIO, Final

from tensorkeep.contents import Contents, Finding
from tensorkeep.dtypes import C32, DType
from tensorkeep.limits import Limits
from tensorkeep.opening import open_contents
from tensorkeep.progress import Progress
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import CONTAINERS, Captured, Packed, Stub, Tree, brief, children, join
from tensorkeep.verbs.alike import together

_FIELDS: Final = 3  # of a structured dtype that are named


@dataclass(frozen=True, slots=True)
class Row:
    """Tensors alike: the same dtype and shape, at paths that differ in numbers only.

    Attributes:
        path: such as `layers.{0..23}.mlp.weight`: these paths and no other, unless its ranges are too many to tell (`...`). `{same}` is the
            number before it once more.
        count: how many.
        dtype, shape: of each; of a structured dtype the first fields, `{x, y, z, ...}`.
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
        nbytes: size in bytes of the file, with the others that it is made of.
        tensors: how many; tied ones count once.
        elements: of all of them together, those of an optimizer too.
        dtypes: by dtype, its share; the largest first.
        rows: the tensors, those alike together, in the order of the tree.
        ties: by path, the path of the tensor that is the same one.
        values: the plain values, those alike together, in the order of the tree. A list of them is one value.
        metadata: what the file says about itself.
        digests: whether every byte can be checked.
        root: the file's identity, in hex, or "".
        checksum: the kind of checksum that a file by others has over its bytes, such as `CRC-32`, or "".
        objects: objects that the file names, those alike together, with their classes. They were not made: what they hold stands in `rows`
            and `values`.
        findings: what would be dangerous when loaded the usual way, as far as reading met it; `scan` looks further.
        left_out: what was not read, and why, a sentence each.
        versions: of the frameworks whose objects it holds, by package, where a model file or a checkpoint says so.

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
    checksum: str = ""
    objects: tuple[Value, ...] = ()
    findings: tuple[Finding, ...] = ()
    left_out: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def show(path: "str | PathLike[str] | BinaryIO", *, limits: Limits | None = None, progress: Progress | None = None) -> Summary:
    """Tell what a file holds. Reads its header only.

    Args:
        path: any file, or folder, that `load` reads.
        limits: bounds on what the file may ask for.
        progress: called with the bytes done and in all: once, for a header is read in one go.

    Returns:
        Summary: sizes, dtypes, the tensors with those alike together, plain values, metadata, and what was left out.

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
        values=tuple(Value(path, count, text) for path, count, text in together(values)),
        metadata=dict(contents.metadata),
        digests=contents.digests,
        root=contents.root,
        checksum=contents.checksum,
        versions=dict(contents.versions),
        objects=tuple(Value(path, count, text) for path, count, text in together(list(_objects(contents.tree, "")))),
        findings=contents.findings,
        left_out=contents.left_out,
    )


def _objects(node: Tree, path: str) -> Iterator[tuple[str, str]]:
    """Path and class of every object that has something inside; one without is a value."""
    while isinstance(node, Captured):
        node = node.state
    inside = children(node)
    if isinstance(node, Stub) and inside:
        yield path, f"{node.module}.{node.name}" if node.module else node.name
    for key, child in inside or ():
        if isinstance(child, _INSIDE):
            yield from _objects(child, join(path, key))


def _leaves(node: Tree, path: str) -> Iterator[tuple[str, Tree]]:
    """As `tree.walk`, but a list of plain values is one leaf, and so is an empty container."""
    while isinstance(node, Captured):
        node = node.state
    inside = children(node)
    if not inside or not node or not (isinstance(node, (dict, Stub)) or any(isinstance(child, _BRANCHES) for child in node)):
        yield path, node
        return
    for key, child in inside:
        if isinstance(child, LazyTensor):
            yield join(path, key), child
        else:
            yield from _leaves(child, join(path, key))


_INSIDE: Final = (*CONTAINERS, Captured, Stub)
_BRANCHES: Final = (*_INSIDE, LazyTensor, Packed)


def _text(value: object) -> str:
    if isinstance(value, Packed):
        return f"a {value.kind} of {value.tensor.shape[0]:,} {'bytes' if value.kind in ('str', 'bytes') else 'numbers'}"
    return brief(value)


def _dtypes(tensors: Sequence[LazyTensor]) -> dict[str, Share]:
    by_dtype: dict[str, list[LazyTensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(_dtype(tensor.dtype), []).append(tensor)
    shares = {
        dtype: Share(len(alike), sum(tensor.spec.count for tensor in alike), sum(tensor.nbytes for tensor in alike))
        for dtype, alike in by_dtype.items()
    }
    return dict(sorted(shares.items(), key=lambda item: -item[1].nbytes))


def _dtype(dtype: DType) -> str:
    """Its name; of a structure some names of its fields, for NumPy's spelling of all of it fills a screen."""
    names = dtype.numpy.names if dtype.numpy is not None else None
    if names is None or str(dtype) == C32.name:  # which NumPy has no type of its own for
        return str(dtype)
    return f"{{{', '.join(names[:_FIELDS])}{', ...' if len(names) > _FIELDS else ''}}}"


def _rows(tensors: Sequence[LazyTensor]) -> Iterator[Row]:
    # Grouped by texts, which are hashed with a secret: shapes could be made to collide.
    paths = [(tensor.name, f"{tensor.nbytes} {tensor.spec}") for tensor in tensors]
    known = {text: tensor for (_, text), tensor in zip(paths, tensors, strict=True)}
    for path, count, text in together(paths):
        like = known[text]
        yield Row(path, count, _dtype(like.dtype), like.shape, like.nbytes * count)

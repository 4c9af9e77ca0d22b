"""diff: what differs between two models, whatever their formats."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, BinaryIO, Final

import numpy as np

from tensorkeep.contents import Contents
from tensorkeep.errors import UnsupportedError
from tensorkeep.limits import Limits
from tensorkeep.opening import open_contents
from tensorkeep.progress import Progress
from tensorkeep.selection import Only, Rename, renamer, selector
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Packed, Stub, Tree, brief, named_tensors, walk
from tensorkeep.verbs.hashing import tensor_digests
from tensorkeep.verbs.measuring import distances, numbers

_TEXT: Final = 60  # characters of a value that are told


@dataclass(frozen=True, slots=True)
class OneSided:
    """A tensor that one of two files has alone."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Change:
    """A tensor that both files have, and not alike.

    Attributes:
        path: in the second file.
        dtypes, shapes: in the first file, and in the second.
        count: elements.
        differing: those of another value; None where the two cannot be compared by number, such as texts or other shapes.
        relative: the norm of the change, by the norm of what was there before.
        largest: change of one element, in absolute value.
        largest_at: its index.
        not_finite: elements that are infinite or no number on one side, and another on the other; they count for nothing else.
    """

    path: str
    dtypes: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    count: int
    differing: int | None = None
    relative: float | None = None
    largest: float | None = None
    largest_at: tuple[int, ...] | None = None
    not_finite: int = 0


@dataclass(frozen=True, slots=True)
class ValueChange:
    """A plain value that is another, or that one file has alone (None on the other side), as Python writes it."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Diff:
    """What differs between two models.

    Attributes:
        a, b: the files as they were named.
        formats: what they are.
        equal: how many tensors are equal in every bit, at the same path.
        close: how many differ by no more than `rtol`.
        changed: tensors of the same dtype and shape with other bytes, in the order of the second file.
        retyped: tensors with another dtype, and the same shape.
        reshaped: tensors with another shape.
        renamed: old and new paths of tensors whose dtype, shape and bytes are the same.
        added, removed: tensors that only the second, or only the first file has.
        values: plain values that differ.
        metadata: entries of the metadata that differ.
        rtol: as it was passed.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"w": np.zeros(3), "epoch": 3}, "before.safetensors")
        >>> tk.save({"w": np.array([0.0, 0.5, 0.0]), "epoch": 4}, "after.safetensors")
        >>> found = tk.diff("before.safetensors", "after.safetensors")
        >>> found.same, found.changed[0].path, found.changed[0].largest, found.changed[0].largest_at
        (False, 'w', 0.5, (1,))
        >>> found.values[0].before, found.values[0].after
        ('3', '4')
    """

    a: str
    b: str
    formats: tuple[str, str]
    equal: int
    close: int
    changed: tuple[Change, ...]
    retyped: tuple[Change, ...]
    reshaped: tuple[Change, ...]
    renamed: tuple[tuple[str, str], ...]
    added: tuple[OneSided, ...]
    removed: tuple[OneSided, ...]
    values: tuple[ValueChange, ...]
    metadata: tuple[ValueChange, ...]
    rtol: float | None

    @property
    def same(self) -> bool:
        """Whether nothing differs, beyond what `rtol` lets pass."""
        parts = (self.changed, self.retyped, self.reshaped, self.renamed, self.added, self.removed, self.values, self.metadata)
        return not any(parts)


def diff(
    a: "str | PathLike[str] | BinaryIO",
    b: "str | PathLike[str] | BinaryIO",
    *,
    only: Only | None = None,
    rename: Rename | None = None,
    rtol: float | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Diff:
    """Tell what differs between two models, whatever their formats: structure, bytes, values, metadata.

    Tensors are known by path; those that moved are found by their bytes. The tensors of model files that did not change are not read.

    Args:
        a, b: the model before and after: any files, or folders, that `load` reads.
        only: a glob over paths (`*` crosses dots), or a callable: compare these tensors and values alone, and no metadata.
        rename: from the first file's paths to the second's: a mapping, pairs of patterns (`("module.*", "*")`), or a callable.
        rtol: let a changed tensor pass if the norm of its change is at most so much of the norm of what was there before.
        limits: bounds on what a file may ask for.
        progress: called with the bytes done and in all; what changed is read once more, and counts again then.

    Returns:
        Diff: everything that differs, as data.

    Raises:
        FormatError: no file that tensorkeep reads.
        CorruptError: bytes are not those that were written.
        FileNotFoundError: nothing is there.
        ValueError: `only` takes nothing of either file.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"head": np.ones((2, 3)), "old": np.zeros(4)}, "a.safetensors")
        >>> tk.save({"head": np.ones((5, 3)), "new": np.zeros(4)}, "b.safetensors")
        >>> found = tk.diff("a.safetensors", "b.safetensors")
        >>> found.renamed, found.reshaped[0].shapes
        ((('old', 'new'),), ((2, 3), (5, 3)))
    """
    with open_contents(a, mmap=False, limits=limits) as before, open_contents(b, mmap=False, limits=limits) as after:
        take = _taking(before.tree, only, rename)
        one, other = _side(before, *take), _side(after, take[0], None)
        if only is not None:
            if not (one.tensors or one.values or other.tensors or other.values):
                raise ValueError(f"only={only!r:.200} takes nothing of {before.file}, nor of {after.file}")
            one.metadata, other.metadata = {}, {}
        return _compared(one, other, rtol, progress)


Paths = Callable[[str], bool]


def _taking(tree: Tree, only: Only | None, rename: Rename | None) -> tuple[Paths, Callable[[str], str] | None]:
    """Which paths of the second file are compared, and how those of the first become such."""
    renamed = None if rename is None else renamer(rename)
    if only is None:
        return (lambda path: True), renamed
    selected = selector(only)
    if renamed is None:
        return selected, None
    meant = {renamed(path) for path, _ in walk(tree) if selected(path)}
    return (lambda path: path in meant or selected(path)), renamed


@dataclass(slots=True)
class _Side:
    """One of the two files, its leaves by the paths that are compared."""

    contents: Contents
    tensors: dict[str, LazyTensor]
    values: dict[str, Tree]
    metadata: dict[str, Any]


def _side(contents: Contents, selected: Paths, renamed: Callable[[str], str] | None) -> _Side:
    def placed(leaves: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for old, leaf in leaves.items():
            path = old if renamed is None else renamed(old)
            if path in found:
                raise UnsupportedError(old, f"rename= gives it the path {path!r:.200}, which is taken")
            if selected(path):
                found[path] = leaf
        return found

    values = {path: leaf for path, leaf in walk(contents.tree) if not isinstance(leaf, LazyTensor)}
    metadata = contents.told_of_model()
    if not contents.digests:
        metadata.pop("format", None)  # the mark of a plain safetensors file, which a model file has too and does not count
    tensors = placed(named_tensors(contents.tree))
    return _Side(contents, tensors, placed(values), metadata)


def _compared(a: _Side, b: _Side, rtol: float | None, progress: Progress | None) -> Diff:
    packed = [leaf.tensor for side in (a, b) for leaf in side.values.values() if isinstance(leaf, Packed)]
    passing = [side.contents.storage.in_passing(side.tensors.values()) for side in (a, b)]
    digests = tensor_digests([*a.tensors.values(), *b.tensors.values(), *packed], progress, passing)
    common = [path for path in b.tensors if path in a.tensors]
    pairs = {path: (a.tensors[path], b.tensors[path]) for path in common}
    reshaped = [path for path, (one, other) in pairs.items() if one.shape != other.shape]
    retyped = [path for path, (one, other) in pairs.items() if one.shape == other.shape and str(one.dtype) != str(other.dtype)]
    rest = pairs.keys() - set(reshaped) - set(retyped)
    changed = [path for path in common if path in rest and digests[id(pairs[path][0])] != digests[id(pairs[path][1])]]
    told = _measured(pairs, [*changed, *retyped], progress)
    close = {path for path in changed if _is_close(told[path], rtol)}
    renamed = _renamed(a, b, digests)
    moved_from, moved_to = {old for old, _ in renamed}, {new for _, new in renamed}
    return Diff(
        a.contents.file,
        b.contents.file,
        (a.contents.format, b.contents.format),
        equal=len(rest) - len(changed),
        close=len(close),
        changed=tuple(told[path] for path in changed if path not in close),
        retyped=tuple(told[path] for path in retyped),
        reshaped=tuple(_change(path, *pairs[path]) for path in reshaped),
        renamed=tuple(renamed),
        added=tuple(_one_sided(path, tensor) for path, tensor in b.tensors.items() if path not in a.tensors and path not in moved_to),
        removed=tuple(_one_sided(path, tensor) for path, tensor in a.tensors.items() if path not in b.tensors and path not in moved_from),
        values=_values(a.values, b.values, digests),
        metadata=_metadata(a.metadata, b.metadata, digests),
        rtol=rtol,
    )


def _is_close(change: Change, rtol: float | None) -> bool:
    return rtol is not None and change.relative is not None and change.relative <= rtol and not change.not_finite


def _one_sided(path: str, tensor: LazyTensor) -> OneSided:
    return OneSided(path, str(tensor.dtype), tensor.shape, tensor.nbytes)


def _change(path: str, a: LazyTensor, b: LazyTensor) -> Change:
    return Change(path, (str(a.dtype), str(b.dtype)), (a.shape, b.shape), b.spec.count)


def _measured(pairs: Mapping[str, tuple[LazyTensor, LazyTensor]], paths: Sequence[str], progress: Progress | None) -> dict[str, Change]:
    """The tensors at these paths with how far they are apart, where they are numbers."""
    told: dict[str, Change] = {}
    measurable: dict[str, tuple[LazyTensor, LazyTensor]] = {}
    for path in paths:
        a, b = pairs[path]
        told[path] = _change(path, a, b)
        one, other = numbers(a), numbers(b)
        if one is not None and other is not None:
            measurable[path] = one, other
    for (path, (_, tensor)), distance in zip(measurable.items(), distances(list(measurable.values()), progress), strict=True):
        at = None if distance.largest_at < 0 else tuple(map(int, np.unravel_index(distance.largest_at, tensor.shape)))
        facts = (distance.differing, distance.relative, distance.largest, at, distance.not_finite)
        told[path] = Change(path, told[path].dtypes, told[path].shapes, told[path].count, *facts)
    return told


def _renamed(a: _Side, b: _Side, digests: Mapping[int, bytes]) -> list[tuple[str, str]]:
    """Tensors that one file has under one path, and the other under another: same dtype, shape and bytes, in the order of the files."""
    gone: dict[tuple[str, bytes], list[str]] = {}
    for path, tensor in a.tensors.items():
        if path not in b.tensors and tensor.nbytes:
            gone.setdefault((str(tensor.spec), digests[id(tensor)]), []).append(path)
    for paths in gone.values():
        paths.reverse()
    found = []
    for path, tensor in b.tensors.items():
        waiting = gone.get((str(tensor.spec), digests[id(tensor)])) if path not in a.tensors else None
        if waiting:
            found.append((waiting.pop(), path))
    return found


def _values(a: Mapping[str, Tree], b: Mapping[str, Tree], digests: Mapping[int, bytes]) -> tuple[ValueChange, ...]:
    changes = []
    for path in [*a, *(path for path in b if path not in a)]:
        if path not in b:
            changes.append(ValueChange(path, _text(a[path]), None))
        elif path not in a:
            changes.append(ValueChange(path, None, _text(b[path])))
        elif not _alike(a[path], b[path], digests):
            before, after = _text(a[path]), _text(b[path])
            changes.append(ValueChange(path, before, after if after != before else f"another: {after}"))
    return tuple(changes)


def _metadata(a: Mapping[str, Any], b: Mapping[str, Any], digests: Mapping[int, bytes]) -> tuple[ValueChange, ...]:
    """Entry by entry: one that a file has alone as a whole, and down to the leaves of those that differ, for a vocabulary has many."""
    changes = []
    for key in [*a, *(key for key in b if key not in a)]:
        if key not in a or key not in b:
            changes.append(ValueChange(key, _text(a[key]) if key in a else None, _text(b[key]) if key in b else None))
        elif a[key] != b[key]:
            changes += _values(dict(walk({key: a[key]})), dict(walk({key: b[key]})), digests)
    return tuple(changes)


def _alike(one: Tree, other: Tree, digests: Mapping[int, bytes]) -> bool:
    if isinstance(one, Packed) and isinstance(other, Packed):
        return one.kind == other.kind and digests[id(one.tensor)] == digests[id(other.tensor)]
    if isinstance(one, Stub) and isinstance(other, Stub):
        return (one.module, one.name, one.made) == (other.module, other.name, other.made)
    return type(one) is type(other) and bool(one == other or (one != one and other != other))


def _text(value: Tree) -> str:
    if isinstance(value, Packed):
        return f"a {value.kind} of {value.tensor.shape[0]:,} {'bytes' if value.kind in ('str', 'bytes') else 'numbers'}"
    return brief(value, _TEXT)

"""Carrying: what of a file's contents a writer gets, and what is left behind, with the reason.

Lives here: selection, renaming and casts on the way from one format to another, and what no file of ours can keep. Lives elsewhere:
what a single format lacks (its writer).
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tensorkeep import plain
from tensorkeep.contents import Contents
from tensorkeep.dtypes import DType
from tensorkeep.errors import UnsupportedError
from tensorkeep.formats.casting import CastBytes, cast_of, is_real_float
from tensorkeep.selection import LEFT_OUT, Clash, Only, Rename, take
from tensorkeep.tensors import LazyTensor
from tensorkeep.transposing import Rules, Transpose, Transposed
from tensorkeep.tree import Captured, Packed, Stub, Tree, join, like, named_tensors, walk


class _Gone:
    """Stands where a node was that cannot be carried over."""


_GONE: Final = _Gone()
_NAMED: Final = 5  # tensors that one error names


@dataclass(slots=True)
class Carried:
    """What a writer gets.

    Attributes:
        tree: containers, plain values and tensors; no stubs.
        metadata: what the file said about itself.
        tensors: by path, each path once, in the order of the tree. Tied ones are the same object at each of their paths.
        renamed: paths of the file, and what became of them.
        sources: the tensors of the file from which they are made.
        casts: those tensors that change their dtype, by path.
        left_out: path and reason of what is not carried over; the writer adds to it what its format has no place for.
        objects: path and class of objects of the file, of which a dict of what they hold is carried over.
        notes: what is kept in another way than it was.
        versions: of frameworks, as the file says them.
    """

    tree: Tree
    metadata: Mapping[str, Any]
    tensors: dict[str, LazyTensor] = field(default_factory=dict)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    sources: list[LazyTensor] = field(default_factory=list)
    casts: dict[str, CastBytes] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    objects: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=dict)

    def distinct(self) -> Iterator[tuple[str, LazyTensor]]:
        """Each tensor once, at the first of its paths."""
        met: set[int] = set()
        for path, tensor in self.tensors.items():
            if id(tensor) not in met:
                met.add(id(tensor))
                yield path, tensor

    def leave_values_out(self, format: str) -> None:
        """For a format that holds nothing but tensors: whatever else there is stays behind."""
        for path, leaf in walk(self.tree):
            if isinstance(leaf, Packed):
                self.left_out.append((path, f"a long {leaf.kind}: {format} holds tensors alone"))
            elif not isinstance(leaf, LazyTensor):
                self.left_out.append((path, f"a plain value: {format} holds tensors alone"))

    def leave_metadata_out(self, format: str) -> None:
        self.left_out += [(f"metadata {key}", f"{format} has no place for metadata") for key in self.metadata]

    def say_copies(self, format: str) -> None:
        """For a format in which no two names share their bytes."""
        ties = len(self.tensors) - sum(1 for _ in self.distinct())
        if ties:
            names = "name shares" if ties == 1 else "names share"
            self.notes.append(f"{ties:,} {names} a tensor with another: {format} does not keep that, so each name has its own copy")

    def require(self, format: str, fits: Callable[[DType], bool], *, cast: str = "fp32", instead: str = "") -> None:
        """See that the target has every dtype.

        Args:
            format: as people call it.
            fits: tells of a dtype whether it has it.
            cast: the dtypes that floating-point numbers can be cast to for it.
            instead: another way out, before the usual ones.

        Raises:
            UnsupportedError: it lacks one; the error names the tensors.
        """
        lacking = [(path, tensor) for path, tensor in self.tensors.items() if not fits(tensor.dtype)]
        if lacking:
            found = ", ".join(sorted({str(tensor.dtype) for _, tensor in lacking}))
            names = ", ".join(path for path, _ in lacking[1:_NAMED])
            more = f" (so are {len(lacking) - 1:,} more: {names}{', ...' if len(lacking) > _NAMED else ''})" if len(lacking) > 1 else ""
            hint = instead + _way_out([tensor.dtype for _, tensor in lacking], cast)
            raise UnsupportedError(lacking[0][0], f"a tensor of {found:.200}, which {format} does not have{more:.600}", hint=hint)


def _way_out(lacking: list[DType], cast: str) -> str:
    """What to do about dtypes that the target lacks: cast what can be cast, unless more than that is in the way."""
    ways = [f"--dtype {cast}"] if any(map(is_real_float, lacking)) else []
    ways += ["--dequantize"] if any(dtype.block > 1 for dtype in lacking) else []
    if not ways or any(dtype.block == 1 and not is_real_float(dtype) for dtype in lacking):
        return "Leave it out with --only." if len(lacking) == 1 else "Leave them out with --only."
    return f"Pass {' and '.join(ways)}, or leave {'it' if len(lacking) == 1 else 'them'} out with --only."


def carry(
    contents: Contents, *, only: Only | None, rename: Rename | None, transpose: Transpose | None, dtype: DType | None, dequantize: bool
) -> Carried:
    """What is to be written of a file's contents.

    Raises:
        UnsupportedError: two tensors would get the same path, or one cannot be transposed.
    """
    try:
        tree, renamed = take(contents.tree, only, rename)
    except Clash as clash:
        raise UnsupportedError("rename=", str(clash).removeprefix("rename=: ")) from None
    if only is not None and not any(leaf is not LEFT_OUT for _, leaf in walk(tree)):
        raise ValueError(f"only={only!r:.200} takes nothing of {contents.file}")
    if transpose is not None:
        tree = Rules(transpose).apply(tree, renamed)
    carried = Carried(None, contents.told_of_model(), renamed=renamed, versions=contents.versions)
    carrier = _Carrier(carried, dtype, dequantize)
    kept = carrier.node(tree, "")
    carried.tree = {} if kept is _GONE else kept
    if carrier.scaled:
        integers = "tensor is" if carrier.scaled == 1 else "tensors are"
        carried.notes.append(f"{carrier.scaled:,} {integers} kept as integers, without their scale; --dequantize gives the numbers")
    carried.tensors = named_tensors(carried.tree)
    for name, tensor in carried.distinct():
        if isinstance(tensor.source, CastBytes):
            carried.casts[name] = tensor.source
    return carried


class _Carrier:
    """Walks over a tree, and makes the one that is carried over."""

    def __init__(self, carried: Carried, dtype: DType | None, dequantize: bool) -> None:
        self.carried, self.dtype, self.dequantize = carried, dtype, dequantize
        self.scaled = 0  # tensors whose integers stand for other numbers
        self.made: dict[int, tuple[LazyTensor, LazyTensor]] = {}  # by the id of the tensor before, which stays alive here

    def node(self, node: Tree, path: str) -> Tree:
        if node is LEFT_OUT:
            return _GONE
        if isinstance(node, LazyTensor):
            return self.tensor(node)
        if isinstance(node, Captured):
            state = self.node(node.state, path)
            return _GONE if state is _GONE else Captured(node.kind, node.cls, state)
        if isinstance(node, Stub):
            return self.stub(node, path)
        if isinstance(node, dict):
            fresh = like(node)
            for key, child in node.items():
                if (kept := self.node(child, join(path, key))) is not _GONE:
                    fresh[key] = kept
            return fresh
        if isinstance(node, (list, tuple, deque)):
            items = [self.node(child, join(path, number)) for number, child in enumerate(node)]
            kept = [None if child is _GONE else child for child in items]  # in its place: the paths behind it stay as they are
            return deque(kept, node.maxlen) if isinstance(node, deque) else tuple(kept) if isinstance(node, tuple) else kept
        if isinstance(node, (Packed, str, bytes, set, frozenset)):
            return node
        try:
            plain.encode(node)
        except plain.Refused as refused:
            self.carried.left_out.append((path, str(refused)))
            return _GONE
        return node

    def stub(self, stub: Stub, path: str) -> Tree:
        """An object of the file becomes a dict of what it holds; one that holds nothing is no data."""
        name = f"{stub.module}.{stub.name}" if stub.module else stub.name
        if not stub.fields:
            self.carried.left_out.append((path, f"an object of {name}" if stub.made else f"a reference to {name}"))
            return _GONE
        self.carried.objects.append((path, name))
        return self.node(dict(stub.fields), path)

    def tensor(self, tensor: LazyTensor) -> LazyTensor:
        if id(tensor) not in self.made:
            found: LazyTensor = tensor
            if self.dequantize and (tensor.dtype.block > 1 or tensor.scaling is not None):
                found = tensor.dequantized()
            elif tensor.scaling is not None:
                self.scaled += 1
            if self.dtype is not None and found.dtype != self.dtype and is_real_float(found.dtype):
                found = cast_of(found, self.dtype)
            self.made[id(tensor)] = tensor, found
            self.carried.sources.append(tensor.source.tensor if isinstance(tensor.source, Transposed) else tensor)
        return self.made[id(tensor)][1]

"""Transposing: kernels of one framework as another one lays them out.

Lives here: `transpose` on trees, the rules that have names, which axes lead from one shape to another, and the bytes of one such tensor.
Lives elsewhere: many of them at once (rearranged), whether they fit (matching).
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

import msgspec
import numpy as np

from tensorkeep.errors import UnsupportedError
from tensorkeep.selection import LEFT_OUT, Pattern, matcher_of, replaced
from tensorkeep.tensors import Array, LazyTensor, as_bytes, spec_of
from tensorkeep.tree import Tree

Axes = Sequence[int] | None
Transpose = str | Mapping[Pattern, Axes] | Sequence[tuple[Pattern, Axes]]
"""The name of a rule set, such as `torch->keras`; or patterns of paths, as in `rename`, and the axes of the file's tensor in the target's
order, None to leave it as it is. The first rule counts whose pattern is that of the tensor and whose axes are as many."""

CHANNELS_LAST: Final[Mapping[int, tuple[int, ...]]] = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}
"""By the number of axes: from (out, in, ...), where PyTorch has the kernels of all its layers, to (..., in, out)."""
CHANNELS_FIRST: Final[Mapping[int, tuple[int, ...]]] = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1), 5: (4, 3, 0, 1, 2)}
"""The way back."""

_KERNELS: Final = frozenset({"kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel"})
_BIAS: Final = "bias"
_COUNTER: Final = "num_batches_tracked"  # of PyTorch's batch norms; no other framework counts them
_MOST_AXES: Final = 5  # of tensors whose permutations are tried out for a hint


class RuleSet(NamedTuple):
    """Rules for the layers of two frameworks, of which one has its channels last and calls its kernels so.

    Attributes:
        axes: of a kernel, by how many it has.
        last_in_file: whether the file is of the framework with its channels last.
        slashes: whether the names of that framework have them.
    """

    axes: Mapping[int, tuple[int, ...]]
    last_in_file: bool
    slashes: bool


RULE_SETS: Final = {
    "torch->keras": RuleSet(CHANNELS_LAST, False, True),
    "torch->flax": RuleSet(CHANNELS_LAST, False, False),
    "keras->torch": RuleSet(CHANNELS_FIRST, True, True),
    "flax->torch": RuleSet(CHANNELS_FIRST, True, False),
}


class Transposed(msgspec.Struct, gc=False, eq=False):
    """The bytes of a tensor transposed.

    Attributes:
        tensor: as it stands in the file.
        seen_as: the shape that it is given before.
        axes: of that shape, in the new order.
        rules: the rule set that asked for it, which knows how to split and merge axes; None where a person named them.
    """

    whole: ClassVar = True

    tensor: LazyTensor
    seen_as: tuple[int, ...]
    axes: tuple[int, ...]
    rules: RuleSet | None = None

    def view(self) -> None:
        return None

    def read(self, start: int, stop: int) -> memoryview:
        return as_bytes(np.ascontiguousarray(self.turned(self.tensor.source.read(0, self.tensor.nbytes), 0)))[start:stop]

    def turned(self, buffer: "memoryview | bytearray | Array", offset: int) -> Array:
        """A view of the tensor's bytes in the new order of axes, its elements as they lie."""
        return np.ndarray(self.seen_as, element(self.tensor), buffer, offset).transpose(self.axes)


def element(tensor: LazyTensor) -> "np.dtype[Any]":
    """A type as wide as an element, which NumPy copies as it is."""
    nbytes = tensor.dtype.bits // 8
    return np.dtype(f"u{nbytes}") if nbytes in (1, 2, 4, 8) else np.dtype((np.void, nbytes))


def transposed(tensor: LazyTensor, axes: Sequence[int], rules: RuleSet | None = None, *, path: str = "") -> LazyTensor:
    """A tensor of a file with its axes in another order, made when it is read.

    Raises:
        UnsupportedError: its elements are smaller than a byte, or quantized together.
    """
    dtype = tensor.dtype
    if dtype.bits % 8 or dtype.block > 1 or tensor.scaling is not None:
        raise UnsupportedError(
            path or tensor.name, f"a tensor of {tensor.spec}, whose elements are packed or scaled together along an axis"
        )
    return _turned(tensor, tensor.shape, tuple(axes), rules)


def _turned(tensor: LazyTensor, seen_as: tuple[int, ...], axes: tuple[int, ...], rules: RuleSet | None) -> LazyTensor:
    spec = spec_of(tensor.dtype, tuple(seen_as[axis] for axis in axes))
    return LazyTensor(spec, Transposed(tensor, seen_as, axes, rules), tensor.framework, tensor.name)


class Rules:
    """`transpose` as a caller gave it, checked.

    Raises:
        ValueError: no rule set of that name, or axes that are no permutation.
        TypeError: neither a name nor patterns with axes.
    """

    def __init__(self, transpose: Transpose) -> None:
        self.given = transpose
        self.named: RuleSet | None = None
        self.rules = []
        if isinstance(transpose, str):
            self.named = RULE_SETS.get(transpose)
            if self.named is None:
                known = ", ".join(map(repr, RULE_SETS))
                raise ValueError(f"transpose={transpose!r:.80}: known are {known}, or patterns and axes, such as {{'*kernel': (1, 0)}}")
        else:
            self.rules = [(matcher_of(pattern, "transpose="), _axes(axes)) for pattern, axes in _pairs(transpose)]

    def apply(self, tree: Tree, renamed: Sequence[tuple[str, str]]) -> Tree:
        """The tree with what is to be transposed as it will be. Tied tensors that the rules treat alike stay so.

        Args:
            renamed: (path in the file, path in the tree): the patterns may be of either.

        Raises:
            ValueError: no rule is for any of its tensors.
            UnsupportedError: one cannot be transposed.
        """
        old = {new: before for before, new in renamed}
        made: dict[tuple[int, tuple[int, ...]], tuple[LazyTensor, LazyTensor]] = {}

        def turn(path: str, tensor: LazyTensor) -> Tree:
            paths = (path, old.get(path, path))
            if self.named is not None and not self.named.last_in_file and _last_name(paths[1]) == _COUNTER:
                return LEFT_OUT
            axes = self.axes_of(paths, len(tensor.shape))
            if axes is None:
                return tensor
            key = (id(tensor), axes)
            if key not in made:
                made[key] = tensor, transposed(tensor, axes, self.named, path=path)
            return made[key][1]

        tree = replaced(tree, turn)
        if not made and (self.named is not None or any(axes is not None for _, axes in self.rules)):
            what = "its layers call kernels `kernel`, and no tensor is called so" if self.named else "no rule is for any tensor"
            raise ValueError(f"transpose={self.given!r:.200} does nothing: {what}. Patterns are of paths in the file or in the target")
        return tree

    def axes_of(self, paths: tuple[str, ...], rank: int) -> tuple[int, ...] | None:
        """What to do with a tensor, by its paths and how many axes it has; None for nothing."""
        if self.named is not None:
            return named_axes(self.named, paths, rank)
        for matches, axes in self.rules:
            if (axes is None or len(axes) == rank) and any(map(matches, paths)):
                return axes
        return None


def named_axes(rules: RuleSet, paths: Sequence[str], rank: int) -> tuple[int, ...] | None:
    """What a rule set does with a tensor; None for nothing. The bias of an attention may have to be split."""
    names = set(map(_last_name, paths))
    if names & _KERNELS:
        return rules.axes.get(rank)
    return tuple(range(rank)) if _BIAS in names and rank == 1 + rules.last_in_file else None


def _last_name(path: str) -> str:
    return path.replace("/", ".").rpartition(".")[2]


def _pairs(transpose: Any) -> Iterator[tuple[Pattern, Any]]:
    if isinstance(transpose, Mapping):
        yield from transpose.items()
    elif isinstance(transpose, (list, tuple)) and all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in transpose):
        yield from transpose
    else:
        raise TypeError(f"transpose= takes the name of a rule set, or patterns and axes, found {transpose!r:.80}")


def _axes(axes: Any) -> tuple[int, ...] | None:
    if axes is None:
        return None
    if not isinstance(axes, (list, tuple)) or any(type(axis) is not int for axis in axes):
        raise TypeError(f"transpose=: axes are a tuple of whole numbers, such as (1, 0), or None, found {axes!r:.80}")
    if sorted(axes) != list(range(len(axes))):
        raise ValueError(f"transpose=: {axes!r:.80} does not name each axis from 0 to {len(axes) - 1} once")
    return tuple(axes)


def reshaped(found: LazyTensor, shape: tuple[int, ...]) -> LazyTensor | None:
    """A tensor that a rule set transposed, its axes split and merged so that it has a shape; None where that is no such shape.

    Attention and depthwise convolutions of Keras and Flax have two axes where PyTorch has one.
    """
    source = found.source
    if not isinstance(source, Transposed) or (rules := source.rules) is None:
        return None
    if not rules.last_in_file:
        return LazyTensor(spec_of(found.dtype, shape), source, found.framework, found.name) if _splits(found.shape, shape) else None
    axes = rules.axes.get(len(shape)) if len(shape) > 1 else (0,)
    if axes is None:
        return None
    before = tuple(shape[axes.index(axis)] for axis in range(len(axes)))
    return _turned(source.tensor, before, axes, rules) if _splits(source.tensor.shape, before) else None


def _splits(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether one shape is the other with axes split; of two axes each, that would be a layer of other channels."""
    if one == other:
        return True
    if (len(one) == len(other) and len(one) < 3) or math.prod(one) != math.prod(other) or 0 in one:
        return False
    ends, others = ({*itertools.accumulate(shape, int.__mul__)} - {1} for shape in (one, other))
    return ends <= others or others <= ends


def axes_between(found: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes that lead from one shape to another, the likeliest if there are several; None if it is not the same lengths."""
    rank = len(found)
    if not 1 < rank <= _MOST_AXES or sorted(found) != sorted(wanted):
        return None
    likely = [CHANNELS_LAST[rank], CHANNELS_FIRST[rank], tuple(range(rank))[::-1]]
    return next(
        axes for axes in itertools.chain(likely, itertools.permutations(range(rank))) if tuple(found[axis] for axis in axes) == wanted
    )


class Turned(NamedTuple):
    """A tensor of a file whose shape is the target's in another order."""

    path: str
    found: LazyTensor
    wanted: tuple[int, ...]


def hint(turned: Sequence[Turned]) -> str:
    """The rule set that would make the most of these fit, as a person would pass it, or ""."""
    best, fits = "", 0
    for name, rules in RULE_SETS.items():
        count = 0
        for path, found, wanted in turned:
            side = found.name if rules.last_in_file else path
            axes = named_axes(rules, (side,), len(found.shape))
            count += axes is not None and ("/" in side) == rules.slashes and tuple(found.shape[axis] for axis in axes) == wanted
        if count > fits:
            best, fits = name, count
    return f"transpose={best!r} fits {fits} of {len(turned)} that lie in another order" if best else ""


def left_square(path: str, source: LazyTensor) -> bool:
    """Whether a tensor goes as it is into a kernel, though its shape does not tell in which order its axes are."""
    return (
        len(source.shape) > 1
        and not isinstance(source.source, Transposed)
        and named_axes(RULE_SETS["torch->keras"], (path,), len(source.shape)) is not None
    )

"""Groups: the tensors of a checkpoint that lie in packs together, in order, cut into chunks.

Weights and the rest of a state are two groups, so that the rest can be given up by removing whole packs. Weights are whatever no adapter
captured as an optimizer's. In each group, order and grid are those of the model file.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from tensorkeep.chunks import CHUNK_BYTES, SMALL_BYTES, Grid
from tensorkeep.container import file_order
from tensorkeep.store.codecs import Kind, kind_of, kind_of_most
from tensorkeep.tensors import LazyTensor, TensorSpec
from tensorkeep.tree import Captured, Packed, Tree, like

WEIGHTS: Final = "weights"
REST: Final = "rest"
GROUPS: Final = (WEIGHTS, REST)

_OPTIMIZER: Final = ".optimizer"  # how the kinds of `Captured` end that adapters make of optimizers


def split(tree: Tree, named: dict[str, LazyTensor]) -> dict[str, dict[str, LazyTensor]]:
    """The tensors of each group, by path, in file order.

    Args:
        tree: of the state.
        named: its tensors, by the path under which they are kept.
    """
    rest = set(_of_optimizers(tree))
    groups: dict[str, dict[str, LazyTensor]] = {WEIGHTS: {}, REST: {}}
    for path, tensor in named.items():
        groups[REST if id(tensor) in rest else WEIGHTS][path] = tensor
    return {name: {path: group[path] for path in file_order({at: one.spec for at, one in group.items()})} for name, group in groups.items()}


def _of_optimizers(tree: Tree) -> Iterator[int]:
    """Ids of the tensors that belong to optimizers and to nothing else."""
    inside: dict[int, None] = {}
    outside: set[int] = set()
    _sort(tree, False, inside, outside)
    return (key for key in inside if key not in outside)


def _sort(node: Tree, optimizer: bool, inside: dict[int, None], outside: set[int]) -> None:
    if isinstance(node, (LazyTensor, Packed)):
        tensor = node if isinstance(node, LazyTensor) else node.tensor
        if optimizer:
            inside[id(tensor)] = None
        else:
            outside.add(id(tensor))
    elif isinstance(node, Captured):
        _sort(node.state, optimizer or _is_optimizer(node), inside, outside)
    elif isinstance(node, dict):
        for child in node.values():
            _sort(child, optimizer, inside, outside)
    elif isinstance(node, (list, tuple)) or hasattr(node, "maxlen"):
        for child in node:
            _sort(child, optimizer, inside, outside)


def _is_optimizer(node: Captured) -> bool:
    return node.kind.endswith(_OPTIMIZER)


def without(tree: Tree, gone: set[int]) -> Tree:
    """A tree without the optimizers that have lost tensors, as if they had not been saved: nobody shall go on with half of one.

    They are missing in dicts, and None in lists and alone.

    Args:
        gone: ids of the lost tensors.
    """
    left, _ = _without(tree, gone)
    return left


def _without(node: Tree, gone: set[int]) -> tuple[Tree, bool]:
    """What is left of a node, and whether it has lost something that takes the object around it along."""
    if isinstance(node, (LazyTensor, Packed)):
        return (None, True) if id(node if isinstance(node, LazyTensor) else node.tensor) in gone else (node, False)
    if isinstance(node, Captured):
        state, lost = _without(node.state, gone)
        return (None, lost) if lost and _is_optimizer(node) else (Captured(node.kind, node.cls, state), lost)
    if isinstance(node, dict):
        fresh, lost = like(node), False
        for key, child in node.items():
            left, its = _without(child, gone)
            lost |= its
            if left is not None or child is None:
                fresh[key] = left
        return fresh, lost
    if isinstance(node, (list, tuple, deque)):
        pairs = [_without(child, gone) for child in node]
        items = [left for left, _ in pairs]
        made = deque(items, node.maxlen) if isinstance(node, deque) else type(node)(items)
        return made, any(its for _, its in pairs)
    return node, False


class Cut(NamedTuple):
    """What a chunk is of.

    Attributes:
        kind: how to look at its bytes: of small tensors that share it, that of most.
        tensor: number of the tensor that has it alone; -1 for a chunk of small tensors.
        part: which of that tensor's chunks it is.
    """

    kind: Kind
    tensor: int
    part: int


def cuts_of(specs: list[TensorSpec], grid: Grid) -> list[Cut]:
    """What each chunk is of.

    Args:
        specs: of the group's tensors, in order.
        grid: of the group.
    """
    cuts: list[Cut] = []
    shared: list[tuple[str, int]] = []  # of the chunk of small tensors that is still open
    position = 0
    for number, spec in enumerate(specs):
        nbytes = spec.nbytes
        if nbytes == 0:
            continue
        if nbytes >= SMALL_BYTES:
            kind = kind_of(spec.dtype.name)
            cuts += [Cut(kind, number, part) for part in range(-(-nbytes // CHUNK_BYTES))]
        else:
            if grid.starts[len(cuts)] == position:
                cuts.append(Cut(Kind.BYTES, -1, 0))
                shared = []
            shared.append((spec.dtype.name, nbytes))
            if grid.starts[len(cuts)] == position + nbytes:
                cuts[-1] = Cut(kind_of_most(shared), -1, 0)
        position += nbytes
    return cuts

"""Assembling: what a reader found becomes Contents, alike for all formats.

Here every tensor gets its path, shapes and the number of values are held against the limits, what is shared is counted each time it is
met, and a tensor that would be larger than NumPy can hold is refused.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from tensorkeep.contents import Contents, Finding, Tensors
from tensorkeep.errors import FormatError
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.storage import ForeignStorage
from tensorkeep.tensors import LazyTensor, TensorSpec
from tensorkeep.tree import Captured, Names, Packed, Tree, children, join
from tensorkeep.wire.extent import Extent

_MAX_ARRAY_BYTES: Final = 2**63 - 1
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


def contents(
    peek: Peek,
    *,
    format: str,
    tree: Tree,
    metadata: Mapping[str, Any] | None = None,
    findings: Iterable[Finding] = (),
    left_out: Iterable[str] = (),
    version: str = "",
    writer: str = "",
    checked: Sequence[Extent] = (),
    views_unchecked: bool = False,
    of_file: Collection[str] = (),
) -> Contents:
    """The contents of a foreign file.

    Args:
        peek: what was read.
        format: as people call it: `PyTorch checkpoint`, `GGUF`.
        tree: the whole; its tensors get their names here. A flat dict of paths where the format is flat.
        metadata: what the file says about itself.
        findings: what would be dangerous when loaded the usual way, as far as reading has met it; `scan` looks further.
        left_out: what was not read, and why, a sentence each.
        version, writer: of the format, and who wrote it, if the file says so.
        checked: all extents with a checksum, where together they cover every byte that means something.
        views_unchecked: whether `load` gives views of the mapped file without comparing their checksums, as the true tool does.
        of_file: keys of the metadata that tell how the file is written.

    Raises:
        FormatError: a limit is passed, or the tree leads back to itself.
    """
    name = peek.name
    return Contents(
        name,
        format,
        tree,
        _named(tree, peek),
        ForeignStorage(name, peek.opened, verify=peek.verify, extents=checked, views_unchecked=views_unchecked),
        dict(metadata or {}),
        (0 if peek.is_folder else peek.opened[0].file.nbytes) + sum(peek.beside.values()),
        digests=False,
        findings=tuple(findings),
        left_out=tuple(left_out),
        version=version,
        writer=writer,
        checksum=checked[0].checksum.kind if checked and checked[0].checksum is not None else "",
        of_file=of_file,
    )


def _named(tree: Tree, peek: Peek) -> Tensors:
    """All tensors by path; each gets its own as its name, with `~2`, `~3` appended where it is taken or none."""
    limits = peek.limits
    found = Tensors()
    found.tree = tree
    names = Names()
    met: set[int] = set()
    open_ids: set[int] = set()
    count = path_bytes = 0
    most_path_bytes = limits.path_bytes + 16 * max(peek.nbytes, 1 << 20)
    checked: set[int] = set()  # specs by id, whose tensors keep them alive: many tensors have few

    def meet(tensor: LazyTensor, path: str) -> None:
        if id(tensor) not in met:
            met.add(id(tensor))
            spec = tensor.spec
            if id(spec) not in checked:
                _check(spec, path, peek)
                checked.add(id(spec))
            peek.budget.spend(spec.nbytes, path)
            tensor.name = names.free(path)
            found[tensor.name] = tensor

    def visit(node: Tree, path: str, depth: int) -> None:
        nonlocal count, path_bytes
        count += 1
        if count > limits.values:
            raise FormatError(peek.name, f"more than {limits.values:,} values, what is shared counted each time")
        while isinstance(node, Captured):
            node = node.state
        tensor = node.tensor if isinstance(node, Packed) else node
        if isinstance(tensor, LazyTensor):
            meet(tensor, path)
            return
        inside = children(node)
        if inside is None or (not node and not hasattr(node, "fields")):
            return
        if depth > limits.depth:
            raise FormatError(peek.name, f"{path:.200}: nested deeper than {limits.depth}")
        if id(node) in open_ids:
            raise FormatError(peek.name, f"{path:.200} leads back to itself")
        open_ids.add(id(node))
        for key, child in inside:
            if type(child) in _PLAIN:  # most of a long list; their paths are nobody's
                count += 1
                continue
            below = join(path, key)
            path_bytes += len(below)
            if path_bytes > most_path_bytes:
                raise FormatError(peek.name, f"its paths take more than {path_bytes:,} bytes together")
            if type(child) is LazyTensor:
                count += 1
                meet(child, below)
            else:
                visit(child, below, depth + 1)
        open_ids.discard(id(node))
        if count > limits.values:
            raise FormatError(peek.name, f"more than {limits.values:,} values, what is shared counted each time")

    visit(tree, "", 0)
    return found


def _check(spec: TensorSpec, path: str, peek: Peek) -> None:
    if len(spec.shape) > peek.limits.rank or any(length < 0 for length in spec.shape):
        raise FormatError(peek.name, f"{path:.200} has the shape {list(spec.shape)!r:.200}: at most {peek.limits.rank} lengths, from 0")
    least = 1
    for length in spec.shape:
        least *= length or 1
    if least * max(spec.dtype.bits, 8) // 8 > _MAX_ARRAY_BYTES:
        raise FormatError(peek.name, f"{path:.200} has the shape {list(spec.shape)!r:.200}, which no array can have")

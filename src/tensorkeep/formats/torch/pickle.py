"""A pickle of PyTorch, run by our own machine and made a tree: what its zip archives, its streams and its checkpoint folders share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tensorkeep.contents import Finding
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.torch.modules import Modules
from tensorkeep.formats.torch.rebuild import Rebuilder
from tensorkeep.tree import Tree
from tensorkeep.unpickle.arrays import NUMPY
from tensorkeep.unpickle.finish import finish
from tensorkeep.unpickle.inert import Constructor, Keyed
from tensorkeep.unpickle.machine import Result, run
from tensorkeep.unpickle.plain import PLAIN
from tensorkeep.wire.extent import Extent

_LIGHTNING: Final = "pytorch-lightning_version"


@dataclass(slots=True)
class Settled:
    """What a pickle has become.

    Attributes:
        tree: the whole.
        left_out: what it has beside the tree, a sentence each.
        metadata: of its modules and devices.
        findings: what other tools may read in another way.
    """

    tree: Tree
    left_out: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def run_pickle(
    peek: Peek, extent: Extent, rebuilder: Rebuilder, *, at: int = 0, extra: "Mapping[tuple[str, str], Constructor | Keyed] | None" = None
) -> Result:
    """Run one pickle with the constructors of Python, NumPy and PyTorch, and of `extra`."""
    table = {**PLAIN, **NUMPY, **rebuilder.table, **(extra or {})}
    return run(extent, table, at=at, limits=peek.limits, budget=peek.budget, persistent=rebuilder.persistent)


def settle(peek: Peek, value: object, rebuilder: Rebuilder, *, modules: bool = True) -> Settled:
    """The tree of what a pickle gave, its tensors told where their bytes are.

    Args:
        modules: whether whole modules become their states.
    """
    tree, cut = finish(value, file=peek.name, limits=peek.limits)
    settled = Settled(tree, [*cut])
    if modules:
        walk = Modules(peek.name)
        settled.tree = walk.settle(tree)
        settled.left_out += walk.left_out
        if walk.described:
            settled.metadata["modules"] = walk.described
    rebuilder.views.resolve()
    settled.left_out += rebuilder.left_out
    if rebuilder.sources:
        settled.left_out.append(f"the source code of {len(rebuilder.sources):,} classes, such as {next(iter(rebuilder.sources))}")
    devices = {name: count for name, count in rebuilder.devices.items() if name}
    if set(devices) - {"cpu"}:
        settled.metadata["devices"] = devices
    return settled


def format_of(tree: Tree) -> str:
    """What people call a checkpoint with this in it."""
    return "Lightning checkpoint" if isinstance(tree, dict) and _LIGHTNING in tree else "PyTorch checkpoint"


def trailing(peek: Peek, nbytes: int, what: str) -> list[Finding]:
    """A finding where bytes follow that the true tool passes over, and which may be anything."""
    return [Finding("unknown", peek.name, f"{nbytes:,} bytes stand behind {what}")] if nbytes else []

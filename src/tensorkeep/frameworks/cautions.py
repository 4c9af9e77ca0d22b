"""Cautions: what a load has to say of the frameworks on both sides, though nothing disagrees."""

from collections.abc import Sequence
from typing import Final

from tensorkeep.contents import Contents
from tensorkeep.errors import TensorkeepWarning, escaped, shown, warn
from tensorkeep.frameworks import versions
from tensorkeep.matching import Copy, Matcher
from tensorkeep.transposing import left_square
from tensorkeep.tree import Tree

_SAID: Final = 5  # of what adapters say


def warn_of_what_fits(matcher: Matcher, file: str, *, as_it_lies: bool) -> None:
    """Say once what may be wrong though all of it fitted.

    Which tensors of PyTorch went as they are into kernels of a framework that has inputs first, for shapes alone do not tell; and what
    adapters had to say.
    """
    said = matcher.cautions[:_SAID]
    if len(matcher.cautions) > _SAID:
        said.append(f"... and {len(matcher.cautions) - _SAID:,} more")
    if as_it_lies and (paths := [copy.path for copy in matcher.copies if _may_lie_otherwise(copy)]):
        said.append(
            f"{file} was saved from PyTorch, which has outputs first in a kernel, and {_named(paths)} took theirs as it is: "
            "the shape fits either way. Pass transpose='torch->keras' or 'torch->flax' to turn them, or transpose={} if they lie right"
        )
    if said:
        warn(TensorkeepWarning("\n".join(said)))


def warn_of_versions(tree: Tree, contents: Contents, *, into_models: bool) -> None:
    """Say once what is known to mean something else in the versions that are imported here."""
    if said := versions.cautions(tree, contents, into_models=into_models):
        text = f"{contents.file} was saved with other versions. " + "; ".join(said)
        warn(TensorkeepWarning(escaped(text)))


def _may_lie_otherwise(copy: Copy) -> bool:
    return copy.source.framework == "torch" != copy.target.framework and left_square(copy.path, copy.source)


def _named(paths: Sequence[str]) -> str:
    return ", ".join(map(shown, paths[:3])) + (f" and {len(paths) - 3:,} more" if len(paths) > 3 else "")

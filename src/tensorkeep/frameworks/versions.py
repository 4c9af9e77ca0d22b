"""Versions: of the frameworks whose objects stand in a file, and what is known to mean something else in another one.

The table is closed and short: what only looks otherwise is an error anyway, and PyTorch's modules migrate their own states. It holds what
would load, fit, and then not be what it was. scikit-learn is not in it: of its models every version may be another (`sklearn`).
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Final, NamedTuple

from msgspec import Meta

from tensorkeep.contents import Contents
from tensorkeep.tree import Captured, Tree, children

PACKAGES: Final = frozenset(
    {"equinox", "flax", "haiku", "jax", "keras", "lightgbm", "optax", "peft", "sklearn", "torch", "torchao", "transformers", "xgboost"}
)
"""Those whose version is kept, where a class of theirs, or one derived from it, is met."""

LONGEST: Final = 200  # characters of a name or a version, and how many of them a file may have
Text = Annotated[str, Meta(max_length=LONGEST)]
Versions = Annotated[dict[Text, Text], Meta(max_length=LONGEST)]
"""What a file says of versions, by package: some short texts."""

_ALIASES: Final = {"jaxlib": "jax"}
_NUMBER: Final = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?(?:\.(\d{1,9}))?")
_BY_KERAS: Final = re.compile(r"Keras ([\d.]{1,20})\S*(?: \((\w{1,20})\))?")


def of_types(types: Iterable[type]) -> dict[str, str]:
    """The versions of the packages that these classes, or bases of theirs, are defined in; by name, in order."""
    met = {base.__module__.partition(".")[0] for cls in types for base in cls.__mro__}
    found = {}
    for package in sorted({_ALIASES.get(package, package) for package in met} & PACKAGES):
        version = getattr(sys.modules.get(package), "__version__", None)
        if isinstance(version, str) and len(version) <= LONGEST:
            found[package] = str(version)
    return found


class Change(NamedTuple):
    """Something that means another thing from a version on.

    Attributes:
        package: whose version counts.
        since: the first version with the new meaning.
        concerns: tells of a tree whether it holds such a thing.
        says: what it is.
        of_models: whether only a model that is there can be otherwise, not the values alone.
    """

    package: str
    since: tuple[int, int, int]
    concerns: Callable[[Tree], bool]
    says: str
    of_models: bool = False


def _holds(*kinds: str) -> Callable[[Tree], bool]:
    return lambda tree: any(kind in kinds for kind in _kinds(tree))


CHANGES: Final = (
    Change("jax", (0, 5, 0), _holds("jax.key"), "from the same random key it draws other numbers (jax_threefry_partitionable)"),
    Change(
        "keras",
        (3, 0, 0),
        lambda tree: True,
        "layers of the same name may compute otherwise: batch normalization, masks, dropout seeds",
        of_models=True,
    ),
)
"""Sources: JAX's change log, 0.5.0; keras-team/keras, issues 18467 and 19649."""


def cautions(tree: Tree, contents: Contents, *, into_models: bool) -> list[str]:
    """What to say of the versions that a file was saved with, and of those that are imported here.

    Args:
        tree: what is loaded of it.
        into_models: whether there is a target, or something is built.
    """
    saved = _of_file(contents)
    said = []
    for change in CHANGES:
        there, here = (_number(versions.get(change.package)) for versions in (saved, _here()))
        if change.of_models and not into_models:
            continue
        if there is not None and here is not None and (there < change.since) != (here < change.since) and change.concerns(tree):
            said.append(f"{change.package} was {saved[change.package]}, and is {_here()[change.package]}: {change.says}")
    if (match := _BY_KERAS.fullmatch(contents.writer)) is not None and match[2] == "theano" and into_models:
        said.append("Keras ran on Theano, whose convolutions turn their kernels back to front: turn the spatial axes of each")
    return said


def _here() -> dict[str, str]:
    return {package: str(getattr(sys.modules[package], "__version__", "")) for package in PACKAGES & sys.modules.keys()}


def _of_file(contents: Contents) -> Mapping[str, str]:
    match = None if contents.versions else _BY_KERAS.fullmatch(contents.writer)
    return contents.versions if match is None else {"keras": match[1]}


def _number(version: str | None) -> tuple[int, int, int] | None:
    match = _NUMBER.match(version or "")
    return None if match is None else (int(match[1]), int(match[2] or 0), int(match[3] or 0))


def _kinds(tree: Tree) -> Iterator[str]:
    if isinstance(tree, Captured):
        yield tree.kind
        yield from _kinds(tree.state)
    else:
        for _, child in children(tree) or ():
            yield from _kinds(child)

"""The table of adapters: which one captures an object, without importing what the user has not imported."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from tensorkeep import extras
from tensorkeep.frameworks.protocols import Adapter, Arrays, Making
from tensorkeep.tree import Tree


@dataclass(frozen=True, slots=True)
class Row:
    """One adapter.

    Attributes:
        name: of its file here.
        packages: where a class of it, or a base of it, is defined; empty for those that go by what an object can do.
        arrays: whether it has tensors of its own.
        registers: whether classes of any package may be registered with it: it is asked of every object, once it is imported.
        makes: whether it builds its objects when asked, as `Making` says.
        recognizes: whether files by others may be objects of it, which its `found_in` tells.
        hint: what to do where it is installed and lacks something itself.
    """

    name: str
    packages: tuple[str, ...]
    arrays: bool = False
    registers: bool = False
    makes: bool = False
    recognizes: bool = False
    hint: str = ""


ROWS: Final = (
    Row("numpy", ("numpy", "ml_dtypes"), arrays=True),
    Row("torch", ("torch",), arrays=True),
    Row("keras", ("keras",), makes=True, recognizes=True, hint="Set KERAS_BACKEND to one that is installed: torch, jax or tensorflow."),
    Row("rng", ("numpy", "random")),
    Row("sklearn", ("sklearn", "xgboost", "lightgbm"), makes=True),
    Row("scipy", ("scipy",)),
    Row("stateful", ()),
    Row("jax", ("jax", "jaxlib", "flax"), arrays=True, registers=True),
    Row("records", ()),
)

_BY_PACKAGE: Final = {package: [row for row in ROWS if package in row.packages] for row in ROWS for package in row.packages}
_BY_ABILITY: Final = [row for row in ROWS if not row.packages or row.registers]


def _adapter(row: Row) -> Adapter:
    adapter: Adapter = importlib.import_module(f"tensorkeep.frameworks.{row.name}").ADAPTER
    return adapter


def find(obj: object) -> Adapter | None:
    """The adapter of an object, found by the modules of all classes in its MRO; None for plain values."""
    for cls in type(obj).__mro__:
        for row in _BY_PACKAGE.get(cls.__module__.partition(".")[0], ()):
            adapter = _adapter(row)
            if adapter.owns(obj):
                return adapter
    for row in _BY_ABILITY:
        if not _present(row):
            continue
        adapter = _adapter(row)
        if adapter.owns(obj):
            return adapter
    return None


def of_kind(kind: str, *, present_only: bool = True) -> Adapter | None:
    """The adapter that makes a kind of `Captured`; None for an unknown kind, or a framework that is not imported in this process."""
    name = kind.partition(".")[0]
    for row in ROWS:
        if row.name == name and (not present_only or _present(row)):
            return _adapter(row)
    return None


def making(kind: str, asked: str | None, *, filling: bool) -> Making | None:
    """The adapter that builds the object of a kind of `Captured`, where one was asked for; else None.

    Args:
        asked: the framework whose objects the caller wants.
        filling: whether the object is to go into one of the caller's.
    """
    name = kind.partition(".")[0]
    for row in ROWS:
        if row.makes and row.name == name and (filling or name == asked):
            extras.require(row.name, extra=row.name, hint=row.hint)
            return cast(Making, _adapter(row))
    return None


def found_in(tree: Tree, metadata: Mapping[str, Any], asked: str) -> Tree:
    """A tree, as a node of the framework that was asked for where a file by others is one object of it."""
    for row in ROWS:
        if row.name == asked and row.recognizes:
            extras.require(row.name, extra=row.name, hint=row.hint)
            found: Tree = cast(Any, _adapter(row)).found_in(tree, metadata)
            return found
    return tree


def check_asked(framework: str) -> None:
    """Refuse a framework whose objects nothing here builds.

    Raises:
        ValueError: it is none of them.
    """
    known = [row.name for row in ROWS if row.makes]
    if framework not in known:
        raise ValueError(f"build={framework!r}: known are {', '.join(known)}")


def arrays(framework: str, *, forced: bool = False) -> Arrays | None:
    """How to make a framework's tensors; None if it is not imported in this process, unless `forced`.

    Raises:
        ValueError: forced, and no framework of that name has tensors.
        MissingExtraError: forced, and it is not installed.
    """
    for row in ROWS:
        if row.arrays and row.name == framework and (forced or _present(row)):
            made: Arrays = importlib.import_module(f"tensorkeep.frameworks.{row.name}").ARRAYS
            return made
    if forced:
        known = ", ".join(row.name for row in ROWS if row.arrays)
        raise ValueError(f"framework={framework!r}: known are {known}")
    return None


def _present(row: Row) -> bool:
    """Whether the user has imported the framework; the adapters of Python and NumPy are always there."""
    return row.packages in ((), ("numpy", "ml_dtypes"), ("numpy", "random")) or any(package in sys.modules for package in row.packages)

"""The table of adapters: which one captures an object, without importing what the user has not imported."""

import importlib
import sys
from dataclasses import dataclass
from typing import Final

from tensorkeep.frameworks.protocols import Adapter, Arrays


@dataclass(frozen=True, slots=True)
class Row:
    """One adapter.

    Attributes:
        name: of its file here.
        packages: where a class of it, or a base of it, is defined; empty for those that go by what an object can do.
        arrays: whether it has tensors of its own.
    """

    name: str
    packages: tuple[str, ...]
    arrays: bool = False


ROWS: Final = (
    Row("numpy", ("numpy", "ml_dtypes"), arrays=True),
    Row("torch", ("torch",), arrays=True),
    Row("rng", ("numpy", "random")),
    Row("stateful", ()),
    Row("records", ()),
)

_BY_PACKAGE: Final = {package: [row for row in ROWS if package in row.packages] for row in ROWS for package in row.packages}
_BY_ABILITY: Final = [row for row in ROWS if not row.packages]


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

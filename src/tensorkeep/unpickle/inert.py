"""Inert things: what stands on the machine's stack in place of classes, functions and the objects that they would make.

Nothing here was imported, and nothing can be called. `finish` turns them into nodes of a tree.
"""

from collections.abc import Callable
from typing import Any, Final, Literal

from tensorkeep.wire.budget import Budget
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent

LUMP_BYTES: Final = 64 << 10  # byte strings from here on stay where they lie in the file


class Global:
    """A class or function that a pickle names.

    Attributes:
        module, name: as the file names it; the name may have dots.
        constructor: what this package makes instead when it is called; None for most.
    """

    __slots__ = ("constructor", "module", "name")

    def __init__(self, module: str, name: str, constructor: "Constructor | Keyed | None" = None) -> None:
        self.module, self.name, self.constructor = module, name, constructor

    def __repr__(self) -> str:
        return f"<{self.module}.{self.name}>"


class Inert:
    """An object that a pickle would have made by calling something.

    Attributes:
        module, name: of what would have been called; what a call gave and is called itself has `(...)` behind its name.
        args, kwargs: what it would have been called with.
        states: what it would have been given as its state, each time; mostly once.
        items: what would have been appended to it.
        entries: what would have been set in it by key.
        callee: the object that would have been called, where that is none that the file names.
    """

    __slots__ = ("args", "callee", "entries", "items", "kwargs", "module", "name", "states")

    def __init__(self, module: str, name: str, args: tuple[Any, ...] = (), callee: "Inert | None" = None) -> None:
        self.module, self.name, self.args, self.callee = module, name, args, callee
        self.kwargs: dict[Any, Any] | None = None
        self.states: list[Any] | None = None
        self.items: list[Any] | None = None
        self.entries: dict[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<inert {self.module}.{self.name}>"


def instance_of(cls: object, args: tuple[Any, ...]) -> Inert:
    """What calling a class that is not made here would give: a class that the file names, or one that a call would give.

    Raises:
        TypeError: it is neither.
    """
    if type(cls) is Global:
        return Inert(cls.module, cls.name, args)
    if type(cls) is Inert:
        return Inert(cls.module, f"{cls.name.removesuffix('(...)')}(...)", args, cls)
    raise TypeError(f"a {type(cls).__name__} as a class")


class Pending:
    """An object that is not ready when it is made: its state comes later, and `value` is asked at the end."""

    __slots__ = ()

    def build(self, state: Any) -> object | None:
        """Take the state that BUILD gives.

        Args:
            state: raw: it may hold pending and inert objects.

        Returns:
            what takes its place on the stack, or None.
        """
        raise NotImplementedError

    def value(self) -> object:
        """What it has become."""
        raise NotImplementedError


class Followed(Pending):
    """One whose bytes follow in the stream behind its state, outside of the pickle."""

    __slots__ = ()

    def build_before(self, state: Any, cursor: Cursor) -> object | None:
        """Take the state that BUILD gives, and pass over what follows.

        Args:
            state: as for `build`.
            cursor: right behind the opcode; it is moved behind the bytes.

        Returns:
            what takes its place on the stack, or None.
        """
        raise NotImplementedError


class Lump:
    """A long byte string that was not read: it knows where it lies.

    Attributes:
        extent: its bytes.
        kind: `bytes`, `bytearray`, or `str` for a text of Python 2, which is bytes.
    """

    __slots__ = ("_budget", "extent", "kind")

    def __init__(self, extent: Extent, kind: Literal["bytes", "bytearray", "str"], budget: Budget) -> None:
        self.extent, self.kind, self._budget = extent, kind, budget

    def value(self) -> bytes | bytearray | str:
        """The value itself, read each time."""
        self._budget.spend(self.extent.nbytes, f"a {self.kind}")
        data = self.extent.read()
        return bytearray(data) if self.kind == "bytearray" else bytes(data) if self.kind == "bytes" else str(data, "latin-1")

    def __repr__(self) -> str:
        return f"<{self.kind} of {self.extent.nbytes:,} bytes>"


Constructor = Callable[[tuple[Any, ...]], object]
"""Makes pure data, a `LazyTensor`, a `Pending` or an `Inert` of the arguments of a call. Raises TypeError or ValueError for wrong ones."""


class Keyed:
    """A constructor that hashes what it is given: it gets the machine's `Keys` too, which know what may be hashed."""

    __slots__ = ("make",)

    def __init__(self, make: "Callable[[tuple[Any, ...], Any], object]") -> None:
        self.make = make

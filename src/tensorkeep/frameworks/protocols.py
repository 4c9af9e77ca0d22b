"""What an adapter is.

An adapter knows one framework. It is found by the modules of all classes in an object's MRO, so nothing is imported that the user has
not imported. The loader, not the adapter, matches names, checks shapes and dtypes, copies bytes and reports mismatches.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tensorkeep.matching import Matcher, Result
from tensorkeep.tensors import Array, TensorSpec
from tensorkeep.tree import Captured, Tree


class Adapter(Protocol):
    """One framework's objects.

    Attributes:
        name: as it stands in the table.
        kinds: the kinds of `Captured` that this adapter makes.
    """

    name: str
    kinds: frozenset[str]

    def owns(self, obj: object) -> bool:
        """Whether this adapter captures the object."""

    def capture(self, obj: Any) -> Tree:
        """One level: a LazyTensor over live memory, or a Captured whose state may hold further objects. No copies."""

    def rebuild(self, node: Captured, state: Any, types: Mapping[str, type]) -> object:
        """What `load` gives without a target: the object where it is a value, else the plain state."""

    def plan(self, target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
        """Match a state of the file with an object, through the matcher. Changes nothing."""


Build = Callable[["memoryview | Array", int, TensorSpec], object]
"""Makes a tensor over bytes that were `Placed`, in a buffer from an offset on, without a copy where the device allows."""


class Arrays(Protocol):
    """One framework's tensors; an adapter without tensors of its own has none."""

    def builder(self, device: str | None) -> Build:
        """What makes the framework's tensors on a device; None for the host."""

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
    """One framework's objects. One that keeps more than a target is matched with has a `capture_target` too, which leaves that out.

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


class Making(Adapter, Protocol):
    """An adapter that can build its objects themselves from a file: all of one at once, when the caller asks, never otherwise."""

    def build(
        self,
        node: Captured,
        inside: Callable[[Tree], Any],
        types: Mapping[str, Any],
        once: Callable[[Warning], None],
        fill: Callable[[Any, Captured], None],
    ) -> object:
        """The object of a node.

        Args:
            node: as the file has it, its tensors not read yet. `node.extra` is what `plan` gave it, for an object that is to be filled.
            inside: builds a part of the tree, around arrays of NumPy.
            types: classes and functions that may come back as themselves, by `__qualname__`.
            once: gives a warning, but the first of its class alone, however many objects the load has.
            fill: fills an object that was made without its values with those of a node, as `into=` would.
        """


Build = Callable[["memoryview | bytearray | Array", int, TensorSpec], object]
"""Makes a tensor over bytes that were `Placed`, in a buffer from an offset on, without a copy where the device allows."""


class Arrays(Protocol):
    """One framework's tensors; an adapter without tensors of its own has none."""

    def builder(self, device: str | None, *, kept: bool = False) -> Build:
        """What makes the framework's tensors on a device; None for the host.

        Args:
            kept: they become parts of a target: they are to lie in memory as the framework's own do.
        """

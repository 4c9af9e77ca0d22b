"""Materializing: parameters and buffers without memory (the meta device) get the file's tensors.

The tensor object stays the same where PyTorch can exchange what is behind it, so an optimizer over it, and ties, stay right.
"""

from typing import Any

import torch

from tensorkeep.frameworks.torch.tensors import DTYPE_OF, TORCH_OF, as_tensor, converted
from tensorkeep.matching import Matcher, Step
from tensorkeep.report import Problem
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Tree


class Materializing:
    """Those of one module tree. Tied ones, which are one object, are made once, from whichever name the file has."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.found: dict[int, Any] = {}  # by id of the tensor without memory
        self.places: dict[int, list[tuple[Any, str]]] = {}
        self.absent: list[tuple[Any, Tree, str]] = []

    def missing(self, tensor: Any, target: Tree, path: str) -> None:
        """The file has nothing under this name; it may have something under that of a tied one."""
        self.absent.append((tensor, target, path))

    def settle(self) -> None:
        """Report what no other name made up for."""
        for tensor, target, path in self.absent:
            if id(tensor) not in self.found:
                self.matcher.missing(target, path)

    def plan(self, module: Any, name: str, tensor: Any, target: Tree, path: str, found: Any) -> None:
        """Plan the making of one: from a tensor of the file, or one that the module's own code made."""
        problem = self._unfit(tensor, target, path, found)
        if problem is not None:
            self.matcher.problems.append(problem)
            return
        self.places.setdefault(id(tensor), []).append((module, name))
        if id(tensor) in self.found:
            return
        self.found[id(tensor)] = found
        loaded = self.matcher.value(found) if isinstance(found, LazyTensor) else lambda: found
        exchanged: list[Any] = []

        def apply() -> None:
            made = _parameter_like(tensor, self._value(loaded(), tensor, found, path))
            try:
                _swap(tensor, made)
                exchanged.append(made)
            except RuntimeError:  # something else refers to it: then each place gets the new one
                for place, slot in self.places[id(tensor)]:
                    setattr(place, slot, made)  # some modules keep lists of their own

        def undo() -> None:
            for made in exchanged:
                _swap(tensor, made)
            for place, slot in self.places[id(tensor)]:
                setattr(place, slot, tensor)

        # First: an optimizer makes its state where its parameters are.
        self.matcher.steps.insert(0, Step(path, apply, undo))

    def _unfit(self, tensor: Any, target: Tree, path: str, found: Any) -> Problem | None:
        if isinstance(found, torch.Tensor):
            same = found.shape == tensor.shape
            return None if same else Problem("shape", path, str(list(found.shape)), str(list(tensor.shape)))
        if not isinstance(found, LazyTensor):
            return Problem("kind", path, "no tensor", "a tensor")
        other = self.found.get(id(tensor))
        if isinstance(other, LazyTensor) and other is not found and other.tobytes() != found.tobytes():
            return Problem("tied", path, f"{found.name} unlike {other.name}", "one tensor, for the target ties these places")
        return self.matcher.unfit(target, found, path, check_obstacle=False) if isinstance(target, LazyTensor) else None

    def _value(self, value: Any, tensor: Any, found: Any, path: str) -> Any:
        """The file's value as a tensor of the right dtype, in memory of its own."""
        if not isinstance(found, LazyTensor):
            return value.to(tensor.dtype)
        if TORCH_OF.get(found.dtype.name) is tensor.dtype:
            return value if isinstance(value, torch.Tensor) else as_tensor(value, found.dtype)
        return converted(found, DTYPE_OF[tensor.dtype], path, self.matcher)


def _swap(tensor: Any, other: Any) -> None:
    torch.utils.swap_tensors(tensor, other)  # type: ignore[no-untyped-call]  # PyTorch's own omission


def _parameter_like(tensor: Any, value: Any) -> Any:
    if not isinstance(tensor, torch.nn.Parameter):
        return value
    return torch.nn.Parameter(value, requires_grad=tensor.requires_grad)

"""PyTorch: tensors of every kind, modules, optimizers, generators; and its small values (dtype, device, size).

Schedulers, gradient scalers and the like are `stateful`: they have `state_dict` and `load_state_dict`, and nothing more is asked.
"""

from collections.abc import Mapping
from typing import Any, Final

import torch

from tensorkeep.frameworks.stateful import state_of
from tensorkeep.frameworks.torch import composed, contexts, generators, modules, optimizers, tensors
from tensorkeep.frameworks.torch.tensors import TorchArrays
from tensorkeep.matching import Matcher, Result
from tensorkeep.tree import Captured, Tree

_DTYPES: Final = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_KINDS: Final = "module optimizer sparse subclass dtype device size generator constant reference"


class TorchAdapter:
    """Everything whose class, or a base of it, PyTorch defines."""

    name = "torch"
    kinds = frozenset(
        {
            f"torch.{kind}"
            for kind in ("module", "optimizer", "sparse", "subclass", "dtype", "device", "size", "generator", "constant", "reference")
        }
    )

    def owns(self, obj: object) -> bool:
        return isinstance(
            obj, (torch.Tensor, torch.nn.Module, torch.optim.Optimizer, torch.Generator, torch.dtype, torch.device, torch.Size)
        )

    def capture(self, obj: Any) -> Tree:
        if isinstance(obj, torch.Tensor):
            return tensors.capture(obj)
        cls = type(obj).__qualname__
        if isinstance(obj, torch.nn.Module):
            return Captured("torch.module", cls, obj.state_dict(), origin=obj)
        if isinstance(obj, torch.optim.Optimizer):
            return Captured("torch.optimizer", cls, state_of(obj), origin=obj)
        if isinstance(obj, torch.Generator):
            return Captured("torch.generator", str(obj.device), obj.get_state(), origin=obj)
        if isinstance(obj, torch.Size):
            return Captured("torch.size", cls, [int(length) for length in obj], origin=obj)
        return Captured(f"torch.{cls}", cls, str(obj).removeprefix("torch."), origin=obj)

    def rebuild(self, node: Captured, state: Any, types: Mapping[str, type]) -> object:
        """Values come back as themselves; modules and optimizers as what their own `load_state_dict` takes.

        Raises:
            ValueError: the state does not make such a value.
        """
        kind = node.kind.removeprefix("torch.")
        try:
            if kind == "sparse":
                return composed.rebuild_sparse(node.cls, state)
            if kind == "subclass":
                return composed.rebuild_subclass(node.cls, state, types)
            if node.kind in (contexts.CONSTANT, contexts.REFERENCE):
                return contexts.rebuild(node, state, types)
            if kind == "dtype":
                return _DTYPES[state]
            if kind == "device":
                if not isinstance(state, str) or generators.DEVICE.fullmatch(state) is None:
                    raise ValueError(f"{state!r:.40} is no device")
                return torch.device(state)
            if kind == "size":
                return torch.Size(state)
            if kind == "generator":
                return generators.rebuild(node.cls, state)
        except (KeyError, TypeError, RuntimeError, AttributeError) as error:
            raise ValueError(f"no {kind} in it: {error}") from error
        return state

    def plan(self, target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
        kind = target.kind.removeprefix("torch.")
        if kind == "module":
            return modules.plan(target, state, path, matcher)
        if kind == "optimizer":
            return optimizers.plan(target, state, path, matcher)
        if kind == "sparse":
            return composed.plan_sparse(target, state, path, matcher)
        if kind == "subclass":
            return composed.plan_subclass(target, state, path, matcher)
        if kind == "generator":
            return generators.plan(target, state, path, matcher)
        if not _is_value(kind, state):
            matcher.other_kind(state, path, f"a torch.{kind.capitalize() if kind == 'size' else kind}")
            return lambda: target.origin
        return matcher.value(Captured(target.kind, target.cls, state))


def _is_value(kind: str, state: Tree) -> bool:
    """Whether such a small value can be made of it."""
    if kind == "size":
        return isinstance(state, (list, tuple)) and all(type(length) is int for length in state)
    if kind == "dtype":
        return isinstance(state, str) and state in _DTYPES
    return kind != "device" or (isinstance(state, str) and generators.DEVICE.fullmatch(state) is not None)


ADAPTER: Final = TorchAdapter()
ARRAYS: Final = TorchArrays()

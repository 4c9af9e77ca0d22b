"""PyTorch: tensors of every kind, modules, optimizers, generators; and its small values (dtype, device, size).

Schedulers, gradient scalers and the like are `stateful`: they have `state_dict` and `load_state_dict`, and nothing more is asked.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import torch

from tensorkeep.frameworks.stateful import state_of
from tensorkeep.frameworks.torch import composed, modules, optimizers, tensors
from tensorkeep.frameworks.torch.tensors import TorchArrays
from tensorkeep.matching import Matcher, Result, Step
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Tree

_DEVICE: Final = re.compile(r"[a-z]{1,16}(:[0-9]{1,4})?")
_DTYPES: Final = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


class TorchAdapter:
    """Everything whose class, or a base of it, PyTorch defines."""

    name = "torch"
    kinds = frozenset({f"torch.{kind}" for kind in ("module", "optimizer", "sparse", "subclass", "dtype", "device", "size", "generator")})

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
            if kind == "dtype":
                return _DTYPES[state]
            if kind == "device":
                if not isinstance(state, str) or _DEVICE.fullmatch(state) is None:
                    raise ValueError(f"{state!r:.40} is no device")
                return torch.device(state)
            if kind == "size":
                return torch.Size(state)
            if kind == "generator":
                return _generator(node.cls, state)
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
            return _plan_generator(target, state, matcher, path)
        return matcher.value(Captured(target.kind, target.cls, state))


def _generator(device: str, state: Any) -> Any:
    """A generator on its device; its bare state where there is no such device."""
    if not isinstance(state, torch.Tensor) or _DEVICE.fullmatch(device) is None:
        return state
    try:
        made = torch.Generator(device=device)
    except RuntimeError:
        return state
    made.set_state(state.cpu())
    return made


def _plan_generator(target: Captured, state: Tree, matcher: Matcher, path: str) -> Result:
    obj: Any = target.origin
    try:  # on another one first: so what is no state is refused before anything is changed
        probe = torch.Generator(device=obj.device)
        probe.set_state(_as_state(matcher.read(state) if isinstance(state, LazyTensor) else None))
    except (RuntimeError, TypeError) as error:
        matcher.problem("kind", path, "no state of such a generator", str(error))
        return lambda: obj
    loaded = matcher.value(state)
    former: list[Any] = []

    def apply() -> None:
        former.append(obj.get_state())
        obj.set_state(_as_state(loaded()))

    matcher.steps.append(Step(path, apply, lambda: [obj.set_state(value) for value in former]))
    return lambda: obj


def _as_state(value: Any) -> Any:
    return torch.as_tensor(value, device="cpu")  # every generator's state lies there, whatever the default device is


ADAPTER: Final = TorchAdapter()
ARRAYS: Final = TorchArrays()

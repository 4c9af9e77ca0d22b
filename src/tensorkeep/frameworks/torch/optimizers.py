"""PyTorch's optimizers: state that is there is filled in place; a fresh optimizer gets its state."""

from collections.abc import Callable
from functools import cache, partial
from itertools import chain
from typing import Any, Final

import torch
from torch.nn.parameter import is_lazy

from tensorkeep import dtypes
from tensorkeep.frameworks.stateful import merged, of_another_class, plan_by_itself
from tensorkeep.frameworks.torch.composed import is_distributed
from tensorkeep.frameworks.torch.tensors import DTYPE_OF, TORCH_OF, converted
from tensorkeep.matching import Copy, Matcher, Result, Step, live
from tensorkeep.selection import LEFT_OUT
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Packed, Tree, join, walk

_LOADS: Final = torch.optim.Optimizer.load_state_dict
_OF_SCHEDULERS: Final = frozenset({"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"})
"""Options of a group that come with a scheduler, whatever the optimizer is."""

_AS_THE_PARAMETER: Final = frozenset({
    "acc_delta", "ax", "exp_avg", "exp_avg_sq", "exp_inf", "grad_avg", "max_exp_avg_sq", "momentum_buffer", "prev", "square_avg",
    "step_size", "sum", "variance",
})  # fmt: skip
"""Slots that have the parameter's shape, in every optimizer of torch.optim that has them."""


def plan(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Match an optimizer: its groups, and for every parameter the slots that the file has."""
    optimizer: Any = target.origin
    # A class with a state of its own alone knows how to take it; so do hooks, which may make of the file's state what they like.
    if not _looks_right(target.state) or getattr(optimizer, "_optimizer_load_state_dict_pre_hooks", None):
        return plan_by_itself(target, state, path, matcher)
    if not _looks_right(state):
        matcher.problem("kind", path, "no optimizer's state", f"a {target.cls}: a dict with 'state' and 'param_groups'")
        return lambda: optimizer
    own_groups, own_slots = target.state["param_groups"], target.state["state"]
    groups = [LEFT_OUT] * len(own_groups) if state["param_groups"] is LEFT_OUT else state["param_groups"]
    slots = dict.fromkeys(own_slots, LEFT_OUT) if state["state"] is LEFT_OUT else state["state"]
    names = (_options(groups), _options(own_groups)), (_slot_names(slots), _slot_names(own_slots))
    if of_another_class(target, path, matcher, *(pair for pair in names if all(pair))):
        return lambda: optimizer
    keys = _match_groups(groups, own_groups, join(path, "param_groups"), matcher)
    if keys is None:
        return lambda: optimizer
    planning = _Planning(optimizer, own_groups, join(path, "state"), matcher)
    loaded_slots = planning.slots(slots, own_slots, keys)
    loaded_groups = [_group(group, own, matcher) for group, own in zip(groups, own_groups, strict=True)]
    others = {key: part for key, part in state.items() if key not in ("state", "param_groups")}
    rest = merged(others, target.state, matcher)
    former: list[tuple[Any, dict[str, Any]]] = []

    def loaded() -> Any:
        return {
            **rest(),
            "state": {key: inside() for key, inside in loaded_slots.items()},
            "param_groups": [group() for group in loaded_groups],
        }

    def apply() -> None:
        former.append((_kept_apart(optimizer.state_dict()), {"state": optimizer.state, "param_groups": optimizer.param_groups}))
        optimizer.load_state_dict(loaded())

    def undo() -> None:
        for state_dict, attributes in former:
            if not planning.is_plain:
                optimizer.load_state_dict(state_dict)
            # Itself it makes new ones, and leaves the old as they were: other dtypes than it would make, too.
            vars(optimizer).update(attributes)

    def finish() -> None:
        # load_state_dict keeps tensors that already have the dtype and device it wants. Where it made others, from values that were
        # not there yet, it gets them once more.
        if any(optimizer.state[parameter].get(name) is not tensor for parameter, name, tensor in planning.in_place):
            optimizer.load_state_dict(loaded())

    matcher.steps.append(Step(path, apply, undo))
    matcher.finish.append(finish)
    return lambda: optimizer


class _Planning:
    """The slots of one optimizer.

    Attributes:
        parameters: by their keys in the target's state.
        known: names of the slots that the file has, of any parameter: its options need no others.
        in_place: parameter, slot and tensor of the bytes that go straight into the tensor that is there.
    """

    def __init__(self, optimizer: Any, own_groups: Any, path: str, matcher: Matcher) -> None:
        self.path, self.matcher = path, matcher
        live_groups, keys = optimizer.param_groups, chain.from_iterable(group["params"] for group in own_groups)
        self.parameters = dict(zip(keys, chain.from_iterable(group["params"] for group in live_groups), strict=False))
        self.in_place: list[tuple[Any, Any, Any]] = []
        self.known: set[Any] = set()
        self.is_plain = type(optimizer).load_state_dict is _LOADS
        # Code that runs while the state is loaded must find the file's values in it.
        self.may_fill = self.is_plain and not optimizer._optimizer_load_state_dict_post_hooks
        self.is_torchs = type(optimizer).__module__.startswith("torch.optim.")

    def slots(self, found: dict[Any, Tree], own: dict[Any, Tree], keys: dict[Any, Any]) -> dict[Any, Result]:
        """The state by parameter, and what else an optimizer keeps beside.

        Args:
            keys: the target's key of each parameter, by the file's.
        """
        results: dict[Any, Result] = {}
        self.known = _slot_names(found)
        for key, entry in found.items():
            own_key, path = keys.get(key, key), join(self.path, key)
            own_entry = own.get(own_key, {})
            if entry is LEFT_OUT:
                if own_key in own:
                    results[own_key] = partial(live, own_entry)
            elif key in keys and own_key in self.parameters and isinstance(entry, dict) and isinstance(own_entry, dict):
                if (result := self.entry(entry, own_entry, self.parameters[own_key], path)) is not None:
                    results[own_key] = result
            elif type(key) is int and key not in keys:
                self.matcher.unexpected(entry, path)
            else:
                results[own_key] = merged(entry, own_entry, self.matcher)
        there = {keys.get(key, key) for key in found}
        for key, own_entry in own.items():
            # A parameter without state has not been trained yet, and has none afterwards; but what `only` did not ask for stays.
            paths = [path for path, _ in walk(own_entry, join(self.path, key))]
            if key not in there and paths and not any(map(self.matcher.selected, paths)):
                results[key] = partial(live, own_entry)
        return results

    def entry(self, found: dict[Any, Tree], own: dict[Any, Tree], parameter: Any, path: str) -> Result | None:
        """All slots of one parameter; None if it is to have none, for those of the file have another shape than a fresh one's."""
        if not own and not self.has_shape(found, parameter, path):
            return None
        results = {
            name: self.slot(node, own.get(name), parameter, name, join(path, name))
            for name, node in found.items()
            if node is not LEFT_OUT or name in own
        }
        for name, node in own.items():
            if name not in found and name in self.known:
                self.matcher.missing(node, join(path, name))
                results[name] = partial(live, node)
        return lambda: {name: result() for name, result in results.items()}

    def has_shape(self, found: dict[Any, Tree], parameter: Any, path: str) -> bool:
        """Whether slots that always have the parameter's shape have it in the file."""
        if not self.is_torchs or is_lazy(parameter):
            return True
        wanted = tuple(parameter.shape)
        others = [(name, node) for name, node in found.items() if name in _AS_THE_PARAMETER and isinstance(node, LazyTensor)]
        others = [(name, node) for name, node in others if node.shape != wanted]
        for name, node in others:
            self.matcher.problem("shape", join(path, name), str(list(node.shape)), str(list(wanted)))
        return not others

    def slot(self, found: Tree, own: Tree, parameter: Any, name: Any, path: str) -> Result:
        """One slot of one parameter: read straight into the tensor that is there, or into a new one."""
        matcher = self.matcher
        # None is not begun yet, and counters were once numbers: PyTorch makes tensors of both.
        if found is LEFT_OUT or found is None or isinstance(found, (int, float)):
            return merged(found, own, matcher)
        if isinstance(own, Captured) and own.kind == "torch.subclass" and self.may_fill:
            self.in_place.append((parameter, name, own.origin))
            return matcher.fit(own, found, path)
        if not isinstance(own, LazyTensor):
            return self.fresh_slot(found, own, parameter, name, path)
        tensor: Any = own.source.owner()  # type: ignore[attr-defined]  # a live tensor of the target
        problem = matcher.unfit(own, found, path)
        if problem is None and self.may_fill and _stays(tensor, parameter, name):
            matcher.copies.append(Copy(path, found, own))
            self.in_place.append((parameter, name, tensor))
            return lambda: tensor
        # Otherwise load_state_dict makes a new tensor, of the parameter's dtype but for `step`. So it matters neither whether the old
        # one can be written to, nor what its dtype was, as long as no value is converted.
        kind = "" if problem is None else problem.kind
        kept = kind == "dtype" and (name == "step" or TORCH_OF.get(found.dtype.name) == parameter.dtype)
        if problem is not None and kind in ("shape", "dtype", "kind") and not kept:
            matcher.problems.append(problem)
            return partial(live, own)
        return matcher.value(found)

    def fresh_slot(self, found: Tree, own: Tree, parameter: Any, name: Any, path: str) -> Result:
        """A slot that the target has not yet: of the parameter's dtype, for load_state_dict would convert it without a word."""
        if isinstance(found, Captured) and found.kind == "torch.subclass" and found.cls not in self.matcher.given:
            hint = f"step the optimizer once before, or pass types=({found.cls},): a file names no class to make"
            self.matcher.problem("object", path, f"a {found.cls}", "no slot that could take it", hint)
            return partial(live, own)
        wanted = DTYPE_OF.get(parameter.dtype)
        like_it = self.is_torchs and name in _AS_THE_PARAMETER and isinstance(found, LazyTensor) and not is_lazy(parameter)
        if not like_it or wanted is None or found.dtype.name == wanted.name:
            value = merged(found, own, self.matcher)
            return cache(lambda: _placed_as(parameter, value())) if like_it and is_distributed(type(parameter)) else value
        possible = dtypes.castable(found.dtype, wanted)
        if not (possible and self.matcher.cast):
            hint = "cast=True converts it" if possible else "cast=True does not convert these"
            self.matcher.problem("dtype", path, str(found.dtype), str(wanted), hint)
            return partial(live, own)
        return cache(lambda: _placed_as(parameter, converted(found, wanted, path, self.matcher)))


def _placed_as(parameter: Any, tensor: Any) -> Any:
    """A tensor, of which this process has all, as a DTensor where the parameter is one: PyTorch steps with no others."""
    if not is_distributed(type(parameter)) or not isinstance(tensor, torch.Tensor):
        return tensor
    return type(parameter).from_local(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def _stays(tensor: Any, parameter: Any, name: Any) -> bool:
    """Whether load_state_dict keeps a tensor of this dtype as it is."""
    return name == "step" or not parameter.is_floating_point() or bool(tensor.dtype == parameter.dtype)


def _kept_apart(state: dict[str, Any]) -> dict[str, Any]:
    """A state whose slots may come and go."""
    return {**state, "state": {key: dict(entry) if isinstance(entry, dict) else entry for key, entry in state["state"].items()}}


def _looks_right(state: Tree) -> bool:
    if not isinstance(state, dict) or "state" not in state or "param_groups" not in state:
        return False
    groups, slots = state["param_groups"], state["state"]
    whole = isinstance(groups, (list, tuple)) and all(isinstance(group, dict) or group is LEFT_OUT for group in groups)
    return (whole or groups is LEFT_OUT) and (isinstance(slots, dict) or slots is LEFT_OUT)


def _options(groups: Any) -> set[Any]:
    names = {name for group in groups if group is not LEFT_OUT for name in group}
    return names - _OF_SCHEDULERS - {"params", "param_names"}


def _slot_names(slots: dict[Any, Tree]) -> set[Any]:
    return {name for entry in slots.values() if isinstance(entry, dict) for name in entry}


def _match_groups(groups: Any, own_groups: Any, path: str, matcher: Matcher) -> dict[Any, Any] | None:
    """The target's key of each parameter, by the file's: they are matched by their places, as PyTorch does. None if they do not fit."""
    if len(groups) != len(own_groups):
        matcher.problem("object", path, f"{len(groups)} groups of parameters", f"{len(own_groups)}")
        return None
    keys: dict[Any, Any] = {}
    fits = True
    for number, (group, own) in enumerate(zip(groups, own_groups, strict=True)):
        wanted = own["params"]
        found = LEFT_OUT if group is LEFT_OUT else group.get("params")
        found = wanted if found is LEFT_OUT else found.value() if isinstance(found, Packed) else found
        if not isinstance(found, (list, tuple)) or len(found) != len(wanted):
            count = len(found) if isinstance(found, (list, tuple)) else "no"
            matcher.problem("object", join(path, number), f"{count} parameters", f"{len(wanted)}")
            fits = False
            continue
        keys.update((key if isinstance(key, (int, str)) else own_key, own_key) for key, own_key in zip(found, wanted, strict=True))
    return keys if fits and _names_fit(groups, own_groups, path, matcher) else None


def _names_fit(groups: Any, own_groups: Any, path: str, matcher: Matcher) -> bool:
    """Whether parameters that have names stand in the same order."""
    found, wanted = ([_names(group) for group in some] for some in (groups, own_groups))
    if sorted(chain(*found)) != sorted(chain(*wanted)):
        return True  # other names, which say nothing about the order
    fits = True
    for number, (names, own_names) in enumerate(zip(found, wanted, strict=True)):
        for place, (name, own_name) in enumerate(zip(names, own_names, strict=False)):
            if name != own_name:
                where = join(join(path, number), f"param_names.{place}")
                matcher.problem("object", where, name, own_name, "the same parameters in another order")
                fits = False
    return fits


def _names(group: Any) -> list[str]:
    names = () if group is LEFT_OUT else group.get("param_names", ())
    return [name for name in names if isinstance(name, str)] if isinstance(names, (list, tuple)) else []


def _group(found: Any, own: dict[Any, Tree], matcher: Matcher) -> Callable[[], dict[Any, Any]]:
    """A group's options: the file's, and the target's own where the file has none, as for those of a newer PyTorch."""
    if found is LEFT_OUT:
        return partial(live, own)
    names = dict.fromkeys([*(name for name, part in found.items() if part is not LEFT_OUT or name in own), *own])
    options = {name: merged(found.get(name, LEFT_OUT), own.get(name), matcher) for name in names}
    options["params"] = partial(live, own["params"])
    return lambda: {name: option() for name, option in options.items()}

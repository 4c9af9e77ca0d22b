"""PyTorch's optimizers: state that is there is filled in place; a fresh optimizer gets its state."""

from functools import partial
from typing import Any

from tensorkeep.matching import Copy, Matcher, Result, Step, live
from tensorkeep.selection import LEFT_OUT
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Tree, join


def plan(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Match an optimizer: its groups, and for every parameter the slots that the file has."""
    optimizer: Any = target.origin
    own_groups = target.state["param_groups"]
    if isinstance(state, dict):  # what `only` left out stays as it is
        state = {key: target.state.get(key) if part is LEFT_OUT else part for key, part in state.items()}
    if not isinstance(state, dict) or not _looks_right(state):
        matcher.problem("kind", path, "no optimizer's state", f"a {target.cls}: a dict with 'state' and 'param_groups'")
        return lambda: optimizer
    groups = state["param_groups"]
    if not _groups_fit(groups, own_groups, join(path, "param_groups"), matcher):
        return lambda: optimizer
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[Any, Any] = {}
    in_place: list[tuple[Any, str, Any]] = []  # parameter, slot, tensor
    own_slots = target.state["state"]
    for number, inside in state["state"].items():
        place = join(path, f"state.{number}")
        if inside is LEFT_OUT or state["state"] is own_slots:
            if number in own_slots:
                slots[number] = {name: partial(live, slot) for name, slot in own_slots[number].items()}
            continue
        if not isinstance(inside, dict) or not _is_index(number, parameters):
            matcher.unexpected(inside, place)
            continue
        own = own_slots.get(number, {})
        slots[number] = {
            name: _slot(found, own.get(name), parameters[number], name, join(place, name), matcher, in_place)
            for name, found in inside.items()
            if found is not LEFT_OUT or name in own
        }
        for name in own:
            if name not in inside:
                matcher.missing(own[name], join(place, name))
    for number, own in own_slots.items():
        if number not in state["state"]:
            matcher.missing(own, join(path, f"state.{number}"))
    rest = matcher.value({**state, "param_groups": groups, "state": {}})
    former: list[Any] = []

    def loaded() -> Any:
        return {
            **rest(),
            "state": {number: {name: value() for name, value in inside.items()} for number, inside in slots.items()},
        }

    def apply() -> None:
        now = optimizer.state_dict()
        former.append({**now, "state": {number: dict(inside) for number, inside in now["state"].items()}})
        optimizer.load_state_dict(loaded())

    def finish() -> None:
        # load_state_dict keeps tensors that already have the dtype and device it wants. Where it made others, from values that were
        # not there yet, it gets them once more.
        if any(optimizer.state[parameter].get(name) is not tensor for parameter, name, tensor in in_place):
            optimizer.load_state_dict(loaded())

    matcher.steps.append(Step(path, apply, lambda: [optimizer.load_state_dict(value) for value in former]))
    matcher.finish.append(finish)
    return lambda: optimizer


def _looks_right(state: dict[Any, Any]) -> bool:
    groups, slots = state.get("param_groups"), state.get("state")
    return isinstance(slots, dict) and isinstance(groups, (list, tuple)) and all(isinstance(group, dict) for group in groups)


def _groups_fit(groups: Any, own: Any, path: str, matcher: Matcher) -> bool:
    if len(groups) != len(own):
        matcher.problem("object", path, f"{len(groups)} groups of parameters", f"{len(own)}")
        return False
    fits = True
    for number, (group, own_group) in enumerate(zip(groups, own, strict=True)):
        found, wanted = group.get("params"), own_group["params"]
        if not isinstance(found, (list, tuple)) or len(found) != len(wanted):
            count = len(found) if isinstance(found, (list, tuple)) else "no"
            matcher.problem("object", join(path, number), f"{count} parameters", f"{len(wanted)}")
            fits = False
    return fits


def _is_index(number: object, parameters: list[Any]) -> bool:
    return type(number) is int and 0 <= number < len(parameters)


def _slot(found: Tree, own: Tree, parameter: Any, name: str, path: str, matcher: Matcher, in_place: list[tuple[Any, str, Any]]) -> Result:
    """One slot of one parameter: read straight into the tensor that is there, or into a new one."""
    if found is LEFT_OUT:
        return lambda: live(own)
    if isinstance(found, LazyTensor) and isinstance(own, LazyTensor):
        tensor: Any = own.source.owner()  # type: ignore[attr-defined]  # a live tensor of the target
        problem = matcher.unfit(own, found, path)
        if problem is None and (tensor.dtype == parameter.dtype or name == "step"):
            matcher.copies.append(Copy(path, found, own))
            in_place.append((parameter, name, tensor))
            return lambda: tensor
    return matcher.value(found)

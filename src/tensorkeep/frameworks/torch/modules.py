"""PyTorch's modules: parameters and buffers are filled in place, by name.

A module that loads in its own way (its class overrides `_load_from_state_dict`, or a hook is registered) rehearses that way first, so
old states are migrated as PyTorch migrates them, and still nothing is changed before everything was checked.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.modules.module import _IncompatibleKeys
from torch.nn.parameter import is_lazy

from tensorkeep.frameworks.torch.rehearsal import Rehearsal
from tensorkeep.frameworks.torch.tensors import as_tensor, capture
from tensorkeep.matching import Matcher, Result, Step, named
from tensorkeep.report import Problem
from tensorkeep.selection import LEFT_OUT
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Tree, join

_EXTRA = "_extra_state"
_LOADS = torch.nn.Module._load_from_state_dict
_LOADS_ALL = torch.nn.Module.load_state_dict


def plan(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Match a module: every parameter, buffer and extra state, by name."""
    module: Any = target.origin
    found, others = named(state, target.state)
    versions = getattr(state, "_metadata", None)
    planning = _Planning(module, target.state, path, matcher, versions if isinstance(versions, dict) else {})
    planning.left_out = {name for name, node in found.items() if node is LEFT_OUT}
    everything = {name: node for name, node in {**found, **others}.items() if name not in planning.left_out}
    if type(module).load_state_dict is not _LOADS_ALL:
        planning.rehearse_whole(everything)
    else:
        planning.visit(module, "", everything)
    for name, node in others.items():
        if name not in planning.used:
            matcher.unexpected(node, join(path, name))
    return lambda: module


class _Planning:
    """One load of one module tree."""

    def __init__(self, module: Any, state: dict[str, Tree], path: str, matcher: Matcher, versions: dict[Any, Any]) -> None:
        self.module, self.state, self.path, self.matcher, self.versions = module, state, path, matcher, versions
        self.used: set[str] = set()
        self.left_out: set[str] = set()  # by `only`: never missing
        self.fresh: dict[int, Any] = {}  # by id of a parameter without memory: the one made for it; tied ones share it

    def visit(self, module: Any, prefix: str, state: dict[str, Tree]) -> None:
        """Match one module and those in it, with the part of the state that bears its prefix, as PyTorch does."""
        if _loads_its_own_way(module):
            state = self.rehearse(module, prefix, state)
        else:
            for name, tensor in _own_tensors(module):
                self.match(module, name, tensor, prefix + name, state)
        self.extra(module, prefix, state)
        if module._load_state_dict_post_hooks:
            self.matcher.finish.append(lambda: _run_hooks(module))
        if module._modules:
            parts = _parts(state, prefix)
            for name, child in module._modules.items():
                if child is not None:
                    self.visit(child, f"{prefix}{name}.", parts.get(name, {}))

    def match(self, module: Any, name: str, tensor: Any, key: str, state: dict[str, Tree]) -> None:
        """Match one parameter or buffer with what the state has under its key."""
        if key not in state:
            if key not in self.left_out:
                self.matcher.missing(self.target(key, tensor), join(self.path, key))
            return
        self.used.add(key)
        self.assign(module, name, tensor, key, state[key])

    def assign(self, module: Any, name: str, tensor: Any, key: str, found: Any) -> None:
        path = join(self.path, key)
        if isinstance(found, torch.Tensor):  # made by the module's own code from what the file has
            self.matcher.finish.append(lambda: _copy(tensor, found))
        elif is_lazy(tensor) or tensor.is_meta:
            self.materialize(module, name, tensor, key, found)
        else:
            self.matcher.fit(self.target(key, tensor), found, path)

    def target(self, key: str, tensor: Any) -> Tree:
        """The target's tensor: from its state_dict, where ties are known, unless a hook put another one there."""
        known = self.state.get(key)
        if isinstance(known, LazyTensor):
            owner = known.source.owner()  # type: ignore[attr-defined]  # a live tensor of the target
            if owner is tensor or tensor.is_meta or owner.data_ptr() == tensor.data_ptr():
                return known
        return known if isinstance(known, Captured) else capture(tensor)

    def materialize(self, module: Any, name: str, tensor: Any, key: str, found: Tree) -> None:
        """Give a parameter that has no memory yet (meta device, lazy modules) the file's tensor."""
        path, matcher = join(self.path, key), self.matcher
        problem: Problem | None = None
        if not isinstance(found, LazyTensor):
            problem = Problem("kind", path, "no tensor", "a tensor")
        elif not is_lazy(tensor):
            target = self.target(key, tensor)
            problem = matcher.unfit(target, found, path, check_obstacle=False) if isinstance(target, LazyTensor) else None
        if problem is not None:
            matcher.problems.append(problem)
            return
        loaded = matcher.value(found)

        def apply() -> None:
            made = self.fresh.get(id(tensor))
            if made is None:
                value = loaded()
                value = value if isinstance(value, torch.Tensor) else as_tensor(value, found.dtype)
                value = value if is_lazy(tensor) else value.to(tensor.dtype)
                is_parameter = isinstance(tensor, torch.nn.Parameter)
                made = torch.nn.Parameter(value, requires_grad=tensor.requires_grad) if is_parameter else value
                self.fresh[id(tensor)] = made
            _slots(module, name)[name] = made

        def undo() -> None:
            _slots(module, name)[name] = tensor

        matcher.steps.append(Step(path, apply, undo))

    def extra(self, module: Any, prefix: str, state: dict[str, Tree]) -> None:
        key = prefix + _EXTRA
        if type(module).set_extra_state is torch.nn.Module.set_extra_state:
            return
        if key not in state:
            if key in self.state and key not in self.left_out:
                self.matcher.missing(self.state[key], join(self.path, key))
            return
        self.used.add(key)
        loaded = self.matcher.value(state[key])
        former: list[Any] = []

        def apply() -> None:
            former.append(module.get_extra_state())
            module.set_extra_state(loaded())

        self.matcher.steps.append(Step(join(self.path, key), apply, lambda: [module.set_extra_state(value) for value in former]))

    def rehearse(self, module: Any, prefix: str, state: dict[str, Tree]) -> dict[str, Tree]:
        """Let a module's own code say what goes where. Returns the state as that code leaves it to the modules inside."""
        state = self.without_misfits(module, prefix, state)
        rehearsal = Rehearsal(module, self.matcher.read)
        entered = rehearsal.enter_state({key: node for key, node in state.items() if key != prefix + _EXTRA})
        before = set(entered)
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        versions = self.versions.get(prefix[:-1], {})
        with rehearsal, torch.no_grad():
            module._load_from_state_dict(entered, prefix, versions, True, missing, unexpected, errors)
        self.take(module, prefix, rehearsal, errors)
        left = rehearsal.leave_state(entered)
        inside = tuple(f"{prefix}{name}." for name in module._modules)
        self.used.update(key for key in before if key not in unexpected and not (key in left and key.startswith(inside)))
        self.report_missing(module, prefix, missing)
        return left | {key: node for key, node in state.items() if key == prefix + _EXTRA}

    def rehearse_whole(self, state: dict[str, Tree]) -> None:
        """The same for a module whose class overrides `load_state_dict` itself."""
        state = self.without_misfits(self.module, "", state, deep=True)
        rehearsal = Rehearsal(self.module, self.matcher.read)
        extras = {key for key in state if key == _EXTRA or key.endswith(f".{_EXTRA}")}
        entered = rehearsal.enter_state({key: node for key, node in state.items() if key not in extras})
        entered._metadata = OrderedDict(self.versions)  # type: ignore[attr-defined]  # where PyTorch keeps module versions
        with rehearsal, torch.no_grad():
            try:
                keys = self.module.load_state_dict(entered, strict=False)
            except RuntimeError as error:
                self.matcher.problem("object", self.path, "", "", str(error))
                return
        self.take(self.module, "", rehearsal, [])
        self.used.update(key for key in state if key not in getattr(keys, "unexpected_keys", ()))
        self.report_missing(self.module, "", list(getattr(keys, "missing_keys", ())))
        for name, module in self.module.named_modules():
            self.extra(module, f"{name}." if name else "", state)

    def without_misfits(self, module: Any, prefix: str, state: dict[str, Tree], *, deep: bool = False) -> dict[str, Tree]:
        """The state without tensors of another shape: they are reported here, in our words, all at once."""
        kept = dict(state)
        own = module.state_dict(keep_vars=True, prefix=prefix).items() if deep else ((prefix + n, t) for n, t in _own_tensors(module))
        for key, tensor in own:
            found = state.get(key)
            if isinstance(found, LazyTensor) and isinstance(tensor, torch.Tensor) and not is_lazy(tensor):
                target = self.target(key, tensor)
                if isinstance(target, LazyTensor) and found.shape != target.shape and not (target.shape == () and found.shape == (1,)):
                    self.matcher.fit(target, kept.pop(key), join(self.path, key))
                    self.used.add(key)
        return kept

    def take(self, module: Any, prefix: str, rehearsal: Rehearsal, errors: list[str]) -> None:
        """Turn noted copies into planned ones."""
        places = {
            id(tensor): (inner, name, f"{inner_prefix}{name}")
            for inner_prefix, inner in _modules(module, prefix)
            for name, tensor in _own_tensors(inner)
        }
        for tensor, source in rehearsal.copies.values():
            if source is tensor:
                continue
            inner, name, key = places.get(id(tensor), (module, "", prefix))
            if isinstance(source, LazyTensor) and source.shape != tuple(tensor.shape):
                source = self.matcher.read(source)  # one element for a scalar: PyTorch's rule for files of version 0.3
            self.assign(inner, name, tensor, key, source)
        for error in errors:
            self.matcher.problem("object", join(self.path, prefix.rstrip(".")), error, "")

    def report_missing(self, module: Any, prefix: str, missing: list[str]) -> None:
        for key in missing:
            if key in self.state and key not in self.used | self.left_out and not key.endswith(_EXTRA):
                self.matcher.missing(self.state[key], join(self.path, key))


def _parts(state: dict[str, Tree], prefix: str) -> dict[str, dict[str, Tree]]:
    """What each module inside gets of a state, by its name; in one pass, for there may be thousands of both."""
    parts: dict[str, dict[str, Tree]] = {}
    for key, node in state.items():
        name, dot, _ = key[len(prefix) :].partition(".")
        if dot and key.startswith(prefix):
            parts.setdefault(name, {})[key] = node
    return parts


def _loads_its_own_way(module: Any) -> bool:
    if type(module)._load_from_state_dict is not _LOADS:
        return True
    lazy = getattr(module, "_lazy_load_hook", None)  # makes room for parameters of lazy modules; `materialize` does
    return any(getattr(hook, "hook", hook) != lazy for hook in module._load_state_dict_pre_hooks.values())


def _own_tensors(module: Any) -> Iterator[tuple[str, Any]]:
    """Parameters and persistent buffers of a module itself."""
    for name, tensor in module._parameters.items():
        if tensor is not None:
            yield name, tensor
    for name, tensor in module._buffers.items():
        if tensor is not None and name not in module._non_persistent_buffers_set:
            yield name, tensor


def _modules(module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, inner in module.named_modules(remove_duplicate=False):
        yield (f"{prefix}{name}." if name else prefix), inner


def _slots(module: Any, name: str) -> dict[str, Any]:
    slots: dict[str, Any] = module._parameters if name in module._parameters else module._buffers
    return slots


def _copy(tensor: Any, value: Any) -> None:
    with torch.no_grad():
        tensor.copy_(value)


def _run_hooks(module: Any) -> None:
    """Hooks that want to know that a state was loaded, such as those that refresh what they derive from it."""
    for hook in module._load_state_dict_post_hooks.values():
        hook(module, _IncompatibleKeys([], []))

"""PyTorch's modules: parameters and buffers are filled in place, by name.

A module that loads in its own way (its class overrides `_load_from_state_dict` or `load_state_dict`, or a hook is registered) rehearses
that way first, so old states are migrated as PyTorch migrates them, and still nothing is changed before everything was checked. Where
a rehearsal cannot tell what the code does, it runs for real (`by_itself`).
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn.modules.module import _IncompatibleKeys
from torch.nn.parameter import is_lazy

from tensorkeep.frameworks import libraries
from tensorkeep.frameworks.torch import by_itself, folders
from tensorkeep.frameworks.torch.materializing import Materializing
from tensorkeep.frameworks.torch.rehearsal import Rehearsal, Unclear
from tensorkeep.frameworks.torch.tensors import as_tensors, capture
from tensorkeep.matching import Matcher, Result, Step, named
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
    if others and (weights := folders.named(module, {**found, **others}, target.state)) is not None:
        return folders.plan(module, weights, {**found, **others}, path, matcher)
    planning = _Planning(module, target.state, path, matcher)
    planning.left_out = {name for name, node in found.items() if node is LEFT_OUT}
    everything = {name: node for name, node in {**found, **others}.items() if name not in planning.left_out}
    if type(module).load_state_dict is not _LOADS_ALL:
        planning.visit_whole(state, everything)
    else:
        planning.visit(module, "", everything)
    planning.materializing.settle()
    for name, node in everything.items():
        if name not in planning.used:
            planning.unexpected.append(name)
            matcher.unexpected(node, join(path, name))
    return lambda: module


class _Planning:
    """One load of one module tree.

    Attributes:
        used: names of the state that went somewhere.
        left_out: names that `only` left out: never missing.
        unsaved: names that the module's library never saves: whatever is there stays.
        missing, unexpected: names, for hooks that want to know.
    """

    def __init__(self, module: Any, state: dict[str, Tree], path: str, matcher: Matcher) -> None:
        self.module, self.state, self.path, self.matcher = module, state, path, matcher
        self.used: set[str] = set()
        self.left_out: set[str] = set()
        self.unsaved = libraries.unsaved(module)
        self.missing: list[str] = []
        self.unexpected: list[str] = []
        self.materializing = Materializing(matcher)

    def version(self, prefix: str) -> dict[str, Any]:
        """What the file says of a module's version, by which its code migrates old states."""
        found = self.matcher.versions().get(join(self.path, prefix[:-1]) if prefix else self.path)
        return dict(found) if isinstance(found, Mapping) and type(found.get("version", 1)) is int else {}

    def visit(self, module: Any, prefix: str, state: dict[str, Tree]) -> None:
        """Match one module and those in it, with the part of the state that bears its prefix, as PyTorch does."""
        if (found := self.version(prefix).get("version", 1)) > module._version:  # older ones are migrated by its own code
            here = join(self.path, prefix[:-1]) if prefix else self.path or "the model"
            name = type(module).__qualname__
            self.matcher.cautions.append(f"{here}: the file has version {found} of {name}, this PyTorch knows {module._version}")
        if any(is_lazy(tensor) for _, tensor in _own_tensors(module)):
            self.by_itself(module, prefix, state)  # it takes its shapes from what it loads
            return
        if _loads_its_own_way(module):
            try:
                state = self.rehearse(module, prefix, state)
            except Unclear:
                self.by_itself(module, prefix, state)
                return
        else:
            for name, tensor in _own_tensors(module):
                self.match(module, name, tensor, prefix + name, state)
        self.extra(module, prefix, state)
        self.queue_hooks(module)
        if module._modules:
            parts = _parts(state, prefix)
            for name, child in module._modules.items():
                if child is not None:
                    self.visit(child, f"{prefix}{name}.", parts.get(name, {}))

    def match(self, module: Any, name: str, tensor: Any, key: str, state: dict[str, Tree]) -> None:
        """Match one parameter or buffer with what the state has under its key."""
        if key in state:
            self.used.add(key)
            self.assign(module, name, tensor, key, state[key])
        elif key not in self.left_out:
            self.lack(key, tensor)

    def lack(self, key: str, tensor: Any) -> None:
        """Report what the state has nothing for."""
        self.missing.append(key)
        if key in self.unsaved:
            return
        if tensor.is_meta:
            self.materializing.missing(tensor, self.target(key, tensor), join(self.path, key))
        else:
            self.matcher.missing(self.target(key, tensor), join(self.path, key))

    def assign(self, module: Any, name: str, tensor: Any, key: str, found: Any) -> None:
        path = join(self.path, key)
        if tensor.is_meta:
            self.materializing.plan(module, name, tensor, self.target(key, tensor), path, found)
        elif isinstance(found, torch.Tensor):  # made by the module's own code from what the file has
            if found.shape != tensor.shape:
                self.matcher.problem("shape", path, str(list(found.shape)), str(list(tensor.shape)))
            else:
                self.matcher.finish.append(lambda: _copy(tensor, found))
        else:
            self.matcher.fit(self.target(key, tensor), found, path)

    def target(self, key: str, tensor: Any) -> Tree:
        """The target's tensor: from its state_dict, where ties are known, unless a hook put another one there."""
        known = self.state.get(key)
        if isinstance(known, LazyTensor):
            owner = known.source.owner()  # type: ignore[attr-defined]  # a live tensor of the target
            if owner is tensor or tensor.is_meta or owner.data_ptr() == tensor.data_ptr():
                return known
        # A state_dict's sparse tensors are detached, and what is copied into those does not reach the parameter.
        return known if isinstance(known, Captured) and known.kind != "torch.sparse" else capture(tensor)

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
            former.append(copy.deepcopy(module.get_extra_state()))
            module.set_extra_state(loaded())

        self.matcher.steps.append(Step(join(self.path, key), apply, lambda: [module.set_extra_state(value) for value in former]))

    def queue_hooks(self, module: Any) -> None:
        """Hooks that want to know that a state was loaded, such as those that refresh what they derive from it."""
        if module._load_state_dict_post_hooks:
            keys = _IncompatibleKeys(self.missing, self.unexpected)
            hooks = list(module._load_state_dict_post_hooks.values())
            self.matcher.finish.append(lambda: [hook(module, keys) for hook in hooks])

    def rehearse(self, module: Any, prefix: str, state: dict[str, Tree]) -> dict[str, Tree]:
        """Let a module's own code say what goes where. Returns the state as that code leaves it to the modules inside.

        Raises:
            Unclear: the code does more than to copy.
        """
        rehearsal = Rehearsal(module, self.read)
        entered = rehearsal.enter_state({key: node for key, node in state.items() if key != prefix + _EXTRA})
        before = set(entered)
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        version = self.version(prefix)
        rehearsal.run(lambda twin: twin._load_from_state_dict(entered, prefix, version, True, missing, unexpected, errors))
        left = rehearsal.leave_state(entered)
        own = [(name, tensor) for name, tensor in _own_tensors(module) if id(tensor) not in rehearsal.copies]
        self.check_rest(module, prefix, own, left, missing, errors)
        self.take(module, prefix, rehearsal, errors)
        inside = tuple(f"{prefix}{name}." for name in module._modules)
        self.used.update(key for key in before if key not in unexpected and not (key in left and key.startswith(inside)))
        self.report_missing(missing, dict(_named_tensors(module, prefix)))
        return left | {key: node for key, node in state.items() if key == prefix + _EXTRA}

    def visit_whole(self, state: Tree, everything: dict[str, Tree]) -> None:
        """The same for a module whose class overrides `load_state_dict` itself, with a layout of its own perhaps."""
        module = self.module
        flat = isinstance(state, dict) and all(type(name) is str and not isinstance(node, dict) for name, node in state.items())
        try:
            if not flat:
                raise Unclear
            self.rehearse_whole(everything)
        except Unclear:
            self.used.update(everything)
            by_itself.plan(module, state if not flat else everything, self.path, "", self)

    def rehearse_whole(self, state: dict[str, Tree]) -> None:
        module = self.module
        rehearsal = Rehearsal(module, self.read)
        extras = {key for key in state if key == _EXTRA or key.endswith(f".{_EXTRA}")}
        entered = rehearsal.enter_state({key: node for key, node in state.items() if key not in extras})
        prefixes = [f"{name}." if name else "" for name, _ in module.named_modules(remove_duplicate=False)]
        entered._metadata = OrderedDict((prefix[:-1], self.version(prefix)) for prefix in prefixes)  # type: ignore[attr-defined]
        try:
            keys = rehearsal.run(lambda twin: twin.load_state_dict(entered, strict=False))
        except Unclear:
            self.report_misfits(state)
            raise
        tensors = dict(_named_tensors_deep(module))
        if not isinstance(keys, _IncompatibleKeys):  # it forgets to say
            absent = [name for name, tensor in tensors.items() if id(tensor) not in rehearsal.copies and name not in state]
            keys = _IncompatibleKeys(absent, [])
        rest = [(name, tensor) for name, tensor in tensors.items() if id(tensor) not in rehearsal.copies]
        self.check_rest(module, "", rest, state, list(keys.missing_keys), [])
        self.take(module, "", rehearsal, [])
        self.used.update(key for key in state if key not in keys.unexpected_keys)
        self.report_missing(keys.missing_keys, tensors)
        for name, inner in module.named_modules():
            self.extra(inner, f"{name}." if name else "", state)
            self.queue_hooks(inner)

    def check_rest(
        self, module: Any, prefix: str, rest: list[tuple[str, Any]], state: dict[str, Tree], missing: list[str], errors: list[str]
    ) -> None:
        """See why nothing was copied into these tensors: another shape is reported in our words; what else may be, nobody knows.

        Raises:
            Unclear: the code took something for a tensor, and no copy into it was seen.
        """
        for name, tensor in rest:
            key, found = prefix + name, state.get(prefix + name)
            if found is None or key in missing:
                continue
            refused = next((error for error in errors if f" {key}:" in error or f'"{key}"' in error), None)
            if refused is None:
                raise Unclear
            target = self.target(key, tensor)
            if isinstance(found, LazyTensor) and isinstance(target, LazyTensor) and found.shape != target.shape:
                errors.remove(refused)
                self.used.add(key)
                self.matcher.fit(target, found, join(self.path, key))

    def report_misfits(self, state: dict[str, Tree]) -> None:
        """Report tensors of another shape, and take them out of the state: the rest may load."""
        for key, tensor in _named_tensors_deep(self.module):
            found, target = state.get(key), self.target(key, tensor)
            if isinstance(found, LazyTensor) and isinstance(target, LazyTensor) and found.shape != target.shape:
                self.matcher.fit(target, state.pop(key), join(self.path, key))
                self.used.add(key)
                self.left_out.add(key)

    def read(self, tensor: LazyTensor) -> Any:
        """A tensor of the file, now."""
        return as_tensors(self.matcher.read(tensor))

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
                source = self.read(source)  # one element for a scalar: PyTorch's rule for files of version 0.3
                source = source.reshape(tensor.shape) if source.numel() == tensor.numel() else source
            self.assign(inner, name, tensor, key, source)
        for error in errors:
            self.matcher.problem("object", join(self.path, prefix.rstrip(".")), "", "", error)

    def report_missing(self, missing: list[str], tensors: dict[str, Any]) -> None:
        for key in missing:
            if key in self.used | self.left_out or key.endswith(_EXTRA):
                continue
            if key in tensors:
                self.lack(key, tensors[key])
            elif key in self.state:
                self.missing.append(key)
                self.matcher.missing(self.state[key], join(self.path, key))

    def by_itself(self, module: Any, prefix: str, state: dict[str, Tree]) -> None:
        """Let a module load what bears its prefix by its own code, for real."""
        self.used.update(key for key in state if key.startswith(prefix))
        part = {key[len(prefix) :]: node for key, node in state.items() if key.startswith(prefix)}
        by_itself.plan(module, part, join(self.path, prefix[:-1]) if prefix else self.path, prefix, self)


def _parts(state: dict[str, Tree], prefix: str) -> dict[str, dict[str, Tree]]:
    """What each module inside gets of a state, by its name; in one pass, for there may be thousands of both."""
    parts: dict[str, dict[str, Tree]] = {}
    for key, node in state.items():
        name, dot, _ = key[len(prefix) :].partition(".")
        if dot and key.startswith(prefix):
            parts.setdefault(name, {})[key] = node
    return parts


def _loads_its_own_way(module: Any) -> bool:
    return type(module)._load_from_state_dict is not _LOADS or bool(module._load_state_dict_pre_hooks)


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


def _named_tensors(module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, tensor in _own_tensors(module):
        yield prefix + name, tensor


def _named_tensors_deep(module: Any) -> Iterator[tuple[str, Any]]:
    for prefix, inner in _modules(module, ""):
        yield from _named_tensors(inner, prefix)


def _copy(tensor: Any, value: Any) -> None:
    with torch.no_grad():
        tensor.copy_(value)

"""Rehearsal: what a module's own loading code would copy where, found out without changing anything.

PyTorch's modules migrate old states in code of their own: `_load_from_state_dict`, hooks. Here that code runs on a twin of the module,
with stand-ins for the file's tensors, which are tensors on the meta device, while every `copy_` into a tensor of the module is noted
instead of done. Code that does anything else to the module, or to its tensors, is `Unclear`: it has to run for real.
"""

import inspect
import types
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch.nn.modules.module import _WrappedHook
from torch.overrides import TorchFunctionMode

from tensorkeep.frameworks.torch.tensors import TORCH_OF
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Tree

_HOOKS: Final = frozenset({"_load_state_dict_pre_hooks", "_load_state_dict_post_hooks"})
_WRITES: Final = frozenset({"__setitem__", "__set__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__", "__ipow__"})
_WAYS_OUT: Final = frozenset({"numpy", "__array__", "untyped_storage", "storage", "__dlpack__"})  # to memory that nobody watches


class Unclear(Exception):  # no error of the family: it never leaves this package
    """The module's own code does what cannot be noted."""


class Rehearsal(TorchFunctionMode):
    """Notes copies into the module; hands real tensors to code that computes with values.

    Attributes:
        twin: what the code is to be called on: a copy of the module and those in it, over the same tensors.
        copies: by id of the module's tensor: that tensor, and what would be copied into it (a LazyTensor or a real tensor).
    """

    def __init__(self, module: Any, read: Callable[[LazyTensor], Any]) -> None:
        super().__init__()
        self.read = read
        self.twins: dict[int, tuple[Any, Any]] = {}  # by id of the module
        self.twin = self._twin(module)
        for _, twin in self.twins.values():
            _rebind(twin, self.twins)
        self.before = {id(twin): dict(vars(twin)) for _, twin in self.twins.values()}
        self.own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
        held = [value for original, _ in self.twins.values() for value in vars(original).values() if isinstance(value, torch.Tensor)]
        self.storages = {_storage(tensor) for tensor in (*module.parameters(), *module.buffers(), *held)} - {0}
        self.standins: dict[int, tuple[Any, LazyTensor]] = {}  # the tensor is held, so that its id stays its own
        self.copies: dict[int, tuple[Any, Any]] = {}

    def _twin(self, module: Any) -> Any:
        known = self.twins.get(id(module))
        if known is not None:
            return known[1]
        try:
            twin = object.__new__(type(module))
        except TypeError as error:
            raise Unclear from error
        self.twins[id(module)] = module, twin
        twin.__dict__.update({name: _copied(value) for name, value in vars(module).items()})
        inside = twin.__dict__["_modules"]
        for name, child in inside.items():
            if child is not None:
                inside[name] = self._twin(child)
        return twin

    def run(self, code: Callable[[Any], Any]) -> Any:
        """Run loading code on the twin.

        Raises:
            Unclear: it raised, or did more than to copy. It has to run for real, where an error of its own counts.
        """
        with warnings.catch_warnings(), self, torch.no_grad():
            warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")  # it copies nothing at all
            try:
                result = code(self.twin)
            except Exception as error:
                raise Unclear from error
        self.check()
        return result

    def check(self) -> None:
        """See that the code changed nothing of the twin.

        Raises:
            Unclear: it did.
        """
        for original, twin in self.twins.values():
            before, now = self.before[id(twin)], vars(twin)
            if before.keys() != now.keys() or any(now[name] is not value for name, value in before.items()):
                raise Unclear
            for name, value in vars(original).items():
                if name not in _HOOKS and not _same(value, now[name], self.twins if name == "_modules" else {}):
                    raise Unclear

    def enter_state(self, state: Mapping[str, Tree]) -> "OrderedDict[str, Any]":
        """A state of the file as the module's code expects it."""
        return OrderedDict((name, self.standin(node) if isinstance(node, LazyTensor) else node) for name, node in state.items())

    def leave_state(self, state: Mapping[str, Any]) -> dict[str, Tree]:
        """The reverse, after the module's code renamed or replaced what it wanted to."""
        return {name: self.original(value) for name, value in state.items()}

    def standin(self, tensor: LazyTensor) -> Any:
        dtype = TORCH_OF.get(tensor.dtype.name)
        if dtype is None or tensor.dtype.bits == 4:
            return self.read(tensor)
        made = torch.empty(tensor.shape, dtype=dtype, device="meta")
        self.standins[id(made)] = (made, tensor)
        return made

    def original(self, value: Any) -> Any:
        known = self.standins.get(id(value))
        return value if known is None else known[1]

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.Tensor.copy_ and id(args[0]) in self.own:
            self.copies[id(args[0])] = (args[0], self.original(args[1] if len(args) > 1 else kwargs["src"]))
            return args[0]
        name = getattr(function, "__name__", "")
        writes = name in _WRITES or (name.endswith("_") and not name.endswith("__"))
        if (writes or name in _WAYS_OUT) and args and self.touches(args[0]):
            raise Unclear
        if "out" in kwargs and any(map(self.touches, kwargs["out"] if isinstance(kwargs["out"], tuple) else (kwargs["out"],))):
            raise Unclear
        if not any(id(value) in self.standins for value in (*args, *kwargs.values(), *_inside(args))):
            return function(*args, **kwargs)
        if writes and id(args[0]) in self.standins:
            raise Unclear
        try:
            result = function(*args, **kwargs)  # a question about shape or dtype
            if not isinstance(result, (torch.Tensor, list, tuple)) or isinstance(result, torch.Size):
                return result
        except (RuntimeError, NotImplementedError):
            pass  # a question about values: ask the real ones
        return function(*self.real(args), **{name: self.real(value) for name, value in kwargs.items()})

    def touches(self, value: Any) -> bool:
        """Whether a tensor lies in memory of the module."""
        return isinstance(value, torch.Tensor) and (id(value) in self.own or _storage(value) in self.storages)

    def real(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
            return type(value)(map(self.real, value))
        known = self.standins.get(id(value))
        return value if known is None else self.read(known[1])


def _rebind(twin: Any, twins: Mapping[int, tuple[Any, Any]]) -> None:
    """Let hooks that know their module know its twin instead. Those that run after a load are not rehearsed."""
    twin.__dict__["_load_state_dict_post_hooks"] = OrderedDict()
    rebound: OrderedDict[int, Any] = OrderedDict()
    for number, hook in twin._load_state_dict_pre_hooks.items():
        wrapped = isinstance(hook, _WrappedHook)
        function = hook.hook if wrapped else hook
        known = twins.get(id(function.__self__)) if inspect.ismethod(function) else None
        if known is not None:
            function = types.MethodType(function.__func__, known[1])
        rebound[number] = _WrappedHook(function, twin if hook.with_module else None) if wrapped else function
    twin.__dict__["_load_state_dict_pre_hooks"] = rebound


def _copied(value: Any) -> Any:
    """A container of its own, so that the twin's changes do not reach the module."""
    return value.copy() if type(value) in (dict, OrderedDict, list, set) else value


def _same(value: Any, other: Any, twins: Mapping[int, tuple[Any, Any]]) -> bool:
    """Whether a value of the module and one of the twin are the same, or containers of the same things."""
    if type(value) in (dict, OrderedDict):
        if list(value) != list(other):
            return False
        pairs = zip(value.values(), other.values(), strict=True)
        return all(one is two or ((known := twins.get(id(one))) and known[1] is two) for one, two in pairs)
    if type(value) is list:
        return len(value) == len(other) and all(one is two for one, two in zip(value, other, strict=True))
    return value is other or (type(value) is set and value == other)


def _storage(tensor: Any) -> int:
    """The address of a tensor's memory; 0 where it has none."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (RuntimeError, NotImplementedError):  # sparse tensors, and some subclasses
        return 0


def _inside(args: Any) -> list[Any]:
    """What stands in lists among the arguments, as for `torch.cat`."""
    return [inner for value in args if isinstance(value, (list, tuple)) for inner in value]

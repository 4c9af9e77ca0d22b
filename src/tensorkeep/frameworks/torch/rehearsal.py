"""Rehearsal: what a module's own loading code would copy where, found out without copying.

PyTorch's modules migrate old states in code of their own: `_load_from_state_dict`, hooks. Here that code runs on stand-ins, which are
tensors on the meta device, while every `copy_` into the module is noted instead of done.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from tensorkeep.frameworks.torch.tensors import TORCH_OF
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Tree


class Rehearsal(TorchFunctionMode):
    """Notes copies into the module; hands real tensors to code that computes with values.

    Attributes:
        copies: by id of the module's tensor: that tensor, and what would be copied into it (a LazyTensor or a real tensor).
    """

    def __init__(self, module: Any, read: Callable[[LazyTensor], Any]) -> None:
        super().__init__()
        self.read = read
        self.own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
        self.standins: dict[int, tuple[Any, LazyTensor]] = {}  # the tensor is held, so that its id stays its own
        self.copies: dict[int, tuple[Any, Any]] = {}

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
        if not any(id(value) in self.standins for value in (*args, *kwargs.values(), *_inside(args))):
            return function(*args, **kwargs)
        try:
            result = function(*args, **kwargs)  # a question about shape or dtype
            if not isinstance(result, (torch.Tensor, list, tuple)) or isinstance(result, torch.Size):
                return result
        except (RuntimeError, NotImplementedError):
            pass  # a question about values: ask the real ones
        return function(*self.real(args), **{name: self.real(value) for name, value in kwargs.items()})

    def real(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
            return type(value)(map(self.real, value))
        known = self.standins.get(id(value))
        return value if known is None else self.read(known[1])


def _inside(args: Any) -> list[Any]:
    """What stands in lists among the arguments, as for `torch.cat`."""
    return [inner for value in args if isinstance(value, (list, tuple)) for inner in value]

"""Snapshot: a module as it is, so that code which is about to change it can be undone."""

from typing import Any

import torch
from torch.nn.parameter import is_lazy


class Snapshot:
    """Everything that a module and those in it hold, values of tensors included.

    Args:
        module: nothing of it is changed.
    """

    def __init__(self, module: Any) -> None:
        self._modules = [(inner, {name: _copied(value) for name, value in vars(inner).items()}) for inner in module.modules()]
        tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        self._tensors = [(tensor, type(tensor), tensor.data, _values(tensor)) for tensor in tensors.values()]

    def restore(self) -> None:
        """Put everything back: the same objects, with the values that they had."""
        for module, attributes in self._modules:
            vars(module).clear()
            vars(module).update({name: _copied(value) for name, value in attributes.items()})
        with torch.no_grad():
            for tensor, cls, data, values in self._tensors:
                tensor.data = data
                if type(tensor) is not cls:  # a lazy one that was given its shape
                    tensor.__class__ = cls
                if values is not None:
                    tensor.copy_(values)


def _values(tensor: Any) -> Any:
    return None if is_lazy(tensor) or tensor.is_meta else tensor.detach().clone()


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, (dict, list, set)) and hasattr(value, "copy") else value

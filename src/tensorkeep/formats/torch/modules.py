"""Whole pickled modules and optimizers, as their `state_dict` would give them.

A module of PyTorch keeps its parameters, buffers and parts in dicts of its own. Here they become what `state_dict()` returns: one dict with
the names that everybody uses, such as `features.0.weight`. What else a module has (its class, its settings) is told in the metadata.

Lives here: the walk over a finished tree. Lives elsewhere: modules of TorchScript, which are laid out in another way (script).
Source: `Module.state_dict` in `torch/nn/modules/module.py`, `Optimizer.state_dict` in `torch/optim/optimizer.py`.
"""

from collections import OrderedDict, deque
from typing import Any, Final

from tensorkeep.errors import FormatError, shown
from tensorkeep.formats.torch.rebuild import constant
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Stub, Tree, brief, join, name_of, tensors

_OWN_DICTS: Final = ("_parameters", "_buffers", "_modules")
_BODY: Final = {  # functions that make a module of its own dict, which is their first argument
    ("torch.fx.graph_module", "reduce_graph_module"),
    ("torch.fx.graph_module", "reduce_package_graph_module"),
    ("torch.fx.graph_module", "reduce_deploy_graph_module"),
    ("torch.fx.graph_module", "_deserialize_graph_module"),
}
MOST_MODULES: Final = 200_000  # met, shared ones each time
_MOST_SETTINGS: Final = 50  # of one module that are told
_PLAIN: Final = (str, int, float, bool, type(None))


class Modules:
    """Turns the modules and optimizers of one finished tree into their states, and PyTorch's constants into values.

    Attributes:
        described: by path, the class and the settings of every module.
        left_out: what a module has and its state leaves out, a sentence each.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.described: dict[str, dict[str, Any]] = {}
        self.left_out: dict[str, None] = {}
        self._done: dict[int, tuple[Tree, Tree]] = {}  # by id: the node, which must live on, and what it became
        self._met = 0

    def settle(self, node: Tree, path: str = "") -> Tree:
        """The node, or what takes its place. Containers are changed where they are: the tree is of our own making."""
        if isinstance(node, (LazyTensor, *_PLAIN)):
            return node
        known = self._done.get(id(node))
        if known is not None:
            return known[1]
        self._done[id(node)] = (node, node)
        made = self._made(node, path)
        self._done[id(node)] = (node, made)
        return made

    def _made(self, node: Tree, path: str) -> Tree:
        if isinstance(node, Stub):
            return self._stub(node, path)
        if isinstance(node, Captured):
            node.state = self.settle(node.state, path)
        elif isinstance(node, dict):
            for key, child in node.items():
                if type(child) is not LazyTensor:
                    node[key] = self.settle(child, join(path, key))
        elif isinstance(node, (list, deque)):
            for number, child in enumerate(node):
                if type(child) is not LazyTensor and not isinstance(child, _PLAIN):
                    node[number] = self.settle(child, join(path, number))
        elif type(node) is tuple:
            return tuple(self.settle(child, join(path, number)) for number, child in enumerate(node))
        return node

    def _stub(self, stub: Stub, path: str) -> Tree:
        if not stub.made:
            return constant(stub.module, stub.name) or stub
        if (stub.module, stub.name) in _BODY:
            stub = _with_body(stub)
        if is_module(stub):
            state: OrderedDict[str, Tree] = OrderedDict()
            self._module(stub, "", path, state)
            return Captured("torch.module", stub.name, state)
        if _is_optimizer(stub):
            return self.settle(Captured("torch.optimizer", stub.name, _optimizer(stub)), path)
        for name, child in stub.fields.items():
            stub.fields[name] = self.settle(child, join(path, name))
        return stub

    def _module(self, module: Stub, prefix: str, path: str, state: "OrderedDict[str, Tree]") -> None:
        """Gather parameters, buffers and parts under the names of `state_dict`."""
        self._met += 1
        if self._met > MOST_MODULES:
            raise FormatError(self.file, f"more than {MOST_MODULES:,} modules, shared ones counted each time")
        fields = module.fields
        place = path + ("." if path and prefix else "") + prefix.removesuffix(".")
        self._describe(module, place)
        for name, parameter in fields["_parameters"].items():
            if parameter is not None:
                state[prefix + name_of(name)] = self.settle(parameter, join(place, name))
        said = fields.get("_non_persistent_buffers_set")
        passing = said if isinstance(said, (set, frozenset, list, tuple)) else ()
        for name, buffer in fields["_buffers"].items():
            if buffer is None:
                continue
            if name in passing:
                self._note(buffer, join(place, name), "a buffer that is not persistent")
            else:
                state[prefix + name_of(name)] = self.settle(buffer, join(place, name))
        for name, part in fields["_modules"].items():
            inner = _with_body(part) if isinstance(part, Stub) and (part.module, part.name) in _BODY else part
            if isinstance(inner, Stub) and is_module(inner):
                self._module(inner, f"{prefix}{name_of(name)}.", path, state)
            elif part is not None:
                state[prefix + name_of(name)] = self.settle(part, join(place, name))

    def _describe(self, module: Stub, path: str) -> None:
        told: dict[str, Any] = {"class": f"{module.module}.{module.name}"}
        for name, value in module.fields.items():
            text = name_of(name)
            if text in _OWN_DICTS or text == "_non_persistent_buffers_set":
                continue
            if "hooks" in text:
                if isinstance(value, dict) and value:
                    self.left_out[f"{shown(path) or 'the module'}: {len(value)} functions in {shown(text)}"] = None
                continue
            if any(True for _ in tensors(value)):
                self._note(value, join(path, name), "an attribute")
            if len(told) < _MOST_SETTINGS:
                told[text] = value if isinstance(value, _PLAIN) else brief(value, 100)
        self.described[path] = told

    def _note(self, value: Tree, path: str, what: str) -> None:
        """Tell of tensors that a module has and its state leaves out."""
        specs = [str(tensor.spec) for _, tensor in tensors(value)][:5]
        self.left_out[f"{shown(path)}: {what} ({', '.join(specs) or type(value).__name__}), which state_dict leaves out"] = None


def is_module(stub: Stub) -> bool:
    """Whether a stub stands for a module: it has the three dicts that all of them have."""
    return all(isinstance(stub.fields.get(name), dict) for name in _OWN_DICTS)


def _with_body(stub: Stub) -> Stub:
    """What a function of torch.fx would have made: a module with the attributes in its first argument."""
    args = stub.fields.get("__args__")
    body = args[0] if isinstance(args, (tuple, list)) and args else None
    return Stub("torch.fx.graph_module", "GraphModule", body) if isinstance(body, dict) else stub


def _is_optimizer(stub: Stub) -> bool:
    groups = stub.fields.get("param_groups")
    return isinstance(stub.fields.get("state"), dict) and isinstance(groups, list) and all(isinstance(group, dict) for group in groups)


def _optimizer(stub: Stub) -> dict[str, Tree]:
    """The state with numbers in place of parameters, as an optimizer's own `state_dict` gives it."""
    numbers: dict[int, int] = {}
    groups = []
    for group in stub.fields["param_groups"]:
        params = group.get("params")
        listed = list(params) if isinstance(params, (list, tuple)) else []
        groups.append({**group, "params": [numbers.setdefault(id(parameter), len(numbers)) for parameter in listed]})
    state = {numbers.get(id(key), key) if isinstance(key, LazyTensor) else key: value for key, value in stub.fields["state"].items()}
    return {"state": state, "param_groups": groups}

"""TorchScript: modules with their program, as `torch.jit.save` and `_save_for_lite_interpreter` write them.

The pickle has every attribute of every module; which of them are parameters and buffers is said in the first lines of each class in
`code/`, which are read as text. The program itself is neither read nor run.

Source: `torch/csrc/jit/serialization/import_source.cpp` and `docs/serialization.md` beside it, PyTorch 2.13.
"""

import re
from collections import OrderedDict
from typing import Any, Final, NamedTuple

from tensorkeep.contents import Contents
from tensorkeep.errors import FormatError, shown
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.torch.archive import PICKLE, Archive, archive_of
from tensorkeep.formats.torch.modules import MOST_MODULES
from tensorkeep.formats.torch.pickle import run_pickle, settle, trailing
from tensorkeep.formats.torch.rebuild import Rebuilder
from tensorkeep.formats.torch.storage import Views
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Stub, Tree, brief, join, tensors
from tensorkeep.unpickle.inert import Constructor

CONSTANTS: Final = "constants.pkl"
_CODE: Final = "code/"
_ROOT: Final = "__torch__"
_CODE_BYTES: Final = 64 << 20
_CLASS: Final = re.compile(r"^class (\w+)\(Module\):\n((?:  .*\n|\n)*)", re.MULTILINE)
_NAMES: Final = re.compile(r"^  __(parameters|buffers)__ = \[(.*)\]$", re.MULTILINE)
_NAME: Final = re.compile(r'\s*"((?:[^"\\]|\\.)*)",?')
_ASIDE: Final = {
    "bytecode.pkl": "the bytecode",
    "traced_inputs.pkl": "the inputs of the trace",
    "mobile_debug_handles.pkl": "debug handles",
}
_MOST_SETTINGS: Final = 50


def _list(args: tuple[Any, ...]) -> object:
    (items,) = args
    if type(items) is not list:
        raise TypeError("a list is wanted")
    return items


def _tagged(args: tuple[Any, ...]) -> object:
    value, _ = args
    return value


_TABLE: Final[dict[tuple[str, str], Constructor]] = {
    **{("torch.jit._pickle", f"build_{kind}list"): _list for kind in ("int", "double", "bool", "tensor", "complex")},
    ("torch.jit._pickle", "restore_type_tag"): _tagged,
}


class _Declared(NamedTuple):
    """What a class says of its attributes; buffers are None where it does not tell them apart."""

    parameters: list[str]
    buffers: list[str] | None


class TorchScriptReader:
    """`.pt`, `.jit`, `.ptl`: a torch archive with constants and a program."""

    name = "torchscript"

    def recognizes(self, peek: Peek) -> bool:
        prefix = archive_of(peek)
        return prefix is not None and peek.zip is not None and prefix + CONSTANTS in peek.zip

    def read(self, peek: Peek) -> Contents:
        prefix = archive_of(peek)
        assert prefix is not None, "recognized"
        archive = Archive(peek, prefix)
        rebuilder = Rebuilder(Views(peek.name, peek.limits, swapped=archive.swapped), find=archive.storage)
        pickle = archive.open(PICKLE)
        if peek.verify:
            pickle.check()
        value, end = run_pickle(peek, pickle, rebuilder, extra=_TABLE)
        settled = settle(peek, value, rebuilder, modules=False)
        scripted = _Scripted(archive)
        tree = scripted.state(settled.tree) if isinstance(settled.tree, Stub) else settled.tree
        constants = _constants(archive)
        return assemble.contents(
            peek,
            format="TorchScript",
            tree=tree,
            metadata=archive.metadata() | settled.metadata | {"constants": constants, "modules": scripted.described},
            of_file=archive.metadata(),
            findings=[*archive.findings(), *trailing(peek, pickle.nbytes - end, f"the end of the pickle in {PICKLE}")],
            left_out=[*settled.left_out, *scripted.left_out, *_aside(archive, constants)],
            version=archive.version,
            checked=archive.checked(),
            views_unchecked=True,
        )


class _Scripted:
    """Turns the objects of one archive into the state of their module."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.described: dict[str, dict[str, Any]] = {}
        self.left_out: dict[str, None] = {}
        self._classes: dict[str, dict[str, _Declared]] = {}  # by module
        self._met = 0

    def state(self, root: Stub) -> Tree:
        """What `state_dict` would give."""
        found: OrderedDict[str, Tree] = OrderedDict()
        self._gather(root, "", found)
        return Captured("torch.module", root.name, found)

    def _gather(self, module: Stub, prefix: str, found: "OrderedDict[str, Tree]") -> None:
        self._met += 1
        if self._met > MOST_MODULES:
            raise FormatError(self.archive.peek.name, f"more than {MOST_MODULES:,} modules, shared ones counted each time")
        declared = self._declared(module)
        place = prefix.removesuffix(".")
        told: dict[str, Any] = {"class": f"{module.module.removeprefix(f'{_ROOT}.')}.{module.name}"}
        parts: list[tuple[str, Stub]] = []
        parameters: dict[str, Tree] = {}
        buffers: dict[str, Tree] = {}
        for name, value in module.fields.items():
            if type(name) is not str or value is None:
                continue
            if isinstance(value, Stub) and self._declared(value) is not None:
                parts.append((name, value))
            elif isinstance(value, (LazyTensor, Captured)):
                if declared is None or name in declared.parameters:
                    parameters[name] = value
                elif declared.buffers is None or name in declared.buffers:
                    buffers[name] = value
                else:
                    self._note(value, join(place, name))
            elif isinstance(value, Stub) and value.made and any(True for _ in tensors(value)):
                buffers[name] = value  # an object of a C++ class, such as the packed weights of a quantized layer
            else:
                if any(True for _ in tensors(value)):
                    self._note(value, join(place, name))
                if len(told) < _MOST_SETTINGS:
                    told[name] = value if isinstance(value, (str, int, float, bool)) else brief(value, 100)
        self.described[place] = told
        found.update((prefix + name, value) for name, value in (*parameters.items(), *buffers.items()))
        for name, part in parts:
            self._gather(part, f"{prefix}{name}.", found)

    def _note(self, value: Tree, path: str) -> None:
        specs = [str(tensor.spec) for _, tensor in tensors(value)][:5]
        self.left_out[f"{shown(path)}: an attribute ({', '.join(specs)}), which state_dict leaves out"] = None

    def _declared(self, stub: Stub) -> _Declared | None:
        """What its class says, if it is a module's; where the file has no program, every object of it is one."""
        if not stub.made or not (stub.module == _ROOT or stub.module.startswith(f"{_ROOT}.")):
            return None
        known = self._classes.get(stub.module)
        if known is None:
            known = self._classes[stub.module] = self._read_classes(f"{_CODE}{stub.module.replace('.', '/')}.py")
        return known.get(stub.name)

    def _read_classes(self, record: str) -> dict[str, _Declared]:
        if not self.archive.has(record):
            return {}
        member = self.archive.zip[self.archive.prefix + record]
        if member.nbytes > _CODE_BYTES:
            raise self.archive.peek.error(f"{record!r:.200} has {member.nbytes:,} bytes of program, {_CODE_BYTES:,} are read at most")
        text = str(self.archive.open(record).checked(), "utf-8", "replace")
        found: dict[str, _Declared] = {}
        for name, body in _CLASS.findall(text):
            lists = {kind: _names(names) for kind, names in _NAMES.findall(body)}
            found[name] = _Declared(lists.get("parameters", []), lists.get("buffers"))
        return found


def _names(text: str) -> list[str]:
    """The texts of a list, one behind the other: a search for each would take for ever where a quote is missing."""
    found, at = [], 0
    while match := _NAME.match(text, at):
        found.append(match[1])
        at = match.end()
    return found


def _constants(archive: Archive) -> list[str]:
    """The tensors that the program uses, each in few characters."""
    rebuilder = Rebuilder(
        Views(archive.peek.name, archive.peek.limits, swapped=archive.swapped), find=lambda key: archive.storage(key, "constants/")
    )
    pickle = archive.open(CONSTANTS)
    if archive.peek.verify:
        pickle.check()
    value, _ = run_pickle(archive.peek, pickle, rebuilder, extra=_TABLE)
    settled = settle(archive.peek, value, rebuilder, modules=False)
    items = settled.tree if isinstance(settled.tree, (tuple, list)) else [settled.tree]
    return [str(item.spec) if isinstance(item, LazyTensor) else brief(item) for item in items]


def _aside(archive: Archive, constants: list[str]) -> list[str]:
    """What the archive has beside the state."""
    programs = [name for name in archive.names(_CODE) if name.endswith(".py")]
    extra = list(archive.names("extra/"))
    found = [f"the program, in {len(programs):,} files of {_CODE}"] if programs else []
    found += [f"{len(constants):,} constants of the program: {', '.join(constants[:5])}"] if constants else []
    found += [f"{what}, in {name}" for name, what in _ASIDE.items() if archive.has(name)]
    return found + ([f"{len(extra):,} extra files, such as {extra[0]}"] if extra else [])

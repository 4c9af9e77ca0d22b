"""Capture: a state becomes a tree.

Every object is turned, by its adapter, into containers, plain values and tensors over live memory. Nothing is copied; tied tensors
become one; each place of a target keeps its own object of them. Values that no adapter knows pass through: structure keeps or refuses them.
"""

from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, Final, cast

import numpy as np

from tensorkeep.errors import TensorkeepWarning, UnsupportedError, warn
from tensorkeep.frameworks import table
from tensorkeep.frameworks.numpy import LiveArray
from tensorkeep.frameworks.protocols import Adapter
from tensorkeep.limits import Limits
from tensorkeep.matching import TIED
from tensorkeep.structure.grammar import PLAIN
from tensorkeep.tensors import LazyTensor, Live
from tensorkeep.tree import Captured, Packed, Tree, join, like, name_of

_DICTS: Final = (dict, OrderedDict, defaultdict, Counter)
_SEQUENCES: Final = (list, tuple, deque)
_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, set, frozenset})


def capture(state: object, limits: Limits, *, met: set[type] | None = None) -> Tree:
    """The tree of a state to be kept, over its live memory.

    Args:
        met: gets the classes of the objects in it.

    Raises:
        UnsupportedError: it holds itself, is nested too deeply, or an adapter cannot keep a part of it.
    """
    capturing = _Capture(limits, saving=True)
    tree = capturing.node(state, "", 0)
    capturing.warn_of_overlaps()
    if met is not None:
        met.update(cls for cls, adapter in capturing.adapters.items() if adapter is not None)
    return tree


def capture_target(state: object, limits: Limits) -> Tree:
    """The tree of a state to be filled: its tensors may have no memory yet.

    Raises:
        UnsupportedError: as for `capture`.
    """
    return _Capture(limits, saving=False).node(state, "", 0)


class _Capture:
    def __init__(self, limits: Limits, *, saving: bool) -> None:
        self.limits, self.saving = limits, saving
        self.adapters: dict[type, Adapter | None] = {}
        self.by_id: dict[int, LazyTensor] = {}
        self.of_files: dict[int, tuple[LazyTensor, LazyTensor]] = {}  # with the one that the caller has, so that its id stays its own
        self.by_address: dict[int, LazyTensor | list[LazyTensor]] | None = None  # made for the first tensor that may share its memory
        self.open: set[int] = set()  # ids of the containers and objects around the present one
        self.objects = 0  # around the present one: what stands in them is never given back by itself, but for the fields of records

    def node(self, value: Any, path: str, depth: int) -> Tree:
        kind = type(value)
        if kind in _PLAIN:
            return value
        adapter = self.adapters.get(kind)
        if adapter is not None:
            known = self.by_id.get(id(value)) if kind is np.ndarray else None
            return self.captured(adapter, value, path, depth) if known is None else known
        if kind in _DICTS:
            return self.mapping(value, path, depth)
        if kind in _SEQUENCES:
            self.enter(value, path, depth)
            items = [self.node(child, join(path, number), depth + 1) for number, child in enumerate(value)]
            self.open.discard(id(value))
            return deque(items, value.maxlen) if kind is deque else items if kind is list else tuple(items)
        if kind is LazyTensor or kind is Packed or kind is Captured:
            return self.of_file(value, path, depth)
        if kind in self.adapters or (adapter := self.find(value)) is None:
            return value
        return self.captured(adapter, value, path, depth)

    def of_file(self, value: Any, path: str, depth: int) -> Tree:
        """A part of an opened file's tree, whose bytes go from file to file, or a child that its adapter captured along with itself.

        The nodes of a file are not changed.
        """
        if isinstance(value, Packed):
            return Packed(value.kind, LazyTensor(value.tensor.spec, value.tensor.source, PLAIN))
        if isinstance(value, Captured):
            state = self.node(value.state, path, depth + 1)
            return Captured(value.kind, value.cls, state, origin=value.origin, extra=value.extra)
        return self.of_files.setdefault(id(value), (value, LazyTensor(value.spec, value.source, value.framework)))[1]

    def mapping(self, value: dict[Any, Any], path: str, depth: int) -> Tree:
        self.enter(value, path, depth)
        if type(value) is OrderedDict and (extra := sorted(set(vars(value)) - {"_metadata"})):
            raise UnsupportedError(join(path, extra[0]), "an attribute of an OrderedDict, which keeps no other than _metadata")
        fresh = like(value)
        prefix = f"{path}." if path else ""
        for key, child in value.items():
            fresh[key] = self.node(child, prefix + (key if type(key) is str else name_of(key)), depth + 1)
        self.open.discard(id(value))
        return fresh

    def enter(self, value: object, path: str, depth: int) -> None:
        if id(value) in self.open:
            raise UnsupportedError(path, "a container that holds itself")
        if depth > self.limits.depth:
            raise UnsupportedError(path, f"nested more than {self.limits.depth} containers deep")
        self.open.add(id(value))

    def find(self, value: object) -> Adapter | None:
        self.adapters[type(value)] = adapter = table.find(value)
        return adapter

    def captured(self, adapter: Adapter, value: object, path: str, depth: int) -> Tree:
        try:
            capture = adapter.capture if self.saving else getattr(adapter, "capture_target", adapter.capture)
            made = capture(value)
        except UnsupportedError as error:  # the adapter does not know the path
            raise UnsupportedError(join(path, error.path) if error.path else path, error.reason, hint=error.hint) from error.__cause__
        if type(made) is LazyTensor:
            source: Any = made.source
            if self.saving and (reason := source.unsaveable()):
                raise UnsupportedError(path, reason)
            return self.tensor(made, source, value)
        if isinstance(made, Captured):
            self.enter(value, path, depth)
            self.objects += adapter.name != "records"
            made.state = self.node(made.state, path, depth + 1)
            self.objects -= adapter.name != "records"
            self.open.discard(id(value))
        return made

    def tensor(self, tensor: LazyTensor, source: Any, value: object) -> Tree:
        """The one LazyTensor of tied tensors: same pointer, shape, strides and dtype of live memory."""
        if source.immutable and not self.saving:
            return tensor  # each place gets a successor of its own
        is_array = type(source) is LiveArray
        if self.by_address is None and not (is_array and source.array.base is None):
            # An array that owns its memory can share it only with a view of it; this one may be one.
            self.by_address = {}
            for other in self.by_id.values():
                self.tied(other, self.by_address)
        known = tensor if self.by_address is None else self.tied(tensor, self.by_address)
        if known is tensor:
            if is_array:
                self.by_id[id(value)] = tensor  # which holds the value, so that its id stays its own
        elif not (self.saving or self.objects or cast(Live, known.source).owner() is value):
            return Captured(TIED, type(value).__qualname__, known, origin=value)
        return known

    def tied(self, tensor: LazyTensor, by_address: dict[int, LazyTensor | list[LazyTensor]]) -> LazyTensor:
        source: Any = tensor.source
        address = source.address
        if address == 0:
            return tensor
        known = by_address.setdefault(address, tensor)
        if known is tensor:
            return tensor
        others = known if isinstance(known, list) else [known]
        for other in others:
            if other is tensor or (other.framework == tensor.framework and cast(Live, other.source).key() == source.key()):
                return other
        by_address[address] = [*others, tensor]
        return tensor

    def warn_of_overlaps(self) -> None:
        """Say once if tensors share memory without being the same: each is stored whole."""
        if self.by_address and _overlap(self.by_address):
            warn(TensorkeepWarning("some tensors are overlapping views of one memory; each is stored by itself, and they come back apart"))


def _overlap(by_address: dict[int, LazyTensor | list[LazyTensor]]) -> bool:
    """Whether the memory of two tensors overlaps, as far as first and last address can tell."""
    tensors = [here for here in by_address.values() if isinstance(here, LazyTensor)]
    if len(tensors) < len(by_address):
        return True  # two begin at one address and are not the same
    live = [cast(Live, tensor.source) for tensor in tensors]
    lows = np.array(list(by_address), np.uint64)
    highs = lows + np.array([tensor.nbytes for tensor in tensors], np.uint64)
    for number, source in enumerate(live):
        if not source.plain:
            lows[number], highs[number] = source.extent()
    order = np.argsort(lows, kind="stable")
    lows, highs = lows[order], highs[order]
    there = highs > lows
    lows, highs = lows[there], highs[there]
    return bool((lows[1:] < np.maximum.accumulate(highs)[:-1]).any())

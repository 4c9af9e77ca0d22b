"""Taking: an estimator becomes a tree of its parameters and fitted attributes.

The whole of it is walked at once, so that an object that stands in two places is kept once: the second is a node that names the path
of the first. Whatever cannot be kept is refused with its path; nothing is left out silently.
"""

import functools
import random
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, time, timedelta
from typing import Any, Final

import numpy as np

from tensorkeep.errors import UnsupportedError
from tensorkeep.frameworks.sklearn import boosters, names, parts, special
from tensorkeep.tree import Captured, Names, Tree, join, like, name_of

VERSION: Final = "_sklearn_version"
"""Where the root of an estimator keeps the version of scikit-learn, as its pickles do."""

_MOMENTS: Final = (datetime, date, time, timedelta)
_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, range, slice, set, frozenset, *_MOMENTS})
_DICTS: Final = (dict, OrderedDict, defaultdict, Counter)
_DEEPEST: Final = 100  # containers and objects: what a structure may have


def take(obj: object) -> Captured:
    """The tree of an estimator or of a part of one, over its live memory.

    Raises:
        UnsupportedError: it holds code, or what no table knows.
    """
    import sklearn  # its class is from there

    node = _Taker().value(obj, "", 0)
    assert isinstance(node, Captured)
    if node.kind in ("sklearn.estimator", "sklearn.own"):
        node.state[VERSION] = sklearn.__version__
    return node


def empty(obj: Any) -> Captured:
    """The kind and class of an object that is to be filled, without its state."""
    cls = type(obj)
    if part := parts.find(obj):
        kind, name = "sklearn.part", part
    elif booster := boosters.find(obj):
        kind, name = "sklearn.booster", booster
    elif names.is_known(cls, names.INSIDE):
        kind, name = "sklearn.object", cls.__name__
    else:
        known = names.is_known(cls, names.ESTIMATORS)
        kind, name = ("sklearn.estimator", cls.__name__) if known else ("sklearn.own", cls.__qualname__)
    return Captured(kind, name, {}, origin=obj)


class _Taker:
    def __init__(self) -> None:
        self.names = Names()
        self.seen: dict[int, tuple[object, str]] = {}  # by id: the object, so that its id stays its own, and the name of its place
        self.open: set[int] = set()
        self.views: dict[int, tuple[object, object]] = {}  # by id of the array that owns the memory: the first view of it
        self.copies: dict[object, Any] = {}

    def value(self, value: Any, path: str, depth: int) -> Tree:
        kind = type(value)
        if kind in _PLAIN or isinstance(value, np.generic) or (isinstance(value, np.dtype) and value.kind != "O"):
            return value
        if depth > _DEEPEST:
            raise UnsupportedError(path, f"nested more than {_DEEPEST} objects deep")
        if kind in _DICTS or kind in (list, tuple, deque):
            self.enter(value, path)
            node = self.container(value, path, depth)
            self.open.discard(id(value))
            return node
        if isinstance(value, np.ndarray) and value.dtype != object and kind is not np.ma.MaskedArray:
            return self.array(value)
        if isinstance(value, type):
            return self.class_itself(value, path)
        if names.is_function(value):
            return self.function(value, path)
        if kind.__name__ == "_RemainderColsList" and kind.__module__.startswith("sklearn."):  # of 1.5 to 1.7, to warn where it is used
            return self.value(list(value.data), path, depth)
        return self.instance(value, path, depth)

    def enter(self, value: object, path: str) -> None:
        if id(value) in self.open:
            raise UnsupportedError(path, f"a {type(value).__qualname__} that holds itself")
        self.open.add(id(value))

    def container(self, value: Any, path: str, depth: int) -> Tree:
        if isinstance(value, dict):
            fresh = like(value)
            for key, child in value.items():
                fresh[key] = self.value(child, join(path, key if type(key) is str else name_of(key)), depth + 1)
            return fresh
        items = [self.value(child, join(path, number), depth + 1) for number, child in enumerate(value)]
        return deque(items, value.maxlen) if type(value) is deque else items if type(value) is list else tuple(items)

    def array(self, array: Any) -> Tree:
        """An array with its order, on which the last bits of a product depend. A second view of one memory is copied."""
        root = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        view = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        if self.views.setdefault(id(root), (root, view))[1] != view:
            array = self.copies.setdefault((id(root), view), array.copy(order="K"))
        if type(array) is np.ndarray and array.flags.f_contiguous and not array.flags.c_contiguous:
            return Captured("sklearn.value", "fortran_array", array)
        return array

    def class_itself(self, value: type, path: str) -> Tree:
        if not (name := names.name_of_type(value)):
            raise UnsupportedError(path, f"the class {value.__module__}.{value.__qualname__}, which is code")
        return Captured("sklearn.type", name, name)

    def function(self, value: Any, path: str) -> Tree:
        """The name of a function: scikit-learn's own scoring functions come back by it, others by `types=`."""
        if names.is_known(value, names.FUNCTIONS):
            return Captured("sklearn.function", value.__name__, value.__name__)
        name = names.name_of_function(value)
        if not name or "<" in name:
            raise UnsupportedError(path, f"the function {name or value!r}, which is code without a name to find it by")
        return Captured("sklearn.code", name, name)

    def instance(self, value: Any, path: str, depth: int) -> Tree:
        cls = type(value)
        part = parts.find(value)
        if part and not parts.PARTS[part].shared:
            self.enter(value, path)
            state = self.value(self.part(part, value, path), path, depth + 1)
            self.open.discard(id(value))
            return Captured("sklearn.value", part, state)
        if (known := self.seen.get(id(value))) is not None:
            if id(value) in self.open:
                raise UnsupportedError(path, f"a {cls.__qualname__} that holds itself")
            return Captured("sklearn.same", cls.__qualname__, known[1])
        self.seen[id(value)] = (value, self.names.free(path))
        if isinstance(value, (np.random.RandomState, np.random.Generator)) or cls is random.Random:
            return value
        self.enter(value, path)
        node = self.taken(value, part, path, depth)
        self.open.discard(id(value))
        return node

    def taken(self, value: Any, part: str, path: str, depth: int) -> Tree:
        cls = type(value)
        if part:
            return Captured("sklearn.part", part, self.value(self.part(part, value, path), path, depth))
        if booster := boosters.find(value):
            return Captured("sklearn.booster", booster, boosters.take(value))
        if names.is_known(cls, names.INSIDE):
            state = dict(value) if isinstance(value, dict) else dict(vars(value))
            return Captured("sklearn.object", cls.__name__, self.attributes(cls, value, state, path, depth))
        if cls is functools.partial and not vars(value):
            state = {"func": value.func, "args": value.args, "keywords": value.keywords}
            return Captured("sklearn.partial", "partial", self.container(state, path, depth + 1))
        if not names.is_estimator(value):
            raise UnsupportedError(path, f"an object of {cls.__module__}.{cls.__qualname__}, which no table of scikit-learn's parts knows")
        state = value.__getstate__()
        if not isinstance(state, dict) or isinstance(value, (dict, list, tuple, str)):
            raise UnsupportedError(path, f"a {cls.__qualname__}, whose state is more than its attributes")
        state = {name: child for name, child in state.items() if name != VERSION}
        known = names.is_known(cls, names.ESTIMATORS)
        kind, name = ("sklearn.estimator", cls.__name__) if known else ("sklearn.own", cls.__qualname__)
        return Captured(kind, name, self.attributes(cls, value, state, path, depth))

    def part(self, part: str, value: Any, path: str) -> dict[str, Any]:
        try:
            return parts.PARTS[part].take(value)
        except names.Unknown as unknown:
            raise UnsupportedError(path, str(unknown)) from None

    def attributes(self, cls: type, value: Any, state: dict[str, Any], path: str, depth: int) -> Tree:
        hook = special.TAKING.get(cls.__name__)
        if hook is not None:
            state = hook(value, state)
        node = self.container(state, path, depth + 1)
        if cls.__name__ == "Birch" and "dummy_leaf_" in state:  # its leaves have their places by now
            node[special.LEAVES] = [self.seen[id(leaf)][1] for leaf in special.leaves(value)]
        return node

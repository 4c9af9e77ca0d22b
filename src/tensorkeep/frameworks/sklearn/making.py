"""Making: an estimator is built from its tree, by closed tables of exact names.

Nothing of a file decides what is imported: a name that stands in no table must be among the classes and functions that the caller
gave. Attributes are set without running `__init__`; what C code would believe is checked first (checks).
"""

import functools
import inspect
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from tensorkeep.frameworks.sklearn import boosters, checks, names, parts, special
from tensorkeep.frameworks.sklearn.taking import VERSION
from tensorkeep.selection import LEFT_OUT
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Names, Packed, Stub, Tree, join, like, name_of

_SHARED: Final = frozenset({"sklearn.estimator", "sklearn.own", "sklearn.object", "sklearn.part", "sklearn.partial", "sklearn.booster"})
_OPEN: Final = object()  # of a place whose object is being made
_MOST_SHARED: Final = 1 << 20  # values of objects that stand in several places, counted in each: code of an estimator walks them all


class Maker:
    """Makes the objects of one estimator.

    Args:
        inside: makes tensors, packed values and generators.
        known: classes and functions that the caller gave, by `__qualname__`.
        once: gives a warning once for the whole load.

    Attributes:
        pending: objects of the caller that are to get attributes, which the caller of this sets.
        exchanges: how the caller's object and one made anew exchange all they have, and these two: the caller of this does it.
        after: checks that run when all have them.
    """

    def __init__(self, inside: Callable[[Tree], Any], known: Mapping[str, Any], once: Callable[[Warning], None]) -> None:
        self.inside, self.known, self.once = inside, known, once
        self.pending: dict[int, tuple[Any, dict[str, Any]]] = {}  # by id of the object
        self.exchanges: list[tuple[Callable[[Any, Any], None], Any, Any]] = []
        self.after: list[tuple[str, Callable[[], object]]] = []
        self._places: dict[str, object] = {}
        self._sizes: dict[str, int] = {}  # of what stands in a place: its values, with those of what it shares
        self._count = self._shared = 0
        self._names = Names()
        self._arrays: dict[int, Any] = {}  # by id of the tensor, which the tree holds
        self._fortran: dict[int, Any] = {}
        self._attributes: dict[int, dict[str, Any]] = {}

    def make(self, node: Captured, host: Any = None) -> Any:
        """The object of a tree.

        Args:
            node: of a kind of this adapter's.
            host: an object of the same class that is to become it.

        Raises:
            ValueError: the tree is not of such an object, or its arrays would harm.
        """
        if isinstance(node.state, dict) and VERSION in node.state:
            self.tell_version(node.state[VERSION], node.cls)
        made = self.value(node, "", host)
        if not self.pending:
            self.check()
        return made

    def tell_version(self, found: object, cls: str) -> None:
        """Say of another version what scikit-learn's pickles say."""
        import sklearn
        from sklearn.exceptions import InconsistentVersionWarning

        here = sklearn.__version__
        if isinstance(found, str) and found != here:
            self.once(InconsistentVersionWarning(estimator_name=cls, current_sklearn_version=here, original_sklearn_version=found))

    def check(self) -> None:
        for path, check in self.after:
            try:
                check()
            except Exception as error:
                raise ValueError(f"{path or 'it'} does not work: {error}") from error

    def value(self, node: Tree, path: str, host: Any = None) -> Any:
        self._count += 1
        kind = type(node)
        if kind is LazyTensor:
            return self.array(node)
        if isinstance(node, dict):
            fresh = like(node)
            for key, child in node.items():
                inner = join(path, key if type(key) is str else name_of(key))
                fresh[key] = self.value(child, inner, host.get(key) if isinstance(host, dict) else None)
            return fresh
        if kind in (list, tuple, deque):
            hosts = host if isinstance(host, (list, tuple)) and len(host) == len(node) else [None] * len(node)
            items = [self.value(child, join(path, number), hosts[number]) for number, child in enumerate(node)]
            return deque(items, node.maxlen) if kind is deque else items if kind is list else tuple(items)
        if kind is Captured:
            return self.instance(node, path, host)
        if kind is Packed:
            return self.inside(node)
        if node is LEFT_OUT:
            raise ValueError(f"{path} was left out, and an estimator is built whole or not at all")
        if kind is Stub:
            raise names.Unknown(f"{path or 'it'} is {node!r}, which was never made")
        return node

    def array(self, node: LazyTensor) -> Any:
        """An array in memory of its own: C code will believe what was checked, whatever becomes of the file."""
        made = self._arrays.get(id(node))
        if made is None:
            made = self._arrays[id(node)] = np.array(self.inside(node))
        return made

    def instance(self, node: Captured, path: str, host: Any) -> Any:
        kind, name = node.kind, node.cls
        if kind == "sklearn.same":
            made = self._places.get(node.state, _OPEN) if isinstance(node.state, str) else _OPEN
            if made is _OPEN:
                raise ValueError(f"{path} should be what stands at {node.state!r}, which is not there")
            self._count += self._sizes[node.state]
            self._shared += self._sizes[node.state]
            if self._shared > _MOST_SHARED:
                raise ValueError(f"{path} shares too much: its objects stand for more than {_MOST_SHARED:,} values in all their places")
            return made
        if kind == "sklearn.type":
            if name not in names.TYPES:
                raise names.Unknown(f"{path} is the type {name}, which is none that can be brought back")
            return names.TYPES[name]
        if kind == "sklearn.function":
            return names.named(name, names.FUNCTIONS)
        if kind == "sklearn.code":
            return self.given(name, path, "the function")
        if kind == "sklearn.value":
            return self.part(node, path)
        if kind not in _SHARED and not kind.startswith("rng."):
            raise names.Unknown(f"{path} is an object of the kind {kind}, which no estimator holds")
        place, before = self._names.free(path), self._count
        made = self._places[place] = self.shared(node, path, host)
        self._sizes[place] = self._count - before
        return made

    def shared(self, node: Captured, path: str, host: Any) -> Any:
        kind, name = node.kind, node.cls
        if kind.startswith("rng."):
            return self.inside(node)
        if kind == "sklearn.part":
            return self.exchanged(self.part(node, path), path, host, parts.PARTS[node.cls].exchange)
        if kind == "sklearn.partial":
            return self.partial(node, path)
        if not isinstance(node.state, dict) or not all(isinstance(key, str) for key in node.state):
            raise ValueError(f"{path or 'it'} is a {name} without attributes")
        if kind == "sklearn.booster":
            if not boosters.is_asked_for(name, self.known):
                raise names.Unknown(f"{path or 'it'} is a model of {name}: pass its class in types=")
            return self.exchanged(boosters.make(name, self.value(node.state, path)), path, host, boosters.exchange)
        if kind == "sklearn.own":
            cls = self.given(name, path, "an object of the class")
            if not isinstance(cls, type) or not names.is_estimator(object.__new__(cls)):
                raise ValueError(f"{path or 'it'} is an estimator {name}, but what was given by that name is none")
        else:
            cls = names.named(name, names.ESTIMATORS if kind == "sklearn.estimator" else names.INSIDE)
        return self.filled(cls, node, path, host)

    def exchanged(self, made: Any, path: str, host: Any, exchange: Callable[[Any, Any], None] | None) -> Any:
        """What was made anew; where it is all there is to load, the caller's object of its class, which is to have what it has."""
        if path or exchange is None or type(host) is not type(made):
            return made
        self.exchanges.append((exchange, host, made))
        return host

    def given(self, name: str, path: str, what: str) -> Any:
        found = self.known.get(name) or boosters.companion(name, self.known)
        if found is None:
            last = name.rpartition(".")[2]
            raise names.Unknown(f"{path or 'it'} is {what} {name}, which is none of scikit-learn's: pass it in types=({last},)")
        return found

    def partial(self, node: Captured, path: str) -> Any:
        """A function with arguments of the file: for whoever gave `functools.partial` and that function."""
        if self.known.get("partial") is not functools.partial:
            raise names.Unknown(f"{path} is a functools.partial: pass it in types=(functools.partial, ...), with its function")
        state = self.value(node.state, path)
        if not isinstance(state, dict) or not names.is_function(state.get("func")):
            raise ValueError(f"{path} is a partial of no function")
        return functools.partial(state["func"], *state["args"], **state["keywords"])

    def part(self, node: Captured, path: str) -> Any:
        part = parts.PARTS.get(node.cls)
        if part is None:
            raise names.Unknown(f"{path} is a {node.cls}, which is none that can be brought back")
        if node.cls == "fortran_array":
            array = self.value(node.state, path)
            made = self._fortran.get(id(array))
            if made is None:
                made = self._fortran[id(array)] = part.make(array)
            return made
        state = self.value(node.state, path)
        if not isinstance(state, dict):
            raise ValueError(f"{path} is a {node.cls} without its parts")
        try:
            return part.make(state)
        except Exception as error:  # constructors of NumPy, SciPy and scikit-learn may raise anything
            raise ValueError(f"{path}: no {node.cls}: {error}") from error

    def filled(self, cls: Any, node: Captured, path: str, host: Any) -> Any:
        """An object of a class that may be made, with its attributes."""
        if issubclass(cls, dict):
            return self.exchanged(cls(**self.value(node.state, path)), path, host, _exchange_items)
        if type(host) is not cls or id(host) in self.pending:
            host = None
        children = {name: child for name, child in node.state.items() if name not in (VERSION, special.LEAVES)}
        for name in children:
            if _hides(cls, name):
                raise ValueError(f"{join(path, name)} would hide what the class {cls.__name__} has under that name")
        hosts: dict[str, Any] = {} if host is None else vars(host)
        state = {name: self.value(child, join(path, name), hosts.get(name)) for name, child in children.items()}
        try:
            state = special.complete(cls, state)
            checks.attributes(cls, state, self.attributes_of)
            special.link_leaves(state, [self._places[leaf] for leaf in node.state.get(special.LEAVES, ())])
            made = cls.__new__(cls) if host is None else host
        except Exception as error:  # the state may be of any shape, and so may be what the checks and the classes say to it
            raise ValueError(f"{path or 'it'} is no {cls.__name__} that would work: {error}") from error
        self._attributes[id(made)] = state
        if host is None:
            vars(made).update(state)
        else:
            self.pending[id(made)] = (made, state)
        if (after := checks.afterwards(made, state)) is not None:
            self.after.append((path, after))
        return made

    def attributes_of(self, made: object) -> dict[str, Any]:
        """The attributes that an object has, or will have."""
        return self._attributes.get(id(made), {})


def _exchange_items(one: dict[str, Any], other: dict[str, Any]) -> None:
    items = dict(one)
    one.clear()
    one.update(other)
    other.clear()
    other.update(items)


@functools.cache
def _hides(cls: type, name: str) -> bool:
    """Whether an attribute of this name would hide a method of the class, or change how it works; a parameter may have a default there."""
    there = inspect.getattr_static(cls, name, None)
    return there is not None and (name.startswith("_") or callable(there) or hasattr(there, "__get__"))

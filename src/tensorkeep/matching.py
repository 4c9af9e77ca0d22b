"""Matching: a tree of a file against the tree of a target.

Lives here: what to take (`only`, `rename`), what fits (`strict`, `cast`), and one report of all problems at once. Changes nothing.
Lives elsewhere: how an object takes its state (the adapters in frameworks), and the bytes (restore).
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np

from tensorkeep import dtypes
from tensorkeep.plain import is_numpy_scalar, unfillable
from tensorkeep.report import Cast, Problem
from tensorkeep.selection import LEFT_OUT
from tensorkeep.tensors import LazyTensor, Live
from tensorkeep.transposing import Turned, axes_between, reshaped
from tensorkeep.tree import Captured, Packed, Tree, brief, join, like, name_of, tensors, walk

Result = Callable[[], Any]
"""Gives a restored value, once all bytes are in place."""


class _Missing:
    """The file has nothing here."""


MISSING: Final = _Missing()

_NUMBERS: Final = frozenset({bool, int, float, complex})

TIED: Final = "tied"
"""The kind of a node of a target that is another object over the memory of a tensor met before: its state is that tensor."""


@dataclass(slots=True)
class Copy:
    """A tensor of the file and the live tensor that it goes into.

    Attributes:
        path: of the target.
        source: the file's tensor.
        target: the live one; its source is a `Live`.
    """

    path: str
    source: LazyTensor
    target: LazyTensor

    @property
    def live(self) -> Live:
        return cast(Live, self.target.source)

    @property
    def same_bytes(self) -> bool:
        """Whether the bytes go over as they are."""
        return self.source.dtype.name == self.target.dtype.name and self.source.dtype.bits == self.target.dtype.bits


@dataclass(slots=True)
class Step:
    """A change of an object that its own code makes, and that may fail: done before any bytes, undone if a later one fails."""

    path: str
    apply: Callable[[], object]
    undo: Callable[[], object]


class Matcher:
    """Matches a file's tree with a target's, and gathers what is to be done.

    Attributes:
        problems: what does not fit.
        copies: bytes to be read into live tensors.
        wanted: trees of the file to be built anew, with their bytes in memory of their own.
        spare: those of them that a dict of the target has no key for: what is missing may be among them under another name.
        steps: changes made by the objects' own code, in order.
        finish: done last, when all bytes are in place.
        take_back: undoes what planning itself had to change, such as to build what has nothing to match yet; called if the load fails.
        build: makes a part of the file anew; its bytes must be there.
        read: makes one tensor of the file now, checked, for code that must see its values to plan.
        metadata: what the file says about itself.
        versions: what the file says of its modules' versions, by their paths in the target.
        given: names of the classes that may come back as themselves.
        casts: conversions that steps made themselves.
        turned: tensors whose shape is the target's in another order.
        cautions: what is worth a warning where all fits.
        found_cls: the class that the file names for the object that is planned right now, or "".
        found_kind: its kind there, or "".
    """

    def __init__(
        self,
        *,
        cast: bool,
        selected: Callable[[str], bool],
        plan: "Callable[[Captured, Tree, str, Matcher], Result]",
        build: Callable[[Tree], object],
        read: Callable[[LazyTensor], object],
        versions: Callable[[], Mapping[str, object]],
        metadata: Mapping[str, Any],
        given: Collection[str] = (),
    ) -> None:
        self.metadata, self.given = metadata, given
        self.cast, self.selected, self.plan, self.build, self.read, self.versions = cast, selected, plan, build, read, versions
        self.casts: list[Cast] = []
        self.problems: list[Problem] = []
        self.copies: list[Copy] = []
        self.wanted: list[Tree] = []
        self.values: list[object] = []
        self.spare: list[tuple[str, Tree]] = []
        self.steps: list[Step] = []
        self.finish: list[Callable[[], object]] = []
        self.take_back: list[Callable[[], object]] = []
        self.found_cls = self.found_kind = ""
        self._absent: list[tuple[Problem, LazyTensor]] = []
        self.turned: list[Turned] = []
        self.cautions: list[str] = []
        self._into: dict[int, LazyTensor] = {}  # by id of the live tensor: which tensor of the file goes there

    def fit(self, target: Tree, found: Tree, path: str) -> Result:
        """Match one node of the target with what the file has there.

        Returns:
            What gives the restored value once the bytes are in place: the target's own object where that is filled.
        """
        if found is LEFT_OUT:
            self.missing(target, path)  # what was selected there, and the file has not
            return lambda: live(target)
        if isinstance(target, LazyTensor):
            return self.tensor(target, found, path)
        if found is MISSING:
            self.missing(target, path)
            return lambda: live(target)
        if isinstance(target, Captured):
            if target.kind == TIED:
                self.tensor(target.state, found, path)
                return lambda: target.origin
            self.found_cls = found.cls if isinstance(found, Captured) else ""
            self.found_kind = found.kind if isinstance(found, Captured) else ""
            return self.plan(target, _state(found), path, self)
        if isinstance(target, dict):
            return self._dict(target, _state(found), path)
        if isinstance(target, (list, tuple, deque)):
            return self._sequence(target, _state(found), path)
        if isinstance(found, LazyTensor) and _is_scalar_of(target, found):
            scalar = found.numpy()[()]  # as a step that was compiled gives arrays for the scalars that it took
            return lambda: scalar
        if (unknown := unfillable(target)) and (isinstance(found, Captured) or any(tensors(found))):
            self.problem("target", path, _describe(found), unknown)
            return lambda: target
        return self.value(found)

    def tensor(self, target: LazyTensor, found: Tree, path: str) -> Result:
        """Match a live tensor: same shape and dtype, or a dtype to cast from."""
        source = cast(Live, target.source)
        if source.immutable and target.shape == () and (type(found) in _NUMBERS or _is_scalar_of(found, target)):
            return lambda: found  # what counts as a number before the first step is often an array after it
        owner = source.owner
        if found is MISSING:
            self.missing(target, path)
        elif found is not LEFT_OUT:
            if isinstance(found, LazyTensor) and found.shape != target.shape:
                found = reshaped(found, target.shape) or found
            problem = self.unfit(target, found, path)
            if problem is None:
                self.copies.append(Copy(path, found, target))
            else:
                self.problems.append(problem)
        return owner

    def unfit(self, target: LazyTensor, found: Tree, path: str, *, check_obstacle: bool = True) -> Problem | None:
        """Why what the file has cannot go into a live tensor, or None."""
        if not isinstance(found, LazyTensor):
            return Problem("kind", path, _describe(found), f"a tensor {target.spec}")
        if found.shape != target.shape:
            axes = axes_between(found.shape, target.shape)
            if axes is not None:
                self.turned.append(Turned(path, found, target.shape))
            hint = "" if axes is None else f"looks transposed: transpose={{{path!r}: {axes}}} turns it"
            return Problem("shape", path, str(list(found.shape)), str(list(target.shape)), hint)
        if found.dtype.name != target.dtype.name:
            possible = dtypes.castable(found.dtype, target.dtype)
            if not (self.cast and possible):
                hint = "cast=True converts it" if possible else "cast=True does not convert these"
                return Problem("dtype", path, str(found.dtype), str(target.dtype), hint)
        if check_obstacle and (obstacle := cast(Live, target.source).obstacle()):
            return Problem("target", path, str(found.spec), obstacle)
        # Two places of the target that share memory cannot hold two tensors of the file that differ.
        other = self._into.setdefault(id(target), found)
        if other is not found and other.tobytes() != found.tobytes():
            return Problem("tied", path, f"{found.name} unlike {other.name}", "one tensor, for the target ties these places")
        return None

    def value(self, found: Tree) -> Result:
        """Take a part of the file as it is, built anew."""
        number = len(self.wanted)
        self.wanted.append(found)
        return lambda: self.values[number]

    def build_values(self) -> None:
        """Build all values that will be handed out: what can fail in that fails before anything is changed."""
        self.values = [self.build(found) for found in self.wanted]

    def missing(self, target: Tree, path: str) -> None:
        """The file lacks what the target has here: every leaf of it."""
        for leaf_path, leaf in walk(target, path):
            if self.selected(leaf_path):
                problem = Problem("missing", leaf_path, "", _describe(leaf))
                self.problems.append(problem)
                if isinstance(leaf, LazyTensor):
                    self._absent.append((problem, leaf))

    def settle(self) -> None:
        """Forget what is missing under one name but was found under another: tied tensors, of which many files keep one name."""
        found = {id(problem) for problem, leaf in self._absent if id(leaf) in self._into}
        self.problems = [problem for problem in self.problems if id(problem) not in found]

    def unexpected(self, found: Tree, path: str) -> None:
        """The file has what a model or optimizer does not."""
        for leaf_path, leaf in walk(found, path):
            self.problems.append(Problem("unexpected", leaf_path, _describe(leaf), ""))

    def leaves_to_spare(self) -> list[tuple[str, str]]:
        """Path and description of the leaves in `spare`."""
        return [(path, _describe(leaf)) for name, node in self.spare for path, leaf in walk(node, name)]

    def problem(self, kind: str, path: str, found: str, wanted: str, hint: str = "") -> None:
        self.problems.append(Problem(kind, path, found, wanted, hint))

    def other_kind(self, found: Tree, path: str, wanted: str) -> None:
        """The file has something of another kind here."""
        self.problem("kind", path, _describe(found), wanted)

    def _dict(self, target: dict[Any, Tree], found: Tree, path: str) -> Result:
        if not isinstance(found, dict):
            self.problem("kind", path, _describe(found), f"a {type(target).__name__}")
            return lambda: live(target)
        taken: set[Any] = set()
        results: list[tuple[Any, Result]] = []
        for key, child in target.items():
            inside, used = lookup(found, key)
            taken.update(used)
            results.append((key, self.fit(child, inside, join(path, key))))
        spare = [(key, child) for key, child in found.items() if key not in taken and child is not LEFT_OUT]
        self.spare += [(join(path, key), child) for key, child in spare]
        results += [(key, self.value(child)) for key, child in spare]

        def result() -> dict[Any, Any]:
            fresh = like(target)
            for key, inner in results:
                fresh[key] = inner()
            return fresh

        return result

    def _sequence(self, target: Any, found: Tree, path: str) -> Result:
        if not isinstance(found, (list, tuple, deque)):
            if isinstance(found, Packed) and found.kind in ("list", "tuple"):
                return self.value(found)
            if isinstance(found, dict):  # a flat file names the places of a list "0", "1", ...
                found = [lookup(found, str(number))[0] for number in range(len(target))]
            else:
                self.problem("kind", path, _describe(found), f"a {type(target).__name__}")
                return lambda: live(target)
        nodes = list(found)
        results = [
            self.fit(child, nodes[number] if number < len(nodes) else MISSING, join(path, number)) for number, child in enumerate(target)
        ]
        results += [self.value(child) for child in nodes[len(results) :] if child is not LEFT_OUT]
        kind = type(target)

        def result() -> Any:
            items = [inner() for inner in results]
            return deque(items, target.maxlen) if kind is deque else kind(items)

        return result


def live(target: Tree) -> Any:
    """What the caller gave, out of its tree: objects and tensors themselves, containers of them."""
    if isinstance(target, LazyTensor):
        return cast(Live, target.source).owner()
    if isinstance(target, Captured):
        return target.origin
    if isinstance(target, dict):
        fresh = like(target)
        for key, child in target.items():
            fresh[key] = live(child)
        return fresh
    if isinstance(target, deque):
        return deque(map(live, target), target.maxlen)
    if isinstance(target, (list, tuple)):
        return type(target)(map(live, target))
    return target


def named(found: Tree, names: Iterable[str]) -> tuple[dict[str, Tree], dict[str, Tree]]:
    """What a state of the file has under these dotted names, however it is nested, and what it has beside them."""
    wanted = set(names)
    taken: dict[str, Tree] = {}
    others: dict[str, Tree] = {}

    def visit(node: Tree, name: str) -> None:
        node = _state(node) if name not in wanted else node
        if name in wanted:
            taken[name] = node
        elif isinstance(node, dict):
            for key, child in node.items():
                visit(child, join(name, key))
        elif isinstance(node, (list, tuple)) and node:
            for number, child in enumerate(node):
                visit(child, join(name, number))
        else:
            others[name] = node

    if isinstance(found, dict):
        for key, child in found.items():
            if type(child) is LazyTensor and type(key) is str:  # the rule, in one step
                (taken if key in wanted else others)[key] = child
            else:
                visit(child, name_of(key))
    else:
        visit(found, "")
    return taken, {name: node for name, node in others.items() if node is not LEFT_OUT}


def lookup(found: dict[Any, Tree], key: object) -> tuple[Tree, set[Any]]:
    """The child of a key, and which keys of the file that used up. A flat file has "model.fc.weight" where a target has "model"."""
    if key in found:
        return found[key], {key}
    text = name_of(key)
    if text in found:  # a flat file has "0" where a target has 0
        return found[text], {text}
    prefix = f"{text}."
    inside = {name[len(prefix) :]: child for name, child in found.items() if type(name) is str and name.startswith(prefix)}
    return (inside, {prefix + name for name in inside}) if inside else (MISSING, set())


def _is_scalar_of(value: object, tensor: LazyTensor) -> bool:
    """Whether a value is one of NumPy's scalars, just as the one element of a tensor without axes."""
    if tensor.shape != () or not is_numpy_scalar(value):
        return False
    dtype = dtypes.of_numpy(np.asarray(value).dtype)
    return dtype is not None and dtype.name == tensor.dtype.name


def _state(found: Tree) -> Tree:
    while isinstance(found, Captured):
        found = found.state
    return found


def _describe(node: Tree) -> str:
    """A node of a tree in a few words."""
    if isinstance(node, LazyTensor):
        return str(node.spec)
    if isinstance(node, Captured):
        return node.cls
    if isinstance(node, Packed):
        return f"a {node.kind}"
    if isinstance(node, (dict, list, tuple, deque, set, frozenset)):
        return f"a {type(node).__name__} of {len(node)}"
    return f"{type(node).__name__} {brief(node, 40)}"

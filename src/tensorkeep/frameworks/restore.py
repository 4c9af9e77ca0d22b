"""Restore: a tree becomes a state, all or nothing.

Without a target, containers and values are built anew around the file's tensors. With one, its own objects are filled in place; digests,
names, shapes and dtypes of the whole load have been checked before the first change.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final, cast

from tensorkeep import dtypes
from tensorkeep.contents import Contents, Placed, Placement
from tensorkeep.errors import FormatError, MismatchError, RestoreInterrupted, TensorkeepError, TensorkeepWarning, warn
from tensorkeep.frameworks import table
from tensorkeep.frameworks.capture import capture_target
from tensorkeep.frameworks.cautions import warn_of_what_fits
from tensorkeep.frameworks.filling import fill
from tensorkeep.frameworks.planning import UNTOLD, plan, plan_untold, renamed_versions
from tensorkeep.frameworks.protocols import Arrays, Build, Making
from tensorkeep.frameworks.undisturbed import undisturbed
from tensorkeep.limits import Limits
from tensorkeep.matching import Copy, Matcher, Step
from tensorkeep.progress import Progress
from tensorkeep.report import Cast, Problem, Report, make_report
from tensorkeep.selection import LEFT_OUT
from tensorkeep.structure.grammar import PLAIN
from tensorkeep.tensors import LazyTensor, Live, as_array
from tensorkeep.transposing import hint
from tensorkeep.tree import Captured, Packed, Stub, Tree, like, tensors

ANOTHER_CLASS: Final = "A class or a package may be another than when it was saved; without types= and build= it comes as plain values."
_REBUILT_BYTES: Final = 64 << 20  # of tensors that objects may be made of, or so many times the file's size
_REBUILT_TIMES: Final = 100
_TOLD: Final = 3  # sentences of what was left out, in a hint
_LEAVES: Final = frozenset({int, float, str, bool, bytes, type(None)})


class Builder:
    """Builds states around tensors whose bytes are in memory.

    Args:
        file: for messages.
        nbytes: its size, which bounds what objects may be made of.
        framework: which framework's tensors to make; None for what each was saved as, where that is imported.
        device: where to put them.
        types: classes that may come back as themselves, by `__qualname__`.
        asked: the framework whose objects are built, not kept as plain trees.
    """

    def __init__(
        self,
        file: str,
        *,
        nbytes: int = 0,
        framework: str | None = None,
        device: str | None = None,
        types: Mapping[str, Any] | None = None,
        asked: str | None = None,
    ) -> None:
        self.file, self.device, self.types, self.asked = file, device, types or {}, asked
        self.kept = False  # whether the tensors become parts of a target
        self.asked_for = 0  # objects that were built because they were asked for
        self.left = max(_REBUILT_BYTES, _REBUILT_TIMES * nbytes)
        self.forced: Arrays | None = None if framework is None else table.arrays(framework, forced=True)
        self.builds: dict[str, Build] = {}  # by framework
        self.placed: Placement = _nowhere
        self.metadata: Mapping[str, Any] = {}  # what the file says about itself
        self.told: set[type] = set()  # classes of warnings that were given
        self.made: dict[int, object] = {}  # by id of the LazyTensor: a tied tensor is made once

    def knows_devices(self, frameworks: set[str]) -> bool:
        """Whether tensors that were saved as these come back as any framework's but NumPy's."""
        numpy = table.arrays("numpy")
        if self.forced is not None:
            return self.forced is not numpy
        return any(table.arrays(framework) not in (None, numpy) for framework in frameworks)

    def tensor(self, tensor: LazyTensor) -> object:
        key = id(tensor)
        made = self.made.get(key)
        if made is None:
            buffer, offset = self.placed(tensor)
            build = self.builds.get(tensor.framework) or self.find(tensor.framework)
            made = self.made[key] = build(buffer, offset, tensor.spec)
        return made

    def make(self, tensor: LazyTensor, placed: Placed) -> object:
        return self.find(tensor.framework)(*placed, tensor.spec)

    def find(self, framework: str) -> Build:
        """How to make tensors that were saved as a framework's; NumPy's arrays where it is not imported."""
        arrays = self.forced or table.arrays(framework) or cast(Arrays, table.arrays("numpy"))
        build = self.builds[framework] = arrays.builder(self.device, kept=self.kept)
        return build

    def build(self, node: Tree) -> Any:
        """A part of a tree as a state."""
        kind = type(node)
        if kind is LazyTensor:
            return self.tensor(node)
        if isinstance(node, dict):
            fresh = like(node)
            for key, child in node.items():
                if child is not LEFT_OUT:
                    fresh[key] = self.tensor(child) if type(child) is LazyTensor else self.build(child)
            return fresh
        if kind in (list, tuple, deque):
            if kind is list and _LEAVES.issuperset(map(type, node)):  # a pickle may have a million in one
                return list(node)
            items = [self.build(child) for child in node if child is not LEFT_OUT]
            return deque(items, node.maxlen) if kind is deque else items if kind is list else tuple(items)
        if kind is Packed:
            return self.packed(node)
        if kind is Captured:
            return self.captured(node)
        if kind is Stub:
            return Stub(node.module, node.name, {key: self.build(child) for key, child in node.fields.items()}, made=node.made)
        return None if node is LEFT_OUT else node

    def packed(self, node: Packed) -> object:
        spec = node.tensor.spec
        buffer, offset = self.placed(node.tensor)
        data = memoryview(buffer)[offset : offset + spec.nbytes] if node.kind in ("str", "bytes") else None
        if node.kind == "bytes":
            return bytes(cast(memoryview, data))
        if node.kind == "str":
            try:
                return str(cast(memoryview, data), "utf-8")
            except UnicodeDecodeError as error:
                raise FormatError(self.file, f"{node.tensor.name}: a text that is no UTF-8: {error}") from None
        items = as_array(buffer, offset, spec).tolist()
        return tuple(items) if node.kind == "tuple" else items

    def inside(self, node: Captured) -> "Builder":
        """What builds the parts of an object: NumPy's generators, and those who build models, take arrays of NumPy alone."""
        if not node.kind.startswith("rng.") and table.making(node.kind, self.asked, filling=node.extra is not None) is None:
            return self
        inside = Builder(self.file, framework="numpy", types=self.types)
        inside.placed, inside.told = self.placed, self.told
        return inside

    def once(self, warning: Warning) -> None:
        """Give a warning, unless one of its class was given before."""
        if type(warning) not in self.told:
            self.told.add(type(warning))
            warn(warning)

    def captured(self, node: Captured) -> object:
        making = table.making(node.kind, self.asked, filling=node.extra is not None)
        adapter = making or table.of_kind(node.kind)
        if making:
            self.spend(node)  # before it takes its time
        state = None if making else self.inside(node).build(node.state)
        if adapter is None or node.kind not in adapter.kinds:
            return state
        try:
            made = self.making(making, node) if making else adapter.rebuild(node, state, self.types)
        except TensorkeepError:
            raise
        except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, AssertionError) as error:
            raise FormatError(self.file, f"a {node.cls} cannot be brought back: {error}", hint=ANOTHER_CLASS) from error
        self.asked_for += making is not None
        if made is not state and not making:
            self.spend(node)
        return made

    def making(self, making: Making, node: Captured) -> object:
        inside = self.inside(node).build
        return making.build(node, inside, self.types, self.once, lambda made, state: fill(made, state, inside, self.metadata))

    def spend(self, node: Captured) -> None:
        """Count what an object is made of: a file may name one tensor in any number of objects, and each takes its time with it."""
        self.left -= sum(tensor.nbytes for _, tensor in tensors(node.state))
        if self.left < 0:
            raise FormatError(self.file, "its objects are made of the same tensors again and again")


def _nowhere(tensor: LazyTensor) -> Placed:
    raise AssertionError(f"{tensor!r} was not placed")


def build(tree: Tree, contents: Contents, builder: Builder, progress: Progress | None) -> Any:
    """The state of a tree, its tensors checked."""
    builder.metadata = contents.metadata
    if builder.asked is not None:
        tree = table.found_in(tree, contents.metadata, builder.asked)
    # All tensors of a file occur in its tree.
    wanted = list(contents.tensors.values()) if tree is contents.tree else _unique(tensors(tree))
    if wanted and builder.device not in (None, "cpu") and not builder.knows_devices({tensor.framework for tensor in wanted}):
        raise ValueError(f"device={builder.device!r}: these tensors come back as NumPy arrays, which have none; pass framework='torch'")
    builder.placed = contents.storage.place(wanted, progress)
    return builder.build(tree)


def into(
    tree: Tree,
    target: object,
    contents: Contents,
    builder: Builder,
    *,
    strict: bool,
    cast_dtypes: bool,
    selected: Callable[[str], bool],
    renamed: Sequence[tuple[str, str]],
    as_it_lies: bool,  # nothing was said of kernels that another framework has in another order
    limits: Limits,
    progress: Progress | None,
) -> Any:
    """Fill a target from a tree, and give back the file's whole content in the target's shape.

    Raises:
        MismatchError: they disagree and `strict` is set. Nothing was changed.
        CorruptError: a digest is wrong. Nothing was changed.
        RestoreInterrupted: the file failed or changed during the last copy.
    """
    live = capture_target(target, limits)
    builder.kept = True
    # A file by others, or of NumPy's arrays alone, does not say for whom its tensors are.
    untold = all(tensor.framework in (UNTOLD, PLAIN) for tensor in contents.tensors.values())
    matcher = Matcher(
        cast=cast_dtypes,
        selected=selected,
        plan=plan_untold if untold else plan,
        build=builder.build,
        read=lambda tensor: builder.make(tensor, contents.storage.place([tensor], None)(tensor)),
        versions=cache(lambda: renamed_versions(contents.tree, renamed)),
        given=builder.types,
        metadata=contents.metadata,
    )
    try:
        state = _fill(matcher, live, tree, contents, builder, strict=strict, renamed=renamed, progress=progress)
    except BaseException:
        for take_back in reversed(matcher.take_back):
            take_back()
        raise
    warn_of_what_fits(matcher, contents.file, as_it_lies=as_it_lies)
    return state


def _fill(
    matcher: Matcher,
    live: Tree,
    tree: Tree,
    contents: Contents,
    builder: Builder,
    *,
    strict: bool,
    renamed: Sequence[tuple[str, str]],
    progress: Progress | None,
) -> Any:
    result = matcher.fit(live, tree, "")
    matcher.settle()
    if matcher.problems and strict:
        raise MismatchError(contents.file, _report(matcher, renamed, contents))
    before = contents.storage.identity()
    fresh = _unique(pair for node in matcher.wanted for pair in tensors(node))
    builder.placed = contents.storage.place(fresh, progress)
    # What gets a successor is compared with its digests when that is made, which is before anything is changed.
    contents.storage.check([copy.source for copy in matcher.copies if not copy.live.immutable], progress)
    prepared = _Prepared(matcher.copies, contents)
    matcher.build_values()
    prepared.succeed(progress)
    known = len(matcher.problems)
    with undisturbed(progress) as told:
        _apply(matcher.steps, contents.file)
        if strict and len(matcher.problems) > known:  # what only an object's own code could tell
            refused = MismatchError(contents.file, _report(matcher, renamed, contents))
            _undo(matcher.steps, refused)
            raise refused
        _write(prepared, contents, before, matcher.steps, told)
        matcher.take_back.clear()
        try:
            state = result()
            for finish in matcher.finish:
                finish()
        except Exception as error:
            error.add_note(f"tensorkeep: {contents.file}: all of it was loaded; this was raised afterwards, by code of the target")
            raise
    casts = [*matcher.casts, *prepared.casts]
    if matcher.problems or casts:
        report = dataclasses.replace(_report(matcher, renamed, contents), casts=tuple(casts))
        what = "fits only in part" if matcher.problems else "was converted"
        warn(TensorkeepWarning(f"{contents.file} {what}:\n{report}", report=report))
    return state


class _Prepared:
    """Copies sorted by how they are made: bytes straight into memory, values that were read and cast before, or new tensors."""

    def __init__(self, copies: list[Copy], contents: Contents) -> None:
        self.straight: list[tuple[Copy, memoryview]] = []
        self.by_value: list[tuple[Copy, Any]] = []
        self.casts: list[Cast] = []
        self.contents = contents
        self.successors = [copy for copy in copies if copy.live.immutable]
        others: list[Copy] = []
        for copy in copies:
            if copy.live.immutable:
                continue
            memory = copy.live.destination() if copy.same_bytes else None
            if memory is None:
                others.append(copy)
            else:
                self.straight.append((copy, memory))
        placed = contents.storage.place([copy.source for copy in others], None)
        for copy in others:
            self.by_value.append((copy, self._value(copy, placed(copy.source))))

    def succeed(self, progress: Progress | None) -> None:
        """Make the tensors that take the place of those that never change: all of them, before anything else is changed."""
        placed = self.contents.storage.place([copy.source for copy in self.successors], progress)
        for copy in self.successors:
            copy.live.put(self._value(copy, placed(copy.source)))
        for copy in self.successors:
            copy.live.written()

    def _value(self, copy: Copy, placed: Placed) -> Any:
        if copy.same_bytes and copy.source.dtype.numpy is None:
            return placed
        array = as_array(*placed, copy.source.spec)
        if copy.same_bytes:
            return array
        array, changed = dtypes.cast(array, copy.target.dtype)
        self.casts.append(Cast(copy.path, str(copy.source.dtype), str(copy.target.dtype), changed, copy.source.spec.count))
        return array


def _report(matcher: Matcher, renamed: Sequence[tuple[str, str]], contents: Contents) -> Report:
    report = make_report(matcher.problems, renamed=renamed, spare=matcher.leaves_to_spare() if matcher.problems else ())
    hints = [*report.hints]
    if turn := hint(matcher.turned):
        hints.append(turn)
    if report.missing and contents.left_out:
        told = "; ".join(contents.left_out[:_TOLD])
        hints.append(f"what was opened lacks {told}. strict=False keeps what the target has; so does only=, with a pattern of what to load")
    return dataclasses.replace(report, hints=tuple(hints))


def _apply(steps: Sequence[Step], file: str) -> None:
    """Let objects take their state by their own code; if one refuses, all get their former one back.

    Raises:
        MismatchError: one raised; its own error is the cause.
    """
    for number, step in enumerate(steps):
        try:
            step.apply()
        except TensorkeepError as error:  # of the file itself: bytes that were read only now
            _undo(steps[: number + 1], error)
            raise
        except Exception as error:
            problem = Problem("object", step.path, "", "", f"its own code raised {type(error).__name__}: {error}")
            refused = MismatchError(file, make_report([problem]))
            _undo(steps[: number + 1], refused)
            raise refused from error
        except BaseException as error:
            _undo(steps[: number + 1], error)
            raise


def _undo(steps: Sequence[Step], error: BaseException) -> None:
    for step in reversed(steps):
        try:
            step.undo()
        except Exception as second:  # noqa: BLE001  # whatever a user's object raises must not keep the others from getting theirs back
            error.add_note(f"tensorkeep: {step.path or 'the target'} could not take its former state back: {second!r}")


def _write(prepared: _Prepared, contents: Contents, before: object, steps: Sequence[Step], progress: Progress | None) -> None:
    """The last copy. Only the file itself can fail here."""
    names = [copy.path for copy, _ in prepared.straight]
    if contents.storage.identity() != before:
        error = MismatchError(contents.file, "  The file changed while it was being checked; load it again.")
        _undo(steps, error)
        raise error
    try:
        contents.storage.fill([(copy.source, memory) for copy, memory in prepared.straight], progress)
        if contents.storage.identity() != before:
            raise OSError("the file changed")
    except OSError as error:
        interrupted = RestoreInterrupted(contents.file, str(error), written=names, intact=len(prepared.by_value))
        _undo(steps, interrupted)
        raise interrupted from error
    for copy, _ in prepared.straight:
        copy.live.written()
    for copy, value in prepared.by_value:
        copy.live.put(value)


def _unique(named: Any) -> list[LazyTensor]:
    return list({id(tensor): tensor for _, tensor in named}.values())


__all__ = ["Builder", "Live", "build", "into"]

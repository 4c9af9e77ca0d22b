"""Loading: contents become a state, whatever they were opened from.

Lives here: what to take of the tree, and what to make of it. Lives elsewhere: opening (opening, store), filling a target (frameworks).
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, TypedDict

from tensorkeep.contents import Contents
from tensorkeep.errors import FormatError, MismatchError, escaped
from tensorkeep.frameworks import restore
from tensorkeep.frameworks.cautions import warn_of_versions
from tensorkeep.frameworks.table import check_asked
from tensorkeep.limits import Limits, limits_of
from tensorkeep.progress import Progress
from tensorkeep.rearranged import Rearranged
from tensorkeep.selection import LEFT_OUT, Clash, Only, Rename, expected, take
from tensorkeep.transposing import Rules, Transpose
from tensorkeep.tree import walk


class Options(TypedDict, total=False):
    """What becomes of contents: the arguments of `tensorkeep.load`, which tells what they mean."""

    into: Any
    build: str | None
    framework: str | None
    device: Any
    only: Only | None
    rename: Rename | None
    transpose: Transpose | None
    strict: bool
    cast: bool
    types: Iterable[Any]
    progress: Progress | None


def check_options(verb: str, options: Options) -> None:
    """Refuse what is no argument in the name of the verb that was called.

    Raises:
        TypeError: one is none.
    """
    for name in options.keys() - Options.__annotations__.keys():
        raise TypeError(f"{verb}() got an unexpected keyword argument {name!r}")


def load_contents(
    contents: Contents,
    *,
    into: Any = None,
    build: str | None = None,
    framework: str | None = None,
    device: Any = None,
    only: Only | None = None,
    rename: Rename | None = None,
    transpose: Transpose | None = None,
    strict: bool = True,
    cast: bool = False,
    types: Iterable[Any] = (),
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Any:
    """The state of what was opened: built anew, or into a target.

    Args:
        contents: open; the caller closes it.
        into, build, framework, device, only, rename, transpose, strict, cast, types, limits, progress: as for `tensorkeep.load`.

    Raises:
        FormatError, CorruptError, MismatchError, ValueError: as for `tensorkeep.load`.
    """
    if build is not None:
        check_asked(build)
        if into is not None:
            raise ValueError("into= fills a model that is there, and build= makes a new one: give one of them")
    try:
        tree, renamed = take(contents.tree, only, rename)
    except Clash as clash:
        raise MismatchError(contents.file, f"  {escaped(clash)}") from None
    if transpose is not None:
        tree = Rules(transpose).apply(tree, renamed)
        contents = dataclasses.replace(contents, storage=Rearranged(contents.storage))
    warn_of_versions(tree, contents, into_models=into is not None or build is not None)
    builder = restore.Builder(
        contents.file,
        nbytes=contents.nbytes,
        framework=framework,
        device=None if device is None else str(device),
        types=_by_name(types),
        asked=build,
    )
    if into is None:
        state = restore.build(tree, contents, builder, progress)
        if build is not None and not builder.asked_for:
            raise FormatError(contents.file, f"it holds no object of {build} that could be built", hint="Load it without build=.")
        return state
    if only is not None and all(leaf is LEFT_OUT for _, leaf in walk(tree)) and any(walk(contents.tree)):
        raise ValueError(f"only={only!r:.200} takes nothing of {escaped(contents.file)}: the target would stay as it is")
    return restore.into(
        tree,
        into,
        contents,
        builder,
        strict=strict,
        cast_dtypes=cast,
        selected=expected(contents.tree, only, rename),
        renamed=renamed,
        as_it_lies=transpose is None,
        limits=limits_of(limits),
        progress=progress,
    )


def _by_name(types: Iterable[Any]) -> dict[str, Any]:
    given = [] if callable(types) else list(types)
    if callable(types) or not all(map(callable, given)):
        raise TypeError(f"types= takes several classes or functions, such as types=(Settings,), found {types!r:.80}")
    return {getattr(one, "__qualname__", getattr(one, "__name__", "")): one for one in given}

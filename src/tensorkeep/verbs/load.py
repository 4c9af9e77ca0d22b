"""load: a file into a model, or into a new state."""

from collections.abc import Iterable
from os import PathLike
from typing import Any, BinaryIO, TypedDict, TypeVar, Unpack, overload

from tensorkeep.contents import Contents
from tensorkeep.errors import MismatchError, escaped
from tensorkeep.frameworks import restore
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.opening import of_bytes, open_contents
from tensorkeep.progress import Progress
from tensorkeep.selection import Clash, Only, Rename, expected, take

State = TypeVar("State")


class Options(TypedDict, total=False):
    """What `loads` takes of the arguments of `load`, which tells what they mean."""

    into: Any
    framework: str | None
    device: Any
    only: Only | None
    rename: Rename | None
    strict: bool
    cast: bool
    types: Iterable[type]
    progress: Progress | None


@overload
def load(
    path: "str | PathLike[str] | BinaryIO",
    *,
    into: State,
    framework: str | None = None,
    device: Any = None,
    only: Only | None = None,
    rename: Rename | None = None,
    strict: bool = True,
    cast: bool = False,
    verify: bool = True,
    mmap: bool | None = None,
    types: Iterable[type] = (),
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> State: ...


@overload
def load(
    path: "str | PathLike[str] | BinaryIO",
    *,
    into: None = None,
    framework: str | None = None,
    device: Any = None,
    only: Only | None = None,
    rename: Rename | None = None,
    strict: bool = True,
    cast: bool = False,
    verify: bool = True,
    mmap: bool | None = None,
    types: Iterable[type] = (),
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Any: ...


def load(
    path: "str | PathLike[str] | BinaryIO",
    *,
    into: Any = None,
    framework: str | None = None,
    device: Any = None,
    only: Only | None = None,
    rename: Rename | None = None,
    strict: bool = True,
    cast: bool = False,
    verify: bool = True,
    mmap: bool | None = None,
    types: Iterable[type] = (),
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Any:
    """Load a file: into a model or state that is there, or as a new state.

    Nothing in the file is run. With `into=`, everything is checked before anything is changed.

    Args:
        path: a model file, or a safetensors file by others; a binary file object is read to its end.
        into: models, optimizers and tensors to fill in place, alone or in dicts and lists. They stay the same objects.
        framework: `numpy` or `torch`: make all tensors of this one. Without it each becomes what it was saved as, if that framework is
            imported, else NumPy.
        device: where to put them, such as `cuda`.
        only: a glob over the file's paths (`*` crosses dots), or a callable; nothing else is read.
        rename: from the file's paths to the target's: a mapping, pairs of patterns (`("module.*", "*")`), or a callable.
        strict: raise if anything does not fit. `False` takes what fits and warns with the same report.
        cast: convert to the target's dtypes, rounding to nearest even; what changed is reported.
        verify: compare every byte with its digest before it is used.
        mmap: views of the file, copied when written to; `False` for memory of their own, better for arrays to train on.
        types: dataclasses and named tuples that may come back as themselves.
        limits: bounds on what the file may ask for.
        progress: called with the bytes done and in all.

    Returns:
        The state: with `into=` in the target's shape, with whatever else the file holds.

    Raises:
        FormatError: no file that tensorkeep reads.
        CorruptError: bytes are not those that were written. Nothing was changed.
        MismatchError: file and target disagree; all problems at once. Nothing was changed.
        FileNotFoundError: nothing is there.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"w": np.arange(3.0), "lr": 0.1}, "w.safetensors")
        >>> w = np.zeros(3)
        >>> tk.load("w.safetensors", into={"w": w})["lr"]
        0.1
        >>> w
        array([0., 1., 2.])
    """
    with open_contents(path, verify=verify, mmap=mmap, limits=limits) as contents:
        return _load(
            contents,
            into=into,
            framework=framework,
            device=device,
            only=only,
            rename=rename,
            strict=strict,
            cast=cast,
            types=types,
            limits=limits,
            progress=progress,
        )


def loads(data: "bytes | bytearray | memoryview", *, verify: bool = True, limits: Limits | None = None, **options: Unpack[Options]) -> Any:
    """Load from the bytes of a file.

    Args:
        data: as `dumps` gave them.
        verify, limits, options: as for `load`, but for `mmap`.

    Returns:
        The state. Its tensors have memory of their own.

    Raises:
        FormatError, CorruptError, MismatchError: as for `load`.

    Example:
        >>> import tensorkeep as tk
        >>> tk.loads(tk.dumps((1, 2)))
        (1, 2)
    """
    with of_bytes(data, name="<bytes>", verify=verify, limits=limits) as contents:
        return _load(contents, limits=limits, **options)


def _load(
    contents: Contents,
    *,
    into: Any = None,
    framework: str | None = None,
    device: Any = None,
    only: Only | None = None,
    rename: Rename | None = None,
    strict: bool = True,
    cast: bool = False,
    types: Iterable[type] = (),
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Any:
    try:
        tree, renamed = take(contents.tree, only, rename)
    except Clash as clash:
        raise MismatchError(contents.file, f"  {escaped(clash)}") from None
    builder = restore.Builder(
        contents.file,
        nbytes=contents.nbytes,
        framework=framework,
        device=None if device is None else str(device),
        types=_by_name(types),
    )
    if into is None:
        return restore.build(tree, contents, builder, progress)
    return restore.into(
        tree,
        into,
        contents,
        builder,
        strict=strict,
        cast_dtypes=cast,
        selected=expected(contents.tree, only, rename),
        renamed=renamed,
        limits=limits or DEFAULT_LIMITS,
        progress=progress,
    )


def _by_name(types: Iterable[type]) -> dict[str, type]:
    classes = [] if isinstance(types, type) else list(types)
    if isinstance(types, type) or not all(isinstance(cls, type) for cls in classes):
        raise TypeError(f"types= takes several classes, such as types=(Settings,), found {types!r:.80}")
    return {cls.__qualname__: cls for cls in classes}

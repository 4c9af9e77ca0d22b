"""load: a file into a model, or into a new state."""

from collections.abc import Iterable
from os import PathLike
from typing import Any, BinaryIO, TypeVar, Unpack, overload

from tensorkeep.limits import Limits
from tensorkeep.loading import Options, check_options, load_contents
from tensorkeep.opening import of_bytes, open_contents
from tensorkeep.progress import Progress
from tensorkeep.selection import Only, Rename
from tensorkeep.transposing import Transpose

State = TypeVar("State")


@overload
def load(
    path: "str | PathLike[str] | BinaryIO",
    *,
    into: State,
    build: None = None,
    framework: str | None = None,
    device: Any = None,
    only: Only | None = None,
    rename: Rename | None = None,
    transpose: Transpose | None = None,
    strict: bool = True,
    cast: bool = False,
    verify: bool = True,
    mmap: bool | None = None,
    types: Iterable[Any] = (),
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> State: ...


@overload
def load(
    path: "str | PathLike[str] | BinaryIO",
    *,
    into: None = None,
    build: str | None = None,
    framework: str | None = None,
    device: Any = None,
    only: Only | None = None,
    rename: Rename | None = None,
    transpose: Transpose | None = None,
    strict: bool = True,
    cast: bool = False,
    verify: bool = True,
    mmap: bool | None = None,
    types: Iterable[Any] = (),
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Any: ...


def load(
    path: "str | PathLike[str] | BinaryIO",
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
    verify: bool = True,
    mmap: bool | None = None,
    types: Iterable[Any] = (),
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Any:
    """Load a file: into a model or state that is there, or as a new state.

    Nothing in the file is run. With `into=`, everything is checked before anything is changed.

    Args:
        path: a model file, or a safetensors file by others; a binary file object is read to its end.
        into: models, optimizers and tensors to fill in place, alone or in dicts and lists. They stay the same objects,
            but for those that never change (JAX's): for these the answer has new ones.
        build: `sklearn` or `keras`: build the estimators or models themselves, by closed tables of exact names. Without it, one without a
            target is a plain tree.
        framework: `numpy`, `torch` or `jax`: make all tensors of this one. Without it each becomes what it was saved as, if that
            framework is imported, else NumPy.
        device: where to put them, such as `cuda`; for a framework that has devices.
        only: a glob over the file's paths (`*` crosses dots), or a callable; nothing else is read.
        rename: from the file's paths to the target's: a mapping, pairs of patterns (`("module.*", "*")`), or a callable.
        transpose: for kernels that another framework has in another order: the name of a rule set (`torch->keras`, `torch->flax`,
            `keras->torch`, `flax->torch`), or patterns of paths and the axes of the file's tensor in the target's order:
            `{"*kernel": (1, 0)}`. A rule is for tensors of as many axes as it names.
        strict: raise if anything does not fit. `False` takes what fits and warns with the same report.
        cast: convert to the target's dtypes, rounding to nearest even; what changed is reported.
        verify: compare every byte with its digest before it is used; of formats of others with their checksums, but for views of PyTorch's
            archives, which are not read to be checked: `tk.verify` does that.
        mmap: views of the file, copied when written to; `False` for memory of their own, better for arrays to train on.
        types: dataclasses and named tuples, and estimators, layers and functions of yours inside a model, to come back as themselves.
        limits: bounds on what the file may ask for.
        progress: called with the bytes done and in all.

    Returns:
        The state: with `into=` in the target's shape, with whatever else the file holds.

    Raises:
        FormatError: no file that tensorkeep reads.
        CorruptError: bytes are not those that were written. Nothing was changed.
        MismatchError: file and target disagree; all problems at once. Nothing was changed.
        FileNotFoundError: nothing is there.
        UnsupportedError: a tensor that `transpose` names has elements that are packed together.
        ValueError: `only` takes nothing for `into`, or `transpose` is for no tensor.

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
        return load_contents(
            contents,
            into=into,
            build=build,
            framework=framework,
            device=device,
            only=only,
            rename=rename,
            transpose=transpose,
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
    check_options("loads", options)
    with of_bytes(data, name="<bytes>", verify=verify, limits=limits) as contents:
        return load_contents(contents, limits=limits, **options)

"""Averaging: the mean of the last checkpoints, tensor by tensor.

Nothing is computed before it is asked for, and then a piece at a time: memory does not grow with the model, nor with the number of
checkpoints. Lives elsewhere: the arithmetic (means).
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, ClassVar, Final

import numpy as np

from tensorkeep import dtypes
from tensorkeep.contents import Contents, Placement, Tensors
from tensorkeep.dtypes import DType, is_float
from tensorkeep.errors import CheckpointGone, FormatError, MismatchError, NoCheckpoint, shown
from tensorkeep.formats.storage import ForeignStorage
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.progress import Progress, part_of
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.checkpoint import open_checkpoint
from tensorkeep.store.keep import counted
from tensorkeep.store.means import Sum
from tensorkeep.store.storage import CheckpointStorage, ChunkBytes
from tensorkeep.tensors import Array, LazyTensor, TensorSpec, as_array, as_bytes
from tensorkeep.tree import Captured, Packed, Tree, like

FORMAT: Final = "average of tensorkeep checkpoints"
_SHOWN: Final = 10  # tensors that have no mean, in a message


def average(catalog: Catalog, last: int = 10, *, limits: Limits = DEFAULT_LIMITS) -> Contents:
    """The mean of the newest checkpoints, as contents that can be loaded or exported like any other.

    A tensor that is missing in one of them, or has another dtype or shape there, is a `MismatchError` for whoever loads it.
    Tensors of floating-point numbers are averaged, complex ones too; all others, plain values, and what one of the checkpoints has given
    up (`weights_only_after`), are the newest's.

    Args:
        catalog: of the store.
        last: how many checkpoints, at most.
        limits: as for a load.

    Raises:
        NoCheckpoint: there is none.
        ValueError: `last` is no whole number above 0.
        CorruptError, FormatError: one is damaged.
    """
    last = counted("average(last=)", last)
    opened: list[Contents] = []
    gone: CheckpointGone | None = None
    try:
        for known in catalog.look().downwards():
            try:
                opened.append(open_checkpoint(catalog.backend, known, limits=limits))
            except CheckpointGone as error:
                gone = error
                continue
            if len(opened) == last:
                break
        if not opened:
            raise gone or NoCheckpoint(catalog.backend.name, "average", "there is no checkpoint yet")
        return _averaged(catalog.backend.name, opened, limits)
    except BaseException:
        for contents in opened:
            contents.close()
        raise


def _averaged(store: str, opened: list[Contents], limits: Limits) -> Contents:
    newest = opened[0]
    made: dict[int, LazyTensor] = {}
    found = Tensors()
    for path, tensor in newest.tensors.items():
        if not _has_mean(tensor.dtype) or len(opened) == 1:
            made[id(tensor)] = found[path] = tensor
            continue
        same = [contents.tensors.get(path) for contents in opened]
        if any(one is None and _gave_up(contents, path) for contents, one in zip(opened, same, strict=True)):
            made[id(tensor)] = found[path] = tensor
            continue
        others = [one for one in same if one is not None and one.dtype == tensor.dtype and one.shape == tensor.shape]
        if len(others) < len(same):
            first = next(number for number, one in enumerate(same) if one not in others)
            found_there = "missing" if (one := same[first]) is None else f"{one.spec}"
            source: Mean | Unlike = Unlike(
                store, f"  {shown(path)}: {tensor.spec} in {newest.file}, {found_there} in {opened[first].file}", alike=first
            )
        else:
            source = Mean(others)
        made[id(tensor)] = found[path] = LazyTensor(tensor.spec, source, tensor.framework, path)
    tree = _replaced(newest.tree, made)
    found.tree = tree
    steps = [contents.metadata["step"] for contents in opened]
    return Contents(
        f"{store}@average of {len(steps)}",
        FORMAT,
        tree,
        found,
        _Storage(f"{store}@average of {len(steps)}", opened),
        {**newest.metadata, "averaged_steps": steps[::-1]},
        newest.nbytes,
        left_out=newest.left_out,
        versions=newest.versions,
    )


def _gave_up(contents: Contents, path: str) -> bool:
    """Whether a checkpoint had a tensor, and has only its weights now."""
    storage = contents.storage
    assert isinstance(storage, CheckpointStorage), "of a checkpoint"
    stored = storage.joined.tensors.get(path)
    return stored is not None and storage.joined.is_given_up(stored)


def _has_mean(dtype: DType) -> bool:
    return dtype.block == 1 and (is_float(dtype) or _is_complex(dtype))


def _replaced(node: Tree, made: dict[int, LazyTensor]) -> Tree:
    """The tree with other tensors."""
    if isinstance(node, LazyTensor):
        return made[id(node)]
    if isinstance(node, Packed):
        return Packed(node.kind, made[id(node.tensor)]) if id(node.tensor) in made else node
    if isinstance(node, Captured):
        return Captured(node.kind, node.cls, _replaced(node.state, made))
    if isinstance(node, dict):
        fresh = like(node)
        for key, child in node.items():
            fresh[key] = _replaced(child, made)
        return fresh
    if isinstance(node, (list, tuple)):
        return type(node)(_replaced(child, made) for child in node)
    if hasattr(node, "maxlen"):
        return type(node)((_replaced(child, made) for child in node), node.maxlen)
    return node


class Mean:
    """The bytes of the mean of several tensors of one dtype and shape."""

    piecewise: ClassVar = True

    def __init__(self, tensors: Sequence[LazyTensor]) -> None:
        self.tensors = tensors

    def view(self) -> None:
        return None

    def read(self, start: int, stop: int) -> memoryview:
        dtype = self.tensors[0].dtype
        unit = 1 if dtype.bits < 8 else dtype.bits // 8
        first, last = start // unit * unit, -(-stop // unit) * unit
        count = (last - first) * 8 // dtype.bits

        def parts() -> Iterator[Array]:
            for tensor in self.tensors:
                yield _parts(as_array(tensor.source.read(first, last), 0, TensorSpec(dtype, (count,))))

        total = Sum(count * 2 if _is_complex(dtype) else count)
        for numbers in parts():
            total.add(numbers)
        mean = total.mean(parts, odd=dtype.bits != (128 if _is_complex(dtype) else 64))
        return as_bytes(np.ascontiguousarray(_narrow(mean, dtype)))[start - first : stop - first]


class Unlike:
    """In the place of a mean that cannot be: that of an optimizer which had no state yet, say. Whoever asks for it is told why.

    Attributes:
        said: what is not alike, for people.
        alike: how many of the newest checkpoints are.
    """

    piecewise: ClassVar = True

    def __init__(self, store: str, said: str, *, alike: int) -> None:
        self.store, self.said, self.alike = store, said, alike

    def view(self) -> None:
        return None

    def read(self, start: int, stop: int) -> memoryview:
        raise _mismatch([self])


def _mismatch(unlike: Sequence[Unlike]) -> MismatchError:
    said = [one.said for one in unlike[:_SHOWN]]
    if len(unlike) > _SHOWN:
        said.append(f"  and {len(unlike) - _SHOWN:,} more")
    alike = min(one.alike for one in unlike)
    fewer = f", or average(last={alike}): the newest {alike} are alike" if alike > 1 else ""
    said.append(f"  Leave them out with only={fewer}")
    return MismatchError(unlike[0].store, "\n".join(said), problem="has checkpoints that are not alike")


def _refuse_unlike(tensors: Collection[LazyTensor]) -> None:
    if unlike := [tensor.source for tensor in tensors if isinstance(tensor.source, Unlike)]:
        raise _mismatch(unlike)


def _is_complex(dtype: DType) -> bool:
    return dtype.numpy is not None and dtype.numpy.kind == "c"


def _parts(numbers: Array) -> Array:
    """The numbers; of complex ones the two parts, one behind the other."""
    if numbers.dtype.kind == "c":
        return np.ascontiguousarray(numbers).view(np.dtype(f"f{numbers.dtype.itemsize // 2}"))
    return numbers


def _narrow(mean: Array, dtype: DType) -> Any:
    """Rounded to what the tensor is made of."""
    assert dtype.numpy is not None, "see _has_mean"
    if dtype.numpy.kind == "c":
        return mean.astype(np.dtype(f"<f{dtype.numpy.itemsize // 2}")).view(dtype.numpy)
    narrow, _ = dtypes.cast(mean, dtype)
    return dtypes.pack_f4(narrow) if dtype.bits == 4 else narrow


class _Storage(ForeignStorage):
    """Computes what it is asked for, after all that it is made of was checked."""

    def __init__(self, name: str, contents: Sequence[Contents]) -> None:
        super().__init__(name, [], verify=True)
        self._contents = contents
        for one in contents:
            assert isinstance(one.storage, CheckpointStorage), "of a checkpoint"
            one.storage.keeps = False

    def identity(self) -> object:
        return tuple(contents.storage.identity() for contents in self._contents)

    def check(self, tensors: Collection[LazyTensor], progress: Progress | None) -> None:
        _refuse_unlike(tensors)
        whole = sum(tensor.nbytes * (len(tensor.source.tensors) if isinstance(tensor.source, Mean) else 1) for tensor in tensors)
        done = 0
        for number, contents in enumerate(self._contents):
            mine = [tensor.source.tensors[number] for tensor in tensors if isinstance(tensor.source, Mean)]
            mine += [tensor for tensor in tensors if number == 0 and not isinstance(tensor.source, Mean)]
            contents.storage.check(mine, part_of(progress, done, whole))
            done += sum(tensor.nbytes for tensor in mine)

    def place(self, tensors: Sequence[LazyTensor], progress: Progress | None) -> Placement:
        _refuse_unlike(tensors)
        newest = self._contents[0].storage
        assert isinstance(newest, CheckpointStorage), "of a checkpoint"
        own = [tensor.source.tensors[0] if isinstance(tensor.source, Mean) else tensor for tensor in tensors]
        newest.spend([one.source.stored for one in own if isinstance(one.source, ChunkBytes)], sum(one.nbytes for one in own))
        return super().place(tensors, progress)

    def survey(self, progress: Progress | None) -> list[tuple[str, int, int]]:
        raise FormatError(self.name, "an average has no bytes of its own to compare: verify the checkpoints")

    def close(self) -> None:
        for contents in self._contents:
            contents.close()

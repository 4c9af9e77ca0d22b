"""PyTorch's storages, and the tensors that view them, as their bytes lie in a file.

A tensor in a torch file names a storage, an offset, a shape and strides. Here that becomes a `LazyTensor`: a plain run of bytes where the
view is contiguous, a strided one where it is not, and bytes mended on the way where the file is of the other byte order or the tensor has
its conjugate or negative bit set. Equal views of one storage are one tensor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from tensorkeep.dtypes import BOOL, U8, DType
from tensorkeep.errors import FormatError
from tensorkeep.formats.torch.dtypes import DTYPES, ITEM_BYTES, PACKED, QUANTIZED, SWAPPED, TWO_EACH
from tensorkeep.limits import Limits
from tensorkeep.tensors import Array, ByteSource, LazyTensor, TensorSpec, spec_of
from tensorkeep.unpickle.inert import Pending
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.sources import Made, Run, strided

_MOST: Final = 2**63 - 1  # of a length, an offset, a stride
_NOWHERE: Final = Made(0, lambda start, stop: b"")
_INTEGERS: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class Storage(Pending):
    """One storage of a file. It stands in a pickle by its key; where its bytes are is known at once, or when the pickle has been read.

    Attributes:
        key: its name in the file.
        dtype: PyTorch's name of what it is said to hold.
        count: elements.
        location: the device that it was saved from.
        extent: its bytes, once they are known.
        views: of the tensors over it, by offset, shape, strides and dtype.
    """

    __slots__ = ("_views", "count", "dtype", "extent", "key", "location", "views")

    def __init__(self, views: "Views", key: str, dtype: str, count: int, location: str, extent: Extent | None) -> None:
        self.key, self.dtype, self.count, self.location, self.extent = key, dtype, count, location, extent
        self.views: dict[str, LazyTensor] = {}  # by text, which is hashed with a secret: numbers could be made to collide
        self._views = views

    @property
    def nbytes(self) -> int:
        return self.count * ITEM_BYTES[self.dtype]

    def build(self, state: Any) -> object | None:
        """Nothing is ever built on a storage."""
        raise FormatError(self._views.file, f"the storage {self.key!r:.100} is given a state, which storages do not take")

    def value(self) -> object:
        """A storage that stands in a state by itself: all of it, as a tensor of one dimension."""
        return self._views.tensor(self, self.dtype, 0, (self.count,), (1,))


@dataclass(slots=True)
class _View:
    """A tensor that is to be told where its bytes are."""

    tensor: LazyTensor
    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    conj: bool
    neg: bool


class Views:
    """All storages of one file or stream, and the tensors over them.

    Args:
        file: for messages.
        limits: `rank`.
        swapped: whether numbers are big-endian.
    """

    def __init__(self, file: str, limits: Limits, *, swapped: bool = False) -> None:
        self.file, self.limits, self.swapped = file, limits, swapped
        self.storages: dict[str, Storage] = {}
        self._waiting: list[_View] = []

    def error(self, problem: str) -> FormatError:
        return FormatError(self.file, problem)

    def storage(self, key: object, dtype: str | None, count: object, location: object, find: Callable[[str], Extent] | None) -> Storage:
        """The storage of a key, which may be named many times, always with the same dtype and count.

        Args:
            dtype: PyTorch's name, None where its class is unknown.
            find: where the bytes of a new one are; None while that is not known.

        Raises:
            FormatError: what is said of it cannot be, or differs from what was said before.
        """
        if type(key) is not str or type(count) is not int or not 0 <= count <= _MOST or dtype is None:
            raise self.error(f"a storage of key {told(key)}, {told(count)} elements and dtype {told(dtype)}, which cannot be")
        known = self.storages.get(key)
        if known is not None:
            if (known.dtype, known.count) != (dtype, count) and (known.count or count):
                raise self.error(f"the storage {key!r:.60} is named as {known.count:,} of {known.dtype} and as {count:,} of {dtype}")
            return known
        extent = find(key) if find is not None else None
        if extent is not None and extent.nbytes // ITEM_BYTES[dtype] != count:
            raise self.error(
                f"the storage {key!r:.60} is said to hold {count:,} elements of {dtype}, and its record has {extent.nbytes:,} bytes"
            )
        made = self.storages[key] = Storage(self, key, dtype, count, location if type(location) is str else "", extent)
        return made

    def tensor(
        self, storage: Storage, dtype: str, offset: Any, size: Any, stride: Any, *, conj: bool = False, neg: bool = False
    ) -> LazyTensor:
        """A tensor over a storage; the same one for the same view.

        Args:
            dtype: PyTorch's name.
            offset, size, stride: counted in elements.

        Raises:
            FormatError: they are no such numbers.
        """
        if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride) or len(size) > self.limits.rank:
            raise self.error(f"a tensor of size {told(size)} and strides {told(stride)}; at most {self.limits.rank} dimensions can be")
        for number in (offset, *size, *stride):
            if type(number) is not int or not 0 <= number <= _MOST:
                raise self.error(f"a tensor with {told(number)} as its offset, or among its lengths and strides")
        view = f"{offset} {size} {stride} {dtype} {conj} {neg}"
        known = storage.views.get(view)
        if known is None:
            known = storage.views[view] = LazyTensor(spec_of(*shape_of(dtype, size)), _NOWHERE)
            self._waiting.append(_View(known, storage, offset, size, stride, dtype, conj, neg))
        return known

    def resolve(self) -> None:
        """Tell every tensor where its bytes are, now that all storages know.

        Raises:
            FormatError: one reaches beyond its storage, or its storage is nowhere in the file.
        """
        for view in self._waiting:
            view.tensor.source = self._source(view)
        self._waiting.clear()

    def _source(self, view: "_View") -> ByteSource:
        spec, storage, dtype = view.tensor.spec, view.storage, view.dtype
        item, extent = ITEM_BYTES[dtype], storage.extent
        if extent is None:
            if spec.nbytes or storage.count:
                raise self.error(f"the storage {storage.key!r:.60} is nowhere in the file")
            return _NOWHERE
        bits = PACKED.get(dtype)
        if bits is not None:
            return self._packed(spec, extent, view.offset, bits)
        start = view.offset * item
        if _contiguous(view.size, view.stride) and start + spec.nbytes <= extent.nbytes:
            source: ByteSource = Run(extent, start, start + spec.nbytes, spec.dtype is BOOL)
        else:
            raw = spec if spec.dtype is not TWO_EACH else spec_of(U8, view.size)
            source = strided(extent, start, raw, view.stride, what=f"a view of the storage {storage.key!r:.60}").source
        if self.swapped and (each := SWAPPED.get(dtype, item)) > 1:
            source = Made(spec.nbytes, partial(_mended, source, item, partial(_swap, each)), (extent,))
        if view.conj or view.neg:
            source = Made(spec.nbytes, partial(_mended, source, item, partial(_negate, spec.dtype, item, view.conj, view.neg)), (extent,))
        return source

    def _packed(self, spec: TensorSpec, extent: Extent, offset: int, bits: int) -> ByteSource:
        """Elements of less than a byte: only ever whole storages, which are shown as their bytes."""
        nbytes = extent.nbytes
        if offset or spec.nbytes > nbytes:
            raise self.error(f"a view of packed {bits}-bit elements from element {offset:,} on, which no writer makes")
        return Run(extent, 0, spec.nbytes)


def told(value: object) -> str:
    """Anything of a pickle in a few words, for messages. What it holds is not looked at: it may be endless."""
    if type(value) is int:
        return str(value) if value.bit_length() < 200 else f"a number of {value.bit_length():,} bits"
    if type(value) in (str, bytes, bool, float, type(None)):
        return repr(value)[:80]
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list, dict)) else f"a {type(value).__name__}"


def shape_of(dtype: str, size: tuple[int, ...]) -> tuple[DType, tuple[int, ...]]:
    """Our dtype and shape of a tensor: two elements of F4 lie in each of PyTorch's."""
    ours = DTYPES.get(dtype) or QUANTIZED[dtype]
    if ours is TWO_EACH:
        return (ours, (*size[:-1], 2 * size[-1])) if size else (ours, (2,))
    if (bits := PACKED.get(dtype)) is not None:
        count = 1
        for length in size:
            count *= length
        return ours, (-(-count * bits // 8),)
    return ours, size


def _contiguous(shape: Sequence[int], stride: Sequence[int]) -> bool:
    expected = 1
    for length, step in zip(reversed(shape), reversed(stride), strict=True):
        if length != 1 and step != expected:
            return 0 in shape
        expected *= length
    return True


def _mended(source: ByteSource, item: int, mend: Callable[[Array], None], start: int, stop: int) -> memoryview:
    """Bytes of whole elements, changed in a copy."""
    first, last = start - start % item, stop + -stop % item
    copy: Array = np.array(np.frombuffer(source.read(first, last), np.uint8))
    mend(copy)
    return memoryview(copy)[start - first : stop - first]


def _swap(each: int, data: Array) -> None:
    data.view(_INTEGERS[each]).byteswap(inplace=True)


def _negate(dtype: DType, item: int, conj: bool, neg: bool, data: Array) -> None:
    """Set right what a conjugate or a negative bit says. The sign of a float is a bit; integers are negated."""
    if dtype.numpy is not None and dtype.numpy.kind in "iu":
        if neg:
            np.negative(data.view(dtype.numpy), out=data.view(dtype.numpy))
        return
    if dtype is BOOL:
        return
    complex_ = dtype.name.startswith(("C", "BC"))
    part = item // 2 if complex_ else item
    numbers = data.view(_INTEGERS[part])
    sign = np.array(1 << (8 * part - 1), numbers.dtype)
    if neg:
        numbers ^= sign
    if conj and complex_:
        numbers[1::2] ^= sign

"""PyTorch's oldest files, from before 0.1.10: a tar archive of a pickle, its tensors and its storages.

Source: `legacy_load` in `torch/serialization.py`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tensorkeep.contents import Contents
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.torch.dtypes import ITEM_BYTES, STORAGES
from tensorkeep.formats.torch.pickle import format_of, run_pickle, settle
from tensorkeep.formats.torch.rebuild import Rebuilder
from tensorkeep.formats.torch.storage import Storage, Views, told
from tensorkeep.tensors import LazyTensor
from tensorkeep.unpickle.inert import Global
from tensorkeep.wire.cursor import Cursor
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.tar import TarArchive, begins_tar

_MEMBERS: Final = ("pickle", "tensors", "storages")


class TorchTarReader:
    """Told by its three members."""

    name = "torch tar"

    def recognizes(self, peek: Peek) -> bool:
        return begins_tar(peek.head) and set(_MEMBERS) <= TarArchive(peek.data).keys()

    def read(self, peek: Peek) -> Contents:
        archive = TarArchive(peek.data)
        objects = _Objects(peek)
        objects.read_storages(archive["storages"])
        objects.read_tensors(archive["tensors"])
        value, _ = run_pickle(peek, archive["pickle"], objects.rebuilder)
        settled = settle(peek, value, objects.rebuilder)
        others = [name for name in archive if name not in (*_MEMBERS, "sys_info")]
        if others:
            settled.left_out.append(f"{len(others):,} further members, such as {others[0]}")
        return assemble.contents(
            peek,
            format=format_of(settled.tree),
            tree=settled.tree,
            metadata=settled.metadata,
            left_out=settled.left_out,
            version="tar",
        )


class _Numbered(Rebuilder):
    """What a persistent id names is found by its number."""

    def __init__(self, views: Views, find: Callable[[Any], object]) -> None:
        super().__init__(views)
        self._by_number = find

    def persistent(self, pid: Any) -> object:
        if type(pid) is tuple and pid and type(pid[0]) is Global:
            if all(pid[1:]):
                self.sources[f"{pid[0].module}.{pid[0].name}"] = None
            return pid[0]
        return self._by_number(pid)


class _Objects:
    """What the pickle names by number: storages, views of storages, and tensors."""

    def __init__(self, peek: Peek) -> None:
        self.peek = peek
        self.views = Views(peek.name, peek.limits)
        self.rebuilder = _Numbered(self.views, self._find)
        self._by_key: dict[str, tuple[Storage, int, int]] = {}
        self._tensors: dict[str, LazyTensor] = {}

    def read_storages(self, data: Extent) -> None:
        """The storages, each behind a pickle of its key, its device and its class; then the views of them."""
        count, at = self._pickle(data, 0, "number of storages", int)
        Cursor(data, at).fits("number of storages", count, bytes_each=8)
        for _ in range(count):
            (key, location, cls), at = self._pickle(data, at, "storage", tuple, 3)
            dtype = STORAGES.get(cls.name) if type(cls) is Global else None
            cursor = Cursor(data, at)
            elements = cursor.i64("number of elements")
            if dtype is None:
                raise self.peek.error(f"a storage of class {told(cls)}")
            cursor.fits("number of elements", elements, bytes_each=ITEM_BYTES[dtype])
            begin, at = cursor.at, cursor.at + elements * ITEM_BYTES[dtype]
            text = self._fresh(key)
            part = data.part(begin, at, f"{data.name}: {text}")
            storage = self.views.storage(text, dtype, elements, location, partial(_found, part))
            self._by_key[text] = (storage, 0, elements)
        views, _ = self._pickle(data, at, "views of storages", list)
        for view in views:
            if type(view) is not tuple or len(view) != 4 or not all(type(number) is int for number in view[2:]):
                raise self.peek.error("a view of a storage that is none")
            key, root, offset, elements = view
            whole = self._by_key.get(_name(root))
            if whole is None or not 0 <= offset <= offset + elements <= whole[2]:
                raise self.peek.error(f"a view of the storage {told(root)} that reaches beyond it")
            self._by_key[self._fresh(key)] = (whole[0], whole[1] + offset, elements)

    def read_tensors(self, data: Extent) -> None:
        """The tensors, each behind a pickle of its key, its storage and its class."""
        count, at = self._pickle(data, 0, "number of tensors", int)
        Cursor(data, at).fits("number of tensors", count, bytes_each=16)
        for _ in range(count):
            (key, root, _), at = self._pickle(data, at, "tensor", tuple, 3)
            cursor = Cursor(data, at)
            rank = cursor.i32("number of dimensions")
            cursor.skip("padding", 4)
            cursor.fits("number of dimensions", rank, bytes_each=16)
            size = tuple(cursor.i64("length") for _ in range(rank))
            stride = tuple(cursor.i64("stride") for _ in range(rank))
            offset = cursor.i64("offset")
            at = cursor.at
            found = self._by_key.get(_name(root))
            if found is None:
                raise self.peek.error(f"a tensor over the storage {told(root)}, which is not there")
            storage, begin, _ = found
            self._tensors[self._fresh(key)] = self.views.tensor(storage, storage.dtype, begin + offset, size, stride)

    def _fresh(self, key: Any) -> str:
        text = _name(key)
        if not text or text in self._by_key or text in self._tensors:
            raise self.peek.error(f"the number {told(key)} of a storage or tensor is none, or used twice")
        return text

    def _pickle(self, data: Extent, at: int, what: str, kind: type, length: int | None = None) -> tuple[Any, int]:
        result = run_pickle(self.peek, data, self.rebuilder, at=at)
        value: Any = result.value
        if not isinstance(value, kind) or (isinstance(value, tuple) and length is not None and len(value) != length):
            raise self.peek.error(f"a {what} is wanted, found a {type(value).__name__}")
        return value, result.end

    def _find(self, pid: Any) -> object:
        text = _name(pid)
        if text in self._tensors:
            return self._tensors[text]
        if text in self._by_key:
            storage, offset, elements = self._by_key[text]
            return self.views.tensor(storage, storage.dtype, offset, (elements,), (1,))
        raise self.peek.error(f"it names {told(pid)}, which is neither among its tensors nor its storages")


def _found(extent: Extent, key: str) -> Extent:
    return extent


def _name(key: Any) -> str:
    """A number as a text, which is hashed with a secret; "" for what is no number of theirs."""
    if type(key) is int and 0 <= key < 1 << 64:
        return str(key)
    return key if type(key) is str else ""

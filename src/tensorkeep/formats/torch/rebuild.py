"""The closed table of PyTorch's constructors: what a pickle of PyTorch calls, made as pure data.

Lives here: tensors of every layout, storages' persistent ids, sizes, devices, generators. Lives elsewhere: where bytes are (storage),
whole modules (modules), Python's and NumPy's own constructors (unpickle).

Source: `torch/_utils.py`, `torch/_tensor.py` and `torch/serialization.py` of PyTorch 2.13, and of 0.1.12 to 1.0
for what is no longer written.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from tensorkeep import dtypes
from tensorkeep.dtypes import DType
from tensorkeep.errors import FormatError, shown
from tensorkeep.formats.torch.dtypes import DTYPES, PACKED, PROPER, QUANTIZED, STORAGES
from tensorkeep.formats.torch.storage import Storage, Views, told
from tensorkeep.tensors import LazyTensor, as_array, as_bytes, spec_of
from tensorkeep.tree import Captured
from tensorkeep.unpickle.inert import Constructor, Global, Inert, Pending
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.sources import Made, extents_of

_DTYPE_OF: Final = {("torch", name): name for name in (*DTYPES, *QUANTIZED)}
_JAGGED: Final = ("torch.nested._internal.nested_tensor", "_rebuild_njt")
_PLAIN_CLASSES: Final = {("torch", "Tensor"), ("torch._tensor", "Tensor"), ("torch.nn.parameter", "Parameter"), ("torch.nn", "Parameter")}
_MARKS: Final = {"_is_param", "_is_buffer", "persistent"}
"""Attributes by which PyTorch tells parameters and buffers from other tensors."""

_PER_CHANNEL: Final = {"per_channel_affine", "per_channel_affine_float_qparams"}
_COMPRESSED: Final = {"sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc"}
_LEGACY_CLASSES: Final = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")

Find = Callable[[str], Extent]


class Rebuilder:
    """The constructors for one file or stream.

    Args:
        views: its storages and tensors.
        find: where the bytes of a storage are, by its key; None while that is not known.
        stream: reads a stream that stands inside of a pickle: what `torch.storage._load_from_bytes` is given.

    Attributes:
        table: by module and name, for the pickle machine.
        left_out: what the state held beside what is in the tree, a sentence each.
        devices: how many storages were saved from each device.
        sources: names of the classes whose source code stands in the file.
    """

    def __init__(self, views: Views, *, find: Find | None = None, stream: Callable[[object], object] | None = None) -> None:
        self.views, self._find, self._stream = views, find, stream
        self.left_out: dict[str, None] = {}
        self.devices: dict[str, int] = {}
        self.sources: dict[str, None] = {}
        self._tensor_makers: dict[str, Callable[..., object]] = {
            "_rebuild_tensor": self._tensor,
            "_rebuild_tensor_v2": self._tensor_v2,
            "_rebuild_tensor_v3": self._tensor_v3,
            "_rebuild_qtensor": self._quantized,
            "_rebuild_sparse_tensor": self._sparse,
            "_rebuild_sparse_csr_tensor": self._sparse,
            "_rebuild_nested_tensor": _nested,
            "_rebuild_meta_tensor_no_storage": self._meta,
            "_rebuild_parameter": _parameter,
            "_rebuild_parameter_with_state": self._parameter_with_state,
            "_rebuild_device_tensor_from_numpy": self._from_other,
            "_rebuild_device_tensor_from_cpu_tensor": self._from_other,
            "_rebuild_xla_tensor": self._from_other,
            "_rebuild_wrapper_subclass": _wrapper,
            _JAGGED[1]: _jagged,
        }
        self.table: dict[tuple[str, str], Constructor] = {
            **{("torch._utils", name): partial(_spread, make) for name, make in self._tensor_makers.items() if name != _JAGGED[1]},
            _JAGGED: partial(_spread, _jagged),
            **{
                (module, name): partial(_spread, self._from_type)
                for module in ("torch._tensor", "torch.tensor")
                for name in ("_rebuild_from_type", "_rebuild_from_type_v2")
            },
            **{("torch", f"{name}Tensor"): partial(_Old, self) for name in _LEGACY_CLASSES},
            **{("torch.cuda", f"{name}Tensor"): partial(_Old, self) for name in _LEGACY_CLASSES},
            ("torch.nn.parameter", "Parameter"): _OldParameter,
            ("torch.autograd.variable", "Variable"): _OldParameter,
            ("torch", "Size"): partial(_spread, _size),
            ("torch", "device"): partial(_spread, _device),
            ("torch", "Generator"): _Generator,
            ("torch._C", "Generator"): _Generator,
            ("torch.serialization", "_get_layout"): partial(_spread, _named),
            ("torch.torch_version", "TorchVersion"): partial(_spread, _named),
            ("torch.storage", "_load_from_bytes"): partial(_spread, self._from_bytes),
        }

    # Storages

    def persistent(self, pid: Any) -> object:
        """What a persistent id stands for: a storage, or a class whose source was saved with it.

        Raises:
            FormatError: it is neither.
        """
        if type(pid) is tuple and len(pid) >= 2:
            kind = _text(pid[0])
            if kind == "storage" and len(pid) in (5, 6):
                return self._storage(*pid[1:])
            if kind == "module" and type(pid[1]) is Global:
                if all(pid[2:]):
                    self.sources[f"{pid[1].module}.{pid[1].name}"] = None
                return pid[1]
        raise self.views.error(f"a persistent id that no version of PyTorch writes: {told(pid)}")

    def _storage(self, cls: Any, key: Any, location: Any, count: Any, view: Any = None) -> object:
        dtype = STORAGES.get(cls.name) if type(cls) is Global else None
        key, location = _text(key), _text(location)
        known = len(self.views.storages)
        storage = self.views.storage(key, dtype, count, location, self._find)
        if len(self.views.storages) > known:
            self.devices[storage.location] = self.devices.get(storage.location, 0) + 1
        return storage if view is None else self._part(storage, view)

    def _part(self, storage: Storage, view: Any) -> object:
        """A view of a storage as a storage, which PyTorch wrote until 0.3."""
        if type(view) is not tuple or len(view) != 3 or not all(type(number) is int for number in view[1:]):
            raise self.views.error(f"a view of the storage {storage.key!r:.60} as {told(view)}")
        _, offset, count = view
        if not 0 <= offset <= offset + count <= storage.count:
            raise self.views.error(
                f"elements {offset:,} to {offset + count:,} of the storage {storage.key!r:.60}, which has {storage.count:,}"
            )
        return _Part(storage, offset, count)

    # Tensors

    def _view(
        self, storage: Any, dtype: str | None, offset: Any, size: Any, stride: Any, *, conj: bool = False, neg: bool = False
    ) -> object:
        if type(storage) is _Part:
            size, stride = _numbers(size), _numbers(stride)
            if not all(type(number) is int and 0 <= number < 1 << 63 for number in (offset, *size, *stride)):
                raise ValueError("numbers from 0 on are wanted as offset, lengths and strides")
            reach = offset + 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if 0 not in size else 0
            if reach > storage.count:
                raise self.views.error(f"a tensor reaches to element {reach:,} of a view of {storage.count:,}")
            offset, storage = offset + storage.offset, storage.storage
        if type(storage) is not Storage:
            raise TypeError(f"a storage is wanted, found a {type(storage).__name__}")
        return self.views.tensor(storage, dtype or storage.dtype, offset, _numbers(size), _numbers(stride), conj=conj, neg=neg)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> object:
        return self._view(storage, None, offset, size, stride)

    def _tensor_v2(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any = False, hooks: Any = None, metadata: Any = None
    ) -> object:
        if not metadata:
            return self._view(storage, None, offset, size, stride)
        return self._view(storage, None, offset, size, stride, conj=_bit(metadata, "conj"), neg=_bit(metadata, "neg"))

    def _tensor_v3(
        self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, dtype: Any, metadata: Any = None
    ) -> object:
        return self._view(storage, _dtype_name(dtype), offset, size, stride, conj=_bit(metadata, "conj"), neg=_bit(metadata, "neg"))

    def _quantized(
        self, storage: Any, offset: Any, size: Any, stride: Any, params: Any, requires_grad: Any = False, hooks: Any = None
    ) -> object:
        """A quantized tensor as its integers, and what makes numbers of them: (integer - zero point) x scale."""
        whole = storage.storage if type(storage) is _Part else storage
        if type(whole) is not Storage or whole.dtype not in QUANTIZED or type(params) is not tuple or not params:
            raise TypeError("a quantized storage and its parameters are wanted")
        state: dict[str, Any] = {"int_repr": self._view(storage, None, offset, size, stride)}
        if whole.dtype in PACKED:  # the integers are bytes then, and do not tell it
            state["size"] = list(_numbers(size))
        scheme = params[0].name if type(params[0]) is Global else ""
        if scheme in _PER_CHANNEL:
            _, state["scales"], state["zero_points"], state["axis"] = params
        else:
            _, state["scale"], state["zero_point"] = params
        return Captured("torch.quantized", whole.dtype, state)

    def _sparse(self, layout: Any, parts: Any) -> object:
        """A sparse tensor as PyTorch's own parts of it, named as tensorkeep names them in its own files."""
        name = layout.removeprefix("torch.") if type(layout) is str else ""
        if name == "sparse_coo" and len(parts) in (3, 4):
            coalesced = bool(parts[3]) if len(parts) == 4 and type(parts[3]) is bool else False
            state = {"indices": parts[0], "values": parts[1], "coalesced": coalesced, "size": list(_numbers(parts[2]))}
        elif name in _COMPRESSED and len(parts) == 4:
            state = {"compressed": parts[0], "plain": parts[1], "values": parts[2], "size": list(_numbers(parts[3]))}
        else:
            raise ValueError(f"{told(parts)} for a tensor of layout {told(layout)}")
        return Captured("torch.sparse", name, state)

    def _meta(self, dtype: Any, size: Any, stride: Any = (), requires_grad: Any = False) -> object:
        self.left_out["tensors on the meta device: they have a shape and no values"] = None
        made = Inert("torch", "Tensor")
        made.states = [{"dtype": dtype, "shape": list(_numbers(size)), "device": "meta"}]
        return made

    def _parameter_with_state(self, data: Any, requires_grad: Any, hooks: Any, state: Any) -> object:
        self._attributes(state, "parameters")
        return data

    def _from_type(self, make: Any, cls: Any, args: Any, state: Any = None) -> object:
        """A tensor of a class that is not PyTorch's own, or with attributes: the tensor; or, where it is made of others, those."""
        if type(make) is not Global or type(cls) is not Global or type(args) is not tuple:
            raise TypeError("a function, a class and arguments are wanted")
        maker = self._tensor_makers.get(make.name) if (make.module, make.name) in self.table else None
        if maker is None:  # of a library around PyTorch, which knows alone what it makes of them
            unknown = Inert(make.module, make.name, args)
            unknown.states = [state] if state else None
            return unknown
        made = maker(*args)
        if type(made) is Inert:
            made.module, made.name = cls.module, cls.name
            made.states = [*(made.states or []), *([state] if state else [])]
            return made
        if (cls.module, cls.name) not in _PLAIN_CLASSES:
            self._attributes(state, f"{shown(cls.module)}.{shown(cls.name)}")
        else:
            self._attributes(state, "tensors")
        return made

    def _attributes(self, state: Any, of: str) -> None:
        names: list[str] = []
        for part in state if type(state) is tuple else (state,):
            if isinstance(part, dict):
                names += [shown(name) for name in part if type(name) is str and name not in _MARKS][:10]
        if names:
            self.left_out[f"attributes of {of}: {', '.join(names)}"] = None

    def _from_other(self, data: Any, dtype: Any, device: Any, requires_grad: Any = False) -> object:
        """A tensor of another device, which was saved by way of NumPy or of the host, perhaps in another dtype."""
        data = data.value() if isinstance(data, Pending) else data
        wanted = DTYPES[_dtype_name(dtype)]
        if type(data) is not LazyTensor:
            raise TypeError(f"an array is wanted, found a {type(data).__name__}")
        return data if data.dtype is wanted else _cast(data, wanted)

    def _from_bytes(self, data: Any) -> object:
        if self._stream is None:
            raise ValueError("a storage within a storage")
        return self._stream(data)


class _Part:
    """A view of a storage that is a storage of its own in the file."""

    __slots__ = ("count", "offset", "storage")

    def __init__(self, storage: Storage, offset: int, count: int) -> None:
        self.storage, self.offset, self.count = storage, offset, count


class _Old(Pending):
    """A tensor as PyTorch 0.1 wrote it: its class, and then a state of storage, offset, size and strides."""

    __slots__ = ("_rebuilder",)

    def __init__(self, rebuilder: Rebuilder, args: tuple[Any, ...]) -> None:
        self._rebuilder = rebuilder

    def build(self, state: Any) -> object:
        if type(state) is not tuple or len(state) != 4:
            raise FormatError(self._rebuilder.views.file, f"a tensor is given {told(state)} as its state")
        return self._rebuilder._tensor(*state)

    def value(self) -> object:
        return None


class _OldParameter(Pending):
    """A parameter, or the variable of old, around its tensor; what it is given as a state says nothing of its values."""

    __slots__ = ("_data",)

    def __init__(self, args: tuple[Any, ...]) -> None:
        self._data = args[0] if args else None

    def build(self, state: Any) -> object | None:
        return self._data

    def value(self) -> object:
        return self._data


class _Generator(Pending):
    """A random generator: its device, and then its state."""

    __slots__ = ("_device", "_state")

    def __init__(self, args: tuple[Any, ...]) -> None:
        device = args[0] if args else "cpu"
        self._device = device.state if type(device) is Captured and type(device.state) is str else "cpu"
        self._state: object = None

    def build(self, state: Any) -> object | None:
        self._state = state[-1] if type(state) is tuple and state else state
        return None

    def value(self) -> object:
        return Captured("torch.generator", self._device, self._state)


def _spread(make: Callable[..., object], args: tuple[Any, ...]) -> object:
    return make(*args)


def _parameter(data: Any, requires_grad: Any = True, hooks: Any = None) -> object:
    return data


def _wrapper(cls: Any, *facts: Any) -> object:
    """A tensor without memory of its own, made of the tensors in its state, which comes later."""
    if type(cls) is not Global:
        raise TypeError("a class is wanted")
    return Inert(cls.module, cls.name)


def _nested(buffer: Any, sizes: Any, strides: Any, offsets: Any) -> object:
    return Captured("torch.nested", "NestedTensor", {"buffer": buffer, "sizes": sizes, "strides": strides, "offsets": offsets})


def _jagged(parts: Any) -> object:
    """A nested tensor of one buffer and offsets; what it keeps beside them follows from these."""
    if not isinstance(parts, Mapping):
        raise TypeError("a dict of parts is wanted")
    return {name: value for name, value in parts.items() if name != "_metadata_cache"}


def _size(lengths: Any = ()) -> object:
    return Captured("torch.size", "Size", list(_numbers(lengths)))


def _device(kind: Any = "cpu", index: Any = None) -> object:
    if type(kind) is not str or (index is not None and type(index) is not int):
        raise TypeError("a name and a number are wanted")
    return Captured("torch.device", "device", kind if index is None else f"{kind}:{index}")


def _named(name: Any) -> str:
    if type(name) is not str:
        raise TypeError("a name is wanted")
    return name


def _numbers(value: Any) -> tuple[Any, ...]:
    if type(value) is tuple:
        return value
    if type(value) is Captured and value.kind == "torch.size":
        return tuple(value.state)
    if type(value) is list:
        return tuple(value)
    raise TypeError(f"a tuple of numbers is wanted, found a {type(value).__name__}")


def _dtype_name(value: Any) -> str:
    name = _DTYPE_OF.get((value.module, value.name)) if type(value) is Global else None
    if name is None:
        raise ValueError(f"{told(value)} is no dtype that is known")
    return name


def dtype_of(value: Any) -> str | None:
    """PyTorch's name of a dtype that stands in a pickle; None for anything else."""
    return _DTYPE_OF.get((value.module, value.name)) if type(value) is Global else None


def constant(module: str, name: str) -> object | None:
    """What a bare global stands for in a tree where it is a value of PyTorch: a dtype. None for all others."""
    found = _DTYPE_OF.get((module, name))
    return None if found is None else Captured("torch.dtype", "dtype", PROPER.get(found, found))


def _bit(metadata: Any, name: str) -> bool:
    return isinstance(metadata, Mapping) and metadata.get(name) is True


def _text(value: Any) -> Any:
    """A text, which Python 2 wrote as bytes."""
    return value.decode("latin-1") if type(value) is bytes else value


def _cast(data: LazyTensor, wanted: DType) -> LazyTensor:
    """Values of another dtype, made when they are read."""
    if not dtypes.castable(data.dtype, wanted):
        raise ValueError(f"{data.dtype} as {wanted}")
    spec = spec_of(wanted, data.shape)
    item = wanted.bits // 8

    def make(start: int, stop: int) -> memoryview:
        first, last = start // item, -(-stop // item)
        source = spec_of(data.dtype, (last - first,))
        raw = data.source.read(data.dtype.nbytes(first), data.dtype.nbytes(last))
        array, _ = dtypes.cast(as_array(raw, 0, source), wanted)
        return as_bytes(array)[start - first * item : stop - first * item]

    return LazyTensor(spec, Made(spec.nbytes, make, extents_of(data)))

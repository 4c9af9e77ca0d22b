"""PyTorch's tensors over live memory, and over the bytes of a file. Those that are made of tensors are in `composed`."""

from collections.abc import Hashable
from ctypes import string_at
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
import torch
from torch.nn.parameter import is_lazy

from tensorkeep import dtypes
from tensorkeep.dtypes import DType
from tensorkeep.errors import UnsupportedError
from tensorkeep.frameworks.protocols import Build
from tensorkeep.frameworks.torch.composed import capture_local, capture_sparse, capture_subclass, is_distributed
from tensorkeep.matching import Matcher
from tensorkeep.report import Cast
from tensorkeep.tensors import Array, LazyTensor, TensorSpec, as_array, as_bytes, spec_of
from tensorkeep.tree import Tree, like

_NAMES: Final = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C32": "complex32",
    "C64": "complex64",
    "C128": "complex128",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F4": "float4_e2m1fn_x2",  # two elements in one
}
TORCH_OF: Final = {name: getattr(torch, torch_name) for name, torch_name in _NAMES.items() if hasattr(torch, torch_name)}
DTYPE_OF: Final[dict[Any, DType]] = {
    torch_dtype: dtypes.STANDARD.get(name) or {"C32": dtypes.C32, "C128": dtypes.C128}[name] for name, torch_dtype in TORCH_OF.items()
}

# Types that NumPy cannot take from PyTorch or the other way: their bytes go over as integers of the same width.
_AS_INTEGERS: Final = {
    dtype: {8: torch.uint8, 16: torch.int16, 32: torch.int32}[dtype.itemsize * 8]
    for name, dtype in TORCH_OF.items()
    if name == "BF16" or name == "C32" or name.startswith(("F8", "F4"))
}
_NUMPY_OF: Final = {
    name: np.dtype({torch.uint8: np.uint8, torch.int16: np.int16, torch.int32: np.int32}[_AS_INTEGERS[dtype]])
    if dtype in _AS_INTEGERS
    else np.dtype(_NAMES[name])
    for name, dtype in TORCH_OF.items()
}
_X2: Final = TORCH_OF.get("F4")
_FEW_BYTES: Final = 4096  # to copy them takes 0.5 us; an array over them 0.9, and an object more for the garbage collector
_LOWEST: Final = 1 << 40  # of an address, on most systems: memory in use lies above, offsets into tensors below
_ALIGNMENT: Final = 64  # bytes: where PyTorch's own memory on the host begins
_STRIDED: Final = torch.strided
_COMPLEX: Final = frozenset(dtype for dtype in TORCH_OF.values() if dtype.is_complex)
_RELEASED: Final = "a tensor whose memory was released"
_DENSE: Final = (torch.Tensor, torch.nn.Parameter)
_MARKED: Final = (torch.nn.Parameter, *filter(None, [getattr(torch.nn, "Buffer", None)]))  # PyTorch 2.4 has no Buffer


class LiveTensor(msgspec.Struct, gc=False):
    """The bytes of a dense tensor in use.

    Attributes:
        tensor: it.
        dtype: of what it holds.
        address: of its first element, 0 where there is none.
        plain: whether its bytes lie in host memory as they do in the file.
        given: the one that the user has, where that is another one over the same memory.
    """

    immutable: ClassVar = False

    tensor: Any
    dtype: DType
    address: int
    plain: bool
    given: Any = None

    def owner(self) -> object:
        return self.tensor if self.given is None else self.given

    def key(self) -> Hashable:
        tensor = self.tensor
        if self.address == 0:
            return id(tensor)
        return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.is_conj(), tensor.is_neg()

    def extent(self) -> tuple[int, int]:
        if self.address == 0 or self.tensor.device.type != "cpu":
            return 0, 0
        return self.address, self.address + _reach(self.tensor) * self.tensor.element_size()

    def unsaveable(self) -> str:
        if self.plain:
            return ""
        if is_lazy(self.tensor):
            return "a parameter that is not initialized yet; run the model once, or load into it first"
        if self.tensor.is_meta:
            return "a tensor on the meta device, which has no values"
        return _RELEASED if self.address == 0 and _is_released(self.tensor) else ""

    def view(self) -> Array | bytes | None:
        if not self.plain:
            return None
        if self.address and (nbytes := self.tensor.nbytes) <= _FEW_BYTES:
            return string_at(self.address, nbytes)
        return _numpy(self.tensor)

    def read(self, start: int, stop: int) -> memoryview:
        tensor = self.tensor.detach()
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()
        return as_bytes(_numpy(tensor.cpu().contiguous()))[start:stop]

    def obstacle(self) -> str:
        tensor = self.tensor
        if tensor.is_meta:
            return "a tensor on the meta device, which has no memory"
        if self.address == 0 and not is_lazy(tensor) and _is_released(tensor):
            return _RELEASED
        if not self.plain and any(stride == 0 and length > 1 for length, stride in zip(tensor.shape, tensor.stride(), strict=True)):
            return "an expanded tensor, several of whose elements are one"
        return "an inference tensor, which nothing may write to" if tensor.is_inference() and not torch.is_inference_mode_enabled() else ""

    def destination(self) -> memoryview | None:
        return as_bytes(_numpy(self.tensor)) if self.plain else None

    def written(self) -> None:
        torch.autograd.graph.increment_version(self.tensor)  # autograd notices, as after copy_

    def put(self, array: Array) -> None:
        with torch.no_grad():
            self.tensor.copy_(as_tensor(array, self.dtype))


def capture(tensor: Any) -> Tree:
    """A tensor as a LazyTensor over its memory, or as the tensors it is made of."""
    cls = type(tensor)
    if cls not in _DENSE:
        if tensor.is_nested:
            raise _nested()
        if is_distributed(cls):
            local = capture(capture_local(tensor))
            source: Any = local.source
            source.given = tensor
            return local
        if hasattr(tensor, "__tensor_flatten__"):
            return capture_subclass(tensor)
        if is_lazy(tensor):
            return LazyTensor(spec_of(dtypes.F32, (0,)), LiveTensor(tensor, dtypes.F32, 0, False), "torch")  # no shape yet, and no bytes
        if not isinstance(tensor, _MARKED):
            raise UnsupportedError(
                "",
                f"a tensor of class {cls.__module__}.{cls.__qualname__}, which has no __tensor_flatten__",
                hint="Pass tensor.as_subclass(torch.Tensor) if its values are all it holds.",
            )
    if tensor.layout is not _STRIDED:
        return capture_sparse(tensor, DTYPE_OF.get(tensor.dtype))
    torch_dtype = tensor.dtype
    dtype = DTYPE_OF.get(torch_dtype)
    if dtype is None:
        hint = "Pass tensor.view(torch.uint8)."
        if tensor.is_quantized:
            hint = "Quantized tensors, and modules that hold some, are not kept: pass tensor.int_repr(), the scale and the zero point."
        raise UnsupportedError("", f"a tensor of {torch_dtype}", hint=hint)
    try:
        shape = tensor.shape
    except RuntimeError as error:
        if tensor.is_nested:
            raise _nested() from None
        raise UnsupportedError("", f"a tensor that has no shape: {error}") from error
    if torch_dtype is _X2:
        if not shape:
            raise UnsupportedError("", f"a tensor of {torch_dtype} without dimensions", hint="Pass tensor.reshape(1).")
        shape = (*shape[:-1], 2 * shape[-1])
    plain = tensor.is_cpu and tensor.is_contiguous() and not tensor.is_neg() and not (torch_dtype in _COMPLEX and tensor.is_conj())
    spec = spec_of(dtype, shape)
    address = 0 if 0 in shape or (not plain and tensor.is_meta) else tensor.data_ptr()
    # To look takes 0.2 us: where the address is that of a released storage (0, and what lies before the tensor), or few look.
    if (address < _LOWEST or spec.nbytes > _FEW_BYTES) and 0 not in shape and (plain or not tensor.is_meta) and _is_released(tensor):
        plain, address = False, 0
    return LazyTensor(spec, LiveTensor(tensor, dtype, address, plain), "torch")


def _nested() -> UnsupportedError:
    return UnsupportedError("", "a nested tensor", hint="Pass the tensors in it: list(tensor.unbind()).")


def _reach(tensor: Any) -> int:
    """Elements from its first one to its last in memory, both counted."""
    if tensor.is_contiguous():
        return int(tensor.numel())
    steps: int = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return 1 + steps


def _is_released(tensor: Any) -> bool:
    """Whether its storage ends before it does: FSDP and offloaders shrink the storage of parameters that are not needed right now."""
    there = tensor.untyped_storage().nbytes()
    return bool(there < (tensor.storage_offset() + _reach(tensor)) * tensor.element_size()) and tensor.numel() > 0


def _numpy(tensor: Any) -> Array:
    """The memory of a contiguous tensor of the host, whatever its dtype."""
    integers = _AS_INTEGERS.get(tensor.dtype)
    if tensor.requires_grad:
        tensor = tensor.detach()
    array: Array = (tensor if integers is None else tensor.view(integers)).numpy()
    return array


def as_tensor(array: Array, dtype: DType) -> Any:
    """A NumPy array as a tensor, over the same memory where that can be."""
    if array.size == 0:
        return torch.empty(array.shape, dtype=TORCH_OF[dtype.name])
    spec = TensorSpec(dtype, array.shape)
    if dtype.bits == 4:
        return build(dtypes.pack_f4(array), 0, spec)
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = array.copy()
    return _build_kept(array.reshape(-1).view(np.uint8), 0, spec)


def converted(found: LazyTensor, wanted: DType, path: str, matcher: Matcher) -> Any:
    """A tensor of the file in another dtype, read now; the report counts what that changed."""
    array, changed = dtypes.cast(found.numpy(), wanted)
    matcher.casts.append(Cast(path, str(found.dtype), str(wanted), changed, found.spec.count))
    return as_tensor(array, wanted)


def as_tensors(value: Any) -> Any:
    """A state with tensors for its arrays: a file by others does not say that they were PyTorch's."""
    if isinstance(value, np.ndarray):
        dtype = dtypes.of_numpy(value.dtype)
        return value if dtype is None or dtype.name not in TORCH_OF or dtype.bits == 4 else as_tensor(value, dtype)
    if isinstance(value, dict):
        fresh = like(value)
        for key, inner in value.items():
            fresh[key] = as_tensors(inner)
        return fresh
    return type(value)(map(as_tensors, value)) if type(value) in (list, tuple) else value


def build(buffer: "memoryview | bytearray | Array", offset: int, spec: TensorSpec) -> Any:
    """A tensor over bytes in host memory, with a storage of its own; an array where PyTorch has no tensor for it."""
    dtype, shape = spec.dtype, spec.shape
    raw = _NUMPY_OF.get(dtype.name)
    if raw is None or dtype.numpy is None or (dtype.bits == 8 and dtype.name == "F4"):
        return as_array(buffer, offset, spec)  # texts and the like
    if dtype.bits == 4:
        if not shape or shape[-1] % 2:
            return as_array(buffer, offset, spec)
        shape = (*shape[:-1], shape[-1] // 2)
    array: Array = np.ndarray(shape, raw, buffer, offset)
    tensor = torch.from_numpy(array if offset & 15 == 0 or array.flags.aligned else array.copy())
    torch_dtype = TORCH_OF[dtype.name]
    return tensor.view(torch_dtype) if torch_dtype in _AS_INTEGERS else tensor


def _build_kept(buffer: "memoryview | bytearray | Array", offset: int, spec: TensorSpec) -> Any:
    """A tensor that begins where PyTorch's own do: from elsewhere, products of vectors add in another order, down to the last bits."""
    made = build(buffer, offset, spec)
    return made.clone() if isinstance(made, torch.Tensor) and made.data_ptr() % _ALIGNMENT else made


class TorchArrays:
    """Tensors over bytes of a file."""

    def builder(self, device: str | None, *, kept: bool = False) -> Build:
        if device is None:
            return _build_kept if kept else build
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # an unknown name, or a device that is not here
            raise ValueError(f"device={device!r}: {error}") from error

        def build_there(buffer: "memoryview | bytearray | Array", offset: int, spec: TensorSpec) -> Any:
            made = build(buffer, offset, spec)
            return made.to(device) if isinstance(made, torch.Tensor) else made

        return build_there

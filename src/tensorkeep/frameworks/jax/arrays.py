"""JAX's arrays over live memory, over the bytes of a file, and as the successors of others: an array of JAX never changes.

Bytes of a mapped file are always copied: on the CPU, JAX takes aligned memory of NumPy over as it is and believes that it never changes,
while a file may, and an array over it may be written to.
"""

import contextlib
from collections.abc import Hashable
from functools import cache
from typing import Any, ClassVar, Final

import jax
import jax.experimental
import jax.numpy as jnp
import msgspec
import numpy as np

from tensorkeep import dtypes
from tensorkeep.dtypes import DType
from tensorkeep.errors import UnsupportedError
from tensorkeep.frameworks.protocols import Build
from tensorkeep.tensors import Array, LazyTensor, TensorSpec, as_array, as_bytes, fresh, spec_of

_ZEROS: Final = (False, 0, 0.0, 0j)
_enable_x64: Final[Any] = getattr(jax.experimental, "enable_x64", None) or jax.enable_x64  # it moved


class LiveJax(msgspec.Struct, gc=False):
    """The bytes of an array in use, or only its shape, dtype and sharding (`jax.ShapeDtypeStruct`).

    Attributes:
        array: it; once a successor was put in its place, that.
        dtype: of what it holds.
    """

    immutable: ClassVar = True

    array: Any
    dtype: DType

    def owner(self) -> object:
        return self.array

    @property
    def plain(self) -> bool:
        return False  # whose memory it is, and whether it shares that with another, is JAX's affair

    @property
    def address(self) -> int:
        return id(self.array) if self.array.size else 0  # one object is one array, whatever memory it has

    def key(self) -> Hashable:
        return id(self.array)

    def extent(self) -> tuple[int, int]:
        return 0, 0

    def unsaveable(self) -> str:
        if not isinstance(self.array, jax.Array):
            return "a jax.ShapeDtypeStruct, which has no values"
        if self.array.is_deleted():
            return "an array whose memory was given away (donated) or deleted"
        if not (self.array.is_fully_addressable or self.array.is_fully_replicated):
            return "an array of which a part lies on devices of other processes; gather it first, with jax.experimental.multihost_utils"
        return ""

    def view(self) -> Array | None:
        """On the CPU and in one piece, NumPy sees the memory itself."""
        if self.dtype.bits == 4 or not self.array.is_fully_replicated or _platform(self.array.sharding) != "cpu":
            return None
        array: Array = np.asarray(self.array)
        return array if array.flags.c_contiguous else None

    def read(self, start: int, stop: int) -> memoryview:
        array = np.ascontiguousarray(_gathered(self.array))
        return as_bytes(dtypes.pack_f4(array) if self.dtype.bits == 4 else array)[start:stop]

    def obstacle(self) -> str:
        return ""

    def destination(self) -> None:
        return None

    def written(self) -> None:
        jax.block_until_ready(self.array)  # a device that has no room for it says so now

    def put(self, array: Array) -> None:
        self.array = _successor(self.array, array)


def capture(array: Any) -> LazyTensor:
    """An array, or the shape and dtype of one, as a LazyTensor.

    Raises:
        UnsupportedError: it has no values of its own, for JAX is tracing a function; or its dtype is unknown.
    """
    if isinstance(array, jax.core.Tracer):
        raise UnsupportedError("", "a value of a function that JAX is tracing", hint="Save outside of jit, grad and vmap.")
    dtype = dtypes.of_numpy(np.dtype(array.dtype)) if isinstance(array.dtype, np.dtype) else None
    if dtype is None:
        raise UnsupportedError("", f"an array of {array.dtype}", hint="Pass array.view(jnp.uint8), or cast it.")
    if dtype.bits == 4 and array.size % 2:
        dtype = dtypes.F4_BYTE_EACH
    return LazyTensor(spec_of(dtype, tuple(array.shape)), LiveJax(array, dtype), "jax")


def _gathered(array: Any) -> Array:
    """An array in host memory: each shard is fetched once, from one of the devices that have it."""
    if array.is_fully_replicated:
        return _on_host(array.addressable_data(0))
    whole = np.empty(array.shape, array.dtype)
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            whole[shard.index] = _on_host(shard.data)
    return whole


def _on_host(data: Any) -> Array:
    """One shard in host memory. Copied by way of the CPU's device where there is one: else JAX would keep the copy with the array."""
    if _platform(data.sharding) != "cpu":
        with contextlib.suppress(RuntimeError):  # a process may be without it
            data = jax.device_put(data, jax.devices("cpu")[0])
    array: Array = np.asarray(data)
    return array


def _platform(sharding: Any) -> str:
    return str(next(iter(sharding.device_set)).platform)


def _default_device() -> Any:
    return jax.config.jax_default_device or jax.devices()[0]


def _default_platform() -> str:
    device = _default_device()
    return str(getattr(device, "platform", device))


def _owned(array: Array, platform: str) -> Array:
    """An array in memory that nobody else will change, as JAX asks for on the CPU; other devices get a copy anyway."""
    if platform != "cpu":
        return array
    own: Array = fresh(array.nbytes).view(array.dtype).reshape(array.shape)
    own[...] = array
    return own


def _kept(array: Array, platform: str) -> Array:
    """The same of an array that is its successor's alone: memory that was made for it is such, a mapping is not (`contents.Placed`)."""
    memory = array
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    return array if memory.base is None else _owned(array, platform)


def _wide(dtype: "np.dtype[Any]") -> Any:
    """Whatever lets JAX keep all 64 bits, where the process has that switched off."""
    return contextlib.nullcontext() if jax.dtypes.canonicalize_dtype(dtype) == dtype else _enable_x64(True)


def _successor(former: Any, array: Array) -> Any:
    """An array with these values where a former one lies: the same devices, each with its part, and as weakly typed."""
    sharding = former.sharding
    bound = sharding is not None and _is_committed(former)
    with _wide(array.dtype):
        if not bound:
            made = jax.device_put(_kept(array, _default_platform()))
        elif len(sharding.device_set) == 1:
            made = jax.device_put(_kept(array, _platform(sharding)), sharding)
        else:
            platform = _platform(sharding)
            made = jax.make_array_from_callback(array.shape, sharding, lambda index: _owned(array[index], platform))
        return _weak(made) if getattr(former, "weak_type", False) else made


def _is_committed(array: Any) -> bool:
    """Whether JAX keeps it where it is; others it may move to where it needs them, and goes on doing so with their successors.

    An abstract array does not say. One whose sharding is that of an array which nobody placed, such as the step counter of an optimizer, is
    taken for such a one: bound to the default device, it could not meet arrays that lie on several.
    """
    said = getattr(array, "committed", getattr(array, "_committed", None))
    if said is not None:
        return bool(said)
    sharding, device = array.sharding, _default_device()
    if not isinstance(sharding, jax.sharding.SingleDeviceSharding) or set(sharding.device_set) != {device}:
        return True
    return sharding.memory_kind not in (None, device.default_memory().kind)


def _weak(array: Any) -> Any:
    """The array as JAX types results of Python's numbers: else functions would be compiled anew for it, and results be of other dtypes."""
    for zero in _ZEROS:
        weak = jnp.asarray(zero)
        if weak.dtype == array.dtype:
            made = jnp.broadcast_to(weak, array.shape).at[...].set(array)
            return jax.device_put(made, array.sharding) if _is_committed(array) else made
    return array


class JaxArrays:
    """Arrays over bytes of a file; NumPy's where JAX has none of that type, as for 64 bits where they are switched off."""

    def builder(self, device: str | None, *, kept: bool = False) -> Build:
        place = None if device is None else _device(device)
        platform = _default_platform() if place is None else place.platform

        def build(buffer: "memoryview | bytearray | Array", offset: int, spec: TensorSpec) -> object:
            array = as_array(buffer, offset, spec)
            array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
            return jax.device_put(_owned(array, platform), place) if _has(array.dtype, bool(jax.config.jax_enable_x64)) else array

        return build


@cache
def _has(dtype: "np.dtype[Any]", wide: bool) -> bool:
    """Whether JAX has arrays of this type, where 64 bits are switched on (`wide`) or off."""
    if dtype.kind not in "biufcV" or dtype.names is not None:
        return False
    try:
        return bool(jax.dtypes.canonicalize_dtype(dtype) == dtype) and jnp.zeros((), dtype).dtype == dtype
    except (TypeError, ValueError):
        return False


def _device(name: str) -> Any:
    """The device of a name: as JAX prints it (`cuda:1`), or a platform, whose first one is meant.

    Raises:
        ValueError: there is none.
    """
    platform, _, number = name.partition(":")
    try:
        devices = jax.devices(platform) if platform.isidentifier() else jax.devices()
    except RuntimeError as error:
        known = [device for device in jax.devices() if name in (str(device), repr(device))]
        if not known:
            raise ValueError(f"device={name!r}: {error}") from error
        return known[0]
    if number and not (number.isdecimal() and int(number) < len(devices)):
        raise ValueError(f"device={name!r}: there are {len(devices)} of them, counted from 0")
    return devices[int(number or 0)]

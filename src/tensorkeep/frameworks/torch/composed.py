"""PyTorch's tensors that are made of tensors: sparse ones, and subclasses that say what is in them."""

from collections.abc import Mapping
from typing import Any, Final, cast

import torch

from tensorkeep import dtypes
from tensorkeep.dtypes import DType
from tensorkeep.errors import UnsupportedError
from tensorkeep.frameworks.torch.contexts import described, fits
from tensorkeep.matching import Matcher, Result, Step, live
from tensorkeep.report import Cast
from tensorkeep.selection import LEFT_OUT
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Tree, join

_COMPRESSED: Final = {
    str(layout).removeprefix("torch."): layout for layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)
}


def capture_sparse(tensor: Any, dtype: DType | None) -> Captured:
    """A sparse tensor as its parts.

    Args:
        dtype: of its values, remembered for when it is filled.
    """
    layout = str(tensor.layout).removeprefix("torch.")
    plain = tensor.detach()
    if tensor.layout is torch.sparse_coo:
        state = {"indices": plain._indices(), "values": plain._values(), "coalesced": plain.is_coalesced()}
    elif layout in ("sparse_csr", "sparse_bsr"):
        state = {"compressed": plain.crow_indices(), "plain": plain.col_indices(), "values": plain.values()}
    elif layout in ("sparse_csc", "sparse_bsc"):
        state = {"compressed": plain.ccol_indices(), "plain": plain.row_indices(), "values": plain.values()}
    else:
        raise UnsupportedError("", f"a tensor of layout {tensor.layout}", hint="Pass tensor.to_dense().")
    return Captured("torch.sparse", layout, {**state, "size": list(tensor.shape)}, origin=tensor, extra=dtype)


def rebuild_sparse(layout: str, state: Any) -> object:
    """A sparse tensor from its parts, checked by PyTorch; the parts themselves where they are no tensors of PyTorch."""
    values, size = state["values"], [int(length) for length in state["size"]]
    if not isinstance(values, torch.Tensor):
        return state
    if layout == "sparse_coo":
        made = torch.sparse_coo_tensor(state["indices"], values, size, check_invariants=True)
        return made._coalesced_(True) if state["coalesced"] is True and made.clone().coalesce()._nnz() == made._nnz() else made
    return torch.sparse_compressed_tensor(
        state["compressed"], state["plain"], values, size, layout=_COMPRESSED[layout], check_invariants=True
    )


def plan_sparse(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Sparse values are copied by PyTorch itself: how many there are may differ."""
    obj: Any = target.origin
    if not _sparse_fits(target, state, path, matcher):
        return lambda: obj
    loaded = matcher.value(Captured(target.kind, target.cls, state))
    values, dtype = state["values"], cast(DType, target.extra)
    if values.dtype.name != dtype.name:
        _, changed = dtypes.cast(values.numpy(), dtype)
        matcher.casts.append(Cast(path, str(values.dtype), str(dtype), changed, values.spec.count))
    former: list[Any] = []

    def apply() -> None:
        former.append(obj.detach().clone())
        _refill(obj, loaded())

    def undo() -> None:
        for value in former:
            _refill(obj, value)

    matcher.steps.append(Step(path, apply, undo))
    return lambda: obj


def _sparse_fits(target: Captured, state: Tree, path: str, matcher: Matcher) -> bool:
    """Compare layout, shape and dtype, and report the first that differs."""
    layout, size = matcher.found_cls, target.state["size"]
    dtype, each = cast(DType, target.extra), tuple(target.state["values"].shape[1:])  # blocks, or dimensions that are not sparse
    wanted = f"a {target.cls} tensor {dtype}[{','.join(map(str, size))}]"
    if layout.startswith("sparse_") and layout != target.cls:
        matcher.problem("kind", path, f"a {layout} tensor", wanted)
        return False
    if not isinstance(state, dict) or not target.state.keys() <= state.keys() or any(part is LEFT_OUT for part in state.values()):
        matcher.other_kind(state, path, wanted)
        return False
    values = state["values"]
    if state["size"] != size:
        matcher.problem("shape", path, str(state["size"]), str(size))
    elif not isinstance(values, LazyTensor):
        matcher.other_kind(values, path, wanted)
    elif values.shape[1:] != each:
        matcher.problem("shape", path, f"{list(values.shape[1:])} for each value", str(list(each)))
    elif values.dtype.name != dtype.name and not (matcher.cast and dtypes.castable(values.dtype, dtype)):
        hint = "cast=True converts it" if dtypes.castable(values.dtype, dtype) else "cast=True does not convert these"
        matcher.problem("dtype", path, str(values.dtype), str(dtype), hint)
    else:
        return True
    return False


def _refill(tensor: Any, value: Any) -> None:
    with torch.no_grad():
        if tensor.layout is not torch.sparse_coo:  # copy_ makes no room here
            tensor.resize_as_sparse_(value)
        tensor.copy_(value)


def capture_subclass(tensor: Any) -> Captured:
    """A tensor of a class with `__tensor_flatten__`.

    Raises:
        UnsupportedError: it cannot say what it is made of.
    """
    plain = tensor.data if isinstance(tensor, torch.nn.Parameter) else tensor
    name = type(plain).__qualname__
    try:
        names, context = tensor.__tensor_flatten__()
        state = {
            "tensors": {inner: getattr(tensor, inner) for inner in names},
            "context": described(context),
            "size": [int(length) for length in tensor.size()],
            "stride": [int(step) for step in tensor.stride()],
        }
    except Exception as error:  # the class's own code may raise anything
        raise UnsupportedError("", f"a {name} that cannot be taken apart: {type(error).__name__}: {error}") from error
    return Captured("torch.subclass", name, state, origin=tensor)


def rebuild_subclass(name: str, state: Any, types: Mapping[str, type]) -> object:
    """A tensor subclass, where the caller passed its class; else the tensors that it is made of."""
    cls: Any = types.get(name)
    if cls is None:
        return state
    return cls.__tensor_unflatten__(state["tensors"], state["context"], torch.Size(state["size"]), tuple(state["stride"]))


def plan_subclass(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Fill the inner tensors; everything else about the two must be equal."""
    obj = target.origin
    if not isinstance(state, dict) or not isinstance(state.get("tensors"), dict):
        matcher.other_kind(state, path, f"a {target.cls}")
        return lambda: obj
    place = join(path, "context")
    if differs := fits(target.state["context"], state.get("context"), place, matcher):
        found, wanted = (_inside(part.get("context"), differs, place) for part in (state, target.state))
        matcher.other_kind(found, differs, f"{live(wanted)!r:.80}, in the context of a {target.cls}")
    matcher.fit(target.state["tensors"], state["tensors"], path)
    return lambda: obj


def _inside(context: Tree, path: str, top: str) -> Tree:
    """The part of a context that differs; None where one side has nothing there."""
    for key in path[len(top) + 1 :].split(".") if path != top else ():
        while isinstance(context, Captured):
            context = context.state
        if isinstance(context, dict):
            context = context.get(key)
        elif isinstance(context, (list, tuple)) and key.isdigit() and int(key) < len(context):
            context = context[int(key)]
    return context


def capture_local(tensor: Any) -> Any:
    """The tensor of a DTensor of which this process has all.

    Raises:
        UnsupportedError: others have parts of it.
    """
    mesh = tensor.device_mesh
    if any(
        placement.is_partial() or (placement.is_shard() and mesh.size(number) > 1) for number, placement in enumerate(tensor.placements)
    ):
        hint = "Pass tensor.full_tensor(), or take torch.distributed.checkpoint, whose folders tensorkeep reads."
        raise UnsupportedError("", f"a DTensor of which {mesh.size():,} processes have parts: {tensor.placements}", hint=hint)
    return tensor.detach().to_local()


def is_distributed(cls: type) -> bool:
    """Whether it is PyTorch's DTensor. Asked by name: to import it would take its time."""
    return cls.__name__ == "DTensor" and cls.__module__.startswith("torch.distributed.")

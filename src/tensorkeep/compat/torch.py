"""The names `torch.save` and `torch.load`, over ours: write `tensorkeep.compat.torch` where `torch` stood in front of the two.

What is written here is a model file, whatever its name: a safetensors file with the whole state and a digest of every byte, which
`torch.load` does not read. What is read here may be one, or any file that `tensorkeep.load` reads: `.pt` files of every age among them.
Nothing in it is run.
"""

import pickle
from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import Any, BinaryIO, Final

import torch

from tensorkeep.errors import FormatError, TensorkeepWarning, UnsupportedError, shown, warn
from tensorkeep.loading import load_contents
from tensorkeep.opening import open_contents
from tensorkeep.tree import Stub
from tensorkeep.verbs.save import save_by_any_name

MapLocation = str | torch.device | Mapping[str, str] | Callable[[Any, str], Any] | None
_HERE: Final = "cpu"  # where tensors of a file are before they are moved


class RefusedError(FormatError, pickle.UnpicklingError):
    """The file holds objects, and not only tensors and plain values. It is the class that `torch.load` raises, too."""


def save(
    obj: object,
    f: "str | PathLike[str] | BinaryIO",
    pickle_module: Any = None,
    pickle_protocol: int | None = None,
    _use_new_zipfile_serialization: bool = True,
    _disable_byteorder_record: bool = False,
) -> None:
    """Save a state as a model file, atomically and durably.

    Args:
        obj: dicts, lists and plain values with tensors in them, such as state dicts. A module in it is kept as its `state_dict()`.
        f: a path of any name, or a binary file object.
        pickle_module: none is used; another than Python's own is refused.
        pickle_protocol, _use_new_zipfile_serialization, _disable_byteorder_record: taken, and without a meaning here.

    Raises:
        UnsupportedError: a value that cannot be kept; the error names its path, and nothing was written.
        OSError: the disk is full, or the folder cannot be written to; an old file is as it was.

    Example:
        >>> import torch
        >>> from tensorkeep.compat.torch import load, save
        >>> save({"weight": torch.ones(2), "epoch": 3}, "checkpoint.pt")
        >>> load("checkpoint.pt", map_location="cpu", weights_only=True)
        {'weight': tensor([1., 1.]), 'epoch': 3}
    """
    _refuse_pickles(pickle_module)
    if any(isinstance(part, torch.nn.Module) for part in _parts(obj)):
        told = "a module is kept as its state_dict(), and comes back as that: model.load_state_dict(load(...))"
        warn(TensorkeepWarning(told))
    save_by_any_name(obj, f)


def load(
    f: "str | PathLike[str] | BinaryIO",
    map_location: MapLocation = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Load a model file, a `.pt` file of any age, or whatever else `tensorkeep.load` reads. Nothing in it is run.

    Args:
        f: a path or URL, or a binary file object, read from where it stands to its end.
        map_location: where to put the tensors: a device, a dict of devices, or a callable that is given a storage and `"cpu"`. Without
            it they stay on the host, wherever they were saved.
        pickle_module: none is used; another than Python's own is refused.
        weights_only: `False` gives objects of other classes as stubs, which can be looked at; else a file with some is refused.
        mmap: `True` for views of the file, copied when written to. Else memory of their own, and checksums are compared.
        pickle_load_args: `encoding` and the like, taken, and without a meaning here.

    Returns:
        The state: tensors of PyTorch, and plain values.

    Raises:
        RefusedError: objects of other classes are in it.
        FormatError: no format that tensorkeep reads.
        CorruptError: bytes are not those that were written.
        FileNotFoundError: nothing is there.
    """
    _refuse_pickles(pickle_module)
    with open_contents(f, mmap=bool(mmap)) as contents:
        told = any(tensor.framework != "numpy" for tensor in contents.tensors.values()) or contents.digests
        state = load_contents(contents, framework=None if told else "torch", device=_device(map_location))
        if weights_only is not False:
            _refuse_objects(state, contents.file)
    return _placed(state, map_location) if callable(map_location) else state


def _refuse_pickles(module: Any) -> None:
    if module not in (None, pickle):
        raise UnsupportedError("pickle_module=", f"{getattr(module, '__name__', module)}: nothing is pickled here", hint="Leave it out.")


def _device(map_location: MapLocation) -> str | None:
    if isinstance(map_location, Mapping):
        return str(map_location.get(_HERE, _HERE))
    return None if map_location is None or callable(map_location) else str(map_location)


def _parts(state: object) -> Iterator[object]:
    """All objects in dicts, lists and tuples."""
    waiting, met = [state], set()
    while waiting:
        part = waiting.pop()
        yield part
        if isinstance(part, (dict, list, tuple)) and id(part) not in met:
            met.add(id(part))
            waiting += part.values() if isinstance(part, dict) else part


def _refuse_objects(state: object, file: str) -> None:
    names = {f"{part.module}.{part.name}" if part.module else part.name for part in _parts(state) if isinstance(part, Stub)}
    if names:
        found = ", ".join(shown(name) for name in sorted(names)[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
        hint = "Pass weights_only=False: they come back as stubs, with what they hold; nothing of theirs is run or imported."
        raise RefusedError(file, f"it holds objects of {found}", hint=hint)


def _placed(state: Any, where: Callable[[Any, str], Any]) -> Any:
    """The state with each tensor where a callable says: it answers with a storage, or with None to leave it."""
    if isinstance(state, torch.Tensor):
        answer = where(state.untyped_storage(), _HERE)
        return state if answer is None or answer.device == state.device else state.to(answer.device)
    if isinstance(state, dict):
        for key in state:
            state[key] = _placed(state[key], where)
        return state
    if type(state) in (list, tuple):
        return type(state)(_placed(part, where) for part in state)
    return state

"""save: any state into one model file."""

import errno
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, BinaryIO, Final

from tensorkeep.backends import local
from tensorkeep.errors import TensorkeepWarning, UnsupportedError
from tensorkeep.frameworks.capture import capture
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.modelfile.layout import Layout, lay_out_state
from tensorkeep.modelfile.write import write_at_offsets, write_in_order
from tensorkeep.progress import Progress

_OTHERS: Final = frozenset(
    {
        ".pt",
        ".pth",
        ".ckpt",
        ".bin",
        ".pkl",
        ".pickle",
        ".joblib",
        ".h5",
        ".hdf5",
        ".keras",
        ".npz",
        ".npy",
        ".onnx",
        ".gguf",
        ".msgpack",
        ".json",
        ".zip",
        ".tar",
    }
)


def save(
    obj: Any,
    path: "str | PathLike[str] | BinaryIO",
    *,
    metadata: Mapping[str, Any] | None = None,
    durable: bool = True,
    overwrite: bool = True,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> None:
    """Save a model, or any state, as one model file.

    The file is a valid safetensors file with the whole state in it and a digest of every byte. It appears whole or not at all: until
    the last moment an old file of that name stays as it was. Tensors are written from where they lie, without a copy: what another
    thread changes meanwhile may stand in the file half changed, or with a digest that does not fit.

    Args:
        obj: a model, an optimizer, a tensor, or dicts, lists and tuples with these and plain values anywhere in them.
        path: where to; a binary file object, a pipe, `/dev/stdout` or `/dev/fd/3` is written as a stream, from where it stands.
        metadata: notes to keep in the file. Texts stand where other tools show them.
        durable: return only when the file would survive a loss of power. `False` is faster and still atomic.
        overwrite: replace what is there; `False` raises instead, also if another process was faster.
        limits: bounds that the file must keep, so that others can read it.
        progress: called with the bytes done and in all.

    Raises:
        UnsupportedError: a value that cannot be kept; the error names its path, and nothing was written.
        FileExistsError: the file is there and `overwrite` is False.
        OSError: the disk is full, or the folder cannot be written to; the old file is as it was.

    Example:
        >>> import numpy as np
        >>> import tensorkeep as tk
        >>> tk.save({"weights": np.ones((2, 3)), "epoch": 3}, "net.safetensors", metadata={"note": "first try"})
        >>> tk.load("net.safetensors")["epoch"]
        3

    Source: docs/format.md
    """
    layout = _layout(obj, metadata, limits)
    if isinstance(path, io.TextIOBase):
        raise TypeError(f"{path!r} is open as text; open it with mode 'wb'")
    if not isinstance(path, (str, bytes, PathLike)):
        if not hasattr(path, "write"):
            raise TypeError(f"a path or a binary file object is wanted, found {path!r:.80}")
        write_in_order(layout, _writer(path), progress)
        return
    name = os.fspath(path)
    local.refuse_url(name)
    if local.is_descriptor(name) or local.is_stream(name):
        with local.streaming(name) as write:
            write_in_order(layout, write, progress)
        return
    shown = os.fsdecode(name)
    suffix = os.path.splitext(shown)[1].lower()
    if suffix in _OTHERS:
        warnings.warn(
            TensorkeepWarning(
                f"{shown}: a model file is a safetensors file, but others take {suffix} for another format; .safetensors suits it"
            ),
            stacklevel=2,
        )
    with local.replacing(name, nbytes=layout.nbytes, durable=durable, overwrite=overwrite) as pending:
        write_at_offsets(layout, pending, progress)


def dumps(obj: Any, *, metadata: Mapping[str, Any] | None = None, limits: Limits | None = None, progress: Progress | None = None) -> bytes:
    """A model, or any state, as the bytes of a model file.

    Args:
        obj, metadata, limits, progress: as for `save`.

    Returns:
        What `save` would have written.

    Raises:
        UnsupportedError: a value that cannot be kept.

    Example:
        >>> import tensorkeep as tk
        >>> tk.loads(tk.dumps({"lr": 0.1, 7: "seven"}))
        {'lr': 0.1, 7: 'seven'}
    """
    layout = _layout(obj, metadata, limits)
    buffer = io.BytesIO(bytes(layout.nbytes))  # hands out these bytes again without a copy
    with buffer.getbuffer() as memory:
        write_at_offsets(layout, _Memory(memory), progress)
    return buffer.getvalue()


class _Memory:
    """Memory as a sink."""

    def __init__(self, memory: memoryview) -> None:
        self.memory = memory

    def write(self, offset: int, parts: Sequence[memoryview]) -> None:
        for part in parts:
            self.memory[offset : offset + part.nbytes] = part
            offset += part.nbytes


def _layout(obj: Any, metadata: Mapping[str, Any] | None, limits: Limits | None) -> Layout:
    limits = limits or DEFAULT_LIMITS
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata= takes a dict, found {metadata!r:.80}")
    try:
        return lay_out_state(capture(obj, limits), metadata or {}, limits)
    except RecursionError:
        hint = "Save it where fewer functions have called each other, or flatten it."
        raise UnsupportedError("", "nested deeper than this process can follow", hint=hint) from None


def _writer(stream: Any) -> Any:
    """`stream.write`, until all is written: a raw stream may take less than it is given."""

    def write(part: memoryview) -> None:
        while part.nbytes:
            taken = stream.write(part)
            if taken is None:
                if isinstance(stream, io.RawIOBase):
                    raise BlockingIOError(errno.EAGAIN, "the stream takes nothing more for now; make it a blocking one")
                return  # any other stream that says nothing has taken it all
            if not 0 < taken <= part.nbytes:
                raise OSError(
                    errno.EIO, f"{stream!r:.80} says that it took {taken:,} of {part.nbytes:,} bytes; the stream ends in the middle"
                )
            part = part[taken:]

    return write

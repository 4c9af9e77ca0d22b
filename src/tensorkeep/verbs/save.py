"""save: any state into one model file."""

import errno
import io
import os
from collections.abc import Mapping
from os import PathLike
from typing import Any, BinaryIO, Final, cast

from tensorkeep.backends import local, object_store
from tensorkeep.backends.files import MemorySink
from tensorkeep.backends.url_writing import uploading
from tensorkeep.errors import TensorkeepWarning, UnsupportedError, warn
from tensorkeep.frameworks import pretrained
from tensorkeep.frameworks.capture import capture
from tensorkeep.frameworks.versions import of_types
from tensorkeep.limits import Limits, limits_of
from tensorkeep.modelfile.layout import Layout, lay_out_state
from tensorkeep.modelfile.pretrained import save_folder
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
    max_shard_size: int | str | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> None:
    """Save a model, or any state, as one model file; or a model of Transformers or PEFT into a folder.

    The file is a valid safetensors file with the whole state in it and a digest of every byte. It appears whole or not at all: until
    the last moment an old file of that name stays as it was. Tensors are written from where they lie, without a copy: what another
    thread changes meanwhile may stand in the file half changed, or with a digest that does not fit.

    A model of Transformers or PEFT, alone, goes into a folder unless the path ends as that of a file does (`.safetensors`): its config, its
    weights as model files, of PEFT the adapters alone, as `from_pretrained` reads them. The folder too changes at one moment; what else is
    in it, such as a tokenizer, stays.

    Args:
        obj: a model, an optimizer, a tensor, or dicts, lists and tuples with these and plain values anywhere in them.
        path: where to; a binary file object, a pipe, `/dev/stdout` or `/dev/fd/3` is written as a stream, from where it stands. An object
            of a bucket by its URL, `s3://bucket/key`, `gs://` or `az://`: sent in parts, it is there whole at the end or not at all.
        metadata: notes to keep in the file. Texts stand where other tools show them.
        durable: return only when the file would survive a loss of power. `False` is faster and still atomic.
        overwrite: replace what is there; `False` raises instead, also if another process was faster.
        max_shard_size: of a folder: the most bytes of weights in one file, or a text such as `5GB`; None for what Transformers takes.
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
    if pretrained.is_pretrained(obj) and _is_folder(path):
        kept = pretrained.pretrained(obj, limits_of(limits), max_shard_size)
        _check_metadata(metadata)
        name, options = object_store.local_name(os.fsdecode(cast(str, path))), {"durable": durable, "overwrite": overwrite}
        save_folder(kept, name, metadata=metadata or {}, limits=limits_of(limits), progress=progress, **options)
        return
    if max_shard_size is not None:
        raise ValueError("max_shard_size= is for a model of Transformers that goes into a folder; tk.convert makes shards of any file")
    layout = _layout(obj, metadata, limits)
    if isinstance(path, (str, bytes, PathLike)):
        shown = os.fsdecode(path)
        suffix = os.path.splitext(shown)[1].lower()
        if suffix in _OTHERS and not (local.is_descriptor(shown) or local.is_stream(shown)):
            told = f"{shown}: a model file is a safetensors file, but others take {suffix} for another format; .safetensors suits it"
            warn(TensorkeepWarning(told))
    _write(layout, path, durable=durable, overwrite=overwrite, progress=progress)


def _is_folder(path: "str | PathLike[str] | BinaryIO") -> bool:
    """Whether a path means a folder: one is there, it ends so, or nothing is there and it does not end as that of a file."""
    if not isinstance(path, (str, bytes, PathLike)):
        return False
    name = object_store.local_name(os.fsdecode(path))
    if object_store.is_cloud(name):
        if os.path.splitext(name)[1].lower() in _OTHERS | {".safetensors"}:
            return False
        said = "a model of Transformers or PEFT goes into a folder, which is written on this machine alone: copy it, or name a .safetensors"
        raise OSError(errno.ENOTSUP, said, name)
    local.refuse_url(name)
    if name.endswith(("/", os.path.join("a", "")[-1])):
        return True
    kind = local.kind_of(name)
    return kind == "folder" or (kind == "missing" and os.path.splitext(name)[1].lower() not in _OTHERS | {".safetensors"})


def save_by_any_name(obj: Any, path: "str | PathLike[str] | BinaryIO") -> None:
    """The same, where the name of the file says nothing of its format."""
    _write(_layout(obj, None, None), path, durable=True, overwrite=True, progress=None)


def _write(layout: Layout, path: "str | PathLike[str] | BinaryIO", *, durable: bool, overwrite: bool, progress: Progress | None) -> None:
    if isinstance(path, io.TextIOBase):
        raise TypeError(f"{path!r} is open as text; open it with mode 'wb'")
    if not isinstance(path, (str, bytes, PathLike)):
        if not hasattr(path, "write"):
            raise TypeError(f"a path or a binary file object is wanted, found {path!r:.80}")
        write_in_order(layout, _writer(path), progress)
        return
    name = object_store.local_name(os.fsdecode(path))
    if object_store.is_cloud(name):
        with uploading(name, nbytes=layout.nbytes, overwrite=overwrite) as write:
            write_in_order(layout, write, progress)
        return
    local.refuse_url(name)
    if local.is_descriptor(name) or local.is_stream(name):
        with local.streaming(name) as write:
            write_in_order(layout, write, progress)
        return
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
        write_at_offsets(layout, MemorySink(memory), progress)
    return buffer.getvalue()


def _layout(obj: Any, metadata: Mapping[str, Any] | None, limits: Limits | None) -> Layout:
    limits = limits_of(limits)
    _check_metadata(metadata)
    try:
        met: set[type] = set()
        tree = capture(obj, limits, met=met)
        return lay_out_state(tree, metadata or {}, limits, versions=of_types(met))
    except RecursionError:
        hint = "Save it where fewer functions have called each other, or flatten it."
        raise UnsupportedError("", "nested deeper than this process can follow", hint=hint) from None


def _check_metadata(metadata: object) -> None:
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata= takes a dict, found {metadata!r:.80}")


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

"""Opening: a path, a file object or bytes become Contents."""

import errno
import io
import os
import sys
from functools import partial
from os import PathLike
from typing import Any, BinaryIO, Final

from tensorkeep.backends import local, object_store
from tensorkeep.backends.files import File, MemoryFile, Surroundings
from tensorkeep.backends.inside import Folder
from tensorkeep.backends.keys import Backend
from tensorkeep.backends.object_places import CLOUDS
from tensorkeep.container import LENGTH_BYTES, SHORTEST_HEADER_BYTES, header_length
from tensorkeep.contents import Contents
from tensorkeep.errors import FormatError, escaped
from tensorkeep.formats import partial as partial_copies
from tensorkeep.formats import shard_index, table
from tensorkeep.formats.compressed import peel
from tensorkeep.formats.peek import Peek
from tensorkeep.limits import Limits, limits_of
from tensorkeep.modelfile import folder
from tensorkeep.modelfile.read import read_contents
from tensorkeep.wire.extent import Opened

Source = str | PathLike[str] | BinaryIO
_STORE: Final = "store.json"  # what a store has at its root
_PLACES: Final = (*CLOUDS, "file")  # where stores may be
_MODELS: Final = (".safetensors", ".pt", ".pth", ".ckpt", ".keras", ".h5", ".gguf", ".onnx", ".npz", ".pkl", ".joblib")  # to name one of


def open_contents(source: Source, *, verify: bool = True, mmap: bool | None = None, limits: Limits | None = None) -> Contents:
    """Open whatever a verb was given.

    Args:
        source: a path, a URL, a store with or without a reference (`runs/a@best`), or a binary file object, which is read from where it
            stands to its end.
        verify: check tensors against their digests when they are read.
        mmap: give views of a mapping; None for what suits the file.
        limits: bounds on what the file may ask for.

    Raises:
        FormatError: no format that tensorkeep reads.
        FileNotFoundError: nothing is there.
    """
    limits = limits_of(limits)
    if not isinstance(source, (str, bytes, PathLike)):
        return _of_stream(source, verify=verify, limits=limits)
    name = object_store.local_name(os.fsdecode(source))
    if object_store.scheme_of(name):
        if (found := _of_remote_store(name, verify=verify, limits=limits)) is not None:
            return found
        return _read(object_store.open_url(name), object_store.RemoteFolder(name), verify=verify, mmap=False, limits=limits)
    if local.is_stream(name):
        check = partial(_check_head, file=name, limits=limits)
        data = memoryview(local.read_stream(name, limit=sys.maxsize, head=LENGTH_BYTES, check=check))
        return _read(MemoryFile(data, name), None, verify=verify, mmap=False, limits=limits)
    kind = local.kind_of(name)
    if kind != "file" and (found := _of_store(name, verify=verify, limits=limits)) is not None:
        return found
    if kind == "missing" and local.kind_of(f"{name}.index") == "file":
        name = f"{name}.index"  # a checkpoint of TensorFlow goes by what the names of its files have in common
    if kind == "folder":
        return _read_folder(name, verify=verify, mmap=mmap, limits=limits)
    return _read(local.ReadFile(name), Folder(os.path.dirname(name)), verify=verify, mmap=mmap, limits=limits)


def store_of(name: str) -> tuple[str, str] | None:
    """The store that a path means, and the reference into it: a store's folder alone is its newest checkpoint. None for what is no store.

    Raises:
        FileNotFoundError: it is written like a reference, and there is no store.
    """
    kind = local.kind_of(name)
    place, at, ref = (name, "@", "latest") if kind == "folder" else name.rpartition("@") if kind == "missing" else ("", "", "")
    if not (place and at and local.kind_of(place) == "folder"):
        return None
    if local.kind_of(os.path.join(place, _STORE)) == "file":
        return place, ref
    if kind == "folder":
        return None
    raise FileNotFoundError(errno.ENOENT, f"there is no such file, and {escaped(place)} is no store: it has no {_STORE}", name)


def whole_store(source: Source) -> Backend | None:
    """The store that a folder or a URL is, named without a reference; None for whatever else it is."""
    if not isinstance(source, (str, bytes, PathLike)):
        return None
    name = object_store.local_name(os.fsdecode(source))
    scheme = object_store.scheme_of(name)
    if scheme not in ("", *_PLACES) or name.lower().endswith(_MODELS):
        return None
    if scheme == "" and (local.kind_of(name) != "folder" or store_of(name) is None):
        return None
    from tensorkeep.backends.choosing import open_backend
    from tensorkeep.store.opened import is_store

    backend = open_backend(name, create=False)
    return backend if is_store(backend) else None


def _of_store(name: str, *, verify: bool, limits: Limits) -> Contents | None:
    """The checkpoint that a store's folder means, or a reference into one; None for what is no store."""
    if (found := store_of(name)) is None:
        return None
    from tensorkeep.store.opened import open_store  # a file needs none of it

    return open_store(*found, verify=verify, limits=limits)


def _of_remote_store(url: str, *, verify: bool, limits: Limits) -> Contents | None:
    """The same at a URL. Nothing is asked of a server where the name is one of a file."""
    if object_store.scheme_of(url) not in _PLACES or url.lower().endswith(_MODELS):
        return None
    from tensorkeep.store.opened import open_store

    if (found := open_store(url, "latest", verify=verify, limits=limits)) is not None:
        return found
    place, at, ref = url.rpartition("@")
    if not at or "/" in ref or place.endswith("/"):
        return None
    return open_store(place, ref, verify=verify, limits=limits)


def _read(file: File, folder: Surroundings | None, *, verify: bool, mmap: bool | None, limits: Limits) -> Contents:
    """A safetensors file, or whichever format the table finds.

    Args:
        folder: where files lie that it may name; None if it lies in none.
    """
    opened = Opened(file, mmap=mmap)
    try:
        if not _begins_header(file):
            peek = Peek(file.name, opened.whole(), folder, limits=limits, verify=verify, mmap=mmap)
            try:
                if (found := _read_foreign(peek)) is not None:
                    return found
                if (error := partial_copies.explain(peek)) is not None:
                    raise error
                if not _meant_as_safetensors(peek):
                    raise _unknown(peek)
            except BaseException:
                for other in peek.opened:
                    other.close()
                raise
        return read_contents(file, verify=verify, mmap=mmap, limits=limits)
    except BaseException:
        file.close()
        raise


def _read_foreign(peek: Peek) -> Contents | None:
    """A file in a format of others, or one in any format that is compressed; None where no reader knows it."""
    if shard_index.is_index(peek) and shard_index.is_of_safetensors(peek):
        return folder.read_sharded(peek, peek.data)
    if (peeled := peel(peek, weak=False)) is None:
        if (reader := table.find(peek)) is not None:
            return reader.read(peek)
        if (peeled := peel(peek, weak=True)) is None:
            return None
    if _begins_header(peeled.file):
        return peeled.tell(read_contents(peeled.file, verify=peek.verify, mmap=False, limits=peek.limits))
    if (reader := table.find(peeled.peek)) is not None:
        return peeled.tell(reader.read(peeled.peek))
    if peeled.weak:
        return None
    raise peek.error(f"compressed by {peeled.codec}, and what is inside is no format that tensorkeep reads")


def _begins_header(file: File) -> bool:
    """Whether a file begins as safetensors do: the length of a header that it has room for, and a brace."""
    head = bytearray(min(LENGTH_BYTES + 1, file.nbytes))
    file.read_into(0, memoryview(head))
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    return head[LENGTH_BYTES:] == b"{" and SHORTEST_HEADER_BYTES <= length <= file.nbytes - LENGTH_BYTES


def _meant_as_safetensors(peek: Peek) -> bool:
    """Whether a file that no reader knows is best told as a broken safetensors file: by the brace where its header begins, or its name."""
    return peek.head[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" or peek.base.lower().endswith(".safetensors")


def _unknown(peek: Peek) -> FormatError:
    if not peek.nbytes:
        return peek.error("it is empty", hint="Fetch it again, or save it again.")
    return peek.error(f"no format that tensorkeep reads: it begins with {peek.head[:16]!r}")


def _read_folder(name: str, *, verify: bool, mmap: bool | None, limits: Limits) -> Contents:
    peek = Peek(name, None, Folder(name), limits=limits, verify=verify, mmap=mmap)
    try:
        if (found := folder.read_folder(peek)) is not None:
            return found
        if (reader := table.find(peek)) is not None:
            return reader.read(peek)
        if (found := folder.read_lone(peek)) is not None:
            return found
        if (error := partial_copies.explain(peek)) is not None:
            raise error
        one = next((f", such as {escaped(file)!r:.100}" for file in peek.files if "/" not in file and file.endswith(_MODELS)), "")
        said = f"a folder that holds no model in a layout that tensorkeep knows; pass one of its files{one}"
        raise IsADirectoryError(errno.EISDIR, said, name)
    except BaseException:
        for opened in peek.opened:
            opened.close()
        raise


def _check_head(head: bytes, *, file: str, limits: Limits) -> None:
    """Refuse a stream whose first bytes begin no file, before all of it is read: it may have no end."""
    if partial_copies.may_begin(head):
        return
    header_length(head, sys.maxsize if len(head) == LENGTH_BYTES else len(head), file=file, limits=limits)


def _of_stream(stream: Any, *, verify: bool, limits: Limits) -> Contents:
    if isinstance(stream, io.TextIOBase):
        raise TypeError(f"{stream!r} is open as text; open it with mode 'rb'")
    if not hasattr(stream, "read"):
        raise TypeError(f"a path or a binary file object is wanted, found {stream!r:.80}")
    data = stream.read()
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"{stream!r}.read() gave {type(data).__name__}, bytes are wanted")
    name = getattr(stream, "name", None)
    return of_bytes(data, name=name if isinstance(name, str) else f"<{type(stream).__name__}>", verify=verify, limits=limits)


def of_bytes(data: "bytes | bytearray | memoryview", *, name: str, verify: bool, limits: Limits | None) -> Contents:
    """Open a file that is in memory."""
    view = memoryview(data)
    view = view if view.format == "B" and view.ndim == 1 else view.cast("B")
    return _read(MemoryFile(view, name), None, verify=verify, mmap=False, limits=limits_of(limits))

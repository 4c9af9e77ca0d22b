"""Reading a model file, or any other safetensors file: its header, checked in full, becomes `Contents`. No tensor is touched.

Lives here: the header, the document in it, its root. Lives elsewhere: the grammar (container, structure), the bytes (storage).
"""

from typing import Any, Final

import msgspec

from tensorkeep import dtypes, strictjson, structure
from tensorkeep.backends.files import File
from tensorkeep.chunks import digest
from tensorkeep.container import LENGTH_BYTES, Header, header_length, parse_header
from tensorkeep.contents import Contents, Tensors
from tensorkeep.errors import CorruptError, FormatError, TensorkeepError
from tensorkeep.limits import Limits
from tensorkeep.modelfile.layout import KEY, ROOT_DIGITS, VERSION, Document
from tensorkeep.modelfile.storage import FileBytes, FileStorage
from tensorkeep.plain import decode_bytes
from tensorkeep.tensors import LazyTensor

_HEAD_BYTES: Final = 16 << 10  # what most headers fit into
_DOCUMENT_BEGINS: Final = '{"version":"'
_READ_HERE: Final = f"{_DOCUMENT_BEGINS}{VERSION.partition('.')[0]}.".encode()  # what every writer of this major version begins with


def read_contents(file: File, *, verify: bool, mmap: bool | None, limits: Limits) -> Contents:
    """Open a safetensors file: its header read and checked in full, no tensor touched.

    Args:
        file: the open file; `Contents.close` closes it.
        verify: whether tensors are checked against their digests when they are read. The header always is.
        mmap: whether arrays are views of a mapping; None for what suits the file.
        limits: for the header and the structure.

    Raises:
        FormatError: it breaks the format.
        CorruptError: the header is not the one that was written.
    """
    file.will_need(0, min(_HEAD_BYTES, file.nbytes))
    prefix = bytearray(min(LENGTH_BYTES, file.nbytes))
    file.read_into(0, memoryview(prefix))
    length = header_length(bytes(prefix), file.nbytes, file=file.name, limits=limits)
    file.will_need(0, LENGTH_BYTES + length)
    text = bytearray(length)
    file.read_into(LENGTH_BYTES, memoryview(text))
    header = parse_header(text, file.nbytes, file=file.name, limits=limits)
    storage = FileStorage(file, header, verify=verify, mmap=mmap)
    stored = Tensors()
    for path, span in header.spans.items():
        source = FileBytes(storage, span.start, span.stop, span.spec.dtype is dtypes.BOOL)
        stored[path] = LazyTensor(span.spec, source, "numpy", path)
    if KEY not in header.metadata:
        _check_other_keys(prefix, text, header, file.name)
        return Contents(file.name, "safetensors", dict(stored), stored, storage, dict(header.metadata), file.nbytes)
    return _model_file(file, prefix, text, header, storage, stored, limits)


def _check_other_keys(prefix: bytearray, text: bytearray, header: Header, file: str) -> None:
    """A document of ours under another key is a model file whose key was damaged, not a file by others with nothing to check."""
    for other in header.metadata.values():
        if not other.startswith(_DOCUMENT_BEGINS):
            continue
        try:
            root = msgspec.json.decode(other, type=Document).root
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
        check_root(prefix, text, root, file)


def _model_file(
    file: File, prefix: bytearray, text: bytearray, header: Header, storage: FileStorage, stored: Tensors, limits: Limits
) -> Contents:
    own_text = header.metadata[KEY].encode()
    if not own_text.startswith(_READ_HERE):
        _check_version(own_text, file.name)
    try:
        document = strictjson.decode(own_text, Document)
        check_root(prefix, text, document.root, file.name)
        storage.add_digests(decode_bytes(document.digests))
        tree_document = strictjson.decode(bytes(document.structure), object)
        own = None if isinstance(document.metadata, msgspec.UnsetType) else strictjson.decode(bytes(document.metadata), object)
    except TensorkeepError:
        raise
    except (msgspec.MsgspecError, ValueError) as error:
        raise _not_laid_out(file.name, error) from None
    framework = document.framework or "numpy"
    tree = structure.decode(tree_document, stored, framework=framework, file=file.name, nbytes=len(text), limits=limits)
    stored.tree = tree
    metadata: dict[str, Any] = {key: value for key, value in header.metadata.items() if key not in (KEY, "format")}
    if own is not None:
        notes = structure.decode(own, {}, framework="numpy", file=file.name, nbytes=len(text), limits=limits)
        if type(notes) is not dict or not all(type(key) is str for key in notes):
            raise FormatError(file.name, "its own metadata are no dict with texts as keys")
        metadata |= notes
    return Contents(
        file.name,
        "tensorkeep model file",
        tree,
        stored,
        storage,
        metadata,
        file.nbytes,
        digests=True,
        version=document.version,
        writer=document.writer,
        root=document.root,
        versions=document.versions,
    )


def _not_laid_out(file: str, error: Exception) -> FormatError:
    return FormatError(
        file,
        f'its __metadata__["{KEY}"] is not laid out as it should be: {error}',
        hint="Damaged, or written by a broken tool: take another copy of the file.",
    )


class _Version(msgspec.Struct):
    version: str
    writer: str = ""


def _check_version(text: bytes, file: str) -> None:
    """Refuse a major version that this release does not know, before anything else of the document is believed."""
    try:
        found = msgspec.json.decode(text, type=_Version)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _not_laid_out(file, error) from None
    major = found.version.partition(".")[0]
    if major != VERSION.partition(".")[0]:
        release = found.writer.partition(" ")[2]
        wanted = f"'tensorkeep>={release}'" if release and all(part.isalnum() for part in release.split(".")) else "-U tensorkeep"
        raise FormatError(file, f"version {found.version[:20]} of the format, this release reads {VERSION}", hint=f"pip install {wanted}")


def check_root(prefix: bytearray, text: bytearray, root: str, file: str) -> None:
    """Check length and header against their own digest, in which the root's digits count as zeros.

    Raises:
        CorruptError: they differ, or the digits do not stand there exactly once.
    """
    digits = root.encode()
    well_formed = len(digits) == ROOT_DIGITS and all(digit in b"0123456789abcdef" for digit in digits)
    found = zeros = "0" * ROOT_DIGITS
    if well_formed and text.count(digits) == 1:
        at, view = text.index(digits), memoryview(text)
        found = digest(prefix, view[:at], zeros.encode(), view[at + ROOT_DIGITS :]).hex()
    if found != root or not well_formed:
        raise CorruptError(file=file, path="(header)", span=(0, len(prefix) + len(text)), found=found, wanted=root)

"""Layout: every offset of a model file before a byte of it is written.

Lives here: the document in `__metadata__["tensorkeep"]`, its digests and its root. Lives elsewhere: the header around it
(container), what the structure means (structure), moving bytes (write, read).
Source of the format: docs/format.md.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tensorkeep import structure
from tensorkeep._version import __version__
from tensorkeep.chunks import DIGEST_BYTES, Grid, digest, grid_of
from tensorkeep.container import METADATA, Span, lay_out, render_header
from tensorkeep.dtypes import BOOL, are_bools
from tensorkeep.errors import UnsupportedError
from tensorkeep.frameworks.versions import Versions
from tensorkeep.limits import DEFAULT_LIMITS, Limits
from tensorkeep.plain import is_utf8
from tensorkeep.tensors import LazyTensor, as_bytes
from tensorkeep.tree import Tree

VERSION: Final = "1.0"  # of the format: a reader refuses another first number, and ignores fields it does not know
KEY: Final = "tensorkeep"
MARK: Final = "pt"  # other tools refuse a file whose metadata lack "format", and take this one for any framework's tensors
ROOT_DIGITS: Final = 2 * DIGEST_BYTES
_ZEROS: Final = b"0" * ROOT_DIGITS


class Document(msgspec.Struct, omit_defaults=True):
    """What stands in `__metadata__["tensorkeep"]`. Root and digests first: so their places in the header follow from the version."""

    version: str
    root: str
    digests: str
    writer: str = ""
    framework: str = ""
    versions: Versions = {}
    structure: msgspec.Raw = msgspec.Raw(b"null")
    metadata: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything goes.

    Attributes:
        tensors: in file order.
        spans: the same, by path: where their bytes lie, from the start of the data.
        grid: the chunks.
        data_start: bytes from the start of the file.
        nbytes: size of the file.
        blank: the first bytes of the file up to the data, with zeros for the root and the letter A for the digests.
        root_at, digests_at: where in `blank` these stand.
    """

    tensors: list[LazyTensor]
    spans: dict[str, Span]
    grid: Grid
    data_start: int
    nbytes: int
    blank: bytes
    root_at: int
    digests_at: int

    def header(self, digests: "bytes | bytearray") -> bytes:
        """The first bytes of the file, up to the data.

        Args:
            digests: 32 bytes a chunk, in file order.
        """
        header = bytearray(self.blank)
        text = b64encode(digests)
        header[self.digests_at : self.digests_at + len(text)] = text
        header[self.root_at : self.root_at + ROOT_DIGITS] = digest(bytes(header)).hex().encode()
        return bytes(header)


def lay_out_state(
    tree: Tree, metadata: Mapping[str, Any], limits: Limits = DEFAULT_LIMITS, *, versions: Mapping[str, str] | None = None
) -> Layout:
    """The layout of a tree.

    Args:
        versions: of the frameworks whose objects are in it, by package.

    Raises:
        UnsupportedError: it holds what cannot be kept, or its header would pass the cap of safetensors.
    """
    encoded = structure.encode(tree, limits)
    check_bools(encoded.tensors)
    spans = lay_out({path: tensor.spec for path, tensor in encoded.tensors.items()})
    grid = grid_of([span.stop - span.start for span in spans.values()])
    own, texts = _split_metadata(metadata, limits)
    blank_digests = _blank_base64(len(grid) * DIGEST_BYTES)
    document = msgspec.json.encode(encoded.document)
    text = msgspec.json.encode(
        Document(
            VERSION,
            _ZEROS.decode(),
            blank_digests,
            f"tensorkeep {__version__}",
            encoded.framework,
            dict(versions or {}),
            msgspec.Raw(document),
            own,
        )
    )
    everything = {"format": texts.pop("format", MARK), KEY: text.decode(), **texts}
    blank = render_header(spans, everything)
    if len(blank) > limits.header_bytes:
        raise UnsupportedError("", _too_large(len(blank), limits, len(document), len(blank_digests), everything), hint="Save it in parts.")
    if encoded.path_bytes > limits.path_bytes + structure.PATHS_EACH * len(blank):
        raise UnsupportedError("", f"its paths would take {encoded.path_bytes:,} bytes of memory", hint="Shorten long keys.")
    before = msgspec.json.encode({METADATA: {"format": everything["format"]}})[:-2] + b',"' + KEY.encode() + b'":"'
    root_at = 8 + len(before) + len(_escaped(f'{{"version":"{VERSION}","root":"'))
    digests_at = root_at + ROOT_DIGITS + len(_escaped('","digests":"'))
    assert blank[root_at : root_at + ROOT_DIGITS] == _ZEROS, "the places above follow the order of Document's fields"
    nbytes = len(blank) + (grid.starts[-1] if len(grid) else 0)
    return Layout([encoded.tensors[path] for path in spans], spans, grid, len(blank), nbytes, blank, root_at, digests_at)


def check_bools(tensors: Mapping[str, LazyTensor]) -> None:
    """Refuse bad truth values before there is a file. Those that must be copied are looked at when they are: see `copied`."""
    for path, tensor in tensors.items():
        if tensor.spec.dtype is BOOL and (view := tensor.source.view()) is not None:
            _check_bool(path, view if isinstance(view, bytes) else as_bytes(view))


def copied(path: str, tensor: LazyTensor, start: int, stop: int) -> memoryview:
    """Bytes `start` to `stop` of a tensor that do not lie in memory as they do in a file.

    Raises:
        UnsupportedError: they are no truth values.
    """
    data = tensor.source.read(start, stop)
    if tensor.spec.dtype is BOOL:
        _check_bool(path, data)
    return data


def _check_bool(path: str, data: bytes | memoryview) -> None:
    if not are_bools(data):
        raise UnsupportedError(path, "truth values of which a byte is neither 0 nor 1", hint="Pass array.view(np.uint8) != 0.")


def _blank_base64(nbytes: int) -> str:
    return b64encode(bytes(nbytes)).decode()


def _escaped(text: str) -> bytes:
    """A text as it stands inside a JSON string."""
    return msgspec.json.encode(text)[1:-1]


def _split_metadata(metadata: Mapping[str, Any], limits: Limits) -> tuple[msgspec.Raw | msgspec.UnsetType, dict[str, str]]:
    """The user's metadata: texts stand where other tools look, all else in our document."""
    texts: dict[str, str] = {}
    others: dict[str, Any] = {}
    for key, value in metadata.items():
        if not isinstance(key, str) or not is_utf8(key):
            raise UnsupportedError(f"metadata {key!r:.80}", "a key that is no text")
        if key == KEY:
            raise UnsupportedError(
                f"metadata {key!r}", "this key is where the file keeps its structure and digests", hint="Take another name."
            )
        if isinstance(value, str) and is_utf8(value):
            texts[key] = str(value)
        elif key == "format":
            raise UnsupportedError("metadata 'format'", "a mark that is no text, such as 'pt'")
        else:
            others[key] = value
    if not others:
        return msgspec.UNSET, texts
    encoded = structure.encode(others, limits, packing=False)
    if encoded.tensors:
        raise UnsupportedError(
            f"metadata {next(iter(encoded.tensors))!r}",
            "a tensor",
            hint="Put it in the state.",
        )
    return msgspec.Raw(msgspec.json.encode(encoded.document)), texts


def _too_large(nbytes: int, limits: Limits, structure_bytes: int, digest_bytes: int, texts: Mapping[str, str]) -> str:
    largest = max(texts, key=lambda key: len(texts[key]) if key != KEY else 0)
    parts = {"the structure": structure_bytes, "the digests": digest_bytes, f"metadata {largest!r}": len(texts[largest])}
    parts["the names, shapes and offsets of the tensors"] = nbytes - sum(parts.values())
    part = max(parts, key=lambda name: parts[name])
    found = f"the header would take {nbytes:,} bytes; safetensors allows {limits.header_bytes:,}"
    return f"{found}. Its largest part is {part}, {parts[part]:,} bytes"

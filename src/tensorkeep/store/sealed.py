"""Sealed JSON: the small objects of a store. The last field of each is the digest of the bytes before it."""

from typing import Any, Final, TypeVar

import msgspec

from tensorkeep import strictjson
from tensorkeep.chunks import DIGEST_BYTES, digest
from tensorkeep.errors import CorruptError, FormatError

VERSION: Final = "1.0"  # of the store's format: a reader refuses another first number, and ignores fields it does not know
UPGRADE: Final = "pip install -U tensorkeep"
"""The hint of a refusal of what a later release wrote."""
_SEAL: Final = b',"digest":"'
_TAIL_BYTES: Final = len(_SEAL) + 2 * DIGEST_BYTES + len(b'"}')

Document = TypeVar("Document", bound=msgspec.Struct)


class _Versioned(msgspec.Struct):
    version: str
    writer: str = ""


def seal(document: msgspec.Struct) -> bytes:
    """A document of at least one field as bytes that say when they were changed."""
    return _sealed(msgspec.json.encode(document)[:-1])


def _sealed(body: bytes) -> bytes:
    return b"".join((body, _SEAL, digest(body).hex().encode(), b'"}'))


def changed(data: bytes, changes: dict[str, Any]) -> bytes:
    """A sealed document with some fields changed. Those of later releases, which this one does not know, stay as they are.

    Args:
        data: the whole object, which was unsealed before.
        changes: new values by field.
    """
    fields = msgspec.json.decode(data[:-_TAIL_BYTES] + b"}", type=dict[str, msgspec.Raw])
    fields.update((name, msgspec.Raw(msgspec.json.encode(value))) for name, value in changes.items())
    return _sealed(msgspec.json.encode(fields)[:-1])


def unseal(data: bytes, kind: type[Document], file: str) -> Document:
    """The document, checked against its own digest.

    Args:
        data: the whole object.
        kind: what it shall be.
        file: for messages.

    Raises:
        CorruptError: it is not what was written.
        FormatError: it is no document of that kind, or of a version that this release does not know.
    """
    body, tail = data[:-_TAIL_BYTES], data[-_TAIL_BYTES:]
    digits = tail[len(_SEAL) : -2]
    found = digest(body).hex()
    if not (body.startswith(b"{") and tail.startswith(_SEAL) and tail.endswith(b'"}')):
        raise FormatError(file, "damaged, or cut short: it does not end with its own digest", hint="It counts as not there.")
    if digits != found.encode():
        wanted = digits.decode("latin-1")
        raise CorruptError(file=file, path="(all of it)", span=(0, len(data)), found=found, wanted=wanted)
    try:
        _check_version(body + b"}", file)
        return strictjson.decode(body + b"}", kind)
    except (msgspec.MsgspecError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(file, f"not laid out as it should be: {error}") from None


def _check_version(text: bytes, file: str) -> None:
    found: Any = msgspec.json.decode(text, type=_Versioned)
    if found.version.partition(".")[0] != VERSION.partition(".")[0]:
        raise FormatError(
            file,
            f"version {found.version[:20]} of the store's format, this release reads {VERSION}",
            hint=UPGRADE,
        )

"""JSON documents beside tensors or among them: indexes, configurations, metadata. Small by nature, and read as untrusted.

Lives here: how large and how deep one may be. Lives elsewhere: what makes two programs read one alike (strictjson).
"""

from typing import Final, TypeVar

from tensorkeep import strictjson
from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits
from tensorkeep.wire.extent import Extent

MOST_BYTES: Final = 16 << 20  # values take up to twenty times as much in memory

Document = TypeVar("Document")


def read_json(data: Extent, kind: type[Document], what: str, *, limits: Limits, most_bytes: int = MOST_BYTES) -> Document:
    """The document that fills an extent, whose checksum is compared where it has one.

    Args:
        kind: what msgspec shall make of it; `object` for plain containers.
        what: it is, for messages.
        limits: `depth`.
        most_bytes: that are read.

    Raises:
        FormatError: it is larger, nested deeper, no JSON, or none that all programs read alike.
        CorruptError: its checksum is another.
    """
    if data.nbytes > most_bytes:
        raise FormatError(data.name, f"{what}: {data.nbytes:,} bytes of JSON, at most {most_bytes:,} are read")
    text = bytes(data.checked())
    try:
        return strictjson.decode(text, kind, deepest=limits.depth)
    except ValueError as error:
        raise FormatError(data.name, f"{what}: no JSON that all programs read alike, or of another form: {error!s:.200}") from None

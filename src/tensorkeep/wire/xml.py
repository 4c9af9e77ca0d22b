"""XML: elements with their attributes, of documents without a document type: so no entity is ever declared, fetched or expanded."""

from collections.abc import Callable
from typing import Final
from xml.parsers import expat

from tensorkeep.errors import FormatError
from tensorkeep.wire.extent import Extent

_PIECE_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 200
_ENCODINGS: Final = ("utf-8", "utf8", "us-ascii", "ascii")


def read_xml(
    extent: Extent, *, start: Callable[[str, dict[str, str]], None], end: Callable[[str], None], text: Callable[[str], None] | None = None
) -> None:
    """Walk a document.

    Args:
        extent: the document.
        start: called with the name and the attributes of each element.
        end: called with its name when it ends.
        text: called with text between elements, in pieces.

    Raises:
        FormatError: it is no XML in UTF-8, has a document type, or is nested deeper than 200.
    """
    # Not as the document says: for an encoding that expat does not know, Python would import the module of that name.
    parser = expat.ParserCreate("utf-8")
    depth = 0

    def refuse(*_: object) -> None:
        raise FormatError(extent.name, "its XML declares a document type, by which entities could be expanded or fetched")

    def declare(_version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise FormatError(extent.name, f"its XML is said to be {encoding!r:.100}; UTF-8 is read")

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise FormatError(extent.name, f"its XML is nested deeper than {_MAX_DEPTH}")
        start(name, attributes)

    def finish(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(name)

    parser.XmlDeclHandler = declare
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = begin
    parser.EndElementHandler = finish
    if text is not None:
        parser.CharacterDataHandler = text
    try:
        for at in range(0, extent.nbytes, _PIECE_BYTES):
            parser.Parse(bytes(extent.read(at, min(at + _PIECE_BYTES, extent.nbytes))), False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise FormatError(extent.name, f"no XML: {error}") from None

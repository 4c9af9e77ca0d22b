"""Embedded: pickles and archives that stand in texts, as base64 or hex, one level deep."""

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from typing import Final

_MOST_TOKENS: Final = 1_000
_MOST_INFLATED_BYTES: Final = 8 << 20
_BASE64: Final = re.compile(
    r"(?:gA[A-X]|Y[0-9A-Za-z]|K[A-H0-9]|UEsDB|H4sI|f0VM|N3q8r|Qlpo|/Td6|KLUv|eJ[w-z]|eAE|eF4|eNo)[A-Za-z0-9+/_-]{9,}={0,2}"
)
_HEX: Final = re.compile(r"(?:80 ?0[0-5]|63|28|50 ?4b ?03 ?04|1f ?8b|7f ?45 ?4c ?46)(?: ?[0-9a-fA-F]{2}){7,}", re.IGNORECASE)
_ESCAPED: Final = re.compile(r"(?:\\x[0-9a-fA-F]{2}){8,}")
LOOKS: Final = re.compile(
    rb"\x80[\x00-\x05][^\x00]|"
    rb"\(?[ci]_{0,2}[A-Za-z][\w.]*\n[A-Za-z_][\w.]*\n|\([\x8c\(SVXUcK\]\}]|"
    rb"PK\x03\x04|\x1f\x8b\x08|\x7fELF|BZh\d|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd"
)


def embedded(text: str) -> Iterator[tuple[str, bytes]]:
    """What a text encodes that looks as if a loader would take it: how it is encoded, and the bytes."""
    for number, found in enumerate(_BASE64.finditer(text)):
        if number >= _MOST_TOKENS:
            break
        data = from_base64(found[0])
        if data is not None and (data := inflated(data)) and LOOKS.match(data):
            yield "base64", data
    for number, found in enumerate(_HEX.finditer(text)):
        if number >= _MOST_TOKENS:
            break
        data = _from_hex(found[0].replace(" ", ""))
        if data is not None and LOOKS.match(data):
            yield "hex", data
    if "\\x" in text:
        for number, found in enumerate(_ESCAPED.finditer(text)):
            if number >= _MOST_TOKENS:
                break
            data = _from_hex(found[0].replace("\\x", ""))
            if data is not None and LOOKS.match(data):
                yield "hex", data


def inflated(data: bytes) -> bytes:
    """What bytes hold that zlib compressed, if a loader might take that; all others as they are, for zlib has next to no mark."""
    if not data.startswith((b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")):
        return data
    try:
        if not LOOKS.match(zlib.decompressobj().decompress(data, 64)):
            return data
        return zlib.decompressobj().decompress(data, _MOST_INFLATED_BYTES)
    except zlib.error:
        return data


def from_base64(token: str) -> bytes | None:
    """What a token of either alphabet encodes, its padding there or not; None for nothing."""
    token = token.rstrip("=").replace("-", "+").replace("_", "/")
    token = token[: len(token) - (len(token) % 4 == 1)]
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4))
    except (binascii.Error, ValueError):
        return None


def _from_hex(token: str) -> bytes | None:
    try:
        return bytes.fromhex(token[: len(token) // 2 * 2])
    except ValueError:
        return None

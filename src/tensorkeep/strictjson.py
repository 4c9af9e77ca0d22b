"""Strict JSON: two readers of one document must not be able to disagree.

JSON leaves open what a key that occurs twice means, and parsers differ; here it is refused.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

Document = TypeVar("Document")


class Repeated(ValueError):
    """A key occurs twice in one object."""


def decode(text: "bytes | bytearray", kind: type[Document]) -> Document:
    """Decode a document, and refuse keys that occur twice.

    Args:
        text: UTF-8.
        kind: what msgspec shall make of it; `object` for plain containers.

    Raises:
        ValueError: it is no JSON, no UTF-8, not of that kind, has a key twice, or is nested too deeply.
    """
    try:
        document = msgspec.json.decode(text, type=kind)
        # What is written back as the very same bytes has lost nothing on the way, so no key occurred twice. That is the rule for
        # files of ours and of safetensors; whoever spells JSON in another way gets the slow look.
        written = msgspec.json.encode(document)
        if not text.startswith(written) or text[len(written) :].strip(b" \t\r\n"):
            json.loads(text, object_pairs_hook=_refuse_repeated, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return document


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add() is there for its effect
        raise Repeated(f"the key {twice!r:.200} occurs twice")
    return unique


def _refuse_constant(name: str) -> Callable[[], None]:
    raise ValueError(f"{name} is no JSON")

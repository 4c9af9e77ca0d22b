"""Strict JSON: two readers of one document must not be able to disagree.

JSON leaves open what a key that occurs twice means, what -0 is and how large a number may be, and parsers differ. Here such keys are
refused, and so are -0 without a fraction, numbers that no float holds, and text that is no UTF-8, wherever they stand.
"""

import json
import math
from typing import Any, NoReturn, TypeVar

import msgspec

Document = TypeVar("Document")


class Repeated(ValueError):
    """A key occurs twice in one object."""


def decode(text: "bytes | bytearray", kind: type[Document], *, deepest: int | None = None) -> Document:
    """Decode a document, and refuse keys that occur twice.

    Args:
        text: UTF-8.
        kind: what msgspec shall make of it; `object` for plain containers.
        deepest: most arrays and objects inside each other; None for as many as this process can follow.

    Raises:
        ValueError: it is no JSON, no UTF-8, not of that kind, has a key twice, a number that is read in two ways, or is nested too deeply.
    """
    try:
        document = msgspec.json.decode(text, type=kind)
        # What is written back as the very same bytes has lost nothing on the way, so no key occurred twice. That is the rule for
        # files of ours and of safetensors; whoever spells JSON in another way gets the slow look.
        written = msgspec.json.encode(document)
        plain: object = document
        if not text.startswith(written) or text[len(written) :].strip(b" \t\r\n"):
            plain = json.loads(
                text.decode(),  # by itself it would take surrogates, and UTF-16
                object_pairs_hook=_refuse_repeated,
                parse_constant=_refuse_number,
                parse_float=_finite,
                parse_int=_whole,
            )
        if deepest is not None and _depth(plain) > deepest:
            raise ValueError(f"nested deeper than {deepest}")
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


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text:.40} is no number that all programs read alike")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


def _whole(text: str) -> int:
    return int(text) if text != "-0" else _refuse_number(text)


def _depth(document: object) -> int:
    """How many arrays and objects stand inside each other. A struct is as deep as its class says."""
    depth, level = 0, [document]
    while level := [inside for inside in level if isinstance(inside, (dict, list))]:
        level = [child for inside in level for child in (inside.values() if isinstance(inside, dict) else inside)]
        depth += 1
    return depth

"""JSON in the middle of other bytes: the configurations that HDF5 files and protobuf messages keep as texts."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from tensorkeep.wire.extent import Extent

_START: Final = re.compile(rb'\{\s*"(?:class_name|module|name|config|backend|shared_object_id|function_spec|trainable)"\s*:')
_WINDOW_BYTES: Final = 4 << 20
_LONGEST: Final = 32 << 20
_MOST: Final = 2_000
_MOST_CONTAINERS: Final = 1_000_000
_MOST_VALUES: Final = 10_000_000


def crowded(raw: bytes) -> bool:
    """Whether a text would become more values than memory should hold: an empty list takes three bytes there and seventy here."""
    return raw.count(b"[") + raw.count(b"{") > _MOST_CONTAINERS or raw.count(b",") > _MOST_VALUES


def documents(extent: Extent) -> Iterator[tuple[int, Any]]:
    """Every object of a Keras configuration that stands in the bytes as text, with its place."""
    decoder = json.JSONDecoder()
    begin, done, count = 0, 0, 0
    spare = 4 * extent.nbytes + (64 << 20)  # bytes that may be decoded in vain
    while begin < extent.nbytes:
        stop = min(begin + _WINDOW_BYTES, extent.nbytes)
        window = bytes(extent.read(begin, min(stop + 256, extent.nbytes)))
        for found in _START.finditer(window):
            at = begin + found.start()
            if at < done or found.start() >= stop - begin:
                continue
            count += 1
            if count > _MOST:
                return
            for length in (64 << 10, _LONGEST):
                spare -= min(length, extent.nbytes - at)
                if spare < 0:
                    return
                raw = bytes(extent.read(at, min(at + length, extent.nbytes))).partition(b"\0")[0]
                if crowded(raw):
                    break
                text = raw.decode("utf-8", "replace")
                try:
                    document, end = decoder.raw_decode(text)
                except (ValueError, RecursionError):
                    continue
                done = at + len(text[:end].encode("utf-8", "replace"))
                yield at, document
                break
        begin = stop

"""A second implementation of the model file's frame, straight from the format's description: for crafting files that break it."""

import base64
import contextlib
import json
import struct
import time
from collections.abc import Iterator

from blake3 import blake3


def safetensors(header: object, data: bytes = b"", *, text: bytes | None = None) -> bytes:
    """A safetensors file with any header."""
    text = json.dumps(header).encode() if text is None else text
    return struct.pack("<Q", len(text)) + text + data


def chunks(sizes: list[int]) -> list[tuple[int, int]]:
    """The chunk grid by its description: large tensors from their own first byte, small neighbours together."""
    spans, at, begun = [], 0, 0
    for size in sizes:
        large = size >= 65536
        if begun < at and (large or at + size - begun > 1 << 20):
            spans.append((begun, at))
            begun = at
        if large:
            spans += [(at + cut, at + min(cut + (1 << 20), size)) for cut in range(0, size, 1 << 20)]
            begun = at + size
        at += size
    return spans + ([(begun, at)] if begun < at else [])


def model_file(structure: object, entries: dict[str, tuple[str, list[int], bytes]], **changes: object) -> bytes:
    """A model file with any structure; its digests and its root are right unless `changes` says otherwise.

    Args:
        structure: JSON.
        entries: by path in file order, dtype, shape and bytes.
        changes: fields of the document to set, or to leave out (None).
    """
    data = b"".join(part for _, _, part in entries.values())
    digests = b"".join(blake3(data[a:b]).digest() for a, b in chunks([len(part) for _, _, part in entries.values()]))
    document = {
        "version": "1.0",
        "root": "0" * 64,
        "digests": base64.b64encode(digests).decode(),
        "framework": "numpy",
        "structure": structure,
    }
    document = {key: value for key, value in {**document, **changes}.items() if value is not None}
    header: dict[str, object] = {"__metadata__": {"format": "pt", "tensorkeep": json.dumps(document, separators=(",", ":"))}}
    at = 0
    for path, (dtype, shape, part) in entries.items():
        header[path] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(part)]}
        at += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    head = struct.pack("<Q", len(text)) + text
    if "root" not in changes:
        head = head.replace(b"0" * 64, blake3(head).hexdigest().encode(), 1)
    return head + data


def frame(data: bytes) -> tuple[dict[str, dict[str, list[int]]], dict[str, object], int]:
    """What stands before the data of a model file, its root checked: header, document (digests as bytes), where the data start."""
    at = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:at])
    document = json.loads(header["__metadata__"]["tensorkeep"])
    root = document["root"].encode()
    assert data[:at].count(root) == 1
    assert blake3(data[:at].replace(root, b"0" * 64)).hexdigest().encode() == root
    document["digests"] = base64.b64decode(document["digests"], validate=True)
    return header, document, at


def entry(start: int, stop: int, *shape: int, dtype: str = "U8") -> dict[str, object]:
    """What the header says of one tensor."""
    return {"dtype": dtype, "shape": shape or [stop - start], "data_offsets": [start, stop]}


@contextlib.contextmanager
def soon(seconds: float = 5.0) -> Iterator[None]:
    """A bound against quadratic time on a loaded machine, not a speed."""
    begin = time.process_time()
    yield
    assert time.process_time() - begin < seconds

"""How expect.json was made, once: by the words of docs/format.md, section "Fingerprints", not by the package. No test runs this."""

import base64
import json
from pathlib import Path

from blake3 import blake3


def h(*parts: bytes) -> bytes:
    return blake3(b"".join(parts)).digest()


def fingerprints(tensors: list[tuple[str, str, list[int], bytes]]) -> tuple[str, str]:
    named, unnamed = [], []
    for path, dtype, shape, data in tensors:
        t = h(*(h(data[at : at + 1048576]) for at in range(0, len(data), 1048576)))
        s = h(f"{dtype}[{','.join(map(str, shape))}]".encode())
        named.append(h(h(path.encode()), s, t))
        unnamed.append(h(s, t))
    return h(b"tensorkeep fingerprint 1: names\n", *sorted(named)).hex(), h(b"tensorkeep fingerprint 1: content\n", *sorted(unnamed)).hex()


def pattern(nbytes: int) -> bytes:
    """Bytes that every language can make: the low byte of n * 7919 // 64."""
    return bytes((number * 7919 >> 6) & 0xFF for number in range(nbytes))


CASES: dict[str, list[tuple[str, str, list[int], bytes]]] = {
    "nothing": [],
    "one small": [("w", "F32", [2, 3], pattern(24))],
    "a scalar, an empty one, and no ASCII": [("a", "I64", [], pattern(8)), ("b", "F16", [0, 4], b""), ("é.层", "BF16", [3], pattern(6))],
    "both sides of 64 KiB and of 1 MiB": [(f"t{n}", "U8", [n], pattern(n)) for n in (65535, 65536, 1048576, 1048577, 2500000)],
    "the same bytes at two names": [("x", "U8", [4], b"\1\2\3\4"), ("y", "U8", [4], b"\1\2\3\4")],
}

if __name__ == "__main__":
    document = []
    for case, tensors in CASES.items():
        names, content = fingerprints(tensors)
        told = []
        for path, dtype, shape, data in tensors:
            how = {"base64": base64.b64encode(data).decode()} if len(data) < 100 else {"pattern": len(data)}
            told.append({"path": path, "dtype": dtype, "shape": shape, **how})
        document.append({"case": case, "tensors": told, "names": names, "content": content})
    (Path(__file__).parent / "expect.json").write_text(json.dumps(document, indent=1) + "\n")

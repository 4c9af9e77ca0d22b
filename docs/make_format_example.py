"""Write the annotated example into docs/format.md: `python docs/make_format_example.py`."""

import re
from pathlib import Path

import numpy as np

import tensorkeep as tk

PAGE = Path(__file__).parent / "format.md"
PLACE = re.compile(r"(<!-- example -->\n```text\n).*?(^```$)", re.MULTILINE | re.DOTALL)
STATE = {"w": np.array([1.0, -2.0], np.float32), "lr": 0.5, 7: (True, None)}


def row(data: bytes, at: int, stop: int, said: str) -> list[str]:
    """Up to 16 bytes a line, with their text; the annotation behind the first."""
    lines = []
    for start in range(at, stop, 16):
        part = data[start : min(start + 16, stop)]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:04x}  {part.hex(' '):<47}  {text:<16}  {said}".rstrip())
        said = ""
    return lines


def example() -> str:
    """The file, byte by byte, in its parts."""
    data = tk.dumps(STATE)
    length = int.from_bytes(data[:8], "little")
    start = 8 + length
    text = data[8:start]
    document = text.index(b'{\\"version')
    root = text.index(b'root\\":\\"') + 9
    digests = text.index(b'digests\\":\\"') + 12
    digests_end = text.index(b"\\", digests)
    structure = text.index(b'structure\\":') + 12
    structure_end = text.index(b'}"}', structure)
    entries = structure_end + 3
    padding = len(text.rstrip(b" "))
    parts = [
        (0, f"length of the header: {length:#x}, little-endian"),
        (8, 'the header: "format" first'),
        (8 + document, "our document, a JSON text inside a JSON text"),
        (8 + root, "root: 64 hex digits"),
        (8 + root + 64, ""),
        (8 + digests, "digests: 1 chunk, 32 bytes, 44 characters"),
        (8 + digests_end, "writer, framework"),
        (8 + structure, "structure"),
        (8 + structure_end, "end of the document"),
        (8 + entries, "the tensors"),
        (8 + padding, "spaces, up to a multiple of 64"),
        (start, "the data: w = [1.0, -2.0]"),
    ]
    stops = [at for at, _ in parts[1:]] + [len(data)]
    return "\n".join(line for (at, said), stop in zip(parts, stops, strict=True) for line in row(data, at, stop, said)) + "\n"


def page(text: str) -> str:
    """The page with the true example in it."""
    return PLACE.sub(lambda match: match[1] + example() + match[2], text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

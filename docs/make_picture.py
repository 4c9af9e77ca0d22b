"""Draw docs/img/file.svg, what a model file holds: `python docs/make_picture.py`. The numbers in it are those of a real file."""

import json
import sys
from pathlib import Path

import numpy as np

import tensorkeep as tk

HERE = Path(__file__).parent
FONT = "font-family='ui-sans-serif, system-ui, sans-serif'"
MONO = "font-family='ui-monospace, monospace'"


def sizes() -> tuple[int, int, int]:
    """Bytes of the header, of the data, and of the digests in the file that the README makes."""
    layer = {"weight": np.eye(64, dtype=np.float32), "bias": np.zeros(64, np.float32)}
    data = tk.dumps({"net": {"layers": [layer, {key: value.copy() for key, value in layer.items()}]}, "epoch": 3, "loss": 0.12})
    length = int.from_bytes(data[:8], "little")
    document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["tensorkeep"])
    return 8 + length, len(data) - 8 - length, len(document["digests"])


def box(x: int, width: int, fill: str, title: str, lines: list[str]) -> str:
    parts = [f"<rect x='{x}' y='56' width='{width}' height='130' rx='6' fill='{fill}'/>"]
    parts.append(f"<text x='{x + 12}' y='80' font-size='14' font-weight='600' fill='#fff' {FONT}>{title}</text>")
    parts += [
        f"<text x='{x + 12}' y='{102 + 18 * number}' font-size='12' fill='#fff' {MONO}>{line}</text>" for number, line in enumerate(lines)
    ]
    return "\n".join(parts)


def picture() -> str:
    header, data, _ = sizes()
    return f"""<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 760 236' width='760' height='236' role='img'>
<title>What a model file holds</title>
<rect width='760' height='236' rx='8' fill='#f6f8fa'/>
<text x='16' y='32' font-size='16' font-weight='600' fill='#1f2328' {FONT}>model.safetensors: one file, any safetensors tool opens it</text>
{box(16, 180, "#0550ae", "names of tensors", ["dtype, shape, place", "of each", "", "read by every", "safetensors tool"])}
{box(204, 180, "#1a7f37", "structure", ["dicts, lists, ints,", "floats, ties: the", "state as it was;", "data only, no code"])}
{box(392, 150, "#8250df", "digests", ["BLAKE3 of each", "chunk, and of", "the header"])}
{box(550, 194, "#57606a", "tensors", ["the bytes as they lie", "in memory, aligned to", "their items: mapped,", "or read row by row"])}
<text x='16' y='214' font-size='13' fill='#1f2328' {FONT}>header: {header:,} bytes in this README's example</text>
<text x='550' y='214' font-size='13' fill='#1f2328' {FONT}>data: {data:,} bytes</text>
</svg>
"""


if __name__ == "__main__":
    (HERE / "img").mkdir(exist_ok=True)
    (HERE / "img" / "file.svg").write_text(picture(), encoding="utf-8")
    sys.stderr.write("docs/img/file.svg\n")

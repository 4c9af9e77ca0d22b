"""Single changes in honest files of every format: one length, count or offset, or one node of JSON, at a time."""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Final

from fuzz.samples import single_files
from hostile.cases import EITHER, Case, one
from hostile.runtimes import changed_nodes

EACH: Final = 40  # changes of one file
WIDTHS: Final = (8, 4, 2, 1)


def lengths(data: bytes, most: int) -> Iterator[bytes]:
    """A file with one number changed that may be a length: it is no more than the file's size, and the bytes above it are zeros."""
    for width in WIDTHS:
        places = [
            at
            for at in range(len(data) - width + 1)
            if 0 < int.from_bytes(data[at : at + width], "little") <= len(data)
            or 0 < int.from_bytes(data[at : at + width], "big") <= len(data)
        ]
        if not places:
            continue
        top = 1 << 8 * width
        values = (0, top - 1, top >> 1, min(len(data) + 1, top - 1), (top >> 1) - 1)
        step = max(1, len(places) * len(WIDTHS) // most)
        for number, at in enumerate(places[::step]):
            value = values[number % len(values)]
            little = 0 < int.from_bytes(data[at : at + width], "little") <= len(data)
            yield data[:at] + value.to_bytes(width, "little" if little else "big") + data[at + width :]


def single() -> Iterator[Case]:
    """Numbers of each sample."""
    for name, data in single_files().items():
        for number, changed in enumerate(lengths(data, EACH)):
            yield one(f"{name}, length {number}", changed, EITHER, file=_named(name))


def _named(name: str) -> str:
    return "m.mat" if name.startswith("matlab") else "m.caffemodel" if name == "caffe" else "m.bin"


def members() -> Iterator[Case]:
    """Numbers and nodes of the members of each sample that is a zip archive, whose CRCs are made right again."""
    for name, data in single_files().items():
        if not data.startswith(b"PK\3\4"):
            continue
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        for member, content in parts.items():
            small = content[:3000]
            changed = (
                changed_nodes(json.loads(content), 40)
                if content[:1] == b"{"
                else (part + content[3000:] for part in lengths(small, EACH // 2))
            )
            for number, part in enumerate(changed):
                yield one(f"{name}, {member} {number}", _zipped({**parts, member: part}), EITHER, file="m.bin")
            rest = {key: value for key, value in parts.items() if key != member}
            yield one(f"{name} without {member}", _zipped(rest), EITHER, file="m.bin")
            yield one(f"{name}, {member} empty", _zipped({**parts, member: b""}), EITHER, file="m.bin")


def _zipped(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return made.getvalue()


def nodes() -> Iterator[Case]:
    """Nodes of the headers of safetensors, ours and others'."""
    for name, data in single_files().items():
        size = int.from_bytes(data[:8], "little")
        if data[8:9] == b"{" and size < len(data):
            document = json.loads(data[8 : 8 + size])
            for number, header in enumerate(changed_nodes(document, 150)):
                yield one(
                    f"{name}, node {number}", len(header).to_bytes(8, "little") + header + data[8 + size :], EITHER, file="m.safetensors"
                )
            ours = document.get("__metadata__", {}).get("tensorkeep")
            for number, inner in enumerate(changed_nodes(json.loads(ours), 150) if ours else ()):
                document["__metadata__"]["tensorkeep"] = inner.decode()
                header = json.dumps(document).encode()
                yield one(
                    f"{name}, inner node {number}",
                    len(header).to_bytes(8, "little") + header + data[8 + size :],
                    EITHER,
                    file="m.safetensors",
                )

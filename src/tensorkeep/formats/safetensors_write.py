"""Writing plain safetensors, as any tool of that format writes it: one file, or shards and an index as Hugging Face's tools name them.

Sources: https://github.com/huggingface/safetensors#format, and the index file that `transformers` reads: a `weight_map` from tensor to
file, and `total_size`, the bytes of all tensors.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Final

import msgspec

from tensorkeep.backends.files import Sink
from tensorkeep.container import lay_out, render_header
from tensorkeep.errors import UnsupportedError
from tensorkeep.formats.carried import Carried
from tensorkeep.formats.writing import OutFile, Plan, copies
from tensorkeep.limits import Limits
from tensorkeep.plain import is_utf8
from tensorkeep.progress import Progress
from tensorkeep.tensors import LazyTensor
from tensorkeep.workers import run

_SIZE: Final = re.compile(r"(\d{1,15})\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_INSTEAD: Final = "A model file (--to model) keeps it. "


class SafetensorsWriter:
    """Tensors at their paths and texts as metadata, and no more.

    Args:
        shard_bytes: most bytes of tensors in one file; None for one file, whatever its size.
    """

    def __init__(self, shard_bytes: int | None = None) -> None:
        self.shard_bytes = shard_bytes

    def plan(self, carried: Carried, *, limits: Limits) -> Plan:
        carried.require("safetensors", lambda dtype: dtype.stored == dtype.name, instead=_INSTEAD)
        carried.leave_values_out("safetensors")
        carried.say_copies("safetensors")
        metadata = _texts(carried)
        for path in carried.tensors:
            if not is_utf8(path):
                raise UnsupportedError(path, "a name that is no valid UTF-8", hint="Give it another with --rename.")
        if self.shard_bytes is None:
            return Plan("safetensors", [_file(carried.tensors, metadata, limits)])
        shards = in_shards(carried.tensors, self.shard_bytes)
        files = [_file(shard, metadata, limits, name) for name, shard in shards.items()]
        if len(shards) == 1:
            return Plan("safetensors", files, folder=True)
        return Plan("sharded safetensors", [*files, index_file(shards)], folder=True)


def _texts(carried: Carried) -> dict[str, str]:
    texts = {"format": "pt"}  # other tools refuse files without it
    for key, value in carried.metadata.items():
        if isinstance(value, str) and is_utf8(value) and is_utf8(key):
            texts[key] = value
        else:
            carried.left_out.append((f"metadata {key}", "safetensors keeps texts alone"))
    return texts


def shard_bytes(size: int | str) -> int:
    """Bytes from a number, or from a text such as `5GB` (10^9) or `5GiB` (2^30).

    Raises:
        ValueError: it is neither.
    """
    if isinstance(size, str) and (match := _SIZE.fullmatch(size.strip())) is not None:
        base = 1024 if match[3] else 1000
        size = int(match[1]) * base ** " KMGT".index(match[2].upper() or " ")
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"max_shard_size={size!r:.40}: a number of bytes, or a text such as 5GB")
    return size


def in_shards(tensors: Mapping[str, LazyTensor], most: int) -> dict[str, dict[str, LazyTensor]]:
    """Tensors in their order, by the file that they go to: none holds more than so many bytes, or one tensor that is larger by itself."""
    shards: list[dict[str, LazyTensor]] = [{}]
    filled = 0
    for path, tensor in tensors.items():
        if shards[-1] and filled + tensor.nbytes > most:
            shards.append({})
            filled = 0
        shards[-1][path] = tensor
        filled += tensor.nbytes
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {f"model-{number:05d}-of-{len(shards):05d}.safetensors": shard for number, shard in enumerate(shards, 1)}


def _file(tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str], limits: Limits, name: str = "") -> OutFile:
    spans = lay_out({path: tensor.spec for path, tensor in tensors.items()})
    header = render_header(spans, metadata)
    if len(header) > limits.header_bytes:
        found = f"the header would take {len(header):,} bytes; safetensors allows {limits.header_bytes:,}"
        raise UnsupportedError("", found, hint="Convert it in parts, with --only.")
    ends = [span.stop for span in spans.values()]
    nbytes = max(ends, default=0)

    def write(sink: Sink, progress: Progress | None) -> None:
        places = ((len(header) + span.start, tensors[path]) for path, span in spans.items())
        run(copies(places, sink), nbytes=nbytes, progress=progress)
        sink.write(0, [memoryview(header)])

    return OutFile(len(header) + nbytes, write, name)


def index_file(shards: Mapping[str, Mapping[str, LazyTensor]], **more: int) -> OutFile:
    """The index of a model in several files.

    Args:
        shards: by file, its tensors.
        more: what else it says of the whole.
    """
    total = sum(tensor.nbytes for shard in shards.values() for tensor in shard.values())
    weight_map = {path: file for file, shard in shards.items() for path in shard}
    document = {"metadata": {**more, "total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    text = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    return text_file("model.safetensors.index.json", text)


def text_file(name: str, text: bytes) -> OutFile:
    """A small file whose bytes are there already."""
    return OutFile(len(text), partial(_write_text, text), name)


def _write_text(text: bytes, sink: Sink, progress: Progress | None) -> None:
    sink.write(0, [memoryview(text)])

"""The index of a model in several files, as Hugging Face writes it: which tensor lies in which file.

Source: `split_state_dict_into_shards` of https://github.com/huggingface/huggingface_hub, and `transformers` before it.
"""

from typing import Any, Final

from tensorkeep.errors import FormatError
from tensorkeep.formats.peek import Peek
from tensorkeep.limits import Limits
from tensorkeep.wire.extent import Extent
from tensorkeep.wire.json import read_json

SUFFIX: Final = ".index.json"
SAFETENSORS: Final = ".safetensors"
_INDEX_BYTES: Final = 32 << 20  # of JSON: 20 times that in memory, and ten times the largest that is known
_MARK: Final = b'"weight_map"'


def is_index(peek: Peek) -> bool:
    """Whether a file is such an index: JSON that tells of a weight map near its beginning, or whose name says that it does."""
    return peek.head.lstrip()[:1] == b"{" and peek.base.endswith(SUFFIX) and (_MARK in peek.head or SAFETENSORS in peek.base)


def is_of_safetensors(peek: Peek) -> bool:
    """Whether the files that an index names are safetensors."""
    return SAFETENSORS in peek.base or SAFETENSORS.encode() in peek.head


def read_index(data: Extent, limits: Limits) -> tuple[dict[str, str], dict[str, Any]]:
    """Which tensor lies in which file, and what else an index says.

    Raises:
        FormatError: it is no such index.
    """
    document = read_json(data, object, "an index", limits=limits, most_bytes=_INDEX_BYTES)
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(file, str) for file in weight_map.values()):
        raise FormatError(data.name, "it has no weight_map that gives the file of every tensor")
    metadata = document.get("metadata") if isinstance(document, dict) else None
    return weight_map, dict(metadata) if isinstance(metadata, dict) else {}

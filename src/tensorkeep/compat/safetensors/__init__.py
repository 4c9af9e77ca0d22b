"""The names of the package `safetensors`, over ours: write `tensorkeep.compat.safetensors` where that is imported.

What is written here is byte for byte what that package writes. What is read here may be that, or a model file, whose tensors are then
compared with their digests. A save appears whole and durable, or not at all, and every header is read as untrusted.

    from tensorkeep.compat.safetensors import safe_open
    from tensorkeep.compat.safetensors.torch import load_file, save_file
"""

from tensorkeep._version import __version__
from tensorkeep.compat.safetensors.errors import SafetensorError
from tensorkeep.compat.safetensors.opening import _safe_open_handle, safe_open
from tensorkeep.compat.safetensors.serializing import TensorSpec, deserialize, serialize, serialize_file

__all__ = ["SafetensorError", "TensorSpec", "__version__", "_safe_open_handle", "deserialize", "safe_open", "serialize", "serialize_file"]

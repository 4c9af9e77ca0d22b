"""The table of formats: which readers there are, in the order in which they are asked.

A new format is one file and one line here. A line: the module below `formats`, and its reader's class. Content decides, never a name
alone; where the content of two formats begins alike, the stricter look stands first.
"""

import importlib
from functools import cache
from typing import Final

from tensorkeep.formats.peek import Peek
from tensorkeep.formats.protocols import Reader

ROWS: Final[tuple[tuple[str, str], ...]] = (
    # With a magic of their own:
    ("equinox", "EquinoxReader"),
    ("npy", "NpyReader"),
    ("gguf", "GgufReader"),
    ("tflite", "TfliteReader"),
    ("hdf5", "Hdf5Reader"),
    ("mxnet", "MxnetReader"),
    ("matlab", "MatlabReader"),
    ("ncnn", "NcnnReader"),
    ("spacy", "SpacyReader"),
    ("torch.legacy", "TorchLegacyReader"),
    ("tensorflow.checkpoint", "TfCheckpointReader"),
    # Zip archives, told by their members:
    ("torch.script", "TorchScriptReader"),
    ("torch.zip", "TorchZipReader"),
    ("skops", "SkopsReader"),
    ("keras_archive", "KerasArchiveReader"),
    ("torch.export", "TorchExportReader"),
    ("torch.package", "TorchPackageReader"),
    ("npz", "NpzReader"),
    ("torch.tar", "TorchTarReader"),
    # Told by what follows their first bytes:
    ("keras_shards", "KerasShardsReader"),
    ("tfjs", "TfjsReader"),
    ("onnx", "OnnxReader"),
    ("pickles", "PickleReader"),
    ("openvino", "OpenVinoReader"),
    ("coreml", "CoreMLReader"),
    ("tensorflow.graph", "TfGraphReader"),
    ("paddle", "PaddleReader"),
    ("caffe", "CaffeReader"),
    ("flax_msgpack", "FlaxReader"),
    # Folders, by the names of their files:
    ("torch.sharded", "TorchShardedReader"),
    ("torch.dcp", "TorchDcpReader"),
    ("tensorflow.saved_model", "SavedModelReader"),
    ("tensorflow.checkpoint", "TfCheckpointFolderReader"),
    ("orbax", "OrbaxReader"),
    ("flax_msgpack", "FlaxFolderReader"),
    # Without any mark: by the numbers at their beginning, and their name.
    ("matlab4", "Matlab4Reader"),
    ("darknet", "DarknetReader"),
)


@cache
def reader(module: str, cls: str) -> Reader:
    made: Reader = getattr(importlib.import_module(f"tensorkeep.formats.{module}"), cls)()
    return made


def find(peek: Peek) -> Reader | None:
    """The reader of a file or folder; None if no format is recognized."""
    for module, cls in ROWS:
        candidate = reader(module, cls)
        if candidate.recognizes(peek):
            return candidate
    return None

"""The table of traps: who looks at what. All that recognize a thing look at it: one file may be two things."""

from collections.abc import Callable
from typing import Final, NamedTuple

from tensorkeep.scanning import (
    binaries,
    coreml,
    foreign,
    gguf,
    hdf5,
    msgpacks,
    npy,
    onnx,
    pickles,
    safetensors,
    tars,
    tensorflow,
    texts,
    tflite,
    wrappers,
    zips,
)
from tensorkeep.scanning.look import Look, Thing


class Trap(NamedTuple):
    """A family of traps.

    Attributes:
        name: for people.
        recognizes: whether it has something to say about a thing; looks at its head, and never raises for another format.
        scan: tells a look what it found, and whether it could not read to the end. True if it was what it seemed: then nobody searches it
            for pickles at any place.
    """

    name: str
    recognizes: Callable[[Thing], bool]
    scan: Callable[[Thing, Look], object]


ROWS: Final = (
    Trap("pickle", pickles.recognizes, pickles.scan),
    Trap("zip", zips.recognizes, zips.scan),
    Trap("tar", tars.recognizes, tars.scan),
    Trap("compressed", wrappers.recognizes, wrappers.scan),
    Trap("closed archive", wrappers.recognizes_closed, wrappers.scan_closed),
    Trap("foreign program", foreign.recognizes, foreign.scan),
    Trap("NumPy", npy.recognizes, npy.scan),
    Trap("compiled code", binaries.recognizes, binaries.scan),
    Trap("safetensors", safetensors.recognizes, safetensors.scan),
    Trap("GGUF", gguf.recognizes, gguf.scan),
    Trap("HDF5", hdf5.recognizes, hdf5.scan),
    Trap("ONNX", onnx.recognizes, onnx.scan),
    Trap("TensorFlow", tensorflow.recognizes, tensorflow.scan),
    Trap("TensorFlow Lite", tflite.recognizes, tflite.scan),
    Trap("Core ML", coreml.recognizes, coreml.scan),
    Trap("MessagePack", msgpacks.recognizes, msgpacks.scan),
    Trap("text", texts.recognizes, texts.scan),
)

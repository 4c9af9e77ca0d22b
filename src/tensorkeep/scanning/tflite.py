"""TensorFlow Lite: custom operators, and TensorFlow's own ("Flex"), of which some touch files.

Source: tensorflow/compiler/mlir/lite/schema/schema.fbs; https://flatbuffers.dev/internals/
"""

import struct
from collections.abc import Iterator
from typing import Final

from tensorkeep.scanning import tensorflow
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.wire.extent import Extent

_ORDINARY: Final = frozenset(
    {
        *(
            "TFLite_Detection_PostProcess",
            "Convolution2DTransposeBias",
            "MaxPoolingWithArgmax2D",
            "MaxUnpooling2D",
            "Mfcc",
            "AudioSpectrogram",
        ),
        *(
            "edgetpu-custom-op",
            "HashtableV2",
            "SentencepieceTokenizeOp",
            "tftext:WhitespaceTokenizer",
            "ethos-u",
            "Resampler",
            "odml.rms_norm",
        ),
    }
)
_CODES: Final = 1  # the field of a model that lists its operators
_CUSTOM: Final = 1  # the field of an operator that names a custom one
_MOST: Final = 10_000


def recognizes(thing: Thing) -> bool:
    """Whether it has the mark of its flatbuffer."""
    return thing.head[4:8] == b"TFL3"


def scan(thing: Thing, look: Look) -> None:
    """Look at the names of its custom operators."""
    try:
        for name in _custom(thing.extent):
            if name.startswith("Flex"):
                tensorflow.judge(name.removeprefix("Flex"), "", thing, look)
            elif name not in _ORDINARY:
                look.found(
                    "unknown", thing.place, f"the custom operator {name!r}, for which code of the author's must be linked", "tflite-custom"
                )
    except (struct.error, ValueError) as error:
        look.stopped(thing.place, f"its list of operators cannot be read: {error}")


def _custom(extent: Extent) -> Iterator[str]:
    root = _u32(extent, 0)
    codes = _field(extent, root, _CODES)
    if not codes:
        return
    vector = codes + _u32(extent, codes)
    count = _u32(extent, vector)
    if count > _MOST:
        raise ValueError(f"{count:,} operators")
    for number in range(count):
        slot = vector + 4 + 4 * number
        table = slot + _u32(extent, slot)
        custom = _field(extent, table, _CUSTOM)
        if custom:
            at = custom + _u32(extent, custom)
            nbytes = _u32(extent, at)
            if nbytes > 1000:
                raise ValueError(f"a name of {nbytes:,} bytes")
            yield _bytes(extent, at + 4, nbytes).decode("utf-8", "replace")


def _bytes(extent: Extent, at: int, nbytes: int) -> bytes:
    if not 0 <= at <= at + nbytes <= extent.nbytes:
        raise ValueError(f"bytes {at:,} to {at + nbytes:,} are wanted, {extent.nbytes:,} are there")
    return bytes(extent.read(at, at + nbytes))


def _u32(extent: Extent, at: int) -> int:
    return int.from_bytes(_bytes(extent, at, 4), "little")


def _field(extent: Extent, table: int, number: int) -> int:
    """Where a field of a table stands; 0 if it has none."""
    vtable = table - int.from_bytes(_bytes(extent, table, 4), "little", signed=True)
    size = int.from_bytes(_bytes(extent, vtable, 2), "little")
    if 4 + 2 * number + 2 > size:
        return 0
    offset = int.from_bytes(_bytes(extent, vtable + 4 + 2 * number, 2), "little")
    return table + offset if offset else 0

"""Writing what `torch.load(weights_only=True)` and `torch.load(mmap=True)` read: a dict of tensors, without PyTorch.

The file is an archive as PyTorch 2 writes it: `archive/data.pkl` holds a pickle that names the tensors, `archive/data/0`, `1`, ... their
storages, each from a multiple of 64 bytes on. The pickle is written here, opcode by opcode: it holds no object but PyTorch's own
functions that make a tensor.

Sources: `torch/serialization.py` and `torch/_utils.py` (2.13) for the layout; `pickletools` in the standard library for the opcodes.
"""

import struct
from collections.abc import Iterator
from functools import partial
from typing import Final

from tensorkeep.backends.files import Sink
from tensorkeep.errors import UnsupportedError
from tensorkeep.formats.carried import Carried
from tensorkeep.formats.streams import in_order
from tensorkeep.formats.writing import OutFile, Plan
from tensorkeep.limits import Limits
from tensorkeep.plain import is_utf8
from tensorkeep.progress import Progress
from tensorkeep.tensors import LazyTensor, TensorSpec, pieces
from tensorkeep.wire.zip_write import OutArchive, OutMember
from tensorkeep.workers import Job, run

_STORAGES: Final = {
    "BOOL": "BoolStorage",
    "U8": "ByteStorage",
    "I8": "CharStorage",
    "I16": "ShortStorage",
    "I32": "IntStorage",
    "I64": "LongStorage",
    "F16": "HalfStorage",
    "BF16": "BFloat16Storage",
    "F32": "FloatStorage",
    "F64": "DoubleStorage",
    "C64": "ComplexFloatStorage",
    "C128": "ComplexDoubleStorage",
}
_UNTYPED: Final = {  # of later years: their storage is bytes, and the tensor names its dtype
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "C32": "complex32",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}


class TorchWriter:
    """A flat dict of tensors. Tied ones share a storage."""

    def plan(self, carried: Carried, *, limits: Limits) -> Plan:
        carried.require("a file of PyTorch's", lambda dtype: str(dtype) in {**_STORAGES, **_UNTYPED})
        carried.leave_values_out("this file of PyTorch's")
        carried.leave_metadata_out("a file of PyTorch's")
        numbers: dict[int, int] = {}  # of storages, by the id of the tensor
        for _, tensor in carried.distinct():
            numbers[id(tensor)] = len(numbers)
        pickled = memoryview(_pickle(carried.tensors, numbers))
        archive = OutArchive()
        small = [("data.pkl", pickled), *((name, memoryview(data)) for name, data in _BEFORE)]
        heads = [(archive.add(f"archive/{name}", data.nbytes), data) for name, data in small]
        storages = [(archive.add(f"archive/data/{numbers[id(tensor)]}", tensor.nbytes), tensor) for _, tensor in carried.distinct()]
        heads.append((archive.add("archive/version", 2), memoryview(b"3\n")))

        def write(sink: Sink, progress: Progress | None) -> None:
            run(in_order(_jobs(storages, sink)), nbytes=sum(member.nbytes for member, _ in storages), progress=progress)
            for member, data in heads:
                member.write([data], sink)
            archive.finish(sink)

        return Plan("PyTorch checkpoint", [OutFile(archive.nbytes, write)])


_BEFORE: Final = ((".format_version", b"1"), (".storage_alignment", b"64"), ("byteorder", b"little"))


def _jobs(storages: list[tuple[OutMember, LazyTensor]], sink: Sink) -> Iterator[tuple[LazyTensor, Job]]:
    for member, tensor in storages:
        yield tensor, (member.nbytes, partial(member.write, pieces(tensor), sink))


def _pickle(tensors: dict[str, LazyTensor], numbers: dict[int, int]) -> bytes:
    """The dict, as a pickle of protocol 2."""
    words = _Words()
    written: set[int] = set()
    parts = [b"\x80\x02}("]  # PROTO 2, EMPTY_DICT, MARK
    for path, tensor in tensors.items():
        if not is_utf8(path):
            raise UnsupportedError(path, "a name that is no valid UTF-8", hint="Give it another with --rename.")
        parts.append(_text(path))
        number = numbers[id(tensor)]
        if number in written:
            parts.append(words.again(number))
        else:
            written.add(number)
            parts.append(_tensor(tensor.spec, number, words) + words.remember(number))
    parts.append(b"u.")  # SETITEMS, STOP
    return b"".join(parts)


class _Words:
    """What the pickle says again and again, kept in its memo; tensors too, at the place after their number."""

    _FIRST_TENSOR: Final = 64  # places before it are for words

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}

    def say(self, word: bytes) -> bytes:
        if word in self._places:
            return b"h" + bytes((self._places[word],))  # BINGET
        place = self._places[word] = len(self._places)
        assert place < self._FIRST_TENSOR
        return word + b"q" + bytes((place,))  # BINPUT

    def remember(self, number: int) -> bytes:
        return b"r" + struct.pack("<I", self._FIRST_TENSOR + number)  # LONG_BINPUT

    def again(self, number: int) -> bytes:
        return b"j" + struct.pack("<I", self._FIRST_TENSOR + number)  # LONG_BINGET


def _tensor(spec: TensorSpec, number: int, words: _Words) -> bytes:
    """A call of `torch._utils._rebuild_tensor_v2`, or `_v3` where the dtype has no storage of its own."""
    name = str(spec.dtype)
    typed = name in _STORAGES
    strides, stride = [], 1
    for length in reversed(spec.shape):
        strides.append(stride)
        stride *= max(length, 1)
    storage = _global("torch", _STORAGES[name]) if typed else _global("torch.storage", "UntypedStorage")
    parts = [
        words.say(_global("torch._utils", "_rebuild_tensor_v2" if typed else "_rebuild_tensor_v3")),
        b"((",  # MARK of its arguments, and of the storage's
        words.say(_text("storage")),
        words.say(storage),
        _text(str(number)),
        words.say(_text("cpu")),
        _int(spec.count if typed else spec.nbytes),
        b"tQ",  # TUPLE, BINPERSID
        _int(0),
        _ints(spec.shape),
        _ints(tuple(reversed(strides))),
        b"\x89",  # False: no gradient is wanted
        words.say(_global("collections", "OrderedDict")),
        b")R",  # EMPTY_TUPLE, REDUCE: no hooks
        b"" if typed else words.say(_global("torch", _UNTYPED[name])),
        b"tR",  # TUPLE, REDUCE
    ]
    return b"".join(parts)


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _int(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)  # LONG1 of eight bytes


def _ints(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_int, values)) + b"t" if values else b")"

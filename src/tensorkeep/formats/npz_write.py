"""Writing `.npz`: an archive of `.npy` files, which `numpy.load` reads without pickle.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import struct
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from tensorkeep.backends.files import Sink
from tensorkeep.dtypes import C32, DType
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

_ALIGNMENT: Final = 64
_LONGEST_HEADER: Final = 0xFFFF


class NpzWriter:
    """Each tensor an array of its name. What NumPy itself has no type for (bf16, fp8 and smaller) is refused."""

    def plan(self, carried: Carried, *, limits: Limits) -> Plan:
        carried.require(".npz", lambda dtype: _numpy_of(dtype) is not None)
        carried.leave_values_out(".npz")
        carried.leave_metadata_out(".npz")
        carried.say_copies(".npz")
        archive = OutArchive(_ALIGNMENT)
        members: list[tuple[OutMember, bytes, LazyTensor]] = []
        for path, tensor in carried.tensors.items():
            if not is_utf8(path) or "\0" in path or len(path.encode()) > _LONGEST_HEADER - 4:
                raise UnsupportedError(path, "a name that no member of an archive can have", hint="Give it another with --rename.")
            header = npy_header(tensor.spec)
            members.append((archive.add(f"{path}.npy", len(header) + tensor.nbytes), header, tensor))

        def write(sink: Sink, progress: Progress | None) -> None:
            run(in_order(_jobs(members, sink)), nbytes=sum(member.nbytes for member, _, _ in members), progress=progress)
            archive.finish(sink)

        return Plan(".npz", [OutFile(archive.nbytes, write)])


def _jobs(members: list[tuple[OutMember, bytes, LazyTensor]], sink: Sink) -> Iterator[tuple[LazyTensor, Job]]:
    for member, header, tensor in members:
        yield tensor, (member.nbytes, partial(member.write, _parts(header, tensor), sink))


def _parts(header: bytes, tensor: LazyTensor) -> Iterator[memoryview]:
    yield memoryview(header)
    yield from pieces(tensor)


def _numpy_of(dtype: DType) -> "np.dtype[Any] | None":
    """The type that a `.npy` header can name, or None. ml_dtypes' types would come back as bytes without a meaning."""
    found = dtype.numpy
    return found if found is not None and dtype.bits == 8 * found.itemsize and dtype != C32 and _is_numpys(found) else None


def _is_numpys(found: "np.dtype[Any]") -> bool:
    base = found.base
    if base.names is not None:
        return all(_is_numpys(base[name]) for name in base.names)
    return base.isbuiltin != 2 and base.kind in "biufcSUMmV"


def npy_header(spec: TensorSpec) -> bytes:
    """What stands before the bytes of an array in a `.npy` file, of a multiple of 64 bytes."""
    dtype = _numpy_of(spec.dtype)
    assert dtype is not None, "the plan has refused it"
    text = repr({"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": spec.shape})
    for version, kind in ((1, "<H"), (3, "<I")):
        encoded = text.encode("latin-1" if version == 1 else "utf-8", "replace" if version == 1 else "strict")
        before = 8 + struct.calcsize(kind)
        length = len(encoded) + 1
        length += -(before + length) % _ALIGNMENT
        if length <= _LONGEST_HEADER and (version == 3 or text.isascii()):
            break
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack(kind, length) + encoded.ljust(length - 1) + b"\n"

"""Types: what one element of a data set or an attribute is. Section IV.A.2.d.

Numbers, texts of fixed length, booleans and compounds become NumPy types; texts of variable length are read one by one; what refers to
other objects stays unread.
"""

from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np

from tensorkeep.wire.hdf5.file import Block, Hdf5File, Message

_INTEGER, _FLOAT, _TIME, _TEXT, _BITS, _OPAQUE, _COMPOUND, _REFERENCE, _ENUM, _VARIABLE, _ARRAY, _COMPLEX = range(12)
_MOST_NESTING: Final = 8
_MOST_FIELDS: Final = 10_000
_MOST_ITEM: Final = 2**31 - 1  # bytes: NumPy's own bound
_MOST_RANK: Final = 32

# Bytes; then where exponent and mantissa begin and how many bits they have; the bias of the exponent.
_FLOATS: Final[dict[tuple[int, int, int, int, int, int], Any]] = {
    (2, 10, 5, 0, 10, 15): "f2",
    (4, 23, 8, 0, 23, 127): "f4",
    (8, 52, 11, 0, 52, 1023): "f8",
    (2, 7, 8, 0, 7, 127): ml_dtypes.bfloat16,
    (1, 3, 4, 0, 3, 7): ml_dtypes.float8_e4m3fn,  # HDF5 says of no float whether it has infinities; 2.0 means this one
    (1, 2, 5, 0, 2, 15): ml_dtypes.float8_e5m2,
}


@dataclass(frozen=True, slots=True)
class Datatype:
    """One type of element.

    Attributes:
        nbytes: of one element as it is stored.
        numpy: as NumPy has it, in the file's byte order; None where it has nothing.
        text: `fixed` or `variable`, for texts; "" for all else.
        padding: of a fixed text: 0 ends at a zero, 1 is filled with zeros, 2 with spaces.
        opaque: whether only its writer knows what its bytes mean.
        unread: what it is, where it is not read; else "".
    """

    nbytes: int
    numpy: "np.dtype[Any] | None" = None
    text: str = ""
    padding: int = 0
    opaque: bool = False
    unread: str = ""


def datatype(file: Hdf5File, message: Message) -> Datatype:
    """The type of a data set. A file has few types, and each of them many times."""
    block = file.open(message)
    data = bytes(block.whole)
    if (known := file.known_types.get(data)) is None:
        known = file.known_types[data] = parse(block)
    assert isinstance(known, Datatype), "nobody else puts anything there"
    return known


def parse(block: Block, nesting: int = 0) -> Datatype:
    """A type from its message; the block then stands behind it."""
    first = block.u8("type")
    kind, version = first & 15, first >> 4
    bits = block.wide("bits of the type", 3)
    nbytes = block.u32("size of the type")
    if nesting > _MOST_NESTING:
        raise block.error(f"types nested deeper than {_MOST_NESTING}")
    order = ">" if bits & 1 else "<"
    if kind in (_INTEGER, _BITS):
        offset, precision = block.u16("bit offset"), block.u16("precision")
        if nbytes not in (1, 2, 4, 8) or offset or precision != 8 * nbytes:
            return Datatype(nbytes, unread=f"integers of {precision} bits in {nbytes} bytes")
        return Datatype(nbytes, np.dtype(f"{order}{'i' if kind == _INTEGER and bits & 8 else 'u'}{nbytes}"))
    if kind == _FLOAT:
        return _float(block, bits, nbytes, order)
    if kind == _TEXT:
        if not 0 < nbytes <= _MOST_ITEM:
            return Datatype(nbytes, unread=f"texts of {nbytes:,} bytes")
        return Datatype(nbytes, np.dtype(f"S{nbytes}"), text="fixed", padding=bits & 15)
    if kind == _OPAQUE:
        block.skip("tag", min(bits & 0xFF, block.left))
        return Datatype(nbytes, np.dtype(f"V{nbytes}"), opaque=True) if 0 < nbytes <= _MOST_ITEM else Datatype(nbytes, unread="opaque")
    if kind == _COMPOUND:
        return _compound(block, version, bits & 0xFFFF, nbytes, nesting)
    if kind == _ENUM:
        return _enum(block, version, bits & 0xFFFF, nbytes, nesting)
    if kind == _VARIABLE:
        parse(block, nesting + 1)
        return Datatype(nbytes, text="variable") if bits & 15 == 1 else Datatype(nbytes, unread="sequences of variable length")
    if kind == _ARRAY:
        return _array(block, version, nbytes, nesting)
    if kind == _COMPLEX:
        return _complex(parse(block, nesting + 1), nbytes)
    if kind == _TIME:
        block.skip("precision", 2)
    elif kind != _REFERENCE:
        raise block.error(f"a type of class {kind}, which HDF5 does not have")
    return Datatype(nbytes, unread="references to other objects" if kind == _REFERENCE else "times")


def _float(block: Block, bits: int, nbytes: int, order: str) -> Datatype:
    offset, precision = block.u16("bit offset"), block.u16("precision")
    places = block.u8("exponent"), block.u8("size of the exponent"), block.u8("mantissa"), block.u8("size of the mantissa")
    bias = block.u32("bias")
    known = _FLOATS.get((nbytes, *places, bias))
    plain = not offset and precision == 8 * nbytes and not bits & 0x40 and bits >> 8 & 0xFF == precision - 1
    if known is None or not plain:
        return Datatype(nbytes, unread=f"floats of {precision} bits of a kind of their own")
    if not isinstance(known, str) and order == ">" and nbytes > 1:
        return Datatype(nbytes, unread="big-endian floats that NumPy has not")
    return Datatype(nbytes, np.dtype(f"{order}{known}" if isinstance(known, str) else known))


def _structured(fields: list[tuple[str, Datatype, int]], nbytes: int) -> Datatype:
    unread = next((f"compounds with {inner.unread or 'texts of variable length'}" for _, inner, _ in fields if inner.numpy is None), "")
    if unread or not 0 < nbytes <= _MOST_ITEM:
        return Datatype(nbytes, unread=unread or f"compounds of {nbytes:,} bytes")
    try:
        made = np.dtype(
            {
                "names": [name for name, _, _ in fields],
                "formats": [inner.numpy for _, inner, _ in fields],
                "offsets": [offset for _, _, offset in fields],
                "itemsize": nbytes,
            }
        )
    except (TypeError, ValueError, OverflowError):  # two fields of one name, or one that reaches beyond the end
        return Datatype(nbytes, unread="compounds whose fields contradict each other")
    return Datatype(nbytes, made)


def _compound(block: Block, version: int, count: int, nbytes: int, nesting: int) -> Datatype:
    block.one_of("version of the type", version, (1, 2, 3, 4, 5))
    if count > _MOST_FIELDS:
        raise block.error(f"a compound of {count:,} fields, at most {_MOST_FIELDS:,} are read")
    block.fits("number of fields", count, bytes_each=10)
    block.step(count)
    fields = []
    for _ in range(count):
        name = block.name("name of a field", padded=version < 3)
        offset = block.u32("offset of a field") if version < 3 else block.wide("offset of a field", (nbytes.bit_length() + 7) // 8)
        shape: tuple[int, ...] = ()
        if version == 1:
            rank = min(block.u8("rank of a field"), 4)
            block.skip("reserved", 11)
            shape = tuple(block.u32("length") for _ in range(4))[:rank]
        inner = parse(block, nesting + 1)
        fields.append((name, _shaped(inner, shape) if shape else inner, offset))
    if (found := _as_complex(fields, nbytes)) is not None:
        return found
    return _structured(fields, nbytes)


def _as_complex(fields: list[tuple[str, Datatype, int]], nbytes: int) -> Datatype | None:
    """A complex number, which h5py and others write as a compound of two floats."""
    if len(fields) != 2 or (fields[0][0], fields[1][0]) not in (("r", "i"), ("real", "imag"), ("re", "im")):
        return None
    (_, real, first), (_, imaginary, second) = fields
    if real.numpy is None or real.numpy != imaginary.numpy or (first, second) != (0, real.nbytes):
        return None
    found = _complex(real, nbytes)
    return found if found.numpy is not None else None


def _complex(part: Datatype, nbytes: int) -> Datatype:
    if part.numpy is None or part.numpy.kind != "f" or nbytes not in (8, 16) or nbytes != 2 * part.nbytes:
        return Datatype(nbytes, unread="complex numbers of a kind of their own")
    return Datatype(nbytes, np.dtype(f"{part.numpy.byteorder}c{nbytes}".replace("=", "<")))


def _enum(block: Block, version: int, count: int, nbytes: int, nesting: int) -> Datatype:
    base = parse(block, nesting + 1)
    block.fits("number of names", count, bytes_each=1)
    block.step(count)
    names = [block.name("name of a value", padded=version < 3) for _ in range(count)]
    values = [block.wide("value", base.nbytes) for _ in range(count)]
    if base.nbytes == nbytes == 1 and dict(zip(names, values, strict=True)) == {"FALSE": 0, "TRUE": 1}:
        return Datatype(1, np.dtype(bool))  # as h5py and PyTables write booleans
    return base


def _array(block: Block, version: int, nbytes: int, nesting: int) -> Datatype:
    rank = block.u8("rank of the array")
    if rank > _MOST_RANK:
        raise block.error(f"an array type of {rank} dimensions")
    block.skip("reserved", 3 * (version < 3))
    shape = tuple(block.u32("length") for _ in range(rank))
    block.skip("permutation", 4 * rank * (version < 3))
    found = _shaped(parse(block, nesting + 1), shape)
    return found if found.unread or found.nbytes == nbytes else Datatype(nbytes, unread="arrays of another size than they say")


def _shaped(inner: Datatype, shape: tuple[int, ...]) -> Datatype:
    """A fixed array of a type."""
    count = 1
    for length in shape:
        count *= length
    nbytes = count * inner.nbytes
    if inner.numpy is None or not 0 < nbytes <= _MOST_ITEM:
        return Datatype(nbytes, unread=f"arrays of {inner.unread or 'texts of variable length'}" if inner.numpy is None else "empty arrays")
    return Datatype(nbytes, np.dtype((inner.numpy, shape)))

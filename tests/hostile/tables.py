"""Binary tables that lie: GGUF and TFLite, by their own counts, offsets, types and dimensions."""

import struct
from collections.abc import Iterator
from typing import Any

from hostile.cases import EITHER, READ, REFUSED, Case, builders, one

MOST = (1 << 64) - 1


def gguf() -> Iterator[Case]:
    """Counts, lengths, types, dimensions, offsets, alignments, duplicate keys, nested arrays, templates."""
    module = builders("test_gguf")
    if module is None:
        return
    new, text = module.Writer, module.Writer().text
    f32 = struct.pack("<4f", 1, 2, 3, 4)

    def raw(tensors: int, entries: int, body: bytes = b"", version: int = 3) -> bytes:
        return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + body

    def info(name: bytes, dims: "tuple[int, ...]", kind: int = 0, offset: int = 0, rank: "int | None" = None) -> bytes:
        lengths = struct.pack(f"<{len(dims)}Q", *dims)
        return text(name) + struct.pack("<I", len(dims) if rank is None else rank) + lengths + struct.pack("<IQ", kind, offset)

    def tensor(*infos: bytes, data: bytes = f32, entries: "tuple[bytes, ...]" = ()) -> bytes:
        head = raw(len(infos), len(entries), b"".join(entries) + b"".join(infos))
        return head + bytes(-len(head) % 32) + data

    def value(key: bytes, kind: int, body: bytes) -> bytes:
        return text(key) + struct.pack("<I", kind) + body

    for number in (1, 2**31, 2**32, 2**60, 2**63, MOST):
        yield one(f"{number:#x} tensors", raw(number, 0), EITHER if number < 0 else REFUSED, file="m.gguf")
        yield one(f"{number:#x} entries", raw(0, number), REFUSED, file="m.gguf")
        yield one(f"a key of {number:#x} bytes", raw(0, 1, struct.pack("<Q", number)), REFUSED, file="m.gguf")
        yield one(f"a text of {number:#x} bytes", raw(0, 1, value(b"k", 8, struct.pack("<Q", number))), REFUSED, file="m.gguf")
        yield one(f"an array of {number:#x} items", raw(0, 1, value(b"k", 9, struct.pack("<IQ", 4, number))), REFUSED, file="m.gguf")
        yield one(f"an array of {number:#x} bools", raw(0, 1, value(b"k", 9, struct.pack("<IQ", 7, number))), REFUSED, file="m.gguf")
        yield one(f"a length of {number:#x}", tensor(info(b"w", (number, 8))), REFUSED, file="m.gguf")
        yield one(f"an offset of {number:#x}", tensor(info(b"w", (4,), 0, number)), REFUSED, file="m.gguf")
    for version in (0, 4, 0x03000000, 2**32 - 1):
        yield one(f"version {version:#x}", raw(0, 0, version=version), EITHER if version == 0x03000000 else REFUSED, file="m.gguf")
    for alignment in (0, 1, 3, 8, 33, 2**31, 2**32 - 1):
        align = value(b"general.alignment", 4, struct.pack("<I", alignment))
        yield one(f"an alignment of {alignment:#x}", tensor(info(b"w", (4,)), entries=(align,)), EITHER, file="m.gguf")
    yield one("an alignment that is a text", tensor(info(b"w", (4,)), entries=(value(b"general.alignment", 8, text("32")),)), file="m.gguf")
    for kind in (4, 5, 31, 36, 99, 255, 2**31, 2**32 - 10):
        yield one(f"type {kind}", tensor(info(b"w", (4,), kind)), REFUSED, file="m.gguf")
        yield one(f"a value of type {kind + 9}", raw(0, 1, value(b"k", kind + 9 & 0xFFFFFFFF, bytes(8))), REFUSED, file="m.gguf")
        yield one(f"an array of type {kind + 9}", raw(0, 1, value(b"k", 9, struct.pack("<IQ", kind + 9 & 0xFFFFFFFF, 1) + bytes(8))), file="m.gguf")  # fmt: skip
    deep = b"".join(struct.pack("<IQ", 9, 1) for _ in range(20_000))
    cases: dict[str, tuple[bytes, str]] = {
        "a key twice": (raw(0, 2, value(b"k", 0, b"\1") * 2), REFUSED),
        "a tensor twice": (tensor(info(b"w", (4,)), info(b"w", (4,), 0, 32), data=bytes(64)), REFUSED),
        "tensors at one place": (tensor(info(b"a", (4,)), info(b"b", (4,))), REFUSED),
        "tensors that overlap": (tensor(info(b"a", (16,)), info(b"b", (16,), 0, 32), data=bytes(96)), REFUSED),
        "an offset that is not aligned": (tensor(info(b"w", (4,), 0, 4), data=bytes(64)), REFUSED),
        "0 dimensions": (tensor(info(b"w", ())), READ),
        "5 dimensions": (tensor(info(b"w", (1, 1, 1, 1, 4))), EITHER),
        "2^32 - 1 dimensions": (tensor(info(b"w", (4,), rank=2**32 - 1)), REFUSED),
        "65 dimensions": (tensor(info(b"w", (1,) * 65)), REFUSED),
        "a length of 0": (tensor(info(b"w", (0, 2**62))), EITHER),
        "lengths whose product is 2^64": (tensor(info(b"w", (2**32, 2**32))), REFUSED),
        "lengths whose product is 2^64 + 4": (tensor(info(b"w", (2**62 + 1, 4))), REFUSED),
        "blocks that do not fit": (tensor(info(b"w", (33,), 2), data=bytes(64)), REFUSED),
        "data cut short": (tensor(info(b"w", (4,)), data=f32[:-1]), REFUSED),
        "no data": (tensor(info(b"w", (4,)), data=b""), REFUSED),
        "arrays 20,000 deep": (raw(0, 1, value(b"k", 9, deep)), REFUSED),
        "a bool of 2": (raw(0, 1, value(b"k", 7, b"\2")), EITHER),
        "a key of no UTF-8": (raw(0, 1, value(b"\xff", 0, b"\1")), REFUSED),
        "a text of no UTF-8": (raw(0, 1, value(b"k", 8, text(b"\xff"))), EITHER),
        "a name of no UTF-8": (tensor(info(b"\xff", (4,))), REFUSED),
        "an empty name": (tensor(info(b"", (4,))), EITHER),
        "an empty key": (raw(0, 1, value(b"", 0, b"\1")), EITHER),
        "escapes in a key": (raw(0, 1, value(b"\x1b[2J", 0, b"\1")), EITHER),
        "a key of 100,000 bytes": (raw(0, 1, value(b"k" * 100_000, 0, b"\1")), EITHER),
        "20,000 arrays of no items": (raw(0, 1, value(b"k", 9, struct.pack("<IQ", 9, 20_000) + struct.pack("<IQ", 0, 0) * 20_000)), EITHER),
        "part 0 of 65,535": (new().entry("split.count", 2, 65535).entry("split.no", 2, 0).bytes(), EITHER),
        "part 7 of 3": (new().entry("split.count", 2, 3).entry("split.no", 2, 7).bytes(), EITHER),
        "a count of parts that is a text": (new().entry("split.count", 8, "3").bytes(), EITHER),
    }  # fmt: skip
    for name, (data, end) in cases.items():
        yield one(f"GGUF: {name}", data, end, file="m.gguf")
    for number, template in enumerate(TEMPLATES):
        data = new().entry("tokenizer.chat_template", 8, template).tensor("w", 0, (4,), f32).bytes()
        yield one(f"template {number}", data, READ, scan="told", file="m.gguf")
        named = new().entry("tokenizer.chat_template.tool_use", 8, template).bytes()
        yield one(f"a named template {number}", named, EITHER, scan="told", file="m.gguf")


TEMPLATES = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "{{ lipsum.__globals__['os'].system('true') }}",
    "{{ ''|attr('__class__') }}",
    "{{ x['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{% import 'os' as os %}",
    "{% include '/etc/passwd' %}",
    "{{ self._TemplateReference__context }}",
    "{{ request.application.__globals__ }}",
    "{{ ('__cla'~'ss__') }}{{ ''|attr(x) }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{{ get_flashed_messages.__globals__ }}",
)


def tflite() -> Iterator[Case]:
    """Offsets, vtables, vectors and buffers of flatbuffers; tensors that lie about their size."""
    module = builders("test_tflite")
    if module is None:
        return
    good = module.small()
    for at in range(0, min(len(good) - 4, 400), 8):
        for value in sorted({0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(good) - at, 4, -at & 0xFFFFFFFF}):
            changed = good[:at] + struct.pack("<I", value) + good[at + 4 :]
            if changed[4:8] == b"TFL3":
                yield one(f"TFLite: {value:#x} at {at}", changed, EITHER, file="m.tflite")
    tensor, model, flat = module.tensor, module.model, module.flatbuffer
    cases: dict[str, Any] = {
        "a shape of more than its data": model([tensor("w", 0, (2, 3), 1)], [module.F]),
        "a shape of less": model([tensor("w", 0, (3,), 1)], [module.F]),
        "a length below 0": model([tensor("w", 0, (-1, 4), 1)], [module.F]),
        "lengths that overflow": model([tensor("w", 0, (2**31 - 1,) * 3, 1)], [module.F]),
        "a buffer that is not there": model([tensor("w", 0, (4,), 9)], [module.F]),
        "a buffer of 2^32 - 1": model([tensor("w", 0, (4,), 2**32 - 1)], [module.F]),
        "a type that is not there": model([tensor("w", 99, (4,), 1)], [module.F]),
        "a type below 0": model([tensor("w", -5, (4,), 1)], [module.F]),
        "100 dimensions": model([tensor("w", 0, (1,) * 100, 1)], [module.F]),
    }
    for name, root in cases.items():
        yield one(f"TFLite: {name}", flat(root), EITHER if "buffer of" in name else REFUSED, file="m.tflite")
    many = flat(model([tensor(f"w{number}", 0, (4,), 1) for number in range(3000)], [module.F]))
    yield one("TFLite: 3,000 tensors of one buffer", many, EITHER, file="m.tflite")
    yield one("TFLite: a mark alone", b"\x08\0\0\0TFL3", REFUSED, file="m.tflite")
    yield one("TFLite: a root beyond the end", b"\xff\xff\xff\x7fTFL3" + bytes(64), REFUSED, file="m.tflite")
    yield one("TFLite: zeros", b"\x08\0\0\0TFL3" + bytes(1000), REFUSED, file="m.tflite")
    yield one("TFLite: a table that is its own vtable", b"\x10\0\0\0TFL3" + bytes(8) + struct.pack("<i", 0) + bytes(64), REFUSED, file="m.tflite")  # fmt: skip

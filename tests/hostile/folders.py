"""Folders that lie: TensorFlow's checkpoints and SavedModels, Zarr and OCDBT as JAX has them, PyTorch's distributed checkpoints, skops."""

import json
import struct
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from hostile.archives import npy, zipped
from hostile.cases import EITHER, READ, REFUSED, Case, Link, builders, honest, one
from hostile.changes import lengths
from hostile.runtimes import changed_nodes

VALUE: Final = np.arange(35, dtype=np.float32).reshape(7, 5)


def bundles() -> Iterator[Case]:
    """Index files with right checksums and wrong entries; blocks, keys and footers changed; data that is missing, a link, or short."""
    module = builders("test_tensorflow_files")
    if module is None:
        return
    field, entry, table = module.field, module.entry, module.table
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    header = field(1, 1) + field(2, 0)

    def index(*, at: int = 0, value: "bytes | None" = None, head: bytes = header, **more: Any) -> bytes:
        return bytes(table({b"": head, b"w": entry(w, at, **more) if value is None else value}))

    data = w.tobytes()

    def case(name: str, made: bytes, end: str = REFUSED, **more: "bytes | Link") -> Case:
        files = {"m/v.index": made, "m/v.data-00000-of-00001": data} | {f"m/{key}": value for key, value in more.items()}
        return Case(f"bundle: {name}", files, end)  # type: ignore[arg-type]  # one of the three

    yield Case("bundle, honest", {"m/v.index": index(), "m/v.data-00000-of-00001": data}, READ, scan="clean")
    for number in (1, 24, 2**31, 2**62, 2**63, 2**64 - 1):
        yield case(f"offset {number}", index(at=number))
        yield case(f"{number} bytes", index(nbytes=number), EITHER if number == 24 else REFUSED)
        yield case(f"shard {number}", index(shard=number))
        yield case(f"{number} shards", index(head=field(1, number)), EITHER)
        yield case(f"dtype {number}", index(number=number), EITHER)
        yield case(f"a length of {number}", index(value=field(1, 1) + module.shape([number, 3]) + field(5, 24)), REFUSED)
    yield case("a wrong checksum", index(checksum=1), EITHER)
    yield case("an entry of noise", index(value=b"\xff" * 30))
    yield case("an empty entry", index(value=b""), EITHER)
    yield case("no header", table({b"w": entry(w, 0)}), EITHER)
    yield case("big-endian", index(head=field(1, 1) + field(2, 1)), EITHER)
    yield case("of a version to come", index(head=field(1, 1) + field(3, field(1, 99) + field(2, 99))), EITHER)
    good = index()
    for number, changed in enumerate(lengths(good, 80)):
        yield case(f"length {number}", changed, EITHER)
    for at in range(len(good) - 48, len(good)):
        yield case(f"footer {at - len(good)}", good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :], EITHER)
    yield Case("bundle: data missing", {"m/v.index": good}, REFUSED)
    yield Case("bundle: data short", {"m/v.index": good, "m/v.data-00000-of-00001": data[:-1]}, REFUSED)
    yield Case("bundle: data a link", {"m/v.index": good, "x": data, "m/v.data-00000-of-00001": Link("../x")}, REFUSED)
    yield Case(
        "bundle: state names a path",
        {"m/checkpoint": b'model_checkpoint_path: "../../x"\n', "m/v.index": good, "m/v.data-00000-of-00001": data},
        EITHER,
    )
    texts: dict[str, bytes] = {
        "ReadFile": b"ReadFile",
        "WriteFile": b"WriteFile",
        "PyFunc": b"PyFunc",
        "EagerPyFunc": b"EagerPyFunc",
        "PrintV2": b"PrintV2",
    }
    for name, operation in texts.items():
        model = field(1, 1) + field(2, field(2, field(1, field(1, "n") + field(2, operation))))
        yield Case(f"SavedModel: {name}", {"m/saved_model.pb": model}, EITHER, scan="told" if name != "PrintV2" else "")
    for number, changed in enumerate(lengths(module.GRAPH, 80)):
        yield one(f"graph, length {number}", changed, EITHER, file="m.pb")
    const, proto = module.const, module.tensor_proto
    for number, (dtype, lengths_, values) in enumerate((
        (1, [2**31], b""), (1, [2**62, 4], field(4, bytes(16))), (1, [-1], field(4, bytes(4))), (99, [1], field(4, bytes(4))),
        (7, [2**40], field(8, b"a")), (1, [2**40], field(5, struct.pack("<f", 1))), (10, [3], field(11, b"\2\3\4")), (1, [1] * 100, field(4, bytes(4))))):  # fmt: skip
        yield one(f"graph, constant {number}", field(1, const("w", proto(dtype, lengths_, values))), EITHER, file="m.pb")


def arrays() -> Iterator[Case]:
    """Zarr 2 and 3 and OCDBT: every node of the metadata, chunks that are short, long, missing, links, or not what their codec makes."""
    module = builders("test_orbax")
    if module is None:
        return
    stores = {
        "zarr2": module.zarr2(VALUE, (3, 2)),
        "zarr3": module.zarr3(VALUE, (4, 4), inner=(2, 2)),
        "zarr3 summed": module.zarr3(VALUE, (3, 2), summed=True),
    }
    for name, store in stores.items():
        files = {f"m/w/{key}": value for key, value in store.items()}
        yield Case(f"{name}, honest", files, READ, scan="clean")
        described = next(iter(files))
        for number, changed in enumerate(changed_nodes(json.loads(files[described]), 200)):
            yield Case(f"{name}: node {number}", {**files, described: changed}, EITHER)
        chunk = list(files)[1]
        for title, content in {"empty": b"", "cut": files[chunk][:-3], "doubled": files[chunk] * 2, "noise": bytes(range(200))}.items():
            yield Case(f"{name}: a chunk {title}", {**files, chunk: content}, EITHER)
        yield Case(f"{name}: a bomb", {**files, chunk: module.PACK["zstd"](bytes(300 << 20))}, EITHER)
        yield Case(f"{name}: a chunk that is a link", {**files, "x": files[chunk], chunk: Link("/etc/passwd")}, REFUSED)
        for number, changed in enumerate(lengths(files[chunk], 30)):
            yield Case(f"{name}: chunk length {number}", {**files, chunk: changed}, EITHER)
    small = module.small()
    files = {f"m/{key}": value for key, value in small.items()}
    yield Case("ocdbt, honest", files, READ, scan="clean")
    for victim, content in files.items():
        changes = changed_nodes(json.loads(content), 100) if content[:1] == b"{" else lengths(content, 60)
        for number, changed in enumerate(changes):
            yield Case(f"ocdbt: {victim} {number}", {**files, victim: changed}, EITHER)
        yield Case(f"ocdbt: {victim} empty", {**files, victim: b""}, EITHER)
    framed, column = module.framed, module.column
    for number, body in enumerate(
        (b"", b"\0", b"\xff" * 40, column([2**63] * 5), bytes(16) + column([0, 2**62, 2**62]) + b"\4" + column([2**60] * 9))
    ):
        for packed in (False, True):
            yield Case(f"ocdbt: body {number} {packed}", {"m/manifest.ocdbt": framed(0x0CDB3A2A, body, packed=packed)}, REFUSED)
    bomb = framed(0x0CDB3A2A, bytes(300 << 20))
    yield Case("ocdbt: a bomb", {"m/manifest.ocdbt": bomb}, REFUSED)


def distributed() -> Iterator[Case]:
    """PyTorch's distributed checkpoints whose `.metadata` calls, or is none; its shards; its archives with lies."""
    from hostile.pickles import HARMLESS, WAYS

    for way in list(WAYS)[:12]:
        call = WAYS[way]("posix", "system")
        yield Case(f"DCP: {way}", {"m/.metadata": call, "m/__0_0.distcp": b""}, EITHER, scan="told")
        yield Case(
            f"shards of PyTorch: {way}",
            {"m/pytorch_model.bin.index.json": b'{"weight_map": {"w": "s.bin"}}', "m/s.bin": call},
            EITHER,
            scan="told",
        )
        yield Case(f"optimizer beside: {way}", {"m/model.safetensors": _honest(), "m/optimizer.pt": call}, EITHER, scan="told")
    yield Case("DCP of a dict", {"m/.metadata": HARMLESS, "m/__0_0.distcp": b""}, REFUSED)
    yield Case("DCP of nothing", {"m/.metadata": b"", "m/__0_0.distcp": b""}, REFUSED)
    torch = builders("test_torch_hostile")
    if torch is None:
        return
    honest_one = torch.archive({"w": torch.tensor()})
    yield honest("torch, honest", honest_one, file="m.pt")
    values: tuple[Any, ...] = (-1, 0, 7, 2**31, 2**62, 2**64, None, "6", 1.5, (), [], (2, -3), (2**40, 2**40), (1,) * 100, [2, 3], True)
    for number, value in enumerate(values):
        yield one(f"torch: offset {number}", torch.archive({"w": torch.tensor(offset=value)}), EITHER, file="m.pt")
        yield one(f"torch: size {number}", torch.archive({"w": torch.tensor(size=value)}), EITHER, file="m.pt")
        yield one(f"torch: stride {number}", torch.archive({"w": torch.tensor(stride=value)}), EITHER, file="m.pt")
        yield one(f"torch: count {number}", torch.archive({"w": torch.tensor(torch.Stored(count=value))}), EITHER, file="m.pt")
        yield one(f"torch: key {number}", torch.archive({"w": torch.tensor(torch.Stored(key=value))}), EITHER, file="m.pt")
        yield one(f"torch: id {number}", torch.archive({"w": torch.tensor(torch.Stored(pid=value))}), EITHER, file="m.pt")
        yield one(f"torch stream: size {number}", torch.stream(torch.tensor(size=value)), EITHER, file="m.pth")
        yield one(f"torch stream: keys {number}", torch.stream(torch.tensor(), keys=value), EITHER, file="m.pth")
        if isinstance(value, int):
            yield one(
                f"torch stream: elements {number}",
                torch.stream(torch.tensor(), storages=struct.pack("<Q", value % 2**64) + torch.FLOATS),
                EITHER,
                file="m.pth",
            )
    for key in ("../../etc/passwd", "/etc/passwd", "0/../0", "", "data.pkl", "\x1b[2J", "0\0", "0" * 10_000):
        yield one(f"torch: a storage called {key[:20]!r}", torch.archive({"w": torch.tensor(torch.Stored(key=key))}), REFUSED, file="m.pt")
    many = torch.archive({f"w{number}": torch.tensor() for number in range(3000)})
    yield one("torch: 3,000 views of one storage", many, READ, file="m.pt")
    spread = torch.archive({"w": torch.tensor(size=(2**20, 2**20), stride=(0, 0))})
    yield one("torch: a view that repeats one number 2^40 times", spread, REFUSED, file="m.pt")
    for order in (b"big", b"middle", b"", b"little" * 1000, b"\xff"):
        yield one(f"torch: byteorder {order[:10]!r}", torch.archive({"w": torch.tensor()}, byteorder=order), EITHER, file="m.pt")
    for version in (b"", b"0", b"99", b"-1", b"three", b"9" * 5000):
        yield one(f"torch: version {version[:10]!r}", torch.archive({"w": torch.tensor()}, version=version), EITHER, file="m.pt")


def _honest() -> bytes:
    from craft import entry, safetensors

    return safetensors({"w": entry(0, 4)}, bytes(4))


def skops() -> Iterator[Case]:
    """skops: types that it would call, each node of a schema, members that are missing or twice."""
    module = builders("test_skops_files")
    if module is None:
        return
    node, value, archive = module.node, module.value, module.archive
    schema = node(
        "ObjectNode",
        node("DictNode", {"w": node("NdArrayNode", type="numpy", file="w.npy"), "n": value("1")}, "dict", "builtins"),
        "Net",
        "sklearn.linear_model",
    )
    good = npy(np.ones(3))
    for number, changed in enumerate(changed_nodes(schema, 300)):
        yield one(f"skops: node {number}", archive(changed, w_npy=good), EITHER, file="m.skops")
    for module_name, name in (("posix", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("os", "remove"), ("mylab", "Net")):
        for loader in ("ObjectNode", "FunctionNode", "TypeNode", "MethodNode", "PartialNode", "ReduceNode", "OperatorFuncNode"):
            yield one(
                f"skops: {loader} of {module_name}.{name}",
                archive(node(loader, None, name, module_name), w_npy=good),
                EITHER,
                scan="told",
                file="m.skops",
            )
    yield one(
        "skops: an array that calls",
        zipped({"schema.json": json.dumps(schema).encode(), "w.npy": b"\x80\x04cposix\nsystem\n)R."}),
        EITHER,
        scan="told",
        file="m.skops",
    )
    yield one("skops: no array", archive(schema), REFUSED, file="m.skops")
    yield one(
        "skops: an array of elsewhere", archive(node("NdArrayNode", type="numpy", file="../../w.npy"), w_npy=good), EITHER, file="m.skops"
    )
    for loader in (
        "SparseMatrixNode",
        "RandomStateNode",
        "RandomGeneratorNode",
        "DtypeNode",
        "MaskedArrayNode",
        "ListNode",
        "SetNode",
        "TupleNode",
        "JsonNode",
        "SliceNode",
        "CachedNode",
        "BytesNode",
        "DefaultDictNode",
        "TreeNode",
        "QuantileForestNode",
        "Nobody'sNode",
    ):
        for number, content in enumerate((None, [], {}, "x", 1, [{}], {"x": 1}, [1])):
            yield one(f"skops: {loader} of {number}", archive(node(loader, content), w_npy=good), EITHER, file="m.skops")

"""Hostile documents: strategies for nodes of a structure, and mutations of files that were good."""

import base64
import datetime as dt
import json
import random
from collections import OrderedDict, defaultdict, deque
from types import SimpleNamespace

import numpy as np
from hypothesis import strategies as st

import tensorkeep as tk
from craft import frame, model_file

try:
    import torch
except ModuleNotFoundError:  # the files and targets are then without what is PyTorch's; the parsers are the same
    torch = None

M61 = 2**61 - 1  # ints that differ by it have one hash
VALUE_TAGS = (
    "float", "int", "complex", "bytes", "bytearray", "surrogates", "datetime", "time", "date", "timedelta", "timezone", "range", "slice",
    "path", "posix_path", "windows_path", "scalar", "dtype",
)  # fmt: skip
NODE_TAGS = ("dict", "OrderedDict", "Counter", "defaultdict", "tuple", "set", "frozenset", "deque", "tensor", "packed", "object")
KINDS = (
    "records.bag", "records.dataclass", "records.namedtuple", "rng.python", "rng.legacy", "rng.bits", "rng.generator", "torch.module",
    "torch.optimizer", "torch.sparse", "torch.subclass", "torch.dtype", "torch.device", "torch.size", "torch.generator", "stateful",
    "os.system",
)  # fmt: skip
CLASSES = (
    "Namespace", "SimpleNamespace", "Random", "RandomState", "PCG64", "MT19937", "Philox", "SFC64", "Linear", "sparse_coo", "sparse_csr",
    "Generator", "x",
)  # fmt: skip
NASTY_TEXTS = (
    "", "w", "v", "a", "a.b", "__class__", "__dict__", "__metadata__", "self", "state", "\x1b[2J\x1b]0;gone\x07", "two\nlines",
    "\u202egnp.exe",
    "\x00", "~2", "nan:7ff8000000000001", "inf", "2020-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59.999999-23:59",
    "0x" + "f" * 5000, "-0x" + f"{M61 << 60:x}", "AAAA", "//8=", "/////w==", "7aCA", "../../etc/passwd", "C:\\con", "F32", "F4", "C128",
    "<U1", "<U0", "|S0", "|V0", "|O", "<M8[0s]", "<m8[as]", "<M8[Y]", ">f4", "|b1", "| 4", "|S\u0664", "numpy", "torch", "os", "list",
    "dict",
    "cuda:99", "float32", "sparse_coo", ">U0", "\u0301" * 50, "\U0001f600",
)  # fmt: skip
NASTY_NUMBERS = (
    0, 1, -1, 2, 3, 4, 5, 8, 64, 65, 624, 625, 2**31 - 1, 2**31, 2**32, 2**53, 2**53 + 1, M61, 2**63 - 1, 2**63, 2**64 - 1, -(2**63),
    10**400,
    0.5, 1e308, -0.0, True, False, None,
)  # fmt: skip

atoms = st.sampled_from(NASTY_NUMBERS) | st.sampled_from(NASTY_TEXTS) | st.integers(-3, 700) | st.text(max_size=5)
dtype_documents = st.recursive(
    st.sampled_from(("F32", "I64", "U8", "C128", "F4", "<U1", ">U2", "|S2", "|V0", "|V3", "<M8[s]", "<m8[Y]", "BC32", "F6_E2M3", "I4"))
    | atoms,
    lambda inner: st.fixed_dictionaries(
        {
            "fields": st.lists(
                st.tuples(
                    st.sampled_from(("a", "b", "", "\x1b")),
                    inner,
                    st.integers(0, 8),
                    st.lists(st.sampled_from((0, 1, 2, 2**31 - 1)), max_size=3),
                ),
                max_size=3,
            ),
            "itemsize": st.integers(0, 24),
        }
    ),
    max_leaves=5,
)
scalars = st.tuples(dtype_documents, st.binary(max_size=24).map(lambda data: base64.b64encode(data).decode())).map(
    lambda pair: {"scalar": list(pair)}
)


def _tagged(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Nodes of every tag, around documents that may be right or wrong for it."""
    lists = st.lists(inner, max_size=4)
    keys = inner | st.sampled_from(NASTY_TEXTS) | st.sampled_from([{"int": hex(M61 * number)} for number in range(9_000, 9_009)])
    pairs = st.lists(st.tuples(keys, inner).map(list) | st.sampled_from(("w", "v", "a.b")), max_size=4)
    plain = st.sampled_from(VALUE_TAGS).flatmap(lambda tag: (inner | lists).map(lambda document: {tag: document}))
    return (
        lists | plain
        | st.sampled_from(NODE_TAGS).flatmap(lambda tag: (pairs | lists | inner).map(lambda document: {tag: document}))
        | st.sampled_from(("dict", "OrderedDict", "Counter", "defaultdict")).flatmap(lambda tag: pairs.map(lambda items: {tag: items}))
        | st.tuples(lists, atoms).map(lambda pair: {"deque": pair[0], "maxlen": pair[1]})
        | st.tuples(pairs, atoms).map(lambda pair: {"defaultdict": pair[0], "factory": pair[1]})
        | st.tuples(pairs, inner).map(lambda pair: {"OrderedDict": pair[0], "metadata": pair[1]})
        | st.tuples(st.sampled_from(("w", "v", "a.b")), dtype_documents, atoms).map(
            lambda it: {"tensor": it[0], "dtype": it[1], "as": it[2]})
        | st.tuples(st.sampled_from(("str", "bytes", "list", "tuple", "code")), st.sampled_from(("w", "v")), dtype_documents | st.none())
        .map(lambda it: {"packed": it[0], "tensor": it[1], **({} if it[2] is None else {"dtype": it[2]})})
        | st.tuples(st.sampled_from(KINDS), st.sampled_from(CLASSES), inner | pairs.map(lambda items: {"dict": items})).map(
            lambda it: {"object": it[0], "class": it[1], "state": it[2]})
        | scalars
    )  # fmt: skip


nodes = st.recursive(atoms | scalars, _tagged, max_leaves=10)
"""Nodes of a structure, few of them right."""

ENTRIES = {
    "w": ("F32", [4], bytes(16)),
    "v": ("U8", [2, 4], b"\xff\xfeabcd\x00\x02"),
    "a.b": ("BOOL", [3], b"\x00\x01\x01"),
}


def with_all_tensors(node: object, used: dict[str, tuple[str, list[int], bytes]] = ENTRIES) -> dict[str, object]:
    """A node in a dict that also refers to every tensor: else each file would be refused for the one that nothing refers to."""
    return {"dict": [["node", node], ["w", {"tensor": "w"}], *([name, {"tensor": name}] for name in used if name != "w")]}


def _trained() -> dict[str, object]:
    if torch is None:
        return {}
    net = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    adam.step()
    return {"net": net, "opt": adam, "t": torch.ones(2, 2)}


def seeds() -> list[bytes]:
    """Good files of every kind of thing."""
    rng = np.random.default_rng(1)
    return [
        tk.dumps({**_trained(), "epoch": 3, "w": np.ones(4, np.float32), "rng": rng}),
        tk.dumps(
            {"a": [1, 2.5, None, True, 2**70], "b": {1: (2,), "k": {3, "x"}}, "c": deque([1], 3), "d": OrderedDict(x=defaultdict(list))}
        ),
        tk.dumps({"s": "x" * 70_000, "l": list(range(1200)), "u": np.array(["ab", "c"]), "r": np.zeros(2, [("p", "<f4"), ("q", ">i2")])}),
        tk.dumps(
            {"m": random.Random(1), "n": np.random.RandomState(1), "p": np.random.Philox(1)}
            | ({"g": torch.Generator(), "dt": torch.float16} if torch else {})
        ),
        tk.dumps(
            [dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.timedelta(1), range(3), slice(1), np.float32(1), b"x", 1j, SimpleNamespace(w=1)]
        ),
        tk.dumps(
            {"w": np.arange(9.0), "c": np.ones(3, complex), "big": np.zeros(70_000, ">f4"), "e": np.empty((0, 3))}, metadata={"k": [1]}
        ),
    ]


def _mutated(node: object, rng: random.Random, pool: list[object]) -> object:
    """A JSON document with one place of it changed: another value, another node of the pool, one doubled, left out, wrapped, renamed."""
    places: list[tuple[object, object]] = []

    def visit(node: object) -> None:
        for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            places.append((node, key))
            visit(child)

    whole = [node]
    places.append((whole, 0))
    visit(node)
    holder, key = rng.choice(places)
    choice = rng.randrange(7)
    if choice == 0:
        holder[key] = rng.choice(NASTY_NUMBERS)
    elif choice == 1:
        holder[key] = rng.choice(NASTY_TEXTS)
    elif choice == 2:
        holder[key] = json.loads(json.dumps(rng.choice(pool)))
    elif choice == 3 and isinstance(holder, list) and holder is not whole:
        holder.insert(key, json.loads(json.dumps(holder[key])))
    elif choice == 4 and holder is not whole:
        del holder[key]
    elif choice == 5:
        holder[key] = rng.choice(([holder[key]], {rng.choice(NODE_TAGS + VALUE_TAGS): holder[key]}))
    elif isinstance(holder, dict):
        items = [(rng.choice(NODE_TAGS + VALUE_TAGS) if name == key else name, child) for name, child in holder.items()]
        holder.clear()
        holder.update(items)
    return whole[0]


def damaged_inside(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """A good file with a few places of its structure, metadata or header changed, its digests and its root made right again."""
    header, document, start = frame(data)
    entries = {
        path: (entry["dtype"], list(entry["shape"]), data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]])
        for path, entry in header.items()
        if path != "__metadata__"
    }
    pool = [document["structure"], frame(rng.choice(others))[1]["structure"], *NASTY_TEXTS]
    structure, metadata = document["structure"], document.get("metadata")
    for _ in range(rng.choice((1, 1, 2, 5))):
        where = rng.randrange(10)
        if where == 0 and entries:
            path = rng.choice(list(entries))
            _, shape, part = entries[path]
            entries[path] = (rng.choice(("U8", "F32", "BOOL", "F4", "I64", "F6_E2M3")), _reshaped(shape, part, rng), part)
        elif where == 1 and entries:
            path = rng.choice(list(entries))
            entries[rng.choice(NASTY_TEXTS) or "x"] = entries.pop(path)
        elif where == 2:
            metadata = _mutated(metadata, rng, pool)
        else:
            structure = _mutated(structure, rng, pool)
    return model_file(structure, entries, metadata=metadata, framework=rng.choice((document["framework"], "torch", "os")))


def _reshaped(shape: list[int], part: bytes, rng: random.Random) -> list[int]:
    return rng.choice(([len(part)], [1] * 40 + [len(part)], [0, 2**62, 2**62], [len(part) // 4], shape[::-1], [*shape, 1]))


def damaged_outside(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Bytes cut, turned round, spliced, repeated, or another length of the header."""
    bad = bytearray(data)
    choice = rng.randrange(6)
    head = min(len(data), 8 + int.from_bytes(data[:8], "little"))
    if choice == 0:
        return data[: rng.randrange(len(data))]
    if choice == 1:
        for _ in range(rng.choice((1, 3, 30))):
            bad[rng.randrange(head)] ^= 1 << rng.randrange(8)
    elif choice == 2:
        other = rng.choice(others)
        return data[: rng.randrange(head)] + other[rng.randrange(len(other)) :]
    elif choice == 3:
        at = rng.randrange(head)
        bad[at:at] = data[at : at + rng.randrange(1, 200)] * rng.choice((1, 2, 50))
    elif choice == 4:
        bad[:8] = rng.choice((0, 1, 2, 8, len(data), len(data) - 8, 10**8, 2**63)).to_bytes(8, "little")
    else:
        at = rng.randrange(head)
        bad[at : at + 1] = rng.choice(
            (b"\\ud800", b'"', b"{", b"[" * 2000, b"\xff", b"9" * 5000, b"1e999", b"NaN", b"\x00", b"-0", b"\xed\xa0\x80")
        )
        bad[:8] = (len(bad) - 8 - (len(data) - head)).to_bytes(8, "little")
    return bytes(bad)

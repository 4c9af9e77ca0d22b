"""A run folder from a stranger: every single lie in a manifest or an index is a clear error, soon and in little memory."""

import itertools
import json
import math
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorkeep as tk
from guarded import look
from memory_backend import MemoryBackend
from same import assert_same_bits
from storewriter import Writer, grid
from tensorkeep.chunks import digest
from tensorkeep.frameworks.versions import LONGEST
from tensorkeep.loading import load_contents
from tensorkeep.store import manifest as manifests
from tensorkeep.store import names
from tensorkeep.store import table as tables
from tensorkeep.store.checkpoint import open_checkpoint
from tensorkeep.store.index import MAGIC, Shard
from tensorkeep.store.known import read as read_manifest
from tensorkeep.store.manifest import Part

SECONDS = 4.0
MOST_BYTES = 64 << 20
LIES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**53, 2**63, 2**64, 10**30, 0.5, math.inf, "", "x", "../../etc/passwd", "F32", "é\x00", [], {}, [[]], [0],
    [-1], [2**62] * 3, [2**62] * 65, [1] * 70, [0, 2**62, 2**62], {"tensor": "w"}, {"dict": []}, [["w", 1]],
    "0" * 64, "f" * 16 + "-0", "f" * 16 + "-0-0",
]  # fmt: skip


def true_state() -> dict[str, Any]:
    random = np.random.default_rng(1)
    w = random.standard_normal((60, 300)).astype(np.float32)
    return {"w": w, "s": [np.arange(4), np.float16(2) * np.ones((2, 3), np.float16)], "c": np.zeros(70_000, np.uint8), "n": 1}


class Place:
    """A store in memory with a keyframe and a checkpoint of two ranks, and how its objects are forged."""

    def __init__(self) -> None:
        self.backend = MemoryBackend()
        writer = Writer(self.backend)
        shards = grid(2, 2, 2)
        keyframe = writer.write(true_state(), 1, codec=(2, 1, 0), shards=shards)
        self.state = true_state() | {"w": true_state()["w"] * np.float32(1.0001)}
        self.written = writer.write(self.state, 2, codec=(3, 1, 2), shards=shards, keyframe=keyframe, change=self.version)
        self.key = self.written.known.key
        self.objects = dict(self.backend.objects)

    @staticmethod
    def version(number: int, fields: dict[str, Any]) -> None:
        fields["versions"] = {"torch": f"2.{number}"}

    def restore(self) -> None:
        self.backend.objects = dict(self.objects)

    def manifest(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.objects[self.key][0])
        del body["digest"]
        return body

    def put_manifest(self, document: Any) -> None:
        body = json.dumps(document).encode()[:-1] + b","
        body = body[:-1]
        self.backend.put(self.key, body + b',"digest":"' + digest(body).hex().encode() + b'"}')

    def index(self, number: int) -> tuple[dict[str, Any], bytes]:
        data = self.objects[names.index_key(self.written.known.manifest.indexes[number].save)][0]
        length = int.from_bytes(data[8:16], "little")
        return json.loads(data[16 : 16 + length]), data[16 + length + -length % 8 :]

    def put_index(self, number: int, document: Any, columns: bytes) -> None:
        text = json.dumps(document).encode()
        self.put_index_bytes(number, MAGIC + len(text).to_bytes(8, "little") + text + bytes(-len(text) % 8) + columns)

    def put_index_bytes(self, number: int, data: bytes) -> None:
        manifest = self.written.known.manifest
        parts = list(manifest.indexes)
        parts[number] = Part(parts[number].save, len(data), digest(data).hex())
        self.backend.put(names.index_key(parts[number].save), data)
        self.backend.put(self.key, manifests.encode(msgspec.structs.replace(manifest, indexes=parts)))

    def load(self) -> Any:
        """Everything that the checkpoint gives, tensors of some size only as far as a stranger may make somebody read."""
        limits = tk.Limits(expanded_bytes=8 << 20)
        with open_checkpoint(self.backend, read_manifest(self.backend, self.key), limits=limits) as contents:
            state = load_contents(contents, limits=limits)
            if contents.storage.survey(None):
                raise tk.FormatError(contents.file, "damage that a load does not meet")
            return state


PLACE = Place()


def check(what: str) -> bool:
    """Load what was forged: an error of the family with a sentence, or a state; in bounded time and memory. Whether it was refused."""
    tracemalloc.reset_peak()
    began, refused = time.process_time(), False
    try:
        PLACE.load()
    except tk.TensorkeepError as error:
        assert isinstance(error, (tk.FormatError, tk.CorruptError, tk.UnsupportedError)), f"{what}: {error!r}"
        assert str(error).strip() and len(str(error)) < 5000, what
        refused = True
    assert time.process_time() - began < SECONDS, what
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES, what
    return refused


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    PLACE.restore()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    PLACE.restore()


def nodes(document: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each node of a JSON document."""
    yield way
    if isinstance(document, (dict, list)):
        for key, child in document.items() if isinstance(document, dict) else enumerate(document):
            yield from nodes(child, (*way, key))


def changed(document: Any, way: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """The document with one node changed."""
    if not way:
        return change(document)
    key, *rest = way
    if isinstance(document, dict):
        return {name: changed(child, tuple(rest), change) if name == key else child for name, child in document.items()}
    return [changed(child, tuple(rest), change) if at == key else child for at, child in enumerate(document)]


def lies(document: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Each node of a document replaced, left out, or there twice. Of nodes alike, such as packs, the first is lied about in every way."""
    seen: set[tuple[Any, ...]] = set()
    for number, way in enumerate(nodes(document)):
        pattern = tuple("*" if isinstance(key, int) else key for key in way)
        some = LIES[number % 5 :: 5] if pattern in seen else LIES
        seen.add(pattern)
        forged = [changed(document, way, lambda node, lie=lie: lie) for lie in some]
        forged += [without(document, way), twice(document, way)] if way else []
        yield from ((way, lie) for lie in forged if lie != document)


def without(document: Any, way: tuple[Any, ...]) -> Any:
    *before, last = way
    if isinstance(last, int):
        return changed(document, tuple(before), lambda node: [child for at, child in enumerate(node) if at != last])
    return changed(document, tuple(before), lambda node: {name: child for name, child in node.items() if name != last})


def twice(document: Any, way: tuple[Any, ...]) -> Any:
    *before, last = way
    return changed(document, tuple(before), lambda node: [*node, node[last]] if isinstance(last, int) else node)


HARMLESS = {
    "writer",
    "save",
    "by",
    "time",
    "new_bytes",
    "nbytes",
    "tensors",
    "metrics",
    "best",
    "keyframe",
    "framework",
    "version",
    "weights_only",
}


def test_the_truth_loads() -> None:
    """What the lies are told about is well. Of several indexes the first says which versions count, as it has the structure."""
    assert_same_bits(PLACE.load(), PLACE.state)
    with open_checkpoint(PLACE.backend, read_manifest(PLACE.backend, PLACE.key)) as contents:
        assert contents.versions == {"torch": "2.0"}
    PLACE.put_manifest(PLACE.manifest())
    assert_same_bits(PLACE.load(), PLACE.state)
    for number in (0, 1):
        PLACE.put_index(number, *PLACE.index(number))
        assert_same_bits(PLACE.load(), PLACE.state)
        PLACE.restore()


def test_every_lie_in_a_manifest_is_a_clear_error() -> None:
    """Each node of it replaced, left out, or there twice."""
    document, refused, told = PLACE.manifest(), 0, 0
    for way, lie in lies(document):
        PLACE.put_manifest(lie)
        told += 1
        found = check(f"{way}: {lie!r:.200}")
        refused += found
        if way and way[0] not in HARMLESS and not found:  # fields that nobody knows are passed over
            assert read_manifest(PLACE.backend, PLACE.key).manifest == PLACE.written.known.manifest, f"{way}: {lie!r:.2000} was believed"
    assert refused > told / 3


@pytest.mark.parametrize("nbytes", [2**63, 2**64, 10**30, 10**400])
@pytest.mark.parametrize("named", [True, False])
def test_a_pack_that_is_larger_than_any_storage_is_refused(nbytes: int, named: bool) -> None:
    """Though the manifest says the same of it as the index, or nothing; and so are a checkpoint's own sizes."""
    document, columns = PLACE.index(0)
    pack = document["packs"][0][0]
    document["packs"][0][1] = nbytes
    PLACE.put_index(0, document, columns)
    manifest: dict[str, Any] = json.loads(PLACE.backend.objects[PLACE.key][0])
    del manifest["digest"]
    manifest["packs"] = [[name, nbytes if name == pack else size] for name, size in manifest["packs"] if named or name != pack]
    PLACE.put_manifest(manifest)
    assert check("a giant pack")
    for field in ("nbytes", "new_bytes", "tensors"):
        PLACE.put_manifest(PLACE.manifest() | {field: nbytes})
        assert check(f"a giant {field}")


@pytest.mark.parametrize("number", [0, 1])
def test_every_lie_in_an_index_is_a_clear_error(number: int) -> None:
    """Each node of its document replaced, left out, or there twice, with the digests made to fit."""
    document, columns = PLACE.index(number)
    refused = told = 0
    for way, lie in itertools.islice(lies(document), 0, None, 1 + 3 * number):  # the second is like the first
        PLACE.put_index(number, lie, columns)
        told += 1
        refused += check(f"{way}: {lie!r:.200}")
    assert refused > told * 0.8


@pytest.mark.parametrize(
    "versions",
    [
        {"torch": "2" * (LONGEST + 1)},
        {"t" * (LONGEST + 1): "2"},
        {f"p{number}": "2" for number in range(LONGEST + 1)},
        {"torch": 2},
        [],
        None,
    ],
    ids=["long version", "long name", "many", "number", "list", "null"],
)
def test_versions_that_are_no_short_texts_are_refused(versions: Any) -> None:
    """As every other field of a wrong kind: nobody prints megabytes."""
    document, columns = PLACE.index(0)
    PLACE.put_index(0, document | {"versions": versions}, columns)
    with pytest.raises(tk.FormatError, match=r"indexes/.*versions") as caught:
        PLACE.load()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("number", [0, 1])
def test_every_lie_in_a_chunk_table_is_a_clear_error(number: int) -> None:
    """Each value of each column replaced by the least, the most, its neighbours, and those of other rows."""
    document, columns = PLACE.index(number)
    rows = document["rows"]
    table = tables.decode(memoryview(columns), rows, [tuple(column) for column in document["columns"]], "")
    believed = []
    for name, _ in tables.COLUMNS:
        column = getattr(table, name).reshape(rows, -1)
        for row in range(rows):
            true = column[row].copy()
            others = [np.full_like(true, 0), np.full_like(true, np.iinfo(true.dtype).max), true + 1, true - 1, *column[:3]]
            for other in others:
                if np.array_equal(other, true):
                    continue
                forged = {field: getattr(table, field).copy() for field, _ in tables.COLUMNS}
                forged[name].reshape(rows, -1)[row] = other
                PLACE.put_index(number, document, b"".join(tables.encode(tables.Table(**forged))))
                if not check(f"{name} of row {row}: {other}"):
                    believed.append((name, row))
    assert not believed, believed


def test_every_truncation_and_flipped_bit_is_found() -> None:
    """Of manifest, indexes and packs; nothing that comes out differs from the truth."""
    random = np.random.default_rng(3)
    for key in [key for key in PLACE.objects if not key.startswith(names.CHECKPOINTS) or key == PLACE.key]:
        data = PLACE.objects[key][0]
        needed = key in _needed()
        for stop in {0, 1, len(data) // 2, len(data) - 1}:
            PLACE.restore()
            PLACE.backend.put(key, data[:stop])
            assert check(f"{key} cut at {stop}") == needed, key
        for bit in random.integers(0, 8 * len(data), 40).tolist():
            PLACE.restore()
            broken = bytearray(data)
            broken[bit // 8] ^= 1 << bit % 8
            PLACE.backend.put(key, bytes(broken))
            try:
                assert_same_bits(PLACE.load(), PLACE.state)
                assert not needed or not _is_read(key, bit // 8), f"{key}: bit {bit} was not found"
            except (tk.FormatError, tk.CorruptError):
                assert needed


def _needed() -> set[str]:
    manifest = PLACE.written.known.manifest
    return {
        PLACE.key,
        *(names.index_key(part.save) for part in manifest.indexes),
        *(names.pack_key(pack.name) for pack in manifest.packs),
    }


def _is_read(key: str, byte: int) -> bool:
    """Whether a byte of a pack belongs to a chunk of this checkpoint: a keyframe's pack has others too."""
    with open_checkpoint(PLACE.backend, read_manifest(PLACE.backend, PLACE.key)) as contents:
        joined = contents.storage.joined
        mine = [names.pack_key(joined.packs[number]) == key for number in joined.table.pack.tolist()]
        offset, length = joined.table.offset[mine], joined.table.length[mine]
        return bool(((offset <= byte) & (byte < offset + length)).any())


@settings(max_examples=40)
@given(st.binary(max_size=400))
def test_any_bytes_as_manifest_index_or_table_are_refused(data: bytes) -> None:
    """Nothing but what the format says is taken for it."""
    for key in (PLACE.key, names.index_key(PLACE.written.known.manifest.indexes[0].save)):
        PLACE.restore()
        PLACE.backend.put(key, data)
        assert check("noise")
    PLACE.restore()
    document, columns = PLACE.index(0)
    PLACE.put_index(0, document, data + columns[len(data) :])
    check("noise in columns")
    PLACE.put_index_bytes(0, MAGIC + data)
    assert check("noise as index")


def test_a_hostile_run_folder_does_nothing_that_a_reader_must_not(tmp_path: Path) -> None:
    """In a process of its own, watched: names that lead out, links, sparse giants, and lies about sizes open, import and write nothing."""
    folders: list[Path] = []

    def folder(name: str, change: Callable[[Path, dict[str, Any]], None]) -> None:
        root = tmp_path / name
        for key, (data, _, _) in PLACE.objects.items():
            if key != names.checkpoint_key(1):
                (root / key).parent.mkdir(parents=True, exist_ok=True)
                (root / key).write_bytes(data)
        (root / names.STORE).write_bytes(manifests.encode_settings())
        document = PLACE.manifest()
        change(root, document)
        PLACE.put_manifest(document)
        (root / PLACE.key).write_bytes(PLACE.backend.objects[PLACE.key][0])
        PLACE.restore()
        folders.append(root)

    def link(root: Path, _: dict[str, Any]) -> None:
        pack = sorted((root / "packs").iterdir())[-1]
        pack.unlink()
        pack.symlink_to("/etc/passwd")

    def giant(root: Path, document: dict[str, Any]) -> None:
        part = document["indexes"][0]
        with open(root / names.index_key(part[0]), "r+b") as file:
            file.truncate(1 << 40)
        part[1] = 1 << 40

    def large_index(root: Path, document: dict[str, Any]) -> None:
        part = document["indexes"][0]
        with open(root / names.index_key(part[0]), "r+b") as file:
            file.truncate(200 << 20)
        part[1] = 200 << 20

    folder("true", lambda root, document: None)
    folder("out", lambda root, document: document["packs"].append(["../../../etc/passwd", 100]))
    folder("link", link)
    folder("giant", giant)
    folder("large index", large_index)
    folder("packs", lambda root, document: document["packs"].extend([f"{n:016x}-0-0", 1] for n in range(100_000)))
    outcomes = {Path(outcome.path).name: outcome for outcome in look(folders, scan=False)}
    assert {name: outcome.problems() for name, outcome in outcomes.items() if outcome.problems()} == {}
    assert outcomes["true"].kind == "read" and outcomes["true"].tensors == 4
    assert {name for name, outcome in outcomes.items() if outcome.kind == "read"} <= {"true", "packs"}


def _moved(shard: Shard) -> Shard:
    return msgspec.structs.replace(shard, offset=tuple(0 for _ in shard.offset))


@pytest.mark.parametrize(
    ("rank", "lie", "said"),
    [
        (1, _moved, "overlap, or leave holes"),
        (1, lambda shard: msgspec.structs.replace(shard, dtype="I64"), "do not agree"),
        (1, lambda shard: msgspec.structs.replace(shard, shape=(*shard.shape[:-1], shard.shape[-1] + 1)), "do not agree"),
        (1, lambda shard: msgspec.structs.replace(shard, shape=shard.own_shape, offset=(), extent=()), "do not agree"),
        (0, lambda shard: msgspec.structs.replace(shard, shape=shard.own_shape, offset=(), extent=()), "twice"),
        (1, lambda shard: msgspec.structs.replace(shard, path="other"), "overlap, or leave holes"),
        (1, lambda shard: msgspec.structs.replace(shard, offset=shard.shape), "a shard at"),
        (1, lambda shard: msgspec.structs.replace(shard, offset=shard.offset[1:], extent=shard.extent[1:]), "a shard at"),
    ],
)
def test_parts_of_a_tensor_that_do_not_tile_it_are_refused(rank: int, lie: Callable[[Shard], Shard], said: str) -> None:
    """Of two ranks, one says that its part is elsewhere, of another type or shape, or the whole: an error that names the tensor."""

    def change(number: int, fields: dict[str, Any]) -> None:
        if number == rank:
            fields["groups"] = {name: [lie(shard) for shard in shards] for name, shards in fields["groups"].items()}

    backend = MemoryBackend()
    written = Writer(backend).write({"w": np.arange(24.0).reshape(4, 6)}, 1, shards=grid(2, 2), change=change)
    with pytest.raises(tk.FormatError, match=said) as caught:
        open_checkpoint(backend, written.known)
    assert "'w'" in str(caught.value) or "'other'" in str(caught.value)


def test_a_rank_that_is_missing_leaves_a_hole() -> None:
    """A manifest that names one index of two has not the whole of any tensor."""
    backend = MemoryBackend()
    written = Writer(backend).write({"w": np.arange(24.0).reshape(4, 6)}, 1, shards=grid(2, 2))
    manifest = msgspec.structs.replace(written.known.manifest, indexes=written.known.manifest.indexes[:1])
    backend.put(written.known.key, manifests.encode(manifest))
    with pytest.raises(tk.FormatError, match="leave holes"):
        open_checkpoint(backend, read_manifest(backend, written.known.key))

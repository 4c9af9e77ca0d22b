"""Orbax's folders, Zarr arrays and OCDBT: read as TensorStore reads them, lazily, and refused clearly where broken."""

import gzip
import itertools
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorkeep as tk
from tensorkeep.tree import walk

try:
    from compression import zstd
except ImportError:
    from backports import zstd  # type: ignore[no-redef]  # the standard library's own, before 3.14

# --- Small writers, by the formats' descriptions --------------------------------------------------------------------------------------


def crc32c(data: bytes) -> int:
    """Bit by bit, as RFC 3720 has it."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def blosc(data: bytes, *, item: int = 4, flags: int = 0x71, block: int | None = None) -> bytes:
    """A chunk of Blosc: shuffled by bytes, packed by zlib, in one block that is not split."""
    size = len(data) if block is None else block
    shuffled = np.frombuffer(data, np.uint8).reshape(-1, item).T.tobytes()
    stream = zlib.compress(shuffled)
    stream = shuffled if len(stream) >= len(shuffled) else stream
    whole = struct.pack("<I", 20) + struct.pack("<i", len(stream)) + stream
    return bytes([2, 1, flags, item]) + struct.pack("<III", len(data), size, 16 + len(whole)) + whole


PACK: Final[dict[str, Callable[[bytes], bytes]]] = {
    "zstd": zstd.compress,
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "blosc": blosc,
    "": bytes,
}

Store = dict[str, bytes]


def blocks(value: np.ndarray, chunk: tuple[int, ...]) -> dict[tuple[int, ...], np.ndarray]:
    """The blocks of a grid, those at the edges filled up."""
    grid = [range(-(-length // each)) for length, each in zip(value.shape, chunk, strict=True)]
    found = {}
    for place in itertools.product(*grid):
        part = value[tuple(slice(i * each, (i + 1) * each) for i, each in zip(place, chunk, strict=True))]
        full = np.full(chunk, 9, value.dtype)
        full[tuple(slice(length) for length in part.shape)] = part
        found[place] = full
    return found


def zarr2(value: np.ndarray, chunk: tuple[int, ...], *, codec: str = "zstd", dtype: str = "", **other: Any) -> Store:
    """An array of version 2."""
    order = other.get("order", "C")
    document = {"zarr_format": 2, "shape": value.shape, "chunks": chunk, "dtype": dtype or value.dtype.str, "fill_value": 0, "order": order}
    document |= {"compressor": {"id": codec} if codec else None, "filters": None} | other
    store = {".zarray": json.dumps(document).encode()}
    for place, part in blocks(value, chunk).items():
        name = document.get("dimension_separator", ".").join(map(str, place)) or "0"
        store[name] = PACK[codec](part.tobytes(order))
    return store


def zarr3(
    value: np.ndarray, chunk: tuple[int, ...], *, inner: tuple[int, ...] = (), dtype: str = "", summed: bool = False, order: Any = None
) -> Store:
    """An array of version 3, in shards if there are inner chunks."""

    def packed(part: np.ndarray) -> bytes:
        data = PACK["zstd"]((part.transpose(order) if order else part).tobytes())
        return data + struct.pack("<I", crc32c(data)) if summed else data

    codecs: list[Any] = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd", "configuration": {"level": 1}}]
    codecs = (
        ([{"name": "transpose", "configuration": {"order": order}}] if order else []) + codecs + ([{"name": "crc32c"}] if summed else [])
    )
    store = {}
    for place, part in blocks(value, chunk).items():
        data = packed(part)
        if inner:
            data, index = b"", []
            for piece in blocks(part, inner).values():
                index.append((len(data), len(packed(piece))))
                data += packed(piece)
            table = b"".join(struct.pack("<QQ", *row) for row in index)
            data += table + struct.pack("<I", crc32c(table))
        store["/".join(["c", *map(str, place)])] = data
    if inner:
        configuration = {"chunk_shape": inner, "codecs": codecs, "index_codecs": [{"name": "bytes"}, {"name": "crc32c"}]}
        codecs = [{"name": "sharding_indexed", "configuration": configuration}]
    document = {"zarr_format": 3, "node_type": "array", "shape": value.shape, "data_type": dtype or value.dtype.name, "fill_value": 0}
    document |= {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}}, "codecs": codecs}
    document |= {"chunk_key_encoding": {"name": "default"}}
    return {"zarr.json": json.dumps(document).encode()} | store


def framed(magic: int, body: bytes, *, packed: bool = True) -> bytes:
    body = PACK["zstd"](body) if packed else body
    out = struct.pack(">I", magic) + struct.pack("<Q", 18 + len(body)) + bytes([0, packed]) + body
    return out + struct.pack("<I", crc32c(out))


def column(values: list[int]) -> bytes:
    return b"".join(map(varint, values))


def files(paths: list[str]) -> bytes:
    """A table of data files that share nothing."""
    return (
        varint(len(paths))
        + column([0] * (len(paths) - 1))
        + column([len(p) for p in paths])
        + column([0] * len(paths))
        + "".join(paths).encode()
    )


def keys(names: list[bytes]) -> tuple[bytes, list[bytes]]:
    """Shared and own lengths, and what each has of its own."""
    shared = [
        next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
        for one, two in itertools.pairwise(names)
    ]
    own = [name[cut:] for name, cut in zip(names, [0, *shared], strict=True)]
    return column(shared) + column([len(part) for part in own]), own


def ocdbt(store: Store, *, each: int = 4, inline: int = 20, path: str = "d/0") -> tuple[bytes, bytes]:
    """A database with two storeys: the manifest, and its one data file."""
    data = b""

    def add(content: bytes) -> tuple[int, int]:
        nonlocal data
        data += content
        return len(data) - len(content), len(content)

    names = sorted(name.encode() for name in store)
    children = []
    for group in (
        itertools.batched(names, each) if hasattr(itertools, "batched") else [names[i : i + each] for i in range(0, len(names), each)]
    ):
        values = [store[name.decode()] for name in group]
        places = [add(value) for value in values if len(value) > inline]
        cut = 0 if len(names) == len(group) else 1 if len({name[:1] for name in group}) == 1 else 0
        lengths, own = keys([name[cut:] for name in group])
        body = b"\0" + files([path]) + varint(len(group)) + lengths + b"".join(own)
        body += column([len(value) for value in values]) + bytes(len(value) > inline for value in values)
        body += (
            column([0] * len(places)) + column([start for start, _ in places]) + b"".join(value for value in values if len(value) <= inline)
        )
        children.append((group[0], cut, add(framed(0x0CDB20DE, body))))
    height = 0
    start, nbytes = children[0][2]
    if len(children) > 1:
        lengths, own = keys([name for name, _, _ in children])
        body = b"\1" + files([path]) + varint(len(children)) + lengths + column([cut for _, cut, _ in children]) + b"".join(own)
        body += column([0] * len(children)) + column([place[0] for *_, place in children]) + column([place[1] for *_, place in children])
        body += column([1] * 3 * len(children))
        height = 1
        start, nbytes = add(framed(0x0CDB20DE, body, packed=False))
    version = varint(1) + varint(1) + bytes([height]) + varint(0) + varint(start) + varint(nbytes) + varint(1) * 3 + bytes(8)
    body = bytes(16) + column([0, 100, 1 << 20]) + b"\4" + varint(1) + struct.pack("<i", 0) + files([path]) + version + varint(0)
    return framed(0x0CDB3A2A, body), data


def put(folder: Path, store: Store) -> None:
    for name, data in store.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def below(name: str, store: Store) -> Store:
    return {f"{name}/{key}": data for key, data in store.items()}


def put_database(folder: Path, store: Store, **options: Any) -> None:
    manifest, data = ocdbt(store, **options)
    put(folder, {"manifest.ocdbt": manifest, "d/0": data})


def described(leaves: dict[tuple[Any, ...], str], **other: Any) -> bytes:
    """What Orbax says of a tree: for each way, whose whole numbers are places in a sequence, the kind of its leaf."""
    tree = {
        str(way): {
            "key_metadata": [{"key": str(key), "key_type": 1 if isinstance(key, int) else 2} for key in way],
            "value_metadata": {"value_type": kind, "skip_deserialize": kind in ("None", "Dict", "List")},
        }
        for way, kind in leaves.items()
    }
    return json.dumps({"tree_metadata": tree, "use_ocdbt": True, "store_array_data_equal_to_fill_value": True} | other).encode()


# --- Zarr -----------------------------------------------------------------------------------------------------------------------------

VALUE: Final = np.arange(7 * 5, dtype=np.float32).reshape(7, 5)


def arrays() -> dict[str, tuple[np.ndarray, Store]]:
    half = VALUE.astype(ml_dtypes.bfloat16)
    return {
        **{f"2, {codec or 'bare'}": (VALUE, zarr2(VALUE, (3, 2), codec=codec)) for codec in PACK},
        "2, one bare chunk": (VALUE, zarr2(VALUE, (7, 5), codec="")),
        "2, slashes": (VALUE, zarr2(VALUE, (3, 2), dimension_separator="/")),
        "2, Fortran": (VALUE, zarr2(VALUE, (3, 2), order="F")),
        "2, big-endian": (VALUE, zarr2(VALUE.astype(">f4"), (3, 2))),
        "2, bfloat16": (half, zarr2(half, (4, 5), dtype="bfloat16")),
        "2, a scalar": (np.array(7), zarr2(np.array(7), ())),
        "3": (VALUE, zarr3(VALUE, (3, 2))),
        "3, checksums": (VALUE, zarr3(VALUE, (3, 2), summed=True)),
        "3, transposed": (VALUE, zarr3(VALUE, (3, 2), order=[1, 0])),
        "3, shards": (VALUE, zarr3(VALUE, (4, 4), inner=(2, 2))),
        "3, one shard": (half, zarr3(half, (8, 6), inner=(2, 3), dtype="bfloat16")),
        "3, a scalar": (np.array(7), zarr3(np.array(7), (), inner=())),
    }


ARRAYS: Final = arrays()


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_reads_whole_and_by_rows(tmp_path: Path, name: str) -> None:
    """Whatever its chunks, shards, order and codec."""
    value, store = ARRAYS[name]
    value = value.astype(value.dtype.newbyteorder("=")) if value.dtype.byteorder == ">" else value
    put(tmp_path / "z", below("w", store))
    with tk.open(tmp_path / "z") as contents:
        tensor = contents.tensors["w"]
        assert tensor.numpy().dtype == value.dtype and tensor.numpy().tobytes() == value.tobytes()
        for start, stop in itertools.combinations(range(value.shape[0] + 1) if value.ndim else (), 2):
            assert tensor[start:stop].tobytes() == value[start:stop].tobytes()
    loaded = tk.load(tmp_path / "z")["w"]
    assert loaded.tobytes() == value.tobytes()


def test_a_chunk_that_is_not_there_is_the_fill_value(tmp_path: Path) -> None:
    """As Zarr has it, by number, by word and by bits."""
    for fill, wanted in ((2.5, 2.5), ("NaN", np.nan), ("-Infinity", -np.inf), ("0x3fc00000", 1.5), (None, 0)):
        store = zarr2(VALUE, (3, 2), fill_value=fill)
        del store["1.0"]
        put(tmp_path / "z", store)
        (tmp_path / "z" / "1.0").unlink(missing_ok=True)
        with tk.open(tmp_path / "z") as contents:
            found = next(iter(contents.tensors.values())).numpy()
            np.testing.assert_array_equal(found[3:6, :2], np.full((3, 2), wanted, np.float32))
            np.testing.assert_array_equal(found[:3], VALUE[:3])


def test_many_chunks_beside_each_other_read_too(tmp_path: Path) -> None:
    """More than can be kept open at once are unpacked together."""
    value = np.arange(3 * 200, dtype=np.int16).reshape(3, 200)
    put(tmp_path / "z", below("w", zarr2(value, (2, 1))))
    with tk.open(tmp_path / "z") as contents:
        assert contents.tensors["w"][1:].tolist() == value[1:].tolist()
        assert contents.tensors["w"].numpy().tolist() == value.tolist()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_grid_gives_any_rows(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever shape, chunks and shards."""
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    inner = tuple(data.draw(st.integers(1, 4)) for _ in shape)
    chunk = tuple(each * data.draw(st.integers(1, 2)) for each in inner)
    value = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    store = zarr3(value, chunk, inner=inner if data.draw(st.booleans()) else ())
    folder = tmp_path_factory.mktemp("grid")
    put(folder, below("w", store))
    start, stop = sorted(data.draw(st.tuples(st.integers(0, 6), st.integers(0, 6))))
    with tk.open(folder) as contents:
        assert contents.tensors["w"][start:stop].tolist() == value[start:stop].tolist()


# --- Orbax ----------------------------------------------------------------------------------------------------------------------------


def item() -> Store:
    """The keys of one item."""
    store = below("params.w", zarr2(VALUE, (3, 2))) | below("opt.0", zarr3(np.ones(3), (3,), inner=(3,)))
    return store | below("step", zarr2(np.array(5), ()))


TREE: Final = {
    ("params", "w"): "jax.Array",
    ("params", "none"): "None",
    ("params", "empty"): "Dict",
    ("opt", 0): "np.ndarray",
    ("opt", 1): "None",
    ("step",): "scalar",
    ("name",): "string",
}


def put_item(folder: Path, *, database: bool = True) -> None:
    put_database(folder, item()) if database else put(folder, item())
    put(folder, {"_METADATA": described(TREE), "_strings.json": b'{"name": "net"}', "commit_success.txt": b"done"})


def assert_is_item(tree: Any) -> None:
    assert tree["params"]["none"] is None and tree["params"]["empty"] == {} and tree["step"] == 5 and tree["name"] == "net"
    assert type(tree["opt"]) is list and tree["opt"][1] is None
    assert np.asarray(tree["params"]["w"]).tobytes() == VALUE.tobytes()
    assert np.asarray(tree["opt"][0]).tolist() == [1, 1, 1]


@pytest.mark.parametrize("database", [True, False], ids=["OCDBT", "folders"])
def test_an_item_reads_with_its_structure(tmp_path: Path, database: bool) -> None:
    """Dicts, lists, arrays, scalars, texts and what is empty, in their places."""
    put_item(tmp_path / "c", database=database)
    with tk.open(tmp_path / "c") as contents:
        assert contents.format == "Orbax checkpoint"
        assert_is_item(contents.tree)
        assert list(contents.tensors) == ["params.w", "opt.0"]
    assert_is_item(tk.load(tmp_path / "c"))


def test_the_newest_step_of_a_manager_is_opened(tmp_path: Path) -> None:
    """And told, with the others; a save that was not finished does not count."""
    for step in ("2", "10", "11.orbax-checkpoint-tmp-5"):
        put_item(tmp_path / step / "state")
        put(tmp_path / step, {"_CHECKPOINT_METADATA": b'{"metrics": {"loss": 0.5}}', "meta/metadata": b'{"s": %d}' % int(step[:2])})
    with tk.open(tmp_path) as contents:
        assert contents.metadata["step"] == 10 and contents.metadata["metrics"] == {"loss": 0.5}
        assert contents.tree["meta"] == {"s": 10}
        assert_is_item(contents.tree["state"])
        assert "11.orbax" in contents.left_out[0] and "2" in contents.left_out[1]
    put_item(tmp_path / "12" / "default")
    put(tmp_path / "12", {"_CHECKPOINT_METADATA": b"{}"})
    assert_is_item(tk.load(tmp_path))
    assert tk.open(tmp_path / "2").tree["meta"] == {"s": 2}


def test_a_folder_is_none_for_what_lies_far_below_it(tmp_path: Path) -> None:
    """A folder of downloads is no checkpoint, though one may lie somewhere in it."""
    put_item(tmp_path / "downloads" / "models" / "mine")
    assert_is_item(tk.load(tmp_path / "downloads" / "models" / "mine"))
    with pytest.raises(IsADirectoryError):
        tk.show(tmp_path / "downloads")


def test_an_older_release_with_its_messagepack_reads(tmp_path: Path) -> None:
    """Small values in the file, places held for the large ones; a place for what is not there stays empty and is told."""
    held = {"params": {"w": "PLACEHOLDER://params.w"}, "step": 5, "gone": "PLACEHOLDER://../../secret"}
    put(tmp_path, below("params.w", zarr2(VALUE, (3, 2))) | {"checkpoint": msgspec.msgpack.encode(held)})
    with tk.open(tmp_path) as contents:
        assert contents.tensors["params.w"].numpy().tobytes() == VALUE.tobytes()
        assert contents.tree["step"] == 5 and contents.tree["gone"] is None
        assert "gone" in contents.left_out[0]


def test_a_checkpoint_of_t5x_reads(tmp_path: Path) -> None:
    """TensorStore's settings in the MessagePack name folders; nothing beside those in the checkpoint is opened for them."""
    settings_of = {
        name: {"driver": "zarr", "kvstore": {"driver": "file", "path": f"/somewhere/{name}/"}, "metadata": {}}
        for name in ("target.w", "lost")
    }
    held = {"version": 3, "optimizer": {"target": {"w": settings_of["target.w"]}, "lost": settings_of["lost"]}}
    put(tmp_path, below("target.w", zarr2(VALUE, (3, 2), codec="gzip")) | {"checkpoint": msgspec.msgpack.encode(held)})
    with tk.open(tmp_path) as contents:
        assert list(contents.tensors) == ["optimizer.target.w"] and contents.tree["version"] == 3
        assert contents.tensors["optimizer.target.w"].numpy().tobytes() == VALUE.tobytes()
        assert contents.tree["optimizer"]["lost"] is None and "lost" in contents.left_out[0]


def test_a_database_and_a_folder_of_arrays_read_without_a_description(tmp_path: Path) -> None:
    """Each array by its path, with dots."""
    put_database(tmp_path / "o", below("a/b", zarr2(VALUE, (3, 2))))
    put(tmp_path / "z", below("a/b", zarr2(VALUE, (3, 2))) | {".zgroup": b'{"zarr_format": 2}'})
    for name, kind in (("o", "OCDBT database"), ("z", "Zarr arrays")):
        with tk.open(tmp_path / name) as contents:
            assert contents.format == kind and list(contents.tensors) == ["a.b"]


def test_a_chunk_that_orbax_wrote_and_is_not_there_is_told(tmp_path: Path) -> None:
    """Where all chunks were written, one that is missing is no fill value but a loss."""
    put_item(tmp_path / "c", database=False)
    (tmp_path / "c" / "params.w" / "1.1").unlink()
    with pytest.raises(tk.FormatError, match=r"params.w: 1 of its chunks"):
        tk.open(tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "params.w")
    with pytest.raises(tk.FormatError, match="data are not there"):
        tk.open(tmp_path / "c")


# --- What is broken -------------------------------------------------------------------------------------------------------------------


def changed(**other: Any) -> Store:
    return zarr2(VALUE, (3, 2), **other)


def bloscs(**other: Any) -> Store:
    store = zarr2(VALUE, (7, 5), codec="blosc")
    return store | {"0.0": blosc(VALUE.tobytes(), **other)}


BROKEN: Final[dict[str, tuple[Store, str]]] = {
    "a codec that is not read": (changed() | {".zarray": zarr2(VALUE, (3, 2))[".zarray"].replace(b'"zstd"', b'"lzf"')}, "lzf"),
    "Blosc's own codec": (bloscs(flags=0x01), "blosclz"),
    "Blosc of another size": (bloscs(block=1 << 20), "blocks"),
    "Blosc that is cut short": ({key: data if key[0] == "." else data[:-1] for key, data in bloscs().items()}, "are there"),
    "a filter": (changed(filters=[{"id": "delta"}]), "filters"),
    "an unknown dtype": (changed(dtype="|O"), "dtype"),
    "a version to come": (changed(zarr_format=4), "format 4"),
    "chunks of nothing": (changed(chunks=[0, 2]), "chunks"),
    "chunks of another rank": (changed(chunks=[3]), "chunks"),
    "a shape that no memory holds": (changed(shape=[2**40, 2**40]), "memory|chunks"),
    "a huge shape of few bytes": (changed(shape=[2**20, 2**20], chunks=[3, 2]), "bytes"),
    "rows of a chunk out of proportion": (changed(chunks=[3, 2**30]), "chunks"),
    "a negative length": (changed(shape=[-7, 5]), "shape"),
    "a key twice": (changed() | {".zarray": b'{"zarr_format": 2, "zarr_format": 3}'}, "twice"),
    "no JSON": (changed() | {".zarray": b"{"}, "JSON"),
    "metadata nested deeply": (changed() | {".zarray": b"[" * 5000 + b"]" * 5000}, "JSON|deep"),
    "two versions of metadata": (changed() | {"zarr.json": b"{}"}, "two versions"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_array_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    """Each lie has its sentence, at the latest when the array is read."""
    store, word = BROKEN[name]
    put(tmp_path, below("w", store))
    with pytest.raises(tk.FormatError, match=word):
        tk.load(tmp_path)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "d/../../secret", "link"])
def test_a_database_leads_nowhere_else(tmp_path: Path, path: str) -> None:
    """A data file is a plain file inside the folder."""
    manifest, data = ocdbt(item(), path=path)
    put(tmp_path, {"secret": data, "c/manifest.ocdbt": manifest, "c/d/0": data})
    (tmp_path / "c" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(tk.FormatError, match=r"name|link"):
        tk.open(tmp_path / "c")


def test_a_changed_byte_of_a_node_is_damage(tmp_path: Path) -> None:
    """Manifest and nodes have a checksum, which is compared before anything in them is believed; so has the index of a shard."""
    store = small()
    put(tmp_path, store)
    for file, start in (("manifest.ocdbt", 12), ("d/0", store["d/0"].rindex(struct.pack(">I", 0x0CDB20DE)) + 12)):
        for place in range(start, len(store[file])):
            (tmp_path / file).write_bytes(store[file][:place] + bytes([store[file][place] ^ 0x10]) + store[file][place + 1 :])
            with pytest.raises(tk.CorruptError, match="CRC-32C"):
                tk.open(tmp_path)
        (tmp_path / file).write_bytes(store[file])
    shard = zarr3(VALUE, (8, 6), inner=(2, 3))
    shard["c/0/0"] = shard["c/0/0"][:-10] + bytes([shard["c/0/0"][-10] ^ 1]) + shard["c/0/0"][-9:]
    put(tmp_path / "z", below("w", shard))
    with pytest.raises(tk.FormatError, match="CRC-32C"):
        tk.load(tmp_path / "z")


def test_a_node_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """Neither a loop nor a shared node can make a small database large."""
    leaf = framed(0x0CDB20DE, b"\0" + files(["d/0"]) + varint(1) + column([1]) + b"k" + column([1]) + b"\0" + b"v")
    lengths, own = keys([b"a", b"b"])
    body = (
        b"\1"
        + files(["d/0"])
        + varint(2)
        + lengths
        + column([1, 1])
        + b"".join(own)
        + column([0, 0, 0, 0, len(leaf), len(leaf)])
        + column([1] * 6)
    )
    root = framed(0x0CDB20DE, body)
    version = varint(1) + varint(1) + b"\1" + column([0, len(leaf), len(root), 1, 1, 1]) + bytes(8)
    manifest = bytes(16) + column([0, 100, 1 << 20]) + b"\4" + varint(0) + files(["d/0"]) + version + varint(0)
    put(tmp_path, {"manifest.ocdbt": framed(0x0CDB3A2A, manifest), "d/0": leaf + root})
    with pytest.raises(tk.FormatError, match="twice in one tree"):
        tk.open(tmp_path)


def test_a_tree_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    """A leaf below a leaf, a leaf without data, a way that is too long."""
    put(tmp_path, item())
    ways: list[tuple[dict[tuple[Any, ...], str], str]] = [
        ({("step",): "scalar", ("step", "x"): "None"}, "below|others"),
        ({("lost",): "jax.Array"}, "not there"),
        ({("x",) * 300: "None"}, "deeper"),
        ({("a", 0): "None", ("a", "0"): "None"}, "two kinds"),
    ]
    for leaves, word in ways:
        (tmp_path / "_METADATA").write_bytes(described(leaves))
        with pytest.raises(tk.FormatError, match=word):
            tk.open(tmp_path)


def outcome(folder: Path) -> None:
    """Reads all of it, or is refused as the library refuses."""
    try:
        with tk.open(folder) as contents:
            for _, leaf in walk(contents.tree):
                if isinstance(leaf, tk.LazyTensor):
                    leaf.tobytes()
    except (tk.TensorkeepError, IsADirectoryError):
        pass


def small() -> Store:
    manifest, data = ocdbt(below("w", zarr3(VALUE[:2], (2, 5), inner=(1, 5))), each=1)
    return {"manifest.ocdbt": manifest, "d/0": data, "_METADATA": described({("w",): "jax.Array"})}


@pytest.mark.parametrize("file", ["manifest.ocdbt", "d/0", "_METADATA"])
def test_every_truncation_and_every_flipped_byte_ends_clearly(tmp_path: Path, file: str) -> None:
    """Of each file of a checkpoint: only errors of the library, or a reading."""
    store = small()
    put(tmp_path, store)
    good = store[file]
    for place in range(0, len(good), 3 if file == "d/0" else 1):
        (tmp_path / file).write_bytes(good[:place] + bytes([good[place] ^ (1 if place % 2 else 0x80)]) + good[place + 1 :])
        outcome(tmp_path)
        if place % 9 == 0:
            (tmp_path / file).write_bytes(good[:place])
            outcome(tmp_path)


@pytest.mark.parametrize("codec", ["blosc", "zstd", ""])
def test_every_flipped_byte_of_a_chunk_ends_clearly(tmp_path: Path, codec: str) -> None:
    """Only errors of the library, or a reading; a chunk that is cut short is never read."""
    value = np.arange(20, dtype=np.float32)
    store = below("w", zarr2(value, (20,), codec=codec))
    put(tmp_path, store)
    good = store["w/0"]
    for place in range(len(good)):
        for bits in (0x01, 0x80):
            (tmp_path / "w" / "0").write_bytes(good[:place] + bytes([good[place] ^ bits]) + good[place + 1 :])
            outcome(tmp_path)
        (tmp_path / "w" / "0").write_bytes(good[:place])
        with pytest.raises(tk.TensorkeepError):
            tk.load(tmp_path)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_any_node_with_the_right_checksum_ends_clearly(tmp_path_factory: pytest.TempPathFactory, body: bytes, manifest: bool) -> None:
    """What a checksum does not say is looked at all the same."""
    folder = tmp_path_factory.mktemp("node")
    if manifest:
        put(folder, {"manifest.ocdbt": framed(0x0CDB3A2A, body, packed=False)})
    else:
        node = framed(0x0CDB20DE, body, packed=False)
        version = varint(1) + varint(1) + body[:1].ljust(1, b"\0") + column([0, 0, len(node), 1, 1, 1]) + bytes(8)
        whole = bytes(16) + column([0, 100, 1 << 20]) + b"\4" + varint(0) + files(["d/0"]) + version + varint(0)
        put(folder, {"manifest.ocdbt": framed(0x0CDB3A2A, whole), "d/0": node})
    outcome(folder)


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["shape", "chunks", "dtype", "compressor", "fill_value", "order", "filters", "dimension_separator", "zarr_format"]),
    st.data(),
)
def test_any_value_in_the_metadata_ends_clearly(tmp_path_factory: pytest.TempPathFactory, key: str, data: st.DataObject) -> None:
    """One node of the JSON at a time."""
    folder = tmp_path_factory.mktemp("json")
    numbers = st.integers(-2, 2**64) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4) | st.none() | st.booleans()
    value = data.draw(numbers | st.lists(numbers, max_size=3) | st.dictionaries(st.text(max_size=3), numbers, max_size=2))
    put(
        folder,
        below(
            "w",
            zarr2(VALUE, (3, 2)) | {".zarray": zarr2(VALUE, (3, 2), **{key: value})[".zarray"]}
            if key not in ("order", "dimension_separator")
            else below_json(key, value),
        ),
    )
    outcome(folder)


def below_json(key: str, value: object) -> Store:
    store = zarr2(VALUE, (3, 2))
    return store | {".zarray": json.dumps(json.loads(store[".zarray"]) | {key: value}).encode()}


# --- Genuine tools --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
def test_tensorstore_itself_agrees(tmp_path: Path, driver: str) -> None:
    """What TensorStore writes into OCDBT, in hundreds of arrays, reads bit for bit."""
    ts = pytest.importorskip("tensorstore")
    other = {"metadata": {"compressor": {"id": "zstd"}}} if driver == "zarr" else {}
    values = {
        f"layer{i}/{name}": np.random.default_rng(i).integers(0, 255, (5, i + 1)).astype(kind)
        for i in range(40)
        for name, kind in (("w", "f4"), ("b", "i2"))
    }
    for path, value in values.items():
        store = {"driver": "ocdbt", "base": f"file://{tmp_path}/o/", "path": f"{path}/", "config": {"max_decoded_node_bytes": 4096}}
        ts.open({"driver": driver, "kvstore": store} | other, dtype=value.dtype, shape=value.shape, create=True).result().write(
            value
        ).result()
    with tk.open(tmp_path / "o") as contents:
        assert len(contents.tensors) == len(values)
        for path, value in values.items():
            found = contents.tensors[path.replace("/", ".")].numpy()
            assert found.dtype == value.dtype and found.tobytes() == value.tobytes()


@pytest.mark.parametrize("codec", ["lz4", "zstd", "zlib", "lz4hc"])
@pytest.mark.parametrize("shuffle", [0, 1, 2])
def test_blosc_itself_agrees(tmp_path: Path, codec: str, shuffle: int) -> None:
    """What numcodecs packs, in blocks that are split and such that are not."""
    numcodecs = pytest.importorskip("numcodecs")
    value = np.arange(30_000, dtype=np.float32)
    for block in (0, 4096):
        store = zarr2(value, (30_000,), codec="blosc") | {"0": numcodecs.Blosc(codec, shuffle=shuffle, blocksize=block).encode(value)}
        put(tmp_path, below("w", store))
        assert tk.load(tmp_path)["w"].tobytes() == value.tobytes()


def test_orbax_itself_agrees(tmp_path: Path) -> None:
    """What `PyTreeCheckpointer` writes reads as it restores it."""
    ocp = pytest.importorskip("orbax.checkpoint")
    jnp = pytest.importorskip("jax.numpy")
    state = {"p": {"w": jnp.arange(12.0).reshape(3, 4), "b": jnp.ones(2, jnp.bfloat16)}, "l": [jnp.zeros(2), None, {}], "n": 3, "s": "text"}
    ocp.PyTreeCheckpointer().save(tmp_path / "c", state)
    with tk.open(tmp_path / "c") as contents:
        assert contents.tree["n"] == 3 and contents.tree["s"] == "text" and contents.tree["l"][1:] == [None, {}]
        np.testing.assert_array_equal(contents.tensors["p.w"].numpy(), np.asarray(state["p"]["w"]))
        np.testing.assert_array_equal(contents.tensors["p.b"].numpy(), np.asarray(state["p"]["b"]))

"""Reading checkpoints: whatever codecs, packs, ranks and shards made them, the same bits come back, and only what is needed is read."""

import errno
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tensorkeep as tk
from memory_backend import MemoryBackend
from same import assert_same_bits
from storewriter import Writer, Written, grid, whole
from strategies import states
from tensorkeep.contents import Contents
from tensorkeep.loading import load_contents
from tensorkeep.store import manifest as manifests
from tensorkeep.store import names
from tensorkeep.store.averaging import average
from tensorkeep.store.boxes import boxes_of, position, slices, tile
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.checkpoint import open_checkpoint
from tensorkeep.store.known import read as read_manifest

STORED, CONSTANT, PLANES, DELTA = range(4)
SHARDS = [whole, grid(1, 2), grid(2, 3), grid(3, 2, 2), grid(2, 1, 4), grid(4, 2, 1, 3)]


class Watched(MemoryBackend):
    """A backend that notes which bytes are read."""

    def __init__(self, kind: Any = "folder") -> None:
        super().__init__(kind)
        self.ranges: list[tuple[str, int, int]] = []

    def read(self, key: str, start: int, stop: int, into: memoryview, *, alone: bool = False) -> None:
        self.ranges.append((key, start, stop))
        super().read(key, start, stop, into, alone=alone)


def state_of(seed: int = 0) -> dict[str, Any]:
    """Large and small tensors, of several types, with constants and what deltas and planes gain on."""
    random = np.random.default_rng(seed)
    tied = random.standard_normal(100).astype(np.float32)
    return {
        "embed": (random.standard_normal((700, 900)) * 0.02).astype(np.float32),
        "half": random.standard_normal((300, 40, 30)).astype(np.float16),
        "zeros": np.zeros((600, 500), np.float32),
        "masks": random.random((400, 300)) > 0.5,
        "small": [random.standard_normal(number).astype(np.float32) for number in range(20)],
        "tied": (tied, tied),
        "text": "long" * 30_000,
        "epoch": 3,
        "scalar": np.float64(0.5).reshape(()),
    }


def changed(state: dict[str, Any]) -> dict[str, Any]:
    """The same some steps later."""
    return state | {"embed": state["embed"] * np.float32(1.0001), "epoch": 4}


@contextmanager
def opened(backend: MemoryBackend, written: Written, **options: Any) -> Iterator[Contents]:
    with open_checkpoint(backend, written.known, **options) as contents:
        yield contents


def targets(state: Any) -> Any:
    """A state of the same shapes, with other numbers."""
    return {key: np.full_like(value, 1) for key, value in state.items() if isinstance(value, np.ndarray)}


@pytest.mark.parametrize("kind", ["folder", "object store"])
@pytest.mark.parametrize("codec", [(STORED,), (PLANES,), (PLANES, STORED, CONSTANT)], ids=str)
@pytest.mark.parametrize("shards", SHARDS, ids=range(len(SHARDS)))
def test_every_codec_and_every_way_to_shard_gives_the_same_bits(shards: Any, codec: tuple[int, ...], kind: Any) -> None:
    """New, into a target, in part, and by rows: bit for bit what was saved, whoever wrote which part and how it is kept."""
    backend, state = Watched(kind), state_of()
    written = Writer(backend).write(state, 7, codec=codec, shards=shards, pack_bytes=1 << 20)
    with opened(backend, written) as contents:
        assert_same_bits(load_contents(contents), state)
        target = targets(state)
        load_contents(contents, into=target)
        for key, array in target.items():
            assert_same_bits(array, state[key], key)
        assert_same_bits(load_contents(contents, only="half")["half"], state["half"])
        assert contents.tensors["embed"][100:103].tobytes() == state["embed"][100:103].tobytes()
        assert contents.tensors["half"][7, 3].tobytes() == state["half"][7, 3].tobytes()
        assert contents.storage.survey(None) == []


def test_deltas_refer_to_their_keyframe() -> None:
    """A chunk that is a delta comes back by way of its base, which lies in a pack of another checkpoint."""
    backend, state = Watched(), state_of()
    writer = Writer(backend)
    keyframe = writer.write(state, 1, codec=(PLANES, STORED))
    later = writer.write(changed(state), 2, codec=(DELTA,), keyframe=keyframe)
    with opened(backend, later) as contents:
        assert DELTA in contents.storage.joined.table.codec
        assert_same_bits(load_contents(contents), changed(state))
        target = targets(state)
        load_contents(contents, into=target)
        assert_same_bits(target["embed"], changed(state)["embed"])
        assert contents.storage.survey(None) == []


@settings(max_examples=60)
@given(states(), st.sampled_from(SHARDS), st.lists(st.sampled_from([STORED, CONSTANT, PLANES]), min_size=1, max_size=3))
def test_any_state_comes_back_from_a_checkpoint(state: object, shards: Any, codec: list[int]) -> None:
    """Whatever a file keeps, a checkpoint keeps, in however many parts."""
    backend = MemoryBackend()
    written = Writer(backend).write(state, 0, codec=codec, shards=shards)
    with opened(backend, written) as contents:
        assert_same_bits(load_contents(contents), state)


def _chunks_of(contents: Contents, path: str, wanted: np.ndarray) -> set[tuple[str, int]]:
    """Pack and offset of the chunks that hold one of the wanted bytes of a tensor; `wanted` has its shape, in bytes."""
    joined = contents.storage.joined
    found = set()
    for part in joined.tensors[path].parts:
        inside = wanted[slices((part.offset, part.lengths))] if part.lengths else wanted
        for row in np.unique(np.searchsorted(joined.grid.starts, part.start + np.flatnonzero(inside), side="right") - 1).tolist():
            found.add((names.pack_key(joined.packs[joined.table.pack[row]]), int(joined.table.offset[row])))
    return found


@pytest.mark.parametrize("shards", SHARDS, ids=range(len(SHARDS)))
def test_a_part_of_a_tensor_reads_only_the_chunks_that_hold_it(shards: Any) -> None:
    """Rows, and boxes along several axes: no byte of another chunk is read."""
    backend = Watched()
    array = np.random.default_rng(3).standard_normal((40, 300, 50)).astype(np.float32)
    written = Writer(backend).write({"w": array}, 7, shards=shards)
    for index in [np.s_[3:9], np.s_[5:7, 100:130], np.s_[1:40:7, 299, 3:8], np.s_[:, 7, 3:5], np.s_[-1, 2:3, -4:]]:
        with opened(backend, written) as contents:
            touched = np.zeros(array.shape, bool)
            touched[tuple(slice(one.start, one.stop) if isinstance(one, slice) else one for one in np.index_exp[index])] = True
            wanted = _chunks_of(contents, "w", np.repeat(touched, 4, axis=-1))
            backend.ranges.clear()
            assert_same_bits(np.ascontiguousarray(contents.tensors["w"][index]), np.ascontiguousarray(array[index]))
            joined = contents.storage.joined
            for pack, start, stop in backend.ranges:
                rows = [row for row in range(len(joined.grid)) if names.pack_key(joined.packs[joined.table.pack[row]]) == pack]
                for row in rows:
                    offset = int(joined.table.offset[row])
                    if start < offset + joined.table.length[row] and offset < stop:
                        assert (pack, offset) in wanted or _gap(joined, row)


def _gap(joined: Any, row: int) -> bool:
    """Whether a chunk is so small that it may be read to spare a request."""
    return joined.table.length[row] <= 32 << 10


def test_one_percent_of_the_rows_is_read_with_little_more() -> None:
    """Rows of a large tensor take their own bytes, a fifth more, and one chunk at most."""
    backend = Watched()
    array = np.arange(16 << 20, dtype=np.uint8).reshape(1 << 14, 1 << 10)
    written = Writer(backend).write({"w": array}, 7)
    with opened(backend, written) as contents:
        for start in (0, 100, 5_000):
            backend.ranges.clear()
            rows = contents.tensors["w"][start : start + 5_000]
            assert rows.tobytes() == array[start : start + 5_000].tobytes()
            assert sum(stop - first for _, first, stop in backend.ranges) <= 1.2 * rows.nbytes + (1 << 20)


def test_tiles_and_nothing_else() -> None:
    """What tiles a shape is told from what overlaps, leaves a hole, or does both so that the volumes fit; pinwheels are tilings."""
    pinwheel = [((0, 0), (1, 2)), ((0, 2), (2, 1)), ((2, 1), (1, 2)), ((1, 0), (2, 1)), ((1, 1), (1, 1))]
    assert tile((3, 3), pinwheel)
    assert not tile((3, 3), pinwheel[:-1])
    assert not tile((3, 3), [*pinwheel[:-1], ((0, 0), (1, 1))])  # the volume fits
    assert not tile((4,), [((0,), (2,)), ((1,), (2,))])
    assert not tile((2, 2), [((0, 0), (2, 1)), ((0, 0), (1, 2))])
    assert tile((), [((), ())])
    assert not tile((), [((), ()), ((), ())])
    many = [((number, 0), (1, 5)) for number in range(50_000)]
    assert tile((50_000, 5), many) and not tile((50_000, 5), [*many[1:], many[1]])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_a_run_of_bytes_is_few_boxes(shape: list[int], data: st.DataObject) -> None:
    """Boxes of a run, one behind the other, are the run: at most two for each axis and one, each in one run of its own."""
    nbytes = math.prod(shape)
    start = data.draw(st.integers(0, nbytes))
    stop = data.draw(st.integers(start, nbytes))
    numbers = np.arange(nbytes).reshape(shape)
    boxes = list(boxes_of(shape, start, stop))
    found: list[int] = []
    for box, at in boxes:
        assert at == len(found) and position(shape, *box) == start + at
        found += numbers[slices(box)].reshape(-1).tolist()
    assert found == list(range(start, stop)) and len(boxes) <= 2 * len(shape) + 1


@pytest.mark.parametrize("codec", [(STORED,), (PLANES,)], ids=str)
@pytest.mark.parametrize("shards", [whole, grid(2, 2, 3)], ids=["whole", "parts"])
def test_a_flipped_bit_anywhere_in_a_pack_is_named_and_changes_nothing(shards: Any, codec: tuple[int, ...]) -> None:
    """The error names tensor, pack and bytes; the target has its own numbers still; survey finds it, even where nothing depends on it."""
    backend, state = MemoryBackend(), state_of()
    written = Writer(backend).write(state, 7, codec=codec, shards=shards)
    with opened(backend, written) as contents:
        joined = contents.storage.joined
        spans = [
            (names.pack_key(joined.packs[joined.table.pack[row]]), int(joined.table.offset[row]), int(joined.table.length[row]), row)
            for row in range(len(joined.grid))
        ]
    random = np.random.default_rng(5)
    for pack, offset, length, row in spans:
        data, modified, version = backend.objects[pack]
        place = offset + int(random.integers(length))
        broken = bytearray(data)
        broken[place] ^= 1 << int(random.integers(8))
        backend.objects[pack] = bytes(broken), modified, version
        with opened(backend, written) as contents:
            paths = contents.storage.joined.paths(row)
            assert contents.storage.survey(None) == [(f"{pack}: {path}", offset, offset + length) for path in paths]
            try:
                assert_same_bits(load_contents(contents), state)
                assert codec != (STORED,), "all bits of what is stored count"
            except tk.CorruptError as error:
                assert (error.path, *error.also, error.part, error.span) == (*paths, pack, (offset, offset + length))
                assert pack in str(error) and contents.file in str(error)
                target = targets(state)
                if set(paths) & set(target):
                    with pytest.raises(tk.CorruptError):
                        load_contents(contents, into=target)
                    for key, value in targets(state).items():
                        assert_same_bits(target[key], value, key)
        backend.objects[pack] = data, modified, version


def test_damage_of_a_base_is_told_where_it_is() -> None:
    """Where a delta comes out wrong because its base is damaged, the base's pack is named."""
    backend, state = MemoryBackend(), state_of()
    writer = Writer(backend)
    keyframe = writer.write(state, 1, codec=(STORED,))
    later = writer.write(changed(state), 2, codec=(DELTA,), keyframe=keyframe)
    with opened(backend, later) as contents:
        joined = contents.storage.joined
        row = int(joined.table.base[np.flatnonzero(joined.table.codec == DELTA)[0]])
        pack, place = names.pack_key(joined.packs[joined.table.pack[row]]), int(joined.table.offset[row]) + 5
    data, modified, version = backend.objects[pack]
    backend.objects[pack] = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], modified, version
    with opened(backend, later) as contents:
        with pytest.raises(tk.CorruptError) as caught:
            load_contents(contents)
        assert caught.value.part == pack and names.save_of_pack(pack[6:-5]) == keyframe.known.manifest.save
        assert pack in {part.partition(":")[0] for part, _, _ in contents.storage.survey(None)}


def test_a_pack_that_is_missing_or_cut_short_is_damage_and_a_deleted_checkpoint_is_none() -> None:
    """Same manifest: damaged, with tensor and pack. Manifest gone or another: deleted or replaced while it was read."""
    backend, state = MemoryBackend(), state_of()
    writer = Writer(backend)
    written = writer.write(state, 7)
    (pack,) = (key for key in backend.objects if key.startswith(names.PACKS))
    whole_pack = backend.objects[pack]
    for broken in (None, (whole_pack[0][:-1], *whole_pack[1:]), (b"", *whole_pack[1:])):
        backend.objects.pop(pack)
        if broken is not None:
            backend.objects[pack] = broken
        with opened(backend, written) as contents:
            with pytest.raises(tk.CorruptError, match=pack):
                load_contents(contents)
            target = targets(state)
            with pytest.raises(tk.CorruptError):
                load_contents(contents, into=target)
            assert_same_bits(target["embed"], targets(state)["embed"])
            assert contents.storage.survey(None) != []
        backend.objects[pack] = whole_pack
    with opened(backend, written) as contents:
        backend.delete(pack, written.known.key)
        with pytest.raises(FileNotFoundError, match="deleted"):
            load_contents(contents)
        other = writer.write({"w": np.ones(3)}, 7)
        with pytest.raises(FileNotFoundError, match="replaced"):
            load_contents(contents)
        assert other.known.key == written.known.key
    with pytest.raises(FileNotFoundError, match="replaced"):
        for key in [key for key in backend.objects if key.startswith(names.INDEXES)]:
            backend.delete(key)
        open_checkpoint(backend, written.known)


def test_a_storage_that_fails_is_no_damage() -> None:
    """A time-out stays what it is: nobody is told that a tensor is damaged."""

    class Failing(MemoryBackend):
        def read(self, key: str, start: int, stop: int, into: memoryview, *, alone: bool = False) -> None:
            raise TimeoutError(errno.ETIMEDOUT, "timed out", key)

    backend = Failing()
    written = Writer(backend).write(state_of(), 7)
    with opened(backend, written) as contents, pytest.raises(TimeoutError):
        load_contents(contents)


def test_weights_only_checkpoints_load_their_weights_and_say_what_is_left_out() -> None:
    """Where the rest of the state was given up, the weights load as ever; the others are left out, and named."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(30, 40)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(30)).sum().backward()
    optimizer.step()
    backend = MemoryBackend()
    written = Writer(backend).write({"model": model, "optimizer": optimizer, "epoch": 2}, 7)
    manifest = written.known.manifest
    assert len(manifest.packs) == 2
    less = msgspec.structs.replace(manifest, packs=manifest.packs[:1])
    for weights_only in (False, True):
        backend.put(written.known.key, manifests.encode(msgspec.structs.replace(less, weights_only=weights_only)))
        known = read_manifest(backend, written.known.key)
        if not weights_only:
            with pytest.raises(tk.FormatError, match="manifest does not"):
                open_checkpoint(backend, known)
            continue
        backend.delete(names.pack_key(manifest.packs[1].name))
        with open_checkpoint(backend, known) as contents:
            assert set(contents.tensors) == {"model.weight", "model.bias"}
            assert contents.tree["epoch"] == 2 and "optimizer" not in contents.tree
            assert len(contents.left_out) == 1 and "only the weights" in contents.left_out[0]
            other = torch.nn.Linear(30, 40)
            load_contents(contents, into={"model": other})
            assert torch.equal(other.weight, model.weight)
            with pytest.raises(tk.MismatchError, match=r"(?s)missing from the file.*`weights_only_after`.*strict=False.*only="):
                load_contents(contents, into={"model": other, "optimizer": torch.optim.Adam(other.parameters())})
            assert contents.storage.survey(None) == []


def test_few_bytes_cannot_become_any_amount() -> None:
    """A constant chunk stands for a million bytes: what is made without a target has a bound, which the caller may lift."""
    backend = MemoryBackend()
    written = Writer(backend).write({"w": np.zeros((5, 1 << 20), np.uint8)}, 7, codec=(CONSTANT,))
    tight = tk.Limits(expanded_bytes=1 << 20)
    with opened(backend, written, limits=tight) as contents:
        with pytest.raises(tk.FormatError, match="expanded_bytes"):
            load_contents(contents)
        with pytest.raises(tk.FormatError, match="expanded_bytes"):
            contents.tensors["w"].numpy()
        target = {"w": np.ones((5, 1 << 20), np.uint8)}
        load_contents(contents, into=target)
        assert not target["w"].any()
    with opened(backend, written) as contents:
        assert not load_contents(contents)["w"].any()
    with average(Catalog(backend), limits=tight) as contents, pytest.raises(tk.FormatError, match="expanded_bytes"):
        load_contents(contents)


def test_a_chunk_that_occurs_often_is_verified_once_and_all_that_hold_it_are_named(tmp_path: Path) -> None:
    """Of a hostile index, terabytes that take no place in a pack; of an honest one, equal tensors, which are written once."""
    with tk.Store(tmp_path, compress="none") as store:
        store.save({"a": np.arange(1 << 17), "b": [np.arange(1 << 17)] * 2, "c": np.arange(1 << 17)[::-1]}, step=1, wait=True)
    told: list[int] = []
    assert tk.verify(f"{tmp_path}@step-1", progress=lambda done, whole: told.append(whole)).intact and set(told) == {2 << 20}
    (pack,) = (tmp_path / "packs").iterdir()
    data = bytearray(pack.read_bytes())
    data[data.index(np.arange(1 << 17).tobytes()) + 100] ^= 1
    pack.write_bytes(data)
    found = tk.verify(f"{tmp_path}@step-1").damaged
    assert [damage.path.rpartition(": ")[2] for damage in found] == ["a", "b.0"] and len(
        {(damage.start, damage.stop) for damage in found}
    ) == 1


def test_verify_false_reads_no_more_than_what_is_asked_for() -> None:
    """Without digests, a few rows of a stored tensor are a few bytes."""
    backend = Watched()
    array = np.arange(4 << 20, dtype=np.uint8).reshape(1 << 12, 1 << 10)
    written = Writer(backend).write({"w": array}, 7)
    with opened(backend, written, verify=False) as contents:
        backend.ranges.clear()
        assert contents.tensors["w"][7:9].tobytes() == array[7:9].tobytes()
        assert sum(stop - start for _, start, stop in backend.ranges) == 2048
        assert_same_bits(load_contents(contents), {"w": array})


@pytest.mark.parametrize("kind", ["folder", "object store"])
def test_one_tensor_of_a_thousand_checkpoints_takes_five_requests(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One listing each for the steps and the newest; its manifest, its index, and the chunks of that tensor, neighbours in one request."""
    backend = Watched(kind)
    writer = Writer(backend)
    first = writer.write({"w": np.arange(1 << 20, dtype=np.float32), "v": np.ones(1 << 18)}, 0)
    data = backend.objects[first.known.key][0]
    for step in range(1, 1000):
        body = msgspec.structs.replace(first.known.manifest, step=step)
        backend.put(names.checkpoint_key(step), manifests.encode(body))
    backend.calls.clear()
    backend.ranges.clear()
    monkeypatch.setattr("tensorkeep.store.store.open_backend", lambda *_, **__: backend)
    with tk.Store("run") as store:
        assert store.steps() == list(range(1000))
        assert store.load(only="w")["w"][7] == 7
    asked = [call for call in backend.calls if call[0] != "read"]
    assert [operation for operation, _ in asked] == ["list", "list", "get", "get"]
    assert len(backend.ranges) == 1 and len(data) < 1000


def test_nothing_is_fetched_twice_from_an_object_store() -> None:
    """What was fetched to be checked is what the target gets."""
    backend = Watched("object store")
    state = state_of()
    written = Writer(backend).write(state, 7, codec=(PLANES, STORED))
    with opened(backend, written) as contents:
        backend.ranges.clear()
        target = targets(state)
        load_contents(contents, into=target, only=lambda path: path in target)
        assert_same_bits(target["embed"], state["embed"])
        assert_same_bits(target["masks"], state["masks"])
        for pack in {pack for pack, _, _ in backend.ranges}:
            spans = sorted((start, stop) for other, start, stop in backend.ranges if other == pack)
            assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))


@pytest.mark.parametrize("mmap", [None, True, False])
def test_a_store_takes_every_argument_of_load(mmap: bool | None, tmp_path: Path) -> None:
    """`mmap` too, so that a call of `tensorkeep.load` needs no change; packs are never mapped."""
    with tk.Store(tmp_path / "run") as run:
        run.save({"w": np.ones(3)}, step=1, wait=True)
        start = run.resume(mmap=mmap)
        assert start is not None and start.state["w"].flags.writeable
        assert run.load(mmap=mmap)["w"].tolist() == [1, 1, 1]

"""How often a file is read: its checksums are compared in the same pass as its bytes are used, and compressed streams are read in order."""

import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensorkeep as tk
from tensorkeep.wire import inflate
from tensorkeep.wire.crc32c import crc32c
from tensorkeep.wire.tally import Tally

torch = pytest.importorskip("torch")
linux = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts what the system says was read: /proc")

VERBS: dict[str, Callable[[Path, Path], object]] = {
    "convert": lambda file, target: tk.convert(file, target, to="model"),
    "convert to npz": lambda file, target: tk.convert(file, target, to="npz"),
    "convert to pt": lambda file, target: tk.convert(file, target, to="pt"),
    "convert to shards": lambda file, target: tk.convert(file, free(target), max_shard_size="1MB"),
    "convert with other axes": lambda file, target: tk.convert(file, target, to="model", transpose={"*": (1, 0)}),
    "convert with other dtypes": lambda file, target: tk.convert(file, target, to="model", dtype="fp16"),
    "fingerprint": lambda file, target: tk.fingerprint(file),
    "diff": lambda file, target: tk.diff(file, io.BytesIO(tk.dumps({}))),
}


def free(target: Path) -> Path:
    return target if not target.exists() else target.with_name("another")


def bytes_read(call: Callable[[], object]) -> int:
    def so_far() -> int:
        return int(re.search(r"^rchar: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE)[1])  # type: ignore[index]

    call()  # what Python itself reads, to import, is no matter
    before = so_far()
    call()
    return so_far() - before


def state() -> dict[str, Any]:
    random = np.random.default_rng(0)
    shapes = [(700, 700), (3,), (1_200_000,), (40, 50), (1,)] * 2
    return {f"layer.{number}": random.random(shape, np.float32) for number, shape in enumerate(shapes)}


def written(folder: Path, kind: str) -> Path:
    arrays, path = state(), folder / "model"
    if kind == "npz":
        np.savez(path, allow_pickle=False, **arrays)
        return folder / "model.npz"
    if kind == "views of one storage":
        flat = torch.from_numpy(np.concatenate([array.ravel() for array in arrays.values()]))
        parts = flat.split([array.size for array in arrays.values()])
        torch.save({name: part.view(array.shape) for (name, array), part in zip(arrays.items(), parts, strict=True)}, path)
    elif kind == "transposed":
        torch.save({name: torch.from_numpy(array).t() for name, array in arrays.items() if array.ndim == 2}, path)
    else:
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    return path


@linux
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", ["pt", "npz", "views of one storage"])
def test_a_file_with_checksums_is_read_once(tmp_path: Path, kind: str, verb: str) -> None:
    """As many bytes as it has, and a little of its directory once more."""
    path = written(tmp_path, kind)
    found = bytes_read(lambda: VERBS[verb](path, tmp_path / "target"))
    assert path.stat().st_size <= found + (1 << 16) and found < 1.05 * path.stat().st_size + (1 << 18), found / path.stat().st_size


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", ["pt", "npz", "views of one storage", "transposed"])
def test_damage_is_found_where_bytes_are_used(tmp_path: Path, kind: str, verb: str) -> None:
    """One bit of a tensor: the verb fails, names a tensor, and leaves nothing where its target would be."""
    path = written(tmp_path, kind)
    data = bytearray(path.read_bytes())
    data[len(data) // 10] ^= 4
    path.write_bytes(data)
    with pytest.raises(tk.CorruptError, match="layer"):
        VERBS[verb](path, tmp_path / "target")
    assert sorted(tmp_path.iterdir()) == [path]


def test_damage_beside_what_was_asked_for_is_found(tmp_path: Path) -> None:
    """The CRC-32 of a storage covers all of it: one that cannot be compared as a whole is no proof of its part."""
    path = written(tmp_path, "views of one storage")
    data = bytearray(path.read_bytes())
    data[len(data) - 20_000] ^= 1
    path.write_bytes(data)
    told: list[tuple[int, int]] = []
    with pytest.raises(tk.CorruptError, match=r"layer\.1"):
        tk.convert(path, tmp_path / "target", to="npz", only="layer.1", progress=lambda done, whole: told.append((done, whole)))
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("kind", ["pt", "npz", "views of one storage", "transposed"])
def test_progress_counts_what_is_read_beside_the_tensors(tmp_path: Path, kind: str) -> None:
    """It never falls, the whole stays the same, and it ends there."""
    path = written(tmp_path, kind)
    for only in (None, "layer.0"):
        for call in (
            lambda tell, only=only: tk.convert(path, tmp_path / "x.safetensors", only=only, progress=tell),
            lambda tell, only=only: tk.diff(path, io.BytesIO(tk.dumps({"layer": {"0": 1}})), only=only, progress=tell),
            lambda tell, only=only: tk.fingerprint(path, progress=tell),
        ):
            told: list[tuple[int, int]] = []
            call(lambda done, whole, told=told: told.append((done, whole)))
            done = [each for each, _ in told]
            assert done == sorted(done) and len({whole for _, whole in told}) == 1 and told[-1][0] == told[-1][1] > 1_900_000


@linux
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("codec", ["xz", "gz"])
def test_a_compressed_stream_is_read_in_its_own_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, verb: str) -> None:
    """Its tensors by path, by size or by record: a stream that is too large to be kept is not inflated anew for each of them."""
    monkeypatch.setattr(inflate, "_WHOLE_BYTES", 0)
    random = np.random.default_rng(0)
    path = tmp_path / "model"
    shapes = {number % 60: (20, 1000) if number % 3 else (99,) for number in range(0, 60 * 7, 7)}
    torch.save({f"w{number}": torch.from_numpy(random.integers(0, 9, shape)) for number, shape in shapes.items()}, path)
    packed = lzma.compress(path.read_bytes(), preset=0) if codec == "xz" else zlib.compress(path.read_bytes(), 1, 31)
    file = tmp_path / "model.packed"
    file.write_bytes(packed)
    found = bytes_read(lambda: VERBS[verb](file, tmp_path / "target"))
    assert found < 10 * len(packed), found / len(packed)  # to measure it, for the directory, for headers, and for the tensors
    if verb.startswith("convert") and "with" not in verb:
        assert tk.same(tmp_path / "target", path)


def test_a_stream_that_is_read_back_and_forth_gives_what_is_in_it(tmp_path: Path) -> None:
    """Slices of a deflated array in any order, from the places that were remembered."""
    random = np.random.default_rng(0)
    array = random.integers(0, 50, (2000, 1000)).astype(np.int32)
    np.savez_compressed(tmp_path / "a.npz", a=array)
    assert zipfile.ZipFile(tmp_path / "a.npz").infolist()[0].compress_type == zipfile.ZIP_DEFLATED
    with tk.open(tmp_path / "a.npz") as contents:
        for row in random.integers(0, 1990, 60):
            assert np.array_equal(contents.tensors["a"][row : row + 7], array[row : row + 7])


@given(st.data(), st.binary(max_size=300), st.sampled_from([(zlib.crc32, 0xEDB88320), (crc32c, 0x82F63B78)]))
def test_any_pieces_in_any_order_add_up_to_the_checksum(data: st.DataObject, content: bytes, kind: tuple[Any, int]) -> None:
    """Pieces that lie across each other too; what no piece had is told."""
    update, polynomial = kind
    tally = Tally(update, polynomial)
    known = bytearray(len(content))
    for _ in range(data.draw(st.integers(0, 8))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, len(content)))
        tally.add(start, memoryview(content)[start:stop])
        known[start:stop] = b"\1" * (stop - start)
        missing = tally.missing(len(content))
        assert [at for start, stop in missing for at in range(start, stop)] == [at for at, is_known in enumerate(known) if not is_known]
    for start, stop in tally.missing(len(content)):
        tally.add(start, memoryview(content)[start:stop])
    assert tally.total() == update(content, 0)

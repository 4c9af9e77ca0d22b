"""PyTorch's distributed checkpoints: tensors in chunks of several files, and folders that lie about them."""

import io
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tensorkeep as tk

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed.checkpoint")
from torch.distributed.checkpoint.filesystem import _StorageInfo  # noqa: E402  # behind the look whether it is there
from torch.distributed.checkpoint.metadata import (  # noqa: E402
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

WHOLE = torch.arange(60.0).reshape(6, 10)


def written(
    folder: Path, whole: Any, boxes: list[tuple[tuple[int, ...], tuple[int, ...]]], change: Callable[[Any], None] | None = None
) -> Path:
    """A checkpoint of one tensor, `w`, of which each box lies in the file of a rank of its own.

    Args:
        boxes: offsets and sizes.
        change: what makes the metadata lie.
    """
    folder.mkdir(exist_ok=True)
    chunks, places = [], {}
    for rank, (offsets, sizes) in enumerate(boxes):
        part = whole[tuple(slice(at, at + length) for at, length in zip(offsets, sizes, strict=True))].clone()
        buffer = io.BytesIO()
        torch.save(part, buffer)
        padding = bytes(7 * rank)
        (folder / f"__{rank}_0.distcp").write_bytes(padding + buffer.getvalue())
        chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
        index = MetadataIndex("w", offsets, rank)
        places[index] = _StorageInfo(f"__{rank}_0.distcp", len(padding), len(buffer.getvalue()))
    entry = TensorStorageMetadata(TensorProperties(dtype=whole.dtype), whole.size(), chunks)
    metadata = Metadata({"w": entry}, planner_data={"w": ("net", "layers", 0, "w")}, storage_data=places)
    if change is not None:
        change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    return folder


def grid(shape: tuple[int, ...], *cuts: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Boxes that tile a shape, cut along each axis."""
    axes = [list(itertools.pairwise((0, *cut, length))) for cut, length in zip(cuts, shape, strict=True)]
    return [(tuple(start for start, _ in box), tuple(stop - start for start, stop in box)) for box in itertools.product(*axes)]


@pytest.mark.parametrize("cuts", [((), ()), ((2,), ()), ((1, 2, 5), ()), ((), (3, 4)), ((4,), (1, 9)), ((1, 3), (2, 5, 6))])
def test_chunks_of_all_ranks_are_one_tensor(tmp_path: Path, cuts: tuple[tuple[int, ...], ...]) -> None:
    """Whole and by rows, at the place that the planner noted."""
    folder = written(tmp_path / "run", WHOLE, grid((6, 10), *cuts))
    assert tk.load(folder)["net"]["layers"][0]["w"].tolist() == WHOLE.tolist()
    with tk.open(folder) as f:
        tensor = f.tensors["net.layers.0.w"]
        assert tensor[1:4].tolist() == WHOLE[1:4].tolist()
        raw = WHOLE.numpy().tobytes()
        for start, stop in ((0, 1), (3, 77), (39, 41), (100, 240)):
            assert bytes(tensor.source.read(start, stop)) == raw[start:stop]


def test_three_axes_scalars_and_empty_tensors(tmp_path: Path) -> None:
    """Tensors of any number of dimensions."""
    cube = torch.arange(60).reshape(3, 4, 5).to(torch.bfloat16)
    tree = tk.load(written(tmp_path / "cube", cube, grid((3, 4, 5), (1,), (2,), (4,))), framework="torch")
    assert torch.equal(tree["net"]["layers"][0]["w"], cube)
    assert tk.load(written(tmp_path / "scalar", torch.tensor(2.5), [((), ())]))["net"]["layers"][0]["w"].item() == 2.5
    assert tk.load(written(tmp_path / "empty", torch.empty(0, 3), [((0, 0), (0, 3))]))["net"]["layers"][0]["w"].shape == (0, 3)


def entry(metadata: Any) -> Any:
    return metadata.state_dict_metadata["w"]


def place(metadata: Any) -> Any:
    return next(iter(metadata.storage_data.values()))


LIES: dict[str, Callable[[Any], None]] = {
    "a chunk less": lambda said: entry(said).chunks.pop(),
    "a chunk twice": lambda said: entry(said).chunks.append(entry(said).chunks[0]),
    "no chunk": lambda said: entry(said).chunks.clear(),
    "a larger tensor": lambda said: setattr(entry(said), "size", torch.Size((6, 11))),
    "a tensor of 2^60 rows": lambda said: setattr(entry(said), "size", torch.Size((2**40, 10))),
    "another number of dimensions": lambda said: setattr(entry(said), "size", torch.Size((60,))),
    "a larger chunk": lambda said: setattr(entry(said).chunks[0], "sizes", torch.Size((4, 10))),
    "a chunk elsewhere": lambda said: setattr(entry(said).chunks[1], "offsets", torch.Size((2, 0))),
    "another dtype": lambda said: setattr(entry(said).properties, "dtype", torch.float64),
    "no dtype": lambda said: setattr(entry(said).properties, "dtype", "float32"),
    "a size of texts": lambda said: setattr(entry(said), "size", ("6", "10")),
    "chunks as a text": lambda said: setattr(entry(said), "chunks", "w"),
    "a file outside": lambda said: setattr(place(said), "relative_path", "../outside"),
    "a file that is not there": lambda said: setattr(place(said), "relative_path", "__9_0.distcp"),
    "a file as a number": lambda said: setattr(place(said), "relative_path", 3),
    "a place beyond the file": lambda said: setattr(place(said), "offset", 10**6),
    "a place before the file": lambda said: setattr(place(said), "offset", -1),
    "a length beyond the file": lambda said: setattr(place(said), "length", 2**60),
    "a length as a text": lambda said: setattr(place(said), "length", "9"),
    "bytes changed by a codec": lambda said: setattr(place(said), "transform_descriptors", ["stream.zstd"]),
    "no place": lambda said: said.storage_data.clear(),
    "places as a list": lambda said: setattr(said, "storage_data", []),
    "tensors as a list": lambda said: setattr(said, "state_dict_metadata", []),
    "a tensor as a text": lambda said: said.state_dict_metadata.update(w="w"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_chunks_is_refused(tmp_path: Path, lie: str) -> None:
    """Sizes, places and files that cannot be."""
    (tmp_path / "outside").write_bytes(b"secret")
    folder = written(tmp_path / "run", WHOLE, grid((6, 10), (3,), ()), LIES[lie])
    with pytest.raises(tk.FormatError):
        tk.load(folder)


def test_chunks_that_no_cut_takes_apart_are_refused(tmp_path: Path) -> None:
    """Five boxes around a hole's place, as no planner makes them."""
    boxes = [((0, 0), (1, 2)), ((0, 2), (2, 1)), ((1, 0), (2, 1)), ((2, 1), (1, 2)), ((1, 1), (1, 1))]
    with pytest.raises(tk.FormatError, match="tile"):
        tk.load(written(tmp_path / "run", torch.arange(9.0).reshape(3, 3), boxes))


def test_paths_that_collide_leave_the_state_flat(tmp_path: Path) -> None:
    """A planner's path that is none is not followed."""
    folder = written(tmp_path / "run", WHOLE, grid((6, 10), (), ()), lambda said: said.planner_data.update(w=("a", ["b"])))
    assert list(tk.load(folder)) == ["w"]


def test_another_program_may_have_a_file_of_that_name(tmp_path: Path) -> None:
    """A `.metadata` that is no pickle does not make a folder a checkpoint."""
    (tmp_path / ".metadata").write_text("{}")
    tk.save({"w": torch.ones(3)}, tmp_path / "any.safetensors")
    assert tk.load(tmp_path)["w"].tolist() == [1, 1, 1]

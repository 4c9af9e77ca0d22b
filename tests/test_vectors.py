"""Files by every release: what any of them wrote, every later one reads, bit for bit. A vector is never made anew."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

import craft
import tensorkeep as tk
from told import ties, told

VECTORS = Path(__file__).parent / "vectors"
NAMES = ["modelfile-v1-by-0.1.0", "modelfile-v1-by-0.1.0-torch"]  # only ever added to
ELSEWHERE = ["fingerprint-v1", "codecs-v1"]  # test_fingerprint.py, test_codec_format.py


@pytest.fixture(params=NAMES)
def vector(request: pytest.FixtureRequest) -> Path:
    """A vector; one that is missing fails its tests."""
    return VECTORS / str(request.param)


@pytest.fixture
def expected(vector: Path) -> Any:
    """What its reader must find."""
    return json.loads((vector / "expect.json").read_text())


def test_each_vector_is_listed() -> None:
    """A folder that no test reads proves nothing."""
    assert sorted(folder.name for folder in VECTORS.iterdir()) == sorted([*NAMES, *ELSEWHERE, *STORES])
    for name in NAMES:
        assert {file.name for file in (VECTORS / name).iterdir()} - {"__pycache__"} == {"model.safetensors", "expect.json", "make.py"}


def test_every_byte_is_what_was_written(vector: Path, expected: Any) -> None:
    """The file is intact, of the size and root that stand beside it."""
    verdict = tk.verify(vector / "model.safetensors")
    assert verdict.intact and verdict.root == expected["root"]
    assert (vector / "model.safetensors").stat().st_size == expected["bytes"]


def test_tensors_and_metadata(vector: Path, expected: Any) -> None:
    """Each tensor has its dtype, shape and bytes; metadata come back."""
    with tk.open(vector / "model.safetensors") as f:
        found = {
            path: {"dtype": str(tensor.dtype), "shape": list(tensor.shape), "blake3": blake3(tensor.tobytes()).hexdigest()}
            for path, tensor in f.tensors.items()
        }
        assert found == expected["tensors"]
        assert list(found) == list(expected["tensors"]), "file order"
        assert json.loads(json.dumps(told(f.metadata))) == expected["metadata"]


def test_the_state(vector: Path, expected: Any) -> None:
    """The state comes back, with its types, bits, order and ties."""
    if vector.name.endswith("torch"):
        torch = pytest.importorskip("torch")
        if not hasattr(torch, "float8_e8m0fnu"):
            pytest.skip("the vector holds a float8_e8m0fnu, which this PyTorch does not have")
    state = tk.load(vector / "model.safetensors")
    assert json.loads(json.dumps(told(state))) == expected["state"]
    assert ties(state) == expected["ties"]


def test_the_frame_by_its_description(vector: Path, expected: Any) -> None:
    """Read by the format's description alone: structure, chunk grid, digests, root, file order."""
    data = (vector / "model.safetensors").read_bytes()
    header, document, at = craft.frame(data)
    assert document["structure"] == expected["structure"]
    entries = [(path, entry["data_offsets"]) for path, entry in header.items() if path != "__metadata__"]
    sizes = [stop - start for _, (start, stop) in entries]
    assert [start for _, (start, _) in entries] == [sum(sizes[:number]) for number in range(len(sizes))]
    assert at % 64 == 0 and at + sum(sizes) == len(data)
    assert b"".join(blake3(data[at + start : at + stop]).digest() for start, stop in craft.chunks(sizes)) == document["digests"]
    powers = [min(64, size & -size) if size else 64 for size in sizes]
    assert sorted(zip(powers, entries, strict=True), key=lambda pair: (-pair[0], pair[1][0].encode())) == list(
        zip(powers, entries, strict=True)
    )


STORES = ["store-v1-by-0.1.0"]  # only ever added to


@pytest.mark.parametrize("name", STORES)
def test_stores_of_every_release_open(name: str, tmp_path: Path) -> None:
    """Each checkpoint and tag of a store of an earlier release loads bit for bit, and the store goes on."""
    expected = json.loads((VECTORS / name / "expect.json").read_text())
    copy = tmp_path / "store"
    shutil.copytree(VECTORS / name / "store", copy)
    store = tk.Store(copy)
    assert [f"step-{step}" for step in store.steps()] == [ref for ref in expected if ref.startswith("step-")]
    assert list(store.tags()) == [ref for ref in expected if not ref.startswith("step-")]
    for ref, wanted in expected.items():
        assert tk.verify(f"{copy}@{ref}").intact
        with tk.open(f"{copy}@{ref}") as checkpoint:
            found = {
                path: {"dtype": str(tensor.dtype), "shape": list(tensor.shape), "blake3": blake3(tensor.tobytes()).hexdigest()}
                for path, tensor in checkpoint.tensors.items()
            }
            assert found == wanted["tensors"]
            assert (checkpoint.metadata["step"], checkpoint.metadata["weights_only"]) == (wanted["step"], wanted["weights_only"])
    state = store.load("latest", framework="numpy")
    job = store.save({"weights": state["weights"], "frozen": state["frozen"], "new": 1}, step=400, wait=True)
    assert job.new_bytes < 5000, "what an earlier release wrote is known"
    assert store.load()["frozen"][-1] == 19_999

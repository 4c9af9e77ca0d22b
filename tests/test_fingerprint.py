"""fingerprint and same: one id of a model, whatever file it stands in."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner

import tensorkeep as tk
from craft import safetensors
from tensorkeep.cli import cli

VECTORS = Path(__file__).parent / "vectors" / "fingerprint-v1" / "expect.json"


def pattern(nbytes: int) -> bytes:
    """The bytes of the vectors."""
    return ((np.arange(nbytes, dtype=np.int64) * 7919) >> 6).astype(np.uint8).tobytes()


def of(state: Any) -> tk.Fingerprint:
    return tk.fingerprint(io.BytesIO(tk.dumps(state)))


@pytest.mark.parametrize("ours", [True, False], ids=["model file", "plain"])
@pytest.mark.parametrize("case", json.loads(VECTORS.read_text(encoding="utf-8")), ids=lambda case: case["case"])
def test_the_rule_is_the_one_that_the_format_states(case: dict[str, Any], ours: bool, tmp_path: Path) -> None:
    """Vectors made from the description alone hold for files with digests and without."""
    header, data, at = {}, [], 0
    for tensor in case["tensors"]:
        data.append(base64.b64decode(tensor["base64"]) if "base64" in tensor else pattern(tensor["pattern"]))
        header[tensor["path"]] = {"dtype": tensor["dtype"], "shape": tensor["shape"], "data_offsets": [at, at + len(data[-1])]}
        at += len(data[-1])
    (tmp_path / "a.safetensors").write_bytes(safetensors(header, b"".join(data)))
    if ours:
        tk.convert(tmp_path / "a.safetensors", tmp_path / "a.safetensors")
    found = tk.fingerprint(tmp_path / "a.safetensors")
    assert (found.names, found.content, found.short) == (case["names"], case["content"], case["names"][:16])
    assert found.tensors == len(case["tensors"])


def test_formats_order_shards_and_ties_make_no_difference(tmp_path: Path) -> None:
    """Model file, plain, shards, npz, pt, in any order: one fingerprint."""
    random = np.random.default_rng(0)
    w = random.random((400, 300))
    state = {"net": {"w": w, "tied": w, "b": random.random(7), "large": random.integers(0, 9, 1_500_000, np.uint8)}}
    tk.save(state, tmp_path / "a.safetensors")
    flat = {f"net.{key}": value for key, value in reversed(state["net"].items())}
    tk.save(flat, tmp_path / "b.safetensors")
    tk.convert(tmp_path / "a.safetensors", tmp_path / "c.safetensors", to="safetensors")
    tk.convert(tmp_path / "a.safetensors", tmp_path / "d.npz")
    tk.convert(tmp_path / "a.safetensors", tmp_path / "e.pt")
    tk.convert(tmp_path / "a.safetensors", tmp_path / "f", max_shard_size="500KB")
    tk.convert(tmp_path / "a.safetensors", tmp_path / "g.h5")
    wanted = tk.fingerprint(tmp_path / "a.safetensors")
    for name in ("b.safetensors", "c.safetensors", "d.npz", "e.pt", "f", "g.h5"):
        found = tk.fingerprint(tmp_path / name)
        assert (found.names, found.content) == (wanted.names, wanted.content), name
    assert wanted.tensors == 4 and wanted.nbytes == 2 * w.nbytes + 56 + 1_500_000


def test_names_dtypes_shapes_and_bytes_count() -> None:
    """Each of them alone makes another model; the names only with names; values beside tensors do not count."""
    w = np.zeros((2, 3), np.float32)
    base = of({"w": w})
    for other in (w.reshape(3, 2), w.astype(np.float16), w.view(np.int32), np.ones_like(w), w[:1]):
        found = of({"w": other})
        assert found.names != base.names and found.content != base.content
    renamed = of({"v": w})
    assert renamed.names != base.names and renamed.content == base.content
    assert of({"w": w, "epoch": 3, "long": list(range(5000))}) == base
    assert of({"w": w, "v": w.copy()}) == of({"w": w, "v": w})
    assert of({"w": w.astype(">f4")}).names == base.names


def test_swapped_tensors_are_another_model_with_the_same_content() -> None:
    """Which bytes stand under which name counts."""
    a, b = np.zeros(3), np.ones(3)
    one, two = of({"a": a, "b": b}), of({"a": b, "b": a})
    assert one.names != two.names and one.content == two.content


def test_same_compares_two_files(tmp_path: Path) -> None:
    """With names, or without."""
    tk.save({"a": np.ones(3, ml_dtypes.bfloat16)}, tmp_path / "a.safetensors")
    tk.save({"b": np.ones(3, ml_dtypes.bfloat16)}, tmp_path / "b.safetensors")
    tk.convert(tmp_path / "a.safetensors", tmp_path / "c.safetensors", to="safetensors")
    assert tk.same(tmp_path / "a.safetensors", tmp_path / "c.safetensors")
    assert not tk.same(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert tk.same(tmp_path / "a.safetensors", tmp_path / "b.safetensors", names=False)


def test_large_tensors_of_a_model_file_are_not_read(tmp_path: Path) -> None:
    """Their digests stand in the header: the fingerprint is that of what was written."""
    path = tmp_path / "model.safetensors"
    tk.save({f"layer.{number}": np.full(1 << 20, number, np.float32) for number in range(16)}, path)
    wanted = tk.fingerprint(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert tk.fingerprint(path).names == wanted.names


def test_damage_in_small_tensors_is_an_error(tmp_path: Path) -> None:
    """These are hashed anew, and what is read is checked."""
    path = tmp_path / "model.safetensors"
    tk.save({"w": np.ones(9)}, path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(tk.CorruptError):
        tk.fingerprint(path)


def test_the_command_prints_one_line_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ids, or all digits; JSON; exit code 1 for what cannot be read, after all others were told."""
    monkeypatch.chdir(tmp_path)
    tk.save({"w": np.ones(9)}, "a.safetensors")
    tk.save({"w": np.ones(9)}, "b.safetensors")
    found = tk.fingerprint("a.safetensors")
    done = CliRunner().invoke(cli, ["fingerprint", "a.safetensors", "b.safetensors"])
    assert done.output.count(f"{found.short}  {found.content[:16]}") == 2
    assert found.names in CliRunner().invoke(cli, ["fingerprint", "--full", "a.safetensors"]).output
    told = json.loads(CliRunner().invoke(cli, ["fingerprint", "a.safetensors", "--json"]).output)
    assert told["files"][0]["names"] == found.names
    done = CliRunner().invoke(cli, ["fingerprint", "missing", "a.safetensors"], standalone_mode=False)
    assert done.return_value == 1 and found.short in done.output

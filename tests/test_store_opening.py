"""Checkpoints as files: every verb takes a store, or a reference into one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from same import assert_same_bits
from storewriter import Writer, grid
from tensorkeep.backends.choosing import open_backend
from tensorkeep.store import manifest as manifests
from tensorkeep.store import names
from test_cli import tensorkeep as run


def store_of(path: Path, steps: int = 3) -> list[dict[str, Any]]:
    """A store of some checkpoints in a folder, and their states."""
    backend = open_backend(path, create=True)
    backend.create(names.STORE, [memoryview(manifests.encode_settings())])
    writer, states = Writer(backend), []
    for step in range(steps):
        random = np.random.default_rng(step)
        states.append({"w": random.standard_normal((300, 100)).astype(np.float32), "b": np.full(3, step), "epoch": step})
        writer.write(states[-1], step, codec=(2, 0), shards=grid(2, 2), metrics={"loss": abs(step - 1)})
    return states


@pytest.fixture
def store(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    return tmp_path / "run", store_of(tmp_path / "run")


def test_a_store_and_each_reference_into_it_load(store: tuple[Path, list[dict[str, Any]]]) -> None:
    """A folder alone means the newest; what follows an @ says which."""
    path, states = store
    for ref, step in {"": 2, "@latest": 2, "@step-0": 0, "@best:loss": 1}.items():
        assert_same_bits(tk.load(f"{path}{ref}"), states[step])
        with tk.open(f"{path}{ref}") as contents:
            assert contents.format == "tensorkeep checkpoint" and contents.metadata["step"] == step
            assert contents.metadata["metrics"] == {"loss": abs(step - 1)}
            assert contents.file == f"{path}@step-{step}"
    assert_same_bits(tk.load(f"file://{path}@step-1"), states[1])
    with pytest.raises(FileNotFoundError, match="0, 1, 2"):
        tk.load(f"{path}@step-7")
    with pytest.raises(FileNotFoundError):
        tk.load(f"{path}@nowhere")


def test_every_verb_takes_a_checkpoint(store: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    """show, verify, fingerprint, same, diff, convert, scan: as with any file."""
    path, states = store
    tk.save(states[2], tmp_path / "w.safetensors")
    assert tk.same(f"{path}@latest", tmp_path / "w.safetensors")
    assert not tk.same(f"{path}@step-0", f"{path}@step-1")
    assert {change.path for change in tk.diff(f"{path}@step-0", f"{path}@step-1").changed} == {"w", "b"}
    verdict = tk.verify(f"{path}@step-1")
    assert verdict.intact and verdict.checksum == "BLAKE3" and len(verdict.root) == 64
    assert tk.show(f"{path}@step-1").format == "tensorkeep checkpoint"
    assert tk.scan(f"{path}@step-1").complete
    tk.convert(f"{path}@best:loss", tmp_path / "best.npz")
    assert_same_bits(np.load(tmp_path / "best.npz")["w"], states[1]["w"])
    tk.convert(f"{path}@best:loss", tmp_path / "best.safetensors")
    assert_same_bits(tk.load(tmp_path / "best.safetensors"), states[1])


def test_a_file_whose_name_has_an_at_stays_a_file(store: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    """What is there under the very name goes before a reference."""
    path, _ = store
    tk.save({"other": np.ones(3)}, f"{path}@latest")
    assert list(tk.load(f"{path}@latest")) == ["other"]
    with pytest.raises(FileNotFoundError, match="no store"):
        tk.load(f"{tmp_path}@latest")
    with pytest.raises(FileNotFoundError):
        tk.load(tmp_path / "nothing@latest")


def test_damage_of_a_checkpoint_is_what_verify_tells(store: tuple[Path, list[dict[str, Any]]]) -> None:
    """A flipped bit in a pack is named with pack and tensor; one in an index, with the index. The exit code is that of a finding."""
    path, _ = store
    for name in ("packs", "indexes"):
        file = sorted((path / name).iterdir())[0]
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4
        file.write_bytes(data)
        verdict = tk.verify(f"{path}@step-0")
        assert not verdict.intact and verdict.damaged
        assert file.stem in f"{verdict.damaged[0].path} {verdict.file}"
        assert run("verify", f"{path}@step-0", "--json").returncode == 3
        data[len(data) // 2] ^= 4
        file.write_bytes(data)
        assert tk.verify(f"{path}@step-0").intact


def test_the_command_line_takes_references(store: tuple[Path, list[dict[str, Any]]]) -> None:
    """`show` and `fingerprint` of a reference."""
    path, _ = store
    assert json.loads(run("show", f"{path}@best:loss", "--json").stdout)["format"] == "tensorkeep checkpoint"


@pytest.mark.parametrize("ref", ["", "best:", "step 1", "best:heat", "../step-1", "\x1b[31m"])
def test_a_path_that_is_written_like_a_reference_and_is_none_is_a_missing_file(tmp_path: Path, ref: str) -> None:
    """In Python an error of the family, on the command line a line, never a traceback; a metric of which nobody knows what is good, too."""
    with tk.Store(tmp_path) as store:
        store.save({"w": 1}, step=1, metrics={"heat": 1.0}, wait=True)
    with pytest.raises(tk.NoCheckpoint, match=r"is no reference|nobody has said"):
        tk.load(f"{tmp_path}@{ref}")
    for command in ("show", "verify"):
        done = run(command, f"{tmp_path}@{ref}")
        assert done.returncode == 1 and "Traceback" not in done.stderr and "\x1b" not in done.stderr and str(tmp_path) in done.stderr


def test_a_folder_with_another_programs_store_json_is_what_it_was(tmp_path: Path) -> None:
    """A model's folder that happens to hold a file of that name still opens; a store whose own one is damaged says so."""
    tk.save({"w": np.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "store.json").write_text('{"shops": 3}')
    assert_same_bits(tk.load(tmp_path)["w"], np.ones(3))
    assert tk.verify(tmp_path).intact
    store_of(tmp_path / "run", 1)
    for text in ("{}", " " * 100_000):
        (tmp_path / "run" / "store.json").write_text(text)
        with pytest.raises(tk.FormatError, match=r"store\.json"):
            tk.load(tmp_path / "run")

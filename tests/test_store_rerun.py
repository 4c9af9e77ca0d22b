"""A run that goes on from before a damaged checkpoint: nobody is there to help it, so it must neither stop nor inherit the damage."""

import contextlib
import dataclasses
import os
import shutil
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk


def state(step: int) -> dict[str, np.ndarray]:
    """The same at the same step, as a run that is repeated bit for bit; the first part never changes."""
    frozen = np.random.default_rng(0).standard_normal(100_000, np.float32)
    return {"frozen": frozen, "w": np.random.default_rng(step + 1).standard_normal(100_000, np.float32)}


def train(folder: Path, steps: range) -> None:
    with tk.Store(folder) as store:
        for step in steps:
            store.save(state(step), step=step).wait()


def flip(path: Path, at: int = 1000) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def packs_of(folder: Path, step: int) -> list[Path]:
    """What was written for a step."""
    manifest = (folder / "checkpoints" / f"{step:010d}.json").read_text()
    save = manifest.partition('"save":"')[2].partition('"')[0]
    return sorted((folder / "packs").glob(f"{save}-*"))


@pytest.mark.parametrize("harm", ["pack flipped", "pack cut", "pack missing", "index flipped", "manifest flipped", "manifest cut"])
@pytest.mark.parametrize("same_store", [True, False], ids=["one store", "another store"])
def test_a_rerun_saves_a_damaged_step_again_and_whole(tmp_path: Path, harm: str, same_store: bool) -> None:
    """Resumed from step 2, step 3 is made again with the same bytes: none of them may be taken from what is damaged."""
    if harm == "pack flipped" and not same_store:
        pytest.skip("what only reading every byte finds is known to the store that read it")
    folder = tmp_path / "run"
    train(folder, range(4))
    target = packs_of(folder, 3)[0]
    manifest = folder / "checkpoints" / f"{3:010d}.json"
    if harm == "pack flipped":
        flip(target)
    elif harm == "pack cut":
        target.write_bytes(target.read_bytes()[:-1])
    elif harm == "pack missing":
        target.unlink()
    elif harm == "index flipped":
        flip(folder / "indexes" / (target.stem.rpartition("-")[0] + ".idx"), 300)
    elif harm == "manifest flipped":
        flip(manifest, 40)
    else:
        manifest.write_bytes(manifest.read_bytes()[:-20])
    with warnings.catch_warnings(record=True), tk.Store(folder) as store:
        resumed = store.resume()
        assert resumed is not None and resumed.step == 2
        if same_store:
            store.save(state(3), step=3).wait()
    if not same_store:
        train(folder, range(3, 4))
    with tk.Store(folder) as store:
        loaded = store.load("step-3")
        assert all(np.array_equal(loaded[name], value) for name, value in state(3).items())
        assert store.verify().intact


def test_a_step_that_is_not_damaged_is_not_replaced(tmp_path: Path) -> None:
    """Nor one that a later release wrote."""
    folder = tmp_path / "run"
    train(folder, range(2))
    with tk.Store(folder) as store, pytest.raises(FileExistsError, match="step 1 was saved by"):
        store.save(state(7), step=1)
    from tensorkeep.store import manifest as manifests
    from tensorkeep.store import names, sealed

    path = folder / names.checkpoint_key(1)
    path.write_bytes(sealed.changed(path.read_bytes(), {"version": "2.0"}))
    with tk.Store(folder) as store, pytest.raises(tk.TensorkeepError, match="step 1 is there already"):
        store.save(state(7), step=1).wait()
    assert manifests.VERSION == "1.0" and b'"version":"2.0"' in path.read_bytes()


def test_damage_that_is_found_between_two_saves_is_not_inherited(tmp_path: Path) -> None:
    """A verification of the newest: the next save writes anew what it would have borrowed."""
    folder = tmp_path / "run"
    with tk.Store(folder) as store:
        store.save(state(0), step=0).wait()
        flip(packs_of(folder, 0)[0])
        assert not store.verify().intact
        store.save(state(0), step=1).wait()
        loaded = store.load("step-1")
        assert np.array_equal(loaded["frozen"], state(0)["frozen"])


def test_what_is_beyond_a_readers_limits_is_not_damaged(tmp_path: Path) -> None:
    """Neither is it replaced without a word, nor passed over for an older one."""
    tight = tk.Limits(expanded_bytes=1 << 20)
    with tk.Store(tmp_path / "run") as store:
        store.save({"w": np.ones(3)}, step=0)
        store.save({"w": np.zeros(1 << 20)}, step=1, wait=True)
        for read in (store.load, store.resume):
            with pytest.raises(tk.FormatError, match="expanded_bytes"):
                read(limits=tight)
        with pytest.raises(FileExistsError, match="step 1 was saved by"):
            store.save({"w": np.ones(3)}, step=1)
        assert not store.load()["w"].any()


def test_what_a_changed_class_does_not_take_is_not_damaged(tmp_path: Path) -> None:
    """The run has another dataclass than it had: it is told so, and never set back to an older checkpoint."""
    old = dataclasses.make_dataclass("Settings", [("lr", float), ("decay", float)])
    new = dataclasses.make_dataclass("Settings", [("lr", float), ("momentum", float)])
    with tk.Store(tmp_path / "run") as store:
        store.save({"settings": None}, step=0)
        store.save({"settings": old(0.1, 0.2)}, step=1, wait=True)
        for read in (store.load, store.resume):
            with pytest.raises(tk.FormatError, match=r"a Settings cannot be brought back: .*decay"):
                read(types=(new,))
        with pytest.raises(FileExistsError, match="step 1 was saved by"):
            store.save({"settings": None}, step=1)
        assert store.load() == {"settings": {"lr": 0.1, "decay": 0.2}}


@pytest.mark.parametrize("gone", ["packs", "packs/*.pack", "."])
def test_what_somebody_removes_during_a_run_is_written_anew(tmp_path: Path, gone: str) -> None:
    """By hand, of a running store: the next checkpoint borrows nothing from what is not whole, and the folder is a store again."""
    folder = tmp_path / "run"
    with tk.Store(folder) as store:
        store.save({"w": state(0), "more": np.arange(30_000.0)}, step=0).wait()
        for path in [folder] if gone == "." else folder.glob(gone):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        store.save({"w": state(0), "more": np.arange(30_000.0)}, step=1).wait()
    assert np.array_equal(tk.load(f"{folder}@step-1")["w"]["frozen"], state(0)["frozen"])
    assert "step-1" not in tk.verify(folder).checkpoints


def _link(path: Path) -> None:
    path.symlink_to(path.rename(path.with_name("elsewhere")).name)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as end, contextlib.chdir(path.parent):  # the names of sockets are short
        end.bind(path.name)


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes are another matter there")
@pytest.mark.parametrize("kind", ["pack", "index"])
@pytest.mark.parametrize("put", [_link, _pipe, _folder, _socket])
def test_what_is_no_file_where_one_is_wanted_is_damage_of_its_checkpoint_alone(
    tmp_path: Path, kind: str, put: Callable[[Path], None]
) -> None:
    """As after a move of packs to another disk, with links left behind: a run goes on, and `verify` says which file it is."""
    train(tmp_path, range(3))
    (pack,) = packs_of(tmp_path, 2)
    place = pack if kind == "pack" else tmp_path / "indexes" / f"{pack.name.rpartition('-')[0]}.idx"
    put(place)
    verdict = tk.verify(tmp_path)
    assert verdict.checkpoints == ("step-2",) and {damage.path.partition(":")[0] for damage in verdict.damaged} == {
        place.relative_to(tmp_path).as_posix()
    }
    with tk.Store(tmp_path, keep=tk.Keep(last=2)) as store:
        assert store.stats().unreadable == (("checkpoints/0000000002.json",) if kind == "index" else ())
        with pytest.warns(tk.TensorkeepWarning, match="step 2: .*damaged"):
            resumed = store.resume()
        assert resumed is not None and resumed.step == 1 and np.array_equal(resumed.state["w"], state(1)["w"])
        for step in (2, 3):
            store.save(state(step), step=step, wait=True)
        assert store.steps() == [2, 3] and store.verify().intact


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes are another matter there")
@pytest.mark.parametrize("put", [_link, _pipe, _folder, _socket])
def test_what_is_no_file_where_a_manifest_is_wanted_is_damage(tmp_path: Path, put: Callable[[Path], None]) -> None:
    """`verify` names it, whoever asks for it is told, others get the checkpoint before; and gc takes nothing that it may have named."""
    with tk.Store(tmp_path) as store:
        for step in range(3):
            store.save({"w": state(step)["w"]}, step=step, wait=True)
        store.tag("good", 0)
    packs = packs_of(tmp_path, 2)
    for key in ("checkpoints/0000000002.json", "tags/good"):
        put(tmp_path / key)
    verdict = store.verify()
    assert verdict.checkpoints == ("step-2", "good")
    assert [damage.path for damage in verdict.damaged] == ["checkpoints/0000000002.json", "tags/good"] == list(store.damaged())
    assert store.steps() == [0, 1, 2] and np.array_equal(store.load()["w"], state(1)["w"])
    for ask in (lambda: store.load(2), lambda: store.load("good"), store.gc):
        with pytest.raises(OSError, match=r"where a file of the store is wanted: .*(0000000002|good)"):
            ask()
    assert all(pack.exists() for pack in packs)

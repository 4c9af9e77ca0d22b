"""What is done with checkpoints beside loading them: verifying, the history of a tensor, exporting, averaging, copying."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tensorkeep as tk
from memory_backend import MemoryBackend
from same import assert_same_bits
from storewriter import Writer, grid
from tensorkeep.loading import load_contents
from tensorkeep.store import manifest as manifests
from tensorkeep.store import names
from tensorkeep.store.averaging import average
from tensorkeep.store.catalog import Catalog
from tensorkeep.store.checkpoint import open_checkpoint
from tensorkeep.store.commit import Writer as Claimant
from tensorkeep.store.copying import copy
from tensorkeep.store.export import export
from tensorkeep.store.gc import collect
from tensorkeep.store.history import history
from tensorkeep.store.known import read as read_manifest
from tensorkeep.store.verifying import verify
from test_store_reading import CONSTANT, DELTA, PLANES, STORED, Watched, opened, state_of


def run_of(backend: MemoryBackend, steps: int = 4) -> list[dict[str, Any]]:
    """A run whose embedding changes each step, while all else is frozen; the later ones are deltas."""
    backend.put(names.STORE, manifests.encode_settings())
    writer, states, keyframe = Writer(backend), [], None
    for step in range(steps):
        state = state_of() | {"epoch": step}
        state["embed"] = state["embed"] * np.float32(1 + step / 1000)
        states.append(state)
        codec = (PLANES, STORED, CONSTANT) if keyframe is None else (DELTA,)
        written = writer.write(state, step, codec=codec, keyframe=keyframe, metrics={"loss": 1.0 - step})
        keyframe = keyframe or written
    return states


def flip(backend: MemoryBackend, key: str, byte: int = -1) -> None:
    data, modified, version = backend.objects[key]
    broken = bytearray(data)
    broken[byte] ^= 16
    backend.objects[key] = bytes(broken), modified, version + 1_000_000


class TestVerifying:
    """`verify` reads every byte once, names all damage and every checkpoint that it hurts."""

    def test_an_intact_store_is_read_once(self) -> None:
        """Each pack is read once, but for the bases of deltas, which each of them needs; nothing is found."""
        backend = Watched()
        run_of(backend)
        verdict = verify(Catalog(backend))
        assert verdict.intact and verdict.checksum == "BLAKE3" and verdict.damaged == verdict.checkpoints == ()
        keyframe = Catalog(backend).look().find(0).manifest.save
        for key in [key for key in backend.objects if key.startswith(names.PACKS) and keyframe not in key]:
            read = sum(stop - start for pack, start, stop in backend.ranges if pack == key)
            assert read == len(backend.objects[key][0])
        assert verify(Catalog(backend), deep=False).intact

    def test_damage_is_named_with_all_checkpoints_that_need_it(self) -> None:
        """A bit of the keyframe's pack hurts it and all its deltas, and is one damage."""
        backend = MemoryBackend()
        run_of(backend)
        with opened(backend, _written(backend, 3)) as contents:
            joined = contents.storage.joined
            base = int(joined.table.base[np.flatnonzero(joined.table.codec == DELTA)[0]])
            pack, at = names.pack_key(joined.packs[joined.table.pack[base]]), int(joined.table.offset[base])
        flip(backend, pack, at)
        catalog = Catalog(backend)
        verdict = verify(catalog)
        assert not verdict.intact and set(verdict.checkpoints) == {"step-0", "step-1", "step-2", "step-3"}
        assert {damage.path for damage in verdict.damaged} == {f"{pack}: embed"}
        assert verify(catalog, deep=False).intact
        assert all(catalog.damage_of(known) is not None for known in catalog.look().all())

    def test_what_is_missing_cut_short_or_damaged_is_told(self) -> None:
        """Packs, indexes, manifests, tags and the store's own file, one at a time."""
        backend = MemoryBackend()
        run_of(backend)
        backend.put(names.tag_key("good"), backend.objects[names.checkpoint_key(1)][0])
        objects = dict(backend.objects)
        for key in objects:
            for change in ("missing", "short", "flipped"):
                backend.objects = dict(objects)
                if change == "missing":
                    del backend.objects[key]
                elif change == "short":
                    backend.objects[key] = objects[key][0][:-1], *objects[key][1:]
                else:
                    flip(backend, key)
                verdict = verify(Catalog(backend))
                if change == "missing" and key.startswith((names.CHECKPOINTS, names.TAGS)):
                    assert verdict.intact  # it was deleted
                    continue
                assert not verdict.intact and any(key in damage.path for damage in verdict.damaged), (key, change)
                assert all(damage.path.startswith(key) for damage in verdict.damaged), (key, change, verdict.damaged)
                shallow = verify(Catalog(backend), deep=False)
                assert shallow.intact == (change == "flipped" and key.startswith((names.PACKS, names.INDEXES)))
        backend.objects = objects
        assert verify(Catalog(backend), "good").intact


def _written(backend: MemoryBackend, step: int) -> Any:
    class One:
        known = read_manifest(backend, names.checkpoint_key(step))

    return One()


class TestHistory:
    """`history`: one tensor over all steps."""

    def test_each_step_has_its_values_and_what_is_frozen_is_read_once(self) -> None:
        """Values are those of a load; chunks that did not change are not read again."""
        backend = Watched()
        states = run_of(backend)
        found = list(history(Catalog(backend), "embed"))
        assert [step for step, _ in found] == [0, 1, 2, 3]
        for step, array in found:
            assert_same_bits(array, states[step]["embed"])
        for step, rows in history(Catalog(backend), "half", rows=(slice(3, 5), 7)):
            assert_same_bits(rows.copy(), states[step]["half"][3:5, 7].copy())
        backend.ranges.clear()
        assert len(list(history(Catalog(backend), "half"))) == 4
        assert len(backend.ranges) == 1

    def test_steps_without_the_tensor_are_passed_over(self) -> None:
        """A tensor that came later; one that never was is an error that names what is close."""
        backend = MemoryBackend()
        writer = Writer(backend)
        writer.write({"w": np.ones(3)}, 1)
        writer.write({"w": np.ones(3), "late": np.full(3, 2.0)}, 2)
        assert [(step, array.tolist()) for step, array in history(Catalog(backend), "late")] == [(2, [2.0] * 3)]
        with pytest.raises(KeyError, match="did you mean 'late'"):
            list(history(Catalog(backend), "lat"))


class TestExporting:
    """`export`: a model file of a checkpoint."""

    def test_a_checkpoint_becomes_a_model_file(self, tmp_path: Path) -> None:
        """Bit for bit, with what the store says of it; in part; cast."""
        backend = MemoryBackend()
        states = run_of(backend)
        done = export(Catalog(backend), "best:loss", tmp_path / "best.safetensors", writer=Claimant(names.new_writer(), 1, "test"))
        assert_same_bits(tk.load(tmp_path / "best.safetensors"), states[3])
        assert (done.step, done.changed) == (3, 0) and done.nbytes == (tmp_path / "best.safetensors").stat().st_size
        with tk.open(tmp_path / "best.safetensors") as file:
            assert file.metadata["step"] == 3 and file.metadata["metrics"] == {"loss": -2.0}
        done = export(Catalog(backend), "step-0", tmp_path / "half.safetensors", only="embed", dtype="bf16")
        assert done.tensors == 1 and done.changed > 0
        assert_same_bits(tk.load(tmp_path / "half.safetensors")["embed"], states[0]["embed"].astype(ml_dtypes.bfloat16))
        assert not [key for key in backend.objects if key.startswith(names.CLAIMS)]
        with pytest.raises(ValueError, match="takes nothing"):
            export(Catalog(backend), "latest", tmp_path / "x.safetensors", only="nothing")
        with pytest.raises(ValueError, match="bf16"):
            export(Catalog(backend), "latest", tmp_path / "x.safetensors", dtype="int8")

    def test_a_damaged_checkpoint_leaves_no_file(self, tmp_path: Path) -> None:
        """Nothing half is left behind."""
        backend = MemoryBackend()
        run_of(backend, 1)
        flip(backend, next(key for key in backend.objects if key.startswith(names.PACKS)), 500)
        with pytest.raises(tk.CorruptError):
            export(Catalog(backend), "latest", tmp_path / "x.safetensors")
        assert list(tmp_path.iterdir()) == []


class TestAveraging:
    """`average`: the mean of the last checkpoints."""

    @pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "complex64", "float8_e4m3fn"])
    def test_the_mean_is_exact_and_rounded_once(self, dtype: str) -> None:
        """As fractions have it, whatever the sizes of the numbers; all that is no floating-point number is the newest's."""
        backend, random = MemoryBackend(), np.random.default_rng(4)
        kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
        sizes = 10.0 ** random.integers(-2, 3, (5, 40)) if dtype.startswith("float8") else 10.0 ** random.integers(-4, 5, (5, 40))
        arrays = (random.standard_normal((5, 40)) * sizes).astype(kind)
        writer = Writer(backend)
        for step in range(5):
            writer.write({"w": arrays[step].reshape(8, 5), "n": np.arange(3) + step, "epoch": step}, step, shards=grid(2, 2, 2))
        with average(Catalog(backend), 4) as contents:
            state = load_contents(contents)
            assert state["epoch"] == 4 and state["n"].tolist() == [4, 5, 6]
            assert contents.metadata["averaged_steps"] == [1, 2, 3, 4]
            found = state["w"].reshape(-1)
            for parts in ("real", "imag") if kind.kind == "c" else ("real",):
                exact = [sum(Fraction(float(getattr(one, parts))) for one in column) / 4 for column in arrays[1:].T]
                wanted = np.array([_rounded(number, kind) for number in exact])
                assert np.array_equal(np.array([float(getattr(one, parts)) for one in found]), wanted)
            target = {"w": np.zeros((8, 5), kind), "n": np.zeros(3, np.int64)}
            load_contents(contents, into=target)
            assert_same_bits(target["w"], state["w"])

    def test_what_does_not_fit_and_what_is_damaged_is_refused(self) -> None:
        """Another shape in an older checkpoint, and a flipped bit in any of them: the target keeps what it had."""
        backend = MemoryBackend()
        states = run_of(backend, 3)
        packs = [key for key in backend.objects if key.startswith(names.PACKS)]
        whole = dict(backend.objects)
        for pack in packs:
            flip(backend, pack, 300)
            target = {"embed": np.zeros_like(states[0]["embed"])}
            with average(Catalog(backend)) as contents, pytest.raises(tk.CorruptError):
                load_contents(contents, into=target)
            assert not target["embed"].any()
            backend.objects = dict(whole)
        Writer(backend).write(states[0] | {"embed": np.ones((3, 3), np.float32)}, 7)
        with average(Catalog(backend)) as contents:
            with pytest.raises(tk.MismatchError, match="embed"):
                load_contents(contents)
            assert set(load_contents(contents, only=lambda path: path != "embed")) == set(states[0]) - {"embed"}
        with pytest.raises(FileNotFoundError):
            average(Catalog(MemoryBackend()))

    def test_infinities_and_nan(self) -> None:
        """They stay what they are."""
        backend = MemoryBackend()
        writer = Writer(backend)
        writer.write({"w": np.array([math.inf, 1, math.nan, -math.inf, 3e38], np.float32)}, 1)
        writer.write({"w": np.array([1, math.inf, 1, math.inf, 3e38], np.float32)}, 2)
        with average(Catalog(backend)) as contents:
            found = contents.tensors["w"].numpy()
        np.testing.assert_array_equal(found, np.array([math.inf, math.inf, math.nan, math.nan, 3e38], np.float32))


def _rounded(number: Fraction, kind: np.dtype) -> float:
    """The nearest number of a type, ties to even, by comparing its neighbours."""
    if kind in (np.dtype("float64"), np.dtype("float32"), np.dtype("complex64"), np.dtype("float16")):
        one = {"float64": np.float64, "float32": np.float32, "complex64": np.float32, "float16": np.float16}[kind.name]
        near = one(float(number))
        around = [np.nextafter(near, one(-np.inf)), near, np.nextafter(near, one(np.inf))]
    else:
        bits = np.arange(1 << 8 * kind.itemsize, dtype=f"u{kind.itemsize}").view(kind)
        values = np.unique(bits[np.isfinite(bits.astype(np.float32))].astype(np.float64))
        at = int(np.searchsorted(values, float(number)))
        around = [kind.type(value) for value in values[max(0, at - 2) : at + 2]]
    best = min(abs(Fraction(float(one)) - number) for one in around)
    ties = [one for one in around if abs(Fraction(float(one)) - number) == best]
    even = [one for one in ties if int(np.array(one).view(f"u{np.array(one).itemsize}")) % 2 == 0]
    return float((even or ties)[0])


class TestCopying:
    """`copy`: into another store, compact and resumable."""

    def test_a_copy_has_the_same_states_in_fewer_bytes(self) -> None:
        """Every checkpoint and tag, bit for bit; what is dead stays behind; a second copy finds all there."""
        backend, target = MemoryBackend(), MemoryBackend()
        states = run_of(backend)
        backend.put(names.tag_key("good"), backend.objects[names.checkpoint_key(1)][0])
        backend.delete(names.checkpoint_key(2))
        claimant = iter(Claimant(names.new_writer(), number, "test") for number in range(1, 20))
        done = copy(Catalog(backend), target, next_writer=lambda: next(claimant))
        assert done.steps == (0, 1, 3) and done.there == () and done.nbytes > 0
        for step in (0, 1, 3):
            with open_checkpoint(target, Catalog(target).look().find(step)) as contents:
                assert_same_bits(load_contents(contents), states[step])
        assert Catalog(target).look().find("good").step == 1
        assert verify(Catalog(target)).intact
        assert _bytes(target) < _bytes(backend)
        assert not [key for one in (backend, target) for key in one.objects if key.startswith(names.CLAIMS)]
        assert collect(Catalog(target)).nbytes == 0
        before = dict(target.objects)
        again = copy(Catalog(backend), target)
        assert again.steps == () and again.there == (0, 1, 3) and set(target.objects) == set(before)
        manifest = Catalog(target).look().find(3).manifest
        assert manifest.keyframe == (0, Catalog(target).look().find(0).manifest.save)

    def test_ranks_and_single_checkpoints_are_copied_as_they_are(self) -> None:
        """Several indexes stay several; `refs` says which checkpoints."""
        backend, target = MemoryBackend(), MemoryBackend()
        backend.put(names.STORE, manifests.encode_settings())
        writer = Writer(backend)
        for step in (1, 2):
            writer.write(state_of(step), step, codec=(PLANES, STORED), shards=grid(3, 2, 2))
        assert copy(Catalog(backend), target, ["latest"]).steps == (2,)
        known = Catalog(target).look().find("latest")
        assert len(known.manifest.indexes) == 3
        with open_checkpoint(target, known) as contents:
            assert_same_bits(load_contents(contents), state_of(2))

    def test_a_copy_that_was_interrupted_goes_on(self) -> None:
        """Wherever it stopped, the next one ends with all checkpoints, and what is left over is garbage."""
        backend = MemoryBackend()
        states = run_of(backend, 3)
        reference = MemoryBackend()
        copy(Catalog(backend), reference)
        calls = len([call for call in reference.calls if call[0] in ("create", "replace", "delete", "write")])
        for stop in range(1, calls + 1):
            target = MemoryBackend()
            left = [stop]

            def gate(operation: str, key: str, left: list[int] = left) -> None:
                if operation in ("create", "replace", "delete", "write"):
                    left[0] -= 1
                    if left[0] == 0:
                        raise KeyboardInterrupt

            target.gate = gate
            with pytest.raises(KeyboardInterrupt):
                copy(Catalog(backend), target)
            target.gate = lambda operation, key: None
            for known in Catalog(target).look().all():
                assert verify(Catalog(target), known.step).intact
            copy(Catalog(backend), target)
            for step in range(3):
                with open_checkpoint(target, Catalog(target).look().find(step)) as contents:
                    assert_same_bits(load_contents(contents)["embed"], states[step]["embed"])

    def test_another_checkpoint_of_that_step_and_damage_stop_it(self) -> None:
        """Neither is copied over what is there, nor is a damaged chunk."""
        backend, target = MemoryBackend(), MemoryBackend()
        run_of(backend, 2)
        Writer(target).write({"w": np.ones(3)}, 1)
        with pytest.raises(FileExistsError, match="a test"):
            copy(Catalog(backend), target)
        assert verify(Catalog(target), 0).intact
        flip(backend, next(key for key in backend.objects if key.startswith(names.PACKS)), 300)
        other = MemoryBackend()
        with pytest.raises(tk.CorruptError):
            copy(Catalog(backend), other)
        assert Catalog(other).look().all() == []


def _bytes(backend: MemoryBackend) -> int:
    return sum(len(data) for key, (data, _, _) in backend.objects.items() if key.startswith(names.PACKS))

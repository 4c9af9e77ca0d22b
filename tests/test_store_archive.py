"""A store as people use it: verified, exported, averaged, copied, and one tensor over its run; and how much memory that takes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk
from same import assert_same_bits


def trained(store: "tk.Store", steps: int = 5) -> list[dict[str, np.ndarray]]:
    """A short run: one tensor that changes, one that is frozen."""
    random = np.random.default_rng(0)
    frozen, states = random.standard_normal((400, 300)).astype(np.float32), []
    for step in range(steps):
        state = {"w": random.standard_normal((300, 200)).astype(np.float32), "frozen": frozen, "step": step}
        store.save(state, step=step, metrics={"loss": 1 / (1 + step)})
        states.append(state)
    return states


@pytest.mark.parametrize("compress", ["none", "auto", "max"])
def test_a_run_from_beginning_to_end(tmp_path: Path, compress: "str") -> None:
    """Whatever is done with the checkpoints of a real run gives the bits that were saved."""
    with tk.Store(tmp_path / "run", compress=compress) as store:  # type: ignore[arg-type]  # one of them
        states = trained(store)
        assert store.verify().intact and store.verify(deep=False).intact and store.verify("best:loss").intact
        for step, w in store.history("w", rows=slice(5, 9)):
            assert_same_bits(w.copy(), states[step]["w"][5:9].copy())
        done = store.export("step-2", tmp_path / "two.safetensors")
        assert done.step == 2
        assert_same_bits(tk.load(tmp_path / "two.safetensors"), states[2])
        mean = store.average(last=2)
        wanted = (states[3]["w"].astype(np.float64) + states[4]["w"]) / 2
        assert_same_bits(mean["w"], wanted.astype(np.float32))
        assert_same_bits(mean["frozen"], states[0]["frozen"])
        store.average(last=2, path=tmp_path / "mean.safetensors")
        assert_same_bits(tk.load(tmp_path / "mean.safetensors"), mean)
        store.tag("good", 1)
        assert store.copy(tmp_path / "backup").steps == (0, 1, 2, 3, 4)
        with tk.Store(tmp_path / "backup") as backup:
            assert store.copy(backup).there == (0, 1, 2, 3, 4)
    copied = tk.Store(tmp_path / "backup")
    assert copied.verify().intact
    for step in range(5):
        assert_same_bits(copied.load(step), states[step])
    assert_same_bits(tk.load(f"{tmp_path / 'backup'}@good"), states[1])
    copied.save({"w": states[0]["w"]}, step=9, wait=True)  # a run goes on in a copy
    assert_same_bits(copied.load(), {"w": states[0]["w"]})
    assert copied.verify().intact


def test_weights_are_averaged_though_optimizers_are_not_alike(tmp_path: Path) -> None:
    """Of the first checkpoint, the optimizer had no state yet; of the second, the policy has left the weights alone."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    run = {"model": model, "optimizer": optimizer}
    weights = []
    with tk.Store(tmp_path / "run") as store:
        for step in range(4):
            weights.append(model.weight.detach().double().clone())
            store.save(run, step=step, wait=True)
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        newest = store.load()["optimizer"]["state"][0]["exp_avg"]
        with pytest.raises(tk.MismatchError, match=r"(?s)optimizer\.state.*missing in .*step-0.*only=.*last=3"):
            store.average()
        mean = torch.nn.Linear(3, 2)
        store.average(into={"model": mean}, only="model.*")
        assert torch.equal(mean.weight, (sum(weights) / 4).float())
        store.prune(tk.Keep(weights_only_after=1))
        state = store.average(last=3)
        assert torch.equal(state["model"]["weight"], (sum(weights[1:]) / 3).float())
        assert torch.equal(state["optimizer"]["state"][0]["exp_avg"], newest)
        store.average(last=3, path=tmp_path / "mean.safetensors", only="model.*")
    assert torch.equal(tk.load(tmp_path / "mean.safetensors")["model"]["weight"], state["model"]["weight"])


def test_an_export_that_is_named_as_another_format_is_warned_of(tmp_path: Path) -> None:
    """What comes out is a model file all the same."""
    with tk.Store(tmp_path / "run") as run:
        run.save({"w": np.ones(3)}, step=1, wait=True)
        with pytest.warns(tk.TensorkeepWarning, match="its name says npz, which `convert` writes"):
            run.export("latest", tmp_path / "w.npz")
    assert tk.verify(tmp_path / "w.npz").intact


def test_averaging_and_exporting_take_little_memory(tmp_path: Path) -> None:
    """Neither grows with the model: 200 MB of tensors, in the file of an average, under 128 MiB with two threads."""
    with tk.Store(tmp_path / "run") as store:
        for step in range(2):
            store.save({f"w{number}": np.full((1 << 22,), step + number, np.float32) for number in range(12)}, step=step, wait=True)
    code = f"""
import tensorkeep as tk, numpy, pathlib
store = tk.Store({str(tmp_path / "run")!r})
store.steps()
before = int(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1])
open('/proc/self/clear_refs', 'w').write('5')
store.average(last=3, path={str(tmp_path / "mean.safetensors")!r})
store.export('latest', {str(tmp_path / "last.safetensors")!r})
print(int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]) - before)
"""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process is told by Linux alone")
    few = os.environ | {"TENSORKEEP_THREADS": "2"}  # each holds pieces of its own, however many processors there are
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=few)
    assert int(done.stdout) < 128 << 10, f"{int(done.stdout):,} KiB"
    assert_same_bits(tk.load(tmp_path / "mean.safetensors", only="w3")["w3"], np.full((1 << 22,), 3.5, np.float32))

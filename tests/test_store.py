"""The store as a person uses it: saving while training goes on, loading, resuming, and what is refused."""

import errno
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk
from same import assert_same_bits
from warned import warned


def state(seed: int = 0) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    return {
        "model": {"embed": rng.standard_normal((300, 200)).astype(np.float32), "bias": rng.standard_normal(200), "none": np.empty((0, 3))},
        "optimizer": {"m": rng.standard_normal((1 << 18) + 5), "count": np.int64(7)},
        "epoch": 3,
        7: "seven",
        "mask": np.array([True, False]),
    }


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_nothing_is_written_before_the_first_save(tmp_path: Path) -> None:
    """A store that is only made, or asked, leaves no trace."""
    store = tk.Store(tmp_path / "run")
    assert store.steps() == [] and list(store) == [] and store.resume() is None
    with pytest.raises(tk.NoCheckpoint, match="no checkpoint"):
        store.load()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("compress", ["auto", "none", "max"])
def test_a_state_comes_back_bit_for_bit(tmp_path: Path, compress: str) -> None:
    """Each of several checkpoints loads as it was saved, by step, as an int, and as the latest."""
    with tk.Store(tmp_path / "run", compress=compress) as store:
        for step in (0, 3, 12):
            store.save(state(step), step=step, metrics={"loss": 1 / (step + 1)})
        assert store.steps() == [0, 3, 12]
        for ref, seed in (("step-0", 0), (3, 3), (np.int64(3), 3), ("latest", 12), ("best:loss", 12)):
            assert_same_bits(store.load(ref), state(seed))
    again = tk.Store(tmp_path / "run")
    assert_same_bits(again.load(), state(12))
    assert [(one.step, one.metrics) for one in again] == [(0, {"loss": 1.0}), (3, {"loss": 0.25}), (12, {"loss": 1 / 13})]


def test_the_state_may_be_changed_as_soon_as_save_returns(tmp_path: Path) -> None:
    """What is saved is the state of that moment, whatever the caller writes into its arrays next."""
    weights = np.arange(3 << 20, dtype=np.float32)
    small = np.arange(10.0)
    with tk.Store(tmp_path / "run") as store:
        for step in range(4):
            weights[:], small[:] = step, step
            store.save({"weights": weights, "small": small}, step=step)
            weights[:], small[:] = -1, -1
        for step in range(4):
            found = store.load(step)
            assert (found["weights"] == step).all() and (found["small"] == step).all()


def test_loading_fills_a_target_in_place(tmp_path: Path) -> None:
    """`into=` works as for a file, and nothing is changed where something does not fit."""
    with tk.Store(tmp_path / "run") as store:
        store.save(state(1), step=1)
        target = state(2)
        embed = target["model"]["embed"]
        assert store.load(into=target)["model"]["embed"] is embed
        assert_same_bits(target["model"], state(1)["model"])
        wrong = {"model": {"embed": np.zeros((2, 2), np.float32)}}
        with pytest.raises(tk.MismatchError, match="embed"):
            store.load(into=wrong)
        assert not wrong["model"]["embed"].any()
        assert set(store.load(only="model.*")["model"]) == {"embed", "bias", "none"}


def test_what_is_known_is_not_written_again(tmp_path: Path) -> None:
    """Equal checkpoints cost a manifest and an index; so do frozen tensors, in another process too."""
    base = {f"layer{number}": np.random.default_rng(number).standard_normal(1 << 17) for number in range(8)}
    with tk.Store(tmp_path / "run", compress="none") as store:
        store.save({"base": base, "adapter": np.zeros(10)}, step=0, wait=True)
        first = size(tmp_path)
        job = store.save({"base": base, "adapter": np.ones(10)}, step=1, wait=True)
        assert size(tmp_path) - first < 20_000 and job.new_bytes < 20_000 < job.nbytes
    with tk.Store(tmp_path / "run", compress="none") as store:
        assert store.save({"base": base, "adapter": np.ones(10)}, step=2, wait=True).new_bytes < 20_000
        assert_same_bits(store.load(2)["base"], base)


def test_equal_tensors_of_one_state_are_written_once(tmp_path: Path) -> None:
    """Chunks that occur twice in one state stand once in its packs, tied or not."""
    array = np.random.default_rng(0).standard_normal(1 << 18)
    with tk.Store(tmp_path / "run", compress="none") as store:
        job = store.save({"a": array, "b": array.copy(), "c": array}, step=0, wait=True)
        assert job.nbytes == 2 * array.nbytes and job.new_bytes < 1.1 * array.nbytes
        found = store.load()
        assert found["a"] is found["c"] and found["b"] is not found["a"]
        assert_same_bits(found, {"a": array, "b": array.copy(), "c": array})


def test_a_step_is_saved_once(tmp_path: Path) -> None:
    """Another save of a step is refused before anything is copied, unless it may take its place."""
    with tk.Store(tmp_path / "run") as store:
        store.save({"x": np.ones(3)}, step=5, wait=True)
        with pytest.raises(FileExistsError, match="step 5 was saved by"):
            store.save({"x": np.zeros(3)}, step=5)
        with pytest.raises(FileExistsError):
            tk.Store(tmp_path / "run").save({"x": np.zeros(3)}, step=5)
        assert store.load(5)["x"][0] == 1
        store.save({"x": np.full(3, 2.0)}, step=5, overwrite=True)
        assert store.load(5)["x"][0] == 2 and store.steps() == [5]


def test_of_two_processes_that_save_one_step_one_wins(tmp_path: Path) -> None:
    """The other is told by whom, and what was committed is whole."""
    code = """
import sys, numpy as np, tensorkeep as tk
store = tk.Store(sys.argv[1])
try:
    store.save({"who": np.full(100_000, int(sys.argv[2]))}, step=1, wait=True)
    print("won")
except FileExistsError as error:
    print("lost", error)
except tk.SaveError as error:
    print("lost", error.__cause__)
"""
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run"), str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    said = [child.communicate(timeout=120)[0] for child in children]
    assert [line.startswith("won") for line in said].count(True) == 1
    assert all("was saved by" in line for line in said if not line.startswith("won"))
    assert tk.Store(tmp_path / "run").load()["who"][0] == [line.startswith("won") for line in said].index(True)


class Slow:
    """An array whose bytes take their time: so that a save is under way for long enough to look at it."""


def slow_store(path: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> tuple[tk.Store, threading.Event]:
    """A store whose saves wait, in the background, until an event is set."""
    store = tk.Store(path, **options)
    go = threading.Event()
    write = store._recorder.write

    def wait(*arguments: object) -> None:
        go.wait(60)
        write(*arguments)

    monkeypatch.setattr(store._recorder, "write", wait)
    return store, go


def test_a_second_save_waits_is_skipped_or_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`busy=` says what becomes of a save while another one is under way."""
    store, go = slow_store(tmp_path / "skip", monkeypatch, busy="skip")
    first = store.save({"x": np.ones(3)}, step=1)
    second = store.save({"x": np.ones(3)}, step=2)
    assert second.skipped and second.done and second.error is None and not first.done
    go.set()
    first.wait()
    assert store.steps() == [1]

    store, go = slow_store(tmp_path / "error", monkeypatch, busy="error")
    store.save({"x": np.ones(3)}, step=1)
    with pytest.raises(tk.StoreBusy, match="step 1 is still being saved"):
        store.save({"x": np.ones(3)}, step=2)
    go.set()

    store, go = slow_store(tmp_path / "wait", monkeypatch)
    store.save({"x": np.ones(3)}, step=1)
    began = time.monotonic()
    threading.Timer(0.3, go.set).start()
    store.save({"x": np.ones(3)}, step=2)
    assert time.monotonic() - began > 0.2
    assert store.steps() == [1, 2]


def test_a_save_that_fails_in_the_background_is_never_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises once: at `wait`, at the next save, or at the end of the block; the next save works."""
    store = tk.Store(tmp_path / "run")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run")

    store.save({"x": np.ones(3)}, step=1, wait=True)
    with monkeypatch.context() as broken:
        broken.setattr(store._recorder, "write", full)
        job = store.save({"x": np.ones(3)}, step=2)
        with pytest.raises(tk.SaveError, match=r"step 2 was not saved.*No space left") as caught:
            job.wait()
        assert caught.value.errno == errno.ENOSPC and isinstance(caught.value.__cause__, OSError) and job.error is caught.value.__cause__
        store.save({"x": np.ones(3)}, step=3)
        with pytest.raises(tk.SaveError, match="step 3"):
            store.save({"x": np.ones(3)}, step=4)
        last = store.save({"x": np.ones(3)}, step=4)
        while not last.done:
            time.sleep(0.01)
    with pytest.raises(tk.SaveError, match="step 4"), store:
        pass
    with tk.Store(tmp_path / "run") as store:
        store.save({"x": np.ones(3)}, step=2)
        assert store.steps() == [1, 2]


def test_what_goes_wrong_in_tidying_is_a_warning_and_harms_no_save(tmp_path: Path) -> None:
    """A policy whose function fails, and a manifest that cannot be read, so that nobody knows what it needs."""

    def picky(one: object) -> bool:
        raise LookupError("no such thing")

    said = "old checkpoints could not be removed"
    with (
        pytest.warns(tk.TensorkeepWarning, match=f"{said}: LookupError: no such thing"),
        tk.Store(tmp_path / "run", keep=tk.Keep(last=1, also=picky)) as store,
    ):
        for step in range(3):
            store.save({"x": np.ones(3)}, step=step)
    with open(tmp_path / "run" / "checkpoints" / "0000000000.json", "wb") as file:
        file.truncate(65 << 20)
    with (
        pytest.warns(tk.TensorkeepWarning, match=rf"{said}: .*0000000000\.json"),
        tk.Store(tmp_path / "run", keep=tk.Keep(last=1)) as store,
    ):
        store.save({"x": np.zeros(3)}, step=3)
    assert not tk.load(tmp_path / "run")["x"].any()


def test_a_metric_whose_best_is_to_stay_and_that_never_comes_is_told_once(tmp_path: Path) -> None:
    """It may be misspelt, and meanwhile the best goes. Nobody is told as long as nothing goes, or where one checkpoint has it."""
    keep = tk.Keep(last=2, best={"los": "min"})
    with pytest.warns(tk.TensorkeepWarning) as told, tk.Store(tmp_path / "run", keep=keep) as store:
        for step in range(6):
            store.save({"x": step}, step=step, metrics={"loss": 1 / (1 + step)})
            store.finish()
            assert len(warned(told)) == (step >= 2)
    (said,) = (str(one.message) for one in warned(told))
    assert "no checkpoint has 'los'" in said and "their metrics are 'loss'" in said
    with warnings.catch_warnings(), tk.Store(tmp_path / "seldom", keep=keep) as store:
        warnings.simplefilter("error")
        for step in range(6):
            store.save({"x": step}, step=step, metrics={"los": 1.0} if step == 0 else None)
        store.finish()
        assert store.steps() == [0, 4, 5]


def test_a_failure_at_exit_is_told(tmp_path: Path) -> None:
    """A process that ends while its last save fails says so; one whose save goes on finishes it first."""
    code = """
import os, sys, numpy as np, tensorkeep as tk
store = tk.Store(sys.argv[1])
store.save({"x": np.ones(3 << 20)}, step=1)
if sys.argv[2] == "fail":
    store.finish()
    def fail(*_): raise OSError(28, "No space left on device", "run")
    store._recorder.write = fail
    store.save({"x": np.ones(3)}, step=2)
"""
    run = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run([*run, "well"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and done.stderr == "" and tk.Store(tmp_path / "run").steps() == [1]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "other"), "fail"], capture_output=True, text=True, timeout=120, check=False
    )
    assert "step 2 was not saved" in done.stderr


def test_resume_takes_the_newest_intact_checkpoint(tmp_path: Path) -> None:
    """Damaged ones are skipped and named, with the reason; steps, metrics and state are those of the one that was loaded."""
    with tk.Store(tmp_path / "run", compress="none") as store:
        for step in range(3):
            store.save({"x": np.full(100_000, step)}, step=step, metrics={"loss": 3.0 - step})
    (newest,) = (tmp_path / "run" / "packs").glob("*-2-0.pack")  # of the third save
    data = bytearray(newest.read_bytes())
    data[1000] ^= 1
    newest.write_bytes(data)
    store = tk.Store(tmp_path / "run")
    target = {"x": np.zeros(100_000, np.int64)}
    with pytest.warns(tk.TensorkeepWarning, match="step 2"):
        found = store.resume(into=target)
    assert found is not None and found.step == 1 and found.metrics == {"loss": 2.0} and (target["x"] == 1).all()
    assert [step for step, _ in found.skipped] == [2] and "damaged" in found.skipped[0][1]
    (tmp_path / "run" / "checkpoints" / "0000000001.json").write_bytes(b"{}")
    with pytest.warns(tk.TensorkeepWarning, match="step 1"):
        assert tk.Store(tmp_path / "run").resume().step == 0
    store.save({"x": np.full(100_000, 3)}, step=3, wait=True)
    assert tk.Store(tmp_path / "run").resume().step == 3


def test_arguments_are_looked_at_at_the_door(tmp_path: Path) -> None:
    """A wrong argument is refused before anything is copied, and the message says what is wanted."""
    for options, said in (
        ({"compress": "zip"}, "compress="),
        ({"busy": "never"}, "busy="),
    ):
        with pytest.raises(ValueError, match=said):
            tk.Store(tmp_path / "run", **options)
    with pytest.raises(TypeError, match="keep="):
        tk.Store(tmp_path / "run", keep=3)
    store = tk.Store(tmp_path / "run")
    for step in (-1, True, 1.5, "1", None):
        with pytest.raises(ValueError, match="step="):
            store.save({}, step=step)
    for value in ("low", 10**400, None, [1]):
        with pytest.raises(ValueError, match="metrics: loss"):
            store.save({}, step=1, metrics={"loss": value})
    for metrics in ("loss", 0.1, [("loss", 0.1)]):
        with pytest.raises(TypeError, match="metrics="):
            store.save({}, step=1, metrics=metrics)
    for tag in ("con", "latest", "a/b", ".."):
        with pytest.raises(ValueError, match=r"name for (a|the) tag"):
            store.tag(tag)
    with pytest.raises(tk.UnsupportedError, match="lock"):
        store.save({"lock": threading.Lock()}, step=1)
    for ref in ("", "best:", "a b", "nul.json", -1, True, np.int64(-1), 1.0):
        with pytest.raises(ValueError, match="reference"):
            store.load(ref)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_store_belongs_to_its_process(tmp_path: Path) -> None:
    """A forked child is told to make one of its own, and its end does not touch the parent's save."""
    store = tk.Store(tmp_path / "run")
    store.save({"x": np.ones(3)}, step=1, wait=True)
    pid = os.fork()
    if pid == 0:
        try:
            store.save({"x": np.ones(3)}, step=2)
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert store.steps() == [1]


def test_the_first_save_says_what_to_expect(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """How large a checkpoint is, how many are kept and how many fit: once, in the log; a warning where the room is tight."""
    state = {"x": np.zeros(1_000_000)}
    with caplog.at_level("INFO", "tensorkeep"), tk.Store(tmp_path / "a", keep=tk.Keep(last=3)) as store:
        store.save(state, step=1)
        store.save(state, step=2)
    (said,) = [record.message for record in caplog.records if record.name == "tensorkeep"]
    assert "a checkpoint has 8.0 MB before compression, and 3 of them are kept, 24.0 MB" in said and "room for" in said
    store = tk.Store(tmp_path / "b")
    monkeypatch.setattr(type(store._backend), "free_bytes", lambda self: 50_000_000)
    with pytest.warns(tk.TensorkeepWarning, match="every one is kept; 50.0 MB are free, room for 6"):
        store.save(state, step=1, wait=True)
    monkeypatch.setattr(type(store._backend), "free_bytes", lambda self: 1_000_000)
    fresh = tk.Store(tmp_path / "c")
    with pytest.warns(tk.TensorkeepWarning, match="room for 0"), pytest.raises(OSError, match="no room for a checkpoint") as caught:
        fresh.save(state, step=1)
    assert caught.value.errno == errno.ENOSPC and not list((tmp_path / "c" / "checkpoints").glob("*"))


def test_a_way_through_a_link_leads_where_the_system_goes(tmp_path: Path) -> None:
    """`link/..` is the folder above the one behind the link, for a store as for a file; and what a link names is made."""
    (tmp_path / "elsewhere" / "inner").mkdir(parents=True)
    try:
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "inner")
    except OSError:
        pytest.skip("no links here")
    (tmp_path / "dangling").symlink_to("made")
    for way, place in (("link/../run", "elsewhere/run"), ("dangling", "made")):
        with tk.Store(f"{tmp_path}/{way}") as store:
            store.save({"x": 1}, step=1)
        assert (tmp_path / place / "checkpoints").is_dir()
        assert tk.load(f"{tmp_path}/{way}@latest") == {"x": 1}

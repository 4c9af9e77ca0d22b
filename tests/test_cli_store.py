"""The commands on stores: what they print, change and end with. Real processes."""

import json
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk
from tensorkeep.store.sealed import changed
from test_cli import tensorkeep


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of six checkpoints."""
    with tk.Store(tmp_path / "run", compress="none") as run:
        for number in range(6):
            state = {"w": np.full(50_000, number, np.float32), "fixed": np.arange(1000)}
            run.save(state, step=100 * number, metrics={"loss": 1 / (number + 1), "acc": number} if number != 4 else None)
    return tmp_path / "run"


def test_log_shows_steps_metrics_sizes_and_tags(store: Path) -> None:
    """A line a checkpoint, a line of bars a metric."""
    assert tensorkeep("tag", f"{store}@best:loss", "paper").stdout.startswith("paper is step 500")
    shown = tensorkeep("log", store)
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert lines[0].split()[:2] == ["step", "saved"] and [line.split()[0] for line in lines[1:7]] == [
        "0",
        "100",
        "200",
        "300",
        "400",
        "500",
    ]
    assert "0.166667" in lines[6] and lines[6].endswith("paper") and "█" in lines[7] and "1 to 0.166667" in lines[7]
    assert len(tensorkeep("log", store, "-n", 2).stdout.splitlines()) == 5
    document = json.loads(tensorkeep("log", store, "--json").stdout)
    assert [one["step"] for one in document["checkpoints"]] == [0, 100, 200, 300, 400, 500]
    assert document["checkpoints"][5]["tags"] == ["paper"] and document["checkpoints"][5]["metrics"]["loss"] == pytest.approx(1 / 6)
    with tk.Store(store) as run:
        run.save({"w": 1}, step=600, metrics={"loss": 1e308}, wait=True)
        run.save({"w": 1}, step=700, metrics={"loss": -1e308}, wait=True)
    newest = store / "checkpoints" / "0000000700.json"
    newest.write_bytes(changed(newest.read_bytes(), {"time": 1e300}))
    lines = tensorkeep("log", store).stdout.splitlines()
    assert lines[8].split()[:2] == ["700", "?"] and "█▁" in lines[9]
    (store / "checkpoints" / "0000000300.json").write_text("{}")
    assert "damaged checkpoints/0000000300.json" in tensorkeep("log", store).stdout


def test_what_removes_says_first_what_it_would_remove(store: Path) -> None:
    """--dry-run changes nothing and tells the same as the real run, which leaves what the rules keep."""
    rules = ("--last", 2, "--best", "loss=max", "--every", 200)
    would = tensorkeep("prune", store, *rules, "--dry-run").stdout
    assert "steps 100 and 300: would be removed" in would and tk.Store(store).steps() == [0, 100, 200, 300, 400, 500]
    assert "steps 100 and 300: removed" in tensorkeep("prune", store, *rules).stdout and tk.Store(store).steps() == [0, 200, 400, 500]
    would = tensorkeep("gc", store, "-n").stdout
    assert "would be removed" in would
    assert tensorkeep("gc", store).stdout == would.replace("would be removed", "removed")
    assert "nothing to be removed" in tensorkeep("gc", store).stdout
    assert "steps 400 and 500: removed" in tensorkeep("rollback", f"{store}@step-200").stdout
    tensorkeep("tag", f"{store}@step-0", "first")
    assert tensorkeep("delete", f"{store}@step-0", "-n").stdout == tensorkeep("delete", store, "step-0", "-n").stdout
    freed = tensorkeep("delete", f"{store}@step-0").stdout
    assert "step 0: removed" in freed and "nothing is free after `tensorkeep gc`: tags" in freed
    assert tk.Store(store).steps() == [200] and tk.Store(store).load()["w"][0] == 2


def test_gc_tells_what_damage_holds_and_what_frees_it(store: Path) -> None:
    """A manifest can be deleted by its step; a claim that a loss of power has torn is a file, and goes by itself."""
    claim = store / "claims" / f"{'a' * 16}-1.json"
    claim.parent.mkdir(exist_ok=True)
    claim.write_bytes(bytes(100))
    pack = store / "packs" / f"{'a' * 16}-1-0.pack"
    pack.write_bytes(b"of a save that a loss of power has cut short")
    (store / "checkpoints" / "0000000300.json").write_text("{}")
    lines = [line for line in tensorkeep("gc", store).stdout.splitlines() if line.startswith("damaged")]
    assert len(lines) == 2 and pack.exists()
    assert "0000000300.json" in lines[0] and lines[0].endswith("`tensorkeep delete` removes it")
    assert claim.name in lines[1] and "30 days" in lines[1] and "while nobody uses this store, the file may be deleted" in lines[1]
    claim.unlink()
    assert "1 pack" in tensorkeep("gc", store).stdout and not pack.exists()


def test_wrong_usage_is_told_in_a_line(store: Path) -> None:
    """A missing store, a missing checkpoint, no rule and no reference each have their sentence and exit code."""
    for code, said, *arguments in (
        (1, "no store is there", "log", store / "nothing"),
        (2, "is taken whole here: leave '@latest' away", "log", f"{store}@latest"),
        (1, "has no step-7", "delete", store, "step-7"),
        (1, "is on step", "tag", f"{store}@step-0", "latest-good"),
        (1, "Move it with --move, or", "tag", f"{store}@step-0", "latest-good"),
        (2, "no rule says what stays", "prune", store),
        (2, "is no reference", "delete", store, "a b"),
        (2, "means something else already", "tag", f"{store}@latest", "best"),
        (2, "STORE@step-N is wanted", "rollback", store),
        (2, "STORE@step-N, is wanted", "delete", store),
        (2, "is taken whole here: leave '@latest' away", "delete", f"{store}@latest", "step-0"),
        (2, "12h", "prune", store, "--within", "soon"),
        (2, "--best heat=min, or heat=max", "prune", store, "--best", "heat"),
    ):
        if said == "is on step":
            tensorkeep("tag", f"{store}@step-500", "latest-good")
        done = tensorkeep(*arguments)
        assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr, (arguments, done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [("log",), ("gc", "-n"), ("prune", "--last", "1", "-n"), ("delete", "step-0", "-n")],
    ids=lambda arguments: arguments[0],
)
def test_json_is_one_document(store: Path, arguments: tuple[str, ...]) -> None:
    """Every command on a store prints one JSON document."""
    name, *others = arguments
    document = json.loads(tensorkeep(name, store, *others, "--json").stdout)
    assert document["schema"] == 1 and document["command"] == name


def test_checkpoints_are_exported_and_copied(store: Path, tmp_path: Path) -> None:
    """A model file of one; another store of all, which a second copy leaves as it is."""
    assert "step 0, 1 tensor" in tensorkeep("export", f"{store}@step-0", tmp_path / "w.safetensors", "--only", "w").stdout
    assert list(tk.load(tmp_path / "w.safetensors")) == ["w"]
    assert tensorkeep("export", f"{store}@latest", tmp_path / "w.safetensors", "--only", "nothing").returncode == 2
    assert tensorkeep("export", f"{store}@step-7", tmp_path / "x.safetensors").returncode == 1
    assert "steps 0 and 500: copied" in tensorkeep("copy", store, tmp_path / "two", "--ref", "step-0", "--ref", "best:loss").stdout
    said = tensorkeep("copy", store, tmp_path / "two").stdout
    assert "steps 100, 200, 300 and 400: copied" in said and "steps 0 and 500: there already" in said
    assert tk.Store(tmp_path / "two").verify().intact


def test_verify_of_a_store_is_of_all_its_checkpoints(store: Path) -> None:
    """Damage anywhere is named with its pack and the checkpoints that it hurts; a reference is verified alone."""
    done = tensorkeep("verify", store)
    assert done.returncode == 0 and "intact" in done.stdout
    with tk.open(f"{store}@step-100") as contents:
        joined = contents.storage.joined
        row = next(row for row in range(len(joined.grid)) if joined.paths(row) == ["w"])
        pack = joined.packs[joined.table.pack[row]]
    file = store / "packs" / f"{pack}.pack"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    done = tensorkeep("verify", store)
    assert done.returncode == 3 and f"packs/{pack}.pack: " in done.stdout and "step-100" in done.stdout
    assert tensorkeep("verify", f"{store}@step-100").returncode == 3
    assert tensorkeep("verify", f"{store}@latest").returncode == 0
    document = json.loads(tensorkeep("verify", store, "--json").stdout)
    assert "step-100" in document["files"][0]["checkpoints"]


def test_stats_tell_what_is_needed_dead_and_garbage(store: Path) -> None:
    """Frozen tensors count once; what only a deleted checkpoint needed is garbage, or dead where its pack is needed for something else."""
    document = json.loads(tensorkeep("stats", store, "--json").stdout)
    each = 50_000 * 4 + 1000 * 8
    assert (document["checkpoints"], document["tensor_bytes"], document["dead_bytes"], document["garbage_bytes"]) == (6, 6 * each, 0, 0)
    assert document["live_bytes"] == document["pack_bytes"] == sum(file.stat().st_size for file in (store / "packs").iterdir())
    with tk.Store(store) as run:
        run.delete("step-0", "step-100")
    found = tk.Store(store).stats()
    assert found.dead_bytes + found.garbage_bytes > 0 and found.live_bytes < document["live_bytes"]
    assert found.live_bytes + found.dead_bytes <= found.pack_bytes
    tk.Store(store).copy(store.parent / "compact")
    compact = tk.Store(store.parent / "compact").stats()
    assert (compact.dead_bytes, compact.garbage_bytes, compact.live_bytes) == (0, 0, found.live_bytes)
    assert "4 checkpoints" in tensorkeep("stats", store).stdout

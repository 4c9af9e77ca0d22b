"""The benchmarks run, whatever they measure: every case once, on small states."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).parent.parent

FILES: Final = [
    "Large tensors",
    "Small tensors",
    "A training state",
    "Every peer",
    "Files of PyTorch",
    "Files of many formats",
    "Converting",
]
FRAMEWORKS: Final = ["Models of Keras", "Trees of JAX", "Estimators"]
STORES: Final = ["codecs", "codecs in a run", "PyTorch", "JAX", "a part of a tensor", "training beside a save", "histories"]
GROUPS: Final = {"files": (FILES, 19), "frameworks": (FRAMEWORKS, 10), "stores": ([f"Stores, {name}" for name in STORES], 19)}
"""Tables, and how many cases among theirs have a promise."""


@pytest.mark.parametrize("group", GROUPS)
def test_every_case_runs(group: str, tmp_path: Path) -> None:
    """All tables come out, as text, as JSON and as a plot; promises are not judged on small states."""
    files = ("safetensors", "joblib", "h5py", "gguf", "onnx", "ztensor", "matplotlib")
    for package in (*files, "torch", "orbax", "keras", "flax", "equinox", "skops"):
        pytest.importorskip(package)
    tables, promises = GROUPS[group]
    command = [sys.executable, "-m", "benchmarks", "|".join(tables), "--quick", "--folder", str(tmp_path)]
    kept = ["--json", str(tmp_path / "all.json"), "--plot", str(tmp_path / "all.svg")]
    done = subprocess.run([*command, *kept], cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    figures = json.loads((tmp_path / "all.json").read_text())
    assert [table["table"] for table in figures["tables"]] == tables
    results = [result for table in figures["tables"] for result in table["results"]]
    promised = [result["against"] for result in results if result["at_most"] is not None]
    assert sum(peer not in ("ZipNN", "z4ai") for peer in promised) == promises, "those two are measured where they are there"
    assert all(result["ours"] and result["peer"] for result in results)
    assert all(result["ratio"] > 0 or result["counted"] for result in results), "only memory may be none at all"
    assert tables[0] in done.stdout and "Load average" in done.stdout
    assert (tmp_path / "all.svg").read_text().startswith("<?xml")
    assert {path.name for path in tmp_path.iterdir()} == {"all.json", "all.svg"}, "nothing is left behind"


def test_every_table_is_in_a_group() -> None:
    """None is left out."""
    for package in ("torch", "orbax", "keras", "flax", "equinox", "skops"):
        pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, "-c", "from benchmarks.__main__ import TABLES; print(*TABLES, sep='\\n')"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [table for tables, _ in GROUPS.values() for table in tables]

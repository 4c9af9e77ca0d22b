"""The benchmarks run, whatever they measure: every case once, on small states."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_every_case_runs(tmp_path: Path) -> None:
    """All tables come out, as text, as JSON and as a plot; promises are not judged on small states."""
    for package in ("torch", "safetensors", "joblib", "h5py", "matplotlib"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "benchmarks", "--quick", "--folder", str(tmp_path)]
    kept = ["--json", str(tmp_path / "all.json"), "--plot", str(tmp_path / "all.svg")]
    done = subprocess.run([*command, *kept], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    figures = json.loads((tmp_path / "all.json").read_text())
    assert [table["table"] for table in figures["tables"]] == ["Large tensors", "Small tensors", "A training state", "Every peer"]
    results = [result for table in figures["tables"] for result in table["results"]]
    assert sum(result["at_most"] is not None for result in results) == 17
    assert all(result["ratio"] > 0 and result["ours"] and result["peer"] for result in results)
    assert "Large tensors" in done.stdout and "Load average" in done.stdout
    assert (tmp_path / "all.svg").read_text().startswith("<?xml")
    assert {path.name for path in tmp_path.iterdir()} == {"all.json", "all.svg"}, "nothing is left behind"

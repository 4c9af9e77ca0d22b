"""The benchmarks run, whatever they measure: every case once, on small states."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_every_case_runs(tmp_path: Path) -> None:
    """All tables come out, as text, as JSON and as a plot; promises are not judged on small states."""
    files = ("safetensors", "joblib", "h5py", "gguf", "onnx", "ztensor", "matplotlib")
    for package in (*files, "torch", "orbax", "keras", "flax", "equinox", "skops"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "benchmarks", "--quick", "--folder", str(tmp_path)]
    kept = ["--json", str(tmp_path / "all.json"), "--plot", str(tmp_path / "all.svg")]
    done = subprocess.run([*command, *kept], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    figures = json.loads((tmp_path / "all.json").read_text())
    ours = ["Large tensors", "Small tensors", "A training state", "Every peer"]
    others = ["Files of PyTorch", "Files of many formats", "Converting"]
    frameworks = ["Models of Keras", "Trees of JAX", "Estimators"]
    store = ["codecs", "codecs in a run", "PyTorch", "JAX", "a part of a tensor", "training beside a save", "histories"]
    assert [table["table"] for table in figures["tables"]] == ours + others + frameworks + [f"Stores, {name}" for name in store]
    results = [result for table in figures["tables"] for result in table["results"]]
    promised = [result["against"] for result in results if result["at_most"] is not None]
    assert sum(peer not in ("ZipNN", "z4ai") for peer in promised) == 48, "those two are measured where they are there"
    assert all(result["ours"] and result["peer"] for result in results)
    assert all(result["ratio"] > 0 or result["counted"] for result in results), "only memory may be none at all"
    assert "Large tensors" in done.stdout and "Load average" in done.stdout
    assert (tmp_path / "all.svg").read_text().startswith("<?xml")
    assert {path.name for path in tmp_path.iterdir()} == {"all.json", "all.svg"}, "nothing is left behind"

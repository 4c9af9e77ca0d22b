"""The guard itself: that it sees what it should, on real files and on a reader that misbehaves."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest

import guarded
import tensorkeep as tk

REAL: Final = os.environ.get("TENSORKEEP_REAL_FILES")


@pytest.mark.skipif(REAL is None, reason="TENSORKEEP_REAL_FILES is not set")
def test_real_files_are_read_without_running_opening_or_importing_anything() -> None:
    """All files of others, read whole and scanned: within the bounds of time and memory."""
    folder = Path(REAL or "")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    entries = [entry for entry in manifest["entries"] + manifest["bulk"] if entry.get("present", True)]
    outcomes = guarded.look(folder / entry["file"] for entry in entries if (folder / entry["file"]).exists())
    assert {outcome.path: problems for outcome in outcomes if (problems := outcome.problems())} == {}
    assert len(outcomes) > 180


def test_the_guard_sees_what_a_reader_must_never_do(tmp_path: Path) -> None:
    """An import, a write, a process, code: each stops, and is told."""
    program = (
        "import sys, os, json; sys.path.insert(0, sys.argv[1]); import guarded; g = guarded._Guard(); sys.addaudithook(g)\n"
        "for text in json.loads(sys.argv[2]):\n"
        "    code = compile(text, 'x', 'exec'); g.did = ''\n"
        "    f = eval('lambda: exec(code)') if text.startswith('!') else None\n"
        "    import types; run = types.FunctionType(code, globals()); g.on = True\n"
        "    try: run()\n"
        "    except RuntimeError: pass\n"
        "    g.on = False; print(bool(g.did))\n"
    )
    deeds = ["import colorsys", "open('made', 'w')", "os.system('true')", "exec('1')", "import socket; socket.socket()", "os.mkdir('m')"]
    innocent = ["open(__import__('sys').executable, 'rb').close()", "sum([1])"]
    found = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent), json.dumps(deeds + innocent)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    ).stdout.split()
    assert found == ["True"] * len(deeds) + ["False"] * len(innocent)
    assert list(tmp_path.iterdir()) == []


def test_honest_files_are_read_whole(tmp_path: Path) -> None:
    """Tensors are counted, and nothing is found."""
    tk.save({"a": np.ones(3), "b": [np.zeros(2)]}, tmp_path / "m.safetensors")
    np.savez(tmp_path / "m.npz", a=np.ones(3))
    outcomes = guarded.look([tmp_path / "m.safetensors", tmp_path / "m.npz"])
    assert [(outcome.kind, outcome.tensors, outcome.findings, outcome.problems()) for outcome in outcomes] == [
        ("read", 2, [], []),
        ("read", 1, [], []),
    ]

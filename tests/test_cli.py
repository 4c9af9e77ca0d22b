"""The command line: what a person types, reads and scripts."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk
from tensorkeep.cli import COMMANDS

HOSTILE = "evil\x1b[31mred\nline\u202eright"


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tensorkeep", *arguments], capture_output=True, text=True, check=False, **options)


@pytest.fixture
def file(tmp_path: Path) -> str:
    layers = [{"weight": np.ones((4, 3), np.float32), "bias": np.zeros(3)} for _ in range(24)]
    path = tmp_path / "net.safetensors"
    tk.save({"layers": layers, HOSTILE: np.ones(2), "epoch": 3}, path, metadata={"note": HOSTILE})
    return str(path)


def test_show_collapses_what_is_alike(file: str) -> None:
    """One line for 24 layers; sizes, dtypes, values, metadata; nothing a terminal would obey."""
    done = run("show", file)
    assert done.returncode == 0
    assert "layers.{0..23}.weight" in done.stdout
    assert "24x  F32[4,3]" in done.stdout
    assert "50" not in done.stdout.split("\n")[0]
    assert "every byte can be checked" in done.stdout
    assert "evil\\x1b[31mred\\nline\\u202eright" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout


def test_show_one_tensor_and_its_neighbour(file: str) -> None:
    """A tensor by its path; a wrong path is answered with the right one."""
    assert run("show", file, "--tensor", "layers.3.bias").stdout.startswith("layers.3.bias: F64[3], 24 B\n  0.0, 0.0, 0.0")
    wrong = run("show", file, "--tensor", "layers.3.bais")
    assert wrong.returncode == 2
    assert "did you mean 'layers.3.bias'?" in wrong.stderr


def test_verify_has_an_exit_code_for_each_verdict(file: str, tmp_path: Path) -> None:
    """0 intact, 3 damaged or nothing to check against, 1 no such file."""
    assert (run("verify", file).returncode, run("verify", file).stdout.count("intact")) == (0, 1)
    damaged = tmp_path / "damaged.safetensors"
    data = bytearray(Path(file).read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    done = run("verify", file, str(damaged))
    assert done.returncode == 3
    assert "damaged" in done.stdout
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    assert run("verify", str(plain)).returncode == 3
    assert run("verify", str(tmp_path / "none")).returncode == 1


@pytest.mark.parametrize("command", [["show"], ["verify"], ["version"], ["demo", "--folder"]])
def test_every_command_speaks_json(command: list[str], file: str, tmp_path: Path) -> None:
    """One document with a schema number on stdout, nothing else."""
    argument = [] if command == ["version"] else [str(tmp_path / "demo")] if command[0] == "demo" else [file]
    done = run(*command, *argument, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    assert document["command"] == command[0]


@pytest.mark.parametrize(
    "arguments", [["show", "nothing-there"], ["verify", "."], ["show", __file__], ["sho"], ["show"], ["show", "--what"]]
)
@pytest.mark.parametrize("as_json", [False, True])
def test_bad_input_is_one_clear_message(arguments: list[str], as_json: bool) -> None:
    """Never a traceback; errors go to stderr, as JSON where that was asked for."""
    done = run(*arguments, *(["--json"] if as_json else []))
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    if as_json:
        assert json.loads(done.stderr)["error"]["message"]
    else:
        assert done.stderr.lower().count("error:") == 1


def test_a_command_that_is_none_is_answered_with_one() -> None:
    """As git does."""
    assert "Did you mean verify?" in run("verfy").stderr


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda words: " ".join(words) or "(none)")
def test_help_begins_with_examples(command: list[str]) -> None:
    """Each help page starts with what to type."""
    done = run(*command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Examples:\n  tensorkeep ")


def test_colour_only_where_a_person_looks(file: str) -> None:
    """A terminal gets colour, unless NO_COLOR is set; a pipe never does."""
    for environment, coloured in [({}, True), ({"NO_COLOR": "1"}, False)]:
        parent, child = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "tensorkeep", "verify", file],
            stdout=child,
            stderr=child,
            env={**os.environ, "TERM": "xterm", **environment},
        )
        process.wait()
        os.close(child)
        assert (b"\x1b[" in os.read(parent, 4096)) is coloured
        os.close(parent)


def test_a_reader_that_goes_away_is_no_error(file: str) -> None:
    """`tensorkeep show | head -1` ends quietly."""
    done = subprocess.run(f"{sys.executable} -m tensorkeep show {file} | head -1", shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_the_demo_shows_the_whole_promise(tmp_path: Path) -> None:
    """Trains, saves, predicts the same, survives a kill, resumes, refuses another shape."""
    done = run("demo", "--folder", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for sentence in ("never saw", "the same, to the last bit", "intact, bit for bit", "never interrupted", "layers.0.weight", "Try next"):
        assert sentence in done.stdout
    assert tk.verify(tmp_path / "out" / "digits.safetensors").intact

"""The command line: what it prints, where, and what it ends with. Real processes, real terminals."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk
from craft import safetensors
from tensorkeep.cli import COMMANDS

SOURCE = Path(tk.__file__).parent.parent
DOCS = Path(__file__).parent.parent / "docs"
HOSTILE = {
    "\x1b[31mred\x1b[0m": "escape codes",
    "a\nerror: all is lost": "newlines",
    "safe\u202egnp.exe": "right to left",
    "zero\u200bwidth": "what cannot be seen",
    "\x9b31m\x07": "C1 codes and bells",
    "long" * 2000: "length",
    "权重": "wide letters",
}


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    return {**kept, "PYTHONPATH": str(SOURCE), **more}


def tensorkeep(*arguments: object, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command with no terminal."""
    command = [sys.executable, "-m", "tensorkeep", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=cwd, env=environment(**more), timeout=120)


def on_a_terminal(*arguments: object, columns: int = 80, cwd: Path | None = None, **more: str) -> str:
    """What a person sees: the output of a command in a pseudo-terminal."""
    pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX's")
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = [sys.executable, "-m", "tensorkeep", *map(str, arguments)]
    more = environment(**{"TERM": "xterm", **more})
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=more)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # Linux: the other end was closed
        pass
    process.wait()
    os.close(ours)
    return seen.decode().replace("\r\n", "\n")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model file."""
    tk.save({"layers": [{"w": np.ones((2, 3), np.float32)} for _ in range(4)], "epoch": 3}, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A model file with one flipped bit."""
    data = bytearray(tk.dumps({"w": np.ones(3), "v": np.ones(3)}))
    data[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(data)
    return tmp_path / "damaged.safetensors"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A safetensors file by others."""
    data = safetensors({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"x")
    (tmp_path / "plain.safetensors").write_bytes(data)
    return tmp_path / "plain.safetensors"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], *([command, "--help"] for command in COMMANDS), ["version"]])
def test_help_and_versions_import_no_numpy(arguments: Sequence[str]) -> None:
    """They are there at once."""
    code = (
        "import sys\nfrom tensorkeep.cli import run\n"
        f"code = run({list(arguments)!r})\n"
        "heavy = {'numpy', 'torch', 'tensorkeep.verbs.load', 'tensorkeep.nn'} & set(sys.modules)\n"
        "print('heavy:', *sorted(heavy))\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("heavy:\n")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_help_page_starts_with_examples(command: str) -> None:
    """And each example is a command that exists."""
    done = tensorkeep(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Examples:\n  tensorkeep ")
    for line in done.stdout.split("\n\n")[0].splitlines()[1:]:
        assert line.split()[1] in COMMANDS
        assert command in line
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_show_tells_tensors_alike_together(model: Path) -> None:
    """A file at a glance: data on stdout, nothing on stderr."""
    done = tensorkeep("show", model.name, cwd=model.parent)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"model.safetensors: tensorkeep model file, by tensorkeep {tk.__version__}, ")
    assert lines[1] == "  4 tensors, 24 elements: F32 96 B"
    assert lines[2] == f"  every byte can be checked (root {tk.verify(model).root[:16]})"
    assert lines[4:] == ["  layers.{0..3}.w  4x  F32[2,3]  96 B", "", "  epoch  3"]


def test_show_one_tensor(model: Path) -> None:
    """Its first elements; a wrong path is answered with the one that was meant."""
    done = tensorkeep("show", model, "--tensor", "layers.2.w")
    assert done.stdout == "layers.2.w: F32[2,3], 24 B\n  1.0, 1.0, 1.0, 1.0, 1.0, 1.0\n"
    done = tensorkeep("show", model, "--tensor", "layer.2.w")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'layers.2.w'?" in done.stderr or "did you mean 'layers.0.w'?" in done.stderr
    assert "`tensorkeep show FILE` lists them." in done.stderr


def test_show_one_tensor_as_numpy_would(tmp_path: Path) -> None:
    """A float32 in its own digits, not in those of the float64 next to it; nothing of an empty tensor; a tied one by each path."""
    shared = np.array([-0.20274, 1e-8], np.float32)
    state = {"embed": shared, "head": shared, "half": np.float16([0.1]), "text": np.array(["a\n"]), "empty": np.empty((0, 3))}
    tk.save(state, tmp_path / "m.safetensors")

    def first(path: str) -> list[str]:
        return tensorkeep("show", tmp_path / "m.safetensors", "--tensor", path).stdout.splitlines()[1:]

    assert first("embed") == first("head") == ["  -0.20274, 1e-08"]
    assert (first("half"), first("text"), first("empty")) == (["  0.1"], ["  a\\n"], [])


def test_verify_tells_a_line_a_file_and_its_exit_code(model: Path, damaged: Path, plain: Path, tmp_path: Path) -> None:
    """0 all intact, 3 a finding, 1 unreadable; a finding is told whatever else failed."""
    done = tensorkeep("verify", model, model)
    assert (done.returncode, done.stdout.count(": intact"), done.stderr) == (0, 2, "")
    done = tensorkeep("verify", damaged)
    assert done.returncode == 3
    assert re.search(r"damaged in 1 place\n  bytes [\d,]+ to [\d,]+  \w, and 1 more\n$", done.stdout)
    done = tensorkeep("verify", plain)
    assert (done.returncode, "unverified" in done.stdout) == (3, True)
    done = tensorkeep("verify", tmp_path / "nothing", model)
    assert (done.returncode, done.stdout.count("intact"), done.stderr.count("No such file")) == (1, 1, 1)
    done = tensorkeep("verify", tmp_path / "nothing", damaged, model)
    assert (done.returncode, done.stdout.count("\n")) == (3, 3)


def test_verify_tells_unreadable_files_as_json(model: Path, tmp_path: Path) -> None:
    """Every entry has every field; stderr has one document, however many files failed."""
    (tmp_path / "text").write_text("hello, this is no model at all")
    done = tensorkeep("verify", "--json", tmp_path / "nothing", model, tmp_path / "text")
    entries = json.loads(done.stdout)["files"]
    assert [(entry["intact"], "error" in entry) for entry in entries] == [(False, True), (True, False), (False, True)]
    fields = {"file", "intact", "unverified", "damaged", "root", "nbytes", "checksum", "checkpoints"}
    assert all(set(entry) - {"error"} == fields for entry in entries)
    error = json.loads(done.stderr)["error"]
    assert error["kind"] == "FileNotFoundError"
    assert error["hint"].startswith("1 more")
    error = json.loads(tensorkeep("verify", "--json", tmp_path / "text").stderr)["error"]
    assert (error["kind"], error["hint"]) == ("FormatError", "")


def test_version_tells_what_is_installed() -> None:
    """tensorkeep, Python, the platform and the packages."""
    done = tensorkeep("version")
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert told["tensorkeep"] == tk.__version__
    assert told["numpy"] == np.__version__
    assert told["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert tensorkeep("--version").stdout == f"tensorkeep {tk.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_speaks_json(command: str, model: Path) -> None:
    """One document with its schema number, and nothing else."""
    arguments = {"show": [model], "scan": [model], "verify": [model], "demo": ["--folder", model.parent / "demo"]}
    arguments["convert"] = [model, model.parent / "out.npz"]
    arguments |= {"fingerprint": [model], "diff": [model, model]}
    store = model.parent / "run"
    with tk.Store(store) as run:
        run.save({"w": np.ones(3)}, step=1, metrics={"loss": 1.0})
    arguments |= {"log": [store], "gc": [store], "tag": [f"{store}@latest", "good"], "delete": [store, "step-1"]}
    arguments |= {"prune": [store, "--last", "1"], "rollback": [f"{store}@step-1"]}
    arguments |= {
        "stats": [store],
        "export": [f"{store}@latest", model.parent / "latest.safetensors"],
        "copy": [store, model.parent / "backup"],
    }
    done = tensorkeep(command, "--json", *arguments.get(command, []))
    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert (document["schema"], document["command"]) == (1, command)


def test_json_is_strict_whatever_a_file_holds(tmp_path: Path) -> None:
    """nan, bytes, keys that are no text, and ints that Python refuses to print, have no place in JSON: they become text."""
    metadata = {"nan": float("nan"), "inf": [float("inf")], "bytes": b"\xff", "big": 10**5000, "deep": {1: (2, None)}}
    tk.save({"w": np.array([np.nan, 1.0])}, tmp_path / "odd.safetensors", metadata=metadata)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(tensorkeep("show", "--json", tmp_path / "odd.safetensors").stdout, parse_constant=refuse)
    assert (document["metadata"]["nan"], document["metadata"]["inf"], document["metadata"]["deep"]) == ("nan", ["inf"], {"1": [2, None]})
    document = json.loads(tensorkeep("show", "--json", tmp_path / "odd.safetensors", "--tensor", "w").stdout, parse_constant=refuse)
    assert document["first"] == ["nan", 1.0]


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["show", "nothing"], 1, "FileNotFoundError"),
        (["show", "text"], 1, "FormatError"),
        (["show", "."], 1, None),
        (["verify", "empty"], 1, "FormatError"),
        (["show"], 2, "MissingParameter"),
        (["show", "text", "--nothing"], 2, None),
        (["shwo"], 2, "UsageError"),
    ],
)
def test_bad_input_gives_one_clear_error(arguments: list[str], code: int, kind: str | None, tmp_path: Path) -> None:
    """On stderr, with its exit code, never a traceback; as JSON where that was asked for."""
    (tmp_path / "text").write_text("hello, this is no model at all")
    (tmp_path / "empty").touch()
    done = tensorkeep(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    done = tensorkeep(*arguments, "--json", cwd=tmp_path)
    document = json.loads(done.stderr)
    assert (done.returncode, document["schema"]) == (code, 1)
    assert document["error"]["message"]
    assert kind in (None, document["error"]["kind"])


def test_a_wrong_command_is_answered_with_the_one_that_was_meant() -> None:
    """Did you mean."""
    assert "Did you mean verify?" in tensorkeep("verfy").stderr
    assert "Did you mean show?" in tensorkeep("shwo").stderr
    assert "There are convert, copy, delete, " in tensorkeep("xyzzy").stderr


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A model file whose names and texts want to speak to the terminal."""
    state = {**{name: np.ones(2) for name in HOSTILE}, "value": "\x1b]0;title\x07\n", "\x1b[2Jkey": 1}
    tk.save(state, tmp_path / "hostile.safetensors", metadata={"\x1b[2J": "a\n\x1b[31mb\u202e"})
    return tmp_path / "hostile.safetensors"


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("colour", [True, False])
def test_a_hostile_name_cannot_speak_to_the_terminal(hostile: Path, columns: int, colour: bool) -> None:
    """No escape code, control character, newline or hidden mark of a file gets through; lines keep to the width."""
    more = {} if colour else {"NO_COLOR": "1"}
    seen = on_a_terminal("show", hostile.name, columns=columns, cwd=hostile.parent, **more)
    assert (re.findall(r"\x1b\[\d*m", seen) != []) is colour
    seen = re.sub(r"\x1b\[[01]m", "", seen)
    assert all(char == "\n" or char.isprintable() for char in seen)
    assert "\nerror" not in seen
    assert max(len(line) + line.count("权") + line.count("重") for line in seen.splitlines()) <= columns
    told = tensorkeep("show", hostile).stdout
    assert all(char == "\n" or char.isprintable() for char in told)


def test_hostile_names_in_errors_and_arguments(hostile: Path, tmp_path: Path) -> None:
    """Errors are shown escaped too, and so is what the caller typed."""
    for arguments in (["show", "no\x1b[31m\nsuch"], ["\x1b[31mshow"], ["show", hostile, "--tensor", "\x1b[31mred"], ["show", "--\x1b[31m"]):
        done = tensorkeep(*arguments, cwd=tmp_path)
        assert done.returncode
        assert "\x1b" not in done.stderr


def test_a_terminal_that_lacks_a_letter_gets_it_spelled_out(hostile: Path) -> None:
    """As in an old Windows console; that is no reason to fail."""
    done = tensorkeep("show", hostile, PYTHONIOENCODING="cp1252")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u6743\\u91cd" in done.stdout


def test_many_rows_are_cut_on_a_terminal_and_whole_in_a_pipe(tmp_path: Path) -> None:
    """A terminal gets the first hundred and is told how many there are."""
    tk.save({f"n{number}": np.ones(number + 1) for number in range(150)}, tmp_path / "many.safetensors")
    assert "... and 50 more" in on_a_terminal("show", tmp_path / "many.safetensors")
    assert tensorkeep("show", tmp_path / "many.safetensors").stdout.count("  n") == 150


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_quiet(tmp_path: Path, unbuffered: str) -> None:
    """`tensorkeep show file | head -1` says nothing on stderr."""
    tk.save({f"{'x' * 200}{number}": np.ones(number + 1, np.int8) for number in range(2000)}, tmp_path / "many.safetensors")
    command = [sys.executable, "-m", "tensorkeep", "show", str(tmp_path / "many.safetensors")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(PYTHONUNBUFFERED=unbuffered)
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("missing", [False, True])
def test_a_full_disk_under_stdout_is_an_error(model: Path, unbuffered: str, missing: bool) -> None:
    """What could not be printed is not called a success; nor does Python have another try as it ends, and end with 120."""
    command = [sys.executable, "-m", "tensorkeep", "fingerprint", str(model), *(["missing"] if missing else [])]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment(PYTHONUNBUFFERED=unbuffered))
    assert done.returncode == 1
    assert "error: " in done.stderr and "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe, to wait at")
def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    """As a shell expects it."""
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "tensorkeep", "show", str(tmp_path / "pipe")]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # whatever started these tests may have it ignored
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(), preexec_fn=heard)
    with open(tmp_path / "pipe", "wb") as pipe:  # opens when the command has begun to read
        pipe.write(b"\0")
        pipe.flush()
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaint.strip() == "error: interrupted"


@pytest.mark.skipif(sys.platform == "win32", reason="closes descriptors as a POSIX shell does")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("arguments", [["version"], ["verify", "nothing"]])
def test_a_closed_stdout_or_stderr_is_no_reason_to_fail(arguments: list[str], closed: str, tmp_path: Path) -> None:
    """What nobody wants to read is dropped; the exit code is the same."""
    script = f'exec "$@" {closed}'
    command = ["sh", "-c", script, "sh", sys.executable, "-m", "tensorkeep", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert done.returncode == tensorkeep(*arguments, cwd=tmp_path).returncode
    assert "Traceback" not in done.stderr


def test_a_dumb_terminal_gets_plain_lines(model: Path) -> None:
    """No colour, which it would print as codes; and no bar in the demo, which it would print again and again."""
    assert "\x1b" in on_a_terminal("show", model)
    assert "\x1b" not in on_a_terminal("show", model, TERM="dumb")
    assert not {"\x1b", "\r"} & set(on_a_terminal("demo", cwd=model.parent, TERM="dumb"))


def drawn(steps: int, seconds: float) -> list[str]:
    """What a bar draws on a terminal of 60 columns, for so many steps of so many seconds, by a clock that no busy machine moves on."""
    script = (
        "from types import SimpleNamespace\nfrom tensorkeep.cli import output\nnow = 0.0\n"
        "output.time = SimpleNamespace(monotonic=lambda: now)\n"
        "with output.progress('verifying ' + 'x' * 500) as tell:\n"
        f"    for step in range({steps}):\n        now += {seconds}\n        tell(step, {steps})\n"
    )
    pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX's")
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", script], stderr=theirs, env=environment(TERM="xterm", COLUMNS="60"))
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # Linux: the other end was closed
        pass
    process.wait()
    os.close(ours)
    return seen.decode().split("\r")


def test_progress_only_on_a_terminal_and_only_for_long_work(model: Path) -> None:
    """What takes no time needs no bar, nor does a pipe."""
    assert drawn(12, 0.0) == [""]
    assert tensorkeep("verify", model).stderr == ""


def test_the_bar_appears_after_half_a_second_and_goes_away() -> None:
    """Drawn over itself, cleared at the end, never wider than the terminal."""
    bars = drawn(12, 0.07)
    assert 1 <= sum("[#" in bar for bar in bars) <= 12
    assert max(map(len, bars)) < 60
    assert bars[-2:] == [" " * 59, ""]


def test_the_demo_keeps_its_promises(tmp_path: Path) -> None:
    """Every step is told with its time, and the store and the file that are left are intact and complete."""
    done = tensorkeep("demo", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert len(document["steps"]) == 6
    assert all(step["seconds"] >= 0 for step in document["steps"])
    made = {re.sub(r"^run\d+$", "run", path.name) for path in (tmp_path / "tensorkeep-demo").iterdir()}
    assert made == {"digits.safetensors", "run"}  # on a busy machine a run may end before it is killed: then there is another
    assert tk.verify(tmp_path / document["file"]).intact
    assert tk.load(tmp_path / document["file"])["epoch"] == 20
    store = tk.Store(tmp_path / document["store"])
    assert store.steps()[-3:] == [18, 19, 20] and store.load()["epoch"] == 20 and store.gc(dry_run=True).nbytes == 0
    told = " ".join(step["result"] for step in document["steps"])
    assert "SIGKILL" in told and "same, to the last bit" in told
    assert "another shape" in told


@pytest.mark.parametrize("columns", [80, 120])
def test_the_demo_on_a_terminal(tmp_path: Path, columns: int) -> None:
    """A line a result, a bar only while one waits, and what to try next; the line of Python runs."""
    seen = on_a_terminal("demo", columns=columns, cwd=tmp_path, NO_COLOR="1")
    assert "\x1b" not in seen
    for line in seen.split("\r"):
        assert "[#" not in line or re.search(r"^   training \[[# ]{20}\] epoch \d+, loss \d\.\d{4} *$", line)
    assert "6. Load it into a network of another shape" in seen
    last = seen.rstrip().splitlines()[-3:]
    assert re.fullmatch(r"  tensorkeep log tensorkeep-demo/run\d*", last[0])
    assert last[1] == "  tensorkeep show tensorkeep-demo/digits.safetensors"
    code = last[2].strip().removeprefix('python -c "').removesuffix('"')
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_reference_in_the_docs_is_the_help_pages() -> None:
    """`python docs/make_cli_reference.py` writes it anew."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("make_cli_reference", DOCS / "make_cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.PAGE.read_text(encoding="utf-8") == made.reference()

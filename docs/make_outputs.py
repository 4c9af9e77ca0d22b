"""Run the commands that the READMEs show and put in what they print: `python docs/make_outputs.py`.

tests/test_docs.py fails when a shown output is no longer the true one.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_shell(command: str, folder: Path) -> str:
    """What a command line prints, errors too, with `tensorkeep` being this very package."""
    script = f'tensorkeep() {{ "{sys.executable}" -m tensorkeep "$@"; }}\n{command}'
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "80", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout


def refreshed(text: str, folder: Path, run_python: Callable[[str], None]) -> str:
    """A page with the true output behind every command of its console blocks, its Python blocks run in between."""

    def block(match: re.Match[str]) -> str:
        kind, body = match.groups()
        if kind == "python":
            if "import torch" not in body:
                run_python(body)
            return match.group()
        commands = [line.removeprefix("$ ") for line in body.splitlines() if line.startswith("$ ")]
        return "```console\n" + "".join(f"$ {command}\n{run_shell(command, folder)}" for command in commands) + "```"

    return BLOCK.sub(block, text)


def refresh(page: Path) -> str:
    """The text that a page should have."""
    with tempfile.TemporaryDirectory() as folder:

        def run_python(source: str) -> None:
            subprocess.run(
                [sys.executable, "-c", source], cwd=folder, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            )

        return refreshed(page.read_text(encoding="utf-8"), Path(folder), run_python)


if __name__ == "__main__":
    for name in ("README.md", "README.zh.md"):
        (ROOT / name).write_text(refresh(ROOT / name), encoding="utf-8")

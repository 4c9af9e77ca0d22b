"""Write docs/reference/cli.md from the help pages: `python docs/make_cli_reference.py`. A test fails when it is out of date."""

from pathlib import Path
from typing import Final

from click.testing import CliRunner

from tensorkeep.cli import COMMANDS, cli

PAGE: Final = Path(__file__).parent / "reference" / "cli.md"

_HEAD: Final = """\
# The command line

Written by `docs/make_cli_reference.py` from the help pages; `tkeep` is a short name for `tensorkeep`.

Data go to stdout, and all else (errors, warnings, progress) to stderr. Text from a file is shown escaped. `NO_COLOR` takes the colours
away, and progress is told only on a terminal and only of work over half a second; `TERM=dumb` takes both away.

With `--json` every command prints one JSON document, with `"schema": 1`; an error is a JSON document on stderr:
`{"schema": 1, "error": {"kind": ..., "message": ..., "hint": ...}}`.

| exit code | means |
| --- | --- |
| 0 | ok |
| 1 | failed: a file that is missing or cannot be read |
| 2 | the command was used wrongly |
| 3 | a finding: damage, danger, what could not be read to its end, nothing to check against, or a difference (`diff --exit-code`) |
| 130 | interrupted |
"""


def reference() -> str:
    """The page."""
    parts = [_HEAD]
    for command in ("", *COMMANDS):
        name = f"tensorkeep {command}".strip()
        result = CliRunner().invoke(cli, [*command.split(), "--help"], prog_name="tensorkeep", terminal_width=80, max_content_width=80)
        parts.append(f"## {name}\n\n```text\n{result.output.rstrip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")

"""tensorkeep fingerprint."""

from typing import Any

import click

import tensorkeep as tk
from tensorkeep.cli import output
from tensorkeep.errors import EXIT_FAILED, EXIT_OK


@click.command("fingerprint", cls=output.Command, examples=("fingerprint model.safetensors", "fingerprint old.pt new.safetensors"))
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option("--full", is_flag=True, help="All 64 digits instead of 16.")
@output.as_json
def command(files: tuple[str, ...], full: bool, as_json: bool) -> int:
    """Tell which model each FILE holds: one id from names, dtypes, shapes and bytes, one without the names.

    Equal for every format, sharded or not, in any order. Exit code 1 if a file cannot be read.
    """
    documents: list[dict[str, Any]] = []
    rows: list[tuple[str, ...]] = []
    code = EXIT_OK
    for file in files:
        try:
            with output.progress(f"reading {file}") as progress:
                found = tk.fingerprint(file, progress=progress)
        except (tk.TensorkeepError, OSError) as error:
            code = EXIT_FAILED
            output.report_error(error, as_json=as_json)
            continue
        documents.append({**output.members(found), "short": found.short})
        digits = 64 if full else len(found.short)
        rows.append((found.names[:digits], found.content[:digits], found.file))
    if as_json:
        output.print_json({"command": "fingerprint", "files": documents})
    elif rows:
        for line in output.table([("with names", "bytes alone", ""), *rows], indent="", shrink=2):
            output.say(line)
    return code

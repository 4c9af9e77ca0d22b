"""tensorkeep verify."""

import dataclasses

import click

import tensorkeep as tk
from tensorkeep.cli import output
from tensorkeep.errors import EXIT_FINDING, EXIT_OK


@click.command("verify", cls=output.Command, examples=("verify model.safetensors", "verify *.safetensors --json"))
@click.argument("files", nargs=-1, required=True, type=click.Path())
@output.as_json
def command(files: tuple[str, ...], as_json: bool) -> int:
    """Check every byte of FILES against the digests stored in them.

    Exit code 0 if all are intact, 3 if one is damaged or has no digests to check against, 1 if one cannot be read at all.
    """
    verdicts = []
    for file in files:
        with output.progress(f"verifying {output.escaped(file)}") as progress:
            verdicts.append(tk.verify(file, progress=progress))
    if as_json:
        output.print_json({"command": "verify", "files": [dataclasses.asdict(verdict) for verdict in verdicts]})
    else:
        for verdict in verdicts:
            for line in _lines(verdict):
                output.say(line)
    return EXIT_OK if all(verdict.intact for verdict in verdicts) else EXIT_FINDING


def _lines(verdict: tk.Verdict) -> list[str]:
    name = output.escaped(verdict.file)
    if verdict.intact:
        return [f"{name}: {output.styled('intact', fg='green')}, every one of {verdict.nbytes:,} bytes (root {verdict.root[:16]})"]
    if verdict.unverified:
        return [f"{name}: {output.styled('unverified', fg='yellow')}, there are no digests in it to check against"]
    lines = [f"{name}: {output.styled('damaged', fg='red', bold=True)}"]
    return lines + [f"  {output.escaped(damage.path)}: bytes {damage.start:,} to {damage.stop:,}" for damage in verdict.damaged]

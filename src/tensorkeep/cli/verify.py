"""tensorkeep verify."""

from typing import TYPE_CHECKING, Any

import click

import tensorkeep as tk
from tensorkeep.cli import output
from tensorkeep.errors import EXIT_FAILED, EXIT_FINDING, EXIT_OK, escaped

if TYPE_CHECKING:
    from tensorkeep.verdict import Verdict


@click.command(
    "verify", cls=output.Command, examples=("verify model.safetensors", "verify runs/digits", "verify runs/digits@latest --json")
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@output.as_json
def command(files: tuple[str, ...], as_json: bool) -> int:
    """Check every byte of each FILE against the digests stored in it, or the checksums that its own format has.

    Of a store, all its checkpoints are checked; of STORE@REF, that one.

    Exit code 0 if all are intact, 3 if one is damaged or has nothing to check against, else 1 if one cannot be read at all.
    """
    documents: list[dict[str, Any]] = []
    codes = set()
    for file in files:
        try:
            with output.progress(f"verifying {file}") as progress:
                verdict = tk.verify(file, progress=progress)
        except (tk.TensorkeepError, OSError) as error:
            documents.append({**output.members(tk.Verdict(file, False, False, (), "", 0)), "error": output.told(error)})
            codes.add(EXIT_FAILED)
            if not as_json:
                output.report_error(error, as_json=False)
            continue
        codes.add(EXIT_OK if verdict.intact else EXIT_FINDING)
        documents.append(output.members(verdict))
        if not as_json:
            for line in _lines(verdict):
                output.say(line)
    if as_json:
        failed = [document["error"] for document in documents if "error" in document]
        if failed:  # one document on stderr, however many they are
            more = f"{len(failed) - 1} more could not be read: stdout has them all." if len(failed) > 1 else ""
            output.print_error(**failed[0], as_json=True, hint=more)
        output.print_json({"command": "verify", "files": documents})
    return max(codes)


def _lines(verdict: "Verdict") -> list[str]:
    from tensorkeep.verbs.verify import OWN_CHECKSUM  # late: help pages import no NumPy

    name, styled = escaped(verdict.file), output.styled
    if verdict.intact and verdict.checksum == OWN_CHECKSUM:
        root = f" (root {verdict.root[:16]})" if verdict.root else ""
        return [f"{name}: {styled('intact', fg='green')}, every one of {verdict.nbytes:,} bytes{root}"]
    if verdict.intact:
        return [f"{name}: {styled('intact', fg='green')} by its {verdict.checksum}, which shows accidents only"]
    if verdict.unverified:
        return [f"{name}: {styled('unverified', fg='yellow')}, there are no digests in it to check against"]
    places: dict[tuple[int, int], list[str]] = {}  # small tensors share a chunk, and are damaged together
    for damage in verdict.damaged:
        places.setdefault((damage.start, damage.stop), []).append(damage.path)
    rows = [
        (f"bytes {start:,} to {stop:,}", paths[0] + (f", and {len(paths) - 1:,} more" if len(paths) > 1 else ""))
        for (start, stop), paths in places.items()
    ]
    head = f"{name}: {styled('damaged', fg='red', bold=True)} in {output.count(len(rows), 'place')}"
    hurt = [f"  this hurts {', '.join(map(escaped, verdict.checkpoints[:8]))}"] if verdict.checkpoints else []
    if len(verdict.checkpoints) > 8:
        hurt[0] += f" and {len(verdict.checkpoints) - 8:,} more"
    return [head, *output.table(rows, shrink=1), *hurt]

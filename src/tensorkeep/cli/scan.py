"""tensorkeep scan."""

from typing import TYPE_CHECKING, Any, Final

import click

import tensorkeep as tk
from tensorkeep._version import __version__
from tensorkeep.cli import output
from tensorkeep.errors import EXIT_FAILED, EXIT_FINDING, EXIT_OK, escaped

if TYPE_CHECKING:
    from tensorkeep.contents import Finding
    from tensorkeep.verbs.scan import Scan

_LEVELS: Final = {"dangerous": "error", "unknown": "warning", "harmless": "note"}
_COLOURS: Final = {"dangerous": "red", "unknown": "yellow"}
_SARIF: Final = "https://json.schemastore.org/sarif-2.1.0.json"


@click.command(
    "scan", cls=output.Command, examples=("scan stranger.pt", "scan downloads/ --json", "scan models/ --format sarif > scan.sarif")
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@click.option("--format", "form", type=click.Choice(["text", "sarif"]), default="text", help="Print SARIF 2.1.0, for code hosts.")
@output.as_json
def command(paths: tuple[str, ...], form: str, as_json: bool) -> int:
    """Tell what each PATH, a file or a folder, would do if it were loaded the usual way. Runs nothing of it.

    Exit code 0 if all are clean, 3 if there is a finding or one could not be read to its end, else 1 if one is not there.
    """
    scans: list[Scan] = []
    errors: list[dict[str, str]] = []
    plain = form == "text" and not as_json
    for path in paths:
        try:
            with output.progress(f"scanning {path}") as progress:
                scan = tk.scan(path, progress=progress)
        except (tk.TensorkeepError, OSError) as error:
            errors.append({"file": path, **output.told(error)})
            output.report_error(error, as_json=as_json)
            continue
        scans.append(scan)
        if plain:
            for line in _lines(scan):
                output.say(line)
    if form == "sarif":
        output.say(output.document(_sarif(scans, errors)))
    elif as_json:
        output.print_json({"command": "scan", "files": [{**output.members(scan), "clean": scan.clean} for scan in scans], "errors": errors})
    if any(not scan.clean for scan in scans):
        return EXIT_FINDING
    return EXIT_FAILED if errors else EXIT_OK


def _lines(scan: "Scan") -> list[str]:
    name, styled = escaped(scan.file), output.styled
    told = f" ({output.count(scan.files, 'file')})" if scan.files != 1 else ""
    dangerous = sum(finding.severity == "dangerous" for finding in scan.findings)
    if scan.clean:
        return [f"{name}{told}: {styled('clean', fg='green')}, nothing in it would run anything"]
    parts = []
    if dangerous:
        parts.append(styled(f"dangerous, {output.count(dangerous, 'finding')}", fg="red", bold=True))
    if unknown := len(scan.findings) - dangerous:
        parts.append(styled(f"{unknown:,} unknown" if dangerous else f"unknown, {output.count(unknown, 'finding')}", fg="yellow"))
    if not scan.complete:
        parts.append(styled("incomplete", fg="yellow", bold=True))
    rows = [(finding.severity, _place(finding, scan), finding.what) for finding in scan.findings]
    lines = [f"{name}{told}: {', '.join(parts)}", *output.table(rows, shrink=2)]
    lines += [f"  could not be read to the end: {escaped(why)}" for why in scan.incomplete]
    return lines


def _place(finding: "Finding", scan: "Scan") -> str:
    file = finding.file if finding.file != scan.file else ""
    return ": ".join(part for part in (file.removeprefix(f"{scan.file.rstrip('/')}/"), finding.place) if part) or "the file"


def _sarif(scans: "list[Scan]", errors: list[dict[str, str]]) -> dict[str, Any]:
    """A log of one run, as SARIF 2.1.0 has it."""
    findings = [finding for scan in scans for finding in scan.findings]
    unread = [(scan.file, why) for scan in scans for why in scan.incomplete] + [(error["file"], error["message"]) for error in errors]
    rules = sorted({finding.rule for finding in findings})
    return {
        "$schema": _SARIF,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "tensorkeep", "version": __version__, "rules": [{"id": rule} for rule in rules]}},
                "results": [
                    {
                        "ruleId": finding.rule,
                        "level": _LEVELS[finding.severity],
                        "message": {"text": f"{finding.place}: {finding.what}" if finding.place else finding.what},
                        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(finding.file)}}}],
                    }
                    for finding in findings
                ],
                "invocations": [
                    {
                        "executionSuccessful": not unread,
                        "toolExecutionNotifications": [
                            {
                                "level": "warning",
                                "message": {"text": f"could not be read to the end: {why}"},
                                "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(file)}}}],
                            }
                            for file, why in unread
                        ],
                    }
                ],
            }
        ],
    }


def _uri(file: str) -> str:
    """A path as SARIF wants it: with slashes, and what a URI may not hold spelled in hex."""
    plain = b"/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
    return "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in file.replace("\\", "/").encode("utf-8", "surrogatepass"))

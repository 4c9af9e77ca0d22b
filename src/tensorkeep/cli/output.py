"""Output: tables, colour, JSON, progress. Text from a file is shown escaped: it must not be able to speak to the terminal."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click

SCHEMA: Final = 1  # of every JSON document; a change that breaks readers gives another number
_PATIENCE_S: Final = 0.5  # work that is done sooner needs no progress bar


class Command(click.Command):
    """A command whose help begins with examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = examples

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)
        super().format_help(ctx, formatter)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """The first thing on a help page."""
    with formatter.section("Examples"):
        for example in examples:
            formatter.write_text(f"tensorkeep {example}")


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def escaped(text: object) -> str:
    """Text of a file or a caller, with everything that a terminal might obey or hide spelled out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in str(text))


def lines_escaped(text: str) -> str:
    """The same, line by line, for messages of ours that hold such text."""
    return "\n".join(map(escaped, text.split("\n")))


def styled(text: str, **style: Any) -> str:
    """Text in colour, unless NO_COLOR is set; click takes it out again where no terminal reads."""
    return text if os.environ.get("NO_COLOR") else click.style(text, **style)


def say(text: str = "") -> None:
    """Print a line of data."""
    click.echo(text)


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document."""
    click.echo(json.dumps({"schema": SCHEMA, **document}, default=escaped, ensure_ascii=True))


def print_error(message: str, *, as_json: bool, kind: str) -> None:
    """Print an error, to where errors go."""
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "error": {"kind": kind, "message": message}}), err=True)
    else:
        click.echo(f"{styled('error:', fg='red', bold=True)} {lines_escaped(message)}", err=True)


def size(nbytes: int) -> str:
    """Bytes in a unit that suits them."""
    amount, unit = float(nbytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{nbytes} B" if unit == "B" else f"{amount:.1f} {unit}"


def table(rows: Sequence[Sequence[str]], *, indent: str = "  ", right: Sequence[int] = ()) -> Iterator[str]:
    """Lines of a table, each column as wide as it needs, no wider than the terminal leaves it."""
    if not rows:
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield (indent + "  ".join(cells)).rstrip()


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal, for work over half a second; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    began, shown = time.monotonic(), False

    def update(done: int, whole: int) -> None:
        nonlocal shown
        if time.monotonic() - began > _PATIENCE_S:
            shown = True
            filled = 30 * done // max(whole, 1)
            click.echo(f"\r{label} [{'#' * filled}{' ' * (30 - filled)}] {100 * done // max(whole, 1):3d} %", err=True, nl=False)

    try:
        yield update
    finally:
        if shown:
            click.echo("\r" + " " * (len(label) + 42) + "\r", err=True, nl=False)

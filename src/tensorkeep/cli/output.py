"""Output: tables, colour, JSON, progress, errors. Text from a file is shown escaped: it must not be able to speak to the terminal."""

import json
import math
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, Final, TextIO

import click

from tensorkeep.errors import escaped as escaped

SCHEMA: Final = 1  # of every JSON document; a change that breaks readers gives another number
_PATIENCE_S: Final = 0.5  # work that is done sooner needs no progress bar
_TICK_S: Final = 0.1  # between two drawings of it
_LONGEST_CELL: Final = 500  # characters, where no terminal sets the width
_WIDEST_PADDED: Final = 60  # likewise
_NARROWEST_CELL: Final = 16
_MARKS_EACH: Final = 4  # characters of a name that may share one column
_MOST_ROWS: Final = 100  # on a terminal
_LARGEST_INT: Final = 2**1000  # Python refuses to print ints of more than 4,300 digits


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
    formatter.write_paragraph()


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def _pairs(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """`OLD=NEW` as pairs."""
    for value in values:
        if "=" not in value.strip("="):
            raise click.BadParameter(f"{value!r:.100}: two paths or patterns with = between them are wanted")
    return tuple((old, new) for old, _, new in (value.partition("=") for value in values))


def _rules(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> Any:
    """The name of a rule set alone, or `PATTERN=AXES` as pairs; None where nothing was said."""
    if len(values) == 1 and "=" not in values[0]:
        return values[0]
    rules = []
    for value in values:
        pattern, _, axes = value.rpartition("=")
        if not pattern or not all(axis.isdecimal() for axis in axes.split(",")):
            raise click.BadParameter(
                f"{value!r:.100}: a pattern and axes are wanted, such as '*.kernel=1,0', or one name such as 'torch->keras'"
            )
        rules.append((pattern, tuple(map(int, axes.split(",")))))
    return rules or None


transpose_option = click.option(
    "--transpose",
    metavar="RULES",
    multiple=True,
    callback=_rules,
    help="Kernels as another framework has them: 'torch->keras', 'torch->flax', 'keras->torch', 'flax->torch', or PATTERN=AXES.",
)
rename_option = click.option(
    "--rename", metavar="OLD=NEW", multiple=True, callback=_pairs, help="Give paths another name; each * stands for the same text in both."
)


def prepare() -> None:
    """Let text that the terminal's encoding lacks be spelled out instead of failing; and have a place for it where there is none."""
    if sys.stdout is None:  # a shell's `>&-`, or Windows without a console
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def lines_escaped(text: str) -> str:
    """The same, line by line, for messages of ours that hold such text."""
    return "\n".join(map(escaped, text.split("\n")))


def dumb() -> bool:
    """Whether the terminal, by its own word, can neither colour nor go back in a line."""
    return os.environ.get("TERM") == "dumb"


def styled(text: str, **style: Any) -> str:
    """Text in colour, unless NO_COLOR is set or the terminal has none; click takes it out again where no terminal reads."""
    return text if os.environ.get("NO_COLOR") or dumb() else click.style(text, **style)


def say(text: str = "") -> None:
    """Print a line of data."""
    click.echo(text)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    click.echo(_json(document))


def print_error(message: str, *, as_json: bool, kind: str, hint: str = "") -> None:
    """Print an error, to where errors go.

    Args:
        message: what happened; may have several lines.
        as_json: print it as a JSON document.
        kind: the class of the error.
        hint: what to do next, or "".
    """
    if as_json:
        click.echo(_json({"error": {"kind": kind, "message": message, "hint": hint}}), err=True)
        return
    click.echo(f"{styled('error:', fg='red', bold=True)} {lines_escaped(message)}", err=True)
    if hint:
        click.echo(lines_escaped(hint), err=True)


def told(error: Exception) -> dict[str, str]:
    """One of our errors, or one of the operating system's, as data."""
    if isinstance(error, OSError) and error.strerror:
        name = "" if error.filename is None else f"{escaped(os.fsdecode(error.filename))}: "
        message = f"{name}{error.strerror}"
    else:
        message = str(error)
    return {"kind": type(error).__name__, "message": message}


def report_error(error: Exception, *, as_json: bool) -> None:
    """Print one of our errors, or one of the operating system's."""
    print_error(**told(error), as_json=as_json)


def print_warning(message: str, *, as_json: bool) -> None:
    """Print a warning, to where errors go."""
    if as_json:
        click.echo(_json({"warning": {"message": message}}), err=True)
    else:
        click.echo(f"{styled('warning:', fg='yellow', bold=True)} {lines_escaped(message)}", err=True)


def members(result: Any) -> dict[str, Any]:
    """The fields of a verb's frozen result."""
    return {field.name: getattr(result, field.name) for field in fields(result)}


def document(members: Mapping[str, Any]) -> str:
    """A JSON document whose form others have fixed."""
    return json.dumps(members, allow_nan=False)


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(_plain({"schema": SCHEMA, **document}), allow_nan=False)


def _plain(value: Any) -> Any:
    """A value as JSON has it; what JSON lacks becomes text."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) < _LARGEST_INT else hex(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, Mapping):
        return {value_text(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if is_dataclass(value):
        return _plain(members(value))
    return value_text(value)


def value_text(value: object) -> str:
    """A value as text. Python refuses to spell ints of more than 4,300 digits, alone or inside a set or a range."""
    try:
        return str(value)
    except ValueError:
        return hex(value) if isinstance(value, int) else f"a {type(value).__name__} of huge ints"


def size(nbytes: int) -> str:
    """Bytes in a unit that suits them."""
    if nbytes < 1024:
        return f"{nbytes} B"
    amount = float(nbytes)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def count(number: int, noun: str) -> str:
    """`1 tensor`, `20,000 tensors`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def width() -> int | None:
    """Columns of the terminal that reads stdout; None where none does, and lines may be long."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(rows: Sequence[Sequence[str]], *, indent: str = "  ", right: Sequence[int] = (), shrink: int = 0) -> Iterator[str]:
    """Lines of a table, with every cell escaped, and as wide as the terminal at most.

    Args:
        rows: the cells, unescaped. On a terminal, only so many of them are told.
        indent: before each line.
        right: columns that are set to the right.
        shrink: the column whose cells are shortened in the middle where a line would be too long.
    """
    columns = width()
    more = 0 if columns is None else max(0, len(rows) - _MOST_ROWS)
    cells = [[_shortened(escaped(cell), _LONGEST_CELL) for cell in row] for row in rows[: len(rows) - more]]
    widths = [max(map(_columns, column)) for column in zip(*cells, strict=True)]
    if columns is None:
        widths = [min(wide, _WIDEST_PADDED) for wide in widths]  # one long name must not push all others apart
    elif cells:
        others = sum(wide + 2 for number, wide in enumerate(widths) if wide and number != shrink)
        widths[shrink] = min(widths[shrink], max(_NARROWEST_CELL, columns - len(indent) - others))
    for row in cells:
        padded = []
        for number, wide in enumerate(widths):
            cell = row[number] if columns is None else _shortened(row[number], wide)
            blank = " " * (wide - _columns(cell))
            padded.append(blank + cell if number in right else cell + blank)
        yield (indent + "  ".join(cell for cell in padded if cell)).rstrip()
    if more:
        yield f"{indent}... and {more:,} more: `| less` and --json have them all"


def _columns(text: str) -> int:
    """How wide a terminal shows it: East Asian letters take two columns, marks above others none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _shortened(text: str, columns: int) -> str:
    """Text in so many columns, without its middle: both ends of a path tell something."""
    most = _MARKS_EACH * columns
    if len(text) <= most and _columns(text) <= columns:
        return text
    taken, left = 0, columns - 3
    while taken < most // 2:  # a name of nothing but marks takes no column
        left -= _columns(text[taken]) + _columns(text[-1 - taken])
        if left < 0:
            break
        taken += 1
    return f"{text[:taken]}...{text[len(text) - taken :]}"


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar for work on bytes; None where no bar is drawn."""
    with bar(label) as draw:
        yield draw and (lambda done, whole: draw(done / max(whole, 1), f"{size(done)} of {size(whole)}"))


@contextmanager
def bar(label: str) -> Iterator[Callable[[float, str], None] | None]:
    """A bar on a terminal, for work over half a second: takes the share that is done, and a note. None elsewhere."""
    if not sys.stderr.isatty() or dumb():
        yield None
        return
    drawn = time.monotonic() + _PATIENCE_S - _TICK_S
    shown = False

    def draw(share: float, note: str) -> None:
        nonlocal drawn, shown
        if time.monotonic() - drawn >= _TICK_S:
            drawn, shown = time.monotonic(), True
            _draw_bar(label, share, note)

    try:
        yield draw
    finally:
        if shown:
            _clear_bar()


def _draw_bar(label: str, share: float, note: str) -> None:
    """Draw a bar over the last one."""
    columns = shutil.get_terminal_size().columns - 1
    filled = min(20, int(20 * share))
    rest = f" [{'#' * filled}{' ' * (20 - filled)}] {note}"
    line = _shortened(escaped(label), max(_NARROWEST_CELL, columns - len(rest))) + rest
    click.echo("\r" + line[:columns].ljust(columns), err=True, nl=False)


def _clear_bar() -> None:
    """Take the bar away."""
    click.echo("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r", err=True, nl=False)

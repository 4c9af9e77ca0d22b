"""tensorkeep diff."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

import tensorkeep as tk
from tensorkeep.cli import output
from tensorkeep.errors import EXIT_FINDING, EXIT_OK, escaped

if TYPE_CHECKING:
    from tensorkeep.verbs.diff import Change, Diff, OneSided, ValueChange

_EXAMPLES = ("diff before.safetensors after.safetensors", "diff a.pt b.safetensors --rtol 1e-3 --exit-code", "diff a.pt b.pt --md")


@click.command("diff", cls=output.Command, examples=_EXAMPLES)
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option("--only", metavar="GLOB", help="Compare these tensors and values alone, and no metadata; * crosses dots.")
@output.rename_option
@click.option("--rtol", type=click.FloatRange(min=0), help="Let a tensor pass whose change is at most so much, relative, as a norm.")
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="Rows of each table.")
@click.option("--md", is_flag=True, help="Print Markdown, for a pull request.")
@click.option("--exit-code", is_flag=True, help="End with exit code 3 if anything differs.")
@output.as_json
def command(a: str, b: str, rename: tuple[tuple[str, str], ...], top: int, md: bool, exit_code: bool, as_json: bool, **options: Any) -> int:
    """Tell what differs between the models A and B, whatever their formats: tensors, values, metadata.

    Tensors that only moved are found by their bytes. With --exit-code it ends with 0 if nothing differs and with 3 if something does;
    1 means, as everywhere, that a file could not be read.
    """
    with output.progress(f"comparing {a} and {b}") as progress:
        try:
            found = tk.diff(a, b, rename=rename or None, progress=progress, **options)
        except tk.TensorkeepError:
            raise
        except ValueError as error:  # a pattern that is none
            raise click.UsageError(str(error)) from None
    if as_json:
        output.print_json({"command": "diff", "same": found.same, **output.members(found)})
    else:
        for line in _markdown(found, top) if md else _lines(found, top):
            output.say(line)
    return EXIT_FINDING if exit_code and not found.same else EXIT_OK


def _counts(found: "Diff") -> str:
    """All that differs in a line."""
    parts = [(len(found.changed), "changed"), (found.close, f"within {found.rtol:g}" if found.rtol is not None else "close")]
    parts += [(len(getattr(found, kind)), kind) for kind in ("retyped", "reshaped", "renamed", "added", "removed")]
    told = [f"{found.equal:,} equal", *(f"{count:,} {kind}" for count, kind in parts if count)]
    if found.values:
        told.append(output.count(len(found.values), "value"))
    if found.metadata:
        told.append("1 entry of the metadata" if len(found.metadata) == 1 else f"{len(found.metadata):,} entries of the metadata")
    return ", ".join(told)


Section = tuple[str, str, list[tuple[str, ...]], tuple[str, ...]]
"""A title, the colour it has on a terminal, rows, and the titles of their columns."""


def _sections(found: "Diff") -> Iterator[Section]:
    """All that differs, as tables; those without a row too."""
    by_change = sorted(found.changed, key=_weight, reverse=True)
    columns = ("tensor", "", "relative", "largest", "where", "differing")
    yield "changed", "yellow", [_changed(change) for change in by_change], columns
    retyped = [(change.path, " → ".join(change.dtypes), *_numbers(change)) for change in found.retyped]
    yield "retyped", "yellow", retyped, ("tensor", "dtypes", *columns[2:])
    reshaped: list[tuple[str, ...]] = [(change.path, " → ".join(map(_spec, change.dtypes, change.shapes))) for change in found.reshaped]
    yield "reshaped", "yellow", reshaped, ("tensor", "shapes")
    yield "renamed", "cyan", _renamed(found.renamed), ("before", "", "after")
    yield "added", "green", _alone(found.added), ("tensor", "", "dtype and shape", "size")
    yield "removed", "red", _alone(found.removed), ("tensor", "", "dtype and shape", "size")
    yield "values", "yellow", _values(found.values), ("value", "before → after")
    yield "metadata", "yellow", _values(found.metadata), ("entry", "before → after")


def _weight(change: "Change") -> float:
    if change.not_finite or change.relative is None:
        return float("inf")
    return change.relative


def _changed(change: "Change") -> tuple[str, ...]:
    return (change.path, _spec(change.dtypes[1], change.shapes[1]), *_numbers(change))


def _numbers(change: "Change") -> tuple[str, ...]:
    if change.differing is None or change.relative is None or change.largest is None:
        return ("", "", "", "other bytes")
    if not change.differing:
        return ("0", "0", "", "no value" if change.dtypes[0] != change.dtypes[1] else "bits alone: signs of 0, NaNs")
    at = _shape(change.largest_at) if change.largest_at is not None else ""
    share = f"{100 * change.differing / change.count:.3g} %" if change.differing < change.count else "all"
    if change.not_finite:
        return ("", "nan or inf", "", f"{change.not_finite:,} of {change.count:,}")
    return (f"{change.relative:.2e}", f"{change.largest:.3g}", at, share)


def _spec(dtype: str, shape: Sequence[int]) -> str:
    return f"{dtype}{_shape(shape)}"


def _shape(numbers: Sequence[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"


def _renamed(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Those whose names begin with another prefix, and go on alike, in a row: `module.* → *`."""
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for old, new in pairs:
        parts, others = old.split("."), new.split(".")
        while parts and others and parts[-1] == others[-1]:
            del parts[-1], others[-1]
        groups.setdefault((".".join(parts), ".".join(others)), []).append((old, new))
    rows: list[tuple[str, ...]] = []
    for (before, after), alike in groups.items():
        if len(alike) == 1:
            rows.append((alike[0][0], "", f"→ {alike[0][1]}"))
        else:
            rows.append((f"{before}.*" if before else "*", f"{len(alike):,}x", f"→ {after}.*" if after else "→ *"))
    return rows


def _alone(tensors: "Iterable[OneSided]") -> list[tuple[str, ...]]:
    """Those alike in a row."""
    from tensorkeep.verbs.alike import together

    known = {_spec(tensor.dtype, tensor.shape): tensor for tensor in tensors}
    grouped = together([(tensor.path, _spec(tensor.dtype, tensor.shape)) for tensor in tensors])
    return [(path, f"{count:,}x" if count > 1 else "", spec, output.size(known[spec].nbytes * count)) for path, count, spec in grouped]


def _values(changes: "Iterable[ValueChange]") -> list[tuple[str, ...]]:
    absent = "(none)"
    return [
        (change.path, f"{absent if change.before is None else change.before} → {absent if change.after is None else change.after}")
        for change in changes
    ]


def _lines(found: "Diff", top: int) -> Iterator[str]:
    styled = output.styled
    yield f"{styled(escaped(found.a), bold=True)} → {styled(escaped(found.b), bold=True)}"
    same = "nothing differs: " if found.same else ""
    yield f"  {styled(same, fg='green') if same else ''}{_counts(found)}"
    for title, colour, rows, columns in _sections(found):
        if rows:
            yield ""
            yield f"  {styled(title, fg=colour, bold=True)}"
            shown = rows[:top]
            heads = [columns] if title in ("changed", "retyped") else []
            right = (2, 3) if heads else (1, 3) if title in ("added", "removed") else ()
            yield from output.table([*heads, *shown], indent="    ", right=right)
            if len(rows) > top:
                yield f"    ... and {len(rows) - top:,} more: --top {len(rows)} has them all"


def _markdown(found: "Diff", top: int) -> Iterator[str]:
    """The same for a pull request, with nothing in it that a file could have made Markdown of."""
    yield f"### Model diff: {_code(found.a)} → {_code(found.b)}"
    yield ""
    yield ("Nothing differs: " if found.same else "") + _counts(found)
    for title, _, rows, columns in _sections(found):
        if rows:
            yield ""
            yield f"**{title}**" + (f" (the first {top:,} of {len(rows):,})" if len(rows) > top else "")
            yield ""
            yield f"| {' | '.join(columns)} |"
            yield f"|{' --- |' * len(columns)}"
            for row in rows[:top]:
                yield f"| {' | '.join(_code(cell) if cell else '' for cell in row)} |"


def _code(text: str) -> str:
    """Text of a file as code in a cell of a table: nothing in it can end either."""
    return f"`{escaped(text)[:300].replace('`', chr(39)).replace('|', chr(92) + '|')}`"

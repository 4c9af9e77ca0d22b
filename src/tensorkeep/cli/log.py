"""tensorkeep log."""

import math
import time
from typing import TYPE_CHECKING, Final

import click

from tensorkeep.cli import output, stores

if TYPE_CHECKING:
    from tensorkeep.store.results import Checkpoint

_BARS: Final = "▁▂▃▄▅▆▇█"
_WIDEST: Final = 40  # columns of a line of bars
_METRICS: Final = 4  # columns of a table; --json has all


@click.command("log", cls=output.Command, examples=("log runs/digits", "log runs/digits -n 20", "log s3://bucket/runs/digits --json"))
@stores.store
@click.option("-n", "--last", "count", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@output.as_json
def command(store: str, count: int | None, as_json: bool) -> None:
    """List the checkpoints of STORE: steps, times, metrics, sizes, tags.

    `new` is what a checkpoint added to the store: what was known already is referred to.
    """
    opened = stores.opened(store)
    found = list(opened)
    tags: dict[int, list[str]] = {}
    for name, one in opened.tags().items():
        tags.setdefault(one.step, []).append(name)
    shown = found[-count:] if count else found
    if as_json:
        documents = [output.members(one) | {"tags": tags.get(one.step, [])} for one in shown]
        output.print_json({"command": "log", "store": store, "checkpoints": documents, "damaged": opened.damaged()})
        return
    names = list(dict.fromkeys(name for one in reversed(shown) for name in one.metrics))[:_METRICS]
    rows = [("step", "saved", *names, "size", "new", "")]
    rows += [
        (
            str(one.step),
            _when(one.time),
            *(f"{one.metrics[name]:.6g}" if name in one.metrics else "" for name in names),
            output.size(one.nbytes),
            output.size(one.new_bytes),
            ", ".join([*tags.get(one.step, []), *(["weights only"] if one.weights_only else [])]),
        )
        for one in shown
    ]
    if not shown:
        output.say(f"{output.escaped(store)} has no checkpoint")
    for line in output.table(rows if shown else [], indent="", right=(0, *range(2, 4 + len(names))), shrink=4 + len(names)):
        output.say(line)
    for name in names:
        output.say(f"{output.escaped(name)} {sparkline(found, name)}")
    for key, why in opened.damaged().items():
        output.say(f"{output.styled('damaged', fg='red')} {output.escaped(key)}: {output.lines_escaped(why)}")


def _when(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return "?"  # a time that no calendar has


def sparkline(checkpoints: "list[Checkpoint]", metric: str) -> str:
    """A metric over all checkpoints as a line of bars, and its first and last value."""
    values = [one.metrics[metric] for one in checkpoints if metric in one.metrics]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    columns = min(_WIDEST, len(values))
    scale = 0.5 if math.isinf(high - low) else 1.0
    bars = ""
    for column in range(columns):
        value = values[round(column * (len(values) - 1) / max(1, columns - 1))]
        height = 0
        if math.isfinite(value) and high > low:
            height = round((value * scale - low * scale) / (high * scale - low * scale) * (len(_BARS) - 1))
        bars += _BARS[height] if math.isfinite(value) else "·"
    return f"{bars} {values[0]:.6g} to {values[-1]:.6g}"

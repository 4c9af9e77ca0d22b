"""The results as a table, as JSON, as a plot, and in the docs."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import matplotlib
import matplotlib.pyplot as plt

from benchmarks.measure import Result

DOCS: Final = Path(__file__).parent.parent / "docs"
_BEGIN, _END = "<!-- figures: written by python -m benchmarks --write-docs -->", "<!-- end of figures -->"


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """A header and a line a result."""
    lines = [("job", "against", "ours", "peer", "ratio", "lowest to highest", "at most", "met")]
    for result in results:
        told = (_bytes if result.unit == "MiB" else _percent) if result.counted else _milliseconds
        lines.append(
            (
                result.job,
                result.against,
                told(statistics.median(result.ours)),
                told(statistics.median(result.peer)),
                f"{result.ratio:.2f}",
                f"{min(result.ratios):.2f} to {max(result.ratios):.2f}",
                "" if result.at_most is None else f"{result.at_most:.2f}",
                {None: "", True: "yes", False: "no"}[result.met],
            )
        )
    return lines


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f} ms" if seconds > 0.01 else f"{1000 * seconds:.1f} ms"


def _percent(count: float) -> str:
    return f"{count / 1e4:.1f} %"


def _bytes(count: float) -> str:
    return f"{count / (1 << 20):.2f} MiB"


def as_text(lines: Sequence[Sequence[str]]) -> str:
    """For a terminal."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    """For the docs."""
    marked = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in marked)


def conditions(machine: dict[str, Any], before: dict[str, float], after: dict[str, float], pairs: int) -> str:
    """One sentence on where and how."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.items() if name not in ("cores", "system"))
    return (
        f"{machine['cores']} cores, {machine['system']}; {versions}. Medians of {pairs} pairs. "
        f"Load average {before['load']} before and {after['load']} after; first touch of memory {before['first_touch_gb_s']} and "
        f"{after['first_touch_gb_s']} GB/s."
    )


def as_json(sections: Sequence[dict[str, Any]], machine: dict[str, Any]) -> str:
    """All figures, every pair."""
    tables = [
        {
            "table": section["table"],
            "before": section["before"],
            "after": section["after"],
            "results": [vars(result) | {"ratio": result.ratio, "met": result.met} for result in section["results"]],
        }
        for section in sections
    ]
    return json.dumps({"schema": 1, "machine": machine, "tables": tables}, indent=1) + "\n"


def plot(results: Sequence[Result], file: Path) -> None:
    """Bars of the ratios that have a promise, each with its promise."""
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "tensorkeep"
    promised = [result for result in results if result.at_most is not None][::-1]
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(promised) + 1.2))
    for place, result in enumerate(promised):
        axes.barh(place, result.ratio, color="#2f7d5b" if result.met else "#c0563b", height=0.6)
        axes.plot([min(result.ratios), max(result.ratios)], [place, place], color="#222222", linewidth=1)
        axes.plot([result.at_most, result.at_most], [place - 0.4, place + 0.4], color="#1f3b73", linewidth=2)
    axes.set_yticks(range(len(promised)), [f"{result.job}\nagainst {result.against}" for result in promised], fontsize=7)
    axes.set_xscale("log")
    axes.set_xticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.axvline(1, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xlabel("ours over the peer's: median, lowest to highest (blue: the promise; green: kept; red: missed)", fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    plt.close(figure)


def write_docs(sections: Sequence[dict[str, Any]], machine: dict[str, Any], pairs: int) -> None:
    """Put tables and plot into docs/benchmarks.md, between its two marks. Tables that were not measured this time stay as they are."""
    page, figures = DOCS / "benchmarks.md", DOCS / "benchmarks.json"
    head, rest = page.read_text(encoding="utf-8").split(_BEGIN)
    old, tail = rest.split(_END)
    parts = {part.partition("\n")[0]: part.strip() for part in old.split("## ")[1:]}
    tables = {table["table"]: table for table in json.loads(figures.read_text(encoding="utf-8"))["tables"]}
    for section in sections:
        said = conditions(machine, section["before"], section["after"], pairs)
        parts[section["table"]] = "\n\n".join([section["table"], section["about"], as_markdown(rows(section["results"])), said])
    tables |= {table["table"]: table for table in json.loads(as_json(sections, machine))["tables"]}
    written = "".join(f"## {part}\n\n" for part in parts.values())
    page.write_text(f"{head}{_BEGIN}\n\n{written}{_END}{tail}", encoding="utf-8")
    names = [field.name for field in fields(Result)]
    plot(
        [Result(**{name: kept[name] for name in names if name in kept}) for table in tables.values() for kept in table["results"]],
        DOCS / "img" / "benchmarks.svg",
    )
    document = {"schema": 1, "machine": machine, "tables": list(tables.values())}
    figures.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

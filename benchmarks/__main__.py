"""python -m benchmarks [TEXT]: measure, print, and keep."""

import argparse
import gc
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import cases, codecs, frameworks, machine, measure, others, report, states, stores

TABLES = cases.TABLES | others.TABLES | frameworks.TABLES | codecs.TABLES | stores.TABLES


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; exit code 0, or 1 if a promise was not kept."""
    options = _options(arguments)
    scale = states.QUICK if options.quick else states.FULL
    pairs = options.repeat or scale.pairs
    here = machine.described()
    gc.freeze()  # what all these packages have made so far is garbage of nobody's run: each collection would walk it, for 0.3 s
    sections: list[dict[str, Any]] = []
    wanted = options.only.lower().split("|")
    whole = {name: made for name, made in TABLES.items() if any(text in name.lower() for text in wanted)}
    tables = whole if all(any(text in name.lower() for name in whole) for text in wanted) else TABLES
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="benchmarks-") as scratch:
        for name, made in tables.items():
            section: dict[str, Any] = {"table": name, "about": made.__doc__, "before": machine.state_of_it(), "results": []}
            for case in made(Path(scratch), scale):
                told = f"{name}: {case.job}, {case.against}".lower()
                if not any(text in told for text in wanted):
                    continue
                section["results"].append(measure.run(case, name, pairs))
                print(report.as_text(report.rows(section["results"][-1:])[1:]), file=sys.stderr, flush=True)
            for left in Path(scratch).iterdir():
                left.unlink()
            if not section["results"]:
                continue
            section["after"] = machine.state_of_it()
            sections.append(section)
            said = report.conditions(here, section["before"], section["after"], pairs)
            print(f"\n{name}: {made.__doc__}\n\n{report.as_text(report.rows(section['results']))}\n\n{said}", flush=True)
    if not sections:
        print(f"no case has {options.only!r} in its table, job or peer", file=sys.stderr)
        return 2
    results = [result for section in sections for result in section["results"]]
    if options.json:
        Path(options.json).write_text(report.as_json(sections, here), encoding="utf-8")
    if options.plot:
        report.plot(results, Path(options.plot))
    if options.write_docs:
        report.write_docs(sections, here, pairs)
    return 1 if any(result.met is False for result in results) else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time over a peer's time, both in turn in this process.")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that all of it runs; the figures mean nothing")
    parser.add_argument("only", nargs="?", default="", metavar="TEXT", help="cases that have it in table, job or peer; a | between several")
    parser.add_argument("--repeat", type=int, default=0, metavar="N", help="how many pairs a case (9)")
    parser.add_argument("--folder", default=None, help="on which disk (the temporary folder's)")
    parser.add_argument("--json", metavar="FILE", help="keep every figure")
    parser.add_argument("--plot", metavar="FILE", help="keep a plot, .svg or .png")
    parser.add_argument("--write-docs", action="store_true", help="put tables and plot into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if options.write_docs and options.quick:
        parser.error("--write-docs takes cases in their real size: not with --quick")
    return options


if __name__ == "__main__":
    sys.exit(main())

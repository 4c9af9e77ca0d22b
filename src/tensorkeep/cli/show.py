"""tensorkeep show."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Final

import click

import tensorkeep as tk
from tensorkeep.cli import output
from tensorkeep.errors import escaped

if TYPE_CHECKING:
    from tensorkeep.tensors import LazyTensor
    from tensorkeep.verbs.show import Summary, Value

_FIRST: Final = 8  # elements of a tensor that are shown
_LONGEST_TEXT: Final = 300  # characters of a value of the metadata
_MOST_ITEMS: Final = 6  # of a list that are shown
_MOST_OF_A_CLASS: Final = 8  # objects of one class that are told one by one


@click.command("show", cls=output.Command, examples=("show model.safetensors", "show model.safetensors --tensor layers.0.weight"))
@click.argument("file", type=click.Path())
@click.option("--tensor", metavar="PATH", help="Show one tensor and its first elements.")
@output.as_json
def command(file: str, tensor: str | None, as_json: bool) -> None:
    """Tell what FILE holds, from its header alone: sizes, dtypes, tensors (those alike together), values, metadata.

    `verify` reads and checks the rest.
    """
    if tensor is not None:
        _show_tensor(file, tensor, as_json=as_json)
        return
    summary = tk.show(file)
    if as_json:
        output.print_json({"command": "show", **output.members(summary)})
        return
    for line in _lines(summary):
        output.say(line)


def _lines(summary: "Summary") -> list[str]:
    size = output.size
    written = f", by {escaped(summary.writer)}" if summary.writer else ""
    checked = f"every byte can be checked (root {summary.root[:16]})" if summary.digests else "no digests: nothing to check against"
    if summary.checksum:
        checked = f"{summary.checksum} of its parts, which `verify` compares"
    mix = ", ".join(f"{escaped(dtype)} {size(share.nbytes)}" for dtype, share in summary.dtypes.items())
    lines = [
        f"{output.styled(escaped(summary.file), bold=True)}: {escaped(summary.format)}{written}, {size(summary.nbytes)}",
        f"  {output.count(summary.tensors, 'tensor')}, {output.count(summary.elements, 'element')}" + (f": {mix}" if mix else ""),
        f"  {checked}",
    ]
    if summary.versions:
        lines.append(f"  saved with {', '.join(f'{escaped(package)} {escaped(version)}' for package, version in summary.versions.items())}")
    if summary.objects:
        lines += ["", "  objects, none of which was made", *output.table(list(_objects(summary.objects)), indent="    ", right=(1,))]
    if summary.rows:
        rows = [(row.path, _times(row.count), f"{row.dtype}[{','.join(map(str, row.shape))}]", size(row.nbytes)) for row in summary.rows]
        lines += ["", *output.table(rows, right=(1, 3))]
    if summary.ties:
        lines += ["", "  tied", *output.table([(path, f"is {to}") for path, to in summary.ties.items()], indent="    ")]
    if summary.values and (summary.tensors or summary.values[0].text != "{}"):
        values = [(value.path or "(the whole)", _times(value.count), value.text) for value in summary.values]
        lines += ["", *output.table(values, right=(1,))]
    if summary.metadata:
        metadata = [(key, _brief(value)) for key, value in summary.metadata.items()]
        lines += ["", "  metadata", *output.table(metadata, indent="    ", shrink=1)]
    if summary.findings:
        findings = [(finding.severity, finding.what, finding.place) for finding in summary.findings]
        lines += ["", output.styled("  findings", fg="red", bold=True), *output.table(findings, indent="    ", shrink=1)]
    if summary.left_out:
        lines += ["", output.styled("  left out", fg="yellow"), *output.table([(said,) for said in summary.left_out], indent="    ")]
    return lines


def _objects(objects: "Sequence[Value]") -> Iterator[tuple[str, str, str]]:
    """Path, how many, and class. Of many of one class, such as a vocabulary's words, the first alone."""
    rows = Counter(value.text for value in objects)
    counts = Counter[str]()
    for value in objects:
        counts[value.text] += value.count
    met: set[str] = set()
    for value in objects:
        if rows[value.text] <= _MOST_OF_A_CLASS:
            yield value.path or "(the whole)", _times(value.count), value.text
        elif value.text not in met:
            met.add(value.text)
            yield value.path or "(the whole)", f"and {counts[value.text] - 1:,} more", value.text


def _brief(value: Any) -> str:
    """A value of the metadata in one line: some of a long list, and how many there are; a document by what it begins with."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}... {len(value):,} characters in all"
    from tensorkeep.tree import brief  # only here: `--help` does without NumPy

    text = brief(value, _LONGEST_TEXT)
    return f"{text}, {len(value):,} in all" if isinstance(value, (list, tuple)) and len(value) > _MOST_ITEMS else text


def _times(count: int) -> str:
    return f"{count:,}x" if count > 1 else ""


def _show_tensor(file: str, path: str, *, as_json: bool) -> None:
    with tk.open(file) as contents:
        try:
            tensor = contents.tensors[path]
        except KeyError as error:
            raise click.UsageError(f"{file} has {error.args[0]}\n`tensorkeep show FILE` lists them.") from None
        first = _first(tensor, _plain if as_json else str)
        if as_json:
            facts = {"dtype": str(tensor.dtype), "shape": tensor.shape, "nbytes": tensor.nbytes, "first": first}
            output.print_json({"command": "show", "file": file, "path": path, **facts})
            return
        output.say(f"{output.styled(escaped(path), bold=True)}: {escaped(tensor.spec)}, {output.size(tensor.nbytes)}")
        if first:
            output.say("  " + ", ".join(map(escaped, first)) + (", ..." if tensor.spec.count > len(first) else ""))


def _plain(element: Any) -> Any:
    """An element as Python's own type: for JSON, a float32 as the very number that it is."""
    return element.item() if hasattr(element, "item") else element


def _first(tensor: "LazyTensor", told: Callable[[Any], Any]) -> list[Any]:
    """Its first elements, each as `told` gives it; reads and checks no more than their rows."""
    each = prod(tensor.shape[1:])
    if tensor.dtype.block > 1:
        tensor = tensor.dequantized()
    some = tensor[: -(-_FIRST // each)] if tensor.shape and each and tensor.dtype.bits >= 8 else tensor.numpy()
    try:
        return [told(element) for element in some.reshape(-1)[:_FIRST]]
    except (SystemError, ValueError):  # NumPy's words for a character beyond Unicode's last
        return ["(a text that is none)"]

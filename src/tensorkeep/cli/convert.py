"""tensorkeep convert."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

import tensorkeep as tk
from tensorkeep.cli import output
from tensorkeep.errors import escaped

if TYPE_CHECKING:
    from tensorkeep.verbs.convert import Conversion
    from tensorkeep.verbs.show import Value

_EXAMPLES = (
    "convert old.pt new.safetensors",
    "convert model.safetensors model.npz --only 'encoder.*'",
    "convert big.safetensors sharded --max-shard-size 5GB",
)


@click.command("convert", cls=output.Command, examples=_EXAMPLES)
@click.argument("src", type=click.Path())
@click.argument("dst", type=click.Path())
@click.option("--to", metavar="FORMAT", help="The format, whatever DST's suffix says: model, safetensors, npz, pt, h5, gguf.")
@click.option("--only", metavar="GLOB", help="Take these tensors and values alone; * crosses dots.")
@output.rename_option
@output.transpose_option
@click.option("--dtype", type=click.Choice(["bf16", "fp16", "fp32"]), help="Cast floating-point tensors, rounding to nearest even.")
@click.option("--dequantize", is_flag=True, help="Write tensors of quantized blocks as F32.")
@click.option("--max-shard-size", metavar="SIZE", help="Plain safetensors in a new folder DST, in files of at most so much, such as 5GB.")
@click.option("--dry-run", is_flag=True, help="Write nothing, and report the same.")
@output.as_json
def command(src: str, dst: str, rename: tuple[tuple[str, str], ...], as_json: bool, **options: Any) -> None:
    """Convert a model file SRC into DST, bit for bit, without running anything in it.

    DST's suffix says the format: .safetensors is a model file, with the whole tree and a digest of every byte; `--to safetensors` writes
    tensors alone, as other tools do. What is not carried over is told.
    """
    with output.progress(f"converting {src}") as progress:
        try:
            done = tk.convert(src, dst, rename=rename or None, progress=progress, **options)
        except tk.TensorkeepError:
            raise
        except ValueError as error:  # a format or a pattern that there is not
            raise click.UsageError(str(error)) from None
    if as_json:
        output.print_json({"command": "convert", **output.members(done)})
        return
    for line in _lines(done):
        output.say(line)


def _lines(done: "Conversion") -> Iterator[str]:
    said = "would be written" if done.dry_run else "written"
    yield f"{output.styled(escaped(done.target), bold=True)}: {done.target_format}, from {escaped(done.source)} ({done.source_format})"
    several = f" in {len(done.files):,} files" if len(done.files) > 1 else ""
    yield f"  {output.count(done.tensors, 'tensor')}, {output.size(done.nbytes)} {said}{several}"
    if done.casts:
        yield f"  {_casts(done)}"
    if done.renamed:
        yield f"  {output.count(len(done.renamed), 'path')} renamed"
    for note in done.notes:
        yield f"  {escaped(note)}"
    if done.objects:
        yield from ("", "  objects, kept as dicts of what they hold", *_table(done.objects, root="(the whole)"))
    if done.left_out:
        yield from ("", output.styled("  left out", fg="yellow"), *_table(done.left_out))


def _table(values: "Iterable[Value]", root: str = "") -> Iterator[str]:
    """A row for each reason or class: the first path of it, and how many more there are."""
    groups: dict[str, list[Value]] = {}
    for value in values:
        groups.setdefault(value.text, []).append(value)
    rows = []
    for text, alike in groups.items():
        more = sum(value.count for value in alike[1:])
        count = alike[0].count + more
        rows.append((alike[0].path or root, f"and {more:,} more" if more else f"{count:,}x" if count > 1 else "", text))
    return output.table(rows, indent="    ")


def _casts(done: "Conversion") -> str:
    changed, count = sum(cast.changed for cast in done.casts), sum(cast.count for cast in done.casts)
    overflowed = sum(cast.overflowed for cast in done.casts)
    beyond = output.styled(f", {overflowed:,} of them too large for it", fg="red") if overflowed else ""
    targets = ", ".join(sorted({cast.target for cast in done.casts}))
    return f"{output.count(len(done.casts), 'tensor')} cast to {targets}: {changed:,} of {output.count(count, 'value')} changed{beyond}"

"""tensorkeep show."""

import dataclasses

import click

import tensorkeep as tk
from tensorkeep.cli import output


@click.command("show", cls=output.Command, examples=("show model.safetensors", "show model.safetensors --tensor layers.0.weight"))
@click.argument("file", type=click.Path())
@click.option("--tensor", metavar="PATH", help="Show one tensor and its first values.")
@output.as_json
def command(file: str, tensor: str | None, as_json: bool) -> None:
    """Tell what FILE holds, from its header alone: sizes, dtypes, tensors (those alike together), values, metadata."""
    if tensor is not None:
        _show_tensor(file, tensor, as_json=as_json)
        return
    summary = tk.show(file)
    if as_json:
        output.print_json({"command": "show", **dataclasses.asdict(summary)})
        return
    for line in _lines(summary):
        output.say(line)


def _lines(summary: tk.Summary) -> list[str]:
    escaped = output.escaped
    name = output.styled(escaped(summary.file), bold=True)
    written = f", by {escaped(summary.writer)}" if summary.writer else ""
    checked = f"every byte can be checked (root {summary.root[:16]})" if summary.digests else "no digests: nothing to check against"
    mix = ", ".join(f"{escaped(dtype)} {output.size(share.nbytes)}" for dtype, share in summary.dtypes.items())
    tensors = "1 tensor" if summary.tensors == 1 else f"{summary.tensors:,} tensors"
    lines = [
        f"{name}: {summary.format}{written}, {output.size(summary.nbytes)}",
        f"  {tensors}, {summary.parameters:,} parameters" + (f": {mix}" if mix else ""),
        f"  {checked}",
    ]
    rows = [
        (
            escaped(row.path),
            f"{row.count}x" if row.count > 1 else "",
            f"{escaped(row.dtype)}[{','.join(map(str, row.shape))}]",
            output.size(row.nbytes),
        )
        for row in summary.rows
    ]
    if rows:
        lines += ["", *output.table(rows, right=(1, 3))]
    if summary.values:
        lines += ["", *output.table([(escaped(path) or "(the state)", escaped(value)) for path, value in summary.values])]
    if summary.metadata:
        lines += [
            "",
            "  metadata",
            *output.table([(escaped(key), escaped(value)[:200]) for key, value in summary.metadata.items()], indent="    "),
        ]
    return lines


def _show_tensor(file: str, path: str, *, as_json: bool) -> None:
    with tk.open(file) as contents:
        try:
            tensor = contents.tensors[path]
        except KeyError as error:
            raise click.UsageError(f"{output.escaped(file)} has {output.escaped(error.args[0])}") from None
        values = tensor.numpy().reshape(-1)
        first = [output.escaped(value) for value in values[:8].tolist()]
        if as_json:
            output.print_json(
                {
                    "command": "show",
                    "file": file,
                    "path": path,
                    "dtype": str(tensor.dtype),
                    "shape": tensor.shape,
                    "nbytes": tensor.nbytes,
                    "first": first,
                }
            )
            return
        output.say(f"{output.escaped(path)}: {output.escaped(tensor.spec)}, {output.size(tensor.nbytes)}")
        output.say("  " + ", ".join(first) + (", ..." if values.size > len(first) else ""))

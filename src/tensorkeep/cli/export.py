"""tensorkeep export."""

import click

from tensorkeep.cli import output, stores


@click.command(
    "export",
    cls=output.Command,
    examples=("export runs/digits@best best.safetensors", "export runs/digits weights.safetensors --dtype bf16"),
)
@click.argument("checkpoint", metavar="STORE@REF", type=click.Path())
@click.argument("dst", type=click.Path())
@click.option("--only", metavar="GLOB", help="Take these tensors and values alone; * crosses dots.")
@click.option("--dtype", type=click.Choice(["bf16", "fp16", "fp32"]), help="Cast floating-point tensors, rounding to nearest even.")
@output.as_json
def command(checkpoint: str, dst: str, only: str | None, dtype: str | None, as_json: bool) -> None:
    """Write a checkpoint as the model file DST.

    REF is latest (if there is none), best, best:METRIC, step-N or a tag. DST appears whole or not at all. For other formats: `convert`.
    """
    place, ref = stores.with_ref(checkpoint)
    with output.progress(f"exporting {checkpoint}") as progress:
        try:
            done = stores.opened(place).export(ref, dst, only=only, dtype=dtype, progress=progress)
        except ValueError as error:
            raise stores.usage(error) from error
    if as_json:
        output.print_json({"command": "export", "store": place, **output.members(done)})
        return
    cast = f"; the cast changed {done.changed:,} values" if dtype else ""
    named = output.styled(output.escaped(done.file), bold=True)
    output.say(f"{named}: step {done.step}, {output.count(done.tensors, 'tensor')}, {output.size(done.nbytes)}{cast}")

"""tensorkeep rollback."""

import click

from tensorkeep.cli import output, stores


@click.command("rollback", cls=output.Command, examples=("rollback runs/digits@step-500 --dry-run", "rollback runs/digits@step-500"))
@click.argument("checkpoint", metavar="STORE@REF", type=click.Path())
@stores.dry_run
@output.as_json
def command(checkpoint: str, dry_run: bool, as_json: bool) -> None:
    """Remove every checkpoint after a step, so that a rerun can save those steps again.

    The checkpoint itself stays, and so does what a tag is on, under its tag.
    """
    place, at, ref = checkpoint.rpartition("@")
    if not at or not place:
        raise click.UsageError(f"{checkpoint!r:.100}: STORE@step-N is wanted")
    try:
        removal = stores.opened(place).rollback(ref, dry_run=dry_run)
    except ValueError as error:
        raise stores.usage(error) from error
    if as_json:
        output.print_json({"command": "rollback", "store": place, **output.members(removal)})
    else:
        stores.say_removal(removal)

"""tensorkeep delete."""

import click

from tensorkeep.cli import output, stores


@click.command("delete", cls=output.Command, examples=("delete runs/digits step-500 step-600 --dry-run", "delete runs/digits@paper"))
@stores.store
@click.argument("refs", metavar="REF...", nargs=-1)
@stores.dry_run
@output.as_json
def command(store: str, refs: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Remove checkpoints of STORE by step-N, or tags by their names; one may be named as STORE@REF.

    What they alone needed goes with the next `gc`. What a tag is on stays until the tag is removed too.
    """
    if not refs:
        store, at, ref = store.rpartition("@")
        if not at or not store:
            raise click.UsageError("which of its checkpoints or tags? STORE step-N, or STORE@step-N, is wanted")
        refs = (ref,)
    try:
        removal = stores.opened(store).delete(*refs, dry_run=dry_run)
    except ValueError as error:
        raise stores.usage(error) from error
    if as_json:
        output.print_json({"command": "delete", "store": store, **output.members(removal)})
    else:
        stores.say_removal(removal)

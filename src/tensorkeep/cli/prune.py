"""tensorkeep prune."""

from datetime import timedelta

import click

from tensorkeep.cli import output, stores


@click.command("prune", cls=output.Command, examples=("prune runs/digits --last 3 --best loss --every 1000 --dry-run",))
@stores.store
@stores.policy
@stores.dry_run
@output.as_json
def command(
    store: str,
    last: int | None,
    best: tuple[str, ...],
    every: int | None,
    within: timedelta | None,
    weights_only_after: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove the checkpoints of STORE that no rule keeps.

    The newest intact one stays in any case, and so do those with a tag. What they alone needed goes with the next `gc`.
    """
    keep = stores.policy_of(last, best, every, within, weights_only_after)
    if keep is None:
        raise click.UsageError("no rule says what stays: --last 3, say")
    removal = stores.opened(store).prune(keep, dry_run=dry_run)
    if as_json:
        output.print_json({"command": "prune", "store": store, **output.members(removal)})
    else:
        stores.say_removal(removal)

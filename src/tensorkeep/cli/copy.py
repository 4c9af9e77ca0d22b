"""tensorkeep copy."""

import click

from tensorkeep.cli import output, stores


@click.command(
    "copy", cls=output.Command, examples=("copy runs/digits backup/digits", "copy runs/digits compact --ref best:loss --ref latest")
)
@stores.store
@click.argument("dst", type=click.Path())
@click.option("--ref", "refs", multiple=True, metavar="REF", help="Only this checkpoint: latest, best, best:METRIC, step-N or a tag.")
@output.as_json
def command(store: str, dst: str, refs: tuple[str, ...], as_json: bool) -> None:
    """Copy the checkpoints of STORE, and its tags, into the store DST.

    DST is made if it is not there. What is there is not copied again, so a copy that was interrupted goes on. A copy has no dead bytes.
    """
    with output.progress(f"copying {store}") as progress:
        try:
            done = stores.opened(store).copy(dst, list(refs) or None, progress=progress)
        except ValueError as error:
            raise stores.usage(error) from error
    if as_json:
        output.print_json({"command": "copy", "store": store, "to": dst, **output.members(done)})
        return
    if done.steps:
        output.say(f"{stores.steps_of(done.steps)}: copied, {output.size(done.nbytes)} written")
    if done.there:
        output.say(f"{stores.steps_of(done.there)}: there already")
    if not done.steps and not done.there:
        output.say("no checkpoint to copy")

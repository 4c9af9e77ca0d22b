"""tensorkeep tag."""

import click

import tensorkeep as tk
from tensorkeep.cli import output, stores


@click.command("tag", cls=output.Command, examples=("tag runs/digits@best paper", "tag runs/digits@step-1200 paper --move"))
@click.argument("checkpoint", metavar="STORE@REF", type=click.Path())
@click.argument("name", metavar="NAME")
@click.option("--move", is_flag=True, help="Take the tag from the checkpoint that has it.")
@output.as_json
def command(checkpoint: str, name: str, move: bool, as_json: bool) -> None:
    """Tag a checkpoint as NAME: it stays, whatever the policy says, until the tag is deleted.

    REF is latest (if there is none), best, best:METRIC, step-N or another tag.
    """
    place, ref = stores.with_ref(checkpoint)
    try:
        found = stores.opened(place).tag(name, ref, move=move)
    except tk.TagExists as error:
        hint = "Move it with --move, or take another name."
        raise tk.TagExists(error.store, error.tag, step=error.step, hint=hint) from error
    except ValueError as error:
        raise stores.usage(error) from error
    if as_json:
        output.print_json({"command": "tag", "store": place, "tag": name, "checkpoint": output.members(found)})
    else:
        output.say(f"{name} is step {found.step} of {output.escaped(place)}")

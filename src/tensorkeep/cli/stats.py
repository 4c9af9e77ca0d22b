"""tensorkeep stats."""

import click

from tensorkeep.cli import output, stores


@click.command("stats", cls=output.Command, examples=("stats runs/digits", "stats runs/digits --json"))
@stores.store
@output.as_json
def command(store: str, as_json: bool) -> None:
    """Tell what STORE takes, what of that is needed, and what compression and sharing save."""
    found = stores.opened(store).stats()
    if as_json:
        output.print_json({"command": "stats", "store": store, **output.members(found)})
        return
    said = f"{output.count(found.checkpoints, 'checkpoint')}, {output.count(found.tags, 'tag')}"
    output.say(f"{output.styled(output.escaped(store), bold=True)}: {said}")
    rows = [
        ("tensors, each checkpoint by itself", output.size(found.tensor_bytes)),
        ("packs", _share(found.pack_bytes, found.tensor_bytes)),
        ("  needed", output.size(found.live_bytes)),
        *((f"    {name}", output.size(nbytes)) for name, nbytes in found.codecs.items() if nbytes),
        ("  dead: `copy` leaves it behind", output.size(found.dead_bytes)),
        ("indexes", output.size(found.index_bytes)),
        ("needed by nobody: `gc` removes it", output.size(found.garbage_bytes)),
    ]
    for line in output.table(rows, shrink=0):
        output.say(line)
    for key in found.unreadable:
        output.say(f"{output.styled('damaged', fg='red')} {output.escaped(key)}: not counted")


def _share(nbytes: int, whole: int) -> str:
    return f"{output.size(nbytes)}, {100 * nbytes / whole:.0f} % of that" if whole else output.size(nbytes)

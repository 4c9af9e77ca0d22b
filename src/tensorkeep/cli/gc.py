"""tensorkeep gc."""

from typing import Final

import click

from tensorkeep.cli import output, stores

_MANIFEST: Final = "; `tensorkeep delete` removes it"
_CLAIM: Final = " for 30 days at most. A loss of power leaves such claims; while nobody uses this store, the file may be deleted"


@click.command("gc", cls=output.Command, examples=("gc runs/digits --dry-run", "gc runs/digits"))
@stores.store
@stores.dry_run
@output.as_json
def command(store: str, dry_run: bool, as_json: bool) -> None:
    """Remove what no checkpoint of STORE needs: of removed ones, and of saves that were killed.

    Others may save, load and remove meanwhile.
    """
    found = stores.opened(store).gc(dry_run=dry_run)
    if as_json:
        output.print_json({"command": "gc", "store": store, **output.members(found)})
        return
    kinds = ((found.packs, "pack"), (found.indexes, "index file"), (found.claims, "claim"), (found.leftovers, "temporary file"))
    parts = [output.count(number, noun) for number, noun in kinds if number]
    if parts:
        output.say(f"{', '.join(parts)} {'would be removed' if dry_run else 'removed'}: {output.size(found.nbytes)}")
    else:
        output.say(f"nothing {'would be' if dry_run else 'to be'} removed")
    if found.held_bytes:
        output.say(f"{output.size(found.held_bytes)} stay: a save that is under way may need them")
    for key in found.damaged:
        named = f"{output.styled('damaged', fg='red')} {output.escaped(key)}"
        output.say(f"{named}: what it seems to name stays{_CLAIM if key.startswith('claims/') else _MANIFEST}")

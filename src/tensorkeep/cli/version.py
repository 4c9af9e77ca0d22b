"""tensorkeep version."""

import importlib.metadata
import platform
from typing import Final

import click

from tensorkeep._version import __version__
from tensorkeep.cli import output

_PACKAGES: Final = ("numpy", "ml_dtypes", "blake3", "msgspec", "click", "torch", "safetensors")


@click.command("version", cls=output.Command, examples=("version", "version --json"))
@output.as_json
def command(as_json: bool) -> None:
    """Print the versions of tensorkeep, Python and the frameworks that are installed."""
    found = {"tensorkeep": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if as_json:
        output.print_json({"command": "version", "versions": found})
        return
    for line in output.table(list(found.items()), indent=""):
        output.say(line)

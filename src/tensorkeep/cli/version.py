"""tensorkeep version."""

import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Final

import click

from tensorkeep._version import __version__
from tensorkeep.cli import output

_CORE: Final = ("numpy", "ml_dtypes", "blake3", "msgspec", "click")
_FRAMEWORKS: Final = ("torch", "jax", "flax", "keras", "tensorflow", "scikit-learn", "safetensors")


@click.command("version", cls=output.Command, examples=("version", "version --json"))
@output.as_json
def command(as_json: bool) -> None:
    """Print the versions of tensorkeep, Python, and the frameworks that are installed.

    None of them is imported.
    """
    here = {
        "tensorkeep": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
    }
    core, frameworks = _installed(_CORE), _installed(_FRAMEWORKS)
    if as_json:
        output.print_json({"command": "version", **here, "core": core, "frameworks": frameworks})
        return
    for line in output.table([*here.items(), *core.items(), *frameworks.items()], indent="", shrink=1):
        output.say(line)


def _installed(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

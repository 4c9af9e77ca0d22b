"""Extras: optional packages, asked for by name."""

import importlib
from types import ModuleType

from tensorkeep.errors import MissingExtraError


def require(package: str, *, extra: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: the name to import, such as `torch`.
        extra: the extra of tensorkeep that brings it.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: the package is not installed; the message holds the line that installs it.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package.partition(".")[0]:
            raise  # the package is there, and something that it needs itself is not: its own message is better
        raise MissingExtraError(package=package, extra=extra) from error

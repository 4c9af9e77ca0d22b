"""Extras: optional packages, asked for by name."""

import importlib
from types import ModuleType

from tensorkeep.errors import MissingExtraError


def require(package: str, *, extra: str, hint: str = "") -> ModuleType:
    """Import an optional package.

    Args:
        package: the name to import, such as `torch`.
        extra: the extra of tensorkeep that brings it.
        hint: what to do where it is installed and lacks something itself.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: the package is not installed, and the message holds the line that installs it; or it lacks something itself.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package.partition(".")[0]:
            raise MissingExtraError(package=package, extra=extra, lacking=error.name or str(error), hint=hint) from error
        raise MissingExtraError(package=package, extra=extra) from error

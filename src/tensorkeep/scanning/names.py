"""Names in archives and configurations: those that lead out of their folder when they are extracted or opened."""

import re
from typing import Final

_DRIVE: Final = re.compile(r"[A-Za-z]:")


def leads_out(name: str) -> str:
    """Why a name is none that stays in its folder; "" if it does."""
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        return "is absolute"
    if ".." in re.split(r"[/\\]", name):
        return "leads out of its folder"
    if "\0" in name:
        return "has a zero in it, at which some tools stop reading"
    return ""

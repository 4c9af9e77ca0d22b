"""Capabilities: which optional calls this system has. Everything works without any of them, slower or less tidy."""

import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What may be used. Tests switch all of it off and run again.

    Attributes:
        unnamed: files without a name until they are whole (`O_TMPFILE`).
        positional: reads and writes at an offset, of several buffers at once.
        mapping: files mapped into memory.
        populate: pages of a mapping asked for by range (`MADV_POPULATE_READ`).
        locks: advisory locks that a kill releases.
    """

    unnamed: bool
    positional: bool
    mapping: bool
    populate: bool
    locks: bool


ALL = Capabilities(
    unnamed=hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"),
    positional=hasattr(os, "preadv") and hasattr(os, "pwritev"),
    mapping=sys.platform != "win32",  # Windows refuses to replace a file that is mapped
    populate=sys.platform == "linux",
    locks=sys.platform != "win32",
)

NONE = Capabilities(unnamed=False, positional=False, mapping=False, populate=False, locks=False)

in_use: Capabilities = ALL
"""What this process uses."""

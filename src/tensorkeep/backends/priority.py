"""Priority: work in the background gives way to whoever computes."""

import os
import sys
import threading
from contextlib import suppress
from typing import Final

_NICE: Final = 10  # a tenth of the share of a thread that computes; all of what nobody wants


def give_way() -> None:
    """Have the calling thread run when others leave time for it. For good: it cannot be taken back.

    On Linux alone, where a thread has a priority of its own; elsewhere it would be the whole process's.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)

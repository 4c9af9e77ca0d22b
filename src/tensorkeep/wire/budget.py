"""Budgets: what reading one file may make of it, all together.

A file may be small and say much: a deflated member, a view of one storage a thousand times. What it asks for is counted here, before
memory is taken.
"""

import threading

from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits


class Budget:
    """How many bytes may still be made from one file.

    Args:
        file: for messages.
        nbytes: the file's size: of a larger one more may be made.
        limits: `expanded_bytes` and `expansion`.

    Attributes:
        nbytes: the file's size, in bytes.
    """

    def __init__(self, file: str, nbytes: int, limits: Limits) -> None:
        self.file, self.nbytes = file, nbytes
        self.limit = max(limits.expanded_bytes, limits.expansion * nbytes)
        self.spent = 0
        self._lock = threading.Lock()

    def spend(self, nbytes: int, what: str) -> None:
        """Count bytes that are about to be made.

        Raises:
            FormatError: with these there would be more than the limit.
        """
        with self._lock:
            self.spent += nbytes
            over = self.spent > self.limit
        if over or nbytes < 0:
            raise FormatError(
                self.file,
                f"{what:.200} would take {nbytes:,} bytes, and all that is made from this file may take {self.limit:,}",
                hint="If you trust it, pass limits=tk.Limits(expanded_bytes=...).",
            )

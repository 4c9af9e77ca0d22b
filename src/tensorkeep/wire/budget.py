"""Budgets: what reading one file may make of it, all together.

A file may be small and say much: a deflated member, a view of one storage a thousand times. What it asks for is counted here, before
memory is taken.
"""

import threading
from typing import Final

from tensorkeep.errors import FormatError
from tensorkeep.limits import Limits
from tensorkeep.wire.protobuf import Meter

_STEP_BYTES: Final = 64  # what a step counts for: four million take a second, and as many come out of some kilobytes
_MESSAGES: Final = 100_000_000
_FEW_FIELDS: Final = 1_000_000  # which take a second
_TRUST: Final = "If you trust it, pass limits=tk.Limits(expanded_bytes=...)."


class Budget:
    """How many bytes may still be made from one file.

    Args:
        file: for messages.
        nbytes: the file's size: of a larger one more may be made.
        limits: `expanded_bytes` and `expansion`.

    Attributes:
        nbytes: the file's size, in bytes, and that of all others that it is made of.
    """

    def __init__(self, file: str, nbytes: int, limits: Limits) -> None:
        self.file, self.nbytes = file, nbytes
        self.limit = max(limits.expanded_bytes, limits.expansion * nbytes)
        self.spent = self.steps = 0
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
                hint=_TRUST,
            )

    def walk(self, steps: int) -> None:
        """Count opcodes of pickles that were followed. As they stand in a file it never has too many; inflated, they take time for next
        to no bytes.

        Raises:
            FormatError: with these there were more than the limit is worth.
        """
        with self._lock:
            self.steps += steps
            over = self.steps * _STEP_BYTES > self.limit
        if over:
            raise FormatError(self.file, f"more than {self.limit // _STEP_BYTES:,} opcodes in pickles that inflate", hint=_TRUST)

    def meter(self, messages: int = _MESSAGES) -> Meter:
        """Counts messages of protobuf, and their fields: as many as the file is worth, however many it inflates to."""
        return Meter(messages, _FEW_FIELDS + self.nbytes)

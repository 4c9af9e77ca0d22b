"""Uploads: an object of unknown size, sent in parts while it is being made; there whole at the end, or not at all.

At most `IN_FLIGHT` parts are on their way at a time and two wait, so one object takes `(IN_FLIGHT + 3) * part_bytes` of memory at most.
An upload that a kill interrupts leaves parts that no listing shows; a rule of the bucket for incomplete uploads removes them.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tensorkeep.backends.keys import may_mend
from tensorkeep.backends.object_errors import obstore_errors, translated
from tensorkeep.extras import require

PART_BYTES: Final = 16 << 20
IN_FLIGHT: Final = 4
MOST_PARTS: Final = 10_000  # of S3
_WAITING: Final = 2


class Given(Exception):
    """Nobody wants the object any more."""


class Upload:
    """One object under way.

    Args:
        store: as obstore has it.
        path: of the object in it.
        name: its URL, for messages.
        part_bytes: size of a part.
        tries: how often it is begun.
    """

    def __init__(self, store: Any, path: str, name: str, *, part_bytes: int = PART_BYTES, tries: int = 1) -> None:
        self._obstore = require("obstore", extra="cloud")
        self._store, self._path, self._name = store, path, name
        self._part_bytes, self._tries = part_bytes, tries
        self._order = threading.Lock()  # one writer at a time: bytes stay in the order of their offsets
        self._changed = threading.Condition()
        self._part = bytearray()
        self._waiting: list[bytearray] = []
        self._over = self._given_up = False
        self._failed: BaseException | None = None
        self._thread: threading.Thread | None = None
        self.nbytes = 0
        self.parts = 0

    def write(self, parts: Sequence[memoryview]) -> int:
        """Append; waits while too much is on its way. The offset at which the first part begins.

        Raises:
            OSError: the server fails.
        """
        with self._order:
            start = self.nbytes
            for part in parts:
                part = part.cast("B") if part.nbytes else part
                self.nbytes += part.nbytes
                while part.nbytes:
                    count = min(part.nbytes, self._part_bytes - len(self._part))
                    self._part += part[:count]
                    part = part[count:]
                    if len(self._part) == self._part_bytes:
                        self._hand_over()
            return start

    def _hand_over(self) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._send, name="tensorkeep upload", daemon=True)
                self._thread.start()
            while len(self._waiting) >= _WAITING and self._failed is None:
                self._changed.wait()
            if self._failed is not None:
                raise self._told(self._failed)
            self._waiting.append(self._part)
            self._changed.notify_all()
        self._part = bytearray()

    def finish(self) -> None:
        """Send the rest; the object is there now.

        Raises:
            OSError: the server fails; an object of several parts may be there nevertheless.
        """
        if self._thread is None:
            self.parts = 1
            try:
                self._obstore.put(self._store, self._path, bytes(self._part), use_multipart=False)
            except obstore_errors() as error:
                raise translated(error, self._name) from error
            return
        if self._part:
            self._hand_over()
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join()
        if self._failed is not None:
            raise self._told(self._failed)

    def give_up(self) -> None:
        """Leave nothing of it; after `finish`, does nothing."""
        with self._changed:
            self._given_up = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _send(self) -> None:
        try:
            for attempt in range(self._tries):
                try:
                    self._put()
                    return
                except obstore_errors() as error:
                    # The answer to the first request broke off; what was given away since cannot be sent anew.
                    if self.parts or attempt == self._tries - 1 or not may_mend(translated(error, self._name)):
                        raise
        except BaseException as error:  # noqa: BLE001  # a thread ends here: it is passed on to who waits
            with self._changed:
                self._failed = error
                self._changed.notify_all()

    def _put(self) -> None:
        options: dict[str, Any] = {"use_multipart": True, "chunk_size": self._part_bytes, "max_concurrency": IN_FLIGHT}
        self._obstore.put(self._store, self._path, self._buffers(), **options)

    def _buffers(self) -> Iterator[memoryview]:
        """What obstore asks for, in its own thread. An error here makes it abort the upload."""
        while True:
            with self._changed:
                while not self._waiting and not self._over and not self._given_up:
                    self._changed.wait()
                if self._given_up:
                    raise Given
                if not self._waiting:
                    return
                part = self._waiting.pop(0)
                self._changed.notify_all()
            self.parts += 1
            yield memoryview(part)

    def _told(self, error: BaseException) -> BaseException:
        return translated(error, self._name) if isinstance(error, obstore_errors()) else error

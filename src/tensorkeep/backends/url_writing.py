"""Writing a file at a URL: an object of a bucket that is there whole, or not at all.

Lives here: one object, of a size that is known. Lives elsewhere: objects under keys (bucket), parts on their way (uploads).

Where no object may be replaced, a small one is created by one conditional request; a large one is sent under another name and copied to
its own, which the bucket refuses if there is one by then. S3 copies 5 GiB at most: beyond, it is looked for before the first byte and
before the last request.
"""

import errno
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from tensorkeep.backends.keys import may_mend, unsure
from tensorkeep.backends.new_file import read_whole
from tensorkeep.backends.object_errors import obstore_errors, translated
from tensorkeep.backends.object_places import place_of, refuse_fork
from tensorkeep.backends.pending import write_whole
from tensorkeep.backends.uploads import MOST_PARTS, PART_BYTES, Upload
from tensorkeep.extras import require

_COPIED_BYTES: Final = 5 << 30
_PIECE_BYTES: Final = 4 << 20
_TRIES: Final = 3

Write = Callable[[memoryview], object]


@contextmanager
def uploading(url: str, *, nbytes: int, overwrite: bool = True) -> Iterator[Write]:
    """Write an object in order; it appears at the end of the block.

    Args:
        url: of the object.
        nbytes: its size.
        overwrite: replace an old one; `False` raises.

    Raises:
        FileExistsError: there is one and `overwrite` is False.
        OSError: the server fails. What was there is as it was, unless the error is an `UnsureError`.
    """
    target = _Object(url)
    before = target.version()
    if before is not None and not overwrite:
        raise target.exists()
    large = nbytes > PART_BYTES
    aside = not overwrite and large and nbytes <= _COPIED_BYTES
    path = f"{target.path}.{secrets.token_hex(8)}.tmp" if aside else target.path
    part_bytes = max(PART_BYTES, -(-nbytes // (MOST_PARTS - 100)))
    upload = Upload(target.store, path, url, part_bytes=part_bytes, tries=_TRIES)
    small = bytearray()
    try:
        yield (lambda part: upload.write([part])) if overwrite or large else (lambda part: small.extend(part))
        if not overwrite and not large:
            target.create(bytes(small))
            return
        if not overwrite and target.version() is not None:
            raise target.exists()
        try:
            upload.finish()
        except OSError as error:
            now = _Object(url, path).version()
            if now is None or now[0] != nbytes or now == before:
                if may_mend(error) and not aside:
                    raise unsure(error.errno, f"{error.strerror}; whether it was written nobody can say", url) from error
                raise
        if aside:
            target.take(path)
    finally:
        upload.give_up()
        if aside:
            with suppress(OSError):
                _Object(url, path).delete()


@contextmanager
def staged(url: str, *, nbytes: int) -> Iterator["Staged"]:
    """Write an object in any order: it is put together in a temporary file of this machine, and sent at the end of the block."""
    place_of(url)
    with tempfile.TemporaryFile(prefix="tensorkeep-") as file:
        yield Staged(file.fileno(), url)
        with uploading(url, nbytes=nbytes) as write:
            for start in range(0, nbytes, _PIECE_BYTES):
                piece = bytearray(min(_PIECE_BYTES, nbytes - start))
                read_whole(file.fileno(), start, memoryview(piece))
                write(memoryview(piece))


class Staged:
    """A sink for what is not in order."""

    def __init__(self, fd: int, url: str) -> None:
        self._fd, self._url, self._lock = fd, url, threading.Lock()

    def write(self, offset: int, parts: Sequence[memoryview]) -> None:
        try:
            flat = [part if part.format == "B" and part.ndim == 1 else part.cast("B") for part in parts if part.nbytes]
            write_whole(self._fd, offset, flat, self._lock)
        except OSError as error:
            if error.errno is None:  # of a signal's handler
                raise
            said = f"{error.strerror}, in {tempfile.gettempdir()}, where it is put together before it is sent: TMPDIR names another folder"
            raise OSError(error.errno, said, self._url) from error


class _Object:
    """One object of a bucket, asked about as often as it takes."""

    def __init__(self, url: str, path: str = "") -> None:
        self._obstore: Any = require("obstore", extra="cloud")
        self.url = url
        self.store, found = place_of(url)
        self.path = path or found
        if not found or url.endswith("/"):
            raise IsADirectoryError(errno.EISDIR, "a bucket or a folder of one; the URL of a file in it is wanted", url)

    def version(self) -> tuple[int, str] | None:
        """Its size, and what differs if its content does; None if there is none."""
        try:
            meta = self._asked(lambda: self._obstore.head(self.store, self.path))
        except FileNotFoundError:
            return None
        return meta["size"], f"{meta.get('e_tag')} {meta.get('version')} {meta['last_modified']}"

    def exists(self) -> FileExistsError:
        return FileExistsError(errno.EEXIST, "the object is there already, and was left as it is; overwrite=True replaces it", self.url)

    def create(self, data: bytes) -> None:
        try:
            self._asked(lambda: self._obstore.put(self.store, self.path, data, mode="create", use_multipart=False))
        except FileExistsError:
            # If the first answer was lost, it is our own.
            if bytes(self._asked(lambda: self._obstore.get(self.store, self.path).bytes())) != data:
                raise self.exists() from None
        except OSError as error:
            if may_mend(error):
                raise unsure(error.errno, f"{error.strerror}; whether it was written nobody can say", self.url) from error
            raise

    def take(self, path: str) -> None:
        """Copy what has another name, unless there is one by now."""
        try:
            self._asked(lambda: self._obstore.copy(self.store, path, self.path, overwrite=False))
        except OSError as error:
            if not isinstance(error, FileExistsError) and not may_mend(error):
                raise
            if self.version() is not None:
                if not self._alike(path):
                    raise self.exists() from None
            elif not isinstance(error, FileExistsError):
                raise unsure(error.errno, f"{error.strerror}; whether it was written nobody can say", self.url) from error
            else:
                raise

    def _alike(self, path: str) -> bool:
        """Whether it has the bytes of what should become it: then it did, and the first answer was lost."""
        mine, there = _Object(self.url, path).version(), self.version()
        if mine is None or there is None or mine[0] != there[0]:
            return False
        starts = range(0, mine[0], _PIECE_BYTES)
        return all(self._range(path, start, mine[0]) == self._range(self.path, start, mine[0]) for start in starts)

    def _range(self, path: str, start: int, nbytes: int) -> bytes:
        end = min(start + _PIECE_BYTES, nbytes)
        return bytes(self._asked(lambda: self._obstore.get_range(self.store, path, start=start, end=end)))

    def delete(self) -> None:
        self._asked(lambda: self._obstore.delete(self.store, self.path))

    def _asked(self, call: Callable[[], Any]) -> Any:
        refuse_fork()
        for attempt in range(_TRIES):
            try:
                return call()
            except obstore_errors() as error:
                told = translated(error, self.url)
                if not may_mend(told) or attempt == _TRIES - 1:
                    raise told from error
        raise AssertionError("the last attempt returns or raises")

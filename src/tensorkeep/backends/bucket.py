"""An object store as a backend: S3, Google Cloud Storage, Azure, whatever speaks like one of them, and memory, all by obstore.

Lives here: keys to objects, what is asked again after a failure, and what an answer means. Lives elsewhere: what every backend promises
(keys), URLs (object_places), uploads in parts (uploads), the texts of errors (object_errors).

A failed request is sent again where that cannot do harm; whether a change whose answer was lost was made, nobody can say: it is an
`UnsureError`, or, as the server sees its own object on the second try, a `FileExistsError`, which the caller settles by reading.
"""

import errno
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, Final, Literal, TypeVar

from tensorkeep.backends import object_places
from tensorkeep.backends.keys import Entry, checked, folder_of, is_key, may_mend, unsure
from tensorkeep.backends.object_errors import obstore_errors, translated
from tensorkeep.backends.object_places import Patience
from tensorkeep.backends.uploads import MOST_PARTS, PART_BYTES, Upload
from tensorkeep.extras import require

T = TypeVar("T")

_PIECE_BYTES: Final = 8 << 20
_AT_A_TIME: Final = 8
_PAGE: Final = 1000  # keys in an answer
_PROBE: Final = "probe-"
_LEFT_S: Final = 3600
_CHANGED: Final = "it is not the one that was to be replaced: somebody else changed or removed it"
_NEVER_KEPT: Final = {"Cache-Control": "no-store"}  # by nothing between the bucket and its readers


class BucketBackend:
    """A bucket, or what lies below a path in it.

    Args:
        url: of it.
        patience: how long its server may take.
        part_bytes: of a large object that is sent in parts; 5 MiB at least.

    Attributes:
        requests: how many requests were sent, by kind; those sent again count once.

    Raises:
        OSError: `EINVAL`, it is no URL of a bucket.
    """

    kind: Final[Literal["folder", "object store"]] = "object store"
    slow_listing: Final = False

    def __init__(self, url: str, *, patience: Patience | None = None, part_bytes: int = PART_BYTES) -> None:
        self.name: Final = url.rstrip("/")
        self._obstore: Any = require("obstore", extra="cloud")
        self._store, path = object_places.place_of(url, patience=patience)
        self._deleting = self._store
        self._prefix = f"{path}/" if path else ""
        self._patience, self._part_bytes = patience or object_places.in_use, part_bytes
        self.requests: Counter[str] = Counter()
        self._counting, self._proving = threading.Lock(), threading.Lock()
        self._proven = False

    def list(self, prefix: str, *, strays: bool = False) -> Iterator[Entry]:
        folder_of(prefix)
        listed = self._safely(prefix, lambda: self._obstore.list_with_delimiter(self._store, f"{self._prefix}{prefix}" or None))["objects"]
        self._count("list", max(1, -(-len(listed) // _PAGE)))
        entries = []
        for meta in listed:
            key = meta["path"].removeprefix(self._prefix)
            if is_key(key) and key.rpartition("/")[0] == prefix.rstrip("/"):
                entries.append(_entry(key, meta))
        return iter(sorted(entries, key=lambda entry: entry.key))

    def stat(self, key: str) -> Entry:
        path = self._path(key)
        self._count("head")
        return _entry(key, self._safely(key, lambda: self._obstore.head(self._store, path)))

    def get(self, key: str, *, limit: int) -> bytes:
        return self._get(key, limit)[0]

    def _get(self, key: str, limit: int) -> tuple[bytes, Any]:
        """All bytes of a small object, and what the server says of it."""
        path = self._path(key)
        self._count("get")

        def get() -> tuple[bytes, Any]:
            answer = self._obstore.get(self._store, path)
            if answer.meta["size"] > limit:
                raise OSError(errno.EFBIG, f"{answer.meta['size']:,} bytes, where at most {limit:,} are taken", self._named(key))
            return _whole(bytes(answer.bytes()), answer.meta["size"]), answer.meta

        return self._safely(key, get)

    def read(self, key: str, start: int, stop: int, into: memoryview, *, alone: bool = False) -> None:
        path = self._path(key)
        into = into.cast("B") if into.nbytes else into
        if not 0 <= start <= stop or into.nbytes != stop - start:
            raise ValueError(f"{into.nbytes:,} bytes of memory for bytes {start:,} to {stop:,}")

        def fetch(first: int) -> None:
            last = min(first + _PIECE_BYTES, stop)
            self._count("get")

            def get() -> None:
                # A whole answer replaces a part: memory that a failed one has touched is written again.
                data = memoryview(self._obstore.get_range(self._store, path, start=first, end=last))
                if data.nbytes != last - first:
                    raise OSError(errno.EIO, f"it ends at byte {first + data.nbytes:,}, where {stop:,} are wanted", self._named(key))
                into[first - start : last - start] = data

            try:
                self._safely(key, get)
            except OSError as error:
                if error.errno == errno.ERANGE:
                    raise OSError(errno.EIO, f"it has no byte {first:,}", self._named(key)) from error
                raise

        pieces = range(start, stop, _PIECE_BYTES)
        if len(pieces) < 2:
            for first in pieces:
                fetch(first)
            return
        with ThreadPoolExecutor(min(len(pieces), _AT_A_TIME)) as pool:
            for done in [pool.submit(fetch, first) for first in pieces]:
                done.result()

    def view(self, key: str, start: int, stop: int) -> None:
        return None

    def create(self, key: str, data: Iterable[memoryview], *, durable: bool = True) -> None:
        path, whole = self._path(key), b"".join(data)
        self.prove()
        self._put_new(key, path, whole)

    def replace(self, key: str, data: Iterable[memoryview], *, old: bytes) -> None:
        try:
            there, meta = self._get(key, len(old))
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            there, meta = b"", {}
        if there != old or not meta:
            raise FileExistsError(errno.EEXIST, _CHANGED, self._named(key))
        # If-Match. Measured: localbucket 1.2 knows no such condition, and takes it for none; then only the look above guards.
        named = {name: meta[name] for name in ("e_tag", "version") if meta.get(name)}
        self._put(key, self._path(key), b"".join(data), mode=named or "overwrite")

    def _put_new(self, key: str, path: str, whole: bytes) -> None:
        for attempt in range(self._patience.tries):
            try:
                self._put(key, path, whole, mode="create")
                return
            except FileExistsError:
                # The server may mean another request that is under way, and that may yet fail.
                with suppress(FileNotFoundError):
                    self.stat(key)
                    raise
            self._pause(attempt)
        raise unsure(errno.EAGAIN, "the server says that it exists, and that there is none", self._named(key))

    def _put(self, key: str, path: str, whole: bytes, *, mode: str | dict[str, str]) -> None:
        """One small object. To send it again does no harm: it makes the same object, or is refused."""
        self._count("put")
        try:
            self._safely(key, lambda: self._obstore.put(self._store, path, whole, mode=mode, use_multipart=False, attributes=_NEVER_KEPT))
        except FileExistsError:
            raise
        except OSError as error:
            if isinstance(error.__cause__, self._obstore.exceptions.PreconditionError):
                raise FileExistsError(errno.EEXIST, _CHANGED, self._named(key)) from error
            if may_mend(error):
                raise unsure(error.errno, f"{error.strerror}; whether it was made nobody can say", self._named(key)) from error
            raise

    @contextmanager
    def creating(self, nbytes: int = 0) -> "Iterator[Creating]":
        new = Creating(self, part_bytes=max(self._part_bytes, -(-nbytes // (MOST_PARTS - 100))))
        try:
            yield new
            new.finish()
        finally:
            new.discard()

    def upload(self, key: str, *, part_bytes: int = PART_BYTES) -> Upload:
        """An object under way, for who finishes it or gives it up."""
        return Upload(self._store, self._path(key), self._named(key), part_bytes=part_bytes, tries=self._patience.tries)

    def counted(self, upload: Upload) -> None:
        """Note the requests of an upload that is over."""
        self._count("put", upload.parts if upload.parts < 2 else upload.parts + 2)

    def copy_exclusively(self, old: str, new: str) -> None:
        """Copy an object within the bucket, unless there is one of the new name.

        Raises:
            FileExistsError: there is one.
        """
        self._count("copy")
        self._safely(new, lambda: self._obstore.copy(self._store, self._path(old), self._path(new), overwrite=False))

    def delete(self, *keys: str, durable: bool = True) -> None:
        paths = [self._path(key) for key in keys]
        if not paths:
            return
        self._count("delete", -(-len(paths) // _PAGE))
        try:
            self._delete(paths)
        except OSError as error:
            if may_mend(error):
                raise unsure(error.errno, f"{error.strerror}; some may have been removed", error.filename or self.name) from error
            raise

    def _delete(self, paths: Sequence[str]) -> None:
        key = paths[0].removeprefix(self._prefix) if len(paths) == 1 else ""
        try:
            self._safely(key, lambda: self._obstore.delete(self._deleting, list(paths)))
        except FileNotFoundError:
            if len(paths) > 1:  # some clouds stop at the first that is missing
                for path in paths:
                    self._delete([path])
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL) or self._deleting is not self._store:
                raise
            self._deleting, _ = object_places.place_of(self.name, patience=self._patience, bulk=False)
            self._delete(paths)

    def now(self) -> float:
        with self._probe() as (_, key):
            return self.stat(key).modified

    def free_bytes(self) -> int | None:
        return None

    def settle(self, *prefixes: str) -> None:
        for prefix in prefixes:
            folder_of(prefix)  # what an object store has answered, it keeps

    def leftovers(self, *prefixes: str, remove: bool = False) -> Sequence[Entry]:
        probes = [entry for prefix in prefixes for entry in self.list(prefix) if entry.key.rpartition("/")[2].startswith(_PROBE)]
        if not probes:
            return []
        now = self.now()
        left = [entry for entry in probes if now - entry.modified > _LEFT_S]
        if remove:
            self.delete(*(entry.key for entry in left))
        return left

    def prove(self) -> None:
        """See once, before anything is written, that of two who create one object the bucket refuses the second.

        Raises:
            OSError: `ENOTSUP`, it does not: two writers would overwrite each other unnoticed.
        """
        with self._proving:
            if self._proven:
                return
            with self._probe() as (path, key):
                try:
                    self._put(key, path, b"second", mode="create")
                except FileExistsError:
                    self._proven = True
                    return
            said = "this bucket lets two writers create one object, and the second overwrites the first, so a checkpoint could be lost"
            hint = "use one that knows conditional creates (If-None-Match: *), as S3, GCS, Azure, R2 and MinIO do, or a folder"
            raise OSError(errno.ENOTSUP, f"{said}: {hint}", self.name)

    @contextmanager
    def _probe(self) -> Iterator[tuple[str, str]]:
        """An object that nobody else has, for as long as the block: its path and its key."""
        key = f"{_PROBE}{secrets.token_hex(8)}"
        path = self._path(key)
        try:
            self._put_new(key, path, b"first")
        except FileExistsError:
            pass  # 64 random bits: it is our own, and the first answer was lost
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                said = f"this bucket cannot create objects without overwriting others ({error.strerror}): use one that can, or a folder"
                raise OSError(errno.ENOTSUP, said, self.name) from error
            raise
        try:
            yield path, key
        finally:
            with suppress(OSError):  # whoever may not remove it leaves a few bytes
                self.delete(key)

    def _safely(self, key: str, call: Callable[[], T]) -> T:
        """Call, and again a few times where the failure may mend."""
        object_places.refuse_fork()
        for attempt in range(self._patience.tries):
            try:
                return call()
            except obstore_errors() as error:
                told = error if isinstance(error, OSError) and error.errno is not None else translated(error, self._named(key))
                if not may_mend(told) or attempt == self._patience.tries - 1:
                    raise told from error
            self._pause(attempt)
        raise AssertionError("the last attempt returns or raises")

    def _pause(self, attempt: int) -> None:
        time.sleep(min(self._patience.pause_s, 0.1 * 2**attempt) * random.uniform(0.5, 1))

    def _count(self, kind: str, count: int = 1) -> None:
        with self._counting:
            self.requests[kind] += count

    def _path(self, key: str) -> str:
        return f"{self._prefix}{'/'.join(checked(key))}"

    def _named(self, key: str) -> str:
        return f"{self.name}/{key}" if key else self.name


class Creating:
    """New objects of a bucket: see `Backend.creating`."""

    def __init__(self, backend: BucketBackend, *, part_bytes: int) -> None:
        self._backend, self._part_bytes = backend, part_bytes
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        object_places.refuse_fork()

    def write(self, key: str, parts: Sequence[memoryview]) -> int:
        with self._lock:
            upload = self._uploads.get(key)
            if upload is None:
                upload = self._uploads[key] = self._backend.upload(key, part_bytes=self._part_bytes)
        return upload.write(parts)

    def finish(self) -> None:
        for key, upload in self._uploads.items():
            try:
                upload.finish()
            except OSError as error:
                # The answer of the last request may have been lost; nobody else has this name.
                with suppress(OSError):
                    if self._backend.stat(key).nbytes == upload.nbytes:
                        continue
                if may_mend(error):
                    raise unsure(error.errno, f"{error.strerror}; whether it was made nobody can say", error.filename) from error
                raise
            self._backend.counted(upload)

    def discard(self) -> None:
        for upload in self._uploads.values():
            upload.give_up()


def _entry(key: str, meta: Any) -> Entry:
    modified = meta["last_modified"]
    when = modified.timestamp() if isinstance(modified, datetime) else 0.0
    # Azure's listing says it without quotes; a version of its own, where the bucket keeps those, stands in no listing.
    etag = str(meta.get("e_tag") or meta.get("version")).strip('"')
    return Entry(key, int(meta["size"]), when, f"{etag} {when} {meta['size']}")


def _whole(data: bytes, nbytes: int) -> bytes:
    if len(data) != nbytes:
        raise OSError(errno.ECONNRESET, f"the server gave {len(data):,} of {nbytes:,} bytes")
    return data

"""A file at a URL, read by ranges.

It is never fetched whole where a part will do. Small reads come from blocks that are kept, for a reader of headers goes back and
forth; each request names the file's ETag, so bytes of two versions are never mixed.
"""

import errno
import threading
from collections import OrderedDict
from datetime import timedelta
from typing import Any, Final

from tensorkeep.backends.files import Unmapped
from tensorkeep.backends.keys import may_mend
from tensorkeep.backends.object_errors import obstore_errors, translated
from tensorkeep.backends.object_places import refuse_fork
from tensorkeep.extras import require

_BLOCK_BYTES: Final = 256 << 10
_KEPT_BLOCKS: Final = 64
_REQUEST_BYTES: Final = 8 << 20
_RETRIES: Final[Any] = {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}
_TRIES: Final = 3


def http_place(name: str, url: str, headers: dict[str, str]) -> Any:
    """A web address as obstore has it.

    Args:
        name: the URL as the caller gave it.
        url, headers: what is asked for.
    """
    refuse_fork()
    options: dict[str, Any] = {"allow_http": url.startswith("http:"), "connect_timeout": "20s", "timeout": "300s"}
    if headers:
        options["default_headers"] = headers
    http: Any = require("obstore.store", extra="cloud")
    try:
        return http.HTTPStore.from_url(url, client_options=options, retry_config=_RETRIES)
    except obstore_errors() as error:
        raise OSError(errno.EINVAL, f"no URL that can be asked for: {_first_line(error)}", name) from None


class RemoteFile(Unmapped):
    """A file at a URL, open for reading by any number of threads at once.

    Args:
        name: the URL as the caller gave it.
        store: as obstore has it.
        path: of the file in it.
        cloud: whether it is an object of a bucket.
    """

    remote = True

    def __init__(self, name: str, store: Any, path: str, *, cloud: bool) -> None:
        self.name, self._store, self._path, self._cloud = name, store, path, cloud
        self._obstore = require("obstore", extra="cloud")
        self._errors = require("obstore.exceptions", extra="cloud")
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, memoryview] = OrderedDict()
        self._etag: str | None = None
        self.nbytes = 0
        self._begin()

    def _begin(self) -> None:
        """The first block, and with it size and ETag: some servers answer a question without bytes otherwise than one for some."""
        first, meta = self._get(0, _BLOCK_BYTES, opening=True)
        etag = meta.get("e_tag")
        self._etag = etag if isinstance(etag, str) and not etag.startswith("W/") else None
        self._modified = meta.get("last_modified")
        self.nbytes = int(meta["size"])
        self._blocks[0] = first[: self.nbytes]

    def _get(self, start: int, stop: int, *, opening: bool = False) -> tuple[memoryview, Any]:
        options: dict[str, Any] = {"range": (start, stop)}
        if self._etag is not None:
            options["if_match"] = self._etag
        refuse_fork()
        data, meta = self._got(options, opening=opening) if self._cloud else self._answered(options, opening=opening)
        if self._etag is not None and meta.get("e_tag") != self._etag:  # a server that does not know `If-Match`
            raise self._changed()
        return data, meta

    def _changed(self) -> OSError:
        return OSError(errno.EIO, "the file was changed while it was read", self.name)

    def _answered(self, options: dict[str, Any], *, opening: bool) -> tuple[memoryview, Any]:
        """Of a web server."""
        errors = self._errors
        try:
            answer = self._obstore.get(self._store, self._path, options=options)
            return memoryview(answer.bytes()), answer.meta
        except (errors.NotFoundError, FileNotFoundError):  # obstore 0.12 raises Python's own, with the server's page in it
            raise FileNotFoundError(errno.ENOENT, "nothing is at this URL", self.name) from None
        except (errors.PermissionDeniedError, errors.UnauthenticatedError):
            raise PermissionError(errno.EACCES, "the server wants other rights; for hf://, set HF_TOKEN", self.name) from None
        except errors.PreconditionError:
            raise self._changed() from None
        except errors.NotSupportedError:
            raise OSError(errno.ENOTSUP, "the server does not give parts of a file; download it first", self.name) from None
        except errors.BaseError as error:
            said = str(error)
            if opening and "416" in said:  # an empty file has no first byte
                return memoryview(b""), self._obstore.head(self._store, self._path)
            if "range" in said.lower() and opening:
                raise OSError(errno.ENOTSUP, "the server does not give parts of a file; download it first", self.name) from None
            raise OSError(errno.EIO, f"the server cannot be read: {_first_line(error)}", self.name) from None

    def _got(self, options: dict[str, Any], *, opening: bool) -> tuple[memoryview, Any]:
        """Of a bucket. What breaks off is asked for again: obstore does that for most failures, but not for all."""
        for attempt in range(_TRIES):
            try:
                answer = self._obstore.get(self._store, self._path, options=options)
                return memoryview(answer.bytes()), answer.meta
            except self._errors.PreconditionError:
                raise self._changed() from None
            except obstore_errors() as error:
                told = translated(error, self.name)
                if opening and not isinstance(told, (FileNotFoundError, PermissionError)) and not may_mend(told):
                    meta = self._obstore.head(self._store, self._path)
                    if meta["size"] == 0:  # an empty object has no first byte
                        return memoryview(b""), meta
                if not may_mend(told) or attempt == _TRIES - 1:
                    raise told from error
        raise AssertionError("the last attempt returns or raises")

    def identity(self) -> object:
        """What the server says of the file as it is now."""
        _, meta = self._get(0, min(1, self.nbytes) or 1, opening=True)
        return meta.get("size"), meta.get("e_tag"), meta.get("last_modified")

    def read_into(self, offset: int, into: memoryview) -> None:
        """Read whole, from an offset in bytes.

        Raises:
            OSError: the server fails, the file is shorter, or it was changed.
        """
        into = into.cast("B") if into.nbytes else into
        if offset + into.nbytes > self.nbytes:
            raise OSError(errno.EIO, f"the file has {self.nbytes:,} bytes, {offset + into.nbytes:,} are wanted", self.name)
        while into.nbytes:
            if into.nbytes < _BLOCK_BYTES:
                data = self._block(offset // _BLOCK_BYTES)[offset % _BLOCK_BYTES :][: into.nbytes]
            else:
                data = self._fetched(offset, offset + min(into.nbytes, _REQUEST_BYTES))
            into[: len(data)] = data
            offset, into = offset + len(data), into[len(data) :]

    def _fetched(self, start: int, stop: int) -> memoryview:
        data, _ = self._get(start, stop)
        if len(data) != stop - start:
            raise OSError(errno.EIO, f"the server gave {len(data):,} bytes, {stop - start:,} were asked for", self.name)
        return data

    def _block(self, number: int) -> memoryview:
        with self._lock:
            if number in self._blocks:
                self._blocks.move_to_end(number)
                return self._blocks[number]
        start = number * _BLOCK_BYTES
        data = self._fetched(start, min(start + _BLOCK_BYTES, self.nbytes))
        with self._lock:
            self._blocks[number] = data
            if len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        return data

    def close(self) -> None:
        self._blocks.clear()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

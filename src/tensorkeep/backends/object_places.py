"""Object places: what a URL of a cloud means, and how long a server may take.

`s3://bucket/path`, `gs://bucket/path`, `az://container/path`, with credentials as the cloud's own tools find them in the environment,
and `memory://name/path`, which lives as long as the process. A path is taken as it is written: `%20` is three characters.
"""

import errno
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from tensorkeep.backends.object_errors import obstore_errors, translated
from tensorkeep.extras import require

CLOUDS: Final = ("s3", "s3a", "gs", "az", "abfs", "memory")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/?#\s]*)(?:/(.*))?", re.DOTALL)
_PART: Final = re.compile(r"(?!\.{1,2}(?:/|\Z))[^/\x00-\x1f\x7f]+")

_memory: Final[dict[str, Any]] = {}
_process: int | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server may take, in seconds.

    Attributes:
        connect_s: until it answers at all.
        request_s: for one request, of 16 MiB at most.
        retries: how often one is sent again after a time-out, a reset, a 429 or a 5xx, with growing pauses of random length.
        retry_s: after how long it is not sent again.
        pause_s: the longest pause.
        tries: how often all of that is done again, for failures that obstore takes for final, such as an answer that breaks off.
    """

    connect_s: float = 10
    request_s: float = 300
    retries: int = 7
    retry_s: float = 90
    pause_s: float = 10
    tries: int = 3


in_use: Patience = Patience()
"""What this process has, where nothing else is said."""


def place_of(url: str, *, patience: Patience | None = None, bulk: bool = True) -> tuple[Any, str]:
    """The bucket that a URL names, as obstore has it, and the path in it, "" for the whole.

    Args:
        bulk: whether S3 is asked to remove many objects at once, or one by one, as some that speak like it know nothing else.

    Raises:
        OSError: `EINVAL`, it is none that can be asked for.
        MissingExtraError: obstore is not installed.
        RuntimeError: this is a forked child of a process that used one.
    """
    patience = patience or in_use
    match = _URL.fullmatch(url)
    if match is None or (not match[2] and match[1].lower() != "memory"):
        raise OSError(errno.EINVAL, "no bucket is named: s3://bucket/path is wanted", url)
    scheme, bucket, path = match[1].lower(), match[2], (match[3] or "").strip("/")
    if path and not all(_PART.fullmatch(part) for part in path.split("/")):
        raise OSError(errno.EINVAL, "an empty part, '.', '..' or a control character stands in its path", url)
    stores = require("obstore.store", extra="cloud")
    refuse_fork()
    if scheme == "memory":
        return _memory.setdefault(bucket, stores.MemoryStore()), path
    # Measured: obstore alone sends a request anew after 5xx, resets and cut bodies, and after time-outs where that cannot do harm.
    options = {"connect_timeout": _seconds(patience.connect_s), "timeout": _seconds(patience.request_s), **_of_environment(scheme)}
    retries: dict[str, Any] = {"max_retries": patience.retries, "retry_timeout": timedelta(seconds=patience.retry_s)}
    first, longest = timedelta(seconds=min(0.1, patience.pause_s / 2)), timedelta(seconds=patience.pause_s)
    retries["backoff"] = {"init_backoff": first, "max_backoff": longest, "base": 2}
    try:
        if scheme in ("s3", "s3a"):
            # Of no use to a bucket that lacks it, and the only way to a large object that refuses to replace one.
            config = {} if "AWS_COPY_IF_NOT_EXISTS" in os.environ else {"copy_if_not_exists": "multipart"}
            if not bulk:
                config["disable_bulk_delete"] = "true"
            store = stores.S3Store.from_url(f"s3://{bucket}", config=config, client_options=options, retry_config=retries)
        elif scheme == "gs":
            store = stores.GCSStore.from_url(f"gs://{bucket}", client_options=options, retry_config=retries)
        else:
            store = stores.AzureStore.from_url(f"az://{bucket.partition('@')[0]}", client_options=options, retry_config=retries)
    except obstore_errors() as error:
        raise translated(error, url) from error
    return store, path


def refuse_fork() -> None:
    """obstore's threads are not there in a forked child: a request would wait for ever."""
    global _process
    if _process is None:
        _process = os.getpid()
    elif _process != os.getpid():
        raise RuntimeError("object stores cannot be used in a forked child of a process that used one: start it by spawn or forkserver")


def _of_environment(scheme: str) -> dict[str, Any]:
    """What obstore would read by itself if it was given no options at all: `AWS_ALLOW_HTTP`, `AZURE_PROXY_URL` and the like."""
    cloud = {"gs": "GOOGLE", "az": "AZURE", "abfs": "AZURE"}.get(scheme, "AWS")
    options: dict[str, Any] = {}
    for option in ("allow_http", "allow_invalid_certificates"):
        if os.environ.get(f"{cloud}_{option.upper()}", "").lower() in ("1", "true", "yes", "on"):
            options[option] = True
    for option in ("proxy_url", "proxy_ca_certificate", "proxy_excludes"):
        if said := os.environ.get(f"{cloud}_{option.upper()}"):
            options[option] = said
    return options


def _seconds(seconds: float) -> str:
    return f"{int(seconds * 1000)}ms"

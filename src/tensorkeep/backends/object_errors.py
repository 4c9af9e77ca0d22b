"""Object errors: what obstore raises becomes the system's own errors, with a number, the URL, and what to do.

Measured with obstore 0.12: its errors carry a text alone, in which the server's status stands.
"""

import errno
import re
from typing import Any, Final

from tensorkeep.extras import require

_STATUS: Final = re.compile(r"status code: (\d{3})|\b(\d{3}) (?:Bad Request|Not Implemented|Range Not Satisfiable)")
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_LONGEST: Final = 300


def obstore_errors() -> tuple[type[Exception], ...]:
    """The classes of what its calls raise."""
    exceptions: Any = require("obstore.exceptions", extra="cloud")
    return (exceptions.BaseError, OSError, ValueError)


def translated(error: Exception, name: str) -> OSError:
    """The system's error for one of obstore's.

    Args:
        name: the URL of the object.
    """
    exceptions: Any = require("obstore.exceptions", extra="cloud")
    text = str(error)
    code = match[1] if (match := _CODE.search(text)) else ""
    status = int(next(group for group in match.groups() if group)) if (match := _STATUS.search(text)) else 0
    if code == "RequestTimeTooSkewed":
        return PermissionError(errno.EACCES, "the server refuses requests from this machine, whose clock is wrong: set it", name)
    if code == "NoSuchBucket":
        return FileNotFoundError(errno.ENOENT, "there is no such bucket", name)
    if isinstance(error, (FileNotFoundError, getattr(exceptions, "NotFoundError", FileNotFoundError))):
        return FileNotFoundError(errno.ENOENT, "there is no such object", name)
    if isinstance(error, exceptions.AlreadyExistsError):
        return FileExistsError(errno.EEXIST, "there is such an object already, and it was left as it is", name)
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)) or status in (401, 403):
        said = "the server refuses: other credentials are wanted, or there is no such object and these may not list the bucket"
        return PermissionError(errno.EACCES, said + (f" ({code})" if code else ""), name)
    if "169.254." in text or "metadata.google" in text or ("credential" in text.lower() and not status):
        said = "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS or"
        return PermissionError(
            errno.EACCES, f"{said} AZURE_STORAGE_ACCOUNT_NAME and _KEY; AWS_SKIP_SIGNATURE=true for a public bucket", name
        )
    if isinstance(error, exceptions.PreconditionError):
        return OSError(errno.EIO, "the object was changed meanwhile", name)
    line = _first_line(text)
    if "builder error" in line:
        return OSError(errno.EINVAL, "no URL that can be asked; for a server at http://, set AWS_ALLOW_HTTP=true", name)
    return OSError(_number(status, line), f"the server failed: {code or line}", name)


def _number(status: int, text: str) -> int:
    if status == 501 or "not implemented" in text.lower() or "NotImplemented" in text:
        return errno.ENOTSUP
    if status in (408, 409, 425, 429, 503):
        return errno.EAGAIN
    if status == 416:
        return errno.ERANGE
    if status >= 500:
        return errno.EREMOTEIO if hasattr(errno, "EREMOTEIO") else errno.EAGAIN
    if status in (301, 307, 400):
        return errno.EINVAL
    if "timed out" in text or "timeout" in text.lower().replace("retry_timeout", ""):  # which stands in all of them
        return errno.ETIMEDOUT
    if any(word in text for word in ("connect", "reset", "body", "decod", "sending request", "closed")):
        return errno.ECONNRESET
    return errno.EIO


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")[:_LONGEST]

"""Changing what several may want to change, and knowing whether one did: rule 6 of the protocol.

A create that is answered "exists" may have been done by this very call, if its first answer was lost; one without an answer may have been
done or not. It is the same where an object takes the place of another. Reading the key settles both.
"""

import errno
from dataclasses import dataclass
from typing import Final

from tensorkeep.backends.keys import Backend, UnsureError

_TRIES: Final = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a change.

    Attributes:
        done: whether the object was there with our bytes.
        other: if not: what is there instead, by somebody else; None for nothing.
        late: whether a request without an answer may take effect yet, as it may in an object store.
    """

    done: bool
    other: bytes | None
    late: bool


def put(backend: Backend, key: str, data: bytes, *, old: bytes | None = None, limit: int, durable: bool = True) -> Outcome:
    """Create an object, or put it in the place of one that is known: unless somebody else was first.

    Args:
        old: the bytes of the one whose place it takes; None where none may be there.
        limit: most bytes that another one's may have.

    Raises:
        UnsureError: nobody could say whether it was done.
        OSError: it was not done.
    """
    error: OSError | None = None
    late = False
    for _ in range(_TRIES):
        try:
            if old is None:
                backend.create(key, [memoryview(data)], durable=durable)
            else:
                backend.replace(key, [memoryview(data)], old=old)
            return Outcome(True, None, late)
        except (FileExistsError, UnsureError) as unsettled:
            error = unsettled
        except OSError as failed:
            if late:  # not this time; but an earlier request is under way
                raise UnsureError(failed.errno, f"nobody says whether it was made: {failed.strerror}", f"{backend.name}/{key}") from failed
            if old is None or not isinstance(failed, FileNotFoundError):
                raise
            error = failed
        late |= isinstance(error, UnsureError) and backend.kind == "object store"
        found = _look(backend, key, max(limit, len(data), len(old or b"")))
        if found == data:
            return Outcome(True, None, late)
        if found != old:
            return Outcome(False, found, late)
    raise UnsureError(errno.EIO, "nobody says whether it was made, and nothing there has changed", f"{backend.name}/{key}") from error


def _look(backend: Backend, key: str, limit: int) -> bytes | None:
    try:
        return backend.get(key, limit=limit)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise FileExistsError(errno.EEXIST, "something else stands there", f"{backend.name}/{key}") from error
        raise UnsureError(
            error.errno or errno.EIO, f"nobody says whether it was made: {error.strerror or error}", f"{backend.name}/{key}"
        ) from error

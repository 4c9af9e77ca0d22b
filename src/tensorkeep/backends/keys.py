"""Keys: small and large objects under plain names, in a folder or in an object store.

Lives here: what a store may ask of a place, and what it may rely on there. Lives elsewhere: how a folder does it (folder), how an
object store does it (bucket), which of the two a URL means (choosing).

Promises of every backend:

- An object is there whole or not at all, for every reader, on every machine. What a call made is durable when it returns, unless it
  was asked with `durable=False`.
- Methods may be called in any order and from any thread. Nothing outlives a call: no thread, no lock, no open file.
- Errors are `OSError`s with errno and the place as file name: `FileNotFoundError`, `FileExistsError` and `PermissionError` mean what
  they say. `UnsureError` alone means that the change may have been made; after any other, it was not.
- Keys are spelled in a fixed alphabet. No name that stands in a file or in a folder can lead out of the place, through a link or to a
  device. What a folder or bucket holds beside, under other names, is not seen.
"""

import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Literal, Protocol

_PART: Final = re.compile(r"(?=.{1,200}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.+=@-]*[A-Za-z0-9_+=@-])?")
_DEVICES: Final = re.compile(r"(?i)(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")  # of Windows
_DEEPEST: Final = 4
_MENDED_BY_TIME: Final = frozenset(
    getattr(errno, name)
    for name in (
        "EAGAIN", "EINTR", "EBUSY", "ETIMEDOUT", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EPIPE", "ENETUNREACH", "ENETDOWN",
        "EHOSTUNREACH", "EHOSTDOWN", "ESTALE", "EREMOTEIO", "ENOLCK",
    )
    if hasattr(errno, name)
)  # fmt: skip


class UnsureError(OSError):
    """A change that may have been made: its answer was lost, or it is made and might not survive a loss of power.

    Whoever must know reads the key, where the answer is the truth from now on.
    """


@dataclass(frozen=True, slots=True)
class Entry:
    """An object.

    Attributes:
        key: its name, from the root of the backend.
        nbytes: its size.
        modified: when it was made, in seconds since 1970 by the storage's own clock, a second or two early at most; `Backend.now` tells
            the same clock.
        version: differs whenever the content differs. May differ where it does not.
    """

    key: str
    nbytes: int
    modified: float
    version: str


class New(Protocol):
    """Objects under way: see `Backend.creating`."""

    def write(self, key: str, parts: Sequence[memoryview]) -> int:
        """Append to a new object; the first write begins it. Any number of threads may write at once.

        Returns:
            The offset of the first byte: where in the object these parts will be found, one behind the other.
        """


class Backend(Protocol):
    """A place that holds objects under keys.

    Attributes:
        kind: `folder` or `object store`.
        name: the place as the caller named it, for messages.
        slow_listing: a listing may be a minute old, as on NFS: whoever relies on what it lacks waits, and checks by `stat`.
    """

    @property
    def kind(self) -> Literal["folder", "object store"]: ...
    @property
    def name(self) -> str: ...
    @property
    def slow_listing(self) -> bool: ...

    def list(self, prefix: str, *, strays: bool = False) -> Iterator[Entry]:
        """The objects directly in a folder of keys, sorted by key; none if there is no such folder.

        Args:
            prefix: `""`, or a folder's key and a slash: `"packs/"`.
            strays: also what stands in an object's place and is none, such as a link or a folder; reading it is an error.
        """

    def stat(self, key: str) -> Entry:
        """One object, as it is now.

        Raises:
            FileNotFoundError: there is none.
        """

    def get(self, key: str, *, limit: int) -> bytes:
        """All bytes of a small object.

        Args:
            limit: most bytes to take.

        Raises:
            FileNotFoundError: there is none.
            OSError: `EFBIG`, it has more than `limit`.
        """

    def read(self, key: str, start: int, stop: int, into: memoryview, *, alone: bool = False) -> None:
        """Read some bytes, straight into the caller's memory.

        Args:
            alone: nobody wants what lies around them, so nothing is read ahead.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: `EIO`, it ends before `stop`.
        """

    def view(self, key: str, start: int, stop: int) -> memoryview | None:
        """Some bytes of an object where the system has them, to be looked at soon and let go of: a copy less than `read`.

        None where there is no such thing, or anything is wrong: `read` tells what.
        """

    def create(self, key: str, data: Iterable[memoryview], *, durable: bool = True) -> None:
        """Make a small object, unless there is one: of many at once, one wins.

        Args:
            durable: `False` for what has no meaning after a loss of power, such as a claim.

        Raises:
            FileExistsError: there is one. An object store may say so of one that this very call has made, where its first answer was
                lost: whoever must know reads it.
            UnsureError: it may have been made.
        """

    def replace(self, key: str, data: Iterable[memoryview], *, old: bytes) -> None:
        """Make a small object in the place of one that is known: of many at once, one wins. A reader sees the one or the other, whole.

        Args:
            old: all bytes of the one that is there.

        Raises:
            FileExistsError, FileNotFoundError: another one is there, or none. An object store may say so where this very call has done
                it and its first answer was lost: whoever must know reads it.
            UnsureError: it may have been done.
        """

    def creating(self, nbytes: int = 0) -> AbstractContextManager[New]:
        """Make large objects of unknown size, piece by piece. They appear, durable, at the end of the block; if it raises, none does.

        Their keys are names that nobody else can have: an object store does not look whether there is one.

        Args:
            nbytes: how much one of them may have, if that is known: for more than 150 GB, an object store wants larger parts.

        Example:
            >>> with backend.creating() as new:  # doctest: +SKIP
            ...     offset = new.write("packs/a-1-0.pack", [memoryview(b"...")])
        """

    def delete(self, *keys: str, durable: bool = True) -> None:
        """Remove objects. Missing is no error; where one cannot be removed, the others are.

        Args:
            durable: `False` where it does not matter that they may come back after a loss of power.

        Raises:
            UnsureError: some may have been removed.
        """

    def now(self) -> float:
        """The storage's own clock, in seconds since 1970."""

    def free_bytes(self) -> int | None:
        """Room that is left; None where nobody can say."""

    def settle(self, *prefixes: str) -> None:
        """Have what anybody has made or removed directly in these folders survive a loss of power: as it is listed now, it stays.

        Whoever removes what nothing names any more first settles the folders of those that would have named it.
        """

    def leftovers(self, *prefixes: str, remove: bool = False) -> Sequence[Entry]:
        """Temporary files that killed writers left directly in these folders. Never what somebody is still writing.

        Args:
            remove: remove them too.
        """


def checked(key: str) -> tuple[str, ...]:
    """The parts of a key.

    Raises:
        ValueError: it is no key: `a-z A-Z 0-9 _ . + = @ -`, up to 200 in each of up to four parts, none beginning or ending with a dot,
            none beginning with a sign, none a name of a device.
    """
    parts = tuple(key.split("/"))
    if len(parts) > _DEEPEST or not all(_PART.fullmatch(part) and not _DEVICES.fullmatch(part) for part in parts):
        raise ValueError(f"{key!r:.250} is no key of a store: parts of A-Z a-z 0-9 _ . + = @ -, with / between them, are wanted")
    return parts


def is_key(text: str) -> bool:
    """Whether it is spelled as keys are."""
    try:
        checked(text)
    except ValueError:
        return False
    return True


def folder_of(prefix: str) -> tuple[str, ...]:
    """The parts of what `Backend.list` takes.

    Raises:
        ValueError: it is neither empty nor a key and a slash.
    """
    if prefix and not prefix.endswith("/"):
        raise ValueError(f"{prefix!r:.250} is no folder of keys: '' or one that ends with / is wanted")
    return checked(prefix[:-1]) if prefix else ()


def unsure(number: int | None, sentence: str, name: str) -> UnsureError:
    """The error, said whole: no room adds to it."""
    error = UnsureError(number, sentence, name)
    error.explained = True  # type: ignore[attr-defined]
    return error


def may_mend(error: BaseException) -> bool:
    """Whether the same call, some time later, may well do: a time-out, a reset, a server that is busy."""
    return isinstance(error, OSError) and error.errno in _MENDED_BY_TIME

"""A store's backend in memory, with the promises of `tensorkeep.backends.keys` and nothing more: for tests of the protocol.

Every operation first calls `gate(operation, key)`, so that a test can stop, fail, kill or reorder what is done; the clock is the test's.
"""

import errno
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from tensorkeep.backends.keys import Entry, UnsureError, checked

Gate = Callable[[str, str], None]
CHANGES = {"create", "replace", "delete"}


class MemoryBackend:
    """Objects in a dict.

    Args:
        kind: what it says it is; an object store may say "exists" of what the call itself has made.
    """

    def __init__(
        self, kind: Literal["folder", "object store"] = "folder", objects: "dict[str, tuple[bytes, float, int]] | None" = None
    ) -> None:
        self.kind: Literal["folder", "object store"] = kind
        self.name = "memory"
        self.slow_listing = False
        self.objects: dict[str, tuple[bytes, float, int]] = {} if objects is None else objects
        self.clock = 1_000_000.0
        self.gate: Gate = lambda operation, key: None
        self.settled: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self._versions = itertools.count(1)
        self._lock = threading.Lock()  # between looking and doing: a store has several threads

    def _enter(self, operation: str, key: str) -> None:
        self.gate(operation, key)
        self.calls.append((operation, key))

    def put(self, key: str, data: bytes, *, age: float = 0) -> None:
        """For tests: an object, made some seconds ago."""
        self.objects[key] = (data, self.clock - age, next(self._versions))

    @staticmethod
    def _entry(key: str, found: tuple[bytes, float, int]) -> Entry:
        data, modified, version = found
        return Entry(key, len(data), modified, str(version))

    def list(self, prefix: str, *, strays: bool = False) -> Iterator[Entry]:
        self._enter("list", prefix)
        there = dict(self.objects)  # at one moment
        return iter([self._entry(key, there[key]) for key in sorted(there) if key.startswith(prefix) and "/" not in key[len(prefix) :]])

    def stat(self, key: str) -> Entry:
        self._enter("stat", key)
        return self._entry(key, self._must(key))

    def get(self, key: str, *, limit: int) -> bytes:
        self._enter("get", key)
        data = self._must(key)[0]
        if len(data) > limit:
            raise OSError(errno.EFBIG, "too large", key)
        return data

    def read(self, key: str, start: int, stop: int, into: memoryview, *, alone: bool = False) -> None:
        self._enter("read", key)
        data = self._must(key)[0][start:stop]
        if len(data) < stop - start:
            raise OSError(errno.EIO, "ends before", key)
        into.cast("B")[:] = data

    def view(self, key: str, start: int, stop: int) -> None:
        return None

    def create(self, key: str, data: Iterable[memoryview], *, durable: bool = True) -> None:
        checked(key)
        self._enter("create", key)
        with self._lock:
            if key in self.objects:
                raise FileExistsError(errno.EEXIST, "exists", key)
            self.put(key, b"".join(data))

    def replace(self, key: str, data: Iterable[memoryview], *, old: bytes) -> None:
        checked(key)
        self._enter("replace", key)
        with self._lock:
            if self._must(key)[0] != old:
                raise FileExistsError(errno.EEXIST, "another one", key)
            self.put(key, b"".join(data))

    @contextmanager
    def creating(self, nbytes: int = 0) -> "Iterator[_New]":
        new = _New()
        yield new
        for key, parts in new.parts.items():
            self._enter("create", key)
            self.put(key, b"".join(parts))  # nobody looks whether there is one

    def delete(self, *keys: str, durable: bool = True) -> None:
        for key in keys:
            checked(key)
            self._enter("delete", key)
            with self._lock:
                self.objects.pop(key, None)

    def now(self) -> float:
        return self.clock

    def free_bytes(self) -> int | None:
        return None

    def settle(self, *prefixes: str) -> None:
        for prefix in prefixes:
            self._enter("settle", prefix)
            self.settled.add(prefix)

    def leftovers(self, *prefixes: str, remove: bool = False) -> "list[Entry]":
        return []

    def _must(self, key: str) -> tuple[bytes, float, int]:
        found = self.objects.get(key)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "none", key)
        return found


class _New:
    def __init__(self) -> None:
        self.parts: dict[str, list[bytes]] = {}
        self._lock = threading.Lock()

    def write(self, key: str, parts: Sequence[memoryview]) -> int:
        with self._lock:  # any number of threads may write at once
            own = self.parts.setdefault(key, [])
            at = sum(map(len, own))
            own.extend(bytes(part) for part in parts)
        return at


def lost_answers(backend: MemoryBackend, operation: str, prefix: str, times: int = 1) -> None:
    """From now on: so many calls of that operation on such keys are done, and their answers are lost."""
    left = [times]
    true = getattr(backend, operation)

    def losing(key: str, *args: object, **kwargs: object) -> None:
        true(key, *args, **kwargs)
        if key.startswith(prefix) and left[0] > 0:
            left[0] -= 1
            raise UnsureError(errno.ETIMEDOUT, "no answer", key)

    setattr(backend, operation, losing)

"""A backend that fails on command, for the tests of whatever stands on one.

    count(Faulty(backend))                       how many calls a piece of work makes
    Faulty(backend, Fault(7, "error"))           the seventh call fails, before it does anything
    Faulty(backend, Fault(7, "lost"))            it is done, and its answer is lost
    Faulty(backend, Fault(7, "exists"))          it is done, and a create says that it was there already
    Faulty(backend, Fault(7, "kill"))            the process dies before it; "kill after": just after it
    Fault(7, "error", forever=True)              that call and all later ones

A call is one that asks the storage: each of `creating`'s writes is one, and its end another.
"""

import errno
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from tensorkeep.backends.keys import Backend, Entry, New, UnsureError

T = TypeVar("T")

CHANGES = ("create", "replace", "delete", "commit")
KINDS = ("error", "lost", "exists", "kill", "kill after")


class Killed(BaseException):
    """The process is no more: whatever it still tries does nothing."""


@dataclass(frozen=True)
class Fault:
    """What fails, and how.

    Attributes:
        number: of the call, from 0.
        kind: see above.
        forever: whether all later calls fail too; those of a killed process always do.
        errno: of the error.
    """

    number: int
    kind: Literal["error", "lost", "exists", "kill", "kill after"]
    forever: bool = False
    errno: int = errno.EIO


class Faulty:
    """A backend around another one.

    Attributes:
        calls: what was asked for, in order: `create checkpoints/1.json`.
    """

    def __init__(self, backend: Backend, fault: Fault | None = None) -> None:
        self.backend, self.fault = backend, fault
        self.calls: list[str] = []
        self._lock = threading.Lock()
        self._dead = False

    @property
    def kind(self) -> Any:
        return self.backend.kind

    @property
    def name(self) -> str:
        return self.backend.name

    @property
    def slow_listing(self) -> bool:
        return self.backend.slow_listing

    def list(self, prefix: str, *, strays: bool = False) -> Iterator[Entry]:
        return self._call("list", prefix, lambda: self.backend.list(prefix, strays=strays))

    def stat(self, key: str) -> Entry:
        return self._call("stat", key, lambda: self.backend.stat(key))

    def get(self, key: str, *, limit: int) -> bytes:
        return self._call("get", key, lambda: self.backend.get(key, limit=limit))

    def read(self, key: str, start: int, stop: int, into: memoryview, *, alone: bool = False) -> None:
        self._call("read", key, lambda: self.backend.read(key, start, stop, into, alone=alone))

    def view(self, key: str, start: int, stop: int) -> None:
        return None  # so that `read` is called, and counted

    def create(self, key: str, data: Iterable[memoryview], *, durable: bool = True) -> None:
        self._call("create", key, lambda: self.backend.create(key, data, durable=durable))

    def replace(self, key: str, data: Iterable[memoryview], *, old: bytes) -> None:
        self._call("replace", key, lambda: self.backend.replace(key, data, old=old))

    @contextmanager
    def creating(self, nbytes: int = 0) -> Iterator[New]:
        inner = self.backend.creating(nbytes)
        new = inner.__enter__()
        try:
            yield _FaultyNew(self, new)
            number, fault = self._begin("commit", "")
            if fault is not None:
                self._before(fault, "commit", number)
        except BaseException as error:
            inner.__exit__(type(error), error, error.__traceback__)
            raise
        inner.__exit__(None, None, None)
        if fault is not None:
            self._after(fault, "commit", number)

    def delete(self, *keys: str, durable: bool = True) -> None:
        self._call("delete", " ".join(keys), lambda: self.backend.delete(*keys, durable=durable))

    def now(self) -> float:
        return self._call("now", "", self.backend.now)

    def free_bytes(self) -> int | None:
        return self.backend.free_bytes()

    def settle(self, *prefixes: str) -> None:
        self._call("settle", " ".join(prefixes), lambda: self.backend.settle(*prefixes))

    def leftovers(self, *prefixes: str, remove: bool = False) -> Sequence[Entry]:
        return self._call("leftovers", " ".join(prefixes), lambda: self.backend.leftovers(*prefixes, remove=remove))

    def _call(self, what: str, key: str, call: Callable[[], T]) -> T:
        number, fault = self._begin(what, key)
        if fault is None:
            return call()
        self._before(fault, what, number)
        call()
        self._after(fault, what, number)
        raise AssertionError(f"nothing fails in this way: {fault}")

    def _begin(self, what: str, key: str) -> tuple[int, Fault | None]:
        """Its number, and how it fails, if it does."""
        with self._lock:
            if self._dead:
                raise Killed
            number = len(self.calls)
            self.calls.append(f"{what} {key}".rstrip())
        fault = self.fault
        if fault is None or not (number == fault.number or (fault.forever and number > fault.number)):
            return number, None
        return number, fault

    def _before(self, fault: Fault, what: str, number: int) -> None:
        if fault.kind == "kill":
            self._dead = True
            raise Killed
        if fault.kind == "error" or (fault.kind in ("lost", "exists") and what not in CHANGES):
            raise OSError(fault.errno, f"call {number} fails as it was told to", what)

    def _after(self, fault: Fault, what: str, number: int) -> None:
        if fault.kind == "kill after":
            self._dead = True
            raise Killed
        if fault.kind == "exists" and what == "create":
            raise FileExistsError(errno.EEXIST, f"call {number}: as after a lost answer", what)
        raise UnsureError(errno.ETIMEDOUT, f"call {number}: its answer was lost", what)


class _FaultyNew:
    def __init__(self, faulty: Faulty, new: New) -> None:
        self._faulty, self._new = faulty, new

    def write(self, key: str, parts: Sequence[memoryview]) -> int:
        return self._faulty._call("write", key, lambda: self._new.write(key, parts))


def every_fault(calls: int, *, kinds: Sequence[str] = KINDS) -> Iterator[Fault]:
    """Each call once and for ever, in each way."""
    for number in range(calls):
        for kind in kinds:
            yield Fault(number, kind)  # type: ignore[arg-type]  # of KINDS
            if not kind.startswith("kill"):
                yield Fault(number, kind, forever=True)  # type: ignore[arg-type]

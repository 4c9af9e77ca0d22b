"""Keys: dicts and sets of what a pickle chose, without the time that keys made to collide, or to be hashed for ever, would take.

A tuple does not remember its hash, and one of 64 tuples that each hold the one before twice takes 2^64 steps; numbers can be chosen so
that a dict looks for them in one another's places.
"""

import datetime
import pathlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from tensorkeep.dtypes import DType
from tensorkeep.errors import FormatError
from tensorkeep.plain import is_numpy_scalar
from tensorkeep.tensors import LazyTensor
from tensorkeep.unpickle.inert import Global, Inert, Lump

SHORT_TEXT: Final = 4096  # characters: a text up to there is a key like any other
_KEY_WEIGHT: Final = 10_000  # parts of one key
_FREE_WEIGHT: Final = 200_000  # parts of all keys, and one more for each byte of the pickle
_FREE_LISTS: Final = 200_000  # lists that constructors make, and one more for so many bytes of the pickle:
_BYTES_EACH_LIST: Final = 4
_DEEPEST: Final = 50
_CROWD: Final = 128  # keys of a dict from which on it is watched: fewer cannot do much harm
_STEP: Final = 512  # keys between two looks at the clock
_EACH_S: Final = 4e-6  # for a key: some 50 times what it takes where none collide
_PATIENCE_S: Final = 0.5
_MOMENTS: Final = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone)
_PATHS: Final = (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))
_SIMPLE: Final = frozenset({bool, float, complex, type(None), bytes, range, Global, Inert, LazyTensor, DType, *_MOMENTS, *_PATHS})
TEXT: Final = frozenset({str})


def fill(target: dict[Any, Any], keys: list[Any], values: list[Any]) -> None:
    """Set values in a dict of any kind that a tree knows.

    Raises:
        TypeError: a key has no hash, as some scalars of NumPy.
    """
    if type(target) is Counter:  # whose own `update` counts
        dict.update(target, zip(keys, values, strict=True))
    else:
        target.update(zip(keys, values, strict=True))


class Keys:
    """Fills the dicts and sets of one pickle, and counts the lists that constructors make.

    Args:
        file: for messages.
        nbytes: size of the pickle: of a larger one more keys may be hashed.

    Attributes:
        wary: whether there are texts so long that comparing them takes time.
    """

    def __init__(self, file: str, nbytes: int) -> None:
        self.file = file
        self.wary = False
        self._most_weight = _FREE_WEIGHT + nbytes
        self._most_made = _FREE_LISTS + nbytes // _BYTES_EACH_LIST
        self._made = 0
        self._weight = 0
        self._spent_s = 0.0

    def update(self, target: dict[Any, Any], flat: list[Any]) -> None:
        """Set keys and values that follow each other."""
        if len(flat) % 2:
            raise FormatError(self.file, "a dict is given a key without a value")
        keys = flat[::2]
        if not self.wary and TEXT.issuperset(map(type, keys)):
            fill(target, keys, flat[1::2])
            return
        keys = self._weighed(keys)
        for start in range(0, len(keys), _STEP):
            part = keys[start : start + _STEP]
            with self._watched(len(target) + len(part), len(part)):
                fill(target, part, flat[2 * start + 1 : 2 * (start + _STEP) : 2])

    def put(self, target: dict[Any, Any], key: Any, value: Any) -> None:
        """Set one value."""
        if type(key) is str and not self.wary:
            target[key] = value
        else:
            self.update(target, [key, value])

    def add(self, target: set[Any], items: Iterable[Any]) -> None:
        """Put items into a set."""
        keys = list(items)
        if self.wary or not TEXT.issuperset(map(type, keys)):
            keys = self._weighed(keys)
        for start in range(0, len(keys), _STEP):
            part = keys[start : start + _STEP]
            with self._watched(len(target) + len(part), len(part)):
                target.update(part)

    def making(self, lists: int) -> None:
        """Count lists, or parts of a path, that a constructor is about to make."""
        self._made += lists
        if self._made > self._most_made:
            raise FormatError(self.file, f"{self._made:,} parts out of paths and arrays of objects")

    @contextmanager
    def _watched(self, crowd: int, count: int) -> Iterator[None]:
        """Hold the time that so many keys take against the clock, where there are many to collide with."""
        begin = time.thread_time() if crowd >= _CROWD else None
        try:
            yield
        except (TypeError, ValueError) as error:  # scalars of NumPy that have no hash, or refuse to be compared
            raise FormatError(self.file, f"a key that cannot be one: {error!s:.200}") from None
        if begin is not None:
            self._spent_s = max(0.0, self._spent_s + time.thread_time() - begin - count * _EACH_S)
            if self._spent_s > _PATIENCE_S:
                raise FormatError(self.file, "keys that are made to collide")

    def _weighed(self, keys: list[Any]) -> list[Any]:
        """The keys, long byte strings read. Each may be hashed and compared: it has few enough parts, and none that has no hash."""
        return [self._weigh(key) for key in keys]

    def _weigh(self, key: Any) -> Any:
        if type(key) is Lump:
            key = key.value()
        waiting = [(key, 0)]
        weight = 0
        while waiting:
            part, depth = waiting.pop()
            kind = type(part)
            weight += 1
            if kind is str:
                weight += len(part) // SHORT_TEXT
            elif kind is int:
                weight += part.bit_length() // 4096
            elif kind is tuple or kind is frozenset:
                if depth > _DEEPEST or len(part) > _KEY_WEIGHT:
                    raise FormatError(self.file, f"a key nested deeper than {_DEEPEST}, or of more than {_KEY_WEIGHT:,} parts")
                waiting += [(inner, depth + 1) for inner in part]
            elif kind is bytes:
                weight += len(part) // SHORT_TEXT
            elif kind not in _SIMPLE and not is_numpy_scalar(part) and not isinstance(part, np.dtype):
                raise FormatError(self.file, f"a {kind.__name__} as a key, or in one")
            if weight > _KEY_WEIGHT and key.__class__ is not str and key.__class__ is not bytes:
                raise FormatError(self.file, f"a key of more than {_KEY_WEIGHT:,} parts")
        self._weight += weight
        if self._weight > self._most_weight:
            raise FormatError(self.file, f"keys of more than {self._most_weight:,} parts together")
        return key

"""CPython's own data tests of pickle, `test.pickletester`, run on the machine.

Each of its tests runs with the real `pickle.loads`; what it is given is kept, and the machine is given the same. Where pickle makes
plain data, the machine must make the same; where it makes an object, a stub with the same attributes. Where pickle must refuse, so must
the machine, but for what it refuses only because a class is not there or will not be called so.
"""

import collections
import pickle
import struct
import unittest
from typing import Any

import pytest

from pickled import tree
from same import assert_same_bits
from tensorkeep.errors import FormatError
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Stub

pickletester = pytest.importorskip("test.pickletester", reason="this Python was installed without its tests")

SEEN: list[tuple[str, bytes, dict[str, Any], object, BaseException | None]] = []


class _Kept:
    """Keeps what the tests load, and loads it the usual way."""

    __test__ = False  # by pytest: its tests run where they are named below

    def loads(self, data: bytes, **options: Any) -> object:
        if "buffers" in options:
            options["buffers"] = [bytes(memoryview(buffer)) for buffer in options["buffers"] or ()]
        name = self._testMethodName  # type: ignore[attr-defined]  # of a TestCase
        try:
            made = pickle.loads(data, **options)
        except BaseException as error:
            SEEN.append((name, bytes(data), options, None, error))
            raise
        SEEN.append((name, bytes(data), options, made, None))
        return made


class _Unpickles(_Kept, pickletester.AbstractUnpickleTests, unittest.TestCase):  # type: ignore[name-defined, misc]
    unpickler = pickle._Unpickler  # type: ignore[attr-defined]
    bad_stack_errors = (pickle.UnpicklingError,)
    truncated_errors = (pickle.UnpicklingError, EOFError, AttributeError, ValueError, struct.error, IndexError, ImportError)


class _Pickles(_Kept, pickletester.AbstractPickleTests, unittest.TestCase):  # type: ignore[name-defined, misc]
    pickler = pickle._Pickler  # type: ignore[attr-defined]
    unpickler = pickle._Unpickler  # type: ignore[attr-defined]
    optimized = False

    def dumps(self, value: object, protocol: int | None = None, **options: Any) -> bytes:
        return pickle.dumps(value, protocol, **options)


UNPICKLES = [name for name in dir(_Unpickles) if name.startswith("test_") and name != "test_unpickle_module_race"]
LEFT_OUT = {
    "test_framing_large_objects": "takes long",
    "test_framing_many_objects": "takes long",
    "test_large_pickles": "takes long",
    "test_evil_class_mutating_dict": "its keys are equal or not as chance has it",
}
MUST_REFUSE = (
    *("test_bad_stack", "test_bad_mark", "test_truncated_data", "test_badly_escaped_string", "test_badly_quoted_string"),
    *("test_negative_put", "test_negative_32b_binput", "test_negative_32b_binbytes", "test_negative_32b_binunicode"),
    *("test_large_32b_binbytes8", "test_large_32b_bytearray8", "test_large_32b_binunicode8"),
)
PICKLES = [name for name in dir(_Pickles) if name.startswith("test_") and name not in LEFT_OUT]


def _seen_in(case: type[unittest.TestCase], name: str) -> list[tuple[bytes, dict[str, Any], object, BaseException | None]]:
    """What one of the tests loads. How it ends is not looked at: it tests pickle itself."""
    SEEN.clear()
    case(name).run(unittest.TestResult())
    return [(data, options, made, error) for _, data, options, made, error in SEEN]


def assert_agrees(found: Any, real: Any, known: dict[int, Any]) -> None:
    """The tree stands for the object."""
    if id(real) in known:
        return
    known[id(real)] = real
    if isinstance(found, Stub) and not found.made:
        return  # a global may name anything that a module holds
    if isinstance(found, Stub):
        for name, value in vars(real).items() if hasattr(real, "__dict__") else ():
            if name in found.fields:
                assert_agrees(found.fields[name], value, known)
        return
    if type(real) is bytes and type(found) is str:  # a text of Python 2, loaded as bytes
        assert found.encode("latin-1") == real
        return
    if isinstance(found, LazyTensor):
        assert_same_bits(found.numpy(), real)
        return
    assert type(found) is type(real), f"{found!r:.200} for {real!r:.200}"
    if isinstance(real, (list, tuple, collections.deque)):
        assert len(found) == len(real)
        for one, other in zip(found, real, strict=True):
            assert_agrees(one, other, known)
    elif isinstance(real, dict):
        assert len(found) == len(real)
        for one, other in zip(found.items(), real.items(), strict=True):
            assert_agrees(one, other, known)
    elif isinstance(real, (set, frozenset)):
        assert len(found) == len(real)
        assert found == real or any(isinstance(item, (Stub, tuple)) for item in found)
    else:
        assert found == real or found != found, f"{found!r:.200} for {real!r:.200}"


def _compare(data: bytes, options: dict[str, Any], real: object, error: BaseException | None) -> None:
    buffers = options.get("buffers", ())
    try:
        found = tree(data, buffers=buffers)
    except FormatError as refusal:
        assert error is not None or "leads back to itself" in str(refusal), (data[:200], str(refusal))
        return
    if error is None:
        assert_agrees(found, real, {})


@pytest.mark.parametrize("name", UNPICKLES)
def test_data_that_pickle_must_read_or_refuse(name: str) -> None:
    """What pickle reads, the machine reads as the same."""
    seen = _seen_in(_Unpickles, name)
    for data, options, real, error in seen:
        _compare(data, options, real, error)


@pytest.mark.parametrize("name", MUST_REFUSE)
def test_data_that_pickle_refuses_is_refused(name: str) -> None:
    """Whatever these tests say that pickle must refuse, the machine refuses with an error of its own."""
    if not hasattr(_Unpickles, name):
        pytest.skip("this Python's tests lack it")
    refused = [data for data, _, _, error in _seen_in(_Unpickles, name) if error is not None]
    for data in refused:
        with pytest.raises(FormatError):
            tree(data)


@pytest.mark.parametrize("name", PICKLES)
def test_what_pickle_writes_is_read(name: str) -> None:
    """Whatever pickle's own tests write at every protocol, the machine reads as the same, with stubs for objects."""
    for data, options, real, error in _seen_in(_Pickles, name):
        _compare(data, options, real, error)


def test_the_harness_sees_what_the_tests_load() -> None:
    """The tests above compare something: the harness catches what is loaded, and notices a difference."""
    assert len(_seen_in(_Unpickles, "test_load_from_data2")) == 1
    assert any(error is not None for *_, error in _seen_in(_Unpickles, "test_bad_stack"))
    with pytest.raises(AssertionError):
        assert_agrees([1, 2], [1, 3], {})

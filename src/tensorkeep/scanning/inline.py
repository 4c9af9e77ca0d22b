"""Arrays in the middle of a pickle: joblib writes an array's bytes, which are no opcodes, right behind its wrapper."""

import re
from typing import Any, Final

from tensorkeep.unpickle.trace import Made, Named

WRAPPERS: Final = frozenset({("joblib.numpy_pickle", "NumpyArrayWrapper"), ("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper")})
_MOST_BYTES: Final = 1 << 62
_KIND: Final = re.compile(r"[<>|=]?([a-zA-Z])(\d{0,18})")


def array_bytes(made: Made) -> tuple[int, bool, bool] | None:
    """How many bytes of an array follow its wrapper, whether filling stands before them, and whether they are a pickle.

    None for what is no wrapper, or one that cannot be understood.
    """
    called, state = made.called, made.state
    if not isinstance(called, Named) or not isinstance(state, dict):
        return None
    if called.name == "_reconstructor" and made.args and isinstance(made.args[0], Named):
        called = made.args[0]  # protocols 0 and 1 pass the class to this function
    if (called.module, called.name) not in WRAPPERS:
        return None
    item = _item(state.get("dtype"))
    shape = state.get("shape")
    if item is None or not isinstance(shape, tuple) or not all(isinstance(length, int) and length >= 0 for length in shape):
        return None
    nbytes, is_object = item
    for length in shape:
        nbytes *= length
        if nbytes > _MOST_BYTES:
            return None
    return nbytes, not is_object and isinstance(state.get("numpy_array_alignment_bytes"), int), is_object


def _item(dtype: Any) -> tuple[int, bool] | None:
    """Bytes of an element, and whether it holds objects."""
    if not isinstance(dtype, Made) or not isinstance(dtype.called, Named) or dtype.called.name != "dtype" or not dtype.args:
        return None
    found = _KIND.fullmatch(dtype.args[0]) if isinstance(dtype.args[0], str) else None
    if found is None:
        return None
    state = dtype.state if isinstance(dtype.state, tuple) else ()
    if found[1] == "O" or (len(state) > 7 and isinstance(state[7], int) and state[7] & 1):
        return 8, True
    if found[1] in "SUVaM" and len(state) > 5 and isinstance(state[5], int) and state[5] > 0:
        return state[5], False
    size = int(found[2] or 1)
    return (size * 4 if found[1] == "U" else size), False

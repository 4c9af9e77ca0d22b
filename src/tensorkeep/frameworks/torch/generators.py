"""PyTorch's random number generators: where they stand, checked before PyTorch believes it."""

import re
from typing import Any, Final

import numpy as np
import torch

from tensorkeep.errors import TensorkeepError
from tensorkeep.matching import Matcher, Result, Step
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Tree

DEVICE: Final = re.compile(r"[a-z]{1,16}(:[0-9]{1,4})?")
_CPU_BYTES: Final = 5056  # seed 8, left 4, seeded 4, next 8, 624 numbers of 8, and where its normal numbers stand
_NUMBERS: Final = 624


def rebuild(device: str, state: Any) -> Any:
    """A generator on its device; its bare state where there is no such device."""
    if not isinstance(state, torch.Tensor) or DEVICE.fullmatch(device) is None:
        return state
    try:
        made = torch.Generator(device=device)
    except RuntimeError:
        return state
    made.set_state(_checked(state))
    return made


def plan(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Match a generator with the state of one of its kind."""
    obj: Any = target.origin
    try:  # on another one first: so what is no state is refused before anything is changed
        probe = torch.Generator(device=obj.device)
        probe.set_state(_checked(matcher.read(state) if isinstance(state, LazyTensor) else None))
    except TensorkeepError:  # of the file itself
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        matcher.problem("kind", path, "no state of such a generator", str(error))
        return lambda: obj
    loaded = matcher.value(state)
    former: list[Any] = []

    def apply() -> None:
        former.append(obj.get_state())
        obj.set_state(_checked(loaded()))

    matcher.steps.append(Step(path, apply, lambda: [obj.set_state(value) for value in former]))
    return lambda: obj


def _checked(value: Any) -> Any:
    """A state in host memory, where every generator wants it, whatever the default device is.

    Raises:
        ValueError: it says to go on beyond its block of numbers. PyTorch would, and read whatever lies there.
    """
    state = torch.as_tensor(value, device="cpu")
    if state.dtype == torch.uint8 and state.shape == (_CPU_BYTES,):
        data = state.numpy().tobytes()
        left, place = int(np.frombuffer(data, np.int32, 1, 8)[0]), int(np.frombuffer(data, np.uint64, 1, 16)[0])
        # Between two numbers, left + next is 625; it is (1, 0) before the first one. Source: ATen/core/MT19937RNGEngine.h
        if not (1 <= left <= _NUMBERS and left + place <= _NUMBERS + 1):
            raise ValueError(f"it stands at number {place} of {_NUMBERS}, with {left} left")
    return state

"""Random number generators of Python and NumPy, as values: what they are and where they stand."""

import random
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from tensorkeep.errors import UnsupportedError
from tensorkeep.matching import Matcher, Result, Step
from tensorkeep.tree import Captured, Tree

_BIT_GENERATORS: Final = {
    kind.__name__: kind for kind in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)
}


class RngAdapter:
    """`random.Random`, `np.random.Generator`, NumPy's bit generators and its old `RandomState`."""

    name = "rng"
    kinds = frozenset({"rng.python", "rng.generator", "rng.bits", "rng.legacy"})

    def owns(self, obj: object) -> bool:
        return isinstance(obj, (np.random.Generator, np.random.BitGenerator, np.random.RandomState)) or type(obj) is random.Random

    def capture(self, obj: Any) -> Tree:
        if isinstance(obj, random.Random):
            return Captured("rng.python", "Random", obj.getstate(), origin=obj)
        if isinstance(obj, np.random.RandomState):
            return Captured("rng.legacy", "RandomState", obj.get_state(legacy=False), origin=obj)
        bits = obj.bit_generator if isinstance(obj, np.random.Generator) else obj
        name = type(bits).__name__
        if type(bits) is not _BIT_GENERATORS.get(name):
            raise UnsupportedError("", f"a generator over {type(bits).__qualname__}, which NumPy does not bring")
        return Captured("rng.generator" if bits is not obj else "rng.bits", name, dict(bits.state), origin=obj)

    def rebuild(self, node: Captured, state: Any, types: Mapping[str, type]) -> object:
        """A generator that stands where the saved one stood.

        Raises:
            ValueError: the state is not one of such a generator.
        """
        try:
            if node.kind == "rng.python":
                made: Any = random.Random()  # no secret depends on it
            elif node.kind == "rng.legacy":
                made = np.random.RandomState()
            else:
                kind = _BIT_GENERATORS.get(node.cls)
                if kind is None:
                    return state
                bits = kind()
                made = np.random.Generator(bits) if node.kind == "rng.generator" else bits
            _set(made, state)
            _check(made)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise ValueError(f"no state of a {node.cls}: {error}") from error
        return made

    def plan(self, target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
        # Brought back as a generator of its own first: so what is no state is refused before anything is changed.
        loaded, obj = matcher.value(Captured(target.kind, target.cls, state)), target.origin
        former: list[Any] = []

        def apply() -> None:
            former.append(_get(obj))
            _set(obj, _get(loaded()))

        def undo() -> None:
            for before in former:
                _set(obj, before)

        matcher.steps.append(Step(path, apply, undo))
        return lambda: obj


def _check(made: Any) -> None:
    """NumPy takes any place in a block of numbers for where to go on, and would then read beyond it."""
    state = {} if isinstance(made, random.Random) else _get(made)
    place, most = (state["state"].get("pos", 0), 624) if "pos" in state.get("state", ()) else (state.get("buffer_pos", 0), 4)
    if not 0 <= place <= most:
        raise ValueError(f"it stands at number {place} of {most}")


def _get(obj: Any) -> Any:
    if isinstance(obj, random.Random):
        return obj.getstate()
    if isinstance(obj, np.random.RandomState):
        return obj.get_state(legacy=False)
    return obj.bit_generator.state if isinstance(obj, np.random.Generator) else obj.state


def _set(obj: Any, state: Any) -> None:
    if isinstance(obj, random.Random):
        obj.setstate(state)
    elif isinstance(obj, np.random.RandomState):
        obj.set_state(state)
    elif isinstance(obj, np.random.Generator):
        obj.bit_generator.state = state
    else:
        obj.state = state


ADAPTER: Final = RngAdapter()

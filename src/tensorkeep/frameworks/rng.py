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

_VERSIONS: Final = (2, 3)  # of the states of `random.Random` that Python takes
_SEED: Final = "seed_seq"
_TAKES_SEEDS: Final = isinstance((*np.random.PCG64(0).__reduce__(), None)[2], tuple)  # whether one that is there can get another
_MOST_BITS: Final = 1 << 14  # of a number of a seed
_MOST_NUMBERS: Final = 1 << 10
_MOST_POOL: Final = 64


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
            state: Any = obj.get_state(legacy=False)
            if state["bit_generator"] != "MT19937":
                reason = f"a RandomState over {state['bit_generator']}, which does not take its own state back"
                raise UnsupportedError("", reason, hint="Take a numpy.random.Generator.")
            return Captured("rng.legacy", "RandomState", state, origin=obj)
        bits = obj.bit_generator if isinstance(obj, np.random.Generator) else obj
        name = type(bits).__name__
        if type(bits) is not _BIT_GENERATORS.get(name):
            raise UnsupportedError("", f"a generator over {type(bits).__qualname__}, which NumPy does not bring")
        state = dict(bits.state)
        if (seed := _seed(bits)) is not None:
            state[_SEED] = seed
        return Captured("rng.generator" if bits is not obj else "rng.bits", name, state, origin=obj)

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
                seed, state = state.get(_SEED), {key: value for key, value in state.items() if key != _SEED}
                bits = kind() if seed is None else kind(_sequence(seed))
                made = np.random.Generator(bits) if node.kind == "rng.generator" else bits
            _set(made, state)
            _check(made)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise ValueError(f"no state of a {node.cls}: {error}") from error
        return made

    def plan(self, target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
        obj = target.origin
        if not _is_alike(target, state):
            named = state.get("bit_generator") if isinstance(state, dict) else None
            if isinstance(named, str):
                matcher.problem("kind", path, f"a {named:.40}", f"a {target.cls}")
            else:
                matcher.other_kind(state, path, f"a {target.cls}")
            return lambda: obj
        # Brought back as a generator of its own first: so what is no state is refused before anything is changed.
        loaded = matcher.value(Captured(target.kind, target.cls, state))
        former: list[Any] = []

        def apply() -> None:
            former.append(_get(obj))
            _set(obj, _get(loaded()))

        def undo() -> None:
            for before in former:
                _set(obj, before)

        matcher.steps.append(Step(path, apply, undo))
        return lambda: obj


def _is_alike(target: Captured, state: Tree) -> bool:
    """Whether it is the state of such a generator, be it a right one or not."""
    if target.kind == "rng.python":
        return isinstance(state, (list, tuple)) and len(state) == 3 and type(state[0]) is int and state[0] in _VERSIONS
    wanted: Any = target.state
    return isinstance(state, dict) and state.get("bit_generator") == wanted["bit_generator"]


def _seed(bits: Any) -> dict[str, Any] | None:
    """What a bit generator was seeded by, of which `spawn` makes the seeds of others; None where NumPy's own sequence did not seed it."""
    sequence = getattr(bits, "seed_seq", None)
    if type(sequence) is not np.random.SeedSequence:
        return None
    entropy: Any = sequence.entropy
    if isinstance(entropy, str) or np.ndim(entropy) > 1:
        return None
    key = {"spawn_key": list(map(int, sequence.spawn_key))} if sequence.spawn_key else {}
    return key | {
        "entropy": int(entropy) if np.ndim(entropy) == 0 else list(map(int, entropy)),
        "pool_size": int(sequence.pool_size),
        "n_children_spawned": int(sequence.n_children_spawned),
    }


def _sequence(seed: Any) -> np.random.SeedSequence:
    """The seed sequence of such a state.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    entropy, pool, spawned = (seed[name] for name in ("entropy", "pool_size", "n_children_spawned"))
    key = seed.get("spawn_key", [])
    numbers = [*(entropy if isinstance(entropy, list) else [entropy]), *key]
    if not all(type(number) is int and 0 <= number < 1 << _MOST_BITS for number in numbers) or len(numbers) > _MOST_NUMBERS:
        raise ValueError("a seed of other than whole numbers")
    if type(pool) is not int or not 4 <= pool <= _MOST_POOL or type(spawned) is not int or not 0 <= spawned < 1 << 32:
        raise ValueError("a seed sequence of another size")
    return np.random.SeedSequence(entropy, spawn_key=tuple(key), pool_size=pool, n_children_spawned=spawned)


def _check(made: Any) -> None:
    """NumPy takes any place in a block of numbers for where to go on, and would then read beyond it."""
    state = {} if isinstance(made, random.Random) else _get(made)
    place, most = (state["state"].get("pos", 0), 624) if "pos" in state.get("state", ()) else (state.get("buffer_pos", 0), 4)
    if not 0 <= place <= most:
        raise ValueError(f"it stands at number {place} of {most}")


def _get(obj: Any) -> Any:
    """Where a generator stands; of NumPy's new ones with what seeded them."""
    if isinstance(obj, random.Random):
        return obj.getstate()
    if isinstance(obj, np.random.RandomState):
        return obj.get_state(legacy=False)
    bits: Any = obj.bit_generator if isinstance(obj, np.random.Generator) else obj
    return {**bits.state, _SEED: bits.seed_seq} if hasattr(bits, "seed_seq") else bits.state


def _set(obj: Any, state: Any) -> None:
    if isinstance(obj, random.Random):
        obj.setstate(state)
    elif isinstance(obj, np.random.RandomState):
        obj.set_state(state)
    else:
        bits: Any = obj.bit_generator if isinstance(obj, np.random.Generator) else obj
        own = {key: value for key, value in state.items() if key != _SEED}
        if _TAKES_SEEDS and isinstance(sequence := state.get(_SEED), np.random.SeedSequence):
            bits.__setstate__((own, sequence))
        else:
            bits.state = own


ADAPTER: Final = RngAdapter()

"""JAX's typed random keys: their words, and which generator they are for."""

from typing import Any, Final

import jax

from tensorkeep.errors import UnsupportedError
from tensorkeep.matching import Matcher, Result
from tensorkeep.tree import Captured, Tree

_GENERATORS: Final = ("threefry2x32", "rbg", "unsafe_rbg")


def is_key(obj: object) -> bool:
    """Whether it is an array of keys, or the shape of one."""
    dtype = getattr(obj, "dtype", None)
    return dtype is not None and bool(jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key))


def capture(keys: Any) -> Captured:
    """An array of keys as its words; of a former or abstract one only their shape."""
    abstract = not isinstance(keys, jax.Array) or keys.is_deleted()
    if abstract:
        words: Any = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(keys.shape, keys.dtype))
        words = jax.ShapeDtypeStruct(words.shape, words.dtype, sharding=None if isinstance(keys, jax.Array) else keys.sharding)
    else:
        words = jax.random.key_data(keys)
    return Captured("jax.key", _generator(keys), words, origin=keys)


def _generator(keys: Any) -> str:
    if isinstance(keys, jax.Array):
        name = jax.random.key_impl(keys)
        if isinstance(name, str):
            return name
    for name in _GENERATORS:
        if jax.eval_shape(lambda name=name: jax.random.key(0, impl=name)).dtype == keys.dtype:
            return name
    raise UnsupportedError("", f"keys of {keys.dtype}, a generator that JAX knows by no name", hint="Pass jax.random.key_data(keys).")


def rebuild(generator: str, state: Any) -> object:
    """Keys of their generator; the bare words where they are no array of JAX.

    Raises:
        ValueError: there is no such generator, or its keys have other words.
    """
    if not isinstance(state, jax.Array):
        return state
    try:
        return _wrapped(state, generator)
    except TypeError as error:  # words of another type
        raise ValueError(str(error)) from error


def plan(target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
    """Match keys with those of the file, typed or bare."""
    if matcher.found_cls in _GENERATORS and matcher.found_cls != target.cls:
        matcher.problem("kind", path, f"keys of {matcher.found_cls}", f"keys of {target.cls}")
        return lambda: target.origin
    words = matcher.fit(target.state, state, path)

    def result() -> object:
        loaded = words()
        return _wrapped(loaded, target.cls) if isinstance(loaded, jax.Array) else target.origin  # the file may lack it

    return result


def _wrapped(words: Any, generator: str) -> object:
    return jax.random.wrap_key_data(words, impl=generator)

"""Comparing states of JAX bit for bit: structure, dtypes, weak types, kinds of keys."""

from typing import Any

import numpy as np


def assert_same(found: Any, wanted: Any) -> None:
    """Fail if two states differ in anything that JAX can tell; functions among their leaves are left aside."""
    import jax
    import jax.numpy as jnp

    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if callable(other):
            continue
        if isinstance(other, jax.Array):
            assert isinstance(one, jax.Array), type(one)
            assert one.dtype == other.dtype and getattr(one, "weak_type", 0) == getattr(other, "weak_type", 0), (one, other)
            if jnp.issubdtype(other.dtype, jax.dtypes.prng_key):
                one, other = jax.random.key_data(one), jax.random.key_data(other)
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes(), (one, other)

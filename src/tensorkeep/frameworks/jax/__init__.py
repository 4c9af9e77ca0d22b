"""JAX: arrays, random keys, registered containers of any kind; Equinox, Optax and Haiku by these; and Flax, NNX in place.

Nothing of how a container is put together is kept: a file has its children by the names that JAX gives them.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final

import jax

from tensorkeep.errors import UnsupportedError
from tensorkeep.frameworks.jax import arrays, keys, nnx, nodes
from tensorkeep.frameworks.jax.arrays import JaxArrays
from tensorkeep.matching import Matcher, Result
from tensorkeep.tree import Captured, Tree

_PLANS: Final = {"jax.key": keys.plan, "jax.node": nodes.plan, "jax.nnx": nnx.plan_module, "jax.variable": nnx.plan_variable}


class JaxAdapter:
    """What JAX and Flax define, and what anybody registered with JAX."""

    name = "jax"
    kinds = frozenset(_PLANS)

    def owns(self, obj: object) -> bool:
        if isinstance(obj, (jax.Array, jax.ShapeDtypeStruct)) or nnx.is_module(obj) or nnx.is_variable(obj):
            return True
        return not isinstance(obj, type) and (_is_linen(obj) or nodes.is_node(obj))

    def capture(self, obj: Any) -> Tree:
        if nnx.is_module(obj):
            return nnx.capture_module(obj)
        if nnx.is_variable(obj):
            return nnx.capture_variable(obj)
        if isinstance(obj, (jax.Array, jax.ShapeDtypeStruct)):
            return keys.capture(obj) if keys.is_key(obj) and not isinstance(obj, jax.core.Tracer) else arrays.capture(obj)
        if _is_linen(obj):
            reason = f"the Flax module {type(obj).__qualname__}, which holds no values"
            raise UnsupportedError("", reason, hint="Pass the variables that its init() gave.")
        return nodes.capture(obj)

    def rebuild(self, node: Captured, state: Any, types: Mapping[str, type]) -> object:
        """Keys come back as themselves, dataclasses where their class was given, all else as the plain state.

        Raises:
            ValueError: the state does not make such a value.
        """
        if node.kind == "jax.key":
            return keys.rebuild(node.cls, state)
        return nodes.rebuild(node, state, types) if node.kind == "jax.node" else state

    def plan(self, target: Captured, state: Tree, path: str, matcher: Matcher) -> Result:
        return _PLANS[target.kind](target, state, path, matcher)


def _is_linen(obj: object) -> bool:
    linen = sys.modules.get("flax.linen")
    return linen is not None and isinstance(obj, linen.Module)


ADAPTER: Final = JaxAdapter()
ARRAYS: Final = JaxArrays()

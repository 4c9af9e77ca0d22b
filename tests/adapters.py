"""An example of every kind of object that an adapter knows, for the contract that all of them keep (test_every_adapter).

A new adapter adds a line to EXAMPLES; the test fails until it does.
"""

import copy
import dataclasses
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "torch")


@dataclass(frozen=True)
class Example:
    """One kind of object.

    Attributes:
        row: the adapter's name in the table.
        name: of the example.
        needs: the package without which it is skipped.
        make: an object with the values of a seed.
        seen: all that can be seen of one, comparable by ==. Not by way of tensorkeep.
        by_leaf: whether its tensors are matched one by one, so that `only=`, `cast=` and `strict=False` reach inside.
        in_place: whether the target itself is filled; else there is a successor.
        narrow: whether it has floats below 64 bits.
    """

    row: str
    name: str
    needs: str
    make: Callable[[int], Any]
    seen: Callable[[Any], Any]
    by_leaf: bool = True
    in_place: bool = True
    narrow: bool = True

    def __str__(self) -> str:
        return f"{self.row}: {self.name}"


def bits(array: Any) -> Any:
    """An array as its dtype, shape and bytes."""
    array = np.asarray(array)
    return str(array.dtype), array.shape, array.tobytes()


def _arrays(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(3, 4)).astype("f4"), "turned": np.asfortranarray(rng.normal(size=(2, 3))), "count": np.array(seed)}


def _seen_arrays(arrays: Any) -> Any:
    return {name: bits(array) for name, array in arrays.items()}


def _module(seed: int) -> Any:
    import torch

    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2, dtype=torch.bfloat16))
    model[1](torch.randn(5, 4))
    return model


def _tensor(tensor: Any) -> Any:
    import torch

    return str(tensor.dtype), tuple(tensor.shape), tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _plain(value: Any) -> Any:
    """A state of PyTorch with bytes for tensors."""
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    return _tensor(value) if hasattr(value, "untyped_storage") else value


def _optimizer(seed: int) -> Any:
    import torch

    model = _module(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1 * (seed + 1))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float(seed + 1))
    optimizer.step()
    return optimizer


def _generator(seed: int) -> Any:
    import torch

    return torch.Generator().manual_seed(seed)


def _keras(seed: int) -> Any:
    import keras

    layers = [keras.layers.Dense(4, name="a"), keras.layers.BatchNormalization(name="b"), keras.layers.Dropout(0.5, seed=seed, name="c")]
    model = keras.Sequential([keras.Input((3,), name="x"), *layers], name="net")
    model.compile(keras.optimizers.Adam(0.1 * (seed + 1), name="adam"), "mse")
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(seed)
    for variable in [*model.variables, *model.optimizer.variables]:
        if "float" in str(variable.dtype):
            variable.assign(rng.random(tuple(variable.shape)))
        elif "iteration" in variable.path:
            variable.assign(seed)
    return model


def _seen_keras(model: Any) -> Any:
    import keras

    return [bits(keras.ops.convert_to_numpy(variable.value)) for variable in [*model.variables, *model.optimizer.variables]]


def _pytree(seed: int) -> Any:
    import jax
    import jax.numpy as jnp

    w = jax.random.normal(jax.random.key(seed), (3, 4))
    params = {"w": w, "half": w.astype(jnp.bfloat16)}
    return {"params": params, "moments": (jax.tree.map(lambda leaf: leaf * 2, params), jnp.int32(seed)), "key": jax.random.key(seed)}


def _seen_jax(tree: Any) -> Any:
    import jax

    def seen(leaf: Any) -> Any:
        return bits(jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)

    return jax.tree.map(seen, tree)


def _optax(seed: int) -> Any:
    import jax
    import optax

    state = optax.chain(optax.clip(1.0), optax.adam(1e-3)).init({"w": jax.numpy.ones((2, 3))})
    return jax.tree.map(lambda leaf: leaf + seed, state)


def _equinox(seed: int) -> Any:
    import equinox
    import jax

    return equinox.nn.MLP(3, 2, width_size=4, depth=1, key=jax.random.key(seed))


def _seen_equinox(module: Any) -> Any:
    import equinox
    import jax

    return [bits(leaf) for leaf in jax.tree.leaves(equinox.filter(module, equinox.is_array))]


def _nnx(seed: int) -> Any:
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.linear, self.norm, self.dropout = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    return Model(nnx.Rngs(seed))


def _seen_nnx(module: Any) -> Any:
    import jax
    from flax import nnx

    return [_seen_jax(leaf) for leaf in jax.tree.leaves(nnx.state(module))]


def _sklearn(seed: int) -> Any:
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(20, 3))
    return make_pipeline(StandardScaler(), SGDClassifier(random_state=0)).fit(x, (x[:, 0] > 0).astype(int))


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    x = np.random.default_rng(seed).normal(size=(20, 3))
    return RandomForestClassifier(n_estimators=2, max_depth=2, random_state=0).fit(x, (x[:, 0] > 0).astype(int))


def _seen_sklearn(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_seen_sklearn(item) for item in value.ravel()] if value.dtype == object else bits(value)
    if isinstance(value, dict):
        return {key: _seen_sklearn(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_seen_sklearn(child) for child in value]
    if type(value).__name__ in ("Hinge", "RandomState"):  # of C, and of another test
        return type(value).__name__
    if type(value).__module__.startswith("sklearn."):
        state = value.__getstate__() if hasattr(value, "__getstate__") else vars(value)
        return type(value).__name__, _seen_sklearn(state or repr(value))
    return repr(value)


def _sparse(seed: int) -> Any:
    from scipy import sparse

    return sparse.random(6, 5, density=0.4, format="csr", rng=np.random.default_rng(seed))


def _seen_sparse(matrix: Any) -> Any:
    return matrix.shape, bits(matrix.data), bits(matrix.indices), bits(matrix.indptr)


class Average:
    """An object that alone knows how to take its state."""

    def __init__(self, seed: int) -> None:
        self.mean, self.count = np.full(3, float(seed)), seed

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean = np.array(state["mean"], float).reshape(3)
        self.count = int(state["count"])


@dataclass
class Settings:
    """A record with arrays in it."""

    weights: Any
    rate: float = 0.1
    names: list[str] = field(default_factory=list)


def _record(seed: int) -> Any:
    return Settings(np.full((2, 2), float(seed)), rate=float(seed), names=[str(seed)])


def _seen_record(record: Any) -> Any:
    record = record if isinstance(record, Settings) else Settings(**record)
    return {name: bits(value) if isinstance(value, np.ndarray) else value for name, value in dataclasses.asdict(record).items()}


EXAMPLES = (
    Example("numpy", "arrays", "numpy", _arrays, _seen_arrays),
    Example("torch", "module", "torch", _module, lambda model: _plain(model.state_dict())),
    Example("torch", "optimizer", "torch", _optimizer, lambda optimizer: _plain(optimizer.state_dict())),
    Example("torch", "generator", "torch", _generator, lambda generator: _tensor(generator.get_state()), by_leaf=False),
    Example("keras", "compiled model", "keras", _keras, _seen_keras),
    Example("rng", "Generator", "numpy", np.random.default_rng, lambda rng: copy.deepcopy(rng.bit_generator.state), by_leaf=False),
    Example("rng", "RandomState", "numpy", np.random.RandomState, lambda rng: repr(rng.get_state(legacy=False)), by_leaf=False),
    Example("rng", "Random", "numpy", random.Random, lambda rng: rng.getstate(), by_leaf=False),
    Example("sklearn", "pipeline", "sklearn", _sklearn, _seen_sklearn, by_leaf=False),
    Example("sklearn", "forest", "sklearn", _forest, _seen_sklearn, by_leaf=False),
    Example("scipy", "sparse matrix", "scipy", _sparse, _seen_sparse, by_leaf=False),
    Example("stateful", "object", "numpy", Average, lambda average: (bits(average.mean), average.count), by_leaf=False),
    Example("jax", "pytree", "jax", _pytree, _seen_jax, in_place=False),
    Example("jax", "optax", "optax", _optax, _seen_jax, in_place=False),
    Example("jax", "equinox", "equinox", _equinox, _seen_equinox, in_place=False),
    Example("jax", "nnx", "flax", _nnx, _seen_nnx),
    Example("records", "dataclass", "numpy", _record, _seen_record, in_place=False, narrow=False),
)

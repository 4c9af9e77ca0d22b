"""The cases of frameworks: the same states kept by their own tools, durable alike."""

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any, Final

import numpy as np

import tensorkeep as tk
from benchmarks import states
from benchmarks.measure import Case, settle, synced


def keras_models(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """A model of Keras with Adam after one step, beside Keras's own files."""
    if not importlib.util.find_spec("keras"):
        return
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    width = 1024 if scale.large == 256 else 64
    model = keras.Sequential([keras.layers.Input((width,)), *(keras.layers.Dense(width, activation="relu") for _ in range(12))])
    model.compile(optimizer="adam", loss="mse")
    model.train_on_batch(np.ones((2, width), np.float32), np.ones((2, width), np.float32))
    ours, theirs, weights = folder / "keras.safetensors", folder / "model.keras", folder / "model.weights.h5"
    before = settle(ours, theirs, weights)
    yield Case(
        "save a model with Adam", "Keras .keras + fsync", _saving(model, ours), lambda: (model.save(theirs), synced(theirs)), 0.5, before
    )
    yield Case(
        "save a model with Adam",
        "Keras .weights.h5 + fsync",
        _saving(model, ours),
        lambda: (model.save_weights(weights), synced(weights)),
        None,
        before,
    )
    tk.save(model, ours)
    model.save(theirs)
    model.save_weights(weights)
    yield Case("load it, verified", "Keras load_model", lambda: tk.load(ours, into=model), lambda: keras.models.load_model(theirs), 0.5)
    yield Case("load it, verified", "Keras load_weights", lambda: tk.load(ours, into=model), lambda: model.load_weights(weights), None)


def jax_trees(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """A tree of arrays of JAX, beside Orbax, Flax and Equinox."""
    if not importlib.util.find_spec("jax"):
        return
    import jax

    count = 64 if scale.large == 256 else 4
    tree = {f"block{number}": {"kernel": jax.random.normal(jax.random.key(number), (1024, 1024))} for number in range(count)}
    jax.block_until_ready(tree)
    abstract = jax.eval_shape(lambda: tree)
    ours = folder / "jax.safetensors"

    def load() -> Any:
        return jax.block_until_ready(tk.load(ours, into=abstract))

    tk.save(tree, ours)
    if importlib.util.find_spec("orbax"):
        import orbax.checkpoint as ocp

        place = folder / "orbax"
        checkpointer = ocp.StandardCheckpointer()

        def save() -> None:
            checkpointer.save(place, tree, force=True)
            checkpointer.wait_until_finished()

        yield Case(f"save, {count * 4} MiB", "Orbax, until finished", _saving(tree, ours), save, 0.6, settle(ours))
        tk.save(tree, ours)
        save()
        yield Case("load, verified", "Orbax restore", load, lambda: jax.block_until_ready(checkpointer.restore(place, abstract)), 0.4)
        checkpointer.close()
        rmtree(place, ignore_errors=True)
    if importlib.util.find_spec("flax"):
        from flax import serialization

        other = folder / "flax.msgpack"

        def write() -> None:
            other.write_bytes(serialization.to_bytes(tree))
            synced(other)

        yield Case(f"save, {count * 4} MiB", "Flax msgpack + fsync", _saving(tree, ours), write, 0.8, settle(ours, other))
        tk.save(tree, ours)
        write()

        def read() -> Any:
            return jax.block_until_ready(jax.tree.map(jax.numpy.asarray, serialization.from_bytes(tree, other.read_bytes())))

        yield Case("load, verified", "Flax msgpack, into arrays of JAX", load, read, 0.5)
    if importlib.util.find_spec("equinox"):
        import equinox as eqx

        leaves = folder / "leaves.eqx"
        yield Case(
            f"save, {count * 4} MiB",
            "Equinox + fsync",
            _saving(tree, ours),
            lambda: (eqx.tree_serialise_leaves(leaves, tree), synced(leaves)),
            None,
            settle(ours, leaves),
        )
        tk.save(tree, ours)
        eqx.tree_serialise_leaves(leaves, tree)
        yield Case("load, verified", "Equinox", load, lambda: jax.block_until_ready(eqx.tree_deserialise_leaves(leaves, tree)), None)


def estimators(folder: Path, scale: states.Scale) -> Iterator[Case]:
    """A forest and a network of scikit-learn, built again from the file, beside skops and joblib."""
    if not importlib.util.find_spec("sklearn"):
        return
    import joblib
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neural_network import MLPClassifier

    x, y = make_classification(2000 if scale.large == 256 else 200, 40, n_informative=20, random_state=0)
    forest = RandomForestClassifier(100 if scale.large == 256 else 5, random_state=0).fit(x, y)
    network = MLPClassifier((1024, 1024), max_iter=2 if scale.large == 256 else 1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.fit(x, y)
    for name, model in (("forest", forest), ("network", network)):
        ours, theirs, dumped = folder / f"{name}.safetensors", folder / f"{name}.skops", folder / f"{name}.joblib"
        if importlib.util.find_spec("skops"):
            import skops.io as sio

            yield Case(
                f"save a {name}",
                "skops + fsync",
                _saving(model, ours),
                lambda model=model, theirs=theirs: (sio.dump(model, theirs), synced(theirs)),  # type: ignore[misc]  # bound now
                0.5,
                settle(ours, theirs),
            )
            tk.save(model, ours)
            sio.dump(model, theirs)
            trusted = sio.get_untrusted_types(file=theirs)
            yield Case(f"load a {name}, verified", "skops", _building(ours), partial(sio.load, theirs, trusted=trusted), 0.5)  # type: ignore[misc]
        yield Case(
            f"save a {name}",
            "joblib + fsync",
            _saving(model, ours),
            lambda model=model, dumped=dumped: (joblib.dump(model, dumped), synced(dumped)),  # type: ignore[misc]  # bound now
            None,
            settle(ours, dumped),
        )
        tk.save(model, ours)
        joblib.dump(model, dumped)
        yield Case(f"load a {name}, verified", "joblib", _building(ours), lambda dumped=dumped: joblib.load(dumped), None)  # type: ignore[misc]


def _saving(state: Any, file: Path) -> Callable[[], object]:
    return lambda: tk.save(state, file)


def _building(file: Path) -> Callable[[], object]:
    return lambda: tk.load(file, build="sklearn")


TABLES: Final = {"Models of Keras": keras_models, "Trees of JAX": jax_trees, "Estimators": estimators}

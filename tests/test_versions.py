"""Versions of frameworks: which ones stand in a file, and what is said when they mean something else here."""

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk
from tensorkeep.frameworks.versions import CHANGES, LONGEST, PACKAGES
from test_cli import tensorkeep

os.environ.setdefault("KERAS_BACKEND", "torch")


def versions(data: bytes) -> dict[str, str]:
    with tk.open(io.BytesIO(data)) as contents:
        return dict(contents.versions)


def told(file: bytes | Path | str, **options: Any) -> list[str]:
    """What a load warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if isinstance(file, bytes):
            tk.loads(file, **options)
        else:
            tk.load(file, **options)
    return [str(warning.message) for warning in caught if issubclass(warning.category, tk.TensorkeepWarning)]


def test_a_file_names_the_packages_whose_objects_it_has(tmp_path: Path) -> None:
    """By the classes that were met and their bases, however deep; plain states name none; `convert` keeps them."""
    torch = pytest.importorskip("torch")

    class Mine(torch.nn.Linear): ...  # type: ignore[misc, name-defined]

    assert versions(tk.dumps({"w": np.ones(3), "lr": 0.1})) == {}
    data = tk.dumps({"a": [Mine(2, 2)], "w": np.ones(3)})
    assert versions(data) == {"torch": torch.__version__}
    (tmp_path / "a.safetensors").write_bytes(data)
    tk.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert versions((tmp_path / "b.safetensors").read_bytes()) == {"torch": torch.__version__}
    assert tk.show(tmp_path / "b.safetensors").versions == {"torch": torch.__version__}


def test_parts_of_jax_are_named_each(tmp_path: Path) -> None:
    """Flax, Optax and JAX itself, of a training state; scikit-learn's of an estimator."""
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    nnx, linear_model = pytest.importorskip("flax.nnx"), pytest.importorskip("sklearn.linear_model")
    state = {
        "model": nnx.Linear(2, 2, rngs=nnx.Rngs(0)),
        "optimizer": optax.adam(1e-3).init(jax.numpy.ones(3)),
        "sk": linear_model.Ridge().fit(np.ones((3, 1)), [1, 2, 3]),
    }
    found = versions(tk.dumps(state))
    assert found.keys() == {"flax", "jax", "optax", "sklearn"} and found["jax"] == jax.__version__ and found.keys() <= PACKAGES


def test_old_random_keys_are_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX 0.5 draws other numbers from the same key: one warning, wherever keys are, and none for a state without."""
    jax = pytest.importorskip("jax")
    state, plain = {"keys": [jax.random.key(0), jax.random.key(1)]}, {"w": jax.numpy.ones(3)}
    assert told(tk.dumps(state)) == []
    monkeypatch.setattr(jax, "__version__", "0.4.38")
    old, old_plain = tk.dumps(state), tk.dumps(plain)
    monkeypatch.undo()
    for options in ({}, {"into": state}):
        (said,) = told(old, **options)
        assert "0.4.38" in said and jax.__version__ in said and "random key" in said
    assert told(old_plain) == []


def test_a_checkpoint_names_them_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Kept by a save; passed on to copies, exports and averages; shown and warned of as those of a model file."""
    jax = pytest.importorskip("jax")
    state = {"key": jax.random.key(0), "w": np.ones(3)}
    monkeypatch.setattr(jax, "__version__", "0.4.38")
    with tk.Store(tmp_path / "a") as store:
        store.save(state, step=1)
    monkeypatch.undo()
    with tk.Store(tmp_path / "a") as store:
        store.save({"w": np.ones(3)}, step=2, wait=True)
        store.delete(2)
        store.copy(tmp_path / "b")
        store.export("step-1", tmp_path / "c.safetensors")
        store.average(path=tmp_path / "d.safetensors")
        store.save({"w": np.ones(3)}, step=3, wait=True)
    for place in (f"{tmp_path / 'a'}@step-1", f"{tmp_path / 'b'}@step-1", tmp_path / "c.safetensors", tmp_path / "d.safetensors"):
        assert tk.show(place).versions == {"jax": "0.4.38"}, place
        for options in ({}, {"into": state}):
            (said,) = told(place, **options)
            assert "0.4.38" in said and jax.__version__ in said
    assert tk.show(f"{tmp_path / 'a'}@step-3").versions == {} and told(f"{tmp_path / 'a'}@step-3") == []
    shown = tensorkeep("show", f"{tmp_path / 'a'}@step-1")
    assert "  saved with jax 0.4.38" in shown.stdout.splitlines()


def test_a_version_that_no_reader_would_take_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build may call itself whatever it likes: what was saved opens."""
    torch = pytest.importorskip("torch")
    for length, kept in ((LONGEST, True), (LONGEST + 1, False)):
        monkeypatch.setattr(torch, "__version__", "2" * length)
        assert (versions(tk.dumps(torch.nn.Linear(2, 2))) == {"torch": "2" * length}) == kept


def test_a_model_of_keras_2_and_one_of_theano_are_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only where a model is filled: arrays alone are what they are. With warnings as errors nothing was changed."""
    keras, h5py = pytest.importorskip("keras"), pytest.importorskip("h5py")
    layer = keras.layers.Dense(2)
    layer.build((1, 2))
    tk.dumps(layer)  # the adapter looks once which Keras it is
    monkeypatch.setattr(keras, "__version__", "2.15.0")
    old = tk.dumps(layer)
    monkeypatch.undo()
    assert told(old) == [] and ["batch normalization" in said for said in told(old, into=layer)] == [True]
    before = np.array(keras.ops.convert_to_numpy(layer.kernel))
    layer.kernel.assign(before + 1)
    with warnings.catch_warnings(), pytest.raises(tk.TensorkeepWarning, match=r"2\.15\.0"):
        warnings.simplefilter("error")
        tk.loads(old, into=layer)
    assert np.array_equal(keras.ops.convert_to_numpy(layer.kernel), before + 1)

    with h5py.File(tmp_path / "theano.h5", "w") as file:
        file.attrs.update({"layer_names": [b"d"], "backend": "theano", "keras_version": "2.0.8"})
        file.create_group("d").attrs["weight_names"] = [b"kernel", b"bias"]
        file["d"]["kernel"], file["d"]["bias"] = np.ones((2, 2), "f4"), np.ones(2, "f4")
    with pytest.warns(tk.TensorkeepWarning, match="Theano"):
        tk.load(tmp_path / "theano.h5", into=layer)
    layer.kernel.assign(np.zeros((2, 2)))
    with pytest.warns(tk.TensorkeepWarning, match="Theano"):
        tk.load(tmp_path / "theano.h5", into=layer, rename={"d.*": "*"})  # by names of one's own
    assert keras.ops.convert_to_numpy(layer.kernel).all()


def test_the_table_is_closed_and_names_known_packages() -> None:
    """Each change is of a package whose version a file keeps."""
    assert {change.package for change in CHANGES} <= PACKAGES and len(CHANGES) < 20


@pytest.mark.parametrize("found", [{"jax": "1" * 400}, {"jax": ""}, {"jax": "\x1b[31m"}, {"keras": "2"}, {"other": "1.0"}])
def test_what_a_stranger_wrote_for_a_version_is_only_text(found: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Any text: at worst no caution, or one that is escaped and short."""
    jax = pytest.importorskip("jax")
    for package, version in found.items():
        monkeypatch.setattr(jax if package == "jax" else pytest, "__version__", version)
    state = {"key": jax.random.key(0)}
    data = tk.dumps(state)
    monkeypatch.undo()
    assert all("\x1b" not in said for said in told(data, into=state))


def test_a_module_of_a_later_version_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own code migrates what is older; what is newer it cannot know. All modules in one warning."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(3))
    assert told(tk.dumps(model), into=model) == []
    monkeypatch.setattr(torch.nn.modules.batchnorm._NormBase, "_version", 3)
    later = tk.dumps({"net": model})
    monkeypatch.undo()
    (said,) = told(later, into={"net": model})
    assert "net.0: the file has version 3 of BatchNorm1d, this PyTorch knows 2" in said and "net.1" in said

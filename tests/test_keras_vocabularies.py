"""Keras: layers for texts and identifiers, with the vocabularies that they have learnt. They need TensorFlow, whatever the backend."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import tensorkeep as tk
from refusing import Refuses

keras = pytest.importorskip("keras", minversion="3.9")

layers = keras.layers
TEXTS: Final = ["the quick brown fox", "jumps over the lazy dog", "the end"]
NEEDS_TENSORFLOW: Final = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")


def taught(make: Callable[[], Any], data: Any) -> Any:
    layer = make()
    layer.adapt(data)
    return layer


LAYERS: Final[dict[str, tuple[Callable[[], Any], Any]]] = {
    "words": (lambda: layers.TextVectorization(output_sequence_length=5), TEXTS),
    "bigrams": (lambda: layers.TextVectorization(ngrams=2, output_mode="multi_hot", split="whitespace"), TEXTS),
    "weighed words": (lambda: layers.TextVectorization(output_mode="tf_idf"), TEXTS),
    "strings": (lambda: layers.StringLookup(num_oov_indices=2), [["a"], ["b"], ["a"], ["ü\n"]]),
    "weighed strings": (lambda: layers.StringLookup(output_mode="tf_idf"), [["a", "b"], ["b", "c"]]),
    "numbers": (lambda: layers.IntegerLookup(), [[12], [-5], [12], [3000000000]]),
}


def told(layer: Any, data: Any) -> Any:
    return np.asarray(
        keras.ops.convert_to_numpy(
            layer(np.array(data, dtype=None if isinstance(data[0], str) else object if isinstance(data[0][0], str) else "int64"))
        )
    )


@NEEDS_TENSORFLOW
@pytest.mark.parametrize("name", LAYERS)
def test_vocabularies_come_back(name: str) -> None:
    """Into a layer that never learnt one, over another one, and into a layer that is built; the same outputs."""
    make, data = LAYERS[name]
    layer = taught(make, data)
    saved = tk.dumps({"l": layer})
    others = [taught(make, data[:2])] if name in ("strings", "numbers", "words") else []  # others have a size that is theirs
    for target in (make(), *others):
        tk.loads(saved, into={"l": target})
        assert target.get_vocabulary() == layer.get_vocabulary()
        assert np.array_equal(told(target, data), told(layer, data))
    built = tk.loads(saved, build="keras")["l"]
    assert type(built) is type(layer) and np.array_equal(told(built, data), told(layer, data))


@NEEDS_TENSORFLOW
@pytest.mark.parametrize("name", ["words", "weighed words", "numbers"])
def test_keras_own_archives_bring_their_vocabularies(name: str, tmp_path: Path) -> None:
    """Which stand in them as files beside the variables: nothing is extracted."""
    make, data = LAYERS[name]

    def model(layer: Any) -> Any:
        entry = keras.Input((1,), dtype="int64" if name == "numbers" else "string")
        return keras.Sequential([entry, layer])

    layer = taught(make, data)
    model(layer).save(tmp_path / "m.keras")
    target = model(make())
    tk.load(tmp_path / "m.keras", into=target)
    built = tk.load(tmp_path / "m.keras", build="keras")
    for one in (target, built):
        assert one.layers[0].get_vocabulary() == layer.get_vocabulary()
        assert np.array_equal(told(one.layers[0], data), told(layer, data))


@NEEDS_TENSORFLOW
def test_a_load_that_fails_leaves_the_former_vocabulary() -> None:
    """Also none at all."""
    saved = tk.dumps([taught(*LAYERS["strings"]), Refuses()])
    for target in (LAYERS["strings"][0](), taught(LAYERS["strings"][0], [["x"], ["y"]])):
        before = target.get_vocabulary()
        with pytest.raises(tk.MismatchError, match="not this one"):
            tk.loads(saved, into=[target, Refuses(refuses=True)])
        assert target.get_vocabulary() == before


@NEEDS_TENSORFLOW
@pytest.mark.parametrize("tokens", ["/etc/passwd", ["", "[UNK]", 7], [["/etc/passwd"]], 3, ["a", "a"]])
def test_what_is_no_vocabulary_is_refused(tokens: Any) -> None:
    """A text would be the name of a file that Keras reads."""
    tree = tk.loads(tk.dumps(taught(*LAYERS["strings"])))
    tree["vocabulary"]["tokens"] = tokens
    target = taught(LAYERS["strings"][0], [["x"]])
    before = target.get_vocabulary()
    with pytest.raises(tk.MismatchError, match=r"vocabulary|repeated"):
        tk.loads(tk.dumps(tree), into=target)
    assert target.get_vocabulary() == before


@NEEDS_TENSORFLOW
def test_what_is_given_with_the_code_stands_in_the_configuration() -> None:
    """And is built from there."""
    layer = layers.StringLookup(vocabulary=["a", "b"])
    tree = tk.loads(tk.dumps(layer))
    assert "vocabulary" not in tree and tree["config"]["config"]["vocabulary"] == ["a", "b"]
    assert tk.loads(tk.dumps(layer), build="keras").get_vocabulary() == layer.get_vocabulary()


@pytest.mark.parametrize(
    "make",
    [layers.Normalization, pytest.param(lambda: layers.Discretization(num_bins=4), marks=NEEDS_TENSORFLOW)],
    ids=["Normalization", "Discretization"],
)
def test_layers_of_numbers_come_back_with_what_they_learnt(make: Any) -> None:
    """Means are variables, bounds are not."""
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    layer, target = taught(make, x), make()
    target.build(x.shape)
    tk.loads(tk.dumps(layer), into=target)
    for one in (target, tk.loads(tk.dumps(layer), build="keras")):
        assert np.array_equal(*(keras.ops.convert_to_numpy(each(x)) for each in (layer, one)))


def test_layers_that_write_files_are_refused_with_what_to_do() -> None:
    """A class by others than Keras with `save_assets`."""

    class Own(layers.Layer):  # type: ignore[misc]  # a class of a package without types
        def save_assets(self, folder: str) -> None:
            raise AssertionError("it is not called")

    with pytest.raises(tk.UnsupportedError, match="Give it save_own_variables and load_own_variables"):
        tk.dumps(Own())

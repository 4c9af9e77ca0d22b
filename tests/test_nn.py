"""The reference network: it learns, its gradients are right, and a saved run goes on bit for bit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk
from same import assert_same_bits
from tensorkeep.nn import ACTIVATIONS, OBJECTIVES, Network, digits


def _small(activation: str, objective: str) -> tuple[Network, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    network = Network([5, 7, 4], activation=activation, objective=objective, dtype="float64", seed=2)
    y = rng.integers(0, 4, 6) if objective == "softmax_cross_entropy" else rng.standard_normal((6, 4))
    return network, rng.standard_normal((6, 5)), y


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_are_those_of_finite_differences(activation: str, objective: str) -> None:
    """Every derivative is the slope of the loss, to six digits."""
    network, x, y = _small(activation, objective)
    found = network.gradients(x, y)
    for layer, gradient in zip(network.layers, found, strict=True):
        for name, value in layer.items():
            for place in np.ndindex(value.shape):
                kept, losses = value[place], []
                for step in (1e-6, -1e-6):
                    value[place] = kept + step
                    losses.append(network.loss(x, y))
                value[place] = kept
                assert gradient[name][place] == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_are_those_of_autograd(activation: str, objective: str) -> None:
    """PyTorch's autograd finds the same derivatives."""
    torch = pytest.importorskip("torch")
    network, x, y = _small(activation, objective)
    functional = torch.nn.functional
    functions = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "identity": lambda value: value}
    functions["gelu"] = lambda value: functional.gelu(value, approximate="tanh")
    layers = [{name: torch.tensor(value, requires_grad=True) for name, value in layer.items()} for layer in network.layers]
    hidden = torch.tensor(x)
    for number, layer in enumerate(layers):
        hidden = (hidden if number == 0 else functions[activation](hidden)) @ layer["weight"] + layer["bias"]
    loss = functional.cross_entropy if objective == "softmax_cross_entropy" else functional.mse_loss
    loss(hidden, torch.tensor(y)).backward()
    for layer, gradient in zip(layers, network.gradients(x, y), strict=True):
        for name, value in layer.items():
            np.testing.assert_allclose(gradient[name], value.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_it_reads_digits() -> None:
    """Mean accuracy over five seeds on a random fifth that it never saw is at least 0.97."""
    images, labels = digits()
    accuracies = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(images))
        test, train = order[: len(order) // 5], order[len(order) // 5 :]
        network = Network([64, 128, 10], seed=seed)
        network.fit(images[train], labels[train], epochs=25)
        accuracies.append(network.evaluate(images[test], labels[test])[1])
    assert np.mean(accuracies) >= 0.97, accuracies


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_a_saved_run_goes_on_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    """Three epochs, saved, loaded in a new process, two more: the same bits as five without a break."""
    images, labels = digits()
    whole = Network([64, 16, 10], optimizer=optimizer, learning_rate=0.01)
    whole.fit(images, labels, epochs=5)
    part = Network([64, 16, 10], optimizer=optimizer, learning_rate=0.01)
    part.fit(images, labels, epochs=3)
    tk.save(part, tmp_path / "part.safetensors")
    code = (
        "import sys, tensorkeep as tk; from tensorkeep.nn import Network, digits\n"
        "network = tk.load(sys.argv[1], types=(Network,)); network.fit(*digits(), epochs=2); tk.save(network, sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "part.safetensors", tmp_path / "rest.safetensors"], check=True)
    assert_same_bits(tk.load(tmp_path / "rest.safetensors", types=(Network,)), whole)
    target = Network([64, 16, 10], optimizer=optimizer, learning_rate=0.01, seed=9)
    weight = target.layers[0]["weight"]
    assert tk.load(tmp_path / "part.safetensors", into=target) is target
    assert target.layers[0]["weight"] is weight
    target.fit(images, labels, epochs=2)
    assert_same_bits(target, whole)


def test_a_network_of_another_shape_is_refused_and_unchanged(tmp_path: Path) -> None:
    """The error names the layers and both shapes; the network keeps its weights."""
    tk.save(Network([64, 128, 10]), tmp_path / "net.safetensors")
    other = Network([64, 32, 10])
    before = other.get_weights()
    with pytest.raises(tk.MismatchError, match=r"layers\.0\.weight.*\[64, 128\].*\[64, 32\]"):
        tk.load(tmp_path / "net.safetensors", into=other)
    assert_same_bits(other.get_weights(), before)


def test_weights_and_biases_by_hand() -> None:
    """Copies go out and come in; a wrong count or shape names the layer and changes nothing."""
    network, other = Network([3, 4, 2], seed=1), Network([3, 4, 2], seed=2)
    other.load_weights(network.get_weights())
    other.set_biases([np.ones(4), np.zeros(2)])
    assert_same_bits(other.get_weights(), network.get_weights())
    before = other.get_weights()
    with pytest.raises(ValueError, match=r"layers\.1\.weight has the shape \(4, 2\), found \(2, 4\) \(looks transposed\)"):
        other.load_weights([np.zeros((3, 4)), np.zeros((2, 4))])
    with pytest.raises(ValueError, match="2 arrays of bias, found 1"):
        other.set_biases([np.zeros(4)])
    assert_same_bits(other.get_weights(), before)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"sizes": [3]}, "sizes"),
        ({"sizes": [3, 0]}, "sizes"),
        ({"sizes": [1, 1], "activation": "step"}, "activation: one of relu"),
        ({"sizes": [1, 1], "objective": "x"}, "objective"),
        ({"sizes": [1, 1], "optimizer": "x"}, "optimizer"),
        ({"sizes": [1, 1], "dtype": "int8"}, "dtype"),
    ],
)
def test_wrong_arguments_are_refused_at_the_door(arguments: dict, sentence: str) -> None:
    """What cannot be a network says which argument is wrong and what is wanted."""
    with pytest.raises(ValueError, match=sentence):
        Network(**arguments)


def test_wrong_data_are_refused() -> None:
    """Inputs of another width, classes out of range, targets of another shape."""
    network = Network([3, 2])
    for x, y, sentence in [
        (np.zeros((4, 2)), np.zeros(4, int), r"\(examples, 3\)"),
        (np.zeros((4, 3)), np.full(4, 2), "from 0 to 1"),
        (np.zeros((4, 3)), np.zeros(4), "classes"),
        (np.zeros((4, 3)), np.zeros((4, 3)), "shape"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            network.fit(x, y)

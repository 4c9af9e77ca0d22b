"""The reference network: dense layers trained by gradient descent on a loss, in NumPy.

Small enough to read in one sitting, and a user of tensorkeep like any other: `Network` is a dataclass whose fields hold everything that
training needs, so `tensorkeep.save` keeps it whole, and a run that is saved and loaded goes on bit for bit.

    network = Network([64, 128, 10], activation="relu")
    network.fit(images, labels, epochs=20)
    tensorkeep.save(network, "digits.safetensors")
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from typing import Any, Final

import numpy as np

from tensorkeep.verbs.load import load

Array = np.ndarray[Any, Any]
Function = Callable[[Array], Array]

_GELU: Final = math.sqrt(2 / math.pi)


def _sigmoid(x: Array) -> Array:
    positive = 1 / (1 + np.exp(-np.abs(x)))  # never overflows
    result: Array = np.where(x >= 0, positive, 1 - positive)
    return result


def _gelu(x: Array) -> Array:
    result: Array = 0.5 * x * (1 + np.tanh(_GELU * (x + 0.044715 * x**3)))
    return result


def _gelu_slope(x: Array) -> Array:
    inner = np.tanh(_GELU * (x + 0.044715 * x**3))
    result: Array = 0.5 * (1 + inner) + 0.5 * x * (1 - inner**2) * _GELU * (1 + 3 * 0.044715 * x**2)
    return result


def _identity(x: Array) -> Array:
    return x


ACTIVATIONS: Final[dict[str, tuple[Function, Function]]] = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(x.dtype)),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": (_sigmoid, lambda x: _sigmoid(x) * (1 - _sigmoid(x))),
    "gelu": (_gelu, _gelu_slope),
    "identity": (_identity, np.ones_like),
}
"""By name, the function and its derivative. GELU is the tanh form (D. Hendrycks and K. Gimpel, arXiv:1606.08415)."""

OBJECTIVES: Final = ("softmax_cross_entropy", "mean_squared_error")
OPTIMIZERS: Final = ("adam", "momentum")
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # D. Kingma and J. Ba, arXiv:1412.6980


@dataclass
class Network:
    """A network of dense layers: `activation` between them, none after the last.

    Args:
        sizes: numbers of units, from the inputs to the outputs.
        activation: `relu`, `tanh`, `sigmoid`, `gelu` or `identity`.
        objective: the loss: `softmax_cross_entropy` for classes, `mean_squared_error` for values.
        optimizer: `adam`, or `momentum` for gradient descent with momentum.
        learning_rate: length of a step.
        momentum: how much of the last step goes into the next, for `momentum`.
        seed: of the first weights and of the order of the examples.
        dtype: of all weights, `float32` or `float64`.

    Attributes:
        layers: per layer a dict of `weight`, shape (inputs, outputs), and `bias`, shape (outputs,).
        slots: per layer what the optimizer remembers of each.
        step, epoch: how many were done.
        generator: where randomness stands.

    Raises:
        ValueError: a size below 1, fewer than two of them, or an unknown name.

    Example:
        >>> import numpy as np
        >>> from tensorkeep.nn import Network
        >>> network = Network([2, 8, 1], activation="tanh", objective="mean_squared_error", learning_rate=0.01)
        >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        ... y = np.array([[0], [1], [1], [0]])
        >>> _ = network.fit(x, y, epochs=500, batch_size=4)
        >>> network.predict(x).round().ravel().tolist()
        [0.0, 1.0, 1.0, 0.0]
    """

    sizes: Sequence[int]
    activation: str = "relu"
    objective: str = "softmax_cross_entropy"
    optimizer: str = "adam"
    learning_rate: float = 0.001
    momentum: float = 0.9
    seed: int = 0
    dtype: str = "float32"
    layers: list[dict[str, Array]] = field(init=False, repr=False)
    slots: list[dict[str, Array]] = field(init=False, repr=False)
    step: int = field(init=False, default=0)
    epoch: int = field(init=False, default=0)
    generator: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.sizes = [int(size) for size in self.sizes]
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes: two or more numbers from 1 are wanted, found {self.sizes}")
        for name, value, known in (
            ("activation", self.activation, tuple(ACTIVATIONS)),
            ("objective", self.objective, OBJECTIVES),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("dtype", self.dtype, ("float32", "float64")),
        ):
            if value not in known:
                raise ValueError(f"{name}: one of {', '.join(known)} is wanted, found {value!r}")
        self.generator = np.random.default_rng(self.seed)
        gain = 2.0 if self.activation in ("relu", "gelu") else 1.0
        self.layers, self.slots = [], []
        for inputs, outputs in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            weight = self.generator.standard_normal((inputs, outputs)) * math.sqrt(gain / inputs)
            self.layers.append({"weight": weight.astype(self.dtype), "bias": np.zeros(outputs, self.dtype)})
            kinds = ("mean", "square") if self.optimizer == "adam" else ("velocity",)
            self.slots.append({f"{name}_{kind}": np.zeros_like(value) for name, value in self.layers[-1].items() for kind in kinds})

    # Using it

    def predict(self, x: Array) -> Array:
        """Outputs for inputs: probabilities of the classes for `softmax_cross_entropy`, else values.

        Args:
            x: shape (examples, sizes[0]).

        Returns:
            Shape (examples, sizes[-1]).

        Raises:
            ValueError: another shape.
        """
        outputs = self._forward(self._inputs(x))[-1]
        return _softmax(outputs) if self.objective == "softmax_cross_entropy" else outputs

    def loss(self, x: Array, y: Array) -> float:
        """The mean loss over examples.

        Args:
            x: shape (examples, sizes[0]).
            y: classes, shape (examples,), or values, shape (examples, sizes[-1]).

        Returns:
            Cross-entropy in nats, or the mean squared error.

        Raises:
            ValueError: shapes or classes that do not fit the network.
        """
        inputs = self._inputs(x)
        outputs, targets = self._forward(inputs)[-1], self._targets(y, len(inputs))
        if self.objective == "mean_squared_error":
            return float(np.mean((outputs - targets) ** 2))
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - (shifted * targets).sum(axis=1)))

    def evaluate(self, x: Array, y: Array) -> tuple[float, float]:
        """Loss, and accuracy: the share of examples whose largest output is the right one.

        Args:
            x, y: as for `loss`.

        Returns:
            (loss, accuracy).

        Raises:
            ValueError: as for `loss`.
        """
        targets = self._targets(y, len(np.asarray(x)))
        return self.loss(x, y), float(np.mean(self.predict(x).argmax(axis=1) == targets.argmax(axis=1)))

    # Training it

    def gradients(self, x: Array, y: Array) -> list[dict[str, Array]]:
        """The derivatives of `loss` by every weight and bias: backpropagation.

        Args:
            x, y: as for `loss`.

        Returns:
            In the shape of `layers`.

        Raises:
            ValueError: as for `loss`.
        """
        inputs = self._inputs(x)
        sums = self._forward(inputs)
        targets = self._targets(y, len(inputs))
        if self.objective == "mean_squared_error":
            error = 2 * (sums[-1] - targets) / targets.size
        else:
            error = (_softmax(sums[-1]) - targets) / len(inputs)
        function, slope = ACTIVATIONS[self.activation]
        found: list[dict[str, Array]] = []
        for number in reversed(range(len(self.layers))):
            below = inputs if number == 0 else function(sums[number - 1])
            found.insert(0, {"weight": below.T @ error, "bias": error.sum(axis=0)})
            if number:
                error = (error @ self.layers[number]["weight"].T) * slope(sums[number - 1])
        return found

    def fit(
        self,
        x: Array,
        y: Array,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        on_epoch: Callable[[int, float], object] | None = None,
    ) -> list[float]:
        """Train by gradient descent on mini-batches.

        Args:
            x, y: as for `loss`.
            epochs: how many times every example is seen.
            batch_size: examples a step.
            on_epoch: called with the number of the epoch and its loss.

        Returns:
            The loss after each epoch.

        Raises:
            ValueError: as for `loss`, or a number below 1.
        """
        inputs = self._inputs(x)
        targets = self._targets(y, len(inputs))
        if epochs < 0 or batch_size < 1:
            raise ValueError(f"epochs from 0 and a batch_size from 1 are wanted, found {epochs} and {batch_size}")
        losses: list[float] = []
        for _ in range(epochs):
            order = self.generator.permutation(len(inputs))
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                self._descend(self.gradients(inputs[batch], targets[batch]))
            self.epoch += 1
            losses.append(self.loss(inputs, targets))
            if on_epoch is not None:
                on_epoch(self.epoch, losses[-1])
        return losses

    def _descend(self, gradients: list[dict[str, Array]]) -> None:
        """One step of the optimizer, in place."""
        self.step += 1
        rate = self.learning_rate * math.sqrt(1 - _BETA2**self.step) / (1 - _BETA1**self.step)
        for layer, slots, gradient in zip(self.layers, self.slots, gradients, strict=True):
            for name, value in layer.items():
                if self.optimizer == "momentum":
                    velocity = slots[f"{name}_velocity"]
                    velocity *= self.momentum
                    velocity -= self.learning_rate * gradient[name]
                    value += velocity
                    continue
                mean, square = slots[f"{name}_mean"], slots[f"{name}_square"]
                mean += (1 - _BETA1) * (gradient[name] - mean)
                square += (1 - _BETA2) * (gradient[name] ** 2 - square)
                value -= (rate * mean / (np.sqrt(square) + _EPSILON)).astype(value.dtype)

    # Its weights by hand

    def get_weights(self) -> list[Array]:
        """A copy of each layer's weight, shape (inputs, outputs)."""
        return [layer["weight"].copy() for layer in self.layers]

    def get_biases(self) -> list[Array]:
        """A copy of each layer's bias, shape (outputs,)."""
        return [layer["bias"].copy() for layer in self.layers]

    def load_weights(self, weights: Sequence[Array]) -> None:
        """Put in each layer's weight.

        Args:
            weights: one a layer, shape (inputs, outputs).

        Raises:
            ValueError: another number of them, or another shape; names the layer. Nothing was changed.
        """
        self._put("weight", weights)

    def set_biases(self, biases: Sequence[Array]) -> None:
        """Put in each layer's bias.

        Args:
            biases: one a layer, shape (outputs,).

        Raises:
            ValueError: another number of them, or another shape; names the layer. Nothing was changed.
        """
        self._put("bias", biases)

    def _put(self, name: str, values: Sequence[Array]) -> None:
        arrays = [np.asarray(value, self.dtype) for value in values]
        if len(arrays) != len(self.layers):
            raise ValueError(f"{len(self.layers)} layers need {len(self.layers)} arrays of {name}, found {len(arrays)}")
        for number, (layer, array) in enumerate(zip(self.layers, arrays, strict=True)):
            if array.shape != layer[name].shape:
                hint = " (looks transposed)" if array.shape == layer[name].shape[::-1] and array.ndim == 2 else ""
                raise ValueError(f"layers.{number}.{name} has the shape {layer[name].shape}, found {array.shape}{hint}")
        for layer, array in zip(self.layers, arrays, strict=True):
            layer[name][...] = array

    # Inside

    def _forward(self, inputs: Array) -> list[Array]:
        """The weighted sums of each layer, before its activation."""
        function = ACTIVATIONS[self.activation][0]
        sums: list[Array] = []
        for number, layer in enumerate(self.layers):
            below = inputs if number == 0 else function(sums[-1])
            sums.append(below @ layer["weight"] + layer["bias"])
        return sums

    def _inputs(self, x: Array) -> Array:
        inputs = np.asarray(x, self.dtype)
        if inputs.ndim != 2 or inputs.shape[1] != self.sizes[0]:
            raise ValueError(f"inputs of the shape (examples, {self.sizes[0]}) are wanted, found {inputs.shape}")
        return inputs

    def _targets(self, y: Array, examples: int) -> Array:
        """One row an example: the values, or a 1 at the place of the class."""
        targets, outputs = np.asarray(y), self.sizes[-1]
        if targets.shape == (examples, outputs):
            return targets.astype(self.dtype)
        if targets.shape != (examples,) or targets.dtype.kind not in "iu":
            raise ValueError(
                f"{examples} classes, or values of the shape ({examples}, {outputs}), are wanted; found {targets.shape} {targets.dtype}"
            )
        if examples and not 0 <= targets.min() <= targets.max() < outputs:
            raise ValueError(f"classes from 0 to {outputs - 1} are wanted, found {targets.min()} to {targets.max()}")
        rows: Array = np.zeros((examples, outputs), self.dtype)
        rows[np.arange(examples), targets] = 1
        return rows


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


def digits() -> tuple[Array, Array]:
    """The handwritten digits: 1,797 images of 8 by 8 pixels, and which digit each shows.

    Returns:
        (images, labels): float32 from 0 to 1 of shape (1797, 64), and int64 of shape (1797,).

    Example:
        >>> from tensorkeep.nn import digits
        >>> images, labels = digits()
        >>> images.shape, labels[:3].tolist()
        ((1797, 64), [0, 1, 2])

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, CC BY 4.0,
        https://doi.org/10.24432/C50P49, in the copy of scikit-learn.
    """
    with as_file(files("tensorkeep") / "digits.safetensors") as path:
        data = load(path, framework="numpy", mmap=False)
    return data["images"].astype(np.float32) / 16, data["labels"].astype(np.int64)

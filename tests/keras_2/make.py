"""How the files beside this were made, once, with Keras 2 (tf_keras 2.21); no test runs it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras

HERE = Path(__file__).parent
layers = keras.layers


def perceptron() -> Any:
    first = layers.Dense(6, activation="relu", input_shape=(8,))
    last = layers.Dense(2, kernel_initializer="he_normal", kernel_regularizer="l2")
    return keras.Sequential([first, layers.BatchNormalization(), layers.Dropout(0.2), last])


def functional() -> Any:
    x = keras.Input((8,))
    y = layers.Concatenate()([layers.Add()([x, layers.Dense(8)(x)]), x])
    inner = keras.Sequential([keras.Input((16,)), layers.Dense(4, activation="tanh"), layers.BatchNormalization()])
    return keras.Model(x, layers.Dense(2)(inner(y)))


def recurrent() -> Any:
    wrapped = layers.Bidirectional(layers.LSTM(3, return_sequences=True))
    return keras.Sequential([keras.Input((5, 8)), wrapped, layers.GRU(4), layers.Dense(2)])


def convolutional() -> Any:
    inside = [layers.Conv2D(4, 3, padding="same"), layers.LeakyReLU(), layers.DepthwiseConv2D(3), layers.SeparableConv2D(3, 2)]
    return keras.Sequential([keras.Input((8, 8, 3)), *inside, layers.MaxPooling2D(), layers.Flatten(), layers.Dense(2)])


def main() -> None:
    random = np.random.default_rng(0)
    expected: dict[str, Any] = {}
    for file, make, shape, optimizer in (
        ("perceptron.h5", perceptron, (8,), keras.optimizers.Adam(0.002)),
        ("functional.keras", functional, (8,), keras.optimizers.RMSprop(0.003, momentum=0.5)),
        ("recurrent.h5", recurrent, (5, 8), keras.optimizers.legacy.Adam(0.004)),
        ("convolutional.weights.h5", convolutional, (8, 8, 3), keras.optimizers.SGD(0.005, momentum=0.9)),
    ):
        model = make()
        x = random.normal(size=(2, *shape)).astype("float32")
        model.compile(optimizer, "mse", metrics=["mae"])
        model.fit(x, np.ones((2, 2)), epochs=3, verbose=0)
        (model.save_weights if "weights" in file else model.save)(HERE / file)
        variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
        sums = sorted(float(np.abs(one.numpy()).sum()) for one in variables if one.shape.rank)
        expected[file] = {"x": x.tolist(), "y": model.predict(x, verbose=0).tolist(), "slots": sums}
    (HERE / "expect.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main()

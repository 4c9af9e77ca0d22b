"""One framework's file in another framework's model: layer by layer, outputs equal to the tolerance of float32."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensorkeep as tk

os.environ.setdefault("KERAS_BACKEND", "torch")

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")
keras: Any = pytest.importorskip("keras", reason="Keras is not installed")
jax: Any = pytest.importorskip("jax", reason="JAX is not installed")
linen: Any = pytest.importorskip("flax.linen", reason="Flax is not installed")
nnx: Any = pytest.importorskip("flax.nnx", reason="Flax is not installed")

Layers = tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any], tuple[int, ...]]

LAYERS: dict[str, Layers] = {
    "Linear": (lambda: torch.nn.Linear(4, 4), lambda: keras.layers.Dense(4), lambda: linen.Dense(4), (4,)),
    "Conv1d": (lambda: torch.nn.Conv1d(3, 5, 2), lambda: keras.layers.Conv1D(5, 2), lambda: linen.Conv(5, 2, padding="VALID"), (3, 9)),
    "Conv2d": (
        lambda: torch.nn.Conv2d(3, 5, (2, 4), stride=2),
        lambda: keras.layers.Conv2D(5, (2, 4), strides=2),
        lambda: linen.Conv(5, (2, 4), strides=2, padding="VALID"),
        (3, 9, 8),
    ),
    "Conv3d": (
        lambda: torch.nn.Conv3d(2, 3, (2, 1, 3)),
        lambda: keras.layers.Conv3D(3, (2, 1, 3)),
        lambda: linen.Conv(3, (2, 1, 3), padding="VALID"),
        (2, 4, 5, 6),
    ),
    "Conv2d in groups": (
        lambda: torch.nn.Conv2d(4, 6, 3, groups=2),
        lambda: keras.layers.Conv2D(6, 3, groups=2),
        lambda: linen.Conv(6, (3, 3), feature_group_count=2, padding="VALID"),
        (4, 7, 7),
    ),
    "depthwise Conv2d": (
        lambda: torch.nn.Conv2d(4, 8, 3, groups=4),
        lambda: keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
        lambda: linen.Conv(8, (3, 3), feature_group_count=4, padding="VALID"),
        (4, 7, 7),
    ),
    "ConvTranspose2d": (
        lambda: torch.nn.ConvTranspose2d(3, 5, 3, stride=2),
        lambda: keras.layers.Conv2DTranspose(5, 3, strides=2),
        lambda: linen.ConvTranspose(5, (3, 3), strides=(2, 2), padding="VALID", transpose_kernel=True),
        (3, 5, 6),
    ),
}


def _last(x: Any) -> Any:
    """Channels last."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def _numpy(x: Any) -> Any:
    return np.asarray(x.detach() if hasattr(x, "detach") else x)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_of_torch_answers_the_same_in_keras_and_flax_and_comes_back(name: str, tmp_path: Path) -> None:
    """Kernels are turned, of depthwise ones an axis is split, and the way back gives the same bits."""
    make_torch, make_keras, make_flax, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = make_torch()
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("f4")
    wanted = _last(_numpy(layer(torch.from_numpy(x)))) if len(shape) > 1 else _numpy(layer(torch.from_numpy(x)))
    x = _last(x) if len(shape) > 1 else x
    tk.save(layer, tmp_path / "torch.safetensors")
    rename = {"weight": "kernel"}

    in_keras = make_keras()
    in_keras.build(x.shape)
    tk.load(tmp_path / "torch.safetensors", into=in_keras, rename=rename, transpose="torch->keras")
    np.testing.assert_allclose(_numpy(in_keras(x)), wanted, rtol=1e-4, atol=1e-5)

    in_flax = make_flax()
    params = jax.eval_shape(lambda: in_flax.init(jax.random.key(0), x))["params"]
    params = tk.load(tmp_path / "torch.safetensors", into=params, rename=rename, transpose="torch->flax")
    np.testing.assert_allclose(np.asarray(in_flax.apply({"params": params}, x)), wanted, rtol=1e-4, atol=1e-5)

    for state, file, rules in ((in_keras, "keras.safetensors", "keras->torch"), (params, "flax.safetensors", "flax->torch")):
        tk.save(state, tmp_path / file)
        back = make_torch()
        tk.load(tmp_path / file, into=back, rename={"kernel": "weight"}, transpose=rules)
        assert all(torch.equal(one, two) for one, two in zip(layer.parameters(), back.parameters(), strict=True))


def test_a_square_kernel_that_nobody_turned_is_warned_of(tmp_path: Path) -> None:
    """Its shape fits either way, so no error would tell."""
    tk.save(torch.nn.Linear(4, 4), tmp_path / "torch.safetensors")
    layer = keras.layers.Dense(4)
    layer.build((1, 4))
    with pytest.warns(tk.TensorkeepWarning, match="kernel took theirs as it is"):
        tk.load(tmp_path / "torch.safetensors", into=layer, rename={"weight": "kernel"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tk.load(tmp_path / "torch.safetensors", into=layer, rename={"weight": "kernel"}, transpose={})
        tk.load(tmp_path / "torch.safetensors", into=layer, rename={"weight": "kernel"}, transpose="torch->keras")


class Attention(torch.nn.Module):
    """Four projections, as most models of PyTorch have them."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (torch.nn.Linear(12, 12) for _ in range(4))

    def forward(self, x: Any) -> Any:
        q, k, v = (part(x).unflatten(-1, (3, 4)).transpose(1, 2) for part in (self.query, self.key, self.value))
        return self.out(torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_attention_is_split_into_heads_and_merged_again(tmp_path: Path) -> None:
    """Keras and Flax have an axis for the heads, in kernels and biases, where PyTorch has one for all."""
    torch.manual_seed(0)
    model = Attention()
    x = np.random.default_rng(0).normal(size=(2, 5, 12)).astype("f4")
    wanted = _numpy(model(torch.from_numpy(x)))
    tk.save(model, tmp_path / "torch.safetensors")

    layer = keras.layers.MultiHeadAttention(num_heads=3, key_dim=4)
    layer(x, x)
    to_keras = [("out.bias", "attention_output/bias"), ("out.weight", "attention_output/kernel")]
    to_keras += [("*.bias", "*/bias"), ("*.weight", "*/kernel")]
    tk.load(tmp_path / "torch.safetensors", into=layer, rename=to_keras, transpose="torch->keras")
    np.testing.assert_allclose(_numpy(layer(x, x)), wanted, rtol=1e-4, atol=1e-5)

    flax = linen.MultiHeadDotProductAttention(num_heads=3)
    params = jax.eval_shape(lambda: flax.init(jax.random.key(0), x, x))["params"]
    params = tk.load(tmp_path / "torch.safetensors", into=params, rename={"*.weight": "*.kernel"}, transpose="torch->flax")
    np.testing.assert_allclose(np.asarray(flax.apply({"params": params}, x, x)), wanted, rtol=1e-4, atol=1e-5)

    tk.save(layer, tmp_path / "keras.safetensors")
    back = Attention()
    tk.load(tmp_path / "keras.safetensors", into=back, rename=[(new, old) for old, new in to_keras], transpose="keras->torch")
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), back.parameters(), strict=True))


def test_a_layer_of_other_channels_is_not_made_to_fit(tmp_path: Path) -> None:
    """One input and three outputs are no three inputs and one output, though both are three numbers."""
    tk.save(torch.nn.Linear(1, 3, bias=False), tmp_path / "torch.safetensors")
    layer = keras.layers.Dense(1, use_bias=False)
    layer.build((2, 3))
    with pytest.raises(tk.MismatchError, match=r"kernel .*\[1, 3\] .*\[3, 1\]"):
        tk.load(tmp_path / "torch.safetensors", into=layer, rename={"weight": "kernel"}, transpose="torch->keras")


def test_batch_norm_and_embeddings_lie_alike(tmp_path: Path) -> None:
    """Only names differ; what PyTorch alone counts is left out, and made anew by its own code on the way back."""
    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(5, 5), "norm": torch.nn.BatchNorm1d(5), "dense": torch.nn.Linear(5, 1)})
    model["norm"](torch.randn(4, 5))
    tk.save(model, tmp_path / "torch.safetensors")
    layers = [keras.layers.Embedding(5, 5, name="embed"), keras.layers.BatchNormalization(name="norm"), keras.layers.Dense(1, name="dense")]
    in_keras = keras.Sequential([keras.Input((3,)), *layers])
    names = {"norm.weight": "norm/gamma", "norm.bias": "norm/beta", "embed.weight": "embed/embeddings"}
    names |= {"norm.running_mean": "norm/moving_mean", "norm.running_var": "norm/moving_variance"}
    names |= {"dense.weight": "dense/kernel", "dense.bias": "dense/bias"}
    tk.load(tmp_path / "torch.safetensors", into=in_keras, rename=names, transpose="torch->keras")
    assert np.array_equal(_numpy(in_keras.layers[0].embeddings.value), model["embed"].weight.detach().numpy())
    assert np.array_equal(_numpy(in_keras.layers[1].moving_mean.value), model["norm"].running_mean.numpy())
    tk.save(in_keras, tmp_path / "keras.safetensors")
    back = torch.nn.ModuleDict({"embed": torch.nn.Embedding(5, 5), "norm": torch.nn.BatchNorm1d(5), "dense": torch.nn.Linear(5, 1)})
    tk.load(tmp_path / "keras.safetensors", into=back, rename={new: old for old, new in names.items()}, transpose="keras->torch")
    counter = "norm.num_batches_tracked"
    assert all(torch.equal(back.state_dict()[name], value) for name, value in model.state_dict().items() if name != counter)


def test_modules_of_nnx_are_filled_in_place(tmp_path: Path) -> None:
    """Their variables go by the same names as Linen's."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 4, 3, padding=1), "head": torch.nn.Linear(4, 4)})
    tk.save(model, tmp_path / "torch.safetensors")
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 5)).astype("f4")
    wanted = _numpy(model["head"](model["conv"](torch.from_numpy(x)).mean((2, 3))))

    class Net(nnx.Module):  # type: ignore[misc]  # its stubs are not there
        def __init__(self, rngs: Any) -> None:
            self.conv, self.head = nnx.Conv(3, 4, (3, 3), padding=1, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)

    net = Net(nnx.Rngs(0))
    assert tk.load(tmp_path / "torch.safetensors", into=net, rename={"*.weight": "*.kernel"}, transpose="torch->flax") is net
    np.testing.assert_allclose(np.asarray(net.head(net.conv(_last(x)).mean((1, 2)))), wanted, rtol=1e-4, atol=1e-5)
    tk.save(net, tmp_path / "nnx.safetensors")
    back = torch.nn.ModuleDict({"conv": torch.nn.Conv2d(3, 4, 3, padding=1), "head": torch.nn.Linear(4, 4)})
    tk.load(tmp_path / "nnx.safetensors", into=back, rename={"*.kernel": "*.weight"}, transpose="flax->torch")
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), back.parameters(), strict=True))


def test_a_recurrent_layer_keeps_its_gates(tmp_path: Path) -> None:
    """LSTM: the same order of gates; the two biases of PyTorch are one in Keras, so a person adds them up."""
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 5, batch_first=True)
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("f4")
    tk.save({**lstm.state_dict(), "bias": (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach()}, tmp_path / "torch.safetensors")
    layer = keras.layers.LSTM(5, return_sequences=True)
    layer.build(x.shape)
    rename = {"weight_ih_l0": "lstm_cell/kernel", "weight_hh_l0": "lstm_cell/recurrent_kernel", "bias": "lstm_cell/bias"}
    only = lambda path: path in rename  # noqa: E731  # as a person would write it
    tk.load(tmp_path / "torch.safetensors", into=layer, rename=rename, only=only, transpose="torch->keras")
    np.testing.assert_allclose(_numpy(layer(x)), _numpy(lstm(torch.from_numpy(x))[0]), rtol=1e-4, atol=1e-5)

"""Every layer that Keras has, each in a small model with inputs for it. A layer that is not here is in `WITHOUT`, with the reason."""

from collections.abc import Callable
from typing import Any, Final

import keras
import numpy as np

layers = keras.layers

_RANDOM: Final = np.random.default_rng(0)
VECTORS: Final = _RANDOM.normal(size=(4, 8)).astype("float32")
SERIES: Final = _RANDOM.normal(size=(2, 6, 8)).astype("float32")
IMAGES: Final = _RANDOM.uniform(0, 1, size=(2, 12, 12, 3)).astype("float32")
VIDEOS: Final = _RANDOM.uniform(0, 1, size=(2, 3, 6, 6, 3)).astype("float32")
VOLUMES: Final = _RANDOM.normal(size=(2, 6, 6, 6, 2)).astype("float32")
TOKENS: Final = _RANDOM.integers(0, 9, size=(2, 6)).astype("int32")
SOUND: Final = _RANDOM.normal(size=(2, 256)).astype("float32")

Make = Callable[[], Any]

PLAIN: Final[dict[str, tuple[Make, Any]]] = {
    "Activation": (lambda: layers.Activation("gelu"), VECTORS),
    "ActivityRegularization": (lambda: layers.ActivityRegularization(0.1, 0.2), VECTORS),
    "AdaptiveAveragePooling1D": (lambda: layers.AdaptiveAveragePooling1D(2), SERIES),
    "AdaptiveAveragePooling2D": (lambda: layers.AdaptiveAveragePooling2D((3, 2)), IMAGES),
    "AdaptiveAveragePooling3D": (lambda: layers.AdaptiveAveragePooling3D(2), VOLUMES),
    "AdaptiveMaxPooling1D": (lambda: layers.AdaptiveMaxPooling1D(2), SERIES),
    "AdaptiveMaxPooling2D": (lambda: layers.AdaptiveMaxPooling2D((3, 2)), IMAGES),
    "AdaptiveMaxPooling3D": (lambda: layers.AdaptiveMaxPooling3D(2), VOLUMES),
    "AlphaDropout": (lambda: layers.AlphaDropout(0.3, seed=1), VECTORS),
    "AveragePooling1D": (lambda: layers.AveragePooling1D(2), SERIES),
    "AveragePooling2D": (lambda: layers.AveragePooling2D((2, 3), padding="same"), IMAGES),
    "AveragePooling3D": (lambda: layers.AveragePooling3D(2), VOLUMES),
    "BatchNormalization": (lambda: layers.BatchNormalization(momentum=0.5, beta_constraint="non_neg"), IMAGES),
    "Bidirectional": (lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="sum"), SERIES),
    "CategoryEncoding": (lambda: layers.CategoryEncoding(9, output_mode="multi_hot"), TOKENS),
    "CenterCrop": (lambda: layers.CenterCrop(5, 6), IMAGES),
    "Conv1D": (lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2), SERIES),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(4, 3, strides=2), SERIES),
    "Conv2D": (lambda: layers.Conv2D(4, 3, kernel_regularizer="l2", bias_constraint="max_norm", activation="silu"), IMAGES),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, (3, 2), padding="same"), IMAGES),
    "Conv3D": (lambda: layers.Conv3D(4, 2), VOLUMES),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(4, 2, use_bias=False), VOLUMES),
    "ConvLSTM1D": (lambda: layers.ConvLSTM1D(2, 3), IMAGES),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(2, 3, return_sequences=True), VIDEOS),
    "ConvLSTM3D": (lambda: layers.ConvLSTM3D(2, 2), VOLUMES[:, None]),
    "Cropping1D": (lambda: layers.Cropping1D((1, 2)), SERIES),
    "Cropping2D": (lambda: layers.Cropping2D(((1, 2), (3, 1))), IMAGES),
    "Cropping3D": (lambda: layers.Cropping3D(1), VOLUMES),
    "Dense": (lambda: layers.Dense(5, activation=layers.LeakyReLU(0.2), kernel_initializer=keras.initializers.HeNormal(3)), VECTORS),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), SERIES),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3, strides=2), IMAGES),
    "Discretization": (lambda: layers.Discretization(bin_boundaries=[-1.0, 0.0, 0.5]), VECTORS),
    "Dropout": (lambda: layers.Dropout(0.4, noise_shape=(None, 1, 8), seed=2), SERIES),
    "ELU": (lambda: layers.ELU(0.3), VECTORS),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d"), SERIES),
    "Embedding": (lambda: layers.Embedding(9, 4, mask_zero=True), TOKENS),
    "ContrastLimitedAdaptiveHistogramEqualization": (
        lambda: layers.ContrastLimitedAdaptiveHistogramEqualization(value_range=(0, 1), tile_grid_size=(2, 2)),
        IMAGES,
    ),
    "Flatten": (lambda: layers.Flatten(), IMAGES),
    "GRU": (lambda: layers.GRU(4, reset_after=False, dropout=0.1, seed=4, go_backwards=True), SERIES),
    "GRUCell": (lambda: layers.RNN(layers.GRUCell(3)), SERIES),
    "GaussianDropout": (lambda: layers.GaussianDropout(0.2, seed=3), VECTORS),
    "GaussianNoise": (lambda: layers.GaussianNoise(0.2, seed=3), VECTORS),
    "GlobalAveragePooling1D": (lambda: layers.GlobalAveragePooling1D(), SERIES),
    "GlobalAveragePooling2D": (lambda: layers.GlobalAveragePooling2D(keepdims=True), IMAGES),
    "GlobalAveragePooling3D": (lambda: layers.GlobalAveragePooling3D(), VOLUMES),
    "GlobalMaxPooling1D": (lambda: layers.GlobalMaxPooling1D(), SERIES),
    "GlobalMaxPooling2D": (lambda: layers.GlobalMaxPooling2D(), IMAGES),
    "GlobalMaxPooling3D": (lambda: layers.GlobalMaxPooling3D(), VOLUMES),
    "GroupNormalization": (lambda: layers.GroupNormalization(4), SERIES),
    "Identity": (lambda: layers.Identity(), VECTORS),
    "LSTM": (lambda: layers.LSTM(4, return_sequences=True, recurrent_dropout=0.2, seed=5), SERIES),
    "LSTMCell": (lambda: layers.RNN(layers.LSTMCell(3, unit_forget_bias=False), unroll=True), SERIES),
    "LayerNormalization": (lambda: layers.LayerNormalization(axis=(1, 2)), SERIES),
    "LeakyReLU": (lambda: layers.LeakyReLU(0.1), VECTORS),
    "Masking": (lambda: layers.Masking(0.5), SERIES),
    "MaxPooling1D": (lambda: layers.MaxPooling1D(2), SERIES),
    "MaxPooling2D": (lambda: layers.MaxPooling2D(2), IMAGES),
    "MaxPooling3D": (lambda: layers.MaxPooling3D(2), VOLUMES),
    "MelSpectrogram": (lambda: layers.MelSpectrogram(fft_length=64, sequence_stride=32, num_mel_bins=8, sampling_rate=8000), SOUND),
    "Normalization": (lambda: layers.Normalization(mean=0.5, variance=2.0), VECTORS),
    "PReLU": (lambda: layers.PReLU(alpha_initializer="ones"), VECTORS),
    "Permute": (lambda: layers.Permute((2, 1)), SERIES),
    "RMSNormalization": (lambda: layers.RMSNormalization(), VECTORS),
    "RNN": (lambda: layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(2)], return_sequences=True), SERIES),
    "ReLU": (lambda: layers.ReLU(6.0, threshold=0.1), VECTORS),
    "RepeatVector": (lambda: layers.RepeatVector(3), VECTORS),
    "Rescaling": (lambda: layers.Rescaling([0.5, 2.0, 1.0], offset=0.1), IMAGES),
    "Reshape": (lambda: layers.Reshape((2, -1)), VECTORS),
    "Resizing": (lambda: layers.Resizing(5, 7), IMAGES),
    "ReversibleEmbedding": (lambda: layers.ReversibleEmbedding(9, 4, tie_weights=False), TOKENS),
    "STFTSpectrogram": (lambda: layers.STFTSpectrogram(frame_length=32, frame_step=16, fft_length=32), SOUND[..., None]),
    "SeparableConv1D": (lambda: layers.SeparableConv1D(4, 3), SERIES),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2), IMAGES),
    "SimpleRNN": (lambda: layers.SimpleRNN(4, activation="relu"), SERIES),
    "SimpleRNNCell": (lambda: layers.RNN(layers.SimpleRNNCell(2)), SERIES),
    "Softmax": (lambda: layers.Softmax(axis=1), SERIES),
    "Solarization": (lambda: layers.Solarization(value_range=(0, 1), seed=1), IMAGES),
    "SpatialDropout1D": (lambda: layers.SpatialDropout1D(0.3, seed=1), SERIES),
    "SpatialDropout2D": (lambda: layers.SpatialDropout2D(0.3, seed=1), IMAGES),
    "SpatialDropout3D": (lambda: layers.SpatialDropout3D(0.3, seed=1), VOLUMES),
    "SpectralNormalization": (lambda: layers.SpectralNormalization(layers.Conv2D(3, 2), power_iterations=2), IMAGES),
    "StackedRNNCells": (lambda: layers.RNN(layers.StackedRNNCells([layers.GRUCell(2), layers.GRUCell(3)])), SERIES),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(3)), SERIES),
    "UnitNormalization": (lambda: layers.UnitNormalization(), VECTORS),
    "UpSampling1D": (lambda: layers.UpSampling1D(2), SERIES),
    "UpSampling2D": (lambda: layers.UpSampling2D(2, interpolation="bilinear"), IMAGES),
    "UpSampling3D": (lambda: layers.UpSampling3D(2), VOLUMES),
    "ZeroPadding1D": (lambda: layers.ZeroPadding1D(1), SERIES),
    "ZeroPadding2D": (lambda: layers.ZeroPadding2D(((1, 0), (2, 1))), IMAGES),
    "ZeroPadding3D": (lambda: layers.ZeroPadding3D(1), VOLUMES),
}

MERGING: Final[dict[str, Make]] = {
    "Add": lambda: layers.Add(),
    "Average": lambda: layers.Average(),
    "Concatenate": lambda: layers.Concatenate(axis=1),
    "Dot": lambda: layers.Dot(axes=2, normalize=True),
    "Maximum": lambda: layers.Maximum(),
    "Minimum": lambda: layers.Minimum(),
    "Multiply": lambda: layers.Multiply(),
    "Subtract": lambda: layers.Subtract(),
    "AdditiveAttention": lambda: layers.AdditiveAttention(),
    "Attention": lambda: layers.Attention(use_scale=True, score_mode="concat", dropout=0.1, seed=1),
}
"""Layers that take a list of two."""

ATTENDING: Final[dict[str, Make]] = {
    "MultiHeadAttention": lambda: layers.MultiHeadAttention(2, 3, value_dim=4, dropout=0.1, seed=1),
    "GroupQueryAttention": lambda: layers.GroupQueryAttention(4, 4, 2),
}
"""Layers that take two one by one."""

PICTURES: Final[dict[str, Make]] = {
    "AugMix": lambda: layers.AugMix(value_range=(0, 1), seed=1),
    "AutoContrast": lambda: layers.AutoContrast(value_range=(0, 1)),
    "CutMix": lambda: layers.CutMix(seed=1),
    "MixUp": lambda: layers.MixUp(seed=1),
    "RandAugment": lambda: layers.RandAugment(value_range=(0, 1), seed=1),
    "RandomBrightness": lambda: layers.RandomBrightness(0.2, value_range=(0, 1), seed=1),
    "RandomColorDegeneration": lambda: layers.RandomColorDegeneration(0.5, value_range=(0, 1), seed=1),
    "RandomColorJitter": lambda: layers.RandomColorJitter(value_range=(0, 1), brightness_factor=0.2, seed=1),
    "RandomContrast": lambda: layers.RandomContrast(0.3, value_range=(0, 1), seed=1),
    "RandomCrop": lambda: layers.RandomCrop(6, 6, seed=1),
    "RandomElasticTransform": lambda: layers.RandomElasticTransform(value_range=(0, 1), seed=1),
    "RandomErasing": lambda: layers.RandomErasing(value_range=(0, 1), seed=1),
    "RandomFlip": lambda: layers.RandomFlip("horizontal", seed=1),
    "RandomGaussianBlur": lambda: layers.RandomGaussianBlur(value_range=(0, 1), seed=1),
    "RandomGrayscale": lambda: layers.RandomGrayscale(seed=1),
    "RandomHue": lambda: layers.RandomHue(0.2, value_range=(0, 1), seed=1),
    "RandomInvert": lambda: layers.RandomInvert(value_range=(0, 1), seed=1),
    "RandomPerspective": lambda: layers.RandomPerspective(seed=1),
    "RandomPosterization": lambda: layers.RandomPosterization(4, value_range=(0, 1), seed=1),
    "RandomRotation": lambda: layers.RandomRotation(0.2, seed=1),
    "RandomSaturation": lambda: layers.RandomSaturation(0.2, value_range=(0, 1), seed=1),
    "RandomSharpness": lambda: layers.RandomSharpness(0.2, value_range=(0, 1), seed=1),
    "RandomShear": lambda: layers.RandomShear(0.2, 0.1, seed=1),
    "RandomTranslation": lambda: layers.RandomTranslation(0.2, 0.1, seed=1),
    "RandomZoom": lambda: layers.RandomZoom(0.2, seed=1),
    "Pipeline": lambda: layers.Pipeline([layers.Rescaling(2.0), layers.RandomFlip(seed=3)]),
}
"""Layers that change images at random while they train."""

TEXTS: Final = ("Hashing", "HashedCrossing", "IntegerLookup", "StringLookup", "TextVectorization")
"""Layers that need TensorFlow, whatever the backend."""

WITHOUT: Final = {
    "Layer": "does nothing by itself",
    "InputLayer": "in every model here",
    "Wrapper": "a base of others",
    "MaxNumBoundingBoxes": "takes dicts of boxes, and has no variables",
}


ALONE: Final = {"Equalization": (lambda: layers.Equalization(value_range=(0, 1)), IMAGES)}
"""Layers that no Functional model takes."""


def models() -> dict[str, tuple[Make, Any]]:
    """Functional models of one layer each, and inputs for them."""
    found: dict[str, tuple[Make, Any]] = {}

    def add(name: str, make: Make, *inputs: Any, together: bool) -> None:
        def model() -> Any:
            taken = [keras.Input(one.shape[1:], dtype=str(one.dtype)) for one in inputs]
            layer = make()
            return keras.Model(taken if together or len(taken) > 1 else taken[0], layer(taken) if together else layer(*taken))

        found[name] = (model, list(inputs) if len(inputs) > 1 else inputs[0])

    for name, (make, x) in PLAIN.items():
        add(name, make, x, together=False)
    for name, merging in MERGING.items():
        add(name, merging, SERIES, SERIES[:, ::-1].copy(), together=True)
    for name, attending in ATTENDING.items():
        add(name, attending, SERIES, SERIES[:, ::-1].copy(), together=False)
    for name, picture in PICTURES.items():
        add(name, picture, IMAGES, together=False)
    found |= ALONE
    return {name: entry for name, entry in found.items() if hasattr(layers, name)}

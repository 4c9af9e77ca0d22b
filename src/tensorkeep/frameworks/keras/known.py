"""Known: what of Keras a configuration may name, in closed tables by exact module and name.

Keras finds a class by whatever module a configuration says; here it is found only if it stands below, so that a configuration chooses
among these and nothing else. Not here, on purpose: `Lambda`, `TFSMLayer`, `TorchModuleWrapper`, `JaxLayer`, `FlaxLayer`, operations that
take functions (`Map`, `Scan`, `Cond` ...), and everything that is no part of a model.

Lives elsewhere: how a configuration is held against this (vetting); the traps that `scan` knows (scanning).
Source: the public names of https://github.com/keras-team/keras, version 3.15, and the modules that its configurations give.
"""

from collections.abc import Mapping
from typing import Final


def _by_module(table: Mapping[str, str]) -> dict[str, frozenset[str]]:
    return {module: frozenset(names.split()) for module, names in table.items()}


CLASSES: Final = _by_module(
    {
        "keras": "DTypePolicy FloatDTypePolicy Model Sequential",
        "keras.constraints": "MaxNorm MinMaxNorm NonNeg UnitNorm",
        "keras.distillation": "Distiller FeatureDistillation LogitsDistillation",
        "keras.dtype_policies": (
            "AWQDTypePolicy DTypePolicyMap GPTQDTypePolicy Int4DTypePolicy QuantizedDTypePolicy QuantizedFloat8DTypePolicy"
        ),
        "keras.initializers": (
            "Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones Orthogonal RandomNormal "
            "RandomUniform STFT TruncatedNormal VarianceScaling Zeros"
        ),
        "keras.layers": (
            "Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D "
            "AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention AugMix "
            "AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional "
            "CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv1DTranspose Conv2D "
            "Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D CutMix Dense "
            "DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Equalization Flatten GRU GRUCell "
            "GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D "
            "GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing Hashing Identity "
            "InputLayer IntegerLookup LSTM LSTMCell Layer LayerNormalization LeakyReLU Masking MaxNumBoundingBoxes MaxPooling1D "
            "MaxPooling2D MaxPooling3D Maximum MelSpectrogram Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute "
            "Pipeline RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast "
            "RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert "
            "RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation "
            "RandomZoom ReLU RepeatVector Rescaling Reshape Resizing ReversibleEmbedding STFTSpectrogram SeparableConv1D "
            "SeparableConv2D SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D "
            "SpectralNormalization StackedRNNCells StringLookup Subtract TextVectorization TimeDistributed UnitNormalization "
            "UpSampling1D UpSampling2D UpSampling3D Wrapper ZeroPadding1D ZeroPadding2D ZeroPadding3D"
        ),
        "keras.losses": (
            "BinaryCrossentropy BinaryFocalCrossentropy CTC CategoricalCrossentropy CategoricalFocalCrossentropy "
            "CategoricalGeneralizedCrossEntropy CategoricalHinge Circle CosineSimilarity Dice Hinge Huber KLDivergence LogCosh "
            "MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogarithmicError Poisson "
            "SparseCategoricalCrossentropy SquaredHinge Tversky"
        ),
        "keras.metrics": (
            "AUC Accuracy BinaryAccuracy BinaryCrossentropy BinaryIoU CategoricalAccuracy CategoricalCrossentropy CategoricalHinge "
            "ConcordanceCorrelation CosineSimilarity F1Score FBetaScore FalseNegatives FalsePositives Hinge IoU KLDivergence "
            "LogCoshError Mean MeanAbsoluteError MeanAbsolutePercentageError MeanIoU MeanMetricWrapper MeanSquaredError "
            "MeanSquaredLogarithmicError OneHotIoU OneHotMeanIoU PearsonCorrelation Poisson Precision PrecisionAtRecall R2Score "
            "Recall RecallAtPrecision RootMeanSquaredError SensitivityAtSpecificity SparseCategoricalAccuracy "
            "SparseCategoricalCrossentropy SparseTopKCategoricalAccuracy SpecificityAtSensitivity SquaredHinge Sum "
            "TopKCategoricalAccuracy TrueNegatives TruePositives"
        ),
        "keras.optimizers": (
            "Adadelta Adafactor Adagrad Adam AdamW Adamax Ftrl Lamb Lion LossScaleOptimizer MultiOptimizer Muon Nadam OptimizerMap "
            "RMSprop SGD ScheduleFreeAdamW"
        ),
        "keras.optimizers.schedules": (
            "CosineDecay CosineDecayRestarts ExponentialDecay InverseTimeDecay PiecewiseConstantDecay PolynomialDecay"
        ),
        "keras.quantizers": ("AWQConfig AbsMaxQuantizer Float8QuantizationConfig GPTQConfig Int4QuantizationConfig Int8QuantizationConfig"),
        "keras.random": "SeedGenerator",
        "keras.regularizers": "L1 L1L2 L2 OrthogonalRegularizer",
        "keras.src.layers.preprocessing.feature_space": "Cross Feature",
        "keras.src.models.functional": "Functional",
        "keras.src.ops.core": "Cast ConvertToTensor SaturateCast Scatter ScatterUpdate Slice SliceUpdate StopGradient Unstack",
        "keras.src.ops.einops": "Rearrange",
        "keras.src.ops.image": (
            "AffineTransform CropImages ElasticTransform ExtractPatches GaussianBlur HSVToRGB MapCoordinates PadImages "
            "PerspectiveTransform RGBToGrayscale RGBToHSV Resize SSIM ScaleAndTranslate SobelEdges"
        ),
        "keras.src.ops.linalg": (
            "Cholesky CholeskyInverse Det Eig Eigh Inv Lstsq LuFactor MatrixRank Norm Pinv Qr SVD Solve SolveTriangular"
        ),
        "keras.src.ops.math": (
            "CDist Erf Erfc Erfinv ExtractSequences FFT FFT2 IFFT2 IRFFT ISTFT InTopK Logdet Logsumexp RFFT Rsqrt STFT SegmentMax "
            "SegmentMin SegmentProd SegmentReduction SegmentSum TopK ViewAsComplex ViewAsReal"
        ),
        "keras.src.ops.nn": (
            "AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm BinaryCrossentropy CTCDecode CTCLoss CategoricalCrossentropy "
            "Celu Conv ConvTranspose DepthToSpace DepthwiseConv DotProductAttention Elu Fold Gelu Glu HardShrink HardSigmoid "
            "HardSilu HardTanh LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool Moments MultiHot Normalize OneHot PSNR Polar "
            "RMSNorm Relu Relu6 Selu SeparableConv Sigmoid Silu SoftShrink Softmax Softplus Softsign SpaceToDepth "
            "SparseCategoricalCrossentropy SparsePlus SparseSigmoid Sparsemax Squareplus TanhShrink Threshold Unfold"
        ),
        "keras.src.ops.numpy": (
            "Abs Absolute Add All AllClose Amax Amin Angle Any Append Arange Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh "
            "Argmax Argmin Argpartition Argsort Array ArraySplit Average Bincount BitwiseAnd BitwiseInvert BitwiseLeftShift "
            "BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo Cbrt Ceil Clip Concatenate Conj Conjugate Copy Corrcoef "
            "Correlate Cos Cosh CountNonzero Cross Cumprod Cumsum Deg2rad Diag Diagflat Diagonal Diff Digitize Divide DivideNoNan "
            "Dot Dsplit Dstack Einsum EmptyLike Equal Exp Exp2 ExpandDims Expm1 Fabs Flip Fliplr Flipud Floor FloorDivide Fmax Fmin "
            "Fmod Full FullLike Gcd Geomspace GetItem Greater GreaterEqual Heaviside Histogram Hsplit Hstack Hypot I0 Imag Inner "
            "IsIn Isclose Isfinite Isinf Isnan Isneginf Isposinf Isreal Kron Lcm Ldexp LeftShift Less LessEqual Linspace Log Log10 "
            "Log1p Log2 Logaddexp Logaddexp2 LogicalAnd LogicalNot LogicalOr LogicalXor Logspace Matmul Max Maximum Mean Median "
            "Meshgrid Min Minimum Mod Moveaxis Multiply NanToNum Nanargmax Nanargmin Nancumprod Nancumsum Nanmax Nanmean Nanmedian "
            "Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar Ndim Negative Nextafter Nonzero NotEqual OnesLike Outer "
            "Pad Percentile Power Prod Ptp Quantile Rad2deg Ravel Real Reciprocal Repeat Reshape RightShift Roll Rot90 Round "
            "SearchSorted Select Sign Signbit Sin Sinc Sinh Size Slogdet Sort Split Sqrt Square Squeeze Stack Std Subtract Sum "
            "Swapaxes Take TakeAlongAxis Tan Tanh Tensordot Tile Trace Transpose Trapezoid Tril Triu TrueDivide Trunc Unique "
            "UnravelIndex Vander Var Vdot View Vsplit Vstack Where ZerosLike"
        ),
        "keras.utils": "FeatureSpace",
    }
)

FUNCTIONS: Final = _by_module(
    {
        "keras.activations": (
            "celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid "
            "log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid "
            "sparsemax squareplus swish tanh tanh_shrink threshold"
        ),
        "keras.losses": (
            "binary_crossentropy binary_focal_crossentropy categorical_crossentropy categorical_focal_crossentropy "
            "categorical_generalized_cross_entropy categorical_hinge circle cosine_similarity ctc dice hinge huber kl_divergence "
            "log_cosh mean_absolute_error mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error poisson "
            "sparse_categorical_crossentropy squared_hinge tversky"
        ),
        "keras.metrics": (
            "binary_accuracy binary_crossentropy binary_focal_crossentropy categorical_accuracy categorical_crossentropy "
            "categorical_focal_crossentropy categorical_hinge concordance_correlation hinge huber kl_divergence log_cosh "
            "mean_absolute_error mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error "
            "pearson_correlation poisson sparse_categorical_accuracy sparse_categorical_crossentropy "
            "sparse_top_k_categorical_accuracy squared_hinge top_k_categorical_accuracy"
        ),
        "keras.quantizers": (
            "abs_max_quantize abs_max_quantize_grouped_with_zero_point compute_float8_amax_history compute_float8_scale "
            "fake_quant_with_min_max_vars pack_int4 quantize_and_dequantize unpack_int4"
        ),
    }
)
"""Functions that stand in a configuration by name: those that Keras looks up among its activations, losses and metrics."""

MODULES: Final = {
    "keras.engine.sequential": "keras",
    "keras.src.engine.sequential": "keras",
    "keras.src.models.sequential": "keras",
    "keras.models": "keras",
    "keras.engine.functional": "keras.src.models.functional",
    "keras.src.engine.functional": "keras.src.models.functional",
    "keras.src.models.model": "keras",
    "keras.dtype_policies": "keras",
    "keras.optimizers.legacy": "keras.optimizers",
    "keras.optimizers.experimental": "keras.optimizers",
} | {
    f"keras.src.backend.torch.optimizers.torch_{name}": "keras.optimizers"
    for name in ["adadelta", "adagrad", "adam", "adamax", "adamw", "lion", "nadam", "rmsprop", "sgd"]
}
"""What other releases call modules of the table."""

NAMES_OF_FILES: Final = frozenset({"vocabulary", "filepath", "file_path", "filename", "path", "url", "origin"})
"""Parameters that Keras would open a file or an address for, were they text."""

MOST: Final = {
    "fft_length": 1 << 15,
    "num_classes": 1 << 12,  # of which some metrics hold the square
    "num_mel_bins": 1 << 10,
    "num_ops": 1 << 10,
    "num_oov_indices": 1 << 20,
    "num_thresholds": 1 << 20,
    "sequence_length": 1 << 20,
}
"""Parameters by which Keras takes memory or time that no tensor of the file answers for, and how much they may be."""


def module_of(module: object, name: str) -> str | None:
    """The module under which a class stands in the table; None for any other."""
    if not isinstance(module, str):
        return None
    if name in CLASSES.get(module, ()):
        return module
    other = MODULES.get(module, "")
    return other if name in CLASSES.get(other, ()) else None


def is_function(module: object, name: str) -> bool:
    """Whether Keras has this function by name; `builtins` is what it writes for those that it looks up itself."""
    if module in ("builtins", None):
        return any(name in names for names in FUNCTIONS.values())
    return isinstance(module, str) and name in FUNCTIONS.get(module, ())

"""Names: what of scikit-learn a file may bring back, in closed tables by exact name.

A file holds a class by its name alone; which module it is imported from stands here. The estimators are those that scikit-learn lists
itself (`sklearn.utils.discovery.all_estimators`); the rest are what fitted ones hold. Functions are scikit-learn's own scoring functions,
and the few that its estimators have by default: whatever else can be called must be given in `types=`.

Lives elsewhere: what pickles of any release may name, for `scan` (unpickle.known.sklearn).
"""

import functools
import importlib
import sys
import types
from collections.abc import Mapping
from typing import Any, Final

import numpy as np


def _by_name(table: Mapping[str, str]) -> dict[str, str]:
    return {name: module for module, names in table.items() for name in names.split()}


ESTIMATORS: Final = _by_name(
    {
        "sklearn.calibration": "CalibratedClassifierCV",
        "sklearn.cluster": (
            "AffinityPropagation AgglomerativeClustering Birch BisectingKMeans DBSCAN FeatureAgglomeration HDBSCAN KMeans MeanShift "
            "MiniBatchKMeans OPTICS SpectralBiclustering SpectralClustering SpectralCoclustering"
        ),
        "sklearn.compose": "ColumnTransformer TransformedTargetRegressor",
        "sklearn.covariance": (
            "EllipticEnvelope EmpiricalCovariance GraphicalLasso GraphicalLassoCV LedoitWolf MinCovDet OAS ShrunkCovariance"
        ),
        "sklearn.cross_decomposition": "CCA PLSCanonical PLSRegression PLSSVD",
        "sklearn.decomposition": (
            "DictionaryLearning FactorAnalysis FastICA IncrementalPCA KernelPCA LatentDirichletAllocation "
            "MiniBatchDictionaryLearning MiniBatchNMF MiniBatchSparsePCA NMF PCA SparseCoder SparsePCA TruncatedSVD"
        ),
        "sklearn.discriminant_analysis": "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis",
        "sklearn.dummy": "DummyClassifier DummyRegressor",
        "sklearn.ensemble": (
            "AdaBoostClassifier AdaBoostRegressor BaggingClassifier BaggingRegressor ExtraTreesClassifier ExtraTreesRegressor "
            "GradientBoostingClassifier GradientBoostingRegressor HistGradientBoostingClassifier HistGradientBoostingRegressor "
            "IsolationForest RandomForestClassifier RandomForestRegressor RandomTreesEmbedding StackingClassifier StackingRegressor "
            "VotingClassifier VotingRegressor"
        ),
        "sklearn.feature_extraction": "DictVectorizer FeatureHasher",
        "sklearn.feature_extraction.image": "PatchExtractor",
        "sklearn.feature_extraction.text": "CountVectorizer HashingVectorizer TfidfTransformer TfidfVectorizer",
        "sklearn.feature_selection": (
            "GenericUnivariateSelect RFE RFECV SelectFdr SelectFpr SelectFromModel SelectFwe SelectKBest SelectPercentile "
            "SequentialFeatureSelector VarianceThreshold"
        ),
        "sklearn.frozen": "FrozenEstimator",
        "sklearn.gaussian_process": "GaussianProcessClassifier GaussianProcessRegressor",
        "sklearn.impute": "IterativeImputer KNNImputer MissingIndicator SimpleImputer",
        "sklearn.isotonic": "IsotonicRegression",
        "sklearn.kernel_approximation": "AdditiveChi2Sampler Nystroem PolynomialCountSketch RBFSampler SkewedChi2Sampler",
        "sklearn.kernel_ridge": "KernelRidge",
        "sklearn.linear_model": (
            "ARDRegression BayesianRidge ElasticNet ElasticNetCV GammaRegressor HuberRegressor Lars LarsCV Lasso LassoCV LassoLars "
            "LassoLarsCV LassoLarsIC LinearRegression LogisticRegression LogisticRegressionCV MultiTaskElasticNet "
            "MultiTaskElasticNetCV MultiTaskLasso MultiTaskLassoCV OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV "
            "PassiveAggressiveClassifier PassiveAggressiveRegressor Perceptron PoissonRegressor QuantileRegressor RANSACRegressor "
            "Ridge RidgeCV RidgeClassifier RidgeClassifierCV SGDClassifier SGDOneClassSVM SGDRegressor TheilSenRegressor "
            "TweedieRegressor"
        ),
        "sklearn.manifold": "ClassicalMDS Isomap LocallyLinearEmbedding MDS SpectralEmbedding TSNE",
        "sklearn.mixture": "BayesianGaussianMixture GaussianMixture",
        "sklearn.model_selection": (
            "FixedThresholdClassifier GridSearchCV HalvingGridSearchCV HalvingRandomSearchCV RandomizedSearchCV TunedThresholdClassifierCV"
        ),
        "sklearn.multiclass": "OneVsOneClassifier OneVsRestClassifier OutputCodeClassifier",
        "sklearn.multioutput": "ClassifierChain MultiOutputClassifier MultiOutputRegressor RegressorChain",
        "sklearn.naive_bayes": "BernoulliNB CategoricalNB ComplementNB GaussianNB MultinomialNB",
        "sklearn.neighbors": (
            "KNeighborsClassifier KNeighborsRegressor KNeighborsTransformer KernelDensity LocalOutlierFactor NearestCentroid "
            "NearestNeighbors NeighborhoodComponentsAnalysis RadiusNeighborsClassifier RadiusNeighborsRegressor "
            "RadiusNeighborsTransformer"
        ),
        "sklearn.neural_network": "BernoulliRBM MLPClassifier MLPRegressor",
        "sklearn.pipeline": "FeatureUnion Pipeline",
        "sklearn.preprocessing": (
            "Binarizer FunctionTransformer KBinsDiscretizer KernelCenterer LabelBinarizer LabelEncoder MaxAbsScaler MinMaxScaler "
            "MultiLabelBinarizer Normalizer OneHotEncoder OrdinalEncoder PolynomialFeatures PowerTransformer QuantileTransformer "
            "RobustScaler SplineTransformer StandardScaler TargetEncoder"
        ),
        "sklearn.random_projection": "GaussianRandomProjection SparseRandomProjection",
        "sklearn.semi_supervised": "LabelPropagation LabelSpreading SelfTrainingClassifier",
        "sklearn.svm": "LinearSVC LinearSVR NuSVC NuSVR OneClassSVM SVC SVR",
        "sklearn.tree": "DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor",
    }
)

INSIDE: Final = _by_name(
    {
        "sklearn._loss.link": "HalfLogitLink IdentityLink Interval LogLink LogitLink MultinomialLogit",
        "sklearn._loss.loss": (
            "AbsoluteError ExponentialLoss HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss HalfPoissonLoss HalfSquaredError "
            "HalfTweedieLoss HalfTweedieLossIdentity HuberLoss PinballLoss"
        ),
        "sklearn.calibration": "_CalibratedClassifier _SigmoidCalibration _TemperatureScaling",
        "sklearn.cluster._birch": "_CFNode _CFSubcluster",
        "sklearn.cluster._bisect_k_means": "_BisectingTree",
        "sklearn.compose": "make_column_selector",
        "sklearn.ensemble._hist_gradient_boosting.binning": "_BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor": "TreePredictor",
        "sklearn.gaussian_process._gpc": "_BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels": (
            "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Matern PairwiseKernel Product RBF RationalQuadratic "
            "Sum WhiteKernel"
        ),
        "sklearn.metrics._scorer": "_CurveScorer _MultimetricScorer _PassthroughScorer _Scorer",
        "sklearn.model_selection": (
            "GroupKFold GroupShuffleSplit KFold LeaveOneGroupOut LeaveOneOut LeavePGroupsOut LeavePOut PredefinedSplit RepeatedKFold "
            "RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold StratifiedKFold StratifiedShuffleSplit TimeSeriesSplit"
        ),
        "sklearn.multiclass": "_ConstantPredictor",
        "sklearn.neural_network._stochastic_optimizers": "AdamOptimizer SGDOptimizer",
        "sklearn.utils": "Bunch",
        "sklearn.utils._metadata_requests": "MetadataRequest MethodMetadataRequest",
    }
)
"""Classes written in Python that fitted estimators hold: objects that are their attributes."""

LOSSES: Final = _by_name(
    {
        "sklearn._loss._loss": (
            "CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss CyHalfPoissonLoss "
            "CyHalfSquaredError CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHuberLoss CyPinballLoss"
        ),
        "sklearn.linear_model._sgd_fast": (
            "EpsilonInsensitive Hinge Huber Log ModifiedHuber SquaredEpsilonInsensitive SquaredHinge SquaredLoss"
        ),
    }
)
"""Losses made in C: each is made anew of its numbers."""

FUNCTIONS: Final = _by_name(
    {
        "numpy": "max mean median min",
        "sklearn.cluster._kmeans": "_kmeans_single_elkan _kmeans_single_lloyd",
        "sklearn.feature_selection": "chi2 f_classif f_oneway f_regression mutual_info_classif mutual_info_regression r_regression",
        "sklearn.metrics": (
            "accuracy_score adjusted_mutual_info_score adjusted_rand_score average_precision_score balanced_accuracy_score "
            "brier_score_loss cohen_kappa_score completeness_score d2_absolute_error_score d2_brier_score d2_log_loss_score "
            "explained_variance_score f1_score fbeta_score fowlkes_mallows_score hamming_loss homogeneity_score jaccard_score log_loss "
            "matthews_corrcoef max_error mean_absolute_error mean_absolute_percentage_error mean_gamma_deviance mean_pinball_loss "
            "mean_poisson_deviance mean_squared_error mean_squared_log_error mean_tweedie_deviance median_absolute_error "
            "mutual_info_score ndcg_score normalized_mutual_info_score precision_score r2_score rand_score recall_score roc_auc_score "
            "root_mean_squared_error root_mean_squared_log_error top_k_accuracy_score v_measure_score zero_one_loss"
        ),
        "sklearn.metrics._scorer": "negative_likelihood_ratio positive_likelihood_ratio",
    }
)

_NUMPY_TYPES: Final = (
    "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128 str_ bytes_ object_ number "
    "integer floating"
)

_CONTAINERS: Final = (list, dict, tuple, set, frozenset, bytearray, slice, range)

TYPES: Final[dict[str, type]] = {kind.__name__: kind for kind in (bool, int, float, complex, str, bytes, object, *_CONTAINERS)} | {
    f"numpy.{name}": getattr(np, name) for name in _NUMPY_TYPES.split()
}
"""Types as values, such as the `dtype=` of an encoder."""

_EXPERIMENTAL: Final = {"HalvingGridSearchCV": "halving_search_cv", "HalvingRandomSearchCV": "halving_search_cv"} | {
    "IterativeImputer": "iterative_imputer"
}


class Unknown(ValueError):  # the room that builds turns it into an error of the family
    """A name that stands in no table."""


def named(name: str, table: Mapping[str, str]) -> Any:
    """What a table's name stands for, imported.

    Raises:
        Unknown: it is not in the table, or not in the scikit-learn that is installed.
    """
    module = table.get(name)
    if module is None:
        raise Unknown(f"{name} is none of scikit-learn's that can be brought back")
    if name in _EXPERIMENTAL:
        importlib.import_module(f"sklearn.experimental.enable_{_EXPERIMENTAL[name]}")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise Unknown(f"the scikit-learn that is installed has no {module}.{name}") from None


def is_known(value: Any, table: Mapping[str, str]) -> bool:
    """Whether a class or function is exactly the one that the table names."""
    name = getattr(value, "__name__", "")
    if name not in table or str(value.__module__).partition(".")[0] not in ("sklearn", "numpy", "_loss"):  # as some releases call it
        return False
    try:
        return named(name, table) is value
    except Unknown:
        return False


def name_of_type(value: type) -> str:
    """The name of a type in `TYPES`, or ""."""
    name = f"numpy.{value.__name__}" if issubclass(value, np.generic) else value.__name__
    if value is np.bool_:
        name = "numpy.bool_"
    return name if TYPES.get(name) is value else ""


def is_function(value: object) -> bool:
    """Whether it is a function of some kind, of which a file can keep the name alone."""
    kinds = (types.FunctionType, types.BuiltinFunctionType, np.ufunc)
    return isinstance(value, kinds) or type(value).__name__ == "_ArrayFunctionDispatcher"


def name_of_function(value: Any) -> str:
    return str(getattr(value, "__qualname__", getattr(value, "__name__", "")))


def is_checker(value: functools.partial[Any]) -> bool:
    """Whether it is what `HistGradientBoosting` checks its numerical columns with: scikit-learn's own function, with settings."""
    return not value.args and getattr(value.func, "__module__", "") == "sklearn.utils.validation" and value.func.__name__ == "check_array"


def is_estimator(value: object) -> bool:
    """Whether it is an estimator in scikit-learn's sense, its own or another's; nothing is imported."""
    base = getattr(sys.modules.get("sklearn.base"), "BaseEstimator", None)
    return base is not None and isinstance(value, base) and not isinstance(value, type)

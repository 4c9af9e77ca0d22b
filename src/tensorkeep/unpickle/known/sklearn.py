"""Names of scikit-learn that fitted models hold: its estimators, and the private classes in them, made from `all_estimators()`
and the classes of its modules, with those of releases back to 0.18. Underscores before the parts of a module, which moved over the
releases, are left out here and in the look-up.
"""

from typing import Final

NAMES: Final[dict[str, str]] = {
    "_loss": (  # what some builds of 1.2 to 1.5 call their own module of losses
        "CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss CyHalfPoissonLoss "
        "CyHalfSquaredError CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHuberLoss CyPinballLoss __pyx_unpickle_CyAbsoluteError "
        "__pyx_unpickle_CyExponentialLoss __pyx_unpickle_CyHalfBinomialLoss __pyx_unpickle_CyHalfGammaLoss "
        "__pyx_unpickle_CyHalfMultinomialLoss __pyx_unpickle_CyHalfPoissonLoss __pyx_unpickle_CyHalfSquaredError "
        "__pyx_unpickle_CyHalfTweedieLoss __pyx_unpickle_CyHalfTweedieLossIdentity __pyx_unpickle_CyHuberLoss "
        "__pyx_unpickle_CyPinballLoss"
    ),
    "sklearn.base": "BaseEstimator",
    "sklearn.calibration": "CalibratedClassifierCV _CalibratedClassifier _SigmoidCalibration _TemperatureScaling",
    "sklearn.callback.base": "AutoPropagatedCallback FitCallback _BaseCallback",
    "sklearn.callback.callback_context": "CallbackContext",
    "sklearn.callback.progressbar": (
        "ProgressBar RichProgressMonitor RichTask _Progress _StyledPercentageColumn _StyledTimeRemainingColumn"
    ),
    "sklearn.callback.scoring_monitor": "ScoringMonitor ScoringMonitorLog",
    "sklearn.callback.transport": "ListenerHandle",
    "sklearn.cluster.affinity_propagation": "AffinityPropagation",
    "sklearn.cluster.agglomerative": "AgglomerativeClustering FeatureAgglomeration",
    "sklearn.cluster.bicluster": "BaseSpectral SpectralBiclustering SpectralCoclustering",
    "sklearn.cluster.birch": "Birch _CFNode _CFSubcluster",
    "sklearn.cluster.bisect_k_means": "BisectingKMeans _BisectingTree",
    "sklearn.cluster.dbscan": "DBSCAN",
    "sklearn.cluster.feature_agglomeration": "AgglomerationTransform",
    "sklearn.cluster.hdbscan.hdbscan": "HDBSCAN",
    "sklearn.cluster.hdbscan.tree": "TreeUnionFind",
    "sklearn.cluster.hierarchical": "AgglomerativeClustering FeatureAgglomeration",
    "sklearn.cluster.hierarchical_fast": "UnionFind WeightedEdge",
    "sklearn.cluster.k_means": "KMeans MiniBatchKMeans",
    "sklearn.cluster.kmeans": "KMeans MiniBatchKMeans _BaseKMeans _kmeans_single_elkan _kmeans_single_lloyd",
    "sklearn.cluster.mean_shift": "MeanShift",
    "sklearn.cluster.optics": "OPTICS",
    "sklearn.cluster.spectral": "SpectralClustering",
    "sklearn.compose.column_transformer": "ColumnTransformer make_column_selector",
    "sklearn.compose.target": "TransformedTargetRegressor",
    "sklearn.covariance.elliptic_envelope": "EllipticEnvelope",
    "sklearn.covariance.empirical_covariance": "EmpiricalCovariance",
    "sklearn.covariance.graph_lasso": "BaseGraphicalLasso GraphicalLasso GraphicalLassoCV",
    "sklearn.covariance.robust_covariance": "MinCovDet",
    "sklearn.covariance.shrunk_covariance": "LedoitWolf OAS ShrunkCovariance",
    "sklearn.cross_decomposition.pls": "CCA PLSCanonical PLSRegression PLSSVD _PLS",
    "sklearn.cross_validation": "KFold StratifiedKFold",
    "sklearn.datasets.base": "Bunch",
    "sklearn.decomposition.base": "_BasePCA",
    "sklearn.decomposition.dict_learning": "DictionaryLearning MiniBatchDictionaryLearning SparseCoder _BaseSparseCoding",
    "sklearn.decomposition.factor_analysis": "FactorAnalysis",
    "sklearn.decomposition.fastica": "FastICA _cube _exp _logcosh",
    "sklearn.decomposition.incremental_pca": "IncrementalPCA",
    "sklearn.decomposition.kernel_pca": "KernelPCA",
    "sklearn.decomposition.lda": "LatentDirichletAllocation",
    "sklearn.decomposition.nmf": "MiniBatchNMF NMF _BaseNMF",
    "sklearn.decomposition.online_lda": "LatentDirichletAllocation",
    "sklearn.decomposition.pca": "PCA ProbabilisticPCA RandomizedPCA",
    "sklearn.decomposition.sparse_pca": "MiniBatchSparsePCA SparsePCA _BaseSparsePCA",
    "sklearn.decomposition.truncated_svd": "TruncatedSVD",
    "sklearn.discriminant_analysis": "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis",
    "sklearn.dummy": "DummyClassifier DummyRegressor",
    "sklearn.ensemble.bagging": "BaggingClassifier BaggingRegressor BaseBagging",
    "sklearn.ensemble.base": "BaseEnsemble _BaseHeterogeneousEnsemble",
    "sklearn.ensemble.forest": (
        "BaseForest ExtraTreesClassifier ExtraTreesRegressor ForestClassifier ForestRegressor RandomForestClassifier "
        "RandomForestRegressor RandomTreesEmbedding"
    ),
    "sklearn.ensemble.gb": "BaseGradientBoosting GradientBoostingClassifier GradientBoostingRegressor VerboseReporter",
    "sklearn.ensemble.gb_losses": (
        "BinomialDeviance ExponentialLoss HuberLossFunction LeastAbsoluteError LeastSquaresError MultinomialDeviance QuantileLossFunction"
    ),
    "sklearn.ensemble.gradient_boosting": (
        "BinomialDeviance GradientBoostingClassifier GradientBoostingRegressor LeastSquaresError LogOddsEstimator MeanEstimator "
        "MultinomialDeviance PriorProbabilityEstimator QuantileEstimator VerboseReporter ZeroEstimator"
    ),
    "sklearn.ensemble.hist_gradient_boosting.binning": "_BinMapper",
    "sklearn.ensemble.hist_gradient_boosting.common": "MonotonicConstraint",
    "sklearn.ensemble.hist_gradient_boosting.gradient_boosting": (
        "BaseHistGradientBoosting HistGradientBoostingClassifier HistGradientBoostingRegressor"
    ),
    "sklearn.ensemble.hist_gradient_boosting.grower": "TreeGrower TreeNode",
    "sklearn.ensemble.hist_gradient_boosting.histogram": "HistogramBuilder",
    "sklearn.ensemble.hist_gradient_boosting.predictor": "TreePredictor",
    "sklearn.ensemble.hist_gradient_boosting.splitting": "SplitInfo Splitter",
    "sklearn.ensemble.iforest": "IsolationForest",
    "sklearn.ensemble.stacking": "StackingClassifier StackingRegressor _BaseStacking",
    "sklearn.ensemble.voting": "VotingClassifier VotingRegressor _BaseVoting",
    "sklearn.ensemble.voting_classifier": "VotingClassifier",
    "sklearn.ensemble.weight_boosting": "AdaBoostClassifier AdaBoostRegressor BaseWeightBoosting",
    "sklearn.externals.joblib.numpy_pickle": "NDArrayWrapper NumpyArrayWrapper",
    "sklearn.feature_extraction.dict_vectorizer": "DictVectorizer",
    "sklearn.feature_extraction.hash": "FeatureHasher",
    "sklearn.feature_extraction.image": "PatchExtractor",
    "sklearn.feature_extraction.text": (
        "CountVectorizer HashingVectorizer TfidfTransformer TfidfVectorizer strip_accents_ascii strip_accents_unicode strip_tags"
    ),
    "sklearn.feature_selection.from_model": "SelectFromModel",
    "sklearn.feature_selection.mutual_info": "mutual_info_classif mutual_info_regression",
    "sklearn.feature_selection.rfe": "RFE RFECV",
    "sklearn.feature_selection.sequential": "SequentialFeatureSelector",
    "sklearn.feature_selection.univariate_selection": (
        "GenericUnivariateSelect SelectFdr SelectFpr SelectFwe SelectKBest SelectPercentile _BaseFilter chi2 f_classif f_oneway "
        "f_regression r_regression"
    ),
    "sklearn.feature_selection.variance_threshold": "VarianceThreshold",
    "sklearn.frozen.frozen": "FrozenEstimator",
    "sklearn.gaussian_process.gpc": "GaussianProcessClassifier _BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.gpr": "GaussianProcessRegressor",
    "sklearn.gaussian_process.kernels": (
        "CompoundKernel ConstantKernel DotProduct ExpSineSquared Exponentiation Hyperparameter Kernel KernelOperator Matern "
        "PairwiseKernel Product RBF RationalQuadratic Sum WhiteKernel"
    ),
    "sklearn.grid_search": "GridSearchCV RandomizedSearchCV _CVScoreTuple",
    "sklearn.hmm": "GaussianHMM",
    "sklearn.impute.base": "MissingIndicator SimpleImputer _BaseImputer",
    "sklearn.impute.iterative": "IterativeImputer _ImputerTriplet",
    "sklearn.impute.knn": "KNNImputer",
    "sklearn.isotonic": "IsotonicRegression",
    "sklearn.kernel_approximation": "AdditiveChi2Sampler Nystroem PolynomialCountSketch RBFSampler SkewedChi2Sampler",
    "sklearn.kernel_ridge": "KernelRidge",
    "sklearn.lda": "LDA",
    "sklearn.linear_model.base": "LinearModel LinearRegression MultiOutputLinearModel",
    "sklearn.linear_model.bayes": "ARDRegression BayesianRidge",
    "sklearn.linear_model.coordinate_descent": (
        "ElasticNet ElasticNetCV Lasso LassoCV LinearModelCV MultiTaskElasticNet MultiTaskElasticNetCV MultiTaskLasso MultiTaskLassoCV"
    ),
    "sklearn.linear_model.glm.glm": "GammaRegressor PoissonRegressor TweedieRegressor _GeneralizedLinearRegressor",
    "sklearn.linear_model.glm.newton_solver": "NewtonCholeskySolver NewtonSolver",
    "sklearn.linear_model.huber": "HuberRegressor",
    "sklearn.linear_model.least_angle": "Lars LarsCV LassoLars LassoLarsCV LassoLarsIC",
    "sklearn.linear_model.linear_loss": "LinearModelLoss",
    "sklearn.linear_model.logistic": "LogisticRegression LogisticRegressionCV _LbfgsCallbackBridge",
    "sklearn.linear_model.omp": "OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV",
    "sklearn.linear_model.passive_aggressive": "PassiveAggressiveClassifier PassiveAggressiveRegressor",
    "sklearn.linear_model.perceptron": "Perceptron",
    "sklearn.linear_model.quantile": "QuantileRegressor",
    "sklearn.linear_model.ransac": "RANSACRegressor",
    "sklearn.linear_model.ridge": (
        "Ridge RidgeCV RidgeClassifier RidgeClassifierCV _BaseRidge _BaseRidgeCV _IdentityClassifier _IdentityRegressor _RidgeGCV "
        "_XT_CenterStackOp _X_CenterStackOp"
    ),
    "sklearn.linear_model.sgd_fast": (
        "Classification EpsilonInsensitive Hinge Huber Log ModifiedHuber Regression SquaredEpsilonInsensitive SquaredHinge SquaredLoss"
    ),
    "sklearn.linear_model.stochastic_gradient": (
        "BaseSGD BaseSGDClassifier BaseSGDRegressor SGDClassifier SGDOneClassSVM SGDRegressor _ValidationScoreCallback"
    ),
    "sklearn.linear_model.theil_sen": "TheilSenRegressor",
    "sklearn.loss.link": "BaseLink HalfLogitLink IdentityLink Interval LogLink LogitLink MultinomialLogit",
    "sklearn.loss.loss": (
        "AbsoluteError BaseLoss CyAbsoluteError CyExponentialLoss CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss "
        "CyHalfPoissonLoss CyHalfSquaredError CyHalfTweedieLoss CyHalfTweedieLossIdentity CyHuberLoss CyLossFunction CyPinballLoss "
        "ExponentialLoss HalfBinomialLoss HalfBinomialLossArrayAPI HalfGammaLoss HalfMultinomialLoss HalfMultinomialLossArrayAPI "
        "HalfPoissonLoss HalfPoissonLossArrayAPI HalfSquaredError HalfTweedieLoss HalfTweedieLossIdentity HuberLoss PinballLoss"
    ),
    "sklearn.manifold.classical_mds": "ClassicalMDS",
    "sklearn.manifold.isomap": "Isomap",
    "sklearn.manifold.locally_linear": "LocallyLinearEmbedding",
    "sklearn.manifold.mds": "MDS",
    "sklearn.manifold.spectral_embedding": "SpectralEmbedding",
    "sklearn.manifold.t_sne": "TSNE",
    "sklearn.metrics.classification": (
        "accuracy_score balanced_accuracy_score brier_score_loss cohen_kappa_score f1_score fbeta_score hamming_loss jaccard_score "
        "log_loss matthews_corrcoef precision_score recall_score zero_one_loss"
    ),
    "sklearn.metrics.dist_metrics": (
        "BrayCurtisDistance32 BrayCurtisDistance64 CanberraDistance32 CanberraDistance64 ChebyshevDistance32 ChebyshevDistance64 "
        "DiceDistance32 DiceDistance64 DistanceMetric DistanceMetric32 DistanceMetric64 EuclideanDistance EuclideanDistance32 "
        "EuclideanDistance64 HammingDistance32 HammingDistance64 HaversineDistance32 HaversineDistance64 JaccardDistance32 "
        "JaccardDistance64 KulsinskiDistance32 KulsinskiDistance64 MahalanobisDistance32 MahalanobisDistance64 ManhattanDistance32 "
        "ManhattanDistance64 MatchingDistance32 MatchingDistance64 MinkowskiDistance MinkowskiDistance32 MinkowskiDistance64 "
        "PyFuncDistance32 PyFuncDistance64 RogersTanimotoDistance32 RogersTanimotoDistance64 RussellRaoDistance32 "
        "RussellRaoDistance64 SEuclideanDistance32 SEuclideanDistance64 SokalMichenerDistance32 SokalMichenerDistance64 "
        "SokalSneathDistance32 SokalSneathDistance64 newObj"
    ),
    "sklearn.metrics.pairwise": (
        "additive_chi2_kernel chi2_kernel cosine_distances cosine_similarity euclidean_distances laplacian_kernel linear_kernel "
        "manhattan_distances polynomial_kernel rbf_kernel sigmoid_kernel"
    ),
    "sklearn.metrics.pairwise_distances_reduction.argkmin": "ArgKmin32 ArgKmin64 EuclideanArgKmin32 EuclideanArgKmin64",
    "sklearn.metrics.pairwise_distances_reduction.argkmin_classmode": "ArgKminClassMode32 ArgKminClassMode64",
    "sklearn.metrics.pairwise_distances_reduction.base": "BaseDistancesReduction32 BaseDistancesReduction64",
    "sklearn.metrics.pairwise_distances_reduction.dispatcher": (
        "ArgKmin ArgKminClassMode BaseDistancesReductionDispatcher RadiusNeighbors RadiusNeighborsClassMode"
    ),
    "sklearn.metrics.pairwise_distances_reduction.middle_term_computer": (
        "DenseDenseMiddleTermComputer32 DenseDenseMiddleTermComputer64 MiddleTermComputer32 MiddleTermComputer64 "
        "SparseDenseMiddleTermComputer32 SparseDenseMiddleTermComputer64 SparseSparseMiddleTermComputer32 "
        "SparseSparseMiddleTermComputer64"
    ),
    "sklearn.metrics.pairwise_distances_reduction.radius_neighbors": (
        "EuclideanRadiusNeighbors32 EuclideanRadiusNeighbors64 RadiusNeighbors32 RadiusNeighbors64"
    ),
    "sklearn.metrics.pairwise_distances_reduction.radius_neighbors_classmode": "RadiusNeighborsClassMode32 RadiusNeighborsClassMode64",
    "sklearn.metrics.ranking": "average_precision_score ndcg_score roc_auc_score top_k_accuracy_score",
    "sklearn.metrics.regression": (
        "explained_variance_score max_error mean_absolute_error mean_absolute_percentage_error mean_squared_error "
        "mean_squared_log_error median_absolute_error r2_score root_mean_squared_error"
    ),
    "sklearn.metrics.scorer": (
        "_BaseScorer _CurveScorer _MultimetricScorer _PassthroughScorer _Scorer _passthrough_scorer accuracy_scorer make_scorer"
    ),
    "sklearn.mixture.base": "BaseMixture",
    "sklearn.mixture.bayesian_mixture": "BayesianGaussianMixture",
    "sklearn.mixture.gaussian_mixture": "GaussianMixture",
    "sklearn.mixture.gmm": "GMM",
    "sklearn.model_selection.classification_threshold": "BaseThresholdClassifier FixedThresholdClassifier TunedThresholdClassifierCV",
    "sklearn.model_selection.search": "BaseSearchCV GridSearchCV ParameterGrid ParameterSampler RandomizedSearchCV",
    "sklearn.model_selection.search_successive_halving": (
        "BaseSuccessiveHalving HalvingGridSearchCV HalvingRandomSearchCV _SubsampleMetaSplitter"
    ),
    "sklearn.model_selection.split": (
        "BaseCrossValidator BaseShuffleSplit GroupKFold GroupShuffleSplit KFold LeaveOneGroupOut LeaveOneOut LeavePGroupsOut "
        "LeavePOut PredefinedSplit RepeatedKFold RepeatedStratifiedKFold ShuffleSplit StratifiedGroupKFold StratifiedKFold "
        "StratifiedShuffleSplit TimeSeriesSplit _BaseKFold _CVIterableWrapper _RepeatedSplits"
    ),
    "sklearn.multiclass": "OneVsOneClassifier OneVsRestClassifier OutputCodeClassifier _ConstantPredictor",
    "sklearn.multioutput": "ClassifierChain MultiOutputClassifier MultiOutputRegressor RegressorChain _BaseChain _MultiOutputEstimator",
    "sklearn.naive_bayes": "BernoulliNB CategoricalNB ComplementNB GaussianNB MultinomialNB _BaseDiscreteNB _BaseNB",
    "sklearn.neighbors.ball_tree": (
        "BallTree BallTree32 BallTree64 BinaryTree32 BinaryTree64 NeighborsHeap32 NeighborsHeap64 NodeHeap newObj"
    ),
    "sklearn.neighbors.base": "NeighborsBase VALID_METRICS",
    "sklearn.neighbors.binary_tree": "newObj",
    "sklearn.neighbors.classification": "KNeighborsClassifier RadiusNeighborsClassifier",
    "sklearn.neighbors.dist_metrics": "ChebyshevDistance EuclideanDistance ManhattanDistance MinkowskiDistance newObj",
    "sklearn.neighbors.graph": "KNeighborsTransformer RadiusNeighborsTransformer",
    "sklearn.neighbors.kd_tree": "BinaryTree32 BinaryTree64 KDTree KDTree32 KDTree64 NeighborsHeap32 NeighborsHeap64 NodeHeap newObj",
    "sklearn.neighbors.kde": "KernelDensity",
    "sklearn.neighbors.lof": "LocalOutlierFactor",
    "sklearn.neighbors.nca": "NeighborhoodComponentsAnalysis",
    "sklearn.neighbors.nearest_centroid": "NearestCentroid",
    "sklearn.neighbors.quad_tree": "_QuadTree newObj",
    "sklearn.neighbors.regression": "KNeighborsRegressor RadiusNeighborsRegressor",
    "sklearn.neighbors.unsupervised": "NearestNeighbors",
    "sklearn.neural_network.multilayer_perceptron": "BaseMultilayerPerceptron MLPClassifier MLPRegressor",
    "sklearn.neural_network.rbm": "BernoulliRBM",
    "sklearn.neural_network.stochastic_optimizers": "AdamOptimizer BaseOptimizer SGDOptimizer",
    "sklearn.pipeline": "FeatureUnion Pipeline",
    "sklearn.preprocessing.data": (
        "Binarizer KernelCenterer MaxAbsScaler MinMaxScaler Normalizer OneHotEncoder PolynomialFeatures PowerTransformer "
        "QuantileTransformer RobustScaler StandardScaler add_dummy_feature"
    ),
    "sklearn.preprocessing.discretization": "KBinsDiscretizer",
    "sklearn.preprocessing.encoders": "OneHotEncoder OrdinalEncoder _BaseEncoder",
    "sklearn.preprocessing.function_transformer": "FunctionTransformer _identity",
    "sklearn.preprocessing.imputation": "Imputer",
    "sklearn.preprocessing.label": "LabelBinarizer LabelEncoder MultiLabelBinarizer",
    "sklearn.preprocessing.polynomial": "PolynomialFeatures SplineTransformer",
    "sklearn.preprocessing.target_encoder": "TargetEncoder",
    "sklearn.qda": "QDA",
    "sklearn.random_projection": "BaseRandomProjection GaussianRandomProjection SparseRandomProjection",
    "sklearn.semi_supervised.label_propagation": "BaseLabelPropagation LabelPropagation LabelSpreading",
    "sklearn.semi_supervised.self_training": "SelfTrainingClassifier",
    "sklearn.svm.base": "BaseLibSVM BaseSVC",
    "sklearn.svm.classes": "LinearSVC LinearSVR NuSVC NuSVR OneClassSVM SVC SVR",
    "sklearn.tree.classes": "BaseDecisionTree DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor",
    "sklearn.tree.criterion": "ClassificationCriterion Criterion Entropy Gini MAE MSE Poisson RegressionCriterion",
    "sklearn.tree.export": "Sentinel _BaseTreeExporter _DOTTreeExporter _MPLTreeExporter",
    "sklearn.tree.partitioner": "DensePartitioner SparsePartitioner",
    "sklearn.tree.reingold_tilford": "DrawTree Tree",
    "sklearn.tree.splitter": "BestSparseSplitter BestSplitter RandomSparseSplitter RandomSplitter Splitter",
    "sklearn.tree.tree": (
        "BestFirstTreeBuilder DecisionTreeClassifier DecisionTreeRegressor DepthFirstTreeBuilder ExtraTreeClassifier "
        "ExtraTreeRegressor Tree TreeBuilder _AlphaPruner _CCPPruneController _PathFinder"
    ),
    "sklearn.tree.utils": "PytestWeightedFenwickTree WeightedFenwickTree",
    "sklearn.utils": "Bunch",
    "sklearn.utils.bunch": "Bunch",
    "sklearn.utils.cython_blas": "BLAS_Order BLAS_Trans",
    "sklearn.utils.encode": "MissingValues _NaNCounter _nandict",
    "sklearn.utils.fast_dict": "IntFloatDict",
    "sklearn.utils.isfinite": "FiniteStatus",
    "sklearn.utils.metadata_requests": "MetadataRequest MethodMetadataRequest",
    "sklearn.utils.seq_dataset": "ArrayDataset32 ArrayDataset64 CSRDataset32 CSRDataset64 SequentialDataset32 SequentialDataset64",
    "sklearn.utils.tags": "ClassifierTags InputTags RegressorTags Tags TargetTags TransformerTags",
    "sklearn.utils.vector_sentinel": (
        "StdVectorSentinel StdVectorSentinelFloat64 StdVectorSentinelInt32 StdVectorSentinelInt64 StdVectorSentinelIntP"
    ),
    "sklearn.utils.weight_vector": "WeightVector32 WeightVector64",
}

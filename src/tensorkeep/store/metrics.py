"""Metrics: whether less or more is better, by the names that everybody uses."""

import re
from typing import Final

from tensorkeep.store.manifest import Direction

_LESS: Final = frozenset(
    (
        "loss", "error", "err", "perplexity", "ppl", "mae", "mse", "rmse", "mape", "smape", "msle", "rmsle", "nll", "bce",
        "cross_entropy", "crossentropy", "wer", "cer", "eer", "fid", "bpb", "bpc", "bpd",
    )
)  # fmt: skip
_MORE: Final = frozenset(
    (
        "accuracy", "acc", "precision", "recall", "sensitivity", "specificity", "f1", "auc", "auroc", "roc_auc", "auprc", "ap",
        "map", "mrr", "ndcg", "r2", "iou", "miou", "dice", "bleu", "sacrebleu", "chrf", "rouge", "rouge_l", "rougel", "rougelsum",
        "rouge_lsum", "meteor", "cider", "bertscore", "reward", "return", "psnr", "ssim", "mcc", "exact_match", "log_likelihood",
    )
)  # fmt: skip
_WORDS: Final = re.compile(r"[^a-z0-9]+")


def known_direction(metric: str) -> Direction | None:
    """Whether less or more of a metric is better; None where its name does not say.

    Example:
        >>> known_direction("val/loss"), known_direction("top5_accuracy"), known_direction("temperature")
        ('min', 'max', None)
    """
    words = [word for word in _WORDS.split(metric.lower()) if word]
    for name in ("_".join(words[-2:]), *words[-1:]):
        for spelled in (name, name.rstrip("0123456789")):
            if spelled in _LESS:
                return "min"
            if spelled in _MORE:
                return "max"
    return None

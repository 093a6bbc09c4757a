"""How good predictions are, computed by scikit-learn, torchmetrics and SciPy."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)
from torchmetrics.functional.classification import multiclass_calibration_error

from nightshift.errors import InputError

Labels = NDArray[np.int64]
Shares = NDArray[np.float32]
LIKELIEST: Final = 5  # classes among which the label is looked for, where there are more than that
BINS: Final = 15  # of confidence, for the calibration error
RESAMPLES: Final = 1000


class Quality(NamedTuple):
    """Shares from 0 to 1. Without another word they are means over the classes that have images (macro).

    `per_class` gives precision, recall, f1 and images of each class that has images, and roc_auc and
    average_precision where not all images are of it. The rows of `confusion` are true classes and its columns
    predicted ones.
    """

    images: int
    accuracy: float
    interval: tuple[float, float]
    top_k: float
    k: int
    precision: float
    recall: float
    f1: float
    f1_interval: tuple[float, float]
    weighted_precision: float
    weighted_f1: float
    roc_auc: float | None
    average_precision: float | None
    brier: float
    calibration_error: float
    per_class: dict[str, dict[str, float]]
    confusion: tuple[tuple[int, ...], ...]


def judge(labels: Labels, predicted: Labels, probabilities: Shares, classes: Sequence[str]) -> Quality:
    """Compare predictions with labels, both int64 [N] indices into `classes`, and float32 [N,K] with labels.

    A prediction of -1 stands for a class outside `classes`: it is wrong and in no column of the confusion
    matrix. Raises InputError when there is nothing to compare or probabilities are not finite.
    """
    if len(labels) == 0 or len(labels) != len(predicted):
        raise InputError(
            f"scoring needs labels and as many predictions, got {len(labels)} and {len(predicted)}"
        )
    if not np.isfinite(probabilities).all():
        bad = int((~np.isfinite(probabilities).all(axis=1)).sum())
        raise InputError(
            f"probabilities must be finite numbers, got others for {bad} of {len(labels)} images; the model "
            "is broken, train it again"
        )
    indices, right = np.arange(len(classes)), labels == predicted
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=indices, average=None, zero_division=0
    )
    present, weights = support > 0, support / support.sum()
    curves = _areas(labels, probabilities, present)
    columns = {"precision": precision, "recall": recall, "f1": f1, "images": support.astype(float)}
    per_class = {
        name: {key: float(values[index]) for key, values in columns.items()} | curves.get(index, {})
        for index, name in enumerate(classes)
        if present[index]
    }
    confusion = _confusion(labels, predicted, len(classes))
    k = max(1, min(LIKELIEST, len(classes) - 1))
    return Quality(
        images=len(labels),
        accuracy=float(right.mean()),
        interval=_wilson(right),
        top_k=_top_k(labels, probabilities, k),
        k=k,
        precision=float(precision[present].mean()),
        recall=float(recall[present].mean()),
        f1=float(f1[present].mean()),
        f1_interval=_f1_interval(labels, predicted, len(classes)),
        weighted_precision=float(precision @ weights),
        weighted_f1=float(f1 @ weights),
        roc_auc=_mean([row["roc_auc"] for row in curves.values()]),
        average_precision=_mean([row["average_precision"] for row in curves.values()]),
        brier=float(np.square(probabilities - np.eye(len(classes), dtype=np.float32)[labels]).sum(1).mean()),
        calibration_error=_calibration_error(labels, probabilities),
        per_class=per_class,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def _areas(labels: Labels, probabilities: Shares, present: NDArray[np.bool_]) -> dict[int, dict[str, float]]:
    """Areas below the curves of each class against all others, by its index."""
    found = {}
    columns = np.ascontiguousarray(probabilities.T)  # of a thousand classes, strides take most of the time
    for index in np.flatnonzero(present):
        positive = labels == index
        if not positive.all():
            found[int(index)] = {
                "roc_auc": float(roc_auc_score(positive, columns[index])),
                "average_precision": float(average_precision_score(positive, columns[index])),
            }
    return found


def _confusion(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    inside = predicted >= 0
    if not inside.any():
        return np.zeros((classes, classes), np.int64)
    found: NDArray[np.int64] = confusion_matrix(labels[inside], predicted[inside], labels=np.arange(classes))
    return found


def _wilson(right: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), which stays an interval where all images are right."""
    found = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _top_k(labels: Labels, probabilities: Shares, k: int) -> float:
    classes = probabilities.shape[1]
    if classes == 2:  # scikit-learn takes the second column only
        return float((probabilities.argmax(1) == labels).mean())
    return float(top_k_accuracy_score(labels, probabilities, k=k, labels=np.arange(classes)))


def _f1_interval(labels: Labels, predicted: Labels, classes: int) -> tuple[float, float]:
    """95 % bootstrap interval of the macro F1, over the images (Efron 1979; percentiles).

    To draw images again is to draw numbers of images for the cells of the confusion matrix.
    """
    cells, counts = np.unique(labels * (classes + 1) + predicted + 1, return_counts=True)
    true, said = np.divmod(cells, classes + 1)
    said -= 1
    draws = np.random.default_rng(0).multinomial(len(labels), counts / len(labels), RESAMPLES).astype(float)
    rows = np.eye(classes)[true]
    columns = np.where(said[:, None] >= 0, np.eye(classes)[said], 0.0)
    both = draws @ rows + draws @ columns  # [RESAMPLES, K]: images of the class and images said to be of it
    hits = draws @ (rows * (true == said)[:, None])
    f1 = np.divide(2 * hits, both, out=np.zeros_like(both), where=both > 0)
    present = draws @ rows > 0
    macro = f1.sum(1, where=present) / present.sum(1)
    low, high = np.quantile(macro, (0.025, 0.975))
    return float(low), float(high)


def _calibration_error(labels: Labels, probabilities: Shares) -> float:
    """Expected calibration error (Guo et al. 2017)."""
    # Rounding can lift a sum of probabilities a little above one, which torchmetrics takes for logits.
    shares = torch.from_numpy(probabilities.clip(0, 1))
    return float(
        multiclass_calibration_error(
            shares, torch.from_numpy(labels), num_classes=probabilities.shape[1], n_bins=BINS
        )
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None

"""ROC and precision-recall curves of every class against all others, computed by scikit-learn."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from nightshift.records import Curve

POINTS: Final = 200


def curves(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], classes: Sequence[str]
) -> tuple[Curve, ...]:
    """Of int64 [N] and float32 [N,K]; classes that no image, or every image, is of have none."""
    found = []
    columns = np.ascontiguousarray(probabilities.T)  # of a thousand classes, strides take most of the time
    for index, name in enumerate(classes):
        positive, share = labels == index, columns[index]
        if not positive.any() or positive.all():
            continue
        false_positive, true_positive, _ = roc_curve(positive, share)
        precision, recall, _ = precision_recall_curve(positive, share)
        some, others = _thinned(len(false_positive)), _thinned(len(precision))
        found.append(
            Curve(
                name=name,
                false_positive_rate=_numbers(false_positive[some]),
                true_positive_rate=_numbers(true_positive[some]),
                recall=_numbers(recall[others]),
                precision=_numbers(precision[others]),
                roc_auc=float(auc(false_positive, true_positive)),
                average_precision=float(average_precision_score(positive, share)),
            )
        )
    return tuple(found)


def _thinned(count: int) -> NDArray[np.int64]:
    """Evenly spread indices, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(np.int64))


def _numbers(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(values.round(5).tolist())

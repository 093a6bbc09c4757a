"""Accuracy, precision, recall, F1 and the confusion matrix of predictions, computed by scikit-learn."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tasks.errors import InputError


class Quality(NamedTuple):
    """Shares from 0 to 1; precision, recall and F1 are means over the classes that have images (macro).

    `per_class` gives precision, recall, f1 and images of each class that has images. The rows of `confusion`
    are true classes and its columns predicted ones.
    """

    images: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    per_class: dict[str, dict[str, float]]
    confusion: tuple[tuple[int, ...], ...]


def judge(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]) -> Quality:
    """Compare predictions with labels, both int64 [N] indices into `classes`.

    A prediction of -1 stands for a class outside `classes`: it is wrong and in no column of the confusion
    matrix. Raises InputError when there is nothing to compare.
    """
    if len(labels) == 0 or len(labels) != len(predicted):
        raise InputError(
            f"scoring needs labels and as many predictions, got {len(labels)} and {len(predicted)}"
        )
    indices = np.arange(len(classes))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=indices, average=None, zero_division=0
    )
    present = support > 0
    per_class = {
        name: {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "images": float(support[index]),
        }
        for index, name in enumerate(classes)
        if present[index]
    }
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    inside = predicted >= 0
    if inside.any():
        confusion = confusion_matrix(labels[inside], predicted[inside], labels=indices)
    return Quality(
        images=len(labels),
        accuracy=float(np.mean(labels == predicted)),
        precision=float(precision[present].mean()),
        recall=float(recall[present].mean()),
        f1=float(f1[present].mean()),
        per_class=per_class,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )

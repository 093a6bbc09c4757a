"""Which images a person should look at: the hardest, the confidently wrong, and labels that may be errors."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

LIMIT: Final = 12
Labels = NDArray[np.int64]
Shares = NDArray[np.float32]


def hardest(labels: Labels, probabilities: Shares, limit: int = LIMIT) -> Labels:
    """Rows of int64 [N] and float32 [N,K] whose label gets the least, the worst first."""
    own = _own(labels, probabilities)
    return np.argsort(own, kind="stable")[:limit]


def confidently_wrong(labels: Labels, predicted: Labels, probabilities: Shares, limit: int = LIMIT) -> Labels:
    """Rows of wrong predictions, the most confident first."""
    wrong = np.flatnonzero(predicted != labels)
    return wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")][:limit]


def suspects(labels: Labels, probabilities: Shares, limit: int = LIMIT) -> Labels:
    """Rows whose label may be an error, the likeliest first.

    Confident learning (Northcutt, Jiang and Chuang 2021): an image counts for another class when it gets at
    least what that class's own images get on average there, and is ranked by how much more than its label.
    """
    own = _own(labels, probabilities)
    count = np.bincount(labels, minlength=probabilities.shape[1])
    total = np.bincount(labels, weights=own, minlength=probabilities.shape[1])
    thresholds = np.divide(total, count, out=np.full(len(count), np.inf), where=count > 0)
    above = np.where(probabilities >= thresholds, probabilities, -1.0)
    other = above.argmax(1)
    suspected = np.flatnonzero((above.max(1) >= 0) & (other != labels))
    margin = own[suspected] - probabilities[suspected, other[suspected]]
    return suspected[np.argsort(margin, kind="stable")][:limit]


def _own(labels: Labels, probabilities: Shares) -> Shares:
    """What each image's label gets, float32 [N]."""
    found: Shares = probabilities[np.arange(len(labels)), labels]
    return found
